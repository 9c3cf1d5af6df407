-- The whole state.

-- Every living atom, a line of JSON each, in no particular order ($2: of these collections only).
prepare snapshot_lines (int, int[]) as
select '{"collection":' || to_json(k.name)::text
       || ',"atom":' || to_json(a.atom)::text
       || ',"revision":' || a.revision
       || ',"data":' || a.data::text || '}'
  from journal.atom a
  join journal.collection k on k.journal_id = a.journal_id and k.id = a.collection_id
 where a.journal_id = $1
   and ($2 is null or a.collection_id = any($2))
   and not a.deleted;
