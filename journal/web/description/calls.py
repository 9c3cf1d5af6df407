"""What each call takes and tells: a line a call, for the description of the service (openapi.py).

The rule: what is said here of a query or a header is what its handler reads it with, and what is said of an answer is
what the tests compare each answer with (tests/conforming.py).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from journal.config import Limits
from journal.errors import (
    AtomExists,
    AtomGone,
    BaseRequired,
    CannotExpect,
    ClientForgotten,
    ConflictErased,
    ConflictSettled,
    HeadTooLarge,
    InvalidRequest,
    JournalNotFound,
    LineTooLong,
    MethodNotAllowed,
    Misdirected,
    NotAcceptable,
    NotApplied,
    NotFound,
    PushReused,
    PushTooOld,
    RangeImpossible,
    RateLimited,
    RequestError,
    ResyncRequired,
    TooLarge,
    TooSlow,
    UnsupportedMedia,
)
from journal.service.answer import MEDIA
from journal.web import parameters as read
from journal.web.description import described as told
from journal.web.health import NotReady
from journal.web.parameters import Query, Read, Schema
from journal.web.queries import NOTHING, Queries
from journal.web.routing import J
from journal.wire import (
    AtomAnswer,
    AuditAnswer,
    CallerAnswer,
    ClientAnswer,
    ClientsAnswer,
    CollectionAnswer,
    CollectionRequest,
    CollectionsAnswer,
    CompactRequest,
    ConflictAnswer,
    ConflictsAnswer,
    CursorAnswer,
    DigestAnswer,
    EraseAnswer,
    EraseRequest,
    HeadAnswer,
    HistoryAnswer,
    JournalsAnswer,
    LookupRequest,
    ManifestAnswer,
    OperationAnswer,
    OperationsAnswer,
    PushAnswer,
    PushRequest,
    RestoredRequest,
    ResyncRequest,
    RevisionAnswer,
    ServerAnswer,
    ServerRequest,
    SettleAnswer,
    SettleRequest,
    StatsAnswer,
    SyncRequest,
    TicketAnswer,
)

Struct = type[msgspec.Struct]
EVENTS, PROBLEM = "text/event-stream", "application/problem+json"


class Lines(NamedTuple):
    """A body of lines: the first, each, and the last, which says that it is whole."""

    first: Struct
    each: Struct
    last: Struct


class Events(NamedTuple):
    """A body of server-sent events: what each is told as, by its name."""

    data: Mapping[str, Struct]


class Told(NamedTuple):
    """An answer: its body in each of its forms, and which headers it always has."""

    forms: Mapping[str, Struct | Lines | Events | Schema] = {}
    headers: tuple[str, ...] = ()


class Call(NamedTuple):
    """What a route takes and tells besides what all do. `id`: the schema of the path's last parameter."""

    group: str
    answers: Mapping[int, Told]
    query: Query = NOTHING
    body: Struct | None = None
    errors: tuple[type[RequestError], ...] = ()
    headers: tuple[str, ...] = ()
    id: Schema | None = None
    reads_query: bool = True


def one(shape: Struct, *headers: str) -> Told:
    """An answer in JSON."""
    return Told({MEDIA["json"]: shape}, headers)


