-- Records what a group of pushes came to, whole or not at all: the one way into the record.
--
-- What to record was decided from what the caller read when each journal was at its `turns` and `chains_before`.
-- The heads are locked here, in the order of their ids, and stay locked until the transaction ends; a journal that
-- stands elsewhere by then makes the whole group stale (JR001): read again and decide again. Revisions that do not
-- continue the head are refused (JR002), whatever the caller believes. One notification a group.
-- Runs as the owner, so that who serves needs no right to write to the record. Plans once and by keys (store/database.py
-- says why), also where a pooler lets no caller have settings; a caller that has no lock_timeout for the same reason waits
-- as long as one that has (then a group's journals part ways: service/writer.py).
-- Returns the time that the commits bear. data, unset, fk, fr come as text, an array literal where they are arrays.
-- conflicts, of which there are seldom any (null), come as one array of objects with the columns of journal.conflict.
-- They came with 0003, and come first so that no call fits both this function and the one that was here before: a
-- process of the version before goes on calling that while this one is there already.
create or replace function journal.append(
  conflicts json,
  journal_ids int[], turns bigint[], chains_before bytea[], heads bigint[], chains bytea[],
  commit_journal int[] = '{}', commit_revision bigint[] = '{}', commit_first bigint[] = '{}',
  commit_client int[] = '{}', commit_push bigint[] = '{}', commit_at timestamptz[] = '{}', commit_chain bytea[] = '{}',
  change_journal int[] = '{}', change_revision bigint[] = '{}', change_collection int[] = '{}', change_atom text[] = '{}',
  change_op smallint[] = '{}', change_data text[] = '{}', change_unset text[] = '{}', change_prev bigint[] = '{}',
  atom_is_new boolean[] = '{}', atom_journal int[] = '{}', atom_collection int[] = '{}', atom_name text[] = '{}',
  atom_born bigint[] = '{}',
  atom_born_by int[] = '{}', atom_created bigint[] = '{}', atom_revision bigint[] = '{}',
  atom_data text[] = '{}', atom_fk text[] = '{}', atom_fr text[] = '{}',
  collection_journal int[] = '{}', collection_id int[] = '{}', collection_name text[] = '{}',
  collection_atoms bigint[] = '{}', collection_digest bigint[] = '{}',
  client_journal int[] = '{}', client_id int[] = '{}', client_name uuid[] = '{}', client_pushed bigint[] = '{}',
  push_journal int[] = '{}', push_client int[] = '{}', push_number bigint[] = '{}',
  push_content bytea[] = '{}', push_status smallint[] = '{}', push_answer text[] = '{}',
  key_journal int[] = '{}', key_name text[] = '{}',
  key_content bytea[] = '{}', key_status smallint[] = '{}', key_answer text[] = '{}'
) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  at_ timestamptz;
  updated bigint;
begin
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '250ms', true);
  end if;
  perform 1 from journal.head h where h.journal_id = any(journal_ids) order by h.journal_id for update;
  if exists (
    select from unnest(journal_ids, turns, chains_before) as e (id, turn, chain)
      left join journal.head h on h.journal_id = e.id
     where h.turn is distinct from e.turn or h.chain is distinct from e.chain)
  then
    raise exception 'a journal has moved on since it was read' using errcode = 'JR001';
  end if;
  if exists (
    select from unnest(journal_ids, heads) as e (id, head)
      join journal.head h on h.journal_id = e.id
      left join (select c.id, min(c.first) as first, max(c.revision) as revision, bool_or(c.first <> c.before + 1) as is_broken
                   from (select c.id, c.first, c.revision,
                                lag(c.revision, 1, c.first - 1) over (partition by c.id order by c.revision) as before
                           from unnest(commit_journal, commit_first, commit_revision) as c (id, first, revision)) c
                  group by c.id) c on c.id = e.id
      left join (select x.id, min(x.revision) as first, max(x.revision) as revision, count(*) as span
                   from unnest(change_journal, change_revision) as x (id, revision)
                  group by x.id) x on x.id = e.id
     where coalesce(c.first, h.head + 1) <> h.head + 1 or coalesce(c.revision, h.head) <> e.head
        or c.is_broken
        or (x.first, x.revision, x.span) is distinct from (c.first, c.revision, c.revision - c.first + 1))
  then
    raise exception 'revisions that do not continue the head' using errcode = 'JR002';
  end if;

  at_ := journal.now();
  if cardinality(commit_journal) > 0 then
    insert into journal.commit (journal_id, revision, first, epoch, client_id, push, committed_at, chain)
    select c.id, c.revision, c.first, h.epoch, c.client, c.push, coalesce(c.at, at_), c.chain
      from unnest(commit_journal, commit_revision, commit_first, commit_client, commit_push, commit_at, commit_chain)
        as c (id, revision, first, client, push, at, chain)
      join journal.head h on h.journal_id = c.id;
    insert into journal.change (journal_id, revision, collection_id, atom, op, data, unset, prev)
    select x.id, x.revision, x.collection, x.atom, x.op, x.data::json, x.unset::text[], x.prev
      from unnest(change_journal, change_revision, change_collection, change_atom,
                  change_op, change_data, change_unset, change_prev)
        as x (id, revision, collection, atom, op, data, unset, prev);
    -- Two statements: an insert that minds conflicts costs a third more.
    insert into journal.atom (journal_id, collection_id, atom, born, born_by, created, revision, deleted, data, fk, fr)
    select n.id, n.collection, n.atom, n.born, n.born_by, n.created, n.revision,
           n.data is null, n.data::jsonb, n.fk::text[], n.fr::bigint[]
      from unnest(atom_is_new, atom_journal, atom_collection, atom_name, atom_born, atom_born_by,
                  atom_created, atom_revision, atom_data, atom_fk, atom_fr)
        as n (is_new, id, collection, atom, born, born_by, created, revision, data, fk, fr)
     where n.is_new is distinct from false;
    if false = any(atom_is_new) then
      update journal.atom a
         set born_by = n.born_by, created = n.created, revision = n.revision, deleted = n.data is null,
             data = n.data::jsonb, fk = n.fk::text[], fr = n.fr::bigint[]
        from unnest(atom_is_new, atom_journal, atom_collection, atom_name, atom_born_by,
                    atom_created, atom_revision, atom_data, atom_fk, atom_fr)
          as n (is_new, id, collection, atom, born_by, created, revision, data, fk, fr)
       where not n.is_new
         and a.journal_id = n.id and a.collection_id = n.collection and a.atom = n.atom;
      get diagnostics updated = row_count;
      if updated <> (select count(*) from unnest(atom_is_new) as n (is_new) where not n.is_new) then
        raise exception 'an atom that was there is not' using errcode = 'JR002';
      end if;
    end if;
  end if;
  if cardinality(collection_journal) > 0 then
    insert into journal.collection (journal_id, id, name, atoms, digest)
    select k.journal_id, k.id, k.name, k.atoms, k.digest
      from unnest(collection_journal, collection_id, collection_name, collection_atoms, collection_digest)
        as k (journal_id, id, name, atoms, digest)
        on conflict (journal_id, id) do update
       set atoms = excluded.atoms, digest = excluded.digest;
  end if;
  if cardinality(client_journal) > 0 then
    insert into journal.client as k (journal_id, id, name, pushed, first_seen)
    select c.id, c.client, c.name, c.pushed, at_
      from unnest(client_journal, client_id, client_name, client_pushed) as c (id, client, name, pushed)
        on conflict (journal_id, id) do update
       set pushed = greatest(k.pushed, excluded.pushed);
  end if;
  if cardinality(push_journal) > 0 then
    insert into journal.push (journal_id, client_id, push, content, status, answer, at)
    select p.id, p.client, p.number, p.content, p.status, p.answer::json, at_
      from unnest(push_journal, push_client, push_number, push_content, push_status, push_answer)
        as p (id, client, number, content, status, answer);
  end if;
  if cardinality(key_journal) > 0 then
    insert into journal.idempotency (journal_id, key, content, status, answer, at)
    select k.id, k.key, k.content, k.status, k.answer::json, at_
      from unnest(key_journal, key_name, key_content, key_status, key_answer) as k (id, key, content, status, answer);
  end if;
  if conflicts is not null then
    insert into journal.conflict (journal_id, id, op, collection, atom, data, unset, client, push, place, base,
                                  stood_revision, stood_data, at)
    select c.journal_id, c.id, c.op, c.collection, c.atom, c.data, c.unset, c.client, c.push, c.place, c.base,
           c.stood_revision, c.stood_data, at_
      from json_to_recordset(conflicts)
        as c (journal_id int, id bigint, op text, collection text, atom text, data json, unset text[], client uuid,
              push bigint, place int, base bigint, stood_revision bigint, stood_data json);
  end if;
  update journal.head h
     set head = e.head, chain = e.chain, turn = h.turn + 1
    from unnest(journal_ids, heads, chains) as e (id, head, chain)
   where h.journal_id = e.id;
  perform pg_notify('journal', string_agg(e.id || ':' || e.turn + 1, ' '))
     from unnest(journal_ids, turns) with ordinality as e (id, turn, place)
    group by e.place / 250;  -- a payload has less than 8000 bytes
  return at_;
end
$$;
