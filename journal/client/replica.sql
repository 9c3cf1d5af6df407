-- A replica's file: what the server said (base), what was done here and is not passed by the cursor yet (change), and
-- what an application sees of the two (local over base). PRAGMA user_version tells this form: 1.

-- cursor, client, nonce and other single facts.
create table meta (name text primary key, value) without rowid;

-- generation: which rows of base are the collection's; a snapshot is taken into another one, and put in place by this
-- number alone. atoms, digest: of its rows (protocol, section 8), as a signed 64-bit number.
create table collection (
  name       text primary key,
  generation integer not null unique,
  atoms      integer not null default 0,
  digest     integer not null default 0
) without rowid;

-- The state at the cursor.
create table base (
  id         integer primary key,
  generation integer not null,
  atom       text not null,
  revision   integer not null,
  data       text not null
);
create unique index base_by_atom on base (generation, atom);

-- Rows of base that are of a revision beyond the cursor: where a complete round that reaches it does not tell the atom,
-- the atom is gone (protocol, 3.7).
create table ahead (
  collection text not null,
  atom       text not null,
  revision   integer not null,
  primary key (collection, atom)
) without rowid;

-- Atoms with changes that the cursor has not passed, as an application sees them (data null: gone).
-- version: raised by each change here; version_synced: the version that was sent and answered, never more.
create table local (
  collection     text not null,
  atom           text not null,
  version        integer not null,
  version_synced integer not null default 0,
  data           text,
  primary key (collection, atom)
) without rowid;

-- A push. answered: when (seconds, wall clock), null: not yet. offered: it was answered once, and is sent again in case
-- the server has lost it.
create table push (
  id       integer primary key autoincrement,
  client   text not null,
  number   integer not null,
  policy   text not null,
  atomic   integer not null,
  attempts integer not null default 0,
  answered real,
  offered  integer not null default 0,
  unique (client, number)
);
create index push_unanswered on push (number) where answered is null;

-- What was done here, in its order. base: the revision at which the atom was known; made_on: the data that was seen
-- (null: none); by_data: made_on counts, not base. status: what became of it, null: not known yet. revision, current:
-- what the answer said stands. passed: the cursor is there, or it failed: it is seen in base or not at all.
create table change (
  seq         integer primary key autoincrement,
  collection  text not null,
  atom        text not null,
  version     integer not null,
  op          text not null,
  data        text,
  unset       text not null default '[]',
  base        integer,
  made_on     text,
  by_data     integer not null,
  policy      text not null,
  transaction_id text,
  boot        text not null,
  steady_ns   integer not null,
  wall_ns     integer not null,
  push        integer references push,
  status      text,
  revision    integer,
  has_current integer not null default 0,
  current     text,
  passed      integer not null default 0
);
create index change_of_atom on change (collection, atom, seq) where passed = 0;
create index change_of_push on change (push, seq);
create index change_of_transaction on change (transaction_id) where push is null and transaction_id is not null;
create index change_answered on change (coalesce(revision, 0)) where passed = 0 and status is not null;

-- What was refused, until somebody settles it. theirs: what stood, with its revision (null: nothing). kept: the name
-- under which the server keeps it as well; settled: what was chosen, null: nothing yet; told: the server knows.
create table conflict (
  id              integer primary key autoincrement,
  seq             integer not null unique,
  collection      text not null,
  atom            text not null,
  op              text not null,
  data            text,
  unset           text not null default '[]',
  made_on         text,
  status          text not null,
  theirs_revision integer,
  theirs          text,
  error           text,
  kept            text,
  at              real not null,
  settled         text,
  told            integer not null default 0
);
create index conflict_open on conflict (id) where settled is null;
create index conflict_untold on conflict (id) where settled is not null and kept is not null and told = 0;

-- What changed for those who look at the data, newest last; atom null: the collection as a whole.
create table feed (
  seq        integer primary key autoincrement,
  collection text not null,
  atom       text,
  is_local   integer not null
);
