"""What a process remembers of journals: where each stands, and its recent commits.

The rule: memory only ever says yes. It answers what it can prove from what it holds; whatever it does not hold, or
would refuse, is asked of PostgreSQL's own rows (docs/properties.md, trap 18).
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from journal.config import Memory
from journal.core import chain
from journal.core.cursor import Cursor
from journal.core.names import journal_ok
from journal.errors import JournalGone, JournalNotFound, Unavailable
from journal.service.answer import Answer
from journal.service.shared import Shared
from journal.store import heads
from journal.store.database import Connection, Database
from journal.store.heads import Commit, Feed, Head
from journal.store.record import Client

_CHANGE_BYTES = 200  # what a change costs in memory besides its data and names, roughly
_CLIENTS = 1024
_LOOKS = 16  # at journals that may be pushed out, for one that comes in
_ADMITTED = 65_536


class Tail:
    """One journal in memory. `head` is what is known of it; the ring holds every commit after `start`."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.changed = asyncio.Event()
        self.clients: OrderedDict[UUID, Client] = OrderedDict()
        self.admitted: set[str] = set()  # clients that are known not to be forgotten
        self.writers = 0
        self._keepers = 0
        self.answer: tuple[Head, Answer] | None = None  # what a head was told as
        self.heard_turn = head.turn
        self.foreign_at = float("-inf")  # when another process was last seen to write here
        self.counted_bytes = 0
        self._forget_ring(head)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Not pushed out of memory meanwhile: somebody waits for it to move on."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1

    @property
    def is_needed(self) -> bool:
        """Whether it must stay in memory."""
        return self._keepers > 0 or self.writers > 0

    @property
    def is_being_written(self) -> bool:
        """Whether a group of this process is being decided or recorded: memory learns of nothing else meanwhile."""
        return self.writers > 0

    def _forget_ring(self, head: Head) -> None:
        self.start = head.head
        self.ring: deque[Commit] = deque()
        self.chains = {head.head: chain.told(head.chain)}
        self.changes = 0
        self.bytes = 0

    def reset(self, head: Head) -> None:
        """Begin again from `head`: what was remembered is of another past, or too far behind."""
        self.clients.clear()
        self._forget_ring(head)
        self._move(head)

    def advance(self, head: Head, commits: Iterable[Commit]) -> None:
        """Go on to `head` by the `commits` between."""
        for commit in commits:
            self.ring.append(commit)
            self.chains[commit.revision] = chain.told(commit.chain)
            self.changes += len(commit.changes)
            self.bytes += _size(commit)
        self._move(head)

    def _move(self, head: Head) -> None:
        if head.gone != self.head.gone:
            self.admitted.clear()
        self.head = head
        self.heard_turn = max(self.heard_turn, head.turn)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def trim(self, changes: int, size: int) -> None:
        """Let go of the oldest commits until the ring holds no more than that."""
        while self.ring and (self.changes > changes or self.bytes > size):
            commit = self.ring.popleft()
            del self.chains[self.start]
            self.start = commit.revision
            self.changes -= len(commit.changes)
            self.bytes -= _size(commit)

    def holds(self, since: Cursor | int) -> bool:
        """Whether memory can prove that `since` goes on, and has everything after it."""
        if isinstance(since, int):
            return max(self.start, self.head.horizon) <= since <= self.head.head
        return self.has(since) and since.round_base >= self.head.floor

    def has(self, since: Cursor) -> bool:
        """The same, but for who was asked to start again."""
        return (
            since.epoch == self.head.epoch
            and since.revision >= self.head.horizon
            and self.chains.get(since.revision) == since.chain
        )

    def window(self, after: int) -> list[Commit]:
        """The commits that end after a revision, oldest first."""
        found = []
        for commit in reversed(self.ring):
            if commit.revision <= after:
                break
            found.append(commit)
        found.reverse()
        return found

    def admit(self, client: str) -> None:
        """Keep in mind that a client is not forgotten."""
        if len(self.admitted) >= _ADMITTED:
            self.admitted.clear()
        self.admitted.add(client)

    def remember_client(self, name: UUID, client: Client) -> None:
        """Keep what is known of a client, for as long as the turn is ours."""
        self.clients[name] = client
        self.clients.move_to_end(name)
        if len(self.clients) > _CLIENTS:
            self.clients.popitem(last=False)


