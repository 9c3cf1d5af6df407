"""Who of several processes syncs a file: whoever holds the lock beside it, which ends with its process."""

from pathlib import Path

from filelock import FileLock, Timeout


class Role:
    """The part of the one that syncs. A Role is for one event loop."""

    def __init__(self, path: Path) -> None:
        place = path.resolve()  # who opens the file by a link finds the same lock
        self._lock = FileLock(place.with_name(place.name + "-sync"), thread_local=False)

    @property
    def is_taken(self) -> bool:
        """Whether it is ours."""
        return self._lock.is_locked

    def take(self) -> bool:
        """Whether it could be taken; it cannot while anybody has it, this one included."""
        if self._lock.is_locked:
            return False
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def leave(self) -> None:
        """Somebody else may have it."""
        self._lock.release()
