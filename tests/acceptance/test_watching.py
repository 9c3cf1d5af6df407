"""Watching a service that runs: metrics of all its processes, its log, and how it goes when it is told to."""

import asyncio
import json
import os
import re
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.command import ended, start
from tests.harness import Json, eventually, insert
from tests.integration.test_metrics import Scraped


class Served:
    """A service that runs, with a port for its metrics."""

    def __init__(self, process: Process, url: str, metrics: str, session: aiohttp.ClientSession) -> None:
        self.process, self.url, self.metrics, self.session = process, url, metrics, session

    async def call(self, method: str, path: str, **arguments: object) -> tuple[int, bytes]:
        """A request on a connection of its own, so that any worker may get it."""
        headers = {"Connection": "close"} | arguments.pop("headers", {})  # type: ignore[operator]
        async with self.session.request(method, self.url + path, headers=headers, **arguments) as response:  # type: ignore[arg-type]
            return response.status, await response.read()

    async def scrape(self, *, apart: bool = False) -> Scraped:
        """What the shared port tells, or the one of its own."""
        if apart:
            async with self.session.get(self.metrics) as response:
                assert response.status == 200
                return Scraped(await response.text())
        status, body = await self.call("GET", "/metrics")
        assert status == 200, body
        return Scraped(body.decode())


@asynccontextmanager
async def serving(database: str, folder: Path, *words: str) -> AsyncIterator[Served]:
    fixed = ("serve", "--port", "0", "--metrics-port", "0", "--dsn", database, "--data", str(folder))
    process = await start(*fixed, *words)
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        while "Ctrl-C" not in said:
            line = (await process.stdout.readline()).decode()
            assert line, (await ended(process)).err
            said += line
    url, metrics = re.search(r"http://\S+?(?=/v1)", said), re.search(r"http://\S+/metrics", said)
    assert url
    assert metrics
    try:
        async with aiohttp.ClientSession() as session:
            yield Served(process, url[0], metrics[0], session)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await ended(process)


def workers_of(process: Process) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


async def test_a_scrape_of_any_worker_tells_of_all(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, "--workers", "3") as served:
        await served.call("PUT", "/v1/journals/j")
        for n in range(30):
            await served.call("POST", "/v1/journals/j/changes", json={"changes": [insert("todo", f"{n}")]})

        told = [await served.scrape(), await served.scrape(), await served.scrape(apart=True)]

        for one in told:
            assert one.labels("journal_worker_up", "worker") == {"0", "1", "2"}
            assert one.value("journal_worker_up") == 3
            assert one.value("journal_changes_total") == 30
            assert one.value("journal_http_requests_total", route="/v1/journals/{j}/changes", method="POST") == 30
            assert [value for (name, _), value in one.samples.items() if name == "journal_head_revision"] == [30]
            assert one.value("journal_scrape_failed", part="clients") == 0
        assert len(told[0].labels("journal_http_requests_total", "worker")) > 1


async def test_a_worker_that_does_not_answer_keeps_nobody_and_one_that_dies_begins_anew(
    database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, "--workers", "2") as served:
        frozen, killed = workers_of(served.process)
        os.kill(frozen, signal.SIGSTOP)
        silent = await served.scrape(apart=True)
        os.kill(frozen, signal.SIGCONT)
        os.kill(killed, signal.SIGKILL)

        async def are_both_up() -> bool:
            is_replaced = killed not in workers_of(served.process)
            return is_replaced and (await served.scrape(apart=True)).value("journal_worker_up") == 2

        assert silent.value("journal_worker_up") == 1
        assert len(silent.labels("journal_changes_total", "worker")) == 1
        assert silent.labels("journal_spool_free_bytes", "worker") == set()
        assert silent.value("journal_spool_free_bytes") > 0
        await eventually(are_both_up, seconds=30)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_told_to_stop_it_says_so_serves_on_for_a_while_and_then_closes(
    database: str, tmp_path: Path, workers: str
) -> None:
    async with serving(database, tmp_path, "--workers", workers, "--drain-s", "3") as served:
        await served.call("PUT", "/v1/journals/j")

        async def is_ready() -> bool:
            return (await served.call("GET", "/readyz"))[0] == 200

        await eventually(is_ready)
        stream = await served.session.get(f"{served.url}/v1/journals/j/stream?since=0")
        served.process.send_signal(signal.SIGTERM)

        async def is_told() -> Json | None:
            status, body = await served.call("GET", "/readyz")
            return json.loads(body) if status == 503 else None

        told = await eventually(is_told, seconds=3)
        alive, _ = await served.call("GET", "/healthz")
        pushed, _ = await served.call("POST", "/v1/journals/j/changes", json={"changes": [insert("todo", "a")]})
        events = (await stream.read()).decode()
        done = await ended(served.process)

    assert (told["reason"], alive, pushed) == ("shutting_down", 200, 200)
    assert '"atom":"a"' in events
    assert events.rstrip().rpartition("\n")[2].startswith("retry:")
    assert done.code == 0


async def test_the_log_is_a_line_of_json_an_event_without_anybodys_secrets(database: str, tmp_path: Path) -> None:
    words = ("--log-format", "json", "--access-log", "--workers", "2")
    async with serving(database, tmp_path, *words) as served:
        await served.call("PUT", "/v1/journals/j", headers={"X-Request-Id": "put-1"})
        await served.call("GET", "/v1/journals/j/deltas?since=0&client=nobody", headers={"X-Request-Id": "get-2"})
        await served.call(
            "GET",
            "/v1/journals/j/stream?since=9&ticket=hidden-ticket",
            headers={"Authorization": "Bearer jc_hidden-token", "X-Request-Id": "get-3"},
        )
        await served.call("GET", "/v1/journals/%0Afaked%20line", headers={"X-Request-Id": "get-4"})
        served.process.send_signal(signal.SIGTERM)
        done = await ended(served.process)

    lines = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    told = {line["request_id"]: line for line in lines if line["logger"] == "journal.access"}
    assert told["put-1"].items() >= {
        "level": "info", "method": "PUT", "route": "/v1/journals/{j}", "status": 201, "journal": "j",
        "caller": "anyone",
    }.items()  # fmt: skip
    assert told["put-1"]["bytes"] > 0
    assert told["put-1"]["ms"] > 0
    assert told["put-1"]["time"].endswith("+00:00")
    assert told["put-1"]["process"] != served.process.pid
    assert (told["get-2"]["status"], told["get-2"]["route"]) == (400, "/v1/journals/{j}/deltas")
    assert "journal" not in told["get-4"]
    assert "hidden" not in done.err
    assert "since=" not in done.err
    assert len(lines) == len(done.err.splitlines())


async def test_the_log_for_people_is_one_line_a_request(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, "--access-log", "--log-level", "error") as served:
        await served.call("PUT", "/v1/journals/j", headers={"X-Request-Id": "put-1"})
        served.process.send_signal(signal.SIGTERM)
        done = await ended(served.process)

    line = next(line for line in done.err.splitlines() if "put-1" in line)
    assert re.fullmatch(
        r"INFO journal\.access: PUT /v1/journals/\{j\} status=201 ms=[\d.]+ bytes=\d+"
        r" request_id=put-1 journal=j caller=anyone",
        line,
    )
