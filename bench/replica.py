"""A replica: its first sync, a round with nothing to do, edits made offline and pushed, reading, following.

Each is held against what SQLite or a bare HTTP client takes for the same rows alone. First syncs run in processes of
their own (`python -m bench.replica URL FILE`), so that their memory is only theirs.
"""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.load import Reader, Served, get
from bench.place import ROOT, Place, connected, serving
from bench.rows import Row, figure, ratio
from bench.snapshot import Memory
from journal.client import Replica
from journal.client.pulling import PAGE

JOURNAL = "replicated"
NAMES = ("todo", "note", "person")
TOGETHER = 1000  # changes a push of the bare client has, as those of the replica
SQLITE = ("pragma journal_mode = wal", "pragma synchronous = full")
BASE = """create table base (
  id integer primary key, generation integer not null, atom text not null, revision integer not null, data text not null
)"""
BASE_BY_ATOM = "create unique index base_by_atom on base (generation, atom)"


async def rows(at: Place) -> list[Row]:
    """All of it on one journal of 100,000 atoms, which the edits leave as many."""
    atoms, edits = (20_000, 2_000) if at.is_quick else (100_000, 10_000)
    async with connected(at.dsn) as connection:
        await connection.execute("call bench.fill($1, $2, $2, 1, 1000, true)", JOURNAL, atoms)
        await connection.execute("vacuum (analyze)")
    with serving("journal", at) as served:
        found = await first_sync(at, served, atoms)
        async with Replica.open(at.folder / "replica.db", _url(served)) as replica, _bare(served) as bare:
            await replica.sync()
            found += await _nothing(at, replica, bare)
            found += await _reading(at, replica)
            found += await _editing(at, replica, bare, edits)
            found += await _following(replica, bare, 50 if at.is_quick else 300)
    return found


def _url(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}/v1/journals/{JOURNAL}"


@asynccontextmanager
async def _bare(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"{_url(served)}/", headers={"Accept-Encoding": "gzip, deflate"}) as session:
        yield session


async def first_sync(at: Place, served: Served, atoms: int) -> list[Row]:
    """A new file each time; the snapshot is made once, before."""
    reader = Reader(served.port)
    location = reader.fetch(get(f"/v1/journals/{JOURNAL}/snapshot")).header("Location")
    lines = reader.fetch(get(location, Accept_Encoding="identity")).body.splitlines()[1:-1]
    assert len(lines) == atoms
    synced, inserted, fetched = list[_Synced](), list[float](), list[float]()
    for number in range(at.rounds):
        synced.append(await asyncio.to_thread(_sync_anew, _url(served), at.folder / f"first-{number}.db", atoms))
        inserted.append(_insert(at.folder / f"plain-{number}.db", lines))
        fetched.append(reader.fetch(get(location, Accept_Encoding="zstd"), keep=False).seconds)
    reader.close()
    seconds = [one.seconds for one in synced]
    what = f"first sync of {atoms // 1000} k atoms"
    return [
        ratio("replica", what, "executemany of the rows", "s", seconds, inserted),
        ratio("replica", what, "fetching the snapshot", "s", seconds, fetched),
        figure("replica", what, "atoms/s", [atoms / one for one in seconds], at_least=30_000),
        figure("replica", f"{what}, bytes a line", "B", [sum(map(len, lines)) / atoms]),
        figure("replica", f"{what}, memory above idle", "MiB", [one.grown_mib for one in synced]),
    ]


class _Synced(msgspec.Struct, frozen=True):
    seconds: float
    atoms: int
    grown_mib: float = 0.0


