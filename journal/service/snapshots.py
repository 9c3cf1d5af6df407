"""Snapshots: the whole state at one revision, made once and then served as a file.

A file's name says what it is (epoch, revision, chain, collections), so that a folder of them can be shared by
processes and survives them; one whose chain is not the journal's at that revision is removed. Made in zstd; the
other codings are made from it when they are first asked for.
"""

import asyncio
import contextlib
import gzip
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Literal

import msgspec
import zstandard

from journal import config
from journal.core import chain, digest
from journal.core.cursor import Cursor
from journal.errors import NotFound, Unavailable
from journal.service.figures import LONG_SECONDS, Spread
from journal.service.shared import Shared
from journal.service.tails import Tail, Tails
from journal.store import compaction, heads, reading
from journal.store.database import Database
from journal.store.heads import Head
from journal.store.spans import span

Coding = Literal["zstd", "gzip", "identity"]
SUFFIX: dict[Coding, str] = {"zstd": ".zst", "gzip": ".gz", "identity": ""}
LEVEL = 1  # 818 MB/s at gzip 6's ratio on one core; higher levels would slow COPY down
PIECE = 1 << 20
READ_BYTES = 8 << 20  # that all readers together hold of their files
LONGEST_PIECE, SHORTEST_PIECE = 512 << 10, 32 << 10
TRIES = 5  # at a snapshot that nothing makes useless before it is given
KEEP_AGAIN = 10
_NAME = re.compile(r"([0-9a-f]{12})-(\d{1,16})-([0-9a-f]{16})-([0-9a-f]{16})")
_ALL = "0" * 16

_encode = msgspec.json.Encoder().encode


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot by its name. `scope` stands for its collections."""

    epoch: str
    revision: int
    chain: str
    scope: str

    def __str__(self) -> str:
        return f"{self.epoch}-{self.revision}-{self.chain}-{self.scope}"

    def is_of(self, head: Head) -> bool:
        """Whether it can be of this journal's history, and may be read, as far as the head alone tells."""
        return self.epoch == head.epoch and max(head.horizon, head.erased) <= self.revision <= head.head


def parse(name: str) -> Snapshot | None:
    """The snapshot that a name is of."""
    match = _NAME.fullmatch(name)
    return None if match is None else Snapshot(match[1], int(match[2]), match[3], match[4])


def scope_of(collections: frozenset[str] | None) -> str:
    """Stands for a set of collections in a snapshot's name."""
    if collections is None:
        return _ALL
    return sha256(_encode(sorted(collections))).hexdigest()[:16]


def is_of(name: str, collections: frozenset[str] | None) -> bool:
    """Whether a name is of a snapshot of just these collections."""
    snapshot = parse(name)
    return snapshot is not None and snapshot.scope == scope_of(collections)


def not_kept() -> NotFound:
    """Told of every snapshot that is not there for who asks."""
    return NotFound("this snapshot is not kept: ask for …/snapshot again")


class File(msgspec.Struct, frozen=True):
    """A snapshot's file in a coding. Its tag is strong: made again, the lines may come in another order."""

    snapshot: Snapshot
    coding: Coding
    path: Path
    made_ns: int

    @property
    def tag(self) -> str:
        """What identifies these bytes."""
        return f"{self.snapshot}-{self.made_ns:x}-{self.coding}"


