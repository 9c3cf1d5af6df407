"""Random histories over HTTP, compared with tests/oracle.py: P3, P4, P5, P7, P10 and the traps of paging.

Two processes serve one database: the first remembers recent commits, the second remembers none, so that memory, the
state and the record all answer. JOURNAL_TEST_THOROUGH=1 takes ten minutes where the normal run takes a few seconds.
"""

import itertools
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journal.config import Memory, Snapshots
from tests.harness import Harness, Reply, serving
from tests.oracle import Held, Json, Oracle, State, apply, comparable, comparable_state, digest, told

EXAMPLES = 5000 if os.environ.get("JOURNAL_TEST_THOROUGH") else 150
STEPS = 30

COLLECTIONS = ("todo", "naïve: %=+", "z")
ATOMS = ("a", "b", "c", 'q"\\&=+%', "😀")
FIELDS = ("x", "y", "", 'ü"{}\\')
CLIENTS = ("00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b")
FORMS = ("json", "ndjson", "msgpack")

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 1.0, -0.0, 0.1, 1e300, 5e-324, 2**53 - 1, "", '\n\x7f\\"é😀', [], [1, [True]], {"x": {}}]
)
DATA = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3)


@st.composite
def pushed_changes(draw: st.DrawFn) -> Json:
    """A change as it is pushed, sensible or not; `living` makes it one of an atom that lives, where there is any."""
    op = draw(st.sampled_from(["insert", "insert", "update", "update", "put", "delete", "delete"]))
    change: Json = {"op": op, "collection": draw(st.sampled_from(COLLECTIONS)), "atom": draw(st.sampled_from(ATOMS))}
    if op != "delete":
        change["data"] = draw(DATA)
    if op == "update" and draw(st.booleans()):
        change["unset"] = draw(st.lists(st.sampled_from(FIELDS), max_size=2))
    if op != "insert" and draw(st.booleans()):
        change["living"] = draw(st.integers(0, 20))
    return change


class Push(NamedTuple):
    client: str | None
    changes: list[Json]
    indent: int | None  # who pushes writes JSON as it likes
    ascii_only: bool


PUSHES = st.builds(
    Push,
    st.sampled_from([None, *CLIENTS]),
    st.lists(pushed_changes(), min_size=1, max_size=5),
    st.sampled_from([None, None, 1]),
    st.booleans(),
)


class Reading(NamedTuple):
    """How a round is read: what is pushed between its pages, and which process answers which page."""

    limit: int
    form: str
    pauses: list[list[Push]]
    servers: list[int]


READINGS = st.builds(
    Reading,
    st.sampled_from([1, 1, 2, 3, 5, 100]),
    st.sampled_from(FORMS),
    st.lists(st.lists(PUSHES, min_size=1, max_size=2), max_size=5),
    st.lists(st.integers(0, 1), min_size=1, max_size=4),
)


class Sync(NamedTuple):
    replica: int
    include: str | None
    how: Reading


class Recover(NamedTuple):
    replica: int
    server: int


class Fixed(NamedTuple):
    """A question with a fixed end. `since` and `until` choose among what there is."""

    since: int
    until: int
    is_bare: bool
    collections: frozenset[str] | None
    client: str | None
    include: str | None
    how: Reading


class Compare(NamedTuple):
    """One question to all who could answer it."""

    since: int
    is_bare: bool
    collections: frozenset[str] | None
    form: str


class Raw(NamedTuple):
    since: int
    limit: int
    form: str


class Atom(NamedTuple):
    collection: str
    atom: str
    at: int


PICKS = st.integers(0, 1000)
SCOPES = st.none() | st.frozensets(st.sampled_from(COLLECTIONS), min_size=1)
STEP = st.one_of(
    PUSHES,
    PUSHES,
    PUSHES,
    st.builds(Sync, st.integers(0, 4), st.sampled_from([None, None, "meta", "revisions"]), READINGS),
    st.builds(Recover, st.integers(0, 4), st.integers(0, 1)),
    st.builds(
        Fixed,
        PICKS,
        PICKS,
        st.booleans(),
        SCOPES,
        st.sampled_from([None, *CLIENTS]),
        st.sampled_from([None, "revisions", "meta,revisions"]),
        READINGS,
    ),
    st.builds(Compare, PICKS, st.booleans(), SCOPES, st.sampled_from(FORMS)),
    st.builds(Raw, PICKS, st.integers(1, 6), st.sampled_from(["json", "msgpack"])),
    st.builds(Atom, st.sampled_from(COLLECTIONS), st.sampled_from(ATOMS), PICKS),
)


class Page(NamedTuple):
    """One answer to …/deltas, and how far the journal was when it was given."""

    deltas: list[Json]
    members: Json
    head: int


