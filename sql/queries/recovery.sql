-- The way back, and the operator's levers.

-- The floors above a revision, but for those of other clients.
prepare floors_after (int, bigint, uuid[]) as
select f.revision, f.client, f.collections, f.spread_s, f.at
  from journal.floor f
 where f.journal_id = $1
   and f.revision > $2
   and (f.client is null or f.client = any($3))
 order by f.revision;

-- Records a floor; its revision.
prepare resync (int, uuid, text[], int, text, text) as
select journal.resync($1, $2, $3, $4, $5, $6);

-- Begins an epoch; its revision.
prepare begin_epoch (int, bigint, int, text) as
select journal.begin_epoch($1, $2, $3, $4);

-- Forgets a client; false where it was never heard of.
prepare forget_client (int, uuid, text) as
select journal.forget_client($1, $2, $3);

-- Where clients were seen.
prepare see (text[], uuid[], text[], bytea[], bigint[], text[], text[], float8[], float8[]) as
select journal.see($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- Forgets clients that were not seen for so many days.
prepare forget_unseen (float8) as
delete from journal.registry r where r.last_seen < journal.now() - make_interval(secs => 86400 * $1);

-- Forgets which snapshots were kept, once that is over.
prepare forget_kept as
delete from journal.kept k where k.until < journal.now();

-- The clients of a journal, those that are furthest behind first: after a revision (null: not seen with a cursor, which
-- come first) and an id; $2 null: from the beginning; $5: this one only. lag_s: how old the oldest change is that a client lacks.
prepare clients_after (int, bigint, uuid, int, uuid) as
select r.client, r.cursor, r.revision, r.agent, r.first_seen, r.last_seen, r.resynced, r.resynced_at,
       case when r.epoch = h.epoch and r.revision <= h.head then h.head - r.revision end as lag,
       case when r.epoch = h.epoch and r.revision = h.head then 0.0
            when r.epoch = h.epoch and r.revision < h.head
            then extract(epoch from journal.now() - (select c.committed_at from journal.commit c
                                                      where c.journal_id = $1 and c.revision > r.revision
                                                      order by c.revision limit 1))::float8 end as lag_s,
       journal.wanted(r, h) as resync,
       coalesce((select k.pushed from journal.client k where k.journal_id = $1 and k.name = r.client), 0) as pushed
  from journal.registry r
  join journal.head h on h.journal_id = r.journal_id
 where r.journal_id = $1
   and ($5 is null or r.client = $5)
   and not journal.is_gone($1, r.client)
   and (coalesce(r.revision, -1), r.client) > (coalesce($2, -2), coalesce($3, '00000000-0000-0000-0000-000000000000'))
 order by coalesce(r.revision, -1), r.client
 limit $4;

-- The last pushes of a client, newest first.
prepare pushes_of (int, uuid, int) as
select p.push, p.at, p.status, p.answer
  from journal.push p
  join journal.client c on c.journal_id = p.journal_id and c.id = p.client_id
 where p.journal_id = $1
   and c.name = $2
 order by p.push desc
 limit $3;

-- How far a journal may be compacted: sql/functions/compact.sql says what each column is.
prepare compactable (int, bigint, timestamptz, timestamptz, boolean) as
select c.horizon, c.wanted, c.target, c.client, c.client_revision, c.snapshot_revision
  from journal.compactable($1, $2, $3, $4, $5) c;

-- What compaction up to a revision removes: how many of each, and their bytes as they are stored.
prepare below (int, bigint) as
select (select count(*) from journal.change x where x.journal_id = $1 and x.revision <= $2) as changes,
       (select count(*) from journal.commit c where c.journal_id = $1 and c.revision < $2) as commits,
       (select count(*) from journal.atom a where a.journal_id = $1 and a.revision <= $2 and a.deleted) as tombstones,
       coalesce((select sum(pg_column_size(x.*)) from journal.change x
                  where x.journal_id = $1 and x.revision <= $2), 0)
       + coalesce((select sum(pg_column_size(c.*)) from journal.commit c
                    where c.journal_id = $1 and c.revision < $2), 0)
       + coalesce((select sum(pg_column_size(a.*)) from journal.atom a
                    where a.journal_id = $1 and a.revision <= $2 and a.deleted), 0) as bytes;

-- The clients that could not go on from where they are once the horizon is at a revision.
prepare cut_off (int, bigint, int) as
select r.client, r.revision, r.last_seen
  from journal.registry r
  join journal.head h on h.journal_id = r.journal_id and h.epoch = r.epoch
 where r.journal_id = $1
   and coalesce(r.revision, -1) < $2
   and coalesce(r.revision, -1) >= h.horizon
   and not journal.is_gone($1, r.client)
 order by coalesce(r.revision, -1), r.client
 limit $3;

-- Raises the horizon; where it is then.
prepare raise_horizon (int, bigint, timestamptz, boolean, text) as
select journal.raise_horizon($1, $2, $3, $4, $5);

-- Removes some of the record below the horizon.
prepare sweep_record (int, int) as
select s.changes, s.commits from journal.sweep_record($1, $2) s;

-- Removes some of the tombstones below the horizon.
prepare sweep_tombstones (int, bigint, int) as
select s.tombstones, s.next from journal.sweep_tombstones($1, $2, $3) s;

-- Keeps a snapshot's revision from compaction for so many seconds from now.
prepare keep (int, bigint, float8) as
insert into journal.kept as k (journal_id, revision, until)
values ($1, $2, journal.now() + make_interval(secs => $3))
on conflict (journal_id, revision) do update set until = greatest(k.until, excluded.until);

-- Blanks the data of a deleted atom in its changes.
prepare erase (int, int, text) as
select e.revisions, e.blanked from journal.erase($1, $2, $3) e;

-- The kept answers of pushes that tell data of an atom: they name its revisions ($2). Answers do not say whose data they
-- tell: of what is at or below the horizon ($3), where the record does not say it either any more, all is blanked that no
-- living atom has.
prepare answers_telling (int, bigint[], bigint) as
select t.kept, t.client_id, t.push, t.key, t.answer, t.blank
  from (select k.kept, k.client_id, k.push, k.key, k.answer,
               array(select o.revision
                       from (select (o -> 'current' ->> 'revision')::bigint as revision
                               from json_array_elements(case json_typeof(k.answer -> 'outcomes')
                                                          when 'array' then k.answer -> 'outcomes' else '[]' end) o
                              where o -> 'current' ->> 'erased' is null) o
                      where o.revision = any($2)
                         or (o.revision <= $3 and not exists (
                               select from journal.atom a
                                where a.journal_id = $1 and a.revision = o.revision and not a.deleted))) as blank
          from (select 'push' as kept, p.client_id, p.push, null as key, p.answer
                  from journal.push p where p.journal_id = $1
                union all
                select 'idempotency', null, null, k.key, k.answer
                  from journal.idempotency k where k.journal_id = $1) k) t
 where cardinality(t.blank) > 0;

-- Puts another answer in the place of a push's.
prepare change_push (int, int, bigint, text) as
update journal.push set answer = $4::json where journal_id = $1 and client_id = $2 and push = $3;

-- The same under an Idempotency-Key.
prepare change_key (int, text, text) as
update journal.idempotency set answer = $3::json where journal_id = $1 and key = $2;

-- Writes down what an operator did.
prepare note (int, text, text, text) as
select journal.note($1, $2, $3, $4::json);

-- What operators did, newest first, before an entry (null: from the newest).
prepare audit_before (int, bigint, int) as
select a.id, a.at, a.by, a.action, a.detail
  from journal.audit a
 where a.journal_id = $1
   and ($2 is null or a.id < $2)
 order by a.id desc
 limit $3;

-- Begins an operation.
prepare begin_operation (int, uuid, text, text, text) as
insert into journal.operation (journal_id, id, kind, asked, by, begun_at, seen_at)
values ($1, $2, $3, $4::json, $5, journal.now(), journal.now());

-- Says how far an operation is, or how it ended, which is the last that is said.
prepare tell_operation (int, uuid, real, text, text) as
update journal.operation o
   set progress = $3, state = $4, result = $5::json, seen_at = journal.now(),
       ended_at = case when $4 <> 'running' then journal.now() end
 where o.journal_id = $1 and o.id = $2 and o.state = 'running';

-- The operations of a journal, newest first; $2: this one only. silent_s: since when its process said nothing.
prepare operations (int, uuid, int) as
select o.id, o.kind, o.asked, o.state, o.progress, o.result, o.by, o.begun_at, o.ended_at,
       extract(epoch from journal.now() - o.seen_at)::float8 as silent_s
  from journal.operation o
 where o.journal_id = $1
   and ($2 is null or o.id = $2)
 order by o.begun_at desc, o.id
 limit $3;

-- Forgets operations that ended long ago.
prepare forget_operations (timestamptz) as
delete from journal.operation o where o.begun_at < $1;

-- What a journal holds, and how many clients: bytes are estimated from the tables' pages.
prepare stats (int) as
select (select count(*) from journal.registry r where r.journal_id = $1) as clients,
       (select count(*) from journal.registry r join journal.head h on h.journal_id = r.journal_id
         where r.journal_id = $1 and journal.wanted(r, h) is not null) as behind,
       ((h.head - h.horizon) * journal.row_bytes('journal.change')
        + k.atoms * journal.row_bytes('journal.atom'))::bigint as bytes
  from journal.head h
  cross join lateral (select coalesce(sum(k.atoms), 0) as atoms from journal.collection k where k.journal_id = $1) k
 where h.journal_id = $1;

-- Commits and changes of the last seconds ($2), by the time at which a bucket of $3 seconds begins. Reads the record
-- backwards from the head as far as that, and at most $4 commits.
prepare activity (int, int, int, int) as
with recent as (
  select c.committed_at, c.revision - c.first + 1 as changes
    from journal.commit c
   where c.journal_id = $1
   order by c.revision desc
   limit $4)
select date_bin(make_interval(secs => $3), r.committed_at, timestamptz '2000-01-01 00:00:00Z') as at,
       count(*) as commits, sum(r.changes)::bigint as changes
  from recent r
 where r.committed_at > journal.now() - make_interval(secs => $2)
 group by 1
 order by 1;

-- The PostgreSQL that this is, and the one that was remembered.
prepare server as
select i.system, i.timeline, current_setting('server_version') as version,
       r.system as remembered_system, r.timeline as remembered_timeline, r.at as remembered_at
  from journal.identity() i
  left join journal.server r on true;

-- Remembers a PostgreSQL; $3: also in place of another.
prepare remember_server (text, int, boolean) as
insert into journal.server as r (system, timeline) values ($1, $2)
on conflict (is_it) do update set system = excluded.system, timeline = excluded.timeline, at = now() where $3;
