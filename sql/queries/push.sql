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
-- array, which costs the caller a tenth of what an array does. $53: what the connection is called meanwhile, null: as it is.
prepare append (
  text,
  text, text, bytea[], text, bytea[],
  text, text, text, text, text, timestamptz[], bytea[],
  text, text, text, text[], text, text[], text[], text,
  text, text, text, text[], text, text, text, text, text[], text[], text[],
  text, text, text[], text, text,
  text, text, uuid[], text,
  text, text, text, bytea[], text, text[],
  text, text[], bytea[], text, text[],
  text) as
select journal.append(
  $1::json,
  $2::int[], $3::bigint[], $4, $5::bigint[], $6,
  $7::int[], $8::bigint[], $9::bigint[], $10::int[], $11::bigint[], $12, $13,
  $14::int[], $15::bigint[], $16::int[], $17, $18::smallint[], $19, $20, $21::bigint[],
  $22::boolean[], $23::int[], $24::int[], $25, $26::bigint[], $27::int[], $28::bigint[], $29::bigint[], $30, $31, $32,
  $33::int[], $34::int[], $35, $36::bigint[], $37::bigint[],
  $38::int[], $39::int[], $40, $41::bigint[],
  $42::int[], $43::int[], $44::bigint[], $45, $46::smallint[], $47,
  $48::int[], $49, $50, $51::smallint[], $52)
  from (select set_config('application_name', coalesce($53, current_setting('application_name')), true)) as named (name)
 where named.name is not null;

-- Waits, where commits wait for a standby, until one has all that was recorded before, by writing a word to the log. Who
-- records nothing would else be told of what is here alone: a commit whose wait was broken off. A row where it waited.
prepare await_standby as
select pg_logical_emit_message(true, 'journal', '') as at where current_setting('synchronous_standby_names') <> '';

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
