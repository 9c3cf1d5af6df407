"""A rolling upgrade: the version before goes on serving while this one migrates, and beside this one afterwards."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest

from journal.store import migrate
from journal.store.database import LockBusy
from tests import before
from tests.harness import Harness, Json, eventually, insert, put
from tests.integration.test_stream import Source
from tests.role import serves
from tests.subprocess_service import Remote, serving_apart

CLIENTS, PUSHES = 6, 25
MIGRATE = "import asyncio, sys; from journal.store.migrate import migrate; asyncio.run(migrate(sys.argv[1]))"


# What the version before calls.


@pytest.fixture
async def old_schema(empty_database: str) -> AsyncIterator[Any]:
    """A connection of a process of the version before, which has prepared all that it runs."""
    connection = await asyncpg.connect(empty_database)
    await connection.execute(before.schema().read_text())
    names = [f"migrations/{name}.sql" for name in before.migrations()[:-1]]
    await connection.execute("set search_path = public")
    await connection.executemany("insert into journal.migration (name) values ($1)", [(name,) for name in names])
    await connection.execute(before.queries().read_text())
    yield connection
    await connection.close()


async def outcomes(connection: Any) -> dict[str, str | None]:
    """What each of the prepared queries comes to with nothing in its arguments: the error's SQLSTATE, or None."""
    rows = await connection.fetch(
        "select name, parameter_types::text[] as types from pg_prepared_statements where from_sql order by name"
    )
    told: dict[str, str | None] = {}
    for row in rows:
        arguments = ", ".join(f"'{{}}'::{kind}" if kind.endswith("[]") else f"null::{kind}" for kind in row["types"])
        await connection.execute("begin")
        try:
            await connection.execute(f"execute {row['name']}" + (f"({arguments})" if arguments else ""))
            told[row["name"]] = None
        except asyncpg.PostgresError as error:
            told[row["name"]] = error.sqlstate
        await connection.execute("rollback")
    return told


async def test_what_the_version_before_runs_comes_to_the_same_after_migrating(
    old_schema: Any, empty_database: str
) -> None:
    """In its open connections, and in new ones."""
    at_first = await outcomes(old_schema)

    done = await migrate.migrate(empty_database)
    new = await asyncpg.connect(empty_database)
    await new.execute(before.queries().read_text())
    afterwards, anew = await outcomes(old_schema), await outcomes(new)
    await new.close()

    assert f"migrations/{before.migrations()[-1]}.sql" in done
    assert len(at_first) > 50
    assert afterwards == anew == at_first


async def test_a_version_that_starts_again_leaves_what_a_later_one_has_put_in_place(database: str) -> None:
    """Else the functions of the version before would come back beneath the processes of the next."""
    owner = await asyncpg.connect(database)
    await owner.execute("insert into journal.migration (name) values ('migrations/9999_later.sql')")
    await owner.execute("update journal.migration set hash = 'later' where name in ('functions/now.sql')")
    await owner.execute("create or replace function journal.now() returns timestamptz language sql as 'select now()'")

    pending, done = await migrate.pending(database), await migrate.migrate(database)
    body = await owner.fetchval("select prosrc from pg_proc where oid = 'journal.now'::regproc")
    await owner.close()

    assert (pending, done, body) == ([], [], "select now()")


# The version before itself.


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """Its files."""
    folder = tmp_path / "old"
    folder.mkdir()
    if not before.tree(folder):
        pytest.skip("git does not have the version before here: the test above plays it by its SQL")
    return folder


async def test_p6_p9_nothing_fails_or_is_done_twice_while_the_next_version_comes_and_this_one_goes(
    old_code: Path, empty_database: str, service_role: str, tmp_path: Path
) -> None:
    subprocess.run(  # noqa: ASYNC221 — nothing else runs yet
        [sys.executable, "-c", MIGRATE, empty_database],
        cwd=old_code,
        env=os.environ | {"PYTHONPATH": str(old_code)},
        check=True,
    )
    spool = tmp_path / "spool"
    spool.mkdir()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        old = Remote(empty_database, spool, session)
        old.root = old_code
        async with old:
            load = Load(old)
            start = await load.begin()
            streaming = asyncio.create_task(load.streaming(start))
            polling = asyncio.create_task(load.polling(start))
            working = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]

            await eventually(load.has_done(1))
            load.go(1)
            await migrated(empty_database, service_role)
            await eventually(load.has_done(2))
            serves(service_role, urlsplit(empty_database).path[1:])
            async with serving_apart(empty_database, tmp_path) as new:
                load.services.append(new)
                load.go(2)
                await eventually(load.has_done(3))
                load.go(3)
                load.services.remove(old)
                await old.stop()
                await asyncio.gather(*working)
                load.is_over = True
                await new.pushed([insert("todo", "last")])
                assert await polling == await streaming

                head = await new.head()
                checked = await new.call("POST", "j/check", json={}, headers={"Prefer": "wait=60"})
                recorded = [row["push"] for row in await new.query("select push from journal.commit where push > 0")]

    assert load.failed == []
    assert head["head"] == 2 * CLIENTS * PUSHES + 1
    assert sorted(recorded) == sorted(list(range(1, PUSHES + 1)) * CLIENTS)
    assert checked.json["result"]["faults"] == []
    assert load.asked["old"] > CLIENTS
    assert load.asked["new"] > CLIENTS


