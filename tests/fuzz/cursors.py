"""Cursors, as `since`, `at`, a push's `base` and Last-Event-ID: against the grammar, written down once more."""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from journal.core.cursor import LARGEST, Cursor, parse, parse_since
from journal.errors import InvalidRequest
from tests.fuzz.target import Target, text_of
from tests.unit.test_names import is_writable

HEX, DECIMAL = "0123456789abcdef", "0123456789"
CLIENT = re.compile("-".join(f"[{HEX}]{{{count}}}" for count in (8, 4, 4, 4, 12)))


class Known(NamedTuple):
    """A cursor, by the letter of the protocol (3.2)."""

    epoch: str
    revision: int
    chain: str
    collections: frozenset[str] | None
    base: int | None
    until: int | None
    client: str | None


def check(data: bytes) -> None:
    """A cursor is taken or refused as the grammar says, and comes back from its text."""
    text = text_of(data)
    known = by_the_letter(text)

    try:
        cursor: Cursor | None = parse(text, parameter="base")
    except InvalidRequest as error:
        cursor = None
        assert [fault.pointer for fault in error.errors] == ["/base"]

    if cursor is None:
        assert known is None, f"refused: {known}"
    else:
        assert known is not None, f"taken: {cursor!r}"
        assert known == tuple(getattr(cursor, name) for name in Known._fields)
        assert parse(str(cursor), parameter="base") == cursor
    of_since(text, cursor)


def of_since(text: str, cursor: Cursor | None) -> None:
    """`since` is a cursor too, or a number without a sign or a zero before it."""
    revision = number(text)
    try:
        since: Cursor | int | None = parse_since(text)
    except InvalidRequest:
        since = None
    assert since == (cursor if revision is None else revision)


def number(text: str) -> int | None:
    if not text or set(text) - set(DECIMAL) or (text[0] == "0" and text != "0"):
        return None
    return int(text) if len(text) < 20 and int(text) <= LARGEST else None


def by_the_letter(text: str) -> Known | None:
    epoch, _, rest = text.partition(":")
    revision_text, _, rest = rest.partition(":")
    chain, colon, rest = rest.partition(":")
    revision = number(revision_text)
    if len(epoch) != 12 or len(chain) != 16 or set(epoch + chain) - set(HEX) or revision is None:
        return None
    members: dict[str, str] = {}
    for part in rest.split(":") if colon else []:
        name, equals, value = part.partition("=")
        if not equals or name in members or name not in ("collections", "base", "until", "client"):
            return None
        members[name] = value
    base, until, client = (members.get(name) for name in ("base", "until", "client"))
    if base is None and (until is not None or client is not None):
        return None
    if client is not None and not CLIENT.fullmatch(client):
        return None
    limits = [None if value is None else number(value) for value in (base, until)]
    if any(value is not None and limit is None for value, limit in zip((base, until), limits, strict=True)):
        return None
    if limits[0] is not None and not limits[0] <= revision <= (LARGEST if limits[1] is None else limits[1]):
        return None
    names = None if "collections" not in members else named(members["collections"])
    if "collections" in members and names is None:
        return None
    return Known(epoch, revision, chain, names, limits[0], limits[1], client)


def named(text: str) -> frozenset[str] | None:
    if not text:
        return frozenset()
    found = set()
    for quoted in text.split(","):
        try:
            name = unquote_to_bytes(quoted).decode()
        except UnicodeError:
            return None
        if "," in name or not is_writable(name, 128):
            return None
        found.add(name)
    return frozenset(found)


TARGET = Target(
    "cursors",
    check,
    [
        b"5f1c09ab33d2:2149:9f86d081884c7d65",
        b"5f1c09ab33d2:0:0000000000000000:collections=a,b%2C%3A",
        b"5f1c09ab33d2:2149:9f86d081884c7d65:collections=:base=7:until=4000:client=6f1c0000-0000-4000-8000-000000000001",
        b"2149",
        b"9007199254740991",
        "5f1c09ab33d2:1:9f86d081884c7d65:collections=é,%c3%a9".encode(),
    ],
    [b":", b"=", b",", b"%2C", b"%00", b"%C3%A9", b"%ff", b"collections=", b"base=", b"until=", b"client=", b"0",
     b"9007199254740991", b"9007199254740992", b"\n", b"\xff", "٣".encode(), b":base=0", b":collections="],
)  # fmt: skip
