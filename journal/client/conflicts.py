"""Changes that were refused: kept with both versions until somebody settles them.

Each function is work inside a transaction of SQLite.
"""

import json
import sqlite3
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from journal.client import local, stored
from journal.client.change import Patch, Status, over
from journal.client.clock import Moment
from journal.client.local import Wish
from journal.client.problems import InvalidChange
from journal.core.equal import same
from journal.core.model import Policy, PushOp
from journal.wire import ConflictAnswer

Keep = Literal["server", "client", "both"]


class Conflict(msgspec.Struct, frozen=True):
    """A change that was not recorded.

    `mine`: the atom as the change would have left it (None: deleted); `made_on`: as it was before (None: not there);
    `theirs`: as it stands at the server at `theirs_revision`, as far as the answer said it (None: it does not live).
    `status`: `conflict`; `rejected`, for the reason `error`; `not_applied`, since its transaction was refused;
    `forgotten`, where the server knows no more what became of it and the data is not as it left it.
    """

    id: int
    collection: str
    atom: str
    op: PushOp
    status: Status
    mine: dict[str, Any] | None
    made_on: dict[str, Any] | None
    theirs: dict[str, Any] | None
    theirs_revision: int | None
    error: str | None
    at: datetime


_COLUMNS = "id, collection, atom, op, status, data, unset, made_on, theirs, theirs_revision, error, at"


def waiting(db: sqlite3.Connection) -> list[Conflict]:
    """Those that nobody has settled, oldest first."""
    return [_conflict(*row) for row in db.execute(f"select {_COLUMNS} from conflict where settled is null order by id")]


def some(db: sqlite3.Connection, numbers: list[int]) -> list[Conflict]:
    """Those of them that are still there."""
    found = (db.execute(f"select {_COLUMNS} from conflict where id = ?", (one,)).fetchone() for one in numbers)
    return [_conflict(*row) for row in found if row is not None]


def settle(db: sqlite3.Connection, number: int, keep: Keep, copy: str | None, policy: Policy, now: Moment) -> None:
    """Settle one, and make the change again that this takes. InvalidChange where it is settled already."""
    row = db.execute(
        "select collection, atom, op, data, unset, made_on, settled from conflict where id = ?", (number,)
    ).fetchone()
    if row is None or row[6] is not None:
        raise InvalidChange(f"conflict {number} is settled already")
    collection, atom, op, data, unset, made_on, _ = row
    patch = stored.patch(op, data, unset)
    mine = over(stored.as_bytes(made_on), patch, stored.as_bytes(made_on))
    if keep == "client":
        local.write(db, Wish(collection, atom, _again(db, collection, atom, patch, mine), policy, now))
    elif keep == "both":
        if mine is None or copy is None:
            raise InvalidChange("of a delete there is nothing to keep beside what stands")
        local.write(db, Wish(collection, copy, Patch("insert", mine), policy, now))
    db.execute("update conflict set settled = ? where id = ?", (keep, number))


def mark_told(db: sqlite3.Connection, *, number: int) -> None:
    """The service knows that it was settled."""
    db.execute("update conflict set told = 1 where id = ?", (number,))


def is_of(db: sqlite3.Connection, *, number: int, kept: ConflictAnswer) -> bool:
    """Whether it is the same change; a journal that was set back or made anew gives its names once more."""
    *said, data = db.execute(
        "select op, collection, atom, unset, data from conflict where id = ?", (number,)
    ).fetchone()
    if said != [kept.op, kept.collection, kept.atom, msgspec.json.encode(kept.unset).decode()]:
        return False
    if data is None or kept.data is UNSET:
        return data is None and kept.data is UNSET
    return same(data.encode(), bytes(kept.data))


def untold(db: sqlite3.Connection) -> list[tuple[int, str]]:
    """Those that were settled here and that the service keeps: their ids, and their names there."""
    return db.execute(
        "select id, kept from conflict where settled is not null and kept is not null and told = 0"
    ).fetchall()


def _again(db: sqlite3.Connection, collection: str, atom: str, patch: Patch, mine: bytes | None) -> Patch:
    """The change as it can be made on what is here now."""
    if mine is None:
        return Patch("delete")
    if patch.op == "update" and local.read(db, collection, atom) is not None:
        return patch
    return Patch("put", mine)


def _conflict(
    number: int, collection: str, atom: str, op: PushOp, status: Status, data: str | None, unset: str,
    made_on: str | None, theirs: str | None, theirs_revision: int | None, error: str | None, at: float,
) -> Conflict:  # fmt: skip
    before = stored.as_bytes(made_on)
    mine = over(before, stored.patch(op, data, unset), before)
    return Conflict(
        number, collection, atom, op, status, _decoded(mine), _decoded(before), _decoded(stored.as_bytes(theirs)),
        theirs_revision, error, datetime.fromtimestamp(at, UTC),
    )  # fmt: skip


def _decoded(data: bytes | None) -> dict[str, Any] | None:
    return None if data is None else json.loads(data)
