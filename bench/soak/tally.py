"""What was answered and how fast. The rule: trouble is expected only while it is announced, all else is a fault."""

import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

GRACE_S = 30.0  # after what was announced is over, until everyone has noticed
TOLD = 200


class Fault(msgspec.Struct, frozen=True):
    """Something that was not announced; `at_s` since the start."""

    at_s: float
    what: str
    detail: str


class Speed(msgspec.Struct, frozen=True):
    """How fast something was, over a while."""

    count: int
    p50_ms: float
    p99_ms: float


class Tally:
    """Counts for the whole run, and latencies since they were last asked for."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.answers: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.recalls: Counter[tuple[str, str]] = Counter()
        self._recalled_at: dict[tuple[str, str], float] = {}
        self._trouble: list[list[float]] = []
        self._latencies: dict[str, array[float]] = {}
        self._answered: dict[str, tuple[dict[int, float], deque[int]]] = {}

    @property
    def at_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Until a while after this, 503 and broken connections are expected."""
        window = [time.monotonic(), float("inf")]
        self._trouble.append(window)
        try:
            yield
        finally:
            window[1] = time.monotonic() + GRACE_S

    def is_trouble_announced(self) -> bool:
        """Whether 503 and broken connections are expected now."""
        now = time.monotonic()
        return any(start <= now <= end for start, end in self._trouble)

    def recall(self, journal: str, reason: str) -> None:
        """Announce that each client of a journal may be called back once more for this reason."""
        self.recalls[journal, reason] += 1
        self._recalled_at[journal, reason] = time.monotonic()

    def was_recalled(self, journal: str, reason: str) -> bool:
        """Whether clients of a journal were called back a moment ago."""
        return time.monotonic() - self._recalled_at.get((journal, reason), float("-inf")) < GRACE_S

    def trouble(self, what: str, detail: str) -> None:
        """A 503 or a broken connection."""
        if self.is_trouble_announced():
            self.expected[what] += 1
        else:
            self.fault(what, detail)

    def fault(self, what: str, detail: str) -> None:
        """Something that must not be."""
        self.unexpected[what] += 1
        if len(self.faults) < TOLD:
            self.faults.append(Fault(round(self.at_s, 1), what, detail[:500]))

    def took(self, what: str, seconds: float) -> None:
        """An answer, and how long it took."""
        self.answers[what] += 1
        self._latencies.setdefault(what, array("d")).append(seconds)

    def answered(self, journal: str, revision: int) -> None:
        """A push was answered: from now on its event is awaited."""
        known, order = self._answered.setdefault(journal, ({}, deque()))
        known[revision] = time.monotonic()
        order.append(revision)
        if len(order) > 1000:
            del known[order.popleft()]

    def delivered(self, journal: str, revision: int) -> None:
        """An event up to this revision came; one that came before the push's answer took no time."""
        known, order = self._answered.get(journal, ({}, deque[int]()))
        if revision in known:
            self.took("delivery", time.monotonic() - known[revision])
        elif order and revision > order[-1]:
            self.took("delivery", 0.0)

    def speeds(self) -> dict[str, Speed]:
        """How fast everything was since this was last asked."""
        found = {what: _speed(latencies) for what, latencies in self._latencies.items() if latencies}
        self._latencies = {}
        return found


def _speed(latencies: "array[float]") -> Speed:
    ordered = sorted(latencies)
    return Speed(len(ordered), 1000 * ordered[len(ordered) // 2], 1000 * ordered[len(ordered) * 99 // 100])


class Recalls:
    """How often one client was called back, against how often that was announced."""

    def __init__(self, tally: Tally, journal: str, who: str) -> None:
        self.tally, self.journal, self.who = tally, journal, who
        self._told: Counter[tuple[str, str]] = Counter()

    def told(self, reason: str) -> None:
        """It was told to start again."""
        key = (self.journal, reason)
        self._told[key] += 1
        if self._told[key] <= self.tally.recalls[key]:
            self.tally.expected[f"called back: {reason}"] += 1
        else:
            self.tally.fault(f"called back: {reason}", f"{self.who} of {self.journal}, time {self._told[key]}")