async def migrated(dsn: str, role: str) -> None:
    """As docs/operations.md says: one that does not get its locks within two seconds is run again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await migrate.migrate(dsn, role=role)
                return
            except LockBusy:
                continue


class Load:
    """Clients of a journal, with services to choose from. What fails other than by 503 is noted."""

    def __init__(self, service: Harness) -> None:
        self.services = [service]
        self.old = service
        self.failed: list[Any] = []
        self.asked = {"old": 0, "new": 0}
        self.pushed = 0
        self.is_over = False
        self._gates = {quarters: asyncio.Event() for quarters in (1, 2, 3)}

    async def begin(self) -> str:
        """Where the journal begins."""
        cursor: str = (await self.services[0].create())["cursor"]
        return cursor

    def has_done(self, quarters: int) -> Any:
        """Whether so much of the load is done."""

        async def is_done() -> bool:
            return self.pushed >= CLIENTS * (PUSHES * quarters // 4)

        return is_done

    def go(self, quarters: int) -> None:
        """Let the clients go beyond so much: so that there is some of the load on each side of what happens."""
        self._gates[quarters].set()

    async def client(self, number: int) -> None:
        """Pushes one after the other, each of them sent again to whoever else is there; as far as they may."""
        name = str(UUID(int=number + 1))
        for push in range(1, PUSHES + 1):
            for quarters, gate in self._gates.items():
                if push > PUSHES * quarters // 4:
                    await gate.wait()
            changes = [
                insert("todo", f"{number}-{push}"),
                put("shared", str(push % 5), {"by": number, "push": push}, if_data=None),
            ]
            body: Json = {"changes": changes, "client": name, "push": push, "on_conflict": "client"}
            first = await self.answered(body)
            again = await self.answered(body)
            if {**first, "replayed": True} != again and first != again:
                self.failed.append((first, again))
            self.pushed += 1

    async def answered(self, body: Json) -> Json:
        """A push's answer, from whichever service; after a 503 or where one has gone, from the next."""
        async with asyncio.timeout(60):
            while True:
                service = self.services[hash(uuid4()) % len(self.services)]
                try:
                    reply = await service.call("POST", "j/changes", json=body)
                except aiohttp.ClientConnectionError:
                    if service in self.services:
                        self.failed.append("a connection was refused by a service that serves")
                    continue
                self.asked["old" if service is self.old else "new"] += 1
                if reply.status == 200:
                    return reply.json
                if reply.status != 503:
                    self.failed.append((reply.status, reply.body))
                    return reply.json
                await asyncio.sleep(0.05)

    async def polling(self, since: str) -> dict[str, Any]:
        """The data of somebody who polls."""
        held: dict[str, Any] = {}
        while not (self.is_over and since == (await self.head())):
            try:
                reply = await self.services[-1].deltas(since, wait=1)
            except aiohttp.ClientConnectionError:
                continue
            if reply.status == 503:
                continue
            if reply.status != 200:
                self.failed.append((reply.status, reply.body))
                return held
            apply(held, reply.json)
            since = reply.json["cursor"]
        return held

    async def streaming(self, since: str) -> dict[str, Any]:
        """The data of somebody who follows, and comes back where the stream ends."""
        held: dict[str, Any] = {}
        while not (self.is_over and since == (await self.head())):
            service = self.services[-1]
            try:
                async with service.session.get(
                    f"{service.url}/v1/journals/j/stream", params={"since": since}
                ) as response:
                    source = Source(response)
                    while event := await source.next(seconds=30):
                        if isinstance(event.data, dict) and "deltas" in event.data:
                            apply(held, event.data)
                        since = event.id or since
                        if self.is_over and since == (await self.head()):
                            break
            except (aiohttp.ClientError, TimeoutError):
                continue
        return held

    async def head(self) -> str:
        """Where the journal stands."""
        cursor: str = (await self.services[-1].head())["cursor"]
        return cursor


def apply(held: dict[str, Any], told: Json) -> None:
    """Take deltas, as section 3 says."""
    for delta in told["deltas"]:
        name = f"{delta['collection']} {delta['atom']}"
        match delta["op"]:
            case "delete":
                held.pop(name, None)
            case "update":
                data = {key: value for key, value in held[name].items() if key not in delta.get("unset", ())}
                held[name] = data | delta.get("data", {})
            case _:
                held[name] = delta["data"]
