"""The outbox: which changes are pushed next, under which number, and what became of them.

Each function is work inside a transaction of SQLite. The rule (docs/properties.md, P6 and P9): a push has its number
and its content before it is first sent, and keeps both until it was answered; a change leaves the outbox only by its
outcome. What is changed meanwhile is another change with a higher version.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import UNSET, Raw

from journal.client import file
from journal.client.change import FAILED, Patch, Status, collapsed, is_known_there, over, says_nothing
from journal.client.clock import Clock, Moment
from journal.client.local import feed, plain, refresh
from journal.core.model import Key, Outcome, PushOp
from journal.wire import PushAnswer

MOST_CHANGES = 1000
MOST_BYTES = 2 << 20
_names = msgspec.json.Decoder(tuple[str, ...]).decode


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


class _Held(msgspec.Struct, frozen=True):
    """A change that was acknowledged: it is kept in sight until the cursor is at `revision` (None: it is there)."""

    change: Waiting
    status: Status
    revision: int | None
    has_current: bool = False
    current: bytes | None = None

    @property
    def is_as_seen(self) -> bool:
        """Whether the atom is seen as before."""
        return self.revision is not None and not self.has_current


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


def settle(db: sqlite3.Connection, sending: Sending, answer: PushAnswer, now: float) -> list[int] | None:
    """Take the answer: what was recorded is seen until the cursor passes it, what failed is kept as a conflict.

    The conflicts' ids; None where it is the answer to another push, and this one waits again under a new name. `now`:
    seconds, for how long the push is kept.
    """
    is_first = sending.attempts == 1 and not sending.is_offered
    if is_first and answer.replayed and sending.client == file.meta(db, "client"):
        renumber(db, sending, is_new_client=True)  # somebody else counts under this name: the file is a copy
        return None
    db.execute("update push set answered = ?, offered = 0 where id = ?", (now, sending.id))
    if answer.chain:
        file.tell(db, "acknowledged", f"{answer.epoch}:{answer.head}:{answer.chain}")
    kept: list[int] = []
    held: list[_Held] = []
    stands: dict[Key, _Held] = {}  # what those behind it are made on, whatever they are: the last of each atom counts
    renewed: set[Key] = set()
    outcomes: Sequence[Outcome | None] = answer.outcomes or [None] * len(sending.changes)
    is_refused = sending.is_atomic and any(outcome and outcome.status in FAILED for outcome in outcomes)
    for change, outcome in zip(sending.changes, outcomes, strict=True):
        if sending.is_offered and answer.replayed and _is_known(change, outcome, is_refused=is_refused):
            continue  # the server has not lost it
        if outcome is None:
            held.append(_Held(change, "forgotten", answer.head))
            followers = [(follower.seq,) for follower in _followers(db, change)]
            db.executemany("update change set by_data = 1 where seq = ?", followers)
            continue
        is_failed = outcome.status in FAILED or is_refused
        if not is_failed:
            held.append(_acknowledged(change, outcome))
            if held[-1].is_as_seen:
                stands[change.key] = held[-1]
                continue
        renewed.add(change.key)
        if change.key in stands:
            _follow(db, [stands.pop(change.key)])
        if is_failed:
            kept += _fail(db, change, outcome, now, is_refused=is_refused)
        else:
            _follow_known(db, held[-1])
    _follow(db, stands.values())
    _hold(db, held)
    for key in {change.key for change in sending.changes} if sending.is_offered else renewed:
        _see(db, *key)
    at = file.cursor(db)
    if at is not None and at.base is None:
        pass_changes(db, at.revision)
    return kept


def renumber(db: sqlite3.Connection, sending: Sending, *, highest: int = 0, is_new_client: bool = False) -> None:
    """Nothing was or will be recorded under a number: what it held goes under a new one, with what it was made on."""
    if is_new_client and sending.client == file.meta(db, "client"):
        file.take_new_identity(db)
    number = max(file.meta(db, "pushed"), highest) + 1
    file.tell(db, "pushed", number)
    client = file.meta(db, "client")
    db.execute("update push set client = ?, number = ?, attempts = 0 where id = ?", (client, number, sending.id))
    db.execute("update change set by_data = 1 where push = ?", (sending.id,))


def refuse(db: sqlite3.Connection, sending: Sending, faults: Mapping[int, str], now: float) -> list[int]:
    """Changes that the service does not take, by their place in the push, are kept as rejected; the rest is sent.

    Of an atomic push all are; else what was made on such a change is kept as a conflict.
    """
    if sending.is_atomic:
        faults = {place: faults.get(place, "") for place in range(len(sending.changes))}
    failed: dict[int, tuple[Waiting, Status, str | None]] = {}
    for place, detail in faults.items():
        change = sending.changes[place]
        failed[change.seq] = change, "rejected" if detail else "not_applied", detail or None
        for follower in [*sending.changes[place + 1 :], *_followers(db, change, with_transactions=False)]:
            if (follower.collection, follower.atom) == (change.collection, change.atom):
                failed.setdefault(follower.seq, (follower, "conflict", None))
    kept: list[int] = []
    for change, status, error in failed.values():
        _synced(db, [change])
        kept += _keep(db, change, status, None, error, None, now)
        db.execute("delete from change where seq = ?", (change.seq,))
    for change, _, _ in failed.values():
        _see(db, change.collection, change.atom)
    _forget_if_empty(db, sending)
    return kept


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
    """The server was set back: what it had acknowledged is sent again, under the old numbers."""
    file.tell(db, "acknowledged", None)
    db.execute("update push set answered = null, offered = 1, attempts = 0 where answered is not null")
    db.execute("update change set by_data = 1 where push in (select id from push where offered = 1)")


def pass_changes(db: sqlite3.Connection, revision: int) -> None:
    """The data is whole at a revision: what was acknowledged up to it is in base."""
    rows = db.execute(
        "select seq, collection, atom, op, data, unset, status from change"
        " where passed = 0 and status is not null and coalesce(revision, 0) <= ?",
        (revision,),
    ).fetchall()
    for seq, collection, atom, op, data, unset, status in rows:
        db.execute("update change set passed = 1 where seq = ?", (seq,))
        if status == "forgotten":
            patch = Patch(op, file.as_bytes(data), _names(unset))
            _compare_forgotten(db, seq, collection, atom, _with_later(db, seq, collection, atom, patch, revision))
    for key in {(row[1], row[2]) for row in rows}:
        refresh(db, *key)


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
    patch, moment = Patch(op, file.as_bytes(data), _names(unset)), Moment(boot, steady_ns, wall_ns)
    return Waiting(
        seq, collection, atom, version, patch, base, file.as_bytes(made_on), bool(by_data), moment, status, revision
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


def _is_known(change: Waiting, outcome: Outcome | None, *, is_refused: bool) -> bool:
    """Whether a replay only says again what was taken before; it may be of a later decision, whose answer was lost."""
    if outcome is None or change.has_failed:
        return outcome is None or is_refused or outcome.status in FAILED
    return (
        not is_refused and outcome.status not in FAILED and _acknowledged(change, outcome).revision == change.revision
    )


def _acknowledged(change: Waiting, outcome: Outcome) -> _Held:
    """What was recorded, or was so already."""
    has_current = outcome.current is not UNSET
    current = None if outcome.current is UNSET or outcome.current is None else plain(bytes(outcome.current.data))
    revision = None if outcome.revision is UNSET else outcome.revision
    if outcome.status == "unchanged" and not has_current:
        revision = None  # no base, and nothing to wait for: what is known here is so already
    return _Held(change, outcome.status, revision, has_current, current)


def _follow(db: sqlite3.Connection, stands: Iterable[_Held]) -> None:
    """What stands is what was sent: those behind it were made on it."""
    db.executemany(
        "update change set base = ?, by_data = 0"
        " where collection = ? and atom = ? and passed = 0 and seq > ? and push is null",
        [(one.revision, *one.change.key, one.change.seq) for one in stands],
    )


def _follow_known(db: sqlite3.Connection, one: _Held) -> None:
    """What stands is what the answer said: those behind it were made on it as far as they would have seen the same."""
    if one.revision is None:
        return
    stands = one.current
    for follower in _followers(db, one.change):
        if not is_known_there(follower.patch, follower.made_on, stands):
            break
        db.execute("update change set base = ?, by_data = 0 where seq = ?", (one.revision, follower.seq))
        stands = over(stands, follower.patch, follower.made_on)


def _hold(db: sqlite3.Connection, held: Sequence[_Held]) -> None:
    """Keep acknowledged changes in sight until the cursor is there."""
    db.executemany(
        "update change set status = ?, revision = ?, has_current = ?, current = ?, passed = ? where seq = ?",
        [
            (one.status, one.revision, one.has_current, file.as_text(one.current), one.revision is None, one.change.seq)
            for one in held
        ],
    )
    _synced(db, [one.change for one in held])
    db.executemany(
        "delete from conflict where seq = ? and settled is null",
        [(one.change.seq,) for one in held if one.status != "forgotten"],
    )


def _fail(db: sqlite3.Connection, change: Waiting, outcome: Outcome, now: float, *, is_refused: bool) -> list[int]:
    """What was not recorded leaves the outbox, and what was made on it as well, to be kept for somebody to settle."""
    status: Status = outcome.status if outcome.status in FAILED or not is_refused else "not_applied"
    error = None if outcome.error is UNSET else f"{outcome.error.code}: {outcome.error.detail}"
    db.execute("update change set status = ?, passed = 1 where seq = ?", (status, change.seq))
    _synced(db, [change])
    name = outcome.kept
    kept = _keep(db, change, status, outcome, error, None if name is UNSET else name, now)
    for follower in _followers(db, change, with_transactions=False):
        _synced(db, [follower])
        kept += _keep(db, follower, "conflict", outcome, None, None, now)
        db.execute("delete from change where seq = ?", (follower.seq,))
    return kept


def _keep(
    db: sqlite3.Connection, change: Waiting, status: Status, outcome: Outcome | None, error: str | None,
    name: str | None, now: float,
) -> list[int]:  # fmt: skip
    """Keep a change that failed, with what stands in its place; [] where it is kept already."""
    if outcome is None or outcome.current is UNSET:  # it was not said what stands: as it is known here
        theirs = _base_row(db, *change.key)
    else:
        theirs = None if outcome.current is None else (outcome.current.revision, bytes(outcome.current.data).decode())
    patch = change.patch
    done = db.execute(
        "insert or ignore into conflict (seq, collection, atom, op, data, unset, made_on, status, theirs_revision,"
        " theirs, error, kept, at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            change.seq, change.collection, change.atom, patch.op, file.as_text(patch.data),
            msgspec.json.encode(patch.unset).decode(), file.as_text(change.made_on), status,
            *(theirs or (None, None)), error, name, now,
        ),
    )  # fmt: skip
    return [done.lastrowid] if done.rowcount and done.lastrowid is not None else []


def _followers(db: sqlite3.Connection, change: Waiting, *, with_transactions: bool = True) -> list[Waiting]:
    """Changes of the same atom that were made after it and not sent yet.

    Where it failed, one in a transaction is for the server to judge: it is recorded with the others or not at all.
    """
    rows = db.execute(
        f"select {_COLUMNS} from change where collection = ? and atom = ? and passed = 0 and seq > ? and push is null"
        " and (transaction_id is null or ?) order by seq",
        (change.collection, change.atom, change.seq, with_transactions),
    )
    return [_waiting(*row) for row in rows]


def _with_later(
    db: sqlite3.Connection, seq: int, collection: str, atom: str, patch: Patch, revision: int
) -> Patch:  # fmt: skip
    """A change with those of its atom that were made after it and are in base as well."""
    later = db.execute(
        "select op, data, unset from change where collection = ? and atom = ? and seq > ?"
        " and status in ('applied', 'unchanged', 'forgotten') and (revision is null or revision <= ?) order by seq",
        (collection, atom, seq, revision),
    )
    for op, data, unset in later:
        patch = collapsed(patch, b"{}", Patch(op, file.as_bytes(data), _names(unset))) or patch
    return patch


def _compare_forgotten(db: sqlite3.Connection, seq: int, collection: str, atom: str, patch: Patch) -> None:
    """What became of a change is remembered nowhere: where the data is not as it left it, it is kept as a conflict."""
    row = _base_row(db, collection, atom)
    data = None if row is None else row[1].encode()
    if (patch.op == "update" and data is None) or not says_nothing(data, patch):
        db.execute(
            "insert or ignore into conflict (seq, collection, atom, op, data, unset, made_on, status,"
            " theirs_revision, theirs, at) select seq, collection, atom, op, data, unset, made_on, status, ?, ?,"
            " push.answered from change join push on push.id = change.push where seq = ?",
            (*(row or (None, None)), seq),
        )


def _base_row(db: sqlite3.Connection, collection: str, atom: str) -> tuple[int, str] | None:
    """Revision and data of an atom, as the server last said it."""
    row: tuple[int, str] | None = db.execute(
        "select b.revision, b.data from collection c join base b on b.generation = c.generation and b.atom = ?"
        " where c.name = ?",
        (atom, collection),
    ).fetchone()
    return row


def _synced(db: sqlite3.Connection, changes: Iterable[Waiting]) -> None:
    """The versions that were sent, not those there are now (docs/properties.md, trap 8)."""
    db.executemany(
        "update local set version_synced = max(version_synced, ?) where collection = ? and atom = ?",
        [(change.version, *change.key) for change in changes],
    )


def _see(db: sqlite3.Connection, collection: str, atom: str) -> None:
    if refresh(db, collection, atom):
        feed(db, collection, atom)


def _forget_if_empty(db: sqlite3.Connection, sending: Sending) -> None:
    """A number that nothing is sent under is left out; the next one is greater."""
    db.execute(
        "delete from push where id = ? and not exists (select 1 from change where push = ?)", (sending.id, sending.id)
    )
