"""`/healthz` and `/readyz`: alive, PostgreSQL away, starting and shutting down are told apart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from journal.store import migrate
from tests.cluster import Cluster
from tests.harness import Harness, Json, eventually, listening, serving
from tests.proxy import Proxy, proxied


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxied(database) as running:
        yield running


async def ready(service: Harness) -> tuple[int, Json]:
    reply = await service.call("GET", "/readyz")
    return reply.status, reply.json


async def is_alive(service: Harness) -> bool:
    reply = await service.call("GET", "/healthz")
    return (reply.status, reply.json) == (200, {"status": "alive"})


async def until(service: Harness, status: int, reason: str | None) -> Json:
    """What /readyz says once it says this."""

    async def says() -> Json | None:
        found, told = await ready(service)
        return told if (found, told.get("reason")) == (status, reason) else None

    found: Json = await eventually(says)
    return found


async def test_one_that_runs_is_alive_and_ready(service: Harness) -> None:
    await listening(service)

    reply = await service.call("GET", "/readyz")

    assert await is_alive(service)
    assert (reply.status, reply.json) == (200, {"status": "ready"})
    assert reply.headers["Cache-Control"] == "no-store"


async def test_without_postgresql_it_is_alive_and_not_ready_and_comes_back(proxy: Proxy, tmp_path: Path) -> None:
    async with serving(proxy.dsn, tmp_path) as service:
        await until(service, 200, None)
        proxy.refuse()

        told = await until(service, 503, "postgresql_away")
        reply = await service.call("GET", "/readyz")

        assert await is_alive(service)
        assert told["code"] == "not_ready"
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert int(reply.headers["Retry-After"]) > 0
        await proxy.accept()
        await until(service, 200, None)


async def test_a_postgresql_that_hangs_is_away_and_nobody_waits_for_it_long(proxy: Proxy, tmp_path: Path) -> None:
    async with serving(proxy.dsn, tmp_path) as service:
        await until(service, 200, None)
        proxy.stall()

        async with asyncio.timeout(8):
            await until(service, 503, "postgresql_away")
            assert await is_alive(service)

        proxy.go()
        await until(service, 200, None)


async def test_before_it_hears_what_others_record_it_is_starting(proxy: Proxy, tmp_path: Path) -> None:
    proxy.stall(b"journal listen")
    async with serving(proxy.dsn, tmp_path) as service:
        await until(service, 503, "starting")
        assert await is_alive(service)

        proxy.go()

        await until(service, 200, None)


async def test_asking_often_costs_postgresql_one_question_a_second(service: Harness) -> None:
    await until(service, 200, None)
    asked = service.service.readiness
    known = asked._known

    answers = await asyncio.gather(*(ready(service) for _ in range(50)))

    assert {status for status, _ in answers} == {200}
    assert asked._known == known or asked._known[0] - known[0] >= 1.0


async def test_one_that_was_told_to_stop_says_so_first(service: Harness) -> None:
    service.service.readiness.is_stopping = True

    told = await until(service, 503, "shutting_down")

    assert told["title"] == "This process cannot answer at this moment"
    assert await is_alive(service)


async def test_a_standby_answers_and_is_no_place_to_record(tmp_path: Path) -> None:
    primary = Cluster(tmp_path / "primary")
    await primary.create()
    try:
        await migrate.migrate(primary.dsn)
        standby = await primary.backup(tmp_path / "standby", is_standby=True)
        await standby.start()
        try:
            async with serving(standby.dsn, tmp_path) as service:
                told = await until(service, 503, "postgresql_away")
                await standby.promote()
                await until(service, 200, None)
        finally:
            await standby.stop()
    finally:
        await primary.stop()

    assert told["detail"] == "it is a standby, and records nothing"
