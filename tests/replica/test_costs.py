"""What is done again and again costs the same, however much waits to be pushed and however large the replica is.

Costs are instructions of SQLite's virtual machine: they are the same on every machine and at every load.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journal.client import file, local, looking, outbox, pulled, settling
from journal.client.change import Patch
from journal.client.clock import Clock
from journal.client.local import Sought, Wish
from journal.core.consolidate import Delta
from journal.core.model import Outcome
from journal.wire import Deltas, PushAnswer

CURSOR = "5f1c09ab33d2:1:9f86d081884c7d65"
FEW, MANY = 20, 2000
ALLOWED = 1.5  # a tree that is a level higher
Work = Callable[[sqlite3.Connection], Any]


@contextmanager
def replica(path: Path, count: int, *, of: str) -> Iterator[sqlite3.Connection]:
    """A file with `count` atoms and as many changes that wait: `of` other atoms, or of one of them."""
    with closing(sqlite3.connect(path / f"{count}.db", isolation_level=None)) as db:
        file.prepare(db, path / f"{count}.db", "http://127.0.0.1:1/v1/journals/j")
        db.execute("begin")
        local.add_index(db, "n")
        loaded: dict[str, pulled.Loaded] = {}
        lines = [pulled.Line("todo", f"{n}", 1, msgspec.Raw(b'{"n":%d}' % n)) for n in range(count)]
        pulled.load(db, [*lines, pulled.Line("todo", "other", 1, msgspec.Raw(b"{}"))], loaded)
        pulled.swap(db, loaded, CURSOR, replaced=None, now=0.0)
        for n in range(count):
            atom = {"atoms": f"{n}", "one atom": "0"}[of]
            _write(db, atom, n)
            _write(db, f"new-{n}", n)  # between two changes of one atom, or they would become one
        yield db


def _write(db: sqlite3.Connection, atom: str, n: int, transaction: str | None = None) -> None:
    wish = Wish("todo", atom, Patch("put", b'{"m":%d}' % n), "server", Clock().now(), transaction)
    assert local.write(db, wish)


def _page(db: sqlite3.Connection) -> None:
    delta = Delta("update", "todo", "other", 2, data=msgspec.Raw(b'{"m":1}'))
    pulled.apply(db, Deltas("5f1c09ab33d2", 1, more=False, cursor=CURSOR, deltas=[delta], head=1), 0.0)


def _push_one(db: sqlite3.Connection) -> None:
    first = db.execute("select seq from change where push is null order by seq limit 1").fetchone()[0]
    db.execute("update change set policy = 'client' where seq = ?", (first,))  # a push of its own
    sending = outbox.next_push(db)
    assert sending is not None
    assert len(sending.changes) == 1
    settling.settle(db, sending, PushAnswer("", 9, 9, 9, "", [Outcome("applied", revision=9)]), 0.0)


def _push_a_transaction(db: sqlite3.Connection) -> None:
    first = db.execute("select seq from change where push is null order by seq limit 1").fetchone()[0]
    db.execute("update change set transaction_id = 't' where seq = ?", (first,))
    sending = outbox.next_push(db)
    assert sending is not None
    assert sending.is_atomic


WORKS: dict[str, Work] = {
    "write another atom": lambda db: _write(db, "other", 7),
    "write one with changes": lambda db: _write(db, "0", -7),
    "write in a transaction": lambda db: _write(db, "0", -7, "t"),
    "look whether anything waits": local.has_waiting,
    "apply a delta": _page,
    "read": lambda db: local.read(db, "todo", "0"),
    "a page of atoms": lambda db: local.items(db, "todo", "1", 5),
    "find by an index": lambda db: local.items(db, "todo", "", 1000, [Sought("n", 7)]),
    "count by an index": lambda db: local.count(db, "todo", [Sought("n", 7)]),
    "collections": local.collections,
    "sweep": pulled.sweep,
    "look at the feed's end": lambda db: looking.feed_since(db, looking.feed_end(db) - 1),
    "push one": _push_one,
    "push a transaction": _push_a_transaction,
}
GROWING = {("push one", "one atom")}  # those behind it are told what they were made on, each of them


@pytest.mark.parametrize(
    ("what", "of"), [(what, of) for what in WORKS for of in ("atoms", "one atom") if (what, of) not in GROWING]
)
def test_what_is_done_often_costs_the_same_however_much_waits(tmp_path: Path, what: str, of: str) -> None:
    steps = {}

    for count in (FEW, MANY):
        with replica(tmp_path, count, of=of) as db:
            steps[count] = _steps(db, WORKS[what])

    assert steps[MANY] <= ALLOWED * steps[FEW], steps


def _steps(db: sqlite3.Connection, work: Work) -> int:
    """The instructions that SQLite goes through for it."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(step, 1)
    work(db)
    db.set_progress_handler(None, 1)
    return steps
