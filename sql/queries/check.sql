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
