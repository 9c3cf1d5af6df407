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

-- What a check reads (service/check.py). Texts come as their bytes: where a bit of one has flipped it may be no text any
-- more, which the check is to tell and not to fail at.

-- The commits at and after a revision, oldest first.
prepare checked_commits (int, bigint) as
select c.revision, c.first, c.epoch, c.chain
  from journal.commit c
 where c.journal_id = $1
   and c.revision >= $2
 order by c.revision;

-- The changes after a revision, oldest first, as the chain is over them: by the hash of their data.
prepare checked_changes (int, bigint) as
select x.revision, x.collection_id, textsend(x.atom) as atom, x.op,
       case when x.data is null then x.erased else sha256(json_send(x.data)) end as hashed,
       json_send(to_json(x.unset)) as unset
  from journal.change x
 where x.journal_id = $1
   and x.revision > $2
 order by x.revision;

-- The changes within ($2, $3], atom by atom, and of inserts the client. Sorted before anything is made of their data, so
-- that what is large is sorted as a pointer to it. Where no commit says that it holds a change, is_client_known is null.
prepare changes_by_atom (int, bigint, bigint) as
select x.collection_id, textsend(x.atom) as atom, x.revision, x.op, json_send(x.data) as data,
       json_send(to_json(x.unset)) as unset, x.prev, x.erased, c.client_id, c.first <= x.revision as is_client_known
  from (select x.collection_id, x.atom, x.revision, x.op, x.data, x.unset, x.prev, x.erased
          from journal.change x
         where x.journal_id = $1
           and x.revision > $2
           and x.revision <= $3
         order by x.collection_id, x.atom, x.revision
        offset 0) x
  left join lateral (
    select c.client_id, c.first from journal.commit c
     where x.op = 1 and c.journal_id = $1 and c.revision >= x.revision
     order by c.revision limit 1) c on true
 order by x.collection_id, x.atom, x.revision;

-- The state in the same order.
prepare atoms_in_order (int) as
select a.collection_id, textsend(a.atom) as atom, a.born, a.born_by, a.created, a.revision, a.deleted,
       textsend(a.data::text) as data, json_send(to_json(a.fk)) as fk, json_send(to_json(a.fr)) as fr
  from (select a.collection_id, a.atom, a.born, a.born_by, a.created, a.revision, a.deleted, a.data, a.fk, a.fr
          from journal.atom a
         where a.journal_id = $1
         order by a.collection_id, a.atom
        offset 0) a
 order by a.collection_id, a.atom;

-- Which atom a change names, and which change it follows.
prepare change_at (int, bigint) as
select x.collection_id, textsend(x.atom) as atom, x.prev
  from journal.change x
 where x.journal_id = $1
   and x.revision = $2;

-- Conflicts that are kept for a person.

-- How many conflicts each journal has kept: the number of the last one.
prepare conflicts_kept (int[]) as
select n.journal_id,
       (select coalesce(max(c.id), 0) from journal.conflict c where c.journal_id = n.journal_id) as last
  from unnest($1) as n (journal_id);

-- A page of conflicts, the newest first: below a number (null: from the newest), in a state (open, settled, all), of a
-- client (null: of any). It ends after so many rows ($5), or with the one that goes beyond so many bytes ($6); found is how
-- many there were within the rows.
prepare conflicts_before (int, bigint, text, uuid, int, bigint) as
select c.id, c.op, c.collection, c.atom, c.data, c.unset, c.client, c.push, c.place, c.base, c.stood_revision,
       c.stood_data, c.at, c.erased, c.keep, c.copy, c.revision, c.settled_by, c.settled_at, c.found
  from (select c.*, count(*) over () as found,
               sum(coalesce(octet_length(c.data::text), 0) + coalesce(octet_length(c.stood_data::text), 0))
                 over (order by c.id desc rows between unbounded preceding and 1 preceding) as bytes_before
          from (select c.*
                  from journal.conflict c
                 where c.journal_id = $1
                   and ($2 is null or c.id < $2)
                   and case $3 when 'open' then c.settled_at is null
                               when 'settled' then c.settled_at is not null
                               else true end
                   and ($4 is null or c.client = $4)
                 order by c.id desc
                 limit $5) c) c
 where coalesce(c.bytes_before, 0) <= $6
 order by c.id desc;

-- One conflict.
prepare conflict_by_id (int, bigint) as
select c.id, c.op, c.collection, c.atom, c.data, c.unset, c.client, c.push, c.place, c.base, c.stood_revision,
       c.stood_data, c.at, c.erased, c.keep, c.copy, c.revision, c.settled_by, c.settled_at
  from journal.conflict c
 where c.journal_id = $1
   and c.id = $2;

