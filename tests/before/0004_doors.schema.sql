-- What the files of sql/migrations and sql/functions add up to. Made by `make schema`, held by test_schema.py.
set check_function_bodies = off;
create schema journal;

create table journal.atom (
  journal_id integer not null,
  collection_id integer not null,
  atom text collate "C" not null,
  born bigint not null,
  born_by integer,
  created bigint not null,
  revision bigint not null,
  deleted boolean not null,
  data jsonb,
  fk text[] not null,
  fr bigint[] not null,
  constraint atom_pkey PRIMARY KEY (journal_id, collection_id, atom),
  constraint atom_is_in_order CHECK (((born <= created) AND (created <= revision))),
  constraint atom_knows_each_fields_revision CHECK ((cardinality(fk) = cardinality(fr))),
  constraint atom_lives_with_data CHECK ((deleted = (data IS NULL)))
);

create table journal.audit (
  journal_id integer not null,
  id bigint not null generated always as identity,
  at timestamp with time zone not null,
  by text not null,
  action text not null,
  detail json not null,
  constraint audit_pkey PRIMARY KEY (journal_id, id)
);

create table journal.change (
  journal_id integer not null,
  revision bigint not null,
  collection_id integer not null,
  atom text collate "C" not null,
  op smallint not null,
  data json,
  unset text[],
  prev bigint not null,
  erased bytea,
  constraint change_pkey PRIMARY KEY (journal_id, revision),
  constraint change_follows_its_past CHECK (((prev >= 0) AND (prev < revision))),
  constraint change_has_the_data_of_its_op CHECK (
CASE op
    WHEN 4 THEN ((data IS NULL) AND (erased IS NULL))
    WHEN 2 THEN ((data IS NOT NULL) OR (unset IS NOT NULL) OR (erased IS NOT NULL))
    ELSE ((data IS NOT NULL) OR (erased IS NOT NULL))
END),
  constraint change_op_is_known CHECK (((op >= 1) AND (op <= 4))),
  constraint change_unsets_only_in_an_update CHECK (((unset IS NULL) OR (op = 2)))
);

create table journal.client (
  journal_id integer not null,
  id integer not null,
  name uuid not null,
  pushed bigint not null default 0,
  forgotten bigint not null default 0,
  first_seen timestamp with time zone not null,
  gone_at timestamp with time zone,
  constraint client_pkey PRIMARY KEY (journal_id, id),
  constraint client_journal_id_name_key UNIQUE (journal_id, name),
  constraint client_forgets_only_what_was_decided CHECK ((forgotten <= pushed))
);

create table journal.collection (
  journal_id integer not null,
  id integer not null,
  name text collate "C" not null,
  atoms bigint not null default 0,
  digest bigint not null default 0,
  policy text,
  constraint collection_pkey PRIMARY KEY (journal_id, id),
  constraint collection_journal_id_name_key UNIQUE (journal_id, name),
  constraint collection_counts_what_lives CHECK ((atoms >= 0)),
  constraint collection_policy_is_known CHECK ((policy = ANY (ARRAY['server'::text, 'merge'::text, 'client'::text, 'newest'::text, 'both'::text])))
);

create table journal.commit (
  journal_id integer not null,
  revision bigint not null,
  first bigint not null,
  epoch bytea not null,
  client_id integer,
  push bigint,
  committed_at timestamp with time zone not null,
  chain bytea not null,
  constraint commit_pkey PRIMARY KEY (journal_id, revision),
  constraint commit_chain_is_sha256 CHECK ((octet_length(chain) = 32)),
  constraint commit_is_not_empty CHECK (((first >= 1) AND (first <= revision)))
);

