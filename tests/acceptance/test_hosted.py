"""A hosted PostgreSQL: its owner is no superuser, makes no extension, and may not ask which server it is."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from tests.command import done, ended, journal, start
from tests.conftest import named
from tests.harness import insert, serving
from tests.postgres import Server
from tests.role import PASSWORD


def login(dsn: str, user: str) -> str:
    """The DSN of the same database for another user."""
    place = urlsplit(dsn)
    return urlunsplit(place._replace(netloc=f"{user}:{PASSWORD}@{place.netloc.rpartition('@')[2]}"))


@pytest.fixture
async def hosted(postgres: Server) -> AsyncIterator[str]:
    """The DSN of a new database's owner, who may make roles, as providers give it."""
    name = f"hosted_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f"create role {name} login createrole password '{PASSWORD}'")
    await admin.execute(f"create database {name} owner {name} template template0")
    provider = await asyncpg.connect(named(postgres.dsn, name))
    await provider.execute("revoke execute on function pg_control_system() from public")
    await provider.close()
    yield login(named(postgres.dsn, name), name)
    await admin.execute(f"drop database {name} with (force)")
    await admin.execute(f"drop role if exists {name}_service")
    await admin.execute(f"drop role {name}")
    await admin.close()


async def test_all_commands_work_or_say_what_they_cannot_tell(hosted: str, tmp_path: Path) -> None:
    service = f"{urlsplit(hosted).username}_service"
    owner = await asyncpg.connect(hosted)
    await owner.execute(f"create role {service} login password '{PASSWORD}'")
    migrated = await done("migrate", "--dsn", hosted, "--role", service, "--json")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(serving(login(hosted, service), tmp_path))
        at: Any = {"JOURNAL_URL": running.url}
        cursor = (await running.create("demo"))["cursor"]
        await running.pushed([insert("todo", "a"), insert("todo", "b")], "demo")

        status = await done("status", **at)
        told = await done("status", "--json", **at)
        failover = await journal("failover", "--yes", **at)
        checked = await done("check", "demo", **at)
        compacted = await done("compact", "demo", "--keep-revisions", "0", "--force", "--yes", **at)
        erased = await done("erase", "demo", "todo", "a", "--yes", **at)
        restored = await done("restored", "--all", "--yes", **at)
        again = await done("check", "demo", **at)
        gone = await running.deltas(cursor, "demo")
        stats = await running.call("GET", "demo/stats")
    await owner.close()

    assert migrated.json["applied"][-1] == f"roles/{service}"
    assert "does not say which it is" in status.err
    assert told.json["server"]["system"] is None
    assert told.json["server"]["is_other"] is False
    assert (failover.code, "does not say which it is" in failover.err) == (1, True)
    assert "does not say which it is" in restored.err
    assert (gone.status, gone.json["reason"], stats.status) == (410, "epoch", 200)
    assert {one.code for one in (checked, compacted, erased, restored, again)} == {0}


async def test_it_is_told_which_server_it_is_where_its_owner_may_ask(
    hosted: str, postgres: Server, tmp_path: Path
) -> None:
    """The right is given to the owner; who serves needs none of its own."""
    service = f"{urlsplit(hosted).username}_service"
    owner = await asyncpg.connect(hosted)
    await owner.execute(f"create role {service} login password '{PASSWORD}'")
    await owner.close()
    await done("migrate", "--dsn", hosted, "--role", service)
    provider = await asyncpg.connect(named(postgres.dsn, urlsplit(hosted).path[1:]))
    await provider.execute(f"grant execute on function pg_control_system() to {urlsplit(hosted).username}")
    system = await provider.fetchval("select system_identifier::text from pg_control_system()")
    await provider.close()

    async with serving(login(hosted, service), tmp_path) as running:
        told = await running.call("GET", "/v1/server")

    assert (told.json["system"], told.json["is_other"]) == (system, False)


async def test_serve_sets_a_hosted_database_up_by_itself(hosted: str, tmp_path: Path) -> None:
    served = await start("serve", "--dsn", hosted, "--data", tmp_path, "--port", "0", "--sample")
    assert served.stdout is not None
    said = [await served.stdout.readline() for _ in range(2)]
    served.terminate()
    stopped = await ended(served)

    assert said[1].strip().startswith(b"http://127.0.0.1:")
    assert stopped.code == 0
