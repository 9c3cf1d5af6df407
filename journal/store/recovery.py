"""The way back: floors and epochs, and the registry of who syncs."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from journal.core.cursor import Cursor
from journal.store.database import Connection, Database
from journal.store.heads import Head
from journal.store.queries import QUERY
from journal.store.record import text_array


class Floor(msgspec.Struct, frozen=True):
    """Whom it concerns does not go on from below `revision`. Without client and collections: everyone."""

    revision: int
    client: UUID | None
    collections: frozenset[str] | None
    spread_s: int
    at: datetime


class Seen(msgspec.Struct, frozen=True):
    """Where a client was seen: the cursor that it asked from, None where it asked without one; how many seconds ago."""

    journal: str
    client: UUID
    cursor: Cursor | None
    agent: str | None
    cursor_age_s: float
    age_s: float


class Registered(msgspec.Struct, frozen=True):
    """A client as the registry has it. `lag`, `lag_s` are None where its cursor is not of this history."""

    client: UUID
    cursor: str | None
    revision: int | None
    agent: str | None
    first_seen: datetime
    last_seen: datetime
    resynced: int | None
    resynced_at: datetime | None
    lag: int | None
    lag_s: float | None
    resync: int | None
    pushed: int


class Pushed(msgspec.Struct, frozen=True):
    """A push that was decided."""

    push: int
    at: datetime
    status: int
    answer: bytes


class TooLow(Exception):
    """An epoch begins above the head."""


async def floors_after(connection: Connection, head: Head, revision: int, clients: Sequence[UUID]) -> list[Floor]:
    """The floors above a revision, lowest first, but for those of other clients than these."""
    rows = await connection.fetch(QUERY["floors_after"], head.id, revision, clients)
    return [
        Floor(
            row["revision"],
            None if row["client"] is None else UUID(str(row["client"])),
            None if row["collections"] is None else frozenset(row["collections"]),
            row["spread_s"],
            row["at"],
        )
        for row in rows
    ]


async def resync(
    database: Database,
    journal: int,
    *,
    client: UUID | None,
    collections: Sequence[str] | None,
    spread_s: int,
    reason: str,
    by: str,
) -> int | None:
    """Record a floor; its revision, None where the journal is gone."""
    async with database.operating() as connection:
        found: int | None = await connection.fetchval(
            QUERY["resync"], journal, client, collections, spread_s, reason, by, timeout=600
        )
    return found


async def begin_epoch(database: Database, journal: int, revision: int | None, *, spread_s: int, by: str) -> int | None:
    """Begin an epoch; its revision, None where the journal is gone. TooLow where `revision` was given out already."""
    async with database.operating() as connection:
        try:
            found: int | None = await connection.fetchval(QUERY["begin_epoch"], journal, revision, spread_s, by)
        except asyncpg.PostgresError as error:
            if error.sqlstate == "JR004":
                raise TooLow(str(error)) from error
            raise
    return found


async def forget_client(database: Database, journal: int, client: UUID, *, by: str) -> bool:
    """Forget a client; False where it was never heard of."""
    async with database.operating() as connection:
        return bool(await connection.fetchval(QUERY["forget_client"], journal, client, by))


async def is_forgotten(database: Database, journal: int, client: UUID) -> bool:
    """Whether an operator forgot a client."""
    async with database.reading() as connection:
        return bool(await connection.fetchval(QUERY["is_forgotten"], journal, client))


async def see(database: Database, seen: Sequence[Seen]) -> None:
    """Write down where clients were seen; each is in it once."""
    rows = [
        (
            s.journal,
            s.client,
            None if s.cursor is None else str(s.cursor),
            None if s.cursor is None else bytes.fromhex(s.cursor.epoch),
            None if s.cursor is None else s.cursor.round_base,
            None if s.cursor is None or s.cursor.collections is None else text_array(sorted(s.cursor.collections)),
            s.agent,
            s.cursor_age_s,
            s.age_s,
        )
        for s in sorted(seen, key=lambda s: (s.journal, s.client))
    ]
    async with database.operating() as connection:
        await connection.execute(QUERY["see"], *([*column] for column in zip(*rows, strict=True)))


async def forget_unseen(database: Database, days: float) -> None:
    """Forget clients that were not seen for so long."""
    async with database.operating() as connection:
        await connection.execute(QUERY["forget_unseen"], days)


async def clients_after(
    database: Database, journal: int, after: tuple[int, UUID] | None, limit: int
) -> list[Registered]:
    """Up to `limit` clients, the furthest behind first, after (revision, -1 for none; client)."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["clients_after"], journal, *(after or (None, None)), limit, None)
    return [_registered(row) for row in rows]


async def client_named(database: Database, journal: int, client: UUID) -> Registered | None:
    """None where it was not seen."""
    async with database.reading() as connection:
        row = await connection.fetchrow(QUERY["clients_after"], journal, None, None, 1, client)
    return None if row is None else _registered(row)


async def pushes_of(database: Database, journal: int, client: UUID, limit: int) -> list[Pushed]:
    """A client's last pushes, newest first."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["pushes_of"], journal, client, limit)
    return [Pushed(row["push"], row["at"], row["status"], row["answer"].encode()) for row in rows]


def _registered(row: "asyncpg.Record") -> Registered:
    known = dict(row)
    return Registered(**known | {"client": UUID(str(known["client"]))})
