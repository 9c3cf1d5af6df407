"""Section 3.2: a cursor belongs to its collections (trap 17), and moves though nothing of them does (trap 9)."""

import itertools

import pytest

from tests.harness import Harness, Json, delete, insert, put, update
from tests.oracle import Held, State, apply, comparable_state

AWKWARD = ["a+b", "50%", "x&y=z", "é: ü", "%41", "null"]


async def pushed(service: Harness, *changes: Json) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client")
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


def told(answer: Json) -> list[tuple[str, str]]:
    return [(delta["collection"], delta["atom"]) for delta in answer["deltas"]]


async def held(service: Harness, revision: int, names: str | None = None) -> State:
    """The state at a revision, of some collections."""
    state: State = {}
    apply(state, (await service.deltas(0, until=revision, collections=names)).json["deltas"])
    return state


async def cursor_for(service: Harness, at: str, names: str | None) -> str:
    """GET …/cursor."""
    reply = await service.call("GET", "j/cursor", params={"at": at} | ({"collections": names} if names else {}))
    assert reply.status == 200, reply.body
    told: str = reply.json["cursor"]
    return told


@pytest.mark.parametrize("way", [{}, {"include": "meta"}, {"until": 3}])
async def test_only_what_was_asked_for_is_told(service: Harness, way: Json) -> None:
    await pushed(service, insert("a", "1"), insert("b", "2"), insert("c", "3"))

    answers = [(await service.deltas(0, collections=names, **way)).json for names in ("a", "b,a", "c,c", "d", "a,d")]

    assert [told(answer) for answer in answers] == [
        [("a", "1")], [("a", "1"), ("b", "2")], [("c", "3")], [], [("a", "1")],
    ]  # fmt: skip
    assert [answer["until"] for answer in answers] == [3] * 5


@pytest.mark.parametrize("way", [{}, {"include": "meta"}, {"until": 6}])
@pytest.mark.parametrize("name", AWKWARD)
async def test_a_collections_name_is_read_once_and_as_it_is(service: Harness, name: str, way: Json) -> None:
    """The query was decoded twice: `a+b` asked for `a b`, and was answered with nothing."""
    await pushed(service, *(insert(other, "a") for other in AWKWARD))

    answer = (await service.deltas(0, collections=name, **way)).json
    again = await service.deltas(answer["cursor"], collections=name)
    atom = await service.call("GET", "j/atom", params={"collection": name, "atom": "a"})

    assert told(answer) == [(name, "a")]
    assert again.status == 200
    assert atom.json["collection"] == name


async def test_the_digest_is_of_the_collections_that_were_asked_for(service: Harness) -> None:
    await pushed(service, insert("a", "1"), insert("b", "2"), insert("c", "3"))
    collections = (await service.call("GET", "j/collections")).json["collections"]
    digests = {entry["name"]: int(entry["digest"], 16) for entry in collections}

    answer = (await service.deltas(0, collections="a,c,nothing")).json

    assert answer["digest"] == f"{digests['a'] ^ digests['c']:016x}"


async def test_unknown_collections_are_empty_and_no_fault(service: Harness) -> None:
    await pushed(service, insert("a", "1"))

    answer = (await service.deltas(0, collections="never,nowhere")).json
    first, last = await service.snapshot(collections="never,nowhere")

    assert (answer["deltas"], answer["digest"], answer["until"]) == ([], "0" * 16, 1)
    assert (first["atoms"], last["digest"]) == (0, "0" * 16)


# Trap 17.


async def test_trap_17_a_cursor_carries_its_collections_and_is_none_for_more(service: Harness) -> None:
    await pushed(service, insert("a", "1"), insert("b", "2"), insert("c", "3"))
    cursor = (await service.deltas(0, collections="b,a")).json["cursor"]

    same = await service.deltas(cursor, collections="a,b")
    fewer = await service.deltas(cursor, collections="b")
    more = await service.deltas(cursor, collections="a,b,c")
    everything = await service.deltas(cursor)

    assert cursor.endswith(":collections=a,b")
    assert [same.status, fewer.status, more.status, everything.status] == [200, 200, 410, 410]
    assert fewer.json["cursor"].endswith(":collections=b")
    assert more.json["collections"] == everything.json["collections"] == ["c"]


async def test_trap_17_three_parts_alone_cover_everything(service: Harness) -> None:
    since = await pushed(service, insert("a", "1"), insert("b", "2"))
    await pushed(service, insert("b", "3"))

    replies = [await service.deltas(since, collections=names) for names in (None, "a", "b", "a,b")]

    assert [reply.status for reply in replies] == [200] * 4


@pytest.mark.parametrize("way", [{}, {"include": "meta"}, {"until": 3}, {"include": "revisions"}])
async def test_trap_17_it_is_told_in_every_way_of_asking(service: Harness, way: Json) -> None:
    await pushed(service, insert("a", "1"))
    cursor = (await service.deltas(0, collections="a")).json["cursor"]
    await pushed(service, insert("b", "2"), insert("a", "3"))

    reply = await service.deltas(cursor, collections="a,b", **way)

    assert (reply.status, reply.json["reason"], reply.json["collections"]) == (410, "scope", ["b"])


