"""The chain: against its definition, written once more, and that nothing in a commit escapes it."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.core import chain
from journal.core.model import Change, Op

NAMES = st.text(st.sampled_from('ab,"\\é😀'), min_size=1, max_size=3)
CHANGES = st.builds(
    Change,
    st.integers(1, 2**53 - 1),
    st.sampled_from(Op),
    NAMES,
    NAMES,
    st.none() | st.binary(max_size=3),
    st.lists(st.text("ab", max_size=2), max_size=3).map(tuple),
)
CHANGE = Change(7, Op.UPDATE, "todo", "a", b'{"x":1}', ("y", "z"), prev=3, client=4)


def by_definition(before: bytes, parts: list[bytes]) -> bytes:
    """chain' = SHA-256(chain ‖ part…), a part being its length and its bytes."""
    return sha256(before + b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def parts_of(change: Change) -> list[bytes]:
    """The parts of a change, as core/chain.py lists them."""
    names = [name.encode() for name in change.unset]
    return [
        change.revision.to_bytes(8, "big"),
        bytes([change.op]),
        change.collection.encode(),
        change.atom.encode(),
        len(names).to_bytes(4, "big"),
        *names,
        b"" if change.data is None else sha256(change.data).digest(),
    ]


@given(st.binary(min_size=32, max_size=32), st.lists(CHANGES, max_size=4))
def test_the_chain_is_what_its_definition_says(before: bytes, changes: list[Change]) -> None:
    parts = [part for change in changes for part in parts_of(change)]

    assert chain.extend(before, changes) == by_definition(before, parts)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**53 - 1))
def test_a_commit_without_an_atom_is_chained_by_its_revision(before: bytes, revision: int) -> None:
    assert chain.extend_bare(before, revision) == by_definition(before, [revision.to_bytes(8, "big")])


def test_a_commit_that_begins_an_epoch_is_chained_by_its_revision_and_epoch() -> None:
    epoch, revision = bytes(range(6)), 2**32
    said = b"\1" * 32 + (8).to_bytes(4, "big") + revision.to_bytes(8, "big") + (6).to_bytes(4, "big") + epoch

    assert chain.begin(b"\1" * 32, epoch, revision) == sha256(said).digest()


def test_the_hash_of_erased_data_proves_as_much_as_the_data() -> None:
    data = b'{"name":"Ada"}'
    whole = Change(7, Op.INSERT, "person", "ada", data)
    erased = Change(7, Op.INSERT, "person", "ada", erased=sha256(data).digest())

    assert chain.extend(chain.START, [whole]) == chain.extend(chain.START, [erased])


def test_an_empty_history_is_told_as_zeros_and_others_by_their_first_8_bytes() -> None:
    assert chain.told(chain.START) == "0000000000000000"
    assert chain.told(bytes(range(32))) == "0001020304050607"


@pytest.mark.parametrize(
    "other",
    [
        {"revision": 8},
        {"op": Op.INSERT},
        {"collection": "tod"},
        {"collection": "todoa", "atom": ""},
        {"atom": "b"},
        {"data": b'{"x":2}'},
        {"data": None},
        {"data": b""},
        {"unset": ()},
        {"unset": ("z", "y")},
        {"unset": ("yz",)},
    ],
)
def test_whatever_a_change_says_is_in_the_chain(other: dict[str, object]) -> None:
    changed = msgspec.structs.replace(CHANGE, **other)

    assert chain.extend(chain.START, [changed]) != chain.extend(chain.START, [CHANGE])


def test_what_one_commit_recorded_or_two_is_in_the_chain() -> None:
    later = msgspec.structs.replace(CHANGE, revision=8)

    together = chain.extend(chain.START, [CHANGE, later])
    apart = chain.extend(chain.extend(chain.START, [CHANGE]), [later])

    assert together != apart


def test_who_recorded_a_change_and_what_was_before_it_are_no_part_of_it() -> None:
    other = msgspec.structs.replace(CHANGE, prev=1, client=None)

    assert chain.extend(chain.START, [other]) == chain.extend(chain.START, [CHANGE])
