"""What journals, collections and atoms may be called (protocol, section 2).

Pure. A length is in UTF-8 bytes; a control character is one of Unicode's category Cc; a lone surrogate
has no bytes and is in no name.
"""

import re

JOURNAL_BYTES = 63
COLLECTION_BYTES = 128
ATOM_BYTES = 255

JOURNAL = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{JOURNAL_BYTES - 1}}}").fullmatch
COLLECTION = re.compile(rf"[^,\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{COLLECTION_BYTES}}}").fullmatch
ATOM = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{ATOM_BYTES}}}").fullmatch


def journal_ok(name: str) -> bool:
    """1–63 of `a-z 0-9 _ -`, a letter or digit first."""
    return JOURNAL(name) is not None


def collection_ok(name: str) -> bool:
    """1–128 bytes, no comma and no control character: a list of collections is written with commas."""
    return COLLECTION(name) is not None and (name.isascii() or len(name.encode()) <= COLLECTION_BYTES)


def atom_ok(name: str) -> bool:
    """1–255 bytes, anything but control characters."""
    return ATOM(name) is not None and (name.isascii() or len(name.encode()) <= ATOM_BYTES)
