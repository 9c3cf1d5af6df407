"""Section 3.1: rounds of pages, and what happens between them (traps 4 and 23 are what this is about)."""

from typing import Any
from uuid import uuid4

import pytest

from tests.harness import Harness, Json, delete, insert, update
from tests.oracle import State, apply

ME, YOU = str(uuid4()), str(uuid4())


async def pushed(service: Harness, *changes: Json, client: str | None = None) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **({"client": client} if client else {}))
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def page(service: Harness, since: str | int, limit: int = 1, **parameters: Any) -> Json:
    """One page."""
    reply = await service.deltas(since, limit=limit, **parameters)
    assert reply.status == 200, reply.body
    return reply.json


def told(answer: Json) -> list[tuple[str, str]]:
    """What an answer says of which atom."""
    return [(delta["op"], delta["atom"]) for delta in answer["deltas"]]


# Where pages end.


async def test_a_round_goes_through_its_pages_and_says_on_the_last_what_it_led_to(service: Harness) -> None:
    cursors = [await pushed(service, insert("todo", atom)) for atom in "abcde"]

    first = await page(service, 0, 2)
    second = await page(service, first["cursor"], 2)
    last = await page(service, second["cursor"], 2)

    head = await service.head()
    assert [told(answer) for answer in (first, second, last)] == [
        [("insert", "a"), ("insert", "b")], [("insert", "c"), ("insert", "d")], [("insert", "e")],
    ]  # fmt: skip
    assert [answer["since"] for answer in (first, second, last)] == [0, 2, 4]
    assert [answer["more"] for answer in (first, second, last)] == [True, True, False]
    assert not (first.keys() | second.keys()) & {"until", "digest"}
    assert (last["until"], last["digest"]) == (5, head["digest"])
    assert first["cursor"] == f"{cursors[1]}:base=0"
    assert last["cursor"] == cursors[4]


@pytest.mark.parametrize("parameters", [{}, {"until": 7}])
async def test_a_page_ends_at_a_commits_end_and_holds_at_least_one(service: Harness, parameters: Json) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, *(insert("todo", atom) for atom in "bcd"))
    await pushed(service, insert("todo", "e"), insert("todo", "f"))
    await pushed(service, insert("todo", "g"))

    pages, since = [], "0"
    while True:
        answer = await page(service, since, 2, **parameters)
        pages.append("".join(delta["atom"] for delta in answer["deltas"]))
        since = answer["cursor"]
        if not answer["more"]:
            break

    assert pages == ["a", "bcd", "ef", "g"]


async def test_a_page_may_be_empty_where_all_of_it_was_cancelled_but_goes_forward(service: Harness) -> None:
    for n in range(4):
        await pushed(service, insert("todo", f"{n}"))
        await pushed(service, delete("todo", f"{n}"))
    await pushed(service, insert("todo", "a"))

    deltas, last = await service.round(0, limit=2)

    assert [delta["atom"] for delta in deltas] == ["a"]
    assert last["until"] == 9


