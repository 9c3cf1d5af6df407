"""Sync: a push, and everything since a cursor, in one request (protocol, section 10).

The cursor is judged with the push, before anything is decided. Once the push is decided its outcomes are told, whatever
became of the cursor meanwhile. Deltas and atoms are of one moment, at which what was pushed is there: a group that is
answered has brought memory to where PostgreSQL's rows are (service/group.py), and rows are read after it.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec
from msgspec import Raw

from journal.core.cursor import Cursor
from journal.errors import ClientForgotten, ResyncRequired
from journal.service.answer import MEDIA, NEVER, Answer
from journal.service.deltas import Reader
from journal.service.group import Asked
from journal.service.registry import Registry
from journal.service.rounds import Page
from journal.service.tails import Tails
from journal.service.verify import LookedUp, Verify
from journal.service.writer import Writer
from journal.store.record import Decided

_encode = msgspec.json.Encoder().encode
_pushed = msgspec.json.Decoder(dict[str, Raw]).decode
_OF_DELTAS = ("epoch", "head", "chain")  # of a push's answer: deltas say them of their moment, or in their cursor


class SyncAsked(msgspec.Struct, frozen=True):
    """A sync as it is asked for. `push` None: there is nothing to decide. `get`: atoms by collection and name."""

    push: Asked | None
    page: Page
    get: dict[str, list[str]] | None = None


class Sync:
    """Answers syncs."""

    def __init__(self, tails: Tails, writer: Writer, reader: Reader, verify: Verify, registry: Registry) -> None:
        self.tails, self.writer, self.reader = tails, writer, reader
        self.verify, self.registry = verify, registry
        self.called_back: Counter[str] = Counter()  # how many told a resync beside outcomes, by its reason

    async def sync(self, journal: str, asked: SyncAsked, agent: str | None) -> Answer | Decided:
        """What became of the push with everything since, or, where that was a refusal, the refusal alone."""
        client, since = asked.page.client, asked.page.since
        if client is not None:
            await self.tails.of(journal)  # nobody is seen where there is no journal
            self.registry.saw(journal, client, since if isinstance(since, Cursor) else None, agent)
        members: dict[str, Raw] = {}
        if asked.push is not None:
            decided = await self.writer.push(asked.push)
            if decided.status != 200:
                return decided
            members = {name: said for name, said in _pushed(decided.answer).items() if name not in _OF_DELTAS}
        try:
            if client is not None:
                await self.registry.admit(journal, client)  # not before: what a forgotten one had pushed is replayed
            return await self._told(journal, asked, members)
        except ResyncRequired as error:
            if asked.push is None:
                raise
            self.called_back[error.reason] += 1
            return _answer(_encode(members | {"resync": error.problem()}))
        except ClientForgotten as error:
            if asked.push is None:
                raise
            return Decided(b"", error.status, _encode(error.problem() | members))

    async def _told(self, journal: str, asked: SyncAsked, members: dict[str, Raw]) -> Answer:
        """What was pushed, everything since, and the atoms that are asked for."""
        if asked.get is None:
            return _joined(members, await self.reader.deltas(journal, asked.page), None)
        found = self.verify.looked_up(asked.get)
        try:
            return _joined(members, await self.reader.with_besides(journal, asked.page, found.read), found)
        except BaseException:
            found.spool.close()
            raise


def _joined(members: dict[str, Raw], deltas: Answer, found: LookedUp | None) -> Answer:
    """One answer of all: whole where all of it is small."""
    spools = deltas.spools if found is None else (*deltas.spools, found.spool)
    pieces = _pieces(members, deltas, found)
    if deltas.body is None or not (found is None or found.spool.is_small):
        return Answer(deltas.media, None, "", NEVER, pieces=pieces, spools=spools)
    body = b"".join(pieces)
    for spool in spools:
        spool.close()
    return _answer(body)


def _answer(body: bytes) -> Answer:
    return Answer(MEDIA["json"], body, "", NEVER)


def _pieces(members: dict[str, Raw], deltas: Answer, found: LookedUp | None) -> Iterator[bytes]:
    """The objects as one: that of the deltas loses its braces."""
    yield _encode(members)[:-1] + b"," if members else b"{"
    pieces = iter([deltas.body]) if deltas.body is not None else deltas.pieces
    assert pieces is not None
    before = next(pieces)[1:]
    for piece in pieces:
        yield before
        before = piece
    yield before[:-1]
    if found is None:
        yield b"}"
    else:
        yield from found.pieces()
