"""Equality of JSON texts: by value, however they are spelled."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.core.equal import same


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("null", " null "),
        ("1", "1.0"),
        ("1", "1e0"),
        ("[10]", "[1E1]"),
        ("0", "-0"),
        ("[0.0]", "[-0]"),
        ("1e300", "1" + "0" * 300),
        ('{"n": 1e300}', '{"n": 1' + "0" * 300 + "}"),
        ('{"n": 12345678901234567000}', '{"n":1.2345678901234567e19}'),
        ("[9007199254740992]", "[9007199254740992.0]"),
        ('{"a": 1, "b": {"x": true, "y": []}}', '{"b":{"y":[],"x":true},"a":1.0}'),
        (r'"\u00e9\ud83d\ude00\/"', '"é😀/"'),
        ("[true, 1]", "[true, 1.0]"),
    ],
)
def test_one_value_in_two_spellings_is_the_same(a: str, b: str) -> None:
    assert same(a.encode(), b.encode())
    assert same(b.encode(), a.encode())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("true", "1"),
        ("[true]", "[1]"),
        ('{"a": false}', '{"a": 0}'),
        ('{"a": false}', '{"a": 0.0}'),
        ("null", "0"),
        ("null", "false"),
        ("[]", "{}"),
        ("[1]", "1"),
        ('"1"', "1"),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 1]"),
        ('{"a": 1}', '{"a": 1, "b": null}'),
        ('"é"', '"e\u0301"'),
        ("[0.1]", "[0.10000000000000002]"),
        ("[9007199254740992]", "[9007199254740994]"),
        ("[1e300, true]", "[1" + "0" * 300 + ", 1]"),
    ],
)
def test_two_values_are_not_the_same(a: str, b: str) -> None:
    assert not same(a.encode(), b.encode())
    assert not same(b.encode(), a.encode())


NUMBER = st.sampled_from([0, 0.0, 1, 1.0, -1, 2**53, 2.0**53, 2**60, 1e18, 10**18, 0.1]) | st.floats(
    allow_nan=False, allow_infinity=False
)
VALUE = st.recursive(
    st.sampled_from([None, True, False]) | NUMBER | st.text("aé\n", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def equal(a: Any, b: Any) -> bool:
    """The rule by plain recursion."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    numbers = (int, float)
    if type(a) in numbers and type(b) in numbers:
        return float(a) == float(b)
    return type(a) is type(b) and bool(a == b)


@given(VALUE, VALUE, st.booleans())
@settings(deadline=None, max_examples=500)
def test_texts_are_the_same_as_their_values_are(a: Any, b: Any, ascii_only: bool) -> None:
    assert same(json.dumps(a).encode(), json.dumps(b).encode()) is equal(a, b)
    assert same(json.dumps(a).encode(), respelled(a, ascii_only).encode())


def respelled(value: Any, ascii_only: bool) -> str:
    """The same value in other words: members the other way round, integers as doubles."""
    match value:
        case dict():
            inside = ", ".join(
                f"{json.dumps(name)} : {respelled(item, ascii_only)}" for name, item in reversed(value.items())
            )
            return f"{{ {inside} }}"
        case list():
            return f"[ {' , '.join(respelled(item, ascii_only) for item in value)} ]"
        case int() if not isinstance(value, bool):
            return f"{float(value)!r}"
        case _:
            return json.dumps(value, ensure_ascii=ascii_only)
