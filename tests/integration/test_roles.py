"""The role that serves: it owns nothing, and what is recorded it reaches through the doors alone (sql/roles.sql)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from journal.store import migrate
from journal.store.database import Unusable
from journal.store.queries import QUERY, SQL
from tests.harness import Harness, delete, insert, serving
from tests.role import PASSWORD, as_service

QUERIES = sorted(path.name for path in (SQL / "queries").iterdir())
RECORDED = {
    "change": "data", "commit": "chain", "atom": "data", "head": "turn", "journal": "name", "collection": "digest",
    "client": "pushed", "floor": "revision", "conflict": "data", "audit": "by", "door": "turn", "owner": "owner",
}  # fmt: skip


@pytest.fixture
async def as_role(service: Harness) -> AsyncIterator[Any]:
    """A connection as the role that serves, to a database in which something is recorded."""
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    connection = await asyncpg.connect(as_service(service.dsn))
    yield connection
    await connection.close()


@pytest.fixture
async def new_role(database: str) -> AsyncIterator[str]:
    """A role that was given nothing yet."""
    name = f'journal "{uuid4().hex[:8]}"'
    quoted = '"' + name.replace('"', '""') + '"'
    owner = await asyncpg.connect(database)
    await owner.execute(f"create role {quoted} login password '{PASSWORD}'")
    yield name
    await owner.execute(f"drop owned by {quoted}; drop role {quoted}")
    await owner.close()


# What it may not.


async def test_the_service_of_these_tests_runs_as_a_role_that_owns_nothing(service: Harness) -> None:
    """Or all that they say of it would be said of the owner."""
    used = await service.query(
        """select distinct usename from pg_stat_activity
            where datname = current_database() and application_name like 'journal %'"""
    )
    [role] = [row["usename"] for row in used]
    [rights] = await service.query(
        """select r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls,
                  exists (select from pg_auth_members m where m.member = r.oid) as is_member,
                  exists (select from pg_shdepend d where d.refobjid = r.oid and d.deptype = 'o') as owns
             from pg_roles r where r.rolname = $1""",
        role,
    )

    assert role in as_service(service.dsn)
    assert not any(rights.values())


async def refused(connection: Any, *statements: str) -> list[str]:
    """Those of the statements that were not refused for want of a right."""
    done = []
    for statement in statements:
        try:
            await connection.execute(statement)
            done.append(statement)
        except asyncpg.InsufficientPrivilegeError:
            pass
    return done


@pytest.mark.parametrize(
    "statement",
    [
        "update journal.{} set {} = null",
        "truncate journal.{}",
        "delete from journal.{}",
        "alter table journal.{} disable trigger all",
        "drop table journal.{}",
        "create trigger mine before insert on journal.{} execute function journal.refuse()",
        "create rule mine as on insert to journal.{} do instead nothing",
    ],
)
async def test_p2_it_changes_nothing_that_is_recorded(as_role: Any, statement: str) -> None:
    assert await refused(as_role, *(statement.format(*table) for table in RECORDED.items())) == []


async def test_p2_it_records_nothing_past_the_doors(as_role: Any) -> None:
    only_grow = {"audit", "owner"}  # these are only ever added to
    statement = "insert into journal.{} ({}) values (null)"

    tables = [table for table in RECORDED.items() if table[0] not in only_grow]

    assert await refused(as_role, *(statement.format(*table) for table in tables)) == []


@pytest.mark.parametrize("door", ["remove", "compact", "erase"])
async def test_p2_the_key_of_a_door_is_of_no_use_to_it(as_role: Any, door: str) -> None:
    """journal.door says which door is open, and anybody can set it."""
    await as_role.execute(f"set journal.door = '{door}'")

    assert await refused(as_role, "delete from journal.change", "update journal.change set data = null") == []


async def test_p2_it_takes_no_guard_away(as_role: Any) -> None:
    statements = [
        "set session_replication_role = replica",
        "create or replace function journal.refuse() returns trigger language plpgsql as 'begin return null; end'",
        "alter function journal.refuse() rename to mine",
        "drop function journal.refuse() cascade",
        "create table journal.mine (id int)",
        "create schema mine",
        "drop schema journal cascade",
        "alter table journal.change owner to current_user",
        "delete from journal.token",
        "update journal.token set name = 'x'",
    ]

    assert await refused(as_role, *statements) == []


async def test_objects_of_its_own_do_not_mislead_the_doors(as_role: Any) -> None:
    """A door runs as the owner: what its caller has in the search path, or as temporary tables, it does not find."""
    await as_role.execute("create temp table head (journal_id int, turn bigint); create temp table change (id int)")
    await as_role.execute("set search_path = pg_temp, journal, public")

    epoch = await as_role.fetchval("select journal.begin_epoch(1, null, 0, 'x')")

    assert epoch == 2**32


# What it may.


async def test_it_may_run_every_query(as_role: Any) -> None:
    """Planning asks for no right, executing does. With nothing in its arguments a query finds and changes nothing."""
    for name in QUERIES:
        await as_role.execute((SQL / "queries" / name).read_text())
    rows = await as_role.fetch(
        "select name, parameter_types::text[] as types from pg_prepared_statements where from_sql order by name"
    )

    denied = []
    for row in rows:
        arguments = ", ".join(f"'{{}}'::{kind}" if kind.endswith("[]") else f"null::{kind}" for kind in row["types"])
        await as_role.execute("begin")
        try:
            await as_role.execute(f"execute {row['name']}" + (f"({arguments})" if arguments else ""))
        except asyncpg.InsufficientPrivilegeError as error:
            denied.append((row["name"], str(error)))
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            pass  # a null where none may be: the right was looked at before
        await as_role.execute("rollback")

    assert {row["name"] for row in rows} == QUERY.keys()
    assert denied == []


async def test_what_is_recorded_compacted_erased_and_removed_is_so_through_the_doors(service: Harness) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b"), insert("todo", "c")])
    await service.pushed([delete("todo", "b", if_data={"n": 1})])

    erased = await service.call("POST", "j/erase", json={"collection": "todo", "atom": "a"})
    resync = await service.call("POST", "j/resync", json={"reason": "x"})
    removed = await service.call("DELETE", "j")

    assert (erased.status, resync.status, removed.status) == (200, 200, 204), (erased.body, resync.body, removed.body)
    assert await service.query("select from journal.change") == []


# How it comes to it.


async def test_migrating_gives_a_role_its_rights_and_again_whenever_something_changes(
    database: str, new_role: str
) -> None:
    first = await migrate.migrate(database, role=new_role)
    again = await migrate.migrate(database)
    owner = await asyncpg.connect(database)
    await owner.execute("update journal.migration set hash = 'another' where name = 'functions/lock.sql'")
    pending = await migrate.pending(database)
    await owner.close()

    then = await migrate.migrate(database)

    assert (first, again) == ([f"roles/{new_role}"], [])
    assert pending == then
    assert {"functions/lock.sql", f"roles/{new_role}"} <= set(then)


async def test_a_new_function_is_for_those_roles_and_for_nobody_else(
    database: str, new_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = migrate._texts
    new = "create or replace function journal.mine() returns int language sql as 'select 1'"
    await migrate.migrate(database, role=new_role)
    monkeypatch.setattr(
        migrate, "_texts", lambda folder: texts(folder) + [("functions/x.sql", new)] * (folder == "functions")
    )

    await migrate.migrate(database)
    owner = await asyncpg.connect(database)
    may = await owner.fetchval("select has_function_privilege($1, 'journal.mine()', 'execute')", new_role)
    public = await owner.fetch(
        """select p.proname from pg_proc p
             cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where p.pronamespace = 'journal'::regnamespace and a.grantee = 0"""
    )
    await owner.close()

    assert may
    assert public == []


async def test_a_role_that_may_not_migrate_is_told_so_only_where_something_is_to_be_done(database: str) -> None:
    login = as_service(database)
    owner = await asyncpg.connect(database)

    nothing = await migrate.migrate(login)
    await owner.execute("update journal.migration set hash = 'another' where name = 'functions/now.sql'")
    await owner.close()

    assert nothing == []
    with pytest.raises(Unusable, match="may not migrate"):
        await migrate.migrate(login)


@pytest.mark.parametrize("what", ["nobody", "superuser", "owner"])
async def test_rights_are_given_to_a_role_that_has_none_of_its_own(database: str, new_role: str, what: str) -> None:
    owner = await asyncpg.connect(database)
    quoted = '"' + new_role.replace('"', '""') + '"'
    if what == "superuser":
        await owner.execute(f"alter role {quoted} superuser")
    if what == "owner":
        await owner.execute(f"alter schema journal owner to {quoted}")
    rights = "select relname, relacl::text from pg_class where relnamespace = 'journal'::regnamespace order by relname"
    before = await owner.fetch(rights)

    with pytest.raises(Unusable):
        await migrate.migrate(database, role="nobody at all" if what == "nobody" else new_role)

    await owner.execute("alter schema journal owner to current_user")
    after = await owner.fetch(rights)
    await owner.close()
    assert before == after


async def test_a_service_is_not_let_in_without_the_rights_and_says_which(
    database: str, new_role: str, tmp_path: Path
) -> None:
    place = database.rpartition("@")[2]
    dsn = f"postgresql://{new_role.replace(' ', '%20').replace(chr(34), '%22')}:{PASSWORD}@{place}"

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema journal"):
        async with serving(dsn, tmp_path):
            pass
