"""Whether two JSON texts say the same.

Pure. Equal is equal by value: the order of members and the spelling of numbers and strings mean nothing, a
number is the double it stands for, and `true` is not 1. Both texts have passed `ijson.check`.
"""

import json

import msgspec

from journal.core.ijson import may_hold_long_integer

DECODE = msgspec.json.Decoder().decode
CANONICAL = msgspec.json.Encoder(order="deterministic").encode


def same(a: bytes, b: bytes) -> bool:
    """Whether `a` and `b` are one value: `{"x": 1, "y": 2}` and `{"y": 2.0, "x": 1e0}` are."""
    if a == b:
        return True
    left, right = DECODE(a), DECODE(b)
    if CANONICAL(left) == CANONICAL(right):
        return True
    # Python tells short integers and doubles apart exactly, but takes True for 1 and does not round a long integer.
    if left != right and not may_hold_long_integer(a) and not may_hold_long_integer(b):
        return False
    return bool(AS_DOUBLES(a.decode()) == AS_DOUBLES(b.decode()))


def double(text: str) -> tuple[float]:
    """A number that equals its like and nothing else: the tuple keeps it apart from `true`."""
    return (float(text),)


AS_DOUBLES = json.JSONDecoder(parse_int=double, parse_float=double).decode
