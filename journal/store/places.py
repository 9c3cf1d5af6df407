"""Places: what the verification of a client reads. The index of places itself is a file (service/indexes.py)."""

from collections.abc import Sequence

from journal.core import chain
from journal.core.cursor import Cursor
from journal.store.database import Connection
from journal.store.heads import Head
from journal.store.queries import QUERY
from journal.store.reading import Sink, copy


async def standing(connection: Connection, journal: int) -> tuple[Cursor, int] | None:
    """Where a journal stands by its own row, and its turn; None where it is gone."""
    row = await connection.fetchrow(QUERY["standing"], journal)
    if row is None:
        return None
    return Cursor(row["epoch"].hex(), row["head"], chain.told(row["chain"])), row["turn"]


async def changed_after(connection: Connection, head: Head, revision: int, most: int) -> int:
    """How many atoms have changed after a revision; `most` if there are as many or more."""
    count: int = await connection.fetchval(QUERY["changed_after"], head.id, revision, most)
    return count


async def copy_places(connection: Connection, head: Head, after: int, sink: Sink) -> None:
    """The atoms that changed after a revision to `sink`, a line each; after 0 those that live."""
    await copy(connection, "place_lines", (head.id, after), sink)


async def copy_lookup(
    connection: Connection, head: Head, atoms: Sequence[tuple[str, str]], before: Sequence[str], sink: Sink
) -> None:
    """What is there of `atoms` (collection and name) to `sink`, a line each, every one after its text of `before`."""
    ids = [head.collections[name].id if name in head.collections else None for name, _ in atoms]
    await copy(connection, "lookup_lines", (head.id, ids, [atom for _, atom in atoms], before), sink)
