"""Digests: the XOR of 64-bit leaves, the same in any order, 0 for none.

It finds faults, not forgeries (Bellare & Micciancio 1997, on incremental hashing). A leaf is of an atom's revision
or of its data; an atom's place says where among all others it stands, whatever becomes of it.
"""

import json
import re
from hashlib import sha256

import msgspec
import rfc8785

# The canonical form (RFC 8785) of strings without control characters and of integers below 2^53 is what
# msgspec writes: test_digest.py holds the two against each other.
_canonical = msgspec.json.Encoder().encode


def leaf(collection: str, atom: str, revision: int) -> int:
    """The revision leaf of a live atom: the first 8 bytes of SHA-256 over canonical [collection, atom, revision]."""
    return int.from_bytes(sha256(_canonical((collection, atom, revision))).digest()[:8], "big")


def content_leaf(collection: str, atom: str, data: bytes) -> int:
    """The content leaf: the same over canonical [collection, atom, data]; `data` is JSON text, however spelled."""
    hashed = sha256(_canonical((collection, atom))[:-1] + b"," + canonical(data) + b"]")
    return int.from_bytes(hashed.digest()[:8], "big")


def place(collection: str, atom: str) -> bytes:
    """An atom's place: the SHA-256 of canonical [collection, atom]."""
    return sha256(_canonical((collection, atom))).digest()


def canonical(text: bytes) -> bytes:
    """JSON text in its canonical form (RFC 8785), where a number is the double it stands for."""
    quick = _sorted(_decode(text))
    if _NOT_AS_DOUBLES(quick) or (_BEYOND_16_BITS(quick) and _ABOVE_SURROGATES(quick)):
        return rfc8785.dumps(_as_doubles(text.decode()))
    return quick


# msgspec is sixteen times as fast, and writes the same but for numbers that are doubles of whole numbers, have an
# exponent or 16 digits, and but for the order of names by code points where UTF-16 has another: test_digest.py.
_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode
_as_doubles = json.JSONDecoder(parse_int=float).decode
_NOT_AS_DOUBLES = re.compile(rb"[0-9](?:\.0[,}\]]|\.0$|[eE][-+]?[0-9])|[0-9]{16}").search
_BEYOND_16_BITS = re.compile(rb"[\xf0-\xf4]").search
_ABOVE_SURROGATES = re.compile(rb"[\xee\xef]").search


def told(digest: int) -> str:
    """A digest as clients are told it: 16 hex digits."""
    return f"{digest:016x}"


def to_bigint(digest: int) -> int:
    """The same 64 bits as PostgreSQL's bigint keeps them."""
    return digest - (1 << 64) if digest >> 63 else digest


def from_bigint(stored: int) -> int:
    """The inverse of `to_bigint`."""
    return stored & 0xFFFF_FFFF_FFFF_FFFF
