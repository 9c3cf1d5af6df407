"""P6: a push is recorded whole or not at all, once however often it is sent, and always answered alike.

And P9 for the way of a change from a client into the record: through crashes, restarts and two processes at once.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from journal.store import record
from tests.harness import Harness, Json, Reply, delete, eventually, insert, put, serving, update
from tests.subprocess_service import Remote, serving_apart

FIRST, AGAIN = b'"replayed":false}', b'"replayed":true}'


def client() -> str:
    return str(uuid4())


def is_replay(again: Reply, first: Reply) -> bool:
    """Whether the same was said to the byte, but that it was said before."""
    return (again.status, again.headers["Content-Type"], again.body) == (
        first.status,
        first.headers["Content-Type"],
        first.body.removesuffix(FIRST) + AGAIN,
    )


async def commits(service: Harness, j: str = "j") -> list[Json]:
    """All commits of the record."""
    found: list[Json] = []
    since: str | int = 0
    while True:
        reply = await service.call("GET", f"{j}/changes", params={"since": str(since), "limit": "10000"})
        found += reply.json["commits"]
        if not reply.json["more"]:
            return found
        since = reply.json["cursor"]


async def cursor(service: Harness) -> str:
    told: str = (await service.head())["cursor"]
    return told


async def forget(service: Harness, *, pushes: bool = False, keys: bool = False) -> None:
    """Let it be long ago that pushes were answered, or those with keys."""
    now = datetime.now(UTC)
    later, never = now + timedelta(1), now - timedelta(1000)
    await record.forget(
        service.service.database, pushes_before=later if pushes else never, keys_before=later if keys else never
    )


# Sent again.


async def test_p6_a_push_sent_twice_is_recorded_once(service: Harness) -> None:
    members: Json = {"client": client(), "push": 1}

    first = await service.push([insert("todo", "a"), insert("todo", "b")], **members)
    again = await service.push([insert("todo", "a"), insert("todo", "b")], **members)

    assert (first.status, first.json["replayed"]) == (200, False)
    assert is_replay(again, first)
    assert (await service.head())["head"] == 2


async def test_p6_a_replay_says_what_was_said_first_whatever_has_happened_since(service: Harness) -> None:
    members: Json = {"client": client(), "push": 1, "base": await cursor(service)}
    first = await service.push([insert("todo", "a"), update("todo", "none", {"n": 1})], **members)
    await service.pushed([delete("todo", "a"), insert("todo", "none")], base=await cursor(service))

    again = await service.push([insert("todo", "a"), update("todo", "none", {"n": 1})], **members)

    assert is_replay(again, first)
    assert (await service.head())["head"] == 3


async def test_p6_refusals_are_replayed_too(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"n": 1})])
    members: Json = {"client": client(), "push": 1, "atomic": True}
    refused = await service.push([insert("todo", "b"), insert("todo", "a", {"n": 2})], **members)
    await service.pushed([delete("todo", "a")], base=await cursor(service))

    again = await service.push([insert("todo", "b"), insert("todo", "a", {"n": 2})], **members)

    assert (refused.status, refused.json["code"], refused.json["replayed"]) == (409, "not_applied", False)
    assert is_replay(again, refused)
    assert (await service.head())["head"] == 2


@pytest.mark.parametrize("changes", [[], [delete("todo", "none", if_data=None)]])
async def test_p6_what_recorded_nothing_is_remembered_as_well(service: Harness, changes: list[Json]) -> None:
    members: Json = {"client": client(), "push": 1}
    first = await service.push(changes, **members)
    await service.pushed([insert("todo", "none")])

    again = await service.push(changes, **members)
    reused = await service.push([insert("todo", "b")], **members)

    assert is_replay(again, first)
    assert (reused.status, reused.json["code"]) == (422, "push_reused")


async def test_p6_a_push_is_replayed_after_a_restart_and_by_another_process(database: str, tmp_path: Path) -> None:
    members: Json = {"client": client(), "push": 1}
    async with serving(database, tmp_path) as before:
        await before.create("j")
        first = await before.push([insert("todo", "a")], **members)

    async with serving(database, tmp_path) as after, serving(database, tmp_path) as other:
        replies = [await service.push([insert("todo", "a")], **members) for service in (after, other, after)]

        assert all(is_replay(reply, first) for reply in replies)
        assert (await other.head())["head"] == 1


async def test_p6_a_push_that_another_process_answered_a_moment_ago_is_replayed(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as one, serving(database, tmp_path) as two:
        await one.create("j")
        who = client()
        for number in range(1, 21):
            here, there = (one, two) if number % 2 else (two, one)

            first = await here.push([insert("todo", f"{number}")], client=who, push=number)
            again = await there.push([insert("todo", f"{number}")], client=who, push=number)

            assert is_replay(again, first)
        assert (await one.head())["head"] == 20


async def test_p6_how_a_push_is_written_does_not_matter(service: Harness) -> None:
    who, base = client(), await cursor(service)
    text = json.dumps(
        {"client": who, "push": 1, "base": base, "changes": [put("t", "a", {"x": 1, "y": {"p": "é", "q": 2}})]}
    )
    first = await service.call("POST", "j/changes", data=text, headers={"Content-Type": "application/json"})
    change = '{"data": {"y": {"q": 2, "p": "\\u00e9"}, "x": 1}, "atom": "a", "collection": "t", "op": "put"}'
    written = [
        f'{{"changes":[{change}],"push":1,"base":"{base}","client":"{who}"}}',
        json.dumps(json.loads(text), indent=3, ensure_ascii=False),
        text.replace(who, who.upper()),
    ]

    for again in written:
        reply = await service.call(
            "POST", "j/changes", data=again.encode(), headers={"Content-Type": "application/json"}
        )
        assert is_replay(reply, first)


async def test_p6_what_a_push_was_made_on_is_not_its_content(service: Harness) -> None:
    who, base = client(), await cursor(service)
    first = await service.push([put("t", "a", {"n": 1})], client=who, push=1, base=base)
    elsewhere = f"{'0' * 12}:{base.split(':', 1)[1]}"

    variants: list[Json] = [
        {"base": elsewhere},
        {"base": await cursor(service), "on_conflict": "merge", "atomic": True},
        {"now": "2026-11-21T09:00:00Z"},
    ]
    replies = [await service.push([put("t", "a", {"n": 1})], client=who, push=1, **members) for members in variants]
    replies.append(await service.push([put("t", "a", {"n": 1}, if_data={"n": 0}, age_ms=5)], client=who, push=1))

    assert all(is_replay(reply, first) for reply in replies)


CHANGE = {"op": "update", "collection": "t", "atom": "a", "data": {"n": 1}, "unset": ["x"], "if_data": None}
OTHERS: list[list[Json]] = [
    [],
    [CHANGE, CHANGE],
    [CHANGE | {"collection": "u"}],
    [CHANGE | {"atom": "b"}],
    [CHANGE | {"data": {"n": 2}}],
    [CHANGE | {"data": {"n": "1"}}],
    [CHANGE | {"data": {"n": True}}],
    [CHANGE | {"data": {}}],
    [CHANGE | {"unset": ["y"]}],
    [CHANGE | {"unset": []}],
    [{"op": "put", "collection": "t", "atom": "a", "data": {"n": 1}, "if_data": None}],
]


@pytest.mark.parametrize("changes", OTHERS)
async def test_p6_a_number_is_not_used_for_another_content(service: Harness, changes: list[Json]) -> None:
    members: Json = {"client": client(), "push": 1}
    await service.pushed([CHANGE], **members)
    before = await service.head()

    reply = await service.push(changes, **members)

    assert (reply.status, reply.json["code"]) == (422, "push_reused")
    assert await service.head() == before


async def test_p6_numbers_are_each_clients_own(service: Harness) -> None:
    await service.create("k")
    who = client()

    answers = [
        await service.pushed([insert("todo", "a")], client=who, push=1),
        await service.pushed([insert("todo", "b")], client=client(), push=1),
        await service.pushed([insert("todo", "a")], "k", client=who, push=1),
    ]

    assert [(answer["revision"], answer["replayed"]) for answer in answers] == [(1, False), (2, False), (1, False)]


# Numbers that came too late, and answers that were forgotten.


async def test_p6_a_number_that_was_passed_over_is_too_old(service: Harness) -> None:
    who = client()
    await service.pushed([insert("todo", "a")], client=who, push=3)
    await service.pushed([insert("todo", "b")], client=who, push=7)

    late = [await service.push([insert("todo", "c")], client=who, push=number) for number in (1, 2, 4, 6)]
    decided = await service.push([insert("todo", "a")], client=who, push=3)
    next_one = await service.push([insert("todo", "c")], client=who, push=8)

    assert [(reply.status, reply.json["code"]) for reply in late] == [(409, "push_too_old")] * 4
    assert (decided.status, decided.json["replayed"], decided.json["revision"]) == (200, True, 1)
    assert (next_one.status, next_one.json["revision"]) == (200, 3)


async def test_p6_a_number_that_was_too_late_is_so_for_ever(database: str, tmp_path: Path) -> None:
    who = client()
    async with serving(database, tmp_path) as service:
        await service.create("j")
        await service.pushed([insert("todo", "a")], client=who, push=2)
        await service.push([insert("todo", "b")], client=who, push=1)

    async with serving(database, tmp_path) as service:
        late = await service.push([insert("todo", "b")], client=who, push=1)

        assert (late.status, late.json["code"]) == (409, "push_too_old")
        assert (await service.head())["head"] == 1


async def test_trap_19_a_push_whose_answer_was_forgotten_is_not_decided_again(service: Harness) -> None:
    """A process that knew the client said 409 `push_too_old`, and its changes were sent a second time."""
    who = client()
    for number in (1, 3, 5):
        await service.pushed([insert("todo", f"{number}")], client=who, push=number)
    await service.pushed([insert("todo", "6")], client=who, push=6)
    await forget(service, pushes=True)

    for number in (1, 2, 3, 4, 5):
        reply = await service.push([insert("todo", f"{number}")], client=who, push=number)

        assert reply.status == 200
        assert (reply.json["outcomes"], reply.json["replayed"], reply.json["first"]) == (None, True, None)
    assert (await service.pushed([insert("todo", "7")], client=who, push=7))["revision"] == 5


async def test_trap_19_a_clients_last_push_is_never_forgotten(service: Harness) -> None:
    who = client()
    await service.pushed([insert("todo", "2")], client=who, push=2)
    last = await service.push([insert("todo", "4")], client=who, push=4)
    await forget(service, pushes=True)

    again = await service.push([insert("todo", "4")], client=who, push=4)
    passed_over = await service.push([insert("todo", "3")], client=who, push=3)

    assert is_replay(again, last)
    assert (passed_over.status, passed_over.json["code"]) == (409, "push_too_old")


async def test_trap_19_what_another_process_forgot_or_answered_is_known(database: str, tmp_path: Path) -> None:
    who = client()
    async with serving(database, tmp_path) as service, serving(database, tmp_path) as other:
        await service.create("j")
        await service.pushed([insert("todo", "2")], client=who, push=2)
        last = await other.push([insert("todo", "4")], client=who, push=4)
        await forget(other, pushes=True)

        replies = [await service.push([insert("todo", f"{n}")], client=who, push=n) for n in (1, 2, 3, 4)]

        assert [reply.status for reply in replies] == [200, 200, 409, 200]
        assert [reply.json["outcomes"] for reply in replies[:2]] == [None, None]
        assert replies[2].json["code"] == "push_too_old"
        assert is_replay(replies[3], last)


# What decides nothing.


async def test_p6_what_was_refused_at_the_door_leaves_its_number_free(service: Harness) -> None:
    who, base = client(), await cursor(service)
    await service.pushed([insert("todo", "a")])
    elsewhere = f"{'0' * 12}:{base.split(':', 1)[1]}"
    refused = [
        await service.push([update("todo", "a", {"n": 2})], client=who, push=1),
        await service.push([insert("todo", "")], client=who, push=1),
        await service.push([insert("todo", "b")], client=who, push=1, base=elsewhere),
        await service.push([insert("todo", "b") | {"base": 99}], client=who, push=1, base=base),
        await service.push([delete("todo", "x", if_data=None)] * 10_001, client=who, push=1),
        await service.push([insert("todo", "b")], "none", client=who, push=1),
    ]

    taken = await service.push([insert("todo", "b")], client=who, push=1)

    assert [reply.status for reply in refused] == [400, 400, 410, 410, 413, 404]
    assert (taken.status, taken.json["replayed"], taken.json["revision"]) == (200, False, 2)


# Idempotency-Keys.


async def keyed(service: Harness, key: str, changes: Sequence[Json], j: str = "j", **members: Any) -> Reply:
    body = {"changes": changes, **members}
    return await service.call("POST", f"{j}/changes", json=body, headers={"Idempotency-Key": key})


async def test_p6_a_key_takes_the_place_of_a_number(service: Harness) -> None:
    first = await keyed(service, "k 1", [insert("todo", "a")])

    again = await keyed(service, "k 1", [insert("todo", "a")])
    reused = await keyed(service, "k 1", [insert("todo", "b")])
    other = await keyed(service, "k 2", [insert("todo", "b")])

    assert (first.status, first.json["replayed"]) == (200, False)
    assert is_replay(again, first)
    assert (reused.status, reused.json["code"]) == (422, "push_reused")
    assert other.json["revision"] == 2


async def test_p6_a_refusal_under_a_key_is_replayed(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"n": 1})])
    refused = await keyed(service, "k", [insert("todo", "a", {"n": 2})], atomic=True)
    await service.pushed([delete("todo", "a")], base=await cursor(service))

    again = await keyed(service, "k", [insert("todo", "a", {"n": 2})], atomic=True)

    assert refused.status == 409
    assert is_replay(again, refused)


async def test_a_key_is_remembered_for_a_time_and_in_its_journal(service: Harness) -> None:
    await service.create("k")
    await keyed(service, "k", [insert("todo", "a")])

    elsewhere = await keyed(service, "k", [insert("todo", "b")], "k")
    await forget(service, keys=True)
    later = await keyed(service, "k", [insert("todo", "c")])

    assert (elsewhere.json["revision"], elsewhere.json["replayed"]) == (1, False)
    assert (later.json["revision"], later.json["replayed"]) == (2, False)


async def test_a_number_goes_before_a_key(service: Harness) -> None:
    who = client()
    await keyed(service, "k", [insert("todo", "a")], client=who, push=1)

    second = await keyed(service, "k", [insert("todo", "b")], client=who, push=2)
    unnumbered = await keyed(service, "k", [insert("todo", "c")])

    assert [second.json["revision"], unnumbered.json["revision"]] == [2, 3]


# At the same moment.


@pytest.fixture
async def two(database: str, tmp_path: Path) -> AsyncIterator[list[Harness]]:
    """Two services on one database, with a journal."""
    async with serving(database, tmp_path) as one, serving(database, tmp_path) as other:
        await one.create("j")
        yield [one, other]


async def test_p6_one_push_at_two_services_at_the_same_moment_is_recorded_once_a_thousand_times(
    two: list[Harness],
) -> None:
    async def one_client(who: str) -> None:
        for number in range(1, 126):
            changes = [insert("todo", f"{who}-{number}", {"number": number})]
            replies = await asyncio.gather(*(service.push(changes, client=who, push=number) for service in two))

            assert [reply.status for reply in replies] == [200, 200], [reply.body for reply in replies]
            first, again = sorted(replies, key=lambda reply: reply.json["replayed"])
            assert is_replay(again, first)
            assert first.json["replayed"] is False

    await asyncio.gather(*(one_client(client()) for _ in range(8)))

    recorded = await commits(two[0])
    assert [commit["revision"] for commit in recorded] == list(range(1, 1001))
    assert set(Counter((commit["client"], commit["push"]) for commit in recorded).values()) == {1}


async def test_p6_of_two_contents_under_one_number_at_the_same_moment_one_is_taken(two: list[Harness]) -> None:
    who = client()
    for number in range(1, 51):
        replies = await asyncio.gather(
            *(
                service.push([insert("t", f"{number}", {"at": n})], client=who, push=number)
                for n, service in enumerate(two)
            )
        )

        assert sorted(reply.status for reply in replies) == [200, 422]
        [taken] = [n for n, reply in enumerate(replies) if reply.status == 200]
        assert (await commits(two[taken]))[-1]["changes"][0]["data"] == {"at": taken}
    assert (await two[0].head())["head"] == 50


async def test_p6_one_push_sent_many_times_at_once_is_recorded_once(two: list[Harness]) -> None:
    who = client()

    replies = await asyncio.gather(
        *(two[n % 2].push([insert("todo", "a")], client=who, push=1) for n in range(60)),
        *(two[n % 2].push([insert("todo", "b")], client=who, push=1) for n in range(20)),
    )

    assert Counter(reply.status for reply in replies) in ({200: 60, 422: 20}, {200: 20, 422: 60})
    assert sum(reply.json["replayed"] is False for reply in replies if reply.status == 200) == 1
    assert (await two[0].head())["head"] == 1


async def test_p6_one_key_at_two_services_at_the_same_moment_is_recorded_once(two: list[Harness]) -> None:
    for number in range(50):
        replies = await asyncio.gather(*(keyed(service, f"{number}", [insert("t", f"{number}")]) for service in two))

        first, again = sorted(replies, key=lambda reply: reply.json["replayed"])
        assert is_replay(again, first)
    assert (await two[0].head())["head"] == 50


async def test_p6_new_clients_at_two_services_at_the_same_moment_are_told_apart(two: list[Harness]) -> None:
    clients = [client() for _ in range(100)]

    async def first_pushes(service: Harness, who: str) -> Json:
        return await service.pushed([insert("todo", who)], client=who, push=1)

    answers = await asyncio.gather(*(first_pushes(service, who) for who in clients for service in two))

    assert sum(answer["replayed"] for answer in answers) == 100
    assert Counter(commit["client"] for commit in await commits(two[1])) == dict.fromkeys(clients, 1)


async def test_p6_a_client_that_memory_lets_go_of_in_the_middle_is_not_taken_for_a_new_one(service: Harness) -> None:
    """A process remembers so many clients; loading those of a group drove out one of the same group."""
    old, many = client(), [client() for _ in range(1100)]
    first = await service.push([insert("todo", "old")], client=old, push=1)
    for start in range(0, 1020, 170):
        await asyncio.gather(*(service.pushed([], client=who, push=1) for who in many[start : start + 170]))

    again, *others = await asyncio.gather(
        service.push([insert("todo", "old")], client=old, push=1),
        *(service.push([insert("todo", who)], client=who, push=2) for who in many[900:]),
    )

    assert {reply.status for reply in others} == {200}
    assert is_replay(again, first)
    assert (await service.head())["head"] == 201
    [count] = await service.query("select count(*) from journal.client")
    assert count["count"] == 1101


# Crashes.


class Pusher:
    """A client that numbers its pushes, sends one after the other, and keeps what was not answered."""

    def __init__(self, service: Harness) -> None:
        self.service, self.id = service, client()
        self.number = 0
        self.answered: dict[int, Json] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether its last push was not answered."""
        return self.number not in self.answered and self.number > 0

    async def push_until_it_breaks(self) -> None:
        while await self.push(self.number + 1):
            pass

    async def push(self, number: int) -> bool:
        """Push a number, for the first time or again; False where no answer came."""
        self.number = number
        changes = [insert("todo", f"{self.id}-{number}-{n}") for n in range(number % 3 + 1)]
        try:
            reply = await self.service.push(changes, client=self.id, push=number)
        except (aiohttp.ClientError, OSError):
            return False
        if reply.status == 503:  # it is stopping
            return False
        assert reply.status == 200, reply.body
        self.answered[number] = reply.json
        return True


