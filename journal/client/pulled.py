"""What the server says, put into base: deltas, snapshots, atoms that were looked up.

Each function is work inside a transaction of SQLite. The rule: what is applied and where the replica stands then are
one commit; what was changed here is put over it again and never overwritten (docs/properties.md, P9 and P10).
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec
from msgspec import UNSET

from journal.client import file
from journal.client.local import feed, feed_all, is_news, plain, refresh
from journal.client.outbox import say_all_by_data
from journal.client.settling import pass_changes
from journal.core import cursor as cursors
from journal.core import digest
from journal.core.consolidate import Delta, patched
from journal.core.model import Key
from journal.wire import Deltas

SWEPT = 5000


class Line(msgspec.Struct):
    """A snapshot's line."""

    collection: str
    atom: str
    revision: int
    data: msgspec.Raw


class Loaded(msgspec.Struct):
    """Rows of a generation that is not in place yet: how many, and their digest."""

    generation: int
    atoms: int = 0
    digest: int = 0


class Applied(msgspec.Struct, frozen=True):
    """What a page left: whether the round is over, and whether the digest is the server's (None: not comparable).

    `is_in_doubt`: the data is to be compared by content, whatever the digest says.
    """

    is_complete: bool
    is_equal: bool | None
    is_in_doubt: bool = False


def apply(db: sqlite3.Connection, page: Deltas, now: float) -> Applied:
    """Apply a page of deltas and stand where it ends."""
    before = file.meta(db, "cursor")
    at = cursors.parse(page.cursor, parameter="cursor")
    base = _Base(db)
    touched = {(delta.collection, delta.atom) for delta in page.deltas if base.apply(delta)}
    base.write()
    if page.more and (before is None or file.cursor(db).base is None):  # type: ignore[union-attr]
        file.tell(db, "round_began", before)
    file.tell(db, "cursor", page.cursor)
    if page.head is not UNSET:
        file.tell(db, "head", page.head)
    keys = [(delta.collection, delta.atom, delta.revision) for delta in page.deltas]
    others = [key[:2] for key in keys if key[:2] not in touched or _pass_atom(db, key[:2], key[2])]
    feed_all(db, others)
    if page.more:
        return Applied(is_complete=False, is_equal=None)
    _end_round(db, at.revision)
    file.tell(db, "synced_at", now)
    is_ahead = db.execute("select exists (select 1 from ahead)").fetchone()[0]
    is_equal = None if page.digest is UNSET or is_ahead else whole_digest(db, at.collections) == page.digest
    return Applied(is_complete=True, is_equal=is_equal, is_in_doubt=bool(file.meta(db, "in_doubt")))


def whole_digest(db: sqlite3.Connection, collections: frozenset[str] | None) -> str:
    """The digest of base, as it was kept."""
    total = 0
    for name, kept in db.execute("select name, digest from collection"):
        if collections is None or name in collections:
            total ^= digest.from_bigint(kept)
    return digest.told(total)


def mend(db: sqlite3.Connection, found: Mapping[Key, tuple[int, bytes] | None], *, cursor: str | None) -> None:
    """Put looked-up atoms (revision and data, None: it does not live) in place of what base has.

    With a `cursor` the replica stands there from now on, and what is unsettled goes by data.
    """
    if cursor is not None:
        file.tell(db, "cursor", cursor)
        db.execute("delete from ahead")
        say_all_by_data(db)
    at = file.cursor(db)
    assert at is not None
    base = _Base(db)
    for key, held in found.items():
        base.put(key, held)
        if held is not None and held[0] > at.revision:
            db.execute("insert or replace into ahead values (?, ?, ?)", (*key, held[0]))
    feed_all(db, found)
    base.write()
    if cursor is not None and at.base is None:
        pass_changes(db, at.revision)
    for key, held in found.items():
        _pass_atom(db, key, 0 if held is None else held[0])


def recount(db: sqlite3.Connection) -> None:
    """Work out counts and digests from the rows themselves."""
    for name, generation in db.execute("select name, generation from collection").fetchall():
        atoms = total = 0
        for atom, revision in db.execute("select atom, revision from base where generation = ?", (generation,)):
            atoms += 1
            total ^= digest.leaf(name, atom, revision)
        db.execute("update collection set atoms = ?, digest = ? where name = ?", (atoms, digest.to_bigint(total), name))


