"""Ready: small answers that are written beneath aiohttp, in one piece with their headers.

For what is asked most, the head, the tail and pushes: building, ordering and joining headers is a third of what such
an answer costs. Whatever is not the plain case, HTTP/1.1 on a connection that stays open (RFC 9112, section 9.3), goes
aiohttp's way.
"""

import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

LARGEST = 64 << 10  # beyond it a copy costs more than it saves
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer bears, unless it says otherwise itself: nothing here is a page, or part of somebody's page."""


def is_plain(request: web.BaseRequest) -> bool:
    """Whether an answer to it can be Ready."""
    return request.version == HttpVersion11 and request.keep_alive and request.method != "HEAD"


def prefix(status: int, reason: str, headers: Mapping[str, str], size: int) -> bytes:
    """The head of an answer as far as it is the same each time it is sent; `headers` must be known to be sound."""
    lines = [f"HTTP/1.1 {status} {reason}", *map(": ".join, headers.items()), f"Content-Length: {size}"]
    always = _ALWAYS if ALWAYS.keys().isdisjoint(headers) else _lines(ALWAYS.keys() - headers.keys())
    return "\r\n".join([*lines, always, f"Server: {SERVER_SOFTWARE}", "X-Request-Id: "]).encode()


def _lines(names: Iterable[str]) -> str:
    return "\r\n".join(f"{name}: {ALWAYS[name]}" for name in sorted(names))


_ALWAYS = _lines(ALWAYS)


class Ready(web.StreamResponse):
    """An answer of which all is known but its request's id. `head` as `prefix` makes it."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        super().__init__(status=status)
        self._lines, self._content = head, body
        self.request_id = ""
        self.besides = b""  # lines, each with its end
        self._writer: AbstractStreamWriter | None = None

    @property
    def size(self) -> int:
        """The bytes of its body."""
        return len(self._content)

    @property
    def keep_alive(self) -> bool:
        """Always: see `is_plain`."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write it all."""
        self._writer = request.writer
        if request.transport is not None:  # else the client went away
            rest = b"%b\r\nDate: %b\r\n%b\r\n" % (self.request_id.encode(), _date(int(time.time())), self.besides)
            request.transport.write(b"".join((self._lines, rest, self._content)))
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait for a reader who is slower than the answers that it asks for."""
        assert self._writer is not None
        await self._writer.drain()


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
