"""Restored, replaced and copied servers, real ones: in each case a client that knows only the protocol ends with equal
digests, and what it had been acknowledged is there again (P8, P9; traps 7 and 16)."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from examples.plain_client import Client
from journal.store.migrate import migrate
from tests.cluster import Cluster
from tests.harness import Harness, Json, eventually, insert, serving, update


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A migrated server of its own."""
    cluster = Cluster(tmp_path / "primary")
    await cluster.create()
    try:
        await migrate(cluster.dsn)
        yield cluster
    finally:
        await cluster.stop(signal.SIGQUIT)


@contextlib.asynccontextmanager
async def stopping(cluster: Cluster) -> AsyncIterator[Cluster]:
    try:
        yield cluster
    finally:
        await cluster.stop(signal.SIGQUIT)


class Watched(Client):
    """The plain client, and what it was told of its cursor."""

    def __init__(self, session: aiohttp.ClientSession, service: Harness) -> None:
        super().__init__(session, f"{service.url}/v1/journals/j", str(uuid4()))
        self.reasons: list[str] = []
        self.http: list[int] = []

    def meets(self, service: Harness) -> None:
        """The service is another now, at the same address as far as a client knows."""
        self.journal = f"{service.url}/v1/journals/j"

    async def recover(self, problem: Json) -> None:
        self.reasons.append(problem["reason"])
        await super().recover(problem)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def state(service: Harness) -> dict[tuple[str, str], tuple[int, Any]]:
    """What the server has, as a new client learns it."""
    new = Watched(service.session, service)
    await new.pull()
    return new.data


async def work(client: Client, name: str, count: int = 5) -> None:
    """Pushes that are acknowledged."""
    for n in range(count):
        [outcome] = await client.push([insert("todo", f"{name}-{n}", {"n": n})])
        assert outcome["status"] == "applied"
    [outcome] = await client.push([update("todo", f"{name}-0", {"edited": True})])
    assert outcome["status"] == "applied"


async def same(service: Harness, *clients: Client) -> None:
    """Every client has what the server has, after two more rounds: in the first, others may push again."""
    for client in 2 * clients:
        await client.pull()
    for client in clients:
        assert client.data == await state(service)


async def question(service: Harness) -> bool:
    """Whether the server asks whether it is another."""
    is_other: bool = (await service.call("GET", "/v1/server")).json["is_other"]
    return is_other


async def test_trap_16_a_synchronous_failover_is_noticed_by_no_client(
    primary: Cluster, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with stopping(await primary.backup(tmp_path / "standby", is_standby=True)) as standby:
        await primary.stop()
        await primary.start(synchronous_standby_names="*")
        old = primary.port
        conninfo = f"host=127.0.0.1 port={old} user=journal"
        await standby.start(primary_conninfo=conninfo)

        async def is_synchronous() -> bool:
            return await primary.follows()

        await eventually(is_synchronous, seconds=30)
        both = f"postgresql://journal@127.0.0.1:{old},127.0.0.1:{standby.port}/journal?target_session_attrs=primary"
        async with serving(both, tmp_path) as service:
            await service.create()
            clients = [Watched(session, service) for _ in range(3)]
            for client in clients:
                await client.pull()
            epoch = (await service.head())["epoch"]
            working = [asyncio.create_task(work(client, f"{n}", 60)) for n, client in enumerate(clients)]

            async def has_begun() -> bool:
                return bool((await service.head())["head"] > 20)

            await eventually(has_begun)
            await primary.stop(signal.SIGQUIT)
            await standby.promote()
            await asyncio.gather(*working)
            await same(service, *clients)

            assert [client.reasons for client in clients] == [[], [], []]
            assert (await service.head())["epoch"] == epoch
            assert len(await state(service)) == 180
            assert (await service.head())["head"] == 183
            assert await question(service) is True  # the timeline is another: asked, and not acted on


@pytest.mark.parametrize("way", ["nobody knows", "others go on first", "the operator says so"])
@pytest.mark.parametrize("kind", ["base backup", "dump"])
async def test_trap_7_a_restored_backup_gets_back_what_clients_had_been_acknowledged(
    primary: Cluster, tmp_path: Path, session: aiohttp.ClientSession, kind: str, way: str
) -> None:
    async with serving(primary.dsn, tmp_path) as service:
        await service.create()
        one, two, idle = (Watched(session, service) for _ in range(3))
        for client in (one, two, idle):
            await client.pull()
        await work(one, "one, kept")
        await idle.pull()
        if kind == "dump":
            other = await primary.dump(tmp_path / "restored")
        else:
            other = await primary.backup(tmp_path / "restored")
        await work(one, "one, lost")
        await work(two, "two, lost")
        await one.push([update("todo", "one, kept-1", {"edited": "after the backup"})])
        await same(service, one, two)
        acknowledged = {key: data for key, (_, data) in one.data.items()}
        before = await service.head()
    await primary.stop(signal.SIGQUIT)

    async with stopping(other):
        if kind == "base backup":
            await other.start()
        async with serving(other.dsn, tmp_path) as service:
            assert (await service.head())["head"] < before["head"]
            assert await question(service) is (kind == "dump")  # a base backup looks like the server that it is of
            if way == "the operator says so":
                reply = await service.call("POST", "j/restored", json={})
                assert reply.json["head"] > before["head"]
            elif way == "others go on first":
                for n in range(before["head"]):
                    await service.pushed([insert("todo", f"other {n}")])
            for client in (one, two, idle):
                client.meets(service)
            await same(service, one, two, idle)

            reason = {"nobody knows": "future", "others go on first": "diverged", "the operator says so": "epoch"}[way]
            assert one.reasons[0] == two.reasons[0] == reason
            assert bool(idle.reasons) is (way == "the operator says so")
            there = {key: data for key, (_, data) in (await state(service)).items() if not key[1].startswith("other")}
            assert there == acknowledged
            assert (await service.call("POST", "j/check", headers={"Prefer": "wait=60"})).json["result"]["ok"] is True
            await one.push([insert("todo", "and on")])
            await same(service, one, two, idle)


async def test_trap_7_a_copied_data_folder_is_told_by_the_chain_alone(
    primary: Cluster, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Both copies go on as if they were the one; a client of the first meets the second."""
    async with serving(primary.dsn, tmp_path) as service:
        await service.create()
        client = Watched(session, service)
        await client.pull()
        await work(client, "before")
    await primary.stop()
    async with stopping(primary.copied(tmp_path / "copy")) as copy:
        await primary.start()
        await copy.start()
        async with serving(primary.dsn, tmp_path) as first, serving(copy.dsn, tmp_path) as second:
            client.meets(first)
            await client.pull()
            await work(client, "at the first")
            for n in range(12):
                await second.pushed([insert("todo", f"at the second {n}")])
            assert [await question(first), await question(second)] == [False, False]

            client.meets(second)
            await same(second, client)

            assert client.reasons == ["diverged"]
            names = {atom for _, atom in client.data}
            assert {f"at the first-{n}" for n in range(5)} < names
            assert {f"at the second {n}" for n in range(12)} < names
