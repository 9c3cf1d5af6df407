"""Section 3.3: two processes on one database, one of which has not heard what the other recorded (trap 18)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness import Harness, Json, eventually, insert, listening, serving, update
from tests.proxy import Proxy, proxied

LISTENING = (
    "select pid from pg_stat_activity where application_name = 'journal listen' and datname = current_database()"
)


class Two(NamedTuple):
    """`second` knows the journal as it was when the fixture was made, and hears of nothing that `first` records."""

    first: Harness
    second: Harness
    proxy: Proxy
    before: str


async def pushed(service: Harness, *changes: Json, j: str = "j") -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), j, on_conflict="client")
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


@pytest.fixture
async def two(service: Harness, tmp_path: Path) -> AsyncIterator[Two]:
    before = await pushed(service, insert("todo", "a"))
    async with proxied(service.dsn) as proxy, serving(proxy.dsn, tmp_path, poll_s=3600.0) as second:
        await listening(second)
        assert (await second.head())["head"] == 1
        proxy.stall(b"journal listen")
        yield Two(service, second, proxy, before)
        proxy.go()


async def is_deaf(two: Two) -> bool:
    head: int = (await two.second.head())["head"]
    return head == 1


# Trap 18.


@pytest.mark.parametrize("way", [{}, {"include": "meta"}, {"until": 2}, {"format": "ndjson"}, {"collections": "todo"}])
async def test_trap_18_a_cursor_that_another_process_gave_is_answered(two: Two, way: Json) -> None:
    cursor = await pushed(two.first, insert("todo", "b"))
    assert await is_deaf(two)

    reply = await two.second.deltas(cursor, **way)

    assert reply.status == 200, reply.body
    assert b'"until":2' in reply.body


async def test_trap_18_whoever_asked_the_primary_has_caught_up(two: Two) -> None:
    cursor = await pushed(two.first, insert("todo", "b"))

    await two.second.deltas(cursor)

    async def knows() -> bool:
        return bool((await two.second.head())["head"] == 2)

    await eventually(knows)


async def test_trap_18_a_page_of_another_processs_round_is_answered(two: Two) -> None:
    await pushed(two.first, insert("todo", "b"))
    await pushed(two.first, insert("todo", "c"))
    first = (await two.first.deltas(0, limit=2)).json
    assert await is_deaf(two)

    second = await two.second.deltas(first["cursor"], limit=2)

    assert [delta["atom"] for delta in second.json["deltas"]] == ["c"]


async def test_trap_18_who_waits_with_a_cursor_from_elsewhere_waits_for_what_comes_after_it(two: Two) -> None:
    cursor = await pushed(two.first, insert("todo", "b"))

    reply = await two.second.deltas(cursor, wait=0.05)

    assert (reply.json["deltas"], reply.json["until"], reply.json["cursor"]) == ([], 2, cursor)


async def test_trap_18_a_push_on_a_base_from_elsewhere_is_decided(two: Two) -> None:
    cursor = await pushed(two.first, update("todo", "a", {"n": 2}))
    assert await is_deaf(two)

    answer = await two.second.pushed([update("todo", "a", {"n": 3})], base=cursor)

    assert [outcome["status"] for outcome in answer["outcomes"]] == ["applied"]
    assert answer["revision"] == 3


async def test_trap_18_a_push_on_what_was_known_meets_what_was_recorded_elsewhere(two: Two) -> None:
    await pushed(two.first, update("todo", "a", {"n": 2}))
    assert await is_deaf(two)

    answer = await two.second.pushed([update("todo", "a", {"n": 3})], base=two.before)

    [outcome] = answer["outcomes"]
    assert (outcome["status"], outcome["current"]["data"]) == ("conflict", {"n": 2})


async def test_trap_18_the_record_a_snapshot_and_atoms_are_read_where_they_are_written(two: Two) -> None:
    cursor = await pushed(two.first, insert("todo", "b"))
    assert await is_deaf(two)

    changes = await two.second.call("GET", "j/changes", params={"since": cursor})
    told = await two.second.call("GET", "j/cursor", params={"at": cursor, "collections": "todo"})
    atom = await two.second.call("GET", "j/atom?collection=todo&atom=b")
    first, *lines, _ = await two.second.snapshot()

    assert [changes.status, told.status, atom.status] == [200, 200, 200]
    assert (first["revision"], len(lines)) == (2, 2)


@pytest.mark.parametrize("way", [{}, {"include": "meta"}, {"until": 2}])
async def test_trap_18_the_future_is_what_no_process_has_recorded(two: Two, way: Json) -> None:
    epoch, _, chain = (await pushed(two.first, insert("todo", "b"))).split(":")

    replies = [await server.deltas(f"{epoch}:3:{chain}", **way) for server in (two.first, two.second)]

    assert [(reply.status, reply.json["reason"], reply.json["head"]) for reply in replies] == [(410, "future", 2)] * 2


async def test_trap_18_while_the_primary_is_away_nothing_is_refused_for_good(two: Two) -> None:
    cursor = await pushed(two.first, insert("todo", "b"))
    two.proxy.refuse()

    known = await two.second.deltas(two.before)
    unknown = await two.second.deltas(cursor)
    wrong = await two.second.deltas(two.before[:-1] + ("0" if two.before[-1] != "0" else "1"))

    assert (known.status, known.json["until"]) == (200, 1)
    assert [unknown.status, wrong.status] == [503, 503]
    assert unknown.headers["Retry-After"] == "1"
    assert unknown.json["code"] == "unavailable"


# Journals that come and go elsewhere.


async def test_trap_18_a_journal_that_was_removed_and_made_again_elsewhere_is_the_new_one(two: Two) -> None:
    """The process asked the primary for the journal that it knew, found it gone, and said that there was none."""
    await two.first.call("DELETE", "j")
    await two.first.create("j")
    cursor = await pushed(two.first, insert("todo", "new"))

    reply = await two.second.deltas(cursor)

    assert (reply.status, reply.json.get("until")) == (200, 1)


@pytest.mark.parametrize(
    "path", ["snapshot", "changes?since=0", "atom?collection=todo&atom=new", "deltas?since=0&until=1"]
)
async def test_trap_18_it_is_the_new_one_whatever_is_asked(two: Two, path: str) -> None:
    await two.first.call("DELETE", "j")
    await two.first.create("j")
    await pushed(two.first, insert("todo", "new"))

    reply = await two.second.call("GET", f"j/{path}")

    assert reply.status in (200, 303), reply.body


async def test_trap_18_it_is_the_new_one_too_for_what_is_asked_in_a_body_that_comes_in_pieces(two: Two) -> None:
    await two.first.call("DELETE", "j")
    await two.first.create("j")
    await pushed(two.first, insert("todo", "new"))

    async def body() -> AsyncIterator[bytes]:
        yield b'{"get": '
        await asyncio.sleep(0.05)  # or it would come with its head
        yield b'{"todo": ["new"]}}'

    reply = await two.second.call("POST", "j/lookup", data=body(), headers={"Content-Type": "application/json"})

    assert (reply.status, reply.json.get("revision")) == (200, 1)


async def test_trap_18_a_push_goes_to_the_new_one_too(two: Two) -> None:
    await two.first.call("DELETE", "j")
    epoch = (await two.first.create("j"))["epoch"]

    answer = await two.second.pushed([insert("todo", "new")])

    assert (answer["epoch"], answer["revision"]) == (epoch, 1)


async def test_trap_18_who_makes_a_journal_again_is_told_of_the_new_one(two: Two) -> None:
    await two.first.call("DELETE", "j")

    reply = await two.second.call("PUT", "j")

    told = await two.first.head()
    assert reply.status == 201
    assert (reply.json["epoch"], reply.json["head"]) == (told["epoch"], 0)


async def test_trap_18_who_removes_a_journal_that_was_made_again_removes_the_new_one(two: Two) -> None:
    await two.first.call("DELETE", "j")
    await two.first.create("j")

    reply = await two.second.call("DELETE", "j")

    async def is_gone() -> bool:
        return (await two.first.call("GET", "j")).status == 404

    assert reply.status == 204
    await eventually(is_gone)  # the first process hears of it a moment later


# What is heard.


async def test_who_waits_at_one_process_is_woken_by_a_push_to_another(service: Harness, tmp_path: Path) -> None:
    since = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as second:
        await listening(second)
        changed = (await second.service.tails.of("j")).changed

        async def somebody_waits() -> bool:
            return bool(changed._waiters)

        waiting = asyncio.create_task(second.deltas(since, wait=60))
        await eventually(somebody_waits)
        await pushed(service, insert("todo", "b"))
        reply = await asyncio.wait_for(waiting, 20)

    assert [delta["atom"] for delta in reply.json["deltas"]] == ["b"]


async def test_a_process_whose_listener_was_killed_listens_again_and_looks_what_it_missed(
    service: Harness, tmp_path: Path
) -> None:
    await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as second:
        assert (await second.head())["head"] == 1

        [*killed] = await service.query(LISTENING.replace("select pid", "select pg_terminate_backend(pid), pid"))
        await pushed(service, insert("todo", "b"))

        async def knows() -> bool:
            return bool((await second.head())["head"] == 2)

        await eventually(knows)
        assert killed


async def test_what_is_heard_while_something_older_was_being_read_is_not_forgotten(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of a refresh and the next notification arrive in one turn of the loop, in this order of callbacks."""
    tails = two.second.service.tails
    tail = await tails.of("j")
    await pushed(two.first, insert("todo", "b"))
    moment = tails.database.moment

    @asynccontextmanager
    async def after_which_more_is_heard() -> AsyncIterator[Any]:
        async with moment() as connection:
            yield connection
        monkeypatch.undo()
        await pushed(two.first, insert("todo", "c"))
        tails.heard(tail.head.id, tail.head.turn + 2)

    monkeypatch.setattr(tails.database, "moment", after_which_more_is_heard)
    tails.heard(tail.head.id, tail.head.turn + 1)

    async def knows() -> bool:
        return tail.head.head == 3

    await eventually(knows, seconds=3)


