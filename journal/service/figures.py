"""Figures: what the parts of the service count of themselves.

The rule: counting is an addition to a plain number; nothing is worked out before somebody asks (service/measures.py).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONG_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Spread:
    """How a measure is spread: how often it was at most each of `bounds`, and what all of it adds up to."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Recorded:
    """What a writer has recorded, and answered."""

    def __init__(self) -> None:
        self.group_pushes = Spread(SIZES)
        self.group_seconds = Spread(SECONDS)
        self.groups_ahead = self.groups_locked = 0
        self.decided_again = self.parted = 0
        self.commits = self.changes = 0
        self.answers: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()


class Answered:
    """Where answers to requests for deltas came from."""

    def __init__(self) -> None:
        self.kept = self.folded = self.rows = self.record = 0
