"""The outbox: which changes are pushed next, under which number, and as what.

Each function is work inside a transaction of SQLite. The rule (docs/properties.md, P6 and P9): a push has its number
and its content before it is first sent, and keeps both until it was answered (client/settling.py). What is changed
meanwhile is another change with a higher version.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw

from journal.client import file, stored
from journal.client.change import FAILED, Patch, Status
from journal.client.clock import Clock, Moment
from journal.core.model import Key, PushOp

MOST_CHANGES = 1000
MOST_BYTES = 2 << 20


class Waiting(msgspec.Struct, frozen=True):
    """A change as it is sent. `status` and `revision`: what it was answered before, where it is offered again."""

    seq: int
    collection: str
    atom: str
    version: int
    patch: Patch
    base: int | None
    made_on: bytes | None
    by_data: bool
    moment: Moment
    status: Status | None
    revision: int | None

    @property
    def has_failed(self) -> bool:
        """Whether it had been refused: it goes again only with what was acknowledged beside it."""
        return self.status in FAILED

    @property
    def key(self) -> Key:
        """Its atom."""
        return self.collection, self.atom


class Sending(msgspec.Struct, frozen=True):
    """A push. `attempts`: how often it was sent, this time included. `is_last`: nothing waits behind it."""

    id: int
    client: str
    number: int
    policy: str
    is_atomic: bool
    attempts: int
    is_offered: bool
    changes: list[Waiting]
    is_last: bool


def next_push(db: sqlite3.Connection, *, is_numbered: bool = False) -> Sending | None:
    """The push to send now: one that was numbered and not answered, else what waits; None where nothing does.

    `is_numbered`: nothing is numbered now.
    """
    client = file.meta(db, "client")
    row = db.execute(
        "select id from push where answered is null order by client = ?, number limit 1", (client,)
    ).fetchone()
    push = row[0] if row is not None else None if is_numbered else _number(db, client)
    if push is None:
        return None
    db.execute("update push set attempts = attempts + 1 where id = ?", (push,))
    row = db.execute(
        "select id, client, number, policy, atomic, attempts, offered from push where id = ?", (push,)
    ).fetchone()
    is_last = db.execute(
        "select not exists (select 1 from push where answered is null and id != ?)"
        " and not exists (select 1 from change where push is null and status is null)",
        (push,),
    ).fetchone()[0]
    number, name, count, policy, atomic, attempts, offered = row
    return Sending(number, name, count, policy, bool(atomic), attempts, bool(offered), _of(db, push), bool(is_last))


def body(sending: Sending, cursor: str | None, clock: Clock) -> dict[str, Any]:
    """What is sent of it. A change's own base is a revision of the history of `cursor`, the push's."""
    changes = [_told(change, clock, has_cursor=cursor is not None) for change in sending.changes]
    sent: dict[str, Any] = {
        "client": sending.client, "push": sending.number, "on_conflict": sending.policy, "changes": changes,
    }  # fmt: skip
    if sending.is_atomic:
        sent["atomic"] = True
    if any("base" in change for change in changes):
        sent["base"] = cursor
    return sent


def renumber(db: sqlite3.Connection, sending: Sending, *, highest: int = 0, is_new_client: bool = False) -> None:
    """Nothing was or will be recorded under a number: what it held goes under a new one, with what it was made on."""
    if is_new_client and sending.client == file.meta(db, "client"):
        file.take_new_identity(db)
    number = max(file.meta(db, "pushed"), highest) + 1
    file.tell(db, "pushed", number)
    client = file.meta(db, "client")
    db.execute("update push set client = ?, number = ?, attempts = 0 where id = ?", (client, number, sending.id))
    db.execute("update change set by_data = 1 where push = ?", (sending.id,))


def say_by_data(db: sqlite3.Connection, sending: Sending, places: Iterable[int]) -> None:
    """What has no base after all goes with the data it was made on."""
    seqs = [(sending.changes[place].seq,) for place in places]
    db.executemany("update change set by_data = 1 where seq = ?", seqs)


def halve(db: sqlite3.Connection, sending: Sending) -> None:
    """A push that was not taken for its size: the second half of it waits again."""
    middle = sending.changes[len(sending.changes) // 2].seq
    db.execute("update change set push = null where push = ? and seq >= ?", (sending.id, middle))


def say_all_by_data(db: sqlite3.Connection) -> None:
    """After a 410: what is unsettled goes with the data it was made on, never with a raised base."""
    db.execute("update change set by_data = 1 where status is null")


def offer(db: sqlite3.Connection) -> None:
    """The server was set back: what it had acknowledged is sent again, under the old numbers; all goes by data."""
    file.tell(db, "acknowledged", None)
    db.execute("update push set answered = null, offered = 1, attempts = 0 where answered is not null")
    db.execute("update change set by_data = 1 where push in (select id from push where offered = 1)")
    say_all_by_data(db)


def purge(db: sqlite3.Connection, before: float) -> None:
    """Let go of pushes that were answered before a moment, and of settled conflicts that nothing is left of."""
    db.execute(
        "delete from change where push in (select id from push p where answered < ?"
        " and not exists (select 1 from change c where c.push = p.id and c.passed = 0))",
        (before,),
    )
    db.execute(
        "delete from push where answered < ? and not exists (select 1 from change c where c.push = push.id)", (before,)
    )
    db.execute(  # one whose change may be offered again says that it was settled
        "delete from conflict where settled is not null and (kept is null or told = 1)"
        " and not exists (select 1 from change c where c.seq = conflict.seq)"
    )


def _number(db: sqlite3.Connection, client: str) -> int | None:
    """Number what waits; None where nothing does. A transaction is a push of its own."""
    rows = db.execute(
        "select seq, transaction_id, policy, length(data) from change where push is null and status is null"
        " order by seq limit ?",
        (MOST_CHANGES,),
    )
    first = rows.fetchone()
    if first is None:
        return None
    taken, transaction, policy, size = first
    for seq, its_transaction, its_policy, length in rows:
        size = (size or 0) + (length or 0)
        if transaction is not None or its_transaction is not None or its_policy != policy or size > MOST_BYTES:
            break
        taken = seq
    rows.close()
    number = file.meta(db, "pushed") + 1
    file.tell(db, "pushed", number)
    push = db.execute(
        "insert into push (client, number, policy, atomic) values (?, ?, ?, ?)",
        (client, number, policy, transaction is not None),
    ).lastrowid
    if transaction is not None:
        db.execute("update change set push = ? where push is null and transaction_id = ?", (push, transaction))
        return push
    db.execute("update change set push = ? where push is null and status is null and seq <= ?", (push, taken))
    return push


_COLUMNS = (
    "seq, collection, atom, version, op, data, unset, base, made_on, by_data,"
    " boot, steady_ns, wall_ns, status, revision"
)


def _of(db: sqlite3.Connection, push: int) -> list[Waiting]:
    rows = db.execute(f"select {_COLUMNS} from change where push = ? order by seq", (push,))
    return [_waiting(*row) for row in rows]


def _waiting(
    seq: int, collection: str, atom: str, version: int, op: PushOp, data: str | None, unset: str, base: int | None,
    made_on: str | None, by_data: int, boot: str, steady_ns: int, wall_ns: int, status: Status | None,
    revision: int | None,
) -> Waiting:  # fmt: skip
    patch, moment = stored.patch(op, data, unset), Moment(boot, steady_ns, wall_ns)
    return Waiting(
        seq, collection, atom, version, patch, base, stored.as_bytes(made_on), bool(by_data), moment, status, revision
    )


def _told(change: Waiting, clock: Clock, *, has_cursor: bool) -> dict[str, Any]:
    patch = change.patch
    told: dict[str, Any] = {"op": patch.op, "collection": change.collection, "atom": change.atom}
    if patch.data is not None:
        told["data"] = Raw(patch.data)
    if patch.unset:
        told["unset"] = patch.unset
    if patch.op != "insert":
        if change.has_failed:  # it is to fail again: somebody may have settled it
            told["if_data"] = {"refused": uuid4().hex}
        elif change.by_data or change.base is None or not has_cursor:
            told["if_data"] = None if change.made_on is None else Raw(change.made_on)
        else:
            told["base"] = change.base
    told["age_ms"] = clock.age_ms(change.moment)
    return told


def followers_of(db: sqlite3.Connection, change: Waiting, *, with_transactions: bool = True) -> list[Waiting]:
    """Changes of the same atom that were made after it and not sent yet.

    Where it failed, one in a transaction is for the server to judge: it is recorded with the others or not at all.
    """
    rows = db.execute(
        f"select {_COLUMNS} from change where collection = ? and atom = ? and passed = 0 and seq > ? and push is null"
        " and (transaction_id is null or ?) order by seq",
        (change.collection, change.atom, change.seq, with_transactions),
    )
    return [_waiting(*row) for row in rows]


def forget_if_empty(db: sqlite3.Connection, sending: Sending) -> None:
    """A number that nothing is sent under is left out; the next one is greater."""
    db.execute(
        "delete from push where id = ? and not exists (select 1 from change where push = ?)", (sending.id, sending.id)
    )
