"""Digests: the leaf against RFC 8785 as another library writes it, and the arithmetic around it."""

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
