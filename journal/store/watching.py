"""Watching: what is asked of PostgreSQL so that a person can watch. It takes little time, or is given up."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from journal.store.database import Database
from journal.store.queries import QUERY

PATIENCE_S = 2.0


class Behind(msgspec.Struct, frozen=True):
    """A client that is not at its journal's head, or is: by how many revisions, and how old the first of them is."""

    journal: int
    client: UUID
    lag: int
    lag_s: float


async def records(database: Database) -> bool:
    """Whether PostgreSQL answers and takes what is recorded; Unavailable where it does not answer."""
    async with database.reading() as connection:
        return not await connection.fetchval(QUERY["in_recovery"], timeout=PATIENCE_S)


async def furthest_behind(
    database: Database, journals: Sequence[int], *, of_each: int, of_all: int, seen_s: int
) -> list[Behind]:
    """The clients of `journals` that are furthest behind, of those that were seen lately."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["furthest_behind"], journals, of_each, of_all, seen_s, timeout=PATIENCE_S)
    return [Behind(row["journal_id"], UUID(str(row["client"])), row["lag"], max(row["lag_s"], 0.0)) for row in rows]
