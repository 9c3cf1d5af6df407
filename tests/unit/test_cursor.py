"""Cursors: what is written can be read, and what cannot be read is told as the requester's fault."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.core.cursor import LARGEST, Cursor, parse, parse_since
from journal.core.names import collection_ok
from journal.errors import InvalidRequest

THREE = "5f1c09ab33d2:2149:77aa03ac674216f3"
CLIENT = "6f1c3b52-0c47-4a11-8f4e-0a1b2c3d4e5f"

HEX = "0123456789abcdef"
MARKS = st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from(":=%,+& /é😀")
NAMES = st.text(MARKS, min_size=1, max_size=8).filter(collection_ok)
REVISIONS = st.integers(0, LARGEST) | st.sampled_from([0, 1, LARGEST])


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    revision = draw(REVISIONS)
    base = draw(st.none() | st.integers(0, revision))
    return Cursor(
        draw(st.text(HEX, min_size=12, max_size=12)),
        revision,
        draw(st.text(HEX, min_size=16, max_size=16)),
        draw(st.none() | st.frozensets(NAMES, max_size=3)),
        base,
        None if base is None else draw(st.none() | st.integers(revision, LARGEST)),
        None if base is None else draw(st.none() | st.uuids().map(str)),
    )


@given(cursors())
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    assert parse(str(cursor), parameter="since") == cursor
    assert parse_since(str(cursor)) == cursor


@given(REVISIONS)
def test_a_bare_revision_is_a_number(revision: int) -> None:
    assert parse_since(str(revision)) == revision


def test_the_three_parts_alone_are_a_cursor_for_all_collections() -> None:
    assert parse(THREE, parameter="since") == Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3")


@pytest.mark.parametrize(
    ("members", "cursor"),
    [
        ("collections=a,b", Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3", frozenset("ab"))),
        ("collections=", Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3", frozenset())),
        ("collections=%C3%A9%3A%3D", Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3", frozenset(["é:="]))),
        ("base=0", Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3", None, 0)),
        ("until=2149:base=2149", Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3", None, 2149, 2149)),
        (
            f"client={CLIENT}:base=7:until=9000:collections=a",
            Cursor("5f1c09ab33d2", 2149, "77aa03ac674216f3", frozenset("a"), 7, 9000, CLIENT),
        ),
    ],
)
def test_members_are_read_in_any_order(members: str, cursor: Cursor) -> None:
    assert parse(f"{THREE}:{members}", parameter="since") == cursor


@pytest.mark.parametrize(
    ("cursor", "base"), [(Cursor("e" * 12, 9, "c" * 16), 9), (Cursor("e" * 12, 9, "c" * 16, None, 4), 4)]
)
def test_the_data_at_hand_was_whole_at_the_rounds_base(cursor: Cursor, base: int) -> None:
    assert cursor.round_base == base


MALFORMED = [
    "",
    ":",
    "::",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e3",
    " 1",
    "1\n",
    "٣",
    str(LARGEST + 1),
    "9" * 16,
    "1" * 17,
    "null",
    "5f1c09ab33d2",
    "5f1c09ab33d2:2149",
    "5f1c09ab33d2:2149:",
    "5f1c09ab33d:2149:77aa03ac674216f3",
    "5F1C09AB33D2:2149:77aa03ac674216f3",
    "5f1c09ab33d2:2149:77aa03ac674216f",
    "5f1c09ab33d2:2149:77AA03AC674216F3",
    "5f1c09ab33d2:02149:77aa03ac674216f3",
    "5f1c09ab33d2:-1:77aa03ac674216f3",
    "5f1c09ab33d2:٣:77aa03ac674216f3",
    f"5f1c09ab33d2:{LARGEST + 1}:77aa03ac674216f3",
    f"5f1c09ab33d2:{'9' * 16}:77aa03ac674216f3",
    f" {THREE}",
    f"{THREE} ",
    f"{THREE}\n",
    f"{THREE}:",
    f"{THREE}::",
    f"{THREE}:=",
    f"{THREE}:{THREE}",
    f"{THREE}:base",
    f"{THREE}:base=",
    f"{THREE}:base=-1",
    f"{THREE}:base=x",
    f"{THREE}:base=00",
    f"{THREE}:base=2150",
    f"{THREE}:base=1:base=1",
    f"{THREE}:base=1:",
    f"{THREE}:base=1:until=2148",
    f"{THREE}:base=1:until=",
    f"{THREE}:base=1:until={LARGEST + 1}",
    f"{THREE}:base=1:until={'9' * 16}",
    f"{THREE}:until=3000",
    f"{THREE}:client={CLIENT}",
    f"{THREE}:base=1:client",
    f"{THREE}:base=1:client=",
    f"{THREE}:base=1:client=me",
    f"{THREE}:base=1:client={CLIENT.upper()}",
    f"{THREE}:base=1:client={CLIENT[:-1]}",
    f"{THREE}:base=1:client={UUID(CLIENT).hex}",
    f"{THREE}:base=1:client={{{CLIENT}}}",
    f"{THREE}:collections",
    f"{THREE}:collections=a,",
    f"{THREE}:collections=,a",
    f"{THREE}:collections=a%2Cb",
    f"{THREE}:collections=%00",
    f"{THREE}:collections=a%0A",
    f"{THREE}:collections=%FF",
    f"{THREE}:collections={'a' * 129}",
    f"{THREE}:epoch=1",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_text_is_the_requesters_fault(text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_since(text)

    assert [fault.pointer for fault in raised.value.errors] == ["/since"]


def test_the_fault_names_the_parameter_that_it_is_in() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse("2149", parameter="at")

    assert [fault.pointer for fault in raised.value.errors] == ["/at"]


PIECES = st.sampled_from(
    [
        THREE,
        ":",
        "=",
        ",",
        "%",
        "%2C",
        "%00",
        "base",
        "until",
        "client",
        "collections",
        CLIENT,
        "0",
        "2149",
        "é",
        "\n",
        "\0",
    ]
)


@given(st.text() | st.lists(PIECES, max_size=12).map("".join) | st.lists(PIECES, max_size=9).map(f"{THREE}:".join))
@settings(max_examples=500)
def test_any_text_is_a_cursor_that_can_be_written_or_the_requesters_fault(text: str) -> None:
    try:
        cursor = parse_since(text)
    except InvalidRequest:
        return

    assert parse_since(str(cursor)) == cursor
