-- What the role may do that the service runs as: the least that it needs. It owns nothing, and what is recorded it can
-- neither change nor remove nor add to but through the functions that say how (append, resync, compaction, erasure, …),
-- which run as the owner for that.
--
-- `journal migrate --role NAME` applies it, and again with each later migration. By hand, as the owner:
--   create role journal_service login password '…';
--   psql -v role=journal_service -f sql/roles.sql
--
-- What a version needs no more stays here until the next one: processes of the version before go on beside it.
revoke all on all tables in schema journal from :"role";
revoke all on all functions in schema journal from :"role";
grant usage on schema journal to :"role";

-- What is read. A lock on a head is taken by journal.lock, since `for update` needs more than reading.
grant select on
  journal.migration, journal.journal, journal.head, journal.collection, journal.commit, journal.change, journal.atom,
  journal.client, journal.push, journal.idempotency, journal.conflict, journal.floor, journal.registry, journal.kept,
  journal.operation, journal.audit, journal.server, journal.door, journal.token, journal.ticket, journal.owner
  to :"role";

-- Answers to pushes: forgotten after their time, changed where an atom's data was erased.
grant delete, update (answer) on journal.push to :"role";
grant delete, update (answer) on journal.idempotency to :"role";
grant update (forgotten) on journal.client to :"role";

-- Conflicts are settled.
grant update (keep, copy, revision, settled_by, settled_at) on journal.conflict to :"role";

-- Who syncs, and what is kept from compaction for them.
grant insert, delete, update (cursor, cursor_at, epoch, revision, collections, agent, last_seen, resynced, resynced_at)
  on journal.registry to :"role";
grant insert, delete, update (until) on journal.kept to :"role";

-- Operators: what takes long, what they did, which PostgreSQL this is. Nobody changes what was written down of them.
grant insert, delete, update (progress, state, result, seen_at, ended_at) on journal.operation to :"role";
grant insert on journal.audit to :"role";
grant insert, update (system, timeline, at) on journal.server to :"role";

-- Who may come in. A token's row stays for ever; that tokens changed is counted by their trigger, as the owner.
grant insert, update (hash, grants, expires_at, revoked_at, revoked_by, used_at) on journal.token to :"role";
grant insert, delete on journal.ticket to :"role";
grant insert on journal.owner to :"role";

-- Functions of the schema are for nobody else (store/migrate.py): some run as the owner.
grant execute on all functions in schema journal to :"role";
