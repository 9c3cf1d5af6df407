"""PgBouncer in transaction mode before the pools: each transaction may be on another connection than the last."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from journal.store import record
from journal.store.database import Unusable
from tests.bouncer import bouncing
from tests.harness import Harness, Json, blocked_on_lock, delete, eventually, insert, put, serving
from tests.role import as_service
from tests.subprocess_service import serving_apart

CLIENTS, PUSHES, SIZE = 10, 12, 3


async def test_p1_p6_two_processes_go_on_through_few_connections(database: str, tmp_path: Path) -> None:
    """They name their statements alike, and get each other's connections."""
    async with (
        bouncing(database, size=SIZE) as dsn,
        serving(dsn, tmp_path, listen_dsn=as_service(database)) as here,
        serving_apart(dsn, tmp_path, listen_dsn=database) as there,
    ):
        start = (await here.create("j"))["cursor"]
        polled = asyncio.create_task(polling(there, start))

        await asyncio.gather(*(client(number, (here, there)) for number in range(CLIENTS)))

        head = await here.head()
        assert head["head"] == CLIENTS * PUSHES * 2
        assert await polled == set(range(1, head["head"] + 1))
        assert (await here.round(start))[0] == (await there.round(start))[0]
        assert await backends(database) <= SIZE
        assert await names_left(dsn) == []

        lines = await there.snapshot()
        assert len(lines) == head["atoms"] + 2
        for service, what, asked in (
            (here, "check", {}),
            (there, "compact", {"keep_revisions": 0, "force": True}),
            (here, "erase", {"collection": "todo", "atom": "0-0"}),
            (there, "resync", {"reason": "x"}),
            (here, "check", {}),
        ):
            reply = await service.call("POST", f"j/{what}", json=asked, headers={"Prefer": "wait=60"})
            assert reply.status == 200, (what, reply.body)
            assert reply.json.get("result", {}).get("faults", []) == [], reply.body
        told = await there.call("GET", "j/atom", params={"collection": "todo", "atom": "0-0"})
        assert told.json["data"] is None if told.status == 200 else told.status == 404
        fixed = await here.call("GET", "j/changes", params={"since": str(head["head"])})
        assert [commit["revision"] for commit in fixed.json["commits"]] == [head["head"] + 1, head["head"] + 2]
        assert await names_left(dsn) == []


async def client(number: int, services: tuple[Harness, ...]) -> None:
    """Pushes by turns at each process, and each once more at the other one."""
    name = str(UUID(int=number + 1))
    for push in range(1, PUSHES + 1):
        changes = [
            insert("todo", f"{number}-{push - 1}"),
            put("shared", str(push % 5), {"by": number, "push": push}, if_data=None),
        ]
        at, other = services[push % 2], services[(push + 1) % 2]
        body: Json = {"client": name, "push": push, "on_conflict": "client"}

        first = await at.pushed(changes, **body)
        again = await other.pushed(changes, **body)

        assert again == first | {"replayed": True}


async def polling(service: Harness, since: str) -> set[int]:
    """The revisions of everything that a patient poller is told, until all is there."""
    revisions: set[int] = set()
    async with asyncio.timeout(60):
        while len(revisions) < CLIENTS * PUSHES * 2:
            reply = await service.call("GET", "j/changes", params={"since": since.split(":")[1], "limit": "50"})
            assert reply.status == 200, reply.body
            told = reply.json
            for commit in told["commits"]:
                revisions |= set(range(commit["first"], commit["revision"] + 1))
            since = told["cursor"]
            if not told["commits"]:
                waited = await service.deltas(since, wait=5)
                assert waited.status == 200, waited.body
    return revisions


async def backends(database: str) -> int:
    """How many connections PostgreSQL has from the pooler."""
    owner = await asyncpg.connect(database)
    found: int = await owner.fetchval(
        """select count(*) from pg_stat_activity
            where datname = current_database() and usename <> current_user and application_name <> 'journal listen'"""
    )
    await owner.close()
    return found


