"""The writer: one task a process takes every push that waits, decides them in order and records them at once.

A group costs two round trips: what it is decided on is loaded without a lock, and recorded only if no journal has
moved on since memory last saw it (journal.append compares turn and chain). While one group is recorded the next is
decided on what it will leave, and grows until its turn has come; if the first comes to anything else, the next is
decided again. Where another process writes too, a group is decided under the lock. A journal whose head somebody
holds goes on in a lane of its own, so that it delays nobody else. A push that fails does not fail its neighbours.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from journal.config import MIB, Limits
from journal.errors import JournalNotFound, Stale, Unavailable
from journal.service.figures import Recorded
from journal.service.group import Asked, Group
from journal.service.tails import Tail, Tails
from journal.store import origin, record
from journal.store.database import Database, LockBusy
from journal.store.record import Decided
from journal.store.spans import past

GROUP_PUSHES = 512
GROUP_CHANGES = 20_000
GROUP_BYTES = 32 * MIB
LANE_S = 20.0
TURN_S = 2.0
TURNS = 2
CONTENDED_S = 1.0
RETRIES_S = 2.0


class Writer:
    """Records for all journals of this process."""

    def __init__(self, database: Database, tails: Tails, limits: Limits) -> None:
        self.database, self.tails, self.limits = database, tails, limits
        self._waiting: deque[Asked] = deque()
        self._wake = asyncio.Event()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, deque[Asked]] = {}
        self._turns = asyncio.Semaphore(TURNS)
        self._is_closing = False
        self.figures = Recorded()

    @property
    def waiting(self) -> int:
        """How many pushes wait for a group."""
        return len(self._waiting) + sum(map(len, self._held.values()))

    @property
    def waiting_s(self) -> float:
        """For how long the first of them has."""
        first = [queue[0].arrived for queue in (self._waiting, *self._held.values()) if queue]
        return time.monotonic() - min(first) if first else 0.0

    @property
    def lanes(self) -> int:
        """How many journals, whose heads somebody holds, have a lane of their own."""
        return len(self._lanes)

    async def push(self, asked: Asked) -> Decided:
        """Decide and record; the answer, which may be a 409, or the error that it came to."""
        if self._is_closing:
            raise Unavailable("the service is stopping")
        asked.answer = asyncio.get_running_loop().create_future()
        asked.request_id = origin.REQUEST_ID.get("")
        held = self._held.get(asked.journal)
        if held is not None:
            held.append(asked)
        else:
            self._waiting.append(asked)
            self._wake.set()
        decided = await asked.answer
        if asked.recorded is not None:
            began, ended = asked.recorded
            past("wait for the group", asked.arrived, began)
            past("record the group", began, ended)
        return decided

    async def run(self) -> None:
        """Work until `close`; then what waits is finished first."""
        before: _Flight | None = None
        while self._waiting or not self._is_closing:
            if self._waiting:
                before = await self._next(before)
            else:
                self._wake.clear()
                await self._wake.wait()
        if before is not None:
            await before.recording
        await asyncio.gather(*self._lanes.values())

    def close(self) -> None:
        """Take no more; `run` ends when what waits is answered."""
        self._is_closing = True
        self._wake.set()

    def _take(self, waiting: deque[Asked], room: "_Room | None" = None) -> list[Asked]:
        """Those of the waiting that fit into a group; at least one, if it is not there yet."""
        room = _Room() if room is None else room
        taken: list[Asked] = []
        while waiting and room.fits(waiting[0]):
            asked = waiting.popleft()
            if asked.journal in self._held and waiting is self._waiting:
                self._held[asked.journal].append(asked)
            else:
                room.take(asked)
                taken.append(asked)
        return taken

    async def _next(self, before: "_Flight | None") -> "_Flight | None":
        """Decide a group while the one before is recorded, then let it be recorded; None where it is done already."""
        if before is not None and before.recording.done():
            before = None
        flight, room = _Flight(self.limits, before), _Room()
        asked = self._take(self._waiting, room)
        try:
            await self._grow(flight, asked)
            while before is not None and not before.recording.done():
                self._wake.clear()
                if more := self._take(self._waiting, room):
                    asked += more
                    await self._grow(flight, more)
                else:
                    await self._more_or(before.recording)
        except Exception:  # whatever it is, it shows where the group is decided by itself
            flight.is_void = True
        if before is not None:
            await before.recording
            flight.is_void |= before.is_void
        if flight.is_void:
            flight.end(self.tails)
            self._waiting.extendleft(reversed([one for one in asked if not _done(one)]))
            await self._group(self._take(self._waiting))
            return None
        flight.group.seal()
        flight.recording = asyncio.create_task(self._fly(flight, asked))
        return flight

    async def _more_or(self, recording: "asyncio.Future[None]") -> None:
        """Wait until there is more to decide, or the recording is over."""
        woken = asyncio.ensure_future(self._wake.wait())
        futures: list[asyncio.Future[Any]] = [recording, woken]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()

    async def _grow(self, flight: "_Flight", asked: list[Asked]) -> None:
        """Decide more pushes in a group that is not recorded yet; Stale where that takes more than memory knows."""
        tails = await self._tails(asked, is_fresh=False)
        now = asyncio.get_running_loop().time()
        if any(now - tail.foreign_at < CONTENDED_S for tail in tails.values()):
            raise Stale
        flight.begin(tails)
        asked = [one for one in asked if one.journal in tails]
        if asked:
            async with self.database.writing() as connection:
                await flight.group.take(connection, asked)

    async def _fly(self, flight: "_Flight", asked: list[Asked]) -> None:
        """Record a group that is decided; where that does not work, all is done again with it."""
        try:
            await self._group(asked, flight)
        finally:
            flight.end(self.tails)

    async def _group(self, asked: list[Asked], flight: "_Flight | None" = None) -> None:
        """Answer a group; a journal that is held by somebody is left to a lane of its own."""
        try:
            await self._settle(asked, flight=flight)
        except LockBusy:
            self.figures.parted += 1
            for journal in dict.fromkeys(one.journal for one in asked):
                held = self._held[journal] = deque(one for one in asked if one.journal == journal and not _done(one))
                self._lanes[journal] = asyncio.create_task(self._lane(journal, held))

    async def _lane(self, journal: str, held: deque[Asked]) -> None:
        try:
            while held:
                await self._outwait(journal, self._take(held))
        finally:
            del self._held[journal], self._lanes[journal]

    async def _outwait(self, journal: str, group: list[Asked]) -> None:
        """Answer a group of one journal, however long somebody holds it.

        Lanes wait in turns, a few at a time: who waits keeps a connection, and the others need some.
        """
        deadline = asyncio.get_running_loop().time() + LANE_S
        with contextlib.suppress(LockBusy):
            await self._settle(group)  # perhaps another journal of its group was the one that is held
        while not all(map(_done, group)):
            try:
                async with self._turns:
                    await self._settle(group, patience_s=TURN_S)
            except LockBusy as error:
                if asyncio.get_running_loop().time() > deadline:
                    _fail(group, Unavailable(f"somebody holds {journal}: {error}"))

    async def _settle(
        self, asked: list[Asked], *, patience_s: float | None = None, flight: "_Flight | None" = None
    ) -> None:
        """Answer each; LockBusy is for the caller, every other error for the one it concerns."""
        deadline = asyncio.get_running_loop().time() + RETRIES_S
        broken, are_apart = 0, False
        while asked := [one for one in asked if not _done(one)]:
            for part in [[one] for one in asked] if are_apart else [asked]:
                try:
                    if flight is None or flight.is_void:
                        await self._record(part, patience_s)
                    else:
                        await self._launch(flight)
                except LockBusy:
                    raise
                except Unavailable as error:
                    # The connection broke: whether the part was recorded is not known. What can be told from another
                    # is decided again, and answered again if it was recorded; the others' senders must look.
                    _fail([one for one in part if not one.is_repeatable], error)
                    if asyncio.get_running_loop().time() > deadline:
                        _fail(asked, error)
                        break
                    broken += 1
                    await asyncio.sleep(0.2)
                except Exception as error:
                    if len(part) == 1:
                        _fail(part, error)
                    are_apart = True
            are_apart = are_apart or broken > 1  # the cause may be one of them

    async def _launch(self, flight: "_Flight") -> None:
        """Record what is decided."""
        flight.is_void = True  # until it has worked
        began = time.monotonic()
        try:
            async with self.database.writing() as connection:
                at = await flight.group.append(connection, _name(one for one, _ in flight.group.answers))
                self._publish(flight.group, at, began)
        except Stale:
            self.figures.decided_again += 1
            return  # decided again, as it is not answered
        flight.is_void = False
        self.figures.groups_ahead += 1

    async def _record(self, asked: list[Asked], patience_s: float | None) -> None:
        """Decide a group and record it, under the lock, while its journals learn of nothing from elsewhere."""
        tails = await self._tails(asked, is_fresh=True)
        asked = [one for one in asked if one.journal in tails]
        if not asked:
            return
        _begin(tails.values())
        try:
            await self._record_locked(asked, tails, patience_s)
        finally:
            _end(tails.values(), self.tails)

    async def _record_locked(self, asked: list[Asked], tails: dict[str, Tail], patience_s: float | None) -> None:
        """The same under the lock, on what PostgreSQL's own rows say."""
        began = time.monotonic()
        async with self.database.recording(_name(asked)) as connection:
            await record.lock(connection, sorted(tail.head.id for tail in tails.values()), patience_s=patience_s)
            for tail in tails.values():
                await self.tails.refresh_locked(connection, tail)
            group = Group(self.limits, tails, is_locked=True)
            await group.take(connection, asked)
            at = await group.append(connection)
        self._publish(group, at, began)
        self.figures.groups_locked += 1

    def _publish(self, group: Group, at: datetime | None, began: float) -> None:
        """Count a group that was recorded, and answer it."""
        counted, ended = self.figures, time.monotonic()
        counted.group_pushes.add(len(group.answers))
        counted.group_seconds.add(ended - began)
        counted.commits += len(group.recording.commits)
        counted.changes += sum(len(commit.changes) for commit in group.recording.commits)
        for status, times in group.outcomes.items():
            counted.outcomes[status] += times
        refused = 0
        for asked, answer in group.answers:
            asked.recorded = began, ended
            refused += not isinstance(answer, Decided)
        counted.answers["refused"] += refused
        counted.answers["replayed"] += group.replayed
        counted.answers["decided"] += len(group.answers) - refused - group.replayed
        group.publish(self.tails, at)

    async def _tails(self, asked: list[Asked], *, is_fresh: bool) -> dict[str, Tail]:
        """The journals; those that memory is behind of are looked at again, or Stale where that is not `is_fresh`."""
        tails: dict[str, Tail] = {}
        for name in dict.fromkeys(one.journal for one in asked):
            try:
                tail = tails[name] = await self.tails.of(name)
                behind = [one for one in asked if one.journal == name and _is_ahead(one, tail)]
                if behind and not is_fresh:
                    raise Stale
                if behind:
                    await self.tails.refresh(tail)
            except JournalNotFound as error:
                tails.pop(name, None)
                _fail([one for one in asked if one.journal == name], error)
        return tails


