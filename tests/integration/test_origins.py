"""Origins: pages of others read and change nothing, forged requests included; whom an operator lists may."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from journal.config import Memory, Walls
from journal.web.origins import EXPOSED
from journal.web.routes import Routes
from journal.web.routing import Need
from tests.doors import Bearer, bearer, may
from tests.harness import Harness, Reply, insert, serving

APP, EVIL = "https://app.example", "https://evil.example"
EVERY = "*"
LARGE = 2500  # atoms: their deltas do not fit into memory's answers


@pytest.fixture
async def listed(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """A service that pages of APP may use; answers beyond 64 KiB come in pieces."""
    walls, memory = Walls(cors_origins=(APP,)), Memory(ring_changes=10, answer_bytes=64 << 10)
    async with serving(database, tmp_path, walls=walls, memory=memory) as running:
        await running.create("j")
        await running.pushed([insert("todo", f"{n}", {"text": "x" * 50}) for n in range(LARGE)])
        yield running


def own(service: Harness) -> str:
    """The service's own origin."""
    return service.url


def may_read(reply: Reply, origin: str | None) -> bool:
    """Whether a browser lets a page of that origin read the answer."""
    allowed = reply.headers.get("Access-Control-Allow-Origin")
    assert "Access-Control-Allow-Credentials" not in reply.headers
    if allowed is not None:
        assert reply.headers["Access-Control-Expose-Headers"] == EXPOSED
    return allowed is not None and allowed in (origin, EVERY)


def varies(reply: Reply) -> set[str]:
    """What caches keep answers apart by."""
    return {name.strip() for line in reply.headers.getall("Vary", []) for name in line.split(",")}


# Forged requests (CSRF).


def changing(service: Harness) -> list[tuple[str, str]]:
    """Every route that is no GET, on a journal that is there."""
    id_ = uuid4()
    routes = [route for route in Routes(service.service).table() if route.method != "GET"]
    assert len(routes) > 10
    return [(route.method, route.path.format(j="j", id=id_)) for route in routes]


FORGED: list[dict[str, str]] = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://localhost:1"},
    {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
]


@pytest.mark.parametrize("headers", FORGED, ids=str)
async def test_a_page_of_others_changes_nothing_by_any_route(service: Harness, headers: dict[str, str]) -> None:
    before = await service.head()

    for method, path in changing(service):
        reply = await service.call(method, path, headers=headers)

        assert (reply.status, reply.json["code"]) == (403, "forbidden"), (method, path)
        assert not may_read(reply, EVIL)
    assert await service.head() == before
    assert (await service.call("GET", "j/operations")).json["operations"] == []


async def test_a_form_that_needs_no_body_starts_nothing(service: Harness) -> None:
    """As browsers send it: <form method=post action=…/check>, on a page of somebody else's."""
    headers = {
        "Origin": EVIL, "Referer": f"{EVIL}/", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
        "Content-Type": "application/x-www-form-urlencoded",
    }  # fmt: skip

    reply = await service.call("POST", "j/check", data=b"", headers=headers)

    assert reply.status == 403
    assert (await service.call("GET", "j/operations")).json["operations"] == []


