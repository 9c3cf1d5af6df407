"""Fan-out: streams that stand at the same place are told the same bytes, made once and sent without a task each.

The rule: here is said only what memory can prove and what is true of everybody in the cohort. Who is slow, called
back, or owed something of its own leaves, and looks for itself (service/stream.py).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Protocol
from uuid import UUID

import msgspec

from journal.core.cursor import Cursor
from journal.errors import JournalNotFound, ResyncRequired, Unavailable
from journal.service import events
from journal.service.deltas import Reader
from journal.service.judge import floors_for, judge
from journal.service.registry import Registry
from journal.service.rounds import Page, page
from journal.service.tails import Tail, Tails
from journal.store.heads import Head

_log = logging.getLogger(__name__)
BOOKMARK_S = 14.0
TICK_S = (0.01, 0.05)  # between two looks: the least, or while changes keep coming as long as telling took
LIMIT = 1000  # deltas of an event
AT_ONCE = 200  # streams that are told before others get their turn
APART = 8  # streams that look for themselves at the same time

Place = tuple[str, frozenset[str] | None]
"""A journal, and what of it is told."""


class Follower(Protocol):
    """A stream as the fan-out sees it."""

    journal: str
    since: Cursor | int
    collections: frozenset[str] | None
    client: str | None
    agent: str | None

    tell: Callable[[bytes], bool]  # sends without waiting; False, and nothing is sent, where the reader is not ready


class Cohort(msgspec.Struct, eq=False):
    """Streams at one cursor. `seen`: the head up to which nothing is owed to them; `floor`: likewise looked at."""

    since: Cursor
    page: Page
    told_at: float
    seen: Head | None = None
    members: dict[Follower, "asyncio.Future[None]"] = {}
    floor: int = 0


class Fanout:
    """The streams of one process that are up to date."""

    def __init__(self, reader: Reader, tails: Tails, registry: Registry) -> None:
        self.reader, self.tails, self.registry = reader, tails, registry
        self.apart = asyncio.Semaphore(APART)
        self._crowds: dict[Place, Crowd] = {}
        self.streams = self.told = 0
        self.called_back: Counter[str] = Counter()  # how many streams have ended with a resync, by its reason

    async def follow(self, stream: Follower) -> None:
        """Keep a stream that was just told its cursor up to date; returns when it is to look for itself."""
        assert isinstance(stream.since, Cursor)
        place = stream.journal, stream.collections
        crowd = self._crowds.get(place)
        if crowd is None:
            crowd = self._crowds[place] = Crowd(self, *place)
            crowd.task = asyncio.create_task(crowd.run(), context=Context())  # it is not of the request that began it
        await crowd.follow(stream, stream.since)

    def let_go(self, stream: Follower) -> None:
        """Let a stream look for itself, if it follows."""
        crowd = self._crowds.get((stream.journal, stream.collections))
        if crowd is not None:
            crowd.let_go(stream)

    @property
    def cohorts(self) -> int:
        """How many there are that are told together."""
        return sum(crowd.cohorts for crowd in self._crowds.values())

    @property
    def following(self) -> int:
        """How many streams are in them: the others look for themselves."""
        return sum(crowd.following for crowd in self._crowds.values())

    def over(self, crowd: "Crowd") -> None:
        """Nobody is left in it."""
        self._crowds.pop((crowd.journal, crowd.collections), None)


class Crowd:
    """Streams of one journal and the same collections, told by one task."""

    def __init__(self, fanout: Fanout, journal: str, collections: frozenset[str] | None) -> None:
        self.fanout, self.journal, self.collections = fanout, journal, collections
        self.task: asyncio.Task[None] | None = None
        self._cohorts: dict[Cursor, Cohort] = {}
        self._of: dict[Follower, Cohort] = {}
        self._joined = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def cohorts(self) -> int:
        """How many."""
        return len(self._cohorts)

    @property
    def following(self) -> int:
        """How many streams are in them."""
        return len(self._of)

    async def follow(self, stream: Follower, since: Cursor) -> None:
        """Until the stream is let go."""
        cohort = self._cohort(since, self._loop.time())
        let_go = cohort.members[stream] = self._loop.create_future()
        self._of[stream] = cohort
        self._joined.set()
        try:
            await let_go
        finally:
            self._remove(stream)

    def let_go(self, stream: Follower) -> None:
        """Let one look for itself."""
        self._let_go([stream])

    async def run(self) -> None:
        """Tell whoever is here, until nobody is."""
        try:
            while self._of and not self.fanout.tails.is_closing:
                tail = await self.fanout.tails.of(self.journal)
                with tail.kept():
                    await self._round(tail)
        except (Unavailable, JournalNotFound):
            pass  # each is told by itself
        except Exception:
            _log.exception("streams of %s could not be told together", self.journal)
        finally:
            self.fanout.over(self)
            self._let_go(list(self._of))

    async def _round(self, tail: Tail) -> None:
        """Tell everyone what is new, rest for a tick, and wait until there is more."""
        changed, begun = tail.changed, self._loop.time()
        self._joined.clear()
        for cohort in list(self._cohorts.values()):
            await self._tell(tail, cohort)
        least, most = TICK_S
        took = self._loop.time() - begun
        await asyncio.sleep(min(max(took, least), most) if changed.is_set() else least)
        await self._news(changed)

    async def _news(self, changed: asyncio.Event) -> None:
        """Wait until there may be something to tell: a change, a stream at a place of its own, a bookmark."""
        due = min((cohort.told_at for cohort in self._cohorts.values()), default=0.0) + BOOKMARK_S
        waits = [asyncio.ensure_future(event.wait()) for event in (changed, self._joined)]
        try:
            await asyncio.wait(waits, timeout=max(due - self._loop.time(), 0.0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _tell(self, tail: Tail, cohort: Cohort) -> None:
        """What a cohort is owed by now."""
        head, is_due = tail.head, self._loop.time() - cohort.told_at >= BOOKMARK_S
        if not cohort.members or (cohort.seen is head and not is_due):
            return
        since = cohort.since
        if max(since.revision, cohort.floor) < head.floor and tail.has(since):
            self._let_go(await self._called_back(head, cohort))
            cohort.floor = head.floor
            if tail.head is not head:
                return  # the journal moved on meanwhile, and is looked at again
        answer = self.fanout.reader.proven(tail, cohort.page)
        if answer is None:
            self._let_go(list(cohort.members))
            return
        cohort.seen = head
        if not answer.is_empty:
            event = events.deltas(answer)
        elif is_due or head.head - since.revision >= LIMIT:
            event = events.bookmark(answer)
        else:
            return
        await self._send(tail, cohort, event, who_asks_matters=answer.who_asks_matters)

    async def _send(self, tail: Tail, cohort: Cohort, event: events.Event, *, who_asks_matters: bool) -> None:
        """Move the cohort on, an event further; who cannot be told it like this stays behind."""
        self._drop(cohort)
        told_at, streams = self._loop.time(), list(cohort.members)
        for start in range(0, len(streams), AT_ONCE):
            onward = self._cohort(event.cursor, told_at, cohort.seen)  # anew: meanwhile all in it may have left
            self._send_some(tail, cohort, streams[start : start + AT_ONCE], event, onward, who_asks_matters)
            if not onward.members:
                self._drop(onward)
            await asyncio.sleep(0)

    def _send_some(
        self,
        tail: Tail,
        cohort: Cohort,
        streams: list[Follower],
        event: events.Event,
        onward: Cohort,
        who_asks_matters: bool,  # noqa: FBT001 — only called above
    ) -> None:
        data, cursor, before = event.data, event.cursor, cohort.members
        there_before = len(onward.members)
        for stream in streams:
            let_go = before.get(stream)
            if let_go is None:
                continue  # it went away meanwhile
            client = stream.client
            is_alike = client is None or (not who_asks_matters and client in tail.admitted)
            if not is_alike or not stream.tell(data):
                self._let_go([stream])
                continue
            if client is not None:
                self.fanout.registry.saw(self.journal, client, cohort.since, stream.agent)
            stream.since = cursor
            del before[stream]
            onward.members[stream], self._of[stream] = let_go, onward
        self.fanout.told += len(onward.members) - there_before

    async def _called_back(self, head: Head, cohort: Cohort) -> list[Follower]:
        """Those that an operator has asked to start again since."""
        since, named = cohort.since, {s: UUID(s.client) for s in cohort.members if s.client is not None}
        async with self.fanout.reader.database.reading() as connection:
            floors = await floors_for(connection, head, [since], named.values())
        try:
            judge(since, head, since.chain, floors=floors, collections=self.collections)
        except ResyncRequired:
            return list(cohort.members)
        concerned = {floor.client for floor in floors}
        return [stream for stream, client in named.items() if client in concerned]

    def _cohort(self, since: Cursor, told_at: float, seen: Head | None = None) -> Cohort:
        found = self._cohorts.get(since)
        if found is None:
            asked = page(since, collections=self.collections, limit=LIMIT)
            found = self._cohorts[since] = Cohort(since, asked, told_at, seen, {})
        return found

    def _let_go(self, streams: Iterable[Follower]) -> None:
        for stream in streams:
            cohort = self._of.get(stream)
            let_go = None if cohort is None else cohort.members.get(stream)
            self._remove(stream)
            if let_go is not None and not let_go.done():
                let_go.set_result(None)

    def _remove(self, stream: Follower) -> None:
        cohort = self._of.pop(stream, None)
        if cohort is None:
            return
        cohort.members.pop(stream, None)
        if not cohort.members:
            self._drop(cohort)

    def _drop(self, cohort: Cohort) -> None:
        if self._cohorts.get(cohort.since) is cohort:
            del self._cohorts[cohort.since]