def rows(db: sqlite3.Connection, wanted: frozenset[str] | None) -> Iterator[tuple[str, str, int, bytes]]:
    """All of base: collection, atom, revision, data."""
    for name, generation in db.execute("select name, generation from collection").fetchall():
        if wanted is None or name in wanted:
            found = db.execute("select atom, revision, data from base where generation = ?", (generation,))
            for atom, revision, data in found:
                yield name, atom, revision, data.encode()


def load(db: sqlite3.Connection, lines: Iterable[Line], loaded: dict[str, Loaded]) -> None:
    """Put lines of a snapshot into generations that nobody reads yet; `loaded` is kept up to date."""
    put = []
    for line in lines:
        into = loaded.get(line.collection)
        if into is None:
            into = loaded[line.collection] = Loaded(_next_generation(db))
        into.atoms += 1
        into.digest ^= digest.leaf(line.collection, line.atom, line.revision)
        put.append((into.generation, line.atom, line.revision, plain(bytes(line.data)).decode()))
    put.sort()  # as base_by_atom has them: pages of it are then read and written once for many rows
    db.executemany("insert into base (generation, atom, revision, data) values (?, ?, ?, ?)", put)


def apply_loaded(db: sqlite3.Connection, deltas: Iterable[Delta], loaded: dict[str, Loaded]) -> None:
    """Apply deltas to generations that nobody reads yet."""
    base = _Base(db, loaded)
    for delta in deltas:
        base.apply(delta)


def swap(
    db: sqlite3.Connection, loaded: Mapping[str, Loaded], cursor: str, *, replaced: Collection[str] | None, now: float
) -> None:
    """Put what was loaded in place of what there was, and stand at `cursor`.

    `replaced`: the collections that it is all of; None: it is everything. What it does not list is gone; what was
    changed here and is not passed stays on top, and goes by data.
    """
    names = {name for (name,) in db.execute("select name from collection")} | set(loaded)
    for name in names if replaced is None else replaced:
        into = loaded.get(name)
        if into is None:
            db.execute("delete from collection where name = ?", (name,))
        else:
            db.execute(
                "insert or replace into collection (name, generation, atoms, digest) values (?, ?, ?, ?)",
                (name, into.generation, into.atoms, digest.to_bigint(into.digest)),
            )
        feed(db, name, None)
    if replaced is None:
        db.execute("delete from ahead")
    else:
        db.executemany("delete from ahead where collection = ?", [(name,) for name in replaced])
    file.tell(db, "cursor", cursor)
    say_all_by_data(db)
    pass_changes(db, cursors.parse(cursor, parameter="cursor").revision)
    for key in db.execute("select collection, atom from local").fetchall():
        refresh(db, *key)
    file.tell(db, "synced_at", now)


def sweep(db: sqlite3.Connection) -> bool:
    """Remove some rows of generations that are not in place; False where there are none left."""
    in_place = {generation for (generation,) in db.execute("select generation from collection")}
    generation = -1
    while True:
        generation = db.execute("select min(generation) from base where generation > ?", (generation,)).fetchone()[0]
        if generation is None:
            return False
        if generation not in in_place:
            db.execute(
                "delete from base where id in (select id from base where generation = ? limit ?)", (generation, SWEPT)
            )
            return True


def keep_only(db: sqlite3.Connection, wanted: frozenset[str]) -> None:
    """The replica is of these collections from now on."""
    for (name,) in db.execute("select name from collection").fetchall():
        if name not in wanted:
            db.execute("delete from collection where name = ?", (name,))
            db.execute("delete from ahead where collection = ?", (name,))
            feed(db, name, None)


def taken(db: sqlite3.Connection) -> frozenset[str]:
    """The collections that it had, and may not read any more."""
    names: str | None = file.meta(db, "taken")
    return frozenset(names.split(",")) if names else frozenset()


def take(db: sqlite3.Connection, names: frozenset[str]) -> None:
    """Remember those that may not be read any more."""
    file.tell(db, "taken", ",".join(sorted(names)) or None)


def let_go(db: sqlite3.Connection, head: int) -> None:
    """Nothing of what there is may be read any more, since a head. What waits goes by data."""
    keep_only(db, frozenset())
    file.tell(db, "cursor", None)
    say_all_by_data(db)
    pass_changes(db, head)
    for key in db.execute("select collection, atom from local").fetchall():
        refresh(db, *key)


