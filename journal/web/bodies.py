"""Request bodies: read strictly, every fault told with a pointer, nothing guessed."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, Raw, UnsetType

from journal.config import Limits
from journal.core import ijson
from journal.core.cursor import Cursor, parse, parse_since
from journal.core.model import PushChange, on_one_line
from journal.core.names import atom_ok, collection_ok
from journal.errors import Fault, InvalidRequest, TooLarge, UnsupportedMedia
from journal.faults import faults
from journal.service.group import Asked
from journal.service.rounds import Page, page
from journal.service.sync import SyncAsked
from journal.web.receiving import received
from journal.wire import ChangeRequest, LookupRequest, PushRequest, SyncRequest

_push = msgspec.json.Decoder(PushRequest).decode
_sync = msgspec.json.Decoder(SyncRequest).decode
_sorted = msgspec.json.Encoder(order="sorted").encode
_loose = msgspec.json.Decoder().decode
_1970, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
LONGEST_MS = 1e15  # older than that is no older: it is far beyond any record


async def body(request: web.Request, limits: Limits) -> bytes:
    """The body's bytes; UnsupportedMedia where they are not said to be JSON."""
    if request.headers.get("Content-Type") != "application/json" and not _is_json(request):
        raise UnsupportedMedia("send it as Content-Type: application/json")
    return await received(request, limits)


def _is_json(request: web.Request) -> bool:
    return request.content_type == "application/json" and (request.charset or "utf-8").lower() in ("utf-8", "utf8")


def push(text: bytes, limits: Limits, journal: str, key: str | None) -> Asked:
    """A push, ready to be decided."""
    _check(text, limits)
    try:
        asked = _push(text)
    except msgspec.ValidationError as error:
        raise _wrong(text, PushRequest, error, _besides(text)) from None
    return _asked(asked, limits, journal, key, len(text))


def sync(text: bytes, limits: Limits, journal: str, key: str | None) -> SyncAsked:
    """A sync: the push, where there is anything to decide or a base to judge, and what is to be told after it."""
    _check(text, limits)
    try:
        asked = _sync(text)
    except msgspec.ValidationError as error:
        raise _wrong(text, SyncRequest, error, _besides_of_sync(text, limits)) from None
    get = None if asked.get is UNSET else asked.get
    if get is not None:
        _count(get, limits)
    found, _ = _page(asked, None if asked.client is UNSET else str(asked.client), limits)
    names = [] if asked.collections is UNSET else asked.collections
    if found is None or not all(map(collection_ok, names)) or not _are_names(get or {}):
        raise _wrong(text, SyncRequest, None, _besides_of_sync(text, limits))
    is_push = bool(asked.changes) or asked.push is not UNSET or asked.base is not UNSET or key is not None
    _base_by_default(asked)
    pushed = _asked(asked, limits, journal, key, len(text))
    pushed.page = found
    return SyncAsked(pushed if is_push else None, found, get)


def _asked(asked: PushRequest, limits: Limits, journal: str, key: str | None, size: int) -> Asked:
    """A push of the right shape, once the rest of it is found good."""
    if len(asked.changes) > limits.changes:
        raise TooLarge([Fault("/changes", f"{len(asked.changes)} changes", limits.changes)])
    base, wrong = _base(asked)
    wrong += [fault for place, change in enumerate(asked.changes) for fault in _of_change(place, change, asked)]
    if wrong:
        raise InvalidRequest(ijson.first_of(wrong))
    number = None if asked.push is UNSET else asked.push
    key = None if number is not None else key
    return Asked(
        journal=journal,
        changes=[_change(change, base) for change in asked.changes],
        on_conflict=asked.on_conflict,
        is_atomic=asked.atomic,
        client=None if asked.client is UNSET else asked.client,
        number=number,
        key=key,
        base=base,
        sent=None if asked.now is UNSET else _microseconds(asked.now),
        size=size,
        content=b"" if number is None and key is None else content_hash(asked.changes),
    )


Shape = TypeVar("Shape", bound=msgspec.Struct)


