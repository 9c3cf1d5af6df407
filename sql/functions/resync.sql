-- Records a floor: whom it concerns starts again. A commit of one revision without a change; the revision, or null
-- where the journal is gone.
create or replace function journal.resync(
  of_journal int, of_client uuid, of_collections text[], spread int, why text, operator text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  h journal.head;
  at_ timestamptz;
begin
  select * into h from journal.head where journal_id = of_journal for update;
  if not found then
    return null;
  end if;
  h.head := h.head + 1;
  h.chain := journal.chain(h.chain, h.head);
  at_ := journal.now();
  insert into journal.commit (journal_id, revision, first, epoch, committed_at, chain)
  values (of_journal, h.head, h.head, h.epoch, at_, h.chain);
  insert into journal.floor (journal_id, revision, client, collections, spread_s, reason, at)
  values (of_journal, h.head, of_client, of_collections, spread, why, at_);
  update journal.head set head = h.head, chain = h.chain, turn = turn + 1 where journal_id = of_journal;
  perform journal.note(of_journal, operator, 'resync', json_strip_nulls(json_build_object(
    'revision', h.head, 'client', of_client, 'collections', of_collections, 'spread_s', spread, 'reason', why)));
  perform pg_notify('journal', of_journal || ':' || h.turn + 1);
  return h.head;
end
$$;

-- Begins an epoch at a revision above all that may ever have been given out (null: the next multiple of 2^32), which
-- is its horizon: everyone starts again. Its revision; null where the journal is gone. JR004 where `at` is too low.
create or replace function journal.begin_epoch(of_journal int, at bigint, spread int, operator text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  h journal.head;
  at_ timestamptz;
  was bytea;
begin
  select * into h from journal.head where journal_id = of_journal for update;
  if not found then
    return null;
  end if;
  was := h.epoch;
  at := coalesce(at, (h.head / 4294967296 + 1) * 4294967296);
  if at <= h.head then
    raise exception 'an epoch begins above the head, %', h.head using errcode = 'JR004';
  end if;
  h.epoch := substring(decode(replace(gen_random_uuid()::text, '-', ''), 'hex') from 1 for 6);
  h.chain := journal.chain(h.chain, at, h.epoch);
  at_ := journal.now();
  insert into journal.commit (journal_id, revision, first, epoch, committed_at, chain)
  values (of_journal, at, at, h.epoch, at_, h.chain);
  insert into journal.floor (journal_id, revision, spread_s, reason, at)
  values (of_journal, at, spread, 'the server was restored', at_);
  update journal.head set epoch = h.epoch, head = at, horizon = at, chain = h.chain, turn = turn + 1
   where journal_id = of_journal;
  perform journal.note(of_journal, operator, 'restored', json_build_object(
    'revision', at, 'head', h.head, 'epoch', encode(h.epoch, 'hex'), 'was', encode(was, 'hex'), 'spread_s', spread));
  perform pg_notify('journal', of_journal || ':' || h.turn + 1);
  return at;
end
$$;

-- Forgets a client: it takes a new id. False where it was never heard of.
create or replace function journal.forget_client(of_journal int, of_client uuid, operator text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '15s' as $$
declare
  h journal.head;
begin
  select * into h from journal.head where journal_id = of_journal for update;
  if not found
     or not exists (select from journal.client c
                     where c.journal_id = of_journal and c.name = of_client and c.gone_at is null)
        and not exists (select from journal.registry r where r.journal_id = of_journal and r.client = of_client) then
    return false;
  end if;
  update journal.head set turn = turn + 1, gone = gone + 1 where journal_id = of_journal;
  delete from journal.registry where journal_id = of_journal and client = of_client;
  insert into journal.client (journal_id, id, name, first_seen, gone_at)
  select of_journal, coalesce(max(c.id), 0) + 1, of_client, journal.now(), journal.now()
    from journal.client c where c.journal_id = of_journal
  on conflict (journal_id, name) do update set gone_at = excluded.gone_at;
  perform journal.note(of_journal, operator, 'forget', json_build_object('client', of_client));
  perform pg_notify('journal', of_journal || ':' || h.turn + 1);
  return true;
end
$$;
