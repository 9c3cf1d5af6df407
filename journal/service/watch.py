"""Watching: notifications as they come, and a look at PostgreSQL's rows every few seconds besides."""

import asyncio
import logging
import time

from journal.errors import Unavailable
from journal.service.access import Access
from journal.service.figures import SECONDS, Spread
from journal.service.tails import Tails
from journal.store.listener import Listener

_log = logging.getLogger(__name__)
AWAY_S = 6.0  # longer than it takes to be told that no connection is to be had


class Watch:
    """Keeps a process's memory in step with what other processes record."""

    def __init__(self, dsn: str, tails: Tails, access: Access, *, poll_s: float) -> None:
        self.tails, self.poll_s = tails, poll_s
        self.listener = Listener(dsn, tails.heard, access.heard, self._compare)
        access.hears = lambda: self.listener.is_connected
        self.late = Spread(SECONDS)  # by how much the loop was behind, at each look
        self.answered_at = time.monotonic()
        self._is_refused = False

    @property
    def is_away(self) -> bool:
        """Whether PostgreSQL did not answer lately, as far as the looks of this process tell."""
        return self._is_refused or time.monotonic() - self.answered_at > self.poll_s + AWAY_S

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.listener.run())
            tasks.create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            due = time.monotonic() + self.poll_s
            await asyncio.sleep(self.poll_s)
            self.late.add(max(time.monotonic() - due, 0.0))
            await self._compare()

    async def _compare(self) -> None:
        try:
            await self.tails.compare()
            self.answered_at, self._is_refused = time.monotonic(), False
        except Unavailable:
            self._is_refused = True
        except Exception:
            _log.exception("comparing failed, and is tried again")