create table journal.conflict (
  journal_id integer not null,
  id bigint not null,
  op text not null,
  collection text collate "C" not null,
  atom text collate "C" not null,
  data json,
  unset text[],
  client uuid,
  push bigint,
  place integer not null,
  base bigint,
  stood_revision bigint,
  stood_data json,
  at timestamp with time zone not null,
  erased boolean not null default false,
  keep text,
  copy text collate "C",
  revision bigint,
  settled_by text,
  settled_at timestamp with time zone,
  constraint conflict_pkey PRIMARY KEY (journal_id, id),
  constraint conflict_has_a_copy_where_both_are_kept CHECK (((copy IS NOT NULL) = (NOT (keep IS DISTINCT FROM 'both'::text)))),
  constraint conflict_is_counted_from_one CHECK ((id > 0)),
  constraint conflict_is_settled_by_somebody CHECK ((((keep IS NULL) = (settled_at IS NULL)) AND ((keep IS NULL) = (settled_by IS NULL)))),
  constraint conflict_keep_is_known CHECK ((keep = ANY (ARRAY['server'::text, 'client'::text, 'both'::text]))),
  constraint conflict_op_is_known CHECK ((op = ANY (ARRAY['insert'::text, 'update'::text, 'put'::text, 'delete'::text]))),
  constraint conflict_that_is_erased_has_no_data CHECK (((NOT erased) OR ((data IS NULL) AND (stood_data IS NULL))))
);

create table journal.floor (
  journal_id integer not null,
  revision bigint not null,
  client uuid,
  collections text[],
  spread_s integer not null default 0,
  reason text not null,
  at timestamp with time zone not null,
  constraint floor_pkey PRIMARY KEY (journal_id, revision),
  constraint floor_spreads_over_a_time CHECK ((spread_s >= 0))
);

create table journal.head (
  journal_id integer not null,
  epoch bytea not null,
  head bigint not null default 0,
  horizon bigint not null default 0,
  chain bytea not null default '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea,
  turn bigint not null default 0,
  erased bigint not null default 0,
  gone integer not null default 0,
  constraint head_pkey PRIMARY KEY (journal_id),
  constraint head_chain_is_sha256 CHECK ((octet_length(chain) = 32)),
  constraint head_epoch_is_6_bytes CHECK ((octet_length(epoch) = 6)),
  constraint head_is_a_double CHECK ((head < '9007199254740992'::bigint)),
  constraint head_is_at_or_above_the_horizon CHECK (((head >= horizon) AND (horizon >= 0)))
);

create table journal.idempotency (
  journal_id integer not null,
  key text collate "C" not null,
  content bytea not null,
  status smallint not null,
  answer json not null,
  at timestamp with time zone not null,
  constraint idempotency_pkey PRIMARY KEY (journal_id, key)
);

create table journal.journal (
  id integer not null generated always as identity,
  name text collate "C" not null,
  created_at timestamp with time zone not null default now(),
  constraint journal_pkey PRIMARY KEY (id),
  constraint journal_name_key UNIQUE (name),
  constraint journal_name_is_plain CHECK ((name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text))
);

create table journal.kept (
  journal_id integer not null,
  revision bigint not null,
  until timestamp with time zone not null,
  constraint kept_pkey PRIMARY KEY (journal_id, revision)
);

create table journal.migration (
  name text collate "C" not null,
  hash text,
  applied_at timestamp with time zone not null default now(),
  constraint migration_pkey PRIMARY KEY (name)
);

create table journal.operation (
  journal_id integer not null,
  id uuid not null,
  kind text not null,
  asked json not null,
  state text not null default 'running'::text,
  progress real not null default 0,
  result json,
  by text not null,
  begun_at timestamp with time zone not null,
  seen_at timestamp with time zone not null,
  ended_at timestamp with time zone,
  constraint operation_pkey PRIMARY KEY (journal_id, id),
  constraint operation_state_is_known CHECK ((state = ANY (ARRAY['running'::text, 'done'::text, 'failed'::text])))
);

create table journal.push (
  journal_id integer not null,
  client_id integer not null,
  push bigint not null,
  content bytea not null,
  status smallint not null,
  answer json not null,
  at timestamp with time zone not null,
  constraint push_pkey PRIMARY KEY (journal_id, client_id, push)
);

