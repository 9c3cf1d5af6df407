"""A proxy between one replica and the service that cuts, swallows and holds up, at any byte or request.

Bytes and requests are counted from `arm` on, over all connections. One fault at a time, and it happens once.
"""

import asyncio
import contextlib
from typing import Literal, NamedTuple

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Cut(NamedTuple):
    """Break the connection once so many bytes went this way."""

    way: Literal["asked", "answered"]
    after: int


class Mute(NamedTuple):
    """Swallow what is answered after so many bytes; the connection stays."""

    after: int


class Hold(NamedTuple):
    """Hold a request up before it gets through, or when it is answered."""

    request: int
    when: Literal["asked", "answered"]


Fault = Cut | Mute | Hold


class Shaky:
    """`url` is the service's as one replica sees it. `held` is set while something is held up; `go` lets it on."""

    def __init__(self) -> None:
        self.url, self.upstream = "", 0
        self.held, self.sprung = asyncio.Event(), asyncio.Event()
        self._go = asyncio.Event()
        self._fault: Fault | None = None
        self._counted = {"asked": 0, "answered": 0}
        self._requests = 0
        self._ends: set[asyncio.StreamWriter] = set()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def accept(self) -> None:
        """Take connections, at `url`."""
        self._server = await asyncio.start_server(self._linked, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def arm(self, fault: Fault) -> None:
        """Have a fault happen."""
        self.disarm()
        self._fault = fault
        self._counted, self._requests = {"asked": 0, "answered": 0}, 0
        for event in (self.held, self.sprung, self._go):
            event.clear()

    def disarm(self) -> None:
        """Pass everything on."""
        self._fault = None
        self._go.set()

    def go(self) -> None:
        """Let on what is held up."""
        self._fault = None
        self.held.clear()
        self._go.set()

    def cut(self) -> None:
        """Break all connections."""
        for end in self._ends:
            end.transport.abort()

    async def close(self) -> None:
        """Take no more."""
        self.disarm()
        self.cut()
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _linked(self, *client: *Stream) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await self._link(client)
        finally:
            client[1].transport.abort()
            self._links.discard(link)

    async def _link(self, client: Stream) -> None:
        server = await asyncio.open_connection("127.0.0.1", self.upstream)
        ends = {client[1], server[1]}
        self._ends |= ends
        is_new = [True]
        pumps = [
            asyncio.ensure_future(self._pump(client[0], server[1], "asked", is_new)),
            asyncio.ensure_future(self._pump(server[0], client[1], "answered", is_new)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        way: Literal["asked", "answered"],
        is_new: list[bool],
    ) -> None:
        """One way; a request is new when the one before it was answered."""
        while chunk := await source.read(65536):
            if way == "asked" and is_new[0]:
                self._requests += 1
            if isinstance(self._fault, Hold) and self._fault.when == way and self._requests == self._fault.request:
                await self._hold()
            is_new[0] = way == "answered"
            before = self._counted[way]
            self._counted[way] += len(chunk)
            match self._fault:
                case Cut(of, after) if of == way and before + len(chunk) > after:
                    sink.write(chunk[: max(0, after - before)])
                    await sink.drain()
                    self._fault = None
                    self.sprung.set()
                    return
                case Mute(after) if way == "answered" and before + len(chunk) > after:
                    sink.write(chunk[: max(0, after - before)])
                    self.sprung.set()
                    continue
            sink.write(chunk)
            await sink.drain()

    async def _hold(self) -> None:
        self._fault = None
        self.sprung.set()
        self.held.set()
        await self._go.wait()
