"""The stream in Node's EventSource, the package `eventsource`: it lives through what a browser's lives through."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from tests.cutting import cutting
from tests.harness import Json, eventually, insert
from tests.subprocess_service import Remote, serving_apart

HERE = Path(__file__).parent / "npm"
INSTALL_S = 100.0


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reader and the package that it needs, as package-lock.json names it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        _not_to_be_had("node or npm is not installed: on Debian, apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json", "reader.js"):
        shutil.copy(HERE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode != 0:
        _not_to_be_had(f"npm ci did not install the package: {done.stderr.strip()[-500:]}")
    return folder


def _not_to_be_had(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Remote]:
    """The service in a process that can be killed."""
    async with serving_apart(database, tmp_path) as remote:
        await remote.create()
        yield remote


class Told(msgspec.Struct, frozen=True):
    """What an EventSource said. `state` is its readyState then, `code` the status where that was the trouble."""

    stream: int
    event: str
    id: str
    data: str
    code: int | None
    state: int


class Reader:
    """A process of Node's whose streams are counted from 0."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.told: list[Told] = []
        self._count = 0

    def open(self, url: str) -> int:
        """Open a stream; its number."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{url}\n".encode())
        self._count += 1
        return self._count - 1

    async def listen(self) -> None:
        """Take what it tells, until its end."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.told.append(msgspec.json.decode(line, type=Told))

    def of(self, stream: int, *events: str) -> list[Told]:
        """What one stream has told of."""
        return [told for told in self.told if told.stream == stream and told.event in events]

    def atoms(self, stream: int) -> list[str]:
        """The atoms that it was told of, in that order."""
        return [delta["atom"] for told in self.of(stream, "deltas") for delta in json.loads(told.data)["deltas"]]

    async def sees(self, stream: int, count: int) -> list[str]:
        """Wait until so many atoms were told."""

        async def are_there() -> bool:
            return len(self.atoms(stream)) >= count

        await eventually(are_there, seconds=60)
        return self.atoms(stream)


@asynccontextmanager
async def reading(folder: Path) -> AsyncIterator[Reader]:
    """A process of Node's; nothing of it is left."""
    process = await asyncio.create_subprocess_exec("node", "reader.js", cwd=folder, stdin=PIPE, stdout=PIPE)
    reader = Reader(process)
    listening = asyncio.create_task(reader.listen())
    try:
        yield reader
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(20):
            await process.wait()
            await listening


def is_unbroken(reader: Reader, stream: int, start: int = 0) -> bool:
    """Whether each event begins where the id before it ends."""
    at = start
    for told in reader.of(stream, "deltas", "bookmark"):
        if told.event == "deltas" and json.loads(told.data)["since"] != at:
            return False
        at = int(told.id.split(":")[1])
    return True


class Sender:
    """Pushes one atom after the other, each under its number until it was answered, whatever happens meanwhile."""

    def __init__(self, service: Remote) -> None:
        self.service, self.client = service, str(uuid4())
        self.names: list[str] = []

    async def send(self, count: int, *, pause_s: float = 0.0) -> None:
        """Push so many."""
        for _ in range(count):
            self.names.append(f"{len(self.names)}")
            await eventually(self._is_answered, seconds=60)
            await asyncio.sleep(pause_s)

    async def _is_answered(self) -> bool:
        number = len(self.names)
        try:
            reply = await self.service.push([insert("todo", self.names[-1])], client=self.client, push=number)
        except (aiohttp.ClientError, OSError):
            return False
        assert reply.status in (200, 503), reply.body
        return reply.status == 200


async def test_p9_it_lives_through_kills_and_stops_between_and_during_pushes(service: Remote, npm: Path) -> None:
    sender = Sender(service)
    async with reading(npm) as reader:
        stream = reader.open(f"{service.url}/v1/journals/j/stream?since=0")
        for end in (service.kill, service.stop) * 2:
            sending = asyncio.create_task(sender.send(20, pause_s=0.03))
            await reader.sees(stream, len(sender.names) + 5)
            await end()
            await service.start()
            await sending
            await reader.sees(stream, len(sender.names))
            await end()
            await service.start()
            await sender.send(3)  # while it is not connected
            await reader.sees(stream, len(sender.names))

        assert reader.atoms(stream) == sender.names
    assert is_unbroken(reader, stream)
    assert len(reader.of(stream, "open")) >= 9
    assert [told for told in reader.of(stream, "error") if told.code or told.state == 2] == []


async def test_p9_it_lives_through_connections_that_break_inside_of_events(service: Remote, npm: Path) -> None:
    sender = Sender(service)
    async with cutting(int(service.url.rpartition(":")[2]), cuts=48) as proxy, reading(npm) as reader:
        streams = [reader.open(f"{proxy.url}/v1/journals/j/stream?since=0") for _ in range(8)]
        while proxy.left:
            await sender.send(1, pause_s=0.05)
        await sender.send(3)
        for stream in streams:
            assert await reader.sees(stream, len(sender.names)) == sender.names

    assert all(is_unbroken(reader, stream) for stream in streams)
    assert all(len(reader.of(stream, "open")) > 1 for stream in streams)
    assert proxy.in_events >= 24


async def test_p8_it_is_told_of_a_resync_at_once_and_goes_on_from_a_snapshot(service: Remote, npm: Path) -> None:
    await service.pushed([insert("todo", "a")])
    async with reading(npm) as reader:
        stream = reader.open(f"{service.url}/v1/journals/j/stream?since={(await service.head())['cursor']}")

        async def is_open() -> bool:
            return bool(reader.of(stream, "bookmark"))

        async def is_called_back() -> list[Told]:
            return reader.of(stream, "resync")

        await eventually(is_open)
        asked_at = time.monotonic()
        await service.call("POST", "j/resync", json={"reason": "x", "spread_s": 60})
        (told,) = await eventually(is_called_back)
        took_s = time.monotonic() - asked_at
        first: Json = (await service.snapshot())[0]
        back = reader.open(f"{service.url}/v1/journals/j/stream?since={first['cursor']}")
        await service.pushed([insert("todo", "b")])
        await service.pushed([insert("todo", "c")])

        assert await reader.sees(back, 2) == ["b", "c"]
    data = json.loads(told.data)
    assert (data["reason"], data["reconcile"], data["snapshot"]) == ("operator", "replace", "/v1/journals/j/snapshot")
    assert took_s < 5
    assert told.state == 2
    assert is_unbroken(reader, back, first["revision"])
    assert len(reader.of(stream, "open")) == 1
