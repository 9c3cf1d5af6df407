"""The database's side: schema.sql is what the migrations give, every query runs as it stands, and by which index."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from journal.store import migrate
from journal.store.queries import QUERY, SQL
from tests.conftest import new_database
from tests.dump_schema import dump
from tests.postgres import Server

SCHEMA = Path(__file__).parents[2] / "sql" / "schema.sql"
QUERIES = sorted(path.name for path in (SCHEMA.parent / "queries").iterdir())


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


# The schema.


async def test_schema_sql_is_what_the_migrations_give(connection: Any) -> None:
    """`make schema` writes it anew."""
    assert await dump(connection) == SCHEMA.read_text()


async def test_schema_sql_runs_as_it_stands_and_gives_the_same(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)

    await connection.execute(SCHEMA.read_text())
    found = await dump(connection)
    await connection.close()

    assert found == SCHEMA.read_text()


async def test_what_a_dump_does_not_know_it_does_not_leave_out_silently(connection: Any) -> None:
    await connection.execute("create view journal.mine as select 1 as one")

    with pytest.raises(ValueError, match="mine"):
        await dump(connection)


async def test_migrating_again_does_nothing(database: str) -> None:
    assert await migrate.pending(database) == []
    assert await migrate.migrate(database) == []


async def test_every_key_and_index_that_a_request_uses_begins_with_the_journal(connection: Any) -> None:
    rows = await connection.fetch(
        """select c.relname as table, i.relname as index, a.attname as column
             from pg_index x
             join pg_class c on c.oid = x.indrelid
             join pg_class i on i.oid = x.indexrelid
             join pg_am m on m.oid = i.relam
             join pg_attribute a on a.attrelid = c.oid and a.attnum = x.indkey[0]
            where c.relnamespace = 'journal'::regnamespace and m.amname <> 'brin'
              and c.relname not in ('journal', 'migration', 'server', 'door', 'token')"""
    )

    assert rows
    assert {row["index"]: row["column"] for row in rows} == {row["index"]: "journal_id" for row in rows}


async def test_a_process_of_the_version_before_goes_on_recording_beside_this_one(connection: Any) -> None:
    """The function that it calls stays in a database that was migrated; a call that fits both would be refused."""
    arguments = await connection.fetchval("select pg_get_function_arguments('journal.append'::regproc)")
    types = await connection.fetchval(
        "select array(select unnest(proargtypes::regtype[])::text) from pg_proc where oid = 'journal.append'::regproc"
    )
    before = arguments.removeprefix("conflicts json, ")
    assert (before != arguments, len(types)) == (True, 52)
    body = "returns text language sql as $$ select 'the old one' $$"
    await connection.execute(f"create function journal.append({before}) {body}")

    old = await connection.fetchval(f"select journal.append({', '.join(f'null::{name}' for name in types[1:])})")
    new = await connection.prepare(QUERY["append"])

    assert old == "the old one"
    assert [attribute.type.name for attribute in new.get_attributes()] == ["timestamptz"]


@pytest.mark.parametrize(
    "statement", ["update journal.{} set chain = chain", "delete from journal.{}", "truncate journal.{}"]
)
@pytest.mark.parametrize("table", ["change", "commit"])
async def test_p2_the_database_refuses_to_change_history(connection: Any, table: str, statement: str) -> None:
    text = statement.format(table).replace("chain = chain", "prev = prev" if table == "change" else "chain = chain")

    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.execute(text)

    assert refused.value.sqlstate == "JR003"


# The queries.


@pytest.mark.parametrize("name", QUERIES)
async def test_every_file_of_queries_runs_as_it_stands(connection: Any, name: str) -> None:
    text = (SQL / "queries" / name).read_text()

    await connection.execute(text)

    prepared = {row["name"] for row in await connection.fetch("select name from pg_prepared_statements where from_sql")}
    assert prepared == {line.split()[1] for line in text.splitlines() if line.startswith("prepare ")}


async def test_the_service_runs_every_query_of_the_files_and_no_other(connection: Any) -> None:
    for name in QUERIES:
        await connection.execute((SQL / "queries" / name).read_text())

    rows = await connection.fetch("select name from pg_prepared_statements where from_sql")

    assert {row["name"] for row in rows} == QUERY.keys()


# Their plans.

PLANS = {
    "tokens_by_hash(array['\\x01'::bytea])": {"token_hash_key"},
    "token_by_id(7)": {"token_pkey"},
    "use_ticket(7, '\\x01', now())": {"ticket_pkey"},
    "owner_of(7, '00000000-0000-4000-8000-000000000000')": {"owner_pkey"},
    "own(7, '00000000-0000-4000-8000-000000000000', 'token:1')": {"owner_pkey"},
    "head_by_name('j7')": {"journal_name_key", "head_pkey"},
    "head_by_id(7)": {"head_pkey"},
    "turns(array[7, 8])": {"head_pkey"},
    "furthest_behind(array[7, 8], 10, 100, 86400)": {"head_pkey", "registry_lag", "commit_pkey"},
    "in_recovery": set(),
    "chain_at(7, 500)": {"commit_pkey"},
    "commits_after(7, 9900, 4096)": {"commit_pkey"},
    "changes_between(7, 9900, 10000)": {"change_pkey"},
    "page_end(7, 9000, 100, null)": {"atom_revision", "commit_pkey"},
    "page_end(7, 9000, 100, array[1])": {"atom_revision", "commit_pkey"},
    "delta_lines(7, 9000, 9500, 9900, null, null, false)": {"atom_revision"},
    "delta_lines(7, 9000, 9500, 9900, array[1], 3, false)": {"atom_revision"},
    "last_changes(7, 9000, 9500, 9900, null)": {"change_pkey"},
    "walk_back(7, 9000, array[9501, 9502, 9503, 9900])": {"change_pkey", "commit_pkey"},
    "commit_ends(7, 9000, 9500)": {"commit_pkey"},
    "metas(7, array[9000, 9500])": set(),
    "client_number(7, '00000000-0000-4000-8000-000000000000')": {"client_journal_id_name_key"},
    "atom_now(7, 1, '7')": {"atom_pkey", "commit_pkey"},
    "atom_history(7, 1, '7', 9000, 100)": {"atom_pkey", "change_pkey", "commit_pkey"},
    "changes_end(7, 9000, 100)": {"commit_pkey"},
    "commit_lines(7, 9000, 9100)": {"commit_pkey", "change_pkey"},
    "chains_at(array[7, 7], array[100, 500])": {"commit_pkey"},
    "recorded_at(array[7, 7], array[101, 500])": {"commit_pkey", "head_pkey"},
    "conflicts_kept(array[7, 8])": {"conflict_pkey"},
    "conflicts_before(7, 400, 'open', null, 101, 1000, null)": {"conflict_open"},
    "conflicts_before(7, 400, 'settled', null, 101, 1000, null)": {"conflict_settled"},
    "conflicts_before(7, null, 'all', null, 101, 1000, null)": {"conflict_pkey"},
    "conflicts_before(7, 400, 'all', '00000000-0000-4000-8000-000000000000', 101, 1000, null)": {"conflict_client"},
    "conflict_by_id(7, 400)": {"conflict_pkey"},
    "settle_conflict(7, 400, 'server', null, null, 'x')": {"conflict_open"},
    "atoms_named(array[7, 7], array[1, 2], array['7', '8'])": {"atom_pkey"},
    "clients_named(array[7], array['00000000-0000-4000-8000-000000000000'::uuid])": {"client_journal_id_name_key"},
    "pushes_decided(array[7], array[1], array[3])": {"push_pkey"},
    "keys_decided(array[7], array['k'])": {"idempotency_pkey"},
    "is_forgotten(7, '00000000-0000-4000-8000-000000000000')": {"client_journal_id_name_key"},
    "floors_after(7, 9000, array['00000000-0000-4000-8000-000000000000'::uuid])": {"floor_pkey"},
    "clients_after(7, 9000, '00000000-0000-4000-8000-000000000000', 100, null)": {"registry_lag", "head_pkey"},
    "clients_after(7, null, null, 1, '00000000-0000-4000-8000-000000000000')": {"registry_pkey", "head_pkey"},
    "pushes_of(7, '00000000-0000-4000-8000-000000000000', 20)": {"push_pkey"},
    "audit_before(7, 100, 100)": {"audit_pkey"},
    "operations(7, null, 20)": {"operation_pkey"},
    "activity(7, 300, 5, 1000)": {"commit_pkey"},
    "cut_off(7, 9000, 100)": {"registry_lag"},
    "standing(7)": {"head_pkey"},
    "changed_after(7, 9500, 1000)": {"atom_revision"},
    "place_lines(7, 9900)": {"atom_revision"},
    "lookup_lines(7, array[1, 2], array['7', '8'], array['a', 'b'])": {"atom_pkey"},
    "checked_commits(7, 9000)": {"commit_pkey"},
    "checked_changes(7, 9000)": {"change_pkey"},
    "changes_by_atom(7, 9000, 10000)": {"change_pkey", "commit_pkey"},
    "change_at(7, 500)": {"change_pkey"},
}
# What reads a table whole for its journal, or is asked by operators and now and then.
SELDOM = {
    "heads_after", "lock_heads", "create_journal", "remove_journal", "set_policy", "append", "snapshot_lines",
    "erase_conflicts", "resync", "begin_epoch", "see", "compactable", "below", "raise_horizon", "sweep_record",
    "sweep_tombstones", "keep", "erase", "answers_telling", "change_push", "change_key", "note", "begin_operation",
    "tell_operation", "stats", "server", "remember_server",
    "atoms_in_order", "door", "tokens", "tokens_used", "make_token", "grant_token", "rotate_token", "revoke_token",
    "make_ticket", "await_standby",
}  # fmt: skip
SMALL = {"client", "collection", "journal"}  # joined whole or not as the planner likes

ROWS = """
insert into journal.journal (name) select 'j' || n from generate_series(1, 5000) n;
insert into journal.head (journal_id, epoch, head) select n, '\\x0123456789ab', 10000 from generate_series(1, 5000) n;
insert into journal.collection (journal_id, id, name)
  select j, n, 'c' || n from generate_series(1, 20) j, generate_series(1, 50) n;
