-- Who may come in.

-- How often the tokens have changed; 0: there never was one.
prepare door as
select d.turn
  from journal.door d;

-- Tokens by the hashes of what is sent, those that are in force.
prepare tokens_by_hash (bytea[]) as
select t.id, t.hash, t.name, t.grants, t.expires_at
  from journal.token t
 where t.hash = any($1)
   and t.revoked_at is null;

-- One token by its number, where it is in force.
prepare token_by_id (int) as
select t.id, t.hash, t.name, t.grants, t.expires_at
  from journal.token t
 where t.id = $1
   and t.revoked_at is null;

-- When tokens were last used.
prepare tokens_used (int[], timestamptz[]) as
update journal.token t
   set used_at = greatest(t.used_at, u.at)
  from unnest($1, $2) as u (id, at)
 where t.id = u.id;

-- All tokens, the newest first.
prepare tokens as
select t.id, t.name, t.grants, t.created_at, t.created_by, t.expires_at, t.revoked_at, t.revoked_by, t.used_at
  from journal.token t
 order by t.id desc;

-- A new token; its number.
prepare make_token (bytea, text, json, text, timestamptz) as
insert into journal.token (hash, name, grants, created_at, created_by, expires_at)
values ($1, $2, $3, journal.now(), $4, $5)
returning id;

-- Gives a token that is in force other grants, in place of those that are known (null: of whichever it has).
prepare grant_token (int, json, jsonb) as
update journal.token t
   set grants = $2
 where t.id = $1
   and t.revoked_at is null
   and ($3 is null or t.grants::jsonb = $3)
returning t.id;

-- Gives a token that is in force another secret, and a new end (null: none).
prepare rotate_token (int, bytea, timestamptz) as
update journal.token t
   set hash = $2, expires_at = $3
 where t.id = $1
   and t.revoked_at is null
returning t.id;

-- Revokes a token that is in force.
prepare revoke_token (int, text) as
update journal.token t
   set revoked_at = journal.now(), revoked_by = $2
 where t.id = $1
   and t.revoked_at is null
returning t.id;

-- A ticket.
prepare make_ticket (int, bytea, int, json, timestamptz) as
insert into journal.ticket (journal_id, hash, token, caller, expires_at)
values ($1, $2, $3, $4, $5);

-- Uses a ticket up. Time is this process's, as everywhere where callers end.
prepare use_ticket (int, bytea, timestamptz) as
delete from journal.ticket t
 where t.journal_id = $1
   and t.hash = $2
returning t.token, t.caller, t.expires_at > $3 as is_good;

-- Forgets tickets that nobody used.
prepare forget_tickets (timestamptz) as
delete from journal.ticket t
 where t.expires_at < $1;

-- To whom a client's id belongs.
prepare owner_of (int, uuid) as
select o.owner
  from journal.owner o
 where o.journal_id = $1
   and o.client = $2;

-- Gives a client's id to its first user; whose it is then.
prepare own (int, uuid, text) as
with taken as (
  insert into journal.owner (journal_id, client, owner, at)
  values ($1, $2, $3, journal.now())
  on conflict (journal_id, client) do nothing
  returning owner)
select t.owner from taken t
union all
select o.owner
  from journal.owner o
 where o.journal_id = $1
   and o.client = $2
 limit 1;
