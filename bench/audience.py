"""An audience: thousands of streams or of waiting polls, held by a process of its own (`python -m bench.audience`).

One thread, one epoll, plain sockets. What came is read in bulk and taken apart once for all who were sent the same
bytes, so that the reading costs a few microseconds a stream; everything that was ready at once has the same moment of
arrival. Each stream's events must follow on one another: an event's `since` is the revision of the id before it.
"""

import os
import re
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench.load import get
from bench.place import ROOT

AT_ONCE = 100  # connections that are being opened
READ_BYTES = 16 << 10
KEPT = 4096
FRAME_BYTES = 8192

_ID = re.compile(rb"^id: [0-9a-f]+:(\d+):", re.M)
_SINCE = re.compile(rb'"since":(\d+)')
_UNTIL = re.compile(rb'"until":(\d+)')
_CURSOR = re.compile(rb'"cursor":"([^"]+)"')


class Open(msgspec.Struct, tag=True):
    """Open connections and ask. `path` ends with where a cursor goes; `at` is the cursor's revision."""

    port: int
    path: str
    cursor: str
    at: int
    count: int
    is_stream: bool


class Reach(msgspec.Struct, tag=True):
    """Tell what was heard when everyone is at a revision, or the time is up."""

    revision: int
    seconds: float


class Heard(msgspec.Struct):
    """What was heard since it was last told. `arrivals`: when, and by how many, each revision was reached."""

    is_complete: bool = True
    events: int = 0
    bookmarks: int = 0
    size: int = 0
    faults: list[str] = []
    arrivals: dict[int, list[tuple[float, int]]] = {}
    frames: list[tuple[int, int, bytes]] = []

    def latest(self) -> float:
        """The moment of the last arrival."""
        return max(moment for arrived in self.arrivals.values() for moment, _ in arrived)


Command = Open | Reach


class Audience:
    """The bench's end of the process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.count = 0

    def open(self, port: int, path: str, cursor: str, count: int, *, is_stream: bool = True) -> Heard:
        """Open so many more; a stream counts as open when it was answered, a poll when it has been asked."""
        self.count += count
        at = int(cursor.split(":")[1])
        return self._ask(Open(port, path, cursor, at, count, is_stream))

    def reach(self, revision: int, seconds: float = 60.0) -> Heard:
        """Wait until all have heard of a revision: each of every one before it, once and in order."""
        return self._ask(Reach(revision, seconds))

    def _ask(self, command: Command) -> Heard:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(command) + b"\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        if not told:
            raise ConnectionError("the audience is gone")
        heard = msgspec.json.decode(told, type=Heard)
        assert not heard.faults, heard.faults
        assert heard.is_complete, f"late: {command}"
        return heard


@contextmanager
def audience() -> Iterator[Audience]:
    """A process, nobody in it yet."""
    arguments = [sys.executable, "-m", "bench.audience"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Audience(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


# The process.

Told = tuple[int, int, int, int]
"""What some bytes told: the revision from which they go on (-1: nothing), the one they reach, events, bookmarks."""

_NOTHING: Told = (-1, 0, 0, 0)


class Fault(Exception):
    """What must not be."""


class Stream:
    """One stream's answer, taken apart."""

    def __init__(self, asked: Open, frames: dict[tuple[int, int], bytes]) -> None:
        self.at = asked.at
        self.is_between = False  # events, and chunks
        self.is_answered = False
        self._frames = frames
        self._raw = bytearray()
        self._text = bytearray()
        self._looked = 0
        self._left = -1  # of the chunk; -1: its size is to come

    def feed(self, received: bytes) -> Told:
        """What came."""
        self._raw += received
        if not self.is_answered:
            end = self._raw.find(b"\r\n\r\n")
            if end < 0:
                return _NOTHING
            head = bytes(self._raw[:end])
            if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head:
                raise Fault(head.decode())
            del self._raw[: end + 4]
            self.is_answered = True
        self._unchunk()
        told = self._events()
        self.is_between = not self._text and not self._raw and self._left < 0
        return told

    def _unchunk(self) -> None:
        raw, at = self._raw, 0
        while True:
            if self._left < 0:
                line = raw.find(b"\r\n", at)
                if line < 0:
                    break
                size = int(raw[at:line], 16)
                if size == 0:
                    raise Fault("the stream was ended")
                self._left, at = size + 2, line + 2  # and the line's end behind it
            taken = min(self._left, len(raw) - at)
            text = min(self._left - 2, taken)
            if text > 0:
                self._text += raw[at : at + text]
            self._left -= taken
            at += taken
            if self._left:
                break
            self._left = -1
        del raw[:at]

    def _events(self) -> Told:
        first, last, events, bookmarks, at = -1, 0, 0, 0, 0
        while (end := self._text.find(b"\n\n", max(at, self._looked))) >= 0:
            event = bytes(self._text[at : end + 2])
            at = end + 2
            if event.startswith(b"event: deltas\n"):
                since, revision = _revision(_SINCE, event), _revision(_ID, event)
                if first < 0:
                    first = since
                elif since != last:
                    raise Fault(f"{since} after {last}")
                if revision <= since:
                    raise Fault(f"{revision} is not after {since}")
                last = revision
                events += 1
                if len(event) < FRAME_BYTES:
                    self._frames[since, revision] = event
            elif event.startswith(b"event: bookmark\n"):
                bookmarks += 1
            elif not event.startswith((b"retry: ", b":")):
                raise Fault(event[:200].decode())
        del self._text[:at]
        self._looked = max(len(self._text) - 1, 0)
        return first, last, events, bookmarks


