"""Journals: the directory, where each stands, its collections, and cursors for other collections (section 2)."""

import contextlib
from hashlib import sha256

import msgspec

from journal.core import chain, digest
from journal.core.cursor import Cursor
from journal.core.grants import EVERY, Caller, Names
from journal.core.model import Policy
from journal.errors import Fault, InvalidRequest, JournalNotFound
from journal.service.answer import MEDIA, Answer
from journal.service.indexes import Indexes
from journal.service.judge import judged
from journal.service.snapshots import Snapshots
from journal.service.tails import Tail, Tails
from journal.store import heads
from journal.store.database import Database
from journal.store.heads import Head
from journal.wire import CollectionAnswer, CollectionsAnswer, CursorAnswer, HeadAnswer, JournalsAnswer


class Journals:
    """Answers what concerns a journal as a whole."""

    def __init__(self, database: Database, tails: Tails, snapshots: Snapshots, indexes: Indexes) -> None:
        self.database, self.tails = database, tails
        self.snapshots, self.indexes = snapshots, indexes

    async def create(self, name: str) -> tuple[HeadAnswer, bool]:
        """A journal of this name, and whether it was made now."""
        is_new = await heads.create(self.database, name)
        tail = await self.tails.of(name)
        if is_new:
            self.tails.forget(tail)  # memory may have known an older one of this name
            tail = await self.tails.of(name)
        return head_answer(tail.head), is_new

    async def remove(self, name: str) -> None:
        """Remove a journal and all that is kept of it."""
        tail = await self.tails.of(name)
        is_removed = await heads.remove(self.database, name)
        self.tails.forget(tail)
        self.snapshots.forget(name)
        self.indexes.forget(name)
        if not is_removed:
            raise JournalNotFound

    async def page(self, after: str, limit: int, caller: Caller) -> JournalsAnswer:
        """Up to `limit` of the journals that are there for a caller, whose names come after `after`."""
        if caller.reach(EVERY).is_nothing:
            found = await self._named(caller, after, limit + 1)
        else:
            found = await heads.heads_after(self.database, after, limit + 1)
        told = [head_answer(head, caller.reach(head.journal).reads) for head in found[:limit]]
        is_more = len(found) > limit
        return JournalsAnswer(told, is_more, told[-1].journal if is_more else None)

    async def _named(self, caller: Caller, after: str, limit: int) -> list[Head]:
        """The same of those that its grants name."""
        found: list[Head] = []
        for name in sorted({grant.journal for grant in caller.grants if grant.journal > after}):
            with contextlib.suppress(JournalNotFound):
                found.append((await self.tails.of(name)).head)
            if len(found) == limit:
                break
        return found

    async def tail(self, name: str) -> Tail:
        """Where a journal stands, from memory."""
        return await self.tails.of(name)

    def head(self, tail: Tail, reads: Names) -> Answer:
        """What is told of a journal's head, made once for all who may read everything."""
        if reads is not None:
            return _head_of(tail.head, reads)
        if tail.answer is None or tail.answer[0] is not tail.head:
            tail.answer = tail.head, _head_of(tail.head)
        return tail.answer[1]

    async def collections(self, name: str, reads: Names) -> CollectionsAnswer:
        """A journal's collections that may be read, by name."""
        head = (await self.tails.of(name)).head
        told = [
            CollectionAnswer(k.name, k.atoms, digest.told(k.digest), k.policy)
            for _, k in sorted(head.collections.items())
            if reads is None or k.name in reads
        ]
        return CollectionsAnswer(head.epoch, head.head, told)

    async def set_policy(self, name: str, collection: str, policy: Policy | None, *, by: str) -> CollectionAnswer:
        """Give a collection a policy that goes before those of requests; None takes it away."""
        tail = await self.tails.of(name)
        await heads.set_policy(self.database, tail.head.id, collection, policy, by)
        await self.tails.refresh(tail)
        k = tail.head.collections[collection]
        return CollectionAnswer(k.name, k.atoms, digest.told(k.digest), k.policy)

    async def cursor(self, name: str, at: Cursor, collections: frozenset[str] | None) -> CursorAnswer:
        """The cursor for `collections` where `at` stands, once `at` is found good."""
        if at.base is not None:
            raise InvalidRequest([Fault("/at", "the cursor's round of pages is not over")])
        tail = await self.tails.of(name)
        async with self.database.moment() as connection:
            head = await heads.head_by_id(connection, tail.head.id)
            if head is None:
                raise self.tails.gone(tail)
            await judged(connection, head, msgspec.structs.replace(at, collections=None), collections=collections)
        told = msgspec.structs.replace(at, collections=collections)
        return CursorAnswer(head.epoch, at.revision, str(told))


def _head_of(head: Head, reads: Names = None) -> Answer:
    told = msgspec.json.encode(head_answer(head, reads))
    tag = f"{head.epoch}:{head.head}:{head.chain[:8].hex()}:{head.horizon}"
    if reads is not None:
        tag += f":{sha256(told).hexdigest()[:16]}"
    return Answer(MEDIA["json"], told, tag, coded={})


def head_answer(head: Head, reads: Names = None) -> HeadAnswer:
    """What is told of a journal's head to who may read these collections."""
    atoms, total = head.totals(reads)
    return HeadAnswer(
        journal=head.journal,
        epoch=head.epoch,
        head=head.head,
        horizon=head.horizon,
        chain=chain.told(head.chain),
        cursor=str(msgspec.structs.replace(head.cursor, collections=reads)),
        digest=digest.told(total),
        atoms=atoms,
    )
