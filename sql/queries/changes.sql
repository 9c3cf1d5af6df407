-- The record itself.

-- The last commit of a page of at most $3 changes, in whole commits and at least one, after a revision.
prepare changes_end (int, bigint, bigint) as
select coalesce(
         (select max(c.revision) from journal.commit c
           where c.journal_id = $1 and c.revision > $2 and c.revision <= f.before + $3),
         f.revision) as until
  from (select c.revision, c.first - 1 as before from journal.commit c
         where c.journal_id = $1 and c.revision > $2 order by c.revision limit 1) f;

-- Those commits, a line of JSON each. A commit's changes are read along the primary key.
prepare commit_lines (int, bigint, bigint) as
select '{"epoch":"' || encode(c.epoch, 'hex') || '","first":' || c.first || ',"revision":' || c.revision
       || ',"client":' || coalesce('"' || (select k.name from journal.client k
                                            where k.journal_id = c.journal_id and k.id = c.client_id)::text || '"', 'null')
       || ',"push":' || coalesce(c.push::text, 'null')
       || ',"at":"' || journal.rfc3339(c.committed_at) || '","chain":"' || encode(substring(c.chain from 1 for 8), 'hex')
       || '","changes":[' || coalesce(x.lines, '') || ']}'
  from journal.commit c
  cross join lateral (
    select string_agg(
             '{"op":"' || (array['insert', 'update', 'replace', 'delete'])[x.op]
             || '","collection":' || to_json(k.name)::text || ',"atom":' || to_json(x.atom)::text
             || coalesce(',"data":' || translate(x.data::text, e'\n\r', '  '), '')
             || coalesce(',"unset":' || to_json(x.unset)::text, '')
             || case when x.erased is null then '' else ',"erased":true' end || '}',
             ',' order by x.revision) as lines
      from journal.change x
      join journal.collection k on k.journal_id = x.journal_id and k.id = x.collection_id
     where x.journal_id = c.journal_id and x.revision between c.first and c.revision) x
 where c.journal_id = $1
   and c.revision > $2
   and c.revision <= $3
 order by c.revision;
