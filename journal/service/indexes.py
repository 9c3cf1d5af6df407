"""Indexes of places: one file a journal, brought to the head when somebody asks.

Few changes are put in where they are asked for; many, or a new index, are left to a process of its own
(service/indexing.py), one at a time. A file is never replaced: a new one has a higher number, and its predecessor stays
for who has it open. Processes of one machine share a folder and take turns under a lock. An index is moved on only if
the journal's chain proves that it is of this past, and its sums are held against PostgreSQL's own at each step.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from journal.core import chain
from journal.core.cursor import Cursor
from journal.errors import Unavailable
from journal.service import indexing, tree
from journal.service.shared import Shared
from journal.service.tails import Tail, Tails
from journal.store import heads, places
from journal.store.database import Connection, Database
from journal.store.heads import Head

Asked = TypeVar("Asked")
Given = TypeVar("Given")
Ask = Callable[[sqlite3.Connection], Asked]
How = Literal["build", "update"]

THREADS = 2
SMALL = 1000  # atoms that are hashed within this process: some 30 ms of it
WORTH_MOVING = 4  # an index of which more than a quarter has changed is made anew
MOST_WAITING = 16
PATIENCE_S = 25.0
RETRY_S = 5
LOCK_S = 0.05
KEPT_S = 24 * 3600.0
PART_S = 3600.0

_log = logging.getLogger(__name__)


class Index:
    """An index as it was found: its file, and where the journal stood that it is of."""

    def __init__(self, file: Path, at: Cursor) -> None:
        self.file, self.at = file, at


class Indexes:
    """The indexes of a process, in a folder that it may share."""

    def __init__(self, database: Database, tails: Tails, folder: Path) -> None:
        self.database, self.tails = database, tails
        self.folder = folder / (platform.node() or "here")  # SQLite's locks are of one machine
        self.built = 0
        self._threads = ThreadPoolExecutor(THREADS, "index")
        self._admission = asyncio.Semaphore(1)
        self._waiting = 0
        self._bringing: Shared[int, Cursor] = Shared()

    async def read(self, tail: Tail, at: Cursor, ask: Ask[Asked]) -> tuple[Cursor, Asked]:
        """What the index says of the moment `at` or of a later one, and of which."""
        folder = self.folder / tail.head.journal
        found = await self._threaded(partial(_asked, folder, ask, at))
        if found is None:
            brought = await self._brought(tail, at)
            found = await self._threaded(partial(_asked, folder, ask, brought, or_later=True))
        if found is None:
            raise Unavailable("the index of this journal is being made anew", retry_after=RETRY_S)
        return found

    def clean(self) -> None:
        """Remove what nobody has asked for in a day, and what a crash left half made."""
        now = time.time()
        for folder in self.folder.parent.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                newest = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
                if newest < now - KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)
                for path in [*folder.glob("*.part"), *_older(folder)]:
                    if path.stat().st_mtime < now - PART_S:
                        path.unlink()

    def forget(self, journal: str) -> None:
        """Remove a journal's."""
        shutil.rmtree(self.folder / journal, ignore_errors=True)

    async def close(self) -> None:
        """Break off what is being made."""
        await self._bringing.cancel()
        self._threads.shutdown()

    # Bringing one to the head.

    async def _brought(self, tail: Tail, at: Cursor) -> Cursor:
        """Where the index stands once it was brought to a head that is not before `at`; made for all who ask."""
        running = self._bringing.under_way(tail.head.id)
        if running is not None:
            there = await _patiently(running)
            if there.epoch == at.epoch and there.revision >= at.revision:
                return there
        return await _patiently(self._bringing.begun(tail.head.id, lambda: self._bring(tail)))

    async def _bring(self, tail: Tail) -> Cursor:
        folder = self.folder / tail.head.journal
        folder.mkdir(parents=True, exist_ok=True)
        async with _locked(folder / "lock"):
            step = await self._taken(tail, folder, await self._threaded(_found, folder))
            if not step.adds_up and step.known is not None:
                _log.warning("the index of %s did not add up: it is made anew", tail.head.journal)
                step = await self._taken(tail, folder, None)
            if not step.adds_up:  # what the atoms themselves say is told all the same
                _log.error("the atoms of %s do not add up to the digests of its collections", tail.head.journal)
            return step.head.cursor

    async def _taken(self, tail: Tail, folder: Path, known: Index | None) -> "_Step":
        """A step to the head: in this process if it is small, else, when it is its turn, in one of its own."""
        step = await self._gathered(tail, folder, known, SMALL)
        if step is not None:
            await self._take(step, self._here)
            return step
        if self._waiting >= MOST_WAITING:
            raise Unavailable("too many journals are being verified", retry_after=2 * RETRY_S)
        self._waiting += 1
        try:
            async with self._admission:
                step = await self._gathered(tail, folder, known, None)
                assert step is not None
                await self._take(step, self._apart)
                return step
        finally:
            self._waiting -= 1

    async def _gathered(self, tail: Tail, folder: Path, known: Index | None, most: int | None) -> "_Step | None":
        """What a step needs, read as of one moment; None where that is more than `most` atoms."""
        lines = folder / f"{time.time_ns()}-{os.getpid()}.lines.part"
        async with self.database.moment() as connection:
            head = await heads.head_by_id(connection, tail.head.id)
            if head is None:
                raise self.tails.gone(tail)
            known, atoms = await _way(connection, head, known)
            if most is not None and atoms > most:
                return None
            try:
                with lines.open("wb") as file:

                    async def sink(piece: bytes) -> None:
                        file.write(piece)

                    await places.copy_places(connection, head, 0 if known is None else known.at.revision, sink)
            except BaseException:
                lines.unlink(missing_ok=True)
                raise
        return _Step(head, folder, known, lines)

    async def _take(self, step: "_Step", run: "Callable[..., Coroutine[Any, Any, None]]") -> None:
        try:
            if step.known is not None:
                file = step.known.file
                with contextlib.suppress(_Failed):
                    await run("update", file, step.lines, step.known.at, step.head.cursor)
            else:
                file = _next(step.folder)
                part = file.with_suffix(".part")
                try:
                    await run("build", part, step.lines, step.head.cursor)
                    os.replace(part, file)
                except _Failed as failed:
                    raise Unavailable("the index of this journal cannot be made", retry_after=RETRY_S) from failed
                finally:
                    part.unlink(missing_ok=True)
                self.built += 1
            step.adds_up = await self._threaded(_adds_up, file, step.head)
        finally:
            step.lines.unlink(missing_ok=True)

    async def _here(self, how: How, *arguments: object) -> None:
        """In a thread of this process."""
        try:
            await self._threaded(indexing.HOW[how], *map(str, arguments))
        except (sqlite3.Error, OSError) as error:
            _log.exception("an index could not be written")
            raise _Failed from error

    async def _apart(self, how: How, *arguments: object) -> None:
        """In a process of its own, which is ended with whoever waits for it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", indexing.__name__, how, *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "SQLITE_TMPDIR": str(self.folder)},
            start_new_session=True,  # Ctrl-C is this process's to hear
        )  # fmt: skip
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            _log.error("an index could not be written: %s", said.decode(errors="replace"))
            raise _Failed

    async def _threaded(self, do: Callable[..., Given], *arguments: object) -> Given:
        return await asyncio.get_running_loop().run_in_executor(self._threads, do, *arguments)


class _Failed(Exception):
    """An index could not be written; what was said of it is logged."""


class _Step:
    """From the index that is `known`, or from none, to `head`, by the atoms in `lines`."""

    def __init__(self, head: Head, folder: Path, known: Index | None, lines: Path) -> None:
        self.head, self.folder, self.known, self.lines = head, folder, known, lines
        self.adds_up = False


async def _way(connection: Connection, head: Head, known: Index | None) -> tuple[Index | None, int]:
    """What to start from, and how many atoms have to be read: from an index if it is of this past and near enough."""
    atoms, _ = head.totals()
    if known is None or known.at.epoch != head.epoch or not head.horizon <= known.at.revision <= head.head:
        return None, atoms  # tombstones at or below the horizon may be gone
    there = await heads.chain_at(connection, head, known.at.revision)
    if there is None or chain.told(there) != known.at.chain:
        return None, atoms
    bound = SMALL + atoms // WORTH_MOVING
    changed = await places.changed_after(connection, head, known.at.revision, bound + 1)
    return (known, changed) if changed <= bound else (None, atoms)


async def _patiently(running: "asyncio.Future[Cursor]") -> Cursor:
    await asyncio.wait([running], timeout=PATIENCE_S)
    if not running.done():
        raise Unavailable("the index of this journal is being made", retry_after=RETRY_S)
    return running.result()


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """One process of the machine at a time; no thread is held by waiting."""
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_S)
        yield


# In a thread.


def _files(folder: Path) -> list[Path]:
    """The indexes of a journal, the newest last."""
    return sorted(folder.glob("*.sqlite"))


def _older(folder: Path) -> list[Path]:
    """Those before it, with what SQLite keeps beside them."""
    return [path for old in _files(folder)[:-1] for path in folder.glob(f"{old.name}*")]


def _next(folder: Path) -> Path:
    """The name of the next one. All but the last are let go of."""
    known = _files(folder)
    for old in _older(folder):
        old.unlink(missing_ok=True)
    last = int(known[-1].stem) if known else 0
    return folder / f"{max(last + 1, time.time_ns()):020d}.sqlite"


def _found(folder: Path) -> Index | None:
    """The newest index; None where there is none that can be read."""
    try:
        file = _files(folder)[-1]
        with tree.opened(file) as db:
            return Index(file, tree.standing(db))
    except (IndexError, OSError, sqlite3.Error):
        return None


def _asked(folder: Path, ask: Ask[Asked], at: Cursor, *, or_later: bool = False) -> tuple[Cursor, Asked] | None:
    """What the newest index says, if it is of the moment `at`, or of a later one where that will do."""
    try:
        file = _files(folder)[-1]
        with tree.opened(file) as db:
            there = tree.standing(db)
            if there != at and not (or_later and there.epoch == at.epoch and there.revision > at.revision):
                return None
            os.utime(file)  # it is kept for as long as it is asked
            return there, ask(db)
    except (IndexError, OSError, sqlite3.Error):
        return None


def _adds_up(file: Path, head: Head) -> bool:
    """Whether an index is of the head, and has the atoms and digests that PostgreSQL counts for its collections."""
    try:
        with tree.opened(file) as db:
            there, totals = tree.standing(db), tree.totals(db)
    except (OSError, sqlite3.Error):
        return False
    counted = {name: (k.atoms, k.digest) for name, k in head.collections.items() if k.atoms}
    return there == head.cursor and {name: (of.atoms, of.digest) for name, of in totals.items()} == counted
