"""What each peer loses: changes that were acknowledged and that a reader never saw, or that are gone, or done twice.

A write sets an atom to a key that is used once; three of four set an atom that nobody else sets, the fourth one of a
few that all of them set. Meanwhile a reader follows by its cursor. At the end what it has is compared with what a new
reader gets, and both with what writers were told.

late    step by step: a transaction is held open, another write is acknowledged, the reader is told of it, and only then
        the first one ends
held    the same in the middle of traffic: two of six writers have transactions that are held open, over and over
mixed   nothing is held: batches and single writes at the same time
again   step by step: the answer to a write gets lost, somebody else sets the same atom, the first write is sent again
killed  the service gets SIGKILL three times, and every tenth answer gets lost on its way; what was not answered is sent
        again
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import asyncpg
import msgspec
from rich import box
from rich.table import Table

from bench.peers.actors import Ledger, Service, Tail, Writer, everything
from bench.peers.driver import Driver, folder, housed
from bench.peers.journal import Journal
from bench.peers.kinto import Kinto
from bench.peers.naive import Naive
from bench.place import Place, connected

STEPS = 5
HELD_S = 0.2
PATIENCE_S = 1.0
KILLS = 3
SHARED = 5
_LOCK = 4711
_WAIT = f"""create function peers_wait() returns trigger language plpgsql as $$ begin
              perform pg_advisory_xact_lock_shared({_LOCK}); return new;
            end $$"""
_WAITING = "select exists (select from pg_locks where locktype = 'advisory' and not granted and objid = $1)"


class Verdict(msgspec.Struct, frozen=True):
    """What one proof came to, in writes.

    `own`: those acknowledged that set an atom which nobody else set, of all of which a reader has to be told.
    `differs`: atoms of which the reader's copy is not what the server has.
    """

    peer: str
    configuration: str
    proof: str
    acknowledged: int
    refused: int
    own: int
    seen: int
    never_seen: int
    missing: int
    twice: int
    overwrote: int
    differs: int
    polls: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, done twice or kept from the reader."""
        return not (self.never_seen or self.missing or self.twice or self.overwrote or self.differs)


async def verdicts(at: Place) -> list[Verdict]:
    """Each proof with each peer in each of its configurations."""
    found = []
    peers: Sequence[Driver] = (Journal(), Naive(), Kinto())
    for driver in peers:
        async with housed(driver, at) as dsn:
            async with connected(dsn) as connection:
                for statement in (_WAIT, driver.holding(), *driver.recording()):
                    await connection.execute(statement)
            for number, configuration in enumerate(driver.configurations):
                for proof in (late, held, mixed, again, killed):
                    stage = Stage(driver, configuration, dsn, at, f"{proof.__name__}-{number}")
                    found.append(await stage.play(proof))
    return found


class Stage:
    """One proof with one peer: its service, its reader, and as many writers as there are threads."""

    def __init__(self, driver: Driver, configuration: str, dsn: str, at: Place, space: str) -> None:
        self.driver, self.configuration, self.dsn, self.space = driver, configuration, dsn, space
        self.seconds = 2.0 if at.is_quick else 5.0
        self.ledger = Ledger()
        self.keys = count(1)
        self.service = Service(driver, configuration, dsn, folder(at, driver))
        self.threads = ThreadPoolExecutor(32)

    async def play(self, proof: "Proof") -> Verdict:
        """Play it, and compare."""
        try:
            self._create()
            with Tail(self.service, self.space) as tail:
                self.tail = tail
                await proof(self)
            whole = everything(self.service, self.space)
        finally:
            self.threads.shutdown()
            self.service.stop()
        async with connected(self.dsn) as connection:
            applied = [(row["atom"], row["key"]) for row in await connection.fetch(self.driver.applied(self.space))]
        return self._verdict(proof.__name__, tail, whole, applied)

    def _create(self) -> None:
        creator = Writer(self.service, self.space, self.ledger)
        for request in self.driver.create(self.space):
            creator.ask(request)
        creator.close()

    def _verdict(self, proof: str, tail: Tail, whole: dict[str, Any], applied: Sequence[tuple[str, str]]) -> Verdict:
        acknowledged = self.ledger.acknowledged
        own = {key for key, atom in acknowledged.items() if not atom.startswith("shared-")}
        gone = {key for key in own if whole.get(acknowledged[key], {}).get("key") != key}
        times = Counter(key for _, key in applied)
        return Verdict(
            peer=self.driver.name,
            configuration=self.configuration,
            proof=proof,
            acknowledged=len(acknowledged),
            refused=self.ledger.refused,
            own=len(own),
            seen=len(own & tail.seen),
            never_seen=len(own - tail.seen - gone),
            missing=len(gone | (acknowledged.keys() - times.keys())),
            twice=sum(times[key] > 1 for key in acknowledged),
            overwrote=_overwrote(applied),
            differs=sum(tail.copy.get(atom) != whole.get(atom) for atom in tail.copy.keys() | whole.keys()),
            polls=tail.polls,
        )

    def writes(self, size: int = 1, *, is_slow: bool = False) -> list[tuple[str, dict[str, str]]]:
        """The next writes: each fourth sets an atom that others set too."""
        made = []
        for _ in range(size):
            number = next(self.keys)
            atom = f"{'slow' if is_slow else 'own'}-{number}" if number % 4 else f"shared-{number // 4 % SHARED}"
            made.append((atom, {"key": f"k{number}"}))
        # In the order of their atoms, and each atom once: a batch that sets an atom twice is no upsert.
        return sorted({atom: (atom, data) for atom, data in made}.values())

    async def run(self, work: Callable[[Writer], None], writers: int = 1) -> None:
        """So many writers at the same work, each in a thread of its own, until all are done."""

        def one() -> None:
            writer = Writer(self.service, self.space, self.ledger)
            try:
                work(writer)
            finally:
                writer.close()

        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self.threads, one) for _ in range(writers)))

    @asynccontextmanager
    async def gate(self) -> AsyncIterator["Gate"]:
        """What holds transactions of slow-… open."""
        async with connected(self.dsn) as connection:
            yield Gate(connection)


