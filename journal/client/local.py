"""What an application does at its replica: it writes changes that wait to be pushed, and reads what it wrote at once.

Each function is work inside a transaction of SQLite. The rule: a change is kept with the data it was made on and with
the revision at which that was known, whatever is pulled afterwards.
"""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from journal.client import file, stored
from journal.client.change import Made, Patch, collapsed, over, says_nothing, seen
from journal.client.clock import Moment
from journal.client.problems import AtomExists, AtomMissing
from journal.core.equal import same
from journal.core.model import Key, Policy, decode_fields, encode_fields

FEED_KEPT = 20_000
TRIMMED = 1000  # lines that are written between looks at how many there are


class Wish(msgspec.Struct, frozen=True):
    """A change that is to be made. `transaction`: what it is to be recorded together with."""

    collection: str
    atom: str
    patch: Patch
    policy: Policy
    moment: Moment
    transaction: str | None = None


class Sought(msgspec.Struct, frozen=True):
    """A field and the value that it is to have."""

    field: str
    value: str | float | bool | None


def read(db: sqlite3.Connection, collection: str, atom: str) -> bytes | None:
    """An atom's data, with what was changed here; None where there is none."""
    row = db.execute("select data from local where collection = ? and atom = ?", (collection, atom)).fetchone()
    return _base(db, collection, atom) if row is None else stored.as_bytes(row[0])


def write(db: sqlite3.Connection, wish: Wish) -> bool:
    """Make a change; False where it changes nothing. AtomExists, AtomMissing."""
    data = read(db, wish.collection, wish.atom)
    if wish.patch.op == "insert" and data is not None:
        raise AtomExists(wish.collection, wish.atom)
    if wish.patch.op == "update" and data is None:
        raise AtomMissing(wish.collection, wish.atom)
    if says_nothing(data, wish.patch):
        return False
    if (is_one := _collapse(db, wish)) is None:
        _append(db, wish, data)
    if is_one is False:
        refresh(db, wish.collection, wish.atom)
    else:
        _show(db, wish, over(data, wish.patch, data))
    feed(db, wish.collection, wish.atom, is_local=True)
    return True


def refresh(db: sqlite3.Connection, collection: str, atom: str) -> None:
    """Work out again what is seen of an atom; without changes of its own it is what base says."""
    changes, version, synced = _active(db, collection, atom)
    if not changes:
        db.execute("delete from local where collection = ? and atom = ?", (collection, atom))
        return
    data = seen(_base(db, collection, atom), changes)
    db.execute(
        "insert into local (collection, atom, version, version_synced, data) values (?, ?, ?, ?, ?)"
        " on conflict (collection, atom) do update set version = excluded.version, data = excluded.data",
        (collection, atom, version, synced, stored.as_text(data)),
    )


def is_news(db: sqlite3.Connection, collection: str, atom: str) -> bool:
    """Work it out again, and whether it is another than what was seen before."""
    before = read(db, collection, atom)
    refresh(db, collection, atom)
    after = read(db, collection, atom)
    return before is not after if before is None or after is None else not same(before, after)


def plain(data: bytes) -> bytes:
    """Data whose fields are spelled as they are sought: SQLite before 3.45 finds no field that is written escaped."""
    return encode_fields(decode_fields(data)) if b"\\" in data else data


def feed(db: sqlite3.Connection, collection: str, atom: str | None, *, is_local: bool = False) -> None:
    """Tell those who look at the data that an atom, or all of a collection, may be another."""
    told = db.execute("insert into feed (collection, atom, is_local) values (?, ?, ?)", (collection, atom, is_local))
    if told.lastrowid is not None and told.lastrowid % TRIMMED == 0:
        _trim_feed(db)


def _trim_feed(db: sqlite3.Connection) -> None:
    """Let go of the oldest lines of the feed."""
    db.execute("delete from feed where seq <= (select max(seq) from feed) - ?", (FEED_KEPT,))