create table journal.registry (
  journal_id integer not null,
  client uuid not null,
  cursor text,
  cursor_at timestamp with time zone,
  epoch bytea,
  revision bigint,
  collections text[],
  agent text,
  first_seen timestamp with time zone not null,
  last_seen timestamp with time zone not null,
  resynced bigint,
  resynced_at timestamp with time zone,
  constraint registry_pkey PRIMARY KEY (journal_id, client)
);

create table journal.server (
  is_it boolean not null default true,
  system text not null,
  timeline integer not null,
  at timestamp with time zone not null default now(),
  constraint server_pkey PRIMARY KEY (is_it),
  constraint server_is_it_check CHECK (is_it)
);

CREATE INDEX atom_revision ON journal.atom USING btree (journal_id, revision);

CREATE INDEX conflict_atom ON journal.conflict USING btree (journal_id, collection, atom);

CREATE INDEX conflict_client ON journal.conflict USING btree (journal_id, client, id);

CREATE INDEX conflict_open ON journal.conflict USING btree (journal_id, id) WHERE (settled_at IS NULL);

CREATE INDEX conflict_settled ON journal.conflict USING btree (journal_id, id) WHERE (settled_at IS NOT NULL);

CREATE INDEX idempotency_at ON journal.idempotency USING brin (at);

CREATE INDEX push_at ON journal.push USING brin (at);

CREATE INDEX registry_lag ON journal.registry USING btree (journal_id, COALESCE(revision, ('-1'::integer)::bigint), client);

CREATE OR REPLACE FUNCTION journal.append(conflicts json, journal_ids integer[], turns bigint[], chains_before bytea[], heads bigint[], chains bytea[], commit_journal integer[] DEFAULT '{}'::integer[], commit_revision bigint[] DEFAULT '{}'::bigint[], commit_first bigint[] DEFAULT '{}'::bigint[], commit_client integer[] DEFAULT '{}'::integer[], commit_push bigint[] DEFAULT '{}'::bigint[], commit_at timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[], commit_chain bytea[] DEFAULT '{}'::bytea[], change_journal integer[] DEFAULT '{}'::integer[], change_revision bigint[] DEFAULT '{}'::bigint[], change_collection integer[] DEFAULT '{}'::integer[], change_atom text[] DEFAULT '{}'::text[], change_op smallint[] DEFAULT '{}'::smallint[], change_data text[] DEFAULT '{}'::text[], change_unset text[] DEFAULT '{}'::text[], change_prev bigint[] DEFAULT '{}'::bigint[], atom_is_new boolean[] DEFAULT '{}'::boolean[], atom_journal integer[] DEFAULT '{}'::integer[], atom_collection integer[] DEFAULT '{}'::integer[], atom_name text[] DEFAULT '{}'::text[], atom_born bigint[] DEFAULT '{}'::bigint[], atom_born_by integer[] DEFAULT '{}'::integer[], atom_created bigint[] DEFAULT '{}'::bigint[], atom_revision bigint[] DEFAULT '{}'::bigint[], atom_data text[] DEFAULT '{}'::text[], atom_fk text[] DEFAULT '{}'::text[], atom_fr text[] DEFAULT '{}'::text[], collection_journal integer[] DEFAULT '{}'::integer[], collection_id integer[] DEFAULT '{}'::integer[], collection_name text[] DEFAULT '{}'::text[], collection_atoms bigint[] DEFAULT '{}'::bigint[], collection_digest bigint[] DEFAULT '{}'::bigint[], client_journal integer[] DEFAULT '{}'::integer[], client_id integer[] DEFAULT '{}'::integer[], client_name uuid[] DEFAULT '{}'::uuid[], client_pushed bigint[] DEFAULT '{}'::bigint[], push_journal integer[] DEFAULT '{}'::integer[], push_client integer[] DEFAULT '{}'::integer[], push_number bigint[] DEFAULT '{}'::bigint[], push_content bytea[] DEFAULT '{}'::bytea[], push_status smallint[] DEFAULT '{}'::smallint[], push_answer text[] DEFAULT '{}'::text[], key_journal integer[] DEFAULT '{}'::integer[], key_name text[] DEFAULT '{}'::text[], key_content bytea[] DEFAULT '{}'::bytea[], key_status smallint[] DEFAULT '{}'::smallint[], key_answer text[] DEFAULT '{}'::text[])
 RETURNS timestamp with time zone
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  at_ timestamptz;
  updated bigint;
