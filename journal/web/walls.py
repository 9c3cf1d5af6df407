"""Walls: what stands before every request, and how much one token or one address may have at once.

The rule: a look here costs a dictionary and a few numbers. Buckets and counts are this process's own, so that each of
several workers gives its share (`shared`). Addresses are limited before anybody asks who it is, tokens afterwards; a
poll that is held has been counted when it came, and while it waits it is a connection like any other.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

import msgspec
from aiohttp import hdrs, web

from journal.config import Limits, Settings
from journal.config import Walls as Heights
from journal.core import addresses
from journal.core.grants import Caller
from journal.core.rates import Rates
from journal.errors import RateLimited
from journal.service.access import Access
from journal.web.connections import connection_of, is_at_home
from journal.web.description.described import LimitsAnswer
from journal.web.doors import CALLER
from journal.web.origins import Origins

AGAIN_S = (5, 15)  # after which who has too many streams or downloads may look whether it still has


def shared(walls: Heights, workers: int) -> Heights:
    """What each of so many processes gives, where all together are to give that."""
    if workers == 1:
        return walls
    return msgspec.structs.replace(
        walls,
        requests_per_s=walls.requests_per_s / workers,
        **{
            name: math.ceil(getattr(walls, name) / workers)
            for name in ("requests_at_once", "streams", "downloads", "connections")
        },
    )


class Walls:
    """Of one process."""

    def __init__(self, settings: Settings, access: Access) -> None:
        heights = self.heights = settings.walls
        self.origins = Origins(heights, settings.host, lambda: access.is_open)
        self._trusted = addresses.networks(heights.trusted_proxies)
        self._unlimited = addresses.networks(heights.unlimited)
        self._rates = self._rates_of_tokens = None
        if heights.requests_per_s:
            self._rates = Rates(heights.requests_per_s, heights.requests_at_once)
            self._rates_of_tokens = Rates(heights.requests_per_s, heights.requests_at_once)
        self.bodies_bytes = 0  # of bodies that are not whole
        self._streams = _Held("streams", heights.streams)
        self._downloads = _Held("downloads", heights.downloads)
        self._behind = lru_cache(maxsize=4096)(self._place_behind)

    def admit(self, request: web.BaseRequest) -> None:
        """Misdirected, Forbidden or RateLimited, before anything else is looked at."""
        self.origins.admit(request)
        if not is_at_home(request) and (place := self.place(request)) is not None and self._rates is not None:
            _taken(self._rates, place, "address")

    def admit_caller(self, caller: Caller) -> None:
        """RateLimited, once it is known who asks."""
        if caller.owner is not None and self._rates_of_tokens is not None:
            _taken(self._rates_of_tokens, caller.owner, "token")

    def stream(self, request: web.Request) -> AbstractContextManager[None]:
        """Hold a stream for as long as it is open."""
        return self._streams.held(request, self.place(request))

    def download(self, request: web.Request) -> AbstractContextManager[None]:
        """Hold a download of a snapshot likewise."""
        return self._downloads.held(request, self.place(request))

    def told(self, limits: Limits) -> LimitsAnswer:
        """What `GET /v1` tells of limits."""
        names = set(LimitsAnswer.__struct_fields__)
        mine = {name: value for name, value in msgspec.structs.asdict(self.heights).items() if name in names}
        return LimitsAnswer(**msgspec.structs.asdict(limits), **mine)

    def place(self, request: web.BaseRequest) -> str | None:
        """What the request's address is limited as; None where it is not."""
        connection = connection_of(request)
        if not connection.is_proxy:
            return connection.place
        headers = request.headers
        return self._behind(
            connection.address,
            tuple(headers.getall(hdrs.X_FORWARDED_FOR, ())),
            tuple(headers.getall(hdrs.FORWARDED, ())),
        )

    def _place_behind(
        self, proxy: addresses.Address, forwarded_for: tuple[str, ...], forwarded: tuple[str, ...]
    ) -> str | None:
        found = addresses.client(proxy, addresses.claims(forwarded_for, forwarded), self._trusted)
        return None if addresses.within(found, self._unlimited) else addresses.place(found)


WALLS = web.AppKey("walls", Walls)


def refused_to_a_stream(request: web.BaseRequest, error: RateLimited) -> web.Response | None:
    """The same for an EventSource, which would give up for ever on an error status (protocol, section 9)."""
    if "text/event-stream" not in request.headers.get(hdrs.ACCEPT, ""):
        return None
    text = f"retry: {1000 * max(error.retry_after, AGAIN_S[0])}\n\n: {error.code}: {error.detail}\n\n"
    return web.Response(text=text, content_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _taken(rates: Rates, key: str, kind: str) -> None:
    wait = rates.take(key, time.monotonic())
    if wait:
        raise RateLimited(f"too many requests by this {kind}", retry_after=math.ceil(wait))


class _Held:
    """How many each key has, of at most `most`; 0: as many as it likes."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most = name, most
        self._count: Counter[str] = Counter()

    @contextmanager
    def held(self, request: web.Request, place: str | None) -> Iterator[None]:
        """One more for the request's address and token, as far as each is limited; RateLimited where one has enough.

        It is given back when the connection is lost: who waits for news would notice that only with the next.
        """
        keys = self._take({"address": place, "token": request[CALLER].owner})
        connection = connection_of(request)

        def give_back() -> None:
            connection.when_lost = None
            while keys:
                self._give(keys.pop())

        connection.when_lost = give_back
        try:
            yield
        finally:
            give_back()

    def _take(self, kinds: dict[str, str | None]) -> list[str]:
        keys = [f"{kind} {key}" for kind, key in kinds.items() if key is not None] if self.most else []
        for key in keys:
            if self._count[key] >= self.most:
                kind = key.partition(" ")[0]
                again_s = random.randint(*AGAIN_S)  # noqa: S311
                raise RateLimited(f"this {kind} has {self.most} {self.name} already", retry_after=again_s)
        self._count.update(keys)
        return keys

    def _give(self, key: str) -> None:
        self._count[key] -= 1
        if not self._count[key]:
            del self._count[key]
