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

-- Whether an operator forgot a client.
create or replace function journal.is_gone(of_journal int, of_client uuid) returns boolean
language sql stable as $$
  select exists (select from journal.client c
                  where c.journal_id = of_journal and c.name = of_client and c.gone_at is not null)
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
-- Times come as seconds ago, since the clocks of processes are not one. The arrays are parallel, sorted by journal and
-- client so that processes do not wait for each other crosswise. A null cursor: it was seen, but not with one.
create or replace function journal.see(
  names text[], clients uuid[], cursors text[], epochs bytea[], revisions bigint[], scopes text[], agents text[],
  cursor_ages float8[], ages float8[]) returns void
language sql as $$
  insert into journal.registry as r
         (journal_id, client, cursor, cursor_at, epoch, revision, collections, agent, first_seen, last_seen)
  select j.id, s.client, s.cursor, t.now - make_interval(secs => s.cursor_age), s.epoch, s.revision,
         s.scope::text[], s.agent, t.now - make_interval(secs => s.age), t.now - make_interval(secs => s.age)
    from unnest(names, clients, cursors, epochs, revisions, scopes, agents, cursor_ages, ages)
      as s (name, client, cursor, epoch, revision, scope, agent, cursor_age, age)
    join journal.journal j on j.name = s.name
   cross join (select journal.now() as now offset 0) t
   where not journal.is_gone(j.id, s.client)
   order by j.id, s.client
      on conflict (journal_id, client) do update
     set (cursor, cursor_at, epoch, revision, collections, resynced, resynced_at) = (
           select case when n.is_newer then excluded.cursor else r.cursor end,
                  case when n.is_newer then excluded.cursor_at else r.cursor_at end,
                  case when n.is_newer then excluded.epoch else r.epoch end,
                  case when n.is_newer then excluded.revision else r.revision end,
                  case when n.is_newer then excluded.collections else r.collections end,
                  coalesce(n.over, r.resynced),
                  case when n.over is null then r.resynced_at else excluded.cursor_at end
             from (select k.is_newer, case when k.is_newer then journal.came_back(r, excluded.epoch, excluded.revision) end as over
                     from (select excluded.cursor is not null
                                  and excluded.cursor_at > coalesce(r.cursor_at, '-infinity') as is_newer) k) n),
         agent = coalesce(excluded.agent, r.agent),
         last_seen = greatest(excluded.last_seen, r.last_seen)
$$;

-- What a client has to come back over, as far as its last cursor tells: a floor, or the horizon; null: nothing.
create or replace function journal.wanted(r journal.registry, h journal.head) returns bigint
language sql stable as $$
  select case when r.revision is null then null
              when r.epoch <> h.epoch or r.revision > h.head then h.horizon
              else greatest(journal.floor_of(r.journal_id, r.client, r.collections, r.revision, h.head),
                            case when r.revision < h.horizon then h.horizon end) end
$$;
