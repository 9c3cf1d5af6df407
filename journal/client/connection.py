"""A connection to SQLite on a thread of its own: no call of it blocks the event loop, none overtakes another.

The one rule: whatever belongs together is one `work`, run between begin and commit. Who is cancelled while it runs
leaves it to end as if nothing had happened.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from journal.client.problems import Busy, Closed

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
BUSY_S = 30.0
CACHED_KIB = 16_384


class Connection:
    """`write` takes the file's write lock at once, so that what it reads is what it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replica")
        self._db: sqlite3.Connection | None = None
        self._is_over = False

    async def open(self) -> None:
        """Before anything else."""
        await self._run(self._open)

    async def close(self) -> None:
        """When all work has ended; what waits is done first. No harm in doing it again."""
        if self._db is not None:
            await self._run(self._close)
        self._is_over = True
        self._thread.shutdown(wait=False)

    async def read(self, work: Work[T]) -> T:
        """Several reads of one moment."""
        return await self._run(lambda: self._within("begin", work))

    async def write(self, work: Work[T]) -> T:
        """All or nothing."""
        return await self._run(lambda: self._within("begin immediate", work))

    async def call(self, work: Work[T]) -> T:
        """Work that begins and commits by itself, or not at all."""
        return await self._run(lambda: work(self._opened()))

    async def idle(self) -> None:
        """When all work has ended, also that of who was cancelled."""
        if not self._is_over:
            await self._run(lambda: None)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._is_over:
            raise Closed
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise Busy(f"{self._path}: somebody else has been writing for {BUSY_S:.0f} s") from error
            raise

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        _write_ahead(self._db)
        self._db.execute("pragma synchronous = full")  # what was written here must outlive the power
        self._db.execute("pragma secure_delete = fast")  # what was erased is not to be read off free pages
        self._db.execute(f"pragma cache_size = -{CACHED_KIB}")

    def _close(self) -> None:
        db, self._db = self._opened(), None
        if db.in_transaction:
            db.execute("rollback")
        db.close()

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise Closed
        return self._db

    def _within(self, begin: str, work: Work[T]) -> T:
        db = self._opened()
        db.execute(begin)
        try:
            done = work(db)
            db.execute("commit")
            return done
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise


def _write_ahead(db: sqlite3.Connection) -> None:
    """Of several who open a new file at once SQLite makes only one wait: the others are told that it is locked."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