insert into journal.client (journal_id, id, name, pushed, first_seen)
  select j, n, gen_random_uuid(), 1, now() from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.push (journal_id, client_id, push, content, status, answer, at)
  select j, n, p, '\\x00', 200, '{}', now()
    from generate_series(1, 20) j, generate_series(1, 200) n, generate_series(1, 3) p;
insert into journal.idempotency (journal_id, key, content, status, answer, at)
  select j, 'k' || n, '\\x00', 200, '{}', now() from generate_series(1, 20) j, generate_series(1, 500) n;
insert into journal.floor (journal_id, revision, client, reason, at)
  select j, n, gen_random_uuid(), 'x', now() from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.registry (journal_id, client, cursor, epoch, revision, first_seen, last_seen)
  select j, gen_random_uuid(), 'x', '\\x0123456789ab', 50 * n, now(), now()
    from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.audit (journal_id, at, by, action, detail)
  select j, now(), 'x', 'x', '{}' from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.operation (journal_id, id, kind, asked, by, begun_at, seen_at)
  select j, gen_random_uuid(), 'x', '{}', 'x', now(), now() from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.conflict (journal_id, id, op, collection, atom, client, place, at, keep, settled_by, settled_at)
  select j, n, 'delete', 'todo', n::text, gen_random_uuid(), 0, now(), case when n % 2 = 0 then 'server' end,
         case when n % 2 = 0 then 'x' end, case when n % 2 = 0 then now() end
    from generate_series(1, 20) j, generate_series(1, 500) n;
