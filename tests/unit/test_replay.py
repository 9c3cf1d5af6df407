"""Replaying an atom's changes: what deciding left comes out again, and what does not come from them is told."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.core.decide import decide
from journal.core.model import AtomState, Change, Key, Op, Push, PushChange
from journal.core.replay import Impossible, Replay, Stored

FIELDS = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2), max_size=3)
CHANGES = st.builds(
    lambda op, atom, fields, unset: PushChange(
        op=op,
        collection="c",
        atom=atom,
        data=None if op == "delete" or (op == "update" and not fields and unset) else json.dumps(fields).encode(),
        unset=unset if op == "update" else (),
    ),
    st.sampled_from(["insert", "update", "update", "put", "delete"]),
    st.sampled_from("aab"),
    FIELDS,
    st.lists(st.sampled_from("xyz"), max_size=2, unique=True).map(tuple),
)
PUSHES = st.lists(
    st.tuples(st.lists(CHANGES, min_size=1, max_size=4), st.none() | st.integers(1, 2)), min_size=1, max_size=8
)


def decided(pushes: Sequence[tuple[list[PushChange], int | None]]) -> tuple[dict[Key, AtomState], list[Change]]:
    """What pushes come to: the state, and all changes."""
    states: dict[Key, AtomState] = {}
    record: list[Change] = []
    for changes, client in pushes:
        push = Push(changes, "client", client=client)
        decision = decide(push, states, head=len(record), horizon=0, policies={}, atom_bytes=1000)
        states |= decision.atoms
        record += decision.changes
    return states, record


def stored(state: AtomState, **members: Any) -> Stored:
    """An atom's row."""
    row = Stored(
        born=state.born,
        born_by=state.born_by,
        created=state.created,
        revision=state.revision,
        is_deleted=state.data is None,
        data=state.data,
        fk=tuple(state.fields),
        fr=tuple(state.fields.values()),
    )
    return msgspec.structs.replace(row, **members)


def replayed(changes: Sequence[Change], unknown: int = 0) -> Replay:
    replay = Replay(unknown)
    for change in changes:
        replay.take(change)
    return replay


@given(PUSHES)
@settings(deadline=None, max_examples=100)
def test_p5_what_was_decided_comes_out_again(pushes: Any) -> None:
    states, record = decided(pushes)

    for key, state in states.items():
        replay = replayed([change for change in record if change.atom == key[1]])

        assert replay.is_living is (state.data is not None)
        assert replay.differences(stored(state)) == []


@given(PUSHES, st.integers(0, 20))
@settings(deadline=None, max_examples=100)
def test_what_is_known_of_the_last_changes_is_true_of_the_whole(pushes: Any, unknown: int) -> None:
    states, record = decided(pushes)

    for key, state in states.items():
        last = [change for change in record if change.atom == key[1] and change.revision > unknown]
        begins_here = bool(last) and last[0].prev == 0

        assert replayed(last, 0 if begins_here else max(unknown, 1)).differences(stored(state)) == []


@given(PUSHES, st.data())
@settings(deadline=None, max_examples=100)
def test_what_was_erased_is_not_missed_and_the_rest_is_compared(pushes: Any, data: st.DataObject) -> None:
    states, record = decided(pushes)

    for key, state in states.items():
        changes = [
            msgspec.structs.replace(change, data=None, erased=b"hash")
            if change.data is not None and data.draw(st.booleans())
            else change
            for change in record
            if change.atom == key[1]
        ]
        replay = replayed(changes)

        assert replay.differences(stored(state)) == []
        assert replay.differences(stored(state, created=state.created + 1)) != []


DAMAGES: dict[str, Any] = {
    "born": st.integers(0, 40),
    "born_by": st.none() | st.integers(0, 3),
    "created": st.integers(0, 40),
    "is_deleted": st.booleans(),
    "data": st.none()
    | FIELDS.map(lambda fields: json.dumps(fields).encode())
    | st.sampled_from([b"", b"[]", b"{\xff"]),
    "fk": st.lists(st.sampled_from("wxyz"), max_size=4).map(tuple),
    "fr": st.lists(st.integers(1, 40), max_size=4).map(tuple),
}


@given(PUSHES, st.data(), st.sampled_from(sorted(DAMAGES)))
@settings(deadline=None, max_examples=150)
def test_any_column_that_is_not_as_it_was_decided_is_told(pushes: Any, data: st.DataObject, column: str) -> None:
    states, record = decided(pushes)

    for key, state in states.items():
        sound = stored(state)
        damaged = msgspec.structs.replace(sound, **{column: data.draw(DAMAGES[column])})
        told = replayed([change for change in record if change.atom == key[1]]).differences(damaged)

        assert bool(told) is (comparable(damaged) != comparable(sound)), told


def comparable(row: Stored) -> Any:
    """A row's columns, those that may be written in several ways in one of them."""
    columns = msgspec.structs.asdict(row)
    try:
        columns["data"] = None if row.data is None else json.loads(row.data)
    except ValueError:
        columns["data"] = row.data
    if len(row.fk) == len(row.fr) == len(set(row.fk)) and list(row.fr) == sorted(row.fr):
        columns["fk"] = columns["fr"] = dict(zip(row.fk, row.fr, strict=True))
    return columns


