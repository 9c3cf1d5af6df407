"""The policy `newest`: which of two changes is younger, whatever the clocks of devices say (protocol, section 5).

The hours of these tests are journal.now's, so that what is compared is exact: somebody changed an atom at nine, and a
device that was offline since eight pushes what it made of it, at ten.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from journal.service.group import Group
from journal.service.writer import Writer
from journal.store import record
from tests.harness import Harness, Json, blocked_on_lock, delete, eventually, insert, put, serving, update
from tests.integration.test_fanout import counted
from tests.integration.test_order import connected, take_numbers

TODAY = datetime.now(UTC)  # as the service forgets what is old by the real clock
DAY, TOMORROW = f"{TODAY:%Y-%m-%d}T", f"{TODAY + timedelta(days=1):%Y-%m-%d}T"
NINE = f"{DAY}09:00:00Z"
ME = str(UUID(int=1))

At = Callable[[str], Any]


@pytest.fixture
def at(database: str, tmp_path: Path) -> At:
    """The service at a time of day, at which its clock stands still."""

    @asynccontextmanager
    async def serving_at(hour: str) -> AsyncIterator[Harness]:
        async with connected(database) as connection:
            name = await connection.fetchval("select quote_ident(current_database())")
            await connection.execute(f"alter database {name} set journal.now = '{DAY}{hour}:00Z'")
        async with serving(database, tmp_path) as running:
            yield running

    return serving_at


@pytest.fixture
async def base(at: At) -> str:
    """What the device knows: todo a is of eight o'clock. At nine somebody else has changed it, and deleted todo b."""
    async with at("08:00") as service:
        await service.create("j")
        answer = await service.pushed([insert("todo", "a"), insert("todo", "b"), insert("todo", "still")])
        cursor = f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"
    async with at("09:00") as service:
        await service.pushed([update("todo", "a", {"n": 2}), delete("todo", "b")], base=cursor)
    return cursor


async def became(service: Harness, base: str, change: Json, **members: Any) -> str:
    """What becomes of a change under `newest`."""
    answer = await service.pushed([change], base=base, on_conflict="newest", **members)
    status: str = answer["outcomes"][0]["status"]
    return status


def minutes(number: float) -> float:
    return number * 60_000


@pytest.mark.parametrize(
    ("age_ms", "status"),
    [(minutes(59), "merged"), (0, "merged"), (0.5, "merged"), (minutes(61), "conflict"), (1e300, "conflict")],
)
@pytest.mark.parametrize(
    "change", [update("todo", "a", {"mine": 1}), put("todo", "b", {"mine": 1}), insert("todo", "a", {"mine": 1})]
)
async def test_trap_14_an_age_counts_back_from_the_push(
    at: At, base: str, change: Json, age_ms: float, status: str
) -> None:
    async with at("10:00") as service:
        assert await became(service, base, change | {"age_ms": age_ms}) == status


async def test_what_is_younger_is_recorded_and_told_whole_and_what_is_older_is_told_what_stands(
    at: At, base: str
) -> None:
    changes = [update("todo", "a", {"mine": 1}, age_ms=minutes(5)), delete("todo", "still", age_ms=minutes(90))]
    async with at("10:00") as service:
        younger = await service.pushed(changes, base=base, on_conflict="newest")
        older = await service.pushed([update("todo", "a", {"late": 1}, age_ms=minutes(61))], base=base)

    assert younger["outcomes"] == [
        {"status": "merged", "revision": 6, "current": {"revision": 6, "data": {"n": 2, "mine": 1}}},
        {"status": "applied", "revision": 7},  # nobody had changed it: no conflict, however old it is
    ]
    assert older["outcomes"] == [{"status": "conflict", "current": {"revision": 6, "data": {"n": 2, "mine": 1}}}]


@pytest.mark.parametrize("microseconds", [1, 999_999])
async def test_a_tie_is_the_servers(at: At, base: str, microseconds: int) -> None:
    just_after = f"{DAY}09:00:00.{microseconds:06}Z"
    async with at("10:00") as service:
        assert await became(service, base, update("todo", "a", {"mine": 1}, changed_at=NINE)) == "conflict"
        assert await became(service, base, update("todo", "a", {"mine": 1}, changed_at=just_after)) == "merged"