insert into journal.token (hash, name, grants, created_at, created_by)
  select sha256(n::text::bytea), 'x', '[]', now(), 'x' from generate_series(1, 5000) n;
insert into journal.ticket (journal_id, hash, token, expires_at)
  select j, sha256(n::text::bytea), n, now() from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.owner (journal_id, client, owner, at)
  select j, gen_random_uuid(), 'token:1', now() from generate_series(1, 20) j, generate_series(1, 200) n;
insert into journal.commit (journal_id, revision, first, epoch, committed_at, chain)
  select j, n, n - 1, '\\x0123456789ab', now(), sha256('x')
    from generate_series(1, 20) j, generate_series(2, 10000, 2) n;
insert into journal.change (journal_id, revision, collection_id, atom, op, data, prev)
  select j, n, 1 + n % 2, (n % 2500)::text, case when n > 2500 then 2 else 1 end, '{"n": 1}', greatest(n - 2500, 0)
    from generate_series(1, 20) j, generate_series(1, 10000) n;
insert into journal.atom (journal_id, collection_id, atom, born, created, revision, deleted, data, fk, fr)
  select j, 1 + n % 2, (n % 2500)::text, n - 7500, n - 7500, n, n % 9 = 0,
         case when n % 9 > 0 then '{"n": 1}'::jsonb end, '{n}', array[n]
    from generate_series(1, 20) j, generate_series(7501, 10000) n;
"""


@pytest.fixture(scope="module")
async def filled(postgres: Server, template: str) -> AsyncIterator[Any]:
    """A database with 5,000 journals, 20 of 10,000 changes and 2,500 atoms each, and the queries prepared."""
    async with new_database(postgres, template) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute(ROWS)
        await connection.execute("analyze; set plan_cache_mode = force_custom_plan; set jit = off")
        for name in QUERIES:
            await connection.execute((SQL / "queries" / name).read_text())
        yield connection
        await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("call", PLANS)
async def test_p12_a_hot_query_looks_into_its_indexes_and_reads_no_table_whole(filled: Any, call: str) -> None:
    [row] = await filled.fetch(f"explain (format json) execute {call}")
    found = list(nodes(json.loads(row[0])[0]["Plan"]))

    scanned = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}
    assert scanned <= SMALL, row[0]
    assert {node["Index Name"] for node in found if "Index Name" in node} >= PLANS[call], row[0]


def test_every_query_that_a_request_runs_has_its_plan_looked_at() -> None:
    looked_at = {call.partition("(")[0] for call in PLANS}

    assert looked_at | {name for name in QUERY if name in SELDOM or name.startswith("forget")} == QUERY.keys()