EMPTY = Told()
TAGGED = ("ETag", "Cache-Control", "Vary")
SAME = Told(headers=TAGGED)
_UUID: Schema = {"type": "string", "format": "uuid"}
_NUMBER: Schema = {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"}
_SNAPSHOT: Schema = {"type": "string", "pattern": "^[0-9a-f]{12}-[0-9]{1,16}-[0-9a-f]{16}-[0-9a-f]{16}$"}
_FILE: Schema = {"type": "string", "pattern": "^[a-z]+\\.(html|css|js|svg)$"}
_TEXT: Schema = {"type": "string"}
_DELTAS: dict[str, Struct | Lines | Events | Schema] = {
    MEDIA["json"]: told.DeltasAnswer,
    MEDIA["ndjson"]: Lines(told.DeltasFirst, told.DeltaAnswer, told.DeltasLast),
    MEDIA["msgpack"]: told.DeltasAnswer,
}
_CHANGES: dict[str, Struct | Lines | Events | Schema] = {
    MEDIA["json"]: told.ChangesAnswer,
    MEDIA["msgpack"]: told.ChangesAnswer,
}
_SNAPSHOT_LINES = Told(
    {MEDIA["ndjson"]: Lines(told.SnapshotFirst, told.SnapshotAtom, told.SnapshotLast)},
    (*TAGGED, "Accept-Ranges", "Journal-Revision"),
)
_PART = Told({MEDIA["ndjson"]: _TEXT}, (*_SNAPSHOT_LINES.headers, "Content-Range"))
_STREAM = Told({EVENTS: Events({
    "deltas": told.DeltasAnswer, "bookmark": told.Bookmark, "resync": told.ResyncProblem, "auth": told.AuthEvent,
})}, ("Cache-Control",))  # fmt: skip
_BEGUN = {
    200: one(OperationAnswer, "Location", "Cache-Control"),
    202: one(OperationAnswer, "Location", "Cache-Control"),
}
_PUSHED = (BaseRequired, NotApplied, PushTooOld, ClientForgotten, ResyncRequired, PushReused)
_SETTLED = (NotFound, ConflictSettled, ConflictErased, AtomGone, AtomExists, NotApplied)


def calls(limits: Limits) -> dict[tuple[str, str], Call]:
    """Each route's method and path, and its call."""
    queries = Queries(limits)
    return {
        ("GET", "/v1"): Call("Journals", {200: one(told.AboutAnswer)}),
        ("GET", "/v1/caller"): Call("Journals", {200: one(CallerAnswer, "Cache-Control")}),
        ("GET", "/v1/journals"): Call("Journals", {200: one(JournalsAnswer)}, queries.journals),
        ("PUT", J): Call("Journals", {200: one(HeadAnswer), 201: one(HeadAnswer)}),
        ("DELETE", J): Call("Journals", {204: EMPTY}),
        ("GET", J): Call("Journals", {200: one(HeadAnswer, *TAGGED), 304: SAME}, headers=("If-None-Match",)),
        ("GET", f"{J}/collections"): Call("Journals", {200: one(CollectionsAnswer)}),
        ("PUT", f"{J}/collections"): Call("Journals", {200: one(CollectionAnswer)}, body=CollectionRequest),
        ("GET", f"{J}/deltas"): Call(
            "Reading", {200: Told(_DELTAS, TAGGED), 304: SAME}, queries.deltas,
            errors=(NotAcceptable, ClientForgotten, ResyncRequired), headers=("Accept", "If-None-Match"),
        ),
        ("GET", f"{J}/cursor"): Call("Reading", {200: one(CursorAnswer)}, queries.cursor, errors=(ResyncRequired,)),
        ("GET", f"{J}/changes"): Call(
            "Reading", {200: Told(_CHANGES, TAGGED), 304: SAME}, queries.changes,
            errors=(NotAcceptable, ResyncRequired), headers=("Accept", "If-None-Match"),
        ),
        ("GET", f"{J}/stream"): Call(
            "Reading", {200: _STREAM}, queries.stream, errors=(ClientForgotten,), headers=("Last-Event-ID",)
        ),
        ("POST", f"{J}/stream-tickets"): Call("Reading", {201: one(TicketAnswer, "Cache-Control")}),
        ("GET", f"{J}/snapshot"): Call(
            "Reading", {303: Told(headers=("Location", "Cache-Control", "Journal-Revision"))}, queries.snapshot
        ),
        ("GET", f"{J}/snapshots/{{id}}"): Call(
            "Reading", {200: _SNAPSHOT_LINES, 206: _PART, 304: SAME}, queries.snapshot, id=_SNAPSHOT,
            errors=(NotFound, RangeImpossible), headers=("Range", "If-Range", "If-None-Match"),
        ),
        ("GET", f"{J}/atom"): Call(
            "Reading", {200: one(AtomAnswer, *TAGGED), 304: SAME}, queries.atom,
            errors=(NotFound, ResyncRequired), headers=("If-None-Match",),
        ),
        ("GET", f"{J}/atom/history"): Call(
            "Reading", {200: one(HistoryAnswer, *TAGGED), 304: SAME}, queries.history,
            errors=(NotFound, ResyncRequired), headers=("If-None-Match",),
        ),
        ("GET", f"{J}/digest"): Call(
            "Verifying", {200: one(DigestAnswer, *TAGGED), 304: SAME}, queries.digest, headers=("If-None-Match",)
        ),
        ("GET", f"{J}/manifest"): Call(
            "Verifying", {200: one(ManifestAnswer, *TAGGED), 304: SAME}, queries.manifest, headers=("If-None-Match",)
        ),
        ("POST", f"{J}/lookup"): Call("Verifying", {200: one(told.LookupAnswer, *TAGGED)}, body=LookupRequest),
        ("POST", f"{J}/changes"): Call(
            "Writing", {200: one(PushAnswer)}, body=PushRequest, errors=_PUSHED, headers=("Idempotency-Key",)
        ),
        ("POST", f"{J}/sync"): Call(
            "Writing", {200: one(told.SyncAnswer, "Cache-Control")}, body=SyncRequest,
            errors=_PUSHED, headers=("Idempotency-Key",),
        ),
        ("GET", f"{J}/conflicts"): Call("Conflicts", {200: one(ConflictsAnswer)}, queries.conflicts),
        ("GET", f"{J}/conflicts/{{id}}"): Call("Conflicts", {200: one(ConflictAnswer)}, id=_NUMBER, errors=(NotFound,)),
        ("POST", f"{J}/conflicts/{{id}}"): Call(
            "Conflicts", {200: one(SettleAnswer)}, body=SettleRequest, id=_NUMBER, errors=_SETTLED
        ),
        ("POST", f"{J}/resync"): Call("Operating", {200: one(RevisionAnswer)}, body=ResyncRequest, headers=("From",)),
        ("POST", f"{J}/restored"): Call("Operating", {200: one(HeadAnswer)}, body=RestoredRequest, headers=("From",)),
        ("POST", f"{J}/compact"): Call("Operating", _BEGUN, body=CompactRequest, headers=("Prefer", "From")),
        ("POST", f"{J}/check"): Call("Operating", _BEGUN, headers=("Prefer", "From")),
        ("POST", f"{J}/erase"): Call(
            "Operating", {200: one(EraseAnswer)}, body=EraseRequest, errors=(NotFound,), headers=("From",)
        ),
        ("GET", f"{J}/clients"): Call("Operating", {200: one(ClientsAnswer)}, queries.clients),
        ("GET", f"{J}/clients/{{id}}"): Call("Operating", {200: one(ClientAnswer)}, id=_UUID, errors=(NotFound,)),
        ("DELETE", f"{J}/clients/{{id}}"): Call("Operating", {204: EMPTY}, id=_UUID, errors=(NotFound,)),
        ("GET", f"{J}/operations"): Call("Operating", {200: one(OperationsAnswer)}),
        ("GET", f"{J}/operations/{{id}}"): Call("Operating", {200: one(OperationAnswer)}, id=_UUID, errors=(NotFound,)),
        ("GET", f"{J}/audit"): Call("Operating", {200: one(AuditAnswer)}, queries.audit),
        ("GET", f"{J}/stats"): Call("Operating", {200: one(StatsAnswer)}),
        ("GET", "/v1/server"): Call("Operating", {200: one(ServerAnswer)}),
        ("PUT", "/v1/server"): Call("Operating", {200: one(ServerAnswer)}, body=ServerRequest),
        ("GET", "/metrics"): Call(
            "Watching",
            {200: Told(dict.fromkeys(("text/plain", "application/openmetrics-text"), _TEXT), ("Cache-Control",))},
            headers=("Accept",),
        ),
        ("GET", "/healthz"): Call("Watching", {200: one(told.Health, "Cache-Control")}, reads_query=False),
        ("GET", "/readyz"): Call(
            "Watching", {200: one(told.Health, "Cache-Control")}, errors=(NotReady,), reads_query=False
        ),
        ("GET", "/openapi.json"): _page({MEDIA["json"]: {"type": "object"}}),
        ("GET", "/docs"): _page({"text/html": _TEXT}),
        ("GET", "/console"): _page({"text/html": _TEXT}),
        ("GET", "/console/{file}"): _page(
            dict.fromkeys(("text/html", "text/css", "text/javascript", "image/svg+xml"), _TEXT),
            id=_FILE, errors=(NotFound,),
        ),
    }  # fmt: skip


def _page(forms: Mapping[str, Schema], **more: Any) -> Call:
    """A file, which takes no notice of its query."""
    return Call("Pages", {200: Told(forms, TAGGED), 304: SAME}, headers=("If-None-Match",), reads_query=False, **more)


ALWAYS = (InvalidRequest,)  # of what reads its query
OF_A_JOURNAL = (JournalNotFound,)
WITH_A_BODY = (TooLarge, UnsupportedMedia, TooSlow)
ANYWHERE = (Misdirected, RateLimited, LineTooLong, HeadTooLarge, CannotExpect)  # before a route is looked at
NEVER_TOLD = (MethodNotAllowed,)  # it is of no call, but of a method that a path does not know

SHAPES: dict[type[RequestError], Struct] = {
    InvalidRequest: told.FaultsProblem,
    TooLarge: told.FaultsProblem,
    NotApplied: told.OutcomesProblem,
    ClientForgotten: told.OutcomesProblem,
    PushTooOld: told.HighestProblem,
    ConflictSettled: told.SettledProblem,
    ResyncRequired: told.ResyncProblem,
    NotReady: told.NotReadyProblem,
}


class Header(NamedTuple):
    """A header: what it may say, and what for."""

    schema: Schema
    said: str


REQUEST_HEADERS: dict[str, tuple[Read, str]] = {
    "Accept": (read.text, "Which form the answer has: application/json unless said."),
    "From": (read.text, "Who operates; it goes into the audit log."),
    "Idempotency-Key": (read.key, "What a push that is not numbered is told from others by, for a day."),
    "If-None-Match": (read.text, "The `ETag` of what is at hand: 304 where that is still so."),
    "If-Range": (read.text, "The `ETag` that the range is of; the whole comes where it is another."),
    "Last-Event-ID": (read.since, "Where to go on; goes before `since`."),
    "Prefer": (read.text, "`wait=N`: up to so many seconds, at most 60, for the end of what is begun."),
    "Range": (read.text, "`bytes=A-B`: a part."),
}

TOLD_HEADERS: dict[str, Header] = {
    "Accept-Ranges": Header({"const": "bytes"}, "Parts can be asked for."),
    "Allow": Header(_TEXT, "The methods that the path knows."),
    "Cache-Control": Header(_TEXT, "How long the answer may be kept, and by whom."),
    "Content-Range": Header({"type": "string", "pattern": "^bytes ([0-9]+-[0-9]+|\\*)/[0-9]+$"}, "Which part it is."),
    "ETag": Header({"type": "string", "pattern": '^"[^"]+"$'}, "Identifies the bytes, in their coding."),
    "Journal-Revision": Header({"type": "integer", "minimum": 0}, "The revision of the snapshot."),
    "Location": Header({"type": "string", "format": "uri-reference"}, "Where to go on."),
    "Retry-After": Header({"type": "integer", "minimum": 0}, "After how many seconds to come back."),
    "Vary": Header(_TEXT, "Which headers of the request it depends on."),
    "X-Request-Id": Header({"type": "string", "pattern": "^[!-~]{1,128}$"}, "The request's id, echoed or made."),
}
