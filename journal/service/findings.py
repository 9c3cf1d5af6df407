"""What a check finds, what it must remember of it so as to tell each damage once, and how far it is.

A damaged change shows in its commit, in the changes that follow it and in its atom. So the commits whose changes are
not what their chain is over are remembered as suspect, and revisions without a change as missing: what can be laid
to one of them is not told again.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Literal

from journal.store.checking import Broken
from journal.store.heads import Head
from journal.wire import CheckFault

MOST = 100

What = Literal["commit", "change", "atom", "collection", "head"]


class Enough(Exception):
    """There is more than is told."""


class Spans:
    """Revisions, in spans that do not overlap, added in any order."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def add(self, first: int, last: int) -> None:
        """All from `first` to `last`."""
        self._spans.insert(bisect_right(self._spans, (first, last)), (first, last))

    def __contains__(self, revision: int | None) -> bool:
        if revision is None:
            return False
        place = bisect_right(self._spans, revision, key=_first)
        return place > 0 and self._spans[place - 1][1] >= revision


class Findings:
    """The faults told so far, each place once."""

    def __init__(self) -> None:
        self.faults: list[CheckFault] = []
        self.suspect, self.missing = Spans(), Spans()
        self._told: set[tuple[What, str]] = set()
        self._unknown: set[int] = set()

    def tell(self, what: What, where: str | int, detail: str) -> None:
        """A fault, unless its place was told before; Enough where too many were."""
        place = (what, str(where))
        if place in self._told:
            return
        if len(self.faults) == MOST:
            raise Enough
        self._told.add(place)
        self.faults.append(CheckFault(what, place[1], detail))

    def tell_broken(self, broken: Broken) -> None:
        """A change that cannot be one. Of those whose collection is not there, the first."""
        if broken.collection is None:
            self.tell("change", broken.revision, broken.detail)
        elif broken.collection not in self._unknown:
            self._unknown.add(broken.collection)
            self.tell("change", broken.revision, broken.detail)


class Progress:
    """How far a check is. `changes`, `atoms`: how many were looked at."""

    def __init__(self, head: Head, tell: Callable[[float], None]) -> None:
        self.changes = self.atoms = 0
        self._done = 0
        self._all = 2 * (head.head - head.horizon) + head.totals()[0] + 1
        self._tell = tell

    def change(self) -> None:
        """A change, as one of a commit."""
        self.changes += 1
        self._step()

    def change_again(self) -> None:
        """A change, as one of an atom."""
        self._step()

    def atom(self) -> None:
        """An atom."""
        self.atoms += 1
        self._step()

    def _step(self) -> None:
        self._done += 1
        if self._done % 256 == 0:
            self._tell(min(self._done / self._all, 1.0))


def _first(span: tuple[int, int]) -> int:
    return span[0]


def between(first: int, last: int) -> str:
    """How a span of revisions is named."""
    return str(first) if first == last else f"{first}-{last}"
