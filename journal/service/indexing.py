"""Making an index of places, and moving one on: a SQLite file of a journal's atoms in the order of their places.

`entry` has the atoms, `node` the count and the digests of every prefix of up to DEPTH digits by collection, `standing`
the cursor that all of it is of. What is read are lines `[collection, atom, revision, data]`, null for the data of
what does not live any more; memory does not grow with them.

Hashing a million atoms would hold up everything else in a process: `python -m journal.service.indexing` does it in one
of its own, with low priority. Nothing is imported here that would make it slow to start.
"""

import operator
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby, islice
from typing import Any

import msgspec

from journal.core import digest

FORMAT = 1
DEPTH = 3
CHUNK = 5000
CACHE_KIB = 32 * 1024
BUSY_S = 30.0

SCHEMA = f"""
pragma user_version = {FORMAT};
create table standing (cursor text not null);
create table entry (
  place blob primary key, collection text not null, atom text not null, revision int not null, content int not null
) without rowid;
create table node (
  depth int, prefix text, collection text, atoms int not null, revision int not null, content int not null,
  primary key (depth, prefix, collection)
) without rowid;
"""
SHORTER = """
insert into node
select depth - 1, substr(prefix, 1, depth - 1), collection, sum(atoms), xor_of(revision), xor_of(content)
  from node
 where depth = ?
 group by 2, 3
"""
ADD = """
insert into node values (?, ?, ?, ?, ?, ?)
    on conflict (depth, prefix, collection) do update
   set atoms = atoms + excluded.atoms,
       revision = xor(revision, excluded.revision),
       content = xor(content, excluded.content)
"""
KNOWN = "select place, collection, atom, revision, content from entry where place = ?"
EMPTY = "delete from node where depth = ? and prefix = ? and collection = ? and atoms = 0"

Line = tuple[str, str, int, msgspec.Raw]
Row = tuple[bytes, str, str, int, int | None]  # place, collection, atom, revision, content leaf: null if it is gone
_read = msgspec.json.Decoder(Line).decode


def build(file: str, lines: str, cursor: str) -> None:
    """A new index of all the atoms in `lines`; it is whole once this returns."""
    with closing(_connected(file)) as db:
        db.executescript("pragma journal_mode = off; pragma synchronous = off;" + SCHEMA)
        db.execute("begin")
        db.executemany("insert into entry values (?, ?, ?, ?, ?)", _in_order(db, lines))
        in_order = db.execute("select place, collection, atom, revision, content from entry order by place")
        db.executemany("insert into node values (?, ?, ?, ?, ?, ?)", _deepest(in_order))
        for depth in range(DEPTH, 1, -1):
            db.execute(SHORTER, (depth,))
        db.execute("insert into standing values (?)", (cursor,))
        db.execute("commit")
        db.execute("pragma journal_mode = wal")  # from now on it is read while it moves on
    with open(file, "rb") as written:
        os.fsync(written.fileno())


def update(file: str, lines: str, was: str, cursor: str) -> None:
    """Move an index on by what has changed since `was`; nothing is done where it does not stand there any more."""
    with closing(_connected(file)) as db:
        db.execute("begin immediate")
        if db.execute("select cursor from standing").fetchone() != (was,):
            return
        changed = _in_order(db, lines)
        while chunk := list(islice(changed, CHUNK)):
            _apply(db, chunk)
        db.execute("update standing set cursor = ?", (cursor,))
        db.execute("commit")


def _connected(file: str) -> sqlite3.Connection:
    db = sqlite3.connect(file, isolation_level=None, timeout=BUSY_S)
    db.execute(f"pragma cache_size = -{CACHE_KIB}")
    db.create_function("xor", 2, operator.xor, deterministic=True)
    db.create_aggregate("xor_of", 1, _XorOf)
    return db


class _XorOf:
    def __init__(self) -> None:
        self.value = 0

    def step(self, value: int) -> None:
        self.value ^= value

    def finalize(self) -> int:
        return self.value


def _in_order(db: sqlite3.Connection, lines: str) -> Iterator[Row]:
    """The lines' rows by place, so that a page of the file is written once; SQLite sorts them, on disk if need be."""
    db.execute("create temp table unsorted (place blob, collection text, atom text, revision int, content int)")
    with open(lines, "rb") as file:
        db.executemany("insert into unsorted values (?, ?, ?, ?, ?)", map(_row, map(_read, file)))
    yield from db.execute("select place, collection, atom, revision, content from unsorted order by place")


def _row(line: Line) -> Row:
    collection, atom, revision, data = line
    content = None
    if bytes(data) != b"null":
        content = digest.to_bigint(digest.content_leaf(collection, atom, bytes(data)))
    return digest.place(collection, atom), collection, atom, revision, content


def _deepest(in_order: Iterable[Row]) -> Iterator[tuple[Any, ...]]:
    """The nodes of DEPTH digits."""
    for prefix, rows in groupby(in_order, lambda row: row[0].hex()[:DEPTH]):
        sums: dict[str, list[int]] = {}
        for _, collection, atom, revision, content in rows:
            of = sums.setdefault(collection, [0, 0, 0])
            of[0] += 1
            of[1] ^= _revision_leaf(collection, atom, revision)
            of[2] ^= content or 0
        for collection, of in sums.items():
            yield DEPTH, prefix, collection, *of


def _apply(db: sqlite3.Connection, rows: list[Row]) -> None:
    """Put rows in place of what was there, and the difference into the nodes."""
    sums: dict[tuple[int, str, str], list[int]] = {}

    def count(row: Row, sign: int) -> None:
        place, collection, atom, revision, content = row
        leaf, digits = _revision_leaf(collection, atom, revision), place.hex()
        for depth in range(1, DEPTH + 1):
            of = sums.setdefault((depth, digits[:depth], collection), [0, 0, 0])
            of[0] += sign
            of[1] ^= leaf
            of[2] ^= content or 0

    for row in rows:
        known = db.execute(KNOWN, row[:1]).fetchone()
        if known is not None:
            db.execute("delete from entry where place = ?", row[:1])
            count(known, -1)
        if row[4] is not None:
            db.execute("insert into entry values (?, ?, ?, ?, ?)", row)
            count(row, 1)
    db.executemany(ADD, ((*node, *of) for node, of in sums.items()))
    db.executemany(EMPTY, sums)


def _revision_leaf(collection: str, atom: str, revision: int) -> int:
    return digest.to_bigint(digest.leaf(collection, atom, revision))


HOW: dict[str, Callable[..., None]] = {"build": build, "update": update}


def main(how: str, *arguments: str) -> None:
    """What a process of its own does."""
    os.nice(10)
    HOW[how](*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
