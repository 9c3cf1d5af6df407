"""Every body that crosses HTTP, as msgspec Structs. What they mean is docs/protocol.md's to say."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from journal.core.consolidate import Delta
from journal.core.model import Outcome, Policy, PushOp

LARGEST = 2**53 - 1
Revision = Annotated[int, Meta(ge=0, le=LARGEST)]
JournalName = Annotated[str, Meta(extra={"name": "journal"})]
CollectionName = Annotated[str, Meta(extra={"name": "collection"})]
AtomName = Annotated[str, Meta(extra={"name": "atom"})]
Data = Annotated[Raw, Meta(extra={"json": "object"})]
DataOrNull = Annotated[Raw, Meta(extra={"json": "object or null"})]


class ChangeRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A change as a client asks for it."""

    op: PushOp
    collection: CollectionName
    atom: AtomName
    data: Data | UnsetType = UNSET
    unset: list[str] | UnsetType = UNSET
    base: Revision | UnsetType = UNSET
    if_data: DataOrNull | UnsetType = UNSET
    age_ms: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    changed_at: datetime | UnsetType = UNSET


class PushRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/changes."""

    changes: list[ChangeRequest]
    client: UUID | UnsetType = UNSET
    push: Annotated[int, Meta(ge=1, le=LARGEST)] | UnsetType = UNSET
    base: str | UnsetType = UNSET
    on_conflict: Policy = "server"
    atomic: bool = False
    now: datetime | UnsetType = UNSET


class PushAnswer(msgspec.Struct):
    """The answer to it. `replayed` is the last member: a replay is the same bytes but for it."""

    epoch: str
    first: int | None
    revision: int | None
    head: int
    chain: str
    outcomes: list[Outcome] | None
    replayed: bool = False


class HeadAnswer(msgspec.Struct):
    """Where a journal stands."""

    journal: str
    epoch: str
    head: int
    horizon: int
    chain: str
    cursor: str
    digest: str
    atoms: int


class JournalsAnswer(msgspec.Struct):
    """A page of journals; `next` goes on, as `after`."""

    journals: list[HeadAnswer]
    more: bool
    next: str | None = None


class CollectionAnswer(msgspec.Struct):
    """A collection, with the policy that an operator gave it."""

    name: str
    atoms: int
    digest: str
    policy: Policy | None


class CollectionsAnswer(msgspec.Struct):
    """A journal's collections."""

    epoch: str
    head: int
    collections: list[CollectionAnswer]


class CollectionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT …/collections."""

    collection: CollectionName
    policy: Policy | None


class Members(msgspec.Struct, omit_defaults=True):
    """The members of an answer to …/deltas but the deltas themselves."""

    epoch: str
    since: int
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    cursor: str | UnsetType = UNSET
    digest: str | UnsetType = UNSET


class Deltas(msgspec.Struct, omit_defaults=True):
    """The answer to …/deltas whole, as a client reads it."""

    epoch: str
    since: int
    more: bool
    cursor: str
    deltas: list[Delta]
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    digest: str | UnsetType = UNSET


class CursorAnswer(msgspec.Struct):
    """A cursor for other collections."""

    epoch: str
    revision: int
    cursor: str


class AtomAnswer(msgspec.Struct):
    """An atom at a revision."""

    epoch: str
    collection: str
    atom: str
    revision: int
    at: str
    by: UUID | None
    data: Raw


class HistoryEntry(msgspec.Struct, omit_defaults=True):
    """One change of an atom."""

    revision: int
    op: Literal["insert", "update", "replace", "delete"]
    at: str
    by: UUID | None
    push: int | None
    data: Raw | UnsetType = UNSET
    unset: tuple[str, ...] = ()
    erased: bool = False


class HistoryAnswer(msgspec.Struct):
    """An atom's changes, newest first; `next` goes on, as `before`."""

    epoch: str
    collection: str
    atom: str
    changes: list[HistoryEntry]
    more: bool
    next: int | None = None