async def see_that_nothing_is_lost(service: Harness, pushers: list[Pusher]) -> None:
    recorded = await commits(service)
    expected = 1
    for commit in recorded:
        assert commit["first"] == expected
        expected = commit["revision"] + 1
        assert len(commit["changes"]) == commit["revision"] - commit["first"] + 1 == commit["push"] % 3 + 1
    by_push = Counter((commit["client"], commit["push"]) for commit in recorded)
    assert set(by_push.values()) == {1}
    assert set(by_push) == {(pusher.id, number) for pusher in pushers for number in range(1, pusher.number + 1)}
    revisions = {(commit["client"], commit["push"]): commit["revision"] for commit in recorded}
    for pusher in pushers:
        for number, answer in pusher.answered.items():
            assert answer["revision"] == revisions[pusher.id, number]


async def answered(pushers: list[Pusher], count: int) -> None:
    """Wait until so many pushes were answered."""

    async def are() -> bool:
        return sum(len(pusher.answered) for pusher in pushers) >= count

    await eventually(are, seconds=30)


@pytest.fixture
async def remote(database: str, tmp_path: Path) -> AsyncIterator[Remote]:
    """The service in a process of its own, with a journal."""
    async with serving_apart(database, tmp_path) as running:
        await running.create("j")
        yield running


