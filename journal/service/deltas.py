"""Deltas: everything since a revision, from memory where it can prove it, else from PostgreSQL's own rows.

Three ways with one effect (docs/properties.md, P5): the ring of recent commits, folded; the state, whose fields
know their revisions; and, for a fixed end, the record of changes, folded (the last two: service/pages.py).
"""

import asyncio
import contextlib
from pathlib import Path
from uuid import UUID

from journal.config import Memory
from journal.core import digest
from journal.core.consolidate import Fold
from journal.core.cursor import Cursor
from journal.service.answer import Answer, of_deltas
from journal.service.pages import Pages
from journal.service.rendered import Rendered
from journal.service.rounds import DeltasAsked, Round, round_of
from journal.service.tails import Tail, Tails
from journal.store import reading
from journal.store.database import Database
from journal.wire import Members


class Reader:
    """Answers requests for deltas."""

    def __init__(self, database: Database, tails: Tails, memory: Memory, spool: Path) -> None:
        self.database, self.tails = database, tails
        self.rendered = Rendered(memory.answers_bytes, memory.answer_bytes)
        self.pages = Pages(database, tails, spool, memory.answer_bytes)

    async def deltas(self, journal: str, asked: DeltasAsked) -> Answer:
        """Everything since `asked.since`; ResyncRequired where that cannot be had."""
        tail = await self.tails.of(journal)
        page = round_of(asked)
        if page.until is not None or asked.with_revisions:
            return await self.pages.from_record(tail, asked, page)
        deadline = asyncio.get_running_loop().time() + asked.wait_s
        while True:
            changed = tail.changed
            answer = await self._up_to_the_head(tail, asked, page)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not answer.is_empty:
                return answer
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()
            answer.close()
            tail = await self.tails.of(journal)

    async def _up_to_the_head(self, tail: Tail, asked: DeltasAsked, page: Round) -> Answer:
        if self._holds(tail, asked, page):
            key = (tail.head.id, tail.head.epoch, tail.head.chain, tail.head.horizon, page.position,
                   page.collections, asked.limit, asked.form)  # fmt: skip
            shared = self.rendered.find(key)
            if shared is None:
                shared = self._from_memory(tail, asked, page, None)
                if shared is not None:
                    self.rendered.keep(key, shared)
            if shared is not None and not (shared.who_asks_matters and page.client):
                return shared
            own = shared and self._from_memory(tail, asked, page, await self._number(tail, page.client))
            if own is not None:
                return own
        return await self.pages.from_state(tail, asked, page)

    def _holds(self, tail: Tail, asked: DeltasAsked, page: Round) -> bool:
        """Whether memory can answer: whatever it cannot prove, PostgreSQL's rows decide."""
        if asked.with_meta or page.base != page.position or not tail.holds(page.since):
            return False
        covered = page.since.collections if isinstance(page.since, Cursor) else None
        return covered is None or (page.collections is not None and page.collections <= covered)

    def _from_memory(self, tail: Tail, asked: DeltasAsked, page: Round, client: int | None) -> Answer | None:
        """The ring's commits after the page's position, folded; None where they do not fit on a page."""
        head = tail.head
        fold = Fold()
        for commit in tail.window(page.position):
            for change in commit.changes:
                if change.revision > page.position and (
                    page.collections is None or change.collection in page.collections
                ):
                    fold.add(change)
        deltas = fold.deltas(client=client)
        if len(deltas) > asked.limit and asked.form != "ndjson":
            return None
        members = Members(
            epoch=head.epoch,
            since=page.position,
            until=head.head,
            head=head.head,
            horizon=head.horizon,
            more=False,
            cursor=str(page.cursor(head, head.head, head.chain, is_over=True)),
            digest=digest.told(head.totals(page.collections)[1]),
        )
        answer = of_deltas(members, deltas, asked.form)
        answer.who_asks_matters = fold.has_cancelled
        return answer

    async def _number(self, tail: Tail, client: str | None) -> int | None:
        """The journal's number for a client."""
        if client is None:
            return None
        known = tail.clients.get(UUID(client))
        if known is not None:
            return known.id
        async with self.database.reading() as connection:
            return await reading.client_number(connection, tail.head, client)
