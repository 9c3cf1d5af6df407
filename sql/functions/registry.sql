-- The highest floor within (after, until] that concerns a client with these collections; null: none does.
create or replace function journal.floor_of(
  of_journal int, of_client uuid, of_collections text[], after bigint, until bigint) returns bigint
language sql stable as $$
  select max(f.revision)
    from journal.floor f
   where f.journal_id = of_journal
     and f.revision > after
     and f.revision <= until
     and (f.client = of_client
          or f.client is null and (f.collections is null or of_collections is null or f.collections && of_collections))
$$;

-- What a client that was at `r` has come back over when it is seen with a cursor at a revision: the floor that
-- concerns it, or the horizon; null where it just went on.
create or replace function journal.came_back(r journal.registry, epoch bytea, revision bigint) returns bigint
language sql stable as $$
  select greatest(
           journal.floor_of(r.journal_id, r.client, r.collections, r.revision, revision),
           case when r.revision < h.horizon or r.epoch <> came_back.epoch then h.horizon end)
    from journal.head h
   where h.journal_id = r.journal_id
     and h.epoch = came_back.epoch
     and came_back.revision >= h.horizon
     and r.revision is not null
     and came_back.revision is not null
$$;

-- Where clients were seen, as a process has gathered it for some seconds; what is older than what is known stays out.
-- The arrays are parallel, sorted by journal and client so that processes do not wait for each other crosswise.
-- revision null: it was seen, but not with a cursor.
create or replace function journal.see(
  names text[], clients uuid[], cursors text[], epochs bytea[], revisions bigint[], scopes text[], agents text[],
  seen timestamptz[]) returns void
language sql as $$
  insert into journal.registry as r
         (journal_id, client, cursor, epoch, revision, collections, agent, first_seen, last_seen)
  select j.id, s.client, s.cursor, s.epoch, s.revision, s.scope::text[], s.agent, s.seen, s.seen
    from unnest(names, clients, cursors, epochs, revisions, scopes, agents, seen)
      as s (name, client, cursor, epoch, revision, scope, agent, seen)
    join journal.journal j on j.name = s.name
   where not exists (select from journal.client c
                      where c.journal_id = j.id and c.name = s.client and c.gone_at is not null)
   order by j.id, s.client
      on conflict (journal_id, client) do update
     set cursor = coalesce(excluded.cursor, r.cursor),
         epoch = coalesce(excluded.epoch, r.epoch),
         revision = coalesce(excluded.revision, r.revision),
         collections = case when excluded.cursor is null then r.collections else excluded.collections end,
         agent = coalesce(excluded.agent, r.agent),
         last_seen = excluded.last_seen,
         (resynced, resynced_at) = (
           select coalesce(journal.came_back(r, excluded.epoch, excluded.revision), r.resynced),
                  case when journal.came_back(r, excluded.epoch, excluded.revision) is null
                       then r.resynced_at else excluded.last_seen end)
   where excluded.last_seen > r.last_seen
$$;

-- The highest floor that a client has not obeyed yet, as far as its last cursor tells; null: none.
create or replace function journal.wanted(r journal.registry, h journal.head) returns bigint
language sql stable as $$
  select case when r.revision is null then null
              when r.epoch <> h.epoch or r.revision > h.head then greatest(h.horizon, 0)
              else journal.floor_of(r.journal_id, r.client, r.collections, r.revision, h.head) end
$$;
