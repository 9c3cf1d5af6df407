"""I-JSON: what is let through is exact, and what is not is told whole, each fault with its place."""

import json
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from journal.core.ijson import MOST_FAULTS, MOST_TEXT, check, is_plain, may_hold_long_integer
from journal.errors import Fault

DEPTH = 32

SOUND = [
    b"{}",
    b" [] ",
    b"0",
    b'""',
    b"null",
    b'{"push":17,"base":"5f1c09ab33d2:2149:77aa","atomic":false,"cost":0.1,"data":null}',
    b'{"a": 1, "b": [1, 2, {"a": 1}], "c": {"a": 1}}',
    b'{"a":"[[[[","b":"]]","c":"\\"[","d":"\\\\","e":"}{\\\\\\""}',
    '{"ä":"ö","e\u0301":1,"é":2,"😀":"\U0010ffff"}'.encode(),
    rb'{"a":"\u00e9\ud83d\ude00\/\n\t\\u0000\\ud800"}',
    rb'{"a":"\u0001\\u0000"}',
    b'"\xef\xbf\xbe"',
]

EXACT = [
    "0", "-0", "-0.0", "0.0e5", "0e99999999999999999999", "-0.000E-99999999999999999999", "1", "-1", "0.1", "12.50",
    "1.0", "1E5", "1e+5", "1e300", "1" + "0" * 300, "9007199254740992", "-9007199254740992", "9007199254740994",
    "1732179600000000", "18014398509481984", "0.30000000000000004", "5e-324",
    "1.7976931348623157e308", "0." + "0" * 400 + "1e390", "0.1000000000000000055511151231257827021181583404541015625",
    "123456789012345", "0.123456789012345", "2.5e-1",
]  # fmt: skip

ROUNDED = [
    "9007199254740993", "-9007199254740993", "9007199254740995.0", "12345678901234567891", "1e400", "-1e400", "1e-400",
    "1e99999999999999999999", "1e-99999999999999999999", "0.1000000000000000055", "3e-324", "4.94e-324", "1" * 310,
    "1" * 5000, "9007199254740.993", "0.30000000000000001", "123456789012345678e-3",
]  # fmt: skip


@pytest.mark.parametrize("body", SOUND)
def test_a_sound_body_has_no_fault(body: bytes) -> None:
    assert check(body, depth=DEPTH) == []


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_push_as_clients_write_it_needs_no_careful_reading(separators: tuple[str, str], ascii_only: bool) -> None:
    push = {"client": "6f1c", "push": 17, "at": 1732179600.25, "changes": [{"op": "put", "data": {"é\n😀": [0.1, -3]}}]}

    assert is_plain(json.dumps(push, separators=separators, ensure_ascii=ascii_only).encode())


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize("frame", ["%s", "[%s]", '{"a":[1, %s ]}', '{"n": %s}'])
def test_a_number_that_a_double_holds_is_let_through(frame: str, text: str) -> None:
    assert check((frame % text).encode(), depth=DEPTH) == []


@pytest.mark.parametrize("text", ROUNDED)
@pytest.mark.parametrize(
    ("frame", "place"), [("%s", ""), ("[%s]", "/0"), ('{"a":[1, %s ]}', "/a/1"), ('{"n":%s}', "/n")]
)
def test_a_number_that_would_be_rounded_is_refused(frame: str, place: str, text: str) -> None:
    [fault] = check((frame % text).encode(), depth=DEPTH)

    assert fault.pointer == place
    assert text[:40] in fault.detail
    assert len(fault.detail) < 120


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_with_its_place(text: str) -> None:
    assert check(f'{{"a":[{text}]}}'.encode(), depth=DEPTH) == [Fault("/a/0", f"{text} is not JSON")]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a":1,"a":1}', "/a"),
        (b'{"a":{"b/c":1,"~":2,"b/c":3}}', "/a/b~1c"),
        (b'[{"~":1,"~":2}]', "/0/~0"),
        (b'{"a":1,"\\u0061":1}', "/a"),
        (b'{"":1,"":2,"":3}', "/"),
        ('{"é":1,"\\u00e9":1}'.encode(), "/é"),
    ],
)
def test_a_name_twice_in_an_object_is_told_once(body: bytes, place: str) -> None:
    assert check(body, depth=DEPTH) == [Fault(place, "more than once in its object")]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (rb'"\u0000"', [Fault("", "text with U+0000")]),
        (rb'{"a":["b\u0000"]}', [Fault("/a/0", "text with U+0000")]),
        (rb'{"a":["\\\u0000"]}', [Fault("/a/0", "text with U+0000")]),
        (rb'{"\u0000":1}', [Fault("/\0", "name with U+0000")]),
        (rb'{"a":"\ud800"}', [Fault("/a", "text with a lone surrogate")]),
        (rb'{"a":"\udc00\ud800"}', [Fault("/a", "text with a lone surrogate")]),
        (rb'{"a":"\uDBFFx"}', [Fault("/a", "text with a lone surrogate")]),
        (rb'{"\ud800":1}', [Fault("/\ufffd", "name with a lone surrogate")]),
        (rb'["\u0000\ud800"]', [Fault("/0", "text with U+0000"), Fault("/0", "text with a lone surrogate")]),
    ],
)
def test_text_that_cannot_be_stored_is_refused(body: bytes, faults: list[Fault]) -> None:
    assert check(body, depth=DEPTH) == faults


