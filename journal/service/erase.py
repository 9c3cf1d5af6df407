"""Erasure: an atom is deleted as a change like any other, and its data blanked wherever it was kept.

The chain is over hashes of data, which stay: it still proves everything else (docs/properties.md, P2).
"""

import asyncio
from typing import Any

import msgspec

from journal.config import Limits
from journal.core.model import PushChange
from journal.errors import NotFound
from journal.service.group import Asked, Group
from journal.service.rendered import Rendered
from journal.service.snapshots import Snapshots
from journal.service.tails import Tail, Tails
from journal.store import compaction, conflicts, operators, record
from journal.store.database import Connection, Database
from journal.wire import EraseAnswer

PATIENCE_S = 10.0
MAY_HOLD = [
    "clients that have not synced since: each deletes the atom when it next does",
    "HTTP caches of answers with `until`, which may be kept for a year: purge them if there are any",
    "spools of services on other machines, until they are next asked for a snapshot, at most an hour",
    "PostgreSQL's dead rows and write-ahead log, until they are vacuumed and recycled",
    "backups and replicas of the database, as long as you keep them",
]


class Erasure:
    """Erases atoms."""

    def __init__(
        self, database: Database, tails: Tails, snapshots: Snapshots, rendered: Rendered, limits: Limits
    ) -> None:
        self.database, self.tails, self.limits = database, tails, limits
        self.snapshots, self.rendered = snapshots, rendered

    async def erase(self, journal: str, collection: str, atom: str, *, by: str) -> EraseAnswer:
        """Erase an atom; NotFound where there never was one of that name, as far as is known."""
        tail = await self.tails.of(journal)
        detail: dict[str, object] = {"collection": collection, "atom": atom}
        revisions: list[int] = []
        blanked = 0
        async with self.database.operating() as connection, connection.transaction():
            await record.lock(connection, [tail.head.id], patience_s=PATIENCE_S)
            await self.tails.refresh_locked(connection, tail)
            group = await self._deleted(connection, tail, collection, atom)
            at = await group.append(connection)
            head = group.states[journal].after
            is_there = (collection, atom) in group.states[journal].atoms
            if is_there:
                number = head.collections[collection].id
                revisions, blanked = await compaction.erase(connection, head.id, number, atom)
                detail |= {"revision": head.head, "changes": blanked}
            kept = await conflicts.erase(connection, head.id, collection, atom)
            if kept:  # also of an atom that never was
                detail |= {"conflicts": kept}
            if is_there or kept:
                await operators.note(connection, head.id, by, "erase", detail)
        group.publish(self.tails, at)
        await self.tails.refresh(tail)
        self.rendered.clear()
        # Without the head: there may be many answers to look through. If this is interrupted, erasing again does it.
        async with self.database.operating() as connection, connection.transaction():
            outcomes = await self._blank_answers(connection, head.id, revisions, head.horizon)
            if not is_there and outcomes and not kept:  # a compaction took what was left of it, but for these
                await operators.note(connection, head.id, by, "erase", detail | {"outcomes": outcomes})
        if not is_there and not outcomes and not kept:
            raise NotFound("there never was such an atom, or nothing is left of it")
        removed = await asyncio.to_thread(self.snapshots.forget_below, journal, head.head)
        return EraseAnswer(head.head, blanked, outcomes, kept, removed, MAY_HOLD)

    async def _deleted(self, connection: Connection, tail: Tail, collection: str, atom: str) -> Group:
        """The group that deletes the atom, if it lives, whatever the collection's policy: it is known as it is."""
        asked = Asked(tail.head.journal, [PushChange("delete", collection, atom, if_data=None)])
        group = Group(self.limits, {tail.head.journal: tail}, is_locked=True)
        await group.load(connection, [asked])
        state = group.states[tail.head.journal].atoms.get((collection, atom))
        if state is not None and state.data is not None:
            asked.changes = [PushChange("delete", collection, atom, if_data=state.data)]
            asked.answer = asyncio.get_running_loop().create_future()
            group.settle(asked)
        return group

    async def _blank_answers(self, connection: Connection, journal: int, revisions: list[int], horizon: int) -> int:
        """Take the data out of what pushes were answered; out of how many outcomes."""
        found = 0
        for kept in await compaction.answers_telling(connection, journal, revisions, horizon):
            answer: dict[str, Any] = msgspec.json.decode(kept["answer"])
            for outcome in answer["outcomes"]:
                current = outcome.get("current")
                if current and current["revision"] in kept["blank"]:
                    outcome["current"] = {"revision": current["revision"], "data": {}, "erased": True}
                    found += 1
            await compaction.change_answer(connection, journal, kept, msgspec.json.encode(answer).decode())
        return found
