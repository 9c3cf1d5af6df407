"""P12: what a process holds does not grow with what it is asked for. 300,000 atoms are about 130 MB of answer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from tests.conftest import new_database
from tests.harness import insert
from tests.postgres import Server
from tests.subprocess_service import Remote, serving_apart

ATOMS = 300_000
GROWTH_MB = 80
FILL = """
with made as (select id from journal.journal where name = 'big'),
     epoch as (select h.epoch from journal.head h join made on made.id = h.journal_id),
     collection as (
       insert into journal.collection (journal_id, id, name, atoms)
       select id, 1, 'thing', $1 from made),
     commits as (
       insert into journal.commit (journal_id, revision, first, epoch, committed_at, chain)
       select made.id, r * 1000, r * 1000 - 999, epoch.epoch, now(), sha256(int8send(r * 1000))
         from made, epoch, generate_series(1, $1::bigint / 1000) as r),
     atoms as (
       insert into journal.atom
              (journal_id, collection_id, atom, born, created, revision, deleted, data, fk, fr)
       select made.id, 1, 'atom-' || r, r, r, r, false,
              jsonb_build_object('n', r, 'text', repeat(md5(r::text), 10)), array['n', 'text'], array[r, r]
         from made, generate_series(1, $1::bigint) as r)
update journal.head h
   set head = $1, chain = sha256(int8send($1::bigint)), turn = turn + 1
  from made
 where h.journal_id = made.id
"""
HELD = """
select from pg_stat_activity where state like 'idle in transaction%' and datname = current_database()
"""


@pytest.fixture(scope="module")
async def big(
    postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    """A database with a journal `big`, and a folder."""
    async with new_database(postgres, template) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute("select journal.create('big')")
        await connection.execute(FILL, ATOMS, timeout=100)
        await connection.execute("vacuum analyze journal.atom", timeout=100)
        await connection.close()
        yield dsn, tmp_path_factory.mktemp("big")


@pytest.fixture
async def apart(big: tuple[str, Path]) -> AsyncIterator[Remote]:
    """The service on it, in a process of its own."""
    async with serving_apart(*big) as remote:
        assert (await remote.head("big"))["head"] >= ATOMS
        yield remote


def memory_mb(pid: int, what: str) -> float:
    """What the kernel says of a process's memory: VmRSS now, VmHWM at most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(what))
    return int(kilobytes) / 1024


async def read_through(remote: Remote, path: str, **headers: str) -> int:
    """The size of an answer that is read and forgotten."""
    size = 0
    url = f"{remote.url}/v1/journals/big/{path}"
    async with aiohttp.ClientSession(auto_decompress=False) as session, session.get(url, headers=headers) as response:
        assert response.status == 200
        async for piece in response.content.iter_chunked(1 << 16):
            size += len(piece)
    return size


@pytest.mark.parametrize(
    "path",
    ["deltas?since=0&format=ndjson", "deltas?since=0&limit=100000", "deltas?since=0&limit=100000&format=msgpack"],
)
async def test_p12_deltas_of_a_client_that_is_far_behind_do_not_grow_memory(apart: Remote, path: str) -> None:
    idle = memory_mb(apart.pid, "VmRSS")

    size = await read_through(apart, path, **{"Accept-Encoding": "identity"})

    assert size > 30_000_000
    assert memory_mb(apart.pid, "VmHWM") - idle < GROWTH_MB


async def test_p12_a_sync_of_a_client_that_is_far_behind_does_not_grow_memory(apart: Remote) -> None:
    idle = memory_mb(apart.pid, "VmRSS")
    body = {"since": 0, "limit": 100_000, "get": {"thing": [f"atom-{n}" for n in range(1, 10_001)]}}
    url, headers, size = f"{apart.url}/v1/journals/big/sync", {"Accept-Encoding": "identity"}, 0

    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        assert response.status == 200
        async for piece in response.content.iter_chunked(1 << 16):
            size += len(piece)

    assert size > 30_000_000
    assert memory_mb(apart.pid, "VmHWM") - idle < GROWTH_MB


async def test_p12_the_fold_of_the_record_does_not_grow_memory_with_hot_atoms(apart: Remote) -> None:
    changes = [{"op": "put", "collection": "hot", "atom": f"h{n}", "data": {"text": "x" * 2000}} for n in range(50)]
    first = (await apart.pushed(changes, "big", on_conflict="client"))["first"]
    for turn in range(200):
        changes = [
            {"op": "update", "collection": "hot", "atom": f"h{n}", "data": {"text": f"{turn} {n} " + "y" * 2000}}
            for n in range(50)
        ]
        last = await apart.pushed(changes, "big", on_conflict="client")
    idle = memory_mb(apart.pid, "VmRSS")

    told, answer = await apart.round(first - 1, "big", until=last["revision"])

    assert len(told) == 50
    assert answer["until"] == last["revision"]
    assert memory_mb(apart.pid, "VmHWM") - idle < 20  # the changes are 20 MB, and what becomes of them 100 kB


@pytest.mark.parametrize("coding", ["zstd", "gzip", "identity"])
async def test_p12_a_snapshot_does_not_grow_memory(apart: Remote, coding: str) -> None:
    idle = memory_mb(apart.pid, "VmRSS")

    size = await read_through(apart, "snapshot", **{"Accept-Encoding": coding})

    assert size > 1_000_000
    assert memory_mb(apart.pid, "VmHWM") - idle < GROWTH_MB


async def test_p12_readers_that_never_read_cost_little_and_hold_no_connection(apart: Remote) -> None:
    idle = memory_mb(apart.pid, "VmRSS")
    place = urlsplit(apart.url)
    asking = b"GET /v1/journals/big/deltas?since=0&format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n"

    with contextlib.ExitStack() as opened:
        for _ in range(6):
            reader = opened.enter_context(socket.create_connection((place.hostname, place.port), timeout=60))
            reader.sendall(asking)
            assert await asyncio.to_thread(reader.recv, 12) == b"HTTP/1.1 200"
        answer = await apart.pushed([insert("late", "a", {})], "big", on_conflict="client")
        held = await apart.query(HELD)

        assert answer["outcomes"][0]["status"] in ("applied", "unchanged")
        assert held == []
        assert memory_mb(apart.pid, "VmHWM") - idle < GROWTH_MB
