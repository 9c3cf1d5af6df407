"""Pages of deltas as PostgreSQL gives them: from the state up to the head, from the record to a fixed end.

Everything in an answer is of one moment of the database, whose rows also judge the cursor. A page ends at a
commit's end and never holds less than one commit.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from msgspec import UNSET

from journal.core import digest
from journal.core.consolidate import Delta, Fold
from journal.core.cursor import Cursor
from journal.errors import Fault, InvalidRequest
from journal.service.answer import IMMUTABLE, Answer, of_spool
from journal.service.judge import judged
from journal.service.rounds import Page
from journal.service.spool import Spool
from journal.service.tails import Tail, Tails
from journal.store import heads, reading
from journal.store.database import Connection, Database
from journal.store.heads import Head
from journal.wire import Members

Besides = Callable[[Connection, Head], Awaitable[None]]
"""What else is to be read, at the moment and of the head that a page is of."""
_encode = msgspec.json.Encoder().encode


class Pages:
    """Reads pages; what is larger than `memory_bytes` goes through a file in `folder`."""

    def __init__(self, database: Database, tails: Tails, folder: Path, memory_bytes: int) -> None:
        self.database, self.tails = database, tails
        self.folder, self.memory_bytes = folder, memory_bytes

    async def from_state(self, tail: Tail, page: Page, besides: Besides | None = None) -> tuple[Answer, Head]:
        """Up to the head, and the head that it is up to: the journal is told as it is at this moment."""
        spool = Spool(self.folder, self.memory_bytes)
        try:
            async with self.database.moment() as connection:
                head = await self._judged(connection, tail, page)
                ids = head.ids(page.collections)
                limit = None if page.form == "ndjson" else page.limit
                end = await reading.page_end(connection, head, page.position, limit, ids)
                there = await heads.chain_at(connection, head, end)
                assert there is not None
                await reading.copy_deltas(
                    connection,
                    head,
                    base=page.base,
                    position=page.position,
                    end=end,
                    collections=ids,
                    client=await reading.client_number(connection, head, page.client),
                    with_meta=page.with_meta,
                    sink=spool.write,
                )
                if besides is not None:
                    await besides(connection, head)
        except BaseException:
            spool.close()
            raise
        self.tails.heard(head.id, head.turn)
        is_over = end == head.head
        members = Members(
            epoch=head.epoch,
            since=page.position,
            until=end if is_over else UNSET,
            head=head.head,
            horizon=head.horizon,
            more=not is_over,
            cursor=str(page.cursor(head, end, there, is_over=is_over)),
            digest=digest.told(head.totals(page.collections)[1]) if is_over else UNSET,
        )
        key = f"state {head.turn} {head.chain.hex()} {page.identity}"
        return of_spool(members, spool, page.form, key=key), head

    async def from_record(self, tail: Tail, page: Page) -> Answer:
        """To a fixed end, or with the revisions that each delta folds: the table of section 4 to the letter."""
        spool = Spool(self.folder, self.memory_bytes)
        try:
            async with self.database.moment() as connection:
                head = await self._judged(connection, tail, page)
                page = await _with_end(connection, head, page)
                client = await reading.client_number(connection, head, page.client)
                end = await self._fold(connection, head, page, client, spool)
                there = await heads.chain_at(connection, head, end)
                assert there is not None
        except BaseException:
            spool.close()
            raise
        is_over = end == page.until
        members = Members(
            epoch=head.epoch,
            since=page.position,
            until=end if is_over else UNSET,
            more=not is_over,
            cursor=str(page.cursor(head, end, there, is_over=is_over)),
        )
        answer = of_spool(members, spool, page.form, key=f"record {head.epoch} {page.identity}")
        if page.is_fixed and isinstance(page.since, Cursor) and page.client is None:
            answer.cache = IMMUTABLE
        return answer

    async def _judged(self, connection: Connection, tail: Tail, page: Page) -> Head:
        """The journal as it is at this moment, once the round's cursor is found good there."""
        head = await heads.head_by_id(connection, tail.head.id)
        if head is None:
            raise self.tails.gone(tail)
        # In a round to a fixed end every page is folded from the base on, so it is the base that must be kept.
        horizon_at = page.base if page.until is not None else None
        await judged(
            connection,
            head,
            page.since,
            collections=page.collections,
            client=page.client,
            horizon_at=horizon_at,
            may=page.may,
        )
        return head

    async def _fold(
        self,
        connection: Connection,
        head: Head,
        page: Page,
        client: int | None,
        spool: Spool,
    ) -> int:
        """The page's deltas into the spool; the revision that the page ends at."""
        assert page.until is not None
        limit = None if page.form == "ndjson" else page.limit
        end = page.until
        async for last in _page_of_last_changes(connection, head, page, limit):
            end = last.end
            fold = Fold()
            async for change in reading.walk_back(connection, head, page.base, last.revisions):
                fold.add(change)
            deltas = fold.deltas(client=client, with_revisions=page.with_revisions)
            metas: dict[int, str] = {}
            if page.with_meta:
                metas = await reading.metas(connection, head, [delta.revision for delta in deltas])
            await spool.write(b"".join(_line(delta, metas) for delta in deltas))
        return end


class _Last(msgspec.Struct, frozen=True):
    """The last changes of some atoms of a page, and where the page ends as far as is known by then."""

    revisions: list[int]
    end: int


async def _page_of_last_changes(
    connection: Connection, head: Head, page: Page, limit: int | None
) -> AsyncIterator[_Last]:
    """Chunks of the last changes that the page tells of."""
    assert page.until is not None
    chunks = reading.last_changes(
        connection,
        head,
        base=page.base,
        position=page.position,
        until=page.until,
        collections=head.ids(page.collections),
    )
    if limit is None:
        async for chunk in chunks:
            yield _Last(chunk, page.until)
        return
    taken: list[int] = []
    end: int | None = None
    async for chunk in chunks:
        taken += chunk
        if end is None and len(taken) > limit:
            before, holding = await reading.commit_ends(connection, head, taken[limit], taken[0])
            end = max(before or 0, holding)
        if end is not None and taken[-1] > end:
            break
    if end is not None:
        end = min(end, page.until)
        taken = [revision for revision in taken if revision <= end]
    for start in range(0, len(taken), reading.CHUNK):
        yield _Last(taken[start : start + reading.CHUNK], page.until if end is None else end)


async def _with_end(connection: Connection, head: Head, page: Page) -> Page:
    """The round with its end, the head where none was given; InvalidRequest where it cannot be one."""
    if page.until is None:
        return msgspec.structs.replace(page, until=head.head)
    if page.until > head.head:
        raise InvalidRequest([Fault("/until", "beyond the head", head.head)])
    if page.until < page.position:
        raise InvalidRequest([Fault("/until", "before the revision that it starts from", page.position)])
    if await heads.chain_at(connection, head, page.until) is None:
        raise InvalidRequest([Fault("/until", "not the last revision of a commit")])
    return page


def _line(delta: Delta, metas: dict[int, str]) -> bytes:
    line = _encode(delta)
    meta = metas.get(delta.revision)
    return line + b"\n" if meta is None else line[:-1] + meta.encode() + b"}\n"
