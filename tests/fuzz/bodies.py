"""I-JSON and the bodies of requests: against Python's json with every rule as a hook, and against the JSON Schemas."""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import msgspec

from journal.config import Limits
from journal.core import ijson
from journal.errors import Fault, InvalidRequest, TooLarge
from journal.web import bodies
from journal.web.description.described import BESIDES
from journal.wire import (
    CollectionRequest,
    CompactRequest,
    EraseRequest,
    LookupRequest,
    PushRequest,
    RestoredRequest,
    ResyncRequest,
    ServerRequest,
    SettleRequest,
    SyncRequest,
)
from tests.conforming import is_valid
from tests.fuzz.target import Target
from tests.unit.test_names import is_writable

LIMITS = Limits(changes=5, nesting=8, lookup_atoms=5)
SHAPES: list[type[msgspec.Struct]] = [
    CollectionRequest, CompactRequest, EraseRequest, LookupRequest, ResyncRequest, RestoredRequest, ServerRequest,
    SettleRequest,
]  # fmt: skip


class Refused(Exception):
    """By the oracle."""


def of_json(data: bytes) -> None:
    """A body is taken exactly if it is JSON that every reader understands alike; each fault points into it."""
    faults = ijson.check(data, depth=LIMITS.nesting)
    try:
        value = read(data)
    except Refused:
        assert faults, "taken"
    else:
        assert not faults, faults
        assert msgspec.json.decode(data) == value
    assert_told(faults)


def of_requests(data: bytes) -> None:
    """The first byte chooses the call; what is taken is valid by its schema, and what is not is told why."""
    if not data:
        return
    kind, text = data[0] % (len(SHAPES) + 3), data[1:]
    shape: type[msgspec.Struct]
    parse: Callable[[], object]
    match kind:
        case 0:
            shape, parse = PushRequest, lambda: bodies.push(text, LIMITS, "j", None)
        case 1:
            shape, parse = SyncRequest, lambda: bodies.sync(text, LIMITS, "j", "key")
        case 2:
            shape, parse = LookupRequest, lambda: bodies.lookup(text, LIMITS)
        case _:
            shape = SHAPES[kind - 3]
            parse = lambda: bodies.of_shape(text, LIMITS, shape)  # noqa: E731
    try:
        parse()
    except (InvalidRequest, TooLarge) as error:
        assert error.errors
        assert_told(error.errors)
        if kind > 2 and not isinstance(error, TooLarge):
            assert not is_sound(text, shape), error.errors
        return
    if kind < 3 or shape not in BESIDES:  # which members go with which, the routes judge
        assert is_sound(text, shape), "taken"


def is_sound(text: bytes, shape: type[msgspec.Struct]) -> bool:
    """Whether it is I-JSON, valid by the schema, and its names have no more bytes than they may."""
    try:
        value = read(text)
    except Refused:
        return False
    return is_valid(shape, as_written(value)) and names_fit(value)


def as_written(value: Any) -> Any:
    """To a schema 1.0 is an integer, and here it is none: what has a point is made a fraction for good."""
    match value:
        case float():
            return math.nextafter(value, 0.0) or 5e-324
        case list():
            return [as_written(part) for part in value]
        case dict():
            return {name: as_written(part) for name, part in value.items()}
    return value


def names_fit(value: Any) -> bool:
    """What a schema has no word for, of a body that is valid by it."""
    named = [value, *value.get("changes", [])]
    atoms = [one["atom"] for one in named if "atom" in one]
    collections = [one["collection"] for one in named if "collection" in one] + list(value.get("collections", []))
    for collection, names in value.get("get", {}).items():
        collections.append(collection)
        atoms += names
    return all(is_writable(name, 255) for name in atoms) and all(is_writable(name, 128) for name in collections)


def assert_told(faults: Any) -> None:
    """Faults can be sent, and point somewhere."""
    assert len(faults) <= ijson.MOST_FAULTS
    for fault in msgspec.json.decode(msgspec.json.encode(faults), type=list[Fault]):
        assert fault.detail
        assert re.fullmatch(r"(/([^~/]|~[01])*)*", fault.pointer, re.S), fault


def read(body: bytes) -> Any:
    """The value, by Python's own reader; Refused where anything about it is not I-JSON."""
    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=once, parse_int=exact, parse_float=exact, parse_constant=never)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise Refused from None
    if text.startswith("\ufeff"):
        raise Refused
    kept(value, LIMITS.nesting)
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Refused
    return dict(pairs)


