"""Polls that are up to date: as workers become more, as journals do, and as streams are held open beside them."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import cast

from bench.curves.curve import Curve, Panel, Peak, Rounds, rounds, seconds
from bench.load import Ask, Load, Served, closed_loop, get, post
from bench.place import ROOT, Place, allow_files, connected, serving

CONNECTIONS = 64
TOGETHER = 100  # streams that are opened at once
LATE_S = 60.0
_MEMORY = "memory above idle, MiB (peak)"
_CURSORS = """select j.name, encode(h.epoch, 'hex') || ':' || h.head || ':' || encode(substring(h.chain for 8), 'hex')
                       as cursor
                from journal.journal j join journal.head h on h.journal_id = j.id where j.name = any($1)"""
_CREATE = "select journal.create(name) from unnest($1::text[]) as name"


# Workers


async def workers(at: Place) -> list[Curve]:
    """`journal serve --workers N`, as it is started by hand."""
    counts = [1, 2] if at.is_quick else [1, 2, 4]
    polls = await _polls(at, ["polled"])
    taken = Rounds()
    for _ in range(rounds(at)):
        for count in counts:
            with _workers(at, count) as (port, pids):
                peak = Peak(*pids)
                await _round(Served(port, pids[0], at.folder), polls, 0.2)
                before_s, mine_s = _cpu_s(pids), time.process_time()
                load = await _round(Served(port, pids[0], at.folder), polls, seconds(at))
                taken.add("rate", count, load.rate)
                taken.add("p99", count, load.p99_ms)
                taken.add("cpu", count, 1e6 * (_cpu_s(pids) - before_s) / load.requests)
                taken.add("load", count, 1e6 * (time.process_time() - mine_s) / load.requests)
                taken.add("memory", count, peak.mib)
                taken.add("whole", count, sum(map(_whole_mib, pids)))
    cores = len(os.sched_getaffinity(0))
    alone, cpu_us, load_us = (taken.median(what, 1) for what in ("rate", "cpu", "load"))
    most = cores * 1e6 / (cpu_us + load_us)
    one_mib = taken.median("whole", 1)

    def rate(count: float) -> float:
        return min(count * alone, most)

    return [
        Curve(
            "poll-workers",
            f"Polls of {CONNECTIONS} clients, by how many workers answer",
            f"workers, on {cores} cores which the load shares",
            "linear",
            [
                Panel("polls a second", [taken.line("rate", rate)]),
                Panel("p99, ms", [taken.line("p99", lambda count: taken.median("p99", 1) * alone / rate(count))]),
                Panel("memory above idle, all workers, MiB (peak)", [taken.flat("memory")]),
                Panel("their memory in all, MiB", [taken.line("whole", lambda count: count * one_mib)]),
            ],
            f"rate: in proportion to workers, until {cores} cores are used up by answers ({cpu_us:.0f} µs each with "
            f"one worker) and by the load itself ({load_us:.0f} µs): {most:,.0f}/s here; p99: the inverse; memory: "
            "above idle flat, since the same connections are shared out; in all as much for each worker.",
        )
    ]


@contextmanager
def _workers(at: Place, count: int) -> Iterator[tuple[int, list[int]]]:
    """The command's port, and the processes that answer there."""
    folder = at.folder / f"workers-{count}"
    command = [sys.executable, "-m", "journal", "serve", "--dsn", at.dsn, "--data", str(folder)]
    command += ["--workers", str(count), "--port", "0"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("JOURNAL_")}
    environment = ours | {"COLUMNS": "200"}
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("journal serve did not start")
            said += line
        found = re.search(r"http://\S+?:(\d+)/v1", said)
        assert found, said
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == (0 if count == 1 else count), children
        yield int(found[1]), [int(child) for child in children] or [process.pid]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _whole_mib(pid: int) -> float:
    """A process's memory; what several share is divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(Served(0, pid, Path()).cpu_s() for pid in pids)


# Journals


async def journals(at: Place) -> list[Curve]:
    """The same connections, going round ever more journals, of which the process has heard before it is timed."""
    counts = [1, 100, 1000] if at.is_quick else [1, 10, 100, 1000, 10_000]
    polls = await _polls(at, [f"poll-{number}" for number in range(counts[-1])])
    taken = Rounds()
    for _ in range(rounds(at)):
        with serving("journal", at) as journal:
            await _round(journal, polls[:1], 0.2)
            peak = Peak(journal.pid)
            for count in counts:
                await _once(journal, polls[:count])
                peak.forget()
                load = await _round(journal, polls[:count], seconds(at))
                taken.add("cpu", count, load.cpu_us)
                taken.add("rate", count, load.rate)
                taken.add("memory", count, peak.mib)
    each_mib = taken.median("memory", counts[-1]) / counts[-1]
    return [
        Curve(
            "poll-journals",
            f"Polls of {CONNECTIONS} clients, by how many journals they ask for",
            "journals",
            "log",
            [
                Panel("processor time of the service for a poll, µs", [taken.flat("cpu")]),
                Panel("polls a second", [taken.flat("rate")]),
                Panel(_MEMORY, [taken.line("memory", lambda count: count * each_mib)]),
            ],
            f"time and rate: flat, a head is looked up by name; memory: linear, {1024 * each_mib:.1f} KiB for each "
            "journal of which the process remembers the head (20,000 at most).",
        )
    ]


# Streams


async def streams(at: Place) -> list[Curve]:
    """Streams of a journal in which nothing happens, beside polls; and as many connections that only stay open."""
    counts = [0, 100, 1000] if at.is_quick else [0, 100, 1000, 5000]
    polls = await _polls(at, ["quiet"])
    stream = get(polls[0].split(b" ")[1].decode().replace("/deltas?", "/stream?"))
    taken = Rounds()
    allow_files(counts[-1])
    for _ in range(rounds(at)):
        for what, request, end in (("stream", stream, b"event: bookmark"), ("connection", polls[0], b"\r\n\r\n")):
            with serving("journal", at) as journal:
                await _round(journal, polls, 0.2)
                peak = Peak(journal.pid)
                async with _held(journal) as held:
                    for count in counts:
                        peak.forget()
                        await held.up_to(count, request, end)
                        taken.add(f"{what}: memory", count, peak.mib)
                        load = await _round(journal, polls, seconds(at))
                        taken.add(f"{what}: cpu", count, load.cpu_us)
                        assert held.is_whole, "one was closed"
    last = counts[-1]

    def grown_mib(what: str, count: float) -> float:
        return taken.median(f"{what}: memory", count) - taken.median(f"{what}: memory", 0)

    def should_mib(count: float) -> float:
        return taken.median("stream: memory", 0) + grown_mib("connection", count)

    connection_kib, stream_kib = (1024 * grown_mib(what, last) / last for what in ("connection", "stream"))
    return [
        Curve(
            "streams",
            "Idle streams, by how many are open",
            "open streams, one process",
            "symlog",
            [
                Panel("processor time of the service for a poll beside them, µs", [taken.flat("stream: cpu")]),
                Panel(_MEMORY, [taken.line("stream: memory", should_mib)]),
            ],
            "time: flat; memory: what as many connections take that have asked once and stay open, measured in the "
            f"same run ({connection_kib:.1f} KiB each; a stream {stream_kib:.1f} KiB).",
        )
    ]


class _Held(asyncio.Protocol):
    """A connection that asks once and stays; `begun` when the answer has come as far as `end`."""

    def __init__(self, request: bytes, end: bytes) -> None:
        self.request, self.end = request, end
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, received: bytes) -> None:
        if not self.begun.done():
            self._read += received
            if self.end in self._read:
                self.begun.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if not self.begun.done():
            self.begun.set_exception(error or ConnectionError("closed by the service"))


class _Holding:
    def __init__(self, port: int) -> None:
        self._port = port
        self._held: list[_Held] = []

    async def up_to(self, count: int, request: bytes, end: bytes) -> None:
        """Open so many that there are `count`."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LATE_S):
            while missing := count - len(self._held):
                made = [
                    await loop.create_connection(lambda: _Held(request, end), "127.0.0.1", self._port)
                    for _ in range(min(missing, TOGETHER))
                ]
                self._held += [held for _, held in made]
                await asyncio.gather(*(held.begun for _, held in made))

    @property
    def is_whole(self) -> bool:
        """Whether all are still open."""
        return all(held.is_open for held in self._held)

    def close(self) -> None:
        """Hang up, all of them."""
        for held in self._held:
            held.transport.abort()


