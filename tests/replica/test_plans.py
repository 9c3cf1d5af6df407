"""No statement of a replica reads a whole table that grows with the data, but for those that are named here.

Statements are noted as a scenario runs them, and explained; one that the scenario does not run fails the test as well.
"""

import ast
import re
import sqlite3
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import journal.client
from journal.client import conflicts, local, looking, outbox, pulled, settling
from journal.client.change import Patch
from journal.client.clock import Clock
from journal.client.local import Wish
from journal.client.outbox import Sending
from journal.client.pulled import Line
from journal.client.replica import Replica
from journal.core.consolidate import Delta
from journal.core.model import Current, Outcome
from journal.wire import ConflictAnswer, PushAnswer
from tests.harness import Harness, insert
from tests.replica.conftest import Opener

LARGE = re.compile(r"\b(?:from|join|into|update) (base|local|change|feed|conflict|push|ahead)\b(?: ([a-z])\b)?")
READ_WHOLE = {
    "select collection, atom from local": "a snapshot was put in place: all that was changed here is seen anew",
    "update change set by_data = 1 where status is null": "after a 410",
    "update push set answered = null, offered = 1": "the server was set back",
    "update change set by_data = 1 where push in": "the server was set back",
    "select collection, atom from ahead where revision <= ?": "empty, but from a comparison to the end of its round",
    "select exists (select 1 from ahead)": "its first row",
    "select exists (select 1 from local)": "its first row",
    "delete from ahead": "all of it",
    "delete from change where push in (select id from push": "once an hour, the pushes of a week",
    "delete from push where answered < ?": "once an hour, the pushes of a week",
    "delete from conflict where settled is not null": "once an hour, those that were settled since",
}
ONLY_WHAT_IS_SOUGHT = {"push_unanswered", "conflict_open", "conflict_untold"}  # partial indexes


class Noting(sqlite3.Connection):
    """A connection that notes what it is asked."""

    noted: ClassVar[set[str]] = set()

    def execute(self, sql: str, *bound: Any) -> sqlite3.Cursor:
        self.noted.add(sql)
        return super().execute(sql, *bound)

    def executemany(self, sql: str, *bound: Any) -> sqlite3.Cursor:
        self.noted.add(sql)
        return super().executemany(sql, *bound)


@pytest.fixture
async def file(service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a replica that was asked for everything there is."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Noting))
    monkeypatch.setattr(Noting, "noted", set())
    replica: Replica = await opened("phone")
    await service.pushed([insert("todo", f"{n}", {"n": n}) for n in range(9)])
    await replica.sync()
    await _use(replica)
    await _disagree(replica, await opened("tablet"))
    await replica._engine.write(_recover)
    return replica.path


async def test_only_named_statements_read_a_large_table_whole(file: Path) -> None:
    with sqlite3.connect(file) as db:
        scans = sorted(
            f"{found}: {text}"
            for text in frozenset(Noting.noted)
            if LARGE.search(text) and not any(text.startswith(named) for named in READ_WHOLE)
            for found in _scans(db, text)
        )

    assert not scans, "\n".join(scans)


async def test_every_statement_was_looked_at(file: Path) -> None:
    missing = [
        f"{name}: {pattern}"
        for name, pattern in _written()
        if LARGE.search(pattern) and not any(re.fullmatch(pattern, text) for text in Noting.noted)
    ]

    assert not missing, "\n".join(missing)


def _scans(db: sqlite3.Connection, text: str) -> Iterator[str]:
    """What SQLite would read whole of the large tables."""
    large = {name for found in LARGE.findall(text) for name in found if name}
    for *_, detail in db.execute(f"explain query plan {text}", (None,) * text.count("?")):
        found = re.match(r"SCAN (\w+)(?:.* INDEX (\w+))?", detail)
        if found and found[1] in large and found[2] not in ONLY_WHAT_IS_SOUGHT:
            yield detail


def _written() -> Iterator[tuple[str, str]]:
    """The statements in the code, as regular expressions, by module."""
    for module in Path(journal.client.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="execute" | "executemany"), args=[ast.Constant(str(text)), *_]):
                    yield module.name, _escaped(text)
                case ast.Call(func=ast.Attribute(attr="execute" | "executemany"), args=[ast.JoinedStr(values), *_]):
                    yield module.name, "".join(_part(value) for value in values)


def _part(value: ast.expr) -> str:
    match value:
        case ast.Constant(str(text)):
            return _escaped(text)
    return ".*"