async def test_the_console_and_what_is_no_browser_go_on(service: Harness) -> None:
    for headers in (
        {},
        {"Origin": own(service)},
        {"Origin": own(service), "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        reply = await service.call("POST", "j/lookup", json={"get": {}}, headers=headers)

        assert reply.status == 200, headers


async def test_a_page_that_was_listed_may_change_things(listed: Harness) -> None:
    for origin, status in ((APP, 200), (EVIL, 403), ("null", 403)):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        body = {"changes": [insert("todo", origin)]}
        reply = await listed.call("POST", "j/changes", json=body, headers=headers)

        assert reply.status == status
        assert may_read(reply, origin) is (status == 200)


async def test_a_forged_request_is_refused_with_a_token_too(service: Harness) -> None:
    operator = await bearer(service, may("operate", journal="*"))

    assert (await operator.call("POST", "j/check", headers={"Origin": EVIL})).status == 403
    assert (await operator.call("POST", "j/check", headers={"Origin": own(service)})).status in (200, 202)


# Hosts (DNS rebinding).

HOSTS = {
    "127.0.0.1:8470": 200,
    "127.8.9.10": 200,
    "localhost:8470": 200,
    "LOCALHOST": 200,
    "app.localhost:3000": 200,
    "[::1]:8470": 200,
    "192.0.2.1:8470": 200,
    "evil.example": 421,
    "evil.example:8470": 421,
    "localhost.evil.example": 421,
    "127.0.0.1.evil.example": 421,
    "": 421,
    "journal.example": 421,
}


@pytest.mark.parametrize(("host", "status"), HOSTS.items())
async def test_while_it_needs_no_token_it_is_known_as_localhost_only(service: Harness, host: str, status: int) -> None:
    """A name of theirs that suddenly means 127.0.0.1 makes the service a part of their page's origin."""
    for method, path in (("GET", "/v1"), ("GET", "j"), ("POST", "j/check"), ("GET", "/console"), ("GET", "/nowhere")):
        reply = await service.call(method, path, headers={"Host": host, "Origin": f"http://{host}"})

        assert (reply.status == 421) is (status == 421), (method, path)
        if status == 421:
            assert reply.json["code"] == "misdirected"


async def test_names_may_be_added(database: str, tmp_path: Path) -> None:
    async with serving(
        database, tmp_path, walls=Walls(allowed_hosts=("journal.example", "Second.Example."))
    ) as service:
        for host, status in (("journal.example:443", 200), ("second.example", 200), ("third.example", 421)):
            assert (await service.call("GET", "/v1", headers={"Host": host})).status == status


async def test_with_tokens_any_name_will_do(service: Harness) -> None:
    reader = await bearer(service, may("read", journal="j"))

    assert (await reader.call("GET", "j", headers={"Host": "journal.example"})).status == 200
    assert (await service.call("GET", "j", headers={"Host": "journal.example"})).status == 401


# Pages that were listed (CORS).


async def test_nobody_is_listed_by_default(service: Harness) -> None:
    for method, path in (("GET", "j"), ("GET", "j/deltas?since=0"), ("GET", "/nowhere"), ("OPTIONS", "j")):
        headers = {"Origin": EVIL, "Access-Control-Request-Method": "GET"}
        reply = await service.call(method, path, headers=headers)

        assert not any(name.lower().startswith("access-control") for name in reply.headers)
        assert "Origin" not in varies(reply)


ASKED: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "j", {}, 200),
    ("HEAD", "j", {}, 200),
    ("GET", "j/deltas?since=HEAD", {}, 200),
    ("GET", "j/deltas?since=0", {}, 200),
    ("GET", "j/deltas?since=0&format=ndjson", {"Accept-Encoding": "gzip"}, 200),
    ("GET", "j/deltas", {}, 400),
    ("GET", "j/deltas?since=0", {"Accept": "text/html"}, 406),
    ("GET", "j/deltas?since=000000000000:1:0123456789abcdef", {}, 410),
    ("GET", "no-such", {}, 404),
    ("GET", "/nowhere", {}, 404),
    ("GET", "/%0A", {}, 404),
    ("DELETE", "/v1", {}, 405),
    ("GET", "j/snapshot", {}, 303),
    ("GET", "SNAPSHOT", {}, 200),
    ("GET", "SNAPSHOT", {"Range": "bytes=0-9"}, 206),
    ("GET", "SNAPSHOT", {"Range": "bytes=999999999-"}, 416),
    ("POST", "j/changes", {"Content-Type": "application/json"}, 400),
    ("POST", "j/changes", {"Content-Type": "text/plain"}, 415),
    ("GET", "/v1", {"Host": "evil.example"}, 421),
    ("GET", "j/audit", {}, 200),
]


async def test_a_listed_page_reads_every_kind_of_answer_and_others_none(listed: Harness) -> None:
    snapshot = (await listed.call("GET", "j/snapshot")).headers["Location"]
    cursor = (await listed.head())["cursor"]
    for method, path, headers, status in ASKED:
        path = snapshot if path == "SNAPSHOT" else path.replace("HEAD", cursor)
        for origin in (APP, EVIL, None):
            said = headers if origin is None else headers | {"Origin": origin}
            reply = await listed.call(method, path, headers=said, data=b"" if method == "POST" else None)

            is_forged = origin == EVIL and method in ("POST", "DELETE")
            assert reply.status == (403 if is_forged else status), (method, path, origin)
            assert may_read(reply, origin) is (origin == APP), (method, path, origin)
            assert "Origin" in varies(reply), (method, path, origin)


async def test_what_a_page_has_is_not_answered_again(listed: Harness) -> None:
    known = (await listed.call("GET", "j")).headers["ETag"]

    reply = await listed.call("GET", "j", headers={"If-None-Match": known, "Origin": APP})

    assert reply.status == 304
    assert may_read(reply, APP)


