"""The service under test, and how tests talk to it: over HTTP, as a client would."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import msgspec
from aiohttp import web

from journal.config import Settings
from journal.service.running import Service
from journal.web.app import SERVICE, application
from journal.web.connections import Runner
from journal.web.tracing import Tracing
from journal.web.walls import WALLS, Walls
from tests.bouncer import bouncing
from tests.conforming import conforms
from tests.role import as_service

Json = dict[str, Any]


class Reply(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON; an integer that a double would not hold exactly is a fault of the service."""
        value: Json = json.loads(self.body)
        return value

    @property
    def lines(self) -> list[Json]:
        """The body as NDJSON."""
        return [json.loads(line) for line in self.body.splitlines()]


class Harness:
    """A running service. `j` is a journal's name in every call; the default is the one that fixtures make."""

    walls: Walls  # of a service in this process

    def __init__(self, url: str, dsn: str, session: aiohttp.ClientSession, service: Service) -> None:
        self.url, self.dsn, self.session, self.service = url, dsn, session, service

    async def call(self, method: str, path: str, **arguments: Any) -> Reply:
        """Any request; `path` is below /v1/journals/ unless it starts with a slash."""
        url = self.url + (path if path.startswith("/") else f"/v1/journals/{path}")
        arguments.setdefault("allow_redirects", False)
        async with self.session.request(method, url, **arguments) as response:
            reply = Reply(response.status, response.headers.copy(), await response.read())
        conforms(method, str(response.url), reply.status, reply.headers, reply.body)
        return reply

    async def create(self, j: str = "j") -> Json:
        """A journal of this name."""
        return (await self.call("PUT", j)).json

    async def head(self, j: str = "j") -> Json:
        """Where it stands."""
        return (await self.call("GET", j)).json

    async def push(self, changes: list[Json], j: str = "j", **members: Any) -> Reply:
        """Push `changes`."""
        return await self.call("POST", f"{j}/changes", json={"changes": changes, **members})

    async def pushed(self, changes: list[Json], j: str = "j", **members: Any) -> Json:
        """Push `changes`, which must be taken."""
        reply = await self.push(changes, j, **members)
        assert reply.status == 200, reply.body
        return reply.json

    async def deltas(self, since: str | int, j: str = "j", **parameters: Any) -> Reply:
        """One answer to …/deltas."""
        return await self.call("GET", f"{j}/deltas", params={"since": str(since)} | _texts(parameters))

    async def round(self, since: str | int, j: str = "j", **parameters: Any) -> tuple[list[Json], Json]:
        """All pages from `since` on: their deltas, and the last answer. The same parameters go with each page."""
        told: list[Json] = []
        while True:
            reply = await self.deltas(since, j, **parameters)
            assert reply.status == 200, reply.body
            told += reply.json["deltas"]
            if not reply.json["more"]:
                return told, reply.json
            since = reply.json["cursor"]

    async def snapshot(self, j: str = "j", **parameters: Any) -> list[Json]:
        """The lines of a snapshot."""
        reply = await self.call("GET", f"{j}/snapshot", params=_texts(parameters))
        assert reply.status == 303, reply.body
        reply = await self.call("GET", reply.headers["Location"])
        assert reply.status == 200, reply.body
        return reply.lines

    async def query(self, text: str, *arguments: Any) -> list[Any]:
        """What the database answers to a query."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(text, *arguments)
        finally:
            await connection.close()


@asynccontextmanager
async def serving(dsn: str, folder: Path, *, tracing: Tracing | None = None, **settings: Any) -> AsyncIterator[Harness]:
    """The service on a database, in this process, on a free port of the loopback.

    JOURNAL_TEST_POOLER=pgbouncer: through PgBouncer.
    """
    spool = folder / f"spool-{uuid4().hex[:8]}"
    spool.mkdir()
    async with AsyncExitStack() as stack:
        to = as_service(dsn)
        if os.environ.get("JOURNAL_TEST_POOLER") == "pgbouncer" and "listen_dsn" not in settings:
            settings["listen_dsn"] = to
            to = await stack.enter_async_context(bouncing(dsn, size=20))
        known = msgspec.structs.replace(Settings(dsn=to, spool=spool), **settings)
        app = application(known, tracing=tracing)
        runner = Runner(app, known.walls)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=True))
        running = Harness(f"http://127.0.0.1:{port}", dsn, session, app[SERVICE])
        running.walls = app[WALLS]
        yield running


async def eventually(holds: Callable[[], Awaitable[Any]], *, seconds: float = 10.0) -> Any:
    """Wait for a fact, and give it."""
    deadline = time.monotonic() + seconds
    while True:
        found = await holds()
        if found:
            return found
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.02)


async def listening(service: Harness) -> None:
    """Wait until a process hears what others record."""

    async def listens() -> bool:
        return service.service.watch.listener.is_connected

    await eventually(listens)


async def blocked_on_lock(dsn: str, count: int = 1) -> None:
    """Wait until that many backends of this database wait for a lock."""
    connection = await asyncpg.connect(dsn)
    try:

        async def are_waiting() -> bool:
            waiting: int = await connection.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            return waiting >= count

        await eventually(are_waiting)
    finally:
        await connection.close()


def insert(collection: str, atom: str, data: Json | None = None) -> Json:
    """A change that inserts."""
    return {"op": "insert", "collection": collection, "atom": atom, "data": {"n": 1} if data is None else data}


def update(collection: str, atom: str, data: Json | None = None, **members: Any) -> Json:
    """A change that updates."""
    return {"op": "update", "collection": collection, "atom": atom} | ({} if data is None else {"data": data}) | members


def put(collection: str, atom: str, data: Json, **members: Any) -> Json:
    """A change that puts."""
    return {"op": "put", "collection": collection, "atom": atom, "data": data, **members}


def delete(collection: str, atom: str, **members: Any) -> Json:
    """A change that deletes."""
    return {"op": "delete", "collection": collection, "atom": atom, **members}


def _texts(parameters: Json) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value is not None}
