"""Random histories with everything that an operator can do in between: whatever it was, clients that know only the
protocol end with what the server has, and a check finds nothing (P5, P8, P10, P11).

Each number that hypothesis draws is the seed of one step. JOURNAL_TEST_THOROUGH=1 takes a quarter of an hour where the
normal run takes some seconds.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from random import Random
from uuid import UUID

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.plain_client import Client
from tests.harness import Harness, Json, delete, eventually, insert, put, serving, update

EXAMPLES = 1000 if os.environ.get("JOURNAL_TEST_THOROUGH") else 25
STEPS = 40
NAMES = ("a", "b", "c", "d", 'q"\\&%', "😀")
COLLECTIONS = ("todo", "naïve: %=+")


class World:
    """A journal behind two processes, and the clients that sync it, each through one of them."""

    def __init__(self, servers: list[Harness], sessions: aiohttp.ClientSession, j: str, place: int) -> None:
        self.servers, self.sessions, self.j = servers, sessions, j
        self.ids = (str(UUID(int=(place << 32) + n)) for n in count())
        self.clients = [self.client(n % 2) for n in range(3)]

    def client(self, server: int) -> Client:
        """One that has nothing yet."""
        return Client(self.sessions, f"{self.servers[server].url}/v1/journals/{self.j}", next(self.ids))

    async def operate(self, what: str, **asked: object) -> Json:
        """What an operator does, and waits for."""
        reply = await self.servers[0].call("POST", f"{self.j}/{what}", json=asked, headers={"Prefer": "wait=60"})
        assert reply.status in (200, 404), reply.body
        return reply.json

    async def take(self, seed: int) -> None:
        """One step."""
        r = Random(seed)
        client = r.choice(self.clients)
        match r.choice(
            ("push", "push", "push", "pull", "pull", "doubt", "resync", "compact", "erase", "restored", "new")
        ):
            case "push":
                if client.cursor == "0":
                    await client.pull()
                await client.push(changes(r), on_conflict=r.choice(("server", "merge", "client")))
            case "pull":
                await client.pull()
            case "doubt":
                damage(r, client)
                await client.verify()
            case "resync":
                one: Json = r.choice([{}, {"client": client.name}, {"collections": [r.choice(COLLECTIONS)]}])
                await self.operate("resync", reason="chance", **one)
            case "compact":
                told = await self.operate("compact", keep_revisions=r.randrange(12), force=r.random() < 0.5)
                assert told["state"] == "done", told
            case "erase":
                await self.operate("erase", collection=r.choice(COLLECTIONS), atom=r.choice(NAMES))
            case "restored":
                if r.random() < 0.4:
                    await self.operate("restored")
            case "new":
                self.clients[r.randrange(3)] = self.client(r.randrange(2))

    async def compare(self) -> None:
        """Everyone syncs, once both processes know of all; then all are equal."""

        async def are_even() -> bool:
            heads = [await server.head(self.j) for server in self.servers]
            return heads[0] == heads[1]

        await eventually(are_even)
        for client in self.clients:
            await client.pull()
        new = self.client(1)
        await new.pull()
        for client in self.clients:
            assert client.data == new.data
        told = await self.operate("check")
        assert told["result"]["ok"] is True, told


def changes(r: Random) -> list[Json]:
    """Changes of one to three atoms."""
    made = []
    for name in r.sample(NAMES, r.randint(1, 3)):
        data = {r.choice("xyz"): r.randrange(5)}
        collection = r.choice(COLLECTIONS)
        match r.choice(("insert", "insert", "put", "update", "delete")):
            case "insert":
                made.append(insert(collection, name, data))
            case "put":
                made.append(put(collection, name, data))
            case "update":
                unset = [name for name in "xyz" if name not in data and r.random() < 0.3]
                made.append(update(collection, name, data, unset=unset))
            case _:
                made.append(delete(collection, name))
    return made


def damage(r: Random, client: Client) -> None:
    """What a failing disk does to a client."""
    for key in [key for key in client.data if r.random() < 0.3]:
        revision, data = client.data[key]
        match r.randrange(3):
            case 0:
                del client.data[key]
            case 1:
                client.data[key] = (revision, data | {"x": "damaged"})
            case _:
                client.data[key] = (revision - 1, data)
    if r.random() < 0.3:
        client.data[COLLECTIONS[0], "ghost"] = (1, {})


@pytest.fixture
async def servers(database: str, tmp_path: Path) -> AsyncIterator[list[Harness]]:
    """Two processes' worth of services on one database, with a spool each."""
    async with serving(database, tmp_path) as one, serving(database, tmp_path) as two:
        yield [one, two]


_places = count(1)


@given(st.lists(st.integers(0, 2**32), min_size=STEPS // 2, max_size=STEPS))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(1800)
async def test_p8_p10_p11_whatever_operators_do_everyone_ends_with_what_the_server_has(
    servers: list[Harness], seeds: list[int]
) -> None:
    place = next(_places)
    j = f"j{place}"
    await servers[0].create(j)
    async with aiohttp.ClientSession() as session:
        world = World(servers, session, j, place)
        for seed in seeds:
            await asyncio.wait_for(world.take(seed), 60)
        await world.compare()
