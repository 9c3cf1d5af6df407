"""Section 3.6: the record itself, in whole commits."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from journal.config import Memory
from journal.core import chain
from journal.core.model import Change, Op
from tests.harness import Harness, Json, delete, insert, put, serving, update

ME = str(uuid4())
OPS = {"insert": Op.INSERT, "update": Op.UPDATE, "replace": Op.REPLACE, "delete": Op.DELETE}


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def changes(service: Harness, since: str | int, **parameters: Any) -> Json:
    """One page of the record."""
    query = {"since": str(since)} | {name: str(value) for name, value in parameters.items()}
    reply = await service.call("GET", "j/changes", params=query)
    assert reply.status == 200, reply.body
    return reply.json


def spans(answer: Json) -> list[tuple[int, int]]:
    return [(commit["first"], commit["revision"]) for commit in answer["commits"]]


@pytest.fixture
async def small(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service where answers of more than 100 bytes go through a file."""
    async with serving(database, tmp_path, memory=Memory(answer_bytes=100)) as running:
        await running.create("j")
        yield running


async def test_the_record_is_told_as_it_was_recorded(service: Harness) -> None:
    await pushed(service, insert("todo", "a", {"x": 1}), insert("ü", "ß", {}), client=ME, push=7)
    await pushed(service, update("todo", "a", {"y": None}, unset=["x"]), update("todo", "a", unset=["y"]))
    end = await pushed(service, put("todo", "a", {"z": 1}), delete("todo", "a"))

    answer = await changes(service, 0)

    told = [(commit["first"], commit["revision"], commit["client"], commit["push"]) for commit in answer["commits"]]
    assert told == [(1, 2, ME, 7), (3, 4, None, None), (5, 6, None, None)]
    assert [change for commit in answer["commits"] for change in commit["changes"]] == [
        {"op": "insert", "collection": "todo", "atom": "a", "data": {"x": 1}},
        {"op": "insert", "collection": "ü", "atom": "ß", "data": {}},
        {"op": "update", "collection": "todo", "atom": "a", "data": {"y": None}, "unset": ["x"]},
        {"op": "update", "collection": "todo", "atom": "a", "unset": ["y"]},
        {"op": "replace", "collection": "todo", "atom": "a", "data": {"z": 1}},
        {"op": "delete", "collection": "todo", "atom": "a"},
    ]
    rest = {name: answer[name] for name in answer if name not in ("commits", "since")}
    assert rest == {"epoch": end.split(":")[0], "until": 6, "cursor": end, "more": False}
    times = [datetime.fromisoformat(commit["at"]) for commit in answer["commits"]]
    assert sorted(times) == times
    assert abs(datetime.now(UTC) - times[-1]) < timedelta(minutes=1)


async def test_p1_revisions_are_contiguous_through_commits_and_pages(service: Harness) -> None:
    for n in range(12):
        await pushed(service, *(insert("todo", f"{n} {m}") for m in range(1 + n % 4)))

    seen, since = [], "0"
    while True:
        answer = await changes(service, since, limit=5)
        seen += spans(answer)
        since = answer["cursor"]
        if not answer["more"]:
            break

    assert [first for first, _ in seen] == [1, *(revision + 1 for _, revision in seen[:-1])]
    assert seen[-1][1] == (await service.head())["head"]


@pytest.mark.parametrize(
    ("since", "limit", "pages"),
    [
        (0, 1, [[(1, 1)], [(2, 4)], [(5, 6)], [(7, 7)]]),
        (0, 2, [[(1, 1)], [(2, 4)], [(5, 6)], [(7, 7)]]),
        (0, 3, [[(1, 1)], [(2, 4)], [(5, 6), (7, 7)]]),
        (0, 4, [[(1, 1), (2, 4)], [(5, 6), (7, 7)]]),
        (0, 6, [[(1, 1), (2, 4), (5, 6)], [(7, 7)]]),
        (0, 7, [[(1, 1), (2, 4), (5, 6), (7, 7)]]),
        (4, 3, [[(5, 6), (7, 7)]]),
        (7, 3, [[]]),
    ],
)
async def test_pages_are_whole_commits_and_at_least_one(
    service: Harness, since: int, limit: int, pages: list[list[tuple[int, int]]]
) -> None:
    for sizes in (1, 3, 2, 1):
        await pushed(service, *(insert("todo", str(uuid4())) for _ in range(sizes)))

    told: list[list[tuple[int, int]]] = []
    at: str | int = since
    while True:
        answer = await changes(service, at, limit=limit)
        told.append(spans(answer))
        assert answer["until"] == (answer["commits"][-1]["revision"] if answer["commits"] else since)
        at = answer["cursor"]
        if not answer["more"]:
            break

    assert told == pages


