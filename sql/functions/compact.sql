-- How far a journal may be compacted: the end of a commit, whose chain is kept. `wanted` is what was asked for.
create or replace function journal.compactable(
  of_journal int, keep_revisions bigint, keep_from timestamptz, guard timestamptz, is_forced boolean,
  out horizon bigint, out wanted bigint, out target bigint, out client uuid, out client_revision bigint,
  out snapshot_revision bigint)
language plpgsql stable as $$
declare
  h journal.head;
  first bigint;
begin
  select * into h from journal.head where journal_id = of_journal;
  horizon := h.horizon;
  wanted := h.head - coalesce(keep_revisions, 0);
  if keep_from is not null then
    select c.first into first from journal.commit c
     where c.journal_id = of_journal and c.revision > h.horizon and c.committed_at >= keep_from
     order by c.revision limit 1;
    wanted := least(wanted, first - 1);
  end if;
  wanted := journal.commit_end(of_journal, h.horizon, wanted);
  select t.target, t.client, t.client_revision, t.snapshot_revision
    into target, client, client_revision, snapshot_revision
    from journal.spared(of_journal, wanted, guard, is_forced) t;
end
$$;

-- What of that nobody needs any more: not past a client that was seen since `guard` (unless forced), nor past a snapshot
-- that is kept, of which the lowest are told. Never below the horizon that there is.
create or replace function journal.spared(
  of_journal int, wanted bigint, guard timestamptz, is_forced boolean,
  out target bigint, out client uuid, out client_revision bigint, out snapshot_revision bigint)
language plpgsql stable as $$
declare
  h journal.head;
begin
  select * into h from journal.head where journal_id = of_journal;
  select k.revision into snapshot_revision
    from journal.kept k
   where k.journal_id = of_journal and k.until > journal.now() and k.revision >= h.horizon and k.revision < wanted
   order by k.revision limit 1;
  if not is_forced then
    select r.client, r.revision into client, client_revision
      from journal.registry r
     where r.journal_id = of_journal and r.epoch = h.epoch and r.last_seen >= guard
       and coalesce(r.revision, -1) >= h.horizon and coalesce(r.revision, -1) < wanted
       and not journal.is_gone(of_journal, r.client)
     order by coalesce(r.revision, -1) limit 1;
  end if;
  target := journal.commit_end(of_journal, h.horizon, least(wanted, snapshot_revision, client_revision));
end
$$;

-- The end of the last commit at or below a revision, but not below the horizon.
create or replace function journal.commit_end(of_journal int, horizon bigint, at bigint) returns bigint
language sql stable as $$
  select coalesce((select c.revision from journal.commit c
                    where c.journal_id = of_journal and c.revision <= at and c.revision > horizon
                    order by c.revision desc limit 1), horizon)
$$;

-- Raises the horizon to what is wanted, as far as it may be raised by now; from then on no deltas start below it.
create or replace function journal.raise_horizon(
  of_journal int, wanted bigint, guard timestamptz, is_forced boolean, operator text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  h journal.head;
  to_ bigint;
begin
  select * into h from journal.head where journal_id = of_journal for update;
  if not found then
    return null;
  end if;
  select s.target into to_ from journal.spared(of_journal, wanted, guard, is_forced) s;
  perform journal.note(of_journal, operator, 'compact', json_build_object(
    'horizon', to_, 'was', h.horizon, 'force', is_forced));
  if to_ > h.horizon then
    update journal.head set horizon = to_, turn = turn + 1 where journal_id = of_journal;
    perform pg_notify('journal', of_journal || ':' || h.turn + 1);
  end if;
  return to_;
end
$$;

-- Removes some of the record at or below the horizon: at most so many changes and commits, the oldest first.
-- Takes no lock that a push needs.
create or replace function journal.sweep_record(of_journal int, most int, out changes bigint, out commits bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  below bigint := (select h.horizon from journal.head h where h.journal_id = of_journal);
  last bigint;
begin
  perform pg_advisory_xact_lock(hashtext('journal.sweep'), of_journal);  -- who finds nothing left is to know it
  perform set_config('journal.door', 'compact', true);
  select max(x.revision) into last
    from (select x.revision from journal.change x
           where x.journal_id = of_journal and x.revision <= below order by x.revision limit most) x;
  delete from journal.change x where x.journal_id = of_journal and x.revision <= last;
  get diagnostics changes = row_count;
  select max(c.revision) into last
    from (select c.revision from journal.commit c
           where c.journal_id = of_journal and c.revision < below order by c.revision limit most) c;
  delete from journal.commit c where c.journal_id = of_journal and c.revision <= last;
  get diagnostics commits = row_count;
  delete from journal.floor f  -- but not one by which clients are still told when to come
   where f.journal_id = of_journal and f.revision < below and f.at + make_interval(secs => f.spread_s) < journal.now();
  perform set_config('journal.door', '', true);
end
$$;

-- Removes tombstones at or below the horizon: looks at so many atoms after a revision, and tells where it got to, null
-- at the end. A push that was decided on a tombstone is decided again, hence the lock and the turn.
create or replace function journal.sweep_tombstones(
  of_journal int, after bigint, most int, out tombstones bigint, out next bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  below bigint := (select h.horizon from journal.head h where h.journal_id = of_journal);
  new_turn bigint;
begin
  tombstones := 0;
  select max(a.revision) into next
    from (select a.revision from journal.atom a
           where a.journal_id = of_journal and a.revision > after and a.revision <= below
           order by a.revision limit most) a;
  if next is null or not exists (
    select from journal.atom a
     where a.journal_id = of_journal and a.revision > after and a.revision <= next and a.deleted)
  then
    return;
  end if;
  update journal.head h set turn = h.turn + 1 where h.journal_id = of_journal returning h.turn into new_turn;
  delete from journal.atom a
   where a.journal_id = of_journal and a.revision > after and a.revision <= next and a.deleted;
  get diagnostics tombstones = row_count;
  perform pg_notify('journal', of_journal || ':' || new_turn);
end
$$;
