"""`journal serve --workers N`: several processes behind one port, killed, frozen and stopped."""

import asyncio
import json
import os
import re
import resource
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.command import ended, journal, start
from tests.harness import Json, eventually, insert


class Served:
    """A supervisor that runs."""

    def __init__(self, process: Process, url: str, said: str) -> None:
        self.process, self.url, self.said = process, url, said

    @property
    def workers(self) -> list[int]:
        """The processes of the workers that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid and fields[0] != "Z":
                found.append(int(path.parent.name))
        return sorted(found)

    async def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Json, str]:
        """A request on a connection of its own: status, body, and which process answered."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}/v1/journals/{path}", **arguments) as response,
        ):
            who = response.headers["X-Request-Id"].partition("-")[0]
            return response.status, json.loads(await response.read() or b"null"), who


@asynccontextmanager
async def serving(database: str, folder: Path, count: int = 3) -> AsyncIterator[Served]:
    words = ("serve", "--port", "0", "--dsn", database, "--data", folder, "--workers", str(count))
    process = await start(*words)
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        while "Ctrl-C" not in said:
            line = (await process.stdout.readline()).decode()
            assert line, (await ended(process)).err
            said += line
    match = re.search(r"http://\S+?(?=/v1)", said)
    assert match
    try:
        yield Served(process, match[0], said)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await ended(process)


async def test_requests_are_spread_and_every_worker_knows_what_any_has_recorded(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as served:
        await served.call("PUT", "j")
        answered = set()
        for n in range(40):
            _, told, who = await served.call("POST", "j/changes", json={"changes": [insert("todo", f"{n}")]})
            cursor = f"{told['epoch']}:{told['revision']}:{told['chain']}"
            status, deltas, reader = await served.call("GET", f"j/deltas?since={cursor}")
            assert (status, deltas["until"]) == (200, n + 1)
            answered |= {who, reader}

        assert len(served.workers) == 3
        assert len(answered) > 1
        assert "3 workers" in served.said


async def test_one_that_dies_is_replaced_and_the_others_go_on(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as served:
        await served.call("PUT", "j")
        before = served.workers
        os.kill(before[0], signal.SIGKILL)

        async def are_three_again() -> bool:
            return len(served.workers) == 3 and served.workers != before

        for n in range(20):
            for _ in range(5):  # the kernel may still give a connection to the dead
                try:
                    status, _, _ = await served.call("POST", "j/changes", json={"changes": [insert("todo", f"{n}")]})
                except aiohttp.ClientError:
                    continue
                assert status == 200
                break
        await eventually(are_three_again, seconds=30)
        _, head, _ = await served.call("GET", "j")
        assert head["atoms"] == 20


async def test_told_to_stop_all_end_and_what_is_being_answered_is_answered(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as served:
        await served.call("PUT", "j")
        waiting = [asyncio.create_task(served.call("GET", "j/deltas?since=0&wait=50")) for _ in range(6)]
        await asyncio.sleep(0.5)
        workers = served.workers
        served.process.send_signal(signal.SIGTERM)
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        done = await ended(served.process)

    assert [status for status, _, _ in answers] == [200] * 6
    assert done.code == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


async def test_workers_do_not_outlive_who_started_them(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as served:
        workers = served.workers
        served.process.kill()
        await served.process.wait()

        async def are_gone() -> bool:
            return not any(Path(f"/proc/{pid}").exists() for pid in workers)

        await eventually(are_gone, seconds=30)


async def test_a_port_that_is_taken_is_told(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as served:
        port = served.url.rpartition(":")[2]
        busy = await journal("serve", "--port", port, "--dsn", database, "--data", tmp_path, "--workers", "2")

    assert busy.code == 1
    assert f"port {port} of 127.0.0.1 is taken" in busy.err


@pytest.mark.parametrize("count", ["0", "1000"])
async def test_a_slip_is_told(count: str) -> None:
    assert (await journal("serve", "--workers", count)).code == 2


@pytest.mark.parametrize("count", [1, 2])
async def test_more_streams_than_the_system_allows_unasked(database: str, tmp_path: Path, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        serving_few = serving(database, tmp_path, count)
        served = await serving_few.__aenter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        await served.call("PUT", "j")
        await served.call("POST", "j/changes", json={"changes": [insert("todo", "a")]})
        host, port = served.url.removeprefix("http://").split(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(350 * count)]
        for _, writer in opened:
            writer.write(b"GET /v1/journals/j/stream?since=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(30):
            heads = [await reader.readuntil(b"event: deltas") for reader, _ in opened]
        for _, writer in opened:
            writer.close()
    finally:
        await serving_few.__aexit__(None, None, None)

    assert all(head.startswith(b"HTTP/1.1 200 OK") for head in heads)
