"""Calling clients back: floors, and epochs after a restore (protocol, sections 7 and 11)."""

from collections.abc import Sequence
from uuid import UUID

from journal.errors import Fault, InvalidRequest, JournalNotFound
from journal.service.journals import head_answer
from journal.service.tails import Tail, Tails
from journal.store import recovery
from journal.store.database import Database
from journal.wire import HeadAnswer


class Resync:
    """The operator's levers over clients."""

    def __init__(self, database: Database, tails: Tails) -> None:
        self.database, self.tails = database, tails

    async def resync(
        self,
        journal: str,
        *,
        client: UUID | None,
        collections: Sequence[str] | None,
        spread_s: int,
        reason: str,
        by: str,
    ) -> int:
        """Ask a client, whoever asks for some collections, or everyone to start again; the floor's revision."""
        tail = await self.tails.of(journal)
        revision = await recovery.resync(
            self.database,
            tail.head.id,
            client=client,
            collections=collections,
            spread_s=spread_s,
            reason=reason,
            by=by,
        )
        if revision is None:
            raise self._gone(tail)
        await self.tails.refresh(tail)
        return revision

    async def restored(self, journal: str, *, revision: int | None, spread_s: int, by: str) -> HeadAnswer:
        """Begin an epoch: the journal was restored, and what it gave out since its backup is no longer in it."""
        tail = await self.tails.of(journal)
        try:
            found = await recovery.begin_epoch(self.database, tail.head.id, revision, spread_s=spread_s, by=by)
        except recovery.TooLow as error:
            raise InvalidRequest([Fault("/revision", str(error), tail.head.head)]) from None
        if found is None:
            raise self._gone(tail)
        await self.tails.refresh(tail)
        return head_answer(tail.head)

    def _gone(self, tail: Tail) -> JournalNotFound:
        return self.tails.gone(tail)
