"""Conflicts that are kept for a person, and how one is settled (protocol, section 11).

The rule: a conflict is settled once. What settling records goes through the code that pushes go through, as a change
that knows the atom as it is, in the transaction that marks the conflict, under the head's lock.
"""

import asyncio
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw

from journal.config import MIB, Limits
from journal.core.grants import Names, Reach
from journal.core.model import Keep, Outcome, PushChange, decode_fields, encode_fields
from journal.errors import (
    AtomExists,
    AtomGone,
    ConflictErased,
    ConflictSettled,
    Fault,
    Forbidden,
    InvalidRequest,
    JournalError,
    NotApplied,
    NotFound,
)
from journal.service.group import Asked, Group
from journal.service.tails import Tail, Tails
from journal.store import conflicts, operators, record
from journal.store.conflicts import Kept, State
from journal.store.database import Connection, Database
from journal.wire import ConflictAnswer, ConflictsAnswer, SettleAnswer, Settled, Stood, rfc3339

PATIENCE_S = 10.0
PAGE_BYTES = 4 * MIB  # of the data on a page, but for its last conflict


class Conflicts:
    """Shows conflicts, and settles them."""

    def __init__(self, database: Database, tails: Tails, limits: Limits) -> None:
        self.database, self.tails, self.limits = database, tails, limits

    async def page(
        self, journal: str, below: int | None, limit: int, *, state: State, client: UUID | None, collections: Names
    ) -> ConflictsAnswer:
        """A page of conflicts in some collections, newest first."""
        tail = await self.tails.of(journal)
        found, is_more = await conflicts.before(
            self.database,
            tail.head.id,
            below,
            state=state,
            client=client,
            collections=collections,
            limit=limit,
            size=PAGE_BYTES,
        )
        told = [_answer(kept) for kept in found]
        return ConflictsAnswer(told, is_more, told[-1].id if is_more else None)

    async def one(self, journal: str, number: int, reach: Reach) -> ConflictAnswer:
        """One conflict; NotFound where none has this number that may be read."""
        tail = await self.tails.of(journal)
        async with self.database.reading() as connection:
            return _answer(await self._kept(connection, tail, number, reach))

    async def settle(
        self, journal: str, number: int, keep: Keep, copy: str | None, reach: Reach, *, by: str
    ) -> SettleAnswer:
        """Settle a conflict; the same choice again gives the same answer, another is ConflictSettled.

        Operators may, and who may write its collection.
        """
        if (keep == "both") is not (copy is not None):
            detail = "missing: the name of the copy" if copy is None else "goes with keep both only"
            raise InvalidRequest([Fault("/atom", detail)])
        tail = await self.tails.of(journal)
        group, at = None, None
        async with self.database.operating() as connection, connection.transaction():
            await record.lock(connection, [tail.head.id], patience_s=PATIENCE_S)
            await self.tails.refresh_locked(connection, tail)
            kept = await self._kept(connection, tail, number, reach)
            if not (reach.operates or reach.writes_all([kept.collection])):
                raise Forbidden("to settle it, its collection must be one that may be written")
            if kept.settled is not None:
                return _as_before(kept, keep, copy)
            revision = None
            if keep != "server":
                group, outcome = await self._recorded(connection, tail, kept, keep, copy)
                at = await group.append(connection)
                revision = outcome.revision if outcome.status != "unchanged" else None
            assert revision is not UNSET
            await conflicts.settle(connection, tail.head.id, number, keep, copy, revision, by=by)
            await operators.note(connection, tail.head.id, by, "settle", _deed(kept, keep, copy, revision))
        if group is not None:
            group.publish(self.tails, at)
        return SettleAnswer(str(number), keep, revision)

    async def _kept(self, connection: Connection, tail: Tail, number: int, reach: Reach) -> Kept:
        kept = await conflicts.by_id(connection, tail.head.id, number)
        if kept is None or not reach.reads_all(frozenset([kept.collection])):
            raise NotFound("no conflict of this number was kept here")
        return kept

    async def _recorded(
        self, connection: Connection, tail: Tail, kept: Kept, keep: Keep, copy: str | None
    ) -> tuple[Group, Outcome]:
        """A group with the client's version, and what became of it."""
        if kept.is_erased and kept.op != "delete":
            raise ConflictErased
        atom = kept.atom if copy is None else copy
        asked = Asked(tail.head.journal, [PushChange("delete", kept.collection, atom)])
        group = Group(self.limits, {tail.head.journal: tail}, is_locked=True)
        await group.load(connection, [asked])
        state = group.states[tail.head.journal].atoms.get((kept.collection, atom))
        stands = None if state is None else state.data
        asked.changes = [_theirs(kept, stands) if copy is None else _beside(kept, copy, stands)]
        asked.answer = asyncio.get_running_loop().create_future()
        group.settle(asked)
        return group, _outcome(group)


