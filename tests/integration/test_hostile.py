"""What a hostile or clumsy peer gets, on real sockets: an answer or an end, soon, and none of the service's memory.

Each test looks afterwards at the process's memory, and whether it still answers others.
"""

import asyncio
import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from journal.config import Walls
from tests.conftest import named
from tests.harness import Json, insert
from tests.postgres import Server
from tests.subprocess_service import Remote, serving_apart

MIB = 1 << 20
IMPATIENT = Walls(head_s=1.0, idle_s=2.0, body_s=1.0, body_bytes_per_s=20_000, bodies_bytes=24 * MIB)
GROWTH_MB = 64
HEAD = b"Host: localhost\r\n"
AS_JSON = HEAD + b"Content-Type: application/json\r\n"
AT = "/v1/journals/j/changes"


@pytest.fixture(scope="module")
async def hurried(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Remote]:
    """The service in a process of its own, which waits for nobody for long."""
    name = f"test_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f'create database "{name}" template "{template}" strategy file_copy')
    async with serving_apart(named(postgres.dsn, name), tmp_path_factory.mktemp("hostile"), walls=IMPATIENT) as running:
        await running.create("j")
        await running.pushed([insert("todo", "a")])
        await running.call(
            "POST", "j/changes", data=BytesIO(body_of(15 * MIB)), headers={"Content-Type": "application/json"}
        )
        yield running
    await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()


def memory_mb(pid: int, what: str) -> float:
    """What the kernel says of a process's memory: VmRSS now, VmHWM at most since `forget_most`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(what))
    return int(kilobytes) / 1024


def processor_s(pid: int) -> float:
    """What a process has had of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
async def service(hurried: Remote) -> AsyncIterator[Remote]:
    """The same; nothing was recorded, it has not grown, and it answers at once when a test is over."""
    Path(f"/proc/{hurried.pid}/clear_refs").write_text("5")
    before = memory_mb(hurried.pid, "VmRSS")
    yield hurried
    began = time.monotonic()
    assert (await hurried.head())["head"] == 1, "something was recorded"
    assert time.monotonic() - began < 2
    assert memory_mb(hurried.pid, "VmHWM") - before < GROWTH_MB


class Peer:
    """The other end of a connection, which says whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        """Send it; a service that has gone is none of its business."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer that has a length; ConnectionError or IncompleteReadError where there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body

    async def end(self) -> bytes:
        """All that comes until the other side closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@asynccontextmanager
async def peer(service: Remote, *, seconds: float = 20.0) -> AsyncIterator[Peer]:
    """A connection, for at most so long."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4 * MIB)
    try:
        async with asyncio.timeout(seconds):
            yield Peer(reader, writer)
    finally:
        writer.close()


async def told(service: Remote, request: bytes) -> tuple[int, Json]:
    """The problem that a request is answered on a connection of its own, which then ends."""
    async with peer(service) as other:
        await other.say(request)
        status, headers, body = await other.answer()
        assert headers["content-type"] == "application/problem+json", body
        assert headers["x-content-type-options"] == "nosniff"
        problem: Json = json.loads(body)
        assert (problem["status"], headers["cache-control"]) == (status, "no-store")
        return status, problem


def body_of(size: int) -> bytes:
    """A push of nothing, and of so many bytes."""
    return b'{"changes": []' + b" " * (size - 15) + b"}"


async def is_answered(service: Remote, longest_s: float = 2.0) -> None:
    """Somebody else asks, and does not wait."""
    began = time.monotonic()
    assert (await service.call("GET", "/v1")).status == 200
    assert time.monotonic() - began < longest_s


# Who does not say much.


