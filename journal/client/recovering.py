"""The ways back: a snapshot in place of all data, or a comparison by digests that fetches only what differs.

The rule (docs/properties.md, P9 and trap 6): what the server does not list is gone, but nothing that was changed here
and not answered; the data that was stays readable until the new one is whole.
"""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

import msgspec

from journal.client import file, outbox, pulled
from journal.client.calls import Journal, Resync, jittered, listed
from journal.client.connection import Connection
from journal.client.descent import Index, Of, differing
from journal.client.download import PIECE, First, download
from journal.client.http import Http
from journal.client.packed import lines, unpacked
from journal.client.pulled import Line, Loaded
from journal.client.pulling import PAGE, Pulling
from journal.client.pushing import Pushing
from journal.client.told import Progress, Told
from journal.core import cursor as cursors
from journal.core import digest
from journal.core.model import Key

LOADED = 10_000
MENDINGS = 3
MOST_MENDED = 20_000
LINE_BYTES = 64 << 20
_line = msgspec.json.Decoder(Line).decode


class Recovering:
    """Recovers a file at `path`. `raw`: the service, with bodies as they were sent."""

    def __init__(
        self, db: Connection, journal: Journal, raw: Http, path: Path, pushing: Pushing, pulling: Pulling, told: Told
    ) -> None:
        self.db, self.journal, self.raw, self.path = db, journal, raw, path
        self.pushing, self.pulling, self.told = pushing, pulling, told

    async def recover(self, resync: Resync) -> None:
        """Do what a 410 asks for, when it asks for it."""
        if resync.retry_after > 0:
            self.told.progress(Progress("wait", 0, round(resync.retry_after)))
            await asyncio.sleep(jittered(resync.retry_after))
        if resync.reconcile == "verify":
            await self._verify_history()
        else:
            if resync.granted is not None and self.pulling.wanted is not None:
                await self._let_go(self.pulling.wanted, frozenset(resync.granted), resync.head)
                return
            if resync.reason == "horizon":  # the chain that would tell whether this is still our history is gone
                await self.db.write(outbox.offer)
            await self.replace(None if resync.collections is None else frozenset(resync.collections))

    async def replace(self, only: frozenset[str] | None = None) -> None:
        """Take a snapshot of some collections, or of all, in place of what there is.

        A replica of all collections takes all: which there are, nobody can say for the moment of its cursor.
        """
        wanted = self.pulling.wanted
        at = await self.db.read(file.cursor)
        if wanted is not None and only is not None and at is not None and at.collections is not None:
            only |= wanted - at.collections  # what the cursor is not for cannot go on from it
        if wanted is None or at is None or only is None or only >= wanted:
            first, loaded = await self._load(wanted)
            cursor, replaced = first.cursor, None
        else:
            first, loaded = await self._load(only)
            cursor, replaced = await self._join(first, loaded, only, wanted), only
        await self.db.write(lambda db: pulled.swap(db, loaded, cursor, replaced=replaced, now=time.time()))
        self.told.changed()
        await self.sweep()

    async def _let_go(self, wanted: frozenset[str], granted: frozenset[str], head: int) -> None:
        """Some of what is wanted may not be read any more: keep the rest, which is taken anew."""
        already = await self.db.read(pulled.taken)
        await self.db.write(lambda db: pulled.take(db, already | (wanted - granted)))
        if wanted & granted:
            self.pulling.wanted = wanted & granted
            await self.replace()
        else:
            await self.db.write(lambda db: pulled.let_go(db, head))
            self.told.changed()
            await self.sweep()

    async def mend(self, *of: Of) -> int:
        """Compare with the server, and fetch what differs, until the digests are equal; how many atoms that were."""
        await self.db.write(pulled.recount)
        mended, is_equal = 0, False
        for _ in range(MENDINGS):
            names = await self._differing(*of)
            if len(names) > MOST_MENDED:
                break
            found = await self.journal.lookup(names)
            await self.db.write(lambda db, found=found: pulled.mend(db, found, cursor=None))  # type: ignore[misc]
            mended += len(names)
            applied = await self.pulling.pull()
            is_equal = applied is not None and applied.is_equal is True
            if is_equal:
                break
        if not is_equal:
            await self.replace()
        await self.db.write(lambda db: file.tell(db, "in_doubt", 0))
        return mended

    async def sweep(self) -> None:
        """Remove what was loaded and is not in place, or no more."""
        while await self.db.write(pulled.sweep):
            pass

    async def _verify_history(self) -> None:
        """The server's history is not ours: send again what it may have lost, compare by content, start from there."""
        await self.db.write(outbox.offer)
        await self.pushing.push(is_numbered=True)
        head = await self.journal.head()
        await self.db.write(pulled.recount)
        names = await self._differing("content", "revision")
        if len(names) > MOST_MENDED:
            await self.replace()
        else:
            found = await self.journal.lookup(names)
            await self.db.write(lambda db: pulled.mend(db, found, cursor=head.cursor))
            self.told.changed()

    async def _load(self, collections: frozenset[str] | None) -> tuple[First, dict[str, Loaded]]:
        """Download a snapshot and load it beside what there is; it goes on where an earlier download broke off."""
        await self.sweep()
        names = listed(collections)
        subset = "" if names is None else "-" + sha256(names.encode()).hexdigest()[:16]
        snapshot = self.path.with_name(f"{self.path.name}-snapshot{subset}")
        told = self.told.progress
        first = await download(
            self.raw, self.journal.name, snapshot, keep="zstd", collections=names,
            told=lambda here, size: told(Progress("snapshot", here, size or None)),
        )  # fmt: skip
        loaded: dict[str, Loaded] = {}
        with snapshot.open("rb") as packed:
            atoms = _atoms(lines(unpacked(iter(lambda: packed.read(PIECE), b"")), longest=LINE_BYTES))
            done = 0
            while (now := await self.db.write(lambda db: _load_some(db, atoms, loaded))) > 0:
                done += now
                told(Progress("load", done, first.atoms))
        snapshot.unlink()
        return first, loaded

    async def _join(self, first: First, loaded: dict[str, Loaded], only: frozenset[str], wanted: frozenset[str]) -> str:
        """Bring what was loaded and the other collections to one revision; the cursor for all of them there.

        The others go on by themselves, as far as the snapshot at least; then what was loaded follows to where they are.
        """
        others = wanted - only
        pulling = Pulling(self.db, self.journal, others, self.told)
        while True:
            await pulling.pull()
            text: str = await self.db.read(lambda db: file.meta(db, "cursor"))
            at = cursors.parse(text, parameter="cursor")
            if at.revision >= first.revision:
                break
        since = first.cursor
        while cursors.parse(since, parameter="cursor").revision < at.revision:
            page = await self.journal.deltas(since, limit=PAGE, until=at.revision, collections=only)
            await self.db.write(lambda db, page=page: pulled.apply_loaded(db, page.deltas, loaded))  # type: ignore[misc]
            since = page.cursor
        return await self.journal.cursor(text, wanted)

    async def _differing(self, *of: Of) -> set[Key]:
        names: set[Key] = set()
        wanted = self.pulling.wanted
        for one in of:
            self.told.progress(Progress("verify", 0))
            with Index() as index:
                await self.db.read(lambda db, one=one, index=index: index.add(_leaves(db, one, wanted)))  # type: ignore[misc]
                names |= await differing(self.journal, index, of=one, collections=wanted)
        return names


def _leaves(db: sqlite3.Connection, of: Of, wanted: frozenset[str] | None) -> Iterator[tuple[str, str, int]]:
    for collection, atom, revision, data in pulled.rows(db, wanted):
        if of == "content":
            yield collection, atom, digest.content_leaf(collection, atom, data)
        else:
            yield collection, atom, digest.leaf(collection, atom, revision)


def _atoms(found: Iterator[bytes]) -> Iterator[Line]:
    """The lines of a snapshot that are atoms; it was verified when it was downloaded."""
    next(found)
    for line in found:
        if not line.startswith(b'{"end"'):
            yield _line(line)


def _load_some(db: sqlite3.Connection, atoms: Iterator[Line], loaded: dict[str, Loaded]) -> int:
    before = sum(into.atoms for into in loaded.values())
    pulled.load(db, islice(atoms, LOADED), loaded)
    return sum(into.atoms for into in loaded.values()) - before
