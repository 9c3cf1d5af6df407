"""Watching: notifications as they come, and a look at PostgreSQL's rows every few seconds besides."""

import asyncio
import logging

from journal.errors import Unavailable
from journal.service.access import Access
from journal.service.tails import Tails
from journal.store.listener import Listener

_log = logging.getLogger(__name__)


class Watch:
    """Keeps a process's memory in step with what other processes record."""

    def __init__(self, dsn: str, tails: Tails, access: Access, *, poll_s: float) -> None:
        self.tails, self.poll_s = tails, poll_s
        self.listener = Listener(dsn, tails.heard, access.heard, self._compare)
        access.hears = lambda: self.listener.is_connected

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.listener.run())
            tasks.create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.poll_s)
            await self._compare()

    async def _compare(self) -> None:
        try:
            await self.tails.compare()
        except Unavailable:
            pass
        except Exception:
            _log.exception("comparing failed, and is tried again")
