-- What is asked so that a person can watch.

-- Whether this PostgreSQL records: a standby does not.
prepare in_recovery as
select pg_is_in_recovery();

-- Of those clients of some journals ($1) that were seen in the last seconds ($4) those that are furthest behind: at most
-- $2 of a journal, $3 in all. By registry_lag, from the end where they are.
prepare furthest_behind (int[], int, int, int) as
with behind as (
  select h.journal_id, c.client, c.revision, h.head - c.revision as lag
    from journal.head h
    cross join lateral (
      select r.client, r.revision
        from journal.registry r
       where r.journal_id = h.journal_id
         and r.epoch = h.epoch
         and r.revision <= h.head
         and r.last_seen > journal.now() - make_interval(secs => $4)
         and not journal.is_gone(r.journal_id, r.client)
       order by coalesce(r.revision, -1), r.client
       limit $2) c
   where h.journal_id = any($1)
   order by lag desc, h.journal_id, c.client
   limit $3)
select b.journal_id, b.client, b.lag,
       case when b.lag = 0 then 0.0
            else coalesce(extract(epoch from journal.now() - (select c.committed_at from journal.commit c
                                                               where c.journal_id = b.journal_id
                                                                 and c.revision > b.revision
                                                               order by c.revision limit 1)), 0.0)::float8 end as lag_s
  from behind b
 order by b.lag desc, b.journal_id, b.client;