async def test_who_says_nothing_is_cut_off(service: Remote) -> None:
    async with peer(service) as other:
        began = time.monotonic()

        assert await other.end() == b""

        assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_head_that_comes_byte_by_byte_is_cut_off(service: Remote, is_first: bool) -> None:
    async with peer(service) as other:
        if not is_first:
            await other.say(b"GET /v1 HTTP/1.1\r\n" + HEAD + b"\r\n")
            assert (await other.answer())[0] == 200
        began, ending = time.monotonic(), asyncio.create_task(other.end())
        for byte in b"GET /v1 HTTP/1.1\r\n" + HEAD + b"X: " + b"x" * 1000:
            await other.say(bytes([byte]))
            if (await asyncio.wait([ending], timeout=0.05))[0]:
                break

        assert await ending == b""
        assert 0.9 < time.monotonic() - began < 3


async def test_two_hundred_slow_heads_cost_nothing_and_keep_nobody_waiting(service: Remote) -> None:
    async def slow() -> float:
        async with peer(service) as other:
            await other.say(b"GET /v1 HTTP/1.1\r\n" + HEAD)
            await other.say(b"X: " + b"x" * 8000)
            began = time.monotonic()
            assert await other.end() == b""
            return time.monotonic() - began

    before = memory_mb(service.pid, "VmRSS")
    slow_ones = [asyncio.create_task(slow()) for _ in range(200)]
    await asyncio.sleep(0.3)
    await is_answered(service)

    assert max(await asyncio.gather(*slow_ones)) < 4
    assert memory_mb(service.pid, "VmHWM") - before < 16


