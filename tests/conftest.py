"""One PostgreSQL server a session, a database of its own for each test, and the service on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings

from journal.store.migrate import migrate
from tests.harness import Harness, serving
from tests.postgres import Server, server
from tests.role import cloned, role, serves

settings.register_profile("no timing", deadline=None)  # how long an example takes says what else the machine does
settings.load_profile("no timing")

_SERVER = pytest.StashKey[Server]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which PostgreSQL it was: a green run on another than was meant is no proof."""
    if _SERVER in config.stash:
        terminalreporter.write_line(f"on {config.stash[_SERVER].describe}")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of this session."""
    with server() as running:
        request.config.stash[_SERVER] = running
        yield running


def named(dsn: str, database: str) -> str:
    """The DSN of another database of the same server."""
    head, _, tail = dsn.partition("?")
    return head.rpartition("/")[0] + "/" + database + (f"?{tail}" if tail else "")


@pytest.fixture(scope="session")
async def service_role(postgres: Server) -> AsyncIterator[str]:
    """The role that the service under test runs as."""
    admin = await asyncpg.connect(postgres.dsn)
    async with role(admin) as name:
        yield name
    await admin.close()


@pytest.fixture(scope="session")
async def template(postgres: Server, service_role: str) -> AsyncIterator[str]:
    """The name of a migrated database that tests are cloned from."""
    name = f"template_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f'create database "{name}" template template0')
    await migrate(named(postgres.dsn, name), role=service_role)
    serves(service_role, name)
    yield name
    await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()


@asynccontextmanager
async def new_database(postgres: Server, template: str | None) -> AsyncIterator[str]:
    """The owner's DSN of a database that is there for as long as the context; without a template nothing is in it."""
    name = f"test_{uuid4().hex[:12]}"
    if template is not None:
        cloned(template, name)
    clone = 'template "template0"' if template is None else f'template "{template}" strategy file_copy'
    admin = await asyncpg.connect(postgres.dsn)
    try:
        await admin.execute(f'create database "{name}" {clone}')
        yield named(postgres.dsn, name)
        await admin.execute(f'drop database "{name}" with (force)')
    finally:
        await admin.close()


@pytest.fixture
async def empty_database(postgres: Server) -> AsyncIterator[str]:
    """The DSN of a new database without anything in it."""
    async with new_database(postgres, None) as dsn:
        yield dsn


@pytest.fixture
async def database(postgres: Server, template: str) -> AsyncIterator[str]:
    """The owner's DSN of a new, migrated database."""
    async with new_database(postgres, template) as dsn:
        yield dsn


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service on a database of its own, in this process, with a journal called `j`."""
    async with serving(database, tmp_path) as running:
        await running.create("j")
        yield running