def _escaped(text: str) -> str:
    return re.escape(text).replace(r"\ ", " ")


async def _use(replica: Replica) -> None:
    """What an application does."""
    todo = replica.collection("todo")
    await todo.index("n")
    for fields in ({"n": 1}, {"m": "x"}, {"n": True}, {"n": None}, {"n": 1, "m": 2}):
        await todo.find(fields)
        await todo.count(fields)
    await todo.get("1")
    await todo.count()
    await replica.collections()
    async with replica.transaction():
        await todo.put("1", {"n": 11})
    await todo.insert("new", {})
    await todo.update("new", {"n": 1})
    await todo.delete("new")
    await replica.status()
    at = await replica._reader.read(looking.feed_end)
    await replica._reader.read(lambda db: looking.feed_since(db, at - 1))


async def _disagree(replica: Replica, other: Replica) -> None:
    """Both change the same atoms, after which one is compared."""
    await other.sync()
    for one in (other, replica):
        for atom in "345":
            await one.collection("todo").update(atom, {"n": one.path.name})
        await one.collection("todo").update("6", {one.path.name: 1})
        await one.collection("todo").delete("7")
        await one.sync()
    first, second, third, *_ = await replica.conflicts()
    await replica.settle(first, "server")
    await replica.settle(second, "client")
    await replica.settle(third, "both", atom="copy")
    await replica.sync()
    await replica._engine.write(_damage)
    assert await replica.verify() > 0


def _damage(db: sqlite3.Connection) -> None:
    sqlite3.Connection.execute(db, "update base set revision = 1 where atom = '8'")


def _recover(db: sqlite3.Connection) -> None:
    """What is rare, one after the other."""
    cursor = db.execute("select value from meta where name = 'cursor'").fetchone()[0]
    sending = _waiting(db)
    _write(db, "2")
    applied = Outcome("applied", revision=10**5)
    settling.settle(db, sending, PushAnswer("", 1, 1, 1, "", [applied] * len(sending.changes)), 0.0)
    sending = _next(db)
    stands = local.read(db, "todo", "2") or b""
    _write(db, "2")
    merged = Outcome("merged", revision=10**5, current=Current(10**5, msgspec.Raw(stands)))
    settling.settle(db, sending, PushAnswer("", 1, 1, 1, "", [merged] * len(sending.changes)), 0.0)
    sending = _waiting(db)
    outbox.halve(db, sending)
    outbox.say_by_data(db, sending, [0])
    outbox.renumber(db, sending, is_new_client=True)
    settling.settle(db, sending, PushAnswer("", None, None, 10**6, "", None), 0.0)
    settling.pass_changes(db, 10**9)
    settling.refuse(db, _waiting(db), {0: "rejected"}, 0.0)
    pulled.recount(db)
    list(pulled.rows(db, None))
    pulled.mend(db, {("todo", "1"): (10**6, b"{}")}, cursor=None)
    pulled._end_round(db, 10**6)
    pulled.mend(db, {("todo", "1"): (1, b"{}")}, cursor=cursor)
    outbox.offer(db)
    loaded: dict[str, pulled.Loaded] = {}
    pulled.load(db, [Line("todo", "1", 1, msgspec.Raw(b"{}"))], loaded)
    pulled.apply_loaded(db, [Delta("delete", "todo", "1", 2)], loaded)
    pulled.swap(db, loaded, cursor, replaced=["todo"], now=0.0)
    pulled.swap(db, {}, cursor, replaced=None, now=0.0)
    pulled.keep_only(db, frozenset(["other"]))
    pulled.sweep(db)
    outbox.purge(db, 1.0)
    conflicts.mark_told(db, number=1)
    conflicts.untold(db)
    conflicts.is_of(db, number=db.execute("select max(id) from conflict").fetchone()[0], kept=_kept())
    local.has_waiting(db)


def _kept() -> ConflictAnswer:
    return ConflictAnswer("1", "update", "todo", "1", None, None, 0, None, None, "", None)


def _waiting(db: sqlite3.Connection) -> Sending:
    """Three changes of two atoms, taken to be sent."""
    for atom in ("2", "0", "2"):
        _write(db, atom)
    return _next(db)


_numbers = count(1000)


def _write(db: sqlite3.Connection, atom: str) -> None:
    data = b'{"n":%d}' % next(_numbers)
    assert local.write(db, Wish("todo", atom, Patch("put", data), "server", Clock().now()))


def _next(db: sqlite3.Connection) -> Sending:
    sending = outbox.next_push(db)
    assert sending is not None
    return sending
