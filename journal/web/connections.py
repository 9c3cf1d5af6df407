"""Connections: what surrounds aiohttp's own, so that nobody holds one without saying something.

The rule: whoever does not send a whole head in time, or as much of a body as was asked for, is cut off, and costs
until then what a connection costs; what aiohttp's parser refuses is told as a problem like everything else. Times of
what is quick are looked at by nobody: a timer is set where a head did not come in one piece.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, cast

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMessage, ContentEncodingError, LineTooLong

from journal import errors
from journal.config import Walls
from journal.core import addresses
from journal.errors import Fault, InvalidRequest, RateLimited, RequestError, UnsupportedMedia
from journal.web import send
from journal.web.ready import Ready

LINE_BYTES = 65_536  # of a request: a URL names collections, and its cursor names them once more, quoted
FIELD_BYTES = 8190
FIELDS = 100
HEAD_BYTES = LINE_BYTES + 65_536  # all of it
LINGER_S = 10.0  # for which a body that nobody wants is still taken, so that the answer gets through
FILES_APART = 200  # open files that are not for connections: PostgreSQL, the spool
FOREVER_S = 1e9
_take, _finish = web.RequestHandler.data_received, web.RequestHandler.finish_response
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


def notice_the_dead(listener: socket.socket, stalled_s: float) -> None:
    """Let what is accepted here end when the other side is no more, or takes nothing (what is accepted inherits it)."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = KEEPALIVE | ({"TCP_USER_TIMEOUT": round(1000 * stalled_s)} if stalled_s else {})
    for name, value in options.items():
        if hasattr(socket, name):  # the last is not for macOS
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connection(web.RequestHandler):
    """A connection.

    `place`: what its address is limited as, None where it is not; `is_proxy`: it is one of ours; `body_bytes`: what has
    come of the body that is on its way, with the sizes of its chunks; `when_lost`: called when it is lost.
    """

    __slots__ = (
        "_head_bytes", "_is_refused", "_requests", "_timer", "_walls", "address", "body_bytes", "is_proxy", "place",
        "when_lost",
    )  # fmt: skip

    _manager: "Server | None"

    def __init__(self, manager: "Server", **options: Any) -> None:
        super().__init__(manager, **options)
        self._walls = manager.walls
        self._requests = self._head_bytes = self.body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False
        self.address: addresses.Address | None = None
        self.place: str | None = None
        self.is_proxy = False
        self.when_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if there is room."""
        assert self._manager is not None
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = addresses.parse(peer[0])
        if self.address is not None:
            self.is_proxy = addresses.within(self.address, self._manager.trusted)
            if not addresses.within(self.address, self._manager.unlimited):
                self.place = addresses.place(self.address)
        if not self._manager.admits(self):
            self._is_refused = self._force_close = True
            self._last_word(transport, RateLimited("too many connections at once", retry_after=10))
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._manager is not None:
            self._manager.left(self)
        if self.when_lost is not None:
            self.when_lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Let aiohttp have it, unless nobody wants it any more."""
        if self._is_refused:
            return
        _take(self, data)
        if self._request_count != self._requests:
            self._requests = self._request_count
            self._head_bytes = self.body_bytes = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif not self._is_idle():
            self.body_bytes += len(data)
        elif data:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and self.transport is not None:
                self._is_refused = True
                self._last_word(self.transport, errors.HeadTooLarge())
                self.force_close()
            elif self._timer is None:
                self._expect_head()

    def refuse(self) -> None:
        """Throw away what still comes, and close once the answer is sent."""
        self._is_refused = True
        self._lingering_time = LINGER_S

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Finish what is being answered; what nobody wants any more is not waited for."""
        if self._is_refused:
            if self._task_handler is not None:
                self._task_handler.cancel()
            self.force_close()
            timeout = 0.1
        await super().shutdown(timeout)

    def _expect_head(self) -> None:
        if self._walls.head_s:
            self._timer = self._loop.call_later(self._walls.head_s, self._too_late)

    def _last_word(self, transport: asyncio.BaseTransport, error: RequestError) -> None:
        cast("asyncio.Transport", transport).write(_canned(error))
        transport.close()

    def _too_late(self) -> None:
        self._timer = None
        if self._is_idle():
            self.force_close()

    def _is_idle(self) -> bool:
        """Whether nothing is being answered: what comes is a head."""
        return self._waiter is not None and not self._waiter.done()

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send it: as a problem where aiohttp itself answers; and read no packed body that nobody wanted."""
        if resp.__class__ is not Ready and isinstance(resp, web.HTTPException):  # which takes a microsecond to find out
            resp = send.refused(_of_http(resp))
            resp.force_close()
        is_whole = request._payload.is_eof()
        if self._is_refused or (not is_whole and hdrs.CONTENT_ENCODING in request.headers):  # nothing more is read here
            self.refuse()
            if not resp.prepared:
                resp.force_close()
        return _finish(self, request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What the parser refuses. It is not logged: anybody can send it, and there may be secrets in it."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        response = send.refused(_of_parser(exc))
        response.force_close()
        return response


def connection_of(request: web.BaseRequest) -> Connection:
    """What a request came on."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    return connection


def is_at_home(request: web.BaseRequest) -> bool:
    """Whether it came from an address that is not limited, and is no proxy's. Asked of each request: no calls."""
    connection: Connection = request._protocol  # type: ignore[assignment]
    return connection.place is None and not connection.is_proxy


class Server(web.Server):
    """What makes connections, and counts them by place."""

    def __init__(self, server: web.Server, walls: Walls, most: int) -> None:
        super().__init__(
            server.request_handler, request_factory=server.request_factory, loop=server._loop, **server._kwargs
        )
        self.walls, self.most = walls, most
        self.trusted = addresses.networks(walls.trusted_proxies)
        self.unlimited = addresses.networks(walls.unlimited) + self.trusted
        self._of_place: Counter[str] = Counter()

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def admits(self, connection: Connection) -> bool:
        """Whether there is room for it, which is then its own."""
        if len(self._connections) >= self.most:
            connection.place = None
            return False
        place, most = connection.place, self.walls.connections
        if place is None:
            return True
        if most and self._of_place[place] >= most:
            connection.place = None
            return False
        self._of_place[place] += 1
        return True

    def left(self, connection: Connection) -> None:
        """It is there no more."""
        if connection.place is not None:
            self._of_place[connection.place] -= 1
            if not self._of_place[connection.place]:
                del self._of_place[connection.place]


class Runner(web.AppRunner):
    """aiohttp's, with these connections. `most`: how many of them, all together."""

    def __init__(self, app: web.Application, walls: Walls, *, most: int = 1 << 20, **options: Any) -> None:
        super().__init__(
            app,
            access_log=None,
            max_line_size=LINE_BYTES,
            max_field_size=FIELD_BYTES,
            max_headers=FIELDS,
            keepalive_timeout=walls.idle_s or FOREVER_S,
            **options,
        )
        self._walls, self._most = walls, most

    async def _make_server(self) -> Server:
        return Server(await super()._make_server(), self._walls, self._most)


def _canned(error: RequestError) -> bytes:
    """An answer to no request in particular."""
    body = msgspec.json.encode(error.problem())
    headers = send.ALWAYS | error.headers() | {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }  # fmt: skip
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def _of_parser(error: BaseException | None) -> RequestError:
    match error:
        case LineTooLong():
            return errors.LineTooLong() if str(error.args[1]) == str(LINE_BYTES) else errors.HeadTooLarge()
        case ContentEncodingError():
            return UnsupportedMedia("Content-Encoding: gzip or deflate")
        case BadHttpMessage() if error.message.startswith("Too many headers"):
            return errors.HeadTooLarge()
        case BadHttpMessage():
            return InvalidRequest([Fault("", error.message.partition("\n")[0].rstrip(":"))])
    return InvalidRequest([Fault("", "this is not HTTP/1.1")])


def _of_http(error: web.HTTPException) -> RequestError:
    match error.status:
        case 404:
            return errors.NotFound("no such path")
        case 417:
            return errors.CannotExpect("Expect: 100-continue")
    return InvalidRequest([Fault("", error.reason)])
