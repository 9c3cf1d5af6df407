-- Makes a journal, empty and in an epoch of its own; false where one of that name is there.
create or replace function journal.create(journal_name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  made int;
begin
  insert into journal.journal (name) values (journal_name) on conflict (name) do nothing returning id into made;
  if made is null then
    return false;
  end if;
  insert into journal.head (journal_id, epoch)
  values (made, substring(decode(replace(gen_random_uuid()::text, '-', ''), 'hex') from 1 for 6));
  return true;
end
$$;
