"""What a hostile reading of the doors found: each was open once (protocol, section 13)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from journal.config import Walls
from journal.core.grants import Grant
from journal.store import doors
from journal.store.database import Database
from journal.store.doors import Token
from tests.doors import Bearer, bearer, may
from tests.harness import Harness, blocked_on_lock, eventually, insert, listening, serving
from tests.integration.test_access import BOTH, grant, refused, revoke, standing, stream, until


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service with a journal `demo` that has some of two collections."""
    async with serving(database, tmp_path) as running:
        await running.create("demo")
        await running.pushed([insert("todo", "a"), insert("other", "b")], "demo")
        await listening(running)
        yield running


@pytest.mark.parametrize("ticket", ["x", "a" * 43])
async def test_a_ticket_that_is_none_does_not_tell_which_journals_there_are(service: Harness, ticket: str) -> None:
    await bearer(service, BOTH)
    nobody = Bearer(service, None)

    told = [
        await nobody.call("GET", f"{journal}/stream", params={"since": "0", "ticket": ticket})
        for journal in ("demo", "no-such", "NO SUCH")
    ]

    assert [reply.status for reply in told] == [401] * 3
    assert len({reply.body for reply in told}) == 1


async def test_a_stream_whose_token_is_revoked_while_it_is_let_in_ends_at_once(service: Harness) -> None:
    who = await bearer(service, BOTH)
    at = await standing(who)
    connection = await asyncpg.connect(service.dsn)
    try:
        async with connection.transaction():
            await connection.execute("lock table journal.owner in exclusive mode")
            opening = asyncio.ensure_future(anext(_told(who, at)))
            await blocked_on_lock(service.dsn)  # who it is is known, whose its client is not yet

            await revoke(service, who)
            await eventually(await refused(who))
        assert await opening == {"reason": "revoked"}
    finally:
        await connection.close()


async def _told(who: Bearer, at: str) -> AsyncIterator[object]:
    async with stream(who, at, client=str(uuid4())) as source:
        yield await until(source, "auth")


