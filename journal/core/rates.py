"""Rates: how often somebody may ask, as buckets that drain evenly and are filled again.

The clock is an argument. A bucket is one number, the time at which it will be full again, and a full one is none: so
that what is kept is bounded, and who is forgotten first is who has not asked for longest.
"""

from collections import OrderedDict


class Rates:
    """At most `per_s` a second for each key in the long run and `burst` at once, for the latest `most` keys."""

    def __init__(self, per_s: float, burst: int, most: int = 65_536) -> None:
        self._each_s = 1.0 / per_s
        self._ahead_s = (max(burst, 1) - 1) / per_s
        self._most = most
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """0.0, and one more was taken; else in how many seconds there will be one again."""
        full_at = self._full_at.get(key, now)
        if full_at < now:
            full_at = now
        wait = full_at - now - self._ahead_s
        if wait > 1e-9:  # what rounding leaves is no reason
            self._full_at.move_to_end(key)
            return wait
        self._full_at[key] = full_at + self._each_s
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._most:
            self._full_at.popitem(last=False)
        return 0.0
