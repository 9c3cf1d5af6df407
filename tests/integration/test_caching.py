"""Section 3.4 and 3.5: entity tags, codings, and what a cache may keep."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
import zstandard
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from journal.config import Memory
from journal.web.ready import Ready
from tests.harness import Harness, Json, Reply, delete, insert, serving, update

IMMUTABLE = "public, max-age=31536000, immutable"
VARY = "Accept, Accept-Encoding, Authorization"
PATHS = ["j/deltas?since=0", "j/deltas?since=0&include=meta", "j/deltas?since=0&until=101", "j/changes?since=0"]
SIZES = {"whole": Memory(), "in pieces": Memory(ring_changes=0, answer_bytes=100)}


async def fetch(service: Harness, path: str, accept_encoding: str | None = None, **headers: str) -> Reply:
    """A request whose answer comes as it was sent, not decompressed."""
    told = headers | {"Accept-Encoding": accept_encoding or "identity"}
    method = headers.pop("method", "GET")
    told.pop("method", None)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, f"{service.url}/v1/journals/{path}", headers=told) as response,
    ):
        return Reply(response.status, response.headers.copy(), await response.read())


def plain(reply: Reply) -> bytes:
    """The body of an answer without its coding."""
    match reply.headers.get("Content-Encoding"):
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(reply.body)
        case "gzip":
            return gzip.decompress(reply.body)
    return reply.body


@pytest.fixture(params=SIZES)
async def large(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service with a hundred atoms, told as whole bytes or in pieces."""
    async with serving(database, tmp_path, memory=SIZES[request.param]) as running:
        await running.create("j")
        await running.pushed([insert("todo", f"{n}", {"text": "x" * 50}) for n in range(100)])
        await running.pushed([insert("todo", "last")])
        yield running


async def cursors(service: Harness, *pushes: list[Json]) -> list[str]:
    """The cursors after pushes, beginning with that of nothing."""
    told = [(await service.head())["cursor"]]
    for changes in pushes:
        answer = await service.pushed(changes, on_conflict="client")
        told.append(f"{answer['epoch']}:{answer['revision']}:{answer['chain']}")
    return told


# Entity tags.


@pytest.mark.parametrize("path", PATHS)
async def test_who_has_an_answer_is_told_so(large: Harness, path: str) -> None:
    for coding in ("identity", "gzip", "zstd"):
        first = await fetch(large, path, coding)
        again = await fetch(large, path, coding, **{"If-None-Match": f'"other", {first.headers["ETag"]}'})

        assert (again.status, again.body) == (304, b"")
        assert {name: again.headers[name] for name in ("ETag", "Cache-Control", "Vary")} == {
            name: first.headers[name] for name in ("ETag", "Cache-Control", "Vary")
        }
        assert "Content-Type" not in again.headers