class Tails:
    """The journals that a process remembers, the least recently used forgotten first."""

    def __init__(self, database: Database, memory: Memory) -> None:
        self.database = database
        self.memory = memory
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._by_id: dict[int, Tail] = {}
        self._loading: Shared[str, Tail] = Shared()
        self._refreshing: Shared[int, None] = Shared()
        self._bytes = 0
        self._tasks: set[asyncio.Future[None]] = set()
        self.is_closing = False

    @property
    def known(self) -> list[Tail]:
        """All that are in memory, the least recently used first."""
        return list(self._tails.values())

    @property
    def ring_bytes(self) -> int:
        """What their rings take, roughly."""
        return self._bytes

    async def of(self, name: str) -> Tail:
        """A journal's tail; JournalNotFound where there is none."""
        tail = self._tails.get(name)
        if tail is not None:
            self._tails.move_to_end(name)
            return tail
        return await self._loading.join(name, lambda: self._load(name))

    async def _load(self, name: str) -> Tail:
        head = await heads.head_by_name(self.database, name) if journal_ok(name) else None
        if head is None:
            raise JournalNotFound
        return self._keep(Tail(head))

    def _keep(self, tail: Tail) -> Tail:
        self._tails[tail.head.journal] = tail
        self._by_id[tail.head.id] = tail
        for _ in range(_LOOKS):
            if len(self._tails) <= self.memory.journals:
                break
            name, oldest = next(iter(self._tails.items()))
            if oldest is tail or oldest.is_needed:
                self._tails.move_to_end(name)
            else:
                del self._tails[name]
                self._drop(oldest)
        return tail

    def forget(self, tail: Tail) -> None:
        """The journal is gone: who waits for it is woken."""
        if self._by_id.get(tail.head.id) is tail:
            self._tails.pop(tail.head.journal, None)
            self._drop(tail)

    def gone(self, tail: Tail) -> JournalGone:
        """The error to raise where a remembered journal is not there; it is forgotten, and may be asked for again."""
        self.forget(tail)
        return JournalGone()

    def _drop(self, tail: Tail) -> None:
        del self._by_id[tail.head.id]
        self._bytes -= tail.counted_bytes
        tail.changed.set()

    def grown(self, tail: Tail) -> None:
        """Keep the rings within what they may hold: this one, and the least recently used of all."""
        tail.trim(self.memory.ring_changes, self.memory.ring_bytes)
        self._count(tail)
        if self._bytes <= self.memory.all_rings_bytes:
            return
        for other in list(self._tails.values()):
            if self._bytes <= self.memory.all_rings_bytes // 2:
                break
            if other is not tail:
                other.trim(0, 0)
                self._count(other)

    def _count(self, tail: Tail) -> None:
        if self._by_id.get(tail.head.id) is not tail:
            return  # pushed out or gone, and no longer counted
        self._bytes += tail.bytes - tail.counted_bytes
        tail.counted_bytes = tail.bytes

    def close(self) -> None:
        """Wake everyone who waits: the service is stopping."""
        self.is_closing = True
        for tail in self._tails.values():
            tail.changed.set()

    def heard(self, journal: int, turn: int | None) -> None:
        """A notification: the turn that a journal is at, None where it is gone."""
        tail = self._by_id.get(journal)
        if tail is None:
            return
        if turn is None:
            self.forget(tail)
        else:
            tail.heard_turn = max(tail.heard_turn, turn)
            self.catch_up(tail)

    def catch_up(self, tail: Tail) -> None:
        """See to it that memory gets to where it heard that the journal is; a failure is healed by the next poll."""
        if tail.heard_turn > tail.head.turn and not tail.is_being_written:
            task = asyncio.ensure_future(self._caught_up(tail))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _caught_up(self, tail: Tail) -> None:
        with contextlib.suppress(JournalNotFound, Unavailable):
            while tail.heard_turn > tail.head.turn and not tail.is_being_written:
                await self.refresh(tail)

    async def compare(self) -> None:
        """Look at PostgreSQL's own rows whether anything was missed: a lost notification costs latency, never data."""
        known = list(self._by_id)
        async with self.database.reading() as connection:
            turns = await heads.turns(connection, known)
        for journal in known:
            tail = self._by_id.get(journal)
            if tail is None or tail.is_being_written:
                continue
            if journal not in turns:
                self.forget(tail)
            elif turns[journal] != (tail.head.turn, tail.head.chain):
                with contextlib.suppress(JournalNotFound):
                    await self.refresh(tail)

    async def refresh(self, tail: Tail) -> None:
        """Learn from PostgreSQL what memory has missed; who calls while one runs waits for the next."""
        await self._refreshing.next(tail.head.id, lambda: self._refresh(tail))

    async def _refresh(self, tail: Tail) -> None:
        while True:
            known, heard = tail.head, tail.heard_turn
            async with self.database.moment() as connection:
                feed = await heads.feed(connection, known.id, known.head, self.memory.ring_changes)
            if tail.head is known:
                self._learn(tail, feed, heard)
                return
            if feed is not None and feed.head.turn <= tail.head.turn:
                return  # this process recorded something meanwhile: a newer moment than was read

    async def refresh_locked(self, connection: Connection, tail: Tail) -> None:
        """The same on a connection that holds the journal's head, so that nothing moves meanwhile."""
        known, heard = tail.head, tail.heard_turn
        self._learn(tail, await heads.feed(connection, known.id, known.head, self.memory.ring_changes), heard)

    def _learn(self, tail: Tail, feed: Feed | None, heard: int) -> None:
        """Take what was read; `heard` is the turn that had been heard of before it was."""
        known = tail.head
        if feed is None:
            raise self.gone(tail)
        if (feed.head.turn, feed.head.chain, feed.head.epoch) == (known.turn, known.chain, known.epoch):
            self._is_at(tail, known.turn, heard)
            return
        tail.foreign_at = asyncio.get_running_loop().time()
        tail.clients.clear()
        if _continues(known, feed):
            tail.advance(feed.head, feed.commits or ())
        else:
            tail.reset(feed.head)
        self._is_at(tail, feed.head.turn, heard)
        self.grown(tail)

    @staticmethod
    def _is_at(tail: Tail, turn: int, heard: int) -> None:
        """Rows go before hearsay, as a restored database is at a lower turn; but for what was heard meanwhile."""
        if tail.heard_turn == heard:
            tail.heard_turn = turn


def _continues(known: Head, feed: Feed) -> bool:
    return (
        feed.commits is not None
        and feed.head.epoch == known.epoch
        and feed.chain_there == known.chain
        and feed.head.turn > known.turn
        and feed.head.erased == known.erased  # what was erased is not to stay in memory
    )


def _size(commit: Commit) -> int:
    return sum(
        _CHANGE_BYTES + len(change.data or b"") + len(change.atom) + sum(map(len, change.unset))
        for change in commit.changes
    )
