"""Tokens while they are used: revoked, changed, ended, shared; tickets; and whose a client's id is (section 13)."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from journal.service import access
from journal.service.access import BELIEVED_S
from journal.store import doors
from tests.doors import Bearer, bearer, database_of, may
from tests.harness import Harness, Reply, eventually, insert, listening, put, serving
from tests.integration.test_stream import Source
from tests.proxy import proxied

BOTH = may("read", "write")
IN_FORCE_S = 1.0


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service with a journal `demo` that has some of two collections."""
    async with serving(database, tmp_path) as running:
        await running.create("demo")
        await running.pushed([insert("todo", "a"), insert("other", "b")], "demo")
        await listening(running)
        yield running


async def revoke(service: Harness, who: Bearer) -> float:
    """Revoke a token, as the command does it: in the database; and when that was."""
    assert await doors.revoke(database_of(service), who.number, by="a test")
    return time.monotonic()


async def grant(service: Harness, who: Bearer, *grants: Any) -> None:
    """Give a token other grants, likewise."""
    assert await doors.grant(database_of(service), who.number, grants)


async def refused(who: Bearer, path: str = "demo") -> Callable[[], Awaitable[bool]]:
    """Whether somebody is nobody by now."""

    async def is_nobody() -> bool:
        return (await who.call("GET", path)).status == 401

    return is_nobody


@asynccontextmanager
async def stream(who: Bearer, since: str = "0", **parameters: str) -> AsyncIterator[Source]:
    """The stream, with the token or with a ticket."""
    headers = {} if who.text is None else {"Authorization": f"Bearer {who.text}"}
    url = f"{who.service.url}/v1/journals/demo/stream"
    async with who.service.session.get(url, params={"since": since} | parameters, headers=headers) as response:
        yield Source(response)


async def standing(who: Bearer) -> str:
    """The cursor of what somebody may read by now."""
    cursor: str = (await who.call("GET", "demo")).json["cursor"]
    return cursor


async def until(source: Source, name: str) -> Any:
    """The data of the next event of that name."""
    while True:
        event = await source.next()
        assert event is not None, f"it ended without {name}"
        if event.name == name:
            return event.data


# Tokens.


@pytest.mark.parametrize("hears", [True, False])
async def test_a_revoked_token_is_nobodys_within_a_second_on_all_processes(
    service: Harness, tmp_path: Path, hears: bool
) -> None:
    async with serving(service.dsn, tmp_path) as other:
        await listening(other)
        for one in (service, other):
            if not hears:  # a notification that is lost costs no more than the second
                one.service.watch.listener.door_heard = lambda turn: None
        who = await bearer(service, BOTH)
        there = Bearer(other, who.text)
        assert [(await one.call("GET", "demo")).status for one in (who, there)] == [200, 200]

        revoked_at = await revoke(service, who)
        last = [revoked_at, revoked_at]
        while time.monotonic() - revoked_at < 2 * IN_FORCE_S:
            for place, holder in enumerate((who, there)):
                sent_at = time.monotonic()
                if (await holder.call("GET", "demo")).status == 200:
                    last[place] = sent_at

        assert max(last) - revoked_at < IN_FORCE_S


async def test_a_token_is_not_believed_for_longer_than_a_second_while_postgresql_is_away(
    database: str, tmp_path: Path
) -> None:
    async with proxied(database) as proxy, serving(proxy.dsn, tmp_path) as service:
        await service.create("demo")
        who = await bearer(service, BOTH)
        assert (await who.call("GET", "demo")).status == 200

        proxy.refuse()
        away_at = time.monotonic()

        async def status() -> int:
            return (await who.call("GET", "demo")).status

        async def is_503() -> bool:
            return await status() == 503

        await eventually(is_503)
        assert time.monotonic() - away_at < BELIEVED_S + 1.5
        await proxy.accept()

        async def is_200() -> bool:
            return await status() == 200

        await eventually(is_200)