@pytest.mark.parametrize(
    ("body", "at"),
    [(b"\xff", 0), (b'{"a":"\xed\xa0\x80"}', 6), (b'"\xc3', 1), (b'["\xc0\x80"]', 2), ('{"a":"ä'.encode("latin-1"), 6)],
)
def test_a_body_that_is_not_utf_8_has_that_one_fault(body: bytes, at: int) -> None:
    assert check(body, depth=DEPTH) == [Fault("", f"not UTF-8 at byte {at}")]


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ("", "byte 0 (line 1, column 1)"),
        ('{"a":1,"a":1', "byte 12 (line 1, column 13)"),
        ('{"ä":1,\n 1}', "byte 10 (line 2, column 2)"),
        ("[1 2]", "byte 3 (line 1, column 4)"),
        ("{} {}", "byte 3 (line 1, column 4)"),
        ('["\n"]', "byte 2 (line 1, column 3)"),
        ('["\0"]', "byte 2 (line 1, column 3)"),
        ("\ufeff{}", "byte 0 (line 1, column 1)"),
        ("[01]", "byte 2 (line 1, column 3)"),
        ("[nan]", "byte 1 (line 1, column 2)"),
        ('"abc', "byte 0 (line 1, column 1)"),
        ("]]]", "byte 0 (line 1, column 1)"),
    ],
)
def test_malformed_json_is_one_fault_that_says_where(body: str, at: str) -> None:
    [fault] = check(body.encode(), depth=DEPTH)

    assert fault.pointer == ""
    assert fault.detail.startswith(f"malformed JSON at {at}: ")


def test_every_fault_is_told_in_the_order_of_the_body() -> None:
    body = rb'{"a":1e400,"b":{"x":"\ud800","x":NaN},"c":[9007199254740993],"a":"\u0000"}'

    assert [(fault.pointer, fault.detail.split()[0]) for fault in check(body, depth=DEPTH)] == [
        ("/a", "1e400"), ("/b/x", "text"), ("/b/x", "more"), ("/b/x", "NaN"), ("/c/0", "9007199254740993"),
        ("/a", "more"), ("/a", "text"),
    ]  # fmt: skip


def test_no_more_faults_are_told_than_an_answer_should_carry() -> None:
    many = check(b"[" + b"NaN," * 5000 + b"1]", depth=DEPTH)
    long = check(b'{"' + b"n" * MOST_TEXT + b'":[' + b"NaN," * 5000 + b"1]}", depth=DEPTH)

    assert len(many) == MOST_FAULTS
    assert len(long) == 1


# Depth


