"""The loads that are recorded, the very ones of bench/: a service under way, and a way to drive it for a while.

The rule: a load tells how much it did, and fails where the journal says otherwise.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count

import msgspec

from bench import batch, deltas, live, poll, push
from bench.audience import audience
from bench.load import Ask, Reader, Served, closed_loop, get
from bench.place import Place, allow_files, connected, serving

STREAMS = 1000
UPDATED = 170  # pushes of 1000 that there are to update


class Work(msgspec.Struct, frozen=True):
    """A service and its load, in words. `drive` works for so many seconds and tells how often `one` was done."""

    served: Served
    what: str
    one: str
    drive: Callable[[float], Awaitable[int]]


@asynccontextmanager
async def pushes(at: Place, journal: str, what: str, made: Callable[[], push.Variant]) -> AsyncIterator[Work]:
    """Pushes of one insert each."""
    asks = made()
    async with _service(at, journal) as served:
        told = f"{what} of one insert each, {push.CONNECTIONS} connections"
        yield Work(served, told, "a push", lambda seconds: _closed(at, served, journal, asks(journal), seconds))


@asynccontextmanager
async def batches(at: Place, what: str) -> AsyncIterator[Work]:
    """Pushes of a thousand inserts, or of a thousand updates of two fields."""
    async with _service(at, "batch") as served:
        inserting, updating = batch._Inserting(), batch._Updating()
        inserted = 40 if at.is_quick else UPDATED
        if what == "updates":
            # Atoms of another load may be there already: those of this one are not.
            inserting.numbers, updating.numbers = count(1 << 20), count(1 << 20)
            await _closed(at, served, "batch", inserting.asks(inserted), 60.0, batch.SIZE)
            updating.cursor = max((await at.cursors("batch")).items())[1].encode()

        async def drive(seconds: float) -> int:
            asks = inserting.asks(1 << 20)
            if what == "updates":
                asks = updating.asks(inserted // 3 if seconds > 1 else inserted // 10)
            return await _closed(at, served, "batch", asks, seconds, batch.SIZE)

        yield Work(served, f"pushes of {batch.SIZE} {what}, {batch.CONNECTIONS} connections", "a change", drive)


@asynccontextmanager
async def polls(at: Place, behind: int) -> AsyncIterator[Work]:
    """Polls from so many commits behind the head."""
    journal = "poll"
    async with _service(at, journal) as served:
        request = get(f"/v1/journals/{journal}/deltas?since={poll._pushed(served, 100)[-1 - behind]}")
        asks: list[Ask] = [lambda _: request] * poll.CONNECTIONS

        async def drive(seconds: float) -> int:
            done = await closed_loop(served, asks, seconds=seconds)
            assert done.statuses == {200: done.requests}, done.statuses
            return done.requests

        yield Work(served, f"polls from {behind} changes behind, {poll.CONNECTIONS} connections", "a poll", drive)


@asynccontextmanager
async def pages(at: Place, window: int) -> AsyncIterator[Work]:
    """Whole answers to a cursor so many changes back, each request one commit earlier than the last."""
    cursors = await at.cursors("wide")
    since = max(cursors) - window
    async with _service(at, "wide") as served:
        reader = Reader(served.port)

        async def drive(seconds: float) -> int:
            nonlocal since
            until, done = time.monotonic() + seconds, 0
            while time.monotonic() < until:
                since -= deltas.TOGETHER
                fetched = reader.fetch(get(deltas._deltas("wide", cursors[since])))
                assert fetched.status == 200, fetched.body
                done += 1
            return done

        yield Work(served, f"deltas of {window // 1000} k changes as JSON, none asked for twice", "an answer", drive)
        reader.close()


@asynccontextmanager
async def streams(at: Place) -> AsyncIterator[Work]:
    """One change at a time to many streams, the next when all have it."""
    allow_files(STREAMS)
    async with _service(at, live.JOURNAL) as served:
        names, reader = count(1), Reader(served.port)
        with audience() as crowd:
            crowd.open(served.port, live._stream(live.JOURNAL), live._cursor(served, live.JOURNAL), STREAMS)

            async def drive(seconds: float) -> int:
                until, done = time.monotonic() + seconds, 0
                while time.monotonic() < until:
                    heard = crowd.reach(live._push(reader, live.JOURNAL, names))
                    assert heard.events == STREAMS, heard.events
                    done += STREAMS
                return done

            told = f"one insert at a time to {STREAMS} streams, the next when all have it"
            yield Work(served, told, "a stream that is told", drive)
        reader.close()


@asynccontextmanager
async def _service(at: Place, journal: str) -> AsyncIterator[Served]:
    """A service, and a journal of this name."""
    async with connected(at.dsn) as connection:
        await connection.execute("select journal.create($1)", journal)
    with serving("journal", at) as served:
        yield served


async def _closed(at: Place, served: Served, journal: str, asks: list[Ask], seconds: float, together: int = 1) -> int:
    """Changes that were pushed, all of which the head must count."""
    before = await at.head(journal)
    done = await closed_loop(served, asks, seconds=seconds)
    assert done.statuses == {200: done.requests}, done.statuses
    assert await at.head(journal) - before == done.requests * together
    return done.requests * together


LOADS: dict[str, Callable[[Place], AbstractAsyncContextManager[Work]]] = {
    "push": partial(pushes, journal="push", what="pushes", made=push.plain),
    "push-numbered": partial(pushes, journal="numbered", what="numbered pushes", made=push.numbered),
    "batch-inserts": partial(batches, what="inserts"),
    "batch-updates": partial(batches, what="updates"),
    "poll": partial(polls, behind=0),
    "poll-10": partial(polls, behind=10),
    "deltas-10k": partial(pages, window=10_000),
    "deltas-100k": partial(pages, window=100_000),
    "streams": streams,
}
