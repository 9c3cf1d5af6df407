"""Recording a load with py-spy, and telling where the time went: by layer, by function with its callees, by function.

py-spy sees Python's frames. What runs in C, and what the system does for it, counts as own time of the function that
called it; what uvloop calls from C (parsing HTTP in aiohttp, asyncpg's protocol), as uvloop's where no Python is between.
Threads that wait are not counted.
"""

import asyncio
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench.load import Served
from bench.place import Place, connected
from bench.profiles.loads import Load, Work

RATE = 250
TOP = 25
LAYERS = ("journal/web", "journal/service", "journal/core", "journal/store", "journal", "aiohttp", "asyncpg")
UNDER = "uvloop, asyncio"  # the loop itself, and what it calls that is no Python
_FRAME = re.compile(r"(.*) \((.*?)(?::\d+)?\)")
_INSTALLED = re.compile(r".*/(?:site-packages|python3\.\d+)/")


class Measured(msgspec.Struct, frozen=True):
    """A round: how often what is counted was done, in how long, with how much processor time of each side."""

    done: int
    seconds: float
    service_s: float
    postgres_s: float


async def profile(at: Place, load: Load) -> str:
    """A load's profile, as text."""
    seconds = 2.0 if at.is_quick else 6.0
    raw = at.folder / "py-spy.raw"
    async with load(at) as work:
        await _round(at, work, 0.5)
        alone = await _round(at, work, seconds)
        with subprocess.Popen(
            ["py-spy", "record", "-p", str(work.served.pid), "-r", str(RATE), "-f", "raw", "-F", "-o", str(raw)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as spy:
            try:
                await asyncio.sleep(1.5)  # until it has found its way into the process, which stands still meanwhile
                watched = await _round(at, work, seconds)
            finally:
                spy.send_signal(signal.SIGINT)
                _, said = spy.communicate(timeout=60)
    if not raw.exists():
        raise SystemExit(f"py-spy recorded nothing: {said.decode()}")
    return "\n".join([*_told(work, alone, watched), *table(raw.read_text().splitlines())])


async def _round(at: Place, work: Work, seconds: float) -> Measured:
    before, service_s, start = await _backends_s(at), work.served.cpu_s(), time.monotonic()
    done = await work.drive(seconds)
    took, service_s = time.monotonic() - start, work.served.cpu_s() - service_s
    after = await _backends_s(at)
    return Measured(done, took, service_s, sum(used - before.get(pid, 0.0) for pid, used in after.items()))


async def _backends_s(at: Place) -> dict[int, float]:
    """The processor time of PostgreSQL's processes for this database; none where it runs elsewhere."""
    async with connected(at.dsn) as connection:
        rows = await connection.fetch(
            """select pid from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
        )
    pids = [row["pid"] for row in rows if Path(f"/proc/{row['pid']}/stat").exists()]
    return {pid: Served(0, pid, Path()).cpu_s() for pid in pids}


def _told(work: Work, alone: Measured, watched: Measured) -> list[str]:
    postgres = f", its PostgreSQL processes {1e6 * alone.postgres_s / alone.done:.1f} µs" if alone.postgres_s else ""
    return [
        f"load      {work.what}",
        f"rate      {alone.done / alone.seconds:,.0f} {work.one}s a second; {watched.done / watched.seconds:,.0f}"
        " while recorded",
        f"CPU       the service {1e6 * alone.service_s / alone.done:.1f} µs{postgres}, for each {work.one},"
        " not recorded",
    ]


def table(stacks: Iterable[str]) -> list[str]:
    """py-spy's raw lines, `frame;frame;… count`, told by layer and by function."""
    layers: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for line in stacks:
        stack, _, samples = line.rpartition(" ")
        frames = [_frame(frame) for frame in stack.split(";")]
        layers[_layer(frames)] += int(samples)
        own[_name(frames[-1])] += int(samples)
        for name in {_name(frame) for frame in frames}:
            inclusive[name] += int(samples)
    total = layers.total()
    return [
        f"samples   {total:,}, {RATE} a second, of threads that do not wait",
        *_section("By layer, with what it calls outside of all layers", layers, total),
        *_section(f"By function, with all that it calls: the first {TOP}", inclusive, total),
        *_section(f"By function, without: the first {TOP}", own, total),
    ]


def _section(title: str, counted: Counter[str], total: int) -> list[str]:
    return ["", title, "", *(f"{100 * samples / total:6.1f} %  {what}" for what, samples in counted.most_common(TOP))]


Frame = tuple[str, str]
"""A function's name and its file, beginning with its package."""


def _frame(told: str) -> Frame:
    match = _FRAME.fullmatch(told)
    if match is None:
        return told, ""
    file = _INSTALLED.sub("", match[2])
    return match[1], file if not file.startswith("/") else Path(file).name


def _name(frame: Frame) -> str:
    return f"{frame[0]} ({frame[1]})" if frame[1] else frame[0]


def _layer(frames: list[Frame]) -> str:
    """The layer of the innermost frame that has one."""
    for _, file in reversed(frames):
        for layer in LAYERS:
            if file.startswith(f"{layer}/"):
                return layer
    return UNDER