async def test_a_token_that_is_revoked_while_it_is_read_for_a_ticket_is_not_remembered(
    service: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(service.dsn, tmp_path) as other:
        await listening(other)
        who = await bearer(service, BOTH)
        there = Bearer(other, who.text)
        await other.service.access.begin()
        ticket = (await who.call("POST", "demo/stream-tickets")).json["ticket"]
        is_read, may_go_on, by_id = asyncio.Event(), asyncio.Event(), doors.by_id

        async def slow(database: Database, number: int) -> Token | None:
            found = await by_id(database, number)
            is_read.set()
            await may_go_on.wait()
            return found

        monkeypatch.setattr(doors, "by_id", slow)
        using = asyncio.ensure_future(
            Bearer(other, None).call("GET", "demo/stream", params={"since": "0", "ticket": ticket})
        )
        await is_read.wait()
        turn = other.service.access._turn

        await revoke(service, who)

        async def has_learned() -> bool:
            return other.service.access._turn > turn

        await eventually(has_learned)
        may_go_on.set()
        async with asyncio.timeout(10):
            assert (await using).status == 401
        assert (await there.call("GET", "demo")).status == 401


async def test_p8_what_was_answered_once_is_not_told_for_a_cursor_of_more_than_may_be_read(service: Harness) -> None:
    who = await bearer(service, may("read"))
    asked = {"since": await standing(who), "collections": "todo", "include": "meta"}
    assert (await who.call("GET", "demo/deltas", params=asked)).status == 200

    await grant(service, who, may("read", of="todo"))

    async def has_fewer() -> bool:
        return bool((await who.call("GET", "demo")).json["atoms"] == 1)

    await eventually(has_fewer)
    reply = await who.call("GET", "demo/deltas", params=asked)
    assert (reply.status, reply.json.get("reason"), reply.json.get("granted")) == (410, "scope", ["todo"])


async def test_an_event_that_is_sent_for_long_is_cut_off_when_its_token_is_revoked(service: Harness) -> None:
    size = 0
    for n in range(15):
        large = [insert("todo", f"large {n} {m}", {"text": str(uuid4()) * 2000}) for m in range(10)]
        size += sum(len(change["data"]["text"]) for change in large)
        await service.pushed(large, "demo")
    assert size > 10_000_000
    who = await bearer(service, BOTH)
    async with stream(who) as source:
        content = source.response.content
        got = len(await content.readexactly(1000))

        await revoke(service, who)
        await eventually(await refused(who))
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in content.iter_any():
                got += len(piece)

    assert got < size


async def test_who_may_not_write_leaves_nothing_with_a_base(service: Harness) -> None:
    who = await bearer(service, may("read"))
    body = {"since": 0, "base": await standing(who), "client": str(uuid4())}

    reply = await who.call("POST", "demo/sync", json=body)

    assert (reply.status, reply.json["code"]) == (403, "forbidden")
    assert await service.query("select 1 from journal.client") == []


async def test_what_an_operator_says_of_itself_never_takes_the_place_of_its_name(service: Harness) -> None:
    name = "n" * 200
    who = await bearer(service, may("operate"), name=name)

    await who.call("POST", "demo/resync", json={"reason": "x"}, headers={"From": "root " * 500})

    [row] = await service.query("select by from journal.audit")
    assert len(row["by"]) <= 200
    assert row["by"].endswith(name[:100])


@pytest.mark.parametrize("grants", [(), (may("read"),), (may("read", "write", of="other"),)])
async def test_a_push_that_takes_long_to_come_is_let_in_by_what_its_sender_may_when_it_is_there(
    service: Harness, grants: tuple[Grant, ...]
) -> None:
    who = await bearer(service, BOTH)
    is_begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"changes": [{"op": "insert", "collection": "todo",'
        is_begun.set()
        await may_go_on.wait()
        yield b' "atom": "late", "data": {}}]}'

    headers = {"Content-Type": "application/json"}
    pushing = asyncio.ensure_future(who.call("POST", "demo/changes", data=slowly(), headers=headers))
    await is_begun.wait()
    await eventually(_is_read(service))

    if grants:
        await grant(service, who, *grants)
    else:
        await revoke(service, who)
    turn = (await service.query("select turn from journal.door"))[0]["turn"]
    await eventually(_has_learned(service, turn))
    may_go_on.set()

    reply = await pushing
    if grants and grants[0].collections is not None:
        assert [outcome["error"]["code"] for outcome in reply.json["outcomes"]] == ["forbidden"]
    else:
        assert reply.status == (403 if grants else 401)
    assert await service.query("select 1 from journal.change where atom = 'late'") == []


def _is_read(service: Harness) -> Callable[[], Awaitable[bool]]:
    """Whether some of a body that is on its way was taken."""

    async def is_so() -> bool:
        return service.walls.bodies_bytes > 0

    return is_so


def _has_learned(service: Harness, turn: int) -> Callable[[], Awaitable[bool]]:
    """Whether a process knows of a change of tokens."""

    async def is_so() -> bool:
        return service.service.access._turn >= turn

    return is_so


async def test_who_waits_for_the_end_of_an_operation_is_not_told_it_after_the_token_was_revoked(
    service: Harness,
) -> None:
    who = await bearer(service, may("operate"))
    connection = await asyncpg.connect(service.dsn)
    try:
        async with connection.transaction():
            await connection.execute("lock table journal.change in access exclusive mode")
            waiting = asyncio.ensure_future(who.call("POST", "demo/check", headers={"Prefer": "wait=20"}))
            await blocked_on_lock(service.dsn)

            await revoke(service, who)
            await eventually(await refused(who))
        assert (await waiting).status == 401
    finally:
        await connection.close()


@pytest.mark.parametrize("path", ["no-such", "demo/audit"])
async def test_what_is_refused_counts_for_its_token_too(database: str, tmp_path: Path, path: str) -> None:
    walls = Walls(trusted_proxies=("127.0.0.1",), requests_per_s=0.1, requests_at_once=3)
    async with serving(database, tmp_path, walls=walls) as service:
        who = await bearer(service, may("read"))

        told = [(await who.call("GET", path, headers={"X-Forwarded-For": f"192.0.2.{n}"})).status for n in range(5)]

        assert told[3:] == [429, 429]
