"""Settling: what becomes of changes when their push was answered.

Each function is work inside a transaction of SQLite. The rule (docs/properties.md, P9, traps 8 and 11): a change is
recorded and seen until the cursor passes it, or kept as a conflict with what was made on it; and only what was sent
counts as synced.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET

from journal.client import file, stored
from journal.client.change import FAILED, Patch, Status, collapsed, is_known_there, over, says_nothing
from journal.client.local import feed, is_news, plain, refresh
from journal.client.outbox import Sending, Waiting, followers_of, forget_if_empty, renumber
from journal.core.model import Key, Outcome
from journal.wire import PushAnswer


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
            followers = [(follower.seq,) for follower in followers_of(db, change)]
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
        for follower in [*sending.changes[place + 1 :], *followers_of(db, change, with_transactions=False)]:
            if (follower.collection, follower.atom) == (change.collection, change.atom):
                failed.setdefault(follower.seq, (follower, "conflict", None))
    kept: list[int] = []
    for change, status, error in failed.values():
        _synced(db, [change])
        kept += _keep(db, change, status, None, error, None, now)
        db.execute("delete from change where seq = ?", (change.seq,))
    for change, _, _ in failed.values():
        _see(db, change.collection, change.atom)
    forget_if_empty(db, sending)
    return kept


def pass_changes(db: sqlite3.Connection, revision: int) -> None:
    """The data is whole at a revision: what was acknowledged up to it is in base."""
    rows = db.execute(
        "select seq, collection, atom, op, data, unset, status from change"
        " where passed = 0 and status is not null and coalesce(revision, 0) <= ?",
        (revision,),
    ).fetchall()
    db.executemany("update change set passed = 1 where seq = ?", [row[:1] for row in rows])
    for seq, collection, atom, op, data, unset, status in rows:
        if status == "forgotten":
            patch = stored.patch(op, data, unset)
            _compare_forgotten(db, seq, collection, atom, _with_later(db, seq, collection, atom, patch, revision))
    for key in {(row[1], row[2]) for row in rows}:
        refresh(db, *key)


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
    for follower in followers_of(db, one.change):
        if not is_known_there(follower.patch, follower.made_on, stands):
            break
        db.execute("update change set base = ?, by_data = 0 where seq = ?", (one.revision, follower.seq))
        stands = over(stands, follower.patch, follower.made_on)


def _hold(db: sqlite3.Connection, held: Sequence[_Held]) -> None:
    """Keep acknowledged changes in sight until the cursor is there."""
    db.executemany(
        "update change set status = ?, revision = ?, has_current = ?, current = ?, passed = ? where seq = ?",
        [
            (
                one.status,
                one.revision,
                one.has_current,
                stored.as_text(one.current),
                one.revision is None,
                one.change.seq,
            )
            for one in held
        ],
    )  # fmt: skip
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
    for follower in followers_of(db, change, with_transactions=False):
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
        theirs = stored.in_base(db, *change.key)
    else:
        theirs = None if outcome.current is None else (outcome.current.revision, bytes(outcome.current.data).decode())
    done = db.execute(
        "insert or ignore into conflict (seq, collection, atom, op, data, unset, made_on, status, theirs_revision,"
        " theirs, error, kept, at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            change.seq, *change.key, *stored.columns(change.patch), stored.as_text(change.made_on), status,
            *(theirs or (None, None)), error, name, now,
        ),
    )  # fmt: skip
    return [done.lastrowid] if done.rowcount and done.lastrowid is not None else []


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
        patch = collapsed(patch, b"{}", stored.patch(op, data, unset)) or patch
    return patch


def _compare_forgotten(db: sqlite3.Connection, seq: int, collection: str, atom: str, patch: Patch) -> None:
    """What became of a change is remembered nowhere: where the data is not as it left it, it is kept as a conflict."""
    row = stored.in_base(db, collection, atom)
    data = None if row is None else row[1].encode()
    if (patch.op == "update" and data is None) or not says_nothing(data, patch):
        db.execute(
            "insert or ignore into conflict (seq, collection, atom, op, data, unset, made_on, status,"
            " theirs_revision, theirs, at) select seq, collection, atom, op, data, unset, made_on, status, ?, ?,"
            " push.answered from change join push on push.id = change.push where seq = ?",
            (*(row or (None, None)), seq),
        )


def _synced(db: sqlite3.Connection, changes: Iterable[Waiting]) -> None:
    """The versions that were sent, not those there are now (docs/properties.md, trap 8)."""
    db.executemany(
        "update local set version_synced = max(version_synced, ?) where collection = ? and atom = ?",
        [(change.version, *change.key) for change in changes],
    )


def _see(db: sqlite3.Connection, collection: str, atom: str) -> None:
    if is_news(db, collection, atom):
        feed(db, collection, atom)
