"""The load, what happens to the service meanwhile and when, and what must hold in the end.

Journals: `lists` and `notes` are written by clients with copies, who come into each other's way; everyone of both is
called back once, and snapshots are read all the time, each of which holds compaction for an hour. `queue` and `feed`
are written by scripts; there compaction takes all but the last revisions, again and again. `attic` has clients that
come seldom, which a forced compaction overtakes.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
from rich.console import Console

from bench.soak.clients import ANSWER_S, OWN, SHARED, Api, Auditor, Pusher, Replica, Script, Tails, persist, until
from bench.soak.place import Postgres, Service, Taken, busy_s, kept, taken
from bench.soak.streams import Kind, Stream
from bench.soak.tally import Speed, Tally

Json = dict[str, Any]
JOURNALS = ("lists", "notes", "queue", "feed", "attic")
CALLED_BACK = ("lists", "notes")
COMPACTED = ("queue", "feed")
KEPT = 5000  # revisions that compaction leaves
SHARED_ATOMS = 3000
PUSHERS = {"lists": ("server", 10), "notes": ("merge", 8)}
PUSHES_S = 1.0  # of each of them
SCRIPTS = {"queue": (4, 1, 2.0), "feed": (2, 1, 1.5), "attic": (1, 1, 2.0)}  # how many, of how many changes, a second
BATCHES = ("queue", 100, 0.2)
STREAMS = {"lists": 100, "notes": 50, "queue": 50, "feed": 100}
WAITING = {"lists": 4, "notes": 4, "queue": 4}
POLLS_S = {"queue": 60.0, "feed": 60.0}
RARE = 3
AWAY_S = 3.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at a moment, and since the moment before. `busy`: the share of all cores, everybody's work."""

    at_s: float
    is_measured: bool
    service: Taken
    connections: dict[str, int] | None
    database_mib: float | None
    changes: dict[str, int] | None
    speeds: dict[str, Speed]
    service_cores: float
    load_cores: float
    busy_cores: float


class Happened(msgspec.Struct, frozen=True):
    """Something that was done to the service."""

    at_s: float
    what: str
    told: str


