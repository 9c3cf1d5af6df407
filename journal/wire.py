"""Every body that crosses HTTP, as msgspec Structs. What they mean is docs/protocol.md's to say."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from journal.core.consolidate import Delta
from journal.core.grants import Permission
from journal.core.model import Keep, Outcome, Policy, PushOp
from journal.core.names import ATOM_BYTES, COLLECTION_BYTES, JOURNAL_BYTES

LARGEST = 2**53 - 1
COMPONENT = "#/components/schemas/"
"""Where the description of the service keeps the schemas of Structs, by their names."""


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 writes it, in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _name(kind: str, least: str, most_bytes: int) -> Meta:
    """What names are: `extra` is judged (journal/faults.py), and told as far as a schema can, which counts no bytes."""
    told = {"minLength": 1, "maxLength": most_bytes, "pattern": least, "format": f"{kind}-name"}
    return Meta(extra={"name": kind}, extra_json_schema=told)


def _told(pattern: str, example: str) -> Meta:
    """Text that this service makes: described, and not judged."""
    return Meta(extra_json_schema={"pattern": pattern, "examples": [example]})


def schema_of(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of a type of this module that is no Struct."""
    return msgspec.json.schema(annotation)


Revision = Annotated[int, Meta(ge=0, le=LARGEST)]
JournalName = Annotated[str, _name("journal", r"^[a-z0-9][a-z0-9_-]*$", JOURNAL_BYTES)]
CollectionName = Annotated[str, _name("collection", r"^[^,\x00-\x1f\x7f-\x9f]+$", COLLECTION_BYTES)]
AtomName = Annotated[str, _name("atom", r"^[^\x00-\x1f\x7f-\x9f]+$", ATOM_BYTES)]
Data = Annotated[Raw, Meta(extra={"json": "object"}, extra_json_schema={"type": "object"})]
Moment = Annotated[datetime, Meta(tz=True)]
DataOrNull = Annotated[Raw, Meta(extra={"json": "object or null"}, extra_json_schema={"type": ["object", "null"]})]
ToldData = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
CursorText = Annotated[
    str, _told(r"^[0-9a-f]{12}:(0|[1-9][0-9]{0,15}):[0-9a-f]{16}(:.+)?$", "5f1c09ab33d2:2312:9f86d081884c7d65")
]
Epoch = Annotated[str, _told("^[0-9a-f]{12}$", "5f1c09ab33d2")]
Chain = Annotated[str, _told("^[0-9a-f]{16}$", "9f86d081884c7d65")]
Digest = Annotated[str, _told("^[0-9a-f]{16}$", "03ac674216f3e15c")]
Outcomes = Annotated[Raw, Meta(extra_json_schema={"type": ["array", "null"], "items": {"$ref": f"{COMPONENT}Outcome"}})]
Result = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"$ref": f"{COMPONENT}CompactResult"},
                {"$ref": f"{COMPONENT}CheckResult"},
                {"type": "object", "properties": {"detail": {"type": "string"}}},
                {"type": "null"},
            ]
        }
    ),
]
At = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


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
    changed_at: Moment | UnsetType = UNSET


class PushRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/changes."""

    changes: list[ChangeRequest]
    client: UUID | UnsetType = UNSET
    push: Annotated[int, Meta(ge=1, le=LARGEST)] | UnsetType = UNSET
    base: str | UnsetType = UNSET
    on_conflict: Policy = "server"
    atomic: bool = False
    now: Moment | UnsetType = UNSET


class SyncRequest(PushRequest, kw_only=True):
    """The body of POST …/sync: that of a push, which may be without changes, and what is to be told after it."""

    since: Revision | str
    changes: list[ChangeRequest] = []
    limit: Annotated[int, Meta(ge=1)] = 10_000
    collections: Annotated[list[CollectionName], Meta(min_length=1)] | UnsetType = UNSET
    get: dict[CollectionName, list[AtomName]] | UnsetType = UNSET


class PushAnswer(msgspec.Struct):
    """The answer to it. `replayed` is the last member: a replay is the same bytes but for it."""

    epoch: Epoch
    first: int | None
    revision: int | None
    head: int
    chain: Chain
    outcomes: list[Outcome] | None
    replayed: bool = False


class HeadAnswer(msgspec.Struct):
    """Where a journal stands."""

    journal: str
    epoch: Epoch
    head: int
    horizon: int
    chain: Chain
    cursor: CursorText
    digest: Digest
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
    digest: Digest
    policy: Policy | None


class CollectionsAnswer(msgspec.Struct):
    """A journal's collections."""

    epoch: Epoch
    head: int
    collections: list[CollectionAnswer]


class CollectionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT …/collections."""

    collection: CollectionName
    policy: Policy | None


class Members(msgspec.Struct, omit_defaults=True):
    """The members of an answer to …/deltas but the deltas themselves."""

    epoch: Epoch
    since: int
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    cursor: CursorText | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET


class Deltas(msgspec.Struct, omit_defaults=True):
    """The answer to …/deltas whole, as a client reads it."""

    epoch: Epoch
    since: int
    more: bool
    cursor: CursorText
    deltas: list[Delta]
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET


class CursorAnswer(msgspec.Struct):
    """A cursor for other collections."""

    epoch: Epoch
    revision: int
    cursor: CursorText


class AtomAnswer(msgspec.Struct):
    """An atom at a revision."""

    epoch: Epoch
    collection: str
    atom: str
    revision: int
    at: At
    by: UUID | None
    data: ToldData


class HistoryEntry(msgspec.Struct, omit_defaults=True):
    """One change of an atom."""

    revision: int
    op: Literal["insert", "update", "replace", "delete"]
    at: At
    by: UUID | None
    push: int | None
    data: ToldData | UnsetType = UNSET
    unset: tuple[str, ...] = ()
    erased: bool = False


class HistoryAnswer(msgspec.Struct):
    """An atom's changes, newest first; `next` goes on, as `before`."""

    epoch: Epoch
    collection: str
    atom: str
    changes: list[HistoryEntry]
    more: bool
    next: int | None = None


class ResyncRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/resync: one client, whoever asks for these collections, or everyone."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    client: UUID | UnsetType = UNSET
    collections: Annotated[list[CollectionName], Meta(min_length=1, max_length=1000)] | UnsetType = UNSET
    spread_s: Annotated[int, Meta(ge=0, le=86_400)] = 0


class RevisionAnswer(msgspec.Struct):
    """The revision of what was recorded."""

    revision: int


class RestoredRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/restored. `revision`: where the epoch begins, above all that may have been given out."""

    revision: Annotated[int, Meta(ge=1, le=LARGEST - 2**32)] | UnsetType = UNSET
    spread_s: Annotated[int, Meta(ge=0, le=86_400)] = 0


class ClientRow(msgspec.Struct, kw_only=True):
    """A client as the registry has it: where it last asked from, and how far behind the head that is.

    `resync`: the floor that it has not obeyed yet. `resynced`: what it last came back over.
    """

    client: UUID
    cursor: CursorText | None
    revision: int | None
    lag: int | None
    lag_s: float | None
    first_seen: At
    last_seen: At
    agent: str | None
    resync: int | None
    resynced: int | None
    resynced_at: At | None
    pushed: int


class ClientsAnswer(msgspec.Struct):
    """A page of clients, the furthest behind first; `next` goes on, as `after`."""

    epoch: Epoch
    head: int
    clients: list[ClientRow]
    more: bool
    next: str | None = None


class ClientPush(msgspec.Struct):
    """A push that was decided, and its outcomes."""

    push: int
    at: At
    status: int
    revision: int | None
    outcomes: Outcomes


class ClientAnswer(ClientRow, kw_only=True):
    """A client with its last pushes, newest first."""

    pushes: list[ClientPush]


class CompactRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/compact: how much is kept; where both are given, what either keeps."""

    keep_revisions: Revision | None = None
    keep_days: Annotated[float, Meta(ge=0, le=36_500)] | None = None
    dry_run: bool = False
    force: bool = False


class CompactHeldBy(msgspec.Struct):
    """What keeps the horizon from going further: a client, or a snapshot that is read."""

    what: Literal["client", "snapshot"]
    name: str
    revision: int


class CompactCutOff(msgspec.Struct):
    """A client that must start again after it."""

    client: UUID
    revision: int
    last_seen: At


class CompactResult(msgspec.Struct):
    """What a compaction did, or with `dry_run` would do. `bytes`: as PostgreSQL stores the rows."""

    horizon: int
    was: int
    wanted: int
    held_by: list[CompactHeldBy]
    changes: int
    commits: int
    tombstones: int
    bytes: int
    cut_off: list[CompactCutOff]
    dry_run: bool


class OperationAnswer(msgspec.Struct):
    """Something that takes long; `result` is null until it has ended."""

    id: UUID
    kind: str
    state: Literal["running", "done", "failed"]
    progress: float
    result: Result
    by: str
    begun_at: At
    ended_at: At | None


class OperationsAnswer(msgspec.Struct):
    """A journal's operations, newest first."""

    operations: list[OperationAnswer]


class EraseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/erase."""

    collection: CollectionName
    atom: AtomName


class EraseAnswer(msgspec.Struct):
    """What was blanked, and who may still hold it."""

    revision: int
    changes: int
    outcomes: int
    conflicts: int
    snapshots: int
    may_hold: list[str]


class Stood(msgspec.Struct, omit_defaults=True):
    """What a change met: an atom's revision and data; no data where that was erased."""

    revision: int
    data: ToldData | UnsetType = UNSET


