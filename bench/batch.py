"""Pushes of a thousand changes, against appending the same rows to the bare record."""

import time
from itertools import count

import asyncpg

from bench.load import Ask, Served, closed_loop, post
from bench.place import Place, connected, serving
from bench.rows import Row, ratio

SIZE = 1000
CONNECTIONS = 2

_INSERT = b'{"title":"things of 12345","cost":310,"done":false,"note":"said at 12345, by","owner":"user-345"}'
_UPDATE = b'{"cost":%d,"done":true}'
_APPEND = """insert into bench.change (journal_id, revision, collection_id, atom, op, data, prev)
             select 1, r, 1, a, o, d, p
               from unnest($1::bigint[], $2::text[], $3::smallint[], $4::json[], $5::bigint[]) as x (r, a, o, d, p)"""


async def rows(at: Place) -> list[Row]:
    """Changes a second: inserts, then updates of what was inserted."""
    pushes = 8 if at.is_quick else 30
    taken: dict[str, list[float]] = {name: [] for name in ("insert", "update", "bare insert", "bare update")}
    with serving("journal", at) as journal:
        await at.create("batch")
        async with connected(at.dsn) as bare:
            inserting, updating = _Inserting(), _Updating()
            await _pushed(at, journal, inserting.asks(4))
            await _appended(bare, 4, 1, _INSERT)
            for _ in range(at.rounds):
                taken["insert"].append(await _pushed(at, journal, inserting.asks(pushes)))
                taken["bare insert"].append(await _appended(bare, pushes, 1, _INSERT))
                updating.cursor = max((await at.cursors("batch")).items())[1].encode()
                taken["update"].append(await _pushed(at, journal, updating.asks(pushes)))
                taken["bare update"].append(await _appended(bare, pushes, 2, _UPDATE % 310))
    what, bare_table = f"pushes of {SIZE}", "the bare record"
    return [
        ratio("batch", f"inserts, {what}", bare_table, "/s", taken["insert"], taken["bare insert"], at_least=0.25),
        ratio("batch", f"updates, {what}", bare_table, "/s", taken["update"], taken["bare update"], at_least=0.25),
    ]


async def _pushed(at: Place, server: Served, asks: list[Ask]) -> float:
    """Changes a second, all of which must have been applied."""
    before = await at.head("batch")
    load = await closed_loop(server, asks)
    assert load.statuses == {200: load.requests}, load.statuses
    assert await at.head("batch") - before == load.requests * SIZE
    return load.rate * SIZE


class _Inserting:
    """Each push inserts a thousand atoms that were never seen."""

    def __init__(self) -> None:
        self.numbers = count()
        change = b'{"op":"insert","collection":"todo","atom":"~~~~~~~~%08x","data":' + _INSERT + b"}"
        changes = b",".join(change % place for place in range(SIZE))
        self.request = post("/v1/journals/batch/changes", b'{"changes":[' + changes + b"]}")

    def asks(self, pushes: int) -> list[Ask]:
        """So many pushes in all, by two connections."""
        left = iter(range(pushes))

        def ask(_: bytes) -> bytes | None:
            return None if next(left, None) is None else self.request.replace(b"~~~~~~~~", b"%08x" % next(self.numbers))

        return [ask] * CONNECTIONS


class _Updating:
    """Each push updates the thousand atoms of an insert, on the base of the head before the round."""

    def __init__(self) -> None:
        self.numbers = count()
        self.cursor = b""

    def asks(self, pushes: int) -> list[Ask]:
        """So many pushes in all, by two connections, none of an atom of another's."""
        left = iter(range(pushes))
        change = b'{"op":"update","collection":"todo","atom":"~~~~~~~~%08x","data":' + _UPDATE + b"}"
        changes = b",".join(change % (place, next(self.values) % 1000) for place in range(SIZE))
        request = post("/v1/journals/batch/changes", b'{"base":"' + self.cursor + b'","changes":[' + changes + b"]}")

        def ask(_: bytes) -> bytes | None:
            return None if next(left, None) is None else request.replace(b"~~~~~~~~", b"%08x" % next(self.numbers))

        return [ask] * CONNECTIONS

    values = count()


async def _appended(connection: "asyncpg.Connection[asyncpg.Record]", batches: int, op: int, data: bytes) -> float:
    """Rows a second, a transaction a thousand; the lists are made before the clock starts."""
    head: int = await connection.fetchval("select coalesce(max(revision), 0) from bench.change where journal_id = 1")
    ops, texts, prevs = [op] * SIZE, [data.decode()] * SIZE, [0 if op == 1 else 1] * SIZE
    columns = []
    for batch in range(batches):
        first = head + 1 + batch * SIZE
        atoms = [f"{first:08x}{place:08x}" for place in range(SIZE)]
        columns.append((list(range(first, first + SIZE)), atoms))
    start = time.perf_counter()
    for revisions, atoms in columns:
        await connection.execute(_APPEND, revisions, atoms, ops, texts, prevs)
    return batches * SIZE / (time.perf_counter() - start)
