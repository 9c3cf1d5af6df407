"""Where journals stand: the heads, what a process's memory is fed with, and the directory."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from journal.core import chain, digest
from journal.core.cursor import Cursor
from journal.core.model import Change, Op, Policy
from journal.store.database import Connection, Database
from journal.store.queries import QUERY

if TYPE_CHECKING:
    import asyncpg

    Row = asyncpg.Record
else:
    Row = Any


class Collection(msgspec.Struct, frozen=True):
    """A collection at a head: how many atoms live in it, and their digest."""

    id: int
    name: str
    atoms: int
    digest: int
    policy: Policy | None


class Head(msgspec.Struct, frozen=True):
    """A journal at one moment. `turn` changes with everything that is written, also where no change is recorded.

    `floor`: the highest revision at which anybody was asked to start again. `erased`: the last one at which data was.
    `gone`: how many clients were forgotten.
    """

    id: int
    journal: str
    epoch: str
    head: int
    horizon: int
    chain: bytes
    turn: int
    collections: dict[str, Collection]
    floor: int = 0
    erased: int = 0
    gone: int = 0

    @property
    def cursor(self) -> Cursor:
        """Where a client stands that has everything."""
        return Cursor(self.epoch, self.head, chain.told(self.chain))

    def totals(self, names: frozenset[str] | None = None) -> tuple[int, int]:
        """How many atoms live, and their digest, in the collections of these `names` or in all."""
        atoms = total = 0
        for collection in self.collections.values():
            if names is None or collection.name in names:
                atoms += collection.atoms
                total ^= collection.digest
        return atoms, total

    def ids(self, names: frozenset[str] | None) -> list[int] | None:
        """The collections' numbers; of unknown names there are none."""
        if names is None:
            return None
        return [self.collections[name].id for name in sorted(names) if name in self.collections]


class Commit(msgspec.Struct, frozen=True):
    """A commit as memory holds it."""

    first: int
    revision: int
    client: int | None
    at: datetime
    chain: bytes
    changes: tuple[Change, ...]


class Feed(msgspec.Struct, frozen=True):
    """What moved since a revision: the head now, the chain at that revision, and the commits between.

    `chain_there` is None where no commit ends at that revision. `commits` is None where there are too many.
    """

    head: Head
    chain_there: bytes | None
    commits: list[Commit] | None


async def head_by_name(database: Database, name: str) -> Head | None:
    """None where there is no such journal."""
    async with database.reading() as connection:
        return _head(await connection.fetchrow(QUERY["head_by_name"], name))


async def head_by_id(connection: Connection, journal: int) -> Head | None:
    """The same on a connection, and so at the moment, of the caller's."""
    return _head(await connection.fetchrow(QUERY["head_by_id"], journal))


async def heads_after(database: Database, name: str, limit: int) -> list[Head]:
    """Up to `limit` journals whose names come after `name`."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["heads_after"], name, limit)
    return [head for row in rows if (head := _head(row)) is not None]


async def turns(connection: Connection, journals: Sequence[int]) -> dict[int, tuple[int, bytes]]:
    """The turn and the chain of those of `journals` that are there."""
    rows = await connection.fetch(QUERY["turns"], journals)
    return {row["journal_id"]: (row["turn"], row["chain"]) for row in rows}


async def chain_at(connection: Connection, head: Head, revision: int) -> bytes | None:
    """The chain at `revision`; None where no commit ends there."""
    if revision == head.head:
        return head.chain
    if revision == 0:
        return chain.START
    found: bytes | None = await connection.fetchval(QUERY["chain_at"], head.id, revision)
    return found


async def feed(connection: Connection, journal: int, after: int, limit: int) -> Feed | None:
    """What memory that stands at `after` has to learn; None where the journal is gone.

    The connection is at one moment, or holds the journal's head.
    """
    head = await head_by_id(connection, journal)
    if head is None:
        return None
    if after > head.head or head.head - after > limit:
        return Feed(head, None, None)
    there = await chain_at(connection, head, after)
    rows = await connection.fetch(QUERY["commits_after"], journal, after, limit)
    changes = await connection.fetch(QUERY["changes_between"], journal, after, head.head)
    names = {collection.id: collection.name for collection in head.collections.values()}
    commits, place = [], 0
    for row in rows:
        taken = []
        while place < len(changes) and changes[place]["revision"] <= row["revision"]:
            taken.append(change_of(changes[place], names, row["client_id"]))
            place += 1
        commits.append(
            Commit(row["first"], row["revision"], row["client_id"], row["committed_at"], row["chain"], tuple(taken))
        )
    return Feed(head, there, commits)


def change_of(row: Row, names: dict[int, str], client: int | None) -> Change:
    """A change from a row of journal.change."""
    data = row["data"]
    return Change(
        revision=row["revision"],
        op=Op(row["op"]),
        collection=names[row["collection_id"]],
        atom=row["atom"],
        data=None if data is None else data.encode(),
        unset=tuple(row["unset"] or ()),
        prev=row["prev"],
        client=client,
        erased=row["erased"],
    )


async def create(database: Database, name: str) -> bool:
    """Make a journal; False where one of that name is there."""
    async with database.operating() as connection:
        return bool(await connection.fetchval(QUERY["create_journal"], name))


async def remove(database: Database, name: str) -> bool:
    """Remove a journal with its record; False where there is none."""
    async with database.operating() as connection:
        return bool(await connection.fetchval(QUERY["remove_journal"], name, timeout=3600))


async def set_policy(database: Database, journal: int, collection: str, policy: Policy | None, by: str) -> None:
    """Give a collection a policy, or take it away."""
    async with database.operating() as connection:
        await connection.execute(QUERY["set_policy"], journal, collection, policy, by)


_rows = msgspec.json.Decoder(list[tuple[int, str, int, int, Policy | None]]).decode


def _head(row: Row | None) -> Head | None:
    if row is None:
        return None
    return Head(
        id=row["id"],
        journal=row["name"],
        epoch=row["epoch"].hex(),
        head=row["head"],
        horizon=row["horizon"],
        chain=row["chain"],
        turn=row["turn"],
        collections={
            name: Collection(number, name, atoms, digest.from_bigint(stored), policy)
            for number, name, atoms, stored, policy in _rows(row["collections"])
        },
        floor=row["floor"],
        erased=row["erased"],
        gone=row["gone"],
    )