async def test_a_bare_revision_inside_a_commit_is_answered_with_the_whole_of_it(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"), insert("todo", "c"))

    answer = await changes(service, 2)

    assert spans(answer) == [(2, 3)]
    assert len(answer["commits"][0]["changes"]) == 2


async def test_every_commits_chain_is_that_of_its_changes(service: Harness) -> None:
    await pushed(service, insert("todo", "a", {"x": 1, "é": [1.0, "\u2028"]}), insert("ü", "ß", {}))
    await pushed(service, update("todo", "a", {"y": None}, unset=["x", "q"]))
    await pushed(service, delete("todo", "a"), insert("todo", "a", {}))

    answer = await changes(service, 0)

    told, known, revision = [], chain.START, 0
    for commit in answer["commits"]:
        recorded = []
        for change in commit["changes"]:
            revision += 1
            sent = json.dumps(change["data"]).encode() if "data" in change else None  # as the harness sends it
            unset = tuple(change.get("unset", ()))
            recorded.append(Change(revision, OPS[change["op"]], change["collection"], change["atom"], sent, unset))
        known = chain.extend(known, recorded)
        told.append(chain.told(known))
    assert [commit["chain"] for commit in answer["commits"]] == told
    assert (await service.head())["chain"] == told[-1]


async def test_msgpack_says_the_same(service: Harness, small: Harness) -> None:
    await pushed(service, *(insert("todo", f"{n}", {"n": n, "é": None}) for n in range(50)))
    await pushed(service, delete("todo", "3"))
    plain = await changes(service, 0)

    for server in (service, small):
        reply = await server.call("GET", "j/changes?since=0", headers={"Accept": "application/msgpack"})

        assert reply.headers["Content-Type"] == "application/msgpack"
        assert msgspec.msgpack.decode(reply.body) == plain


@pytest.mark.parametrize("answer_bytes", [100, 1 << 20])
async def test_two_forms_have_two_etags(database: str, tmp_path: Path, answer_bytes: int) -> None:
    """Those of a large answer had one, so that a cache could take the one form for the other."""
    async with serving(database, tmp_path, memory=Memory(answer_bytes=answer_bytes)) as server:
        await server.create("j")
        await pushed(server, *(insert("todo", f"{n}") for n in range(10)))

        as_json = await server.call("GET", "j/changes?since=0")
        as_msgpack = await server.call("GET", "j/changes?since=0", headers={"Accept": "application/msgpack"})
        again = await server.call("GET", "j/changes?since=0", headers={"If-None-Match": as_json.headers["ETag"]})

    assert as_json.headers["ETag"] != as_msgpack.headers["ETag"]
    assert again.status == 304


async def test_a_form_that_the_record_does_not_have_is_406(service: Harness) -> None:
    reply = await service.call("GET", "j/changes?since=0", headers={"Accept": "application/x-ndjson"})

    assert (reply.status, reply.json["code"]) == (406, "not_acceptable")


async def test_trap_17_a_cursor_of_some_collections_is_none_for_the_record(service: Harness) -> None:
    await pushed(service, insert("a", "1"), insert("b", "1"))
    cursor = (await service.deltas(0, collections="a")).json["cursor"]

    reply = await service.call("GET", "j/changes", params={"since": cursor})

    assert (reply.status, reply.json["reason"]) == (410, "scope")


@pytest.mark.parametrize("query", ["", "since=x", "since=0&limit=0", "since=0&limit=10001", "since=0&until=1"])
async def test_a_slip_is_told(service: Harness, query: str) -> None:
    reply = await service.call("GET", f"j/changes?{query}")

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


async def test_an_empty_record_is_no_fault(service: Harness) -> None:
    head = await service.head()

    answer = await changes(service, 0)

    assert answer == {
        "epoch": head["epoch"], "since": 0, "commits": [], "until": 0, "cursor": head["cursor"], "more": False,
    }  # fmt: skip
