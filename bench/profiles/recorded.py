"""Recording a load with py-spy, and telling where the time went: by layer, by function with its callees, by function.

py-spy sees Python's frames. What runs in C, and what the system does for it, counts as own time of the function that
called it. Samples with no function of anybody's are told apart and have no share: there libuv receives, asyncpg's
protocol reads, or all wait for PostgreSQL or the load, which py-spy, having paused the process, takes for busy as well.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import msgspec

from bench.place import Place, connected
from bench.profiles.loads import Work

RATE = 250
TOP = 25
LAYERS = ("journal/web", "journal/service", "journal/core", "journal/store", "journal", "aiohttp", "asyncpg")
UNDER = "asyncio"
_OUTSIDE = (
    "<frozen runpy>",
    "bench/serve.py",
    "asyncio/runners.py",
    "uvloop/__init__.py",
    "threading.py",
    "concurrent/futures/thread.py",
)
_FRAME = re.compile(r"(.*) \((.*?)(?::\d+)?\)")
_INSTALLED = re.compile(r".*/(?:site-packages|python3\.\d+)/")


class Measured(msgspec.Struct, frozen=True):
    """A round: how often what is counted was done, in how long, with how much processor time of each side."""

    done: int
    seconds: float
    user_s: float
    system_s: float
    postgres_s: float


def spy() -> str:
    """Where py-spy is: beside Python, or anywhere."""
    found = shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if found is None:
        raise SystemExit("py-spy is missing: pip install -e '.[bench]', or `make bench-profiles`")
    return found


async def profile(at: Place, load: Callable[[Place], AbstractAsyncContextManager[Work]]) -> str:
    """A load's profile, as text."""
    seconds = 2.0 if at.is_quick else 6.0
    raw = at.folder / "py-spy.raw"
    raw.unlink(missing_ok=True)
    async with load(at) as work:
        await _round(at, work, 0.5)
        alone = await _round(at, work, seconds)
        with _watching(work.served.pid, raw):
            await asyncio.sleep(1.5)  # until it has found its way into the process, which stands still meanwhile
            watched = await _round(at, work, seconds)
    return "\n".join([*_told(work, alone, watched), *table(raw.read_text().splitlines())])


@contextmanager
def _watching(pid: int, raw: Path) -> Iterator[None]:
    """py-spy at work; what it has recorded is written in the end."""
    command = [spy(), "record", "-p", str(pid), "-r", str(RATE), "-f", "raw", "-F", "-o", str(raw)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as watching:
        try:
            yield
        finally:
            watching.send_signal(signal.SIGINT)
            _, said = watching.communicate(timeout=60)
    if not raw.exists():
        raise SystemExit(f"py-spy recorded nothing: {said.decode()}")


async def _round(at: Place, work: Work, seconds: float) -> Measured:
    before, start = await _backends_s(at), time.monotonic()
    user_s, system_s = _cpu_s(work.served.pid)
    done = await work.drive(seconds)
    took, (user_then_s, system_then_s) = time.monotonic() - start, _cpu_s(work.served.pid)
    after = await _backends_s(at)
    postgres_s = sum(used - before.get(pid, 0.0) for pid, used in after.items())
    return Measured(done, took, user_then_s - user_s, system_then_s - system_s, postgres_s)


async def _backends_s(at: Place) -> dict[int, float]:
    """The processor time of PostgreSQL's processes for this database; none where it runs elsewhere."""
    async with connected(at.dsn) as connection:
        rows = await connection.fetch(
            """select pid from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
        )
    return {row["pid"]: sum(_cpu_s(row["pid"])) for row in rows if Path(f"/proc/{row['pid']}/stat").exists()}


def _cpu_s(pid: int) -> tuple[float, float]:
    """The processor time of a process, its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks: int = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


def _told(work: Work, alone: Measured, watched: Measured) -> list[str]:
    each = {
        "the service": alone.user_s + alone.system_s,
        "of which for system calls": alone.system_s,
        "PostgreSQL's processes": alone.postgres_s,
    }
    rate, rate_then = alone.done / alone.seconds, watched.done / watched.seconds
    told = ", ".join(f"{what} {_amount(1e6 * used_s / alone.done)} µs" for what, used_s in each.items() if used_s)
    return [
        f"load      {work.what}",
        f"rate      {_amount(rate)} a second, {_amount(rate_then)} while recorded; one is {work.one}",
        f"CPU       {told}; for {work.one}, while not recorded",
    ]


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(stacks: Iterable[str]) -> list[str]:
    """py-spy's raw lines, `frame;frame;… count`, told by layer and by function."""
    layers: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    own: Counter[str] = Counter()
    outside = 0
    for line in stacks:
        stack, _, told = line.rpartition(" ")
        samples = int(told)
        frames = [frame for frame in map(_frame, stack.split(";")) if frame[1] not in _OUTSIDE]
        if not frames:
            outside += samples
            continue
        layers[_layer(frames)] += samples
        own[_name(frames[-1])] += samples
        for name in set(map(_name, frames)):
            inclusive[name] += samples
    total = layers.total()
    return [
        f"samples   {total:,} within some function, {outside:,} in the loop itself, {RATE} a second",
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
