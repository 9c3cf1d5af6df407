"""Section 10: a push and everything since, in one request, from one moment (P6, P8, P9, P10)."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
import zstandard

from journal.config import Memory
from journal.core.cursor import parse
from journal.service.writer import Writer
from journal.store import reading, record
from tests import oracle
from tests.harness import Harness, Json, Reply, blocked_on_lock, delete, insert, serving, update
from tests.integration.test_bad_input import faults
from tests.proxy import proxied

ME, YOU = str(UUID(int=1)), str(UUID(int=2))
FORGETFUL = Memory(ring_changes=0)
OF_PUSH = {"first", "revision", "outcomes", "replayed"}
FIRST, AGAIN = b'"replayed":false', b'"replayed":true'
Between = Callable[[Callable[[], Awaitable[object]]], None]


async def sync(service: Harness, since: str | int, changes: list[Json] | None = None, **members: Any) -> Reply:
    """One sync."""
    body = {"since": since, **({} if changes is None else {"changes": changes}), **members}
    return await service.call("POST", "j/sync", json=body)


async def synced(service: Harness, since: str | int, changes: list[Json] | None = None, **members: Any) -> Json:
    """One sync, which must be answered."""
    reply = await sync(service, since, changes, **members)
    assert reply.status == 200, reply.body
    return reply.json


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push; the cursor after it."""
    answer = await service.pushed(list(changes), **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def resync(service: Harness, **asked: Any) -> None:
    """Call clients back."""
    assert (await service.call("POST", "j/resync", json={"reason": "because", **asked})).status == 200


async def compacted(service: Harness) -> None:
    """Raise the horizon to the head."""
    asked = {"keep_revisions": 0, "force": True}
    reply = await service.call("POST", "j/compact", json=asked, headers={"Prefer": "wait=60"})
    assert reply.json["state"] == "done"


def elsewhere(cursor: str) -> str:
    """The same place in another history."""
    epoch, revision, _ = cursor.split(":")
    return f"{epoch}:{revision}:{'0' * 16}"


def told(answer: Json) -> list[tuple[str, str]]:
    return [(delta["op"], delta["atom"]) for delta in answer["deltas"]]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    """Lets something happen, once, when the next push has been decided and nothing has been read for it yet."""

    def set_up(happens: Callable[[], Awaitable[object]]) -> None:
        push = Writer.push
        left = [happens]

        async def decided(writer: Writer, asked: Any) -> Any:
            answer = await push(writer, asked)
            if left and asked.page is not None:
                await left.pop()()
            return answer

        monkeypatch.setattr(Writer, "push", decided)

    return set_up


# What is answered.


@pytest.mark.parametrize("memory", [Memory(), FORGETFUL])
async def test_a_sync_is_a_push_and_everything_since(database: str, tmp_path: Path, memory: Memory) -> None:
    async with serving(database, tmp_path, memory=memory) as service:
        await service.create("j")
        at = await pushed(service, insert("todo", "a", {"x": 1, "y": 1}))
        await pushed(service, insert("todo", "theirs"), update("todo", "a", {"x": 2}), base=at)

        answer = await synced(service, at, [update("todo", "a", {"y": 2}), insert("todo", "mine")], on_conflict="merge")

        head = await service.head()
        assert answer.pop("outcomes") == [
            {"status": "merged", "revision": 4, "current": {"revision": 4, "data": {"x": 2, "y": 2}}},
            {"status": "applied", "revision": 5},
        ]
        assert {name: answer.pop(name) for name in ("first", "revision", "replayed")} == {
            "first": 4, "revision": 5, "replayed": False}  # fmt: skip
        assert answer == (await service.deltas(at)).json
        assert answer == {
            "epoch": head["epoch"],
            "since": 1,
            "until": 5,
            "head": 5,
            "horizon": 0,
            "more": False,
            "cursor": head["cursor"],
            "digest": head["digest"],
            "deltas": [
                {"op": "insert", "collection": "todo", "atom": "theirs", "revision": 2, "data": {"n": 1}},
                {"op": "update", "collection": "todo", "atom": "a", "revision": 4, "data": {"x": 2, "y": 2}},
                {"op": "insert", "collection": "todo", "atom": "mine", "revision": 5, "data": {"n": 1}},
            ],
        }


@pytest.mark.parametrize("changes", [None, []])
async def test_where_there_is_nothing_to_decide_the_answer_is_that_of_deltas(
    service: Harness, changes: list[Json] | None
) -> None:
    at = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    reply = await sync(service, at, changes, client=ME)

    assert reply.body == (await service.deltas(at, client=ME)).body
    assert await service.query("select from journal.client") == []


async def test_a_number_without_changes_is_decided_and_so_is_a_key(service: Harness) -> None:
    at = (await service.head())["cursor"]

    numbered = [await synced(service, at, client=ME, push=1) for _ in range(2)]
    keyed = await service.call("POST", "j/sync", json={"since": at}, headers={"Idempotency-Key": "k"})
    reused = await sync(service, at, [insert("todo", "a")], client=ME, push=1)

    assert [(one["outcomes"], one["first"], one["replayed"]) for one in numbered] == [([], None, b) for b in (0, 1)]
    assert keyed.json["outcomes"] == []
    assert (reused.status, reused.json["code"]) == (422, "push_reused")


async def test_since_is_a_cursor_or_a_revision_as_a_number_or_as_text(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    answers = [await synced(service, since) for since in (at, 1, "1")]
    from_the_start = [await synced(service, since, client=ME) for since in (0, "0")]

    assert [told(answer) for answer in answers] == [[("insert", "b")]] * 3
    assert [told(answer) for answer in from_the_start] == [[("insert", "a"), ("insert", "b")]] * 2


async def test_it_is_not_kept_by_anybody_and_never_304(service: Harness) -> None:
    at = (await service.head())["cursor"]
    body = {"since": at, "changes": [insert("todo", f"{n}") for n in range(50)]}

    for headers in ({}, {"If-None-Match": "*"}):
        reply = await service.call("POST", "j/sync", json=body, headers=headers)

        assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
        assert reply.headers["Content-Type"] == "application/json"
        assert "ETag" not in reply.headers


@pytest.mark.parametrize("memory", [Memory(), Memory(answer_bytes=1000)])
async def test_a_large_answer_is_compressed_once(database: str, tmp_path: Path, memory: Memory) -> None:
    async with serving(database, tmp_path, memory=memory) as service:
        await service.create("j")
        changes = [insert("todo", f"{n}", {"some": token_hex(100)}) for n in range(1000)]

        body = {"since": 0, "changes": changes, "get": {"todo": ["5"]}}
        headers = {"Accept-Encoding": "zstd", "If-None-Match": "*"}
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            asked = session.post(f"{service.url}/v1/journals/j/sync", json=body, headers=headers)
            async with asked as response:
                coded = await response.read()

    assert (response.status, response.headers["Content-Encoding"]) == (200, "zstd")
    assert "ETag" not in response.headers
    answer = json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(coded))
    assert (len(answer["outcomes"]), len(answer["deltas"]), answer["atoms"]["todo"]["5"]["revision"]) == (1000, 1000, 6)


async def test_only_the_collections_that_are_asked_for_are_told(service: Harness) -> None:
    at = (await service.head())["cursor"]

    answer = await synced(service, at, [insert("todo", "a"), insert("note", "b")], collections=["note", "never"])

    assert [outcome["status"] for outcome in answer["outcomes"]] == ["applied"] * 2
    assert told(answer) == [("insert", "b")]
    assert answer["cursor"].endswith(":collections=never,note")
    assert answer["digest"] == (await service.deltas(0, collections="note")).json["digest"]


# Rounds of pages.


@pytest.mark.parametrize("memory", [Memory(), FORGETFUL])
async def test_a_round_goes_on_by_syncs_with_pushes_between(database: str, tmp_path: Path, memory: Memory) -> None:
    async with serving(database, tmp_path, memory=memory) as service:
        await service.create("j")
        for n in range(4):
            await pushed(service, insert("todo", f"{n}"))
        state: oracle.State = {}

        pages = []
        since: str | int = 0
        for number in itertools.count(1):
            changes = [update("todo", "0", {"n": 10 * number})] if number < 4 else None
            page = await synced(service, since, changes, client=ME, on_conflict="client", limit=1, push=number)
            oracle.apply(state, page["deltas"])
            pages.append(page)
            since = page["cursor"]
            if not page["more"]:
                break

        assert [page["more"] for page in pages] == [True] * (len(pages) - 1) + [False]
        assert all(("until" in page, "digest" in page) == (not page["more"],) * 2 for page in pages)
        assert [page["head"] for page in pages] == [5, 6, 7, 7]
        assert parse(pages[0]["cursor"], parameter="").client == ME
        assert pages[-1]["digest"] == oracle.digest(state)
        assert state["todo", "0"].data == {"n": 30}


async def test_an_unfinished_rounds_cursor_is_its_clients_and_its_collections(service: Harness) -> None:
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"), insert("note", f"{n}"))
    cursor = (await synced(service, 0, client=ME, collections=["todo"], limit=1))["cursor"]
    before = await service.head()

    another = await sync(service, cursor, [insert("todo", "x")], client=YOU)
    more = await sync(service, cursor, [insert("todo", "x")], client=ME, collections=["todo", "note"])
    alike: list[Json] = [{}, {"client": ME}, {"client": ME, "collections": ["todo"]}]
    same = [await synced(service, cursor, **members) for members in alike]

    assert set(faults(another)) == {"/client"}
    assert (more.status, more.json["reason"], more.json["collections"]) == (410, "scope", ["note"])
    assert [told(answer) for answer in same] == [[("insert", "1"), ("insert", "2")]] * 3
    assert await service.head() == before


async def test_a_round_to_a_fixed_end_does_not_go_on_by_syncs(service: Harness) -> None:
    ends = [await pushed(service, insert("todo", f"{n}")) for n in range(4)]
    page = (await service.deltas(ends[0], until=3, limit=1)).json
    assert page["more"]

    assert set(faults(await sync(service, page["cursor"], [insert("todo", "x")]))) == {"/since"}


async def test_the_base_of_a_rounds_cursor_is_the_rounds(service: Harness) -> None:
    base = await pushed(service, insert("todo", "a"))
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))
    await pushed(service, update("todo", "a", {"n": 2}), on_conflict="client")
    cursor = (await synced(service, base, limit=1))["cursor"]

    answer = await synced(service, cursor, [update("todo", "a", {"n": 3}), delete("todo", "0")])

    assert [outcome["status"] for outcome in answer["outcomes"]] == ["conflict", "conflict"]


