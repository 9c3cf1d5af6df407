"""A proxy between the service and PostgreSQL that cuts, refuses, stalls and swallows answers on command.

Connections are told apart by the application_name that each states when it begins: `journal read`, `journal write`,
`journal listen`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Trap(NamedTuple):
    """Cut the connection that sends `marker`: before it gets through, or when it is answered."""

    marker: bytes
    of: bytes
    is_let_through: bool


class Proxy:
    """`dsn` leads to the same database, through here."""

    def __init__(self, upstream: str) -> None:
        self._parts = urlsplit(upstream)
        query = dict(parse_qsl(self._parts.query))
        self._host = query.get("host") or self._parts.hostname or "127.0.0.1"
        self._port = int(query.get("port") or self._parts.port or 5432)
        self._own_port = 0
        self._server: asyncio.Server | None = None
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._trap: Trap | None = None
        self._stalled: bytes | None = None
        self._going = asyncio.Event()
        self._going.set()
        self.sprung = asyncio.Event()

    @property
    def dsn(self) -> str:
        login, at, _ = self._parts.netloc.rpartition("@")
        return f"postgresql://{login}{at}127.0.0.1:{self._own_port}{self._parts.path}?sslmode=disable"

    async def accept(self) -> None:
        """Take connections (again), on the same port always."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """PostgreSQL is away: all connections break, and new ones are refused."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections; new ones are taken."""
        for link in self._links:
            for end in link:
                end.transport.abort()

    def trap(self, marker: bytes, *, is_let_through: bool, of: bytes = b"journal write") -> None:
        """Cut the next connection of this application that sends `marker`; then `sprung` is set."""
        self._trap = Trap(marker, of, is_let_through)
        self.sprung.clear()

    def stall(self, of: bytes = b"") -> None:
        """Nothing of this application's connections gets through, and none of them breaks, until `go`."""
        self._stalled = of
        self._going.clear()

    def go(self) -> None:
        """Let through what was held."""
        self._stalled = None
        self._going.set()

    async def _link(self, *client: *Stream) -> None:
        try:
            if self._host.startswith("/"):
                server = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            else:
                server = await asyncio.open_connection(self._host, self._port)
        except OSError:
            client[1].transport.abort()
            return
        link = (client[1], server[1])
        self._links.add(link)
        with contextlib.suppress(OSError, EOFError):
            await self._forward(client, server)
        self._links.discard(link)
        for end in link:
            end.transport.abort()

    async def _forward(self, client: Stream, server: Stream) -> None:
        """Both ways, until one end closes."""
        hello = await client[0].read(65536)
        is_swallowing = asyncio.Event()
        server[1].write(hello)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_request: bool) -> None:
            while chunk := await source.read(65536):
                while self._stalled is not None and self._stalled in hello:
                    await self._going.wait()
                trap = self._trap
                if is_request and trap is not None and trap.of in hello and trap.marker in chunk:
                    self._trap = None
                    self.sprung.set()
                    if not trap.is_let_through:
                        return
                    is_swallowing.set()
                if not is_request and is_swallowing.is_set():
                    return
                sink.write(chunk)
                await sink.drain()

        pumps = [
            asyncio.create_task(pump(client[0], server[1], is_request=True)),
            asyncio.create_task(pump(server[0], client[1], is_request=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


@asynccontextmanager
async def proxied(upstream: str) -> AsyncIterator[Proxy]:
    """A proxy to the database at `upstream`."""
    proxy = Proxy(upstream)
    await proxy.accept()
    try:
        yield proxy
    finally:
        proxy.go()
        proxy.refuse()
