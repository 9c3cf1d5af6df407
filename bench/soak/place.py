"""The processes of a long run: PostgreSQL, the service, and what both take of the machine."""

import asyncio
import os
import re
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import msgspec

from bench.place import ROOT
from journal.store import embedded

START_S = 60.0
_LEVEL = re.compile(r"(?:WARNING|INFO|ERROR|CRITICAL) ")
_URL = re.compile(r"http://[^/\s]+:(\d+)/v1")


class Postgres(msgspec.Struct, frozen=True):
    """A PostgreSQL. One that is ours (`folder`) can be restarted, with the same DSN afterwards."""

    dsn: str
    folder: Path | None

    def restart(self, how: signal.Signals, away_s: float) -> None:
        """SIGINT: fast, as for an upgrade; SIGQUIT: immediate, as in a crash. It stays away for a while."""
        assert self.folder is not None
        os.kill(int(embedded._postmaster(self.folder)[0]), how)
        if not embedded._eventually(lambda: not embedded.is_running(self.folder or Path()), START_S):
            raise RuntimeError("PostgreSQL does not stop")
        time.sleep(away_s)
        embedded._attach(self.folder, embedded._programs())


@contextmanager
def postgres(dsn: str | None, folder: Path) -> Iterator[Postgres]:
    """The server at `dsn`, or one of our own."""
    if dsn is not None:
        yield Postgres(dsn, None)
        return
    with embedded.running(folder) as own:
        yield Postgres(own, folder)


class Service:
    """`python -m journal serve` in a process of its own; it keeps its port when it is started again."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder = dsn, folder
        self.log = folder / "log"
        self.port = 0
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it says where it listens."""
        self.folder.mkdir(exist_ok=True)
        words = ["-m", "journal", "serve", "--dsn", self.dsn, "--data", str(self.folder), "--port", str(self.port)]
        ours = {name: value for name, value in os.environ.items() if not name.startswith("JOURNAL_")}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *words, cwd=ROOT, env=ours, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            async for line in self._process.stdout:
                if found := _URL.search(line.decode()):
                    self.port = int(found[1])
                    return
        raise RuntimeError(f"the service did not start: {self.log.read_text()[-2000:]}")

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(START_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise RuntimeError("the service did not stop when it was told to") from None

    def complaints(self) -> list[str]:
        """What it wrote to its log that is more than a warning, each with what belongs to it."""
        entries: list[str] = []
        for line in self.log.read_text(errors="replace").splitlines():
            if not entries or _LEVEL.match(line):
                entries.append(line)
            else:
                entries[-1] += f"\n{line}"
        return [entry for entry in entries if not entry.startswith(("WARNING ", "INFO "))]


class Taken(msgspec.Struct, frozen=True):
    """What a process takes: memory (PSS where the system tells it) in MiB, open files, and its children's memory."""

    rss_mib: float
    pss_mib: float | None
    files: int
    children: int
    children_mib: float
    cpu_s: float


def taken(pid: int) -> Taken:
    """What a process takes now."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Taken(
        rss_mib=_kib(pid, "status", "VmRSS") / 1024,
        pss_mib=_pss(pid),
        files=len(os.listdir(f"/proc/{pid}/fd")),
        children=len(children),
        children_mib=sum(_pss(child) or 0 for child in children),
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    )


def busy_s() -> float:
    """The processor time that the machine has spent, all cores and everybody's."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> float | None:
    try:
        return _kib(pid, "smaps_rollup", "Pss") / 1024
    except OSError:
        return None


def _kib(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


class Kept(msgspec.Struct, frozen=True):
    """What PostgreSQL holds: connections by who they say they are, the database's size, rows of the record."""

    connections: dict[str, int]
    database_mib: float
    changes: dict[str, int]


async def kept(dsn: str, journals: tuple[str, ...]) -> Kept | None:
    """What PostgreSQL holds now; None while it is away. `journals`: whose rows of the record are counted."""
    try:
        connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "soak"})
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return None
    try:
        clients = await connection.fetch(_CONNECTIONS, timeout=20)
        size = await connection.fetchval("select pg_database_size(current_database())", timeout=20)
        rows = await connection.fetch(_CHANGES, list(journals), timeout=20)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return None
    finally:
        connection.terminate()
    return Kept(
        {row["application_name"]: row["count"] for row in clients},
        size / (1 << 20),
        {row["name"]: row["count"] for row in rows},
    )


_CONNECTIONS = """
select application_name, count(*) from pg_stat_activity
 where datname = current_database() and application_name like 'journal %' group by 1
"""
_CHANGES = """
select j.name, count(x.revision) from journal.journal j left join journal.change x on x.journal_id = j.id
 where j.name = any($1) group by 1
"""
