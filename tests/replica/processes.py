"""Replicas in processes of their own, each of which can be killed (SIGKILL) between any two of its steps.

`python -m tests.replica.processes` reads jobs from its standard input, a line of JSON each, and forks a process for
each: loading everything anew would take longer than what is to be seen. What a job says comes on standard output, a
line of JSON each, with the job's name: `did` a piece of its work whose call has returned, `ended` at its end.
"""

import asyncio
import json
import os
import select
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from journal.client import AtomMissing, Replica
from tests.replica.steps import Watched, watching

ROOT = Path(__file__).parents[2]
Said = dict[str, Any]


class Job:
    """A process that works on a replica. `said`: what it has told so far."""

    def __init__(self, name: str, processes: "Processes") -> None:
        self.name, self._processes = name, processes
        self.said: list[Said] = []
        self.news = asyncio.Event()
        self.pid = 0

    @property
    def did(self) -> list[Any]:
        """What it has told of its work."""
        return [said["did"] for said in self.said if "did" in said]

    @property
    def steps(self) -> int:
        """How many steps it came to take; 0 where it was killed before its end."""
        return max((said["steps"] for said in self.said if "steps" in said), default=0)

    async def until(self, what: str) -> Any:
        """Wait until it has told something of this name."""
        while True:
            for said in self.said:
                if what in said:
                    return said[what]
            self.news.clear()
            async with asyncio.timeout(30):
                await self.news.wait()

    async def ended(self) -> int:
        """Wait for its end: 0, or the signal's number."""
        status: int = await self.until("ended")
        assert status in (0, signal.SIGKILL), self.said
        return status

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.pid, number)


class Processes:
    """Begins jobs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._jobs: dict[str, Job] = {}
        self._count = 0

    async def begin(self, path: Path, url: str, *work: Any, kill_at: int = 0) -> Job:
        """A process that does `work` on a replica: ["sync"], ["start"], ["put", atom, data], … one after the other."""
        self._count += 1
        job = self._jobs[f"{self._count}"] = Job(f"{self._count}", self)
        told = {"name": job.name, "path": str(path), "url": url, "work": work, "kill_at": kill_at}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        job.pid = await job.until("pid")
        return job

    async def listen(self) -> None:
        """Take what the jobs say."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            job = self._jobs[said.pop("name")]
            job.said.append(said)
            job.news.set()


@asynccontextmanager
async def processes() -> AsyncIterator[Processes]:
    """They end with this."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.replica.processes", cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    running = Processes(process)
    listening = asyncio.create_task(running.listen())
    try:
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await listening


def _say(name: str, **said: Any) -> None:
    os.write(1, json.dumps({"name": name} | said).encode() + b"\n")


async def _work(name: str, path: Path, url: str, work: list[list[Any]], kill_at: int) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(db: Watched, statement: str) -> None:
        step()

    async def at_request(what: str) -> None:
        step()

    with watching(path, before, at_request):
        async with Replica.open(path, url, on_conflict="merge") as replica:
            _say(name, opened=True)
            for number, (what, *arguments) in enumerate(work):
                await _DO[what](replica, *arguments)
                _say(name, did=[number, what, *arguments])
    _say(name, steps=steps)


async def _put(replica: Replica, atom: str, data: dict[str, Any]) -> None:
    await replica.collection("todo").put(atom, data)


async def _update(replica: Replica, atom: str, field: str) -> None:
    try:
        await replica.collection("todo").update(atom, {field: 1})
    except AtomMissing:
        await replica.collection("todo").put(atom, {field: 1})


async def _transaction(replica: Replica, *atoms: str) -> None:
    async with replica.transaction():
        for atom, field in zip(atoms[::2], atoms[1::2], strict=True):
            await _update(replica, atom, field)


async def _wait(replica: Replica, sign: str) -> None:
    """Until there is a file named `sign`."""
    while not Path(sign).exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


async def _hold(replica: Replica, atom: str, field: str, begun: str, sign: str) -> None:
    """Keep a transaction open until there is a file named `sign`; there is one named `begun` from when it is open."""
    async with replica.transaction():
        await _update(replica, atom, field)
        Path(begun).touch()
        await _wait(replica, sign)


async def _follow(replica: Replica, until: str) -> None:
    """Until an atom of this name is told."""
    async for changed in replica.follow():
        if changed.atom == until:
            return


async def _write_until(replica: Replica, prefix: str, count: int) -> None:
    for n in range(count):
        await _update(replica, f"{prefix}{n % 3}", f"{prefix}_{n}")


_DO: dict[str, Any] = {
    "put": _put, "update": _update, "transaction": _transaction, "hold": _hold, "follow": _follow, "wait": _wait,
    "write": _write_until,
    "sync": Replica.sync, "start": Replica.start, "stop": Replica.stop, "verify": Replica.verify,
    "for ever": lambda replica: asyncio.Event().wait(),
}  # fmt: skip


def _forked(job: Said) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.close(0)
        asyncio.run(_work(job["name"], Path(job["path"]), job["url"], job["work"], job["kill_at"]))
        status = 0
    except BaseException as error:
        _say(job["name"], failed=repr(error))
    finally:
        os._exit(status)


def _main() -> None:
    """Fork for each line; tell of each end. At the end of the input all are killed."""
    running: dict[int, str] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.005 if running else None)
        if ready:
            chunk = os.read(0, 65536)
            if not chunk:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                job = json.loads(line)
                pid = _forked(job)
                running[pid] = job["name"]
                _say(job["name"], pid=pid)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            _say(running.pop(pid), ended=os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _main()
