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
from journal.service.answer import Answer, of_deltas, whole
from journal.service.figures import Answered
from journal.service.pages import Besides, Pages
from journal.service.rendered import Rendered
from journal.service.rounds import Page
from journal.service.tails import Tail, Tails
from journal.store import reading
from journal.store.database import Database
from journal.store.heads import Head
from journal.wire import Members

_TOO_MUCH = whole(b"")  # kept in place of an answer that does not fit on a page


class Reader:
    """Answers requests for deltas."""

    def __init__(self, database: Database, tails: Tails, memory: Memory, spool: Path) -> None:
        self.database, self.tails = database, tails
        self.rendered = Rendered(memory.answers_bytes, memory.answer_bytes)
        self.pages = Pages(database, tails, spool, memory.answer_bytes)
        self.figures = Answered()

    async def deltas(self, journal: str, page: Page) -> Answer:
        """Everything since `page.since`; ResyncRequired where that cannot be had."""
        tail = await self.tails.of(journal)
        if page.until is not None or page.with_revisions:
            self.figures.record += 1
            return await self.pages.from_record(tail, page)
        if page.wait_s == 0.0:
            return await self._up_to_the_head(tail, page)
        deadline = asyncio.get_running_loop().time() + page.wait_s
        while True:
            changed = tail.changed
            answer = await self._up_to_the_head(tail, page)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not answer.is_empty or self.tails.is_closing:
                return answer
            answer.close()
            with tail.kept(), contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()
            tail = await self.tails.of(journal)

    async def with_besides(self, journal: str, page: Page, besides: Besides) -> Answer:
        """Everything up to the head, from PostgreSQL's rows, and what else is read of the same moment."""
        self.figures.rows += 1
        answer, _ = await self.pages.from_state(await self.tails.of(journal), page, besides)
        return answer

    async def _up_to_the_head(self, tail: Tail, page: Page) -> Answer:
        head = tail.head
        if self._holds(tail, page):
            shared = self._shared(tail, page)
            if shared is not None:
                if page.client is None or not shared.who_asks_matters:
                    return shared
                number = await self._number(tail, page.client)
                # Asked again: meanwhile the ring may have been trimmed, of which the head shows nothing.
                own = self._from_memory(head, tail, page, number) if self._holds(tail, page) else None
                if own is not None and tail.head is head:
                    self.figures.folded += 1
                    return own
        # What PostgreSQL's rows said at this very head they would say again.
        state_key = (head.id, head.epoch, head.chain, head.horizon, head.turn, page.identity)
        known = None if page.is_of_more else self.rendered.find(state_key)  # of what may be read the key says nothing
        if known is not None:
            self.figures.kept += 1
            return known
        self.figures.rows += 1
        answer, seen = await self.pages.from_state(tail, page)
        if (seen.epoch, seen.chain, seen.turn) == (head.epoch, head.chain, head.turn):
            self.rendered.keep(state_key, answer)
        return answer

    def proven(self, tail: Tail, page: Page) -> Answer | None:
        """What is owed to all who stand at `page` alike, if memory has it; who was called back is not looked at.

        For a cursor whose collections are those that are asked for.
        """
        assert isinstance(page.since, Cursor)
        return self._shared(tail, page) if tail.has(page.since) else None

    def _shared(self, tail: Tail, page: Page) -> Answer | None:
        """What an anonymous client is told of the ring's commits; None where they do not fit on a page."""
        head = tail.head
        key = (head.id, head.epoch, head.chain, head.horizon,
               page.position, page.collections, page.limit, page.form)  # fmt: skip
        known = self.rendered.find(key)
        if known is None:
            known = self._from_memory(head, tail, page, None) or _TOO_MUCH
            self.rendered.keep(key, known)
            self.figures.folded += known is not _TOO_MUCH
        else:
            self.figures.kept += known is not _TOO_MUCH
        return None if known is _TOO_MUCH else known

    def _holds(self, tail: Tail, page: Page) -> bool:
        """Whether memory can answer: whatever it cannot prove, PostgreSQL's rows decide."""
        if page.with_meta or page.base != page.position or page.is_of_more or not tail.holds(page.since):
            return False
        covered = None if isinstance(page.since, int) else page.since.collections
        return covered is None or (page.collections is not None and page.collections <= covered)

    def _from_memory(self, head: Head, tail: Tail, page: Page, client: int | None) -> Answer | None:
        """The ring's commits after the page's position, folded; None where they do not fit on a page."""
        fold = Fold()
        for commit in tail.window(page.position):
            for change in commit.changes:
                if change.revision > page.position and (
                    page.collections is None or change.collection in page.collections
                ):
                    fold.add(change)
        deltas = fold.deltas(client=client)
        if len(deltas) > page.limit and page.form != "ndjson":
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
        answer = of_deltas(members, deltas, page.form)
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