def _sync_anew(url: str, file: Path, atoms: int) -> _Synced:
    """A first sync in a process that is open and idle when it begins."""
    command = [sys.executable, "-m", "bench.replica", url, str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        memory = Memory(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        synced = msgspec.json.decode(process.stdout.readline(), type=_Synced)
        assert synced.atoms == atoms
        synced = msgspec.structs.replace(synced, grown_mib=memory.grown_mib())
        process.stdin.close()
    return synced


async def _sync_when_told(url: str, file: str) -> None:
    async with Replica.open(file, url) as replica:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        start = time.perf_counter()
        await replica.sync()
        took = time.perf_counter() - start
        atoms = sum([await replica.collection(name).count() for name in NAMES])
        print(json.dumps({"seconds": took, "atoms": atoms}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


def _insert(file: Path, lines: list[bytes]) -> float:
    """The same rows, ready in memory, into the same table with its index, as many at once."""
    generations: dict[str, int] = {}
    ready: list[tuple[int, str, int, str]] = []
    for line in lines:
        told = msgspec.json.decode(line, type=_Line)
        generation = generations.setdefault(told.collection, len(generations) + 1)
        ready.append((generation, told.atom, told.revision, bytes(told.data).decode()))
    with _database(file, BASE, BASE_BY_ATOM) as db:
        start = time.perf_counter()
        for first in range(0, len(ready), PAGE):
            with _transaction(db):
                db.executemany(
                    "insert into base (generation, atom, revision, data) values (?, ?, ?, ?)",
                    ready[first : first + PAGE],
                )
        return time.perf_counter() - start


class _Line(msgspec.Struct):
    collection: str
    atom: str
    revision: int
    data: msgspec.Raw


@contextmanager
def _database(file: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for statement in (*SQLITE, *statements):
            db.execute(statement)
        yield db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("begin immediate")
    yield
    db.execute("commit")


async def _nothing(at: Place, replica: Replica, bare: aiohttp.ClientSession) -> list[Row]:
    """Rounds one after the other; the bare client asks for the same page and reads it."""
    synced, polled, times = list[float](), list[float](), 50
    cursor, client = await _fact(replica, "cursor"), await _fact(replica, "client")
    asked = {"since": cursor, "limit": str(PAGE), "client": client}
    for _ in range(at.rounds):
        with _requests() as made:
            synced.append(await _each(times, replica.sync) * 1e3)
        assert made == ["deltas"] * times, made
        polled.append(await _each(times, lambda: _fetch(bare, "deltas", asked)) * 1e3)
    return [ratio("replica", "a round with nothing to do, one request", "a bare GET", "ms", synced, polled)]


async def _fact(replica: Replica, name: str) -> str:
    rows = await replica._reader.read(
        lambda db: db.execute("select value from meta where name = ?", (name,)).fetchall()
    )
    return str(rows[0][0])


@contextmanager
def _requests() -> Iterator[list[str]]:
    """The last part of the paths that are asked for meanwhile, by any client here."""
    request, made = aiohttp.ClientSession._request, list[str]()

    async def noted(self: aiohttp.ClientSession, method: str, url: Any, **arguments: Any) -> Any:
        made.append(str(url).partition("?")[0].rpartition("/")[2])
        return await request(self, method, url, **arguments)

    aiohttp.ClientSession._request = noted  # type: ignore[method-assign, assignment]
    try:
        yield made
    finally:
        aiohttp.ClientSession._request = request  # type: ignore[method-assign]


async def _each(times: int, work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(times):
        await work()
    return (time.perf_counter() - start) / times


async def _fetch(bare: aiohttp.ClientSession, path: str, asked: dict[str, str]) -> bytes:
    async with bare.get(path, params=asked) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def _reading(at: Place, replica: Replica) -> list[Row]:
    """Reads by name, and by the value of a field with an index; the same rows read by sqlite3 itself, and decoded."""
    todo = replica.collection("todo")
    await todo.index("owner")
    with _database(replica.path) as db:
        (generation,) = db.execute("select generation from collection where name = 'todo'").fetchone()
        names = [name for (name,) in db.execute("select atom from base where generation = ? limit 500", (generation,))]
        got, found, got_plainly, found_plainly = (list[float]() for _ in range(4))
        owners = [f"user-{number}" for number in range(100)]
        for _ in range(at.rounds):
            start = time.perf_counter()
            there = [await todo.get(name) for name in names]
            got.append((time.perf_counter() - start) / len(names) * 1e6)
            start = time.perf_counter()
            same = [_get_plainly(db, generation, name) for name in names]
            got_plainly.append((time.perf_counter() - start) / len(names) * 1e6)
            assert there == same
            start = time.perf_counter()
            theirs = [await todo.find({"owner": owner}) for owner in owners]
            found.append((time.perf_counter() - start) / len(owners) * 1e3)
            start = time.perf_counter()
            alike = [_find_plainly(db, generation, owner) for owner in owners]
            found_plainly.append((time.perf_counter() - start) / len(owners) * 1e3)
            assert theirs == alike
            assert any(theirs)
    atoms = sum(map(len, theirs)) / len(owners)
    return [
        ratio("replica", "get", "sqlite3", "µs", got, got_plainly),
        ratio("replica", f"find {atoms:.0f} atoms by an index", "sqlite3", "ms", found, found_plainly),
    ]


def _get_plainly(db: sqlite3.Connection, generation: int, name: str) -> Any:
    found = db.execute("select data from base where generation = ? and atom = ?", (generation, name)).fetchone()
    return json.loads(found[0])


def _find_plainly(db: sqlite3.Connection, generation: int, owner: str) -> list[tuple[str, Any]]:
    found = db.execute(
        """select atom, data from base where generation = ? and json_extract(data, '$."owner"') = ? order by atom""",
        (generation, owner),
    )
    return [(atom, json.loads(data)) for atom, data in found]


async def _editing(at: Place, replica: Replica, bare: aiohttp.ClientSession, edits: int) -> list[Row]:
    """In each round other atoms: edited here one by one and pushed, as many in a transaction, as many by the other.

    What the bare client pushes says a base for each change as well.
    """
    took: dict[str, list[float]] = {}

    def note(what: str, seconds: float) -> None:
        took.setdefault(what, []).append(seconds)

    changes = ("create table change (seq integer primary key autoincrement, atom text, data text, base integer)",)
    with _database(replica.path) as kept, _database(at.folder / "edits.db", *changes) as plain:
        for number in range(min(at.rounds, 3)):
            mine, together, others = (_known(kept, edits, offset) for offset in range(0, 3 * edits, edits))
            waits = [await _timed(_edit(replica, known, number)) for known in mine]
            note("edit", sum(waits))
            note("edit, none waiting", sum(waits[: edits // 10]))
            note("edit, all but waiting", sum(waits[-edits // 10 :]))
            note("edit plainly", _write_plainly(plain, mine, number, each=1))
            with _requests() as made:
                note("push", await _timed(replica.sync()))
            assert made == ["changes"] * (edits // TOGETHER - 1) + ["sync"], made

            note("transaction", await _timed(_edit_together(replica, together, number)))
            note("transaction plainly", _write_plainly(plain, together, number, each=edits))
            with _requests() as made:
                note("push a transaction", await _timed(replica.sync()))
            assert made == ["changes", "deltas"], made

            cursor = await _fact(replica, "cursor")
            bodies = [_body(others[start : start + TOGETHER], cursor, number) for start in range(0, edits, TOGETHER)]
            note("push barely", await _timed(_push(bare, bodies)))
            asked = {"since": cursor, "limit": str(PAGE), "client": await _fact(replica, "client")}
            note("fetch", await _timed(_fetch(bare, "deltas", asked)))
            with _requests() as made:
                note("pull", await _timed(replica.sync()))
            assert made == ["deltas"], made
            assert await replica.verify() == 0
    what = f"{edits} edits"
    names = "as many inserts in SQLite"
    requests, pushes = edits // TOGETHER, f"a bare client, {TOGETHER} a push"
    return [
        ratio("replica", f"{what} one by one", names, "s", took["edit"], took["edit plainly"]),
        ratio(
            "replica", f"{what}: the last tenth of them", "the first", "s",
            took["edit, all but waiting"], took["edit, none waiting"],
        ),
        ratio("replica", f"{what} pushed, {requests} requests", pushes, "s", took["push"], took["push barely"]),
        ratio("replica", f"{what} in a transaction", names, "s", took["transaction"], took["transaction plainly"]),
        ratio(
            "replica", f"{what} in a transaction pushed", pushes, "s", took["push a transaction"], took["push barely"]
        ),
        ratio("replica", f"{edits} updates pulled", "fetching them", "s", took["pull"], took["fetch"]),
    ]  # fmt: skip


Known = tuple[str, str, int]  # collection, atom, revision


def _known(db: sqlite3.Connection, count: int, offset: int) -> list[Known]:
    """Atoms as the replica has them, those first that were changed longest ago."""
    return db.execute(
        "select c.name, b.atom, b.revision from collection c join base b on b.generation = c.generation"
        " order by b.revision limit ? offset ?",
        (count, offset),
    ).fetchall()


async def _timed(work: Any) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def _edit(replica: Replica, known: Known, number: int) -> None:
    await replica.collection(known[0]).update(known[1], _fields(number))


async def _edit_together(replica: Replica, known: list[Known], number: int) -> None:
    async with replica.transaction():
        for one in known:
            await _edit(replica, one, number)


def _fields(number: int) -> dict[str, Any]:
    return {"title": f"edited in round {number}", "cost": 1000 + number}


def _write_plainly(db: sqlite3.Connection, known: list[Known], number: int, *, each: int) -> float:
    start = time.perf_counter()
    for first in range(0, len(known), each):
        with _transaction(db):
            for _, atom, revision in known[first : first + each]:
                db.execute(
                    "insert into change (atom, data, base) values (?, ?, ?)",
                    (atom, json.dumps(_fields(number)), revision),
                )
    return time.perf_counter() - start


def _body(known: list[Known], cursor: str, number: int) -> bytes:
    changes = [
        {"op": "update", "collection": collection, "atom": atom, "data": _fields(number), "base": revision}
        for collection, atom, revision in known
    ]
    return msgspec.json.encode({"base": cursor, "changes": changes})


async def _push(bare: aiohttp.ClientSession, bodies: list[bytes]) -> None:
    for body in bodies:
        async with bare.post("changes", data=body, headers={"Content-Type": "application/json"}) as response:
            assert response.status == 200, await response.text()
            assert b'"applied"' in await response.read()


async def _following(replica: Replica, bare: aiohttp.ClientSession, times: int) -> list[Row]:
    """Single inserts by another, one when the last was seen: from its sending until `follow` yields it.

    Held against a bare stream of the same journal, read up to the atom's name.
    """
    streamed = await _delays(bare, times, "streamed", _stream(bare, await _fact(replica, "cursor")))
    followed = await _delays(bare, times, "followed", _followed(replica))
    what = "a change by another until follow yields it"
    return [
        ratio("replica", f"{what}, p50", "a bare stream", "ms", [_of(followed, 50)], [_of(streamed, 50)]),
        ratio("replica", f"{what}, p99", "a bare stream", "ms", [_of(followed, 99)], [_of(streamed, 99)]),
    ]


async def _delays(bare: aiohttp.ClientSession, times: int, name: str, told: AsyncIterator[str]) -> list[float]:
    """Milliseconds. The first are not counted: whatever looks has to begin."""
    seen = dict[str, asyncio.Event]()

    async def look() -> None:
        async for atom in told:
            for one in [one for one in seen if one in atom]:
                seen.pop(one).set()

    looking = asyncio.create_task(look())
    delays = []
    for number in range(times + 20):
        atom = f"{name}-{number}-"
        come = seen[atom] = asyncio.Event()
        body = {"changes": [{"op": "insert", "collection": "todo", "atom": atom, "data": {"n": number}}]}
        start = time.perf_counter()
        await _push(bare, [msgspec.json.encode(body)])
        async with asyncio.timeout(30):
            await come.wait()
        delays.append((time.perf_counter() - start) * 1e3)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    return sorted(delays[20:])


async def _stream(bare: aiohttp.ClientSession, cursor: str) -> AsyncIterator[str]:
    async with bare.get("stream", params={"since": cursor}) as response:
        async for line in response.content:
            yield line.decode()


async def _followed(replica: Replica) -> AsyncIterator[str]:
    async for changed in replica.follow("todo"):
        yield changed.atom or ""


def _of(ordered: list[float], percent: int) -> float:
    return ordered[len(ordered) * percent // 100]


if __name__ == "__main__":
    asyncio.run(_sync_when_told(*sys.argv[1:]))