class Waiter:
    """One who polls and waits, again and again. Its answers all differ in their heads: nothing to be taken once."""

    is_between = False
    is_answered = True

    def __init__(self, asked: Open, connection: socket.socket) -> None:
        self.at = asked.at
        self._path, self._connection = asked.path, connection
        self._raw = b""

    def feed(self, received: bytes) -> Told:
        """What came; when it is whole the next request is sent."""
        self._raw += received
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            return _NOTHING
        if not self._raw.startswith(b"HTTP/1.1 200 "):
            raise Fault(self._raw.decode())
        start = self._raw.index(b"Content-Length: ", 0, end) + 16
        body = self._raw[end + 4 :]
        if len(body) < int(self._raw[start : self._raw.index(b"\r\n", start)]):
            return _NOTHING
        self._raw = b""
        cursor = _CURSOR.search(body)
        if cursor is None:
            raise Fault(body[:200].decode())
        self._connection.send(get(self._path + cursor[1].decode()))
        since, until = _revision(_SINCE, body), _revision(_UNTIL, body)
        return _NOTHING if since == until else (since, until, 1, 0)


def _revision(pattern: re.Pattern[bytes], text: bytes) -> int:
    found = pattern.search(text)
    if found is None:
        raise Fault(f"no {pattern.pattern!r} in {text[:200]!r}")
    return int(found[1])


