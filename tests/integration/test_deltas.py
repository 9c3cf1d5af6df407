"""Section 3 over HTTP: everything since a revision, in every form and from each of the three ways that answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from journal.config import Memory
from tests.harness import Harness, Json, Reply, delete, eventually, insert, put, serving, update
from tests.oracle import State, apply, comparable, comparable_state

ME, YOU = "b71d6172-c793-4095-a9c7-040fb872deab", str(UUID(int=2))
WAYS: dict[str, Json] = {"memory": {}, "state": {"include": "meta"}, "record": {"include": "revisions"}}
FORMS = ("json", "ndjson", "msgpack")


async def cursor(service: Harness) -> str:
    """The cursor of who has everything."""
    told: str = (await service.head())["cursor"]
    return told


async def pushed(service: Harness, *changes: Json, client: str | None = None) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **({"client": client} if client else {}))
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def somebody_waits(service: Harness) -> None:
    """Wait until a request waits for news of the journal."""
    changed = (await service.service.tails.of("j")).changed

    async def is_waited_for() -> bool:
        return bool(changed._waiters)

    await eventually(is_waited_for)


def bare(deltas: list[Json]) -> list[Json]:
    """Deltas without what `include` adds."""
    return [{name: delta[name] for name in delta if name not in ("at", "by", "revisions")} for delta in deltas]


def read(reply: Reply, form: str) -> tuple[list[Json], Json]:
    """The deltas of an answer, and its other members."""
    assert reply.status == 200, reply.body
    if form == "ndjson":
        first, *deltas, last = (json.loads(line) for line in reply.body.split(b"\n")[:-1])
        assert last.pop("end") is True
        return deltas, first | last
    answer: Json = msgspec.msgpack.decode(reply.body) if form == "msgpack" else json.loads(reply.body)
    return answer.pop("deltas"), answer


@pytest.fixture
async def small(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service where next to nothing is answered from memory: answers go through a file, piece by piece."""
    async with serving(database, tmp_path, memory=Memory(ring_changes=0, answer_bytes=100)) as running:
        await running.create("j")
        yield running


# What is told.


@pytest.mark.parametrize("way", WAYS)
async def test_p3_each_op_is_told_as_the_protocol_shows_it(service: Harness, way: str) -> None:
    old = {"title": "old", "cost": 1, "note": "x"}
    since = await pushed(service, insert("todo", "upd", old), insert("todo", "rep", old), insert("todo", "del", old))
    await pushed(service, insert("todo", "ins", {"title": "rings"}), update("todo", "upd", {"cost": 2}, unset=["note"]))
    await pushed(service, put("todo", "rep", {"title": "new"}), delete("todo", "del"))

    reply = await service.deltas(since, **WAYS[way])

    assert bare(reply.json["deltas"]) == [
        {"op": "insert", "collection": "todo", "atom": "ins", "revision": 4, "data": {"title": "rings"}},
        {"op": "update", "collection": "todo", "atom": "upd", "revision": 5, "data": {"cost": 2}, "unset": ["note"]},
        {"op": "replace", "collection": "todo", "atom": "rep", "revision": 6, "data": {"title": "new"}},
        {"op": "delete", "collection": "todo", "atom": "del", "revision": 7},
    ]