async def test_p12_a_first_commit_that_is_larger_than_the_limit_comes_whole_through_the_spool(
    database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, memory=Memory(ring_changes=0, answer_bytes=1000)) as service:
        await service.create("j")
        await pushed(service, *(insert("todo", f"{n}", {"t": "é\n" * 500}) for n in range(100)))
        await pushed(service, insert("todo", "more"))

        reply = await sync(service, 0, [insert("todo", "mine")], limit=2, get={"todo": ["7", "none"], "never": ["x"]})

        assert reply.headers.get("Content-Length") is None  # it came piece by piece
        assert (len(reply.json["deltas"]), reply.json["more"], reply.json["head"]) == (100, True, 102)
        assert reply.json["deltas"] == (await service.deltas(0, until=100)).json["deltas"]
        assert reply.json["outcomes"] == [{"status": "applied", "revision": 102}]
        assert reply.json["atoms"] == {
            "todo": {"7": {"revision": 8, "data": {"t": "é\n" * 500}}, "none": None},
            "never": {"x": None},
        }
        assert list((tmp_path).glob("spool-*/tmp*")) == []


# Bases.


async def test_the_base_is_where_the_client_is_unless_it_says_otherwise(service: Harness) -> None:
    first = await pushed(service, insert("todo", "a", {"n": 1}))
    second = await pushed(service, update("todo", "a", {"n": 2}), base=first)

    by_since = await synced(service, first, [update("todo", "a", {"n": 3})])
    by_base = await synced(service, second, [update("todo", "a", {"n": 3})], base=first)
    by_change = await synced(service, second, [update("todo", "a", {"n": 3}) | {"base": 1}])
    known = await synced(service, first, [update("todo", "a", {"n": 3})], base=second)

    assert [answer["outcomes"][0]["status"] for answer in (by_since, by_base, by_change, known)] == [
        "conflict", "conflict", "conflict", "applied"]  # fmt: skip
    assert [answer["since"] for answer in (by_since, by_base, by_change, known)] == [1, 2, 2, 1]


