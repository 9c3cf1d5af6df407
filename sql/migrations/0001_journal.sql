-- The model, in one paragraph. A journal is a record of changes that only grows. Each change has a
-- revision; revisions have no gaps and their order is the order of the commits, because the row of
-- journal.head is locked from the moment a revision is taken until it is committed. journal.change is the
-- truth; journal.atom is what the changes add up to, kept in step by the same transaction, so that
-- "everything since revision N" costs as much as what changed and not as much as how often.
-- Every primary key and every index that a request uses starts with journal_id.
set local lock_timeout = '2s';

create schema if not exists journal;

-- Which files of sql/ this database has: the migrations by name, functions with the hash of their text.
create table journal.migration (
  name       text collate "C" primary key,
  hash       text,
  applied_at timestamptz not null default now()
);

-- The directory of journals: small, and seldom written.
create table journal.journal (
  id         int generated always as identity primary key,
  name       text collate "C" not null unique,
  created_at timestamptz not null default now(),
  constraint journal_name_is_plain check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$')
);

-- Where a journal stands. The lock on this row is what orders its commits.
create table journal.head (
  journal_id int primary key,
  epoch      bytea not null,
  head       bigint not null default 0,
  horizon    bigint not null default 0,
  chain      bytea not null default '\x0000000000000000000000000000000000000000000000000000000000000000',
  -- Raised by everything that is written under the lock, also by what records no change: what a process
  -- remembers of a journal is true while the turn is the one it remembers.
  turn       bigint not null default 0,
  constraint head_epoch_is_6_bytes check (octet_length(epoch) = 6),
  constraint head_chain_is_sha256 check (octet_length(chain) = 32),
  constraint head_is_at_or_above_the_horizon check (head >= horizon and horizon >= 0),
  constraint head_is_a_double check (head < 9007199254740992)
);

-- A journal's collections: how many atoms live in each, and the XOR of their revision leaves.
create table journal.collection (
  journal_id int not null,
  id         int not null,
  name       text collate "C" not null,
  atoms      bigint not null default 0,
  digest     bigint not null default 0,
  policy     text,
  primary key (journal_id, id),
  unique (journal_id, name),
  constraint collection_counts_what_lives check (atoms >= 0),
  constraint collection_policy_is_known check (policy in ('server', 'merge', 'client', 'newest', 'both'))
);

-- What was recorded together: revisions first to revision, by whom, when, and the chain after it.
create table journal.commit (
  journal_id   int not null,
  revision     bigint not null,
  first        bigint not null,
  epoch        bytea not null,
  client_id    int,
  push         bigint,
  committed_at timestamptz not null,
  chain        bytea not null,
  primary key (journal_id, revision),
  constraint commit_is_not_empty check (first between 1 and revision),
  constraint commit_chain_is_sha256 check (octet_length(chain) = 32)
);

-- The record. data is json and not jsonb: the bytes as they were sent, which the chain is over.
-- op: 1 insert, 2 update, 3 replace, 4 delete. prev: the atom's change before this one (0: none), so that
-- an atom's history is a walk along the primary key, and no second index slows the append.
create table journal.change (
  journal_id    int not null,
  revision      bigint not null,
  collection_id int not null,
  atom          text collate "C" not null,
  op            smallint not null,
  data          json,
  unset         text[],
  prev          bigint not null,
  erased        bytea,
  primary key (journal_id, revision),
  constraint change_op_is_known check (op between 1 and 4),
  constraint change_follows_its_past check (prev >= 0 and prev < revision),
  constraint change_has_the_data_of_its_op check (
    case op when 4 then data is null and erased is null
            when 2 then data is not null or unset is not null or erased is not null
            else data is not null or erased is not null end),
  constraint change_unsets_only_in_an_update check (unset is null or op = 2)
);

-- The state: what the changes of an atom add up to. A deleted atom stays as a tombstone.
-- born: the first revision this name ever had; born_by: the client that inserted it then (null: nobody who
-- named itself, 0: several have inserted it since); created: the insert or replace that began its present data.
-- fk, fr: its fields and the revision at which each was last set or unset, both in the order of fr.
create table journal.atom (
  journal_id    int not null,
  collection_id int not null,
  atom          text collate "C" not null,
  born          bigint not null,
  born_by       int,
  created       bigint not null,
  revision      bigint not null,
  deleted       boolean not null,
  data          jsonb,
  fk            text[] not null,
  fr            bigint[] not null,
  primary key (journal_id, collection_id, atom),
  constraint atom_lives_with_data check (deleted = (data is null)),
  constraint atom_is_in_order check (born <= created and created <= revision),
  constraint atom_knows_each_fields_revision check (cardinality(fk) = cardinality(fr))
);
create index atom_revision on journal.atom (journal_id, revision);

-- Who pushes. pushed: the highest number that was decided; forgotten: the highest whose answer is gone.
create table journal.client (
  journal_id int not null,
  id         int not null,
  name       uuid not null,
  pushed     bigint not null default 0,
  forgotten  bigint not null default 0,
  first_seen timestamptz not null,
  primary key (journal_id, id),
  unique (journal_id, name),
  constraint client_forgets_only_what_was_decided check (forgotten <= pushed)
);

-- What a numbered push was answered, to answer it again.
create table journal.push (
  journal_id int not null,
  client_id  int not null,
  push       bigint not null,
  content    bytea not null,
  status     smallint not null,
  answer     json not null,
  at         timestamptz not null,
  primary key (journal_id, client_id, push)
);
create index push_at on journal.push using brin (at);

-- The same for an Idempotency-Key.
create table journal.idempotency (
  journal_id int not null,
  key        text collate "C" not null,
  content    bytea not null,
  status     smallint not null,
  answer     json not null,
  at         timestamptz not null,
  primary key (journal_id, key)
);
create index idempotency_at on journal.idempotency using brin (at);