begin
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
$function$;

CREATE OR REPLACE FUNCTION journal.begin_epoch(of_journal integer, at bigint, spread integer, operator text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.came_back(r registry, epoch bytea, revision bigint)
 RETURNS bigint
 LANGUAGE sql
 STABLE
AS $function$
  select greatest(
           journal.floor_of(r.journal_id, r.client, r.collections, r.revision, revision),
           case when r.revision < h.horizon or r.epoch <> came_back.epoch then h.horizon end)
    from journal.head h
   where h.journal_id = r.journal_id
     and h.epoch = came_back.epoch
     and came_back.revision >= h.horizon
     and r.revision is not null
     and came_back.revision is not null
$function$;

CREATE OR REPLACE FUNCTION journal.chain(before bytea, revision bigint, epoch bytea DEFAULT NULL::bytea)
 RETURNS bytea
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
  select sha256(before || '\x00000008'::bytea || int8send(revision)
                || coalesce('\x00000006'::bytea || epoch, ''::bytea))
$function$;

CREATE OR REPLACE FUNCTION journal.commit_end(of_journal integer, horizon bigint, at bigint)
 RETURNS bigint
 LANGUAGE sql
 STABLE
AS $function$
  select coalesce((select c.revision from journal.commit c
                    where c.journal_id = of_journal and c.revision <= at and c.revision > horizon
                    order by c.revision desc limit 1), horizon)
$function$;

CREATE OR REPLACE FUNCTION journal.compactable(of_journal integer, keep_revisions bigint, keep_from timestamp with time zone, guard timestamp with time zone, is_forced boolean, OUT horizon bigint, OUT wanted bigint, OUT target bigint, OUT client uuid, OUT client_revision bigint, OUT snapshot_revision bigint)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal."create"(journal_name text)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
declare
  made int;
begin
  insert into journal.journal (name) values (journal_name) on conflict (name) do nothing returning id into made;
  if made is null then
    return false;
  end if;
  insert into journal.head (journal_id, epoch)
  values (made, substring(decode(replace(gen_random_uuid()::text, '-', ''), 'hex') from 1 for 6));
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION journal.erase(of_journal integer, of_collection integer, of_atom text, OUT revisions bigint[], OUT blanked bigint)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
declare
  new_turn bigint;
begin
  with recursive walk as (
    select x.revision, x.prev from journal.atom a
      join journal.change x on x.journal_id = a.journal_id and x.revision = a.revision
     where a.journal_id = of_journal and a.collection_id = of_collection and a.atom = of_atom and a.deleted
    union all
    select x.revision, x.prev from walk w
     cross join lateral (
       select x.revision, x.prev from journal.change x
        where x.journal_id = of_journal and x.revision = w.prev limit 1) x)
  select coalesce(array_agg(w.revision), '{}') into revisions from walk w;
  perform set_config('journal.door', 'erase', true);
  update journal.change x
     set erased = sha256(convert_to(x.data::text, 'UTF8')), data = null
   where x.journal_id = of_journal and x.revision = any(revisions) and x.data is not null;
  get diagnostics blanked = row_count;
  perform set_config('journal.door', '', true);
  update journal.atom a set fk = '{}', fr = '{}'
   where a.journal_id = of_journal and a.collection_id = of_collection and a.atom = of_atom and a.deleted;
  update journal.head h set erased = h.head, turn = h.turn + 1
   where h.journal_id = of_journal returning h.turn into new_turn;
  perform pg_notify('journal', of_journal || ':' || new_turn);
end
$function$;

CREATE OR REPLACE FUNCTION journal.erase_conflicts(of_journal integer, of_collection text, of_atom text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
declare
  blanked bigint;
begin
  update journal.conflict c
     set data = null, stood_data = null, erased = true
   where c.journal_id = of_journal
     and c.collection = of_collection
     and (c.atom = of_atom or c.copy = of_atom)
     and not c.erased;
  get diagnostics blanked = row_count;
  return blanked;
end
$function$;

CREATE OR REPLACE FUNCTION journal.floor_of(of_journal integer, of_client uuid, of_collections text[], after bigint, until bigint)
 RETURNS bigint
 LANGUAGE sql
 STABLE
AS $function$
  select max(f.revision)
    from journal.floor f
   where f.journal_id = of_journal
     and f.revision > after
     and f.revision <= until
     and (f.client = of_client
          or f.client is null and (f.collections is null or of_collections is null or f.collections && of_collections))
$function$;

CREATE OR REPLACE FUNCTION journal.forget_client(of_journal integer, of_client uuid, operator text)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.is_gone(of_journal integer, of_client uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select exists (select from journal.client c
                  where c.journal_id = of_journal and c.name = of_client and c.gone_at is not null)
$function$;

CREATE OR REPLACE FUNCTION journal.meta(of_journal integer, of_revision bigint)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select ',"at":"' || journal.rfc3339(c.committed_at) || '","by":'
         || coalesce('"' || (select k.name from journal.client k
                              where k.journal_id = of_journal and k.id = c.client_id)::text || '"', 'null')
    from journal.commit c
   where c.journal_id = of_journal and c.revision >= of_revision
   order by c.revision
   limit 1
$function$;

CREATE OR REPLACE FUNCTION journal.note(of_journal integer, operator text, what text, how json)
 RETURNS void
 LANGUAGE sql
AS $function$
  insert into journal.audit (journal_id, at, by, action, detail)
  values (of_journal, journal.now(), operator, what, how)
$function$;

CREATE OR REPLACE FUNCTION journal.now()
 RETURNS timestamp with time zone
 LANGUAGE sql
 PARALLEL SAFE
AS $function$
  select coalesce(nullif(current_setting('journal.now', true), '')::timestamptz, clock_timestamp())
$function$;

CREATE OR REPLACE FUNCTION journal.raise_horizon(of_journal integer, wanted bigint, guard timestamp with time zone, is_forced boolean, operator text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.refuse()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  door text := current_setting('journal.door', true);
begin
  if (tg_op = 'DELETE' and door in ('remove', 'compact'))
     or (tg_op = 'UPDATE' and door = 'erase' and tg_table_name = 'change') then
    return null;
  end if;
  raise exception 'journal.% is append-only: % is refused', tg_table_name, lower(tg_op)
    using errcode = 'JR003';
end
$function$;

CREATE OR REPLACE FUNCTION journal.refuse_above_horizon()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if current_setting('journal.door', true) = 'compact' and exists (
    select from gone g join journal.head h on h.journal_id = g.journal_id
     where g.revision > h.horizon or (g.revision = h.horizon and tg_table_name = 'commit'))
  then
    raise exception 'journal.% above the horizon is not removed', tg_table_name using errcode = 'JR003';
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION journal.refuse_all_but_blanking()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if (select count(*) from was) <> (select count(*) from now_is) or exists (
    select from was w left join now_is n on n.journal_id = w.journal_id and n.revision = w.revision
     where (n.collection_id, n.atom, n.op, n.unset, n.prev)
           is distinct from (w.collection_id, w.atom, w.op, w.unset, w.prev)
        or n.data is not null or w.data is null or n.erased is distinct from sha256(convert_to(w.data::text, 'UTF8')))
  then
    raise exception 'journal.change is append-only: only its data can be blanked' using errcode = 'JR003';
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION journal.remove(journal_name text)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
declare
  removed int;
begin
  select j.id into removed from journal.journal j where j.name = journal_name for update;
  if removed is null then
    return false;
  end if;
  perform set_config('journal.door', 'remove', true);
  perform 1 from journal.head h where h.journal_id = removed for update;
  delete from journal.conflict where journal_id = removed;
  delete from journal.audit where journal_id = removed;
  delete from journal.operation where journal_id = removed;
  delete from journal.kept where journal_id = removed;
  delete from journal.registry where journal_id = removed;
  delete from journal.floor where journal_id = removed;
  delete from journal.idempotency where journal_id = removed;
  delete from journal.push where journal_id = removed;
  delete from journal.client where journal_id = removed;
  delete from journal.atom where journal_id = removed;
  delete from journal.change where journal_id = removed;
  delete from journal.commit where journal_id = removed;
  delete from journal.collection where journal_id = removed;
  delete from journal.head where journal_id = removed;
  delete from journal.journal where id = removed;
  perform set_config('journal.door', '', true);
  perform pg_notify('journal', removed || ':-');
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION journal.resync(of_journal integer, of_client uuid, of_collections text[], spread integer, why text, operator text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.rfc3339(moment timestamp with time zone)
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$function$;

CREATE OR REPLACE FUNCTION journal.row_bytes(of_table regclass)
 RETURNS double precision
 LANGUAGE sql
 STABLE
AS $function$
  select coalesce(pg_total_relation_size(of_table)
                  / nullif(greatest(c.reltuples, pg_stat_get_live_tuples(of_table)), 0), 0)::float8
    from pg_class c where c.oid = of_table
$function$;

CREATE OR REPLACE FUNCTION journal.see(names text[], clients uuid[], cursors text[], epochs bytea[], revisions bigint[], scopes text[], agents text[], cursor_ages double precision[], ages double precision[])
 RETURNS void
 LANGUAGE sql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.set_policy(of_journal integer, collection_name text, new_policy text, operator text DEFAULT CURRENT_USER)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  new_turn bigint;
begin
  update journal.head h set turn = h.turn + 1 where h.journal_id = of_journal returning h.turn into new_turn;
  if not found then
    return; -- the journal was removed: nothing of it may stay
  end if;
  insert into journal.collection (journal_id, id, name, policy)
  select of_journal, coalesce(max(k.id), 0) + 1, collection_name, new_policy
    from journal.collection k where k.journal_id = of_journal
  on conflict (journal_id, name) do update set policy = excluded.policy;
  perform journal.note(of_journal, operator, 'policy', json_build_object(
    'collection', collection_name, 'policy', new_policy));
  perform pg_notify('journal', of_journal || ':' || new_turn);
end
$function$;

CREATE OR REPLACE FUNCTION journal.spared(of_journal integer, wanted bigint, guard timestamp with time zone, is_forced boolean, OUT target bigint, OUT client uuid, OUT client_revision bigint, OUT snapshot_revision bigint)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.sweep_record(of_journal integer, most integer, OUT changes bigint, OUT commits bigint)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.sweep_tombstones(of_journal integer, after bigint, most integer, OUT tombstones bigint, OUT next bigint)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION journal.wanted(r registry, h head)
 RETURNS bigint
 LANGUAGE sql
 STABLE
AS $function$
  select case when r.revision is null then null
              when r.epoch <> h.epoch or r.revision > h.head then h.horizon
              else greatest(journal.floor_of(r.journal_id, r.client, r.collections, r.revision, h.head),
                            case when r.revision < h.horizon then h.horizon end) end
$function$;

CREATE TRIGGER change_goes_below_the_horizon AFTER DELETE ON journal.change REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION refuse_above_horizon();

CREATE TRIGGER change_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON journal.change FOR EACH STATEMENT EXECUTE FUNCTION refuse();

CREATE TRIGGER change_is_only_blanked AFTER UPDATE ON journal.change REFERENCING OLD TABLE AS was NEW TABLE AS now_is FOR EACH STATEMENT EXECUTE FUNCTION refuse_all_but_blanking();

CREATE TRIGGER commit_goes_below_the_horizon AFTER DELETE ON journal.commit REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION refuse_above_horizon();

CREATE TRIGGER commit_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON journal.commit FOR EACH STATEMENT EXECUTE FUNCTION refuse();
