"""The tree over the places of atoms, as an index has it: sums and lists of what is beneath a prefix.

What a connection reads is of one moment.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from journal.core import digest
from journal.core.cursor import Cursor, parse
from journal.service.indexing import DEPTH, FORMAT

Of = Literal["revision", "content"]
DIGITS = 64
_encode = msgspec.json.Encoder().encode
_NODES = """
select prefix, atoms, revision, content from node
 where (?1 is null or collection in (select value from json_each(?1)))
   and depth = ?2
   and prefix between ?3 and ?4
"""
_ENTRIES = """
select place, collection, atom, revision, content from entry
 where (?1 is null or collection in (select value from json_each(?1)))
   and place between ?2 and ?3
 order by place
 limit ?4
"""
_ALL = -1


class Sum(msgspec.Struct):
    """How many atoms, and the XOR of their leaves."""

    atoms: int = 0
    digest: int = 0

    def add(self, atoms: int, leaf: int) -> None:
        """Some more."""
        self.atoms += atoms
        self.digest ^= leaf


class Entry(msgspec.Struct, frozen=True):
    """An atom in the index."""

    place: str
    collection: str
    atom: str
    revision: int
    content: int

    def leaf(self, of: Of) -> int:
        """Its leaf of either kind."""
        return self.content if of == "content" else digest.leaf(self.collection, self.atom, self.revision)


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """An index as of one moment; sqlite3.Error where it cannot be read."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as db:
        db.execute("pragma query_only = on")
        db.execute("begin")
        if db.execute("pragma user_version").fetchone() != (FORMAT,):
            raise sqlite3.DatabaseError("an index of another form")
        yield db


def standing(db: sqlite3.Connection) -> Cursor:
    """Where the journal stood that the index is of."""
    (text,) = db.execute("select cursor from standing").fetchone()
    return parse(text, parameter="standing")


def children(db: sqlite3.Connection, prefix: str, of: Of, collections: frozenset[str] | None) -> dict[str, Sum]:
    """The sums beneath the sixteen prefixes that are a digit longer, those with atoms, in order."""
    if len(prefix) == DIGITS:
        return {}
    found: dict[str, Sum] = {}
    if len(prefix) < DEPTH:
        nodes = (_names(collections), len(prefix) + 1, prefix + "0", prefix + "f")
        for child, atoms, revision, content in db.execute(_NODES, nodes):
            found.setdefault(child, Sum()).add(atoms, digest.from_bigint(content if of == "content" else revision))
    else:
        for entry in entries(db, prefix, collections, None, _ALL):
            found.setdefault(entry.place[: len(prefix) + 1], Sum()).add(1, entry.leaf(of))
    return found


def entries(
    db: sqlite3.Connection, prefix: str, collections: frozenset[str] | None, after: str | None, limit: int
) -> Iterator[Entry]:
    """Up to `limit` atoms beneath a prefix in the order of their places, those after the place `after`."""
    start, last = (bytes.fromhex(prefix.ljust(DIGITS, digit)) for digit in "0f")
    if after is not None:
        start = max(start, bytes.fromhex(after) + b"\0")  # the first one behind it: places are of one length
    for place, collection, atom, revision, content in db.execute(_ENTRIES, (_names(collections), start, last, limit)):
        yield Entry(place.hex(), collection, atom, revision, digest.from_bigint(content))


def totals(db: sqlite3.Connection) -> dict[str, Sum]:
    """Each collection's number of atoms, and their digest by revision."""
    found: dict[str, Sum] = {}
    for collection, atoms, revision in db.execute("select collection, atoms, revision from node where depth = 1"):
        found.setdefault(collection, Sum()).add(atoms, digest.from_bigint(revision))
    return found


def _names(collections: frozenset[str] | None) -> str | None:
    return None if collections is None else _encode(sorted(collections)).decode()
