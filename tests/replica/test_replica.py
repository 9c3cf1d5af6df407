"""A replica as an application uses it: what is written is there, is pushed, and what others wrote is pulled."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from journal.client import AtomExists, AtomMissing, InvalidChange, NotThisJournal, Replica, Unreachable
from tests.harness import Harness, Json, delete, insert, put, update
from tests.replica.conftest import Opener


async def contents(replica: Replica, collection: str = "todo") -> Json:
    """All atoms of a collection."""
    return {atom: data async for atom, data in replica.collection(collection)}


async def at_server(service: Harness) -> Json:
    """The same at the server now, by collection."""
    listed = (await service.call("GET", "j/manifest?limit=10000")).json["atoms"]
    names: dict[str, list[str]] = {}
    for entry in listed:
        names.setdefault(entry["collection"], []).append(entry["atom"])
    found = (await service.call("POST", "j/lookup", json={"get": names})).json["atoms"]
    held = {name: {atom: there["data"] for atom, there in atoms.items() if there} for name, atoms in found.items()}
    return {name: atoms for name, atoms in held.items() if atoms}


async def test_what_was_written_is_there_at_once_and_at_the_server_after_a_sync(
    service: Harness, opened: Opener
) -> None:
    replica = await opened()
    todo = replica.collection("todo")

    await todo.insert("a", {"title": "rings", "cost": 300, "note": "old"})
    await todo.update("a", {"cost": 210}, unset=["note"])
    await todo.put("b", {"title": "oil"})
    await todo.insert("c", {})
    assert await todo.delete("c")
    offline = await contents(replica)
    await replica.sync()

    assert offline == {"a": {"title": "rings", "cost": 210}, "b": {"title": "oil"}}
    assert await contents(replica) == offline
    assert await at_server(service) == {"todo": offline}
    assert (await replica.status()).pending == 0


async def test_what_others_wrote_is_pulled(service: Harness, opened: Opener) -> None:
    await service.pushed([insert("todo", f"{n}", {"n": n}) for n in range(5)])
    replica = await opened()
    await replica.sync()
    await service.pushed([
        update("todo", "0", {"m": 1}, unset=["n"], if_data={"n": 0}), delete("todo", "1", if_data={"n": 1}),
        put("todo", "2", {"x": 2}, if_data={"n": 2}), insert("visit", "9"),
    ])  # fmt: skip

    await replica.sync()

    assert {"todo": await contents(replica), "visit": await contents(replica, "visit")} == await at_server(service)
    assert await replica.collections() == ["todo", "visit"]


async def test_an_empty_round_is_one_request(service: Harness, opened: Opener, asked: list[str]) -> None:
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    asked.clear()

    await replica.sync()

    assert len(asked) == 1


async def test_a_round_with_something_in_both_directions_is_one_request(
    service: Harness, opened: Opener, asked: list[str]
) -> None:
    replica = await opened()
    await replica.sync()
    await service.pushed([insert("todo", "theirs")])
    await replica.collection("todo").insert("mine", {"n": 2})
    asked.clear()

    await replica.sync()

    assert [path.rpartition("/")[2] for path in asked] == ["sync"]
    assert await contents(replica) == {"theirs": {"n": 1}, "mine": {"n": 2}}


@pytest.mark.parametrize(
    ("op", "arguments", "error"),
    [
        ("insert", ("there", {}), AtomExists),
        ("update", ("missing", {"n": 1}), AtomMissing),
        ("put", ("there", {"n": float("nan")}), InvalidChange),
        ("put", ("there", {"n": 2**53 + 1}), InvalidChange),
        ("put", ("there", {"n": "\u0000"}), InvalidChange),
        ("put", ("there", {"n": "\ud800"}), InvalidChange),
        ("put", ("there", {1: 2}), InvalidChange),
        ("put", ("there", {"n": (1, 2)}), InvalidChange),
        ("put", ("there", ["n"]), InvalidChange),
        ("put", ("", {}), InvalidChange),
        ("update", ("there", {}), InvalidChange),
    ],
)
async def test_what_cannot_be_is_refused_at_once(
    opened: Opener, op: str, arguments: Any, error: type[Exception]
) -> None:
    todo = (await opened()).collection("todo")
    await todo.put("there", {"n": 1})

    with pytest.raises(error):
        await getattr(todo, op)(*arguments)

    assert await todo.get("there") == {"n": 1}
    assert (await todo.replica.status()).pending == 1


async def test_a_transaction_is_all_or_nothing_here_and_one_commit_there(service: Harness, opened: Opener) -> None:
    replica = await opened()
    todo = replica.collection("todo")

    async def fail() -> None:
        async with replica.transaction():
            await todo.insert("a", {"n": 1})
            await todo.insert("a", {"n": 2})

    with pytest.raises(AtomExists):
        await fail()
    async with replica.transaction():
        await todo.insert("b", {"n": 1})
        await todo.update("b", {"n": 2})
        await replica.collection("visit").insert("c", {})
        inside = await todo.get("b")
    await replica.sync()

    assert inside == {"n": 2}
    assert await at_server(service) == {"todo": {"b": {"n": 2}}, "visit": {"c": {}}}
    commits = (await service.call("GET", "j/changes?since=0")).json["commits"]
    assert [len(commit["changes"]) for commit in commits] == [3]


async def test_atoms_are_found_by_fields_also_those_that_were_just_changed(opened: Opener) -> None:
    replica = await opened()
    todo = replica.collection("todo")
    await todo.put("a", {"done": False, "cost": 1, "who": 'Ann\'s "x"'})
    await todo.put("b", {"done": True, "cost": 1.0, "who": None})
    await replica.sync()
    await todo.index("cost")
    await todo.put("c", {"done": 1, "cost": "1"})
    await todo.update("a", {"cost": 2})

    found = {
        "one": [atom for atom, _ in await todo.find({"cost": 1})],
        "text": [atom for atom, _ in await todo.find({"cost": "1"})],
        "two": [atom for atom, _ in await todo.find({"cost": 2, "done": False})],
        "true": [atom for atom, _ in await todo.find({"done": True})],
        "null": [atom for atom, _ in await todo.find({"who": None})],
        "quoted": [atom for atom, _ in await todo.find({"who": 'Ann\'s "x"'})],
    }

    assert found == {"one": ["b"], "text": ["c"], "two": ["a"], "true": ["b"], "null": ["b"], "quoted": ["a"]}
    assert await todo.count() == 3
    assert await todo.count({"cost": 1}) == 1


async def test_offline_everything_can_be_done_but_sync(opened: Opener) -> None:
    replica = await opened(url="http://127.0.0.1:1/v1/journals/j")
    await replica.collection("todo").insert("a", {"n": 1})

    with pytest.raises(Unreachable):
        await replica.sync()

    assert await contents(replica) == {"a": {"n": 1}}
    status = await replica.status()
    assert status.pending == 1
    assert "does not answer" in (status.error or "")


async def test_a_file_does_not_become_that_of_another_journal(service: Harness, opened: Opener) -> None:
    await (await opened()).close()

    with pytest.raises(NotThisJournal):
        await opened(url=f"{service.url}/v1/journals/other")


async def test_a_transaction_that_nobody_waits_for_any_more_is_not_left_open(opened: Opener, tmp_path: Path) -> None:
    """It began when the file was free again, and nobody ended it: nothing could be written any more, by any process."""
    replica = await opened()
    other = sqlite3.connect(tmp_path / "phone.db", isolation_level=None)
    other.execute("begin immediate")

    async def change() -> None:
        async with replica.transaction():
            await replica.collection("todo").insert("a", {"n": 1})

    changing = asyncio.create_task(change())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(changing), 0.1)
    changing.cancel()
    other.execute("rollback")
    with pytest.raises(asyncio.CancelledError):
        await changing
    await replica.collection("todo").insert("b", {"n": 1})

    other.execute("begin immediate")
    other.close()
    assert await contents(replica) == {"b": {"n": 1}}
