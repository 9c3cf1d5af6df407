-- Raises the turn of journal.door when tokens change, whoever changes them, and tells all processes. That a token was
-- used is no change.
create or replace function journal.tokens_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  new_turn bigint;
begin
  update journal.door d set turn = d.turn + 1 returning d.turn into new_turn;
  perform pg_notify('journal_door', new_turn::text);
  return null;
end
$$;

create or replace trigger token_changes_are_told
after insert or delete or truncate or update of hash, name, grants, expires_at, revoked_at on journal.token
for each statement execute function journal.tokens_changed();