@pytest.mark.parametrize("zone", ["Z", "+00:00", "+05:30", "-12:00"])
@pytest.mark.parametrize(("minute", "status"), [("08:59", "conflict"), ("09:01", "merged")])
async def test_trap_14_a_clock_that_is_an_hour_off_is_set_right_by_what_it_says_at_the_push(
    at: At, base: str, minute: str, status: str, zone: str
) -> None:
    """Its hand moves as it should: an hour ahead, right, an hour behind, in whatever zone it is told."""
    async with at("10:00") as service:
        told = []
        for hours in (-1, 0, 1):
            by_device = f"{int(minute[:2]) + hours:02}{minute[2:]}"
            change = update("todo", "a", {"mine": 1}, changed_at=f"{DAY}{by_device}:00{zone}")
            atomic = {"atomic": True}  # so that it can be tried again: this one fails on purpose
            failing = update("todo", "never", {"n": 1}, age_ms=0)
            reply = await service.push(
                [change, failing], base=base, on_conflict="newest", now=f"{DAY}{10 + hours:02}:00:00{zone}", **atomic
            )
            told.append(reply.json["outcomes"][0]["status"])

    assert told == [status] * 3


async def test_trap_14_a_clock_that_is_set_between_edit_and_push_shows_but_not_in_an_age(at: At, base: str) -> None:
    """Made at 08:30, when the clock was an hour ahead; then it was set right. Only an age is of another clock."""
    edit = update("todo", "a", {"mine": 1}, changed_at=f"{DAY}09:30:00Z")
    async with at("10:00") as service:
        by_age = await became(service, base, edit | {"age_ms": minutes(90)}, now=f"{DAY}10:00:00Z")
        by_clock = await became(service, base, edit, now=f"{DAY}10:00:00Z")

    assert (by_age, by_clock) == ("conflict", "merged")


async def test_trap_14_nothing_was_made_in_the_future(at: At, base: str) -> None:
    """Set back between edit and push, it would seem to be of tomorrow: it counts as of now, and ages like any other."""
    tomorrow = update("todo", "a", {"mine": 1}, changed_at=f"{TOMORROW}09:00:00Z")
    async with at("10:00") as service:
        first = await became(service, base, tomorrow)
    async with at("10:01") as service:
        await service.pushed([update("todo", "a", {"n": 3})], on_conflict="client")
        later = await became(service, base, tomorrow | {"data": {"mine": 2}}, now=f"{DAY}10:00:00Z")

    assert (first, later) == ("merged", "conflict")


@pytest.mark.parametrize("policy", ["newest", "both"])
async def test_without_a_time_both_and_newest_are_as_server_and_need_a_base(at: At, base: str, policy: str) -> None:
    async with at("10:00") as service:
        told = await service.pushed([update("todo", "a", {"mine": 1})], base=base, on_conflict=policy)
        baseless = await service.push([update("todo", "a", {"mine": 1}, age_ms=0)], on_conflict=policy)
        by_data = await service.pushed(
            [update("todo", "a", {"mine": 1}, if_data={"n": 1}, age_ms=minutes(61))], on_conflict="newest"
        )

    assert [outcome["status"] for outcome in told["outcomes"] + by_data["outcomes"]] == ["conflict", "conflict"]
    assert (baseless.status, baseless.json["code"]) == (400, "base_required")


async def test_data_that_was_expected_is_as_good_as_a_base(at: At, base: str) -> None:
    change = update("todo", "a", {"mine": 1}, if_data={"n": 1}, age_ms=minutes(59))
    async with at("10:00") as service:
        answer = await service.pushed([change], on_conflict="newest")

    assert answer["outcomes"][0]["status"] == "merged"


async def test_an_update_of_what_is_gone_stays_a_conflict(at: At, base: str) -> None:
    async with at("10:00") as service:
        assert await became(service, base, update("todo", "b", {"mine": 1}, age_ms=0)) == "conflict"
        assert await became(service, base, delete("todo", "b", age_ms=0)) == "unchanged"


async def compacted(service: Harness) -> None:
    asked = {"keep_revisions": 0, "force": True}
    reply = await service.call("POST", "j/compact", json=asked, headers={"Prefer": "wait=60"})
    assert reply.json["state"] == "done", reply.body