Proof = Callable[[Stage], Awaitable[None]]


class Gate:
    """Shut, no transaction that wrote an atom called slow-… can end; all its writes are done by then."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def shut(self) -> None:
        await self._connection.execute(f"select pg_advisory_lock({_LOCK})")

    async def open(self) -> None:
        await self._connection.execute(f"select pg_advisory_unlock({_LOCK})")

    async def somebody_waits(self) -> bool:
        """Whether a transaction is held."""
        waits: bool = await self._connection.fetchval(_WAITING, _LOCK)
        return waits


async def late(stage: Stage) -> None:
    """A transaction that ends after a later one was read, five times."""
    # At Kinto the second write to a new collection waits for the first: both make its row in `timestamps`.
    await stage.run(partial(Writer.write, writes=stage.writes()))
    async with stage.gate() as gate:
        for step in range(STEPS):
            slow, quick = f"slow-late-{step}", f"own-late-{step}"
            await gate.shut()
            first = asyncio.ensure_future(stage.run(partial(Writer.write, writes=[(slow, {"key": slow})])))
            assert await _eventually(gate.somebody_waits, 10)
            second = asyncio.ensure_future(stage.run(partial(Writer.write, writes=[(quick, {"key": quick})])))
            # A peer may well let the second wait for the first. Where it does not, the reader is told of the second.
            await asyncio.wait([second], timeout=PATIENCE_S)
            if second.done():
                await _is_past(stage.tail, quick)
            await gate.open()
            await asyncio.gather(first, second)


async def _is_past(tail: Tail, key: str) -> None:
    """Until a reader was told of a key and has polled on: a cursor of Kinto's is read before the rows it comes with."""
    assert await _eventually(lambda: key in tail.seen, 10)
    polls = tail.polls
    assert await _eventually(lambda: tail.polls > polls + 1, 10)


async def held(stage: Stage) -> None:
    """Two of six writers are held open, over and over."""
    until = time.monotonic() + stage.seconds

    def write(writer: Writer, *, is_slow: bool) -> None:
        while time.monotonic() < until:
            writer.write(stage.writes(is_slow=is_slow))

    async with stage.gate() as gate:
        writing = asyncio.gather(
            stage.run(lambda one: write(one, is_slow=False), 4), stage.run(lambda one: write(one, is_slow=True), 2)
        )
        while time.monotonic() < until:
            await gate.shut()
            await asyncio.sleep(HELD_S)
            await gate.open()
            await asyncio.sleep(HELD_S / 4)
        await writing


async def mixed(stage: Stage) -> None:
    """Two writers of batches and four of single writes."""
    until = time.monotonic() + stage.seconds

    def write(writer: Writer, size: int) -> None:
        while time.monotonic() < until:
            writer.write(stage.writes(size))

    await asyncio.gather(
        stage.run(lambda one: write(one, stage.driver.batch), 2), stage.run(lambda one: write(one, 1), 4)
    )


async def killed(stage: Stage) -> None:
    """Eight writers, three kills."""
    until = time.monotonic() + stage.seconds

    def write(writer: Writer) -> None:
        for number in count(1):
            writer.write(stage.writes(), meanwhile=_nothing if number % 10 == 0 else None)
            if time.monotonic() > until:
                return

    writing = asyncio.ensure_future(stage.run(write, 8))
    for _ in range(KILLS):
        await asyncio.sleep(stage.seconds / (KILLS + 1))
        await asyncio.to_thread(stage.service.kill)
    await writing


async def again(stage: Stage) -> None:
    """A writer whose answer got lost comes again after somebody else has written, five times."""

    def write(one: Writer) -> None:
        other = Writer(stage.service, stage.space, stage.ledger)
        for step in range(STEPS):
            newer = [(f"shared-{step}", {"key": f"new-{step}"})]
            one.write([(f"shared-{step}", {"key": f"old-{step}"})], meanwhile=partial(other.write, newer))
        other.close()

    await stage.run(write)


def _nothing() -> None:
    return None


async def _eventually(fact: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = fact()
        if found if isinstance(found, bool) else await found:
            return True
        await asyncio.sleep(0.005)
    return False


def _overwrote(applied: Sequence[tuple[str, str]]) -> int:
    """How often a key came again to an atom that had been set to another one since: an old value over a newer."""
    latest: dict[str, str] = {}
    before: set[str] = set()
    times = 0
    for atom, key in applied:
        times += key in before and latest[atom] != key
        latest[atom] = key
        before.add(key)
    return times


def table(found: Sequence[Verdict], *, is_markdown: bool) -> Table:
    """The verdicts, to be printed."""
    made = Table(box=box.MARKDOWN if is_markdown else box.SIMPLE_HEAD)
    for name in ("peer", "proof"):
        made.add_column(name, overflow="fold")
    for name in (
        "refused",
        "acknowledged",
        "own",
        "seen",
        "never seen",
        "missing",
        "twice",
        "over newer",
        "copy differs",
    ):
        made.add_column(name, justify="right")
    for one in found:
        figures = [one.refused, one.acknowledged, one.own, one.seen, one.never_seen, one.missing, one.twice]
        figures += [one.overwrote, one.differs]
        made.add_row(f"{one.peer}: {one.configuration}", one.proof, *(f"{figure:,}" for figure in figures))
    return made