class House:
    """All of them, and the one who asks."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.poll.register(0, select.EPOLLIN)
        self.listeners: dict[int, Stream | Waiter] = {}
        self.connections: dict[int, socket.socket] = {}
        self.frames: dict[tuple[int, int], bytes] = {}
        self.known: dict[bytes, Told] = {}
        self.heard = Heard(arrivals={}, faults=[])
        self.opening: Open | None = None
        self.missing = 0
        self.unanswered = 0
        self.goal = sys.maxsize
        self.behind = 0
        self.until: float | None = None

    def run(self) -> None:
        """Until who asks is gone."""
        rest = b""
        while True:
            left = -1.0 if self.until is None else max(self.until - time.monotonic(), 0.0)
            ready = self.poll.poll(left, 1 << 15)
            now = time.monotonic()
            if self.read(ready, now):
                asked = os.read(0, READ_BYTES)
                if not asked:
                    return
                *lines, rest = (rest + asked).split(b"\n")
                for line in lines:
                    self.do(msgspec.json.decode(line, type=Command))
            if self.opening is not None:
                self.open(self.opening)
            if self.until is not None and (not self.behind or now >= self.until or self.heard.faults):
                self.until = None
                self.tell(is_complete=not self.behind)

    def read(self, ready: list[tuple[int, int]], now: float) -> bool:
        """Read what has come; whether the one who asks has said something."""
        listeners, known, goal, read = self.listeners, self.known, self.goal, os.read
        reached: Counter[int] = Counter()
        size = events = bookmarks = 0
        is_asked = False
        for place, _ in ready:
            listener = listeners.get(place)
            if listener is None:
                is_asked = True
                continue
            try:
                received = read(place, READ_BYTES)
            except ConnectionError:
                received = b""
            size += len(received)
            told = known.get(received) if listener.is_between else None
            if told is None:
                told = self.take_apart(place, listener, received)
            since, revision, more, marks = told
            bookmarks += marks
            if since < 0:
                continue
            if since != listener.at:
                self.heard.faults.append(f"{since} after {listener.at}")
            if listener.at < goal <= revision:
                self.behind -= 1
            listener.at = revision
            events += more
            reached[revision] += 1
        self.heard.size += size
        self.heard.events += events
        self.heard.bookmarks += bookmarks
        for revision, count in reached.items():
            self.heard.arrivals.setdefault(revision, []).append((now, count))
        return is_asked

    def take_apart(self, place: int, listener: Stream | Waiter, received: bytes) -> Told:
        """What is not known yet, or not whole."""
        was_between, was_answered = listener.is_between, listener.is_answered
        try:
            if not received:
                raise Fault("hung up on")
            told = listener.feed(received)
        except Fault as fault:
            self.heard.faults.append(str(fault))
            self.drop(place)
            return _NOTHING
        if listener.is_answered and not was_answered:
            self.unanswered -= 1
        if was_between and listener.is_between:
            if len(self.known) > KEPT:
                self.known.clear()
            self.known[received] = told
        return told

    def do(self, command: Command) -> None:
        """What was asked for."""
        match command:
            case Open():
                self.opening, self.missing = command, command.count
            case Reach():
                self.goal = command.revision
                self.behind = sum(listener.at < self.goal for listener in self.listeners.values())
                self.until = time.monotonic() + command.seconds

    def open(self, asked: Open) -> None:
        """Open a few more; tell when all are."""
        while self.missing and self.unanswered < AT_ONCE and not self.heard.faults:
            self.missing -= 1
            connection = socket.create_connection(("127.0.0.1", asked.port))
            connection.sendall(get(asked.path + asked.cursor))
            connection.setblocking(False)
            place = connection.fileno()
            if asked.is_stream:
                self.listeners[place] = Stream(asked, self.frames)
                self.unanswered += 1
            else:
                self.listeners[place] = Waiter(asked, connection)
            self.connections[place] = connection
            self.poll.register(place, select.EPOLLIN)
        if self.heard.faults or (not self.missing and not self.unanswered):
            self.opening = None
            self.tell(is_complete=True)

    def drop(self, place: int) -> None:
        """Hang up."""
        self.poll.unregister(place)
        self.connections.pop(place).close()
        del self.listeners[place]

    def tell(self, *, is_complete: bool) -> None:
        """Tell what was heard, and begin anew."""
        self.heard.is_complete = is_complete
        self.heard.faults = self.heard.faults[:5]
        self.heard.frames = [(*place, frame) for place, frame in sorted(self.frames.items())]
        os.write(1, msgspec.json.encode(self.heard) + b"\n")
        self.frames.clear()
        self.heard = Heard(arrivals={}, faults=[])


def chunk(text: bytes) -> bytes:
    """A chunk of chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(text), text)


def weighted(arrived: list[tuple[float, int]], share: float) -> float:
    """The value below which a share of the weight lies."""
    ordered = sorted(arrived)
    left = share * sum(weight for _, weight in ordered)
    for value, weight in ordered:
        left -= weight
        if left <= 0:
            return value
    return ordered[-1][0]


if __name__ == "__main__":
    House().run()
