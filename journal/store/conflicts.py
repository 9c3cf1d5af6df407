"""Conflicts that are kept for a person: they are written with the push that they are of (store/record.py)."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import msgspec

from journal.core.grants import Names
from journal.core.model import Keep, PushOp
from journal.store.database import Connection, Database
from journal.store.queries import QUERY

if TYPE_CHECKING:
    import asyncpg

    Row = asyncpg.Record
else:
    Row = Any

State = Literal["open", "settled", "all"]


class Settlement(msgspec.Struct, frozen=True):
    """How a conflict was settled. `copy`: the name that the client's version got, where both were kept."""

    keep: Keep
    copy: str | None
    revision: int | None
    by: str
    at: datetime


class Kept(msgspec.Struct, frozen=True):
    """A change as its client sent it, and what it met. Data is JSON text; of what was erased there is none."""

    id: int
    op: PushOp
    collection: str
    atom: str
    data: bytes | None
    unset: tuple[str, ...]
    client: UUID | None
    push: int | None
    place: int
    base: int | None
    stood_revision: int | None
    stood_data: bytes | None
    at: datetime
    is_erased: bool
    settled: Settlement | None


async def before(
    database: Database,
    journal: int,
    below: int | None,
    *,
    state: State,
    client: UUID | None,
    collections: Names,
    limit: int,
    size: int,
) -> tuple[list[Kept], bool]:
    """Up to `limit` conflicts of numbers `below`, newest first, and whether there are more.

    Fewer where they have more than `size` bytes, but never none.
    """
    async with database.reading() as connection:
        names = None if collections is None else sorted(collections)
        rows = await connection.fetch(QUERY["conflicts_before"], journal, below, state, client, limit + 1, size, names)
    found = [_kept(row) for row in rows[:limit]]
    return found, bool(rows) and rows[0]["found"] > len(found)


async def by_id(connection: Connection, journal: int, number: int) -> Kept | None:
    """One conflict."""
    row = await connection.fetchrow(QUERY["conflict_by_id"], journal, number)
    return None if row is None else _kept(row)


async def settle(
    connection: Connection, journal: int, number: int, keep: Keep, copy: str | None, revision: int | None, *, by: str
) -> None:
    """Settle a conflict that is open; the caller holds the journal's head."""
    settled = await connection.fetchval(QUERY["settle_conflict"], journal, number, keep, copy, revision, by)
    assert settled == number


async def erase(connection: Connection, journal: int, collection: str, atom: str) -> int:
    """Blank what is kept of an atom; in how many conflicts."""
    blanked: int = await connection.fetchval(QUERY["erase_conflicts"], journal, collection, atom, timeout=600)
    return blanked


def _kept(row: Row) -> Kept:
    settled = None
    if row["settled_at"] is not None:
        settled = Settlement(row["keep"], row["copy"], row["revision"], row["settled_by"], row["settled_at"])
    return Kept(
        id=row["id"],
        op=row["op"],
        collection=row["collection"],
        atom=row["atom"],
        data=None if row["data"] is None else row["data"].encode(),
        unset=tuple(row["unset"] or ()),
        client=None if row["client"] is None else UUID(str(row["client"])),
        push=row["push"],
        place=row["place"],
        base=row["base"],
        stood_revision=row["stood_revision"],
        stood_data=None if row["stood_data"] is None else row["stood_data"].encode(),
        at=row["at"],
        is_erased=row["erased"],
        settled=settled,
    )