class Snapshots:
    """Makes, keeps and finds snapshots in a folder."""

    def __init__(self, database: Database, tails: Tails, folder: Path, settings: config.Snapshots) -> None:
        self.database, self.tails, self.settings = database, tails, settings
        self.folder = folder
        self._admission = asyncio.Semaphore(settings.made_at_once)
        self._waiting = self.readers = self.being_made = 0
        self.seconds = Spread(LONG_SECONDS)  # that making one took
        self._kept_at: dict[tuple[int, int], float] = {}
        self._making: Shared[tuple[str, str], Snapshot] = Shared()
        self._coding: Shared[tuple[str, Snapshot, Coding], Path] = Shared()

    @property
    def waiting(self) -> int:
        """How many requests wait to be told which snapshot to take."""
        return self._waiting

    def kept(self) -> tuple[int, int]:
        """How many files are kept, and their bytes."""
        files = size = 0
        for path in self.folder.glob("*/*.ndjson*"):
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
                files += 1
        return files, size

    async def current(self, journal: str, collections: frozenset[str] | None) -> Snapshot:
        """A snapshot that is not too far behind the head: one that is there, or a new one, made for all who ask."""
        tail = await self.tails.of(journal)
        scope = scope_of(collections)
        if self._waiting >= self.settings.waiting_at_once:
            raise busy()
        self._waiting += 1
        try:
            for _ in range(TRIES):
                kept = self._kept(tail.head, scope) or await self._making.join(
                    (journal, scope), lambda: self._make(tail, collections, scope)
                )
                if await self._may_be_given(tail, kept):
                    return kept
        finally:
            self._waiting -= 1
        raise busy()

    @contextlib.contextmanager
    def read(self) -> Iterator[int]:
        """While somebody reads a file; how many bytes to read of it at once. Unavailable where too many do."""
        if self.readers >= self.settings.read_at_once:
            raise busy()
        self.readers += 1
        try:
            yield max(min(READ_BYTES // self.readers, LONGEST_PIECE), SHORTEST_PIECE)
        finally:
            self.readers -= 1

    async def file(self, journal: str, name: str, coding: Coding) -> File:
        """A snapshot's file; NotFound where it is not kept, or is of another history."""
        snapshot = parse(name)
        tail = await self.tails.of(journal)
        if snapshot is None or not self._path(journal, snapshot, "zstd").exists():
            raise not_kept()
        if not await self._is_true(tail, snapshot):
            raise NotFound("this snapshot was of another history: ask for …/snapshot again")
        path, packed = self._path(journal, snapshot, coding), self._path(journal, snapshot, "zstd")
        await self._keep(tail, snapshot)
        try:
            if not path.exists():
                path = await self._coded(journal, snapshot, coding)
            made_ns = packed.stat().st_mtime_ns
            os.utime(packed, ns=(time.time_ns(), made_ns))  # kept for as long as it is read
        except FileNotFoundError:
            raise not_kept() from None
        return File(snapshot, coding, path, made_ns)

    def clean(self) -> None:
        """Remove what was not read for as long as snapshots are kept, and what a crash left half made."""
        oldest = time.time() - self.settings.kept_s
        for path in self.folder.glob("*/*.ndjson.zst"):
            with contextlib.suppress(FileNotFoundError):
                used = path.stat()
                if max(used.st_mtime, used.st_atime) < oldest:
                    self._remove(path)
        for path in (found for suffix in ("", ".gz") for found in self.folder.glob(f"*/*.ndjson{suffix}")):
            stem = path.name.partition(".")[0]
            if not (path.parent / f"{stem}.ndjson.zst").exists():
                path.unlink(missing_ok=True)
        for path in self.folder.glob("*/*.part"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def forget(self, journal: str) -> None:
        """Remove all of a journal's."""
        shutil.rmtree(self.folder / journal, ignore_errors=True)

    def forget_below(self, journal: str, revision: int) -> int:
        """Remove a journal's snapshots below a revision; how many there were."""
        found = 0
        for path in (self.folder / journal).glob("*.ndjson.zst"):
            snapshot = parse(path.name.removesuffix(".ndjson.zst"))
            if snapshot is not None and snapshot.revision < revision:
                self._remove(path)
                found += 1
        return found

    def _path(self, journal: str, snapshot: Snapshot, coding: Coding) -> Path:
        return self.folder / journal / f"{snapshot}.ndjson{SUFFIX[coding]}"

    def _remove(self, path: Path) -> None:
        stem = path.name.partition(".")[0]
        for suffix in SUFFIX.values():
            (path.parent / f"{stem}.ndjson{suffix}").unlink(missing_ok=True)

    def _kept(self, head: Head, scope: str) -> Snapshot | None:
        """The newest snapshot that is near enough to the head."""
        best: Snapshot | None = None
        for path in (self.folder / head.journal).glob(f"{head.epoch}-*-{scope}.ndjson.zst"):
            snapshot = parse(path.name.removesuffix(".ndjson.zst"))
            if snapshot is None or not snapshot.is_of(head) or not self._is_near(snapshot, head, path):
                continue
            if best is None or snapshot.revision > best.revision:
                best = snapshot
        return best

    def _is_near(self, snapshot: Snapshot, head: Head, path: Path) -> bool:
        if snapshot.revision == head.head:
            return True
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return False
        return head.head - snapshot.revision <= self.settings.behind_revisions and age_s <= self.settings.behind_s

    async def _is_true(self, tail: Tail, snapshot: Snapshot) -> bool:
        """Whether the journal has the snapshot's chain at its revision; one of another past is removed."""
        head = tail.head
        if snapshot.is_of(head) and tail.chains.get(snapshot.revision) == snapshot.chain:
            return True
        return await self._confirmed(tail, snapshot) is not None

    async def _may_be_given(self, tail: Tail, snapshot: Snapshot) -> bool:
        """Whether a client can go on from it: PostgreSQL's own rows know of every resync."""
        head = await self._confirmed(tail, snapshot)
        if head is not None and snapshot.revision < head.floor:
            self._remove(self._path(tail.head.journal, snapshot, "zstd"))
            return False
        return head is not None

    async def _confirmed(self, tail: Tail, snapshot: Snapshot) -> Head | None:
        """The head of the journal where the snapshot is of its history; else it is removed."""
        async with self.database.moment() as connection:
            head = await heads.head_by_id(connection, tail.head.id)
            if head is None:
                raise self.tails.gone(tail)
            there = await heads.chain_at(connection, head, snapshot.revision)
        if snapshot.is_of(head) and there is not None and chain.told(there) == snapshot.chain:
            return head
        self._remove(self._path(tail.head.journal, snapshot, "zstd"))
        return None

    async def _keep(self, tail: Tail, snapshot: Snapshot) -> None:
        """See to it that compaction does not pass a snapshot that is read, for as long as it is kept."""
        key, now = (tail.head.id, snapshot.revision), time.monotonic()
        if now - self._kept_at.get(key, float("-inf")) > self.settings.kept_s / KEEP_AGAIN:
            await compaction.keep_snapshot(self.database, tail.head.id, snapshot.revision, self.settings.kept_s)
            self._kept_at = {k: at for k, at in self._kept_at.items() if now - at < self.settings.kept_s} | {key: now}

    async def _make(self, tail: Tail, collections: frozenset[str] | None, scope: str) -> Snapshot:
        folder = self.folder / tail.head.journal
        folder.mkdir(parents=True, exist_ok=True)
        async with self._admission:
            part = folder / f"{scope}-{os.getpid()}-{time.monotonic_ns()}.part"
            began = time.monotonic()
            self.being_made += 1
            try:
                with span("make a snapshot"):
                    snapshot = await self._write(tail, collections, scope, part)
                self.seconds.add(time.monotonic() - began)
                os.replace(part, self._path(tail.head.journal, snapshot, "zstd"))
                return snapshot
            finally:
                self.being_made -= 1
                part.unlink(missing_ok=True)

    async def _write(self, tail: Tail, collections: frozenset[str] | None, scope: str, part: Path) -> Snapshot:
        async with self.database.moment() as connection:
            head = await heads.head_by_id(connection, tail.head.id)
            if head is None:
                raise self.tails.gone(tail)
            await compaction.keep_snapshot(self.database, head.id, head.head, self.settings.kept_s)
            with part.open("wb") as file:
                writer = _Compressed(file)
                told = chain.told(head.chain)
                cursor = Cursor(head.epoch, head.head, told, collections)
                atoms, total = head.totals(collections)
                first = {"epoch": head.epoch, "revision": head.head, "cursor": str(cursor), "atoms": atoms}
                last = {"end": True, "atoms": atoms, "digest": digest.told(total)}
                await writer.write(_encode(first) + b"\n")
                await reading.copy_snapshot(connection, head, head.ids(collections), writer.write)
                await writer.write(_encode(last) + b"\n")
                await writer.finish()
        if writer.lines != atoms + 2:
            raise AssertionError(f"{writer.lines - 2} atoms where the journal counts {atoms}")
        return Snapshot(head.epoch, head.head, told, scope)

    async def _coded(self, journal: str, snapshot: Snapshot, coding: Coding) -> Path:
        source, target = self._path(journal, snapshot, "zstd"), self._path(journal, snapshot, coding)
        return await self._coding.join(
            (journal, snapshot, coding), lambda: asyncio.to_thread(_transcode, source, target, coding)
        )


class _Compressed:
    """Compresses in pieces, in a thread of its own, so that the loop goes on meanwhile."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._compress = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
        self._pieces: list[bytes] = []
        self._size = 0
        self.lines = 0

    async def write(self, lines: bytes) -> None:
        self._pieces.append(lines)
        self._size += len(lines)
        if self._size >= PIECE:
            await self._flush(self._compress.compress)

    async def finish(self) -> None:
        await self._flush(lambda piece: self._compress.compress(piece) + self._compress.flush())

    async def _flush(self, compress: Callable[[bytes], bytes]) -> None:
        piece = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        self.lines += await asyncio.to_thread(self._write, piece, compress)

    def _write(self, piece: bytes, compress: Callable[[bytes], bytes]) -> int:
        self._file.write(compress(piece))
        return piece.count(b"\n")


def busy() -> Unavailable:
    """What to tell those who are too many; they come back at different times."""
    return Unavailable("too many want a snapshot at this moment", retry_after=random.randint(2, 15))  # noqa: S311


def _transcode(source: Path, target: Path, coding: Coding) -> Path:
    part = target.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}.part")
    try:
        with source.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as plain:
            opened = part.open("wb") if coding == "identity" else gzip.GzipFile(part, "wb", compresslevel=5, mtime=0)
            with opened as file:
                shutil.copyfileobj(plain, file, PIECE)
        os.replace(part, target)
        if not source.exists():  # removed meanwhile, perhaps since data in it was erased
            target.unlink(missing_ok=True)
            raise FileNotFoundError(source)
    finally:
        part.unlink(missing_ok=True)
    return target
