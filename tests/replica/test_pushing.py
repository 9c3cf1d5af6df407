"""P6, P9 and trap 11: what a replica pushes is recorded once and in its order, and what is refused blocks nothing."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from journal.client import AtomExists, Conflict, InvalidChange, Refused, Unreachable, outbox
from journal.config import Limits
from journal.store import record as rows
from tests.harness import Harness, Json, delete, eventually, insert, serving, update
from tests.replica.conftest import Opener
from tests.replica.facts import at_server, record, see_that_it_is_the_servers
from tests.replica.steps import watching


class Requests:
    """What is asked: `lost` says how many answers of a push get lost from now on, `unsent` how many requests."""

    def __init__(self) -> None:
        self.lost = self.unsent = 0
        self.paths: list[str] = []

    async def at(self, what: str) -> None:
        """A request, or an answer."""
        first, _, path = what.partition(" ")
        is_push = path.endswith(("/changes", "/sync"))
        if first.isdigit():
            if is_push and self.lost:
                self.lost -= 1
                raise aiohttp.ServerDisconnectedError
            return
        self.paths.append(path.rpartition("/")[2])
        if is_push and self.unsent:
            self.unsent -= 1
            raise aiohttp.ServerDisconnectedError


@pytest.fixture
def requests(tmp_path: Path) -> Any:
    """The requests of all replicas."""
    found = Requests()
    with watching(tmp_path / "none", lambda db, statement: None, found.at):
        yield found


@asynccontextmanager
async def crashed(path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Work on a file that nobody has open."""
    db = sqlite3.connect(path)
    try:
        yield db.execute
        db.commit()
    finally:
        db.close()


async def everything(service: Harness) -> Json:
    """The server's data of the collection `todo`."""
    return {atom: data for (name, atom), (_, data) in (await at_server(service)).items() if name == "todo"}


async def numbers(service: Harness) -> list[tuple[str, int]]:
    """Client and number of each push that was recorded, oldest first."""
    return list(dict.fromkeys((change["client"], change["push"]) for change in await record(service)))


async def forget(service: Harness) -> None:
    """Let it be long ago that pushes were answered."""
    now = datetime.now(UTC)
    await rows.forget(service.service.database, pushes_before=now + timedelta(1), keys_before=now - timedelta(1000))


async def _is(fact: bool) -> bool:
    return fact


# Numbers.


@pytest.mark.parametrize("is_first", [True, False])
async def test_p6_a_push_whose_answer_was_lost_is_answered_again_and_not_recorded_again(
    service: Harness, opened: Opener, requests: Requests, *, is_first: bool
) -> None:
    """`is_first`: by /changes, before there is a cursor; else by /sync."""
    replica = await opened()
    if not is_first:
        await replica.sync()
    await replica.collection("todo").insert("a", {"n": 1})
    client = (await replica.status()).client

    requests.lost = 2
    for _ in range(2):
        with pytest.raises(Unreachable):
            await replica.sync()
    await replica.collection("todo").update("a", {"n": 2})
    await replica.sync()

    assert [change.get("data") for change in await record(service)] == [{"n": 1}, {"n": 2}]
    assert await numbers(service) == [(client, 1), (client, 2)]
    await see_that_it_is_the_servers(replica, service)


async def test_p6_a_push_that_did_not_arrive_keeps_its_number_and_its_content_over_a_restart(
    service: Harness, opened: Opener, requests: Requests
) -> None:
    replica = await opened()
    await replica.sync()
    await replica.collection("todo").insert("a", {"n": 1})
    client, requests.unsent = (await replica.status()).client, 1
    with pytest.raises(Unreachable):
        await replica.sync()
    await replica.collection("todo").update("a", {"m": 1})
    await replica.close()

    replica = await opened()
    await replica.sync()

    assert [change["data"] for change in await record(service)] == [{"n": 1}, {"m": 1}]
    assert await numbers(service) == [(client, 1), (client, 2)]


