"""The service behind JWTs: what they grant at its routes, whose clients' ids are, and one that ends during a stream."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from journal.client.events import Event, events
from journal.client.http import Http
from journal.config import Jwt
from tests.harness import Harness, Json, Reply, insert, serving
from tests.jwts import SECRET, of_secret, signer

EVERYTHING = [{"journal": "*", "can": ["operate"]}, {"journal": "*", "can": ["read", "write"]}]
TODO = [{"journal": "j", "can": ["read", "write"], "collections": ["todo"]}]


def bearing(token: str) -> Json:
    return {"headers": {"Authorization": f"Bearer {token}"}}


@pytest.fixture
async def behind(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service that believes a secret, with a journal `j` that has two collections."""
    async with serving(database, tmp_path, jwt=Jwt(secret=SECRET, jwks=str(tmp_path / "missing"))) as service:
        operator = of_secret(sub="root", journal=EVERYTHING)
        assert (await service.call("PUT", "j", **bearing(operator))).status == 201
        await pushed(service, operator, insert("todo", "a"), insert("secret", "b"))
        yield service


async def push(service: Harness, token: str, *changes: Json, **members: Any) -> Reply:
    return await service.call("POST", "j/changes", json={"changes": changes, **members}, **bearing(token))


async def pushed(service: Harness, token: str, *changes: Json) -> Json:
    reply = await push(service, token, *changes)
    assert reply.status == 200, reply.body
    return reply.json


async def test_nobody_is_let_in_without_a_token_that_holds(behind: Harness) -> None:
    for headers in (
        {},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {of_secret(exp=1)}"},
        {"Authorization": f"Bearer {of_secret('another secret of 32 characters!')}"},
        {"Authorization": f"Bearer {of_secret(journal=[{'journal': 'j', 'can': 'read'}])}"},
    ):
        reply = await behind.call("GET", "j", headers=headers)

        assert (reply.status, reply.json["code"]) == (401, "unauthenticated")
        assert reply.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_why_a_token_does_not_hold_is_told(behind: Harness) -> None:
    wrong = of_secret(journal=[{"journal": "j", "can": "read"}])

    expired = await behind.call("GET", "j", **bearing(of_secret(exp=1)))
    malformed = await behind.call("GET", "j", **bearing(wrong))

    assert expired.json["detail"] == "the token expired at 1970-01-01T00:00:01.000000Z"
    assert malformed.json["detail"] == "the token's claim journal: /0/can: expected `array`, got `str`"


async def test_who_may_read_a_collection_is_told_of_no_other(behind: Harness) -> None:
    token = of_secret(journal=[{"journal": "j", "can": ["read"], "collections": ["todo"]}])

    reply = await behind.call("GET", "j/deltas?since=0&collections=todo", **bearing(token))

    assert [delta["atom"] for delta in reply.json["deltas"]] == ["a"]
    assert (await behind.call("GET", "j/deltas?since=0&collections=secret", **bearing(token))).status == 403
    assert (await push(behind, token, insert("todo", "c"))).status == 403
    assert (await behind.call("GET", "other", **bearing(token))).status == 404
    assert (await behind.call("DELETE", "j", **bearing(token))).status == 403


async def test_somebody_who_may_do_nothing_finds_nothing(behind: Harness) -> None:
    reply = await behind.call("GET", "j", **bearing(of_secret(journal=[])))

    assert (reply.status, reply.json["code"]) == (404, "journal_not_found")


async def test_a_clients_id_belongs_to_issuer_and_subject_whatever_token_they_come_with(behind: Harness) -> None:
    client = str(uuid4())
    ada = {"iss": "https://who.example", "sub": "ada", "journal": TODO}

    first = await push(behind, of_secret(**ada), insert("todo", "c"), client=client, push=1)
    again = await push(behind, of_secret(**ada, jti="another"), insert("todo", "d"), client=client, push=2)
    bob = await push(behind, of_secret(**(ada | {"sub": "bob"})), insert("todo", "e"), client=client, push=3)
    else_ = await push(
        behind, of_secret(**(ada | {"iss": "https://e.example"})), insert("todo", "e"), client=client, push=3
    )

    assert [reply.status for reply in (first, again, bob, else_)] == [200, 200, 403, 403]


async def test_while_the_keys_cannot_be_had_the_answer_is_that_it_will_pass(behind: Harness) -> None:
    reply = await behind.call("GET", "j", **bearing(signer("ES256").token(journal=TODO)))

    assert (reply.status, reply.json["code"]) == (503, "unavailable")
    assert reply.headers["Retry-After"] == "10"
    assert (await behind.call("GET", "j", **bearing(of_secret(journal=TODO)))).status == 200


async def test_a_stream_is_told_before_its_token_ends_and_ends_with_it(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, jwt=Jwt(secret=SECRET, leeway_s=0.0)) as service:
        operator = of_secret(sub="root", journal=EVERYTHING)
        await service.call("PUT", "j", **bearing(operator))
        ends_at = time.time() + 1.5
        token = of_secret(journal=TODO, exp=ends_at)

        ticket = await service.call("POST", "j/stream-tickets", **bearing(token))
        http = Http(service.url, service.session)
        place = http.place("journals", "j", "stream").with_query(since="0", collections="todo")
        told: list[Event] = []
        async for event in events(http, place.update_query(ticket=ticket.json["ticket"]), silence_s=30):
            told.append(event)
            if len(told) == 1:
                await pushed(service, operator, insert("todo", "a"))

        assert time.time() >= ends_at
        assert [event.name for event in told if event.name == "auth"] == ["auth", "auth"]
        assert "deltas" in [event.name for event in told]
        assert (await service.call("GET", "j", **bearing(token))).status == 401
