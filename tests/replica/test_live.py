"""In the background changes are pushed soon, those of others come by the stream, and whatever breaks is begun again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from journal.client import Changed, Conflict, Replica
from tests.harness import Harness, delete, eventually, insert, update
from tests.replica.conftest import Opener
from tests.replica.test_recovery import damage
from tests.replica.test_replica import at_server, contents


async def in_sync(service: Harness, *replicas: Replica) -> None:
    """Wait until each has what the server has, and nothing waits."""

    async def are() -> bool:
        there = (await at_server(service)).get("todo", {})
        states = [await replica.status() for replica in replicas]
        return all([await contents(replica) == there for replica in replicas]) and not any(s.pending for s in states)

    await eventually(are, seconds=20)


async def test_two_replicas_follow_each_other(service: Harness, opened: Opener) -> None:
    phone, desk = await opened("phone"), await opened("desk")
    await phone.start()
    await desk.start()

    await phone.collection("todo").insert("a", {"n": 1})
    await in_sync(service, phone, desk)
    await desk.collection("todo").update("a", {"n": 2})
    await in_sync(service, phone, desk)
    await phone.collection("todo").delete("a")
    await in_sync(service, phone, desk)

    assert await contents(desk) == {}
    assert (await phone.status()).state == "following"
    assert (await desk.status()).lag == 0


async def test_what_is_followed_is_told(service: Harness, opened: Opener) -> None:
    replica = await opened()
    seen: list[Changed] = []

    async def look() -> None:
        async for change in replica.follow("todo"):
            seen.append(change)  # noqa: PERF401 - it never ends

    looking = asyncio.create_task(look())
    await eventually(_following(replica))
    await service.pushed([insert("todo", "a"), insert("visit", "b")])
    await eventually(_has(seen, Changed("todo", "a", {"n": 1}, is_local=False)))
    await replica.collection("todo").put("mine", {"n": 2})
    await eventually(_has(seen, Changed("todo", "mine", {"n": 2}, is_local=True)))
    await service.pushed([delete("todo", "a", if_data={"n": 1})])
    await eventually(_has(seen, Changed("todo", "a", None, is_local=False)))
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

    assert {change.collection for change in seen} == {"todo"}
    assert (await replica.status()).state == "idle"


def _following(replica: Replica) -> Any:
    async def follows() -> bool:
        return (await replica.status()).state == "following"

    return follows


def _has(seen: list[Changed], wanted: Changed) -> Any:
    async def has() -> bool:
        return wanted in seen

    return has


@pytest.fixture
async def away(service: Harness) -> AsyncIterator["Door"]:
    door = Door(service)
    await door.open()
    yield door
    await door.shut()


class Door:
    """The way to the service, which can be shut: then nothing answers at this address."""

    def __init__(self, service: Harness) -> None:
        self._there = int(service.url.rpartition(":")[2])
        self._port = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The journal's, through here."""
        return f"http://127.0.0.1:{self._port}/v1/journals/j"

    async def open(self) -> None:
        """Let through."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Break what is open, and refuse the rest."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._there)
        self._ends |= {writer, to_there}
        await asyncio.gather(_pump(reader, to_there), _pump(there, writer), return_exceptions=True)
        self._ends -= {writer, to_there}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


async def test_offline_it_waits_and_wakes_at_once_when_told(
    service: Harness, opened: Opener, away: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.client.live.FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr("journal.client.live.LONGEST_PAUSE_S", 600.0)
    replica = await opened(url=away.url)
    await replica.start()
    await eventually(_following(replica))
    await away.shut()
    await replica.collection("todo").insert("a", {"n": 1})

    async def is_offline() -> bool:
        status = await replica.status()
        return status.state == "offline" and status.error is not None

    await eventually(is_offline)
    await away.open()
    replica.wake()
    await in_sync(service, replica)

    assert (await replica.status()).error is None


async def test_a_stream_that_breaks_is_opened_again(service: Harness, opened: Opener, away: Door) -> None:
    replica = await opened(url=away.url)
    await replica.start()
    for n in range(5):
        await eventually(_following(replica))
        await away.shut()
        await service.pushed([insert("todo", f"{n}")])
        await away.open()
        await in_sync(service, replica)

    assert len(await contents(replica)) == 5


async def test_a_resync_while_it_follows_is_obeyed(service: Harness, opened: Opener) -> None:
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.start()
    await eventually(_following(replica))
    damage(replica, "update base set data = '{}'")
    await service.call("POST", "j/resync", json={"reason": "looks wrong"})

    await in_sync(service, replica)

    assert await contents(replica) == {"a": {"n": 1}}


async def test_a_sync_asked_for_while_it_follows_is_a_whole_one(service: Harness, opened: Opener) -> None:
    replica = await opened()
    await replica.start()
    await eventually(_following(replica))
    await service.pushed([insert("todo", f"{n}") for n in range(10)])
    await replica.collection("todo").insert("mine", {"n": 1})

    await replica.sync()

    assert await contents(replica) == (await at_server(service))["todo"]
    assert len(await contents(replica)) == 11


async def test_verify_works_while_it_follows(service: Harness, opened: Opener) -> None:
    await service.pushed([insert("todo", f"{n}") for n in range(10)])
    replica = await opened()
    await replica.start()
    await eventually(_following(replica))
    damage(replica, "update base set data = '{}' where atom = '3'")

    assert await replica.verify() == 1

    await eventually(_following(replica))
    assert await contents(replica) == (await at_server(service))["todo"]


async def test_a_conflict_met_in_the_background_is_told(service: Harness, opened: Opener) -> None:
    told: list[Conflict] = []
    replica = await opened(conflict=told.append)
    await service.pushed([insert("todo", "a", {"title": "ours"})])
    await replica.sync()
    await service.pushed([update("todo", "a", {"title": "theirs"}, if_data={"title": "ours"})])
    await replica.collection("todo").update("a", {"title": "mine"})

    await replica.start()
    await in_sync(service, replica)

    async def is_told() -> bool:
        return bool(told)

    await eventually(is_told)
    assert [(c.status, c.mine, c.theirs) for c in told] == [("conflict", {"title": "mine"}, {"title": "theirs"})]
    assert [c.id for c in await replica.conflicts()] == [told[0].id]
