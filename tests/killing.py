"""What a SIGKILL leaves of a replica: its files as they are when a statement of SQL begins, put back once the object
is gone.

The page cache outlives a process, so the files' bytes at that moment are what the next process finds; what was in the
connections' own caches and not committed is in none of them. The files keep their inodes, since they are the same
files (client/incarnation.py), and nobody asks the service anything once the moment has come.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal.client.connection import Connection

_watched: dict[Path, "Watch"] = {}


class Watch:
    """Calls `spring` when the n-th statement from `arm` on begins, in the thread of the connection that it is of."""

    def __init__(self, path: Path) -> None:
        self.left, self.spring = 0, _nothing
        self.is_sprung = False
        _watched[path] = self

    def arm(self, statement: int, spring: Callable[[], None]) -> None:
        """Count from now on."""
        self.left, self.spring, self.is_sprung = statement, spring, False

    def disarm(self) -> None:
        """Let everything run."""
        self.left = 0

    def begins(self, _: str) -> None:
        """A statement does."""
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                self.is_sprung = True
                self.spring()


def _nothing() -> None:
    pass


def watch_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every connection to a watched file tell its statements."""
    opened = Connection._open

    def open_watched(self: Connection) -> None:
        opened(self)
        watch = _watched.get(self._path)
        if watch is not None:
            db: Any = self._db
            assert isinstance(db, sqlite3.Connection)
            db.set_trace_callback(watch.begins)

    monkeypatch.setattr(Connection, "_open", open_watched)


class Image:
    """The files of a replica as they are now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = {end: _read(path.with_name(path.name + end)) for end in ("", "-wal", "-shm")}
        self._sidecar = path.with_name(path.name + "-incarnation")
        self._held = path.with_name(path.name + "-held")
        self._held.unlink(missing_ok=True)
        if self._sidecar.exists():
            os.link(self._sidecar, self._held)

    def put_back(self) -> None:
        """Once everything is closed."""
        database = self._bytes[""]
        if database is None:
            self.path.unlink(missing_ok=True)
        else:
            with self.path.open("r+b") as file:
                file.write(database)
                file.truncate()
        for end in ("-wal", "-shm"):
            place, content = self.path.with_name(self.path.name + end), self._bytes[end]
            place.unlink(missing_ok=True)
            if content is not None:
                place.write_bytes(content)
        self._sidecar.unlink(missing_ok=True)
        if self._held.exists():
            os.replace(self._held, self._sidecar)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