async def names_left(dsn: str) -> list[str]:
    """The named statements of the pooler's connections, each of which is asked at the same time."""
    left: list[str] = []
    pids = set()
    async with AsyncExitStack() as stack:
        for _ in range(SIZE):
            connection = await asyncpg.connect(dsn, statement_cache_size=0)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            rows = await connection.fetch("select statement from pg_prepared_statements where name <> ''")
            left += [row["statement"] for row in rows]
            pids.add(await connection.fetchval("select pg_backend_pid()"))
    assert len(pids) == SIZE
    return left


async def test_a_journal_whose_head_is_held_delays_nobody_else_there_either(database: str, tmp_path: Path) -> None:
    """The pooler keeps no lock_timeout: the functions bring it along."""
    async with (
        bouncing(database, size=6) as dsn,
        serving(dsn, tmp_path, listen_dsn=as_service(database)) as service,
    ):
        for name in ("held", "free"):
            await service.create(name)
            await service.pushed([insert("todo", "a")], name)
        holder = await asyncpg.connect(database)
        holding = holder.transaction()
        await holding.start()
        await holder.execute("select journal.lock(array[(select id from journal.journal where name = 'held')])")

        pushes = [asyncio.create_task(service.push([insert("todo", "b")], name)) for name in ("held", "free", "held")]
        began = time.monotonic()
        answered = await pushes[1]
        took = time.monotonic() - began
        await blocked_on_lock(database)
        await holding.rollback()
        late = await asyncio.gather(pushes[0], pushes[2])
        await holder.close()

    assert (answered.status, took < 10) == (200, True)
    assert {reply.status for reply in late} == {200}


async def test_who_is_told_of_no_lock_timeout_waits_as_long_as_the_writer(database: str) -> None:
    async with bouncing(database) as dsn:
        owner = await asyncpg.connect(database)
        await owner.execute("select journal.create('j')")
        holding = owner.transaction()
        await holding.start()
        await owner.execute("select journal.lock(array[1])")
        pooled = await asyncpg.connect(dsn, statement_cache_size=0)
        connection: Any = pooled  # which the store has from a pool

        began = time.monotonic()
        with pytest.raises(asyncpg.LockNotAvailableError):
            async with pooled.transaction():
                await record.lock(connection, [1], patience_s=None)
        took = time.monotonic() - began

        left = await pooled.fetchval("select current_setting('lock_timeout')")
        await holding.rollback()
        await pooled.close()
        await owner.close()

    assert 0.2 < took < 5
    assert left == "0"


async def test_notifications_come_past_the_pooler(database: str, tmp_path: Path) -> None:
    async with (
        bouncing(database) as dsn,
        serving(dsn, tmp_path, listen_dsn=as_service(database), poll_s=3600.0) as first,
        serving(dsn, tmp_path, listen_dsn=as_service(database), poll_s=3600.0) as second,
    ):
        cursor = (await first.create("j"))["cursor"]

        async def listens() -> bool:
            return second.service.watch.listener.is_connected

        await eventually(listens)
        waiting = asyncio.create_task(second.deltas(cursor, wait=30))
        await first.pushed([insert("todo", "a"), insert("todo", "b")])
        await first.pushed([delete("todo", "b", if_data={"n": 1})])

        told = await waiting

    assert told.json["deltas"][0]["atom"] == "a"


@pytest.mark.parametrize(
    "ignored", ["", "jit,lock_timeout,plan_cache_mode,enable_seqscan,enable_hashjoin,enable_mergejoin"]
)
async def test_a_pooler_that_nobody_named_is_refused(database: str, tmp_path: Path, ignored: str) -> None:
    """Also where it is told to take settings that it does not keep: groups would wait for a lock without an end."""
    async with bouncing(database, ignored=ignored) as dsn:
        with pytest.raises(Unusable, match="--listen-dsn"):
            async with serving(dsn, tmp_path):
                pass
