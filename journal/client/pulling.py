"""Pulling everything since the cursor, page by page, each applied together with the cursor that it leads to."""

import time

from journal.client import file, pulled
from journal.client.calls import Journal
from journal.client.connection import Connection
from journal.client.pulled import Applied
from journal.client.told import Progress, Told
from journal.core import cursor as cursors
from journal.core.cursor import Cursor
from journal.wire import Deltas

PAGE = 10_000
FIRST = 1000  # more than that is quicker had as a snapshot


class Pulling:
    """Pulls from a journal into a file. `wanted`: the replica's collections, None for all that may be read."""

    def __init__(self, db: Connection, journal: Journal, wanted: frozenset[str] | None, told: Told) -> None:
        self.db, self.journal, self.wanted, self.told = db, journal, wanted, told

    async def pull(self) -> Applied | None:
        """Go on to the end of a round; None where nothing is here yet and there is more than a page to pull.

        A round that another set of collections, or the process before, had begun is ended as it was begun.
        """
        begun: int | None = None
        is_ours = False
        while True:
            text, client = await self.db.read(lambda db: (file.meta(db, "cursor"), file.meta(db, "client")))
            at = _parsed(text)
            is_begun = at is not None and at.base is not None
            is_ours = is_ours or not is_begun
            limit = PAGE if text is not None else min(FIRST, PAGE)
            page = await self.journal.deltas(
                text or "0", limit=limit, client=client, collections=None if is_begun else self.wanted
            )
            if text is None and page.more:
                return None
            applied = await self.take(page)
            begun = page.since if begun is None else begun
            stands = cursors.parse(page.cursor, parameter="cursor")
            if isinstance(page.head, int):
                self.told.progress(Progress("pull", stands.revision - begun, page.head - begun))
            if applied.is_complete and (is_ours or stands.collections == self.wanted):
                return applied

    async def take(self, page: Deltas) -> Applied:
        """Apply a page."""
        applied = await self.db.write(lambda db: pulled.apply(db, page, time.time()))
        self.told.changed()
        return applied


def _parsed(text: str | None) -> Cursor | None:
    return None if text is None else cursors.parse(text, parameter="cursor")
