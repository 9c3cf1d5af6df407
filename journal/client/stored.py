"""What the columns of the replica's file hold, as it is worked with: JSON as bytes, names as tuples, patches."""

import sqlite3

import msgspec

from journal.client.change import Patch
from journal.core.model import PushOp

_decode = msgspec.json.Decoder(tuple[str, ...]).decode
_encode = msgspec.json.Encoder().encode


def as_bytes(text: str | None) -> bytes | None:
    """JSON, of JSON as it is stored."""
    return None if text is None else text.encode()


def as_text(data: bytes | None) -> str | None:
    """The inverse."""
    return None if data is None else data.decode()


def patch(op: PushOp, data: str | None, unset: str) -> Patch:
    """A patch, of the three columns that it is stored in."""
    return Patch(op, as_bytes(data), _decode(unset))


def columns(patch: Patch) -> tuple[PushOp, str | None, str]:
    """The inverse."""
    return patch.op, as_text(patch.data), _encode(patch.unset).decode()


def in_base(db: sqlite3.Connection, collection: str, atom: str) -> tuple[int, str] | None:
    """Revision and data of an atom, as the server last said it; None where it does not live."""
    row: tuple[int, str] | None = db.execute(
        "select b.revision, b.data from collection c join base b on b.generation = c.generation and b.atom = ?"
        " where c.name = ?",
        (atom, collection),
    ).fetchone()
    return row
