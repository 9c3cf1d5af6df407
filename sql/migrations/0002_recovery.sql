-- The way back: who syncs and how far they are, who was asked to start again, what is kept for whom, and what
-- operators did.
set local lock_timeout = '2s';

-- The revision at which data was last erased: a snapshot below it may hold that data.
alter table journal.head add column erased bigint not null default 0;
-- How many clients operators forgot: a process that has seen another count asks again whom it may answer.
alter table journal.head add column gone int not null default 0;

-- An operator forgot this client: it takes a new id.
alter table journal.client add column gone_at timestamptz;

-- Floors: who shall not go on from below a revision. A floor is a commit of one revision without a change.
-- client null and collections null: everyone. spread_s: over how long they are told to come back.
create table journal.floor (
  journal_id  int not null,
  revision    bigint not null,
  client      uuid,
  collections text[],
  spread_s    int not null default 0,
  reason      text not null,
  at          timestamptz not null,
  primary key (journal_id, revision),
  constraint floor_spreads_over_a_time check (spread_s >= 0)
);

-- Who syncs: the cursor that each client last asked from (and when), written every few seconds by each process.
-- resynced: the floor, horizon or epoch's beginning that it has last come back over.
create table journal.registry (
  journal_id  int not null,
  client      uuid not null,
  cursor      text,
  cursor_at   timestamptz,
  epoch       bytea,
  revision    bigint,
  collections text[],
  agent       text,
  first_seen  timestamptz not null,
  last_seen   timestamptz not null,
  resynced    bigint,
  resynced_at timestamptz,
  primary key (journal_id, client)
);
-- The furthest behind first, who never had a cursor before all.
create index registry_lag on journal.registry (journal_id, coalesce(revision, -1), client);

-- Snapshots that are being made or read, until when at least: compaction does not pass them.
create table journal.kept (
  journal_id int not null,
  revision   bigint not null,
  until      timestamptz not null,
  primary key (journal_id, revision)
);

-- What takes long. seen_at: when the process that runs it last said so.
create table journal.operation (
  journal_id int not null,
  id         uuid not null,
  kind       text not null,
  asked      json not null,
  state      text not null default 'running',
  progress   real not null default 0,
  result     json,
  by         text not null,
  begun_at   timestamptz not null,
  seen_at    timestamptz not null,
  ended_at   timestamptz,
  primary key (journal_id, id),
  constraint operation_state_is_known check (state in ('running', 'done', 'failed'))
);

-- What operators did.
create table journal.audit (
  journal_id int not null,
  id         bigint generated always as identity,
  at         timestamptz not null,
  by         text not null,
  action     text not null,
  detail     json not null,
  primary key (journal_id, id)
);

-- The PostgreSQL that this database was last known to run on: another one asks a question (docs/operations.md).
create table journal.server (
  is_it      boolean primary key default true check (is_it),
  system     text not null,
  timeline   int not null,
  at         timestamptz not null default now()
);
