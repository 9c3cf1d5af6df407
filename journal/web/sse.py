"""Server-sent events over aiohttp: a stream's way to its reader's socket, and who does not read (protocol, section 9).

What many are told goes from memory to their sockets without aiohttp: framed once, one system call each.
"""

import asyncio
import contextlib
import os
import socket
from functools import lru_cache, partial
from urllib.parse import parse_qsl

from aiohttp import web

from journal.core.grants import Caller
from journal.errors import Fault, InvalidRequest, Unauthenticated, Unavailable
from journal.service.access import Again
from journal.service.rounds import page
from journal.service.running import Service
from journal.service.stream import PART_BYTES, CutOff, Stream
from journal.web import doors, send
from journal.web import parameters as read
from journal.web.queries import Queries
from journal.web.walls import WALLS

PATIENCE_S = 60.0  # for a reader that takes nothing
LONGEST_PAUSE_S = 0.05
UNSENT_BYTES = 128 << 10  # what the kernel keeps for a slow reader besides what is on its way
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a page of them
}


async def stream(service: Service, request: web.Request) -> web.StreamResponse:
    """GET …/stream. Trouble that will pass is a close with `retry`, no error status: a browser gives up on those."""
    journal = request.match_info["j"]
    caller, again = await _caller(service, request, journal)
    walls = request.app[WALLS]
    walls.admit_caller(caller)
    doors.admit(request, caller, "read")
    with walls.stream(request):
        return await _streamed(service, request, caller, again)


async def _streamed(service: Service, request: web.Request, caller: Caller, again: Again) -> web.StreamResponse:
    journal = request.match_info["j"]
    asked = Queries.stream.read(request.rel_url.raw_query_string)
    if "Last-Event-ID" in request.headers:
        asked["since"] = read.since(request.headers["Last-Event-ID"])
    if "since" not in asked:
        raise InvalidRequest([Fault("/since", "missing")])
    since, collections, client = asked["since"], asked.get("collections"), asked.get("client")
    first = page(since, collections=collections, client=client).within(request[doors.REACH].reads)
    if first.client is not None:  # also one that only the cursor names
        await service.access.own(caller, journal, first.client)
    with contextlib.suppress(Unavailable):  # then it is found out by the stream
        await service.tails.of(journal)
        if client is not None:
            await service.registry.admit(journal, client)
    response = web.StreamResponse(headers=HEADERS | send.identified())
    await response.prepare(request)
    if request.method == "HEAD":
        await response.write_eof()
        return response
    sink = Sink(request, response)
    agent = request.headers.get("User-Agent")
    lease = service.access.lease(caller, again, journal)
    told = Stream(service.fanout, lease, since, sink, collections=collections, client=client, agent=agent)
    try:
        with lease:
            await told.run()
        await response.write_eof()
    except (TimeoutError, CutOff):
        sink.abort()
    return response


async def _caller(service: Service, request: web.Request, journal: str) -> tuple[Caller, Again]:
    """Who it is, and how that is asked again: by its ticket, which is used up, else as everywhere."""
    ticket = dict(parse_qsl(request.rel_url.raw_query_string)).get("ticket")
    if ticket is None or service.access.is_open:
        caller = await doors.caller_of(request, service.access)
        return caller, partial(service.access.caller, request.headers.get(doors.AUTHORIZATION))
    if request.method == "HEAD":
        raise Unauthenticated("a ticket is for the stream itself")
    return await service.access.redeem(journal, ticket)


class Sink:
    """A response's socket."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        assert request.transport is not None
        self._response, self._transport = response, request.transport
        self._is_chunked = "Transfer-Encoding" in response.headers
        connection = request.transport.get_extra_info("socket")
        self._file = connection.fileno()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, value in _OPTIONS:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    async def ready(self) -> None:
        """Wait until the reader has taken all that was sent, for as long as it takes something now and then."""
        loop = asyncio.get_running_loop()
        left, deadline, pause = self._unsent(), loop.time() + PATIENCE_S, 0.001
        while left:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            before, left = left, self._unsent()
            if left < before:
                deadline = loop.time() + PATIENCE_S
            elif loop.time() > deadline:
                raise TimeoutError

    async def send(self, data: bytes) -> None:
        """Send in small parts, each with the same patience: who reads slowly but steadily is not cut off."""
        for start in range(0, len(data), PART_BYTES):
            async with asyncio.timeout(PATIENCE_S):
                await self._response.write(data[start : start + PART_BYTES])

    def send_now(self, data: bytes) -> bool:
        """Send to a reader that has taken everything, or else not at all."""
        transport = self._transport
        if transport.get_write_buffer_size() or transport.is_closing():
            return False
        framed = _framed(data) if self._is_chunked else data
        try:
            sent = os.write(self._file, framed)
        except BlockingIOError:
            return False
        except OSError:
            self.abort()
            return False
        if sent < len(framed):
            transport.write(framed[sent:])
        return True

    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size()


_OPTIONS = [
    (getattr(socket, name), value)
    for name, value in (("TCP_NOTSENT_LOWAT", UNSENT_BYTES), ("TCP_USER_TIMEOUT", round(1000 * PATIENCE_S)))
    if hasattr(socket, name)
]


@lru_cache(maxsize=4)
def _framed(data: bytes) -> bytes:
    """A chunk of HTTP/1.1 (RFC 9112, section 7.1), made once for what many are told."""
    return b"%x\r\n%b\r\n" % (len(data), data)
