"""Verify in depth, from the client's side (protocol, section 8): which atoms differ from the service's.

The rule: go down only where count or digest differ, and name every atom that differs. What changes at the service
meanwhile may be named as well; what differed all along always is.
"""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import groupby
from operator import xor
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, Self

from msgspec import UNSET

from journal.core import digest
from journal.core.model import Key
from journal.wire import DigestAnswer, ManifestAnswer

Of = Literal["content", "revision"]
Sum = tuple[int, int]  # how many atoms, and the XOR of their leaves
DIGITS = 64  # of a place
FEW = 128  # so many atoms are listed; of more the digests are compared
_NONE: Sum = (0, 0)


class Leaves(Protocol):
    """The leaves here, by places (hex digits). It is called in threads of its own, one call at a time."""

    def beneath(self, prefix: str) -> Sum:
        """How many atoms have a place that begins so, and their digest."""

    def children(self, prefix: str) -> dict[str, Sum]:
        """The same for the sixteen prefixes that are a digit longer, those with atoms."""

    def listed(self, prefix: str) -> list[tuple[str, str, int]]:
        """Collection, atom and leaf of each."""


class Ask(Protocol):
    """The service's answers about one journal (client/calls.py)."""

    async def digest(self, prefix: str, of: Of, collections: frozenset[str] | None) -> DigestAnswer:
        """GET …/digest."""

    async def manifest(
        self, prefix: str, of: Of, collections: frozenset[str] | None, after: str | None
    ) -> ManifestAnswer:
        """A page of GET …/manifest."""


async def differing(
    ask: Ask, leaves: Leaves, *, of: Of, collections: frozenset[str] | None, few: int = FEW
) -> set[Key]:
    """Every atom whose leaf differs, is missing here, or is missing there. `leaves` are those of `collections` only.

    A request for each node that differs, and one for each `few` atoms (at least 1) that are listed.
    """
    there = await ask.digest("", of, collections)
    sum_there, sum_here = (there.count, int(there.digest, 16)), await asyncio.to_thread(leaves.beneath, "")
    if sum_there == sum_here:
        return set()
    if _is_listed(sum_there, sum_here, few):
        return await _compared(ask, leaves, "", of, collections)
    found: set[Key] = set()
    differ = [there]
    while differ:
        there = differ.pop()
        sums = {child: (node.count, int(node.digest, 16)) for child, node in there.children.items()}
        mine = await asyncio.to_thread(leaves.children, there.prefix)
        for child in sorted(sums.keys() | mine.keys()):
            sum_there, sum_here = sums.get(child, _NONE), mine.get(child, _NONE)
            if sum_there == sum_here:
                continue
            if _is_listed(sum_there, sum_here, few):
                found |= await _compared(ask, leaves, child, of, collections)
            else:
                differ.append(await ask.digest(child, of, collections))
    return found


def _is_listed(there: Sum, here: Sum, few: int) -> bool:
    """Where nothing is here, all there differs: to list it is the least, however much it is."""
    return there[0] <= few or not here[0]


async def _compared(ask: Ask, leaves: Leaves, prefix: str, of: Of, collections: frozenset[str] | None) -> set[Key]:
    """Those that differ beneath a prefix, by listing all there."""
    here = {(name, atom): leaf for name, atom, leaf in await asyncio.to_thread(leaves.listed, prefix)}
    found: set[Key] = set()
    after: str | None = None
    while True:
        page = await ask.manifest(prefix, of, collections, after)
        for entry in page.atoms:
            key = entry.collection, entry.atom
            if here.pop(key, None) != int(entry.leaf, 16):
                found.add(key)
        if page.next is UNSET:
            return found | here.keys()
        after = page.next


