"""What a conflict becomes under each policy, and ages by a clock that nobody can set (trap 14)."""

import asyncio
import time
from typing import Any

import pytest

from journal.client import Replica
from journal.client.clock import Clock, steady_ns
from tests.harness import Harness, Json, insert, update
from tests.replica.conftest import Opener
from tests.replica.test_replica import at_server, contents

HOUR_NS = 3600 * 10**9


class Device:
    """A device whose wall clock is off, and may be set or started again."""

    def __init__(self, off_ns: int = 0) -> None:
        self.off_ns, self.boot, self.steady_off_ns = off_ns, "first", 0

    @property
    def clock(self) -> Clock:
        """Its clock."""
        return Clock(
            steady=lambda: steady_ns() + self.steady_off_ns,
            wall=lambda: time.time_ns() + self.off_ns,
            boot=lambda: self.boot,
        )

    def restart(self) -> None:
        """The steady clock begins anew."""
        self.boot, self.steady_off_ns = "second", -steady_ns()


async def theirs(service: Harness, title: str, before: str) -> None:
    """Somebody else sets the title."""
    await service.pushed([update("todo", "a", {"title": title}, if_data={"title": before})])


async def begun(service: Harness, opened: Opener, **options: Any) -> Replica:
    """A replica that has the atom `a` with the title `old`."""
    await service.pushed([insert("todo", "a", {"title": "old"})])
    replica = await opened(**options)
    await replica.sync()
    return replica  # type: ignore[no-any-return]


@pytest.mark.parametrize("off", [0, HOUR_NS, -HOUR_NS])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_trap_14_the_newest_change_stands_whatever_the_devices_clock_says(
    service: Harness, opened: Opener, off: int, is_restarted: bool
) -> None:
    device = Device(off)
    replica = await begun(service, opened, on_conflict="newest", clock=device.clock)
    todo = replica.collection("todo")

    await todo.update("a", {"title": "mine, older"})
    await asyncio.sleep(0.05)
    await theirs(service, "theirs", before="old")
    if is_restarted:
        device.restart()
    await replica.sync()
    older = await at_server(service)
    await replica.collection("todo").update("a", {"title": "base"})
    await replica.sync()
    await theirs(service, "theirs again", before="base")
    await asyncio.sleep(0.05)
    await todo.update("a", {"title": "mine, newer"})
    await replica.sync()

    assert older == {"todo": {"a": {"title": "theirs"}}}
    assert await at_server(service) == {"todo": {"a": {"title": "mine, newer"}}}
    assert [conflict.mine for conflict in await replica.conflicts()] == [{"title": "mine, older"}]


@pytest.mark.parametrize("jump", [HOUR_NS, -HOUR_NS])
async def test_trap_14_a_clock_that_is_set_between_edit_and_push_means_nothing(
    service: Harness, opened: Opener, jump: int
) -> None:
    device = Device()
    replica = await begun(service, opened, on_conflict="newest", clock=device.clock)
    await replica.collection("todo").update("a", {"title": "mine, older"})
    await asyncio.sleep(0.05)
    await theirs(service, "theirs", before="old")
    device.off_ns = jump

    await replica.sync()

    assert await at_server(service) == {"todo": {"a": {"title": "theirs"}}}
    assert [conflict.mine for conflict in await replica.conflicts()] == [{"title": "mine, older"}]


@pytest.mark.parametrize(
    ("policy", "outcome", "is_kept"),
    [
        ("server", {"title": "theirs", "cost": 1, "who": "them"}, True),
        ("merge", {"title": "theirs", "cost": 2, "who": "them"}, False),
        ("client", {"title": "mine", "cost": 2, "who": "them"}, False),
        ("both", {"title": "theirs", "cost": 1, "who": "them"}, True),
    ],
)
async def test_what_a_conflict_becomes_is_the_policys(
    service: Harness, opened: Opener, policy: str, outcome: Json, is_kept: bool
) -> None:
    await service.pushed([insert("todo", "a", {"title": "old", "cost": 1})])
    replica = await opened()
    await replica.sync()
    todo = replica.collection("todo", on_conflict=policy)
    await todo.update("a", {"title": "mine", "cost": 2})
    old = {"title": "old", "cost": 1}
    await service.pushed([update("todo", "a", {"title": "theirs", "who": "them"}, if_data=old)])

    await replica.sync()

    assert await contents(replica) == (await at_server(service))["todo"] == {"a": outcome}
    kept = [(c.mine, c.theirs) for c in await replica.conflicts()]
    stands = {"title": "theirs", "cost": 1, "who": "them"}
    assert kept == ([({"title": "mine", "cost": 2}, stands)] if is_kept else [])


async def test_what_is_kept_under_both_and_settled_here_is_settled_there(service: Harness, opened: Opener) -> None:
    replica = await begun(service, opened, on_conflict="both")
    await replica.collection("todo").update("a", {"title": "mine"})
    await theirs(service, "theirs", before="old")
    await replica.sync()
    [conflict] = await replica.conflicts()
    there = (await service.call("GET", "j/conflicts")).json["conflicts"]

    await replica.settle(conflict, "both", atom="a, copy")
    await replica.sync()

    assert [(kept["collection"], kept["atom"]) for kept in there] == [("todo", "a")]
    assert await at_server(service) == {"todo": {"a": {"title": "theirs"}, "a, copy": {"title": "mine"}}}
    assert (await service.call("GET", "j/conflicts")).json["conflicts"] == []
    assert await replica.conflicts() == []


async def test_the_policy_of_the_operator_goes_before_the_replicas(service: Harness, opened: Opener) -> None:
    replica = await begun(service, opened, on_conflict="server")
    await service.call("PUT", "j/collections", json={"collection": "todo", "policy": "client"})
    await replica.collection("todo").update("a", {"title": "mine"})
    await theirs(service, "theirs", before="old")

    await replica.sync()

    assert await at_server(service) == {"todo": {"a": {"title": "mine"}}}
