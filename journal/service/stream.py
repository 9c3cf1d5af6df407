"""Streams: what is recorded, as it is recorded, as server-sent events (protocol, section 9).

A stream asks what a poll asks, again whenever the journal has moved on, and tells it as an event whose id is the cursor
to go on from. Nothing is queued for a reader: who is slow is told more at once, later. Frames are made once for all who
are told the same.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Iterator

import msgspec

from journal.core.cursor import Cursor, parse
from journal.errors import ClientForgotten, JournalNotFound, ResyncRequired, Unavailable
from journal.service.answer import Answer
from journal.service.deltas import Reader
from journal.service.registry import Registry
from journal.service.rounds import Page, page
from journal.service.tails import Tails

BOOKMARK_S = 14.0
TICK_S = 0.02  # at most one look in that time: a burst becomes one event
LIMIT = 1000
RETRY_S = (1.0, 3.0)
RESYNC_RETRY_S = 5.0

_encode = msgspec.json.Encoder().encode
Frame = Iterator[bytes]


class Stream:
    """One stream. `cursor` is that of the event before the last: when there was room for another, it had been read."""

    def __init__(self, reader: Reader, tails: Tails, registry: Registry, journal: str, asked: Page) -> None:
        self.reader, self.tails, self.registry, self.journal = reader, tails, registry, journal
        self.page = asked
        self.cursor: Cursor | None = asked.since if isinstance(asked.since, Cursor) else None
        self._loop = asyncio.get_running_loop()
        self._told_at = float("-inf")

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """What to send, an event at a time; the next one is made when this one was sent. It ends with `retry`."""
        yield iter([_retry(*RETRY_S)])
        try:
            while not self.tails.is_closing:
                changed = (await self.tails.of(self.journal)).changed
                if self.page.client is not None:
                    await self.registry.admit(self.journal, self.page.client)
                answer = await self.reader.deltas(self.journal, self.page)
                if isinstance(self.page.since, Cursor):
                    self.cursor = self.page.since
                try:
                    if not answer.is_empty:
                        yield _deltas(answer)
                    elif self._loop.time() - self._told_at >= BOOKMARK_S:
                        yield iter([_bookmark(answer)])
                    else:
                        await self._wait(changed)
                        continue
                finally:
                    answer.close()
                self._went_out(answer)
        except ResyncRequired as error:
            yield iter([_event("resync", _encode(error.problem()))])
            longest = max(float(error.retry_after), RESYNC_RETRY_S)
            yield iter([_retry(longest, 1.5 * longest)])
        except (Unavailable, JournalNotFound, ClientForgotten):
            yield iter([_retry(*RETRY_S)])  # it comes back, and is told then
        else:
            yield iter([_retry(*RETRY_S)])

    def _went_out(self, answer: Answer) -> None:
        self._told_at = self._loop.time()
        self.page = _next(self.page, answer)

    async def _wait(self, changed: asyncio.Event) -> None:
        """Until there may be something to tell, or it is time for a bookmark."""
        left = max(self._told_at + BOOKMARK_S - self._loop.time(), 0.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await changed.wait()
        await asyncio.sleep(TICK_S)


def stream_page(since: Cursor | int, *, collections: frozenset[str] | None, client: str | None) -> Page:
    """What a stream asks at first."""
    return page(since, collections=collections, client=client, limit=LIMIT)


def _next(before: Page, answer: Answer) -> Page:
    """What it asks after an event: from its id on, for the same collections, as the same client."""
    since = parse(answer.cursor, parameter="since")
    return page(since, collections=before.collections, client=before.client, limit=before.limit)


def _deltas(answer: Answer) -> Frame:
    """An event of deltas, made once for all who are told the same. A body has newlines between deltas at most."""
    if answer.body is None:
        return _large(answer)
    frame: bytes | None = answer.coded.get("event")
    if frame is None:
        frame = answer.coded["event"] = _event("deltas", answer.body, cursor=answer.cursor)
    return iter([frame])


def _large(answer: Answer) -> Frame:
    assert answer.pieces is not None
    yield b"event: deltas\nid: " + answer.cursor.encode() + b"\ndata: "
    for piece in answer.pieces:
        yield piece.replace(b"\n", b"\ndata: ")
    yield b"\n\n"


def _bookmark(answer: Answer) -> bytes:
    revision = parse(answer.cursor, parameter="since").revision
    return _event("bookmark", _encode({"revision": revision}), cursor=answer.cursor)


def _event(name: str, data: bytes, *, cursor: str = "") -> bytes:
    """An event as the HTML standard has it (section 9.2)."""
    id_ = b"id: " + cursor.encode() + b"\n" if cursor else b""
    return b"event: " + name.encode() + b"\n" + id_ + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def _retry(least_s: float, most_s: float) -> bytes:
    """After how long to connect again, so that not all do at once."""
    return b"retry: %d\n\n" % round(1000 * random.uniform(least_s, most_s))  # noqa: S311
