"""Clients that follow the protocol: they keep copies, push under numbers or keys, come back when they are called.

What a client owns nobody else writes, so that it knows what must become of it: each of its changes is applied, once.
"""

import asyncio
import contextlib
import gzip
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
import zstandard

from bench.soak.tally import Recalls, Tally
from journal.core import digest

Json = dict[str, Any]
Key = tuple[str, str]
T = TypeVar("T")
P = ParamSpec("P")

ANSWER_S = 90.0
OWN, SHARED = "own", "shared"
HOT = 15  # of what is shared, those that many write to

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Again(Exception):
    """Not now: a 503, or a connection that broke."""

    def __init__(self, after_s: float) -> None:
        super().__init__(after_s)
        self.after_s = after_s


class CalledBack(Exception):
    """410, with what it says."""

    def __init__(self, problem: Json) -> None:
        super().__init__(problem)
        self.problem = problem


class Api:
    """Asks the service, and counts what it answers. Each who works has one of its own, with one connection."""

    def __init__(self, session: aiohttp.ClientSession, port: int, tally: Tally) -> None:
        self.session, self.port, self.tally = session, port, tally
        self.url = f"http://127.0.0.1:{port}/v1/journals/"

    async def ask(self, what: str, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """The body of a good answer, timed as `what`."""
        return (await self.whole(what, method, path, body, **headers))[1]

    async def whole(
        self, what: str, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[Any, bytes]:
        """Head and body of a good answer."""
        start = time.monotonic()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self.session.request(
                method, self.url + path, data=body, headers=sent, allow_redirects=False
            ) as response:
                said = _plain(response.headers.get("Content-Encoding"), await response.read())
        except TimeoutError:
            self.tally.fault("no answer", f"{method} {path} within {ANSWER_S:.0f} s")
            raise Again(1.0) from None
        except (aiohttp.ClientError, OSError) as error:
            self.tally.trouble("cut", f"{method} {path}: {error!r}")
            raise Again(0.5) from None
        match response.status:
            case 200 | 201 | 202 | 206 | 303:
                self.tally.took(what, time.monotonic() - start)
                return response.headers, said
            case 410:
                raise CalledBack(_decode(said))
            case 503:
                self.tally.trouble("503", f"{method} {path}: {said.decode(errors='replace')}")
                raise Again(float(response.headers["Retry-After"]))
            case other:
                self.tally.fault(f"status {other}", f"{method} {path}: {said.decode(errors='replace')}")
                raise Again(1.0)

    async def snapshot(self, journal: str, *, in_parts: bool = False) -> list[Json]:
        """The lines of a snapshot; in parts, as by a phone that breaks off and goes on."""
        head, _ = await self.whole("snapshot", "GET", f"{journal}/snapshot")
        path = head["Location"].removeprefix("/v1/journals/")
        if not in_parts:
            whole = await self.ask("snapshot file", "GET", path, Accept_Encoding="zstd")
        else:
            head, part = await self.whole("range", "GET", path, Accept_Encoding="identity", Range="bytes=0-19999")
            rest = b""
            if int(head["Content-Range"].rpartition("/")[2]) > len(part):
                rest = await self.ask(
                    "range", "GET", path, Accept_Encoding="identity", Range="bytes=20000-", If_Range=head["ETag"]
                )
            whole = part + rest
        lines: list[Json] = [_decode(line) for line in whole.splitlines()]
        leaves = (digest.leaf(line["collection"], line["atom"], line["revision"]) for line in lines[1:-1])
        last = lines[-1]
        if not last.get("end") or last["atoms"] != len(lines) - 2 or last["digest"] != digest.told(xor(leaves)):
            self.tally.fault("snapshot", f"{path} is not what its last line says: {last}")
        return lines


def _plain(coding: str | None, said: bytes) -> bytes:
    match coding:
        case "gzip":
            return gzip.decompress(said)
        case "zstd":
            return zstandard.ZstdDecompressor().stream_reader(said).read()
        case _:
            return said


def xor(leaves: Iterable[int]) -> int:
    """The digest of leaves."""
    found = 0
    for leaf in leaves:
        found ^= leaf
    return found


async def persist(ask: Callable[P, Awaitable[T]], *words: P.args, **named: P.kwargs) -> T:
    """Ask until there is an answer."""
    while True:
        try:
            return await ask(*words, **named)
        except Again as again:
            await asyncio.sleep(again.after_s * random.uniform(1.0, 1.5))


class Copy:
    """A journal's data at a cursor, kept by deltas."""

    def __init__(self, journal: str, tally: Tally, who: str) -> None:
        self.journal, self.tally, self.who = journal, tally, who
        self.cursor = "0"
        self.atoms: dict[Key, tuple[int, Json]] = {}
        self._digest = 0

    @property
    def revision(self) -> int:
        """Where it stands."""
        return int(self.cursor.split(":")[1]) if ":" in self.cursor else 0

    def apply(self, page: Json) -> None:
        """Take a page of deltas; at the end of a round the digest must be the server's."""
        for delta in page["deltas"]:
            key = (delta["collection"], delta["atom"])
            known = self.atoms.pop(key, None)
            if known is not None:
                self._digest ^= digest.leaf(*key, known[0])
            if delta["op"] == "delete":
                continue
            data = delta.get("data", {})
            if delta["op"] == "update":
                if known is None:
                    self.tally.fault("update of nothing", f"{self.who}: {delta}")
                    continue
                data = {name: of for name, of in known[1].items() if name not in delta.get("unset", ())} | data
            self.atoms[key] = delta["revision"], data
            self._digest ^= digest.leaf(*key, delta["revision"])
        self.cursor = page["cursor"]
        if not page["more"] and page["digest"] != digest.told(self._digest):
            self.tally.fault("digest", f"{self.who} of {self.journal} at {self.cursor}, since {page['since']}")

    def replace(self, lines: list[Json]) -> None:
        """Take a snapshot in place of everything."""
        self.atoms = {(line["collection"], line["atom"]): (line["revision"], line["data"]) for line in lines[1:-1]}
        self._digest = xor(digest.leaf(*key, revision) for key, (revision, _) in self.atoms.items())
        self.cursor = lines[0]["cursor"]

    def content_digest(self) -> str:
        """The digest of its data, by content."""
        return digest.told(xor(digest.content_leaf(*key, _encode(data)) for key, (_, data) in self.atoms.items()))


class Replica:
    """A client with a copy, which names itself. It pulls, or waits for news."""

    def __init__(self, api: Api, journal: str, who: str) -> None:
        self.api, self.journal, self.who = api, journal, who
        self.id = str(uuid4())
        self.copy = Copy(journal, api.tally, who)
        self.recalls = Recalls(api.tally, journal, who)
        self._is_mine = asyncio.Lock()

    async def pull(self, *, wait_s: int = 0) -> None:
        """Everything since the cursor."""
        async with self._is_mine:
            await self._pull(wait_s)

    async def _pull(self, wait_s: int) -> None:
        more = True
        while more:
            path = f"{self.journal}/deltas?client={self.id}&since={self.copy.cursor}" + (
                f"&wait={wait_s}" if wait_s else ""
            )
            try:
                page = _decode(await self.api.ask("wait" if wait_s else "pull", "GET", path))
            except CalledBack as told:
                await self.come_back(told.problem)
                return
            self.copy.apply(page)
            more = page["more"]

    async def come_back(self, problem: Json) -> None:
        """Start again from a snapshot, when it is time."""
        self.recalls.told(problem["reason"])
        await asyncio.sleep(problem["retry_after"])
        self.copy.replace(await persist(self.api.snapshot, self.journal))

    async def listen(self, stopping: asyncio.Event) -> None:
        """Wait for news, again and again."""
        while not stopping.is_set():
            await persist(self.pull, wait_s=20)

    async def sleep_through(self, stopping: asyncio.Event, pause_s: float) -> None:
        """Look seldom: one that compaction overtakes when it is forced."""
        while not stopping.is_set():
            await persist(self.pull)
            await until(stopping, pause_s)


async def until(stopping: asyncio.Event, seconds: float) -> None:
    """Sleep so long, or until it is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()


class Owned:
    """Atoms that one client alone writes: `living` has the data of each that lives, `count` how often it changed."""

    def __init__(self, who: str, size: int, chance: random.Random) -> None:
        self.who, self.size, self.chance = who, size, chance
        self.living: dict[str, Json] = {}
        self.revisions: dict[str, int] = {}
        self.counts: dict[str, int] = {}

    def next(self, atom: str | None = None) -> Json:
        """A change that makes sense: insert what does not live, update or delete what does."""
        atom = atom or f"{self.who}-{self.chance.randrange(self.size)}"
        n = self.counts.get(atom, 0) + 1
        if atom not in self.living:
            data = {"n": n, "by": self.who, "note": "x" * self.chance.randrange(20, 120)}
            return {"op": "insert", "collection": OWN, "atom": atom, "data": data}
        if self.chance.random() < 0.25:
            return {"op": "delete", "collection": OWN, "atom": atom}
        return {"op": "update", "collection": OWN, "atom": atom, "data": {"n": n, f"f{n % 4}": n}}

    def done(self, change: Json, revision: int | None) -> None:
        """It was applied."""
        atom = change["atom"]
        if change["op"] == "delete":
            del self.living[atom]
            self.revisions.pop(atom, None)
            return
        self.counts[atom] = change["data"]["n"]
        self.living[atom] = self.living.get(atom, {}) | change["data"]
        if revision is not None:
            self.revisions[atom] = revision

    def after(self, change: Json) -> Json | None:
        """What the atom is once the change was applied."""
        return None if change["op"] == "delete" else self.living.get(change["atom"], {}) | change["data"]


class Pusher(Replica):
    """A client that numbers its pushes: something of its own, and often something that others write too."""

    def __init__(self, api: Api, journal: str, who: str, policy: str, shared: int) -> None:
        super().__init__(api, journal, who)
        self.policy, self.shared = policy, shared
        self.chance = random.Random(who)
        self.owned = Owned(who, 40, self.chance)
        self.number = self.acknowledged = 0

    async def work(self, stopping: asyncio.Event, rate: float) -> None:
        """Push and pull, `rate` pushes a second."""
        await persist(self.pull)
        while not stopping.is_set():
            await until(stopping, self.chance.expovariate(rate))
            await self.push()
            if self.chance.random() < 0.6:
                await persist(self.pull)

    async def push(self) -> None:
        """One push, until it was answered; after a 410 with the data that it was made on in place of its base."""
        own = self.owned.next()
        changes = [own, *(self._of_others() for _ in range(self.chance.randrange(3)))]
        made_on = [self.owned.living.get(own["atom"]), *(self._known(change) for change in changes[1:])]
        self.number += 1
        push: Json = {"client": self.id, "push": self.number, "on_conflict": self.policy}
        base = self.owned.revisions.get(own["atom"])
        with_base = [own if base is None or own["op"] == "insert" else own | {"base": base}, *changes[1:]]
        body = _encode(push | {"base": self.copy.cursor, "changes": with_base})
        while True:
            path = f"{self.journal}/changes"
            try:
                answer = _decode(await persist(self.api.ask, "push", "POST", path, body))
                break
            except CalledBack as told:
                await self.come_back(told.problem)
                kept = [change | {"if_data": data} for change, data in zip(changes, made_on, strict=True)]
                body = _encode(push | {"changes": kept})
        self._answered(own, answer)

    def _answered(self, own: Json, answer: Json) -> None:
        first = answer["outcomes"][0]
        self.acknowledged += 1
        if answer["revision"] is not None:
            self.api.tally.answered(self.journal, answer["revision"])
        for outcome in answer["outcomes"][1:]:
            self.api.tally.answers[f"outcome: {outcome['status']}"] += 1
        if first["status"] != "applied":
            self.api.tally.fault("own change not applied", f"{self.who} push {self.number} {own}: {first}")
            return
        self.owned.done(own, first["revision"])

    def _known(self, change: Json) -> Json | None:
        found = self.copy.atoms.get((change["collection"], change["atom"]))
        return None if found is None else found[1]

    def _of_others(self) -> Json:
        atom = f"{self.chance.randrange(HOT if self.chance.random() < 0.4 else self.shared)}"
        if (SHARED, atom) not in self.copy.atoms or self.chance.random() < 0.1:
            return {"op": "put", "collection": SHARED, "atom": atom, "data": {"title": self.who, "n": self.number}}
        if self.chance.random() < 0.05:
            return {"op": "delete", "collection": SHARED, "atom": atom}
        field = self.chance.choice(["title", "cost", "note", "n"])
        return {"op": "update", "collection": SHARED, "atom": atom, "data": {field: f"{self.who} {self.number}"}}


class Script:
    """A sender without a number: it repeats under an Idempotency-Key, or says on which data its change was made."""

    def __init__(self, api: Api, journal: str, who: str, size: int, tails: "Tails") -> None:
        self.api, self.journal, self.who, self.size, self.tails = api, journal, who, size, tails
        self.chance = random.Random(who)
        self.owned = Owned(who, 30 + 3 * size, self.chance)
        self.acknowledged = 0

    async def work(self, stopping: asyncio.Event, rate: float) -> None:
        """`rate` pushes a second."""
        while not stopping.is_set():
            await until(stopping, self.chance.expovariate(rate))
            await self.push()

    async def push(self) -> None:
        """One push, until it was answered."""
        atoms = self.chance.sample(range(self.owned.size), self.size)
        changes = [self.owned.next(f"{self.who}-{atom}") for atom in atoms]
        body = _encode({"changes": [change | {"if_data": self.owned.living.get(change["atom"])} for change in changes]})
        key = {"Idempotency_Key": str(uuid4())} if self.chance.random() < 0.5 else {}
        answer = _decode(await persist(self.api.ask, "push", "POST", f"{self.journal}/changes", body, **key))
        self.acknowledged += 1
        if answer["revision"] is not None:
            self.api.tally.answered(self.journal, answer["revision"])
            self.tails.heard(self.journal, f"{answer['epoch']}:{answer['revision']}:{answer['chain']}")
        for change, outcome in zip(changes, answer["outcomes"], strict=True):
            is_done = outcome["status"] == "applied" or self._was_done(change, outcome, is_keyed=bool(key))
            if is_done:
                self.owned.done(change, None)
            else:
                self.api.tally.fault("own change not applied", f"{self.who} {change}: {outcome}")

    def _was_done(self, change: Json, outcome: Json, *, is_keyed: bool) -> bool:
        """Whether a push whose answer was lost is told that there is nothing left to do."""
        if is_keyed:
            return False
        stands = outcome.get("current")
        is_so = outcome["status"] == "unchanged" or (stands or {}).get("data") == self.owned.after(change)
        return is_so and self.api.tally.is_trouble_announced()


class Tails:
    """Cursors of the last commits of each journal, of which polls ask."""

    def __init__(self) -> None:
        self.cursors: dict[str, list[str]] = {}

    def heard(self, journal: str, cursor: str) -> None:
        """A push was answered with this cursor."""
        known = self.cursors.setdefault(journal, [])
        known.append(cursor)
        del known[:-10]

    async def poll(self, api: Api, journal: str, stopping: asyncio.Event, rate: float) -> None:
        """Ask up to date and from ten commits back in turn, `rate` requests a second."""
        chance, place = random.Random(journal), 0
        while not stopping.is_set():
            await until(stopping, chance.expovariate(rate))
            if known := self.cursors.get(journal):
                place = -1 - place
                try:
                    await api.ask("poll", "GET", f"{journal}/deltas?since={known[place]}")
                except Again:
                    pass
                except CalledBack as told:  # which is told until the tail is above the floor
                    reason = told.problem["reason"]
                    if api.tally.was_recalled(journal, reason):
                        api.tally.expected[f"called back: {reason}"] += 1
                    else:
                        api.tally.fault(f"called back: {reason}", f"a poll of {journal}")


class Auditor:
    """Reads the record itself, before compaction takes it: no gap, no push twice, no change of an owner's twice."""

    def __init__(self, api: Api, journal: str) -> None:
        self.api, self.journal = api, journal
        self.revision = self.commits = 0
        self._pushes: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._is_mine = asyncio.Lock()

    async def work(self, stopping: asyncio.Event) -> None:
        """Follow the record."""
        while not stopping.is_set():
            await persist(self.read_on)
            await until(stopping, 2.0)

    async def read_on(self) -> None:
        """Read up to the head."""
        async with self._is_mine:
            more = True
            while more:
                path = f"{self.journal}/changes?since={self.revision}&limit=2000"
                page = _decode(await self.api.ask("record", "GET", path))
                for commit in page["commits"]:
                    self._look_at(commit)
                more = page["more"]

    def _look_at(self, commit: Json) -> None:
        if commit["first"] != self.revision + 1 or commit["revision"] - commit["first"] + 1 != (
            len(commit["changes"]) or 1
        ):
            self.api.tally.fault("record", f"{self.journal} after {self.revision}: {str(commit)[:300]}")
        self.revision, self.commits = commit["revision"], self.commits + 1
        if commit.get("push") is not None:
            if self._pushes.get(commit["client"], 0) >= commit["push"]:
                self.api.tally.fault("a push twice", f"{self.journal}: {str(commit)[:300]}")
            self._pushes[commit["client"]] = commit["push"]
        for change in commit["changes"]:
            if change["collection"] != OWN or change["op"] == "delete":
                continue
            n, known = change["data"]["n"], self._counts.get(change["atom"], 0)
            if n != known + 1:
                self.api.tally.fault("a change lost or twice", f"{self.journal}: {change} after {known}")
            self._counts[change["atom"]] = n
