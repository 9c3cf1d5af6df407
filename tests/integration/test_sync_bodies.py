"""Section 10: what is wrong in the body of a sync is told, all of it, and nothing is recorded."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from journal.config import Limits
from tests.conftest import new_database
from tests.harness import Harness, Json, insert, serving
from tests.integration.test_bad_input import NO_CURSORS, faults
from tests.integration.test_sync import ME, sync
from tests.postgres import Server

CHANGE = insert("todo", "b")
WRONG: dict[str, tuple[Any, set[str]]] = {
    "no object": ([], {""}),
    "nothing": ({}, {"/since"}),
    "a since that is null": ({"since": None}, {"/since"}),
    "a since that is a list": ({"since": ["0"]}, {"/since"}),
    "a since that is true": ({"since": True}, {"/since"}),
    "a negative since": ({"since": -1}, {"/since"}),
    "a since of 2^53": ({"since": 2**53}, {"/since"}),
    "a since with a fraction": ({"since": 1.5}, {"/since"}),
    "a bare revision of a client": ({"since": 1, "client": ME}, {"/since"}),
    "wait": ({"since": 0, "wait": 1}, {"/wait"}),
    "until": ({"since": 0, "until": 1}, {"/until"}),
    "a slip of the pen": ({"since": 0, "colections": ["a"]}, {"/colections"}),
    "a limit of 0": ({"since": 0, "limit": 0}, {"/limit"}),
    "a limit beyond": ({"since": 0, "limit": 100_001}, {"/limit"}),
    "a limit as text": ({"since": 0, "limit": "10"}, {"/limit"}),
    "collections as text": ({"since": 0, "collections": "a,b"}, {"/collections"}),
    "no collections": ({"since": 0, "collections": []}, {"/collections"}),
    "names that are none": ({"since": 0, "collections": ["a", "a,b", ""]}, {"/collections/1", "/collections/2"}),
    "a get that is a list": ({"since": 0, "get": ["a"]}, {"/get"}),
    "a get of text": ({"since": 0, "get": {"todo": "a"}}, {"/get/todo"}),
    "atoms that are none": ({"since": 0, "get": {"a,b": ["x"], "todo": ["", "a", 1]}},
                            {"/get/a,b", "/get/todo/0", "/get/todo/2"}),
    "a push of nobody": ({"since": 0, "push": 1}, {"/client"}),
    "a client that is none": ({"since": 0, "client": "me"}, {"/client"}),
    "a base that is none": ({"since": 0, "base": "0"}, {"/base"}),
    "a change's base without a cursor": ({"since": 0, "changes": [CHANGE | {"base": 1}]}, {"/changes/0/base"}),
    "changes that are none": ({"since": 0, "changes": None}, {"/changes"}),
    "an update of nothing": ({"since": 0, "changes": [{"op": "update", "collection": "t", "atom": "a"}]},
                             {"/changes/0"}),
    "all of it": ({"since": "x", "limit": 100_001, "collections": [","], "get": {"todo": [""]}, "push": 1, "base": "x",
                   "changes": [{"op": "insert", "collection": "a,b", "atom": ""}], "x": 1},
                  {"/since", "/limit", "/collections/0", "/get/todo/0", "/client", "/base", "/changes/0/collection",
                   "/changes/0/atom", "/changes/0/data", "/x"}),
    "what only the service knows": ({"since": "x", "limit": 100_001, "push": 1, "changes": [CHANGE | {"base": 1},
                                     {"op": "insert", "collection": "t", "atom": "a"}]},
                                    {"/since", "/limit", "/client", "/changes/1/data"}),
    "a client's bare revision and a change": ({"since": 1, "client": ME, "changes": [CHANGE | {"atom": ""}]},
                                              {"/since", "/changes/0/atom"}),
}  # fmt: skip


@pytest.fixture(scope="module")
async def untouched(
    postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Harness]:
    """The service on a database that no test with it changes."""
    async with (
        new_database(postgres, template) as dsn,
        serving(dsn, tmp_path_factory.mktemp("sync"), limits=Limits(lookup_atoms=20, changes=20)) as running,
    ):
        await running.create("j")
        await running.pushed([insert("todo", "a")])
        yield running
        assert (await running.head())["head"] == 1, "something was recorded"
        assert await running.query("select from journal.client union all select from journal.push") == []


@pytest.mark.parametrize(("body", "pointers"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_in_a_sync_is_pointed_at(untouched: Harness, body: Any, pointers: set[str]) -> None:
    assert set(faults(await untouched.call("POST", "j/sync", json=body))) == pointers


@pytest.mark.parametrize("text", NO_CURSORS)
async def test_a_cursor_that_is_none_is_told_so(untouched: Harness, text: str) -> None:
    assert set(faults(await sync(untouched, text))) == {"/since"}
    assert set(faults(await sync(untouched, text, [CHANGE]))) == {"/since"}
    assert set(faults(await sync(untouched, 0, [CHANGE], base=text))) == {"/base"}


async def test_a_slip_of_the_pen_is_met_with_a_suggestion(untouched: Harness) -> None:
    told = faults(await sync(untouched, 0, colections=["a"], until=3))

    assert 'did you mean "collections"?' in told["/colections"]
    assert "since" in told["/until"]


async def test_sizes_have_limits_that_are_told(untouched: Harness) -> None:
    none = {"op": "delete", "collection": "todo", "atom": "none", "if_data": None}

    replies = [
        await sync(untouched, 0, [none] * 21),
        await sync(untouched, 0, get={"todo": [f"{n}" for n in range(11)], "note": [f"{n}" for n in range(10)]}),
    ]
    just = await sync(untouched, 0, [none] * 20, get={"todo": [f"{n}" for n in range(20)]})

    assert [reply.status for reply in replies] == [413, 413]
    assert [(e["pointer"], e["limit"]) for reply in replies for e in reply.json["errors"]] == [
        ("/changes", 20),
        ("/get", 20),
    ]
    assert (just.status, len(just.json["outcomes"]), len(just.json["atoms"]["todo"])) == (200, 20, 20)


async def test_what_is_wrong_around_a_sync_is_told(untouched: Harness) -> None:
    body: Json = {"since": 0}

    assert set(faults(await untouched.call("POST", "j/sync?since=0", json=body))) == {"/since"}
    assert (await untouched.call("POST", "none/sync", json=body)).json["code"] == "journal_not_found"
    assert (await untouched.call("POST", "none/sync", json=body | {"changes": [CHANGE]})).status == 404
    assert (await untouched.call("GET", "j/sync")).headers["Allow"] == "POST"
    assert (await untouched.call("POST", "j/sync", data=b"{}", headers={"Content-Type": "text/plain"})).status == 415
    assert set(faults(await untouched.call("POST", "j/sync", json=body, headers={"Idempotency-Key": "x" * 256}))) == {
        ""
    }


async def test_trap_13_what_cannot_be_kept_is_refused(untouched: Harness) -> None:
    headers = {"Content-Type": "application/json"}
    texts = {
        '{"since": 0, "get": {"todo": ["a\\u0000"]}}': "/get/todo/0",
        '{"since": 0, "since": 1}': "/since",
        '{"since": 0, "changes": [{"data": {"x": 9007199254740993}}]}': "/changes/0/data/x",
    }

    for text, pointer in texts.items():
        assert pointer in faults(await untouched.call("POST", "j/sync", data=text, headers=headers))