class Settled(msgspec.Struct, omit_defaults=True):
    """How a conflict was settled. `atom`: the copy's name; `revision`: of what was recorded, null where nothing was."""

    keep: Keep
    revision: int | None
    by: str
    at: At
    atom: str | UnsetType = UNSET


class ConflictAnswer(msgspec.Struct, omit_defaults=True):
    """A change that ended as a conflict and is kept. `place`: in its push, from 0. `stood`: what it met instead."""

    id: str
    op: PushOp
    collection: str
    atom: str
    client: UUID | None
    push: int | None
    place: int
    base: int | None
    stood: Stood | None
    at: At
    settled: Settled | None
    data: ToldData | UnsetType = UNSET
    unset: tuple[str, ...] = ()
    erased: bool = False


class ConflictsAnswer(msgspec.Struct):
    """A page of conflicts, newest first; `next` goes on, as `after`."""

    conflicts: list[ConflictAnswer]
    more: bool
    next: str | None = None


class SettleRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/conflicts/{id}. `atom`: the copy's name, where both are kept."""

    keep: Keep
    atom: AtomName | UnsetType = UNSET


class SettleAnswer(msgspec.Struct):
    """How a conflict was settled; the revision of what that recorded, null where it was nothing."""

    id: str
    keep: Keep
    revision: int | None


class AuditEntry(msgspec.Struct):
    """What an operator did."""

    id: int
    at: At
    by: str
    action: str
    detail: Raw


class AuditAnswer(msgspec.Struct):
    """A page of the audit log, newest first; `next` goes on, as `after`."""

    audit: list[AuditEntry]
    more: bool
    next: int | None = None


class ActivityBucket(msgspec.Struct):
    """What was recorded in a few seconds from `at` on."""

    at: At
    commits: int
    changes: int


class StatsAnswer(msgspec.Struct):
    """A journal's figures. `bytes` is an estimate; `behind`: clients that a resync waits for."""

    journal: str
    head: int
    atoms: int
    bytes: int
    clients: int
    behind: int
    bucket_s: int
    activity: list[ActivityBucket]


class RememberedServer(msgspec.Struct):
    """The PostgreSQL that was remembered."""

    system: str
    timeline: int
    at: At


class ServerAnswer(msgspec.Struct):
    """Which PostgreSQL this is. `is_other`: not the one that was remembered, which is a question to the operator.

    `system` is null where it does not tell; then nothing can be asked.
    """

    system: str | None
    timeline: int | None
    postgresql: str
    remembered: RememberedServer | None
    is_other: bool


class ServerRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /v1/server: remember this one."""

    system: str
    timeline: Annotated[int, Meta(ge=1)]


class GrantAnswer(msgspec.Struct):
    """What may be done with a journal, or with all (`*`). `collections` null: with all of its collections."""

    journal: str
    can: list[Permission]
    collections: list[str] | None


class CallerAnswer(msgspec.Struct):
    """Who a caller is here: a token's name, null where nobody needs one; and until when, null: without an end."""

    name: str | None
    grants: list[GrantAnswer]
    ends_at: str | None


class TicketAnswer(msgspec.Struct):
    """One use of a journal's stream, within so many seconds."""

    ticket: str
    expires_in: int


class NodeAnswer(msgspec.Struct, frozen=True):
    """How many atoms are beneath a prefix, and their digest."""

    count: int
    digest: Digest


class DigestAnswer(msgspec.Struct):
    """What is beneath a prefix of places, and beneath the sixteen that are a digit longer."""

    epoch: Epoch
    revision: int
    prefix: str
    of: Literal["revision", "content"]
    count: int
    digest: Digest
    children: dict[str, NodeAnswer]


class ManifestEntry(msgspec.Struct, frozen=True):
    """An atom that the server has, with its leaf."""

    collection: str
    atom: str
    revision: int
    leaf: Digest


class ManifestAnswer(msgspec.Struct, omit_defaults=True):
    """A page of the atoms beneath a prefix, in the order of their places; `next` goes on, as `after`."""

    epoch: Epoch
    revision: int
    atoms: list[ManifestEntry]
    more: bool
    next: str | UnsetType = UNSET


class LookupRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST …/lookup: names of atoms by collection."""

    get: dict[CollectionName, list[AtomName]]


class CheckFault(msgspec.Struct, frozen=True):
    """Something that is not as it should be: a word for what, where exactly, and what is stored and should be."""

    what: Literal["commit", "change", "atom", "collection", "head"]
    where: str
    detail: str


class CheckResult(msgspec.Struct, frozen=True, rename={"since": "from"}):
    """What a check came to: the record after `since` and the state. `more`: there are other faults than are told.

    `changes`, `atoms`: how many were looked at, tombstones among them.
    """

    ok: bool
    revision: int
    since: int
    changes: int
    atoms: int
    faults: list[CheckFault]
    more: bool
