"""A curve: what is measured at some places, and beside each what should be measured there."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

import msgspec

from bench.place import Place
from bench.snapshot import Memory

Scale = Literal["linear", "log", "symlog"]


class Point(msgspec.Struct, frozen=True):
    """All rounds at one place, and what should come out there."""

    x: float
    rounds: Sequence[float]
    should: float

    @property
    def median(self) -> float:
        """The middle one of the rounds."""
        return median(self.rounds)


class Line(msgspec.Struct, frozen=True):
    """The points of one thing, by x."""

    name: str
    points: Sequence[Point]


class Panel(msgspec.Struct, frozen=True):
    """Lines that share an axis."""

    label: str
    lines: Sequence[Line]
    is_log: bool = False


class Curve(msgspec.Struct, frozen=True):
    """Panels that share what grows. `should`: what the dashed lines are, in words."""

    name: str
    title: str
    x: str
    scale: Scale
    panels: Sequence[Panel]
    should: str


class Rounds:
    """What was measured, gathered round by round in whatever order."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[float, list[float]]] = {}

    def add(self, what: str, x: float, value: float) -> None:
        """One more round of something at `x`."""
        self._taken.setdefault(what, {}).setdefault(x, []).append(value)

    def median(self, what: str, x: float) -> float:
        """The middle one there."""
        return median(self._taken[what][x])

    def xs(self, what: str) -> list[float]:
        """Where something was measured, ascending."""
        return sorted(self._taken[what])

    def line(self, what: str, should: Callable[[float], float], name: str = "measured") -> Line:
        """What was measured, beside what should be."""
        points = [Point(x, rounds, should(x)) for x, rounds in sorted(self._taken[what].items())]
        return Line(name, points)

    def flat(self, what: str, name: str = "measured") -> Line:
        """The same where all should be as the first is."""
        first = self.median(what, self.xs(what)[0])
        return self.line(what, lambda _: first, name)


class Peak:
    """How high the memory of processes rises above what each had when it idled, in MiB, added up."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._idle = [Memory(pid) for pid in pids]

    def forget(self) -> None:
        """What was highest so far counts no more."""
        for pid in self._pids:
            Memory(pid)  # its beginning

    @property
    def mib(self) -> float:
        """The highest since."""
        return sum(idle.grown_mib() for idle in self._idle)


def rounds(at: Place) -> int:
    """How often each point is measured."""
    return 2 if at.is_quick else 3


def seconds(at: Place) -> float:
    """How long a round of requests lasts at one point."""
    return 0.3 if at.is_quick else 1.2
