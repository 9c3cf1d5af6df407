-- Refuses a change of history, whoever asks (docs/properties.md, P2).
--
-- A door is a function of this schema that sets journal.door for its own transaction: journal.remove is
-- the only one so far.
create or replace function journal.refuse() returns trigger
language plpgsql as $$
begin
  if tg_op = 'DELETE' and current_setting('journal.door', true) = 'remove' then
    return null;
  end if;
  raise exception 'journal.% is append-only: % is refused', tg_table_name, lower(tg_op)
    using errcode = 'JR003';
end
$$;

create or replace trigger change_is_append_only
before update or delete or truncate on journal.change
for each statement execute function journal.refuse();

create or replace trigger commit_is_append_only
before update or delete or truncate on journal.commit
for each statement execute function journal.refuse();