def feed_all(db: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """The same of many atoms that others changed."""
    db.executemany("insert into feed (collection, atom, is_local) values (?, ?, 0)", keys)
    _trim_feed(db)


def items(
    db: sqlite3.Connection, collection: str, after: str, limit: int, sought: Sequence[Sought] = ()
) -> list[tuple[str, bytes]]:
    """Atoms in the order of their names, from behind one on: name and data."""
    found = _found(db, collection, after, limit, sought) if sought else _all(db, collection, after, limit)
    return [(atom, data.encode()) for atom, data in found]


def _all(db: sqlite3.Connection, collection: str, after: str, limit: int) -> sqlite3.Cursor:
    """Both sides tell of an atom that is in both, and the same: none has to skip all that the other has."""
    return db.execute(
        "select b.atom, case when l.atom is null then b.data else l.data end"
        " from collection c join base b on b.generation = c.generation"
        " left join local l on l.collection = c.name and l.atom = b.atom"
        " where c.name = ? and b.atom > ? and (l.atom is null or l.data is not null)"
        " union select l.atom, l.data from local l where l.collection = ? and l.atom > ? and l.data is not null"
        " order by 1, 2 limit ?",
        (collection, after, collection, after, limit),
    )


def _found(db: sqlite3.Connection, collection: str, after: str, limit: int, sought: Sequence[Sought]) -> sqlite3.Cursor:
    by_base, by_local = _by_index(db, sought)
    base, bound = _conditions("b.data", sought)
    local, _ = _conditions("l.data", sought)
    return db.execute(
        f"select b.atom, b.data from collection c join base b {by_base} on b.generation = c.generation"
        f" where c.name = ? and b.atom > ? {base}"
        " and not exists (select 1 from local l where l.collection = c.name and l.atom = b.atom)"
        f" union all select l.atom, l.data from local l {by_local}"
        f" where l.collection = ? and l.atom > ? and l.data is not null {local}"
        " order by 1 limit ?",
        (collection, after, *bound, collection, after, *bound, limit),
    )


def count(db: sqlite3.Connection, collection: str, sought: Sequence[Sought] = ()) -> int:
    """How many atoms there are."""
    by_base, by_local = _by_index(db, sought)
    base, bound = _conditions("b.data", sought)
    local, _ = _conditions("l.data", sought)
    counted: int = db.execute(
        f"select (select count(*) from collection c join base b {by_base} on b.generation = c.generation"
        f" where c.name = ? {base}"
        " and not exists (select 1 from local l where l.collection = c.name and l.atom = b.atom))"
        f" + (select count(*) from local l {by_local} where l.collection = ? and l.data is not null {local})",
        (collection, *bound, collection, *bound),
    ).fetchone()[0]
    return counted


def collections(db: sqlite3.Connection) -> list[str]:
    """Those that have atoms."""
    found = db.execute(
        "with recursive mine (name) as (select min(collection) from local"
        " union all select (select min(collection) from local where collection > mine.name) from mine where name > '')"
        " select name from mine where name > '' union select name from collection order by 1"
    ).fetchall()
    return [name for (name,) in found if items(db, name, "", 1)]


def add_index(db: sqlite3.Connection, field: str) -> None:
    """Find atoms by a field without reading them all."""
    if not _is_plain(field):
        raise ValueError(f"no index can be made on {field!r}: a quote, backslash or control character is in it")
    base, local = _indexes(field)
    db.execute(f"create index if not exists {base} on base (generation, {_extracted('data', field)}, atom)")
    db.execute(f"create index if not exists {local} on local (collection, {_extracted('data', field)}, atom)")


def waiting(db: sqlite3.Connection) -> int:
    """Changes that were not answered yet."""
    counted: int = db.execute(
        "select (select count(*) from change where push is null)"
        " + (select count(*) from push cross join change on change.push = push.id"
        " where push.answered is null and change.passed = 0)"
    ).fetchone()[0]
    return counted


def has_waiting(db: sqlite3.Connection) -> bool:
    """Whether there are any."""
    has: int = db.execute(
        "select exists (select 1 from change where push is null)"
        " or exists (select 1 from push cross join change on change.push = push.id"
        " where push.answered is null and change.passed = 0)"
    ).fetchone()[0]
    return bool(has)


def _show(db: sqlite3.Connection, wish: Wish, data: bytes | None) -> None:
    """What `refresh` would come to, however many changes the atom has: the newest is put over what was seen."""
    db.execute(
        "insert into local (collection, atom, version, data) values (?, ?, 1, ?)"
        " on conflict (collection, atom) do update set version = version + 1, data = excluded.data",
        (wish.collection, wish.atom, stored.as_text(data)),
    )


def _append(db: sqlite3.Connection, wish: Wish, made_on: bytes | None) -> None:
    base, by_data = _known(db, wish.collection, wish.atom)
    row = db.execute(
        "select version from local where collection = ? and atom = ?", (wish.collection, wish.atom)
    ).fetchone()
    moment = wish.moment
    db.execute(
        "insert into change (collection, atom, version, op, data, unset, base, made_on, by_data, policy,"
        " transaction_id, boot, steady_ns, wall_ns) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            wish.collection, wish.atom, 1 if row is None else row[0] + 1, *stored.columns(wish.patch), base,
            stored.as_text(made_on), by_data, wish.policy, wish.transaction, moment.boot, moment.steady_ns,
            moment.wall_ns,
        ),
    )  # fmt: skip


