"""The role that the service under test runs as: it owns nothing, and may do what sql/roles.sql gives it.

The one rule: what a test does itself it does as the owner, what the service does, however it is started, as the role.
Where a test makes a database of its own and has it migrated by the service, that is the owner's work too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

PASSWORD = "only-for-tests"
_logins: dict[str, str] = {}


@asynccontextmanager
async def role(admin: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[str]:
    """A role of this session's own, which can log in."""
    name = f"journal_test_{uuid4().hex[:12]}"
    await admin.execute(f"create role \"{name}\" login password '{PASSWORD}'")
    yield name
    await admin.execute(f'drop role "{name}"')


def serves(role: str, database: str) -> None:
    """Have the service connect to this database as the role."""
    _logins[database] = role


def cloned(database: str, clone: str) -> None:
    """A database was made out of another, rights and all."""
    if database in _logins:
        _logins[clone] = _logins[database]


def as_service(dsn: str) -> str:
    """An owner's DSN as the service under test is given it; anything else stays as it is."""
    place = urlsplit(dsn)
    role = _logins.get(place.path.removeprefix("/"))
    if role is None or place.password == PASSWORD:
        return dsn
    _, _, where = place.netloc.rpartition("@")
    return urlunsplit(place._replace(netloc=f"{role}:{PASSWORD}@{where}"))