async def test_a_listed_page_follows_a_stream(listed: Harness) -> None:
    for origin, is_told in ((APP, APP), (EVIL, None)):
        url = f"{listed.url}/v1/journals/j/stream?since={(await listed.head())['cursor']}"
        async with listed.session.get(url, headers={"Origin": origin}) as response:
            assert response.headers.get("Access-Control-Allow-Origin") == is_told
            assert response.headers["Vary"] == "Origin"
            assert (await response.content.readline()).startswith(b"retry: ")


async def test_a_browser_that_asks_first_is_told_what_may_be_sent(listed: Harness) -> None:
    await bearer(listed, may("read", journal="j"))  # nobody sends a token with that question
    asking = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }

    for path in ("j/changes", "j/stream-tickets", "/nowhere"):
        reply = await listed.call("OPTIONS", path, headers=asking)

        assert (reply.status, reply.body) == (204, b"")
        assert may_read(reply, APP)
        allowed = {name.strip().lower() for name in reply.headers["Access-Control-Allow-Headers"].split(",")}
        assert {"authorization", "content-type", "idempotency-key", "last-event-id", "if-none-match"} <= allowed
        assert {"POST", "PUT", "DELETE"} <= set(reply.headers["Access-Control-Allow-Methods"].split(", "))
        assert reply.headers["Access-Control-Max-Age"] == "7200"
        assert {"Origin", "Access-Control-Request-Headers"} <= varies(reply)
    for headers in ({**asking, "Origin": EVIL}, {"Origin": APP}, {}):
        reply = await listed.call("OPTIONS", "j/changes", headers=headers)
        assert (reply.status, "Access-Control-Allow-Headers" in reply.headers) == (405, False)


async def test_every_header_that_a_page_could_need_is_exposed(listed: Harness) -> None:
    safelisted = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
    of_browsers = {"vary", "server", "connection", "transfer-encoding", "content-encoding"}
    exposed = {name.strip().lower() for name in EXPOSED.split(",")}
    for method, path, headers, _ in ASKED:
        reply = await listed.call(method, path.replace("SNAPSHOT", "j/snapshot"), headers=headers | {"Origin": APP})
        sent = {name.lower() for name in reply.headers} - safelisted - of_browsers
        rest = {name for name in sent - exposed if not name.startswith(("access-control", "cross-origin", "x-content"))}

        assert rest <= {"content-security-policy"}, (method, path)


async def test_all_pages_may_be_listed_but_not_while_no_token_is_needed(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, walls=Walls(cors_origins=(EVERY,))) as service:
        await service.create("j")
        asking = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
        open_ = await service.call("GET", "j", headers={"Origin": EVIL})
        asked_first = await service.call("OPTIONS", "j/changes", headers=asking)
        changing = await service.call("POST", "j/changes", json={"changes": []}, headers={"Origin": EVIL})
        assert (open_.status, may_read(open_, EVIL)) == (200, False)
        assert (asked_first.status, changing.status) == (405, 403)

        writer = await bearer(service, may("read", "write", journal="j"))

        told = await writer.call("GET", "j", headers={"Origin": EVIL})
        unknown = await service.call("GET", "j", headers={"Origin": EVIL})
        asked_first = await service.call("OPTIONS", "j/changes", headers=asking)
        changing = await writer.call("POST", "j/changes", json={"changes": []}, headers={"Origin": EVIL})
        assert [it.status for it in (told, unknown, asked_first, changing)] == [200, 401, 204, 200]
        assert all(may_read(it, EVIL) for it in (told, unknown, asked_first, changing))


# What every answer bears.

GETS: dict[str, str] = {
    "/v1/journals/{j}/deltas": "?since=0",
    "/v1/journals/{j}/changes": "?since=0",
    "/v1/journals/{j}/cursor": "?at=CURSOR",
    "/v1/journals/{j}/stream": "?since=0",
    "/v1/journals/{j}/atom": "?collection=todo&atom=a",
    "/v1/journals/{j}/atom/history": "?collection=todo&atom=a",
}


