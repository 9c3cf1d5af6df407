"""Events: what a stream sends, as the HTML standard has server-sent events (section 9.2; protocol, section 9)."""

import random
from collections.abc import Iterator
from typing import Literal

import msgspec

from journal.core.cursor import Cursor, parse
from journal.errors import ResyncRequired
from journal.service.answer import Answer

RETRY_S = (1.0, 3.0)
RESYNC_RETRY_S = 5.0

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True, eq=False):
    """An event's bytes, the same object for all who are told the same; `cursor` is its id."""

    data: bytes
    cursor: Cursor


def deltas(answer: Answer) -> Event:
    """An answer that is whole. It has newlines between deltas at most."""
    assert answer.body is not None
    event: Event | None = answer.coded.get("event")
    if event is None:
        event = Event(_event("deltas", answer.body, cursor=answer.cursor), end(answer))
        answer.coded["event"] = event
    return event


def pieces(answer: Answer) -> Iterator[bytes]:
    """An answer that may be a large one, piece by piece."""
    if answer.pieces is None:
        yield deltas(answer).data
        return
    yield b"event: deltas\nid: " + answer.cursor.encode() + b"\ndata: "
    for piece in answer.pieces:
        yield piece.replace(b"\n", b"\ndata: ")
    yield b"\n\n"


def end(answer: Answer) -> Cursor:
    """The cursor that an answer ends at."""
    return parse(answer.cursor, parameter="since")


def bookmark(answer: Answer) -> Event:
    """That nothing was missed until the answer's cursor."""
    at = end(answer)
    return Event(_event("bookmark", _encode({"revision": at.revision}), cursor=answer.cursor), at)


def resync(error: ResyncRequired) -> bytes:
    """That the stream leads nowhere, and when to come back if nobody listens to that."""
    longest = max(float(error.retry_after), RESYNC_RETRY_S)
    return _event("resync", _encode(error.problem())) + retry(longest, 1.5 * longest)


def auth(reason: Literal["expires", "expired", "revoked"], *, in_s: int | None = None) -> bytes:
    """That the caller's token ends soon, or has ended: who wants to go on brings another."""
    return _event("auth", _encode({"reason": reason} | ({} if in_s is None else {"in_s": in_s})))


def retry(least_s: float = RETRY_S[0], most_s: float = RETRY_S[1]) -> bytes:
    """After how long to connect again, so that not all do at once."""
    return b"retry: %d\n\n" % round(1000 * random.uniform(least_s, most_s))  # noqa: S311


def _event(name: str, data: bytes, *, cursor: str = "") -> bytes:
    id_ = b"id: " + cursor.encode() + b"\n" if cursor else b""
    return b"event: " + name.encode() + b"\n" + id_ + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"
