"""Check: a journal's chain and state, recomputed from the record of changes and compared with what is stored.

All of it is of one moment of the database, and read in streams: memory does not grow with the journal, and the event
loop is held for a few milliseconds at a time. Below the horizon there is nothing to recompute from: the chain begins
with the one that is kept there, and of an atom what was set since is compared (protocol, section 11).
"""

from collections.abc import Callable

from journal.errors import JournalGone
from journal.service.check_record import check_record
from journal.service.check_state import check_state
from journal.service.findings import Enough, Findings, Progress
from journal.store import heads
from journal.store.database import Database
from journal.wire import CheckResult


async def check(database: Database, journal_id: int, progress: Callable[[float], None]) -> CheckResult:
    """What is not as it should be; the check ends where there is more than is told.

    `progress` is told the share that is done, ever greater. JournalGone where there is no such journal.
    """
    async with database.moment() as connection:
        head = await heads.head_by_id(connection, journal_id)
        if head is None:
            raise JournalGone
        findings = Findings()
        counted = Progress(head, progress)
        has_more = False
        try:
            until = await check_record(connection, head, findings, counted)
            await check_state(connection, head, until, findings, counted)
        except Enough:
            has_more = True
    progress(1.0)
    return CheckResult(
        ok=not findings.faults,
        revision=head.head,
        since=head.horizon,
        changes=counted.changes,
        atoms=counted.atoms,
        faults=findings.faults,
        more=has_more,
    )
