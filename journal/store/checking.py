"""What a check reads: the record by revisions and by atoms, and the state, in streams.

The rule: whatever the bits of a row have become, it is read; what cannot be a change or an atom any more is told to
be broken. A stream is read in pieces that are small in rows and, as far as can be foreseen, in bytes, so that neither
memory grows with what is read nor the event loop is held by it.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from journal.core.model import Change, Op
from journal.core.replay import Stored
from journal.store.database import Connection
from journal.store.heads import Head
from journal.store.queries import QUERY
from journal.store.reading import LONG_S

if TYPE_CHECKING:
    import asyncpg

    Row = asyncpg.Record
else:
    Row = Any

_ROWS = 256
_BYTES = 1 << 20

Place = tuple[int, bytes]
"""A collection's number and the bytes of an atom's name: the order of the state and of the record by atoms."""


class CommitRow(msgspec.Struct, frozen=True):
    """A row of journal.commit."""

    revision: int
    first: int
    epoch: bytes
    chain: bytes


class Broken(msgspec.Struct, frozen=True):
    """A change that cannot be one, and why. `collection` is its collection's number where that is what is not there."""

    revision: int
    detail: str
    collection: int | None = None


class ChangeRow(msgspec.Struct, frozen=True):
    """A change among those of its atom."""

    place: Place
    revision: int
    prev: int
    change: Change | Broken
    is_client_known: bool


class AtomRow(msgspec.Struct, frozen=True):
    """An atom of the state; `stored` is None where its arrays are none."""

    place: Place
    revision: int
    stored: Stored | None


class Named(msgspec.Struct, frozen=True):
    """The atom that a change names, and the change that it follows."""

    place: Place
    prev: int


async def commits(connection: Connection, head: Head) -> AsyncIterator[CommitRow]:
    """The commits from the horizon's own on, oldest first."""
    async for row in _rows(connection, "checked_commits", head.id, head.horizon):
        yield CommitRow(*row)


async def changes(connection: Connection, head: Head) -> AsyncIterator[Change | Broken]:
    """The changes above the horizon, oldest first. Their data is not read: for all they count by its hash."""
    names = _names(head)
    async for revision, collection, atom, op, hashed, unset in _rows(
        connection, "checked_changes", head.id, head.horizon
    ):
        yield _change(names, revision, collection, atom, op, unset, erased=hashed)


async def changes_by_atom(connection: Connection, head: Head, until: int) -> AsyncIterator[ChangeRow]:
    """The changes within (horizon, until], atom by atom, each atom's oldest first."""
    names = _names(head)
    rows = _rows(connection, "changes_by_atom", head.id, head.horizon, until, data=4)
    async for collection, atom, revision, op, data, unset, prev, erased, client, is_client_known in rows:
        yield ChangeRow(
            place=(collection, atom),
            revision=revision,
            prev=prev,
            change=_change(names, revision, collection, atom, op, unset, data=data, client=client, erased=erased),
            is_client_known=bool(is_client_known),
        )


async def atoms(connection: Connection, head: Head) -> AsyncIterator[AtomRow]:
    """The state, tombstones too, in the same order."""
    rows = _rows(connection, "atoms_in_order", head.id, data=7)
    async for collection, atom, born, born_by, created, revision, deleted, data, fk, fr in rows:
        try:
            stored = Stored(born, born_by, created, revision, deleted, data, _texts(fk), _decode_numbers(fr))
        except ValueError:
            yield AtomRow((collection, atom), revision, None)
        else:
            yield AtomRow((collection, atom), revision, stored)


async def named_at(connection: Connection, head: Head, revision: int) -> Named | None:
    """None where there is no such change."""
    row = await connection.fetchrow(QUERY["change_at"], head.id, revision)
    return None if row is None else Named((row["collection_id"], row["atom"]), row["prev"])


async def _rows(connection: Connection, query: str, *arguments: object, data: int | None = None) -> AsyncIterator[Row]:
    """A query's rows; `data`: the column that may be large."""
    cursor = await connection.cursor(QUERY[query], *arguments, timeout=LONG_S)
    most = _ROWS if data is None else _ROWS // 16
    while rows := await cursor.fetch(most, timeout=LONG_S):
        for row in rows:
            yield row
        if data is not None:
            size = sum(len(row[data] or b"") for row in rows)
            most = max(1, min(_ROWS, 2 * most, _BYTES * len(rows) // (size + 1)))


def _names(head: Head) -> dict[int, str]:
    return {collection.id: collection.name for collection in head.collections.values()}


def _change(
    names: dict[int, str],
    revision: int,
    collection: int,
    atom: bytes,
    op: int,
    unset: bytes | None,
    *,
    data: bytes | None = None,
    client: int | None = None,
    erased: bytes | None = None,
) -> Change | Broken:
    name = names.get(collection)
    if name is None:
        return Broken(revision, f"its collection is {collection}, and there is none of this number", collection)
    known = _OPS.get(op)
    if known is None:
        return Broken(revision, f"its op is {op}, which means nothing")
    try:
        return Change(revision, known, name, atom.decode(), data, _texts(unset), client=client, erased=erased)
    except ValueError:
        return Broken(revision, "its atom's name, or one that it unsets, is no text")


_OPS = {op.value: op for op in Op}
_decode_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_numbers = msgspec.json.Decoder(tuple[int, ...]).decode


def _texts(array: bytes | None) -> tuple[str, ...]:
    """An array of texts, from JSON."""
    return () if array is None else _decode_texts(array)
