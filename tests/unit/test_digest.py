"""Digests: the leaf against RFC 8785 as another library writes it, and the arithmetic around it."""

import json
from hashlib import sha256

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from journal.core import digest
from journal.core.names import atom_ok, collection_ok

SPECIAL = st.sampled_from('"\\/<>&\x7f\x9f\xa0\xad\u2028\u2029\ufeff\ufffe\uffff\ufb33é😀\U0010ffff\u0301')
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | SPECIAL, min_size=1, max_size=20)
REVISIONS = st.integers(1, 2**53 - 1) | st.sampled_from([1, 2**31, 2**32, 10**15, 2**53 - 1])
WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])


@given(NAMES, NAMES, REVISIONS)
def test_a_leaf_is_of_the_canonical_json_of_rfc_8785(collection: str, atom: str, revision: int) -> None:
    canonical = rfc8785.dumps([collection, atom, revision])

    assert digest.leaf(collection, atom, revision) == int.from_bytes(sha256(canonical).digest()[:8], "big")


@pytest.mark.parametrize(
    "mark", ['"', "\\", "/", "\x7f", "\xad", "\u2028", "\ufeff", "\uffff", "é", "😀", "\U0010ffff"]
)
def test_no_single_mark_that_a_name_may_hold_is_written_otherwise(mark: str) -> None:
    canonical = rfc8785.dumps([mark, mark, 1])

    assert digest.leaf(mark, mark, 1) == int.from_bytes(sha256(canonical).digest()[:8], "big")


def test_every_character_that_a_name_may_hold_is_written_as_rfc_8785_has_it() -> None:
    for start in range(0, 0x110000, 64):
        name = "".join(mark for mark in map(chr, range(start, start + 64)) if atom_ok(mark) or collection_ok(mark))
        canonical = rfc8785.dumps([name, name, 1])

        assert digest.leaf(name, name, 1) == int.from_bytes(sha256(canonical).digest()[:8], "big"), hex(start)


def test_collection_and_atom_do_not_run_into_each_other() -> None:
    assert digest.leaf("ab", "c", 1) != digest.leaf("a", "bc", 1)


def test_a_digest_is_told_in_16_hex_digits() -> None:
    assert digest.told(0) == "0000000000000000"
    assert digest.told(0xAB) == "00000000000000ab"
    assert digest.told(2**64 - 1) == "f" * 16


@given(WORDS)
def test_postgresqls_bigint_keeps_all_64_bits(word: int) -> None:
    stored = digest.to_bigint(word)

    assert -(2**63) <= stored < 2**63
    assert digest.from_bigint(stored) == word


@given(WORDS, WORDS)
def test_the_xor_of_bigints_is_the_xor_of_digests(left: int, right: int) -> None:
    stored = digest.to_bigint(left) ^ digest.to_bigint(right)

    assert digest.from_bigint(stored) == left ^ right


# In depth: by content.

NUMBERS = (
    st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.builds(lambda digits, places: round(digits, places), st.floats(-1e6, 1e6), st.integers(0, 8))
    | st.builds(lambda digits, exponent: digits * 10.0**exponent, st.integers(-99, 99), st.integers(-12, 25))
    | st.sampled_from([0, -0.0, 1, 1.0, 1e21, 1e20, 1e16, 1e-6, 1e-7, 5e-324, 2.0**53, 1.7976931348623157e308])
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | SPECIAL | st.sampled_from("\0\b\x1f\ue000\ufffd😀"))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=6)


@given(OBJECTS)
def test_canonical_is_what_rfc_8785_writes(data: dict[str, object]) -> None:
    text = json.dumps(data, ensure_ascii=False).encode()

    assert digest.canonical(text) == rfc8785.dumps(data)  # type: ignore[arg-type]


@given(NAMES, NAMES, OBJECTS)
def test_a_content_leaf_is_of_the_canonical_json_of_rfc_8785(
    collection: str, atom: str, data: dict[str, object]
) -> None:
    canonical = rfc8785.dumps([collection, atom, data])  # type: ignore[list-item]
    text = json.dumps(data).encode()

    assert digest.content_leaf(collection, atom, text) == int.from_bytes(sha256(canonical).digest()[:8], "big")


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        (["1", "1.0", "1e0", "10e-1", "1.000"], "1"),
        (["0", "-0", "0.0", "-0.0", "0e5", "-0E-7"], "0"),
        (["100", "1e2", "1.0E+2", "100.00"], "100"),
        (["1e21", "1000000000000000000000", "1.0e+21"], "1e+21"),
        (["1e20", "100000000000000000000"], "100000000000000000000"),
        (["1e300", "1" + "0" * 300], "1e+300"),
        (["9007199254740992", "9007199254740992.0", "9.007199254740992e15"], "9007199254740992"),
        (["0.000001", "1e-6", "0.0000010"], "0.000001"),
        (["1e-7", "0.0000001"], "1e-7"),
        (["1.5", "1.50", "15e-1"], "1.5"),
        (["123456789012345.6", "1234567890123456e-1"], "123456789012345.6"),
    ],
)
def test_a_number_is_the_double_it_stands_for_however_it_is_spelled(spellings: list[str], canonical: str) -> None:
    for spelling in spellings:
        for shape in ('{"x":%s}', '{"x": [%s, {"y":%s}]}', '{ "x" :\t%s }'):
            text = shape.replace("%s", spelling)
            expected = shape.replace("%s", canonical).replace(" ", "").replace("\t", "")

            assert digest.canonical(text.encode()) == expected.encode()


def test_names_are_in_the_order_of_utf_16() -> None:
    text = '{"\ufb33": 1, "😀": 2, "\ud7ff": 3, "b": {"\ue000": 1, "\U00010000": 2}, "a": 5}'

    assert digest.canonical(text.encode()).decode() == (
        '{"a":5,"b":{"\U00010000":2,"\ue000":1},"\ud7ff":3,"😀":2,"\ufb33":1}'
    )


def test_marks_of_numbers_in_strings_change_nothing() -> None:
    data = {"1.0,": "1e5", "x": "2.0}", "y": "1234567890123456", "z": ["3.0]", "\\"]}

    assert digest.canonical(json.dumps(data).encode()) == rfc8785.dumps(data)


@given(NAMES, NAMES)
def test_a_place_is_of_canonical_collection_and_atom(collection: str, atom: str) -> None:
    assert digest.place(collection, atom) == sha256(rfc8785.dumps([collection, atom])).digest()
