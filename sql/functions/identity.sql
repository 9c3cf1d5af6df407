-- Which PostgreSQL this is, as far as it tells: a hosted one may keep it from everybody who is no superuser (null). The
-- timeline of a standby is null too. Runs as the owner, who may have been given the right to ask.
create or replace function journal.identity(out system text, out timeline int)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  begin
    select s.system_identifier::text into system from pg_control_system() s;
    if not pg_is_in_recovery() then
      timeline := ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int;
    end if;
  exception when insufficient_privilege or feature_not_supported or undefined_function then
    system := null;
    timeline := null;
  end;
end
$$;
