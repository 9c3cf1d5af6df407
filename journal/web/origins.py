"""Origins: which pages may use the service, and as which host it is known.

The rule: a page may read what the service tells its origin, and change something, only if it is the service's own or of
an origin that an operator listed. What is no browser says neither Origin nor Sec-Fetch-Site, and is not concerned.
While no token is needed the service answers only to hosts that no foreign name server can make its own (DNS rebinding).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs, web
from multidict import istr

from journal.config import Walls
from journal.core.origins import is_literal, is_loopback_name, is_of_host, is_origin, name
from journal.errors import Forbidden, Misdirected

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
ANY = "*"
EXPOSED = (
    "Accept-Ranges, Allow, Content-Range, Date, ETag, Journal-Revision, Location, Preference-Applied, Retry-After, "
    "WWW-Authenticate, X-Request-Id"
)
ASKED_WITH = (
    "Accept, Authorization, Content-Encoding, Content-Type, From, Idempotency-Key, If-None-Match, If-Range, "
    "Last-Event-ID, Prefer, Range, X-Request-Id"
)
METHODS = "GET, HEAD, POST, PUT, DELETE"
HOSTS = 1024  # that are remembered as they were written
ASKED_AGAIN_S = 7200  # Chromium remembers no answer for longer
SITE = istr("Sec-Fetch-Site")
METHOD_TO_COME = istr("Access-Control-Request-Method")


class Besides(NamedTuple):
    """Headers for one origin, and the same as lines."""

    headers: Mapping[str, str]
    lines: bytes


class Origins:
    """`host` is what the service listens on; `is_open` whether it needs no token at this moment."""

    def __init__(self, walls: Walls, host: str, is_open: Callable[[], bool]) -> None:
        self.is_open = is_open
        self.is_on = bool(walls.cors_origins)
        self._is_any = ANY in walls.cors_origins
        self._allowed = frozenset(walls.cors_origins) - {ANY}
        known = frozenset(name(known) for known in (host, *walls.allowed_hosts))

        self._names = known - {""}
        self._known: set[str] = set()  # as they were written

    def admit(self, request: web.BaseRequest) -> None:
        """Misdirected or Forbidden, where a browser was talked into asking."""
        headers = request.headers
        host = headers.get(hdrs.HOST)
        if host is not None and host not in self._known and not self._is_known(host) and self.is_open():
            raise Misdirected("no token is needed here, so it is known as localhost only: --allowed-host names others")
        if request.method in SAFE:
            return
        origin = headers.get(hdrs.ORIGIN)
        if origin is None:
            if headers.get(SITE, "none") not in ("none", "same-origin"):
                raise Forbidden("a page of another origin sent this")
        elif not is_of_host(origin, host or "") and not self.allows(origin):
            raise Forbidden(f"pages of {origin[:200]} may not change anything here: --cors-origin lists those that may")

    def _is_known(self, host: str) -> bool:
        called = name(host)
        if not (is_literal(called) or is_loopback_name(called) or called in self._names):
            return False
        if len(self._known) >= HOSTS:
            self._known.clear()
        self._known.add(host)
        return True

    def allows(self, origin: str) -> bool:
        """Whether scripts of its pages may use the service."""
        return origin in self._allowed or (self._is_any and not self.is_open())

    def besides(self, request: web.BaseRequest) -> Besides:
        """What the answer to it bears so that a browser lets its page read it, where any origin is listed."""
        origin = request.headers.get(hdrs.ORIGIN)
        return _besides(origin if origin is not None and self.allows(origin) else None)

    def asked_before(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a browser that asks whether it may ask; None where it does not."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or METHOD_TO_COME not in request.headers or not self.allows(origin):
            return None
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": ASKED_WITH,
                "Access-Control-Max-Age": str(ASKED_AGAIN_S),
                "Vary": "Access-Control-Request-Method, Access-Control-Request-Headers",
            },
        )


def checked(origin: str) -> str:
    """An origin that may be listed; ValueError where it is none."""
    if origin != ANY and not is_origin(origin):
        raise ValueError(f"{origin!r} is no origin: https://app.example, in lower case and without a path")
    return origin


@lru_cache(maxsize=256)
def _besides(origin: str | None) -> Besides:
    headers = {"Vary": "Origin"}
    if origin is not None:
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}
    return Besides(headers, "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode())
