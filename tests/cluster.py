"""PostgreSQL servers that tests start, kill, copy, back up and promote: real ones, from the embedded's programs."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from journal.store import embedded

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "wal_keep_size": "64MB",
    "timezone": "UTC",
}


class Cluster:
    """A data folder, and the server on it while it runs. It keeps its port when it is started again.

    `before`: words that its programs are put behind; `more`: what the server's environment has besides.
    """

    def __init__(self, folder: Path, *, before: Sequence[str] = (), more: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "pgdata"
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._programs = embedded._programs()
        folder.mkdir(parents=True, exist_ok=True)
        become, self._owner = embedded._identity(folder, self._programs)
        self._become, self._more = [*before, *become], more or {}

    @property
    def dsn(self) -> str:
        return f"postgresql://journal@127.0.0.1:{self.port}/journal"

    async def create(self, *, wal: Path | None = None, **settings: str) -> None:
        """Make the data folder, with an empty database. `wal`: where its log is, in small files, if not in there."""
        os.chown(self.folder, self._owner, -1)
        elsewhere = [] if wal is None else [f"--waldir={wal}", "--wal-segsize=1"]
        if wal is not None:
            os.chown(wal.parent, self._owner, -1)
        await self._run("initdb", "-D", str(self.data), "--username=journal", "--auth=trust", "--locale=C.UTF-8",
                        "--encoding=UTF8", "--no-sync", *elsewhere)  # fmt: skip
        await self.start(**settings)
        admin = await asyncpg.connect(self.dsn.removesuffix("journal") + "postgres")
        await admin.execute("create database journal")
        await admin.close()

    async def start(self, **settings: str) -> None:
        """Start the server, and wait until it takes sessions."""
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        words = [f"{name}={value}" for name, value in (SETTINGS | settings | {"port": str(self.port)}).items()]
        more = [f"{name}={value}" for name, value in self._more.items()]
        command = [*self._become, *(["env", *more] if more else ()), str(self._programs / "postgres")]
        command += ["-D", str(self.data)]
        log = (self.folder / "log").open("ab")
        self._server = subprocess.Popen(  # noqa: ASYNC220 — it begins at once, and is not waited for here
            [*command, *(word for setting in words for word in ("-c", setting))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=embedded._environment(),
            start_new_session=True,
        )
        log.close()
        async with asyncio.timeout(60):
            while not await self.answers():
                assert self._server.poll() is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.05)

    async def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: in order; SIGQUIT: as in a crash."""
        if self._server is not None:
            self._server.send_signal(how)
            self.send(signal.SIGCONT)  # one that is frozen ends when it is thawed
            await asyncio.to_thread(self._server.wait, 60)
            self._server = None

    async def kill(self) -> None:
        """End the server and all its processes as a power cut would."""
        assert self._server is not None
        for pid in (self._server.pid, *self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.stop(signal.SIGKILL)

    @property
    def processes(self) -> list[int]:
        """The server's processes but the first."""
        assert self._server is not None
        pid = self._server.pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    @property
    def has_ended(self) -> bool:
        """Whether the server ended by itself."""
        return self._server is not None and self._server.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """A signal for each of the server's processes."""
        assert self._server is not None
        for pid in (self._server.pid, *self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def backup(self, folder: Path, *, is_standby: bool = False) -> "Cluster":
        """A base backup of the running server."""
        other = Cluster(folder)
        os.chown(folder, self._owner, -1)
        where = f"host=127.0.0.1 port={self.port} user=journal"
        more = ["-R"] if is_standby else []
        await self._run("pg_basebackup", "-d", where, "-D", str(other.data), "-X", "stream", "--no-sync",
                        "-c", "fast", *more)  # fmt: skip
        return other

    async def dump(self, folder: Path) -> "Cluster":
        """Another server, into which a dump of this one was restored."""
        text = await self._run("pg_dump", "-d", self.dsn, "--no-owner")
        other = Cluster(folder)
        await other.create()
        await other._run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", other.dsn, stdin=text)
        return other

    def copied(self, folder: Path) -> "Cluster":
        """A copy of the stopped server's folder."""
        assert self._server is None
        other = Cluster(folder)
        shutil.copytree(self.data, other.data, symlinks=True, copy_function=_with_owner)
        for path in (folder, other.data, *other.data.rglob("*")):
            os.chown(path, self._owner, -1, follow_symlinks=False)
        other.data.chmod(0o700)
        return other

    async def promote(self) -> None:
        """Make a standby the primary."""
        connection = await asyncpg.connect(self.dsn)
        assert await connection.fetchval("select pg_promote()")
        await connection.close()

    async def follows(self, *, wanted: str = "sync") -> bool:
        """Whether a standby streams from here."""
        connection = await asyncpg.connect(self.dsn)
        states = await connection.fetch("select sync_state from pg_stat_replication where state = 'streaming'")
        await connection.close()
        return [row["sync_state"] for row in states] == [wanted]

    async def answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn.removesuffix("journal") + "postgres", timeout=5)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True

    async def _run(self, program: str, *arguments: str, stdin: str = "") -> str:
        done = await asyncio.to_thread(
            embedded._run, [*self._become, str(self._programs / program), *arguments], stdin=stdin
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _with_owner(source: str, target: str) -> str:
    return shutil.copy2(source, target)