class _Base:
    """Rows of base while they are changed; the collections' counts and digests are written at the end."""

    def __init__(self, db: sqlite3.Connection, loaded: dict[str, Loaded] | None = None) -> None:
        self._db = db
        self._is_ahead = bool(db.execute("select exists (select 1 from ahead)").fetchone()[0]) and loaded is None
        self._has_local = bool(db.execute("select exists (select 1 from local)").fetchone()[0])
        if loaded is not None:
            self._into = loaded
        else:
            self._into = {
                name: Loaded(generation, atoms, digest.from_bigint(kept))
                for name, generation, atoms, kept in db.execute(
                    "select name, generation, atoms, digest from collection"
                )
            }

    def apply(self, delta: Delta) -> bool:
        """Apply a delta; whether the atom has changes of our own over it."""
        into = self._collection(delta.collection)
        row = self._row(into, delta.atom)
        if delta.op == "delete":
            data = None
        elif delta.op == "update":
            before = b"{}" if row is None else row[2].encode()
            data = patched(before, None if delta.data is UNSET else bytes(delta.data), delta.unset)
            if row is None:
                file.tell(self._db, "in_doubt", 1)  # the server thinks that we have it
        else:
            assert delta.data is not UNSET
            data = bytes(delta.data)
        self._replace(into, delta.collection, delta.atom, row, None if data is None else (delta.revision, data))
        if self._is_ahead:
            self._db.execute("delete from ahead where collection = ? and atom = ?", (delta.collection, delta.atom))
        return self._has_local and self._is_local(delta.collection, delta.atom)

    def put(self, key: Key, held: tuple[int, bytes] | None) -> None:
        """Have an atom so, or not at all."""
        into = self._collection(key[0])
        self._replace(into, *key, self._row(into, key[1]), held)

    def write(self) -> None:
        """Keep the counts and digests."""
        self._db.executemany(
            "insert into collection (name, generation, atoms, digest) values (?, ?, ?, ?)"
            " on conflict (name) do update set atoms = excluded.atoms, digest = excluded.digest",
            [(name, into.generation, into.atoms, digest.to_bigint(into.digest)) for name, into in self._into.items()],
        )

    def _collection(self, name: str) -> Loaded:
        into = self._into.get(name)
        if into is None:
            into = self._into[name] = Loaded(_next_generation(self._db))
        return into

    def _is_local(self, collection: str, atom: str) -> bool:
        found = self._db.execute("select 1 from local where collection = ? and atom = ?", (collection, atom))
        return found.fetchone() is not None

    def _row(self, into: Loaded, atom: str) -> tuple[int, int, str] | None:
        row: tuple[int, int, str] | None = self._db.execute(
            "select id, revision, data from base where generation = ? and atom = ?", (into.generation, atom)
        ).fetchone()
        return row

    def _replace(
        self, into: Loaded, collection: str, atom: str, row: tuple[int, int, str] | None, held: tuple[int, bytes] | None
    ) -> None:
        if row is not None:
            into.atoms -= 1
            into.digest ^= digest.leaf(collection, atom, row[1])
        if held is not None:
            into.atoms += 1
            into.digest ^= digest.leaf(collection, atom, held[0])
            text = plain(held[1]).decode()
            if row is None:
                self._db.execute(
                    "insert into base (generation, atom, revision, data) values (?, ?, ?, ?)",
                    (into.generation, atom, held[0], text),
                )
            else:
                self._db.execute("update base set revision = ?, data = ? where id = ?", (held[0], text, row[0]))
        elif row is not None:
            self._db.execute("delete from base where id = ?", (row[0],))


def _pass_atom(db: sqlite3.Connection, key: Key, revision: int) -> bool:
    """Base has an atom as it was at a revision: what was acknowledged up to it is in there.

    Whether it is seen as another than before.
    """
    db.execute(
        "update change set passed = 1 where collection = ? and atom = ? and passed = 0"
        " and status is not null and status != 'forgotten' and revision <= ?",
        (*key, revision),
    )
    return is_news(db, *key)


def _end_round(db: sqlite3.Connection, revision: int) -> None:
    """The data is whole at a revision: what was ahead of it and not told is gone, what was acknowledged is passed."""
    gone = db.execute("select collection, atom from ahead where revision <= ?", (revision,)).fetchall()
    if gone:
        base = _Base(db)
        for key in gone:
            base.put(key, None)
            db.execute("delete from ahead where collection = ? and atom = ?", key)
            feed(db, *key)
        base.write()
        for key in gone:
            refresh(db, *key)
    pass_changes(db, revision)


def _next_generation(db: sqlite3.Connection) -> int:
    generation: int = file.meta(db, "generation") + 1
    file.tell(db, "generation", generation)
    return generation