def _collapse(db: sqlite3.Connection, wish: Wish) -> bool | None:
    """Put a change into the one before it: the newest of all, of the same atom, and neither sent nor in a transaction.

    Where another atom was changed in between, both stay: what was done first is pushed first. None where they do not
    become one, False where they come to nothing.
    """
    if wish.transaction is not None:
        return None
    row = db.execute(
        "select seq, op, data, unset, made_on, collection, atom, policy from change"
        " where seq = (select max(seq) from change) and push is null and transaction_id is null"
    ).fetchone()
    if row is None or row[5:] != (wish.collection, wish.atom, wish.policy):
        return None
    seq, op, data, unset, made_on = row[:5]
    both = collapsed(stored.patch(op, data, unset), stored.as_bytes(made_on), wish.patch)
    if both is None:
        db.execute("delete from change where seq = ?", (seq,))
        return False
    moment = wish.moment
    db.execute(
        "update change set version = version + 1, op = ?, data = ?, unset = ?, boot = ?, steady_ns = ?, wall_ns = ?"
        " where seq = ?",
        (
            *stored.columns(both), moment.boot, moment.steady_ns, moment.wall_ns, seq,
        ),
    )  # fmt: skip
    return True


def _known(db: sqlite3.Connection, collection: str, atom: str) -> tuple[int | None, bool]:
    """The revision at which an atom is known here, or that only its data can say it.

    What is not there is known not to be at the revision that the data was last whole at, if the cursor covers it.
    """
    last = db.execute(
        "select status, base, by_data, revision from change where collection = ? and atom = ? and passed = 0"
        " order by seq desc limit 1",
        (collection, atom),
    ).fetchone()
    if last is not None:
        status, base, by_data, revision = last
        return (base, bool(by_data)) if status is None else (revision, revision is None or status == "forgotten")
    row = stored.in_base(db, collection, atom)
    if row is not None:
        return row[0], False
    at = file.cursor(db)
    if at is None or (at.collections is not None and collection not in at.collections):
        return None, True
    return at.round_base, False


def _active(db: sqlite3.Connection, collection: str, atom: str) -> tuple[list[Made], int, int]:
    """The changes of an atom that the cursor has not passed, their highest version, and that of the answered ones."""
    rows = db.execute(
        "select seq, op, data, unset, made_on, status, has_current, current, version from change"
        " where collection = ? and atom = ? and passed = 0 order by seq",
        (collection, atom),
    ).fetchall()
    made = [
        Made(seq, stored.patch(op, data, unset), stored.as_bytes(made_on), status, bool(has), stored.as_bytes(current))
        for seq, op, data, unset, made_on, status, has, current, _ in rows
    ]
    versions = [(row[8], row[5] is not None) for row in rows]
    answered = [version for version, is_answered in versions if is_answered]
    return made, max((version for version, _ in versions), default=0), max(answered, default=0)


def _base(db: sqlite3.Connection, collection: str, atom: str) -> bytes | None:
    row = stored.in_base(db, collection, atom)
    return None if row is None else row[1].encode()


def _indexes(field: str) -> tuple[str, str]:
    """The names of a field's indexes, on base and on local."""
    return f"base_field_{field.encode().hex()}", f"local_field_{field.encode().hex()}"


def _by_index(db: sqlite3.Connection, sought: Sequence[Sought]) -> tuple[str, str]:
    """How base and local are read where one of the fields has an index; SQLite would go through all in their order."""
    for one in sought:
        base, local = _indexes(one.field)
        is_by_value = one.value is not None and not isinstance(one.value, bool)
        if is_by_value and db.execute("select 1 from sqlite_master where name = ?", (local,)).fetchone():
            return f"indexed by {base}", f"indexed by {local}"
    return "", ""


def _conditions(column: str, sought: Sequence[Sought]) -> tuple[str, list[Any]]:
    """SQL that holds where the fields have the values, and what is bound in it."""
    text, bound = "", list[Any]()
    for one in sought:
        if not _is_plain(one.field):
            raise ValueError(
                f"no atom can be sought by {one.field!r}: a quote, backslash or control character is in it"
            )
        path = f"'{_path(one.field)}'"
        if one.value is None:
            text += f" and json_type({column}, {path}) = 'null'"
        elif isinstance(one.value, bool):
            text += f" and json_type({column}, {path}) = ?"
            bound.append("true" if one.value else "false")
        else:
            text += f" and {_extracted(column, one.field)} = ? and json_type({column}, {path}) in (?, ?)"
            bound += [_as_number(one.value), *(("text", "text") if isinstance(one.value, str) else ("integer", "real"))]
    return text, bound


def _as_number(value: str | float) -> str | float:
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _extracted(column: str, field: str) -> str:
    return f"json_extract({column}, '{_path(field)}')"


def _path(field: str) -> str:
    return '$."' + field.replace("'", "''") + '"'


_is_plain = re.compile(r'[^"\\\x00-\x1f]+').fullmatch
