-- Refuses a change of history, whoever asks (docs/properties.md, P2).
--
-- A door is a function of this schema that sets journal.door for its own transaction, and each leads to one thing:
-- `remove` to a journal's end as a whole, `compact` to what is at or below the horizon, `erase` to a hash in place of
-- data. What went through is looked at afterwards, row by row.
create or replace function journal.refuse() returns trigger
language plpgsql as $$
declare
  door text := current_setting('journal.door', true);
begin
  if (tg_op = 'DELETE' and door in ('remove', 'compact'))
     or (tg_op = 'UPDATE' and door = 'erase' and tg_table_name = 'change') then
    return null;
  end if;
  raise exception 'journal.% is append-only: % is refused', tg_table_name, lower(tg_op)
    using errcode = 'JR003';
end
$$;

-- What compaction removes is at or below the horizon, and the horizon's own commit stays.
create or replace function journal.refuse_above_horizon() returns trigger
language plpgsql as $$
begin
  if current_setting('journal.door', true) = 'compact' and exists (
    select from gone g join journal.head h on h.journal_id = g.journal_id
     where g.revision > h.horizon or (g.revision = h.horizon and tg_table_name = 'commit'))
  then
    raise exception 'journal.% above the horizon is not removed', tg_table_name using errcode = 'JR003';
  end if;
  return null;
end
$$;

-- What erasure does is to put the hash of data in its place.
create or replace function journal.refuse_all_but_blanking() returns trigger
language plpgsql as $$
begin
  if (select count(*) from was) <> (select count(*) from now_is) or exists (
    select from was w left join now_is n on n.journal_id = w.journal_id and n.revision = w.revision
     where (n.collection_id, n.atom, n.op, n.unset, n.prev)
           is distinct from (w.collection_id, w.atom, w.op, w.unset, w.prev)
        or n.data is not null or w.data is null or n.erased is distinct from sha256(convert_to(w.data::text, 'UTF8')))
  then
    raise exception 'journal.change is append-only: only its data can be blanked' using errcode = 'JR003';
  end if;
  return null;
end
$$;

create or replace trigger change_is_append_only
before update or delete or truncate on journal.change
for each statement execute function journal.refuse();

create or replace trigger commit_is_append_only
before update or delete or truncate on journal.commit
for each statement execute function journal.refuse();

create or replace trigger change_goes_below_the_horizon
after delete on journal.change
referencing old table as gone
for each statement execute function journal.refuse_above_horizon();

create or replace trigger commit_goes_below_the_horizon
after delete on journal.commit
referencing old table as gone
for each statement execute function journal.refuse_above_horizon();

create or replace trigger change_is_only_blanked
after update on journal.change
referencing old table as was new table as now_is
for each statement execute function journal.refuse_all_but_blanking();
