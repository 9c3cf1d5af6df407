"""Bodies that are told and nowhere read as a whole: made of text piece by piece, or of errors, and described here.

The rule: nothing is made of these Structs but the description of the service (openapi.py); that they are
what is told, the tests hold: each answer that they get is compared (tests/conforming.py).
"""

from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from journal.config import Limits
from journal.core.consolidate import Delta
from journal.core.model import Current, Keep, Outcome, Policy
from journal.errors import Fault, Reason
from journal.wire import (
    At,
    Chain,
    ChangeRequest,
    CompactRequest,
    CursorText,
    Digest,
    Epoch,
    PushRequest,
    SettleRequest,
    SyncRequest,
    ToldData,
)


class DeltaAnswer(Delta, omit_defaults=True, kw_only=True):
    """The net effect on one atom, with who and when where `meta` was asked for."""

    at: At | UnsetType = UNSET
    by: UUID | UnsetType | None = UNSET


class DeltasAnswer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Everything since a revision. While `more` is true, or where an end was asked for, some members are not told."""

    epoch: Epoch
    since: int
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    more: bool
    cursor: CursorText
    digest: Digest | UnsetType = UNSET
    deltas: list[DeltaAnswer]


class DeltasFirst(msgspec.Struct, omit_defaults=True):
    """The first line of deltas as lines."""

    epoch: Epoch
    since: int
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET


class DeltasLast(msgspec.Struct, omit_defaults=True):
    """The last line of deltas as lines; without it they are cut off."""

    end: Literal[True]
    until: int
    more: bool
    cursor: CursorText
    digest: Digest | UnsetType = UNSET


class RecordedChange(msgspec.Struct, omit_defaults=True):
    """A change as it was recorded. `erased`: its data was blanked since."""

    op: Literal["insert", "update", "replace", "delete"]
    collection: str
    atom: str
    data: ToldData | UnsetType = UNSET
    unset: list[str] | UnsetType = UNSET
    erased: bool = False


class RecordedCommit(msgspec.Struct):
    """A commit, from revision `first` to `revision`; a floor has no changes."""

    epoch: Epoch
    first: int
    revision: int
    client: UUID | None
    push: int | None
    at: At
    chain: Chain
    changes: list[RecordedChange]


class ChangesAnswer(msgspec.Struct):
    """A page of the record itself."""

    epoch: Epoch
    since: int
    until: int
    more: bool
    cursor: CursorText
    commits: list[RecordedCommit]


class SnapshotFirst(msgspec.Struct):
    """The first line of a snapshot."""

    epoch: Epoch
    revision: int
    cursor: CursorText
    atoms: int


class SnapshotAtom(msgspec.Struct):
    """A line of a snapshot."""

    collection: str
    atom: str
    revision: int
    data: ToldData


class SnapshotLast(msgspec.Struct):
    """The last line of a snapshot; without it the snapshot is cut off."""

    end: Literal[True]
    atoms: int
    digest: Digest


class Health(msgspec.Struct):
    """It runs, and answers; or can do what it is for."""

    status: Literal["alive", "ready"]


class Bookmark(msgspec.Struct):
    """Nothing was missed until this revision."""

    revision: int


class AuthEvent(msgspec.Struct, omit_defaults=True):
    """The caller's token ends in so many seconds, or has ended."""

    reason: Literal["expires", "expired", "revoked"]
    in_s: int | UnsetType = UNSET


