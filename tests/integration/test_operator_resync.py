"""Section 11: an operator calls clients back. The floor is in the journal, and obeyed by a snapshot's cursor (P8)."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from journal.core import chain
from tests.harness import Harness, Json, Reply, blocked_on_lock, eventually, insert, listening, serving, update
from tests.oracle import Json as Data

ME, YOU = str(UUID(int=1)), str(UUID(int=2))


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push; the cursor after it."""
    answer = await service.pushed(list(changes), **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def resync(service: Harness, **asked: Any) -> int:
    """Call back; the floor's revision."""
    reply = await service.call("POST", "j/resync", json={"reason": "because", **asked})
    assert reply.status == 200, reply.body
    revision: int = reply.json["revision"]
    return revision


def reason(reply: Reply) -> str | None:
    """Why it is 410; None where it is not."""
    return str(reply.json["reason"]) if reply.status == 410 else None


# Whom it concerns.


async def test_p8_everyone_below_a_floor_is_called_back_and_those_above_are_not(service: Harness) -> None:
    below = await pushed(service, insert("todo", "a"))

    floor = await resync(service)
    above = await pushed(service, insert("todo", "b"))

    told = (await service.deltas(below)).json
    assert (told["reason"], told["reconcile"], told["head"]) == ("operator", "replace", 3)
    assert "collections" not in told
    assert floor == 2
    assert reason(await service.deltas(below, client=ME)) == "operator"
    assert reason(await service.deltas(below, until=2)) == "operator"
    assert reason(await service.call("GET", f"j/changes?since={below}")) == "operator"
    assert reason(await service.call("GET", f"j/cursor?at={below}&collections=todo")) == "operator"
    assert reason(await service.push([insert("todo", "c")], base=below)) == "operator"
    assert (await service.deltas(above)).status == 200


@pytest.mark.parametrize("since", [0, 1])
async def test_p8_a_bare_revision_is_not_judged_by_floors(service: Harness, since: int) -> None:
    await pushed(service, insert("todo", "a"))
    await resync(service)

    assert (await service.deltas(since)).status == 200
    assert (await service.deltas(0, client=ME)).status == 200


async def test_p8_a_floor_for_a_client_concerns_whoever_names_it_seen_before_or_not(service: Harness) -> None:
    below = await pushed(service, insert("todo", "a"))

    await resync(service, client=ME)

    assert reason(await service.deltas(below, client=ME)) == "operator"
    assert reason(await service.push([insert("todo", "b")], base=below, client=ME, push=1)) == "operator"
    assert (await service.deltas(below, client=YOU)).status == 200
    assert (await service.deltas(below)).status == 200
    assert (await service.push([insert("todo", "b")], base=below, client=YOU, push=1)).status == 200


async def test_p8_a_floor_for_collections_concerns_who_asks_for_one_of_them(service: Harness) -> None:
    below = await pushed(service, insert("todo", "a"), insert("note", "n"), insert("plan", "p"))

    await resync(service, collections=["todo", "plan", "unheard of"])

    told = (await service.deltas(below, collections="note,todo")).json
    assert (told["reason"], told["collections"]) == ("operator", ["todo"])
    assert (await service.deltas(below)).json["collections"] == ["plan", "todo", "unheard of"]
    assert (await service.deltas(below, collections="note")).status == 200
    only_note = (await service.deltas(below, collections="note")).json["cursor"]
    assert (await service.push([insert("note", "m")], base=only_note)).status == 200
    assert reason(await service.push([insert("note", "o")], base=below)) == "operator"


async def test_p8_several_collections_are_called_back_one_after_the_other_and_all_are_told(service: Harness) -> None:
    below = await pushed(service, insert("todo", "a"), insert("note", "n"))
    await resync(service, collections=["todo"])
    await resync(service, collections=["note"])

    assert (await service.deltas(below)).json["collections"] == ["note", "todo"]


async def test_what_has_obeyed_one_floor_is_asked_again_by_the_next(service: Harness) -> None:
    below = await pushed(service, insert("todo", "a"))
    await resync(service, client=ME)
    obeyed = (await service.snapshot())[0]["cursor"]
    assert (await service.deltas(obeyed, client=ME)).status == 200

    await resync(service, client=ME)

    assert reason(await service.deltas(obeyed, client=ME)) == "operator"
    assert reason(await service.deltas(below, client=ME)) == "operator"


async def test_a_snapshots_cursor_has_obeyed_and_one_made_before_is_given_no_more(service: Harness) -> None:
    """Which breaks off a download at 90 % has not: it is still asked."""
    below = await pushed(service, insert("todo", "a"))
    early = (await service.snapshot())[0]

    floor = await resync(service)
    late = (await service.snapshot())[0]

    assert early["revision"] < floor <= late["revision"]
    assert reason(await service.deltas(early["cursor"])) == "operator"
    assert reason(await service.deltas(below)) == "operator"
    assert (await service.deltas(late["cursor"])).status == 200


async def test_trap_6_collection_by_collection_a_client_comes_back_by_section_3_2(service: Harness) -> None:
    """Only the named collection is fetched anew; the rest goes on to the snapshot's revision and is joined to it."""
    mine = await pushed(service, insert("todo", "a"), insert("note", "n"))
    await resync(service, collections=["todo"])
    await pushed(service, insert("note", "m"))

    told = (await service.deltas(mine)).json
    snapshot = await service.snapshot(collections=",".join(told["collections"]))
    rest = (await service.deltas(mine, collections="note", until=snapshot[0]["revision"])).json
    at = rest["cursor"]
    joined = (await service.call("GET", "j/cursor", params={"at": at, "collections": "note,todo"})).json["cursor"]

    assert [line["atom"] for line in snapshot[1:-1]] == ["a"]
    assert [delta["atom"] for delta in rest["deltas"]] == ["m"]
    assert (await service.deltas(joined, collections="note,todo")).json["deltas"] == []


# Rounds of pages.


async def test_trap_23_a_round_that_began_below_a_floor_does_not_slip_past_it(service: Harness) -> None:
    """Its position gets above the floor, but its base is below."""
    begin = await pushed(service, insert("todo", "a"))
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))
    first = (await service.deltas(begin, limit=1)).json
    await resync(service)
    assert first["more"] is True

    assert reason(await service.deltas(first["cursor"], limit=1)) == "operator"


