"""Streams: what is recorded, as it is recorded, as server-sent events (protocol, section 9).

A stream looks for itself, as a poll does, until there is nothing to tell; then it follows with all who stand at the
same place (service/fanout.py), until it is let go. Nothing is queued for a reader: who is slow is told more at once,
later.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from journal.core.cursor import Cursor
from journal.errors import ClientForgotten, Forbidden, JournalNotFound, ResyncRequired, Unauthenticated, Unavailable
from journal.service import events, fanout
from journal.service.access import WARNED_S, Lease
from journal.service.rounds import Page, page

FRESH_S = 1.0  # who was told its cursor as lately as this need not be told it again
PAUSE_S = 0.02
PART_BYTES = 64 << 10  # that are sent before it is looked whether the rest may be


class CutOff(Exception):
    """In the middle of an event its reader may not be told the rest any more: nothing else can follow it."""


class Sink(Protocol):
    """Where a stream's bytes go. Who takes nothing is a TimeoutError, who went away a ConnectionError."""

    async def ready(self) -> None:
        """Wait until the reader has taken all that was sent."""
        ...

    async def send(self, data: bytes) -> None:
        """Send, waiting for room."""
        ...

    def send_now(self, data: bytes) -> bool:
        """Send without waiting; False, and nothing is sent, where the reader has not taken all that came before.

        The same object is framed once, however many streams it is sent to.
        """
        ...


class Stream:
    """One stream. `since`: the cursor of the last event that was sent."""

    def __init__(
        self,
        fanned: fanout.Fanout,
        lease: Lease,
        since: Cursor | int,
        sink: Sink,
        *,
        collections: frozenset[str] | None = None,
        client: str | None = None,
        agent: str | None = None,
    ) -> None:
        self.fanout, self.lease, self.since, self.sink = fanned, lease, since, sink
        self.journal, self.client, self.agent = lease.journal, client, agent
        self.collections = self._asked = collections
        self.tell: Callable[[bytes], bool] = sink.send_now
        self._told_at = float("-inf")
        lease.woken = self._let_go

    async def run(self) -> None:
        """Tell all there is, until the service stops or the stream leads nowhere. It ends with `retry`.

        It leads nowhere, too, when its caller may not be told any more: then it ends with `auth`.
        """
        self.fanout.streams += 1
        try:
            await self._run()
        finally:
            self.fanout.streams -= 1

    async def _run(self) -> None:
        await self.sink.send(events.retry())
        try:
            while not self.fanout.tails.is_closing:
                await self._look()
        except ResyncRequired as error:
            self.fanout.called_back[error.reason] += 1
            await self.sink.send(events.resync(error))
            return
        except (Unauthenticated, Forbidden):
            has_ended = (self.lease.ends_in_s or 1.0) <= 0.0
            await self.sink.send(events.auth("expired" if has_ended else "revoked"))
            return
        except (Unavailable, JournalNotFound, ClientForgotten):
            pass  # it comes back, and is told then
        await self.sink.send(events.retry())

    async def _asks(self) -> Page:
        """What it is to be told, of what its caller may read by now; and a word in time before that ends."""
        reach = await self.lease.reach()
        if reach.is_nothing:
            raise Unauthenticated
        left = self.lease.ends_in_s
        if left is not None and left <= WARNED_S and not self.lease.is_warned:
            self.lease.is_warned = True
            await self.sink.send(events.auth("expires", in_s=max(round(left), 0)))
        asked = page(self.since, collections=self._asked, client=self.client, limit=fanout.LIMIT).within(reach.reads)
        self.collections = asked.collections
        return asked

    async def _look(self) -> None:
        """Tell what is new; where nothing is, follow with others."""
        await self.sink.ready()
        asked = await self._asks()
        async with self.fanout.apart:
            if self.client is not None:
                await self.fanout.registry.admit(self.journal, self.client)
            answer = await self.fanout.reader.deltas(self.journal, asked)
        try:
            if not self.lease.holds:
                return
            is_told = answer.is_empty and answer.cursor == str(self.since)
            if is_told and self._now() - self._told_at < FRESH_S:
                await self.fanout.follow(self)
                await asyncio.sleep(PAUSE_S)
                return
            if answer.is_empty:
                event = events.bookmark(answer)
                await self.sink.send(event.data)
            else:
                for piece in events.pieces(answer):
                    await self._send(piece)
        finally:
            answer.close()
        self._told_at = self._now()
        if self.client is not None:
            at = self.since if isinstance(self.since, Cursor) else None
            self.fanout.registry.saw(self.journal, self.client, at, self.agent)
        self.since = events.end(answer)

    async def _send(self, piece: bytes) -> None:
        """Send some of an event, for as long as its reader may be told it: who reads slowly takes minutes."""
        for start in range(0, len(piece), PART_BYTES):
            if not self.lease.holds:
                raise CutOff
            await self.sink.send(piece[start : start + PART_BYTES])

    def _let_go(self) -> None:
        self.fanout.let_go(self)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
