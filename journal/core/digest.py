"""Digests: the XOR of 64-bit leaves, the same in any order, 0 for none.

It finds faults, not forgeries (Bellare & Micciancio 1997, on incremental hashing).
"""

from hashlib import sha256

import msgspec

# The canonical form (RFC 8785) of strings without control characters and of integers below 2^53 is what
# msgspec writes: test_digest.py holds the two against each other.
_canonical = msgspec.json.Encoder().encode


def leaf(collection: str, atom: str, revision: int) -> int:
    """The revision leaf of a live atom: the first 8 bytes of SHA-256 over canonical [collection, atom, revision]."""
    return int.from_bytes(sha256(_canonical((collection, atom, revision))).digest()[:8], "big")


def told(digest: int) -> str:
    """A digest as clients are told it: 16 hex digits."""
    return f"{digest:016x}"


def to_bigint(digest: int) -> int:
    """The same 64 bits as PostgreSQL's bigint keeps them."""
    return digest - (1 << 64) if digest >> 63 else digest


def from_bigint(stored: int) -> int:
    """The inverse of `to_bigint`."""
    return stored & 0xFFFF_FFFF_FFFF_FFFF
