"""Query strings, Idempotency-Key and Prefer: against the URL standard's reading, and the schemas that are told."""

import re
from typing import Any
from urllib.parse import quote_plus, unquote_to_bytes

from journal.config import Limits
from journal.core.names import journal_ok
from journal.errors import InvalidRequest
from journal.web import parameters, recovery
from journal.web.parameters import Query
from journal.web.queries import Queries
from tests.conforming import is_valid_by
from tests.fuzz.target import Target, text_of
from tests.unit.test_names import is_writable

QUERIES = Queries(Limits())
KNOWN: list[Query] = [
    QUERIES.deltas, QUERIES.changes, Queries.journals, Queries.cursor, Queries.stream, Queries.atom, Queries.history,
    Queries.manifest, Queries.conflicts,
]  # fmt: skip
MEMBERS = {"collection": 128, "atom": 255}
PREFER = re.compile(r"(?:^|.*,)[ \t\n\r\f\v]*wait[ \t]*=[ \t]*([0-9]{1,6})[ \t]*(?:,.*|$)", re.S)


def check(data: bytes) -> None:
    """The first byte chooses the call; what is taken is what two other readers make of it."""
    if not data:
        return
    query, text = KNOWN[data[0] % len(KNOWN)], text_of(data[1:])
    pairs = by_the_standard(text)
    try:
        found: dict[str, Any] | None = query.read(text)
    except InvalidRequest as error:
        found = None
        assert error.errors
    good = pairs is not None and all_good(pairs, query)
    if found is None:
        assert not good, f"refused: {pairs}"
        return
    assert good, f"taken: {pairs}"
    assert pairs is not None
    again = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in reversed(pairs))
    assert query.read(again) == found
    assert found.keys() == dict(pairs).keys() | query.default.keys()
    of_headers(text)


def all_good(pairs: list[tuple[str, str]], query: Query) -> bool:
    given = dict(pairs)
    if len(given) < len(pairs) or not given.keys() <= query.known.keys() or not given.keys() >= set(query.required):
        return False
    return all(is_good(name, value, query) for name, value in pairs)


def is_good(name: str, value: str, query: Query) -> bool:
    """By the schema that the document tells, and the bytes of names, which it cannot count."""
    schema = query.known[name].schema
    match schema.get("type"):
        case "integer":
            said: Any = int(value) if re.fullmatch("[0-9]{1,16}", value) else value
        case "number":
            said = (
                float(value)
                if re.fullmatch(r"(?=.)([0-9]*\.?[0-9]*)", value) and len(value) < 17 and value != "."
                else value
            )
        case "array":
            said = value.split(",")
            if name == "collections":
                return all(is_writable(one, 128) for one in said) and is_valid_by(schema, said)
        case _:
            said = value
    if name == "since" or (name == "at" and "pattern" in schema):
        try:
            query.known[name](value)  # cursors have a fuzzer of their own
        except InvalidRequest:
            return False
        return True
    if name == "after" and query is Queries.journals:
        return journal_ok(value)
    return is_valid_by(schema, said) and (name not in MEMBERS or is_writable(value, MEMBERS[name]))


def by_the_standard(text: str) -> list[tuple[str, str]] | None:
    """As application/x-www-form-urlencoded is read (URL, section 5.1); None where it is not UTF-8, or far too much."""
    found = []
    try:
        parts = text.encode().split(b"&")
    except UnicodeEncodeError:
        return None
    for part in parts:
        if not part:
            continue
        name, _, value = (unquote_to_bytes(piece) for piece in part.replace(b"+", b" ").partition(b"="))
        try:
            found.append((name.decode(), value.decode()))
        except UnicodeDecodeError:
            return None
    return found if text.count("&") < 64 else None


def of_headers(text: str) -> None:
    """Idempotency-Key and Prefer."""
    is_key = 1 <= len(text) <= 255 and all(" " <= mark <= "~" for mark in text)
    try:
        assert parameters.key(text) == text
        assert is_key
    except InvalidRequest:
        assert not is_key
    waited = recovery.waits(text)
    match = PREFER.match(text)
    assert (waited is None) == (match is None), (waited, match)


TARGET = Target(
    "queries",
    check,
    [
        b"\0since=5f1c09ab33d2%3A2149%3A9f86d081884c7d65&limit=10&collections=a,b&wait=0.5&include=meta%2Crevisions",
        b"\0since=0&client=6f1c0000-0000-4000-8000-000000000001&format=ndjson&until=7",
        b"\5collection=todo&atom=caf%C3%A9+1&at=7",
        b"\7prefix=a3&of=content&after=" + b"0" * 64,
        b"\x08state=all&after=1&limit=1000",
        b"\0since=0&wait=60&respond-async, wait=5, x",
    ],
    [b"since=", b"limit=", b"collections=", b"wait=", b"include=", b"meta", b"revisions", b"client=", b"format=",
     b"collection=", b"atom=", b"prefix=", b"of=", b"state=", b"&", b"=", b"%2C", b"%00", b"%ff", b"%C3%A9", b"+", b";",
     b"9007199254740992", b"1_0", b".", "٣".encode(), b"\xff", b"{6f1c0000-0000-4000-8000-000000000001}", b"urn:uuid:",
     b"wait=5", b", ", b"\n"],
)  # fmt: skip
