"""Clients that go on whatever happens to the service, and the account of what became of every push.

The rule: nobody here knows more than what it was answered. Patient pushers repeat a push under its number until it is
answered; hasty ones send each once, so that of some nobody was told what became. Readers keep copies: by polls that
memory may answer, by polls that only rows can, by a stream, and again and again from nothing. What none of them may
ever see is noted when it is seen; the rest is judged by the record once all is over.
"""

import asyncio
import contextlib
import inspect
import json
import random
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec

from journal.core import digest

Json = dict[str, Any]
Key = tuple[str, str]

ANSWER_S = 15.0
HASTY_S = 0.4
SHARED = 5  # atoms that all patient pushers write to
PAGE = 500
AT_LEAST = 40  # pushes that are answered before anything happens
SETTLED_S = 150.0


class Again(Exception):
    """No answer, or 503."""


class Push(msgspec.Struct, kw_only=True):
    """A push as it was sent, and what it was answered: None where nobody knows what became of it."""

    client: str
    number: int
    changes: list[Json]
    answer: Json | None = None


class Account(msgspec.Struct, kw_only=True):
    """What became of all pushes. `unknown`: those that were never answered; `whole` of them are recorded, none in part.

    `served_s`: how long after the fault was over a push was answered, rows were read and a stream told of it.
    """

    tried: int
    answered: int
    recorded: int
    unknown: int
    whole: int
    doubled: int
    lost: int
    torn: int
    refused: int
    broken: int
    served_s: float
    wrong: list[str]


