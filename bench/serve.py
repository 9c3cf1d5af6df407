"""What is measured, each in a process of its own: `python -m bench.serve WHAT …` prints its port and serves until told.

journal  the service as it is
memory   the service whose writer answers from memory: all of a push but what it is for
single   the service with a transaction for each push: what coalescing is compared with
hello    aiohttp saying hello
naive    a table with `updated_at`, and what has changed since a moment: what deltas are compared with
file     aiohttp's own way to send a file
bare     the same bytes to as many sockets as there are: what fan-out is compared with
"""

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import uvloop
from aiohttp import web

from bench import bare
from journal.config import Settings
from journal.core.model import Outcome
from journal.errors import JournalNotFound
from journal.service.group import Asked, Group
from journal.service.running import Service
from journal.service.tails import Tail
from journal.store import heads
from journal.store.database import PLANNED_ONCE
from journal.store.record import Decided
from journal.web import listen
from journal.wire import PushAnswer

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = Any

CONNECTIONS = 12  # 8 and 16 were no faster for `single` (bench/README.md)

_encode = msgspec.json.Encoder().encode


async def service(arguments: argparse.Namespace, changed: Callable[[Service], Awaitable[None]]) -> None:
    """The service as `journal serve` runs it, once it is changed."""

    async def started(service: Service) -> None:
        await changed(service)
        print(listener.getsockname()[1], flush=True)

    listener = listen.bound("127.0.0.1", 0)
    settings = Settings(dsn=arguments.dsn, spool=arguments.folder)
    await listen.serve(settings, listener, started=started, stopping=lambda: None)


async def _as_it_is(_: Service) -> None:
    return None


async def _without_database(service: Service) -> None:
    service.writer.push = Memory().push  # type: ignore[method-assign]


async def _one_by_one(service: Service) -> None:
    connections = await pool(service.settings.dsn, **PLANNED_ONCE)
    service.writer.push = Single(service, connections).push  # type: ignore[method-assign]


class Memory:
    """A writer that records nothing."""

    def __init__(self) -> None:
        self.head = 0

    async def push(self, asked: Asked) -> Decided:
        """What a push that is applied is answered."""
        first, self.head = self.head + 1, self.head + len(asked.changes)
        answer = PushAnswer(
            epoch="5f1c09ab33d2",
            first=first,
            revision=self.head,
            head=self.head,
            chain="9f86d081884c7d65",
            outcomes=[Outcome("applied", revision=revision) for revision in range(first, self.head + 1)],
        )
        return Decided(asked.content, 200, _encode(answer))


class Single:
    """A writer that gives each push a connection and a transaction: lock the head, load, decide, record, commit.

    It decides and records by the very code of the service, and saves what can be saved: begin and lock are one
    round trip, connections are not reset in between, and no push ever has to be decided twice.
    """

    def __init__(self, service: Service, connections: Pool) -> None:
        self.limits, self.database = service.settings.limits, service.database
        self._pool = connections
        self._ids: dict[str, int] = {}

    async def push(self, asked: Asked) -> Decided:
        """Decide and record one push."""
        journal = self._ids.get(asked.journal) or await self._id(asked.journal)
        async with self._pool.acquire() as connection:
            await connection.execute(_BEGIN_AND_LOCK % journal)
            try:
                head = await heads.head_by_id(connection, journal)
                assert head is not None
                group = Group(self.limits, {asked.journal: Tail(head)}, is_locked=True)
                await group.take(connection, [asked])
                await group.append(connection)
            except BaseException:
                await connection.execute("rollback")
                raise
            await connection.execute("commit")
        (_, answer) = group.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _id(self, journal: str) -> int:
        head = await heads.head_by_name(self.database, journal)
        if head is None:
            raise JournalNotFound
        self._ids[journal] = head.id
        return head.id


_BEGIN_AND_LOCK = "begin; select from journal.head h where h.journal_id = %d for update"


async def pool(dsn: str, **settings: str) -> Pool:
    """Connections set as the service sets its own, and not even reset when they change hands."""

    async def keep(_: object) -> None:
        return None

    settings = {"jit": "off", "timezone": "UTC"} | settings
    return await asyncpg.create_pool(
        dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings=settings, reset=keep
    )


def hello() -> web.Application:
    """The least that aiohttp can be asked for."""
    app = web.Application()
    app.router.add_get("/hello", _hello)
    return app


async def _hello(_: web.Request) -> web.Response:
    return web.Response(body=b'{"hello":"world"}', content_type="application/json")


def naive(dsn: str) -> web.Application:
    """`GET /since/{revision}`: the rows of bench.naive that were updated since; `GET /rows`: a hundred by their ids."""
    rows = Naive(dsn)
    app = web.Application()
    app.router.add_get("/since/{revision}", rows.since)
    app.router.add_get("/rows", rows.hundred)
    app.cleanup_ctx.append(rows.run)
    return app


class Naive:
    """Rows rendered by PostgreSQL into one text.

    Of seven ways this was the fastest: json_agg of rows or of objects takes 1.05 to 1.5 times as long, a moment by
    to_char 1.2 times, and COPY 1.3 times.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._pool: Pool | None = None
        self._ids: list[str] = []

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """While the application runs."""
        self._pool = await pool(self.dsn)
        self._ids = await self._pool.fetchval("select array_agg(bench.atom(n)) from generate_series(1, 100) as n")
        yield
        await self._pool.close()

    async def since(self, request: web.Request) -> web.Response:
        """What was updated since the moment at which a revision was recorded."""
        assert self._pool is not None
        text: str = await self._pool.fetchval(_SINCE, int(request.match_info["revision"]))
        return web.Response(body=text.encode(), content_type="application/json")

    async def hundred(self, _: web.Request) -> web.Response:
        """The first hundred rows."""
        assert self._pool is not None
        text: str = await self._pool.fetchval(_HUNDRED, self._ids)
        return web.Response(body=text.encode(), content_type="application/json")


_ROW = """'{"id":' || to_json(n.id)::text || ',"collection":' || to_json(n.collection)::text
       || ',"data":' || n.data::text || ',"updated_at":"' || n.updated_at::text || '","deleted":' || n.deleted || '}'"""
_SINCE = f"""select '[' || coalesce(string_agg({_ROW}, ',' order by n.updated_at), '') || ']'
  from bench.naive n where n.updated_at > bench.moment($1)"""
_HUNDRED = f"""select '[' || coalesce(string_agg({_ROW}, ','), '') || ']' from bench.naive n where n.id = any($1)"""


def file(folder: Path) -> web.Application:
    """Any file of a folder, by aiohttp itself."""
    app = web.Application()
    app.router.add_static("/", folder)
    return app


async def other(app: web.Application) -> None:
    """An application, until told to stop."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        print(runner.addresses[0][1], flush=True)
        await told.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["journal", "memory", "single", "hello", "naive", "file", "bare"])
    parser.add_argument("--dsn", default="")
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    match arguments.what:
        case "bare":
            bare.serve()
            return
        case "journal":
            serving = service(arguments, _as_it_is)
        case "memory":
            serving = service(arguments, _without_database)
        case "single":
            serving = service(arguments, _one_by_one)
        case "hello":
            serving = other(hello())
        case "naive":
            serving = other(naive(arguments.dsn))
        case _:
            serving = other(file(arguments.folder))
    uvloop.run(serving)


if __name__ == "__main__":
    main()
