"""A sync: everything that waits is pushed, then everything since the cursor is pulled, then the digests are compared.

The rule (docs/properties.md, P10): a sync ends at the server's state, whatever it had to recover from, or raises.
Between any two steps it may be stopped or killed; the next one goes on from what the file says.
"""

import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from journal.client import conflicts, file, outbox, pulled, settling
from journal.client.calls import Journal, Resync, Synced
from journal.client.clock import Clock
from journal.client.connection import Connection
from journal.client.http import Http, Refused
from journal.client.outbox import Sending
from journal.client.problems import NotRecovered
from journal.client.pulled import Applied
from journal.client.pulling import PAGE, Pulling
from journal.client.pushing import Pushing
from journal.client.recovering import Recovering
from journal.client.told import Told
from journal.core import cursor as cursors

RECOVERIES = 5
NAMELESS = frozenset(("client_forgotten", "client_taken"))  # what it goes by is not, or no longer, its own
RECOVERABLE = NAMELESS | {"resync_required"}
PURGE_S = 3600.0


class Syncing:
    """Syncs one file with one journal. Whoever calls it is alone in doing so (client/role.py).

    `raw`: the same service, with bodies as they were sent. `wanted`: the replica's collections, None for all.
    `keep_s`: how long acknowledged pushes are kept, in case the server loses them.
    """

    def __init__(
        self,
        db: Connection,
        journal: Journal,
        raw: Http,
        path: Path,
        *,
        wanted: frozenset[str] | None,
        clock: Clock,
        keep_s: float,
        told: Told,
    ) -> None:
        self.db, self.journal, self.keep_s = db, journal, keep_s
        self.pushing = Pushing(db, journal, clock, told)
        self.pulling = Pulling(db, journal, wanted, told)
        self.recovering = Recovering(db, journal, raw, path, self.pushing, self.pulling, told)
        self._clock, self._wanted = clock, wanted
        self._purged_at = float("-inf")

    async def sync(self) -> None:
        """Push, pull and compare; recover from whatever the service does not go on from."""
        await self._recovered(self._round)

    async def push(self) -> None:
        """Only push what waits."""
        await self._recovered(self.pushing.push)

    async def verify(self) -> int:
        """Sync, compare all data by content, and mend what differs; how many atoms that were."""
        mended = 0

        async def compare() -> None:
            nonlocal mended
            await self._round()
            mended += await self.recovering.mend("content", "revision")

        await self._recovered(compare)
        return mended

    async def compare(self, applied: Applied) -> bool:
        """Mend what a complete round shows to differ; whether there was anything."""
        if applied.is_in_doubt:
            await self.recovering.mend("content", "revision")
        elif applied.is_equal is False:
            await self.recovering.mend("revision")
        else:
            return False
        return True

    async def recover(self, error: Refused) -> None:
        """Find the way back after a 410, or under a new name; any other error is raised again."""
        if error.code not in RECOVERABLE:
            raise error
        if error.code in NAMELESS:
            await self.db.write(file.take_new_identity)
        else:
            await self.recovering.recover(msgspec.convert(error.problem, Resync))

    async def _recovered(self, work: Callable[[], Awaitable[None]]) -> None:
        refused: Refused | None = None
        for _ in range(RECOVERIES + 1):
            try:
                if refused is not None:
                    await self.recover(refused)
                return await work()
            except Refused as error:  # also of the way back: another may have to be found meanwhile
                if error.code not in RECOVERABLE:
                    raise
                refused = error
        raise NotRecovered(
            f"{self.journal.name} was recovered {RECOVERIES + 1} times and the service still does not go on from there:"
            " ask its operator what the audit log says; if nothing, sync into a new file and compare"
        )

    async def _round(self) -> None:
        await self._regain()
        await self._confirm()
        applied = await self._exchange()
        if applied is None:
            applied = await self.pulling.pull()
        if applied is None:
            await self.recovering.replace()
            applied = await self.pulling.pull()
            assert applied is not None  # there is a cursor now
        await self.compare(applied)
        await self._tidy()

    async def _regain(self) -> None:
        """Ask whether what was taken away may be read by now; what still may not is not asked for."""
        if self._wanted is None:
            return
        taken = await self.db.read(pulled.taken)
        if taken:
            reads = await self.journal.readable()
            still = frozenset() if reads is None else taken - reads
            if still != taken:
                await self.db.write(lambda db: pulled.take(db, still))
            taken = still
        self.pulling.wanted = (self._wanted - taken) or self._wanted  # of nothing at all the service tells why

    async def _confirm(self) -> None:
        """Ask whether what was acknowledged ahead of the cursor is still there: the cursor alone would not tell."""
        at, text = await self.db.read(lambda db: (file.cursor(db), file.meta(db, "acknowledged")))
        if text is None:
            return
        if at is None or cursors.parse(text, parameter="cursor").revision > at.round_base:
            await self.journal.cursor(text, self.pulling.wanted)

    async def _exchange(self) -> Applied | None:
        """Push everything that waits; the end of the round, where the last push brought it along."""
        while (sending := await self.pushing.next()) is not None:
            at = await self.db.read(file.cursor)
            if sending.is_last and not sending.is_atomic and at is not None and at.base is None:
                applied = await self._sync(sending, str(at))
                if applied is not None and applied.is_complete:
                    return applied
            else:
                await self.pushing.send(sending)
        return None

    async def _sync(self, sending: Sending, cursor: str) -> Applied | None:
        """A push and a page in one request; None where no page came with it."""
        body = outbox.body(sending, cursor, self._clock) | {"since": cursor, "limit": PAGE}
        if self.pulling.wanted is not None:
            body["collections"] = sorted(self.pulling.wanted)
        try:
            answer = await self.journal.sync(body)
        except Refused as error:
            if error.code == "forbidden":  # to write, or only to read: a push alone tells
                await self.pushing.send(sending)
            else:
                await self.pushing.refused(sending, error)
            return None
        kept, applied = await self.db.write(lambda db: _take(db, sending, answer))
        self.pushing.kept(kept)
        if isinstance(answer.resync, Resync):
            await self.recovering.recover(answer.resync)
        return applied

    async def _tidy(self) -> None:
        """Let go of what is old, and tell the service which of its conflicts were settled here."""
        if time.monotonic() - self._purged_at > PURGE_S:
            self._purged_at = time.monotonic()
            await self.db.write(lambda db: outbox.purge(db, time.time() - self.keep_s))
            await self.recovering.sweep()
        for number, name in await self.db.read(conflicts.untold):
            kept = await self.journal.conflict(name)
            if kept is not None and await self.db.read(partial(conflicts.is_of, number=number, kept=kept)):
                await self.journal.keep_servers(name)
            await self.db.write(partial(conflicts.mark_told, number=number))


def _take(db: sqlite3.Connection, sending: Sending, answer: Synced) -> tuple[list[int] | None, Applied | None]:
    """The page is left alone where the push waits again: it was asked for under a name that is given up."""
    now, page = time.time(), answer.pulled
    kept = settling.settle(db, sending, answer.pushed, now)
    return kept, None if page is None or kept is None else pulled.apply(db, page, now)
