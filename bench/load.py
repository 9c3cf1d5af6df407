"""A load generator that costs little: raw HTTP/1.1 on connections that are kept, requests encoded beforehand.

Closed loop: a connection sends its next request when the last one is answered, so that the rate is what the
service gives, and the mean latency is connections ÷ rate. Answers are parsed only as far as their length.
"""

import asyncio
import os
import socket
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec

Ask = Callable[[bytes], bytes | None]
"""The next request, given the body of the last answer (b"" at the start); None when there is none left."""

LATE_S = 60.0
WINDOW = 1 << 20


class Served(msgspec.Struct, frozen=True):
    """A process that serves, and the folder that it was given."""

    port: int
    pid: int
    folder: Path

    def cpu_s(self) -> float:
        """The processor time that it has used, in all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load(msgspec.Struct, frozen=True):
    """What a round of requests came to. `statuses`: how many answers of each; `cpu_us`: what one cost the service."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[int, int]
    cpu_us: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Fetched(msgspec.Struct, frozen=True):
    """One large answer: how long it took to the last byte, and what came, still in chunks where it was chunked."""

    status: int
    seconds: float
    size: int
    head: bytes
    raw: bytes

    @property
    def body(self) -> bytes:
        """The body, its chunks put together."""
        return _whole(self.raw) if _CHUNKED in self.head else self.raw

    def header(self, name: str) -> str:
        """A header's value."""
        start = self.head.index(name.encode() + b": ") + len(name) + 2
        return self.head[start : self.head.index(b"\r\n", start)].decode()


def get(path: str, **headers: str) -> bytes:
    """The bytes of a GET."""
    return _request("GET", path, headers)


def post(path: str, body: bytes) -> bytes:
    """The bytes of a POST of JSON."""
    return _request("POST", path, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body


def put(path: str) -> bytes:
    """The bytes of a PUT without a body."""
    return _request("PUT", path, {"Content-Length": "0"})


def _request(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def closed_loop(served: Served, asks: Sequence[Ask], *, seconds: float = 60.0) -> Load:
    """As many connections as `asks`, each asking on for `seconds` at most; what is under way then is waited for."""
    loop = asyncio.get_running_loop()
    latencies, statuses = array("d"), Counter[bytes]()
    connections: list[_Connection] = []
    for ask in asks:
        made = _Connection(ask, latencies, statuses, loop.create_future())
        await loop.create_connection(lambda made=made: made, "127.0.0.1", served.port)  # type: ignore[misc]
        connections.append(made)
    start, cpu_s = time.perf_counter(), served.cpu_s()
    for connection in connections:
        connection.begin(start + seconds)
    async with asyncio.timeout(seconds + LATE_S):
        await asyncio.gather(*(connection.done for connection in connections))
    took = time.perf_counter() - start
    ordered = sorted(latencies)
    return Load(
        requests=len(ordered),
        seconds=took,
        p50_ms=1000 * ordered[len(ordered) // 2],
        p99_ms=1000 * ordered[len(ordered) * 99 // 100],
        statuses={int(status): count for status, count in statuses.items()},
        cpu_us=1e6 * (served.cpu_s() - cpu_s) / len(ordered),
    )


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(
        self, ask: Ask, latencies: "array[float]", statuses: Counter[bytes], done: "asyncio.Future[None]"
    ) -> None:
        self.ask, self.latencies, self.statuses, self.done = ask, latencies, statuses, done
        self.rest: list[bytes] = []
        self.missing = 0
        self.status = b""
        self.head_end = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by class

    def begin(self, until: float) -> None:
        """Send the first request; none after the moment `until`."""
        self.until = until
        self.go_on(b"")

    def go_on(self, answered: bytes) -> None:
        request = self.ask(answered)
        if request is None:
            self.end()
        else:
            self.sent = time.perf_counter()
            self.transport.write(request)

    def end(self) -> None:
        self.transport.close()
        self.done.set_result(None)

    def data_received(self, received: bytes) -> None:
        if self.missing:
            self.rest.append(received)
            self.missing -= len(received)
        else:
            self.head_end = received.index(b"\r\n\r\n") + 4  # a head comes in one piece: it is far below a segment
            start = received.index(b"Content-Length: ") + 16
            length = int(received[start : received.index(b"\r\n", start)])
            self.status = received[9:12]
            self.missing = self.head_end + length - len(received)
            self.rest = [received]
        if self.missing <= 0:
            self.answered()

    def answered(self) -> None:
        now = time.perf_counter()
        self.latencies.append(now - self.sent)
        self.statuses[self.status] += 1
        if now >= self.until:
            self.end()
            return
        whole = self.rest[0] if len(self.rest) == 1 else b"".join(self.rest)
        self.go_on(whole[self.head_end :])

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed by the service"))


class Reader:
    """One blocking connection for large answers: reads as fast as the kernel gives."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LATE_S)
        self._room = bytearray(WINDOW)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def fetch(self, request: bytes, *, keep: bool = True) -> Fetched:
        """Ask and read the whole answer; with `keep` false its body is counted and thrown away."""
        start = time.perf_counter()
        self._socket.sendall(request)
        filled = 0
        while (end := self._room.find(b"\r\n\r\n", 0, filled)) < 0:
            filled += self._receive(filled)
        head = bytes(self._room[: end + 2])
        body_at = end + 4
        if _CHUNKED in head:
            filled = self._to_the_last_chunk(body_at, filled)
            size = filled - body_at
        else:
            at = head.index(b"Content-Length: ") + 16
            size = int(head[at : head.index(b"\r\n", at)])
            filled = self._to_length(body_at + size, filled, keep=keep)
        took = time.perf_counter() - start
        return Fetched(int(head[9:12]), took, size, head, bytes(self._room[body_at:filled]) if keep else b"")

    def _receive(self, filled: int) -> int:
        if len(self._room) - filled < WINDOW // 2:
            self._room += bytes(len(self._room))
        with memoryview(self._room) as room:
            received = self._socket.recv_into(room[filled:])
        if not received:
            raise ConnectionError("closed by the service")
        return received

    def _to_the_last_chunk(self, body_at: int, filled: int) -> int:
        # What is asked for here never holds these bytes itself: JSON text has no carriage return.
        while filled - body_at < 5 or self._room[filled - 5 : filled] != b"0\r\n\r\n":
            filled += self._receive(filled)
        return filled

    def _to_length(self, length: int, filled: int, *, keep: bool) -> int:
        if keep:
            while filled < length:
                filled += self._receive(filled)
            return filled
        with memoryview(self._room) as room:
            while filled < length:
                received = self._socket.recv_into(room[: min(len(room), length - filled)])
                if not received:
                    raise ConnectionError("closed by the service")
                filled += received
        return 0


_CHUNKED = b"Transfer-Encoding: chunked"


def _whole(chunked: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = chunked.index(b"\r\n", at)
        size = int(chunked[at:line_end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(chunked[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
