"""Strict reading of requests: I-JSON (RFC 7493), or every reason why not.

Pure. What passes `check` means the same to every reader of JSON: no name twice in an object, no number that a
double would round, no text that UTF-8 or PostgreSQL cannot hold, no nesting that exhausts a stack. Noncharacters
(U+FFFE …) are let through although RFC 7493 frowns on them: they are kept as they are.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from journal.core.pointer import SURROGATE, Path, pointer
from journal.errors import Fault as Fault  # told here, known everywhere

MOST_FAULTS = 1000
MOST_TEXT = 1 << 20  # a long name above many faults would otherwise be repeated in each pointer


def check(body: bytes, *, depth: int) -> list[Fault]:
    """[] when `body` is acceptable, else every fault in it (the first thousand, or the first megabyte of them).

    A container in `depth` others is too deep; `depth` is far below the interpreter's recursion limit.
    """
    is_deep = may_be_deep(body, depth)
    if not is_deep and is_plain(body):
        return []
    return first_of(found(body, depth, is_deep=is_deep))


def first_of(faults: Iterable[Fault]) -> list[Fault]:
    """As many faults as an answer should carry."""
    told: list[Fault] = []
    text = 0
    for fault in faults:
        told.append(fault)
        text += len(fault.pointer) + len(fault.detail)
        if len(told) == MOST_FAULTS or text > MOST_TEXT:
            break
    return told


# The fast way: a proof that nothing is wrong. Without one nothing is said, and the body is read again with care.

DECODE = msgspec.json.Decoder().decode
ENCODE = msgspec.json.Encoder().encode
ESCAPE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode  # as Python's clients write: \u00e9
BACKSLASH = ord("\\")


def is_plain(body: bytes) -> bool:
    """Whether `body` is exactly what an encoder writes for the value read from it, white space aside.

    An encoder writes no name twice and each double in its shortest form; left to see are integers
    beyond 2^53, which are written as they were read, and U+0000.
    """
    is_escaped = BACKSLASH in body and b"\\u" in body
    try:
        value = DECODE(body)
        text = ESCAPE(value).encode() if is_escaped else ENCODE(value)
    except (msgspec.MsgspecError, ValueError):
        return False
    if text != body and text != msgspec.json.format(body, indent=-1):
        return False
    return not (is_escaped and b"\\u0000" in text) and not may_hold_long_integer(text)


AS_ZEROS = bytes.maketrans(b"123456789,[", b"000000000::")
LONG_INTEGER = b":" + b"0" * 16


def may_hold_long_integer(text: bytes) -> bool:
    """Whether JSON `text` may hold an integer of 16 digits and more, so perhaps beyond 2^53; False is certain."""
    if len(text) < 16:
        return False
    return text.translate(AS_ZEROS, b"- \t\r\n").find(LONG_INTEGER) >= 0 or text[0] not in b'{["'


AS_BRACES = bytes.maketrans(b"[]", b"{}")
NO_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))


def may_be_deep(body: bytes, depth: int) -> bool:
    """Whether containers may nest deeper than `depth`; False is certain, whatever else is wrong with `body`."""
    if body.count(b"{") + body.count(b"[") <= depth:
        return False
    if BACKSLASH in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(AS_BRACES, NO_BRACKET_NOR_QUOTE).replace(b'""', b"")
    if b'"' in marks:  # only where a string holds brackets: each run of quotes is even if none does
        marks = re.sub(rb'"[^"]*"', b"", body.translate(AS_BRACES, NO_BRACKET_NOR_QUOTE))
    for _ in range(depth):
        before, marks = len(marks), marks.replace(b"{}", b"")  # the leaves
        if len(marks) == before:
            break
    return bool(marks)


# The careful way: every fault with its place.


def found(body: bytes, depth: int, *, is_deep: bool) -> Iterator[Fault]:
    """The faults of `body` in its order; one that cannot be read has just one."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        yield Fault("", f"not UTF-8 at byte {error.start}")
        return
    text, is_cut = cut(text, depth) if is_deep else (text, False)
    try:
        value = READ(text)
    except json.JSONDecodeError as error:
        at = f"byte {len(text[: error.pos].encode())} (line {error.lineno}, column {error.colno})"
        yield Fault("", f"malformed JSON at {at}: {error.msg}")
        return
    if not is_kept(value):
        yield from walk(value, None)
    if is_cut:
        yield Fault(pointer(path_of_last(value, depth)), f"nested deeper than {depth} levels", depth)


TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.S)  # possessive: a string that never ends costs one pass
CLOSER = {"[": "]", "{": "}"}


def cut(text: str, depth: int) -> tuple[str, bool]:
    """`text` up to the first container inside `depth` others, and whether there is one.

    `null` stands in its place and what is open is closed, so that what is before it can be read.
    """
    closers: list[str] = []
    for token in TOKEN.finditer(text):
        match token[0]:
            case "[" | "{" as opener:
                if len(closers) == depth:
                    return f"{text[: token.start()]}null{''.join(reversed(closers))}", True
                closers.append(CLOSER[opener])
            case "]" | "}":
                del closers[-1:]
    return text, False


class Twice:
    """In place of an object with a name more than once: its members."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


class Unkept:
    """In place of a number that would not be kept: why."""

    def __init__(self, detail: str) -> None:
        self.detail = detail


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Twice:
    value = dict(pairs)
    return value if len(value) == len(pairs) else Twice(pairs)


def integer(text: str) -> Unkept | None:
    return None if len(text) < 16 else number(text)


def fraction(text: str) -> Unkept | None:
    """15 digits always come back from a double, unless an exponent leads to the ends of its range."""
    if len(text) < 17 and (("e" not in text and "E" not in text) or 1e-300 < abs(float(text)) < 1e300):
        return None
    return number(text)


def number(text: str) -> Unkept | None:
    """None if a double holds the number, exactly or in its shortest form."""
    double = float(text)
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    if abs(double) == float("inf"):
        return Unkept(f"{shown} is beyond the range of a double")
    if double == 0:  # Decimal does not take every exponent
        is_same = not text.lower().partition("e")[0].strip("-0.")
    else:
        exact = Decimal(text)
        is_same = exact == Decimal(repr(double)) or exact == Decimal(double)
    return None if is_same else Unkept(f"{shown} would be rounded: the nearest double is {double!r}")


@functools.cache
def no_number(text: str) -> Unkept:
    return Unkept(f"{text} is not JSON")


# Made once: `check` never builds a decoder. Numbers become None, what is wrong a marker that no encoder takes.
READ = json.JSONDecoder(
    object_pairs_hook=members, parse_int=integer, parse_float=fraction, parse_constant=no_number
).decode


def is_kept(value: object) -> bool:
    """Whether `value`, as read by READ, holds no marker, lone surrogate or U+0000: an encoder trips over each."""
    try:
        return b"\\u0000" not in ENCODE(value)
    except (TypeError, UnicodeEncodeError):
        return False


def walk(value: object, path: Path) -> Iterator[Fault]:
    match value:
        case str():
            yield from in_text(value, path, "text")
        case list():
            for place, item in enumerate(value):
                yield from walk(item, (path, place))
        case dict():
            yield from in_members(list(value.items()), path)
        case Twice():
            yield from in_members(value.pairs, path)
        case Unkept():
            yield Fault(pointer(path), value.detail)


def in_members(pairs: list[tuple[str, Any]], path: Path) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for name, value in pairs:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] == 2:
            yield Fault(pointer((path, name)), "more than once in its object")
        yield from in_text(name, (path, name), "name")
        yield from walk(value, (path, name))


def in_text(text: str, path: Path, what: str) -> Iterator[Fault]:
    if "\0" in text:
        yield Fault(pointer(path), f"{what} with U+0000")
    if not text.isascii() and SURROGATE.search(text):
        yield Fault(pointer(path), f"{what} with a lone surrogate")


def path_of_last(value: Any, levels: int) -> Path:
    """The way to the last value, `levels` containers down: where `cut` left its `null`."""
    path: Path = None
    step: str | int
    for _ in range(levels):
        match value:
            case Twice():
                step, value = value.pairs[-1]
            case dict():
                step, value = next(reversed(value.items()))
            case _:
                step, value = len(value) - 1, value[-1]
        path = (path, step)
    return path
