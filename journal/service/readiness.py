"""Readiness: whether this process can answer now, and if not, why.

The rule: asking it often costs nothing. PostgreSQL is asked once a second at most, for all who want to know.
"""

import asyncio
import time
from typing import Literal

from journal.errors import Unavailable
from journal.service.shared import Shared
from journal.service.watch import Watch
from journal.store import watching
from journal.store.database import Database

Obstacle = Literal["postgresql_away", "shutting_down", "starting"]
TRUE_FOR_S = 1.0
PATIENCE_S = 3.0


class Readiness:
    """What stands in the way of answering. `is_stopping`: it was told to stop, and serves on for a while."""

    def __init__(self, database: Database, watch: Watch) -> None:
        self.database, self.watch = database, watch
        self.is_stopping = False
        self._asking: Shared[None, str | None] = Shared()
        self._known: tuple[float, str | None] = float("-inf"), None

    async def obstacle(self) -> tuple[Obstacle, str] | None:
        """What it is, and in words; None where there is none."""
        if self.is_stopping:
            return "shutting_down", "it was told to stop, and takes nothing new"
        away = await self._away()
        if away is not None:
            return "postgresql_away", away
        if not self.watch.listener.connections:
            return "starting", "it does not hear yet what other processes record"
        return None

    async def _away(self) -> str | None:
        asked_at, known = self._known
        if time.monotonic() - asked_at < TRUE_FOR_S:
            return known
        return await self._asking.join(None, self._ask)

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = None if await watching.records(self.database) else "it is a standby, and records nothing"
        except (Unavailable, TimeoutError):
            found = "it does not answer, or gives no connection"
        self._known = time.monotonic(), found
        return found
