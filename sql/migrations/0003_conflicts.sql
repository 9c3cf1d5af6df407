-- Changes that ended as a conflict under the policy `both`, kept for a person to settle.
set local lock_timeout = '2s';

-- id: counted by journal, given under the head's lock. op, data, unset, base: as the client sent it; place: in its push.
-- stood_revision, stood_data: what it met, null where nothing lived. keep, copy: how it was settled, and the name that
-- the client's version got beside what stands; revision: of what that recorded, null where it was nothing.
create table journal.conflict (
  journal_id     int not null,
  id             bigint not null,
  op             text not null,
  collection     text collate "C" not null,
  atom           text collate "C" not null,
  data           json,
  unset          text[],
  client         uuid,
  push           bigint,
  place          int not null,
  base           bigint,
  stood_revision bigint,
  stood_data     json,
  at             timestamptz not null,
  erased         boolean not null default false,
  keep           text,
  copy           text collate "C",
  revision       bigint,
  settled_by     text,
  settled_at     timestamptz,
  primary key (journal_id, id),
  constraint conflict_is_counted_from_one check (id > 0),
  constraint conflict_op_is_known check (op in ('insert', 'update', 'put', 'delete')),
  constraint conflict_keep_is_known check (keep in ('server', 'client', 'both')),
  constraint conflict_is_settled_by_somebody check (
    (keep is null) = (settled_at is null) and (keep is null) = (settled_by is null)),
  constraint conflict_has_a_copy_where_both_are_kept check ((copy is not null) = (keep is not distinct from 'both')),
  constraint conflict_that_is_erased_has_no_data check (not erased or (data is null and stood_data is null))
);
create index conflict_open on journal.conflict (journal_id, id) where settled_at is null;
create index conflict_settled on journal.conflict (journal_id, id) where settled_at is not null;
create index conflict_client on journal.conflict (journal_id, client, id);
create index conflict_atom on journal.conflict (journal_id, collection, atom);
