-- Everything since a revision.

-- Where a page ends that starts at a position ($2) and has at most $3 deltas ($4: of these collections only):
-- the end of the last commit that it holds whole, or of its first one, or null where all that is left fits.
-- Reads the index atom_revision from the position on.
prepare page_end (int, bigint, int, int[]) as
with first as (
  select a.revision from journal.atom a
   where a.journal_id = $1 and a.revision > $2 and ($4 is null or a.collection_id = any($4))
   order by a.revision limit 1),
beyond as (
  select a.revision from journal.atom a
   where a.journal_id = $1 and a.revision > $2 and ($4 is null or a.collection_id = any($4))
   order by a.revision offset $3 limit 1)
select greatest(
         (select max(c.revision) from journal.commit c where c.journal_id = $1 and c.revision < beyond.revision),
         (select min(c.revision) from journal.commit c where c.journal_id = $1 and c.revision >= first.revision))
  from first, beyond;

-- The deltas of one page from the state, a line of JSON each, in the order of their revisions.
-- $2 the round's base, which chooses insert, replace or update, and the fields · $3 the page's position, which
-- chooses what was cancelled · $4 the page's end · $5 these collections only · $6 the client that asks, which is
-- told the delete of what it inserted itself (born_by 0: several have) · $7 with who and when. `offset 0` has a
-- collection's name rendered once, not once a row.
prepare delta_lines (int, bigint, bigint, bigint, int[], int, boolean) as
select '{"op":"'
       || case when a.deleted then 'delete' when a.created <= $2 then 'update'
               when a.born > $2 then 'insert' else 'replace' end
       || k.told || to_json(a.atom)::text
       || ',"revision":' || a.revision
       || case
            when a.deleted then ''
            when a.created > $2 then ',"data":' || a.data::text
            else coalesce(',"data":' || nullif((a.data - a.fk[:width_bucket($2, a.fr)])::text, '{}'), '')
              || case when a.data ?& a.fk[width_bucket($2, a.fr) + 1:] then ''
                      else (select ',"unset":' || json_agg(f.name)::text
                              from unnest(a.fk[width_bucket($2, a.fr) + 1:]) as f (name)
                             where not a.data ? f.name) end
          end
       || case when $7 then journal.meta(a.journal_id, a.revision) else '' end
       || '}'
  from journal.atom a
  join (select k.id, '","collection":' || to_json(k.name)::text || ',"atom":' as told
          from journal.collection k where k.journal_id = $1 offset 0) k on k.id = a.collection_id
 where a.journal_id = $1
   and a.revision > $3
   and a.revision <= $4
   and ($5 is null or a.collection_id = any($5))
   and not (a.deleted and a.born > $3 and not coalesce(a.born_by in (0, $6) and $6 is not null, false))
 order by a.revision;

-- For a fixed end: the atoms that changed within (base, until] and their last change there, after a position.
prepare last_changes (int, bigint, bigint, bigint, int[]) as
select max(x.revision) as revision
  from journal.change x
 where x.journal_id = $1
   and x.revision > $2
   and x.revision <= $4
   and ($5 is null or x.collection_id = any($5))
 group by x.collection_id, x.atom
having max(x.revision) > $3
 order by max(x.revision);

-- The changes of those atoms ($3: the revisions of their last ones) after the base, oldest first: the walk along
-- prev. Lateral with a limit, so that each step is a look into the primary key whatever the planner expects: a plain
-- join was once planned as a hash of the whole record.
prepare walk_back (int, bigint, bigint[]) as
with recursive walk as (
  select x.revision, x.collection_id, x.atom, x.op, x.data, x.unset, x.prev, x.erased
    from unnest($3) as l (revision)
   cross join lateral (
     select x.revision, x.collection_id, x.atom, x.op, x.data, x.unset, x.prev, x.erased
       from journal.change x where x.journal_id = $1 and x.revision = l.revision limit 1) x
  union all
  select x.revision, x.collection_id, x.atom, x.op, x.data, x.unset, x.prev, x.erased
    from walk w
   cross join lateral (
     select x.revision, x.collection_id, x.atom, x.op, x.data, x.unset, x.prev, x.erased
       from journal.change x where x.journal_id = $1 and x.revision = w.prev limit 1) x
   where w.prev > $2)
select w.revision, w.collection_id, w.atom, w.op, w.data, w.unset, w.prev, w.erased,
       case when w.op = 1 then (select c.client_id from journal.commit c
                                 where c.journal_id = $1 and c.revision >= w.revision
                                 order by c.revision limit 1) end as client_id
  from walk w
 order by w.revision;

-- The end of the last commit before a revision ($2), and of the commit that holds another ($3).
prepare commit_ends (int, bigint, bigint) as
select (select max(c.revision) from journal.commit c where c.journal_id = $1 and c.revision < $2) as before,
       (select min(c.revision) from journal.commit c where c.journal_id = $1 and c.revision >= $3) as holding;

-- Who and when, for revisions: the members that `include=meta` adds.
prepare metas (int, bigint[]) as
select r.revision, journal.meta($1, r.revision) as meta
  from unnest($2) as r (revision);

-- The number that a journal gave to a client.
prepare client_number (int, uuid) as
select c.id from journal.client c where c.journal_id = $1 and c.name = $2;

-- Whether an operator forgot a client.
prepare is_forgotten (int, uuid) as
select exists (select from journal.client c
                where c.journal_id = $1 and c.name = $2 and c.gone_at is not null);
