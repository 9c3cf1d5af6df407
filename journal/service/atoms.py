"""One atom: as it is, as it was at a revision, and its history (protocol, section 11)."""

from datetime import datetime

import msgspec
from msgspec import UNSET, Raw

from journal.core.consolidate import Effect, then
from journal.core.model import OP_NAMES, Op
from journal.errors import Fault, InvalidRequest, NotFound
from journal.service.answer import Answer, whole
from journal.service.judge import resync
from journal.service.tails import Tail, Tails
from journal.store import heads, reading
from journal.store.database import Connection, Database
from journal.store.heads import Head
from journal.store.reading import Moment
from journal.wire import LARGEST, AtomAnswer, HistoryAnswer, HistoryEntry, rfc3339

_encode = msgspec.json.Encoder().encode


class Atoms:
    """Answers requests for one atom."""

    def __init__(self, database: Database, tails: Tails) -> None:
        self.database, self.tails = database, tails

    async def atom(self, journal: str, collection: str, atom: str, at: int | None) -> Answer:
        """An atom now, or at revision `at`; NotFound where it did not live."""
        tail = await self.tails.of(journal)
        async with self.database.moment() as connection:
            head = await self._head(connection, tail)
            if at is not None and at > head.head:
                raise InvalidRequest([Fault("/at", "beyond the head", head.head)])
            if at is not None and at < head.horizon:
                raise resync(head, "horizon")
            found = await reading.atom_now(connection, head, collection, atom)
            if found is None:
                raise NotFound("no such atom ever lived here")
            if at is None or found.revision <= at:
                if found.data is None:
                    raise NotFound("this atom does not live any more")
                return _told(head, collection, atom, found.revision, found.at, found.by, found.data)
            changes = await self._back_to_whole(connection, head, collection, atom, at)
            if changes[-1].op is Op.UPDATE if changes else found.born <= at:
                raise resync(head, "horizon")  # what it began with was compacted away: test_atom.py
        if any(change.is_erased for change in changes):
            raise NotFound("its data was erased")
        effect: Effect | None = None
        for change in reversed(changes):
            effect = then(effect, Effect(change.op, change.data, change.unset))
        if effect is None or effect.op is Op.DELETE or effect.data is None:
            raise NotFound("no such atom lived at this revision")
        last = changes[0]
        return _told(head, collection, atom, last.revision, last.at, last.by, effect.data)

    async def history(self, journal: str, collection: str, atom: str, before: int | None, limit: int) -> Answer:
        """An atom's changes below revision `before`, newest first."""
        tail = await self.tails.of(journal)
        async with self.database.moment() as connection:
            head = await self._head(connection, tail)
            found = await reading.atom_history(
                connection, head, collection, atom, before=LARGEST if before is None else before, limit=limit + 1
            )
        entries = [_entry(change) for change in found[:limit]]
        is_more = len(found) > limit
        answer = HistoryAnswer(
            epoch=head.epoch,
            collection=collection,
            atom=atom,
            changes=entries,
            more=is_more,
            next=entries[-1].revision if is_more else None,
        )
        return whole(_encode(answer))

    async def _head(self, connection: Connection, tail: Tail) -> Head:
        head = await heads.head_by_id(connection, tail.head.id)
        if head is None:
            raise self.tails.gone(tail)
        return head

    async def _back_to_whole(
        self, connection: Connection, head: Head, collection: str, atom: str, at: int
    ) -> list[Moment]:
        """The changes from `at` back to the one that set the whole data, newest first."""
        changes: list[Moment] = []
        before = at + 1
        while found := await reading.atom_history(connection, head, collection, atom, before=before, limit=100):
            for change in found:
                changes.append(change)
                if change.op is not Op.UPDATE:
                    return changes
            before = changes[-1].revision
        return changes


def _told(head: Head, collection: str, atom: str, revision: int, at: datetime, by: object, data: bytes) -> Answer:
    return whole(
        _encode(
            AtomAnswer(
                epoch=head.epoch,
                collection=collection,
                atom=atom,
                revision=revision,
                at=rfc3339(at),
                by=by,  # type: ignore[arg-type]
                data=Raw(data),
            )
        )
    )


def _entry(change: Moment) -> HistoryEntry:
    return HistoryEntry(
        revision=change.revision,
        op=OP_NAMES[change.op],  # type: ignore[arg-type]
        at=rfc3339(change.at),
        by=change.by,
        push=change.push,
        data=UNSET if change.data is None else Raw(change.data),
        unset=change.unset,
        erased=change.is_erased,
    )
