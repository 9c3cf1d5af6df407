"""Imports: a history from elsewhere, recorded with its own times, each commit once and in its order.

A history is a client of its own: what it begins with gives its id, and a commit's place in it is the number of a
push. So what keeps a push from being recorded twice also tells an import where it broke off. The rule: what is
recorded is a prefix of the history, at any moment, and a commit that cannot be recorded leaves no trace.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID, uuid5

import msgspec

from journal.config import MIB, Limits, Memory
from journal.core.model import Current, Outcome, PushChange
from journal.errors import BaseRequired, InvalidRequest, JournalError, PushReused, PushTooOld, Unavailable
from journal.service.group import Asked, Group
from journal.service.tails import Tail, Tails
from journal.store import heads, record
from journal.store.database import Connection, Database
from journal.store.record import Decided

BATCH_COMMITS = 512
BATCH_CHANGES = 20_000
BATCH_BYTES = 8 * MIB
PATIENCE_S = 20.0  # for the head's lock
AWAY_S = 30.0  # how long PostgreSQL may be away before an import gives up
_NAMESPACE = UUID("5d0c1b0f-5b7e-4c52-9f0e-0f6c1d0c7a53")


class Entry(msgspec.Struct, frozen=True):
    """A commit of a history. `number`: its place, ever greater. `content` identifies it and all that is before it."""

    number: int
    at: datetime
    changes: list[PushChange]
    content: bytes


class Recorded(msgspec.Struct, frozen=True):
    """How far a history was recorded: the number of its last commit, 0 for none, and what identifies that.

    `content` is None where it is known no more: answers are kept for 30 days.
    """

    number: int
    content: bytes | None


class Count(msgspec.Struct, frozen=True):
    """What recording came to."""

    commits: int
    changes: int


class EntryRefused(JournalError):
    """A commit of the history cannot be recorded; those before it were: `count` of them in this batch."""

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(detail)
        self.number, self.detail = number, detail
        self.count = Count(0, 0)


def client_of(journal: str, kind: str, beginning: bytes) -> UUID:
    """The client that a history is in a journal; `beginning` identifies its first commit."""
    return uuid5(_NAMESPACE, f"{kind} {journal} {beginning.hex()}")


def batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """The entries in lists that are worth a transaction; what comes before an entry that cannot be read is not lost."""
    batch: list[Entry] = []
    changes = size = 0
    unreadable: JournalError | None = None
    while True:
        try:
            entry = next(entries)
        except StopIteration:
            break
        except JournalError as error:
            unreadable = error
            break
        bytes_here = sum(len(change.data or b"") for change in entry.changes)
        is_full = len(batch) == BATCH_COMMITS or changes + len(entry.changes) > BATCH_CHANGES
        if batch and (is_full or size + bytes_here > BATCH_BYTES):
            yield batch
            batch, changes, size = [], 0, 0
        batch.append(entry)
        changes += len(entry.changes)
        size += bytes_here
    if batch:
        yield batch
    if unreadable is not None:
        raise unreadable


class Import:
    """One history on its way into one journal."""

    def __init__(self, database: Database, journal: str, client: UUID) -> None:
        self.database, self.journal, self.client = database, journal, client
        self.limits = Limits()
        self.tails = Tails(database, Memory())

    async def begin(self) -> Recorded:
        """How far the history was recorded before; the journal is made where it is not there."""
        await heads.create(self.database, self.journal)
        journal = (await self.tails.of(self.journal)).head.id
        async with self.database.moment() as connection:
            known, _ = await record.clients(connection, [(journal, self.client)])
            client = known.get((journal, self.client))
            if client is None:
                return Recorded(0, None)
            last = (journal, client.id, client.pushed)
            decided = (await record.decided_pushes(connection, [last])).get(last)
        return Recorded(client.pushed, None if decided is None else decided.content)

    async def record(self, entries: Sequence[Entry]) -> Count:
        """Record the entries as one group; EntryRefused once those before the refused one are recorded.

        Repeating is safe whatever had become of it: an entry that was recorded counts for nothing.
        """
        deadline = asyncio.get_running_loop().time() + AWAY_S
        while True:
            try:
                return await self._record(entries)
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.5)

    async def head(self) -> int:
        """The journal's head, as this import has left it."""
        return (await self.tails.of(self.journal)).head.head

    async def _record(self, entries: Sequence[Entry]) -> Count:
        tail = await self.tails.of(self.journal)
        async with self.database.writing() as connection, connection.transaction():
            await record.lock(connection, [tail.head.id], patience_s=PATIENCE_S)
            await self.tails.refresh(tail)
            group, refused = await self._decide(connection, tail, entries)
            if refused is not None:  # nor is the refusal remembered: once mended, the commit is decided anew
                sound = [entry for entry in entries if entry.number < refused.number]
                group, _ = await self._decide(connection, tail, sound)
            at = await group.append(connection)
        group.publish(self.tails, at)
        commits = group.recording.commits
        count = Count(len(commits), sum(len(commit.changes) for commit in commits))
        if refused is not None:
            refused.count = count
            raise refused
        return count

    async def _decide(
        self, connection: Connection, tail: Tail, entries: Sequence[Entry]
    ) -> tuple[Group, EntryRefused | None]:
        asked = [self._asked(entry) for entry in entries]
        group = Group(self.limits, {self.journal: tail}, is_locked=True)
        await group.load(connection, asked)
        for entry, one in zip(entries, asked, strict=True):
            group.settle(one)
            why = _why_refused(entry, group.answers[-1][1])
            if why is not None:
                return group, EntryRefused(entry.number, why)
        return group, None

    def _asked(self, entry: Entry) -> Asked:
        return Asked(
            journal=self.journal,
            changes=entry.changes,
            on_conflict="client",  # what the history says is what is recorded
            is_atomic=True,
            client=self.client,
            number=entry.number,
            content=entry.content,
            at=entry.at,
            answer=asyncio.get_running_loop().create_future(),
        )


class _Answer(msgspec.Struct):
    outcomes: list[Outcome] | None


_decode = msgspec.json.Decoder(_Answer).decode


def _why_refused(entry: Entry, answer: Decided | JournalError) -> str | None:
    match answer:
        case Decided(status=200):
            return None
        case Decided():
            return _first_failure(entry, _decode(answer.answer).outcomes or [])
        case BaseRequired():
            return "a collection here has a policy of its own, and an import needs the policy client"
        case PushReused() | PushTooOld():
            return "another history was recorded in its place"
        case InvalidRequest(errors=[first, *_]):
            return f"{first.pointer}: {first.detail}"
    return str(answer)


def _first_failure(entry: Entry, outcomes: list[Outcome]) -> str:
    for change, outcome in zip(entry.changes, outcomes, strict=True):
        what = f"{change.op} of {change.collection} {change.atom}"
        if outcome.status == "rejected":
            return f"{what}: {outcome.error.detail}" if outcome.error else what
        if outcome.status == "conflict":
            if isinstance(outcome.current, Current):
                return f"{what}: it is there with other data, and the collection's policy keeps that"
            return f"{what}: there is no such atom"
    raise AssertionError("refused, but nothing failed")