async def test_p9_killed_in_the_middle_it_has_lost_nothing_that_it_answered(remote: Remote) -> None:
    pushers = [Pusher(remote) for _ in range(32)]
    for crash in range(1, 5):
        pushing = [asyncio.create_task(pusher.push_until_it_breaks()) for pusher in pushers]
        await answered(pushers, crash * 300)

        await remote.kill()
        await asyncio.gather(*pushing)
        await remote.start()

        for pusher in pushers:
            assert not pusher.is_waiting or await pusher.push(pusher.number)
        await see_that_nothing_is_lost(remote, pushers)


async def test_p9_told_to_stop_it_answers_what_it_has_taken(remote: Remote) -> None:
    pushers = [Pusher(remote) for _ in range(32)]
    pushing = [asyncio.create_task(pusher.push_until_it_breaks()) for pusher in pushers]
    await answered(pushers, 300)

    await remote.stop()
    await asyncio.gather(*pushing)
    await remote.start()

    for pusher in pushers:
        assert not pusher.is_waiting or await pusher.push(pusher.number)
    await see_that_nothing_is_lost(remote, pushers)


async def test_p9_killed_while_another_process_goes_on_it_holds_nobody_up(remote: Remote, tmp_path: Path) -> None:
    async with serving(remote.dsn, tmp_path) as other:
        here = [Pusher(other) for _ in range(8)]
        there = [Pusher(remote) for _ in range(8)]
        going_on = [asyncio.create_task(pusher.push_until_it_breaks()) for pusher in here]
        breaking = [asyncio.create_task(pusher.push_until_it_breaks()) for pusher in there]
        await answered(there, 50)
        await answered(here, 50)

        await remote.kill()
        await asyncio.gather(*breaking)
        await answered(here, sum(len(pusher.answered) for pusher in here) + 100)

        for pusher in there:
            pusher.service = other
            assert not pusher.is_waiting or await pusher.push(pusher.number)
        for task in going_on:
            task.cancel()
        await asyncio.gather(*going_on, return_exceptions=True)
        for pusher in here:
            assert not pusher.is_waiting or await pusher.push(pusher.number)
        await see_that_nothing_is_lost(other, here + there)


def test_answers_are_as_these_tests_take_them_to_be() -> None:
    assert msgspec.json.encode({"replayed": False}).endswith(FIRST)
