"""The service as its users run it: `journal serve` in a process of its own, and what is around that process."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 60.0
_LEVEL = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
_URL = re.compile(r"http://[^/\s]+(?=/v1)")


class Served:
    """A service that runs. `before`: words that its command is put behind; `more`: what its environment has besides."""

    def __init__(
        self, dsn: str, folder: Path, words: Sequence[str], before: Sequence[str], more: dict[str, str]
    ) -> None:
        self.folder, self.url, self.log = folder, "", folder.with_name(folder.name + ".log")
        self._command = [*before, sys.executable, "-m", "journal", "serve", "--dsn", dsn, "--data", str(folder)]
        self._command += ["--port", "0", *words]
        self._more = more
        self.process: Process | None = None

    @property
    def pid(self) -> int:
        """The number of the first process, which stays the same for as long as nobody starts it again."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_up(self) -> bool:
        """Whether that process lives."""
        return self.process is not None and self.process.returncode is None

    @property
    def workers(self) -> list[int]:
        """The processes that it started."""
        return sorted(int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())

    async def start(self) -> None:
        """Start it, and wait until it says where it listens."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("JOURNAL_")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=ROOT,
                env=ours | self._more,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                start_new_session=True,  # or the end of a shell that began the run would wake it where it is stopped
            )
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            async for line in self.process.stdout:
                if found := _URL.search(line.decode()):
                    self.url = found[0]
                    return
        raise AssertionError(f"the service did not start: {self.log.read_text()[-3000:]}")

    def send(self, number: signal.Signals) -> None:
        """A signal for it and its workers."""
        for pid in (self.pid, *self.workers):
            os.kill(pid, number)

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if not self.is_up:
            return
        assert self.process is not None
        self.send(signal.SIGCONT)
        self.process.terminate()
        try:
            async with asyncio.timeout(START_S):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            raise

    def complaints(self) -> list[str]:
        """What it logged as more than a warning, each with what belongs to it."""
        entries: list[str] = []
        for line in self.log.read_text(errors="replace").splitlines():
            if not entries or _LEVEL.match(line):
                entries.append(line)
            else:
                entries[-1] += f"\n{line}"
        return [entry for entry in entries if not entry.startswith(("DEBUG ", "INFO ", "WARNING "))]


@asynccontextmanager
async def served(
    dsn: str, folder: Path, *words: str, before: Sequence[str] = (), more: dict[str, str] | None = None
) -> AsyncIterator[Served]:
    """The service on a database, for as long as the context."""
    it = Served(dsn, folder, words, before, more or {})
    try:
        await it.start()
        yield it
    finally:
        await it.stop()
