"""Live delivery: what streams and waiting polls cost while nothing happens, and how soon they are told what does.

Those who listen are an audience in a process of its own (bench/audience.py), which checks that each stream was told
everything once and in order. The reference is a bare process that writes the very frames of the service to as many
sockets in a loop; both are heard by audiences of the same kind, so that what these cost is in both.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count, islice
from pathlib import Path
from threading import Event, Thread
from typing import Any

import asyncpg
import msgspec

from bench.audience import Audience, Heard, Open, Stream, audience, chunk, weighted
from bench.load import Ask, Load, Reader, Served, closed_loop, get, post
from bench.place import Place, allow_files, connected, serving
from bench.rows import Row, figure, ratio
from bench.snapshot import Memory

JOURNAL, WAITING, QUIET, LARGE = "live", "waiting", "quiet", "large-live"
STREAMS, WAITERS = 10_000, 1000
PACE_S = 0.2
ROUNDS, LONG_S = 3, 15.0  # no round begins later
BURST, CONNECTIONS = 1000, 16
SETTLED_S = 11.0  # a backend may keep its counts to itself for ten seconds (PostgreSQL's pgstat)
LARGE_ATOMS, LARGE_BYTES = 100, 10_000
SLOW_RATE = 1_000_000
FILLING = 70  # pushes of 1 MB until what a process keeps of answers is full (Memory.answers_bytes)

_CHANGE = b'{"changes":[{"op":"insert","collection":"todo","atom":"%016x","data":{"title":"rings","cost":310}}]}'

Tell = Callable[[], int]
"""Tell everyone something; the revision they are to reach, once it is answered."""


class Round(msgspec.Struct):
    """Some tellings, each when the last had reached everyone; times in ms since it was sent, or was answered."""

    since_sent: list[tuple[float, int]]
    since_answered: list[tuple[float, int]]
    answered: list[float]
    frames: list[tuple[int, bytes]]
    cpu_us: float

    def p(self, share: float) -> float:
        """A percentile of the times since sending."""
        return weighted(self.since_sent, share)


async def rows(at: Place) -> list[Row]:
    """Streams: idle, told one change at a time, and told a burst."""
    streams = 1000 if at.is_quick else STREAMS
    allow_files(streams)
    await at.create(JOURNAL)
    names = count(1)
    with serving("journal", at) as journal, audience() as crowd:
        await _burst(journal, names)
        alone = [await _burst(journal, names) for _ in range(ROUNDS)]
        found = await asyncio.to_thread(_idle, at, journal, crowd, streams)
        with serving("bare", at) as bare, audience() as other:
            found += await asyncio.to_thread(_fan_out, at, journal, crowd, bare, other, names)
        return found + await _bursts(journal, crowd, names, alone)


async def waiters(at: Place) -> list[Row]:
    """Waiting polls, beside as many streams: what PostgreSQL is asked meanwhile, and how soon they are answered."""
    allow_files(2 * WAITERS)
    seconds = 2.0 if at.is_quick else 4.0
    await at.create(WAITING)
    await at.create(QUIET)
    with serving("journal", at) as journal, audience() as crowd, audience() as waiting:
        reader, names = Reader(journal.port), count(1)

        def tell() -> int:
            return _push(reader, WAITING, names)

        tell()
        path = f"/v1/journals/{WAITING}/deltas?wait=25&since="
        crowd.open(journal.port, _stream(QUIET), _cursor(journal, QUIET), WAITERS)
        waiting.open(journal.port, path, _cursor(journal, WAITING), WAITERS, is_stream=False)
        async with _transactions(at) as transactions:
            await asyncio.sleep(SETTLED_S)
            cpu_s, start = journal.cpu_s(), time.monotonic()
            asked = []
            for _ in range(3):
                before = await transactions()
                await asyncio.sleep(seconds)
                asked.append((await transactions() - before) / seconds)
            cpu = (journal.cpu_s() - cpu_s) / (time.monotonic() - start)
        taken = [await asyncio.to_thread(_round, journal, waiting, tell, 10) for _ in range(ROUNDS + 1)][1:]
        reader.close()
    what, idle = f"{WAITERS} waiting polls", f"{WAITERS} waiting polls and {WAITERS} streams, idle"
    p50, p99 = ([weighted(one.since_answered, share) for one in taken] for share in (0.5, 0.99))
    return [
        figure("waiters", f"{idle}: transactions a second", "/s", asked, at_most=1),
        figure("waiters", f"{idle}: CPU a second", "ms", [1000 * cpu]),
        figure("waiters", f"{what}: p50 since the push's answer", "ms", p50),
        figure("waiters", f"{what}: p99 since the push's answer", "ms", p99, at_most=50),
        figure("waiters", f"{what}: p99 since its sending", "ms", [one.p(0.99) for one in taken], at_most=50),
        figure(
            "waiters", f"{what}: until the push was answered", "ms", [one for made in taken for one in made.answered]
        ),
        figure("waiters", f"{what}: CPU of the process, each", "µs", [one.cpu_us for one in taken]),
    ]


async def slow(at: Place) -> list[Row]:
    """Large changes to a few streams; the same again with one that never reads, and one that reads slowly."""
    await at.create(LARGE)
    return await asyncio.to_thread(_slow, at)


def _idle(at: Place, journal: Served, crowd: Audience, streams: int) -> list[Row]:
    """Open the streams; what they cost, told nothing."""
    resident, proportional = _mb(journal)
    start = time.monotonic()
    crowd.open(journal.port, _stream(JOURNAL), _cursor(journal, JOURNAL), streams)
    opened_s = time.monotonic() - start
    time.sleep(1.0)
    resident_then, proportional_then = _mb(journal)
    seconds = 4.0 if at.is_quick else 15.0  # a bookmark is due every 14
    cpu_s = journal.cpu_s()
    time.sleep(seconds)
    cpu_s = journal.cpu_s() - cpu_s
    what = f"{streams} idle streams"
    return [
        figure("live", f"{what}: memory above idle", "MB", [resident_then - resident], at_most=200),
        figure("live", f"{what}: the same, proportional", "MB", [proportional_then - proportional]),
        figure("live", f"{what}: CPU a second", "ms", [1000 * cpu_s / seconds]),
        figure("live", f"{what}: time to open them all", "s", [opened_s]),
    ]


def _mb(served: Served) -> tuple[float, float]:
    """A process's memory: resident, and with what is shared counted in parts."""
    lines = Path(f"/proc/{served.pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines[1:]}
    return sizes["Rss:"], sizes["Pss:"]


def _fan_out(
    at: Place, journal: Served, crowd: Audience, bare: Served, other: Audience, names: "count[int]"
) -> list[Row]:
    """Changes, one at a time; then the same frames by the bare process."""
    pushes = 10 if at.is_quick else 20
    reader, writer = Reader(journal.port), Reader(bare.port)
    other.open(bare.port, "/", _cursor(journal, JOURNAL), crowd.count)
    measured: list[Round] = []
    reference: list[Round] = []
    begun = time.monotonic()
    for place in range(-1, ROUNDS):
        if measured and time.monotonic() - begun > LONG_S:
            break
        tellings = 3 if place < 0 else pushes
        here = _round(journal, crowd, lambda: _push(reader, JOURNAL, names), tellings)
        assert len(here.frames) == tellings
        frames = iter(here.frames)
        there = _round(bare, other, lambda frames=frames: _write(writer, *next(frames)), tellings)  # type: ignore[misc]
        if place >= 0:
            measured.append(here)
            reference.append(there)
    reader.close()
    writer.close()
    what, against = f"a change to {crowd.count} streams", "bare writes"
    p50, p99 = ([taken.p(share) for taken in measured] for share in (0.5, 0.99))
    bare_p50, bare_p99 = ([taken.p(share) for taken in reference] for share in (0.5, 0.99))
    cpu, bare_cpu = [taken.cpu_us for taken in measured], [taken.cpu_us for taken in reference]
    return [
        figure("live", f"{what}: p99", "ms", p99, at_most=200),
        ratio("live", f"{what}: p50", against, "ms", p50, bare_p50),
        ratio("live", f"{what}: p99", against, "ms", p99, bare_p99),
        ratio("live", f"{what}: CPU of the process, each", against, "µs", cpu, bare_cpu, at_most=1.25),
        figure(
            "live", f"{what}: until the push was answered", "ms", [one for made in measured for one in made.answered]
        ),
        figure("live", f"{what}: bytes of the event", "B", [float(len(frame)) for _, frame in measured[0].frames]),
    ]


def _round(served: Served, crowd: Audience, tell: Tell, tellings: int) -> Round:
    """Tell everyone, so many times; each must have heard each, once and in order."""
    made = Round([], [], [], [], 0.0)
    cpu_s = served.cpu_s()
    for _ in range(tellings):
        sent = time.monotonic()
        revision = tell()
        answered = time.monotonic()
        heard = crowd.reach(revision)
        arrived = heard.arrivals[revision]
        assert heard.events == sum(size for _, size in arrived) == crowd.count, (heard.events, crowd.count)
        made.answered.append(1000 * (answered - sent))
        made.since_sent += [(1000 * (moment - sent), size) for moment, size in arrived]
        made.since_answered += [(max(1000 * (moment - answered), 0.0), size) for moment, size in arrived]
        made.frames += [(reached, frame) for _, reached, frame in heard.frames]
        time.sleep(max(sent + PACE_S - time.monotonic(), 0.0))
    made.cpu_us = 1e6 * (served.cpu_s() - cpu_s) / (tellings * crowd.count)
    return made


def _push(reader: Reader, journal: str, names: "count[int]") -> int:
    fetched = reader.fetch(post(f"/v1/journals/{journal}/changes", _CHANGE % next(names)))
    assert fetched.status == 200, fetched.body
    revision: int = msgspec.json.decode(fetched.body)["revision"]
    return revision


def _write(writer: Reader, revision: int, frame: bytes) -> int:
    assert writer.fetch(post("/", chunk(frame))).status == 200
    return revision


async def _burst(journal: Served, names: "count[int]") -> Load:
    """A thousand pushes, as fast as the connections give; fewer where that takes too long."""
    left = islice(names, BURST)
    path = f"/v1/journals/{JOURNAL}/changes"

    def ask(_: bytes) -> bytes | None:
        name = next(left, None)
        return None if name is None else post(path, _CHANGE % name)

    asks: list[Ask] = [ask] * CONNECTIONS
    load = await closed_loop(journal, asks, seconds=LONG_S)
    assert load.statuses == {200: load.requests}, load.statuses
    return load


async def _bursts(journal: Served, crowd: Audience, names: "count[int]", alone: list[Load]) -> list[Row]:
    loads: list[Load] = []
    heard: list[Heard] = []
    delivered: list[float] = []
    begun = time.monotonic()
    for _ in range(ROUNDS):
        start = time.monotonic()
        if delivered and start - begun > LONG_S:
            break
        loads.append(await _burst(journal, names))
        heard.append(crowd.reach(_head(journal, JOURNAL), 120.0))
        delivered.append(heard[-1].latest() - start)
    what = f"{BURST} pushes at once to {crowd.count} streams"
    events = [one.events / crowd.count for one in heard]
    pushes = [load.requests / told for load, told in zip(loads, events, strict=True)]
    rates, rates_alone = [load.rate for load in loads], [load.rate for load in alone]
    return [
        figure("live", f"{what}: events a stream", "", events),
        figure("live", f"{what}: pushes in an event", "", pushes),
        figure("live", f"{what}: bytes a stream", "kB", [one.size / crowd.count / 1000 for one in heard]),
        figure("live", f"{what}: until all have everything", "s", delivered),
        ratio("live", f"{what}: push rate", "without streams", "/s", rates, rates_alone),
        figure("live", f"{what}: p99 of the pushes", "ms", [load.p99_ms for load in loads]),
    ]


@asynccontextmanager
async def _transactions(at: Place) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """How many transactions the measured database has seen; asked in another one, so as not to be counted."""
    async with connected(at.dsn) as connection:
        name = await connection.fetchval("select current_database()")
    other = await asyncpg.connect(at.dsn, database="template1")
    try:

        async def seen() -> int:
            found: int = await other.fetchval(
                "select xact_commit + xact_rollback from pg_stat_database where datname = $1", name
            )
            return found

        yield seen
    finally:
        await other.close()


def _slow(at: Place) -> list[Row]:
    pushes, streams = (20, 5) if at.is_quick else (100, 10)
    with serving("journal", at) as journal, audience() as crowd:
        reader = Reader(journal.port)
        policy = post(f"/v1/journals/{LARGE}/collections", b'{"collection":"todo","policy":"client"}')
        assert reader.fetch(policy.replace(b"POST", b"PUT", 1)).status == 200
        crowd.open(journal.port, _stream(LARGE), _cursor(journal, LARGE), streams)
        _large_round(reader, crowd, FILLING)
        idle, alone = Memory(journal.pid), _large_round(reader, crowd, pushes // 2)
        grown_alone = idle.grown_mib()
        cursor = _cursor(journal, LARGE)
        idle = Memory(journal.pid)
        with _never_reading(journal.port, cursor), _SlowReader(journal.port, cursor) as slow:
            beside = _large_round(reader, crowd, pushes)
            grown = idle.grown_mib()
            ended = time.monotonic()
            slow.reach(_head(journal, LARGE))
            late_s = time.monotonic() - ended
        reader.close()
    assert 0 < slow.events < pushes, slow.events
    size = pushes * LARGE_ATOMS * LARGE_BYTES / 1e6
    what, slowly = f"{size:.0f} MB past one that never reads", "one that reads at 1 MB/s"
    others, alone_ms, beside_ms = f"p99 of {streams} others", [weighted(alone, 0.99)], [weighted(beside, 0.99)]
    return [
        figure("slow", f"{what}: memory above before", "MiB", [grown], at_most=32),
        figure("slow", f"{what}: the same for half without it", "MiB", [grown_alone]),
        ratio("slow", f"{what}: {others}", "without it", "ms", beside_ms, alone_ms),
        figure("slow", f"{slowly}: pushes in an event", "", [pushes / slow.events]),
        figure("slow", f"{slowly}: complete after the last push", "s", [late_s]),
    ]


def _large_round(reader: Reader, crowd: Audience, pushes: int) -> list[tuple[float, int]]:
    """Pushes of the same atoms with other data; when each stream had each."""
    arrived: list[tuple[float, int]] = []
    for place in range(pushes):
        data = f"{place:08x}" * (LARGE_BYTES // 8)
        changes = [
            {"op": "put", "collection": "todo", "atom": f"{n}", "data": {"text": data}} for n in range(LARGE_ATOMS)
        ]
        request = post(f"/v1/journals/{LARGE}/changes", msgspec.json.encode({"changes": changes}))
        sent = time.monotonic()
        fetched = reader.fetch(request)
        assert fetched.status == 200, fetched.body
        revision: int = msgspec.json.decode(fetched.body)["revision"]
        heard = crowd.reach(revision)
        arrived += [(1000 * (moment - sent), size) for moment, size in heard.arrivals[revision]]
        time.sleep(max(sent + PACE_S / 2 - time.monotonic(), 0.0))
    return arrived


@contextmanager
def _never_reading(port: int, cursor: str) -> Iterator[None]:
    with _asked(port, cursor):
        yield


def _asked(port: int, cursor: str) -> socket.socket:
    """A stream on a connection that holds little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.settimeout(30.0)
    connection.connect(("127.0.0.1", port))
    connection.sendall(get(_stream(LARGE) + cursor))
    return connection


class _SlowReader:
    """A thread that reads a stream at SLOW_RATE bytes a second."""

    def __init__(self, port: int, cursor: str) -> None:
        self.events = 0
        self._connection = _asked(port, cursor)
        at = int(cursor.split(":")[1])
        self._stream = Stream(Open(port, "", cursor, at, 1, is_stream=True), {})
        self._is_over = Event()
        self._thread = Thread(target=self._read)

    def __enter__(self) -> "_SlowReader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._connection.close()

    def reach(self, revision: int) -> None:
        """Wait until it has been told everything up to a revision."""
        late = time.monotonic() + 60
        while self._stream.at < revision:
            assert time.monotonic() < late, (self._stream.at, revision)
            assert self._thread.is_alive()
            time.sleep(0.01)

    def _read(self) -> None:
        start, have = time.monotonic(), 0
        while not self._is_over.is_set():
            try:
                received = self._connection.recv(16 << 10)
            except TimeoutError:
                continue
            assert received, "hung up on"
            have += len(received)
            since, revision, events, _ = self._stream.feed(received)
            if events:
                assert since == self._stream.at, (since, self._stream.at)
                self._stream.at = revision
                self.events += events
            self._is_over.wait(max(start + have / SLOW_RATE - time.monotonic(), 0.0))


def _stream(journal: str) -> str:
    return f"/v1/journals/{journal}/stream?since="


def _cursor(served: Served, journal: str) -> str:
    told: str = _told(served, journal)["cursor"]
    return told


def _head(served: Served, journal: str) -> int:
    told: int = _told(served, journal)["head"]
    return told


def _told(served: Served, journal: str) -> dict[str, Any]:
    reader = Reader(served.port)
    try:
        told: dict[str, Any] = msgspec.json.decode(reader.fetch(get(f"/v1/journals/{journal}")).body)
        return told
    finally:
        reader.close()