def exact(text: str) -> int | float:
    double = float(text)
    digits = re.sub(r"[eE].*", "", text).replace(".", "").lstrip("-0")
    if double == 0 and not digits:
        return 0 if text == "0" or text == "-0" else double
    exponent = re.search(r"[eE]([-+]?[0-9]+)", text)
    if exponent is not None and len(exponent[1]) > 6:
        raise Refused
    with localcontext(prec=100_000, Emax=10**9, Emin=-(10**9)) as _:
        if abs(double) == float("inf") or Decimal(text) not in (Decimal(double), Decimal(repr(double))):
            raise Refused
    return int(text) if re.fullmatch("-?[0-9]+", text) else double


def never(text: str) -> Any:
    raise Refused


def kept(value: Any, depth: int) -> None:
    match value:
        case str() if "\0" in value or any("\ud800" <= mark <= "\udfff" for mark in value):
            raise Refused
        case list() | dict():
            if depth == 0:
                raise Refused
            for part in value:
                kept(part, depth - 1)
            for part in value.values() if isinstance(value, dict) else ():
                kept(part, depth - 1)


_WORDS = [
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\u0000", b"\\ud800", b"\\u00e9", b"null", b"true", b"-0.0", b"1e400",
    b"9007199254740993", b"9007199254740992", b"0.1", b"NaN", b'"a":', b"\xef\xbb\xbf", b"\xff", "é".encode(),
    b'"changes":[', b'"op":"insert"', b'"op":"update"', b'"op":"put"', b'"op":"delete"', b'"collection":"c"',
    b'"atom":"a"', b'"data":{}', b'"unset":[]', b'"base":', b'"if_data":null', b'"age_ms":', b'"changed_at":',
    b'"2026-11-21T09:00:00.000Z"', b'"client":', b'"6f1c0000-0000-4000-8000-000000000001"', b'"push":', b'"since":',
    b'"5f1c09ab33d2:2149:77aa000000000000"', b'"limit":', b'"collections":["c"]', b'"get":{"c":["a"]}',
    b'"on_conflict":"both"', b'"atomic":true', b'"now":', b'"policy":', b'"keep":"both"', b'"reason":"x"',
    b'"spread_s":', b'"keep_days":', b'"force":true', b'"system":"1"', b'"timeline":1', b'"revision":',
]  # fmt: skip
_PUSH = (
    b'{"client":"6f1c0000-0000-4000-8000-000000000001","push":17,"base":"5f1c09ab33d2:2149:77aa000000000000",'
    b'"on_conflict":"newest","atomic":false,"now":"2026-11-21T09:00:00.000Z","changes":['
    b'{"op":"insert","collection":"todo","atom":"f426","data":{"title":"rings"}},'
    b'{"op":"update","collection":"todo","atom":"86c6","data":{"cost":210},"unset":["note"],"base":2101,"age_ms":1.5},'
    b'{"op":"put","collection":"todo","atom":"2858","data":{},"if_data":null,"changed_at":"2026-11-21T09:00:00+01:00"},'
    b'{"op":"delete","collection":"todo","atom":"759f"}]}'
)
_SYNC = (
    b'{"since":"5f1c09ab33d2:2149:77aa000000000000:collections=c:base=1","limit":10,'
    b'"collections":["c"],"get":{"c":["a"]}}'
)
JSON = Target(
    "json",
    of_json,
    [_PUSH, b'{"a":[1,2.5,-0.0,1e300,{"b":"\\u00e9\\\\","":null}],"c":"\\ud83d\\ude00"}', b'[[[[[[[[1]]]]]]]]',
     b" 9007199254740992 ", b'{"a":1,"a":2}', b"[0.1000000000000000055511151231257827021181583404541015625]"],
    _WORDS,
)  # fmt: skip
REQUESTS = Target(
    "requests",
    of_requests,
    [b"\0" + _PUSH, b"\1" + _SYNC, b'\1{"since":0,"changes":[{"op":"insert","collection":"c","atom":"a","data":{}}]}',
     b'\2{"get":{"todo":["a","b"]}}',
     *(bytes([3 + place]) + body for place, body in enumerate([
         b'{"collection":"c","policy":"merge"}', b'{"keep_revisions":7,"keep_days":0.5,"dry_run":true,"force":false}',
         b'{"collection":"c","atom":"a"}', b'{"get":{"c":["a"]}}',
         b'{"reason":"x","client":"6f1c0000-0000-4000-8000-000000000001","collections":["c"],"spread_s":60}',
         b'{"revision":4294967296,"spread_s":1}', b'{"system":"1","timeline":1}', b'{"keep":"both","atom":"a"}']))],
    _WORDS,
)  # fmt: skip
