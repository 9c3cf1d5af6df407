"""Recording: what pushes are decided on, and the one call that records what they came to."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw

from journal.core import digest
from journal.core.model import AtomState, Change
from journal.errors import Stale
from journal.store.database import Connection, Database
from journal.store.heads import Head
from journal.store.queries import QUERY

AtomKey = tuple[int, int, str]
"""A journal's number, a collection's, an atom's name."""


class Client(msgspec.Struct, frozen=True):
    """A client's number, and the highest push of it that was decided. `is_gone`: an operator forgot it."""

    id: int
    pushed: int = 0
    is_gone: bool = False


class Decided(msgspec.Struct, frozen=True):
    """What a push was answered: the hash of its content, the status and the body."""

    content: bytes
    status: int
    answer: bytes


class NewCommit(msgspec.Struct, frozen=True):
    """A commit to be recorded; `at` None: now."""

    journal: int
    first: int
    revision: int
    client: int | None
    push: int | None
    at: datetime | None
    chain: bytes
    changes: list[Change]


class NewConflict(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conflict to be kept: the columns of its row."""

    journal_id: int
    id: int
    op: str
    collection: str
    atom: str
    place: int
    data: Raw | None = None
    unset: tuple[str, ...] | None = None
    client: UUID | None = None
    push: int | None = None
    base: int | None = None
    stood_revision: int | None = None
    stood_data: Raw | None = None


class Recording(msgspec.Struct):
    """All that a group of pushes came to, by table.

    `heads`: each journal as it was read, and as it will be. `old_atoms`: those that there were before.
    """

    heads: list[tuple[Head, Head]] = []
    commits: list[NewCommit] = []
    atoms: dict[AtomKey, AtomState] = {}
    old_atoms: set[AtomKey] = set()
    clients: dict[tuple[int, int], tuple[UUID, int]] = {}
    pushes: list[tuple[int, int, int, Decided]] = []
    keys: list[tuple[int, str, Decided]] = []
    conflicts: list[NewConflict] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.commits or self.clients or self.pushes or self.keys or self.conflicts)


async def lock(connection: Connection, journals: Sequence[int], *, patience_s: float | None) -> None:
    """Hold the heads until the transaction ends; LockBusy after `patience_s`, or after what writing waits anyway."""
    if patience_s is not None:
        await connection.execute("select set_config('lock_timeout', $1, true)", f"{round(patience_s * 1000)}ms")
    await connection.fetch(QUERY["lock_heads"], journals)


async def atoms(connection: Connection, keys: Sequence[AtomKey]) -> dict[AtomKey, AtomState]:
    """Those of the atoms that ever were."""
    if not keys:
        return {}
    columns = [list(column) for column in zip(*keys, strict=True)]
    found = {}
    for journal, collection, atom, born, born_by, created, revision, data, fk, fr in await connection.fetch(
        QUERY["atoms_named"], *columns
    ):
        found[journal, collection, atom] = AtomState(
            born=born,
            born_by=born_by,
            created=created,
            revision=revision,
            data=None if data is None else data.encode(),
            fields=dict(zip(fk, fr, strict=True)),
        )
    return found


async def clients(
    connection: Connection, names: Sequence[tuple[int, UUID]]
) -> tuple[dict[tuple[int, UUID], Client], dict[int, int]]:
    """Those of the clients that are known, and the highest number that each journal has given out."""
    if not names:
        return {}, {}
    rows = await connection.fetch(QUERY["clients_named"], *([*column] for column in zip(*names, strict=True)))
    known = {
        (row["journal_id"], UUID(str(row["name"]))): Client(row["id"], row["pushed"], row["is_gone"])
        for row in rows
        if row["id"] is not None
    }
    return known, {row["journal_id"]: row["highest"] for row in rows}


async def decided_pushes(
    connection: Connection, pushes: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int, int], Decided | None]:
    """What those of the pushes (journal, client, number) that were decided were answered; None: it is forgotten."""
    if not pushes:
        return {}
    rows = await connection.fetch(QUERY["pushes_decided"], *([*column] for column in zip(*pushes, strict=True)))
    return {
        (row["journal_id"], row["client_id"], row["push"]): None
        if row["is_forgotten"]
        else Decided(row["content"], row["status"], row["answer"].encode())
        for row in rows
        if row["is_forgotten"] or row["content"] is not None
    }


async def decided_keys(connection: Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Decided]:
    """The same for Idempotency-Keys."""
    if not keys:
        return {}
    rows = await connection.fetch(QUERY["keys_decided"], *([*column] for column in zip(*keys, strict=True)))
    return {
        (row["journal_id"], row["key"]): Decided(row["content"], row["status"], row["answer"].encode()) for row in rows
    }


async def chains_at(connection: Connection, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """The chains at (journal, revision), where a commit ends there."""
    if not places:
        return {}
    rows = await connection.fetch(QUERY["chains_at"], *([*column] for column in zip(*places, strict=True)))
    return {(row["journal_id"], row["revision"]): row["chain"] for row in rows}


async def times(connection: Connection, revisions: Sequence[tuple[int, int]]) -> tuple[dict[tuple[int, int], int], int]:
    """When (journal, revision) were recorded, but for what was compacted away, and what time it is.

    In microseconds since 1970, by PostgreSQL's clock. There is at least one of `revisions`.
    """
    rows = await connection.fetch(QUERY["recorded_at"], *([*column] for column in zip(*revisions, strict=True)))
    if not rows:
        raise Stale  # the journals were removed meanwhile
    return {(row["journal_id"], row["revision"]): row["at"] for row in rows if row["at"] is not None}, rows[0]["now"]


async def conflicts_kept(connection: Connection, journals: Sequence[int]) -> dict[int, int]:
    """How many conflicts each journal has kept."""
    if not journals:
        return {}
    rows = await connection.fetch(QUERY["conflicts_kept"], journals)
    return {row["journal_id"]: row["last"] for row in rows}


async def append(connection: Connection, recording: Recording, name: str | None = None) -> datetime:
    """Record it all or nothing; the time that the commits bear. Stale where a journal stands elsewhere than read.

    `name`: what the connection is called meanwhile.
    """
    at: datetime = await connection.fetchval(QUERY["append"], *_arguments(recording), name)
    return at


async def await_standby(connection: Connection) -> None:
    """Where commits wait for a standby: wait, as of the end of this transaction, for all that was recorded so far."""
    await connection.fetch(QUERY["await_standby"])


async def forget(database: Database, *, pushes_before: datetime, keys_before: datetime) -> None:
    """Forget what was answered before those moments."""
    async with database.writing() as connection:
        await connection.execute(QUERY["forget_pushes"], pushes_before, timeout=600)
        await connection.execute(QUERY["forget_keys"], keys_before, timeout=600)


def _arguments(recording: Recording) -> list[Any]:
    """What the query `append` takes, in its order: columns, those of numbers as text."""
    ids = {head.id: {name: k.id for name, k in after.collections.items()} for head, after in recording.heads}
    heads = [(old.id, old.turn, old.chain, new.head, new.chain) for old, new in recording.heads]
    commits = [(c.journal, c.revision, c.first, c.client, c.push, c.at, c.chain) for c in recording.commits]
    changes = [
        (
            c.journal,
            x.revision,
            ids[c.journal][x.collection],
            x.atom,
            int(x.op),
            None if x.data is None else x.data.decode(),
            text_array(x.unset) if x.unset else None,
            x.prev,
        )
        for c in recording.commits
        for x in c.changes
    ]
    states = [
        (
            int((journal, collection, atom) not in recording.old_atoms),
            journal,
            collection,
            atom,
            state.born,
            state.born_by,
            state.created,
            state.revision,
            None if state.data is None else state.data.decode(),
            text_array(state.fields),
            _numbers(state.fields.values()),
        )
        for (journal, collection, atom), state in recording.atoms.items()
    ]
    collections = [
        (new.id, k.id, k.name, k.atoms, digest.to_bigint(k.digest))
        for old, new in recording.heads
        for k in new.collections.values()
        if old.collections.get(k.name) is not k
    ]
    clients = [(journal, number, name, pushed) for (journal, number), (name, pushed) in recording.clients.items()]
    pushes = [
        (journal, client, number, d.content, d.status, d.answer.decode())
        for journal, client, number, d in recording.pushes
    ]
    keys = [(journal, key, d.content, d.status, d.answer.decode()) for journal, key, d in recording.keys]
    tables = (
        (heads, "nn-n-"),
        (commits, "nnnnn--"),
        (changes, "nnn-n--n"),
        (states, "nnn-nnnn---"),
        (collections, "nn-nn"),
        (clients, "nn-n"),
        (pushes, "nnn-n-"),
        (keys, "n--n-"),
    )
    columns = [column for rows, kinds in tables for column in _columns(rows, kinds)]
    conflicts = msgspec.json.encode(recording.conflicts).decode() if recording.conflicts else None
    return [conflicts, *columns]


def _columns(rows: Sequence[tuple[Any, ...]], kinds: str) -> list[Any]:
    """The columns of rows; those of a kind n are numbers."""
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return [_numbers(column) if kind == "n" else column for kind, column in zip(kinds, columns, strict=True)]


def text_array(names: Iterable[str]) -> str:
    """An array of text as PostgreSQL reads it."""
    quoted = ('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names)
    return "{" + ",".join(quoted) + "}"


def _numbers(numbers: Iterable[int | None]) -> str:
    """An array of numbers, likewise."""
    return "{" + ",".join(["null" if number is None else str(number) for number in numbers]) + "}"