@pytest.mark.parametrize("path", ["j/deltas?since=0", "j/deltas?since=0&include=meta", "j/changes?since=0"])
async def test_what_changed_has_another_tag(large: Harness, path: str) -> None:
    before = await fetch(large, path)

    await large.pushed([delete("todo", "last")], on_conflict="client")
    after = await fetch(large, path, **{"If-None-Match": before.headers["ETag"]})

    assert after.status == 200
    assert after.headers["ETag"] != before.headers["ETag"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_coding_and_form_has_a_strong_tag_of_its_own(large: Harness, path: str) -> None:
    codings = ("identity", "gzip", "zstd")
    forms = ("application/json", "application/msgpack")

    replies = [await fetch(large, path, coding, Accept=form) for coding in codings for form in forms]

    tags = [reply.headers["ETag"] for reply in replies]
    assert len(set(tags)) == len(tags)
    assert not any(tag.startswith("W/") for tag in tags)


async def test_two_bodies_under_one_tag_are_one_body(large: Harness) -> None:
    for path in PATHS:
        for coding in ("identity", "gzip", "zstd"):
            once, again = [await fetch(large, path, coding) for _ in range(2)]

            assert once.headers["ETag"] == again.headers["ETag"]
            assert once.body == again.body


# Codings.


ACCEPTED = {
    "zstd": "zstd",
    "gzip": "gzip",
    "gzip, zstd": "zstd",
    "gzip;q=1, zstd;q=0.5": "gzip",
    "*": "zstd",
    "zstd;q=0, *": "gzip",
    "br": None,
    "identity": None,
    "gzip;q=0": None,
    "gzip;q=0.5, identity;q=1": None,
    "GZIP": "gzip",
}


@pytest.mark.parametrize("path", PATHS)
async def test_bodies_are_coded_as_the_requester_accepts(large: Harness, path: str) -> None:
    uncoded = await fetch(large, path)

    for accepted, coding in ACCEPTED.items():
        reply = await fetch(large, path, accepted)

        assert (accepted, reply.headers.get("Content-Encoding")) == (accepted, coding)
        assert plain(reply) == uncoded.body
        assert reply.headers["Vary"] == VARY


async def test_small_bodies_are_not_coded(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    reply = await fetch(service, "j/deltas?since=0", "zstd, gzip")

    assert "Content-Encoding" not in reply.headers
    assert reply.headers["Vary"] == VARY


@pytest.mark.parametrize("path", ["/v1/journals", "j/collections", "j/atom/history?collection=todo&atom=a"])
async def test_any_body_over_a_kilobyte_is_coded(service: Harness, path: str) -> None:
    for n in range(20):
        await service.create(f"journal-{n}")
        await service.pushed([insert("todo" if n == 0 else f"collection {n}", "a", {"text": "x" * 2000})])

    reply = await fetch(service, path if path.startswith("j") else f"..{path.removeprefix('/v1')}", "zstd")

    assert reply.status == 200
    assert reply.headers["Content-Encoding"] == "zstd"
    assert len(plain(reply)) > 1024


async def test_the_answer_of_a_push_over_a_kilobyte_is_coded(service: Harness) -> None:
    reply = await service.call(
        "POST",
        "j/changes",
        json={"changes": [insert("todo", f"{n}") for n in range(100)]},
        headers={"Accept-Encoding": "gzip"},
    )

    assert reply.headers["Content-Encoding"] == "gzip"
    assert len(reply.json["outcomes"]) == 100


# HEAD.


@pytest.mark.parametrize("path", PATHS)
async def test_head_tells_what_get_would_but_for_the_body(large: Harness, path: str) -> None:
    for coding in ("identity", "gzip"):
        told, bodiless = [await fetch(large, path, coding, method=method) for method in ("GET", "HEAD")]

        assert (bodiless.status, bodiless.body) == (200, b"")
        for name in ("ETag", "Content-Type", "Cache-Control", "Vary", "Content-Encoding", "Content-Length"):
            assert bodiless.headers.get(name) == told.headers.get(name)


# What never changes.


@pytest.mark.parametrize("way", [{}, {"collections": "todo"}, {"include": "meta,revisions"}, {"format": "ndjson"}])
async def test_an_answer_to_a_fixed_end_from_a_cursor_never_changes(service: Harness, way: Json) -> None:
    since, middle, _ = await cursors(service, [insert("todo", "a")], [insert("todo", "b")])

    before = await service.deltas(since, until=1, **way)
    await service.pushed([delete("todo", "a")], on_conflict="client")
    after = await service.deltas(since, until=1, **way)
    empty = await service.deltas(middle, until=1, **way)

    assert before.headers["Cache-Control"] == after.headers["Cache-Control"] == IMMUTABLE
    assert (before.headers["ETag"], before.body) == (after.headers["ETag"], after.body)
    assert empty.headers["Cache-Control"] == IMMUTABLE


async def test_a_round_to_a_fixed_end_never_changes_page_by_page(service: Harness) -> None:
    since, *_ = await cursors(service, *([insert("todo", f"{n}")] for n in range(3)))

    first = await service.deltas(since, until=3, limit=1)
    second = await service.deltas(first.json["cursor"], until=3, limit=1)
    same = await service.deltas(first.json["cursor"], limit=1)

    assert [reply.headers["Cache-Control"] for reply in (first, second)] == [IMMUTABLE] * 2
    assert same.body == second.body


async def test_all_else_may_change(service: Harness) -> None:
    since, end, _ = await cursors(service, [insert("todo", "a")], [insert("todo", "b")])

    replies = [
        await service.deltas(since),
        await service.deltas(end),
        await service.deltas(0, until=1),
        await service.deltas(since, until=1, client=str(uuid4())),
        await service.deltas(since, include="revisions"),
        await service.deltas(since, include="meta"),
        await service.deltas(since, limit=1),
    ]

    assert [reply.headers["Cache-Control"] for reply in replies] == ["no-cache"] * len(replies)


async def test_what_is_wrong_is_not_kept(service: Harness) -> None:
    [since] = await cursors(service)

    replies = [await service.deltas(since, until=1), await service.deltas(7), await service.deltas(0, "never")]

    assert [reply.status for reply in replies] == [400, 410, 404]
    assert [reply.headers["Cache-Control"] for reply in replies] == ["no-store"] * 3


async def test_every_request_has_an_id(service: Harness) -> None:
    known = await service.call("GET", "j", headers={"X-Request-Id": "mine-7"})
    others = [await service.call("GET", path) for path in ("j", "never", "j/deltas?since=x", "j/nowhere")]

    assert known.headers["X-Request-Id"] == "mine-7"
    ids = [reply.headers["X-Request-Id"] for reply in others]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", ["j", "j/deltas?since=0", "j/deltas?since=3"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_what_is_written_beneath_aiohttp_is_what_aiohttp_would_write(
    service: Harness, monkeypatch: pytest.MonkeyPatch, path: str, coding: str
) -> None:
    """Which it does where the connection is to be closed."""
    await service.pushed([insert("todo", f"{n}", {"t": "x" * 400}) for n in range(3)])
    await service.pushed([insert("todo", "last")])
    prepare, written = Ready.prepare, list[Ready]()

    async def noted(self: Ready, request: web.BaseRequest) -> AbstractStreamWriter:
        written.append(self)
        return await prepare(self, request)

    monkeypatch.setattr(Ready, "prepare", noted)
    beneath = await fetch(service, path, coding)
    above = await fetch(service, path, coding, Connection="close")

    assert [ready.status for ready in written] == [200]
    assert (beneath.status, beneath.body) == (above.status, above.body)
    assert without_request(beneath) == without_request(above)


async def test_a_pushs_answer_beneath_aiohttp_is_what_aiohttp_would_write(service: Harness) -> None:
    for change, status in ((insert("todo", "a"), 200), (update("todo", "none", {"n": 1}, if_data={"n": 0}), 409)):
        body = {"changes": [change], "atomic": True}
        beneath, above = [
            await service.call("POST", "j/changes", json=body, headers={"Idempotency-Key": f"{status}"} | headers)
            for headers in ({}, {"Connection": "close"})
        ]

        assert beneath.status == above.status == status
        assert above.json == beneath.json | {"replayed": True}
        assert without_request(beneath).keys() == without_request(above).keys()


def without_request(reply: Reply) -> dict[str, str]:
    """The headers but for those that each answer has of its own."""
    own = ("date", "x-request-id", "connection")
    return {name.lower(): value for name, value in reply.headers.items() if name.lower() not in own}
