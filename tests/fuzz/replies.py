"""What clients read of answers: server-sent events by the letter of the standard, problems, and where a download is."""

import re
from types import SimpleNamespace
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from journal.client import download
from journal.client.events import Parser, TooLong
from journal.client.http import Http, Refused, Unreachable, _refusal
from tests.fuzz.target import Target, text_of
from tests.unit.test_client_events import by_the_letter

HTTP = Http("http://service.test/behind", None)  # type: ignore[arg-type]  # nothing is asked


def of_events(data: bytes) -> None:
    """The first three bytes say where the stream is cut into pieces."""
    cuts, stream = sorted(set(data[:3])), data[3:]
    parser = Parser()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    told = [event for piece in pieces for event in parser.feed(piece)]

    events, last_id, retry = by_the_letter(stream)
    assert told == events
    assert (parser.last_id, parser.retry_ms) == (last_id, retry)

    bounded = Parser(most_bytes=64)
    try:
        held = [event for piece in pieces for event in bounded.feed(piece)]
    except TooLong:
        assert max(map(len, re.split(rb"\r\n|\n|\r", stream))) > 8 or len(stream) > 64
    else:
        assert held == events


def of_answers(data: bytes) -> None:
    """To the first NUL a header, then a body: what is told of an answer that is a problem, or a place to go on."""
    header, _, body = data.partition(b"\0")
    text = text_of(header)
    answer: Any = SimpleNamespace(status=503, reason=text, headers=CIMultiDict({"Retry-After": text}))
    refused = _refusal(answer, body)
    assert isinstance(refused, Refused)
    assert 0 <= refused.retry_after < 10**9
    assert isinstance(refused.code, str)
    assert isinstance(str(refused), str)
    assert refused.will_pass
    if re.fullmatch("[0-9]{1,9}", text):
        assert refused.retry_after == int(text)

    try:
        place = HTTP.below(text)
    except Unreachable:
        pass
    else:
        assert (place.scheme, place.raw_host, place.port) == ("http", "service.test", 80)
        assert place.raw_path.startswith("/behind/")
        assert URL(str(place), encoded=True).origin() == URL("http://service.test")

    size = download.size_of(text)
    assert size is None or 0 <= size < 10**18
    if re.fullmatch("[0-9]{1,18}", text):
        assert size == int(text)


EVENTS = Target(
    "events",
    of_events,
    [b"\x01\x05\x20event: deltas\nid: 5f1c09ab33d2:1:9f86d081884c7d65\ndata: {}\n\nretry: 1500\n\n: x\n\n",
     b"\0\0\0\xef\xbb\xbfdata:a\r\n\r\ndata:b\r\r\ndata:c\n\r\n", b"\x02\x03\x04id\ndata\ndata:\n\nid: \0\ndata: \n\n"],
    [b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b":", b" ", b"data", b"data:", b"data: ", b"event:", b"id:", b"id",
     b"retry:", b"1500", b"\0", b"\xff", "é".encode(), b"\n\n", b"\r\r", "٣".encode()],
)  # fmt: skip
ANSWERS = Target(
    "answers",
    of_answers,
    [b'30\0{"type":"urn:journal:problem:unavailable","title":"x","status":503,"code":"unavailable"}',
     b"Fri, 31 Dec 1999 23:59:59 GMT\0<html>", b"/v1/journals/j/snapshots/x\0{}", b"http://elsewhere.test/\0[]",
     b"//elsewhere.test/behind/\0null", b"../../x?y#z\0{\"title\":7,\"code\":[]}", b"9" * 5000 + b"\0"],
    [b"http://", b"//", b"service.test", b"@", b":80", b":8080", b"/behind", b"/../", b"%2e%2e", b"\\", b"?", b"#",
     b"[::1]", b"\0", b'"title":', b'"code":', b"{", b"}", b"0", "٣".encode(), b"\xff", "é".encode()],
    longest=6000,
)  # fmt: skip
