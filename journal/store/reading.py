"""Reading: pages of deltas, snapshots, the record and single atoms, as lines of JSON that PostgreSQL renders.

Lines come by COPY, in pieces as large as PostgreSQL sends them: memory does not grow with what is read.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from journal.core.model import Change, Op
from journal.store.database import Connection
from journal.store.heads import Head, change_of
from journal.store.queries import QUERY

Sink = Callable[[bytes], Coroutine[Any, Any, None]]
# jsonb's text has no control characters: with these two nothing is ever quoted, so that a line is what was selected.
_QUOTE, _DELIMITER = "\x01", "\x02"
LONG_S = 3600.0
CHUNK = 5000


class Moment(msgspec.Struct, frozen=True):
    """An entry of an atom's history."""

    revision: int
    op: Op
    data: bytes | None
    unset: tuple[str, ...]
    is_erased: bool
    at: datetime
    by: UUID | None
    push: int | None


class Standing(msgspec.Struct, frozen=True):
    """An atom as it stands, with who changed it last and when."""

    revision: int
    created: int
    born: int
    data: bytes | None
    at: datetime
    by: UUID | None


async def page_end(
    connection: Connection, head: Head, position: int, limit: int | None, collections: list[int] | None
) -> int:
    """Where a page of at most `limit` deltas ends, a commit's end always; the head where all that is left fits."""
    if limit is None or head.head - position <= limit:
        return head.head
    end: int | None = await connection.fetchval(QUERY["page_end"], head.id, position, limit, collections)
    return head.head if end is None else end


async def copy_deltas(
    connection: Connection,
    head: Head,
    *,
    base: int,
    position: int,
    end: int,
    collections: list[int] | None,
    client: int | None,
    with_meta: bool,
    sink: Sink,
) -> None:
    """The deltas of a page to `sink`, a line each."""
    arguments = (head.id, base, position, end, collections, client, with_meta)
    await copy(connection, "delta_lines", arguments, sink)


async def copy_snapshot(connection: Connection, head: Head, collections: list[int] | None, sink: Sink) -> None:
    """Every living atom to `sink`, a line each."""
    await copy(connection, "snapshot_lines", (head.id, collections), sink)


async def copy_commits(connection: Connection, head: Head, after: int, until: int, sink: Sink) -> None:
    """The record after a revision to `sink`, a line a commit."""
    await copy(connection, "commit_lines", (head.id, after, until), sink)


async def commits_end(connection: Connection, head: Head, after: int, limit: int) -> int:
    """The last commit of a page of the record: at most `limit` changes, at least one commit."""
    end: int | None = await connection.fetchval(QUERY["changes_end"], head.id, after, limit)
    return head.head if end is None else end


async def last_changes(
    connection: Connection,
    head: Head,
    *,
    base: int,
    position: int,
    until: int,
    collections: list[int] | None,
) -> AsyncIterator[list[int]]:
    """The last changes of the atoms that changed within (base, until], those after `position`, in order, in chunks."""
    cursor = await connection.cursor(QUERY["last_changes"], head.id, base, position, until, collections)
    while rows := await cursor.fetch(CHUNK):
        yield [row["revision"] for row in rows]


async def walk_back(connection: Connection, head: Head, base: int, last: Sequence[int]) -> AsyncIterator[Change]:
    """All changes after `base` of the atoms whose `last` changes are named, oldest first."""
    names = {collection.id: collection.name for collection in head.collections.values()}
    async for row in connection.cursor(QUERY["walk_back"], head.id, base, last, prefetch=1000):
        yield change_of(row, names, row["client_id"])


async def commit_ends(connection: Connection, head: Head, before: int, holding: int) -> tuple[int | None, int]:
    """The end of the last commit before a revision, and of the commit that holds another."""
    row = await connection.fetchrow(QUERY["commit_ends"], head.id, before, holding)
    assert row is not None
    return row["before"], row["holding"]


async def metas(connection: Connection, head: Head, revisions: Sequence[int]) -> dict[int, str]:
    """Who recorded each of `revisions` and when, as the members of JSON that a delta gets."""
    rows = await connection.fetch(QUERY["metas"], head.id, revisions)
    return {row["revision"]: row["meta"] or "" for row in rows}


async def client_number(connection: Connection, head: Head, name: str | None) -> int | None:
    """The number that the journal gave to a client; None for one that never pushed."""
    if name is None:
        return None
    number: int | None = await connection.fetchval(QUERY["client_number"], head.id, UUID(name))
    return number


async def atom_now(connection: Connection, head: Head, collection: str, atom: str) -> Standing | None:
    """None where there never was such an atom."""
    found = head.collections.get(collection)
    row = found and await connection.fetchrow(QUERY["atom_now"], head.id, found.id, atom)
    if not row:
        return None
    data = row["data"]
    return Standing(
        revision=row["revision"],
        created=row["created"],
        born=row["born"],
        data=None if data is None else data.encode(),
        at=row["committed_at"],
        by=row["by"],
    )


async def atom_history(
    connection: Connection, head: Head, collection: str, atom: str, *, before: int, limit: int
) -> list[Moment]:
    """Up to `limit` changes of an atom with revisions below `before`, newest first."""
    found = head.collections.get(collection)
    if found is None:
        return []
    rows = await connection.fetch(QUERY["atom_history"], head.id, found.id, atom, before, limit)
    return [
        Moment(
            revision=row["revision"],
            op=Op(row["op"]),
            data=None if row["data"] is None else row["data"].encode(),
            unset=tuple(row["unset"] or ()),
            is_erased=row["erased"],
            at=row["committed_at"],
            by=row["by"],
            push=row["push"],
        )
        for row in rows
    ]


async def copy(connection: Connection, query: str, arguments: Sequence[object], sink: Sink) -> None:
    """The rows of a query of one column to `sink`, a line each, as they are."""
    await connection.copy_from_query(
        QUERY[query], *arguments, output=sink, timeout=LONG_S, format="csv", quote=_QUOTE, delimiter=_DELIMITER
    )