class _Room:
    """How much of a group's room is taken."""

    def __init__(self) -> None:
        self.pushes = self.changes = self.bytes = 0

    def fits(self, asked: Asked) -> bool:
        return self.pushes == 0 or (
            self.pushes < GROUP_PUSHES
            and self.changes + len(asked.changes) <= GROUP_CHANGES
            and self.bytes + asked.size <= GROUP_BYTES
        )

    def take(self, asked: Asked) -> None:
        self.pushes += 1
        self.changes += len(asked.changes)
        self.bytes += asked.size


class _Flight:
    """A group on its way: decided on what the one before leaves, then recorded. `is_void`: not as it was decided."""

    recording: "asyncio.Future[None]"

    def __init__(self, limits: Limits, before: "_Flight | None") -> None:
        self.group: Group = Group(limits, {}, is_locked=False, before=None if before is None else before.group)
        self.is_void = False
        self._tails: dict[str, Tail] = {}

    def begin(self, tails: dict[str, Tail]) -> None:
        """Let pushes to these journals in."""
        new = {name: tail for name, tail in tails.items() if name not in self._tails}
        _begin(new.values())
        self._tails |= new
        self.group.admit(new)

    def end(self, tails: Tails) -> None:
        """What it wrote is written, or it is void."""
        _end(self._tails.values(), tails)


def _begin(written: Iterable[Tail]) -> None:
    for tail in written:
        tail.writers += 1


def _end(written: Iterable[Tail], tails: Tails) -> None:
    for tail in written:
        tail.writers -= 1
        tails.catch_up(tail)


def _is_ahead(asked: Asked, tail: Tail) -> bool:
    """Whether it names a revision that memory does not know of."""
    return any((at if isinstance(at, int) else at.revision) > tail.head.head for at in asked.judged)


def _name(asked: Iterable[Asked]) -> str:
    """What a group is called: the request of its first push, and how many more there are."""
    ids = [one.request_id for one in asked]
    return origin.named("write", ids[0], len(ids) - 1) if ids else origin.named("write", "")


def _done(asked: Asked) -> bool:
    return asked.answer is None or asked.answer.done()


def _fail(asked: Sequence[Asked], error: Exception) -> None:
    for one in asked:
        if one.answer is not None and not one.answer.done():
            one.answer.set_exception(error)
