-- Who recorded a revision and when, as the members of JSON that `include=meta` adds: ,"at":…,"by":…
create or replace function journal.meta(of_journal int, of_revision bigint) returns text
language sql stable as $$
  select ',"at":"' || journal.rfc3339(c.committed_at) || '","by":'
         || coalesce('"' || (select k.name from journal.client k
                              where k.journal_id = of_journal and k.id = c.client_id)::text || '"', 'null')
    from journal.commit c
   where c.journal_id = of_journal and c.revision >= of_revision
   order by c.revision
   limit 1
$$;
