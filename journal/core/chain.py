"""The chain: a running SHA-256 over the commits, so that two histories that agree at a revision prove it.

    chain' = SHA-256(chain ‖ part…)    a part is its length in 4 bytes, big end first, and its bytes

A change's parts are its revision (8 bytes), its op (1 byte), collection, atom, the number of names it unsets
(4 bytes), each of them, and the SHA-256 of its data as stored (empty without data). The hash of the data and not
the data itself, so that a person's data can be blanked and the chain still proves the rest.
A commit without an atom has its revision for its only part.
"""

from collections.abc import Iterable
from hashlib import sha256

from journal.core.model import Change

START = bytes(32)


def extend(chain: bytes, changes: Iterable[Change]) -> bytes:
    """The chain after a commit of `changes`."""
    return sha256(b"".join((chain, *map(_parts, changes)))).digest()


def extend_bare(chain: bytes, revision: int) -> bytes:
    """The chain after a commit that has a revision and no atom."""
    return sha256(chain + b"\0\0\0\x08" + revision.to_bytes(8, "big")).digest()


def told(chain: bytes) -> str:
    """What clients are told of a chain: its first 8 bytes, in hex."""
    return chain[:8].hex()


def _parts(change: Change) -> bytes:
    collection, atom = change.collection.encode(), change.atom.encode()
    unset = b"".join(len(name).to_bytes(4, "big") + name for name in map(str.encode, change.unset))
    return b"".join(
        (
            b"\0\0\0\x08",
            change.revision.to_bytes(8, "big"),
            b"\0\0\0\x01",
            change.op.to_bytes(1, "big"),
            len(collection).to_bytes(4, "big"),
            collection,
            len(atom).to_bytes(4, "big"),
            atom,
            b"\0\0\0\x04",
            len(change.unset).to_bytes(4, "big"),
            unset,
            b"\0\0\0\0" if change.data is None else b"\0\0\0\x20" + sha256(change.data).digest(),
        )
    )
