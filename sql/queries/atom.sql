-- One atom, now and before.

-- An atom as it is.
prepare atom_now (int, int, text) as
select a.revision, a.created, a.born, a.data, c.committed_at, k.name as by
  from journal.atom a
  left join lateral (select c.committed_at, c.client_id from journal.commit c
                      where c.journal_id = a.journal_id and c.revision >= a.revision
                      order by c.revision limit 1) c on true
  left join journal.client k on k.journal_id = a.journal_id and k.id = c.client_id
 where a.journal_id = $1
   and a.collection_id = $2
   and a.atom = $3;

-- An atom's changes below a revision, newest first: the walk along prev.
prepare atom_history (int, int, text, bigint, int) as
with recursive walk as (
  select x.revision, x.op, x.data, x.unset, x.prev, x.erased
    from journal.atom a
    join journal.change x on x.journal_id = a.journal_id and x.revision = a.revision
   where a.journal_id = $1 and a.collection_id = $2 and a.atom = $3
  union all
  select x.revision, x.op, x.data, x.unset, x.prev, x.erased
    from walk w
   cross join lateral (
     select x.revision, x.op, x.data, x.unset, x.prev, x.erased
       from journal.change x where x.journal_id = $1 and x.revision = w.prev limit 1) x)
select w.revision, w.op, w.data, w.unset, w.erased is not null as erased, c.committed_at, k.name as by, c.push
  from walk w
  left join lateral (select c.committed_at, c.client_id, c.push from journal.commit c
                      where c.journal_id = $1 and c.revision >= w.revision
                      order by c.revision limit 1) c on true
  left join journal.client k on k.journal_id = $1 and k.id = c.client_id
 where w.revision < $4
 limit $5;
