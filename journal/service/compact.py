"""Compaction: the horizon is raised at once, and what is below it removed bit by bit (protocol, section 11).

From the moment that the horizon is raised no deltas start below it. What is removed afterwards nobody asks for, so
that it can be done in small steps that hold nobody up, and again from the start if it was interrupted.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from journal.service.operations import Report
from journal.service.tails import Tail, Tails
from journal.store import compaction
from journal.store.compaction import Below, Compactable, CutOff, Keep
from journal.store.database import Database
from journal.wire import CompactCutOff, CompactHeldBy, CompactRequest, CompactResult, rfc3339

STEP = 2000
PAUSE_S = 0.01
GUARD_DAYS = 30.0  # how long a client that is not seen is waited for, where nobody says
CUT_OFF_TOLD = 1000


class Compaction:
    """Compacts journals."""

    def __init__(self, database: Database, tails: Tails) -> None:
        self.database, self.tails = database, tails

    async def compact(self, journal: str, asked: CompactRequest, report: Report, *, by: str) -> CompactResult:
        """Compact, or with `dry_run` only tell what that would do."""
        tail = await self.tails.of(journal)
        keep = _keep(asked)
        async with self.database.moment() as connection:
            found = await compaction.compactable(connection, tail.head.id, keep)
            below = await compaction.below(connection, tail.head.id, found.target)
            lost = await compaction.cut_off(connection, tail.head.id, found.target, CUT_OFF_TOLD)
        if asked.dry_run:
            return _result(found, found.target, below, lost, is_dry=True)
        horizon = await compaction.raise_horizon(self.database, tail.head.id, found.wanted, keep, by=by)
        if horizon is None:
            raise self.tails.gone(tail)
        await self.tails.refresh(tail)
        changes, commits, tombstones = await self._sweep(tail, below, report)
        return _result(found, horizon, Below(changes, commits, tombstones, below.bytes), lost, is_dry=False)

    async def _sweep(self, tail: Tail, below: Below, report: Report) -> tuple[int, int, int]:
        """What went: changes, commits, tombstones."""
        total = below.changes + below.commits + below.tombstones or 1
        changes = commits = tombstones = 0
        while True:
            went = await compaction.sweep_record(self.database, tail.head.id, STEP)
            if went == (0, 0):
                break
            changes, commits = changes + went[0], commits + went[1]
            report((changes + commits) / total)
            await asyncio.sleep(PAUSE_S)
        after: int | None = 0
        while after is not None:
            count, after = await compaction.sweep_tombstones(self.database, tail.head.id, after, STEP)
            tombstones += count
            report((changes + commits + tombstones) / total)
            await asyncio.sleep(PAUSE_S)
        return changes, commits, tombstones


def _keep(asked: CompactRequest) -> Keep:
    now = datetime.now(UTC)
    days = GUARD_DAYS if asked.keep_days is None else asked.keep_days
    return Keep(
        revisions=asked.keep_revisions,
        since=None if asked.keep_days is None else now - timedelta(days=asked.keep_days),
        guard=now - timedelta(days=days),
        is_forced=asked.force,
    )


def _result(found: Compactable, horizon: int, below: Below, lost: list[CutOff], *, is_dry: bool) -> CompactResult:
    held_by = []
    if found.client is not None and found.client_revision is not None:
        held_by.append(CompactHeldBy("client", str(found.client), found.client_revision))
    if found.snapshot_revision is not None:
        held_by.append(CompactHeldBy("snapshot", str(found.snapshot_revision), found.snapshot_revision))
    return CompactResult(
        horizon=horizon,
        was=found.horizon,
        wanted=found.wanted,
        held_by=held_by,
        changes=below.changes,
        commits=below.commits,
        tombstones=below.tombstones,
        bytes=below.bytes,
        cut_off=[CompactCutOff(one.client, one.revision, rfc3339(one.last_seen)) for one in lost],
        dry_run=is_dry,
    )
