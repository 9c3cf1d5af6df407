"""What operators see: the audit log, figures of a journal, and which PostgreSQL this is."""

from msgspec import Raw

from journal.errors import Fault, InvalidRequest
from journal.service.tails import Tails
from journal.store import operators
from journal.store.database import Database
from journal.wire import (
    ActivityBucket,
    AuditAnswer,
    AuditEntry,
    RememberedServer,
    ServerAnswer,
    StatsAnswer,
    rfc3339,
)

ACTIVITY_S = 300
BUCKET_S = 5
ACTIVITY_COMMITS = 100_000


class Operators:
    """Answers what operators ask."""

    def __init__(self, database: Database, tails: Tails) -> None:
        self.database, self.tails = database, tails

    async def audit(self, journal: str, before: int | None, limit: int) -> AuditAnswer:
        """What operators did, newest first."""
        tail = await self.tails.of(journal)
        found = await operators.audit_before(self.database, tail.head.id, before, limit + 1)
        told = [
            AuditEntry(one.id, rfc3339(one.at), one.by, one.action, Raw(one.detail.encode())) for one in found[:limit]
        ]
        is_more = len(found) > limit
        return AuditAnswer(told, is_more, told[-1].id if is_more else None)

    async def stats(self, journal: str) -> StatsAnswer:
        """A journal's figures, and what was recorded in the last minutes."""
        tail = await self.tails.of(journal)
        figures = await operators.figures(self.database, tail.head.id)
        if figures is None:
            raise self.tails.gone(tail)
        activity = await operators.activity(
            self.database, tail.head.id, seconds=ACTIVITY_S, bucket_s=BUCKET_S, most=ACTIVITY_COMMITS
        )
        return StatsAnswer(
            journal=journal,
            head=tail.head.head,
            atoms=tail.head.totals()[0],
            bytes=figures.bytes,
            clients=figures.clients,
            behind=figures.behind,
            bucket_s=BUCKET_S,
            activity=[ActivityBucket(rfc3339(one.at), one.commits, one.changes) for one in activity],
        )

    async def server(self) -> ServerAnswer:
        """Which PostgreSQL this is, and whether it is the one that was remembered."""
        found = await operators.identity(self.database)
        remembered = None
        if found.remembered_system is not None:
            assert found.remembered_timeline is not None
            assert found.remembered_at is not None
            remembered = RememberedServer(
                found.remembered_system, found.remembered_timeline, rfc3339(found.remembered_at)
            )
        return ServerAnswer(
            system=found.system,
            timeline=found.timeline,
            postgresql=found.version,
            remembered=remembered,
            is_other=remembered is not None
            and found.system is not None
            and (
                remembered.system != found.system
                or (found.timeline is not None and remembered.timeline != found.timeline)
            ),
        )

    async def remember(self, system: str, timeline: int) -> ServerAnswer:
        """Remember the PostgreSQL that this is; InvalidRequest where it is not the one that is named."""
        told = await self.server()
        if told.system is None:
            raise InvalidRequest([Fault("/system", "this one does not tell")])
        if (told.system, told.timeline) != (system, timeline):
            raise InvalidRequest([Fault("/system", f"this one is {told.system}, timeline {told.timeline}")])
        await operators.remember(self.database, system, timeline, is_other=True)
        return await self.server()

    async def begin(self) -> None:
        """Remember this PostgreSQL where none is."""
        found = await operators.identity(self.database)
        if found.remembered_system is None and found.system is not None and found.timeline is not None:
            await operators.remember(self.database, found.system, found.timeline, is_other=False)
