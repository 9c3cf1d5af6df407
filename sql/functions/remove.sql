-- Removes a journal as a whole; false where there is none. Its record goes with it: a door of journal.refuse.
create or replace function journal.remove(journal_name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  removed int;
begin
  select j.id into removed from journal.journal j where j.name = journal_name for update;
  if removed is null then
    return false;
  end if;
  perform set_config('journal.door', 'remove', true);
  perform 1 from journal.head h where h.journal_id = removed for update;
  delete from journal.ticket where journal_id = removed;
  delete from journal.owner where journal_id = removed;
  delete from journal.conflict where journal_id = removed;
  delete from journal.audit where journal_id = removed;
  delete from journal.operation where journal_id = removed;
  delete from journal.kept where journal_id = removed;
  delete from journal.registry where journal_id = removed;
  delete from journal.floor where journal_id = removed;
  delete from journal.idempotency where journal_id = removed;
  delete from journal.push where journal_id = removed;
  delete from journal.client where journal_id = removed;
  delete from journal.atom where journal_id = removed;
  delete from journal.change where journal_id = removed;
  delete from journal.commit where journal_id = removed;
  delete from journal.collection where journal_id = removed;
  delete from journal.head where journal_id = removed;
  delete from journal.journal where id = removed;
  perform set_config('journal.door', '', true);
  perform pg_notify('journal', removed || ':-');
  return true;
end
$$;
