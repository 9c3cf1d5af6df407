-- Gives a collection a policy (null: none), making the collection where it is not there yet.
drop function if exists journal.set_policy(int, text, text);
create or replace function journal.set_policy(
  of_journal int, collection_name text, new_policy text, operator text default current_user) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  new_turn bigint;
begin
  update journal.head h set turn = h.turn + 1 where h.journal_id = of_journal returning h.turn into new_turn;
  if not found then
    return; -- the journal was removed: nothing of it may stay
  end if;
  insert into journal.collection (journal_id, id, name, policy)
  select of_journal, coalesce(max(k.id), 0) + 1, collection_name, new_policy
    from journal.collection k where k.journal_id = of_journal
  on conflict (journal_id, name) do update set policy = excluded.policy;
  perform journal.note(of_journal, operator, 'policy', json_build_object(
    'collection', collection_name, 'policy', new_policy));
  perform pg_notify('journal', of_journal || ':' || new_turn);
end
$$;
