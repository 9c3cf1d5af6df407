"""The service as a process of its own, which can be killed (SIGKILL) or frozen (SIGSTOP) and started again.

`python -m tests.subprocess_service DSN SPOOL PORT [LISTEN_DSN]` serves until it is told to stop (SIGTERM) or its
standard input ends, as it does when the tests die. PORT 0 is any; the first line that it prints is the one it got.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import msgspec
import uvloop

from journal.config import Settings, Walls
from journal.service.running import Service
from journal.web import listen
from tests.harness import Harness
from tests.role import as_service

ROOT = Path(__file__).parents[1]
START_S = 30.0
WALLS = "JOURNAL_TEST_WALLS"  # a variable: what a request may cost, as JSON


class Remote(Harness):
    """A service in another process, talked to like any other. It keeps its port when it is started again.

    `root`: where its code is, which may be another version's.
    """

    root = ROOT
    heights = Walls()

    def __init__(self, dsn: str, spool: Path, session: aiohttp.ClientSession, listen_dsn: str | None = None) -> None:
        self.dsn, self.spool, self.session, self.listen_dsn = dsn, spool, session, listen_dsn
        self._port = 0
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = ["-m", "tests.subprocess_service", as_service(self.dsn), str(self.spool), str(self._port)]
        arguments += [] if self.listen_dsn is None else [as_service(self.listen_dsn)]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": str(self.root), WALLS: msgspec.json.encode(self.heights).decode()},
            stdin=PIPE,
            stdout=PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            said = await self._process.stdout.readline()
        self._port = int(said)
        self.url = f"http://127.0.0.1:{self._port}"

    async def kill(self) -> None:
        """End it as a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it do nothing at all until `thaw`."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._running.send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._running.pid

    @property
    def _running(self) -> Process:
        assert self._process is not None, "it is not running"
        return self._process

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._running, None
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # one that is frozen ends when it is thawed
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(START_S):
            await process.wait()

    async def __aenter__(self) -> "Remote":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self.kill()


@asynccontextmanager
async def serving_apart(
    dsn: str, folder: Path, *, listen_dsn: str | None = None, walls: Walls | None = None
) -> AsyncIterator[Remote]:
    """The service on a database, in a process of its own."""
    spool = folder / f"spool-{uuid4().hex[:8]}"
    spool.mkdir()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        apart = Remote(dsn, spool, session, listen_dsn)
        apart.heights = walls or apart.heights
        async with apart as remote:
            yield remote


async def _serve(dsn: str, spool: Path, port: int, listen_dsn: str | None = None) -> None:
    async def started(_: Service) -> None:
        print(listener.getsockname()[1], flush=True)

    def ended() -> None:  # nothing is ever written to it: it is readable when it ends
        loop.remove_reader(sys.stdin)
        os.kill(os.getpid(), signal.SIGTERM)

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, ended)
    walls = msgspec.json.decode(os.environ.get(WALLS, "{}"), type=Walls)
    settings = Settings(dsn=dsn, spool=spool, listen_dsn=listen_dsn, walls=walls)
    listener = listen.bound("127.0.0.1", port)
    await listen.serve(settings, listener, started=started, stopping=lambda: None)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(_serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
