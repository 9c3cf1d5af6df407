"""The import form: what a line may say, and how what it may not say is told."""

import io

import pytest

from journal.cli.ndjson import Lines
from journal.cli.say import Failed

GOOD = b'{"at": "2026-03-02T08:00:00Z", "changes": [{"op": "put", "collection": "a", "atom": "b", "data": {"n": 1}}]}\n'


def lines(text: bytes) -> Lines:
    return Lines(io.BytesIO(text), "file")


def line(changes: str) -> bytes:
    return f'{{"at": "2026-03-02T08:00:00Z", "changes": [{changes}]}}\n'.encode()


def test_lines_are_numbered_as_an_editor_does_and_empty_ones_are_left_out() -> None:
    entries = list(lines(b"\n" + GOOD + b"  \r\n" + GOOD.strip()).entries())

    assert [entry.number for entry in entries] == [2, 4]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_that_is_beyond_the_calendar_in_utc_is_told_with_its_line(at: str) -> None:
    """It was let through, and PostgreSQL's driver fell over it (tests/fuzz)."""
    with pytest.raises(Failed, match="line 2: /at: is beyond the years 1 to 9999 in UTC"):
        list(lines(GOOD + GOOD.replace(b"2026-03-02T08:00:00Z", at.encode())).entries())


def test_a_line_is_the_same_only_where_all_before_it_are() -> None:
    other = GOOD.replace(b"1}", b"2}")

    contents = [[entry.content for entry in lines(text).entries()] for text in (GOOD * 3, GOOD + other + GOOD)]

    assert contents[0][0] == contents[1][0]
    assert contents[0][2] != contents[1][2]


def test_skipping_goes_on_behind_the_line_or_tells_that_it_is_not_there() -> None:
    three = lines(GOOD * 3)
    content = [entry.content for entry in lines(GOOD * 3).entries()]

    assert three.skip(2) == content[1]
    assert [entry.number for entry in three.entries()] == [3]
    assert lines(GOOD).skip(2) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "malformed JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "object"),
        (b'{"changes": []}', "/at: missing"),
        (b'{"at": "2026-03-02T08:00:00", "changes": []}', "/at: "),
        (b'{"at": "2026-03-02T08:00:00Z", "changes": [], "change": []}', 'did you mean "changes"?'),
        (line('{"op": "upsert", "collection": "a", "atom": "b"}'), "/changes/0/op: must be one of"),
        (line('{"op": "delete", "collection": "a,b", "atom": "b"}'), "/changes/0/collection: "),
        (line('{"op": "delete", "collection": "a", "atom": ""}'), "/changes/0/atom: "),
        (line('{"op": "delete", "collection": "a", "atom": "b", "data": {}}'), "/changes/0: a delete has no data"),
        (line('{"op": "insert", "collection": "a", "atom": "b"}'), "/changes/0: data is missing"),
        (line('{"op": "put", "collection": "a", "atom": "b", "data": 1}'), "/changes/0/data: must be a JSON object"),
        (line('{"op": "put", "collection": "a", "atom": "b", "data": {}, "unset": []}'), "goes with an update only"),
        (line('{"op": "update", "collection": "a", "atom": "b"}'), "data, unset or both"),
        (line('{"op": "put", "collection": "a", "atom": "b", "data": {"n": 9007199254740993}}'), "would be rounded"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number_and_place(text: bytes, reason: str) -> None:
    with pytest.raises(Failed) as failed:
        list(lines(GOOD + text).entries())

    assert failed.value.text.startswith("line 2: ")
    assert reason in failed.value.text
