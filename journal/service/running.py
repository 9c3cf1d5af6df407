"""The service as it runs: its parts, and the tasks that keep it going."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from journal.config import Settings
from journal.errors import Unavailable
from journal.service.access import Access, Verifier
from journal.service.atoms import Atoms
from journal.service.changes import Changes
from journal.service.compact import Compaction
from journal.service.conflicts import Conflicts
from journal.service.deltas import Reader
from journal.service.erase import Erasure
from journal.service.fanout import Fanout
from journal.service.journals import Journals
from journal.service.operations import Operations
from journal.service.operators import Operators
from journal.service.readiness import Readiness
from journal.service.registry import Registry
from journal.service.resync import Resync
from journal.service.snapshots import Snapshots
from journal.service.sync import Sync
from journal.service.tails import Tails
from journal.service.verify import Verify
from journal.service.watch import Watch
from journal.service.writer import Writer
from journal.store import compaction, doors, record, recovery
from journal.store.database import Database

_log = logging.getLogger(__name__)
TIDY_S = 600.0
UNSEEN_DAYS = 400.0


class Service:
    """What answers requests. `running` starts and stops it."""

    def __init__(self, settings: Settings, verifier: Verifier | None = None) -> None:
        self.settings = settings
        limits, memory = settings.limits, settings.memory
        listen_dsn = settings.listen_dsn
        self.database = Database(settings.dsn, reading=settings.read_connections, is_pooled=listen_dsn is not None)
        self.tails = Tails(self.database, memory)
        self.access = Access(self.database, self.tails, verifier)
        self.writer = Writer(self.database, self.tails, limits)
        self.reader = Reader(self.database, self.tails, memory, settings.spool)
        self.changes = Changes(self.database, self.tails, settings.spool, memory.answer_bytes)
        self.snapshots = Snapshots(self.database, self.tails, settings.spool / "snapshots", settings.snapshots)
        self.verify = Verify(self.database, self.tails, memory, settings.spool)
        self.journals = Journals(self.database, self.tails, self.snapshots, self.verify.indexes)
        self.atoms = Atoms(self.database, self.tails)
        self.registry = Registry(self.database, self.tails, settings.registry_s)
        self.sync = Sync(self.tails, self.writer, self.reader, self.verify, self.registry)
        self.fanout = Fanout(self.reader, self.tails, self.registry)
        self.resync = Resync(self.database, self.tails)
        self.operations = Operations(self.database, self.tails)
        self.compaction = Compaction(self.database, self.tails)
        self.erasure = Erasure(self.database, self.tails, self.snapshots, self.reader.rendered, limits)
        self.conflicts = Conflicts(self.database, self.tails, limits)
        self.operators = Operators(self.database, self.tails)
        self.watch = Watch(listen_dsn or settings.dsn, self.tails, self.access, poll_s=settings.poll_s)
        self.readiness = Readiness(self.database, self.watch)

    async def tidy(self) -> None:
        """Every now and then: forget old answers, remove old snapshots."""
        while True:
            now = datetime.now(UTC)
            with contextlib.suppress(Unavailable):
                await record.forget(
                    self.database,
                    pushes_before=now - timedelta(days=self.settings.push_kept_days),
                    keys_before=now - timedelta(days=self.settings.key_kept_days),
                )
                await self.operations.forget()
                await recovery.forget_unseen(self.database, UNSEEN_DAYS)
                await compaction.forget_kept(self.database)
                await doors.forget_tickets(self.database, now=time.time())
            await asyncio.to_thread(self.snapshots.clean)
            await asyncio.to_thread(self.verify.indexes.clean)
            await asyncio.sleep(TIDY_S)


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """The service, started; what was pushed is answered before it has stopped."""
    service.snapshots.folder.mkdir(parents=True, exist_ok=True)
    await service.database.open()
    try:
        await service.access.begin()
        writing = asyncio.create_task(service.writer.run())
        parts = (service.watch.run(), service.registry.run(), service.access.run(), service.tidy())
        others = [asyncio.create_task(part) for part in parts]
        await service.operators.begin()
        for task in (writing, *others):
            task.add_done_callback(_died)
        try:
            yield service
        finally:
            service.writer.close()
            await writing
            await service.operations.close()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await service.verify.indexes.close()
            await service.access.close()
    finally:
        await service.database.close()


def _died(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("a part of the service has died", exc_info=task.exception())
