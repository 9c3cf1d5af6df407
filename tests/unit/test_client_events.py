"""Server-sent events by the letter of the HTML standard, section 9.2.6, however the bytes are cut into pieces."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal.client.events import Event, Parser, TooLong

MARKS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b":", b" ", b"data", b"data:", b"data: ", b"event", b"event:", b"id:",
     b"id", b"retry:", b"retry", b"1500", b"a", b"\0", b"\xff", "é".encode(), b"bookmark", b"\n\n", b"\r\r",
     b"data:x\n\n"]
)  # fmt: skip
STREAMS = st.lists(MARKS, max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 120), max_size=12)


def cut(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    at = sorted(min(place, len(stream)) for place in cuts)
    return [stream[start:end] for start, end in zip([0, *at], [*at, len(stream)], strict=True)]


def parsed(*pieces: bytes) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def by_the_letter(stream: bytes) -> tuple[list[Event], str | None, int | None]:
    """What the standard says of a whole stream: its events, the last event ID, the reconnection time."""
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events: list[Event] = []
    data, kind, id_buffer = b"", "", None
    last_id: str | None = None
    retry: int | None = None
    for line in lines:
        if line == b"":
            last_id = id_buffer
            if data != b"":
                events.append(Event(kind or "message", last_id, data[:-1]))
            data, kind = b"", ""
            continue
        if line[:1] == b":":
            continue
        if b":" in line:
            field, value = line[: line.index(b":")], line[line.index(b":") + 1 :]
            value = value[1:] if value[:1] == b" " else value
        else:
            field, value = line, b""
        if field == b"event":
            kind = value.decode(errors="replace")
        elif field == b"data":
            data += value + b"\n"
        elif field == b"id" and b"\0" not in value:
            id_buffer = value.decode(errors="replace")
        elif field == b"retry" and re.fullmatch(rb"[0-9]{1,15}", value):
            retry = int(value)
    return events, last_id, retry


@given(STREAMS, CUTS)
@example(b"data:a\r\n\r\ndata:b\r\r\ndata:c\n\r\n", [7, 8, 9, 10, 17, 18])
@example(b"\xef\xbb\xbfdata:a\n\n\xef\xbb\xbfdata:b\n\n", [1, 2, 3])
def test_any_split_of_the_bytes_gives_the_events_of_the_standard(stream: bytes, cuts: list[int]) -> None:
    parser = Parser()

    told = [event for piece in cut(stream, cuts) for event in parser.feed(piece)]

    assert (told, parser.last_id, parser.retry_ms) == by_the_letter(stream)


@given(STREAMS)
def test_byte_by_byte_it_is_the_same(stream: bytes) -> None:
    assert parsed(*(stream[at : at + 1] for at in range(len(stream)))) == by_the_letter(stream)[0]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_told_as_soon_as_its_empty_line_has_come(end: bytes) -> None:
    parser = Parser()

    before = parser.feed(b"event: deltas" + end + b"id: e:1:c" + end + b"data: {}" + end)
    after = parser.feed(end)

    assert (before, after) == ([], [Event("deltas", "e:1:c", b"{}")])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of the standard.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", None, b"YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [Event("message", "1", b"first event"), Event("message", "", b"second event"),
             Event("message", "", b" third event")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Event("message", None, b""), Event("message", None, b"\n")]),
        (b"data:test\n\ndata: test\n\n", [Event("message", None, b"test")] * 2),
        # And what they do not say.
        (b"id: 1\n\ndata:a\n\n", [Event("message", "1", b"a")]),
        (b"id: 1\nid: 2\0\ndata:a\n\n", [Event("message", "1", b"a")]),
        (b"event: x\n\ndata:a\n\n", [Event("message", None, b"a")]),
        (b"Data:a\ndata :b\n data:c\n\n", []),
        (b"data:a:b\n\n", [Event("message", None, b"a:b")]),
        (b"data:\xff\nid:\xff\n\n", [Event("message", "\ufffd", b"\xff")]),
        (b"data:a\n", []),
    ],
)  # fmt: skip
def test_some_streams_and_their_events(stream: bytes, events: list[Event]) -> None:
    assert parsed(stream) == events


@pytest.mark.parametrize(
    ("lines", "retry_ms"),
    [
        (b"retry: 1500\n", 1500), (b"retry:0\n", 0), (b"retry: 007\n", 7), (b"retry: 1\nretry: 2\n", 2),
        (b"retry: 1500", None), (b"retry:\n", None), (b"retry\n", None), (b"retry: -1\n", None),
        (b"retry: 1.5\n", None), (b"retry: 1s\n", None), (b"retry:  1\n", None),
        ("retry: ١\n".encode(), None), (b"retry: 5\nretry: x\n", 5),
        (b"retry: " + b"9" * 5000 + b"\n", None),
    ],
)  # fmt: skip
def test_when_to_come_back_is_told_in_digits_only(lines: bytes, retry_ms: int | None) -> None:
    parser = Parser()

    parser.feed(lines)

    assert parser.retry_ms == retry_ms


def test_an_id_counts_once_its_event_has_ended() -> None:
    parser = Parser()

    parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")

    assert parser.last_id == "1"
    parser.feed(b"\n")
    assert parser.last_id == "2"


@given(st.integers(0, 30), CUTS)
def test_an_event_of_more_bytes_than_agreed_is_an_error_however_it_is_cut(extra: int, cuts: list[int]) -> None:
    """The line that is being read counts with its field's name."""
    stream = b"data:0123456789\ndata:" + b"x" * extra + b"\n\n"
    parser = Parser(30)

    def told() -> list[Event]:
        return [event for piece in cut(stream, cuts) for event in parser.feed(piece)]

    if extra <= 15:
        assert told() == [Event("message", None, b"0123456789\n" + b"x" * extra)]
    else:
        with pytest.raises(TooLong) as error:
            told()
        assert error.value.most_bytes == 30


@pytest.mark.parametrize("endless", [b"data:x\n", b"x", b": comment", b"id: 1"])
def test_what_never_ends_is_not_kept(endless: bytes) -> None:
    parser = Parser(1000)

    def go_on() -> None:
        for _ in range(2000):
            parser.feed(endless)

    with pytest.raises(TooLong):
        go_on()


def test_many_events_and_comments_are_never_too_long_together() -> None:
    parser = Parser(100)

    told = [event for _ in range(1000) for event in parser.feed(b": still here\nid: 1\nevent: bookmark\ndata: {}\n\n")]

    assert told == [Event("bookmark", "1", b"{}")] * 1000