async def test_an_answer_up_to_the_head_says_where_it_leads(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"), insert("note", "a"))

    answer = (await service.deltas(since)).json

    head = await service.head()
    assert {name: answer[name] for name in answer if name != "deltas"} == {
        "epoch": head["epoch"],
        "since": 1,
        "until": 3,
        "head": 3,
        "horizon": 0,
        "more": False,
        "cursor": head["cursor"],
        "digest": head["digest"],
    }


async def test_an_answer_to_a_fixed_end_has_no_head_horizon_or_digest(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    end = await pushed(service, insert("todo", "b"))
    await pushed(service, insert("todo", "c"))

    answer = (await service.deltas(0, until=2)).json

    members = {name: answer[name] for name in answer if name != "deltas"}
    assert members == {"epoch": answer["epoch"], "since": 0, "until": 2, "more": False, "cursor": end}


@pytest.mark.parametrize("way", WAYS)
async def test_fields_that_only_changed_before_are_not_told(service: Harness, way: str) -> None:
    await pushed(service, insert("todo", "a", {"old": 1, "both": 1, "gone": 1, "never": 1}))
    since = await pushed(service, update("todo", "a", {"old": 2, "both": 2}, unset=["never"]))
    await pushed(service, update("todo", "a", {"both": 3}, unset=["gone"]))
    await pushed(service, update("todo", "a", {"gone": 4}))

    [delta] = bare((await service.deltas(since, **WAYS[way])).json["deltas"])

    data = {"both": 3, "gone": 4}
    assert delta == {"op": "update", "collection": "todo", "atom": "a", "revision": 4, "data": data}


@pytest.mark.parametrize("way", WAYS)
async def test_an_update_that_only_unsets_has_no_data(service: Harness, way: str) -> None:
    since = await pushed(service, insert("todo", "a", {"x": 1, "y": 1}))
    await pushed(service, update("todo", "a", unset=["x", "never"]))

    [delta] = bare((await service.deltas(since, **WAYS[way])).json["deltas"])

    assert delta.keys() == {"op", "collection", "atom", "revision", "unset"}
    assert set(delta["unset"]) == {"x", "never"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_field_of_any_name_and_value_is_told_as_it_was_sent(service: Harness, way: str) -> None:
    data: Json = {
        "": None, '"\\{},': "\x01\x7f\u2028\ufffe😀", "NULL": [], "null": {"": [[]]}, "é": True,
        "tiny": 5e-324, "huge": 1.7976931348623157e308, "zero": -0.0, "safe": 2**53 - 1, "float": 1.0,
    }  # fmt: skip
    since = await pushed(service, insert("ü :=&+%", 'q"\\/é😀&=+%', {"x": 1}))
    await pushed(service, update("ü :=&+%", 'q"\\/é😀&=+%', data, unset=["x"]))

    [delta] = (await service.deltas(since, **WAYS[way])).json["deltas"]

    assert (delta["collection"], delta["atom"]) == ("ü :=&+%", 'q"\\/é😀&=+%')
    assert comparable(delta["data"]) == comparable(data)
    assert delta["unset"] == ["x"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [*WAYS, "raw"])
async def test_data_that_was_sent_on_several_lines_is_told_on_one(service: Harness, way: str, form: str) -> None:
    """A line's end in the data went out as it was, and tore the line apart, or got a comma in front of it."""
    data = b'{\n\r\n "x": [1,\r\n2],\r"y": {}\n}'
    body = b'{"changes": [{"op": "insert", "collection": "todo", "atom": "a", "data": %s}]}' % data
    answer = await service.call("POST", "j/changes", data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 200

    if way == "raw":
        reply = await service.call("GET", "j/changes?since=0")
        told = reply.json["commits"][0]["changes"]
    else:
        told, _ = read(await service.deltas(0, format=form, **WAYS[way]), form)

    assert [delta["data"] for delta in told] == [{"x": [1, 2], "y": {}}]


@pytest.mark.parametrize("way", WAYS)
async def test_a_bare_revision_may_lie_inside_a_commit(service: Harness, way: str) -> None:
    await pushed(service, insert("todo", "a"), insert("todo", "b"), update("todo", "a", {"n": 2}), delete("todo", "b"))

    told = {since: bare((await service.deltas(since, **WAYS[way])).json["deltas"]) for since in range(5)}

    ops = {since: [(delta["op"], delta["atom"], delta["revision"]) for delta in told[since]] for since in told}
    assert ops[0] == [("insert", "a", 3)]
    assert ops[1] == [("update", "a", 3)]
    assert ops[2] == [("update", "a", 3), ("delete", "b", 4)]
    assert ops[3] == [("delete", "b", 4)]
    assert ops[4] == []


# What was born and died.


@pytest.mark.parametrize("way", WAYS)
async def test_p3_what_was_born_and_died_since_is_not_told(service: Harness, way: str) -> None:
    since = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"), client=ME)
    await pushed(service, delete("todo", "b"), client=YOU)

    reply = await service.deltas(since, **WAYS[way])

    assert reply.json["deltas"] == []
    assert reply.json["until"] == 3


@pytest.mark.parametrize("way", [*WAYS, "fixed"])
async def test_trap_2_who_inserted_it_is_told_its_delete(service: Harness, way: str) -> None:
    parameters = WAYS.get(way, {"until": 4})
    since = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"), client=ME)
    await pushed(service, update("todo", "b", {"n": 2}), delete("todo", "b"), client=YOU)

    mine = await service.deltas(since, client=ME, **parameters)
    yours = await service.deltas(since, client=YOU, **parameters)
    strangers = await service.deltas(since, client=str(uuid4()), **parameters)

    told = {"op": "delete", "collection": "todo", "atom": "b", "revision": 4}
    assert bare(mine.json["deltas"]) == [told]
    assert yours.json["deltas"] == strangers.json["deltas"] == []


@pytest.mark.parametrize("way", [*WAYS, "fixed"])
async def test_trap_2_everyone_with_a_name_is_told_the_delete_of_what_several_inserted(
    service: Harness, way: str
) -> None:
    parameters = WAYS.get(way, {"until": 4})
    await pushed(service, insert("todo", "b"), client=YOU)
    await pushed(service, delete("todo", "b"))
    await pushed(service, insert("todo", "b"), client=ME)
    await pushed(service, delete("todo", "b"), client=YOU)

    await pushed(service, insert("todo", "c"), client=(third := str(uuid4())))

    told = [await service.deltas(0, client=client, **parameters) for client in (ME, YOU, third, None)]

    ops = [[delta["op"] for delta in reply.json["deltas"] if delta["atom"] == "b"] for reply in told]
    assert ops == [["delete"]] * 3 + [[]]


async def test_trap_2_what_is_shared_in_memory_loses_nobodys_delete(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"), client=ME)
    await pushed(service, delete("todo", "b"), client=YOU)

    shared = await service.deltas(since)
    mine = await service.deltas(since, client=ME)
    again = await service.deltas(since)

    assert [delta["op"] for delta in mine.json["deltas"]] == ["delete"]
    assert shared.json["deltas"] == again.json["deltas"] == []


@pytest.mark.parametrize("way", WAYS)
async def test_trap_3_what_was_deleted_and_inserted_again_is_replaced(service: Harness, way: str) -> None:
    since = await pushed(service, insert("todo", "a", {"old": 1}))
    await pushed(service, delete("todo", "a"), insert("todo", "a", {"new": 1}), update("todo", "a", {"more": 1}))

    [delta] = bare((await service.deltas(since, **WAYS[way])).json["deltas"])

    assert (delta["op"], delta["data"]) == ("replace", {"new": 1, "more": 1})


@pytest.mark.parametrize("way", WAYS)
async def test_trap_5_what_lived_before_is_told_deleted_though_it_was_born_again_since(
    service: Harness, way: str
) -> None:
    since = await pushed(service, insert("todo", "a"))
    await pushed(service, delete("todo", "a"), insert("todo", "a"))
    await pushed(service, delete("todo", "a"))

    [delta] = bare((await service.deltas(since, **WAYS[way])).json["deltas"])

    assert (delta["op"], delta["revision"]) == ("delete", 4)


async def test_p3_a_fixed_end_is_told_by_the_table_to_the_letter(service: Harness) -> None:
    """An atom that was dead at the requester's revision is inserted, where the state would say replaced."""
    await pushed(service, insert("todo", "a"), delete("todo", "a"))
    since = await pushed(service, insert("todo", "b"))
    await pushed(service, insert("todo", "a", {"x": 1}))
    await pushed(service, delete("todo", "a"))

    alive = await service.deltas(since, until=4)
    dead = await service.deltas(since, until=5)

    assert [delta["op"] for delta in alive.json["deltas"]] == ["insert"]
    assert dead.json["deltas"] == []


# Who and when, and which revisions.


async def test_meta_says_who_and_when(service: Harness) -> None:
    await pushed(service, insert("todo", "a"), insert("todo", "b"), client=ME)
    await pushed(service, insert("todo", "c"))

    told = (await service.deltas(0, include="meta")).json["deltas"]

    assert [delta["by"] for delta in told] == [ME, ME, None]
    times = [datetime.fromisoformat(delta["at"]) for delta in told]
    assert times[0] == times[1] < times[2]
    assert abs(datetime.now(UTC) - times[2]) < timedelta(minutes=1)


async def test_revisions_are_all_that_a_delta_folds(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"), update("todo", "a", {"n": 2}), insert("todo", "b"))
    await pushed(service, update("todo", "a", {"n": 3}), update("todo", "b", {"n": 3}), update("todo", "a", {"n": 4}))

    told = (await service.deltas(since, include="revisions")).json["deltas"]
    both = (await service.deltas(since, include="meta,revisions", until=6)).json["deltas"]

    assert [(delta["atom"], delta["revisions"]) for delta in told] == [("b", [5]), ("a", [4, 6])]
    assert [(delta["revisions"], delta["by"]) for delta in both] == [([5], None), ([4, 6], None)]


# P5.


async def test_p5_memory_state_and_record_have_one_effect(service: Harness) -> None:
    ends = [0]
    for n in range(4):
        await pushed(service, insert("todo", f"{n}"), insert("todo", "a", {"n": n}), update("todo", "a", {"x": n}))
        ends.append(int((await pushed(service, delete("todo", "a"), delete("todo", f"{n - 1}"))).split(":")[1]))
    reached: dict[int, State] = {}

    for since in range(ends[-1] + 1):
        states: list[State] = []
        for parameters in WAYS.values():
            before: State = {}
            apply(before, (await service.deltas(0, until=since)).json["deltas"] if since in ends else [])
            apply(before, (await service.deltas(since, **parameters)).json["deltas"] if since in ends else [])
            states.append(before)
        reached[since] = states[0]

        assert comparable_state(states[0]) == comparable_state(states[1]) == comparable_state(states[2])
    assert {key for key, _ in reached[0]} == {"todo"}


# Forms.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_form_says_the_same(service: Harness, small: Harness, way: str, form: str) -> None:
    await pushed(service, insert("todo", "a", {"huge": 1e300, "long": 12345678901234567000, "t": "é\n"}))
    await pushed(service, *(insert("todo", f"{n}", {"n": n}) for n in range(30)))
    plain, members = read(await service.deltas(0), "json")

    async def has_heard() -> bool:
        return bool((await small.head())["head"] == 31)

    await eventually(has_heard)
    for server in (service, small):
        told, others = read(await server.deltas(0, format=form, **WAYS[way]), form)

        assert comparable(bare(told)) == comparable(plain)
        assert others == {name: members[name] for name in others}
        assert others.keys() >= {"epoch", "since", "until", "more", "cursor"}


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/msgpack", "application/msgpack"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/html, application/msgpack;q=0.2, */*;q=0.1", "application/msgpack"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("", "application/json"),
    ],
)
async def test_the_form_is_what_the_requester_accepts_most(service: Harness, accept: str, media: str) -> None:
    reply = await service.call("GET", "j/deltas?since=0", headers={"Accept": accept})

    assert (reply.status, reply.headers["Content-Type"]) == (200, media)


async def test_a_form_that_is_not_to_be_had_is_406(service: Harness) -> None:
    reply = await service.call("GET", "j/deltas?since=0", headers={"Accept": "text/html"})

    assert (reply.status, reply.json["code"]) == (406, "not_acceptable")


async def test_the_parameter_goes_before_what_is_accepted(service: Harness) -> None:
    reply = await service.call("GET", "j/deltas?since=0&format=ndjson", headers={"Accept": "application/msgpack"})

    assert reply.headers["Content-Type"] == "application/x-ndjson"


async def test_ndjson_begins_with_what_is_known_and_ends_with_the_rest_and_has_no_pages(service: Harness) -> None:
    await pushed(service, *(insert("todo", f"{n}") for n in range(5)))
    await pushed(service, insert("todo", "x"))

    first, *deltas, last = (await service.deltas(0, format="ndjson", limit=1)).lines

    head = await service.head()
    assert first == {"epoch": head["epoch"], "since": 0, "head": 6, "horizon": 0}
    assert len(deltas) == 6
    assert last == {"end": True, "until": 6, "more": False, "cursor": head["cursor"], "digest": head["digest"]}


# Waiting.


async def test_who_waits_is_answered_as_soon_as_there_is_something(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"))

    waiting = asyncio.create_task(service.deltas(since, wait=60))
    await somebody_waits(service)
    await pushed(service, insert("todo", "b"))
    reply = await asyncio.wait_for(waiting, 10)

    assert [delta["atom"] for delta in reply.json["deltas"]] == ["b"]


async def test_who_waits_for_some_collections_is_not_disturbed_by_others(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"))

    waiting = asyncio.create_task(service.deltas(since, wait=60, collections="todo"))
    for n in range(5):
        await pushed(service, insert("note", f"{n}"))
    await pushed(service, insert("todo", "b"))
    reply = await asyncio.wait_for(waiting, 10)

    assert [delta["atom"] for delta in reply.json["deltas"]] == ["b"]
    assert reply.json["until"] == 7


async def test_who_waited_in_vain_is_answered_what_there_is(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"))

    reply = await service.deltas(since, wait=0.05)

    assert (reply.json["deltas"], reply.json["cursor"]) == ([], since)


async def test_who_waits_for_a_journal_that_is_removed_is_told(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"))

    waiting = asyncio.create_task(service.deltas(since, wait=60))
    await somebody_waits(service)
    await service.call("DELETE", "j")
    reply = await asyncio.wait_for(waiting, 10)

    assert (reply.status, reply.json["code"]) == (404, "journal_not_found")


# Slips.


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("", ["/since"]),
        ("since=", ["/since"]),
        ("since=-1", ["/since"]),
        ("since=9007199254740992", ["/since"]),
        ("since=x:y", ["/since"]),
        ("since=0&since=0", ["/since"]),
        ("since=0&limit=0", ["/limit"]),
        ("since=0&limit=100001", ["/limit"]),
        ("since=0&limit=1.5", ["/limit"]),
        ("since=0&limit=%D9%A3", ["/limit"]),
        ("since=0&wait=61", ["/wait"]),
        ("since=0&wait=-1", ["/wait"]),
        ("since=0&wait=.", ["/wait"]),
        ("since=0&wait=", ["/wait"]),
        ("since=0&wait=nan", ["/wait"]),
        ("since=0&collections=", ["/collections"]),
        ("since=0&collections=a,,b", ["/collections"]),
        ("since=0&collections=a%00", ["/collections"]),
        ("since=0&client=me", ["/client"]),
        ("since=0&include=by", ["/include"]),
        ("since=0&format=xml", ["/format"]),
        ("since=0&colections=a", ["/colections"]),
        ("limit=0&wait=x&nonsense=1", ["/limit", "/wait", "/nonsense", "/since"]),
        ("since=0&until=99", ["/until"]),
        ("since=0&until=1", ["/until"]),
        ("since=3&until=2", ["/until"]),
        (f"since=3&client={ME}", ["/since"]),
        ("since=0&x=%FF", [""]),
        ("&".join(f"p{n}=1" for n in range(100)), [""]),
    ],
)
async def test_a_slip_in_the_query_is_told_and_never_silence(service: Harness, query: str, pointers: list[str]) -> None:
    await pushed(service, insert("todo", "a"), insert("todo", "b"))
    await pushed(service, insert("todo", "c"))

    reply = await service.call("GET", f"j/deltas?{query}")

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert [fault["pointer"] for fault in reply.json["errors"]] == pointers


@pytest.mark.parametrize("member", ["client=x", "client=", f"client={ME.upper()}", "until=9999999999999999"])
async def test_a_cursor_that_no_answer_can_have_given_is_a_slip_too(service: Harness, member: str) -> None:
    epoch = (await service.head())["epoch"]
    await pushed(service, insert("todo", "a"))

    reply = await service.deltas(f"{epoch}:0:{'0' * 16}:base=0:{member}", include="meta")

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


async def test_a_client_may_begin_from_nothing(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))

    reply = await service.deltas(0, client=ME)

    assert [delta["atom"] for delta in reply.json["deltas"]] == ["a"]


@pytest.mark.parametrize("path", ["%00", "j%00", "%ff", "%ed%a0%80", "J", "nobody", "nobody/deltas?since=0"])
async def test_a_journal_that_there_cannot_be_is_not_found(service: Harness, path: str) -> None:
    reply = await service.call("GET", path)

    assert (reply.status, reply.json["code"]) == (404, "journal_not_found")


async def test_an_answer_larger_than_memory_is_made_piece_by_piece(small: Harness) -> None:
    await pushed(small, *(insert("todo", f"{n}", {"n": "x" * n}) for n in range(300)))
    expected = [{"n": "x" * n} for n in range(300)]

    told: list[Any] = []
    for form in FORMS:
        deltas, _ = read(await small.deltas(0, format=form), form)
        told.append([delta["data"] for delta in deltas])

    assert told == [expected] * 3