class Index:
    """Leaves in a temporary SQLite file, which is gone when this is closed.

    Memory does not grow with the atoms: it has the sums of all prefixes of DEPTH digits, SQLite the rest by place.
    """

    DEPTH = 3

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the file is made; else where SQLite makes its temporary files."""
        self._file = None if folder is None else _made(folder)
        self._db = sqlite3.connect(self._file or "", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        with contextlib.suppress(PermissionError):  # Windows: not while it is open
            self._remove()
        self._lock, self._is_in_order, self._is_closed = Lock(), False, False
        self._counts, self._digests = (array("Q", bytes(8 * 16**self.DEPTH)) for _ in range(2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left of it; what a thread still does with it is waited for, or ends early."""
        self._is_closed = True
        with self._lock:
            self._db.close()
        self._remove()

    def add(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Collection, atom and leaf of some more; what is added twice is sqlite3.IntegrityError once it is read."""
        with self._lock:  # whoever closes a connection of SQLite that another thread uses brings the process down
            self._db.executemany("insert into entry values (?, ?, ?, ?)", map(self._summed, rows))

    def beneath(self, prefix: str) -> Sum:
        """How many atoms have a place that begins so, and their digest."""
        if len(prefix) > self.DEPTH:
            return _sum(leaf for _, leaf in self._leaves(prefix))
        width = 16 ** (self.DEPTH - len(prefix))
        first = int(prefix or "0", 16) * width
        return sum(self._counts[first : first + width]), reduce(xor, self._digests[first : first + width], 0)

    def children(self, prefix: str) -> dict[str, Sum]:
        """The same for the sixteen prefixes that are a digit longer, those with atoms."""
        if len(prefix) < self.DEPTH:
            sums = {prefix + digit: self.beneath(prefix + digit) for digit in "0123456789abcdef"}
            return {child: sum_ for child, sum_ in sums.items() if sum_[0]}
        if len(prefix) == DIGITS:
            return {}
        by_child = groupby(self._leaves(prefix), key=lambda row: row[0].hex()[: len(prefix) + 1])
        return {child: _sum(leaf for _, leaf in rows) for child, rows in by_child}

    def listed(self, prefix: str) -> list[tuple[str, str, int]]:
        """Collection, atom and leaf of each."""
        rows = self._read("select collection, atom, leaf from entry where place between ? and ? order by place", prefix)
        return [(collection, atom, digest.from_bigint(leaf)) for collection, atom, leaf in rows]

    def _leaves(self, prefix: str) -> Iterator[tuple[bytes, int]]:
        for place, leaf in self._read(
            "select place, leaf from entry where place between ? and ? order by place", prefix
        ):
            yield place, digest.from_bigint(leaf)

    def _read(self, query: str, prefix: str) -> list[Any]:
        bounds = [bytes.fromhex(prefix.ljust(DIGITS, digit)) for digit in "0f"]
        with self._lock:
            if not self._is_in_order:  # not before all is there: sorting once is cheaper than inserting at random
                self._db.execute("create unique index by_place on entry (place)")
                self._is_in_order = True
            return self._db.execute(query, bounds).fetchall()

    def _summed(self, row: tuple[str, str, int]) -> tuple[bytes, int, str, str]:
        if self._is_closed:
            raise sqlite3.ProgrammingError("the index was closed meanwhile")
        collection, atom, leaf = row
        place = digest.place(collection, atom)
        at = int.from_bytes(place[:4], "big") >> (32 - 4 * self.DEPTH)
        self._counts[at] += 1
        self._digests[at] ^= leaf
        return place, digest.to_bigint(leaf), collection, atom

    def _remove(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)


_SCHEMA = """
pragma journal_mode = off;
pragma synchronous = off;
pragma cache_size = -16384;
create table entry (place blob not null, leaf int not null, collection text not null, atom text not null);
begin;
"""


def _made(folder: Path) -> Path:
    opened, name = tempfile.mkstemp(prefix="descent-", suffix=".db", dir=folder)
    os.close(opened)
    return Path(name)


def _sum(leaves: Iterable[int]) -> Sum:
    atoms = total = 0
    for leaf in leaves:
        atoms, total = atoms + 1, total ^ leaf
    return atoms, total