# In words.

INSERT = Change(1, Op.INSERT, "c", "a", b'{"x": 1, "y": {"z": 1}}', client=7)
UPDATE = Change(2, Op.UPDATE, "c", "a", b'{"x": 2}', ("w",), prev=1)
ROW = Stored(1, 7, 1, 2, False, b'{"y": {"z": 1.0}, "x": 2}', ("y", "w", "x"), (1, 2, 2))

SENTENCES: list[tuple[dict[str, Any], list[str]]] = [
    ({"born": 2}, ["born is 2, should be 1"]),
    ({"born_by": None}, ["born_by is null, should be 7"]),
    ({"created": 2}, ["created is 2, should be 1"]),
    ({"is_deleted": True, "data": None}, ["deleted is true, should be false"]),
    ({"data": None}, ["deleted is false, and data is null"]),
    ({"data": b"{"}, ["data is no JSON object"]),
    ({"data": b'{"y": {"z": \xff}, "x": 2}'}, ["data is no JSON object"]),
    ({"data": b'{"y": {"z": 1}, "x": 1}'}, ['data is not what the record gives in "x"']),
    ({"data": b'{"y": {"z": 1}}'}, ['data is not what the record gives in "x"']),
    ({"data": b'{"y": {"z": 1}, "x": 2, "w": 1}'}, ['data is not what the record gives in "w"']),
    (
        {"data": b'{"y": {"z": 1}, "x": 2, "a": 1, "b": 1, "c": 1, "d": 1}'},
        [
            'data is not what the record gives in "a", "b", "c" and 1 more',
            'fk lacks "a", "b", "c" and 1 more, which data has',
        ],
    ),
    ({"fk": ("y", "w")}, ['fk lacks "x", which data has', "fk and fr do not name each field once"]),
    ({"fk": ("y", "w", "y")}, ['fk lacks "x", which data has', "fk and fr do not name each field once"]),
    ({"fk": ("x", "w", "y"), "fr": (2, 2, 1)}, ["fr is not in order"]),
    ({"fr": (1, 1, 2)}, ['fr of "w" is 1, should be 2']),
    ({"fk": ("y", "x"), "fr": (1, 2)}, ['fr of "w" is missing, should be 2']),
    ({"fk": ("y", "v" * 50, "w", "x"), "fr": (1, 1, 2, 2)}, [f'fr of "{"v" * 40}…" is 1, should not be there']),
]


@pytest.mark.parametrize(("columns", "sentences"), SENTENCES)
def test_a_sentence_says_what_is_stored_and_what_should_be(columns: dict[str, Any], sentences: list[str]) -> None:
    replay = replayed([INSERT, UPDATE])

    assert replay.differences(ROW) == []
    assert replay.differences(msgspec.structs.replace(ROW, **columns)) == sentences


def test_of_what_is_not_known_only_what_was_set_since_is_told() -> None:
    replay = replayed([UPDATE], unknown=1)

    assert replay.differences(msgspec.structs.replace(ROW, born_by=3)) == []
    assert replay.differences(msgspec.structs.replace(ROW, born=2, created=2, fk=("y", "w", "x"), fr=(2, 2, 2))) == [
        "born is 2, should be at most 1",
        "created is 2, should be at most 1",
        'fr of "y" is 2, should be at most 1',
    ]


def test_of_an_atom_without_changes_is_told_what_contradicts_itself() -> None:
    replay = Replay(unknown=5)

    assert replay.is_living is None
    assert replay.differences(ROW) == []
    assert replay.differences(msgspec.structs.replace(ROW, data=None, fr=(1, 2, 6))) == [
        "deleted is false, and data is null",
        'fr of "x" is 6, should be at most 5',
    ]
    assert replay.differences(msgspec.structs.replace(ROW, is_deleted=True)) == ["deleted is true, and data is not"]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ([INSERT], INSERT, "its op is insert, of an atom that lives by then"),
        ([], UPDATE, "its op is update, of an atom that does not live by then"),
        ([], msgspec.structs.replace(INSERT, data=b"[]"), "its data is no JSON object"),
        ([INSERT], msgspec.structs.replace(UPDATE, data=b'{"x"'), "its data is no JSON object"),
        ([INSERT], msgspec.structs.replace(UPDATE, erased=b"hash"), "it has data, and is marked as erased"),
    ],
)
def test_a_change_that_cannot_follow_is_not_taken(before: list[Change], after: Change, why: str) -> None:
    replay = replayed(before)

    with pytest.raises(Impossible, match=why):
        replay.take(after)

    assert replay.is_living is bool(before)


def test_whose_client_is_not_known_is_not_compared_by_it() -> None:
    whose, again = Replay(), replayed([INSERT, Change(2, Op.DELETE, "c", "a", prev=1)])
    whose.take(INSERT, is_client_known=False)
    again.take(Change(3, Op.INSERT, "c", "a", b"{}", prev=2, client=7), is_client_known=False)

    assert whose.differences(Stored(1, 3, 1, 1, False, INSERT.data, ("x", "y"), (1, 1))) == []
    assert again.differences(Stored(1, 3, 3, 3, False, b"{}", (), ())) == []
