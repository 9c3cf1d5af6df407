"""Cursors: where a client stands, as text that it keeps and gives back.

    EPOCH:REVISION:CHAIN[:collections=a,b][:base=N][:until=N][:client=ID]

The three parts are a cursor on their own. `base`, and with it `until` and `client`, is there only while a round
of pages is unfinished. Names are percent-encoded, so that none of the separators can occur in them.
"""

import re
from urllib.parse import quote, unquote

import msgspec

from journal.core.names import collection_ok
from journal.errors import Fault, InvalidRequest

LARGEST = 2**53 - 1
_THREE = re.compile(r"([0-9a-f]{12}):(0|[1-9][0-9]{0,15}):([0-9a-f]{16})(?::(.+))?", re.S)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_CLIENT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Cursor(msgspec.Struct, frozen=True):
    """`collections` None covers all of them; `base` None: no round is unfinished."""

    epoch: str
    revision: int
    chain: str
    collections: frozenset[str] | None = None
    base: int | None = None
    until: int | None = None
    client: str | None = None

    def __str__(self) -> str:
        text = f"{self.epoch}:{self.revision}:{self.chain}"
        if self.collections is not None:
            text += ":collections=" + ",".join(quote(name, safe="") for name in sorted(self.collections))
        if self.base is not None:
            text += f":base={self.base}"
        if self.until is not None:
            text += f":until={self.until}"
        if self.client is not None:
            text += f":client={self.client}"
        return text

    @property
    def round_base(self) -> int:
        """The revision that the data at hand was whole at."""
        return self.revision if self.base is None else self.base


def parse(text: str, *, parameter: str) -> Cursor:
    """The cursor that `text` is; InvalidRequest names the `parameter` where it is none."""
    match = _THREE.fullmatch(text)
    if match is None or int(match[2]) > LARGEST:
        raise _no_cursor(parameter)
    cursor = Cursor(match[1], int(match[2]), match[3])
    return cursor if match[4] is None else _with_members(cursor, match[4], parameter)


def parse_since(text: str, *, parameter: str = "since") -> Cursor | int:
    """A cursor, or the number that a bare revision is."""
    if _NUMBER.fullmatch(text):
        revision = int(text)
        if revision > LARGEST:
            raise InvalidRequest([Fault(f"/{parameter}", "a revision stays below 2^53", LARGEST)])
        return revision
    return parse(text, parameter=parameter)


def _with_members(cursor: Cursor, text: str, parameter: str) -> Cursor:
    parts = [part.partition("=") for part in text.split(":")]
    members = {name: value for name, equals, value in parts if equals}
    if not members.keys() <= {"collections", "base", "until", "client"} or len(members) != len(parts):
        raise _no_cursor(parameter)
    numbers = {name: members[name] for name in ("base", "until") if name in members}
    if any(not _NUMBER.fullmatch(number) for number in numbers.values()):
        raise _no_cursor(parameter)
    base, until = (int(numbers[name]) if name in numbers else None for name in ("base", "until"))
    client = members.get("client")
    is_ordered = base is None or base <= cursor.revision <= (LARGEST if until is None else until) <= LARGEST
    if not is_ordered or (base is None and (until is not None or client is not None)):
        raise _no_cursor(parameter)
    if client is not None and not _CLIENT.fullmatch(client):
        raise _no_cursor(parameter)
    names = members.get("collections")
    collections = None if names is None else _names(names)
    if collections is not None and not all(map(collection_ok, collections)):
        raise _no_cursor(parameter)
    return msgspec.structs.replace(cursor, collections=collections, base=base, until=until, client=client)


def _names(text: str) -> frozenset[str]:
    """Of no text there are none; what is not UTF-8 comes out as no name."""
    return frozenset(unquote(name, errors="surrogateescape") for name in text.split(",")) if text else frozenset()


def _no_cursor(parameter: str) -> InvalidRequest:
    return InvalidRequest(
        [Fault(f"/{parameter}", "not a cursor: EPOCH:REVISION:CHAIN is expected, as an answer gave it")]
    )
