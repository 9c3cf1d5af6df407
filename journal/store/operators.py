"""What operators see and do besides: operations that take long, the audit log, figures, the server's identity."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from journal.store.database import Connection, Database
from journal.store.queries import QUERY

State = Literal["running", "done", "failed"]


class Operation(msgspec.Struct, frozen=True):
    """Something that takes long. `silent_s`: how long its process has said nothing of it."""

    id: UUID
    kind: str
    asked: str
    state: State
    progress: float
    result: str | None
    by: str
    begun_at: datetime
    ended_at: datetime | None
    silent_s: float


class Deed(msgspec.Struct, frozen=True):
    """What an operator did."""

    id: int
    at: datetime
    by: str
    action: str
    detail: str


class Bucket(msgspec.Struct, frozen=True):
    """What was recorded in some seconds from `at` on."""

    at: datetime
    commits: int
    changes: int


class Figures(msgspec.Struct, frozen=True):
    """What a journal holds; `bytes` is an estimate, `behind` are the clients that a resync waits for."""

    clients: int
    behind: int
    bytes: int


class Identity(msgspec.Struct, frozen=True):
    """The PostgreSQL that this is, and the one that was remembered.

    `timeline` None: a standby. `system` None: it does not tell, as hosted ones may not.
    """

    system: str | None
    timeline: int | None
    version: str
    remembered_system: str | None
    remembered_timeline: int | None
    remembered_at: datetime | None


async def begin(database: Database, journal: int, number: UUID, kind: str, asked: str, by: str) -> None:
    """Begin an operation."""
    async with database.operating() as connection:
        await connection.execute(QUERY["begin_operation"], journal, number, kind, asked, by)


async def tell(
    database: Database, journal: int, number: UUID, progress: float, state: State, result: str | None
) -> None:
    """Say how far it is, or how it ended."""
    async with database.operating() as connection:
        await connection.execute(QUERY["tell_operation"], journal, number, progress, state, result)


async def operations(database: Database, journal: int, number: UUID | None, limit: int) -> list[Operation]:
    """A journal's operations, newest first, or the one of that number."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["operations"], journal, number, limit)
    return [Operation(**dict(row) | {"id": UUID(str(row["id"]))}) for row in rows]


async def forget_operations(database: Database, before: datetime) -> None:
    """Forget those that began before."""
    async with database.operating() as connection:
        await connection.execute(QUERY["forget_operations"], before)


async def note(connection: Connection, journal: int, by: str, action: str, detail: dict[str, Any]) -> None:
    """Write down what an operator did."""
    await connection.execute(QUERY["note"], journal, by, action, msgspec.json.encode(detail).decode())


async def audit_before(database: Database, journal: int, before: int | None, limit: int) -> list[Deed]:
    """What operators did, newest first."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["audit_before"], journal, before, limit)
    return [Deed(**dict(row)) for row in rows]


async def figures(database: Database, journal: int) -> Figures | None:
    """None where the journal is gone."""
    async with database.reading() as connection:
        row = await connection.fetchrow(QUERY["stats"], journal)
    return None if row is None else Figures(**dict(row))


async def activity(database: Database, journal: int, *, seconds: int, bucket_s: int, most: int) -> list[Bucket]:
    """What was recorded lately, oldest first, of at most so many commits."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["activity"], journal, seconds, bucket_s, most)
    return [Bucket(**dict(row)) for row in rows]


async def identity(database: Database) -> Identity:
    """Which PostgreSQL this is."""
    async with database.reading() as connection:
        row = await connection.fetchrow(QUERY["server"])
    assert row is not None
    return Identity(**dict(row))


async def remember(database: Database, system: str, timeline: int, *, is_other: bool) -> None:
    """Remember a PostgreSQL, also in place of another if `is_other`."""
    async with database.operating() as connection:
        await connection.execute(QUERY["remember_server"], system, timeline, is_other)
