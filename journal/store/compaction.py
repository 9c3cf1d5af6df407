"""Compaction and erasure: the two doors of the record."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from journal.store.database import Connection, Database
from journal.store.queries import QUERY


class Keep(msgspec.Struct, frozen=True):
    """What compaction leaves: so many revisions, what is younger than `since`, what clients seen since `guard` lack."""

    revisions: int | None
    since: datetime | None
    guard: datetime
    is_forced: bool


class Compactable(msgspec.Struct, frozen=True):
    """How far compaction may go (`target`) and was meant to (`wanted`), and who is in between: the lowest of each."""

    horizon: int
    wanted: int
    target: int
    client: UUID | None
    client_revision: int | None
    snapshot_revision: int | None


class Below(msgspec.Struct, frozen=True):
    """What there is below a horizon."""

    changes: int
    commits: int
    tombstones: int
    bytes: int


class CutOff(msgspec.Struct, frozen=True):
    """A client that could not go on from where it is."""

    client: UUID
    revision: int
    last_seen: datetime


async def compactable(connection: Connection, journal: int, keep: Keep) -> Compactable:
    """How far a journal may be compacted."""
    row = await connection.fetchrow(
        QUERY["compactable"], journal, keep.revisions, keep.since, keep.guard, keep.is_forced, timeout=3600
    )
    assert row is not None
    known = dict(row)
    return Compactable(**known | {"client": _uuid(known["client"])})


async def below(connection: Connection, journal: int, horizon: int) -> Below:
    """What compaction up to a revision removes."""
    row = await connection.fetchrow(QUERY["below"], journal, horizon, timeout=3600)
    assert row is not None
    return Below(row["changes"], row["commits"], row["tombstones"], int(row["bytes"]))


async def cut_off(connection: Connection, journal: int, horizon: int, limit: int) -> list[CutOff]:
    """Who could not go on."""
    rows = await connection.fetch(QUERY["cut_off"], journal, horizon, limit)
    return [CutOff(UUID(str(row["client"])), row["revision"], row["last_seen"]) for row in rows]


async def raise_horizon(database: Database, journal: int, wanted: int, keep: Keep, *, by: str) -> int | None:
    """Raise the horizon to what is wanted, as far as it may be; where it is then, None where the journal is gone."""
    async with database.operating() as connection:
        found: int | None = await connection.fetchval(
            QUERY["raise_horizon"], journal, wanted, keep.guard, keep.is_forced, by
        )
    return found


async def sweep_record(database: Database, journal: int, most: int) -> tuple[int, int]:
    """Remove some of the record below the horizon: how many changes and commits went."""
    async with database.operating() as connection:
        row = await connection.fetchrow(QUERY["sweep_record"], journal, most)
    assert row is not None
    return row["changes"], row["commits"]


async def sweep_tombstones(database: Database, journal: int, after: int, most: int) -> tuple[int, int | None]:
    """Remove some of the tombstones below the horizon: how many, and after which to go on (None: that was all)."""
    async with database.operating() as connection:
        row = await connection.fetchrow(QUERY["sweep_tombstones"], journal, after, most)
    assert row is not None
    return row["tombstones"], row["next"]


async def forget_kept(database: Database) -> None:
    """Forget which snapshots were kept, once that is over."""
    async with database.operating() as connection:
        await connection.execute(QUERY["forget_kept"])


async def keep_snapshot(database: Database, journal: int, revision: int, seconds: float) -> None:
    """Keep a snapshot's revision from compaction."""
    async with database.operating() as connection:
        await connection.execute(QUERY["keep"], journal, revision, seconds)


async def erase(connection: Connection, journal: int, collection: int, atom: str) -> tuple[list[int], int]:
    """Blank a deleted atom's data in its changes: their revisions, and how many were blanked now."""
    row = await connection.fetchrow(QUERY["erase"], journal, collection, atom, timeout=600)
    assert row is not None
    return row["revisions"], row["blanked"]


async def answers_telling(
    connection: Connection, journal: int, revisions: Sequence[int], horizon: int
) -> list[Mapping[str, Any]]:
    """The kept answers that tell the data of an atom with these `revisions`, or may; `blank`: by which revisions."""
    rows = await connection.fetch(QUERY["answers_telling"], journal, revisions, horizon, timeout=3600)
    return [dict(row) for row in rows]


async def change_answer(connection: Connection, journal: int, kept: Mapping[str, Any], answer: str) -> None:
    """Put another answer in the place of a kept one."""
    if kept["kept"] == "push":
        await connection.execute(QUERY["change_push"], journal, kept["client_id"], kept["push"], answer)
    else:
        await connection.execute(QUERY["change_key"], journal, kept["key"], answer)


def _uuid(value: object) -> UUID | None:
    return None if value is None else UUID(str(value))
