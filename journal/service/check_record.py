"""The first half of a check: the commits in their order, and the chain anew from the changes.

The rule: a commit whose chain does not come out is told once, and what follows is judged from the chain that is
stored. Whether it was its changes or its chain that was damaged is known by the next commit, which was made on the
true one: until then it is in doubt.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from journal.core import chain
from journal.core.model import Change
from journal.service.findings import Findings, Progress, between
from journal.store import checking
from journal.store.checking import Broken, CommitRow
from journal.store.database import Connection
from journal.store.heads import Head

_IN_A_THREAD = 500  # changes: hashing more at once would hold the event loop
_HYPOTHESES = 3  # how many chains in doubt are followed
_STRAYS = 100_000  # how many changes of no commit are kept to see whether they were one

T = TypeVar("T")


class Ahead(Generic[T]):
    """A stream of which the `next` one is known, None at its end."""

    def __init__(self, stream: AsyncIterator[T], seen: Callable[[], None]) -> None:
        self._stream, self._seen = stream, seen
        self.next: T | None = None

    async def begin(self) -> "Ahead[T]":
        """Read the first."""
        self.next = await anext(self._stream, None)
        return self

    async def take(self) -> T:
        """The next one; it must be there."""
        taken = self.next
        assert taken is not None
        self._seen()
        self.next = await anext(self._stream, None)
        return taken


class _Doubt(msgspec.Struct, frozen=True):
    """The last commit, whose chain does not come out; `computed` is what did, from all that it may be made on."""

    commit: CommitRow
    computed: list[bytes]
    is_without_change: bool


async def check_record(connection: Connection, head: Head, findings: Findings, progress: Progress) -> int:
    """Check commits, changes and head; the last revision that they have."""
    commits = await Ahead(checking.commits(connection, head), lambda: None).begin()
    changes = await Ahead(checking.changes(connection, head), progress.change).begin()
    record = await _from_the_horizon(head, findings, commits, changes)
    while commits.next is not None:
        commit = await commits.take()
        most = None if commit.first == record.revision + 1 else _STRAYS
        await record.take(commit, await _up_to(changes, commit.revision, most))
    await record.end(changes)
    return max(record.revision, head.head)


async def _from_the_horizon(
    head: Head, findings: Findings, commits: Ahead[CommitRow], changes: Ahead[Change | Broken]
) -> "_Record":
    """Where to begin: at the commit of the horizon, whose chain is taken on trust."""
    first = commits.next
    if head.horizon == 0:
        return _Record(head, findings, 0, chain.START, first.epoch.hex() if first else head.epoch)
    if first is None:
        findings.tell("commit", head.horizon, "the commit at the horizon is not there, nor any above it")
        return _Record(head, findings, head.horizon, head.chain, head.epoch)
    if first.first == head.horizon + 1:
        findings.tell(
            "commit", head.horizon, "the commit at the horizon is not there: the one above it was not checked"
        )
    elif first.revision != head.horizon:
        findings.tell("head", "horizon", f"the horizon is {head.horizon}, where no commit ends")
    await commits.take()
    await _up_to(changes, first.revision, 0)
    return _Record(head, findings, first.revision, first.chain, first.epoch.hex())


async def _up_to(changes: Ahead[Change | Broken], revision: int, most: int | None) -> list[Change | Broken] | None:
    """The changes up to a revision; None where there are more than `most`."""
    taken: list[Change | Broken] | None = []
    while changes.next is not None and changes.next.revision <= revision:
        change = await changes.take()
        if taken is not None and most is not None and len(taken) >= most:
            taken = None
        if taken is not None:
            taken.append(change)
    return taken


class _Record:
    """The record as far as it was followed: up to `revision`, with the chain that is stored there."""

    def __init__(self, head: Head, findings: Findings, revision: int, stored: bytes, epoch: str) -> None:
        self.head, self.findings = head, findings
        self.revision, self.chain, self.epoch = revision, stored, epoch
        self.doubt: _Doubt | None = None

    async def take(self, commit: CommitRow, changes: Sequence[Change | Broken] | None) -> None:
        """The next commit, and the changes up to its end."""
        expected = self.revision + 1
        sound = self._sound(changes)
        if self._begins_an_epoch(commit):
            self._tell_strays(changes or ())
            self.epoch = commit.epoch.hex()
        elif await self._ends_beyond(commit, sound):
            self.findings.tell("commit", commit.revision, f"its revision is {commit.revision}, should be the head's")
            self.revision, self.chain = self.head.head, commit.chain
            return
        elif commit.first == expected:
            await self._next(commit, changes or (), sound)
        elif sound is not None and await self._follows(commit, sound, expected):
            self.findings.tell("commit", commit.revision, f"its first revision is {commit.first}, should be {expected}")
        elif commit.first > expected:
            await self._behind_a_gap(commit, changes or (), sound)
        else:
            detail = f"its first revision is {commit.first}, and the commit before it ends at {self.revision}"
            if commit.revision > self.head.head:
                self.findings.tell("commit", commit.revision, f"{detail}; the head is {self.head.head}")
                self._tell_strays(changes or ())
                return
            self._settle(None)
            self._tell_suspect(commit, expected, detail)
        self.revision, self.chain = commit.revision, commit.chain

    async def end(self, changes: Ahead[Change | Broken]) -> None:
        """What is above the last commit, and the head."""
        head, last = self.head, self.revision
        above = _Joined()
        while changes.next is not None:
            change = await changes.take()
            self._sound([change])
            above.add(change.revision)
        within = [(a, min(b, head.head)) for a, b in above.spans if a <= head.head]
        is_cut_off = head.chain not in self._ends()
        if head.head > last and (within or is_cut_off):
            detail = f"there is no commit of {between(last + 1, head.head)}, and the head is at {head.head}"
            self._settle(None)
            self.findings.tell("commit", head.head, detail)
            for span in _gaps(last + 1, head.head, within):
                self.findings.missing.add(*span)
            last = head.head
        else:
            if head.head != last:
                self.findings.tell("head", "head", f"the head is {head.head}, and the last commit ends at {last}")
            self._settle(head.chain)
            if is_cut_off:
                detail = f"the chain is {head.chain.hex()}, should be that of the last commit, {self.chain.hex()}"
                self.findings.tell("head", "chain", detail)
        if head.epoch != self.epoch:
            self.findings.tell("head", "epoch", f"the epoch is {head.epoch}, that of the last commit {self.epoch}")
        for first, end in above.spans:
            if end > last:
                detail = f"the last commit ends at {last}: it is of none"
                self.findings.tell("change", between(max(first, last + 1), end), detail)

    def _sound(self, changes: Sequence[Change | Broken] | None) -> list[Change] | None:
        """The changes, None if they are not known or one cannot be read, which is told."""
        if changes is None:
            return None
        for change in changes:
            if isinstance(change, Broken):
                self.findings.tell_broken(change)
        sound = [change for change in changes if isinstance(change, Change)]
        return sound if len(sound) == len(changes) else None

    def _tell_strays(self, changes: Sequence[Change | Broken]) -> None:
        for change in changes:
            self.findings.tell("change", change.revision, "it is of no commit")

    def _ends(self) -> list[bytes]:
        """The chains that the next commit may have been made on."""
        return [self.chain] if self.doubt is None else [self.chain, *self.doubt.computed]

    def _begins_an_epoch(self, commit: CommitRow) -> bool:
        if commit.epoch.hex() == self.epoch or commit.first != commit.revision:
            return False
        for made_on in self._ends():
            if chain.begin(made_on, commit.epoch, commit.revision) == commit.chain:
                self._settle(made_on)
                return True
        return False

    async def _ends_beyond(self, commit: CommitRow, sound: list[Change] | None) -> bool:
        """Whether it is the last commit, but for its revision."""
        if sound is None or not commit.first <= self.head.head < commit.revision:
            return False
        last = msgspec.structs.replace(commit, revision=self.head.head)
        return await self._follows(last, [x for x in sound if x.revision <= last.revision], commit.first)

    async def _next(self, commit: CommitRow, changes: Sequence[Change | Broken], sound: list[Change] | None) -> None:
        """A commit that begins where the one before it ends."""
        first, last = commit.first, commit.revision
        is_without_change = first == last and not changes
        gaps = [] if is_without_change else list(_gaps(first, last, ((x.revision, x.revision) for x in changes)))
        if gaps or sound is None:
            self._settle(None)
            self._tell_missing(commit, gaps)
            self.findings.suspect.add(first, last)
        elif await self._follows(commit, sound, first):
            self._see_epoch(commit)
        elif first == last and sound and chain.extend_bare(self.chain, last) == commit.chain:
            self._settle(self.chain)
            self.findings.suspect.add(first, last)
            self.findings.tell("change", last, "its commit is one without an atom, and it should not be there")
        else:
            computed = [await _computed(made_on, sound, last) for made_on in self._ends()[:_HYPOTHESES]]
            self._settle(None)
            self.doubt = _Doubt(commit, computed, is_without_change)

    async def _behind_a_gap(
        self, commit: CommitRow, changes: Sequence[Change | Broken], sound: list[Change] | None
    ) -> None:
        """A commit that begins later than it should: what is between was of one or several that are not there."""
        first, end = self.revision + 1, commit.first - 1
        self._settle(None)
        self.findings.tell("commit", end, f"there is no commit of {between(first, end)}")
        there = [(change.revision, change.revision) for change in changes]
        for span in _gaps(first, end, (span for span in there if span[0] <= end)):
            self.findings.missing.add(*span)
        if sound is None:
            return
        # If it was one commit, what comes after it can be checked.
        between_them = [change for change in sound if change.revision <= end]
        behind = [change for change in sound if change.revision > end]
        gaps = list(_gaps(commit.first, commit.revision, (span for span in there if span[0] > end)))
        if gaps and not (commit.first == commit.revision and not behind):
            self._tell_missing(commit, gaps)
            self.findings.suspect.add(commit.first, commit.revision)
            return
        self.chain = await _computed(self.chain, between_them, end)
        if await self._follows(commit, behind, commit.first):
            self._see_epoch(commit)

    async def _follows(self, commit: CommitRow, changes: list[Change], first: int) -> bool:
        """Whether the chain comes out, be it from what was computed in doubt; then the doubt is settled."""
        if not changes and first != commit.revision:
            return False
        for made_on in self._ends():
            if await _computed(made_on, changes, commit.revision) == commit.chain:
                self._settle(made_on)
                return True
        return False

    def _settle(self, made_on: bytes | None) -> None:
        """Tell of the commit in doubt by the chain that what follows was made on; None: on neither, or not known."""
        doubt, self.doubt = self.doubt, None
        if doubt is None:
            return
        commit = doubt.commit
        revisions = between(commit.first, commit.revision)
        stored, computed = f"the chain stored is {commit.chain.hex()}", f"recomputed it is {doubt.computed[0].hex()}"
        if made_on is not None and made_on in doubt.computed:
            detail = f"{stored}, should be {made_on.hex()}: what follows was made on that"
            self.findings.tell("commit", commit.revision, detail)
            return
        if doubt.is_without_change:
            self.findings.missing.add(commit.revision, commit.revision)
        if made_on == commit.chain and doubt.is_without_change:
            detail = "its commit is not one without an atom, and it is not there"
            self.findings.tell("change", commit.revision, detail)
        elif made_on == commit.chain:
            detail = f"what it holds, {revisions}, is not as it was recorded: {stored}, {computed}"
            self._tell_suspect(commit, commit.first, detail)
        else:
            detail = f"{stored}, {computed} from {revisions}, and what follows does not say which is right"
            self._tell_suspect(commit, commit.first, detail)

    def _tell_suspect(self, commit: CommitRow, first: int, detail: str) -> None:
        self.findings.suspect.add(first, commit.revision)
        self.findings.tell("commit", commit.revision, detail)

    def _tell_missing(self, commit: CommitRow, gaps: list[tuple[int, int]]) -> None:
        for span in gaps:
            self.findings.missing.add(*span)
            detail = f"the commit of {between(commit.first, commit.revision)} holds it, and it is not there"
            self.findings.tell("change", between(*span), detail)

    def _see_epoch(self, commit: CommitRow) -> None:
        """An epoch changes only where a commit begins one. Whose is wrong, that the head has it says."""
        epoch = commit.epoch.hex()
        if epoch == self.epoch:
            return
        if epoch == self.head.epoch:
            wrong, stored, should = self.revision, self.epoch, epoch
            self.epoch = epoch
        else:
            wrong, stored, should = commit.revision, epoch, self.epoch
        self.findings.tell("commit", wrong, f"its epoch is {stored}, should be {should}: nothing there begins another")


class _Joined:
    """Ascending revisions, joined to spans."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    def add(self, revision: int) -> None:
        if self.spans and self.spans[-1][1] == revision - 1:
            self.spans[-1] = (self.spans[-1][0], revision)
        else:
            self.spans.append((revision, revision))


async def _computed(made_on: bytes, changes: list[Change], revision: int) -> bytes:
    if not changes:
        return chain.extend_bare(made_on, revision)
    if len(changes) < _IN_A_THREAD:
        return chain.extend(made_on, changes)
    return await asyncio.to_thread(chain.extend, made_on, changes)


def _gaps(first: int, last: int, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of first to last is not in the ascending spans."""
    for start, end in spans:
        if start > first:
            yield first, start - 1
        first = end + 1
    if first <= last:
        yield first, last
