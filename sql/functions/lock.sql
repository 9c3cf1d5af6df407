-- Holds the heads of journals until the transaction ends, in the order that all hold them in; for who may only read them
-- too. A caller that has no lock_timeout waits as long as journal.append does.
create or replace function journal.lock(journal_ids int[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '250ms', true);
  end if;
  perform 1 from journal.head h where h.journal_id = any(journal_ids) order by h.journal_id for update;
end
$$;