@asynccontextmanager
async def _held(journal: Served) -> AsyncIterator[_Holding]:
    holding = _Holding(journal.port)
    try:
        yield holding
    finally:
        holding.close()


# What they share


async def _polls(at: Place, names: list[str]) -> list[bytes]:
    """A poll of each of these journals, all of which have a change."""
    async with connected(at.dsn) as connection:
        await connection.execute(_CREATE, names)
    change = b'{"changes":[{"op":"insert","collection":"todo","atom":"a","data":{"title":"rings","cost":310}}]}'
    pushes = iter([post(f"/v1/journals/{name}/changes", change) for name in names])
    with serving("journal", at) as journal:
        load = await closed_loop(journal, [lambda _: next(pushes, None)] * min(CONNECTIONS, len(names)))
        assert load.statuses == {200: len(names)}, load.statuses
    async with connected(at.dsn) as connection:
        cursors = {row["name"]: row["cursor"] for row in await connection.fetch(_CURSORS, names)}
    return [get(f"/v1/journals/{name}/deltas?since={cursors[name]}") for name in names]


async def _round(served: Served, polls: list[bytes], seconds: float) -> Load:
    asks: list[Ask] = []
    for place in range(CONNECTIONS):
        turns = cycle(polls[place % len(polls) :: CONNECTIONS])
        asks.append(lambda _, turns=turns: next(turns))  # type: ignore[misc]
    load = await closed_loop(served, asks, seconds=seconds)
    assert load.statuses == {200: load.requests}, load.statuses
    return load


async def _once(served: Served, polls: list[bytes]) -> None:
    """Each of them once."""
    left = iter(polls)
    load = await closed_loop(served, [lambda _: next(left, None)] * min(CONNECTIONS, len(polls)))
    assert load.statuses == {200: len(polls)}, load.statuses
