"""P6 and P10 for syncs: recorded once, whatever breaks, and everyone ends with what the server has."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tests import oracle
from tests.harness import Harness, Json, eventually, insert, put, serving
from tests.integration.test_sync import FORGETFUL, ME, pushed, sync, synced, told
from tests.proxy import Proxy, proxied


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    """What stands between a service and its database."""
    async with proxied(database) as running:
        yield running


@pytest.mark.parametrize("is_let_through", [False, True])
async def test_p6_a_sync_whose_backend_dies_while_it_is_recorded_is_recorded_once(
    proxy: Proxy, tmp_path: Path, is_let_through: bool
) -> None:
    async with serving(proxy.dsn, tmp_path, poll_s=3600.0) as service:
        await service.create("j")
        at = await pushed(service, insert("todo", "a"))
        body: Json = {"client": ME, "push": 1, "changes": [insert("todo", "b", {"mark": "this one"})]}
        proxy.trap(b"this one", is_let_through=is_let_through)

        answer = await synced(service, at, **body)
        again = await synced(service, at, **body)

        assert proxy.sprung.is_set()
        assert answer["replayed"] is is_let_through
        assert again == answer | {"replayed": True}
        assert told(answer) == [("insert", "b")]
        assert (await service.head())["head"] == 2


async def test_p6_a_sync_whose_backend_dies_while_it_reads_is_answered_when_it_is_sent_again(
    proxy: Proxy, tmp_path: Path
) -> None:
    async with serving(proxy.dsn, tmp_path, memory=FORGETFUL, poll_s=3600.0) as service:
        await service.create("j")
        at = await pushed(service, insert("todo", "a"))
        body: Json = {"client": ME, "push": 1, "changes": [insert("todo", "b")]}
        proxy.trap(b"COPY", is_let_through=True, of=b"journal read")

        broken = await sync(service, at, **body)
        again = await synced(service, at, **body)

        assert proxy.sprung.is_set()
        assert (broken.status, broken.json["code"]) == (503, "unavailable")
        assert (again["replayed"], again["revision"], told(again)) == (True, 2, [("insert", "b")])
        assert (await service.head())["head"] == 2


async def test_p6_backends_are_terminated_all_the_time_and_nothing_is_lost_or_twice(
    database: str, tmp_path: Path
) -> None:
    """Each client sends its sync until it is answered, and ends with what the server has."""

    class Syncing:
        def __init__(self, service: Harness) -> None:
            self.service, self.id, self.cursor = service, str(uuid4()), "0"
            self.data: oracle.State = {}

        async def round(self, number: int) -> None:
            changes = [put("todo", f"{self.id}-{number}", {"n": number}, if_data=None)]
            while True:
                reply = await sync(self.service, self.cursor, changes, client=self.id, push=number, limit=7)
                if reply.status == 200:
                    break
                assert reply.status == 503, reply.body
                await asyncio.sleep(0.01)
            oracle.apply(self.data, reply.json["deltas"])
            self.cursor = reply.json["cursor"]

        async def rest(self) -> str:
            while True:
                reply = await sync(self.service, self.cursor)
                if reply.status == 200:
                    oracle.apply(self.data, reply.json["deltas"])
                    self.cursor = reply.json["cursor"]
                    if not reply.json["more"]:
                        return str(reply.json["digest"])
                await asyncio.sleep(0.01)

    async def terminating() -> None:
        connection = await asyncpg.connect(database, server_settings={"application_name": "test"})
        try:
            while True:
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and application_name like 'journal%' order by random() limit 2"
                )
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    async with serving(database, tmp_path) as one, serving(database, tmp_path, memory=FORGETFUL) as two:
        await one.create("j")
        clients = [Syncing([one, two][n % 2]) for n in range(6)]
        killer = asyncio.create_task(terminating())
        try:
            for number in range(1, 16):
                await asyncio.gather(*(client.round(number) for client in clients))
        finally:
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)

        async def heads_are_even() -> bool:
            heads = [await service.call("GET", "j") for service in (one, two)]
            return all(head.status == 200 and head.json["head"] == 90 for head in heads)

        await eventually(heads_are_even)
        digests = {await client.rest() for client in clients}
        pushes = await one.query("select client_id, push from journal.commit")

    assert Counter((row["client_id"], row["push"]) for row in pushes) == {
        (client, number): 1 for client in range(1, 7) for number in range(1, 16)
    }
    assert digests == {oracle.digest(client.data) for client in clients}
    assert {len(client.data) for client in clients} == {90}