async def test_a_process_that_hears_nothing_looks_by_itself_now_and_then(service: Harness, tmp_path: Path) -> None:
    await pushed(service, insert("todo", "a"))
    async with proxied(service.dsn) as proxy, serving(proxy.dsn, tmp_path, poll_s=0.05) as second:
        assert (await second.head())["head"] == 1
        proxy.stall(b"journal listen")

        await pushed(service, insert("todo", "b"))

        async def knows() -> bool:
            return bool((await second.head())["head"] == 2)

        await eventually(knows)
        proxy.go()


async def test_two_processes_that_write_by_turns_number_one_history(two: Two) -> None:
    revisions = []
    for n in range(6):
        server = two.second if n % 2 else two.first
        revisions.append(int((await pushed(server, insert("todo", f"{n}"))).split(":")[1]))

    commits = (await two.first.call("GET", "j/changes?since=0")).json["commits"]

    assert revisions == [2, 3, 4, 5, 6, 7]
    assert [commit["revision"] for commit in commits] == [1, *revisions]


async def test_two_processes_that_write_at_once_number_one_history(two: Two) -> None:
    answers = await asyncio.gather(
        *(server.pushed([insert("todo", f"{n}{server.url}")]) for n in range(40) for server in (two.first, two.second))
    )

    last = next(answer for answer in answers if answer["revision"] == 81)
    since = f"{last['epoch']}:81:{last['chain']}"
    told = [(await server.deltas(since)).json for server in (two.first, two.second)]
    assert sorted(answer["revision"] for answer in answers) == list(range(2, 82))
    assert [(answer["until"], answer["deltas"]) for answer in told] == [(81, [])] * 2
    assert told[0]["digest"] == told[1]["digest"]
