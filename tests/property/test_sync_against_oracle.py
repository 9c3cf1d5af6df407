"""Random pushes and syncs of several clients, compared with tests/oracle.py: P3, P6, P10.

Two processes serve one database, as in test_against_oracle.py: one remembers recent commits, one remembers none.
"""

import itertools
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.harness import Harness, Json
from tests.integration.test_sync import OF_PUSH, is_replay
from tests.property.test_against_oracle import ATOMS, COLLECTIONS, Replica, World
from tests.property.test_against_oracle import servers as servers


class Syncing(World):
    """Clients that push and pull by syncs, each with a count of its pushes."""

    def __init__(self, servers: Any, j: str, epoch: str) -> None:
        super().__init__(servers, j, epoch)
        self.numbers: Counter[str] = Counter()

    async def take(self, seed: int) -> None:
        r = Random(seed)
        if r.random() < 0.2:
            await self.push(r)
        else:
            await self.sync_in_one(r, r.choice(self.replicas), self.changes(r))

    def changes(self, r: Random) -> list[Json]:
        return [self.change(r) for _ in range(r.choice([0, 0, 1, 1, 2, 3]))]

    async def sync_in_one(self, r: Random, replica: Replica, changes: list[Json], *, is_last: bool = False) -> Json:
        server = r.choice(self.servers)
        get = {name: r.sample(ATOMS, 2) for name in r.sample(COLLECTIONS, 2)} if is_last or r.random() < 0.3 else None
        body: Json = {"since": replica.cursor, "on_conflict": "client", "limit": r.choice([1, 2, 3, 100])}
        body |= {"changes": changes} if changes else {}
        body |= {"get": get} if get is not None else {}
        body |= {"client": replica.client} if replica.client else {}
        body |= {"collections": sorted(replica.collections)} if replica.collections is not None else {}
        if changes and replica.client:
            self.numbers[replica.client] += 1
            body["push"] = self.numbers[replica.client]

        before = self.oracle.head
        if changes:
            self.oracle.push(changes, replica.client)
        reply = await server.call("POST", f"{self.j}/sync", json=body)
        assert reply.status == 200, reply.body
        if "push" in body and r.random() < 0.3:
            again = await r.choice(self.servers).call("POST", f"{self.j}/sync", json=body)
            assert is_replay(again, reply)
        answer = reply.json
        if changes:
            self.check_pushed(answer, before)
            if self.oracle.head > before:
                self.cursors[self.oracle.head] = (await server.head(self.j))["cursor"]
            assert answer["head"] == self.oracle.head
        else:
            assert not answer.keys() & OF_PUSH
        assert get is None or answer["head"] == self.oracle.head
        self.check_deltas(replica, answer)
        if get is not None:
            self.check_atoms(get, answer)
        return answer

    def check_pushed(self, answer: Json, before: int) -> None:
        is_recorded = self.oracle.head > before
        assert answer["first"] == (before + 1 if is_recorded else None)
        assert answer["revision"] == (self.oracle.head if is_recorded else None)
        recorded = [o["revision"] for o in answer["outcomes"] if o["status"] in ("applied", "merged")]
        assert recorded == list(range(before + 1, self.oracle.head + 1))

    def check_deltas(self, replica: Replica, answer: Json) -> None:
        """One page that is a whole round is the oracle's; any round ends with the oracle's state."""
        is_whole = ":base=" not in replica.cursor and not answer["more"]
        start = int(replica.cursor.split(":")[1]) if ":" in replica.cursor else 0
        assert answer["since"] == start
        oracle.apply(replica.data, answer["deltas"])
        replica.cursor = answer["cursor"]
        if is_whole:
            expected = self.oracle.deltas(start, answer["until"], replica.collections, replica.client)
            state = self.oracle.state(answer["until"])
            deltas = {(delta["collection"], delta["atom"]): oracle.told(delta) for delta in answer["deltas"]}
            assert len(deltas) == len(answer["deltas"])
            assert deltas.keys() >= expected.keys()
            for key, delta in deltas.items():
                if key not in expected:
                    assert delta.op == "delete"
                    assert key not in state
                else:
                    wanted = expected[key]._replace(revisions=())
                    assert delta == wanted or delta._replace(op="insert") == wanted
        if not answer["more"]:
            self.check(replica, answer)

    def check_atoms(self, get: dict[str, list[str]], answer: Json) -> None:
        state = self.oracle.state(answer["head"])
        for collection, names in get.items():
            for name in names:
                held, found = state.get((collection, name)), answer["atoms"][collection][name]
                assert (held is None) == (found is None)
                if held is not None:
                    assert found["revision"] == held.revision
                    assert oracle.comparable(found["data"]) == oracle.comparable(held.data)


_numbers = itertools.count()


@given(st.lists(st.integers(0, 2**32), min_size=15, max_size=30))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(600)
async def test_p3_p6_p10_clients_that_sync_are_told_what_the_oracle_says_and_end_alike(
    servers: list[Harness], seeds: list[int]
) -> None:
    j = f"s{next(_numbers)}"
    world = Syncing(servers, j, (await servers[0].create(j))["epoch"])

    for seed in seeds:
        await world.take(seed)

    for replica in world.replicas:
        while (await world.sync_in_one(Random(0), replica, [], is_last=True))["more"]:
            pass
        expected = world.oracle.state(world.oracle.head, replica.collections)
        assert oracle.comparable_state(replica.data) == oracle.comparable_state(expected)
