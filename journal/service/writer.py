"""The writer: one task a process takes every push that waits, decides them in order and records them at once.

A group costs two round trips: what it is decided on is loaded without a lock, and recorded only if no journal has
moved on since memory last saw it (journal.append compares turn and chain). Where another process writes too, the
group is decided again under the lock. A journal whose head somebody holds goes on in a lane of its own, so that
it delays nobody else. A push that fails does not fail its neighbours.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from journal.config import MIB, Limits
from journal.errors import JournalNotFound, Stale, Unavailable
from journal.service.group import Asked, Group
from journal.service.tails import Tail, Tails
from journal.store import record
from journal.store.database import Connection, Database, LockBusy
from journal.store.record import Decided

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

    async def push(self, asked: Asked) -> Decided:
        """Decide and record; the answer, which may be a 409, or the error that it came to."""
        if self._is_closing:
            raise Unavailable("the service is stopping")
        asked.answer = asyncio.get_running_loop().create_future()
        asked.answer.add_done_callback(_look)  # its asker may have gone
        held = self._held.get(asked.journal)
        if held is not None:
            held.append(asked)
        else:
            self._waiting.append(asked)
            self._wake.set()
        return await asyncio.shield(asked.answer)

    async def run(self) -> None:
        """Work until `close`; then what waits is finished first."""
        while self._waiting or not self._is_closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            await self._group(self._take(self._waiting))
        await asyncio.gather(*self._lanes.values())

    def close(self) -> None:
        """Take no more; `run` ends when what waits is answered."""
        self._is_closing = True
        self._wake.set()

    def _take(self, waiting: deque[Asked]) -> list[Asked]:
        taken: list[Asked] = []
        changes = size = 0
        while waiting and len(taken) < GROUP_PUSHES:
            asked = waiting[0]
            changes, size = changes + len(asked.changes), size + asked.size
            if taken and (changes > GROUP_CHANGES or size > GROUP_BYTES):
                break
            waiting.popleft()
            if asked.journal in self._held and waiting is self._waiting:
                self._held[asked.journal].append(asked)
            else:
                taken.append(asked)
        return taken

    async def _group(self, asked: list[Asked]) -> None:
        """Answer a group; a journal that is held by somebody is left to a lane of its own."""
        try:
            await self._settle(asked)
        except LockBusy:
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

    async def _settle(self, asked: list[Asked], *, patience_s: float | None = None) -> None:
        """Answer each; LockBusy is for the caller, every other error for the one it concerns."""
        deadline = asyncio.get_running_loop().time() + RETRIES_S
        broken, are_apart = 0, False
        while asked := [one for one in asked if not _done(one)]:
            for part in [[one] for one in asked] if are_apart else [asked]:
                try:
                    await self._record(part, patience_s)
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

    async def _record(self, asked: list[Asked], patience_s: float | None) -> None:
        """Decide a group and record it, while its journals learn of nothing from elsewhere."""
        tails = await self._tails(asked)
        asked = [one for one in asked if one.journal in tails]
        for tail in tails.values():
            tail.is_being_written = True
        try:
            if asked and not await self._record_unlocked(asked, tails, patience_s):
                await self._record_locked(asked, tails, patience_s)
        finally:
            for tail in tails.values():
                tail.is_being_written = False
                self.tails.catch_up(tail)

    async def _record_unlocked(self, asked: list[Asked], tails: dict[str, Tail], patience_s: float | None) -> bool:
        """Whether the group was recorded on what memory knows, which only works where nobody else writes."""
        now = asyncio.get_running_loop().time()
        if patience_s is not None or any(now - tail.foreign_at < CONTENDED_S for tail in tails.values()):
            return False
        try:
            async with self.database.writing() as connection:
                group = await self._decide(connection, asked, tails, is_locked=False)
                group.publish(self.tails, await group.append(connection))
        except Stale:
            return False
        return True

    async def _record_locked(self, asked: list[Asked], tails: dict[str, Tail], patience_s: float | None) -> None:
        """The same under the lock, on what PostgreSQL's own rows say."""
        async with self.database.writing() as connection, connection.transaction():
            await record.lock(connection, sorted(tail.head.id for tail in tails.values()), patience_s=patience_s)
            for tail in tails.values():
                await self.tails.refresh_locked(connection, tail)
            group = await self._decide(connection, asked, tails, is_locked=True)
            at = await group.append(connection)
        group.publish(self.tails, at)

    async def _tails(self, asked: list[Asked]) -> dict[str, Tail]:
        tails: dict[str, Tail] = {}
        for name in dict.fromkeys(one.journal for one in asked):
            try:
                tail = tails[name] = await self.tails.of(name)
                behind = [
                    one for one in asked if one.journal == name and one.base and one.base.revision > tail.head.head
                ]
                if behind:
                    await self.tails.refresh(tail)
            except JournalNotFound as error:
                tails.pop(name, None)
                _fail([one for one in asked if one.journal == name], error)
        return tails

    async def _decide(
        self, connection: Connection, asked: list[Asked], tails: dict[str, Tail], *, is_locked: bool
    ) -> Group:
        group = Group(self.limits, tails, is_locked=is_locked)
        await group.load(connection, asked)
        for one in asked:
            group.settle(one)
        return group


def _done(asked: Asked) -> bool:
    return asked.answer is None or asked.answer.done()


def _fail(asked: Sequence[Asked], error: Exception) -> None:
    for one in asked:
        if one.answer is not None and not one.answer.done():
            one.answer.set_exception(error)


def _look(answer: "asyncio.Future[Decided]") -> None:
    if not answer.cancelled():
        answer.exception()
