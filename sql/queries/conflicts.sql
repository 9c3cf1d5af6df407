-- Conflicts that are kept for a person.

-- How many conflicts each journal has kept: the number of the last one.
prepare conflicts_kept (int[]) as
select n.journal_id,
       (select coalesce(max(c.id), 0) from journal.conflict c where c.journal_id = n.journal_id) as last
  from unnest($1) as n (journal_id);

-- A page of conflicts, the newest first: below a number (null: from the newest), in a state (open, settled, all), of a
-- client (null: of any), in some collections ($7; null: in any). It ends after so many rows ($5), or with the one that goes beyond so many bytes ($6); found is how
-- many there were within the rows.
prepare conflicts_before (int, bigint, text, uuid, int, bigint, text[]) as
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
                   and ($7 is null or c.collection = any($7))
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
