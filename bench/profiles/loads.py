"""The loads that are recorded, the very ones of bench/: each a service under way, and a way to drive it for a while.

The rule: a load gives back how much it did, and fails where that is not what the journal says.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count

import msgspec

from bench import batch, deltas, live, poll, push
from bench.audience import audience
from bench.load import Ask, Reader, Served, closed_loop, get
from bench.place import Place, serving

Drive = Callable[[float], Awaitable[int]]
"""Work for so many seconds; how often what `Work.one` names was done."""


class Work(msgspec.Struct, frozen=True):
    """A service and its load, in words; `one`: what is counted."""

    served: Served
    what: str
    one: str
    drive: Drive


Load = Callable[[Place], AbstractAsyncContextManager[Work]]

UPDATED = 170  # pushes of 1000 that there are to update


def pushes(what: str, variant: Callable[[], push.Variant], journal: str) -> Load:
    """Pushes of one insert each."""

    @asynccontextmanager
    async def load(at: Place) -> AsyncIterator[Work]:
        await at.create(journal)
        made = variant()
        with serving("journal", at) as served:

            async def drive(seconds: float) -> int:
                return await _closed(at, served, journal, made(journal), seconds)

            yield Work(served, f"{what} of one insert each, {push.CONNECTIONS} connections", "push", drive)

    return load


@asynccontextmanager
async def batch_inserts(at: Place) -> AsyncIterator[Work]:
    """Pushes of a thousand inserts."""
    await at.create("batch")
    with serving("journal", at) as served:
        inserting = batch._Inserting()

        async def drive(seconds: float) -> int:
            return await _closed(at, served, "batch", inserting.asks(1 << 20), seconds, batch.SIZE)

        yield Work(served, f"pushes of {batch.SIZE} inserts, {batch.CONNECTIONS} connections", "change", drive)


@asynccontextmanager
async def batch_updates(at: Place) -> AsyncIterator[Work]:
    """Pushes of a thousand updates of two fields."""
    await at.create("batch")
    with serving("journal", at) as served:
        inserted, updating = 40 if at.is_quick else UPDATED, batch._Updating()
        await _closed(at, served, "batch", batch._Inserting().asks(inserted), 60.0, batch.SIZE)
        updating.cursor = max((await at.cursors("batch")).items())[1].encode()

        async def drive(seconds: float) -> int:
            asks = updating.asks(inserted // 3 if seconds > 1 else inserted // 10)
            return await _closed(at, served, "batch", asks, seconds, batch.SIZE)

        what = f"pushes of {batch.SIZE} updates of two fields, {batch.CONNECTIONS} connections"
        yield Work(served, what, "change", drive)


def polls(what: str, behind: int) -> Load:
    """Polls from so many commits behind the head."""

    @asynccontextmanager
    async def load(at: Place) -> AsyncIterator[Work]:
        await at.create("poll")
        with serving("journal", at) as served:
            request = get(f"/v1/journals/poll/deltas?since={poll._pushed(served, 100)[-1 - behind]}")

            async def drive(seconds: float) -> int:
                asks: list[Ask] = [lambda _: request] * poll.CONNECTIONS
                done = await closed_loop(served, asks, seconds=seconds)
                assert done.statuses == {200: done.requests}, done.statuses
                return done.requests

            yield Work(served, f"polls {what}, {poll.CONNECTIONS} connections", "poll", drive)

    return load


def pages(window: int) -> Load:
    """Whole answers to a cursor so many changes back, each request one commit earlier than the last."""

    @asynccontextmanager
    async def load(at: Place) -> AsyncIterator[Work]:
        cursors = await at.cursors("wide")
        since = max(cursors) - window
        with serving("journal", at) as served:
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

            what = f"deltas of {window // 1000} k changes as JSON, one connection, no answer asked for twice"
            yield Work(served, what, "answer", drive)
            reader.close()

    return load


@asynccontextmanager
async def streams(at: Place) -> AsyncIterator[Work]:
    """One change at a time to a thousand streams, the next when all have it."""
    crowded = 1000
    live._raise_limit(crowded)
    await at.create(live.JOURNAL)
    with serving("journal", at) as served, audience() as crowd:
        names, reader = count(1), Reader(served.port)
        crowd.open(served.port, live._stream(live.JOURNAL), live._cursor(served, live.JOURNAL), crowded)

        async def drive(seconds: float) -> int:
            until, done = time.monotonic() + seconds, 0
            while time.monotonic() < until:
                heard = crowd.reach(live._push(reader, live.JOURNAL, names))
                assert heard.events == crowded, heard.events
                done += crowded
            return done

        yield Work(served, f"one insert at a time to {crowded} streams, the next when all have it", "event", drive)
        reader.close()


async def _closed(
    at: Place, served: Served, journal: str, asks: list[Ask], seconds: float, together: int = 1
) -> int:
    """Changes that were pushed, all of which the head must count."""
    before = await at.head(journal)
    done = await closed_loop(served, asks, seconds=seconds)
    assert done.statuses == {200: done.requests}, done.statuses
    assert await at.head(journal) - before == done.requests * together
    return done.requests * together


LOADS: dict[str, Load] = {
    "push": pushes("pushes", push.plain, "push"),
    "push-numbered": pushes("numbered pushes", push.numbered, "numbered"),
    "batch-inserts": batch_inserts,
    "batch-updates": batch_updates,
    "poll": polls("that are up to date", 0),
    "poll-10": polls("of ten changes from the tail", 10),
    "deltas-10k": pages(10_000),
    "deltas-100k": pages(100_000),
    "streams": streams,
}