async def test_a_connection_that_is_idle_is_closed(service: Remote) -> None:
    async with peer(service) as other:
        await other.say(b"GET /v1 HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert (await other.answer())[0] == 200
        began = time.monotonic()

        assert await other.end() == b""

        assert 1.5 < time.monotonic() - began < 4


@pytest.mark.parametrize("head", [b"Content-Length: 10000\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_does_not_come_is_given_up(service: Remote, head: bytes) -> None:
    async with peer(service) as other:
        began = time.monotonic()
        await other.say(f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + head + b"\r\n")

        status, headers, body = await other.answer()

        assert (status, json.loads(body)["code"], headers["connection"]) == (408, "request_timeout", "close")
        assert 0.9 < time.monotonic() - began < 3


async def test_a_body_that_trickles_is_given_up_and_its_sender_is_told(service: Remote) -> None:
    async with peer(service) as other:
        await other.say(f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"Content-Length: 1000000\r\n\r\n{")
        answering = asyncio.create_task(other.answer())
        while not (await asyncio.wait([answering], timeout=0.1))[0]:
            await other.say(b" " * 200)

        assert (await answering)[0] == 408


async def test_a_body_that_is_slow_and_steady_gets_through(service: Remote) -> None:
    """Twice as quick as it has to be, for three times as long as one may be silent."""
    body = body_of(120_000)
    async with peer(service) as other:
        await other.say(f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"Content-Length: 120000\r\n\r\n")
        for start in range(0, len(body), 4000):
            await other.say(body[start : start + 4000])
            await asyncio.sleep(0.1)

        assert (await other.answer())[0] == 200


async def test_bodies_that_are_not_whole_share_what_memory_they_may_have(service: Remote) -> None:
    async def begun() -> int:
        async with peer(service) as other:
            await other.say(f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"Content-Length: 16000000\r\n\r\n")
            await other.say(b" " * 12 * MIB)
            return (await other.answer())[0]

    statuses = await asyncio.gather(*(begun() for _ in range(10)))

    assert set(statuses) == {408, 503}
    assert statuses.count(503) >= 6


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of its sockets")
async def test_a_connection_whose_other_end_is_gone_is_noticed(service: Remote) -> None:
    """The kernel asks it now and then: a timer of kind 2 is set, for at most a minute."""
    async with peer(service) as other:
        await other.say(b"GET /v1 HTTP/1.1\r\n" + HEAD + b"\r\n")
        await other.answer()
        here = other.writer.get_extra_info("sockname")[1]
        port = int(service.url.rpartition(":")[2])
        ends = f":{port:04X}", f":{here:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        (timer,) = (it[5] for it in lines if (it[1][-5:], it[2][-5:]) == ends)

        kind, left = timer.split(":")

        assert kind == "02"
        assert 0 < int(left, 16) <= 60 * 100


# Too much of everything.


def bomb(size: int) -> bytes:
    """So many zeros, packed a thousandfold."""
    packer, piece = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(MIB)
    return b"".join([*(packer.compress(piece) for _ in range(size // MIB)), packer.flush()])


BOMB = bomb(1 << 30)


@pytest.mark.parametrize("request_line", [f"POST {AT}", "GET /v1", "DELETE /nowhere", "POST /v1/journals/j/lookup"])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_bomb_does_not_go_off(service: Remote, request_line: str, is_chunked: bool) -> None:
    head = AS_JSON + b"Content-Encoding: gzip\r\n"
    length = b"Transfer-Encoding: chunked\r\n" if is_chunked else b"Content-Length: %d\r\n" % len(BOMB)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BOMB), BOMB) if is_chunked else BOMB
    async with peer(service) as other:
        saying = asyncio.create_task(
            other.say(f"{request_line} HTTP/1.1\r\n".encode() + head + length + b"\r\n" + body)
        )
        status, headers, _ = await other.answer()
        await is_answered(service)
        await saying

    assert status == {"GET /v1": 200, "DELETE /nowhere": 404}.get(request_line, 413)
    assert headers["connection"] == "close"


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "zstd", "compress", "x", "gzip;q=1"])
async def test_other_codings_of_a_body_are_refused(service: Remote, coding: str) -> None:
    body = gzip.compress(gzip.compress(b'{"changes": []}'))
    head = AS_JSON + f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    status, problem = await told(service, f"POST {AT} HTTP/1.1\r\n".encode() + head + body)

    assert (status, problem["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("size", [1, 4])
async def test_a_body_of_millions_of_chunks_is_given_up_soon(service: Remote, size: int) -> None:
    """Each chunk costs as much as a small request; others are answered meanwhile."""
    chunks, before = b"%x\r\n%b\r\n" % (size, b" " * size) * 50_000, processor_s(service.pid)
    async with peer(service, seconds=60) as other:
        await other.say(f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"Transfer-Encoding: chunked\r\n\r\n")
        answering = asyncio.create_task(other.answer())
        while not answering.done():
            saying = asyncio.create_task(other.say(chunks))
            await is_answered(service)
            await asyncio.wait([answering, saying], return_when=asyncio.FIRST_COMPLETED)
            await saying
        status, _, body = await answering

    assert (status, json.loads(body)["errors"]) == (
        400,
        [{"pointer": "", "detail": "it comes in too many small chunks"}],
    )
    assert processor_s(service.pid) - before < 5


async def test_a_small_body_may_come_byte_by_byte(service: Remote) -> None:
    """As it does from those who send each piece of what they encode."""
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in body_of(50_000)) + b"0\r\n\r\n"
    async with peer(service) as other:
        await other.say(f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"Transfer-Encoding: chunked\r\n\r\n" + body)

        assert (await other.answer())[0] == 200


def lines(count: int, size: int) -> bytes:
    """Headers."""
    return b"".join(b"X-%d: %b\r\n" % (n, b"x" * size) for n in range(count))


HEADS: dict[str, tuple[Callable[[], bytes], int]] = {
    "a megabyte of query": (lambda: b"GET /v1?" + b"x" * MIB + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414),
    "a megabyte of path": (lambda: b"GET /" + b"x" * MIB + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414),
    "a megabyte of method": (lambda: b"G" * MIB, 400),
    "thousands of headers": (lambda: b"GET /v1 HTTP/1.1\r\n" + HEAD + lines(5000, 1) + b"\r\n", 431),
    "a header of megabytes": (lambda: b"GET /v1 HTTP/1.1\r\n" + HEAD + lines(1, 4 * MIB) + b"\r\n", 431),
    "a name of megabytes": (lambda: b"GET /v1 HTTP/1.1\r\n" + HEAD + b"x" * 4 * MIB + b": y\r\n\r\n", 431),
    "headers that never end": (lambda: b"GET /v1 HTTP/1.1\r\n" + HEAD + lines(99, 8000), 431),
    "many small headers that never end": (lambda: b"GET /v1 HTTP/1.1\r\n" + HEAD + lines(100_000, 1), 431),
}


@pytest.mark.parametrize("case", HEADS)
async def test_a_head_has_its_bounds(service: Remote, case: str) -> None:
    """What is refused is read no further; the answer may be lost to who goes on sending."""
    made, expected = HEADS[case]
    async with peer(service) as other:
        saying = asyncio.create_task(other.say(made()))
        try:
            status = (await other.answer())[0]
        except (ConnectionError, asyncio.IncompleteReadError):
            status = expected
        await saying

    assert status == expected


async def test_ten_thousand_requests_whose_answers_nobody_reads_wait_outside(service: Remote) -> None:
    async with peer(service, seconds=30) as other:
        one = b"GET /v1/journals/j/deltas?since=0 HTTP/1.1\r\n" + HEAD + b"\r\n"
        other.writer.transport.pause_reading()  # type: ignore[attr-defined]
        saying = asyncio.create_task(other.say(one * 10_000))
        await asyncio.wait([saying], timeout=1.0)
        await is_answered(service)
        other.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(10_000):
            assert (await other.answer())[0] == 200


# What is not quite HTTP.


SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\n" + HEAD + b"\r\n"
TWO_LENGTHS: dict[str, Iterable[bytes]] = {
    "a length, and chunks": [b"Content-Length: 6", b"Transfer-Encoding: chunked"],
    "chunks, and a length": [b"Transfer-Encoding: chunked", b"Content-Length: 6"],
    "two lengths": [b"Content-Length: 6", b"Content-Length: 0"],
    "two lengths in one": [b"Content-Length: 6, 0"],
    "a length with a sign": [b"Content-Length: +6"],
    "a length that is none": [b"Content-Length: 0x6"],
    "chunked, but not last": [b"Transfer-Encoding: chunked, identity"],
    "chunked twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "a space before the colon": [b"Transfer-Encoding : chunked", b"Content-Length: 6"],
    "a folded line": [b"X: y\r\n Transfer-Encoding: chunked", b"Content-Length: 0"],
    "a bare line feed": [b"X: y\nTransfer-Encoding: chunked", b"Content-Length: 0"],
}


@pytest.mark.parametrize("case", TWO_LENGTHS)
async def test_a_request_that_ends_in_two_places_is_refused_and_hides_no_other(service: Remote, case: str) -> None:
    head = f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"\r\n".join([*TWO_LENGTHS[case], b"", b""])
    async with peer(service) as other:
        await other.say(head + b"0\r\n\r\n" + SMUGGLED)

        answered = await other.end()

    assert answered[:12] in (b"HTTP/1.0 400", b"HTTP/1.1 400")
    assert answered.count(b"HTTP/1.") == 1
    assert b"application/problem+json" in answered


CHUNKS = {
    "a size that is none": b"x\r\n{}\r\n0\r\n\r\n",
    "a size with a sign": b"-1\r\n{}\r\n0\r\n\r\n",
    "an endless size": b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n",
    "more than was said": b"1\r\n{}\r\n0\r\n\r\n",
    "a bare line feed": b"2\n{}\n0\n\n",
}


@pytest.mark.parametrize("case", CHUNKS)
async def test_a_chunk_that_is_malformed_ends_the_connection(service: Remote, case: str) -> None:
    head = f"POST {AT} HTTP/1.1\r\n".encode() + AS_JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    async with peer(service) as other:
        await other.say(head + CHUNKS[case] + SMUGGLED)

        answered = await other.end()

    assert answered == b"" or answered[9:12] in (b"400", b"408")
    assert b"no such path" not in answered


ODD: dict[str, tuple[bytes, set[int]]] = {
    "a whole URL": (b"GET http://localhost/v1 HTTP/1.1\r\n" + HEAD, {200}),
    "a whole URL of another": (b"GET http://evil.example/v1 HTTP/1.1\r\n" + HEAD, {200, 421}),
    "no host": (b"GET /v1 HTTP/1.1\r\n", {400}),
    "two hosts": (b"GET /v1 HTTP/1.1\r\n" + HEAD + b"Host: evil.example\r\n", {400}),
    "a star": (b"OPTIONS * HTTP/1.1\r\n" + HEAD, {404, 405}),
    "a star that is none": (b"GET * HTTP/1.1\r\n" + HEAD, {400}),
    "connect": (b"CONNECT evil.example:443 HTTP/1.1\r\n" + HEAD, {400, 404, 405}),
    "connect to a path": (b"CONNECT /v1 HTTP/1.1\r\n" + HEAD, {400, 404, 405}),
    "trace": (b"TRACE /v1 HTTP/1.1\r\n" + HEAD, {405}),
    "a method of its own": (b"PUSH /v1 HTTP/1.1\r\n" + HEAD, {400, 405}),
    "a method in lower case": (b"get /v1 HTTP/1.1\r\n" + HEAD, {400, 405}),
    "an upgrade": (b"GET /v1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HEAD, {200}),
    "an upgrade to HTTP/2": (
        b"GET /v1 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + HEAD,
        {200},
    ),
    "two slashes": (b"GET //evil.example/v1 HTTP/1.1\r\n" + HEAD, {404}),
    "a zero": (b"GET /v1/%00 HTTP/1.1\r\n" + HEAD, {404}),
    "a zero in a journal's name": (b"GET /v1/journals/%00 HTTP/1.1\r\n" + HEAD, {400, 404}),
    "a zero in the query": (b"GET /v1/journals/j/deltas?since=%00 HTTP/1.1\r\n" + HEAD, {400}),
    "a line's end in the path": (b"GET /%0a HTTP/1.1\r\n" + HEAD, {404}),
    "dots": (b"GET /v1/journals/../../etc/passwd HTTP/1.1\r\n" + HEAD, {404}),
    "written dots": (b"GET /console/%2e%2e%2fpages.py HTTP/1.1\r\n" + HEAD, {404}),
    "what is no UTF-8": (b"GET /v1/journals/%ff%fe HTTP/1.1\r\n" + HEAD, {400, 404}),
    "raw bytes": (b"GET /v1/journals/\xff\xfe HTTP/1.1\r\n" + HEAD, {400, 404}),
    "a fragment": (b"GET /v1#x HTTP/1.1\r\n" + HEAD, {200, 400}),
    "what nobody can do": (b"POST /v1 HTTP/1.1\r\nExpect: miracles\r\n" + HEAD, {417}),
    "HTTP/1.0": (b"GET /v1 HTTP/1.0\r\n", {200}),
    "HTTP/1.9": (b"GET /v1 HTTP/1.9\r\n" + HEAD, {200, 400}),
    "HTTP/2.0": (b"GET /v1 HTTP/2.0\r\n" + HEAD, {200, 400}),
    "HTTP/0.9": (b"GET /v1\r\n", {200, 400}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "TLS": (bytes.fromhex("16030100a5010000a10303") + bytes(160), {400}),
    "nothing but lines": (b"\r\n" * 1000 + b"GET /v1 HTTP/1.1\r\n" + HEAD, {200, 400}),
}


@pytest.mark.parametrize("case", ODD)
async def test_what_is_odd_is_answered_in_the_usual_form(service: Remote, case: str) -> None:
    request, expected = ODD[case]
    async with peer(service) as other:
        await other.say(request + b"\r\n")
        status, headers, body = await other.answer()

    assert status in expected, body
    assert headers["content-type"] == ("application/json" if status == 200 else "application/problem+json")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]
    assert b"root:" not in body


async def test_what_the_parser_refuses_is_not_repeated_to_anybody(service: Remote) -> None:
    request = b"GET /v1 HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer jc_secret\r\nbad header\r\n\r\n"

    status, problem = await told(service, request)

    assert (status, problem["code"]) == (400, "invalid_request")
    assert "secret" not in json.dumps(problem)
