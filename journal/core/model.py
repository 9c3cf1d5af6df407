"""The nouns: changes, the state of an atom, a push and its outcomes.

Data stays JSON text (bytes) wherever it is only carried; it is taken apart into fields (name → JSON text
of the value) only where fields are merged or compared.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

type_of_fields = dict[str, Raw]
decode_fields = msgspec.json.Decoder(type_of_fields).decode
encode_fields = msgspec.json.Encoder().encode

_LINE_ENDS_AS_BLANKS = bytes.maketrans(b"\n\r", b"  ")


def on_one_line(text: bytes) -> bytes:
    """JSON text without line ends, which mean nothing there: what is recorded is told as lines (test_deltas.py)."""
    return text.translate(_LINE_ENDS_AS_BLANKS)


Key = tuple[str, str]
"""A collection's name and an atom's: what names an atom in a journal."""

Policy = Literal["server", "merge", "client", "newest", "both"]
PushOp = Literal["insert", "update", "put", "delete"]
Keep = Literal["server", "client", "both"]
Status = Literal["applied", "merged", "conflict", "unchanged", "rejected"]


class Op(IntEnum):
    """What a recorded change does; the numbers are those of journal.change.op."""

    INSERT = 1
    UPDATE = 2
    REPLACE = 3
    DELETE = 4


OP_NAMES = {Op.INSERT: "insert", Op.UPDATE: "update", Op.REPLACE: "replace", Op.DELETE: "delete"}


class Change(msgspec.Struct, frozen=True, gc=False):
    """A recorded change. `data` is JSON text as it was sent; None for a delete and for an update that only unsets.

    `erased` is the SHA-256 of data that was blanked since, because it was a person's.
    """

    revision: int
    op: Op
    collection: str
    atom: str
    data: bytes | None = None
    unset: tuple[str, ...] = ()
    prev: int = 0
    client: int | None = None
    erased: bytes | None = None


class AtomState(msgspec.Struct, frozen=True):
    """What an atom's changes add up to; `data` is None once it is deleted.

    `born`: the first revision that the name ever had. `born_by`: who inserted it then; None: nobody who named
    itself; 0: several have. `created`: the insert or replace that began the present data. `fields`: the revision
    at which each field was last set or unset, in the order of those revisions.
    """

    born: int
    born_by: int | None
    created: int
    revision: int
    data: bytes | None
    fields: dict[str, int]


class PushChange(msgspec.Struct, frozen=True):
    """One change as a client asks for it. `base` is what the sender knows the atom at, None: it did not say.

    When it was made, as far as its sender says: `age`, how long before it was sent, or `changed_at`, the moment by the
    sender's clock. Both in microseconds, moments since 1970.
    """

    op: PushOp
    collection: str
    atom: str
    data: bytes | None = None
    unset: tuple[str, ...] = ()
    base: int | None = None
    if_data: bytes | UnsetType | None = UNSET
    age: int | None = None
    changed_at: int | None = None


class Push(msgspec.Struct, frozen=True):
    """What is decided at once and becomes one commit; `client` is the journal's number for the sender.

    `sent`: when it was sent by the sender's clock, None: it did not say. `arrived`: when it came in by the server's.
    Microseconds since 1970. `writes`: the collections that the sender may write, None: all.
    """

    changes: Sequence[PushChange]
    on_conflict: Policy = "server"
    is_atomic: bool = False
    client: int | None = None
    sent: int | None = None
    arrived: int = 0
    writes: frozenset[str] | None = None


class Current(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What stands: an atom's revision and data. `erased`: that was blanked since, in what is told again."""

    revision: int
    data: Raw
    erased: bool = False


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """Why a change is not even judged."""

    code: Literal["set_and_unset", "atom_too_large", "forbidden"]
    detail: str


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of one change of a push (protocol, section 5)."""

    status: Status
    revision: int | UnsetType | None = UNSET
    current: Current | UnsetType | None = UNSET
    error: Rejection | UnsetType = UNSET
    kept: str | UnsetType = UNSET


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """A change that is kept for a person to settle: its number, its place in the push, and what stood instead."""

    id: int
    place: int
    change: PushChange
    stood: Current | None