class Replica:
    """A client; one that names itself writes its own inserts straight into its data (protocol, section 3.7)."""

    def __init__(self, collections: frozenset[str] | None, client: str | None) -> None:
        self.collections, self.client = collections, client
        self.data: State = {}
        self.cursor = "0"

    @property
    def scope(self) -> Json:
        """What its requests say of it."""
        names = None if self.collections is None else ",".join(sorted(self.collections))
        return {"collections": names, "client": self.client}

    def covers(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections


class World:
    """A journal, its oracle, and its clients."""

    def __init__(self, servers: Sequence[Harness], j: str, epoch: str) -> None:
        self.servers, self.j = servers, j
        self.oracle = Oracle()
        self.cursors = {0: f"{epoch}:0:{'0' * 16}"}
        self.replicas = [
            Replica(None, None),
            Replica(None, CLIENTS[0]),
            Replica(frozenset(COLLECTIONS[:2]), CLIENTS[1]),
            Replica(frozenset(COLLECTIONS[1:2]), None),
            Replica(frozenset([COLLECTIONS[0], "never"]), None),
        ]

    async def take(self, step: Any) -> None:
        """One step of a history."""
        match step:
            case Push():
                await self.push(step)
            case Sync():
                await self.sync(step)
            case Recover():
                await self.recover(step)
            case Fixed():
                await self.ask_to_a_fixed_end(step)
            case Compare():
                await self.compare(step)
            case Raw():
                await self.read_the_record(step)
            case Atom():
                await self.look_at_an_atom(step)

    async def push(self, step: Push) -> None:
        changes = self.resolved(step.changes)
        body = {"changes": changes, "on_conflict": "client"} | ({"client": step.client} if step.client else {})
        text = json.dumps(body, indent=step.indent, ensure_ascii=step.ascii_only)
        reply = await self.servers[0].call(
            "POST", f"{self.j}/changes", data=text.encode(), headers={"Content-Type": "application/json"}
        )

        before = self.oracle.head
        statuses = self.oracle.push(changes, step.client)

        assert reply.status == 200, reply.body
        assert [outcome["status"] for outcome in reply.json["outcomes"]] == statuses
        is_recorded = self.oracle.head > before
        assert reply.json["first"] == (before + 1 if is_recorded else None)
        assert reply.json["revision"] == (self.oracle.head if is_recorded else None)
        self.cursors[self.oracle.head] = f"{reply.json['epoch']}:{self.oracle.head}:{reply.json['chain']}"
        for change, outcome in zip(changes, reply.json["outcomes"], strict=True):
            if change["op"] == "insert" and outcome["status"] == "applied":
                self.write_straight(step.client, change, outcome["revision"])

    def resolved(self, changes: list[Json]) -> list[Json]:
        """The changes, with names instead of `living`."""
        living = sorted(self.oracle.state(self.oracle.head))
        found = []
        for change in changes:
            pick = change.get("living")
            collection, atom = (change["collection"], change["atom"])
            if pick is not None and living:
                collection, atom = living[pick % len(living)]
            rest = {name: value for name, value in change.items() if name != "living"}
            found.append(rest | {"collection": collection, "atom": atom})
        return found

    def write_straight(self, client: str | None, change: Json, revision: int) -> None:
        for replica in self.replicas:
            if client is not None and replica.client == client and replica.covers(change["collection"]):
                replica.data[change["collection"], change["atom"]] = Held(change["data"], revision)

    async def sync(self, step: Sync) -> None:
        """P10, and that nothing is told twice but what changed meanwhile (trap 4)."""
        replica = self.replicas[step.replica]
        start = int(replica.cursor.split(":")[1]) if ":" in replica.cursor else 0

        pages = []
        async for page in self.pages(replica.cursor, step.how, include=step.include, **replica.scope):
            apply(replica.data, page.deltas)
            replica.cursor = page.members["cursor"]
            pages.append(page)

        self.check_pages(pages, start, step.how)
        self.check_nothing_is_told_in_vain(pages, start, replica)
        self.check(replica, pages[-1].members)

    async def recover(self, step: Recover) -> None:
        """P7."""
        replica = self.replicas[step.replica]
        first, *lines, last = await self.servers[step.server].snapshot(self.j, collections=replica.scope["collections"])

        replica.data = {(line["collection"], line["atom"]): Held(line["data"], line["revision"]) for line in lines}
        replica.cursor = first["cursor"]

        assert first["atoms"] == last["atoms"] == len(lines) == len(replica.data)
        assert last["end"] is True
        self.check(replica, {"until": first["revision"], "digest": last["digest"]})

    def check(self, replica: Replica, members: Json) -> None:
        """Its data is the state at `until`, but for what it holds ahead."""
        until = members["until"]
        ahead = {key for key, held in replica.data.items() if held.revision > until}
        assert not ahead or replica.client
        state = self.oracle.state(until, replica.collections)
        for held in (replica.data, state):
            for key in ahead:
                assert held is state or held[key].revision <= self.oracle.head
        behind = {key: held for key, held in replica.data.items() if key not in ahead}
        expected = {key: held for key, held in state.items() if key not in ahead}
        assert comparable_state(behind) == comparable_state(expected)
        if "digest" in members:
            assert members["digest"] == digest(state)

    async def ask_to_a_fixed_end(self, step: Fixed) -> None:
        """P3 to the letter, and that no page differs for what happens between pages."""
        since = step.since % (self.oracle.head + 1) if step.is_bare else self.an_end(step.since, 0)
        until = self.an_end(step.until, since)
        client = step.client if not step.is_bare or since == 0 else None
        names = None if step.collections is None else ",".join(sorted(step.collections))
        expected = self.oracle.deltas(since, until, step.collections, client)

        pages = [
            page
            async for page in self.pages(
                str(since) if step.is_bare else self.cursors[since],
                step.how,
                until=until,
                collections=names,
                client=client,
                include=step.include,
            )
        ]

        self.check_pages(pages, since, step.how)
        deltas = [delta for page in pages for delta in page.deltas]
        answered = {(delta["collection"], delta["atom"]): told(delta) for delta in deltas}
        if step.include is None:
            expected = {key: delta._replace(revisions=()) for key, delta in expected.items()}
        assert answered == expected
        assert len(answered) == len(deltas)
        assert pages[-1].members["until"] == until
        assert not any(pages[-1].members.keys() & {"head", "horizon", "digest"})

    async def compare(self, step: Compare) -> None:
        """P5: memory, the state and the record have one effect."""
        since = step.since % (self.oracle.head + 1) if step.is_bare else self.an_end(step.since, 0)
        names = None if step.collections is None else ",".join(sorted(step.collections))
        asked = {"since": str(since) if step.is_bare else self.cursors[since], "collections": names}
        before = self.oracle.state(since, step.collections)

        for server, include in itertools.product(self.servers, (None, "meta", "revisions")):
            reply = await self.get(server, step.form, {**asked, "include": include})

            page = self.page(reply, step.form)
            until, after = page.members["until"], dict(before)
            apply(after, page.deltas)
            assert since <= until <= self.oracle.head
            assert until == self.oracle.head or (server is not self.servers[0] and include != "revisions")
            assert comparable_state(after) == comparable_state(self.oracle.state(until, step.collections))
            assert include == "revisions" or page.members["digest"] == digest(after)
            assert all(("at" in delta) == (include == "meta") for delta in page.deltas)

    async def read_the_record(self, step: Raw) -> None:
        """The record is what was pushed, a commit as a commit."""
        since = self.an_end(step.since, 0)
        commits, cursor = [], self.cursors[since]
        while True:
            reply = await self.servers[0].call(
                "GET",
                f"{self.j}/changes",
                params={"since": cursor, "limit": str(step.limit)},
                headers={"Accept": {"json": "application/json", "msgpack": "application/msgpack"}[step.form]},
            )
            assert reply.status == 200, reply.body
            answer = decoded(reply.body, step.form)
            assert (
                sum(len(commit["changes"]) for commit in answer["commits"]) <= step.limit or len(answer["commits"]) == 1
            )
            commits += answer["commits"]
            cursor = answer["cursor"]
            if not answer["more"]:
                break

        ends = [end for end in self.oracle.ends if end > since]
        assert [commit["revision"] for commit in commits] == ends
        assert [commit["first"] for commit in commits] == [end + 1 for end in [since, *ends]][:-1]
        assert cursor == self.cursors[self.oracle.head]
        recorded = itertools.islice(self.oracle.changes, since, None)
        for commit in commits:
            assert f"{commit['epoch']}:{commit['revision']}:{commit['chain']}" == self.cursors[commit["revision"]]
            for change, known in zip(commit["changes"], recorded, strict=False):
                assert (change["op"], (change["collection"], change["atom"])) == (known.op, known.key)
                assert comparable(change.get("data", {})) == comparable(known.data or {})
                assert frozenset(change.get("unset", ())) == known.unset
                assert commit["client"] == known.client

    async def look_at_an_atom(self, step: Atom) -> None:
        at = step.at % (self.oracle.head + 1)
        held = self.oracle.state(at).get((step.collection, step.atom))

        reply = await self.servers[1].call(
            "GET", f"{self.j}/atom", params={"collection": step.collection, "atom": step.atom, "at": str(at)}
        )

        assert reply.status == (404 if held is None else 200), reply.body
        if held is not None:
            assert reply.json["revision"] == held.revision
            assert comparable(reply.json["data"]) == comparable(held.data)

    # How a round is read, and what holds of any.

    async def pages(self, since: str, how: Reading, **parameters: Any) -> AsyncIterator[Page]:
        """All pages from `since` on, with pushes between them."""
        for place in itertools.count():
            server = self.servers[how.servers[place % len(how.servers)]]
            reply = await self.get(server, how.form, {"since": since, "limit": how.limit, **parameters})
            page = self.page(reply, how.form)
            yield page
            if not page.members["more"]:
                return
            since = page.members["cursor"]
            for push in how.pauses[place] if place < len(how.pauses) else ():
                await self.push(push)

    async def get(self, server: Harness, form: str, parameters: Json) -> Reply:
        reply = await server.deltas(j=self.j, format=form, **parameters)
        assert reply.status == 200, reply.body
        return reply

    def page(self, reply: Reply, form: str) -> Page:
        answer = decoded(reply.body, form)
        deltas = answer.pop("deltas")
        return Page(deltas, answer, self.oracle.head)

    def check_pages(self, pages: list[Page], start: int, how: Reading) -> None:
        """Pages end at commits' ends, go forward, are in order, and as large as was asked for at most."""
        position = start
        for page in pages:
            members, revisions = page.members, [delta["revision"] for delta in page.deltas]
            end = int(members["cursor"].split(":")[1])
            assert members["since"] == position
            assert members["cursor"].startswith(self.cursors[end])
            assert end > position or not members["more"]
            assert revisions == sorted(revisions)
            assert all(position < revision <= end for revision in revisions)
            if len(revisions) > how.limit and how.form != "ndjson":
                assert revisions[0] > max(known for known in self.oracle.ends if known < end)  # one commit, whole
            keys = [(delta["collection"], delta["atom"]) for delta in page.deltas]
            assert len(set(keys)) == len(keys)
            assert ("until" in members) == (not members["more"])
            position = end
        assert pages[-1].members["until"] == position
        assert ":base=" not in pages[-1].members["cursor"]

    def check_nothing_is_told_in_vain(self, pages: list[Page], start: int, replica: Replica) -> None:
        """What did not change is not told, and what was told only once more if it changed since."""
        seen: dict[tuple[str, str], int] = {}
        for page in pages:
            changed = {change.key for change in self.oracle.changes[start : page.head]}
            for delta in page.deltas:
                key = (delta["collection"], delta["atom"])
                assert key in changed
                assert replica.covers(key[0])
                assert delta["revision"] > seen.get(key, -1)
                assert delta["op"] != "delete" or key not in self.oracle.state(page.head)
                seen[key] = page.head

    def an_end(self, pick: int, lowest: int) -> int:
        """One of the commits' ends that are not below `lowest`."""
        ends = [end for end in self.oracle.ends if end >= lowest]
        return ends[pick % len(ends)]


def decoded(body: bytes, form: str) -> Json:
    """An answer in one of its forms, as the JSON form has it."""
    match form:
        case "json":
            answer: Json = json.loads(body)
        case "msgpack":
            answer = msgspec.msgpack.decode(body)
        case _:
            first, *deltas, last = [json.loads(line) for line in body.split(b"\n")[:-1]]
            assert last.pop("end") is True
            answer = first | last | {"deltas": deltas}
    return answer


@pytest.fixture
async def servers(database: str, tmp_path: Path) -> AsyncIterator[list[Harness]]:
    """A process that remembers, and one that does not."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(serving(database, tmp_path, snapshots=Snapshots(behind_revisions=7))),
            await stack.enter_async_context(
                serving(database, tmp_path, memory=Memory(ring_changes=0), snapshots=Snapshots(behind_revisions=0))
            ),
        ]


_numbers = itertools.count()


@given(st.lists(STEP, min_size=STEPS // 2, max_size=STEPS))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@pytest.mark.timeout(40 * EXAMPLES)
async def test_p3_p4_p5_p7_p10_whatever_is_asked_is_what_the_oracle_says(
    servers: list[Harness], steps: list[Any]
) -> None:
    j = f"h{next(_numbers)}"
    world = World(servers, j, (await servers[0].create(j))["epoch"])

    for step in steps:
        await world.take(step)

    for replica in range(len(world.replicas)):
        await world.sync(Sync(replica, None, Reading(3, "json", [], [0])))
    head = await servers[0].head(j)
    assert (head["head"], head["cursor"]) == (world.oracle.head, world.cursors[world.oracle.head])
    assert (head["digest"], head["atoms"]) == (
        digest(world.oracle.state(world.oracle.head)),
        len(world.oracle.state(world.oracle.head)),
    )