-- Settles a conflict: what was kept, the copy's name, the revision, by whom. One that is settled stays as it is.
prepare settle_conflict (int, bigint, text, text, bigint, text) as
update journal.conflict c
   set keep = $3, copy = $4, revision = $5, settled_by = $6, settled_at = journal.now()
 where c.journal_id = $1
   and c.id = $2
   and c.settled_at is null
returning c.id;

-- Blanks the data of an atom's conflicts.
prepare erase_conflicts (int, text, text) as
select journal.erase_conflicts($1, $2, $3);

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

-- Where journals stand.

-- One journal, by name: its head, and its collections as [id, name, atoms, digest, policy].
prepare head_by_name (text) as
select j.id, j.name, h.epoch, h.head, h.horizon, h.chain, h.turn, h.erased, h.gone,
       coalesce((select max(f.revision) from journal.floor f where f.journal_id = j.id), 0) as floor,
       coalesce((select json_agg(json_build_array(k.id, k.name, k.atoms, k.digest, k.policy) order by k.id)
                   from journal.collection k where k.journal_id = j.id), '[]') as collections
  from journal.journal j
  join journal.head h on h.journal_id = j.id
 where j.name = $1;

-- The same by number.
prepare head_by_id (int) as
select j.id, j.name, h.epoch, h.head, h.horizon, h.chain, h.turn, h.erased, h.gone,
       coalesce((select max(f.revision) from journal.floor f where f.journal_id = j.id), 0) as floor,
       coalesce((select json_agg(json_build_array(k.id, k.name, k.atoms, k.digest, k.policy) order by k.id)
                   from journal.collection k where k.journal_id = j.id), '[]') as collections
  from journal.journal j
  join journal.head h on h.journal_id = j.id
 where j.id = $1;

-- A page of all journals, by name.
prepare heads_after (text, int) as
select j.id, j.name, h.epoch, h.head, h.horizon, h.chain, h.turn, h.erased, h.gone,
       coalesce((select max(f.revision) from journal.floor f where f.journal_id = j.id), 0) as floor,
       coalesce((select json_agg(json_build_array(k.id, k.name, k.atoms, k.digest, k.policy) order by k.id)
                   from journal.collection k where k.journal_id = j.id), '[]') as collections
  from journal.journal j
  join journal.head h on h.journal_id = j.id
 where j.name > $1 collate "C"
 order by j.name
 limit $2;

-- The turns of journals, to see which of them has moved on. Those that are gone are left out.
prepare turns (int[]) as
select h.journal_id, h.turn, h.chain
  from journal.head h
 where h.journal_id = any($1);

-- Holds the heads until the transaction ends, in the order that all hold them in.
prepare lock_heads (int[]) as
select h.journal_id
  from journal.head h
 where h.journal_id = any($1)
 order by h.journal_id
   for update;

-- The chain after the commit that ends at a revision; none where no commit ends there.
prepare chain_at (int, bigint) as
select c.chain
  from journal.commit c
 where c.journal_id = $1
   and c.revision = $2;

-- What was recorded after a revision, a commit a row, oldest first: what a process's memory is fed with.
prepare commits_after (int, bigint, int) as
select c.revision, c.first, c.client_id, c.committed_at, c.chain
  from journal.commit c
 where c.journal_id = $1
   and c.revision > $2
 order by c.revision
 limit $3;

-- The changes of those commits.
prepare changes_between (int, bigint, bigint) as
select x.revision, x.collection_id, x.atom, x.op, x.data, x.unset, x.prev, x.erased
  from journal.change x
 where x.journal_id = $1
   and x.revision > $2
   and x.revision <= $3
 order by x.revision;

-- Makes a journal; false where it is there.
prepare create_journal (text) as
select journal.create($1);

-- Removes a journal and its record; false where there is none.
prepare remove_journal (text) as
select journal.remove($1);

-- Gives a collection a policy, or with null takes it away; the collection is made if it is not there.
prepare set_policy (int, text, text, text) as
select journal.set_policy($1, $2, $3, $4);

-- What a push is decided on, and how it is recorded.

-- The atoms that a group of pushes names, as they are now; those that never were are left out.
prepare atoms_named (int[], int[], text[]) as
select a.journal_id, a.collection_id, a.atom, a.born, a.born_by, a.created, a.revision, a.data, a.fk, a.fr
  from unnest($1, $2, $3) as n (journal_id, collection_id, atom)
  join journal.atom a using (journal_id, collection_id, atom);

-- The clients that a group of pushes names, and for each the highest number that its journal gave to any.
prepare clients_named (int[], uuid[]) as
select n.journal_id, n.name, c.id, c.pushed, c.gone_at is not null as is_gone,
       (select coalesce(max(o.id), 0) from journal.client o where o.journal_id = n.journal_id) as highest
  from unnest($1, $2) as n (journal_id, name)
  left join journal.client c using (journal_id, name);