def of_shape(text: bytes, limits: Limits, shape: type[Shape]) -> Shape:
    """A body that is seldom sent: looked at slowly, and told all that is wrong with it."""
    _check(text, limits)
    if wrong := faults(json.loads(text), shape):
        raise InvalidRequest(wrong)
    return msgspec.json.decode(text, type=shape)


def content_hash(changes: list[ChangeRequest]) -> bytes:
    """What a push says, whatever order its members came in: op, collection, atom, data and unset of its changes."""
    said = [
        (
            change.op,
            change.collection,
            change.atom,
            None if change.data is UNSET else _loose(change.data),
            None if change.unset is UNSET else change.unset,
        )
        for change in changes
    ]
    return sha256(_sorted(said)).digest()


def _check(text: bytes, limits: Limits) -> None:
    wrong = ijson.check(text, depth=limits.nesting)
    if wrong:
        raise InvalidRequest(wrong)


def _wrong(
    text: bytes,
    shape: type[msgspec.Struct],
    error: msgspec.ValidationError | None,
    besides: Iterable[Fault] = (),
) -> InvalidRequest:
    """All that is wrong with a body, found by a second and slower look."""
    found = faults(json.loads(text), shape)
    told = {fault.pointer for fault in found}
    found += [fault for fault in besides if fault.pointer not in told]
    return InvalidRequest(ijson.first_of(found) or [Fault("", str(error))])


class _Parts(msgspec.Struct):
    """A push of which only the outer shape is looked at."""

    changes: list[Raw] = []
    client: Raw | UnsetType = UNSET
    push: Raw | UnsetType = UNSET
    base: str | UnsetType = UNSET


def _besides(text: bytes) -> Iterator[Fault]:
    """What is wrong with those parts of a push that are of their types, where others are not."""
    with contextlib.suppress(msgspec.ValidationError):
        yield from _of_parts(msgspec.json.decode(text, type=_Parts))


def _of_parts(parts: _Parts) -> Iterator[Fault]:
    yield from _base(parts)[1]
    for place, part in enumerate(parts.changes):
        with contextlib.suppress(msgspec.ValidationError):
            yield from _of_change(place, msgspec.json.decode(part, type=ChangeRequest), parts)


class _SyncParts(_Parts):
    """Likewise of a sync."""

    since: int | str | UnsetType = UNSET
    limit: int = 1
    collections: Raw | UnsetType = UNSET


def _besides_of_sync(text: bytes, limits: Limits) -> Iterator[Fault]:
    """The same of a sync."""
    try:
        parts = msgspec.json.decode(text, type=_SyncParts)
    except msgspec.ValidationError:
        return
    client = None
    with contextlib.suppress(msgspec.ValidationError):
        client = None if parts.client is UNSET else str(msgspec.json.decode(parts.client, type=UUID))
    yield from _page(parts, client, limits)[1]
    is_default = _base_by_default(parts)
    yield from (fault for fault in _of_parts(parts) if not (is_default and fault.pointer == "/base"))


def _page(asked: SyncRequest | _SyncParts, client: str | None, limits: Limits) -> tuple[Page | None, list[Fault]]:
    """What a sync is told after its push; None, and what is wrong, where it cannot be."""
    wrong: list[Fault] = []
    if asked.limit > limits.deltas:
        wrong.append(Fault("/limit", f"must be at most {limits.deltas}", limits.deltas))
    if asked.since is UNSET:
        return None, wrong
    collections = asked.collections if isinstance(asked.collections, list) else None
    try:
        since = asked.since if isinstance(asked.since, int) else parse_since(asked.since)
        found = page(
            since,
            collections=None if collections is None else frozenset(collections),
            client=client,
            limit=asked.limit,
        )
        if found.until is not None:
            raise InvalidRequest([Fault("/since", "the cursor is of a round to a fixed end: …/deltas goes on with it")])
    except InvalidRequest as error:
        return None, wrong + list(error.errors)
    return None if wrong else found, wrong