async def every_answer(service: Harness, who: Bearer) -> AsyncIterator[tuple[str, Need, Reply]]:
    """What is answered on every route: well where it is a GET, and to a request without a body where it is none."""
    head = (await who.call("GET", "j")).json
    snapshot = (await who.call("GET", "j/snapshot")).headers["Location"]
    service.service.registry.saw("j", client := str(uuid4()), None, "a test")
    await service.service.registry.flush()
    operation = (await who.call("POST", "j/check", headers={"Prefer": "wait=20"})).json["id"]
    ids = {"clients": client, "operations": operation, "conflicts": "1"}
    for route in Routes(service.service).table():
        if route.method == "DELETE" and route.path == "/v1/journals/{j}":
            continue
        id_ = next((ids[part] for part in route.path.split("/") if part in ids), "x")
        path = route.path.format(j="j", id=id_, file="app.js") + GETS.get(route.path, "").replace(
            "CURSOR", head["cursor"]
        )
        if route.path.endswith("/snapshots/{id}"):
            path = snapshot
        if route.path.endswith("/stream"):
            headers = {"Authorization": f"Bearer {who.text}"} if who.text else {}
            async with service.session.get(service.url + path, headers=headers) as response:
                yield f"GET {path}", route.needs, Reply(response.status, response.headers.copy(), b"")
            continue
        yield f"{route.method} {path}", route.needs, await who.call(route.method, path)
    for method, path in (("GET", "/nowhere"), ("GET", "no-such"), ("PATCH", "j"), ("GET", "j/deltas"), ("HEAD", "j")):
        yield f"{method} {path}", "nothing" if path == "/nowhere" else "read", await who.call(method, path)


async def test_every_answer_says_that_it_is_no_page_and_what_it_is(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    async for told, _, reply in every_answer(service, Bearer(service, None)):
        is_page = "/console" in told or "/docs" in told

        assert reply.headers.getall("X-Content-Type-Options") == ["nosniff"], told
        assert reply.headers.getall("Cross-Origin-Resource-Policy") == ["same-origin"], told
        (policy,) = reply.headers.getall("Content-Security-Policy")
        assert "default-src 'none'" in policy, told
        assert "frame-ancestors 'none'" in policy, told
        assert is_page or "script-src" not in policy, told
        assert "unsafe" not in policy
        assert is_page == ("Permissions-Policy" in reply.headers), told


async def test_what_needed_a_token_is_for_one_caller_by_every_route(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    both = await bearer(service, may("operate", journal="*"), may("read", "write", journal="j"))
    statuses = []

    async for told, needs, reply in every_answer(service, both):
        kept = {part.strip() for part in reply.headers.get("Cache-Control", "").split(",")}
        if needs == "nothing":
            continue
        statuses.append(reply.status)
        assert kept & {"private", "no-store"}, (told, reply.status, kept)
        assert "public" not in kept, told

    assert statuses.count(200) > 15


async def test_answers_that_never_change_are_kept_by_whom_they_are_for(service: Harness) -> None:
    told = await service.pushed([insert("todo", f"{n}") for n in range(5)])
    start = f"{told['epoch']}:0:{'0' * 16}"
    path, known = f"j/deltas?since={start}&until={told['revision']}", {}
    open_ = await service.call("GET", path)
    snapshot = (await service.call("GET", "j/snapshot")).headers["Location"]
    open_file = await service.call("GET", snapshot)
    reader = await bearer(service, may("read", journal="j"))

    for it in (path, snapshot, "j", path, snapshot, "j"):
        known[it] = await reader.call("GET", it)

    assert open_.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert known[path].headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert known[path].body == open_.body
    assert known[path].headers["ETag"] == open_.headers["ETag"]
    assert open_file.headers["Cache-Control"] == "public, max-age=3600, immutable"
    assert known[snapshot].headers["Cache-Control"] == "private, max-age=3600, immutable"
    assert known["j"].headers["Cache-Control"] == "private, no-cache"
    again = await reader.call("GET", path, headers={"If-None-Match": known[path].headers["ETag"]})
    assert (again.status, again.headers["Cache-Control"]) == (304, "private, max-age=31536000, immutable")


async def test_what_was_made_for_one_kind_of_caller_is_not_told_the_other_as_its_own(
    service: Harness,
) -> None:
    """An answer's bytes are shared by the open service's callers and by tokens; its head is not."""
    await service.pushed([insert("todo", "a")])
    asked: dict[str, Any] = {"params": {"since": "0"}}
    open_ = await service.call("GET", "j/deltas", **asked)
    reader = await bearer(service, may("read", journal="j"))
    answers = await asyncio.gather(*(reader.call("GET", "j/deltas", **asked) for _ in range(3)))

    assert open_.headers["Cache-Control"] == "no-cache"
    assert {it.headers["Cache-Control"] for it in answers} == {"private, no-cache"}
    assert {it.body for it in answers} == {open_.body}