async def test_the_first_token_closes_the_service_for_good(service: Harness) -> None:
    async with stream(Bearer(service, None)) as source:
        await until(source, "deltas")
        who = await bearer(service, BOTH)

        assert (await service.call("GET", "demo")).status == 401
        assert await until(source, "auth") == {"reason": "revoked"}
        assert await source.next() is None
    await revoke(service, who)
    await eventually(await refused(who))
    assert (await service.call("GET", "demo")).status == 401
    await service.query("delete from journal.token")
    await service.service.access.begin()
    assert (await service.call("GET", "demo")).status == 401


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic am9lOmpvZQ==",
        "Bearer x",
        "Bearer jc_short",
        "Bearer jc_" + "a" * 43,
        "Bearer a.b.c",
    ],
)
async def test_who_bears_nothing_that_is_known_is_told_how_to(service: Harness, authorization: str) -> None:
    await bearer(service, BOTH)

    reply = await service.call("GET", "demo", headers={"Authorization": authorization})

    assert (reply.status, reply.json["code"]) == (401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
    assert reply.headers["Cache-Control"] == "no-store"


async def test_a_token_that_has_expired_is_nobodys(service: Harness) -> None:
    who = await bearer(service, BOTH, ends_in_s=1.0)
    assert (await who.call("GET", "demo")).status == 200

    await eventually(await refused(who))

    assert (await service.query("select used_at from journal.token"))[0]["used_at"] is None
    await service.service.access.flush()
    assert (await service.query("select used_at from journal.token"))[0]["used_at"] is not None


async def test_a_token_with_another_secret_is_who_it_was(service: Harness) -> None:
    who, client = await bearer(service, BOTH), str(uuid4())
    assert (await who.call("POST", "demo/changes", json={"changes": [], "client": client, "push": 1})).status == 200
    text, hash_ = access.new_token(is_operators=False)

    assert await doors.rotate(database_of(service), who.number, hash_, None)

    await eventually(await refused(who))
    again = await Bearer(service, text).call("POST", "demo/changes", json={"changes": [], "client": client, "push": 1})
    assert (again.status, again.json["replayed"]) == (200, True)


async def test_the_secret_is_nowhere_in_the_database(service: Harness) -> None:
    who = await bearer(service, BOTH)
    ticket = (await who.call("POST", "demo/stream-tickets")).json["ticket"]

    rows = await service.query("select t::text from journal.token t union all select k::text from journal.ticket k")

    assert who.text is not None
    assert len(rows) == 2
    assert not any(secret in row[0] for row in rows for secret in (who.text, who.text[3:], ticket))


# What is under way when they change.


async def test_who_waits_for_news_is_not_told_any_after_the_token_was_revoked(service: Harness) -> None:
    who, writer = await bearer(service, BOTH), await bearer(service, BOTH)
    at = (await who.call("GET", "demo")).json["cursor"]
    waiting = asyncio.create_task(who.call("GET", "demo/deltas", params={"since": at, "wait": "20"}))
    await revoke(service, who)
    await eventually(await refused(who))

    await writer.call("POST", "demo/changes", json={"changes": [insert("todo", "new")]})

    reply = await waiting
    assert (reply.status, reply.json["code"]) == (401, "unauthenticated")


async def test_who_waits_for_news_is_judged_by_the_grants_of_when_there_are_some(service: Harness) -> None:
    who, writer = await bearer(service, BOTH), await bearer(service, BOTH)
    at = (await who.call("GET", "demo")).json["cursor"]
    waiting = asyncio.create_task(who.call("GET", "demo/deltas", params={"since": at, "wait": "20"}))
    await asyncio.sleep(0)
    await grant(service, who, may("read", of="todo"))

    async def is_known() -> bool:
        return bool((await who.call("GET", "demo")).json["atoms"] == 1)

    await eventually(is_known)
    await writer.call("POST", "demo/changes", json={"changes": [insert("other", "new")]})

    reply = await waiting
    assert (reply.status, reply.json["reason"], reply.json["granted"]) == (410, "scope", ["todo"])


async def test_p8_a_grant_that_grows_or_shrinks_is_told_to_its_clients(service: Harness) -> None:
    who = await bearer(service, may("read", of="todo"))
    first = (await who.call("GET", "demo/deltas", params={"since": "0"})).json["cursor"]

    async def asked(since: str, status: int, **parameters: str) -> Reply:
        async def answered() -> Reply | None:
            reply = await who.call("GET", "demo/deltas", params={"since": since} | parameters)
            return reply if reply.status == status else None

        reply: Reply = await eventually(answered)
        return reply

    await grant(service, who, may("read", of="todo,other"))
    grown = await asked(first, 410)
    assert (grown.json["reason"], grown.json["collections"], grown.json["reconcile"]) == ("scope", ["other"], "replace")
    assert (await asked(first, 200, collections="todo")).json["deltas"] == []
    location = (await who.call("GET", "demo/snapshot")).headers["Location"]
    lines = (await who.call("GET", location)).lines
    assert {line["collection"] for line in lines[1:-1]} == {"todo", "other"}
    both = lines[0]["cursor"]
    assert (await asked(both, 200)).json["deltas"] == []

    await grant(service, who, may("read", of="other"))
    shrunk = await asked(both, 410)
    assert (shrunk.json["reason"], shrunk.json["granted"]) == ("scope", ["other"])
    assert (await asked(both, 410, collections="todo,other")).json["granted"] == ["other"]
    assert (await asked(both, 410, collections="todo")).json["granted"] == ["other"]
    bare = ":".join(both.split(":")[:3])  # which is of everything
    assert (await asked(bare, 410)).json["granted"] == ["other"]
    sync = await who.call("POST", "demo/sync", json={"since": both})
    assert (sync.status, sync.json["granted"]) == (410, ["other"])


async def test_a_stream_ends_within_a_second_of_its_token(service: Harness) -> None:
    who, writer = await bearer(service, BOTH), await bearer(service, BOTH)
    async with stream(who, await standing(who)) as source:
        await until(source, "bookmark")

        revoked_at = await revoke(service, who)
        assert await until(source, "auth") == {"reason": "revoked"}
        assert time.monotonic() - revoked_at < IN_FORCE_S
        assert await source.next() is None
    assert (await writer.call("GET", "demo")).status == 200


async def test_a_stream_is_told_before_its_token_ends_and_when_it_has(service: Harness) -> None:
    who = await bearer(service, BOTH, ends_in_s=access.WARNED_S + 1.0)
    begun_at = time.monotonic()
    async with stream(who, await standing(who)) as source:
        await until(source, "bookmark")
        told = await until(source, "auth")
        assert (told["reason"], told["in_s"]) == ("expires", round(access.WARNED_S))
        assert time.monotonic() - begun_at > 0.8

    short = await bearer(service, BOTH, ends_in_s=1.5)
    async with stream(short) as source:
        assert (await until(source, "auth"))["in_s"] <= 2
        assert await until(source, "auth") == {"reason": "expired"}
        assert await source.next() is None


@pytest.mark.parametrize(("before", "after"), [("todo", "todo,other"), ("todo,other", "todo")])
async def test_a_stream_is_told_at_once_that_its_grant_grows_or_shrinks(
    service: Harness, before: str, after: str
) -> None:
    who = await bearer(service, may("read", of=before))
    async with stream(who, await standing(who)) as source:
        await until(source, "bookmark")

        await grant(service, who, may("read", of=after))

        told = await until(source, "resync")
        assert (told["reason"], told.get("granted")) == ("scope", None if len(after) > len(before) else ["todo"])


async def test_a_download_that_goes_on_for_long_is_cut_off_when_its_token_is_revoked(service: Harness) -> None:
    for n in range(15):
        large = [insert("todo", f"large {n} {m}", {"text": str(uuid4()) * 2000}) for m in range(10)]
        await service.pushed(large, "demo")
    who = await bearer(service, BOTH)
    location = (await who.call("GET", "demo/snapshot")).headers["Location"]
    headers = {"Authorization": f"Bearer {who.text}", "Accept-Encoding": "identity"}
    async with service.session.get(service.url + location, headers=headers) as response:
        size = int(response.headers["Content-Length"])
        assert size > 10_000_000
        got = len(await response.content.readexactly(1000))

        await revoke(service, who)
        await eventually(await refused(who))
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in response.content.iter_any():
                got += len(piece)

    assert got < size


# Tickets.


async def test_a_ticket_is_for_one_use_of_the_stream(service: Harness, caplog: pytest.LogCaptureFixture) -> None:
    who = await bearer(service, may("read", of="todo"))
    made = await who.call("POST", "demo/stream-tickets")
    ticket = made.json["ticket"]
    assert (made.status, made.json["expires_in"], made.headers["Cache-Control"]) == (201, 60, "no-store")
    nobody = Bearer(service, None)

    async with stream(nobody, ticket=ticket) as source:
        assert [delta["atom"] for delta in (await until(source, "deltas"))["deltas"]] == ["a"]
        async with stream(nobody, ticket=ticket) as second:
            assert second.status == 401
        await revoke(service, who)
        assert await until(source, "auth") == {"reason": "revoked"}
    assert ticket not in caplog.text


async def test_a_ticket_is_for_its_journal_its_minute_and_the_stream_alone(service: Harness) -> None:
    who = await bearer(service, BOTH, may("read", "write", "read", journal="*"))
    nobody = Bearer(service, None)

    async def ticket() -> str:
        text: str = (await who.call("POST", "demo/stream-tickets")).json["ticket"]
        return text

    assert (await nobody.call("GET", "demo/deltas", params={"since": "0", "ticket": await ticket()})).status == 401
    assert (await nobody.call("HEAD", "demo/stream", params={"since": "0", "ticket": await ticket()})).status == 401
    elsewhere = await service.query("insert into journal.journal (name) values ('else') returning id")
    await service.query(
        "insert into journal.head (journal_id, epoch) values ($1, '\\x000000000000')", elsewhere[0]["id"]
    )
    taken = await nobody.call("GET", "else/stream", params={"since": "0", "ticket": await ticket()})
    assert taken.status == 401
    late = await ticket()
    await service.query("update journal.ticket set expires_at = now() - interval '1 s'")
    async with stream(nobody, ticket=late) as source:
        assert source.status == 401
    for wrong in ("", "x", "a" * 43, "a" * 10_000):
        async with stream(nobody, ticket=wrong) as source:
            assert source.status == 401


async def test_of_many_who_use_a_ticket_at_once_one_gets_the_stream(service: Harness, tmp_path: Path) -> None:
    who = await bearer(service, BOTH)
    ticket = (await who.call("POST", "demo/stream-tickets")).json["ticket"]
    async with serving(service.dsn, tmp_path) as other:
        await other.service.access.begin()

        async def tried(one: Harness) -> int:
            async with stream(Bearer(one, None), ticket=ticket) as source:
                return source.status

        found = await asyncio.gather(*(tried(one) for one in (service, other) * 5))

    assert sorted(found) == [200] + [401] * 9


# Whose a client is.


async def test_a_clients_id_belongs_to_who_used_it_first(service: Harness) -> None:
    ours, theirs = await bearer(service, BOTH), await bearer(service, BOTH)
    client = str(uuid4())
    push = {"changes": [insert("todo", "mine", {"secret": 1})], "client": client, "push": 1}
    assert (await ours.call("POST", "demo/changes", json=push)).status == 200
    at = (await ours.call("GET", "demo")).json["cursor"]

    for method, path, arguments in (
        ("POST", "demo/changes", {"json": push}),
        ("POST", "demo/changes", {"json": {"changes": [], "client": client, "push": 1}}),
        ("POST", "demo/sync", {"json": {"since": at, "client": client}}),
        ("GET", "demo/deltas", {"params": {"since": at, "client": client}}),
        ("GET", "demo/stream", {"params": {"since": at, "client": client}}),
    ):
        reply = await theirs.call(method, path, **arguments)
        assert (reply.status, reply.json["code"]) == (403, "client_taken"), path
    again = await ours.call("POST", "demo/changes", json=push)
    assert (again.status, again.json["replayed"]) == (200, True)


async def test_of_two_who_use_an_id_first_at_the_same_moment_one_owns_it(service: Harness, tmp_path: Path) -> None:
    async with serving(service.dsn, tmp_path) as other:
        who = [await bearer(service, BOTH) for _ in range(6)]
        await other.service.access.begin()  # it was open less than a second ago
        who = [Bearer(one, each.text) for each, one in zip(who, (service, other) * 3, strict=True)]
        client = str(uuid4())

        replies = await asyncio.gather(
            *(one.call("GET", "demo/deltas", params={"since": "0", "client": client}) for one in who)
        )

        assert sorted(reply.status for reply in replies) == [200] + [403] * 5


async def test_an_idempotency_key_is_its_senders(service: Harness) -> None:
    ours, theirs = await bearer(service, BOTH), await bearer(service, BOTH)

    async def pushed(who: Bearer, atom: str) -> Reply:
        return await who.call(
            "POST", "demo/changes", json={"changes": [insert("todo", atom)]}, headers={"Idempotency-Key": "k"}
        )

    assert (await pushed(ours, "x")).json["replayed"] is False
    assert (await pushed(ours, "x")).json["replayed"] is True
    assert (await pushed(theirs, "y")).json["replayed"] is False  # and neither 422 nor what the other was answered


async def test_p9_of_a_push_what_its_sender_may_not_write_is_rejected_and_the_rest_recorded(service: Harness) -> None:
    who = await bearer(service, may("read", "write", of="todo"))
    push = [insert("todo", "new"), insert("other", "new"), put("other", "b", {"n": 2}, if_data={"n": 1})]

    told = (await who.call("POST", "demo/changes", json={"changes": push})).json

    assert [outcome["status"] for outcome in told["outcomes"]] == ["applied", "rejected", "rejected"]
    assert {outcome["error"]["code"] for outcome in told["outcomes"][1:]} == {"forbidden"}
    assert [row["atom"] for row in await service.query("select atom from journal.change order by revision")] == [
        "a", "b", "new"
    ]  # fmt: skip


async def test_who_is_called_back_is_not_told_of_collections_that_are_not_granted(service: Harness) -> None:
    at = (await service.call("GET", "demo")).json
    await service.call("POST", "demo/resync", json={"reason": "x", "collections": ["other", "todo"]})
    who = await bearer(service, may("read", "write", of="todo"))

    base = ":".join(at["cursor"].split(":")[:3])
    pushed = await who.call("POST", "demo/changes", json={"changes": [insert("todo", "n")], "base": base})
    asked = await who.call("GET", "demo/deltas", params={"since": f"{base}:collections=todo"})

    assert (pushed.status, pushed.json["collections"]) == (410, ["todo"])
    assert (asked.status, asked.json["collections"]) == (410, ["todo"])
