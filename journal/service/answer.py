"""Answers: what is said, in the form that was asked for, and how long it may be kept.

An answer is either whole bytes or, where it is large, made piece by piece from what was spooled. JSON, its stream of
lines and MessagePack say the same.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from journal.core.consolidate import Delta
from journal.service.spool import Spool
from journal.wire import Members

Form = Literal["json", "ndjson", "msgpack"]
MEDIA: dict[Form, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "msgpack": "application/msgpack",
}
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"
NEVER = "no-store"

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_unpack_json = msgspec.json.Decoder().decode


class Answer(msgspec.Struct, eq=False):
    """`body` whole, or None and `pieces` of it. `tag` identifies the representation; "": it is told but once.

    `coded` is for who sends it to keep what an answer that is sent often needs be made only once for, by coding.
    """

    media: str
    body: bytes | None
    tag: str
    cache: str = REVALIDATE
    pieces: Iterator[bytes] | None = None
    spools: tuple[Spool, ...] = ()
    coded: dict[str, Any] = {}
    is_empty: bool = False
    who_asks_matters: bool = False  # something came to nothing, which one client may have to be told
    cursor: str = ""  # to go on from

    def close(self) -> None:
        """Let go of what was not sent."""
        for spool in self.spools:
            spool.close()


def whole(
    body: bytes, *, form: Form = "json", cache: str = REVALIDATE, is_empty: bool = False, cursor: str = ""
) -> Answer:
    """An answer of bytes, identified by their hash."""
    tag = sha256(body).hexdigest()[:24]
    return Answer(MEDIA[form], body, tag, cache, coded={}, is_empty=is_empty, cursor=cursor)


def of_deltas(members: Members, deltas: list[Delta], form: Form) -> Answer:
    """An answer that memory gave."""
    if form == "ndjson":
        first, last = _ends(members)
        return whole(
            b"\n".join([first, *map(_encode, deltas), last, b""]),
            form=form,
            is_empty=not deltas,
            cursor=_cursor(members),
        )
    body = _encode(members)[:-1] + b',"deltas":' + _encode(deltas) + b"}"
    packed = body if form == "json" else _packed(body)
    return whole(packed, form=form, is_empty=not deltas, cursor=_cursor(members))


def of_spool(members: Members, spool: Spool, form: Form, *, key: str, name: str = "deltas") -> Answer:
    """An answer that PostgreSQL gave, `key` standing for everything that it depends on."""
    spool.finish()
    pieces = {"json": _json, "ndjson": _ndjson, "msgpack": _msgpack}[form](members, spool, name)
    if spool.is_small:
        with spool:
            return whole(b"".join(pieces), form=form, is_empty=not spool.lines, cursor=_cursor(members))
    tag = sha256(key.encode()).hexdigest()[:24]
    return Answer(MEDIA[form], None, tag, pieces=pieces, spools=(spool,), cursor=_cursor(members))


def _cursor(members: Members) -> str:
    return "" if members.cursor is UNSET else members.cursor


def _json(members: Members, spool: Spool, name: str) -> Iterator[bytes]:
    yield _encode(members)[:-1] + b',"' + name.encode() + b'":['
    left = spool.size - 1  # all but the last newline
    for chunk in spool.chunks():
        yield chunk[:left].replace(b"\n", b",\n")  # text of JSON has no newline in itself
        left -= len(chunk)
    yield b"]}"


def _ndjson(members: Members, spool: Spool, name: str) -> Iterator[bytes]:
    first, last = _ends(members)
    yield first + b"\n"
    yield from spool.chunks()
    yield last + b"\n"


def _msgpack(members: Members, spool: Spool, name: str) -> Iterator[bytes]:
    known = msgspec.to_builtins(members)
    yield bytes([0x80 | len(known) + 1])  # fixmap: there are fewer than 15 members
    for member, value in known.items():
        yield _pack(member) + _pack(value)
    yield _pack(name) + b"\xdd" + spool.lines.to_bytes(4, "big")
    for lines in spool.whole_lines():
        yield b"".join(_packed(line) for line in lines.splitlines())


def _packed(text: bytes) -> bytes:
    return _pack(_as_doubles(_unpack_json(text)))


def _as_doubles(value: object) -> object:
    """Integers that MessagePack has no room for as the doubles that they are."""
    match value:
        case dict():
            return {name: _as_doubles(member) for name, member in value.items()}
        case list():
            return [_as_doubles(member) for member in value]
        case int() if not -(2**63) <= value < 2**64:
            return float(value)
    return value


def _ends(members: Members) -> tuple[bytes, bytes]:
    """The first line: what is known at the start; and the last."""
    first = Members(members.epoch, members.since, head=members.head, horizon=members.horizon)
    rest = {
        name: value for name in ("until", "more", "cursor", "digest") if (value := getattr(members, name)) is not UNSET
    }
    return _encode(first), _encode({"end": True} | rest)
