"""Failovers that are not clean: a primary that is silent, one that is only fenced, a standby that nobody waited for.

The service knows both servers by its DSN, which asks for one that can be written to.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from journal.store import database, listener
from journal.store.servers import Servers
from tests.cluster import Cluster
from tests.fault.faults import pair
from tests.harness import Harness, eventually, insert, serving

Pair = tuple[Cluster, Cluster, str]


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Pair]:
    """A primary, its synchronous standby, and the DSN of both."""
    async with pair(tmp_path) as running:
        yield running


async def waiting_for_the_standby(primary: Cluster, count: int) -> list[int]:
    """The backends whose commits wait for the standby, once there are so many."""
    connection = await asyncpg.connect(primary.dsn)
    try:

        async def found() -> list[int]:
            pids = [row["pid"] for row in await connection.fetch(_WAITING)]
            return pids if len(pids) == count else []

        waiting: list[int] = await eventually(found)
        return waiting
    finally:
        await connection.close()


_WAITING = "select pid from pg_stat_activity where wait_event = 'SyncRep' and application_name like 'journal write%'"


async def recorded(service: Harness) -> list[tuple[str | None, int | None]]:
    """Who pushed what, by the record."""
    commits = (await service.call("GET", "j/changes?since=0&limit=10000")).json["commits"]
    return [(commit["client"], commit["push"]) for commit in commits]


async def test_p6_a_push_that_no_standby_has_is_not_answered_because_it_is_found_recorded(
    servers: Pair, tmp_path: Path
) -> None:
    """A backend that is ended while its commit waits leaves it recorded here alone. Who repeated it at
    another process was answered, and a failover took it away."""
    primary, standby, dsn = servers
    async with serving(dsn, tmp_path) as service, serving(dsn, tmp_path) as other:
        await service.create()
        await service.pushed([insert("todo", "before")])
        standby.send(signal.SIGSTOP)
        client = str(uuid4())
        pushing = asyncio.create_task(service.push([insert("todo", "a")], client=client, push=1))
        [first] = await waiting_for_the_standby(primary, 1)
        admin = await asyncpg.connect(primary.dsn)
        await admin.execute("select pg_terminate_backend($1)", first)
        await admin.close()

        async def is_seen() -> bool:
            return bool((await other.head())["head"] == 2)

        await eventually(is_seen)
        again = asyncio.create_task(other.push([insert("todo", "a")], client=client, push=1))
        waiting = asyncio.create_task(waiting_for_the_standby(primary, 2))
        await asyncio.wait({pushing, again, waiting}, return_when=asyncio.FIRST_COMPLETED)
        answered = [(await task).json for task in (pushing, again) if task.done()]

        await primary.kill()
        standby.send(signal.SIGCONT)
        await standby.promote()
        await asyncio.gather(pushing, again)
        assert answered == []
        await waiting

        async def is_answered() -> bool:
            return (await service.push([insert("todo", "a")], client=client, push=1)).status == 200

        await eventually(is_answered, seconds=30)
        assert await recorded(service) == [(None, None), (client, 1)]


async def test_a_primary_that_is_silent_is_left_for_the_one_that_was_promoted(
    servers: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open and new ones are taken, as where its machine hangs: only time-outs tell."""
    monkeypatch.setattr(database, "STATEMENT_S", 1.0)
    monkeypatch.setattr(listener, "LOOK_S", 0.5)
    monkeypatch.setattr(listener, "ANSWER_S", 0.5)
    primary, standby, dsn = servers
    async with serving(dsn, tmp_path) as service, serving(dsn, tmp_path) as reader:
        await service.create()
        await service.pushed([insert("todo", "a")])
        assert (await reader.head())["head"] == 1
        primary.send(signal.SIGSTOP)
        await standby.promote()

        async def is_taken() -> bool:
            return (await service.push([insert("todo", "b")], client=str(uuid4()), push=1)).status == 200

        async def is_known() -> bool:
            reply = await reader.deltas(0, include="meta")
            return reply.status == 200 and reply.json["head"] >= 2

        await eventually(is_taken, seconds=60)
        await eventually(is_known, seconds=60)
        assert (await eventually(reader.head))["head"] >= 2
        assert service.service.watch.listener.is_connected
        await primary.kill()


async def test_a_primary_that_was_made_read_only_is_left_by_who_only_reads(servers: Pair, tmp_path: Path) -> None:
    """Nothing that it is asked fails, and what it answers is a past that moves no more."""
    primary, standby, dsn = servers
    async with serving(dsn, tmp_path) as service:
        await service.create()
        await service.pushed([insert("todo", "a")])
        admin = await asyncpg.connect(primary.dsn)
        await admin.execute("alter system set default_transaction_read_only = on")
        await admin.execute("select pg_reload_conf()")
        await admin.close()
        await standby.promote()
        async with serving(standby.dsn, tmp_path) as other:
            await other.pushed([insert("todo", "b")])

        async def is_known() -> bool:
            return bool((await service.head())["head"] == 2)

        await eventually(is_known, seconds=30)
        assert (await service.deltas(0, include="meta")).json["head"] == 2
        assert (await service.push([insert("todo", "c")])).status in (200, 503)


async def test_a_silent_server_does_not_keep_anybody_from_the_next(servers: Pair) -> None:
    primary, standby, dsn = servers
    await standby.promote()
    primary.send(signal.SIGSTOP)
    both = Servers(dsn)

    connections = [await both.connect(dsn, timeout=2.0) for _ in range(2)]

    ports = {await connection.fetchval("select inet_server_port()") for connection in connections}
    assert ports == {standby.port}
    for connection in connections:
        await connection.close()
    await primary.kill()
