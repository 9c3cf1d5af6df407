-- Verification: what an index of places is made of, and atoms by name.

-- Where a journal stands, and nothing else of it.
prepare standing (int) as
select h.epoch, h.head, h.chain, h.turn
  from journal.head h
 where h.journal_id = $1;

-- How many atoms have changed after a revision, counted as far as $3. Reads the index atom_revision.
prepare changed_after (int, bigint, int) as
select count(*)
  from (select from journal.atom a where a.journal_id = $1 and a.revision > $2 limit $3) changed;

-- The atoms that have changed after a revision, a line [collection, atom, revision, data] each, in no particular
-- order: of those that do not live any more the data is null; from the start they are left out.
prepare place_lines (int, bigint) as
select '[' || to_json(k.name)::text || ',' || to_json(a.atom)::text || ',' || a.revision
       || ',' || coalesce(a.data::text, 'null') || ']'
  from journal.atom a
  join journal.collection k on k.journal_id = a.journal_id and k.id = a.collection_id
 where a.journal_id = $1
   and a.revision > $2
   and ($2 > 0 or not a.deleted);

-- Atoms by name, each after a text of the caller's ($4): revision and data, or null where it does not live.
prepare lookup_lines (int, int[], text[], text[]) as
select n.before || coalesce('{"revision":' || a.revision || ',"data":' || a.data::text || '}', 'null')
  from unnest($2, $3, $4) with ordinality as n (collection_id, atom, before, place)
  left join journal.atom a
         on a.journal_id = $1 and a.collection_id = n.collection_id and a.atom = n.atom and not a.deleted
 order by n.place;