async def test_p6_an_answer_that_a_balancer_swallowed_does_not_cost_the_name(
    service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 and then the replay: it is the same call, sent again; nobody else counts under this name."""
    replica = await opened()
    await replica.sync()
    before = (await replica.status()).client
    request, left = aiohttp.ClientSession._request, [1]

    async def swallowed(self: aiohttp.ClientSession, method: str, url: Any, **arguments: Any) -> Any:
        response = await request(self, method, url, **arguments)
        if method == "POST" and left[0]:
            left[0] -= 1
            await response.read()
            return await request(self, "GET", f"{service.url}/v1/journals/none/head", **arguments)
        return response

    await replica.collection("todo").insert("a", {"n": 1})
    monkeypatch.setattr(aiohttp.ClientSession, "_request", swallowed)
    with pytest.raises(Refused):
        await replica.sync()
    await replica.sync()

    assert (await replica.status()).client == before
    assert len(await record(service)) == 1


@pytest.mark.parametrize("has_changed", [False, True])
async def test_trap_19_what_the_server_knows_no_more_is_compared_with_what_is_there(
    service: Harness, opened: Opener, requests: Requests, *, has_changed: bool
) -> None:
    """`outcomes: null`: it was recorded; where the data is not as it left it, it is kept for somebody to look at."""
    replica = await opened()
    await replica.sync()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    client, requests.lost = (await replica.status()).client, 1
    with pytest.raises(Unreachable):
        await replica.sync()
    await service.pushed([insert("todo", "b")], client=client, push=2)
    if has_changed:
        await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    await forget(service)

    await todo.update("a", {"m": 1})
    await replica.sync()
    await replica.sync()

    kept = [(conflict.status, conflict.mine, conflict.theirs) for conflict in await replica.conflicts()]
    assert [one for one in kept if one[0] == "forgotten"] == (
        [("forgotten", {"n": 1}, {"n": 2})] if has_changed else []
    )
    if not has_changed:
        assert await everything(service) == {"a": {"n": 1, "m": 1}, "b": {"n": 1}}
        assert kept == []
    await see_that_it_is_the_servers(replica, service)


async def test_trap_19_what_was_forgotten_and_is_beneath_the_horizon_is_compared_with_the_snapshot(
    service: Harness, opened: Opener, requests: Requests
) -> None:
    """The answer has no deltas and no head then: it was compared with the data of before, and kept as a conflict."""
    replica = await opened()
    await replica.sync()
    await replica.collection("todo").insert("a", {"n": 1})
    client, requests.lost = (await replica.status()).client, 1
    with pytest.raises(Unreachable):
        await replica.sync()
    await service.pushed([insert("todo", "b")], client=client, push=2)
    await forget(service)
    reply = await service.call(
        "POST", "j/compact", json={"keep_revisions": 0, "force": True}, headers={"Prefer": "wait=5"}
    )
    assert reply.json["state"] == "done", reply.body

    await replica.sync()

    assert await replica.conflicts() == []
    await see_that_it_is_the_servers(replica, service)


async def test_p6_a_number_that_was_passed_over_is_given_up_for_a_higher_one(service: Harness, opened: Opener) -> None:
    """409 `push_too_old`: nothing was recorded under it, so it goes under a new one."""
    replica = await opened()
    await replica.sync()
    client = (await replica.status()).client
    await service.pushed([insert("todo", "theirs")], client=client, push=7)
    await replica.collection("todo").insert("a", {"n": 1})

    await replica.sync()
    await replica.collection("todo").update("a", {"n": 2})
    await replica.sync()

    assert await numbers(service) == [(client, 7), (client, 8), (client, 9)]
    await see_that_it_is_the_servers(replica, service)


async def test_p6_a_number_that_somebody_else_has_used_costs_the_name(service: Harness, opened: Opener) -> None:
    """422 `push_reused`."""
    replica = await opened()
    await replica.sync()
    before = (await replica.status()).client
    await service.pushed([insert("todo", "theirs")], client=before, push=1)
    await replica.collection("todo").insert("a", {"n": 1})

    await replica.sync()

    after = (await replica.status()).client
    assert await numbers(service) == [(before, 1), (after, 1)]
    assert after != before
    await see_that_it_is_the_servers(replica, service)


async def test_p9_a_push_that_somebody_else_sent_under_this_name_is_not_taken_for_ones_own(
    service: Harness, opened: Opener
) -> None:
    """A file that was rolled back with its disk counts again from before: the same number may even have the content of
    another day. Its first answer is not what became of today's change.
    """
    replica = await opened()
    todo = replica.collection("todo")
    await todo.put("theme", {"is": "light"})
    await replica.sync()
    client = (await replica.status()).client
    revision = (await service.head())["head"]
    await service.pushed(
        [{"op": "put", "collection": "todo", "atom": "theme", "data": {"is": "dark"}, "if_data": {"is": "light"}}],
        client=client,
        push=2,
    )
    await service.pushed(
        [{"op": "put", "collection": "todo", "atom": "theme", "data": {"is": "light"}, "if_data": {"is": "dark"}}],
        client=client,
        push=3,
    )
    await replica.sync()

    await todo.put("theme", {"is": "dark"})
    await replica.sync()

    assert revision == 1
    assert await everything(service) == {"theme": {"is": "dark"}}
    assert (await replica.status()).client != client
    await see_that_it_is_the_servers(replica, service)


@pytest.mark.parametrize("is_decided", [False, True])
async def test_p6_a_client_that_was_forgotten_takes_a_new_name(
    service: Harness, opened: Opener, requests: Requests, *, is_decided: bool
) -> None:
    """`is_decided`: the push had been recorded, its answer got lost: it is answered beside the refusal, and is not
    recorded under the new name.
    """
    replica = await opened(on_conflict="client")
    await replica.sync()
    before = (await replica.status()).client
    await replica.collection("todo").insert("a", {"n": 1})
    if is_decided:
        requests.lost = 1
        with pytest.raises(Unreachable):
            await replica.sync()
        await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    else:
        await service.pushed([insert("todo", "b")], client=before, push=9)
    reply = await service.call("DELETE", f"j/clients/{before}")
    assert reply.status in (200, 204), reply.body

    await replica.sync()

    assert (await replica.status()).client != before
    assert (await everything(service))["a"] == {"n": 2 if is_decided else 1}
    await see_that_it_is_the_servers(replica, service)


# Sizes, and what is not taken.


@pytest.fixture
async def narrow(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """A service that takes little at once."""
    limits = msgspec.structs.replace(Limits(), body_bytes=4000, changes=10)
    async with serving(database, tmp_path, limits=limits) as running:
        await running.create("j")
        yield running


async def test_a_push_that_is_too_large_is_halved_until_it_is_taken(
    narrow: Harness, opened: Opener, requests: Requests
) -> None:
    replica = await opened(url=f"{narrow.url}/v1/journals/j")
    await replica.sync()
    for n in range(35):
        await replica.collection("todo").insert(f"{n}", {"n": n})

    await replica.sync()

    assert [change["atom"] for change in await record(narrow)] == [f"{n}" for n in range(35)]
    assert await replica.conflicts() == []
    await see_that_it_is_the_servers(replica, narrow)


async def test_trap_11_one_change_that_is_too_large_is_kept_and_the_rest_goes_on(
    narrow: Harness, opened: Opener
) -> None:
    replica = await opened(url=f"{narrow.url}/v1/journals/j")
    await replica.sync()
    todo = replica.collection("todo")
    for n in range(5):
        await todo.insert(f"{n}", {"n": n} if n != 2 else {"n": n, "text": "x" * 5000})

    await replica.sync()

    assert [change["atom"] for change in await record(narrow)] == ["0", "1", "3", "4"]
    [kept] = await replica.conflicts()
    assert (kept.atom, kept.status, kept.theirs) == ("2", "rejected", None)
    assert (kept.error or "").startswith("too_large")
    assert await todo.get("2") is None
    await see_that_it_is_the_servers(replica, narrow)


async def test_trap_11_a_transaction_that_is_too_large_is_kept_whole(narrow: Harness, opened: Opener) -> None:
    replica = await opened(url=f"{narrow.url}/v1/journals/j")
    await replica.sync()
    todo = replica.collection("todo")
    async with replica.transaction():
        for n in range(11):
            await todo.insert(f"{n}", {"n": n})
    await todo.insert("after", {"n": 1})

    await replica.sync()

    assert [change["atom"] for change in await record(narrow)] == ["after"]
    assert {(kept.atom, kept.status) for kept in await replica.conflicts()} == {(f"{n}", "rejected") for n in range(11)}
    await see_that_it_is_the_servers(replica, narrow)


async def test_trap_11_a_change_that_is_not_well_formed_is_kept_and_the_rest_goes_on(
    service: Harness, opened: Opener, tmp_path: Path
) -> None:
    """As one that a later version of this package, or a damaged disk, has left in the file."""
    replica = await opened()
    await replica.sync()
    todo = replica.collection("todo")
    for n in range(5):
        await todo.insert(f"{n}", {"n": n})
    await replica.close()
    async with crashed(tmp_path / "phone.db") as execute:
        execute("""update change set data = '{"n":"\\u0000"}' where atom = '1'""")
        execute("update change set op = 'update', data = null where atom = '3'")

    replica = await opened()
    await replica.sync()

    assert [change["atom"] for change in await record(service)] == ["0", "2", "4"]
    assert {(kept.atom, kept.status) for kept in await replica.conflicts()} == {("1", "rejected"), ("3", "rejected")}
    await see_that_it_is_the_servers(replica, service)


async def test_what_follows_a_rejected_change_of_its_atom_is_not_recorded_without_it(
    narrow: Harness, opened: Opener
) -> None:
    """The second change was made on the first: half of what the application saw is not what it meant."""
    replica = await opened(url=f"{narrow.url}/v1/journals/j")
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    await replica.sync()
    await todo.update("a", {"text": "x" * 5000})
    await todo.insert("b", {})
    await todo.update("a", {"n": 2})

    await replica.sync()

    assert await everything(narrow) == {"a": {"n": 1}, "b": {}}
    assert [kept.status for kept in await replica.conflicts()] == ["rejected", "conflict"]
    await see_that_it_is_the_servers(replica, narrow)


# What is refused.


async def test_trap_11_what_is_refused_is_kept_with_both_versions_told_and_blocks_nothing(
    service: Harness, opened: Opener
) -> None:
    told: list[Conflict] = []
    replica = await opened(conflict=told.append)
    todo = replica.collection("todo")
    for atom in ("a", "gone", "b"):
        await todo.insert(atom, {"n": 1})
    await replica.sync()
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1}), delete("todo", "gone", if_data={"n": 1})])

    await todo.update("a", {"n": 3})
    await todo.update("gone", {"n": 3})
    await todo.update("b", {"n": 3})
    await replica.sync()
    kept = await replica.conflicts()
    await eventually(lambda: _is(len(told) == 2))

    assert [(one.atom, one.status, one.mine, one.made_on, one.theirs) for one in kept] == [
        ("a", "conflict", {"n": 3}, {"n": 1}, {"n": 2}), ("gone", "conflict", {"n": 3}, {"n": 1}, None),
    ]  # fmt: skip
    assert told == kept
    assert await everything(service) == {"a": {"n": 2}, "b": {"n": 3}}
    await see_that_it_is_the_servers(replica, service)


@pytest.mark.parametrize("keep", ["server", "client", "both"])
async def test_a_conflict_is_settled(service: Harness, opened: Opener, keep: Any) -> None:
    replica = await opened()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    await replica.sync()
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    await todo.update("a", {"n": 3})
    await replica.sync()
    [kept] = await replica.conflicts()

    if keep == "both":
        with pytest.raises(AtomExists):
            await replica.settle(kept, keep, atom="a")
    await replica.settle(kept, keep, atom="copy" if keep == "both" else None)
    with pytest.raises(InvalidChange):
        await replica.settle(kept, "server")
    await replica.sync()

    stands: Json = {"server": {"a": {"n": 2}}, "client": {"a": {"n": 3}}, "both": {"a": {"n": 2}, "copy": {"n": 3}}}
    assert await everything(service) == stands[keep]
    assert await replica.conflicts() == []
    await see_that_it_is_the_servers(replica, service)


async def test_conflicts_are_not_settled_inside_a_transaction_for_ever(service: Harness, opened: Opener) -> None:
    """It waited for the transaction that it was in."""
    replica = await opened()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    await replica.sync()
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    await todo.update("a", {"n": 3})
    await replica.sync()
    [kept] = await replica.conflicts()

    async with asyncio.timeout(5), replica.transaction():
        with pytest.raises(RuntimeError, match="transaction"):
            await replica.settle(kept, "client")
        with pytest.raises(RuntimeError, match="transaction"):
            await todo.index("n")

    assert await replica.conflicts() == [kept]


@pytest.mark.parametrize("way", ["changes", "sync"])
async def test_p9_a_transaction_that_is_refused_is_kept_whole(service: Harness, opened: Opener, way: str) -> None:
    """What stands is in its answer: that could not be read, and the transaction was sent again and again."""
    replica = await opened()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    await todo.insert("b", {"n": 1})
    await replica.sync()
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])

    async with replica.transaction():
        await todo.update("b", {"m": 1})
        await todo.update("a", {"m": 1})
        await todo.insert("c", {"n": 1})
    if way == "changes":
        await todo.insert("after", {})
    await replica.sync()

    kept = await replica.conflicts()
    assert [(one.atom, one.status, one.mine, one.theirs) for one in kept] == [
        ("b", "not_applied", {"n": 1, "m": 1}, None),
        ("a", "conflict", {"n": 1, "m": 1}, {"n": 2}),
        ("c", "not_applied", {"n": 1}, None),
    ]
    assert (await everything(service)).keys() - {"after"} == {"a", "b"}
    await see_that_it_is_the_servers(replica, service)


async def test_p9_what_follows_a_refused_transaction_is_kept_as_well(service: Harness, opened: Opener) -> None:
    replica = await opened()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    await replica.sync()
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    async with replica.transaction():
        await todo.update("a", {"m": 1})
        await todo.insert("c", {"n": 1})
    await todo.update("c", {"n": 2})
    async with replica.transaction():
        await todo.update("c", {"n": 3})
        await todo.insert("d", {})

    await replica.sync()

    assert [(one.atom, one.status) for one in await replica.conflicts()] == [
        ("a", "conflict"), ("c", "not_applied"), ("c", "conflict"), ("c", "conflict"), ("d", "not_applied"),
    ]  # fmt: skip
    assert await everything(service) == {"a": {"n": 2}}
    await see_that_it_is_the_servers(replica, service)


# The order of what is pushed, and what is put together.


async def test_what_was_done_first_is_pushed_first_over_atoms_transactions_and_policies(
    service: Harness, opened: Opener
) -> None:
    replica = await opened()
    todo, merging = replica.collection("todo"), replica.collection("todo", on_conflict="merge")
    await todo.insert("a", {"n": 1})
    await todo.insert("b", {"n": 1})
    await merging.update("a", {"n": 2})
    async with replica.transaction():
        await todo.update("b", {"n": 2})
        await todo.update("b", {"n": 3})
    await todo.update("a", {"n": 3})
    await todo.delete("b")

    await replica.sync()

    assert [(one["op"], one["atom"], one.get("data")) for one in await record(service)] == [
        ("insert", "a", {"n": 1}), ("insert", "b", {"n": 1}), ("update", "a", {"n": 2}), ("update", "b", {"n": 2}),
        ("update", "b", {"n": 3}), ("update", "a", {"n": 3}), ("delete", "b", None),
    ]  # fmt: skip
    assert [number for _, number in await numbers(service)] == [1, 2, 3, 4]


async def test_only_neighbours_outside_of_transactions_are_put_together(service: Harness, opened: Opener) -> None:
    replica = await opened()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    await todo.update("a", {"n": 2})
    await todo.update("a", {"m": 1}, unset=["n"])
    await todo.insert("b", {})
    await todo.delete("b")
    await todo.insert("c", {})
    await todo.update("a", {"n": 4})
    async with replica.transaction():
        await todo.update("a", {"n": 5})
    await todo.update("a", {"n": 6})
    await todo.update("a", {"n": 7})

    await replica.sync()

    assert [(one["op"], one["atom"], one.get("data")) for one in await record(service)] == [
        ("insert", "a", {"m": 1}), ("insert", "c", {}), ("update", "a", {"n": 4}), ("update", "a", {"n": 5}),
        ("update", "a", {"n": 7}),
    ]  # fmt: skip


async def test_what_was_sent_is_never_put_together_with_what_comes_after(
    service: Harness, opened: Opener, requests: Requests
) -> None:
    replica = await opened()
    await replica.sync()
    todo = replica.collection("todo")
    await todo.insert("a", {"n": 1})
    requests.lost = 1
    with pytest.raises(Unreachable):
        await replica.sync()
    await todo.delete("a")
    await todo.insert("a", {"n": 2})
    await replica.sync()

    assert [(one["op"], one.get("data")) for one in await record(service)] == [
        ("insert", {"n": 1}), ("replace", {"n": 2}),
    ]  # fmt: skip
    await see_that_it_is_the_servers(replica, service)


async def test_a_push_has_at_most_a_thousand_changes(service: Harness, opened: Opener) -> None:
    replica = await opened()
    todo = replica.collection("todo")
    await replica.sync()
    async with replica.transaction():
        for n in range(2500):
            await todo.insert(f"{n}", {"n": n})
    await replica._writer.write(lambda db: db.execute("update change set transaction_id = null"))

    await replica.sync()

    found = await record(service)
    assert [change["atom"] for change in found] == [f"{n}" for n in range(2500)]
    assert [sum(one["push"] == number for one in found) for number in (1, 2, 3)] == [1000, 1000, 500]
    assert outbox.MOST_CHANGES == 1000
    await see_that_it_is_the_servers(replica, service)


async def test_a_transaction_of_more_than_a_thousand_changes_is_one_push(service: Harness, opened: Opener) -> None:
    replica = await opened()
    async with replica.transaction():
        for n in range(1500):
            await replica.collection("todo").insert(f"{n}", {"n": n})

    await replica.sync()

    assert {(change["push"], change["commit"]) for change in await record(service)} == {(1, 1)}
    await see_that_it_is_the_servers(replica, service)
