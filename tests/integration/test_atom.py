"""One atom, now, at a revision, and its history (section 11)."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.harness import Harness, Json, Reply, delete, eventually, insert, put, update
from tests.oracle import Oracle, comparable

ME, YOU = str(uuid4()), str(uuid4())
LIFE: list[tuple[str | None, list[Json]]] = [
    (ME, [insert("todo", "a", {"x": 1, "y": 1}), insert("todo", "b", {"x": 0})]),
    (YOU, [update("todo", "a", {"x": 2}, unset=["y"])]),
    (None, [update("todo", "a", {"z": {"deep": [1.5, None, "é\n"]}}), delete("todo", "b")]),
    (ME, [put("todo", "a", {"new": True})]),
    (YOU, [update("todo", "a", {"new": False}), update("todo", "a", unset=["new"])]),
    (None, [delete("todo", "a")]),
    (YOU, [insert("todo", "a", {"again": 1})]),
    (ME, [update("todo", "a", {"again": 2})]),
]


async def live(service: Harness, life: list[tuple[str | None, list[Json]]]) -> Oracle:
    """Push a life; what it comes to."""
    oracle = Oracle()
    for client, changes in life:
        await service.pushed(changes, on_conflict="client", **({"client": client} if client else {}))
        oracle.push(changes, client)
    return oracle


async def atom(service: Harness, name: str = "a", **parameters: Any) -> Reply:
    query = {"collection": "todo", "atom": name} | {name: str(value) for name, value in parameters.items()}
    return await service.call("GET", "j/atom", params=query)


async def history(service: Harness, name: str = "a", **parameters: Any) -> Json:
    query = {"collection": "todo", "atom": name} | {name: str(value) for name, value in parameters.items()}
    reply = await service.call("GET", "j/atom/history", params=query)
    assert reply.status == 200, reply.body
    return reply.json


async def compact(service: Harness, horizon: int) -> None:
    """What a compaction leaves."""
    connection = await asyncpg.connect(service.dsn)
    try:
        async with connection.transaction():
            await connection.execute("set local journal.door = 'remove'")
            await connection.execute("delete from journal.change where revision <= $1", horizon)
            await connection.execute("delete from journal.commit where revision < $1", horizon)
            await connection.execute("update journal.head set horizon = $1, turn = turn + 1", horizon)
    finally:
        await connection.close()


async def test_an_atom_is_told_with_who_changed_it_last_and_when(service: Harness) -> None:
    await live(service, LIFE)

    told = (await atom(service)).json

    epoch = (await service.head())["epoch"]
    assert datetime.fromisoformat(told.pop("at")).tzinfo is not None
    assert told == {
        "epoch": epoch, "collection": "todo", "atom": "a", "revision": 11, "by": ME, "data": {"again": 2},
    }  # fmt: skip


async def test_an_atom_at_any_revision_is_as_the_state_was(service: Harness) -> None:
    oracle = await live(service, LIFE)

    for at in range(oracle.head + 1):
        for name in ("a", "b", "never"):
            reply = await atom(service, name, at=at)

            held = oracle.state(at).get(("todo", name))
            assert reply.status == (200 if held else 404)
            if held is not None:
                assert (reply.json["revision"], comparable(reply.json["data"])) == (
                    held.revision,
                    comparable(held.data),
                )
                assert reply.json["by"] == oracle.changes[held.revision - 1].client


async def test_an_atom_with_a_long_life_is_read_back_to_where_it_was_whole(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"kept": 1, "n": 0})])
    for start in range(0, 250, 50):
        await service.pushed(
            [update("todo", "a", {"n": n + 1}) for n in range(start, start + 50)], on_conflict="client"
        )

    told = [(await atom(service, at=at)).json["data"] for at in (1, 100, 101, 102, 251)]

    assert told == [{"kept": 1, "n": n} for n in (0, 99, 100, 101, 250)]


async def test_what_is_deleted_or_never_was_is_not_found(service: Harness) -> None:
    await live(service, [(None, [insert("todo", "a")]), (None, [delete("todo", "a")])])

    replies = [
        await atom(service),
        await atom(service, "never"),
        await service.call("GET", "j/atom?collection=x&atom=a"),
    ]

    assert [(reply.status, reply.json["code"]) for reply in replies] == [(404, "not_found")] * 3


async def test_a_revision_beyond_the_head_is_a_slip_and_one_below_the_horizon_is_gone(service: Harness) -> None:
    await live(service, LIFE)
    await service.query("update journal.head set horizon = 4, turn = turn + 1")

    beyond, kept, gone = [await atom(service, at=at) for at in (12, 4, 3)]

    assert (beyond.status, [fault["pointer"] for fault in beyond.json["errors"]]) == (400, ["/at"])
    assert kept.status == 200
    assert (gone.status, gone.json["reason"], gone.json["horizon"]) == (410, "horizon", 4)


async def test_who_has_an_atom_is_told_so(service: Harness) -> None:
    await live(service, LIFE[:1])
    tag = (await atom(service)).headers["ETag"]
    asked = {"params": {"collection": "todo", "atom": "a"}, "headers": {"If-None-Match": tag}}

    same = await service.call("GET", "j/atom", **asked)
    bodiless = await service.call("HEAD", "j/atom", params=asked["params"])
    await live(service, LIFE[1:2])
    other = await service.call("GET", "j/atom", **asked)

    assert [same.status, bodiless.status, other.status] == [304, 200, 200]
    assert (bodiless.body, bodiless.headers["ETag"]) == (b"", tag)


async def test_the_history_of_an_atom_is_its_changes_newest_first(service: Harness) -> None:
    oracle = await live(service, LIFE)

    told = await history(service)

    changes = [change for change in reversed(oracle.changes) if change.key == ("todo", "a")]
    assert [(entry["revision"], entry["op"], entry["by"]) for entry in told["changes"]] == [
        (change.revision, change.op, change.client) for change in changes
    ]
    assert [comparable(entry.get("data")) for entry in told["changes"]] == [comparable(c.data) for c in changes]
    assert [frozenset(entry.get("unset", ())) for entry in told["changes"]] == [c.unset for c in changes]
    assert (told["more"], told["next"]) == (False, None)


async def test_the_history_has_pages(service: Harness) -> None:
    await live(service, LIFE)
    whole = (await history(service))["changes"]

    pages: list[list[Json]] = []
    before: Json = {}
    while True:
        page = await history(service, limit=2, **before)
        pages.append(page["changes"])
        if not page["more"]:
            break
        before = {"before": page["next"]}

    assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
    assert [entry for page in pages for entry in page] == whole


async def test_the_history_goes_on_past_a_delete_and_says_which_push_it_was(service: Harness) -> None:
    await service.pushed([insert("todo", "a")], client=ME, push=3)
    await service.pushed([delete("todo", "a")], on_conflict="client")

    told = await history(service)

    assert [(entry["op"], entry["push"]) for entry in told["changes"]] == [("delete", None), ("insert", 3)]


async def test_what_never_was_has_an_empty_history(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    assert (await history(service, "never"))["changes"] == []


@pytest.mark.parametrize("path", ["j/atom", "j/atom/history"])
@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("", ["/collection", "/atom"]),
        ("collection=todo", ["/atom"]),
        ("collection=a,b&atom=x", ["/collection"]),
        ("collection=todo&atom=%00", ["/atom"]),
        ("collection=todo&atom=", ["/atom"]),
        (f"collection=todo&atom={'a' * 256}", ["/atom"]),
        ("collection=todo&atom=a&since=1", ["/since"]),
    ],
)
async def test_a_slip_is_told(service: Harness, path: str, query: str, pointers: list[str]) -> None:
    reply = await service.call("GET", f"{path}?{query}")

    assert (reply.status, [fault["pointer"] for fault in reply.json["errors"]]) == (400, pointers)


@pytest.mark.parametrize("name", ["a+b", "50%25", "é/ü", "&=?#", " ", "..", "😀" * 63])
async def test_an_atom_of_any_name_is_found(service: Harness, name: str) -> None:
    await service.pushed([insert("todo", name, {"name": name})])

    async def is_told() -> bool:
        return bool((await atom(service, name)).json["data"] == {"name": name})

    assert await eventually(is_told)
    assert [entry["op"] for entry in (await history(service, name))["changes"]] == ["insert"]


async def test_p8_where_the_record_no_longer_reaches_no_part_is_told_for_the_whole(service: Harness) -> None:
    """The updates that were left were answered as if they were all of the atom."""
    await live(service, [(None, [insert("todo", "a", {"x": 1, "y": 1}), insert("todo", "quiet", {"q": 1})])])
    await live(service, [(None, [update("todo", "a", {"x": 2})]), (None, [update("todo", "a", {"x": 3})])])
    await live(service, [(None, [insert("todo", "late")]), (None, [update("todo", "a", {"x": 4})])])
    await compact(service, 3)

    quiet, late, now = await atom(service, "quiet", at=4), await atom(service, "late", at=4), await atom(service, at=6)
    parts = [await atom(service, at=at) for at in (3, 4, 5)]

    assert (quiet.json["data"], late.status, now.json["data"]) == ({"q": 1}, 404, {"x": 4, "y": 1})
    assert [(reply.status, reply.json["reason"]) for reply in parts] == [(410, "horizon")] * 3