async def test_deltas_pass_over_floors(service: Harness) -> None:
    before = await pushed(service, insert("todo", "a"))
    await resync(service, client=ME)
    await resync(service, client=YOU)
    await pushed(service, insert("todo", "b"))

    for way in ({}, {"until": 4}, {"limit": 1}, {"include": "revisions"}, {"collections": "todo"}):
        told, last = await service.round(before, **way)
        assert [(delta["op"], delta["atom"], delta["revision"]) for delta in told] == [("insert", "b", 4)], way
        assert last["until"] == 4
    to_floor = (await service.deltas(before, until=2)).json
    assert (to_floor["deltas"], to_floor["until"]) == ([], 2)
    assert (await service.deltas(to_floor["cursor"])).json["until"] == 4


async def test_p1_a_floor_is_a_commit_of_one_revision_without_a_change(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    before = (await service.query("select chain from journal.head"))[0]["chain"]

    floor = await resync(service)

    [_, commit] = (await service.call("GET", "j/changes?since=0")).json["commits"]
    [row] = await service.query("select chain, head from journal.head")
    assert (commit["first"], commit["revision"], commit["changes"]) == (floor, floor, [])
    assert (row["head"], row["chain"]) == (floor, chain.extend_bare(before, floor))
    assert (await service.head())["head"] == floor


# At once.


async def test_who_waits_for_news_is_told_at_once(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    tail = await service.service.tails.of("j")
    waiting = [asyncio.create_task(service.deltas(cursor, wait=50, client=who)) for who in (ME, YOU)]

    async def both_wait() -> bool:
        return len(tail.changed._waiters) == 2

    await eventually(both_wait)
    await resync(service, client=ME)

    assert reason(await asyncio.wait_for(waiting[0], 5)) == "operator"
    reply = await asyncio.wait_for(asyncio.wait([waiting[1]], timeout=0.5), 5)
    assert not reply[0] or (await waiting[1]).status == 200
    waiting[1].cancel()


async def test_who_waits_at_another_process_is_told_at_once(service: Harness, tmp_path: Path) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as other:
        await listening(other)
        tail = await other.service.tails.of("j")
        waiting = asyncio.create_task(other.deltas(cursor, wait=50))

        async def waits() -> bool:
            return len(tail.changed._waiters) == 1

        await eventually(waits)
        await resync(service)

        assert reason(await asyncio.wait_for(waiting, 5)) == "operator"


async def test_trap_18_a_process_that_heard_nothing_gives_no_snapshot_from_below_a_floor(
    service: Harness, tmp_path: Path
) -> None:
    await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as other:
        assert (await other.snapshot())[0]["revision"] == 1
        other.service.tails.heard = lambda journal, turn: None  # type: ignore[method-assign]
        await service.query("select journal.resync(1, null, null, 0, 'by hand', 'a test')")

        assert (await other.snapshot())[0]["revision"] == 2


# How they come back.


async def test_trap_10_named_clients_come_back_evenly_spread_and_each_at_its_own_moment(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await resync(service, spread_s=1000)

    told = []
    for n in range(400):
        reply = await service.deltas(cursor, client=str(UUID(int=n * 7919)))
        assert reply.headers["Retry-After"] == str(reply.json["retry_after"])
        told.append(reply.json["retry_after"])
    again = (await service.deltas(cursor, client=str(UUID(int=0)))).json["retry_after"]

    parts = [sum(n * 100 <= seconds < (n + 1) * 100 for seconds in told) for n in range(10)]
    assert sum(parts) >= 399
    assert all(20 <= part <= 65 for part in parts), parts  # 40 each, four standard deviations either way
    assert told[0] - 5 <= again <= told[0]


async def test_trap_10_anonymous_ones_are_spread_too(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await resync(service, spread_s=1000)

    told = [(await service.deltas(cursor)).json["retry_after"] for _ in range(40)]

    assert max(told) <= 1000
    assert len(set(told)) > 20


async def test_once_the_spread_is_over_they_come_at_once(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await resync(service, spread_s=50)
    await service.query("update journal.floor set at = at - interval '1 minute'")

    assert (await service.deltas(cursor, client=ME)).json["retry_after"] == 0


# What is refused.


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "x", "client": "me"}, "/client"),
        ({"reason": "x", "collections": []}, "/collections"),
        ({"reason": "x", "collections": ["a,b"]}, "/collections/0"),
        ({"reason": "x", "spread_s": -1}, "/spread_s"),
        ({"reason": "x", "spreads": 1}, "/spreads"),
    ],
)
async def test_a_slip_is_told_and_records_nothing(service: Harness, asked: Data, pointer: str) -> None:
    reply = await service.call("POST", "j/resync", json=asked)

    assert (reply.status, reply.json["errors"][0]["pointer"]) == (400, pointer)
    assert (await service.head())["head"] == 0


async def test_a_journal_that_is_not_there_is_not_called_back(service: Harness) -> None:
    assert (await service.call("POST", "k/resync", json={"reason": "x"})).status == 404


async def test_the_audit_log_says_who_did_what_and_when(service: Harness) -> None:
    await service.call("POST", "j/resync", json={"reason": "one", "client": ME}, headers={"From": "ada@example.org"})
    await service.call("POST", "j/resync", json={"reason": "two", "collections": ["b", "a", "a"], "spread_s": 5})

    first = (await service.call("GET", "j/audit?limit=1")).json
    rest = (await service.call("GET", f"j/audit?after={first['next']}")).json

    [two], [one] = first["audit"], rest["audit"]
    assert (one["by"], one["action"]) == ("ada@example.org", "resync")
    assert one["detail"] == {"revision": 1, "client": ME, "spread_s": 0, "reason": "one"}
    assert two["detail"] == {"revision": 2, "collections": ["a", "b"], "spread_s": 5, "reason": "two"}
    assert two["by"] == "127.0.0.1"
    assert one["at"] < two["at"]
    assert rest["more"] is False


async def test_pushes_go_on_over_floors(service: Harness) -> None:
    """Also of a process whose memory was behind when the floor was recorded."""
    who = str(uuid4())
    for n in range(1, 6):
        await service.pushed([insert("todo", f"{n}")], client=who, push=n)
        await service.query("select journal.resync(1, null, array['note'], 0, 'by hand', 'a test')")
    answer = await service.pushed([update("todo", "1", {"n": 2})], on_conflict="client")

    commits = (await service.call("GET", "j/changes?since=0")).json["commits"]
    assert answer["revision"] == 11
    assert [commit["revision"] for commit in commits] == list(range(1, 12))
    assert json.dumps(commits[1]["changes"]) == "[]"


async def test_an_operator_waits_for_a_head_that_somebody_holds_and_pushes_elsewhere_go_on(service: Harness) -> None:
    """Ten calls wait for the one journal; they take no connection of who pushes to another."""
    await service.create("k")
    connection = await asyncpg.connect(service.dsn)
    try:
        async with connection.transaction():
            await connection.fetch("select from journal.head where journal_id = 1 for update")
            waiting = [asyncio.create_task(resync(service)) for _ in range(10)]
            await blocked_on_lock(service.dsn, 3)
            for n in range(5):
                await asyncio.wait_for(service.pushed([insert("todo", f"{n}")], "k"), 2)
            await asyncio.sleep(0.5)  # twice as long as a push waits for a lock
            assert not any(task.done() for task in waiting)
        done = await asyncio.gather(*waiting)
    finally:
        await connection.close()

    assert sorted(done) == list(range(1, 11))
