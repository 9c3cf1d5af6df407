"""What a sync tells while it works, to whoever wants to know."""

from collections.abc import Callable
from typing import Literal

import msgspec

Phase = Literal["push", "pull", "snapshot", "load", "verify", "wait"]


class Progress(msgspec.Struct, frozen=True):
    """How far a sync is: changes pushed, revisions pulled, bytes of a snapshot, atoms loaded, seconds to wait.

    `total` is None where nobody knows.
    """

    phase: Phase
    done: int
    total: int | None = None


class Told(msgspec.Struct):
    """Who is told: of progress, of the ids of conflicts that were kept, and that the data changed."""

    progress: Callable[[Progress], None] = lambda _: None
    conflicts: Callable[[list[int]], None] = lambda _: None
    changed: Callable[[], None] = lambda: None
