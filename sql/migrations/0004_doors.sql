-- Who may come in: tokens, tickets for streams, and to whom clients' ids belong.
set local lock_timeout = '2s';

-- How often the tokens have changed: a process that has seen this number knows them. 0: none was ever made, and whoever
-- comes may do everything.
create table journal.door (
  is_it boolean primary key default true check (is_it),
  turn  bigint not null default 0
);
insert into journal.door default values;

-- Tokens. Only a hash is kept of what is shown once. Rows stay when they are revoked: a service that had tokens does
-- not become open again. grants: objects of journal, can and collections (protocol, section 13).
create table journal.token (
  id         int generated always as identity primary key,
  hash       bytea not null unique,
  name       text not null,
  grants     json not null,
  created_at timestamptz not null,
  created_by text not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  revoked_by text,
  used_at    timestamptz,
  constraint token_hash_is_sha256 check (octet_length(hash) = 32),
  constraint token_is_revoked_by_somebody check ((revoked_at is null) = (revoked_by is null))
);

-- Tickets: one use of a journal's stream by a caller that cannot send a header. token: whose it is; caller: who it is
-- where that was not by a token of ours.
create table journal.ticket (
  journal_id int not null,
  hash       bytea not null,
  token      int,
  caller     json,
  expires_at timestamptz not null,
  primary key (journal_id, hash),
  constraint ticket_is_somebodys check ((token is null) <> (caller is null))
);
create index ticket_expires_at on journal.ticket using brin (expires_at);

-- To whom a client's id belongs: who used it first.
create table journal.owner (
  journal_id int not null,
  client     uuid not null,
  owner      text not null,
  at         timestamptz not null,
  primary key (journal_id, client)
);
