"""Verify: what a suspicious client compares its data with, and what it mends it by (protocol, section 8).

Every answer is of one revision, that of the head when it was asked for or of a later one: PostgreSQL's own row says
where the head is. What is said of a head is said once and kept.
"""

import itertools
import sqlite3
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import UNSET

from journal.config import Memory
from journal.core import digest
from journal.core.cursor import Cursor
from journal.service import tree
from journal.service.answer import MEDIA, Answer, whole
from journal.service.indexes import Indexes
from journal.service.rendered import Rendered
from journal.service.shared import Shared
from journal.service.spool import Spool
from journal.service.tails import Tail, Tails
from journal.service.tree import Of, Sum
from journal.store import heads, places
from journal.store.database import Connection, Database
from journal.store.heads import Head
from journal.wire import DigestAnswer, ManifestAnswer, ManifestEntry, NodeAnswer

KEPT_BYTES = 16 << 20
_encode = msgspec.json.Encoder().encode


class DigestAsked(msgspec.Struct, frozen=True):
    """The sums beneath a prefix; `collections` None: all."""

    prefix: str
    of: Of
    collections: frozenset[str] | None

    def answer(self, db: sqlite3.Connection) -> "Told":
        """As the index has it."""
        children = tree.children(db, self.prefix, self.of, self.collections)
        total = Sum()
        for child in children.values():
            total.add(child.atoms, child.digest)
        if len(self.prefix) == tree.DIGITS:
            for entry in tree.entries(db, self.prefix, self.collections, None, 1):
                total.add(1, entry.leaf(self.of))

        def told(at: Cursor) -> DigestAnswer:
            return DigestAnswer(
                epoch=at.epoch,
                revision=at.revision,
                prefix=self.prefix,
                of=self.of,
                count=total.atoms,
                digest=digest.told(total.digest),
                children={name: NodeAnswer(k.atoms, digest.told(k.digest)) for name, k in children.items()},
            )

        return told


class ManifestAsked(msgspec.Struct, frozen=True):
    """Up to `limit` atoms beneath a prefix, those after the place `after`."""

    prefix: str
    of: Of
    collections: frozenset[str] | None
    after: str | None
    limit: int

    def answer(self, db: sqlite3.Connection) -> "Told":
        """As the index has it."""
        found = list(tree.entries(db, self.prefix, self.collections, self.after, self.limit + 1))
        is_more = len(found) > self.limit
        atoms = [
            ManifestEntry(entry.collection, entry.atom, entry.revision, digest.told(entry.leaf(self.of)))
            for entry in found[: self.limit]
        ]

        def told(at: Cursor) -> ManifestAnswer:
            last = found[self.limit - 1].place if is_more else UNSET
            return ManifestAnswer(epoch=at.epoch, revision=at.revision, atoms=atoms, more=is_more, next=last)

        return told


Told = Callable[[Cursor], DigestAnswer | ManifestAnswer]


class Verify:
    """Answers digest, manifest and lookup."""

    def __init__(self, database: Database, tails: Tails, memory: Memory, spool: Path) -> None:
        self.database, self.tails = database, tails
        self.spool, self.memory_bytes = spool, memory.answer_bytes
        self.indexes = Indexes(database, tails, spool / "index")
        self.rendered = Rendered(KEPT_BYTES, memory.answer_bytes)
        self._asking: Shared[Hashable, Answer] = Shared()
        self._looking: Shared[int, Cursor] = Shared()

    async def told(self, journal: str, asked: DigestAsked | ManifestAsked) -> Answer:
        """What is asked of the index; who asks the same at the same head is told the same."""
        tail = await self.tails.of(journal)
        at = await self._standing(tail)
        key = (tail.head.id, at, asked)
        known = self.rendered.find(key)
        if known is not None:
            return known
        return await self._asking.join(key, lambda: self._told(tail, at, asked))

    async def lookup(self, journal: str, wanted: Mapping[str, Sequence[str]]) -> Answer:
        """Atoms by collection and name, all of one moment: revision and data, or null."""
        tail = await self.tails.of(journal)
        found = self.looked_up(wanted)
        try:
            async with self.database.moment() as connection:
                head = await heads.head_by_id(connection, tail.head.id)
                if head is None:
                    raise self.tails.gone(tail)
                await found.read(connection, head)
        except BaseException:
            found.spool.close()
            raise
        self.tails.heard(head.id, head.turn)
        pieces = itertools.chain([_encode({"epoch": head.epoch, "revision": head.head})[:-1]], found.pieces())
        if found.spool.is_small:
            with found.spool:
                return whole(b"".join(pieces))
        tag = sha256(_encode(("lookup", str(head.cursor), wanted))).hexdigest()[:24]
        return Answer(MEDIA["json"], None, tag, pieces=pieces, spools=(found.spool,))

    def looked_up(self, wanted: Mapping[str, Sequence[str]]) -> "LookedUp":
        """Atoms by collection and name, to be read at a moment of the caller's, who closes their spool."""
        return LookedUp(wanted, Spool(self.spool, self.memory_bytes))

    async def _standing(self, tail: Tail) -> Cursor:
        """Where the journal stands by PostgreSQL's own row; who asks while one looks shares the next look."""
        return await self._looking.next(tail.head.id, lambda: self._look(tail))

    async def _look(self, tail: Tail) -> Cursor:
        async with self.database.reading() as connection:
            found = await places.standing(connection, tail.head.id)
        if found is None:
            raise self.tails.gone(tail)
        at, turn = found
        self.tails.heard(tail.head.id, turn)
        return at

    async def _told(self, tail: Tail, at: Cursor, asked: DigestAsked | ManifestAsked) -> Answer:
        there, told = await self.indexes.read(tail, at, asked.answer)
        answer = whole(_encode(told(there)))
        self.rendered.keep((tail.head.id, there, asked), answer)
        return answer


class LookedUp:
    """Atoms that were asked for by name, on their way from PostgreSQL's rows to an answer."""

    def __init__(self, wanted: Mapping[str, Sequence[str]], spool: Spool) -> None:
        self.spool = spool
        self._atoms = [(collection, atom) for collection, names in wanted.items() for atom in dict.fromkeys(names)]
        self._before, self._end = _around(wanted)

    async def read(self, connection: Connection, head: Head) -> None:
        """Read them, as they are at the connection's moment."""
        await places.copy_lookup(connection, head, self._atoms, self._before, self.spool.write)
        self.spool.finish()

    def pieces(self) -> Iterator[bytes]:
        """The last member of an object, `atoms`, from the comma before it to the object's end."""
        yield b',"atoms":{'
        for chunk in self.spool.chunks():
            yield chunk.replace(b"\n", b"")  # text of JSON has no newline in itself
        yield self._end


def _around(wanted: Mapping[str, Sequence[str]]) -> tuple[list[str], bytes]:
    """What stands before each atom of an answer to a lookup, and what after the last one."""
    before: list[str] = []
    text = ""
    for collection, names in wanted.items():
        text += f"{_encode(collection).decode()}:{{"
        for atom in dict.fromkeys(names):
            before.append(f"{text}{_encode(atom).decode()}:")
            text = ","
        text = text.removesuffix(",") + "},"
    return before, (text.removesuffix(",") + "}}").encode()
