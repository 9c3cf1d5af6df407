"""Every reason for a 410, provoked over HTTP, and the whole way back of a client that knows only the protocol.

The client is examples/plain_client.py. Each way ends with equal digests, and with all that the client had been
acknowledged.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from examples.plain_client import Client
from tests.conftest import new_database
from tests.harness import Harness, Json, delete, insert, serving, update
from tests.postgres import Server

Way = Callable[[Harness, "Watched"], Awaitable[None]]


class Watched(Client):
    """The plain client, and why it was sent back."""

    def __init__(self, session: aiohttp.ClientSession, service: Harness) -> None:
        super().__init__(session, f"{service.url}/v1/journals/j", str(uuid4()))
        self.reasons: list[str] = []

    async def recover(self, problem: Json) -> None:
        self.reasons.append(problem["reason"])
        await super().recover(problem)


@pytest.fixture
async def client(service: Harness) -> AsyncIterator[Watched]:
    """A client that has pulled, pushed and been answered."""
    async with aiohttp.ClientSession() as session:
        client = Watched(session, service)
        await client.pull()
        await client.push([insert("todo", f"{n}", {"n": n}) for n in range(40)])
        await client.push([update("todo", "7", {"n": 70})])
        await client.push([insert("note", "n")])
        yield client


async def others(service: Harness, count: int = 5) -> None:
    """What goes on meanwhile."""
    for n in range(count):
        await service.pushed([insert("todo", f"other {n}-{uuid4()}")])
    await service.pushed([update("todo", "9", {"n": 90})], on_conflict="client")


async def is_equal(service: Harness, client: Client) -> None:
    """What the service has and what the client has are one."""
    head = await service.head()
    new = Watched(client.session, service)
    await new.pull()
    assert client.cursor.split(":")[:3] == head["cursor"].split(":")[:3]
    assert client.data == new.data
    assert len(client.data) == head["atoms"]


# The ways.


async def compacted(service: Harness, client: Watched) -> None:
    reply = await service.call(
        "POST", "j/compact", json={"keep_revisions": 0, "force": True}, headers={"Prefer": "wait=60"}
    )
    assert reply.json["state"] == "done"


async def restored(service: Harness, client: Watched) -> None:
    assert (await service.call("POST", "j/restored", json={})).status == 200


async def called_back(service: Harness, client: Watched) -> None:
    asked = {"client": client.name, "reason": "it shows an old price"}
    assert (await service.call("POST", "j/resync", json=asked)).status == 200


async def everyone_called_back(service: Harness, client: Watched) -> None:
    assert (await service.call("POST", "j/resync", json={"reason": "a bad import", "spread_s": 1})).status == 200


async def narrowed(service: Harness, client: Watched) -> None:
    """It had only asked for notes, and now asks for everything."""
    reply = await service.deltas(client.cursor, collections="note")
    client.cursor = reply.json["cursor"]
    client.data = {key: held for key, held in client.data.items() if key[0] == "note"}


@pytest.mark.parametrize(
    ("reason", "way"),
    [
        ("horizon", compacted),
        ("epoch", restored),
        ("operator", called_back),
        ("operator", everyone_called_back),
        ("scope", narrowed),
    ],
    ids=["horizon", "epoch", "operator", "operator, everyone", "scope"],
)
async def test_p8_the_whole_way_back(service: Harness, client: Watched, reason: str, way: Way) -> None:
    await others(service)
    await way(service, client)
    await others(service)
    await client.pull()

    assert client.reasons == [reason]
    await is_equal(service, client)
    [outcome] = await client.push([update("todo", "3", {"n": 33})])
    assert outcome["status"] == "applied"
    await is_equal(service, client)


@pytest.mark.parametrize(("reason", "ahead"), [("future", 0), ("diverged", 20)])
async def test_p8_trap_7_the_whole_way_back_to_a_server_that_was_set_back(
    postgres: Server, database: str, tmp_path: Path, reason: str, ahead: int
) -> None:
    """Staging, a copy of production, is taken for it: what the client pushed since is sent again and recorded."""
    async with aiohttp.ClientSession() as session:
        async with serving(database, tmp_path) as service:
            await service.create()
            client = Watched(session, service)
            await client.pull()
            await client.push([insert("todo", f"{n}", {"n": n}) for n in range(10)])
        name = database.partition("?")[0].rpartition("/")[2]
        async with new_database(postgres, name) as dsn, serving(dsn, tmp_path) as copy:
            async with serving(database, tmp_path) as service:
                client.journal = f"{service.url}/v1/journals/j"
                await client.push([insert("todo", "acknowledged since", {"n": 1})])
                await client.push([update("todo", "5", {"n": 55})])
            if ahead:
                await others(copy, ahead)
            client.journal = f"{copy.url}/v1/journals/j"
            await client.pull()

            assert client.reasons == [reason]
            await is_equal(copy, client)
            assert client.data["todo", "acknowledged since"][1] == {"n": 1}
            assert client.data["todo", "5"][1] == {"n": 55}
            assert (await copy.call("POST", "j/check", headers={"Prefer": "wait=60"})).json["result"]["ok"] is True


async def test_trap_10_a_download_that_breaks_off_is_still_asked(service: Harness, client: Watched) -> None:
    """At 90 % it has obeyed nothing: it asks from its old cursor and is told again."""
    await called_back(service, client)
    location = (await service.call("GET", "j/snapshot")).headers["Location"]
    plain = {"Accept-Encoding": "identity"}
    whole = await service.call("GET", location, headers=plain)
    cut = whole.body[: len(whole.body) * 9 // 10]

    for _ in range(2):
        reply = await service.deltas(client.cursor, client=client.name)
        assert (reply.status, reply.json["reason"]) == (410, "operator")
    rest = await service.call("GET", location, headers=plain | {"Range": f"bytes={len(cut)}-"})

    assert (rest.status, cut + rest.body) == (206, whole.body)
    [row] = (await service.call("GET", "j/clients")).json["clients"]
    assert row["resync"] is not None
    assert (await service.deltas(whole.lines[0]["cursor"], client=client.name)).status == 200
    [row] = (await service.call("GET", "j/clients")).json["clients"]
    assert row["resync"] is None


async def test_p11_a_client_in_doubt_mends_what_differs_and_nothing_else(service: Harness, client: Watched) -> None:
    """Damage that no revision shows is found by content, in one atom of forty."""
    kept = dict(client.data)
    client.data["todo", "11"] = (client.data["todo", "11"][0], {"n": "a flipped bit"})
    del client.data["todo", "12"]
    client.data["todo", "ghost"] = (1, {})
    asked: list[str] = []
    ask = client.ask

    async def counted(method: str, path: str, **body: object) -> object:
        asked.append(path.partition("?")[0])
        return await ask(method, path, **body)

    client.ask = counted  # type: ignore[method-assign]
    await client.verify()

    assert client.data == kept
    assert asked.count("/lookup") == 2
    assert "/snapshot" not in asked


async def test_trap_20_what_was_acknowledged_and_then_deleted_by_others_does_not_stay(
    service: Harness, client: Watched
) -> None:
    """Its insert and somebody's delete cancel out before its cursor gets there: it holds nothing ahead of that."""
    made = {"client": client.name, "push": 99, "changes": [insert("todo", "mine")]}
    answer = await client.ask("POST", "/changes", json=made)
    await service.pushed([delete("todo", "mine")], on_conflict="client")
    await client.pull()

    assert answer["outcomes"][0]["status"] == "applied"
    assert ("todo", "mine") not in client.data
    await is_equal(service, client)