class Run:
    """One run."""

    def __init__(self, minutes: float, postgres: Postgres, service: Service, console: Console) -> None:
        self.seconds = 60 * minutes
        self.postgres, self.service, self.console = postgres, service, console
        self.tally = Tally()
        self.samples: list[Sample] = []
        self.happened: list[Happened] = []
        self.ends: dict[str, Any] = {}
        self.tails = Tails()
        self.writing, self.reading, self.listening = asyncio.Event(), asyncio.Event(), asyncio.Event()  # set: stop
        self.is_measured = self.is_whole = False
        self.pushers: list[Pusher] = []
        self.scripts: list[Script] = []
        self.waiting: list[Replica] = []
        self.rare: list[Replica] = []
        self.auditors: list[Auditor] = []
        self.streams: list[Stream] = []

    @property
    def every_s(self) -> float:
        """How far samples are apart."""
        return min(30.0, self.seconds / 60)

    async def whole(self) -> None:
        """From the first push to the last digest."""
        async with AsyncExitStack() as sessions:
            self._sessions = sessions
            self.api = await self._own()
            await self._fill()
            async with asyncio.TaskGroup() as tasks:
                writers = [tasks.create_task(work) async for work in self._writers()]
                readers = [tasks.create_task(work) async for work in self._readers()]
                listeners = [tasks.create_task(stream.listen(self.listening)) for stream in await self._all_streams()]
                watch = tasks.create_task(self._watch())
                await self._through()
                self.writing.set()
                await asyncio.wait(writers, timeout=2 * ANSWER_S)
                self._say("everyone has stopped writing")
                await self._settle()
                self.reading.set()
                self.listening.set()
                await asyncio.wait([*readers, *listeners, watch], timeout=2 * ANSWER_S)
                await self._compare()
                await self._check()
                self.is_whole = True

    async def _own(self, connections: int = 1) -> Api:
        """A way to ask with connections of its own, so that there are as many at the end as at the start."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=40.0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            headers={"Accept-Encoding": "gzip"},
            auto_decompress=False,
        )
        return Api(await self._sessions.enter_async_context(session), self.service.port, self.tally)

    async def _fill(self) -> None:
        """Atoms that all write to, and as many changes as a process keeps in memory."""
        for journal in JOURNALS:
            await self.api.ask("create", "PUT", journal)
            for start in range(0, 2 * SHARED_ATOMS, 500):
                changes = [
                    {"op": "put", "collection": SHARED, "atom": f"{n % SHARED_ATOMS}",
                     "data": {"title": f"things of {n}", "cost": n, "note": "said " * 12}}
                    for n in range(start, start + 500)
                ]  # fmt: skip
                body = _encode({"on_conflict": "client", "changes": changes})
                answer = _decode(await self.api.ask("fill", "POST", f"{journal}/changes", body))
            self.tails.heard(journal, f"{answer['epoch']}:{answer['revision']}:{answer['chain']}")

    # Who takes part.

    async def _writers(self) -> AsyncIterator[Any]:
        for journal, (policy, count) in PUSHERS.items():
            for n in range(count):
                pusher = Pusher(await self._own(), journal, f"{journal}-pusher-{n}", policy, SHARED_ATOMS)
                self.pushers.append(pusher)
                yield pusher.work(self.writing, PUSHES_S)
        scripts = [(journal, *of) for journal, of in SCRIPTS.items()]
        for journal, count, size, rate in [*scripts, (BATCHES[0], 1, BATCHES[1], BATCHES[2])]:
            for n in range(count):
                script = Script(await self._own(), journal, f"{journal}-script-{size}-{n}", size, self.tails)
                self.scripts.append(script)
                yield script.work(self.writing, rate)

    async def _readers(self) -> AsyncIterator[Any]:
        for journal, count in WAITING.items():
            for n in range(count):
                self.waiting.append(Replica(await self._own(), journal, f"{journal}-waiting-{n}"))
                yield self.waiting[-1].listen(self.reading)
        for n in range(RARE):
            self.rare.append(Replica(await self._own(), "attic", f"rare-{n}"))
            yield self.rare[-1].sleep_through(self.reading, self.seconds / 10 * (1 + n / 4))
        for journal in JOURNALS:
            self.auditors.append(Auditor(await self._own(), journal))
            yield self.auditors[-1].work(self.reading)
        for journal, rate in POLLS_S.items():
            yield self.tails.poll(await self._own(), journal, self.writing, rate)
        for journal in CALLED_BACK:
            yield self._snapshots(await self._own(), journal)
            yield self._digests(await self._own(), journal)

    async def _all_streams(self) -> list[Stream]:
        kinds: list[Kind] = [*_times(14, "follows"), *_times(2, "keeps a copy"), "pauses", *_times(3, "comes and goes")]
        api = await self._own(10)  # for those who are called back
        for journal, count in STREAMS.items():
            since = self.tails.cursors[journal][-1]
            for n in range(count):
                kind, who = kinds[n % len(kinds)], f"{journal}-stream-{n}"
                self.streams.append(Stream(api, journal, who, kind, since))
        return self.streams

    async def _snapshots(self, api: Api, journal: str) -> None:
        while not self.reading.is_set():
            await until(self.reading, self.seconds / 150)
            await persist(api.snapshot, journal, in_parts=True)

    async def _digests(self, api: Api, journal: str) -> None:
        replica = next(one for one in self.waiting if one.journal == journal)
        while not self.reading.is_set():
            await until(self.reading, self.seconds / 200)
            told = _decode(await persist(api.ask, "digest", "GET", f"{journal}/digest?of=content"))
            if told["revision"] != replica.copy.revision:
                continue
            self.tally.answers["digest compared"] += 1
            if told["digest"] != replica.copy.content_digest():
                self.tally.fault("digest", f"of content, {replica.who} at {replica.copy.cursor}")

    # What happens.

    async def _through(self) -> None:
        """The run's time: a warm-up, then what is planned at shares of the rest, then a kill of the service."""
        start = time.monotonic()
        warm_up_s = self.seconds / 6
        self._say(f"warming up for {warm_up_s:.0f} s")
        await asyncio.sleep(warm_up_s)
        await self._compact()
        self.is_measured = True
        rest_s = self.seconds - (time.monotonic() - start)
        begun = time.monotonic()
        for share, do in self._planned():
            await asyncio.sleep(max(begun + share * rest_s - time.monotonic(), 0.0))
            await do()
        await asyncio.sleep(max(begun + rest_s - time.monotonic(), 0.0))
        self.is_measured = False
        await self._kill()

    def _planned(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        planned = [(0.1 * n, self._compact) for n in range(1, 10)]
        planned += [(0.36, self._call_back), (0.65, self._overtake), (0.72, self._check_all)]
        if self.postgres.folder is not None:
            planned += [(0.22, self._restart_fast), (0.55, self._restart_immediate)]
        return sorted(planned, key=lambda one: one[0])

    async def _compact(self) -> None:
        for journal in COMPACTED:
            told = await self._operate(journal, "compact", {"keep_revisions": KEPT})
            self._say(f"compacted {journal}", told["result"])

    async def _overtake(self) -> None:
        """Compaction that is forced, of what those who come seldom have not seen."""
        self.tally.recall("attic", "horizon")
        for auditor in self.auditors:
            await persist(auditor.read_on)
        told = await self._operate("attic", "compact", {"keep_revisions": 10, "force": True})
        if not told["result"]["cut_off"]:
            self.tally.fault("compact", f"forced, and nobody is cut off: {told}")
        self._say("compacted attic by force", told["result"])

    async def _call_back(self) -> None:
        for journal in CALLED_BACK:
            self.tally.recall(journal, "operator")
            spread_s = round(max(5.0, self.seconds / 60))
            body = _encode({"reason": "a long run", "spread_s": spread_s})
            await persist(self.api.ask, "resync", "POST", f"{journal}/resync", body)
            self._say(f"called everyone of {journal} back, within {spread_s} s")

    async def _check_all(self) -> None:
        for journal in JOURNALS:
            told = await self._operate(journal, "check", None)
            if not told["result"]["ok"]:
                self.tally.fault("check", f"{journal}: {told['result']}")
            self._say(f"checked {journal}", told["result"])

    async def _restart_fast(self) -> None:
        await self._restart(signal.SIGINT, "fast")

    async def _restart_immediate(self) -> None:
        await self._restart(signal.SIGQUIT, "immediate")

    async def _restart(self, how: signal.Signals, word: str) -> None:
        start = time.monotonic()
        with self.tally.announced():
            await asyncio.to_thread(self.postgres.restart, how, AWAY_S)
            took_s = time.monotonic() - start
            await self._operate("feed", "compact", {"keep_revisions": KEPT})
        self._say(f"restarted PostgreSQL ({word}): away for {took_s:.1f} s")

    async def _kill(self) -> None:
        """SIGKILL the service; all go on, for a little while."""
        with self.tally.announced():
            await self.service.kill()
            await asyncio.sleep(1.0)
            await self.service.start()
        self._say("killed the service and started it again")
        await asyncio.sleep(max(20.0, self.seconds / 60))

    async def _operate(self, journal: str, what: str, asked: Json | None) -> Json:
        """What an operation came to."""
        body = None if asked is None else _encode(asked)
        path = f"{journal}/{what}"
        told: Json = _decode(await persist(self.api.ask, "operate", "POST", path, body, Prefer="wait=5"))
        while told["state"] == "running":
            await asyncio.sleep(1.0)
            path = f"{journal}/operations/{told['id']}"
            told = _decode(await persist(self.api.ask, "operate", "GET", path))
        if told["state"] != "done":
            self.tally.fault(what, f"{journal}: {told}")
        return told

    # The end.

    async def _settle(self) -> None:
        """Wait until everyone who listens has been told everything; what comes seldom comes now."""
        heads = {journal: _decode(await self._head(journal)) for journal in JOURNALS}
        for replica in [*self.pushers, *self.rare]:
            await persist(replica.pull)
        for auditor in self.auditors:
            await persist(auditor.read_on)
        late: list[str] = []
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            behind = [(f"{one.who} (heard {one.heard})", one.revision, one.journal) for one in self.streams]
            behind += [(one.who, one.copy.revision, one.journal) for one in self.waiting]
            late = [f"{who} at {revision}" for who, revision, journal in behind if revision != heads[journal]["head"]]
            if not late:
                break
            await asyncio.sleep(0.5)
        if late:
            self.tally.fault("late", f"{len(late)} were never told everything: {late[:5]}")
        for auditor in self.auditors:
            if auditor.revision != heads[auditor.journal]["head"]:
                self.tally.fault("record", f"{auditor.journal} was read to {auditor.revision} only")
        self._say("everyone has been told everything")

    async def _compare(self) -> None:
        """Every copy against the server's digest, every owner's atoms against what it knows."""
        copies = [one.copy for one in [*self.pushers, *self.waiting, *self.rare]]
        copies += [stream.copy for stream in self.streams if stream.copy is not None]
        for journal in JOURNALS:
            told = _decode(await persist(self.api.ask, "digest", "GET", f"{journal}/digest?of=content"))
            for copy in (one for one in copies if one.journal == journal):
                if copy.content_digest() != told["digest"] or len(copy.atoms) != told["count"]:
                    self.tally.fault("copy", f"{copy.who} at {copy.cursor} is not {told}")
        atoms = 0
        owners: list[Pusher | Script] = [*self.pushers, *self.scripts]
        for owner in owners:
            names = sorted(owner.owned.counts)
            body = _encode({"get": {OWN: names}})
            path = f"{owner.journal}/lookup"
            told = _decode(await persist(self.api.ask, "lookup", "POST", path, body))
            for name in names:
                there = told["atoms"][OWN][name]
                atoms += 1
                if (None if there is None else there["data"]) != owner.owned.living.get(name):
                    self.tally.fault("own atom", f"{name}: {there} and not {owner.owned.living.get(name)}")
        self.ends = {
            "copies compared": len(copies),
            "own atoms compared": atoms,
            "pushes acknowledged": sum(owner.acknowledged for owner in owners),
            "commits read in the record": sum(auditor.commits for auditor in self.auditors),
            "events": sum(stream.events for stream in self.streams),
        }
        self._say("copies and owners compared", self.ends)

    async def _check(self) -> None:
        await self._check_all()
        if complaints := self.service.complaints():
            self.tally.fault("log", f"{len(complaints)} complaints, the last one: {complaints[-1]}")

    async def _head(self, journal: str) -> bytes:
        return await persist(self.api.ask, "head", "GET", journal)

    # What is seen.

    async def _watch(self) -> None:
        """A sample every while; the first of a phase begins with it."""
        busy, cpu, at = busy_s(), taken(self.service.pid).cpu_s, time.monotonic()
        pid, own = self.service.pid, time.process_time()
        while not self.reading.is_set():
            await until(self.reading, self.every_s)
            try:
                of_service = taken(self.service.pid)
            except (FileNotFoundError, ProcessLookupError):  # it is being killed just now
                continue
            of_postgres = await kept(self.postgres.dsn, COMPACTED)
            then, now = at, time.monotonic()
            at = now
            spent = of_service.cpu_s - (cpu if pid == self.service.pid else 0.0)
            pid, cpu = self.service.pid, of_service.cpu_s
            before, busy = busy, busy_s()
            own_before, own = own, time.process_time()
            sample = Sample(
                at_s=round(self.tally.at_s, 1),
                is_measured=self.is_measured,
                service=of_service,
                connections=None if of_postgres is None else of_postgres.connections,
                database_mib=None if of_postgres is None else of_postgres.database_mib,
                changes=None if of_postgres is None else of_postgres.changes,
                speeds=self.tally.speeds(),
                service_cores=spent / (now - then),
                load_cores=(own - own_before) / (now - then),
                busy_cores=(busy - before) / (now - then),
            )
            self.samples.append(sample)
            if len(self.samples) % 10 == 0:
                self._say(_in_short(sample, self.tally))

    def _say(self, what: str, told: Any = "") -> None:
        text = str(told)
        if what[0].isalpha() and not what.startswith("memory"):
            self.happened.append(Happened(round(self.tally.at_s, 1), what, text))
        self.console.print(
            f"{self.tally.at_s:7.1f} s  {what}", text[:120], style="dim", highlight=False, soft_wrap=True
        )


def _times(count: int, kind: Kind) -> list[Kind]:
    return [kind] * count


def _in_short(sample: Sample, tally: Tally) -> str:
    push = sample.speeds.get("push")
    speed = "" if push is None else f", push p50 {push.p50_ms:.1f} p99 {push.p99_ms:.1f} ms"
    unexpected = dict(tally.unexpected)
    return (
        f"memory {sample.service.rss_mib:.0f} MiB, {sample.service.files} files, service"
        f" {sample.service_cores:.2f} of {sample.busy_cores:.2f} cores busy{speed}; unexpected: {unexpected}"
    )
