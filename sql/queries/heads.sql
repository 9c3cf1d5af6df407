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

-- Holds the heads until the transaction ends.
prepare lock_heads (int[]) as
select journal.lock($1);

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