@pytest.mark.parametrize("atom", ["a", "b"])
async def test_what_the_record_reaches_no_more_is_older(at: At, base: str, atom: str) -> None:
    """An atom that lives, and one whose tombstone is gone; the base is of what is kept, or there is none."""
    change = put("todo", atom, {"mine": 1}, if_data={"n": 1}, age_ms=minutes(600))
    async with at("10:00") as service:
        before = await service.pushed([change | {"if_data": {"n": 0}}], on_conflict="newest")
        await service.pushed([insert("todo", "later")])
        await compacted(service)
        after = await service.pushed([change | {"if_data": {"n": 0}}], on_conflict="newest")

    assert [answer["outcomes"][0]["status"] for answer in (before, after)] == ["conflict", "merged"]


async def test_what_is_not_swept_yet_counts_as_compacted_and_the_horizons_own_commit_does_not(
    at: At, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raising the horizon is what compacts: what is below it is removed at leisure."""

    async def unswept(*_: Any) -> tuple[int, int]:
        return 0, 0

    monkeypatch.setattr("journal.store.compaction.sweep_record", unswept)
    of_eight = put("todo", "still", {"mine": 1}, if_data={"n": 0}, age_ms=minutes(600))
    of_nine = put("todo", "a", {"mine": 1}, if_data={"n": 0}, age_ms=minutes(600))
    async with at("10:00") as service:
        await compacted(service)
        answer = await service.pushed([of_eight, of_nine], on_conflict="newest")
        commits = await service.query("select count(*) as n from journal.commit where revision <= 5")

    assert commits[0]["n"] == 2
    assert [outcome["status"] for outcome in answer["outcomes"]] == ["merged", "conflict"]


async def test_what_comes_after_a_floor_and_a_new_epoch_has_its_time_still(at: At, base: str) -> None:
    async with at("10:00") as service:
        await service.call("POST", "j/resync", json={"reason": "a floor between"})
        answer = await service.pushed([insert("todo", "c")])
        cursor = f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"
    async with at("11:00") as service:
        await service.pushed([update("todo", "c", {"n": 2})], base=cursor)
    async with at("12:00") as service:
        older = await became(service, cursor, update("todo", "c", {"mine": 1}, age_ms=minutes(61)))
        younger = await became(service, cursor, update("todo", "c", {"mine": 1}, age_ms=minutes(59)))

    assert (older, younger) == ("conflict", "merged")


async def test_a_collections_policy_may_be_newest_and_goes_before_the_pushs(at: At, base: str) -> None:
    change = update("todo", "a", {"mine": 1}, age_ms=minutes(61))
    async with at("10:00") as service:
        given = await service.call("PUT", "j/collections", json={"collection": "todo", "policy": "newest"})
        older = await service.pushed([change], base=base, on_conflict="client")
        younger = await service.pushed([change | {"age_ms": minutes(59)}], base=base, on_conflict="server")

    assert (given.status, given.json["policy"]) == (200, "newest")
    assert [answer["outcomes"][0]["status"] for answer in (older, younger)] == ["conflict", "merged"]


async def test_p6_ages_and_times_are_not_what_a_push_says(at: At, base: str) -> None:
    """Sent again it is older; the first answer holds."""
    change = update("todo", "a", {"mine": 1})
    async with at("10:00") as service:
        first = await service.pushed(
            [change | {"age_ms": minutes(59)}], base=base, on_conflict="newest", client=ME, push=1
        )
        again = await service.pushed(
            [change | {"changed_at": NINE}], base=base, on_conflict="newest", client=ME, push=1, now=NINE
        )

    assert first["outcomes"][0]["status"] == "merged"
    assert again == first | {"replayed": True}


@pytest.mark.parametrize(
    ("members", "change", "pointer"),
    [
        ({"now": f"{DAY}09:00:00"}, {}, "/now"),
        ({}, {"changed_at": f"{DAY}09:00:00"}, "/changes/0/changed_at"),
        ({}, {"changed_at": "soon"}, "/changes/0/changed_at"),
        ({}, {"age_ms": -1}, "/changes/0/age_ms"),
    ],
)
async def test_a_time_says_its_zone_and_an_age_is_not_negative(
    service: Harness, members: Json, change: Json, pointer: str
) -> None:
    reply = await service.push([insert("todo", "a") | change], **members)

    assert (reply.status, [fault["pointer"] for fault in reply.json["errors"]]) == (400, [pointer])


@pytest.mark.parametrize("changed_at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59"])
async def test_the_ends_of_time_are_times(at: At, base: str, changed_at: str) -> None:
    async with at("10:00") as service:
        for now in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
            reply = await service.push(
                [update("todo", "a", {"mine": 1}, changed_at=changed_at)],
                base=base, on_conflict="newest", now=now,
            )  # fmt: skip
            assert reply.status == 200


# What is asked for it, and when.


async def test_p12_times_are_asked_for_where_newest_may_need_them_and_nowhere_else(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await service.pushed([insert("todo", "a"), insert("todo", "b")])
    base = f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"
    await service.pushed([update("todo", "a", {"n": 2})], base=base)
    asked: list[Any] = []
    times = record.times

    async def noted(connection: Any, revisions: Any) -> Any:
        asked.append(list(revisions))
        return await times(connection, revisions)

    monkeypatch.setattr(record, "times", noted)
    await service.pushed([update("todo", "a", {"m": 1}, age_ms=0)], base=base)
    await service.pushed([update("todo", "a", {"m": 1})], base=base, on_conflict="newest")
    await service.pushed([update("todo", "b", {"m": 1}, age_ms=0)], base=base, on_conflict="newest")
    await service.pushed([insert("todo", "c") | {"age_ms": 0}], base=base, on_conflict="newest")
    before = list(asked)
    changes = [update("todo", "a", {"m": 1}, age_ms=0), update("todo", "c", {"m": 1}, age_ms=0, if_data={"n": 1})]
    await service.pushed(changes, base=base, on_conflict="newest")

    assert before == []
    assert [{revision for _, revision in revisions} for revisions in asked] == [{3, 5}]


# Queueing: pushes that are decided together, and those that wait.


async def test_what_was_recorded_with_it_counts_as_now(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided on what a group in flight leaves, and on what an earlier push of its own group leaves."""
    answer = await service.pushed([insert("todo", "a"), insert("todo", "b")])
    base = f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"
    may_go, append = asyncio.Event(), record.append

    async def held(*arguments: Any) -> Any:
        await may_go.wait()
        return await append(*arguments)

    def pushes(*atoms: str) -> "asyncio.Future[str]":
        [atom] = atoms
        change = update("todo", atom, {atom: len(sent)}, age_ms=0)
        sent.append(asyncio.ensure_future(became(service, base, change)))
        return sent[-1]

    sent: list[asyncio.Future[str]] = []
    monkeypatch.setattr(record, "append", held)
    with counted(monkeypatch, Group, "settle") as settled, counted(monkeypatch, Writer, "_record") as again:
        for count, atom in enumerate("aabb", 1):
            pushes(atom)
            await eventually(partial(are, settled, count))
        may_go.set()
        told = await asyncio.gather(*sent)

    assert told == ["applied", "conflict", "applied", "conflict"]
    assert again == []
    assert await became(service, base, update("todo", "a", {"later": 1}, age_ms=0)) == "merged"


async def are(calls: list[Any], count: int) -> bool:
    return len(calls) == count


async def test_an_age_counts_from_when_the_push_came_in_however_long_it_waits(service: Harness) -> None:
    """Somebody holds the journal; what they record meanwhile is younger than a push that was there before."""
    async with connected(service.dsn) as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch("select from journal.head for update")
        waiting = asyncio.ensure_future(
            service.pushed([insert("held", "x", {"mine": 1}) | {"age_ms": 0}], on_conflict="newest")
        )
        await blocked_on_lock(service.dsn)
        await take_numbers(holder, "x")
        await transaction.commit()
        waited = await waiting
    answer = await service.pushed([insert("held", "x", {"mine": 2}) | {"age_ms": 0}], on_conflict="newest")

    assert waited["outcomes"] == [{"status": "conflict", "current": {"revision": 1, "data": {"n": 1}}}]
    assert answer["outcomes"][0]["status"] == "merged"


async def test_an_old_change_that_waits_is_as_old_as_it_was(at: At, base: str) -> None:
    """Decided again under the lock, its moment is worked out again from the same arrival."""
    async with at("10:00") as service, connected(service.dsn) as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch("select from journal.head for update")
        asked = [
            asyncio.ensure_future(became(service, base, update("todo", "a", {"mine": age}, age_ms=minutes(age))))
            for age in (61, 59)
        ]
        await blocked_on_lock(service.dsn)
        await transaction.rollback()

        assert await asyncio.gather(*asked) == ["conflict", "merged"]
