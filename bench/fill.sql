-- Journals that are filled by SQL, and the naive table beside them.
--
-- What is read here is as the service would have recorded it: changes, the state with its fields' revisions, the
-- collections' counts and digests. One thing is not: a commit's chain is SHA-256 of its revision and nothing else.
-- Deltas and snapshots only compare it with the one in a cursor, and no check is run on these journals.
create schema bench;

-- An atom's name, from its number.
create function bench.atom(n bigint) returns text language sql immutable parallel safe as $$
  select substring(md5(n::text) for 16)
$$;

-- When a revision was recorded.
create function bench.moment(revision bigint) returns timestamptz language sql immutable parallel safe as $$
  select timestamptz '2026-01-01T00:00:00Z' + revision * interval '1 millisecond'
$$;

-- The chain after a revision, which stands for the true one.
create function bench.chain(revision bigint) returns bytea language sql immutable parallel safe as $$
  select sha256(int8send(revision))
$$;

-- The names of the fields that a revision sets: all five, or for an update one or two.
create function bench.fields(revision bigint, is_update boolean) returns text[] language sql immutable parallel safe as $$
  select case when not is_update then array['title', 'cost', 'done', 'note', 'owner']
              when revision % 2 = 0 then (array['title', 'cost', 'done', 'note', 'owner'])[1 + revision / 2 % 5:1 + revision / 2 % 5]
              else (array['title', 'cost', 'done', 'note', 'owner', 'title'])[1 + revision / 2 % 5:2 + revision / 2 % 5] end
$$;

-- What a revision sets a field to, as JSON. The five together are about 100 bytes.
-- `||` with a number would be stable and not immutable: the function would not be inlined, and ten times slower.
create function bench.value(field text, revision bigint) returns text language sql immutable parallel safe as $$
  select case field when 'title' then '"things of ' || revision::text || '"'
                    when 'cost' then (revision % 1000)::text
                    when 'done' then case revision % 2 when 0 then 'true' else 'false' end
                    when 'note' then '"said at ' || revision::text || '"'
                    else '"user-' || (revision % 1000)::text || '"' end
$$;

-- The data of an atom that was inserted at a revision and never changed since.
create function bench.whole(revision bigint) returns text language sql immutable parallel safe as $$
  select '{"title":' || bench.value('title', revision) || ',"cost":' || bench.value('cost', revision)
         || ',"done":' || bench.value('done', revision) || ',"note":' || bench.value('note', revision)
         || ',"owner":' || bench.value('owner', revision) || '}'
$$;

-- A journal of `changes` changes: the first `atoms` insert, the others update one of the first `touched` atoms, which
-- one being chance. Commits have up to `together` changes. Without the record there are no rows of change.
create procedure bench.fill(
  journal_name text, atoms bigint, changes bigint, touched bigint, together bigint, with_record boolean)
language plpgsql set work_mem = '256MB' set jit = off set synchronous_commit = off as $$
declare
  j int;
begin
  perform journal.create(journal_name);
  select id into j from journal.journal where name = journal_name;
  create temp table touch on commit drop as
  select r as revision, case when r <= atoms then r else 1 + (hashint8extended(r, 0) & 9223372036854775807) % touched end as n,
         bench.fields(r, r > atoms) as fields
    from generate_series(1, changes) as r;

  insert into journal.collection (journal_id, id, name) values (j, 1, 'todo'), (j, 2, 'note'), (j, 3, 'person');
  insert into journal.commit (journal_id, revision, first, epoch, committed_at, chain)
  select j, least(r + together - 1, changes), r, h.epoch, bench.moment(least(r + together - 1, changes)),
         bench.chain(least(r + together - 1, changes))
    from generate_series(1, changes, together) as r
    join journal.head h on h.journal_id = j;

  if with_record then
    insert into journal.change (journal_id, revision, collection_id, atom, op, data, prev)
    select j, t.revision, 1 + t.n % 3, bench.atom(t.n), case when t.revision <= atoms then 1 else 2 end,
           case when t.revision <= atoms then bench.whole(t.revision)
                else '{"' || t.fields[1] || '":' || bench.value(t.fields[1], t.revision)
                     || coalesce(',"' || t.fields[2] || '":' || bench.value(t.fields[2], t.revision), '') || '}' end::json,
           coalesce(lag(t.revision) over (partition by t.n order by t.revision), 0)
      from touch t
     order by t.revision;
  end if;

  -- In the order of birth: an updated row finds room on its own page, once that was pruned, and so stays there.
  insert into journal.atom (journal_id, collection_id, atom, born, created, revision, deleted, data, fk, fr)
  select j, 1 + t.n % 3, bench.atom(t.n), t.n, t.n, coalesce(s.revision, t.n), false,
         case when s.n is null then bench.whole(t.n)::jsonb
              else (select ('{' || string_agg('"' || f.field || '":' || bench.value(f.field, f.revision), ',') || '}')::jsonb
                      from unnest(s.fk, s.fr) as f (field, revision)) end,
         coalesce(s.fk, t.fields), coalesce(s.fr, array_fill(t.n, array[5]))
    from touch t
    left join (select l.n, max(l.revision) as revision,
                      array_agg(l.field order by l.revision) as fk, array_agg(l.revision order by l.revision) as fr
                 from (select t.n, f.field, max(t.revision) as revision
                         from touch t cross join unnest(t.fields) as f (field)
                        where t.n in (select u.n from touch u where u.revision > atoms)
                        group by t.n, f.field) l
                group by l.n) s on s.n = t.n
   where t.revision <= atoms
   order by t.n;
  drop table touch;

  update journal.collection k
     set atoms = s.atoms, digest = s.digest
    from (select a.collection_id, count(*) as atoms,
                 bit_xor(('x' || encode(substring(sha256(convert_to(
                   '["' || c.name || '","' || a.atom || '",' || a.revision || ']', 'UTF8')) for 8), 'hex'))::bit(64)::bigint) as digest
            from journal.atom a
            join journal.collection c on c.journal_id = a.journal_id and c.id = a.collection_id
           where a.journal_id = j group by a.collection_id) s
   where k.journal_id = j and k.id = s.collection_id;
  update journal.head h set head = changes, chain = bench.chain(changes), turn = 1 where h.journal_id = j;
end
$$;

-- What a service without a journal would have: the rows, and when each was updated last.
create table bench.naive (
  id         text collate "C" primary key,
  collection text collate "C" not null,
  data       jsonb not null,
  updated_at timestamptz not null,
  deleted    boolean not null
);
create index naive_updated_at on bench.naive (updated_at);

-- The naive table as the journal of this name has left its atoms.
create procedure bench.fill_naive(journal_name text)
language sql as $$
  insert into bench.naive (id, collection, data, updated_at, deleted)
  select a.atom, k.name, a.data, bench.moment(a.revision), a.deleted
    from journal.journal j
    join journal.atom a on a.journal_id = j.id
    join journal.collection k on k.journal_id = j.id and k.id = a.collection_id
   where j.name = journal_name
   order by a.born
$$;

-- The record and nothing else: a table like journal.change with its primary key, to append to.
create table bench.change (
  journal_id    int not null,
  revision      bigint not null,
  collection_id int not null,
  atom          text collate "C" not null,
  op            smallint not null,
  data          json,
  unset         text[],
  prev          bigint not null,
  erased        bytea,
  primary key (journal_id, revision)
);
