"""Server-sent events, as the HTML standard (section 9.2.6) makes them of bytes, and a stream of them.

The rule: an event is told once its empty line has come; what a stream that breaks off had begun is nothing. Data
stays the bytes that were sent.
"""

import re
from collections.abc import AsyncGenerator

import msgspec
from yarl import URL

from journal.client.http import Http, Unreachable
from journal.errors import JournalError

MOST_BYTES = 64 << 20
_MEDIA = "text/event-stream"
_HEADERS = {"Accept": _MEDIA, "Accept-Encoding": "identity", "Cache-Control": "no-store"}
_BOM = b"\xef\xbb\xbf"
_LONGEST_RETRY = 15  # digits: more are no time that anybody waits
_END_OF_LINE = re.compile(rb"\r\n|\r|\n")


class TooLong(JournalError):
    """An event is longer than was agreed."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"an event of more than {most_bytes} bytes")
        self.most_bytes = most_bytes


class Event(msgspec.Struct, frozen=True):
    """One event. `id`: where to go on after it; None as long as the stream has told none."""

    name: str
    id: str | None
    data: bytes


class Parser:
    """Makes events of one stream's bytes, in whatever pieces they come. Another stream needs another.

    `last_id`: that of the last event, with data or without. `retry_ms`: when to come back, as far as it was told.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.last_id: str | None = None
        self.retry_ms: int | None = None
        self._most_bytes = most_bytes
        self._begun: list[bytes] = []  # pieces of a line that has not ended
        self._begun_bytes = 0
        self._is_first, self._is_after_cr = True, False
        self._name = ""
        self._id: str | None = None
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece. TooLong for one whose data and newest line exceed the bytes agreed on."""
        if self._is_after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._is_after_cr = False
        if not piece:
            return []
        self._is_after_cr = piece.endswith(b"\r")
        *ended, rest = _END_OF_LINE.split(piece)
        events = []
        for end in ended:
            self._begin(end)
            line, self._begun, self._begun_bytes = b"".join(self._begun), [], 0
            if (event := self._line(line)) is not None:
                events.append(event)
        if rest:
            self._begin(rest)
        return events

    def _begin(self, part: bytes) -> None:
        self._begun.append(part)
        self._begun_bytes += len(part)
        if self._data_bytes + self._begun_bytes > self._most_bytes:
            raise TooLong(self._most_bytes)

    def _line(self, line: bytes) -> Event | None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatched()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"event":
                self._name = _text(value)
            case b"data":
                self._data.append(value)
                self._data_bytes += len(value)
            case b"id" if b"\0" not in value:
                self._id = _text(value)
            case b"retry" if value.isdigit() and len(value) <= _LONGEST_RETRY:
                self.retry_ms = int(value)
        return None  # also after a comment, whose field has no name, and fields that nobody knows

    def _dispatched(self) -> Event | None:
        name, data = self._name or "message", self._data
        self.last_id = self._id
        self._name, self._data, self._data_bytes = "", [], 0
        return Event(name, self.last_id, b"\n".join(data)) if data else None


async def events(
    http: Http, place: URL, parser: Parser | None = None, *, silence_s: float
) -> AsyncGenerator[Event, None]:
    """The events from `place` until the stream ends; `parser.retry_ms` then says when it is to be opened again.

    Refused as any request is; Unreachable where it breaks off, where nothing is heard for `silence_s`, or where what
    answers is no stream of events. Who leaves it before its end closes it: contextlib.aclosing.
    """
    parser = parser or Parser()
    async with http.request("GET", place, _HEADERS, read_s=silence_s) as response:
        if response.status != 200 or response.content_type != _MEDIA:
            raise Unreachable(http.url, f"{response.status} with {response.content_type}, not a stream of events")
        async for piece in response.content.iter_any():
            for event in parser.feed(piece):
                yield event


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
