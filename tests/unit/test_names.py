"""Names: the protocol's section 2, by examples and against an oracle by characters."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.core.names import atom_ok, collection_ok, journal_ok

ANY_TEXT = st.text(st.characters() | st.sampled_from(",\0\n\x1f \x7f\x80\x9f\xa0\ud800"))
LONG_TEXT = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(20, 300))


def is_writable(name: str, most_bytes: int) -> bool:
    """By the letter: so many bytes, and nothing of the categories Cc and Cs."""
    if any(unicodedata.category(mark) in ("Cc", "Cs") for mark in name):
        return False
    return 1 <= len(name.encode()) <= most_bytes


@given(ANY_TEXT | LONG_TEXT)
def test_an_atom_is_named_with_anything_but_control_characters(name: str) -> None:
    assert atom_ok(name) is is_writable(name, 255)


@given(ANY_TEXT | LONG_TEXT)
def test_a_collection_is_named_without_commas_besides(name: str) -> None:
    assert collection_ok(name) is (is_writable(name, 128) and "," not in name)


def test_every_control_character_is_refused_and_no_other_character() -> None:
    for mark in map(chr, range(0x3000)):
        is_control = unicodedata.category(mark) == "Cc"
        assert atom_ok(mark) is not is_control
        assert collection_ok(mark) is not (is_control or mark == ",")


def test_lengths_are_in_bytes() -> None:
    assert collection_ok("n" * 128)
    assert collection_ok("é" * 64)
    assert not collection_ok("n" * 129)
    assert not collection_ok("é" * 65)
    assert atom_ok("n" * 255)
    assert atom_ok("é" * 127)
    assert not atom_ok("n" * 256)
    assert not atom_ok("é" * 128)


@pytest.mark.parametrize("name", ["a", "0", "todo", "user-1_x", "9-", "a" * 63])
def test_a_journal_is_named_in_lower_case_letters_digits_and_dashes(name: str) -> None:
    assert journal_ok(name)


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a.b", "a/b", "é", "a ", "a\n", "٣", "a" * 64])
def test_any_other_name_is_no_journals(name: str) -> None:
    assert not journal_ok(name)