@pytest.mark.parametrize("since", [0, "0"])
async def test_a_bare_revision_is_no_base(service: Harness, since: str | int) -> None:
    required = await sync(service, since, [delete("todo", "a")])
    own = await sync(service, since, [delete("todo", "a", base=0)])

    assert required.json["code"] == "base_required"
    assert set(faults(own)) == {"/changes/0/base"}
    assert (await synced(service, since, [insert("todo", "a")]))["revision"] == 1


# One moment.


@pytest.mark.parametrize("members", [{}, {"get": {"todo": ["theirs"]}}])
@pytest.mark.parametrize("memory", [Memory(), FORGETFUL])
async def test_what_others_record_between_push_and_reading_is_told(
    database: str, tmp_path: Path, between: Between, memory: Memory, members: Json
) -> None:
    async with serving(database, tmp_path, memory=memory) as service, serving(database, tmp_path) as other:
        await service.create("j")
        at = (await service.head())["cursor"]
        between(
            lambda: other.pushed([insert("todo", "theirs"), update("todo", "mine", {"n": 2})], on_conflict="client")
        )

        answer = await synced(service, at, [insert("todo", "mine")], **members)

        assert (answer["first"], answer["revision"]) == (1, 1)
        assert answer["outcomes"] == [{"status": "applied", "revision": 1}]
        assert answer["head"] in ((1, 3) if memory != FORGETFUL and not members else (3,))
        assert answer["until"] == answer["head"]
        deltas = {delta["atom"]: (delta["revision"], delta["data"]) for delta in answer["deltas"]}
        expected = {"theirs": (2, {"n": 1}), "mine": (3, {"n": 2})} if answer["head"] == 3 else {"mine": (1, {"n": 1})}
        assert deltas == expected
        if members:
            assert answer["atoms"] == {"todo": {"theirs": {"revision": 2, "data": {"n": 1}}}}


