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

create table journal.head (
  journal_id integer not null,
  epoch bytea not null,
  head bigint not null default 0,
  horizon bigint not null default 0,
  chain bytea not null default '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea,
  turn bigint not null default 0,
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

create table journal.migration (
  name text collate "C" not null,
  hash text,
  applied_at timestamp with time zone not null default now(),
  constraint migration_pkey PRIMARY KEY (name)
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

CREATE INDEX atom_revision ON journal.atom USING btree (journal_id, revision);

CREATE INDEX idempotency_at ON journal.idempotency USING brin (at);

CREATE INDEX push_at ON journal.push USING brin (at);

CREATE OR REPLACE FUNCTION journal.append(journal_ids integer[], turns bigint[], chains_before bytea[], heads bigint[], chains bytea[], commit_journal integer[] DEFAULT '{}'::integer[], commit_revision bigint[] DEFAULT '{}'::bigint[], commit_first bigint[] DEFAULT '{}'::bigint[], commit_client integer[] DEFAULT '{}'::integer[], commit_push bigint[] DEFAULT '{}'::bigint[], commit_at timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[], commit_chain bytea[] DEFAULT '{}'::bytea[], change_journal integer[] DEFAULT '{}'::integer[], change_revision bigint[] DEFAULT '{}'::bigint[], change_collection integer[] DEFAULT '{}'::integer[], change_atom text[] DEFAULT '{}'::text[], change_op smallint[] DEFAULT '{}'::smallint[], change_data text[] DEFAULT '{}'::text[], change_unset text[] DEFAULT '{}'::text[], change_prev bigint[] DEFAULT '{}'::bigint[], atom_is_new boolean[] DEFAULT '{}'::boolean[], atom_journal integer[] DEFAULT '{}'::integer[], atom_collection integer[] DEFAULT '{}'::integer[], atom_name text[] DEFAULT '{}'::text[], atom_born bigint[] DEFAULT '{}'::bigint[], atom_born_by integer[] DEFAULT '{}'::integer[], atom_created bigint[] DEFAULT '{}'::bigint[], atom_revision bigint[] DEFAULT '{}'::bigint[], atom_data text[] DEFAULT '{}'::text[], atom_fk text[] DEFAULT '{}'::text[], atom_fr text[] DEFAULT '{}'::text[], collection_journal integer[] DEFAULT '{}'::integer[], collection_id integer[] DEFAULT '{}'::integer[], collection_name text[] DEFAULT '{}'::text[], collection_atoms bigint[] DEFAULT '{}'::bigint[], collection_digest bigint[] DEFAULT '{}'::bigint[], client_journal integer[] DEFAULT '{}'::integer[], client_id integer[] DEFAULT '{}'::integer[], client_name uuid[] DEFAULT '{}'::uuid[], client_pushed bigint[] DEFAULT '{}'::bigint[], push_journal integer[] DEFAULT '{}'::integer[], push_client integer[] DEFAULT '{}'::integer[], push_number bigint[] DEFAULT '{}'::bigint[], push_content bytea[] DEFAULT '{}'::bytea[], push_status smallint[] DEFAULT '{}'::smallint[], push_answer text[] DEFAULT '{}'::text[], key_journal integer[] DEFAULT '{}'::integer[], key_name text[] DEFAULT '{}'::text[], key_content bytea[] DEFAULT '{}'::bytea[], key_status smallint[] DEFAULT '{}'::smallint[], key_answer text[] DEFAULT '{}'::text[])
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

CREATE OR REPLACE FUNCTION journal.now()
 RETURNS timestamp with time zone
 LANGUAGE sql
 PARALLEL SAFE
AS $function$
  select coalesce(nullif(current_setting('journal.now', true), '')::timestamptz, clock_timestamp())
$function$;

CREATE OR REPLACE FUNCTION journal.refuse()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'DELETE' and current_setting('journal.door', true) = 'remove' then
    return null;
  end if;
  raise exception 'journal.% is append-only: % is refused', tg_table_name, lower(tg_op)
    using errcode = 'JR003';
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

CREATE OR REPLACE FUNCTION journal.rfc3339(moment timestamp with time zone)
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$function$;

CREATE OR REPLACE FUNCTION journal.set_policy(of_journal integer, collection_name text, new_policy text)
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
  perform pg_notify('journal', of_journal || ':' || new_turn);
end
$function$;

CREATE TRIGGER change_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON journal.change FOR EACH STATEMENT EXECUTE FUNCTION refuse();

CREATE TRIGGER commit_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON journal.commit FOR EACH STATEMENT EXECUTE FUNCTION refuse();