async def test_trap_17_what_was_born_after_the_cursor_was_given_is_missing_too(service: Harness) -> None:
    """The cursor's revision is before b's first change: but another cursor of b may have been given after it."""
    await pushed(service, insert("a", "1"))
    cursor = (await service.deltas(0, collections="a")).json["cursor"]

    before = await service.deltas(cursor, collections="a,b")
    await pushed(service, insert("b", "2"))
    after = await service.deltas(cursor, collections="a,b")

    assert before.status == 200
    assert (after.status, after.json["reason"]) == (410, "scope")


# Adding a collection, as section 3.2 has it.


@pytest.mark.parametrize("snapshot_first", [True, False])
async def test_adding_a_collection_goes_by_the_recipe(service: Harness, snapshot_first: bool) -> None:
    await pushed(service, insert("a", "1"), insert("b", "1", {"x": 1}))
    if snapshot_first:
        await service.snapshot(collections="b")
    await pushed(service, update("b", "1", {"x": 2}), insert("b", "2"))
    replica: State = {}
    deltas, last = await service.round(0, collections="a")
    apply(replica, deltas)
    cursor, c = last["cursor"], last["until"]
    await pushed(service, insert("a", "2"), delete("b", "2"), put("b", "3", {"y": 1}), insert("c", "1"))

    first, *lines, _ = await service.snapshot(collections="b")
    r = first["revision"]
    replica |= {(line["collection"], line["atom"]): Held(line["data"], line["revision"]) for line in lines}
    if r >= c:
        deltas, last = await service.round(cursor, collections="a", until=r)
    else:
        deltas, last = await service.round(first["cursor"], collections="b", until=c)
    apply(replica, deltas)
    wide = await cursor_for(service, last["cursor"], "a,b")
    await pushed(service, update("a", "2", {"n": 2}), update("b", "1", {"x": 3}))
    deltas, last = await service.round(wide, collections="a,b")
    apply(replica, deltas)

    assert (r < c) is snapshot_first
    assert wide.endswith(":collections=a,b")
    assert comparable_state(replica) == comparable_state(await held(service, last["until"], "a,b"))


async def test_the_recipes_second_case_may_pull_since_a_bare_revision(service: Harness) -> None:
    await pushed(service, insert("b", "1"))
    await service.snapshot(collections="b")
    cursor = await pushed(service, update("b", "1", {"n": 2}), insert("a", "1"))

    first, *lines, _ = await service.snapshot(collections="b")
    b: State = {(line["collection"], line["atom"]): Held(line["data"], line["revision"]) for line in lines}
    apply(b, (await service.deltas(first["revision"], until=3, collections="b")).json["deltas"])

    assert (first["revision"], cursor.split(":")[1]) == (1, "3")
    assert comparable_state(b) == comparable_state(await held(service, 3, "b"))


async def test_a_cursor_for_all_is_to_be_had_too(service: Harness) -> None:
    whole = await pushed(service, insert("a", "1"), insert("b", "1"))
    narrow = (await service.deltas(0, collections="a")).json["cursor"]

    assert await cursor_for(service, narrow, None) == whole
    assert await cursor_for(service, whole, "b") == whole + ":collections=b"


async def test_a_cursor_of_an_unfinished_round_is_not_made_into_another(service: Harness) -> None:
    await pushed(service, insert("a", "1"))
    await pushed(service, insert("a", "2"))
    unfinished = (await service.deltas(0, limit=1)).json["cursor"]

    reply = await service.call("GET", "j/cursor", params={"at": unfinished, "collections": "a"})

    assert (reply.status, [fault["pointer"] for fault in reply.json["errors"]]) == (400, ["/at"])


@pytest.mark.parametrize(
    ("query", "pointer"), [("", "/at"), ("at=7", "/at"), ("at=x", "/at"), ("collections=,", "/at")]
)
async def test_a_slip_is_told(service: Harness, query: str, pointer: str) -> None:
    reply = await service.call("GET", f"j/cursor?{query}")

    assert reply.status == 400
    assert pointer in [fault["pointer"] for fault in reply.json["errors"]]


# Trap 9.


@pytest.mark.parametrize("way", [{}, {"include": "meta"}, {"include": "revisions"}])
async def test_trap_9_a_quiet_filter_advances(service: Harness, way: Json) -> None:
    await pushed(service, insert("a", "1"))
    since = (await service.deltas(0, collections="a")).json["cursor"]

    seen = []
    for n in itertools.islice(itertools.count(2), 3):
        await pushed(service, insert("b", f"{n}"))
        answer = (await service.deltas(since, collections="a", **way)).json
        since = answer["cursor"]
        seen.append((answer["deltas"], answer["until"], int(since.split(":")[1])))

    assert seen == [([], 2, 2), ([], 3, 3), ([], 4, 4)]


async def test_trap_9_it_advances_through_pages_too(service: Harness) -> None:
    await pushed(service, insert("a", "1"))
    since = (await service.deltas(0, collections="a")).json["cursor"]
    for n in range(5):
        await pushed(service, insert("b", f"{n}"))

    answer = (await service.deltas(since, collections="a", limit=1)).json

    assert (answer["deltas"], answer["more"], answer["until"]) == ([], False, 6)