-- What numbered pushes were answered, and whether that was forgotten, as of one moment: pushes are forgotten
-- without the lock.
prepare pushes_decided (int[], int[], bigint[]) as
select n.journal_id, n.client_id, n.push, p.content, p.status, p.answer, n.push <= c.forgotten as is_forgotten
  from unnest($1, $2, $3) as n (journal_id, client_id, push)
  join journal.client c on c.journal_id = n.journal_id and c.id = n.client_id
  left join journal.push p on p.journal_id = n.journal_id and p.client_id = n.client_id and p.push = n.push;

-- What was answered under Idempotency-Keys.
prepare keys_decided (int[], text[]) as
select k.journal_id, k.key, k.content, k.status, k.answer
  from unnest($1, $2) as n (journal_id, key)
  join journal.idempotency k using (journal_id, key);

-- The chains that the bases of pushes are compared with.
prepare chains_at (int[], bigint[]) as
select c.journal_id, c.revision, c.chain
  from unnest($1, $2) as n (journal_id, revision)
  join journal.commit c using (journal_id, revision);

-- When the commits of revisions were recorded, and what time it is, in microseconds since 1970. at is null where the commit
-- was compacted away: what is below the horizon's own commit counts as gone, whether it was removed yet or not.
prepare recorded_at (int[], bigint[]) as
select n.journal_id, n.revision, (extract(epoch from c.committed_at) * 1000000)::bigint as at, t.now
  from (select (extract(epoch from journal.now()) * 1000000)::bigint as now offset 0) t
 cross join unnest($1, $2) as n (journal_id, revision)
  join journal.head h on h.journal_id = n.journal_id
  left join lateral (select c.first, c.committed_at
                       from journal.commit c
                      where c.journal_id = n.journal_id
                        and c.revision >= greatest(n.revision, h.horizon)
                      order by c.revision
                      limit 1) c on c.first <= n.revision;

-- Records a group: sql/functions/append.sql says what each argument is. Arrays of numbers come as the text of an
-- array, which costs the caller a tenth of what an array does.
prepare append (
  text,
  text, text, bytea[], text, bytea[],
  text, text, text, text, text, timestamptz[], bytea[],
  text, text, text, text[], text, text[], text[], text,
  text, text, text, text[], text, text, text, text, text[], text[], text[],
  text, text, text[], text, text,
  text, text, uuid[], text,
  text, text, text, bytea[], text, text[],
  text, text[], bytea[], text, text[]) as
select journal.append(
  $1::json,
  $2::int[], $3::bigint[], $4, $5::bigint[], $6,
  $7::int[], $8::bigint[], $9::bigint[], $10::int[], $11::bigint[], $12, $13,
  $14::int[], $15::bigint[], $16::int[], $17, $18::smallint[], $19, $20, $21::bigint[],
  $22::boolean[], $23::int[], $24::int[], $25, $26::bigint[], $27::int[], $28::bigint[], $29::bigint[], $30, $31, $32,
  $33::int[], $34::int[], $35, $36::bigint[], $37::bigint[],
  $38::int[], $39::int[], $40, $41::bigint[],
  $42::int[], $43::int[], $44::bigint[], $45, $46::smallint[], $47,
  $48::int[], $49, $50, $51::smallint[], $52);

-- Forgets what was answered before a moment, but for each client's last push: a client keeps the highest number that is
-- forgotten, and what its last one said (an import goes on from there).
prepare forget_pushes (timestamptz) as
with gone as (
  delete from journal.push p
   using journal.client c
   where p.at < $1
     and c.journal_id = p.journal_id
     and c.id = p.client_id
     and p.push < c.pushed
  returning p.journal_id, p.client_id, p.push)
update journal.client c
   set forgotten = greatest(c.forgotten, g.push)
  from (select journal_id, client_id, max(push) as push from gone group by journal_id, client_id) g
 where c.journal_id = g.journal_id
   and c.id = g.client_id;

-- Forgets Idempotency-Keys of before a moment.
prepare forget_keys (timestamptz) as
delete from journal.idempotency k where k.at < $1;

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
select (select s.system_identifier::text from pg_control_system() s) as system,
       case when pg_is_in_recovery() then null
            else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end as timeline,
       current_setting('server_version') as version,
       r.system as remembered_system, r.timeline as remembered_timeline, r.at as remembered_at
  from (select) nothing
  left join journal.server r on true;

-- Remembers a PostgreSQL; $3: also in place of another.
prepare remember_server (text, int, boolean) as
insert into journal.server as r (system, timeline) values ($1, $2)
on conflict (is_it) do update set system = excluded.system, timeline = excluded.timeline, at = now() where $3;

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
