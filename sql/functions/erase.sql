-- Blanks the data of a deleted atom in every change that is still there: a door of journal.refuse. The caller holds
-- the journal's head, and has recorded the delete. Gives the revisions of the atom's changes; which of them are blanked
-- now is the count.
create or replace function journal.erase(
  of_journal int, of_collection int, of_atom text, out revisions bigint[], out blanked bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  new_turn bigint;
begin
  with recursive walk as (
    select x.revision, x.prev from journal.atom a
      join journal.change x on x.journal_id = a.journal_id and x.revision = a.revision
     where a.journal_id = of_journal and a.collection_id = of_collection and a.atom = of_atom and a.deleted
    union all
    select x.revision, x.prev from walk w
     cross join lateral (
       select x.revision, x.prev from journal.change x
        where x.journal_id = of_journal and x.revision = w.prev limit 1) x)
  select coalesce(array_agg(w.revision), '{}') into revisions from walk w;
  perform set_config('journal.door', 'erase', true);
  update journal.change x
     set erased = sha256(convert_to(x.data::text, 'UTF8')), data = null
   where x.journal_id = of_journal and x.revision = any(revisions) and x.data is not null;
  get diagnostics blanked = row_count;
  perform set_config('journal.door', '', true);
  update journal.atom a set fk = '{}', fr = '{}'
   where a.journal_id = of_journal and a.collection_id = of_collection and a.atom = of_atom and a.deleted;
  update journal.head h set erased = h.head, turn = h.turn + 1
   where h.journal_id = of_journal returning h.turn into new_turn;
  perform pg_notify('journal', of_journal || ':' || new_turn);
end
$$;

-- Blanks what is kept in conflicts of an atom, or became it as the copy of another; in how many. The caller holds the
-- journal's head.
create or replace function journal.erase_conflicts(of_journal int, of_collection text, of_atom text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  blanked bigint;
begin
  update journal.conflict c
     set data = null, stood_data = null, erased = true
   where c.journal_id = of_journal
     and c.collection = of_collection
     and (c.atom = of_atom or c.copy = of_atom)
     and not c.erased;
  get diagnostics blanked = row_count;
  return blanked;
end
$$;