async def test_deltas_and_atoms_are_of_one_moment(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody records after the deltas were read and before the atoms are."""
    at = await pushed(service, insert("todo", "a", {"n": 1}))
    await pushed(service, update("todo", "a", {"n": 2}), base=at)
    copy_deltas = reading.copy_deltas

    async def copied(*asked: Any, **members: Any) -> None:
        await copy_deltas(*asked, **members)
        await pushed(service, update("todo", "a", {"n": 3}), insert("todo", "late"), on_conflict="client")

    monkeypatch.setattr(reading, "copy_deltas", copied)
    answer = await synced(service, at, [insert("todo", "mine")], get={"todo": ["a", "late", "mine"]})

    assert (answer["head"], answer["revision"], (await service.head())["head"]) == (3, 3, 5)
    assert [(delta["atom"], delta["data"]) for delta in answer["deltas"]] == [("a", {"n": 2}), ("mine", {"n": 1})]
    assert answer["atoms"] == {
        "todo": {"a": {"revision": 2, "data": {"n": 2}}, "late": None, "mine": {"revision": 3, "data": {"n": 1}}}
    }


async def test_atoms_are_those_of_a_lookup(service: Harness) -> None:
    at = await pushed(service, insert("todo", 'q"\\', {"x": 0.1}), insert("no\u00eb", "b"))
    wanted: Json = {"todo": ['q"\\', "none", 'q"\\'], "no\u00eb": ["b"], "never": [], "never either": ["x"]}

    answers = [await synced(service, at, get=get) for get in (wanted, {})]

    looked_up = (await service.call("POST", "j/lookup", json={"get": wanted})).json
    assert answers[0]["atoms"] == looked_up["atoms"]
    assert answers[0]["head"] == looked_up["revision"]
    assert (answers[1]["atoms"], answers[1]["deltas"]) == ({}, [])


async def test_atoms_on_an_unfinished_page_are_of_the_head(service: Harness) -> None:
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))

    page = await synced(service, 0, limit=1, get={"todo": ["2"]})

    assert (page["more"], told(page), page["head"]) == (True, [("insert", "0")], 3)
    assert page["atoms"]["todo"]["2"]["revision"] == 3


async def test_a_replay_of_what_another_process_recorded_is_not_told_less_than_that(
    database: str, tmp_path: Path
) -> None:
    """The process that replays it has not heard of it, and would prove the cursor by what it remembers."""
    async with (
        proxied(database) as proxy,
        serving(proxy.dsn, tmp_path, poll_s=3600.0) as deaf,
        serving(database, tmp_path) as other,
    ):
        await deaf.create("j")
        at = await pushed(deaf, insert("todo", "a"))
        proxy.stall(b"journal listen")
        body: Json = {"client": ME, "push": 1, "changes": [insert("new", "b")]}
        first = await synced(other, at, **body)

        again = await synced(deaf, at, **body)

        assert again == first | {"replayed": True}
        proxy.go()


# What is judged, and when.


async def nothing_was_recorded(service: Harness, head: Json) -> bool:
    """Whether all is as it was, and the number is free."""
    assert await service.query("select from journal.client") == []
    assert await service.query("select from journal.push") == []
    return await service.head() == head


async def prepared(service: Harness, reason: str) -> tuple[str, str, Json]:
    """A cursor that is refused for this reason, one that is good, and what goes with the first."""
    first = await pushed(service, insert("todo", "a"))
    epoch, _, chain = first.split(":")
    members: Json = {}
    match reason:
        case "epoch":
            bad = f"{'0' * 12}:1:{chain}"
        case "future":
            bad = f"{epoch}:99:{chain}"
        case "diverged":
            bad = elsewhere(first)
        case "horizon":
            bad = first
            await pushed(service, insert("todo", "b"))
            await compacted(service)
        case "operator":
            bad = first
            await resync(service, client=ME)
        case _:
            bad, members = f"{first}:collections=note", {"collections": ["note", "todo"]}
    good = (await service.head())["cursor"]
    return bad, good, members


REASONS = ["epoch", "future", "diverged", "horizon", "operator", "scope"]


@pytest.mark.parametrize("reason", REASONS)
async def test_p8_a_cursor_that_leads_nowhere_is_told_so_before_anything_is_recorded(
    service: Harness, reason: str
) -> None:
    bad, good, members = await prepared(service, reason)
    head = await service.head()

    for base in ({}, {"base": good}):
        reply = await sync(service, bad, [insert("todo", "mine")], client=ME, push=1, **base, **members)

        assert (reply.status, reply.json["code"], reply.json["reason"]) == (410, "resync_required", reason)
        assert reply.headers["Cache-Control"] == "no-store"
        assert await nothing_was_recorded(service, head)
    without = await sync(service, bad, client=ME, **members)
    assert (without.status, without.json["reason"]) == (410, reason)
    assert (await synced(service, good, [insert("todo", "mine")], client=ME, push=1))["replayed"] is False


@pytest.mark.parametrize("reason", ["epoch", "future", "diverged", "horizon", "operator"])
@pytest.mark.parametrize("changes", [None, [insert("todo", "mine")]])
async def test_p8_so_is_a_base(service: Harness, reason: str, changes: list[Json] | None) -> None:
    bad, good, _ = await prepared(service, reason)
    head = await service.head()

    reply = await sync(service, good, changes, base=bad, client=ME)

    assert (reply.status, reply.json["reason"]) == (410, reason)
    assert await nothing_was_recorded(service, head)


@pytest.mark.parametrize(("since", "reason"), [(1, "horizon"), (99, "future")])
async def test_p8_a_bare_revision_is_judged_by_head_and_horizon(service: Harness, since: int, reason: str) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))
    await compacted(service)
    head = await service.head()

    reply = await sync(service, since, [insert("todo", "mine")])

    assert (reply.status, reply.json["reason"]) == (410, reason)
    assert await nothing_was_recorded(service, head)


async def test_trap_17_a_floor_for_other_collections_is_none_for_who_does_not_ask_for_them(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"), insert("note", "b"))
    await resync(service, collections=["note"])

    mine = await synced(service, f"{at}:collections=todo", [insert("todo", "c")], collections=["todo"])
    theirs = await sync(service, f"{at}:collections=note", [insert("todo", "d")], collections=["note"])

    assert (mine["revision"], told(mine)) == (4, [("insert", "c")])
    assert (theirs.status, theirs.json["collections"]) == (410, ["note"])


async def test_trap_23_in_a_round_it_is_the_base_that_must_not_be_below_a_floor(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))
    await resync(service)
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))
    epoch, position, chain = (await service.deltas(4, limit=1)).json["cursor"].split(":")[:3]
    assert int(position) > 3

    reply = await sync(service, f"{epoch}:{position}:{chain}:base={at.split(':')[1]}", [insert("todo", "mine")])

    assert (reply.status, reply.json["reason"]) == (410, "operator")
    assert (await service.head())["head"] == 6


async def test_a_floor_for_the_client_of_a_round_counts_though_the_push_names_nobody(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))
    cursor = (await synced(service, at, client=ME, limit=1))["cursor"]
    await resync(service, client=ME)

    reply = await sync(service, cursor, [insert("todo", "mine")])

    assert (reply.status, reply.json["reason"]) == (410, "operator")
    assert (await service.head())["head"] == 5


async def test_trap_18_a_cursor_that_another_process_gave_is_never_refused_by_memory(
    database: str, tmp_path: Path
) -> None:
    async with (
        proxied(database) as proxy,
        serving(proxy.dsn, tmp_path, poll_s=3600.0) as deaf,
        serving(database, tmp_path) as other,
    ):
        await deaf.create("j")
        at = await pushed(deaf, insert("todo", "a"))
        proxy.stall(b"journal listen")
        for n in range(3):
            ahead = (await synced(other, at, [insert("todo", f"{n}")]))["cursor"]

            answer = await synced(deaf, ahead, [insert("todo", f"mine {n}")], client=ME, push=n + 1)

            assert told(answer) == [("insert", f"mine {n}")]
        proxy.go()


async def test_p8_a_floor_that_memory_has_not_heard_of_is_found_under_the_lock(service: Harness) -> None:
    """The push waits for the head that an operator holds: it was decided on what memory had, and is decided again."""
    at = await pushed(service, insert("todo", "a"))
    operator = await asyncpg.connect(service.dsn)
    try:
        async with operator.transaction():
            await operator.execute("select journal.resync(1, null, null, 0, 'by hand', 'a test')")
            waiting = asyncio.create_task(sync(service, at, [insert("todo", "mine")], client=ME, push=1))
            await blocked_on_lock(service.dsn)
        reply = await waiting
    finally:
        await operator.close()

    assert (reply.status, reply.json["reason"], reply.json["head"]) == (410, "operator", 2)
    assert [row["atom"] for row in await service.query("select atom from journal.change")] == ["a"]


async def test_syncs_that_wait_together_are_judged_each_by_its_own_cursor(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    holder = await asyncpg.connect(service.dsn)
    cursors = [at if n % 3 else elsewhere(at) for n in range(12)]
    try:
        async with holder.transaction():
            await holder.fetch("select from journal.head for update")
            waiting = [
                asyncio.create_task(sync(service, cursor, [insert("todo", f"{n}")])) for n, cursor in enumerate(cursors)
            ]
            await blocked_on_lock(service.dsn)
        replies = [await one for one in waiting]
    finally:
        await holder.close()

    assert [reply.status for reply in replies] == [200 if n % 3 else 410 for n in range(12)]
    living = {delta["atom"] for delta in (await service.round(0))[0]}
    assert living == {"a"} | {f"{n}" for n in range(12) if n % 3}
    for reply in replies:
        assert reply.status == 410 or reply.json["until"] >= reply.json["revision"]


# Once it was decided.


def is_replay(again: Reply, first: Reply) -> bool:
    """Whether the push's members are the same to the byte, but that they were said before."""
    said = [reply.body.partition(b',"epoch":')[0].partition(b',"resync":')[0] for reply in (first, again)]
    return again.status == first.status and said[1] == said[0].replace(FIRST, AGAIN)


async def test_p6_a_sync_sent_again_is_told_the_same_with_the_deltas_of_now(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    body: Json = {
        "client": ME,
        "push": 1,
        "changes": [insert("todo", "mine"), update("todo", "a", {"n": 2}), insert("todo", "a")],
    }
    first = await sync(service, at, **body)
    unmoved = await sync(service, at, **body)
    await pushed(service, insert("todo", "theirs"))

    again = await sync(service, first.json["cursor"], **body)

    assert is_replay(unmoved, first)
    assert unmoved.json == first.json | {"replayed": True}
    assert is_replay(again, first)
    assert told(again.json) == [("insert", "theirs")]
    assert (await service.head())["head"] == 4


async def test_p6_a_number_is_the_same_in_a_sync_and_in_a_push(service: Harness) -> None:
    at = (await service.head())["cursor"]
    changes = [insert("todo", "a")]
    by_sync = await synced(service, at, changes, client=ME, push=1)
    by_push = await service.pushed([insert("todo", "b")], client=ME, push=2)

    again = await service.pushed(changes, client=ME, push=1)
    other_way = await synced(service, at, [insert("todo", "b")], client=ME, push=2)

    assert {name: again[name] for name in OF_PUSH} == {name: by_sync[name] for name in OF_PUSH} | {"replayed": True}
    assert {name: other_way[name] for name in OF_PUSH} == {name: by_push[name] for name in OF_PUSH} | {
        "replayed": True}  # fmt: skip


async def test_p6_a_key_takes_the_place_of_a_number(service: Harness) -> None:
    at = (await service.head())["cursor"]

    replies = [
        await service.call(
            "POST", "j/sync", json={"since": at, "changes": [insert("todo", "a")]}, headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    ]

    assert is_replay(replies[1], replies[0])
    assert (await service.head())["head"] == 1


@pytest.mark.parametrize("reason", REASONS)
async def test_p6_what_was_decided_is_told_though_its_cursor_leads_nowhere(service: Harness, reason: str) -> None:
    bad, good, members = await prepared(service, reason)
    first = await sync(service, good, [insert("todo", "mine")], client=ME, push=1)

    again = await sync(service, bad, [insert("todo", "mine")], client=ME, push=1, **members, get={"todo": ["a"]})

    refusal = await service.deltas(
        bad, client=ME, **({"collections": ",".join(members["collections"])} if members else {})
    )
    assert refusal.status == 410
    assert is_replay(again, first)
    assert set(again.json) == OF_PUSH | {"resync"}
    assert again.json["resync"] == refusal.json
    assert again.json["resync"]["reason"] == reason
    assert again.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("get", [None, {"todo": ["a"]}])
@pytest.mark.parametrize("what", ["operator", "horizon", "epoch"])
async def test_p9_a_cursor_that_is_cut_off_after_the_push_does_not_take_its_outcomes(
    service: Harness, between: Between, what: str, get: Json | None
) -> None:
    at = await pushed(service, insert("todo", "a"))

    async def cut_off() -> None:
        match what:
            case "operator":
                await resync(service, client=ME)
            case "horizon":
                await compacted(service)
            case _:
                assert (await service.call("POST", "j/restored", json={})).status == 200

    between(cut_off)
    body: Json = {"client": ME, "push": 1, "changes": [insert("todo", "mine")]} | ({} if get is None else {"get": get})
    answer = await synced(service, at, **body)
    again = await synced(service, at, **body)

    assert set(answer) == OF_PUSH | {"resync"}
    assert answer["outcomes"] == [{"status": "applied", "revision": 2}]
    assert (answer["resync"]["status"], answer["resync"]["reason"]) == (410, what)
    assert again == answer | {"replayed": True}
    snapshot = await service.snapshot()
    assert {line["atom"] for line in snapshot[1:-1]} == {"a", "mine"}


@pytest.mark.parametrize("memory", [Memory(), FORGETFUL])
async def test_p9_nor_does_one_that_another_process_cuts_off(
    database: str, tmp_path: Path, between: Between, memory: Memory
) -> None:
    """What remembers may not have heard of it, and then goes on as it would a moment earlier."""
    async with serving(database, tmp_path, memory=memory) as service, serving(database, tmp_path) as other:
        await service.create("j")
        at = await pushed(service, insert("todo", "a"))
        between(lambda: resync(other))

        answer = await synced(service, at, [insert("todo", "mine")], client=ME, push=1)

        assert answer["outcomes"] == [{"status": "applied", "revision": 2}]
        if memory == FORGETFUL:
            assert answer["resync"]["reason"] == "operator"
        else:
            assert "resync" in answer or answer["head"] == 2


async def test_p8_a_collection_that_the_push_itself_makes_may_be_beyond_the_cursor(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))

    answer = await synced(service, f"{at}:collections=todo", [insert("new", "a")])

    assert answer["outcomes"] == [{"status": "applied", "revision": 2}]
    assert (answer["resync"]["reason"], answer["resync"]["collections"]) == ("scope", ["new"])


async def test_trap_19_outcomes_that_were_forgotten_are_null(service: Harness) -> None:
    at = (await service.head())["cursor"]
    for number in (1, 2):
        await synced(service, at, [insert("todo", f"{number}")], client=ME, push=number)
    await service.query("update journal.push set at = at - interval '40 days'")
    now = datetime.now(UTC)
    await record.forget(service.service.database, pushes_before=now, keys_before=now)

    answer = await synced(service, at, [insert("todo", "1")], client=ME, push=1)

    assert {name: answer[name] for name in OF_PUSH} == {
        "first": None, "revision": None, "outcomes": None, "replayed": True}  # fmt: skip
    assert told(answer) == [("insert", "1"), ("insert", "2")]


async def test_a_push_that_came_too_late_or_was_another_is_refused_as_ever(service: Harness) -> None:
    at = (await service.head())["cursor"]
    await synced(service, at, [insert("todo", "a")], client=ME, push=3)

    late = await sync(service, at, [insert("todo", "b")], client=ME, push=2)
    other = await sync(service, at, [insert("todo", "b")], client=ME, push=3)

    assert (late.status, late.json["code"], late.json["highest"]) == (409, "push_too_old", 3)
    assert (other.status, other.json["code"]) == (422, "push_reused")
    assert "deltas" not in late.json
    assert (await service.head())["head"] == 1


async def test_an_atomic_push_that_is_not_applied_is_told_its_outcomes_and_no_deltas(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a", {"n": 1}))
    asked: Json = {"client": ME, "push": 1, "atomic": True, "changes": [insert("todo", "b"), insert("todo", "a")]}
    asked["changes"][1]["data"] = {"n": 2}

    refused = await sync(service, at, **asked)
    again = await sync(service, elsewhere(at), **asked)

    pushed_again = await service.push(asked.pop("changes"), **asked)
    assert (refused.status, refused.headers["Content-Type"]) == (409, "application/problem+json")
    assert (refused.json["code"], refused.json["replayed"]) == ("not_applied", False)
    assert [outcome["status"] for outcome in refused.json["outcomes"]] == ["applied", "conflict"]
    assert again.body == pushed_again.body == refused.body.replace(FIRST, AGAIN)
    assert (await service.head())["head"] == 1
    assert (await synced(service, at, client=ME))["deltas"] == []


async def forgotten(service: Harness, client: str = ME) -> None:
    assert (await service.call("DELETE", f"j/clients/{client}")).status == 204


async def test_a_forgotten_client_is_told_so_but_for_what_it_had_pushed(service: Harness) -> None:
    at = (await service.head())["cursor"]
    first = await synced(service, at, [insert("todo", "a")], client=ME, push=1)
    await forgotten(service)

    new = await sync(service, at, [insert("todo", "b")], client=ME, push=2)
    idle = await sync(service, at, client=ME)
    again = await sync(service, at, [insert("todo", "a")], client=ME, push=1)

    assert [(reply.status, reply.json["code"]) for reply in (new, idle, again)] == [(409, "client_forgotten")] * 3
    assert ["outcomes" in reply.json for reply in (new, idle, again)] == [False, False, True]
    assert {name: again.json[name] for name in OF_PUSH} == {name: first[name] for name in OF_PUSH} | {"replayed": True}
    assert again.headers["Content-Type"] == "application/problem+json"
    assert (await service.head())["head"] == 1
    assert (await service.call("GET", "j/clients")).json["clients"] == []


async def test_p9_a_client_that_is_forgotten_after_its_push_still_gets_its_outcomes(
    service: Harness, between: Between
) -> None:
    at = (await service.head())["cursor"]
    between(lambda: forgotten(service))

    reply = await sync(service, at, [insert("todo", "a")], client=ME, push=1)

    assert (reply.status, reply.json["code"]) == (409, "client_forgotten")
    assert (reply.json["revision"], reply.json["outcomes"]) == (1, [{"status": "applied", "revision": 1}])


# Clients that name themselves.


async def row(service: Harness, client: str = ME) -> Json:
    return (await service.call("GET", f"j/clients/{client}")).json


@pytest.mark.parametrize("changes", [None, [insert("todo", "mine")]])
async def test_a_client_is_seen_where_it_syncs_from(service: Harness, changes: list[Json] | None) -> None:
    at = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))

    await service.call(
        "POST", "j/sync", json={"since": at, "client": ME, "changes": changes or []}, headers={"User-Agent": "phone"}
    )

    seen = await row(service)
    assert (seen["cursor"], seen["revision"], seen["agent"]) == (at, 1, "phone")


async def test_who_obeyed_a_resync_is_seen_to_have_by_its_next_sync(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    await synced(service, at, client=ME)
    await resync(service, client=ME)
    assert (await sync(service, at, [insert("todo", "mine")], client=ME)).status == 410
    waited_for = (await row(service))["resync"]

    cursor = (await service.snapshot())[0]["cursor"]
    await synced(service, cursor, [insert("todo", "mine")], client=ME)

    seen = await row(service)
    assert (waited_for, seen["resync"], seen["resynced"], seen["cursor"]) == (2, None, 2, cursor)


async def test_nobody_is_seen_where_there_is_no_journal(service: Harness) -> None:
    """A name that PostgreSQL does not take would hold up the whole registry."""
    body = {"since": 0, "client": ME}

    replies = [await service.call("POST", f"/v1/journals/{name}/sync", json=body) for name in ("none", "%00", "A")]
    await synced(service, 0, client=YOU)
    await service.service.registry.flush()

    assert [reply.status for reply in replies] == [404] * 3
    assert [str(seen["client"]) for seen in await service.query("select client from journal.registry")] == [YOU]


@pytest.mark.parametrize("memory", [Memory(), FORGETFUL])
async def test_trap_2_a_client_is_told_the_delete_of_what_it_inserted_itself(
    database: str, tmp_path: Path, memory: Memory
) -> None:
    async with serving(database, tmp_path, memory=memory) as service:
        await service.create("j")
        at = (await service.head())["cursor"]
        await synced(service, at, [insert("todo", "ghost")], client=ME, push=1)
        await service.pushed([delete("todo", "ghost")], on_conflict="client")

        mine = await synced(service, at, [insert("todo", "b")], client=ME, push=2)
        yours = await synced(service, at, [insert("todo", "c")], client=YOU, push=1)

        assert ("delete", "ghost") in told(mine)
        assert memory == FORGETFUL or ("delete", "ghost") not in told(yours)


# Memory.


async def test_no_query_reaches_the_database_for_a_sync_of_who_is_up_to_date(service: Harness, tmp_path: Path) -> None:
    async with proxied(service.dsn) as proxy, serving(proxy.dsn, tmp_path) as second:
        at = await pushed(second, insert("todo", "a"))
        now = await pushed(second, insert("todo", "b"))
        await synced(second, now, client=ME)

        proxy.refuse()
        idle = [await synced(second, now, client=ME), await synced(second, now, [], client=ME)]
        behind = await synced(second, at)
        pushing = await sync(second, now, [insert("todo", "c")])
        looking = await sync(second, now, get={"todo": ["a"]})

    assert [answer["deltas"] for answer in idle] == [[], []]
    assert told(behind) == [("insert", "b")]
    assert (pushing.status, looking.status) == (503, 503)
