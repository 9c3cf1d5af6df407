"""The chain: a running SHA-256 over the commits, so that two histories that agree at a revision prove it.

    chain' = SHA-256(chain ‖ part…)    a part is its length in 4 bytes, big end first, and its bytes

A change's parts are its revision (8 bytes), its op (1 byte), collection, atom, the number of names it unsets
(4 bytes), each of them, and the SHA-256 of its data as stored (empty without data). The hash of the data and not
the data itself, so that a person's data can be blanked and the chain still proves the rest.
A commit without an atom has its revision for its only part; one that begins an epoch has the epoch (6 bytes) besides.
"""

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct

from journal.core.model import Change

START = bytes(32)


def extend(chain: bytes, changes: Iterable[Change]) -> bytes:
    """The chain after a commit of `changes`."""
    return sha256(b"".join((chain, *map(_parts, changes)))).digest()


def extend_bare(chain: bytes, revision: int) -> bytes:
    """The chain after a commit that has a revision and no atom."""
    return sha256(chain + b"\0\0\0\x08" + revision.to_bytes(8, "big")).digest()


def begin(chain: bytes, epoch: bytes, revision: int) -> bytes:
    """The chain after the commit that begins an epoch."""
    return sha256(chain + b"\0\0\0\x08" + revision.to_bytes(8, "big") + b"\0\0\0\x06" + epoch).digest()


def told(chain: bytes) -> str:
    """What clients are told of a chain: its first 8 bytes, in hex."""
    return chain[:8].hex()


_HEAD = Struct(">IQIBI").pack  # revision, op, and how long the collection's name is
_LENGTH = Struct(">I").pack
_COUNT = Struct(">II").pack  # how many names are unset


def _parts(change: Change) -> bytes:
    collection, atom = change.collection.encode(), change.atom.encode()
    hashed = change.erased if change.data is None else sha256(change.data).digest()
    unset = b"".join(_LENGTH(len(name)) + name for name in map(str.encode, change.unset))
    return b"".join(
        (
            _HEAD(8, change.revision, 1, change.op, len(collection)),
            collection,
            _LENGTH(len(atom)),
            atom,
            _COUNT(4, len(change.unset)),
            unset,
            b"\0\0\0\0" if hashed is None else b"\0\0\0\x20" + hashed,
        )
    )