def _theirs(kept: Kept, stands: bytes | None) -> PushChange:
    """The client's change on what stands, which it is said to know, whatever the collection's policy is."""
    if kept.op == "update" and stands is None:
        advice = "keep server" if kept.stood_data is None else "keep server, or both with a name for the copy"
        raise AtomGone(f"an update of nothing cannot be recorded: {advice}")
    op = "put" if kept.op == "insert" else kept.op
    return PushChange(op, kept.collection, kept.atom, kept.data, kept.unset, if_data=stands)


def _beside(kept: Kept, copy: str, stands: bytes | None) -> PushChange:
    """The client's version as an atom of its own."""
    if kept.op == "delete":
        raise InvalidRequest([Fault("/keep", "a delete has no version that could be kept beside what stands")])
    if kept.op == "update" and kept.stood_data is None:
        raise InvalidRequest([Fault("/keep", "an update of nothing has no version that could be kept: keep server")])
    if stands is not None:
        raise AtomExists(f"{copy} lives in {kept.collection}")
    return PushChange("put", kept.collection, copy, _version(kept), if_data=None)


def _version(kept: Kept) -> bytes:
    """The whole data that the client meant: of an update, what stood with the patch over it."""
    if kept.op != "update":
        assert kept.data is not None
        return kept.data
    assert kept.stood_data is not None
    fields = decode_fields(kept.stood_data)
    for name in kept.unset:
        fields.pop(name, None)
    if kept.data is not None:
        fields |= decode_fields(kept.data)
    return encode_fields(fields)


class _Body(msgspec.Struct):
    outcomes: list[Outcome]


_decode = msgspec.json.Decoder(_Body).decode


def _outcome(group: Group) -> Outcome:
    """What became of a group's one change; NotApplied where it makes no sense on what stands."""
    [(_, answer)] = group.answers
    if isinstance(answer, JournalError):
        raise answer
    [outcome] = _decode(answer.answer).outcomes
    if outcome.status not in ("applied", "unchanged"):
        raise NotApplied([outcome])
    return outcome


def _as_before(kept: Kept, keep: Keep, copy: str | None) -> SettleAnswer:
    settled = kept.settled
    assert settled is not None
    if (settled.keep, settled.copy) != (keep, copy):
        raise ConflictSettled(keep=settled.keep, atom=settled.copy, revision=settled.revision)
    return SettleAnswer(str(kept.id), settled.keep, settled.revision)


def _deed(kept: Kept, keep: Keep, copy: str | None, revision: int | None) -> dict[str, object]:
    """What the audit log says of it."""
    copied = {} if copy is None else {"copy": copy}
    where = {"collection": kept.collection, "atom": kept.atom}
    return {"conflict": str(kept.id), "keep": keep, **where, **copied, "revision": revision}


def _answer(kept: Kept) -> ConflictAnswer:
    stood = None
    if kept.stood_revision is not None:
        stood = Stood(kept.stood_revision, UNSET if kept.stood_data is None else Raw(kept.stood_data))
    return ConflictAnswer(
        id=str(kept.id),
        op=kept.op,
        collection=kept.collection,
        atom=kept.atom,
        client=kept.client,
        push=kept.push,
        place=kept.place,
        base=kept.base,
        stood=stood,
        at=rfc3339(kept.at),
        settled=_settled(kept),
        data=UNSET if kept.data is None else Raw(kept.data),
        unset=kept.unset,
        erased=kept.is_erased,
    )


def _settled(kept: Kept) -> Settled | None:
    settled = kept.settled
    if settled is None:
        return None
    copy = UNSET if settled.copy is None else settled.copy
    return Settled(settled.keep, settled.revision, settled.by, rfc3339(settled.at), copy)