class LookupAnswer(msgspec.Struct):
    """Atoms by collection and name; null where none lives."""

    epoch: Epoch
    revision: int
    atoms: dict[str, dict[str, Current | None]]


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What went wrong (RFC 9457). `code` never changes its meaning."""

    type: str
    title: str
    status: int
    code: str
    detail: str | UnsetType = UNSET


class FaultsProblem(Problem, omit_defaults=True, kw_only=True):
    """What is wrong with a request, all of it."""

    errors: list[Fault]


class OutcomesProblem(Problem, omit_defaults=True, kw_only=True):
    """Nothing was recorded; what would have become of each change."""

    first: int | UnsetType | None = UNSET
    revision: int | UnsetType | None = UNSET
    outcomes: list[Outcome] | UnsetType | None = UNSET
    replayed: bool | UnsetType = UNSET


class HighestProblem(Problem, omit_defaults=True, kw_only=True):
    """The highest number that was decided."""

    highest: int


class SettledProblem(Problem, omit_defaults=True, kw_only=True):
    """How it was settled."""

    keep: Keep
    revision: int | None
    atom: str | UnsetType = UNSET


class ResyncProblem(Problem, omit_defaults=True, kw_only=True):
    """Deltas cannot be had (protocol, section 7): what happened, and the way back."""

    reason: Reason
    epoch: Epoch
    head: int
    horizon: int
    reconcile: Literal["replace", "verify"]
    snapshot: str
    retry_after: int
    collections: list[str] | UnsetType = UNSET
    granted: list[str] | UnsetType = UNSET


class NotReadyProblem(Problem, kw_only=True):
    """This process cannot answer at this moment, and why."""

    reason: Literal["postgresql_away", "shutting_down", "starting"]


class SyncAnswer(msgspec.Struct, omit_defaults=True):
    """What became of the push, where there was one, and everything since; or the way back, in `resync`."""

    first: int | UnsetType | None = UNSET
    revision: int | UnsetType | None = UNSET
    outcomes: list[Outcome] | UnsetType | None = UNSET
    replayed: bool | UnsetType = UNSET
    epoch: Epoch | UnsetType = UNSET
    since: int | UnsetType = UNSET
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    cursor: CursorText | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET
    deltas: list[DeltaAnswer] | UnsetType = UNSET
    atoms: dict[str, dict[str, Current | None]] | UnsetType = UNSET
    resync: ResyncProblem | UnsetType = UNSET


class LimitsAnswer(Limits, frozen=True, kw_only=True):
    """What a request may ask for, and how often; 0: no limit. A process of several tells its share."""

    requests_per_s: float
    requests_at_once: int
    streams: int
    downloads: int
    body_s: float
    body_bytes_per_s: int


class AboutAnswer(msgspec.Struct):
    """What this service is, and what may be asked of it."""

    version: Literal[1]
    software: str
    limits: LimitsAnswer
    policies: list[Policy]
    forms: list[str]


def _of(member: str, *values: str) -> dict[str, Any]:
    """That a member is one of these."""
    return {"properties": {member: {"enum": list(values)}}, "required": [member]}


def _without(*members: str) -> dict[str, Any]:
    """That these members are not there."""
    return {"properties": dict.fromkeys(members, False)}


_NUMBERED = {"dependentRequired": {"push": ["client"]}}
_BASED = {
    "if": {"not": {"required": ["base"]}},
    "then": {"properties": {"changes": {"items": _without("base")}}},
}
BESIDES: dict[type[msgspec.Struct], dict[str, Any]] = {
    ChangeRequest: {
        "allOf": [
            {"if": _of("op", "insert", "put"), "then": {"required": ["data"], **_without("unset")}},
            {"if": _of("op", "update"), "then": {"anyOf": [{"required": ["data"]}, {"required": ["unset"]}]}},
            {"if": _of("op", "delete"), "then": _without("data", "unset")},
        ]
    },
    PushRequest: _NUMBERED | _BASED,
    SyncRequest: _NUMBERED,  # whose base is `since`, where that is a cursor
    CompactRequest: {
        "anyOf": [
            {"properties": {name: {"type": "number"}}, "required": [name]} for name in ("keep_revisions", "keep_days")
        ]
    },
    SettleRequest: {"if": _of("keep", "both"), "then": {"required": ["atom"]}, "else": _without("atom")},
}
"""What bodies must be besides, for which Structs have no word: which members go with which."""
