"""PgBouncer in transaction mode before the tests' PostgreSQL: Debian's program, as a process of ours.

The one rule: few connections to PostgreSQL for many to it, so that one after the other of them serves anybody.
"""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import pytest

from tests.role import PASSWORD, as_service

INI = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
ignore_startup_parameters = {ignored}
logfile = {log}
"""


def program() -> str:
    """PgBouncer; where it is missing a test is skipped, and on CI fails."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        reason = "pgbouncer is not installed: on Debian, apt-get install pgbouncer"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@asynccontextmanager
async def bouncing(database: str, *, size: int = 3, ignored: str = "") -> AsyncIterator[str]:
    """A DSN that leads to a test's database, as the role that serves, through at most `size` connections."""
    found = program()
    direct = urlsplit(as_service(database))
    query = dict(parse_qsl(direct.query))
    host = query.get("host") or direct.hostname or "127.0.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="journal-bouncer-") as name:
        folder = Path(name)
        users, ini, log = folder / "users.txt", folder / "pgbouncer.ini", folder / "log"
        users.write_text(f'"{direct.username}" "{PASSWORD}"\n')
        port = query.get("port") or direct.port or 5432
        ini.write_text(INI.format(host=host, port=port, own=own, users=users, size=size, ignored=ignored, log=log))
        command = [found, str(ini)]
        if os.geteuid() == 0:  # which it refuses to be
            user = pwd.getpwuid(Path(host).stat().st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid)
            for path in (folder, *folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
            command = [found, "-u", user.pw_name, str(ini)]
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        dsn = f"postgresql://{direct.username}:{PASSWORD}@127.0.0.1:{own}{direct.path}"
        try:
            await _answers(dsn, process, log)
            yield dsn
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()


async def _answers(dsn: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            assert process.returncode is None, log.read_text()
            try:
                connection = await asyncpg.connect(dsn, timeout=5, statement_cache_size=0)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.02)
                continue
            await connection.close()
            return