@pytest.mark.parametrize(
    ("body", "depth", "place"),
    [
        (b"[]", 0, ""),
        (b"[[]]", 1, "/0"),
        (b'{"a":[1,{"b":2,"c":{}}]}', 3, "/a/1/c"),
        (b'["]","[",{"a":[]}]', 2, "/2/a"),
        (b'[["\\"]]",[[1', 2, "/0/1"),
        (b"[" * 100_000, DEPTH, "/0" * DEPTH),
        (b'{"a":' * 100_000, DEPTH, "/a" * DEPTH),
        (b'{"a":1,"a":' * 100, 2, "/a/a"),
        (b'["\\\\",' + b"[" * 100_000 + b'"\\\\"]', DEPTH, "/1" + "/0" * (DEPTH - 1)),
    ],
)
def test_what_is_nested_too_deep_is_told_with_its_place_and_the_limit(body: bytes, depth: int, place: str) -> None:
    *_, fault = check(body, depth=depth)

    assert fault == Fault(place, f"nested deeper than {depth} levels", depth)


def test_faults_before_the_one_too_deep_are_told_with_it() -> None:
    body = b'{"a":1e400,"b":[NaN,[[[[["unread'

    assert [fault.pointer for fault in check(body, depth=2)] == ["/a", "/b/0", "/b/1"]


@pytest.mark.parametrize(
    "body",
    [
        b"[}[[[",
        b"{[[[[",
        b"1[",
        b"[1[[[",
        b'["a"[[[[',
        b"]" * 50 + b"[" * 50,
        b'["' + b"[" * 50,
    ],
)
def test_a_body_malformed_before_it_is_too_deep_is_malformed(body: bytes) -> None:
    [fault] = check(body, depth=1)

    assert fault.detail.startswith("malformed JSON")


def test_a_string_that_never_ends_costs_one_pass() -> None:
    [fault] = check(b'[[],[],"' + b'\\"]' * 100_000, depth=2)

    assert fault.detail.startswith("malformed JSON")


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 1000 + b"{}]",
        b"[" + b'["[","]","{{{{",[]],' * 1000 + b"0]",
        b"[" + rb'["\"[\\","[[\\\"",[]],' * 1000 + b"0]",
    ],
)
def test_many_brackets_are_not_many_levels(body: bytes) -> None:
    assert check(body, depth=3) == []


@pytest.mark.parametrize("unit", [b"[", b'{"":', b'["]",', b'["\\"",', b'["\\\\",', b'["[",', rb'["\"]",'])
def test_no_body_exhausts_the_stack(unit: bytes) -> None:
    limit = sys.getrecursionlimit()

    for body in (unit * 10 * limit, unit * 10 * limit + b"1"):
        assert check(body, depth=DEPTH)[-1].limit == DEPTH


# Against oracles

NUMBER = st.from_regex(
    re.compile(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", re.A), fullmatch=True
)
NEAR_A_DOUBLE = st.builds(
    lambda double, digits: f"{double:.{digits}e}", st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 25)
)
NEAR_2_53 = st.integers(-(2**56), 2**56).map(str) | st.integers(2**53 - 9, 2**53 + 9).map(str)


def is_exact(text: str) -> bool:
    """The rule as it is written: a double holds the number exactly, or it is the double's shortest form."""
    double = float(text)
    return abs(double) != float("inf") and Fraction(text) in (Fraction(double), Fraction(repr(double)))


@given(NUMBER | NEAR_A_DOUBLE | NEAR_2_53)
@settings(deadline=None, max_examples=500)
def test_numbers_are_judged_as_the_rule_says(text: str) -> None:
    for body in (text, f"[{text}]", f'{{"a": [0, {text}]}}'):
        assert (check(body.encode(), depth=DEPTH) == []) is is_exact(text)


KEPT_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
KEPT_NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | KEPT_NUMBER | KEPT_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEPT_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUE, st.booleans(), st.sampled_from([None, 0, 3]), st.sampled_from([(",", ":"), (", ", ": ")]))
@settings(deadline=None)
def test_whatever_json_dumps_writes_of_representable_numbers_passes(
    value: Any, ascii_only: bool, indent: int | None, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, allow_nan=False, ensure_ascii=ascii_only, indent=indent, separators=separators)

    assert check(text.encode(), depth=DEPTH) == []
    assert check(msgspec.json.encode(value), depth=DEPTH) == []


class Members(list[tuple[str, Any]]):
    """An object as its members, names any number of times."""


class Spelled(str):
    """A value as it is written."""

    __slots__ = ()


