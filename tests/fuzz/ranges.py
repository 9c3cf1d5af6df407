"""Range, If-Range and If-None-Match: against RFC 9110, sections 13 and 14, by another regular expression."""

import re
from types import SimpleNamespace
from typing import Any

from multidict import CIMultiDict

from journal.errors import RangeImpossible
from journal.web import send
from tests.fuzz.target import Target, text_of

TAG = '"0123456789abcdef-zstd"'
ONE = re.compile(r"[bB][yY][tT][eE][sS][ \t]*=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")
NEITHER = re.compile(r"bytes[ \t]*=[ \t]*-", re.I)  # from nowhere to nowhere: invalid as well
ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\U0010ffff]*")')


def check(data: bytes) -> None:
    """The first byte is the size; then Range, If-Range and If-None-Match, each to its NUL."""
    size = data[0] if data else 0
    asked, condition, known, *_ = [*text_of(data[1:]).split("\0"), "", "", ""]
    is_conditional = data[:1] > b"\x80"
    of_range(asked, condition if is_conditional else None, size)
    of_tags(known)


def of_range(asked: str, condition: str | None, size: int) -> None:
    headers = {"Range": asked} | ({} if condition is None else {"If-Range": condition})
    request: Any = SimpleNamespace(method="GET", headers=CIMultiDict(headers))
    told: tuple[int, int] | str | None
    try:
        told = send._range(request, TAG, size)
    except RangeImpossible as error:
        told = "impossible"
        assert error.headers()["Content-Range"] == f"bytes */{size}"

    meant = None if condition not in (None, TAG) else by_the_letter(asked, size)
    if told is None:  # a server may always tell the whole; ours does where a place has more than 18 digits
        assert meant is None or re.search("[0-9]{19}", asked), meant
    elif told == "impossible":
        assert meant == "impossible" or is_backward(asked) or re.fullmatch(NEITHER, asked.strip(" \t")), meant
    else:
        assert told == meant


def by_the_letter(asked: str, size: int) -> tuple[int, int] | str | None:
    match = ONE.fullmatch(asked.strip(" \t"))
    if match is None or is_backward(asked):
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix[-19:])), size
        start = 0 if len(suffix.lstrip("0")) > 18 else start
        return (start, end) if start < end else "impossible"
    if len(first.lstrip("0")) > 18 or int(first) >= size:
        return "impossible"
    return int(first), size if not last or len(last.lstrip("0")) > 18 else min(size, int(last) + 1)


def is_backward(asked: str) -> bool:
    """From a later byte to an earlier one: invalid, and may be ignored or refused."""
    match = ONE.fullmatch(asked.strip(" \t"))
    if match is None or match[1] is None or not match[2]:
        return False
    first, last = match[1].lstrip("0"), match[2].lstrip("0")
    return (len(first), first) > (len(last), last)


def of_tags(known: str) -> None:
    request: Any = SimpleNamespace(headers=CIMultiDict({"If-None-Match": known}))
    told = send.matches(request, TAG)
    meant = listed(known)
    if meant is not None:  # what is no list of tags may be taken for anything, but by an exception
        assert told == ("*" in meant or TAG in meant)


def listed(known: str) -> set[str] | None:
    """The tags of a list by the grammar; None where it is none."""
    rest = known.strip(" \t")
    if rest == "*":
        return {"*"}
    found = set()
    while rest:
        if rest.startswith(","):
            rest = rest[1:].lstrip(" \t")
            continue
        match = ENTITY_TAG.match(rest)
        if match is None:
            return None
        found.add(match[2])
        rest = rest[match.end() :].lstrip(" \t")
        if rest and not rest.startswith(","):
            return None
    return found


TARGET = Target(
    "ranges",
    check,
    [
        b"\x64bytes=0-49\0\0" + TAG.encode(),
        b"\x64bytes=50-\0\0*",
        b"\xf0bytes=-10\0" + TAG.encode() + b'\0W/"a", ' + TAG.encode(),
        b'\xf0bytes=1-2,5-6\0"b"\0',
        b"\x00bytes=0-\0\0",
    ],
    [b"bytes=", b"Bytes=", b"-", b"0", b"999999999999999999", b"9999999999999999999", b" ", b"\t", b",", b"\0", b"*",
     b"W/", b'"', TAG.encode(), "٣".encode(), b"\x80", b"=", b"items=", b"_"],
)  # fmt: skip
