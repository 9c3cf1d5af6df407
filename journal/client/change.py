"""Changes that were made here: how they are seen, put together, and known to the server.

Pure. The one rule (docs/properties.md, P9 and P9a): a change says what it was made on, and is never said to have been
made on more than that.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Raw

from journal.core.consolidate import Effect, patched, then
from journal.core.equal import same
from journal.core.model import Op, PushOp, decode_fields

Status = Literal["applied", "merged", "unchanged", "conflict", "rejected", "not_applied", "forgotten"]
FAILED = frozenset(("conflict", "rejected", "not_applied"))


class Patch(msgspec.Struct, frozen=True):
    """What is done to an atom: the whole `data` of an insert or put, the fields that an update sets and unsets."""

    op: PushOp
    data: bytes | None = None
    unset: tuple[str, ...] = ()


class Made(msgspec.Struct, frozen=True):
    """A change that the cursor has not passed. `current`: what the answer said stands, where it said so."""

    seq: int
    patch: Patch
    made_on: bytes | None
    status: Status | None = None
    has_current: bool = False
    current: bytes | None = None


def over(data: bytes | None, patch: Patch, made_on: bytes | None) -> bytes | None:
    """`data` (None: no atom) after a change; an update of what is gone is shown on what it was made on."""
    match patch.op:
        case "insert" | "put":
            return patch.data
        case "delete":
            return None
        case "update":
            return patched(data if data is not None else made_on or b"{}", patch.data, patch.unset)


def seen(base: bytes | None, changes: Iterable[Made]) -> bytes | None:
    """What stands at the cursor with the changes put over it, in their order: what an application sees."""
    data = base
    for change in changes:
        data = change.current if change.has_current else over(data, change.patch, change.made_on)
    return data


def collapsed(first: Patch, made_on: bytes | None, second: Patch) -> Patch | None:
    """Two changes of an atom, nothing between them, as one; None where they come to nothing.

    `made_on`: what the first was made on. An insert or put that was deleted again never happened if nothing was
    there before it; what was deleted and inserted again is put.
    """
    before = Effect(_OPS[first.op], first.data, first.unset)
    match first.op, second.op:
        case (("insert" | "put"), "delete") if made_on is None:
            return None
        case "delete", _:
            return second if made_on is None else Patch("put", second.data)
        case _, ("put" | "delete"):
            op: PushOp = first.op if second.op == "put" and first.op == "insert" else second.op
            return Patch(op, second.data)
    after = then(before, Effect(Op.UPDATE, second.data, second.unset))
    assert after is not None
    return Patch(first.op, after.data, after.unset)


_OPS: dict[PushOp, Op] = {"insert": Op.INSERT, "put": Op.REPLACE, "update": Op.UPDATE, "delete": Op.DELETE}


def says_nothing(data: bytes | None, patch: Patch) -> bool:
    """Whether a change would leave an atom as it is."""
    if patch.op == "delete":
        return data is None
    after = over(data, patch, data)
    return data is not None and after is not None and same(data, after)


def is_known_there(patch: Patch, made_on: bytes | None, current: bytes | None) -> bool:
    """Whether a change that was made on `made_on` may be said to have been made on `current`.

    For an update that is so if the fields it touches are the same there; for the rest, if all is.
    """
    if made_on is None or current is None:
        return made_on is current
    if patch.op != "update":
        return same(made_on, current)
    mine, theirs = decode_fields(made_on), decode_fields(current)
    touched = [*patch.unset, *(decode_fields(patch.data) if patch.data is not None else ())]
    return all(_same_field(mine.get(name), theirs.get(name)) for name in touched)


def _same_field(mine: Raw | None, theirs: Raw | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return same(bytes(mine), bytes(theirs))