class Load:
    """Pushers and readers of one journal, from `begin` on. `wrong`: what must not have been answered."""

    def __init__(self, url: str, session: aiohttp.ClientSession, journal: str = "j", *, bytes_each: int = 400) -> None:
        self.url = f"{url}/v1/journals/{journal}"
        self.session = session
        self.bytes_each = bytes_each
        self.pushes: list[Push] = []
        self.wrong: list[str] = []
        self.refused = self.broken = 0
        self.statuses: set[int] = set()
        self.stopping = asyncio.Event()
        self.copies: list[Copy] = []
        self.streamed = Copy(self, "the stream")

    @property
    def answered(self) -> int:
        """How many pushes were answered so far."""
        return sum(push.answer is not None for push in self.pushes)

    async def ask(self, method: str, path: str, *, seconds: float = ANSWER_S, **arguments: Any) -> bytes:
        """The body of a good answer; Again for anything that a client repeats itself after."""
        try:
            async with self.session.request(
                method,
                path if path.startswith("http") else self.url + path,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
                **arguments,
            ) as response:
                body = await response.read()
                where = response.headers.get("Location", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.broken += 1
            raise Again(repr(error)) from None
        if response.status == 303:
            return await self.ask("GET", self.url.partition("/v1/")[0] + where, seconds=seconds)
        if response.status == 503:
            self.refused += 1
            if json.loads(body)["code"] != "unavailable" or int(response.headers["Retry-After"]) <= 0:
                self.wrong.append(f"{method} {path}: a 503 that says {body!r}")
            raise Again(body.decode())
        if response.status != 200:
            self.wrong.append(f"{method} {path}: {response.status} {body[:500]!r}")
            raise Again(body.decode())
        return body

    async def persist(self, method: str, path: str, **arguments: Any) -> bytes:
        """The body of a good answer, however long that takes."""
        while True:
            try:
                return await self.ask(method, path, **arguments)
            except Again:
                await asyncio.sleep(0.2)

    async def send(
        self, push: Push, *, seconds: float = ANSWER_S, patience_s: float | None = SETTLED_S, **arguments: Any
    ) -> None:
        """Send a push until it is answered; once only where there is no patience."""
        body = {"client": push.client, "push": push.number, "on_conflict": "client", "changes": push.changes}
        deadline = time.monotonic() + (patience_s or 0.0)
        while True:
            try:
                push.answer = json.loads(await self.ask("POST", "/changes", seconds=seconds, json=body, **arguments))
                return
            except Again:
                if time.monotonic() > deadline:
                    return
                await asyncio.sleep(0.1)

    def insert(self, collection: str, atom: str, size: int | None = None) -> Json:
        """A new atom, of data that cannot be made smaller."""
        pad = random.randbytes((size or self.bytes_each) * 3 // 4)
        return {"op": "insert", "collection": collection, "atom": atom, "data": {"pad": b64encode(pad).decode()}}

    async def patient(self, name: str) -> None:
        """Pushes of a new atom, an own that is counted up and one that others write to; each until it is answered."""
        client, count = str(uuid4()), 0
        while not self.stopping.is_set():
            count += 1
            own: Json = {"op": "update", "data": {"n": count}, "if_data": {"n": count - 1}}
            if count == 1:
                own = {"op": "insert", "data": {"n": 1}}
            changes: list[Json] = [
                self.insert(name, f"{count}"),
                {"collection": name, "atom": "own", **own},
                {"op": "put", "collection": "shared", "atom": f"{count % SHARED}", "data": {"by": name, "n": count}},
            ]
            push = Push(client=client, number=count, changes=changes)
            self.pushes.append(push)
            await self.send(push)
            if push.answer is None:
                self.wrong.append(f"{name}: push {count} was not answered in {SETTLED_S:.0f} s")
                return
            await asyncio.sleep(0.02)

    async def hasty(self, name: str) -> None:
        """Pushes of three new atoms, each sent once."""
        client, count = str(uuid4()), 0
        while not self.stopping.is_set():
            count += 1
            changes = [self.insert(name, f"{count}-{part}") for part in range(3)]
            push = Push(client=client, number=count, changes=changes)
            self.pushes.append(push)
            await self.send(push, seconds=HASTY_S, patience_s=None)
            await asyncio.sleep(0.02 if push.answer is not None else 0.2)

    async def poll(self, copy: "Copy", parameters: str) -> None:
        """Pull all the time."""
        while not self.stopping.is_set():
            with contextlib.suppress(Again):
                await self.pull(copy, parameters)
            await asyncio.sleep(0.05)

    async def pull(self, copy: "Copy", parameters: str) -> None:
        """Everything since the cursor."""
        more = True
        while more:
            page = json.loads(await self.ask("GET", f"/deltas?since={copy.cursor}&limit={PAGE}{parameters}"))
            copy.apply(page)
            more = page["more"]

    async def begin_again(self) -> None:
        """Start from nothing, once by a snapshot and once by all deltas at once, and see that each is whole."""
        while not self.stopping.is_set():
            with contextlib.suppress(Again):
                copy = Copy(self, "a snapshot")
                copy.load(await self.ask("GET", "/snapshot"))
            with contextlib.suppress(Again):
                copy = Copy(self, "who began anew")
                copy.apply(json.loads(await self.ask("GET", "/deltas?since=0&limit=100000&include=meta")))
            await asyncio.sleep(0.2)

    async def stream(self) -> None:
        """Follow, and connect again whenever it ends."""
        copy = self.streamed
        while not self.stopping.is_set():
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=20)  # a bookmark comes every 15 s
                async with self.session.get(
                    f"{self.url}/stream", params={"since": copy.cursor}, timeout=timeout
                ) as response:
                    await self._follow(response, copy)
            await asyncio.sleep(0.1)

    async def _follow(self, response: aiohttp.ClientResponse, copy: "Copy") -> None:
        event: dict[str, str] = {}
        buffered = b""
        async for chunk in response.content.iter_any():
            *lines, buffered = (buffered + chunk).split(b"\n")
            for line in lines:
                if line:
                    name, _, value = line.decode().partition(": ")
                    event[name] = event[name] + value if name in event else value  # of JSON in several lines
                    continue
                self._take(event, copy)
                event = {}
            if self.stopping.is_set():
                return

    def _take(self, event: dict[str, str], copy: "Copy") -> None:
        match event.get("event"):
            case "deltas":
                page = json.loads(event["data"])
                if page["since"] != copy.revision:
                    self.wrong.append(f"a stream told of {page['since']} to who stands at {copy.revision}")
                copy.apply(page)
            case "bookmark":
                copy.cursor = event["id"]
            case None:
                pass
            case _:
                self.wrong.append(f"a stream told {event}")

    async def served_again(self) -> float:
        """Seconds from now until a push is answered, rows are read and the stream tells of it."""
        began = time.monotonic()
        push = Push(client=str(uuid4()), number=1, changes=[self.insert("probe", str(uuid4()))])
        self.pushes.append(push)
        await self.send(push, seconds=2.0)
        if push.answer is None:
            self.wrong.append(f"nothing was recorded for {SETTLED_S:.0f} s")
            return time.monotonic() - began
        revision = push.answer["revision"]

        async def are_rows_read() -> bool:
            page = json.loads(await self.persist("GET", f"/deltas?since={revision - 1}&include=meta"))
            return bool(page["until"] >= revision)

        await until(are_rows_read)
        await until(lambda: self.streamed.revision >= revision)
        return time.monotonic() - began

    async def account(self, served_s: float) -> Account:
        """Judge everything; once all is over."""
        record = [commit async for commit in self._record()]
        there: dict[tuple[str | None, int | None], list[Json]] = {}
        for commit in record:
            there.setdefault((commit["client"], commit["push"]), []).append(commit)
        answered = [push for push in self.pushes if push.answer is not None]
        unknown = [push for push in self.pushes if push.answer is None]
        known = {(push.client, push.number) for push in self.pushes}
        if strangers := [who for who in there if who not in known]:
            self.wrong.append(f"recorded and never sent: {strangers[:5]}")
        await self._compare_copies(record)
        found = [there.get((push.client, push.number), []) for push in unknown]
        return Account(
            tried=len(self.pushes),
            answered=len(answered),
            recorded=sum((push.client, push.number) in there for push in self.pushes),
            unknown=len(unknown),
            whole=sum(bool(commits) for commits in found),
            doubled=sum(len(commits) - 1 for commits in there.values()),
            lost=sum(not _is_as_answered(push, there.get((push.client, push.number), [])) for push in answered),
            torn=sum(
                _as_recorded(commit) != [_plain(change) for change in push.changes]
                for push, commits in zip(unknown, found, strict=True)
                for commit in commits
            ),
            refused=self.refused,
            broken=self.broken,
            served_s=served_s,
            wrong=self.wrong,
        )

    async def _record(self) -> AsyncIterator[Json]:
        """All commits, which must follow one on the other."""
        since, more = 0, True
        while more:
            page = json.loads(await self.persist("GET", f"/changes?since={since}&limit=5000"))
            for commit in page["commits"]:
                if commit["first"] != since + 1 or len(commit["changes"]) != commit["revision"] - since:
                    self.wrong.append(f"after {since} the record goes on with {commit['first']}")
                since = commit["revision"]
                yield commit
            more = page["more"]

    async def _compare_copies(self, record: list[Json]) -> None:
        """Every copy must end as what the record adds up to."""
        state = Copy(self, "the record")
        for commit in record:
            for revision, change in enumerate(commit["changes"], commit["first"]):
                state.change(change | {"revision": revision})
        head = json.loads(await self.persist("GET", ""))
        if (head["digest"], head["head"]) != (state.digest, record[-1]["revision"] if record else 0):
            self.wrong.append(f"the head says {head}, the record has the digest {state.digest}")
        fresh = Copy(self, "a new client")
        fresh.load(await self.persist("GET", "/snapshot"))
        for copy in (*self.copies, self.streamed, fresh):
            deadline = time.monotonic() + SETTLED_S
            while copy.revision < head["head"] and time.monotonic() < deadline:
                with contextlib.suppress(Again):
                    await self.pull(copy, "")
            if (copy.digest, copy.atoms) != (state.digest, state.atoms):
                self.wrong.append(f"{copy.name} did not converge: {copy.digest} where the record has {state.digest}")


class Copy:
    """A client's data at its cursor."""

    def __init__(self, load: Load, name: str) -> None:
        self.load_of, self.name, self.cursor = load, name, "0"
        self.atoms: dict[Key, tuple[int, Json]] = {}
        self._sum = 0

    @property
    def revision(self) -> int:
        """Where it stands."""
        return int(self.cursor.split(":")[1]) if ":" in self.cursor else 0

    @property
    def digest(self) -> str:
        """What its atoms and their revisions add up to."""
        return digest.told(self._sum)

    def apply(self, page: Json) -> None:
        """Take a page of deltas; at the head the digest must be the service's."""
        for delta in page["deltas"]:
            self.change(delta)
        self.cursor = page["cursor"]
        if "digest" in page and page["digest"] != self.digest:
            self.load_of.wrong.append(f"{self.name} has another digest at {self.cursor}, since {page['since']}")

    def change(self, delta: Json) -> None:
        """Take one delta, or one change of the record."""
        key = delta["collection"], delta["atom"]
        known = self.atoms.pop(key, None)
        if known is not None:
            self._sum ^= digest.leaf(*key, known[0])
        if delta["op"] == "delete":
            return
        data = delta.get("data", {})
        if delta["op"] == "update":
            if known is None:
                self.load_of.wrong.append(f"{self.name} is told to update what it does not have: {delta}")
                return
            data = {name: of for name, of in known[1].items() if name not in delta.get("unset", ())} | data
        self.atoms[key] = delta["revision"], data
        self._sum ^= digest.leaf(*key, delta["revision"])

    def load(self, body: bytes) -> None:
        """Take a snapshot, which must be what its last line says."""
        first, *atoms, last = [json.loads(line) for line in body.splitlines()]
        for line in atoms:
            self.change(line | {"op": "insert"})
        self.cursor = first["cursor"]
        if not last.get("end") or (last["atoms"], last["digest"]) != (len(atoms), self.digest):
            self.load_of.wrong.append(f"a snapshot at {self.cursor} ends with {last}")


@asynccontextmanager
async def load(url: str, *, pushers: int = 4, bytes_each: int = 400) -> AsyncIterator[Load]:
    """A load of so many patient and as many hasty pushers, and its readers. It is over when the context ends."""
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        it = Load(url, session, bytes_each=bytes_each)
        it.copies = [Copy(it, "a poll"), Copy(it, "a poll of rows"), Copy(it, "a waiting poll")]
        async with asyncio.TaskGroup() as tasks:
            for number in range(pushers):
                tasks.create_task(it.patient(f"patient-{number}"))
                tasks.create_task(it.hasty(f"hasty-{number}"))
            for copy, parameters in zip(it.copies, ("", "&include=meta", "&wait=2"), strict=True):
                tasks.create_task(it.poll(copy, parameters))
            streaming = tasks.create_task(it.stream())
            tasks.create_task(it.begin_again())
            try:
                yield it
            finally:
                it.stopping.set()
                streaming.cancel()


async def underway(it: Load, more: int = AT_LEAST) -> None:
    """Wait until so many more pushes are answered, and a stream follows."""
    before = it.answered
    await until(lambda: it.answered >= before + more and it.streamed.revision > 0)


async def until(holds: Callable[[], Any], *, seconds: float = SETTLED_S) -> Any:
    """Wait for a fact, and give it."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        found = await found if inspect.isawaitable(found) else found
        if found:
            return found
        assert time.monotonic() < deadline, f"it did not become true in {seconds:.0f} s"
        await asyncio.sleep(0.02)


def _plain(change: Json) -> Json:
    """A change as the record tells it, had it been made on what stood."""
    return {name: change[name] for name in ("op", "collection", "atom", "data")}


def _as_recorded(commit: Json) -> list[Json]:
    return [_plain(change) for change in commit["changes"]]


def _is_as_answered(push: Push, commits: list[Json]) -> bool:
    """Whether the record has exactly what an answer said: each own change as it was sent, all of one commit."""
    assert push.answer is not None
    if len(commits) != 1:
        return False
    [commit], answer = commits, push.answer
    expected = []
    for change, outcome in zip(push.changes, answer["outcomes"], strict=True):
        if outcome["status"] != "applied" and (
            change["op"] != "put" or outcome["status"] not in ("merged", "unchanged")
        ):
            return False
        if outcome["status"] != "unchanged":
            expected.append((outcome["revision"], change))
    if (answer["first"], answer["revision"]) != (commit["first"], commit["revision"]):
        return False
    there = dict(enumerate(commit["changes"], commit["first"]))
    return len(there) == len(expected) and all(
        revision in there and _is_of(change, there[revision]) for revision, change in expected
    )


def _is_of(sent: Json, recorded: Json) -> bool:
    ops = ("insert", "replace") if sent["op"] == "put" else (sent["op"],)
    same = all(sent[name] == recorded[name] for name in ("collection", "atom", "data"))
    return same and recorded["op"] in ops