WRITTEN = ["null", "true", "1", "-0", "12.50", "1E2", "1e400", "9007199254740993", "0.1", "NaN", "1e-400"]
TEXT = st.text(st.sampled_from('ab[]{}"\\/~:, \n\0\ud800\udc00é😀u0'), max_size=4).filter(
    lambda text: not re.search("\ud800\udc00", text)  # a pair by accident is one character in JSON
)
TREE = st.recursive(
    st.sampled_from(WRITTEN).map(Spelled) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.tuples(st.sampled_from(["a", "b/~", "[", '"']) | TEXT, inner), max_size=3).map(Members)
    ),
    max_leaves=15,
)


def written(tree: Any, gap: str) -> str:
    match tree:
        case Spelled():
            return str(tree)
        case str():
            return json.dumps(tree, ensure_ascii=bool(LONE.search(tree)))
        case Members():
            inside = f",{gap}".join(f"{written(name, '')}{gap}:{gap}{written(value, gap)}" for name, value in tree)
            return f"{{{gap}{inside}{gap}}}"
        case _:
            return f"[{gap}{f'{gap},'.join(written(item, gap) for item in tree)}{gap}]"


LONE, REPLACEMENT = re.compile("[\ud800-\udfff]"), "\ufffd"


class TooDeepError(Exception):
    """The place of the first container that is."""


def expected(tree: Any, depth: int, place: str = "") -> Iterator[tuple[str, str]]:
    """Each fault's place and first word, by plain recursion."""
    match tree:
        case Spelled("NaN"):
            yield place, "NaN"
        case Spelled():
            if tree[-1].isdigit() and not is_exact(tree):
                yield place, tree
        case str():
            yield from expected_of_text(tree, place, "text")
        case _ if not depth:
            yield place, "nested"
            raise TooDeepError
        case Members():
            names = [name for name, _ in tree]
            for at, (name, value) in enumerate(tree):
                below = f"{place}/{LONE.sub(REPLACEMENT, name).replace('~', '~0').replace('/', '~1')}"
                if names[:at].count(name) == 1:
                    yield below, "more"
                yield from expected_of_text(name, below, "name")
                yield from expected(value, depth - 1, below)
        case _:
            for at, item in enumerate(tree):
                yield from expected(item, depth - 1, f"{place}/{at}")


def expected_of_text(text: str, place: str, what: str) -> Iterator[tuple[str, str]]:
    yield from [(place, what)] * (("\0" in text) + bool(LONE.search(text)))


def until_too_deep(faults: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    try:
        yield from faults
    except TooDeepError:
        return


@given(TREE, st.sampled_from(["", " ", "\n\t"]), st.integers(0, 5))
@settings(deadline=None, max_examples=500)
def test_exactly_the_faults_that_plain_recursion_finds_are_told(tree: Any, gap: str, depth: int) -> None:
    faults = check(written(tree, gap).encode(), depth=depth)

    told = [(fault.pointer, fault.detail.split()[0]) for fault in faults]
    assert told == list(until_too_deep(expected(tree, depth)))


@given(st.binary() | st.text(alphabet='[]{}",:\\u0d8eE+-.19 tfn').map(str.encode), st.integers(0, 5))
@settings(deadline=None, max_examples=500)
def test_no_bytes_whatever_make_it_fail(body: bytes, depth: int) -> None:
    if not check(body, depth=depth):
        json.loads(body)


@given(VALUE, st.integers(0), st.binary(max_size=2), st.integers(0, 2))
@settings(deadline=None, max_examples=500)
def test_what_passes_reads_the_same_for_every_reader(value: Any, at: int, put: bytes, taken: int) -> None:
    body = msgspec.json.encode(value)
    at %= len(body) + 1
    body = body[:at] + put + body[at + taken :]

    assume(not check(body, depth=DEPTH))

    assert json.loads(body) == msgspec.json.decode(body)


@given(st.lists(st.integers(), max_size=4), st.sampled_from([(",", ":"), (", ", ": ")]))
@settings(deadline=None)
def test_a_long_integer_is_never_overlooked(numbers: list[int], separators: tuple[str, str]) -> None:
    text = json.dumps({"a": numbers, "b": {"c": numbers}}, separators=separators).encode()

    assert may_hold_long_integer(text) is any(abs(number) >= 10**15 for number in numbers)
