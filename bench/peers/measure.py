"""The same work for each peer in turn, in one run: rates and times, this service's ÷ a rival's.

Each rival in its three configurations, all of them up at the same time and none asked while another is; of these the
best counts, row by row. Nothing is measured that was not checked before: each tells of the same atoms.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count, groupby
from statistics import median
from typing import Any
from uuid import uuid4

import msgspec

from bench.load import Ask, Reader, Served, closed_loop
from bench.peers.driver import Data, Driver, Sender, folder, housed
from bench.peers.journal import Journal
from bench.peers.kinto import Kinto
from bench.peers.naive import Naive
from bench.place import Place, connected
from bench.rows import Row, ratio

CONNECTIONS = 16
BATCHING = 2  # connections that send batches
ROUNDS = 3
TIMES = 5  # how often 1,000 changes are asked for in one round
WAYS = 3  # configurations of a rival
DATA = {"title": "rings", "cost": 310, "done": False, "note": "said at 12345", "owner": "user-345"}

_NUMBERS = count(1)


class Contender(msgspec.Struct):
    """A peer in one configuration. `read`, a space, is filled; what is asked there stands in `cursors` and `places`.

    `cursors`: by how many changes come after them. `places`: others, 1,000 changes and some before the end.
    """

    driver: Driver
    configuration: str
    served: Served
    dsn: str
    cursors: dict[int, str] = {}
    places: list[str] = []

    def fetch(self, request: bytes) -> bytes:
        """Ask once; the answer must be a success."""
        reader = Reader(self.served.port)
        fetched = reader.fetch(request)
        reader.close()
        assert 200 <= fetched.status < 300, (self.driver.name, fetched)
        return fetched.body

    def write(self, atoms: Sequence[str], data: Data) -> None:
        """Set atoms in the space "read", in as few requests as it takes, one after the other."""
        for first in range(0, len(atoms), self.driver.batch):
            part = [(atom, data) for atom in atoms[first : first + self.driver.batch]]
            assert self.driver.taken(self.fetch(self.driver.write("read", part))) == [True] * len(part)

    def read(self, space: str, cursor: str) -> tuple[dict[str, Any], str, float]:
        """All that a reader at `cursor` is told until there is no more, where it then is, and how long it waited."""
        reader, copy, waited, more = Reader(self.served.port), dict[str, Any](), 0.0, True
        while more:
            fetched = reader.fetch(self.driver.since(space, cursor))
            assert fetched.status == 200, fetched
            told = self.driver.told(space, fetched, cursor)
            copy |= told.changes
            cursor, more, waited = told.cursor, told.more, waited + fetched.seconds
        reader.close()
        return copy, cursor, waited


class Work(msgspec.Struct, frozen=True):
    """A row: what is done once by one contender in one round, and the figure that it gives."""

    what: str
    unit: str
    is_less_better: bool
    once: Callable[[Contender, float], Awaitable[float]]


async def rows(at: Place) -> tuple[list[Row], dict[str, dict[str, list[float]]]]:
    """The table, and every round of every contender."""
    async with AsyncExitStack() as stack:
        contenders: list[Contender] = []
        peers: Sequence[Driver] = (Journal(), Naive(), Kinto())
        for driver in peers:
            dsn = await stack.enter_async_context(housed(driver, at))
            for configuration in driver.configurations:
                served = stack.enter_context(driver.serving(configuration, dsn, folder(at, driver)))
                contenders.append(Contender(driver, configuration, served, dsn))
        await _fill(contenders, 2_000 if at.is_quick else 10_000)
        found: list[Row] = []
        everything: dict[str, dict[str, list[float]]] = {}
        for work in _works():
            taken: dict[str, list[float]] = {}
            for place in range(-1, ROUNDS):  # the first is not counted
                for one in contenders:
                    figure = await work.once(one, 0.3 if place < 0 else at.seconds)
                    if place >= 0:
                        taken.setdefault(f"{one.driver.name}: {one.configuration}", []).append(figure)
            everything[work.what] = taken
            found += _against(work, taken)
        return found, everything


def _against(work: Work, taken: dict[str, list[float]]) -> list[Row]:
    """A row for each rival, at its best."""
    (mine, *_) = taken.values()
    found = []
    for rival in (Naive.name, Kinto.name):
        theirs = [name for name in taken if name.startswith(f"{rival}: ")]
        best = (min if work.is_less_better else max)(theirs, key=lambda name: median(taken[name]))
        found.append(ratio("peers", work.what, best, work.unit, mine, taken[best]))
    return found


def _works() -> Sequence[Work]:
    return [
        Work("single writes, 16 connections", "/s", False, _Writing(CONNECTIONS).once),
        Work(
            "single writes, numbered by us, 16 connections", "/s", False, _Writing(CONNECTIONS, is_numbered=True).once
        ),
        Work("batches of writes, 2 connections", "/s", False, _Writing(BATCHING, is_batched=True).once),
        Work("polls that are up to date, 16 connections", "/s", False, lambda one, s: _polls(one, 0, s)),
        Work("polls that tell of 10 changes, 16 connections", "/s", False, lambda one, s: _polls(one, 10, s)),
        Work("1,000 changes since, one reader", "ms", True, _since),
        Work("everything from the start, one reader", "ms", True, _everything),
    ]


class _Writing:
    """Acknowledged writes a second, of atoms never seen before; what is refused costs its sender the time.

    `is_numbered`: each connection is a client that numbers its pushes, where a peer knows such a thing.
    """

    def __init__(self, connections: int, *, is_batched: bool = False, is_numbered: bool = False) -> None:
        self.is_batched = is_batched
        self.senders = [Sender(str(uuid4())) if is_numbered else None for _ in range(connections)]

    async def once(self, one: Contender, seconds: float) -> float:
        size = one.driver.batch if self.is_batched else 1
        taken, until = [0], time.perf_counter() + seconds
        asks = [_asking(one, size, sender, taken, until) for sender in self.senders]
        load = await closed_loop(one.served, asks)
        assert load.statuses.keys() <= {200, 201, 409}, (one.driver.name, load.statuses)
        return taken[0] / load.seconds


def _asking(one: Contender, size: int, sender: Sender | None, taken: list[int], until: float) -> Ask:
    def ask(answered: bytes) -> bytes | None:
        if answered:
            taken[0] += sum(one.driver.taken(answered))
        if time.perf_counter() > until:
            return None
        if sender is not None:
            sender.push += 1
        return one.driver.write("written", [(f"{next(_NUMBERS):016x}", DATA) for _ in range(size)], sender)

    return ask


async def _polls(one: Contender, behind: int, seconds: float) -> float:
    """Answers a second to readers who all stand `behind` changes before the end."""
    request = one.driver.since("read", one.cursors[behind])
    asks: list[Ask] = [lambda _: request] * CONNECTIONS
    load = await closed_loop(one.served, asks, seconds=seconds)
    assert load.statuses == {200: load.requests}, (one.driver.name, load.statuses)
    return load.rate


async def _since(one: Contender, _: float) -> float:
    """The median time to the last byte, each from another place: nobody answers from what was asked before."""
    places = [one.places.pop() for _ in range(TIMES)]
    return 1000 * median([one.read("read", place)[2] for place in places])


async def _everything(one: Contender, _: float) -> float:
    """The time that a new reader waits for answers; something is written before, so that no kept answer serves."""
    one.write([f"{1:016}"], {**DATA, "cost": next(_NUMBERS)})
    return 1000 * one.read("read", "")[2]


async def _fill(contenders: Sequence[Contender], atoms: int) -> None:
    """The same atoms for each peer, then singles whose places are kept, then 1,000 more; all of it checked."""
    copies: list[dict[str, Any]] = []
    for driver, same in groupby(contenders, key=lambda one: one.driver):
        (one, *others) = same
        for request in (*driver.create("read"), *driver.create("written")):
            one.fetch(request)
        if by_sql := driver.fill("read"):
            async with connected(one.dsn) as connection:
                await connection.execute(by_sql, atoms, msgspec.json.encode(DATA).decode())
        else:
            one.write([f"{number:016}" for number in range(1, atoms + 1)], DATA)
        names = iter(f"{number:016}" for number in count(atoms + 1))
        copy, cursor, _ = one.read("read", "")
        places: list[str] = []
        for _ in range(TIMES * (ROUNDS + 1) * WAYS):
            one.write([next(names)], DATA)
            _, cursor, _ = one.read("read", cursor)
            places.append(cursor)
        one.write([next(names) for _ in range(990)], DATA)
        _, one.cursors[10], _ = one.read("read", cursor)
        for _ in range(10):
            one.write([next(names)], DATA)
        told, one.cursors[0], _ = one.read("read", one.cursors[10])
        assert len(told) == 10
        assert not one.read("read", one.cursors[0])[0]
        assert len(one.read("read", places[-1])[0]) == 1000
        copies.append(one.read("read", "")[0])
        assert len(copies[-1]) == len(copy) + len(places) + 1000
        for place, each in enumerate((one, *others)):
            each.cursors, each.places = one.cursors, places[place::WAYS]
    assert all(copy == copies[0] for copy in copies)
