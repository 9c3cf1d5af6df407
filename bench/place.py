"""Where it is measured: a database of its own, the processes that serve, and what is to be known of the machine."""

import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from bench.load import Served
from journal.store import embedded
from journal.store.migrate import migrate

ROOT = Path(__file__).parent.parent
SETTINGS = (
    "autovacuum",
    "fsync",
    "full_page_writes",
    "jit",
    "max_wal_size",
    "shared_buffers",
    "synchronous_commit",
    "wal_level",
    "work_mem",
)


class Place(msgspec.Struct, frozen=True):
    """A migrated database and a folder, for one run. `rounds` of each thing and its reference, in turn."""

    dsn: str
    folder: Path
    is_quick: bool

    @property
    def rounds(self) -> int:
        """How often each is measured."""
        return 3 if self.is_quick else 5

    @property
    def seconds(self) -> float:
        """How long a round of requests lasts."""
        return 0.5 if self.is_quick else 1.5

    async def create(self, journal: str) -> None:
        """Make a journal."""
        async with connected(self.dsn) as connection:
            assert await connection.fetchval("select journal.create($1)", journal)

    async def head(self, journal: str) -> int:
        """A journal's head by its own row."""
        async with connected(self.dsn) as connection:
            head: int = await connection.fetchval(_HEAD, journal)
            return head

    async def cursors(self, journal: str) -> dict[int, str]:
        """The cursors at the ends of a journal's commits, by revision."""
        async with connected(self.dsn) as connection:
            rows = await connection.fetch(_CURSORS, journal)
        return {row["revision"]: f"{row['epoch'].hex()}:{row['revision']}:{row['chain'][:8].hex()}" for row in rows}


_HEAD = "select h.head from journal.journal j join journal.head h on h.journal_id = j.id where j.name = $1"


_CURSORS = """select c.revision, c.epoch, c.chain from journal.journal j join journal.commit c on c.journal_id = j.id
               where j.name = $1"""


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection that is set as those of the service."""
    settings = {"jit": "off", "timezone": "UTC", "plan_cache_mode": "force_custom_plan"}
    connection = await asyncpg.connect(dsn, server_settings=settings, command_timeout=300)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def place(dsn: str | None, *, is_quick: bool) -> AsyncIterator[Place]:
    """A new database on the server at `dsn`, or on one of our own; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="journal-bench-") as made:
        folder = Path(made)
        with embedded.running(folder / "postgres") if dsn is None else nullcontext(dsn) as server:
            name = f"journal_bench_{uuid4().hex[:8]}"
            async with connected(server) as admin:
                await admin.execute(f'create database "{name}" template template0')
                try:
                    mine = _of_database(server, name)
                    await migrate(mine)
                    async with connected(mine) as connection:
                        await connection.execute((ROOT / "bench" / "fill.sql").read_text())
                    yield Place(mine, folder, is_quick)
                finally:
                    await admin.execute(f'drop database "{name}" with (force)')


def _of_database(dsn: str, name: str) -> str:
    head, _, tail = dsn.partition("?")
    return head.rpartition("/")[0] + "/" + name + (f"?{tail}" if tail else "")


@contextmanager
def serving(what: str, at: Place, folder: Path | None = None) -> Iterator[Served]:
    """A process of bench/serve.py."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix=f"{what}-", dir=at.folder))
    command = [sys.executable, "-m", "bench.serve", what, "--dsn", at.dsn, "--folder", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            raise RuntimeError(f"{what} did not start")
        yield Served(int(port), process.pid, folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def allow_files(connections: int) -> None:
    """Open as many files as the system lets us, here and in what is started: at least that many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert most == resource.RLIM_INFINITY or most > connections + 500, f"only {most} open files are allowed here"


async def machine(at: Place) -> dict[str, Any]:
    """What the figures were measured on."""
    async with connected(at.dsn) as connection:
        rows = await connection.fetch("select name, reset_val, unit from pg_settings where name = any($1)", SETTINGS)
        settings = {row["name"]: f"{row['reset_val']} {row['unit'] or ''}".strip() for row in rows}
        postgres = await connection.fetchval("show server_version")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "cores": os.cpu_count(),
        "cpu": _line_of("/proc/cpuinfo", "model name") or platform.processor(),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "load before": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("aiohttp", "asyncpg", "msgspec", "uvloop", "zstandard")},
        "postgresql": postgres,
        "settings": settings,
    }


def _line_of(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
