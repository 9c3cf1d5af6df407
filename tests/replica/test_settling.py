"""The answer to a push: what those changes are made on that wait behind it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from journal.client import file, local, outbox, settling
from journal.client.change import Patch
from journal.client.clock import Clock
from journal.client.local import Wish
from journal.client.outbox import Sending
from journal.core.model import Current, Outcome
from journal.wire import PushAnswer


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A replica's file."""
    with closing(sqlite3.connect(tmp_path / "r.db", isolation_level=None)) as db:
        file.prepare(db, tmp_path / "r.db", "http://127.0.0.1:1/v1/journals/j")
        yield db


def write(db: sqlite3.Connection, atom: str, n: int) -> None:
    """Put an atom so."""
    assert local.write(db, Wish("todo", atom, Patch("put", b'{"n":%d}' % n), "server", Clock().now()))


def sent_with_others_behind(db: sqlite3.Connection) -> Sending:
    """Three changes of `a`, with another atom's between them; two more of `a` were made since they were sent."""
    for n in range(3):
        write(db, "a", n)
        write(db, f"between-{n}", n)
    sending = outbox.next_push(db)
    assert sending is not None
    for n in range(3, 5):
        write(db, "a", n)
        write(db, f"between-{n}", n)
    return sending


def answer(db: sqlite3.Connection, sending: Sending, **last: Outcome) -> list[int]:
    """Everything was applied, but for the last change of an atom."""
    outcomes = [Outcome("applied", revision=100 + place) for place in range(len(sending.changes))]
    for atom, outcome in last.items():
        outcomes[max(place for place, change in enumerate(sending.changes) if change.atom == atom)] = outcome
    return settling.settle(db, sending, PushAnswer("", 100, 105, 105, "", outcomes), 0.0) or []


def behind(db: sqlite3.Connection) -> list[tuple[int | None, int]]:
    """Base and by_data of the changes of `a` that wait."""
    return db.execute("select base, by_data from change where atom = 'a' and push is null order by seq").fetchall()


def test_p9a_what_waits_is_made_on_the_last_change_that_was_recorded(db: sqlite3.Connection) -> None:
    sending = sent_with_others_behind(db)

    kept = answer(db, sending)

    assert kept == []
    assert behind(db) == [(104, 0), (104, 0)]
    assert local.read(db, "todo", "a") == b'{"n":4}'


def test_p9a_what_waits_is_made_on_what_was_merged_only_if_it_had_seen_the_same(db: sqlite3.Connection) -> None:
    sending = sent_with_others_behind(db)

    answer(db, sending, a=Outcome("merged", revision=104, current=Current(104, Raw(b'{"n":2,"theirs":1}'))))

    assert behind(db) == [(102, 0), (102, 0)]  # the change before it, after which nothing else is known


def test_p9a_what_was_made_on_what_failed_is_kept_with_it(db: sqlite3.Connection) -> None:
    sending = sent_with_others_behind(db)

    kept = answer(db, sending, a=Outcome("conflict", current=Current(104, Raw(b'{"n":9}'))))

    assert len(kept) == 3
    assert behind(db) == []
    assert local.read(db, "todo", "a") == b'{"n":1}'
