"""Who of several processes syncs a file: whoever holds the lock beside it, which ends with its process.

The others ask it through the file; what takes a connection is work inside a transaction of SQLite.
"""

import sqlite3
from pathlib import Path

from filelock import FileLock, Timeout

from journal.client import file
from journal.client.connection import Connection


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


def want(db: sqlite3.Connection) -> None:
    """Have whoever syncs the file in the background leave that part for a moment."""
    if file.meta(db, "wanted") is None:
        file.tell(db, "wanted", 1)


async def leave(role: Role, db: Connection) -> None:
    """Leave the role when nothing is written in it any more."""
    try:
        await db.idle()
    finally:
        role.leave()


def ask(db: sqlite3.Connection) -> int:
    """Ask whoever syncs the file to do so: the number of the question."""
    number: int = (file.meta(db, "asked") or 0) + 1
    file.tell(db, "asked", number)
    return number


def answer(db: sqlite3.Connection, number: int, error: str | None) -> None:
    """Answer all questions up to a number."""
    if number > (file.meta(db, "answered") or 0):
        file.tell(db, "answered", number)
        file.tell(db, "answer", error)
