"""Random histories over HTTP, compared with tests/oracle.py: P3, P4, P5, P7, P10 and the traps of paging.

Two processes serve one database: the first remembers recent commits, the second remembers none, so that memory, the
state and the record all answer. Each number that hypothesis draws is the seed of one step: it leaves out steps to find
the shortest history that fails. JOURNAL_TEST_THOROUGH=1 takes half an hour where the normal run takes a minute.
"""

import itertools
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from journal.config import Memory, Snapshots
from tests.harness import Harness, serving
from tests.oracle import Held, Json, Key, Oracle, State, apply, comparable, comparable_state, digest, told

EXAMPLES = 5000 if os.environ.get("JOURNAL_TEST_THOROUGH") else 150
STEPS = 30

COLLECTIONS = ("todo", "naïve: %=+", "z")
ATOMS = ("a", "b", 'q"\\&=+%', "😀")
FIELDS = ("x", "y", "", 'ü"{}\\')
VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, -0.0, 0.1, 1e300, 5e-324, 2**53 - 1, "", '\n\x7f\\"é😀', [], [1, [True]], {"x": {}},
]  # fmt: skip
ME, YOU = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
MEDIA = {"json": "application/json", "msgpack": "application/msgpack"}


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
        return {"collections": listed(self.collections), "client": self.client}

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
            Replica(None, ME),
            Replica(frozenset(COLLECTIONS[:2]), YOU),
            Replica(frozenset(COLLECTIONS[1:2]), None),
            Replica(frozenset([COLLECTIONS[0], "never"]), None),
        ]

    async def take(self, seed: int) -> None:
        """One step of a history."""
        r = Random(seed)
        steps = [self.push, self.sync, self.ask_to_a_fixed_end, self.compare, self.recover, self.read_the_record]
        [step] = r.choices([*steps, self.look_at_an_atom], [8, 6, 4, 2, 1, 1, 1])
        note(f"{step.__name__} at {self.oracle.head}")
        await step(r)

    # What is done.

    async def push(self, r: Random) -> None:
        client, changes = r.choice([None, ME, YOU]), [self.change(r) for _ in range(r.choice([1, 1, 1, 2, 3, 5]))]
        note(f"  {client} pushes {changes}")
        body = {"changes": changes, "on_conflict": "client"} | ({"client": client} if client else {})
        text = json.dumps(body, indent=r.choice([None, None, 1]), ensure_ascii=r.choice([True, False]))

        before = self.oracle.head
        statuses = self.oracle.push(changes, client)
        reply = await self.servers[0].call(
            "POST", f"{self.j}/changes", data=text.encode(), headers={"Content-Type": "application/json"}
        )

        assert reply.status == 200, reply.body
        assert [outcome["status"] for outcome in reply.json["outcomes"]] == statuses
        is_recorded = self.oracle.head > before
        assert reply.json["first"] == (before + 1 if is_recorded else None)
        assert reply.json["revision"] == (self.oracle.head if is_recorded else None)
        self.cursors[self.oracle.head] = f"{reply.json['epoch']}:{self.oracle.head}:{reply.json['chain']}"
        for change, outcome in zip(changes, reply.json["outcomes"], strict=True):
            if change["op"] == "insert" and outcome["status"] == "applied":
                self.write_straight(client, change, outcome["revision"])

    def change(self, r: Random) -> Json:
        """A change as it is pushed, sensible or not; mostly of what lives, if it is none that inserts."""
        op = r.choice(["insert", "insert", "update", "update", "update", "put", "delete", "delete"])
        living = sorted(self.oracle.state(self.oracle.head))
        collection, atom = r.choices(COLLECTIONS, [3, 2, 1])[0], r.choice(ATOMS)
        if living and op != "insert" and r.random() < 0.7:
            collection, atom = r.choice(living)
        change: Json = {"op": op, "collection": collection, "atom": atom}
        if op != "delete":
            change["data"] = {r.choice(FIELDS): r.choice(VALUES) for _ in range(r.randint(0, 3))}
        if op == "update" and r.random() < 0.4:
            change["unset"] = [r.choice(FIELDS) for _ in range(r.randint(0, 2))]
        return change

    def write_straight(self, client: str | None, change: Json, revision: int) -> None:
        for replica in self.replicas:
            if client is not None and replica.client == client and replica.covers(change["collection"]):
                replica.data[change["collection"], change["atom"]] = Held(change["data"], revision)

    async def sync(self, r: Random) -> None:
        """P10, and that nothing is told twice but what changed meanwhile (trap 4)."""
        await self.sync_replica(r, r.choice(self.replicas), r.choice([None, None, None, "meta", "revisions"]))

    async def sync_replica(self, r: Random, replica: Replica, include: str | None) -> None:
        start = int(replica.cursor.split(":")[1]) if ":" in replica.cursor else 0
        form, limit = a_form(r), r.choice([1, 1, 1, 2, 3, 100])

        pages = []
        async for page in self.pages(r, replica.cursor, form, limit, include=include, **replica.scope):
            apply(replica.data, page.deltas)
            replica.cursor = page.members["cursor"]
            pages.append(page)

        self.check_pages(pages, start, None if form == "ndjson" else limit)
        self.check_nothing_is_told_in_vain(pages, start, replica)
        self.check(replica, pages[-1].members)

    async def recover(self, r: Random) -> None:
        """P7."""
        replica = r.choice(self.replicas)
        names = replica.scope["collections"]
        first, *lines, last = await r.choice(self.servers).snapshot(self.j, collections=names)

        replica.data = {(line["collection"], line["atom"]): Held(line["data"], line["revision"]) for line in lines}
        replica.cursor = first["cursor"]

        assert first["atoms"] == last["atoms"] == len(lines) == len(replica.data)
        assert last["end"] is True
        self.check(replica, {"until": first["revision"], "digest": last["digest"]})

    async def ask_to_a_fixed_end(self, r: Random) -> None:
        """P3 to the letter, and that no page differs for what happens between pages."""
        is_bare, collections, client = r.random() < 0.4, a_scope(r), r.choice([None, None, ME, YOU])
        since = r.randint(0, self.oracle.head) if is_bare else r.choice(self.oracle.ends)
        until = r.choice([end for end in self.oracle.ends if end >= since])
        client = None if is_bare and since > 0 else client
        include = r.choice([None, "revisions", "meta,revisions"])
        form, limit = a_form(r), r.choice([1, 2, 3, 100])
        expected = self.oracle.deltas(since, until, collections, client)

        at = str(since) if is_bare else self.cursors[since]
        asked = {"until": until, "collections": listed(collections), "client": client, "include": include}
        pages = [page async for page in self.pages(r, at, form, limit, **asked)]

        self.check_pages(pages, since, None if form == "ndjson" else limit)
        deltas = [delta for page in pages for delta in page.deltas]
        answered = {(delta["collection"], delta["atom"]): told(delta) for delta in deltas}
        if include is None:
            expected = {key: delta._replace(revisions=()) for key, delta in expected.items()}
        assert answered == expected
        assert len(answered) == len(deltas)
        assert pages[-1].members["until"] == until
        assert not any(pages[-1].members.keys() & {"head", "horizon", "digest"})

    async def compare(self, r: Random) -> None:
        """P5: memory, the state and the record have one effect."""
        is_bare, collections, form = r.random() < 0.4, a_scope(r), a_form(r)
        since = r.randint(0, self.oracle.head) if is_bare else r.choice(self.oracle.ends)
        before = self.oracle.state(since, collections)

        for server, include in itertools.product(self.servers, (None, "meta", "revisions")):
            at = str(since) if is_bare else self.cursors[since]
            page = await self.page(server, form, since=at, collections=listed(collections), include=include)
            until, after = page.members["until"], dict(before)
            apply(after, page.deltas)

            assert since <= until <= self.oracle.head
            assert until == self.oracle.head or (server is not self.servers[0] and include != "revisions")
            assert comparable_state(after) == comparable_state(self.oracle.state(until, collections))
            assert include == "revisions" or page.members["digest"] == digest(after)
            assert all(("at" in delta) == (include == "meta") for delta in page.deltas)

    async def read_the_record(self, r: Random) -> None:
        """The record is what was pushed, a commit as a commit."""
        since, limit, form = r.choice(self.oracle.ends), r.randint(1, 6), r.choice(["json", "msgpack"])
        commits, cursor, more = [], self.cursors[since], True
        while more:
            asked = {"params": {"since": cursor, "limit": str(limit)}, "headers": {"Accept": MEDIA[form]}}
            reply = await self.servers[0].call("GET", f"{self.j}/changes", **asked)
            assert reply.status == 200, reply.body
            answer = decoded(reply.body, form)
            size = sum(len(commit["changes"]) for commit in answer["commits"])
            assert size <= limit or len(answer["commits"]) == 1
            commits += answer["commits"]
            cursor, more = answer["cursor"], answer["more"]

        ends = [end for end in self.oracle.ends if end > since]
        assert [commit["revision"] for commit in commits] == ends
        assert [commit["first"] for commit in commits] == [end + 1 for end in [since, *ends]][:-1]
        assert cursor == self.cursors[self.oracle.head]
        recorded = itertools.islice(self.oracle.changes, since, None)
        for commit in commits:
            assert f"{commit['epoch']}:{commit['revision']}:{commit['chain']}" == self.cursors[commit["revision"]]
            for change in commit["changes"]:
                known = next(recorded)
                assert (change["op"], (change["collection"], change["atom"])) == (known.op, known.key)
                assert comparable(change.get("data", {})) == comparable(known.data or {})
                assert frozenset(change.get("unset", ())) == known.unset
                assert commit["client"] == known.client

    async def look_at_an_atom(self, r: Random) -> None:
        at, collection, atom = r.randint(0, self.oracle.head), r.choice(COLLECTIONS), r.choice(ATOMS)
        held = self.oracle.state(at).get((collection, atom))

        asked = {"collection": collection, "atom": atom, "at": str(at)}
        reply = await self.servers[1].call("GET", f"{self.j}/atom", params=asked)

        assert reply.status == (404 if held is None else 200), reply.body
        if held is not None:
            assert reply.json["revision"] == held.revision
            assert comparable(reply.json["data"]) == comparable(held.data)

    # How a round is read, and what holds of any.

    async def pages(self, r: Random, since: str, form: str, limit: int, **asked: Any) -> AsyncIterator[Page]:
        """All pages from `since` on, each from any process, with pushes between them."""
        for place in itertools.count():
            page = await self.page(r.choice(self.servers), form, since=since, limit=limit, **asked)
            note(f"  {[(delta['op'], delta['collection'], delta['atom']) for delta in page.deltas]} {page.members}")
            yield page
            if not page.members["more"]:
                return
            since = page.members["cursor"]
            if place < 6:
                for _ in range(r.choice([0, 1, 1, 2])):
                    await self.push(r)

    async def page(self, server: Harness, form: str, **asked: Any) -> Page:
        reply = await server.deltas(j=self.j, format=form, **asked)
        assert reply.status == 200, reply.body
        answer = decoded(reply.body, form)
        return Page(answer.pop("deltas"), answer, self.oracle.head)

    def check_pages(self, pages: list[Page], start: int, limit: int | None) -> None:
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
            if limit is not None and len(revisions) > limit:
                assert revisions[0] > max(known for known in self.oracle.ends if known < end)  # one commit, whole
            assert len({(delta["collection"], delta["atom"]) for delta in page.deltas}) == len(page.deltas)
            assert ("until" in members) == (not members["more"])
            position = end
        assert pages[-1].members["until"] == position
        assert ":base=" not in pages[-1].members["cursor"]

    def check_nothing_is_told_in_vain(self, pages: list[Page], start: int, replica: Replica) -> None:
        """What did not change is not told, and what was told only once more if it changed since."""
        seen: dict[Key, int] = {}
        for page in pages:
            reach = min(page.head, pages[-1].members["until"])
            changed = {change.key for change in self.oracle.changes[start:reach]}
            for delta in page.deltas:
                key = (delta["collection"], delta["atom"])
                assert key in changed
                assert replica.covers(key[0])
                assert delta["revision"] > seen.get(key, -1)
                assert delta["op"] != "delete" or key not in self.oracle.state(reach)
                seen[key] = reach

    def check(self, replica: Replica, members: Json) -> None:
        """Its data is the state at `until`, but for what it holds ahead."""
        until = members["until"]
        state = self.oracle.state(until, replica.collections)
        ahead = {key for key, held in replica.data.items() if held.revision > until}
        assert not ahead or replica.client
        behind = {key: held for key, held in replica.data.items() if key not in ahead}
        expected = {key: held for key, held in state.items() if key not in ahead}
        assert comparable_state(behind) == comparable_state(expected)
        if "digest" in members:
            assert members["digest"] == digest(state)


def a_form(r: Random) -> str:
    return r.choices(["json", "ndjson", "msgpack"], [4, 1, 2])[0]


def a_scope(r: Random) -> frozenset[str] | None:
    return r.choice([None, frozenset(r.sample(COLLECTIONS, r.randint(1, 3)))])


def listed(collections: frozenset[str] | None) -> str | None:
    return None if collections is None else ",".join(sorted(collections))


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


@given(st.lists(st.integers(0, 2**32), min_size=STEPS // 2, max_size=STEPS))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(40 * EXAMPLES)
async def test_p3_p4_p5_p7_p10_whatever_is_asked_is_what_the_oracle_says(
    servers: list[Harness], seeds: list[int]
) -> None:
    j = f"h{next(_numbers)}"
    world = World(servers, j, (await servers[0].create(j))["epoch"])

    for seed in seeds:
        await world.take(seed)

    for replica in world.replicas:
        await world.sync_replica(Random(0), replica, None)
    head, state = await servers[0].head(j), world.oracle.state(world.oracle.head)
    assert (head["head"], head["cursor"]) == (world.oracle.head, world.cursors[world.oracle.head])
    assert (head["digest"], head["atoms"]) == (digest(state), len(state))