async def test_a_limit_that_everything_fits_in_exactly_is_the_last_page(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    answer = await page(service, 0, 2)

    assert (answer["more"], answer["until"]) == (False, 2)


async def test_what_lies_beyond_the_asked_collections_ends_no_page(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    for n in range(5):
        await pushed(service, insert("note", f"{n}"))
    await pushed(service, insert("todo", "b"))

    answer = await page(service, 0, 2, collections="todo")

    assert told(answer) == [("insert", "a"), ("insert", "b")]
    assert answer["more"] is False


async def test_a_client_that_crashed_goes_on_where_it_was(service: Harness) -> None:
    for atom in "abc":
        await pushed(service, insert("todo", atom))
    first = await page(service, 0)

    once = await page(service, first["cursor"])
    await pushed(service, update("todo", "b", {"n": 2}))
    again = await page(service, first["cursor"])

    assert told(once) == [("insert", "b")]
    assert told(again) == [("insert", "c")]
    state: State = {}
    for answer in (first, once, again, await page(service, again["cursor"])):
        apply(state, answer["deltas"])
    assert {atom: held.data for (_, atom), held in state.items()} == {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 1}}


# Trap 4: what happens between pages.


async def test_trap_4_an_atom_that_moves_to_a_later_page_keeps_its_earlier_fields(service: Harness) -> None:
    await pushed(service, insert("todo", "a", {"x": 0, "y": 0}), insert("todo", "b"))
    since = await pushed(service, insert("todo", "c"))
    await pushed(service, update("todo", "a", {"x": 1}, unset=["z"]))
    await pushed(service, update("todo", "b", {"n": 2}))
    await pushed(service, update("todo", "c", {"n": 2}))

    first = await page(service, since, 1)
    second = await page(service, first["cursor"], 1)
    await pushed(service, update("todo", "a", {"y": 1}))
    third = await page(service, second["cursor"], 1)
    await pushed(service, update("todo", "b", {"y": 1}), update("todo", "c", {"y": 1}))
    last = await page(service, third["cursor"], 10)

    assert [told(answer) for answer in (first, second, third)] == [
        [("update", "a")], [("update", "b")], [("update", "c")],
    ]  # fmt: skip
    assert [(delta["atom"], delta["data"], delta.get("unset")) for delta in last["deltas"]] == [
        ("a", {"x": 1, "y": 1}, ["z"]), ("b", {"n": 2, "y": 1}, None), ("c", {"n": 2, "y": 1}, None),
    ]  # fmt: skip


async def test_trap_4_what_was_told_and_then_changed_is_told_again_whole(service: Harness) -> None:
    await pushed(service, insert("todo", "a", {"x": 0}))
    await pushed(service, insert("todo", "b"))

    first = await page(service, 0)
    await pushed(service, update("todo", "a", {"y": 1}))
    second = await page(service, first["cursor"], 10)

    assert told(first) == [("insert", "a")]
    assert told(second) == [("insert", "b"), ("insert", "a")]
    assert second["deltas"][1]["data"] == {"x": 0, "y": 1}


async def test_trap_4_what_was_told_and_then_deleted_is_told_as_deleted(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    first = await page(service, 0)
    await pushed(service, delete("todo", "a"))
    second = await page(service, first["cursor"], 10)

    assert told(first) == [("insert", "a")]
    assert told(second) == [("insert", "b"), ("delete", "a")]


async def test_trap_4_what_was_born_behind_the_position_and_died_is_not_told(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    first = await page(service, 0)
    await pushed(service, insert("todo", "c"))
    await pushed(service, delete("todo", "c"), delete("todo", "b"))
    second = await page(service, first["cursor"], 10)

    assert second["deltas"] == []
    assert (second["more"], second["until"]) == (False, 5)


async def test_trap_4_what_was_told_deleted_and_came_back_is_told_whole(service: Harness) -> None:
    since = await pushed(service, insert("todo", "a"), insert("todo", "b"))
    await pushed(service, delete("todo", "a"))
    await pushed(service, update("todo", "b", {"n": 2}))

    first = await page(service, since)
    await pushed(service, insert("todo", "a", {"new": 1}))
    second = await page(service, first["cursor"], 10)

    assert told(first) == [("delete", "a")]
    assert [(delta["op"], delta["data"]) for delta in second["deltas"]] == [
        ("update", {"n": 2}), ("replace", {"new": 1}),
    ]  # fmt: skip


async def test_trap_2_a_client_keeps_its_deletes_through_the_pages_of_its_round(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    first = await page(service, 0, client=ME)
    await pushed(service, insert("todo", "c"), client=ME)
    await pushed(service, delete("todo", "c"), client=YOU)
    second = await page(service, first["cursor"], 10)

    assert told(second) == [("insert", "b"), ("delete", "c")]
    assert f":client={ME}" in first["cursor"]
    assert ":client=" not in second["cursor"]


@pytest.mark.parametrize("parameters", [{"until": 4}, {"include": "revisions"}, {"until": 4, "include": "revisions"}])
async def test_trap_4_a_round_to_a_fixed_end_does_not_see_what_comes_later(service: Harness, parameters: Json) -> None:
    for atom in "abc":
        await pushed(service, insert("todo", atom))
    await pushed(service, update("todo", "a", {"n": 2}))

    first = await page(service, 0, **parameters)
    await pushed(service, delete("todo", "a"), delete("todo", "b"), insert("todo", "b"), insert("todo", "d"))
    second = await page(service, first["cursor"])
    last = await page(service, second["cursor"])

    assert [told(answer) for answer in (first, second, last)] == [
        [("insert", "b")], [("insert", "c")], [("insert", "a")],
    ]  # fmt: skip
    assert last["deltas"][0]["data"] == {"n": 2}
    assert (last["until"], last["more"]) == (4, False)


# What a cursor of an unfinished round may be asked with.


async def test_the_rounds_end_is_in_its_cursor_and_no_other_goes_with_it(service: Harness) -> None:
    for atom in "abc":
        await pushed(service, insert("todo", atom))
    first = await page(service, 0, until=2)

    other = await service.deltas(first["cursor"], until=3)
    same = await service.deltas(first["cursor"], until=2)

    assert (other.status, [fault["pointer"] for fault in other.json["errors"]]) == (400, ["/until"])
    assert same.json["until"] == 2


@pytest.mark.parametrize("parameters", [{"until": 3}, {"include": "revisions"}])
async def test_trap_4_a_round_to_the_head_does_not_become_one_to_a_fixed_end(
    service: Harness, parameters: Json
) -> None:
    """It had told of an atom that was deleted since; folded from its base on that had come to nothing: a ghost."""
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))
    first = await page(service, 0)
    await pushed(service, delete("todo", "a"))

    reply = await service.deltas(first["cursor"], **parameters)

    assert told(first) == [("insert", "a")]
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


async def test_a_round_is_one_clients(service: Harness) -> None:
    for atom in "abc":
        await pushed(service, insert("todo", atom))
    mine, nobodys = await page(service, 0, client=ME), await page(service, 0)

    replies = [await service.deltas(answer["cursor"], client=YOU) for answer in (mine, nobodys)]
    own = await service.deltas(mine["cursor"], client=ME)

    assert [[fault["pointer"] for fault in reply.json["errors"]] for reply in replies] == [["/client"], ["/client"]]
    assert own.status == 200


async def test_a_finished_rounds_cursor_serves_any_requester(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    _, last = await service.round(0, limit=1, client=ME)

    reply = await service.deltas(last["cursor"], client=YOU)

    assert reply.status == 200


async def test_pages_after_the_first_need_no_collections_and_may_have_fewer(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("note", "b"))
    await pushed(service, insert("file", "c"))
    await pushed(service, insert("todo", "d"))
    first = await page(service, 0, collections="todo,note")

    rest = await page(service, first["cursor"], 10)
    fewer = await page(service, first["cursor"], 10, collections="todo")
    more = await service.deltas(first["cursor"], collections="todo,file")

    assert told(first) == [("insert", "a")]
    assert told(rest) == [("insert", "b"), ("insert", "d")]
    assert told(fewer) == [("insert", "d")]
    assert (more.status, more.json["reason"], more.json["collections"]) == (410, "scope", ["file"])


async def test_a_base_for_a_push_is_the_rounds_and_not_the_pages(service: Harness) -> None:
    """What lies between was told as it is now; but of what was not told yet the client knows the base."""
    since = await pushed(service, insert("todo", "a"), insert("todo", "b"))
    await pushed(service, update("todo", "a", {"n": 2}))
    await pushed(service, update("todo", "b", {"n": 2}))
    first = await page(service, since)

    answer = await service.pushed([update("todo", "a", {"n": 3})], base=first["cursor"])

    assert told(first) == [("update", "a")]
    assert [outcome["status"] for outcome in answer["outcomes"]] == ["conflict"]
