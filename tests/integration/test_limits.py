"""Limits: how much one token and one address may have at once, each at its edge, and that nobody pays for another."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from journal.config import Limits, Walls
from journal.web.walls import shared
from tests.doors import bearer, may
from tests.harness import Harness, Json, Reply, eventually, insert, serving

AS_JSON = {"Content-Type": "application/json"}
HERE = ("127.0.0.1/32",)


@asynccontextmanager
async def walled(database: str, folder: Path, **walls: Any) -> AsyncIterator[Harness]:
    """The service behind a proxy that is trusted: requests come from wherever their X-Forwarded-For says."""
    async with serving(database, folder, walls=Walls(trusted_proxies=HERE, **walls)) as running:
        await running.create("j")
        await running.pushed([insert("todo", "a")])
        yield running


def out_of(address: str, **headers: str) -> dict[str, str]:
    """The headers of a request from there."""
    return {"X-Forwarded-For": address} | headers


async def head(service: Harness, address: str) -> Reply:
    return await service.call("GET", "j", headers=out_of(address))


def limited(reply: Reply) -> int:
    """In how many seconds one who was told 429 may come again."""
    assert (reply.status, reply.headers["Content-Type"]) == (429, "application/problem+json")
    told = reply.json
    assert (told["code"], told["status"]) == ("rate_limited", 429)
    assert reply.headers["Cache-Control"] == "no-store"
    return int(reply.headers["Retry-After"])


# Requests a second.


async def test_an_address_that_asks_too_often_is_told_when_to_come_again(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=1, requests_at_once=5) as service:
        replies = [await head(service, "198.51.100.1") for _ in range(6)]
        assert [reply.status for reply in replies[:5]] == [200] * 5
        wait = limited(replies[5])
        assert wait == 1
        assert (await head(service, "198.51.100.2")).status == 200

        await asyncio.sleep(wait)

        assert (await head(service, "198.51.100.1")).status == 200
        limited(await head(service, "198.51.100.1"))


async def test_what_somebody_writes_of_himself_does_not_make_him_another(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=3) as service:
        said = [f"203.0.113.{n}, 198.51.100.1" for n in range(4)]  # the last was written by our proxy

        statuses = [(await head(service, it)).status for it in said]

        assert statuses == [200, 200, 200, 429]


async def test_a_customer_with_version_6_is_one_address(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=3) as service:
        statuses = [(await head(service, f"2001:db8:1:2::{n:x}")).status for n in range(4)]

        assert statuses == [200, 200, 200, 429]
        assert (await head(service, "2001:db8:1:3::1")).status == 200


async def test_forwarded_counts_where_the_proxy_writes_that(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=2) as service:
        headers = {"Forwarded": "for=203.0.113.7, for=198.51.100.1;proto=https"}
        statuses = [(await service.call("GET", "j", headers=headers)).status for _ in range(3)]

        assert statuses == [200, 200, 429]


async def test_nobody_is_believed_who_is_no_proxy_of_ours(database: str, tmp_path: Path) -> None:
    walls = Walls(unlimited=(), requests_per_s=0.1, requests_at_once=3)
    async with serving(database, tmp_path, walls=walls) as service:
        statuses = [(await service.call("GET", "/v1", headers=out_of(f"198.51.100.{n}"))).status for n in range(4)]

        assert statuses == [200, 200, 200, 429]


async def test_this_machine_is_not_limited_unless_told_so(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, walls=Walls(requests_per_s=0.1, requests_at_once=1)) as service:
        statuses = {(await service.call("GET", "/v1")).status for _ in range(20)}

        assert statuses == {200}


async def test_every_route_counts_and_also_what_leads_nowhere(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=4) as service:
        asked = [("GET", "/v1"), ("GET", "/nowhere"), ("OPTIONS", "j"), ("POST", "j/changes"), ("GET", "/v1")]
        statuses = [(await service.call(method, path, headers=out_of("198.51.100.1"))).status for method, path in asked]

        assert statuses == [200, 404, 405, 415, 429]


async def test_a_poll_that_is_held_costs_no_more_than_one_that_is_not(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=3) as service:
        cursor = (await service.call("GET", "j", headers=out_of("198.51.100.1"))).json["cursor"]
        at = f"j/deltas?since={cursor}&wait=30"
        held = [asyncio.create_task(service.call("GET", at, headers=out_of("198.51.100.1"))) for _ in range(2)]
        await asyncio.sleep(0.2)
        limited(await head(service, "198.51.100.1"))

        await service.pushed([insert("todo", "b")])

        assert [reply.status for reply in await asyncio.gather(*held)] == [200, 200]


async def test_a_token_has_its_own_rate_wherever_it_comes_from(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=4) as service:
        one = await bearer(service, may("read", journal="j"))
        other = await bearer(service, may("read", journal="j"))

        statuses = [(await one.call("GET", "j", headers=out_of(f"198.51.100.{n}"))).status for n in range(5)]

        assert statuses == [200, 200, 200, 200, 429]
        assert (await other.call("GET", "j", headers=out_of("198.51.100.9"))).status == 200
        assert limited(await one.call("GET", "j")) > 1  # from this machine, too


async def test_who_guesses_tokens_is_limited_as_an_address(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, requests_per_s=0.1, requests_at_once=4) as service:
        await bearer(service, may("read", journal="j"))
        guesses = [out_of("198.51.100.1", Authorization=f"Bearer jc_{n:043}") for n in range(5)]

        statuses = [(await service.call("GET", "j", headers=guess)).status for guess in guesses]

        assert statuses == [401, 401, 401, 401, 429]


async def test_p12_a_hundred_thousand_addresses_cost_no_more_memory_than_those_remembered(
    database: str, tmp_path: Path
) -> None:
    async with walled(database, tmp_path, requests_per_s=1, requests_at_once=1) as service:
        walls = service.walls
        assert walls._rates is not None
        for n in range(100_000):
            walls._rates.take(f"{n}", time.monotonic())

        assert len(walls._rates) == 65_536


# Streams and downloads.


async def test_an_address_has_so_many_streams_and_its_next_is_let_in_when_one_ends(
    database: str, tmp_path: Path
) -> None:
    async with walled(database, tmp_path, streams=2) as service:
        url, mine = f"{service.url}/v1/journals/j/stream?since=0", out_of("198.51.100.1")
        first, second = [await service.session.get(url, headers=mine) for _ in range(2)]
        refused = await service.call("GET", "j/stream?since=0", headers=mine)
        others = await service.session.get(url, headers=out_of("198.51.100.2"))

        assert [it.status for it in (first, second, others)] == [200, 200, 200]
        assert 5 <= limited(refused) <= 15
        assert refused.json["detail"] == "this address has 2 streams already"

        first.close()

        async def is_let_in() -> bool:
            async with service.session.get(url, headers=mine) as response:
                return response.status == 200

        await eventually(is_let_in)
        second.close()
        others.close()


async def test_an_event_source_is_told_to_come_again_since_it_would_give_up_on_an_error(
    database: str, tmp_path: Path
) -> None:
    headers = out_of("198.51.100.1", Accept="text/event-stream")
    async with walled(database, tmp_path, streams=1, requests_per_s=0.1, requests_at_once=3) as service:
        url = f"{service.url}/v1/journals/j/stream?since=0"
        async with service.session.get(url, headers=headers) as first:
            assert first.status == 200
            too_many = await service.call("GET", "j/stream?since=0", headers=headers)
            await head(service, "198.51.100.1")
            too_often = await service.call("GET", "j/stream?since=0", headers=headers)

        for reply in (too_many, too_often):
            assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (200, "text/event-stream")
            first_line, _, rest = reply.body.decode().partition("\n\n")
            assert int(first_line.removeprefix("retry: ")) >= 5000
            assert rest.startswith(": rate_limited: ")


async def test_a_token_has_so_many_streams_wherever_they_are(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, streams=2) as service:
        one = await bearer(service, may("read", journal="j"))
        url, opened = f"{service.url}/v1/journals/j/stream?since=0", []
        for n in range(2):
            headers = out_of(f"198.51.100.{n}", Authorization=f"Bearer {one.text}")
            opened.append(await service.session.get(url, headers=headers))

        ticket = (await one.call("POST", "j/stream-tickets")).json["ticket"]
        refused = await service.call("GET", f"j/stream?since=0&ticket={ticket}", headers=out_of("198.51.100.7"))

        assert [it.status for it in opened] == [200, 200]
        assert limited(refused)
        assert refused.json["detail"] == "this token has 2 streams already"
        for it in opened:
            it.close()


async def test_an_address_downloads_so_many_snapshots_at_a_time(database: str, tmp_path: Path) -> None:
    async with walled(database, tmp_path, downloads=1) as service:
        large = [insert("todo", f"{n}", {"text": f"{n:03}" * 30_000}) for n in range(200)]
        for start in range(0, 200, 10):
            await service.pushed(large[start : start + 10])
        mine = out_of("198.51.100.1", **{"Accept-Encoding": "identity"})
        path = (await service.call("GET", "j/snapshot")).headers["Location"]
        async with aiohttp.ClientSession(read_bufsize=1024) as slow, slow.get(service.url + path, headers=mine) as file:
            assert file.status == 200
            limited(await service.call("GET", path, headers=mine))
            assert (await service.call("GET", path, headers=out_of("198.51.100.2"))).status == 200
            await file.read()

        async def is_let_in() -> bool:
            return (await service.call("GET", path, headers=mine)).status == 200

        await eventually(is_let_in)


# Connections.


async def test_an_address_has_so_many_connections(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, walls=Walls(unlimited=(), connections=3)) as service:
        host, port = service.url.removeprefix("http://").split(":")
        ask = b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        for reader, writer in opened:
            writer.write(ask)
            assert b" 200 " in await reader.readline()

        reader, writer = await asyncio.open_connection(host, int(port))
        refused = await reader.read()
        writer.close()

        top, _, body = refused.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"Retry-After: 10\r\n" in top + b"\r\n"
        assert json.loads(body)["code"] == "rate_limited"
        assert len(body) == int(top.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])

        opened.pop()[1].close()

        async def is_let_in() -> bool:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(ask)
            told = await reader.readline()
            writer.close()
            return b" 200 " in told

        await eventually(is_let_in)
        for _, writer in opened:
            writer.close()


# What a request may have, at the edge.


def padded(size: int) -> BytesIO:
    """A push of nothing, of so many bytes."""
    return BytesIO(b'{"changes": []' + b" " * (size - 15) + b"}")


def nested(depth: int) -> Json:
    """An insert whose body is so deep: the body, its changes, the change and the data are four."""
    value: Any = 1
    for _ in range(depth - 4):
        value = [value]
    return insert("todo", f"deep {depth}", {"x": value})


async def test_each_limit_holds_at_its_edge(service: Harness) -> None:
    limits = Limits()
    at: list[tuple[str, Any, Any]] = [
        ("body", {"data": padded(limits.body_bytes)}, {"data": padded(limits.body_bytes + 1)}),
        *(
            (what, {"json": {"changes": fits}}, {"json": {"changes": too_much}})
            for what, fits, too_much in (
                (
                    "changes",
                    [insert("many", f"{n}") for n in range(limits.changes)],
                    [insert("more", f"{n}") for n in range(limits.changes + 1)],
                ),
                ("nesting", [nested(limits.nesting)], [nested(limits.nesting + 1)]),
                ("collection", [insert("c" * 128, "a")], [insert("c" * 129, "a")]),
                ("atom", [insert("todo", "é" * 127 + "a")], [insert("todo", "é" * 128)]),
            )
        ),
    ]
    for what, fits, too_much in at:
        inside = await service.call("POST", "j/changes", headers=AS_JSON, **fits)
        beyond = await service.call("POST", "j/changes", headers=AS_JSON, **too_much)

        assert inside.status == 200, (what, inside.body[:300])
        assert all(it["status"] == "applied" for it in inside.json["outcomes"])
        assert beyond.status == (413 if what in ("body", "changes") else 400), what
        (fault,) = beyond.json["errors"]
        assert fault["limit"] == {
            "body": limits.body_bytes, "changes": limits.changes, "nesting": limits.nesting,
            "collection": limits.collection_name_bytes, "atom": limits.atom_name_bytes,
        }[what]  # fmt: skip


async def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(service: Harness) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /v1/journals/j/changes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {16 * (1 << 20) + 1}\r\n\r\n".encode())

    async with asyncio.timeout(5):
        first = await reader.readline()

    assert b" 413 " in first
    writer.close()


async def test_the_limits_are_told(service: Harness) -> None:
    told = (await service.call("GET", "/v1")).json["limits"]

    assert msgspec.structs.asdict(Limits()).items() <= told.items()
    assert (told["requests_per_s"], told["requests_at_once"]) == (1000, 2000)
    assert (told["streams"], told["downloads"]) == (256, 32)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_several_workers_give_together_what_one_gives(workers: int) -> None:
    walls = Walls()

    each = shared(walls, workers)

    assert each.requests_per_s * workers == pytest.approx(walls.requests_per_s)
    for name in ("requests_at_once", "streams", "downloads", "connections"):
        together = getattr(each, name) * workers
        assert getattr(walls, name) <= together < getattr(walls, name) + workers
    assert shared(Walls(streams=0, requests_per_s=0), workers).streams == 0