def _base_by_default(asked: SyncRequest | _SyncParts) -> bool:
    """Let a sync's cursor be the base, where it names none and has one."""
    is_default = asked.base is UNSET and isinstance(asked.since, str) and not asked.since.isdigit()
    if is_default and isinstance(asked.since, str):
        asked.base = asked.since
    return is_default


def _base(asked: PushRequest | _Parts) -> tuple[Cursor | None, list[Fault]]:
    """A push's base, and what is wrong with it and with who pushes."""
    wrong = []
    if asked.push is not UNSET and asked.client is UNSET:
        wrong.append(Fault("/client", "a push that bears a number names its client"))
    try:
        base = None if asked.base is UNSET else parse(asked.base, parameter="base")
    except InvalidRequest as error:
        return None, wrong + list(error.errors)
    return base, wrong


def _change(change: ChangeRequest, base: Cursor | None) -> PushChange:
    own: int | None = None if change.base is UNSET else change.base
    if own is None and base is not None and (base.collections is None or change.collection in base.collections):
        own = base.round_base
    return PushChange(
        op=change.op,
        collection=change.collection,
        atom=change.atom,
        data=None if change.data is UNSET else on_one_line(bytes(change.data)),
        unset=() if change.unset is UNSET else tuple(change.unset),
        base=own,
        if_data=UNSET if change.if_data is UNSET else _or_none(bytes(change.if_data)),
        age=None if change.age_ms is UNSET else round(min(change.age_ms, LONGEST_MS) * 1000),
        changed_at=None if change.changed_at is UNSET else _microseconds(change.changed_at),
    )


def _microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _1970) // _MICROSECOND


def _or_none(text: bytes) -> bytes | None:
    return None if text == b"null" else text


def _of_change(place: int, change: ChangeRequest, asked: PushRequest | _Parts) -> Iterator[Fault]:
    """What msgspec has no word for: names, objects, and which members go with which op."""
    at = f"/changes/{place}"
    if not collection_ok(change.collection):
        yield Fault(f"{at}/collection", "must be 1–128 bytes, no comma or control character", 128)
    if not atom_ok(change.atom):
        yield Fault(f"{at}/atom", "must be 1–255 bytes, no control character", 255)
    has_data, has_unset = change.data is not UNSET, change.unset is not UNSET
    if change.data is not UNSET and not bytes(change.data).startswith(b"{"):
        yield Fault(f"{at}/data", "must be a JSON object")
    if change.if_data is not UNSET and bytes(change.if_data)[:1] not in (b"{", b"n"):
        yield Fault(f"{at}/if_data", "must be a JSON object or null")
    match change.op:
        case "insert" | "put":
            if not has_data:
                yield Fault(f"{at}/data", "missing: the whole data of the atom")
            if has_unset:
                yield Fault(f"{at}/unset", "goes with an update only")
        case "update":
            if not has_data and not has_unset:
                yield Fault(at, "an update has data, unset or both")
        case "delete":
            if has_data:
                yield Fault(f"{at}/data", "a delete has no data")
            if has_unset:
                yield Fault(f"{at}/unset", "goes with an update only")
    if change.base is not UNSET and asked.base is UNSET:
        yield Fault(f"{at}/base", "is a revision of the history of the push's base, and there is none")


_lookup = msgspec.json.Decoder(LookupRequest).decode


def lookup(text: bytes, limits: Limits) -> dict[str, list[str]]:
    """The atoms that are asked for, by collection."""
    _check(text, limits)
    try:
        asked = _lookup(text).get
    except msgspec.ValidationError as error:
        raise _wrong(text, LookupRequest, error) from None
    _count(asked, limits)
    if not _are_names(asked):
        raise _wrong(text, LookupRequest, None)
    return asked


def _count(asked: dict[str, list[str]], limits: Limits) -> None:
    count = sum(map(len, asked.values()))
    if count > limits.lookup_atoms:
        raise TooLarge([Fault("/get", f"{count} atoms", limits.lookup_atoms)])


def _are_names(asked: dict[str, list[str]]) -> bool:
    return all(map(collection_ok, asked)) and all(all(map(atom_ok, names)) for names in asked.values())
