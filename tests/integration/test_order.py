"""P1 and P2: revision order is commit order, without gaps, and what was recorded stays.

Trap 1 is the one that most event stores have: a number is taken, a later one is committed first, and whoever reads on
from there has skipped a change for ever. Here somebody always holds a number back.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import pytest

from journal.core import chain, digest
from journal.core.model import Change, Op
from journal.service import writer
from tests.harness import Harness, Json, Reply, blocked_on_lock, eventually, insert, serving
from tests.subprocess_service import Remote, serving_apart

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection
SOON_S = 5.0


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection of one's own, as psql has."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


class Standing(NamedTuple):
    """Where a journal stands, by its own row."""

    id: int
    turn: int
    head: int
    chain: bytes


async def standing(connection: Connection, j: str = "j") -> Standing:
    row = await connection.fetchrow(
        "select h.journal_id, h.turn, h.head, h.chain from journal.head h join journal.journal j on j.id = h.journal_id"
        " where j.name = $1",
        j,
    )
    assert row is not None
    return Standing(*row)


async def take_numbers(connection: Connection, *atoms: str, j: str = "j") -> list[int]:
    """Record inserts of `atoms` as one commit, on this connection, with the function that the service uses."""
    at = await standing(connection, j)
    changes = [
        Change(revision, Op.INSERT, "held", atom, b'{"n": 1}') for revision, atom in enumerate(atoms, at.head + 1)
    ]
    revisions = [change.revision for change in changes]
    chained = chain.extend(at.chain, changes)
    known = await connection.fetchrow(
        "select k.id, k.atoms, k.digest from journal.collection k where k.journal_id = $1 and k.name = 'held'", at.id
    )
    next_id = "select coalesce(max(k.id), 0) + 1 from journal.collection k where k.journal_id = $1"
    collection = known["id"] if known else await connection.fetchval(next_id, at.id)
    total = digest.from_bigint(known["digest"]) if known else 0
    for change in changes:
        total ^= digest.leaf("held", change.atom, change.revision)
    many = [at.id] * len(atoms)
    await append(
        connection,
        journal_ids=[at.id],
        turns=[at.turn],
        chains_before=[at.chain],
        heads=[revisions[-1]],
        chains=[chained],
        commit_journal=[at.id],
        commit_revision=[revisions[-1]],
        commit_first=[revisions[0]],
        commit_client=[None],
        commit_push=[None],
        commit_at=[None],
        commit_chain=[chained],
        change_journal=many,
        change_revision=revisions,
        change_collection=[collection] * len(atoms),
        change_atom=list(atoms),
        change_op=[1] * len(atoms),
        change_data=['{"n": 1}'] * len(atoms),
        change_unset=[None] * len(atoms),
        change_prev=[0] * len(atoms),
        atom_is_new=[True] * len(atoms),
        atom_journal=many,
        atom_collection=[collection] * len(atoms),
        atom_name=list(atoms),
        atom_born=revisions,
        atom_born_by=[None] * len(atoms),
        atom_created=revisions,
        atom_revision=revisions,
        atom_data=['{"n": 1}'] * len(atoms),
        atom_fk=["{n}"] * len(atoms),
        atom_fr=[f"{{{revision}}}" for revision in revisions],
        collection_journal=[at.id],
        collection_id=[collection],
        collection_name=["held"],
        collection_atoms=[(known["atoms"] if known else 0) + len(atoms)],
        collection_digest=[digest.to_bigint(total)],
    )
    return revisions


async def append(connection: Connection, **columns: Sequence[Any]) -> None:
    """journal.append with arguments by name."""
    names = ", ".join(f"{name} => ${place}" for place, name in enumerate(columns, 1))
    await connection.execute(f"select journal.append(conflicts => null, {names})", *columns.values())


# Readers: each change of these tests inserts an atom of its own, so that everything up to a revision can be counted.


class Reader:
    """Follows a journal from the start, and is never told anything that leaves something out."""

    def __init__(self, service: Harness, kind: str) -> None:
        self.service, self.kind = service, kind
        self.since: str | int = 0
        self.until = 0
        self.revisions: list[int] = []

    async def follow(self, end: int) -> None:
        while self.until < end:
            await self.step()

    async def step(self) -> None:
        if self.kind == "record":
            reply = await self.service.call("GET", "j/changes", params={"since": str(self.since)})
            told = [
                revision
                for commit in reply.json["commits"]
                for revision in range(commit["first"], commit["revision"] + 1)
            ]
            await self.service.deltas(self.until, wait=2)  # until there is more
        else:
            reply = await self.service.deltas(self.since, wait=2, limit=7)
            told = [delta["revision"] for delta in reply.json["deltas"]]
        assert reply.status == 200, reply.body
        answer = reply.json
        assert answer["since"] == self.until
        self.until = int(answer["cursor"].split(":")[1])
        self.revisions += told
        assert self.revisions == list(range(1, self.until + 1))
        self.since = self.until if self.kind == "bare" and not answer["more"] else answer["cursor"]


@asynccontextmanager
async def read_by(*services: Harness) -> AsyncIterator[list[Reader]]:
    """Readers of every kind at each service; at the end all must have come to the head, leaving nothing out."""
    readers = [Reader(service, kind) for service in services for kind in ("cursor", "bare", "record")]
    end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(reader: Reader) -> None:
        while not end.done():
            await reader.step()
        await reader.follow(end.result())

    running = [asyncio.create_task(run(reader)) for reader in readers]
    try:
        yield readers
        end.set_result((await services[0].head())["head"])
        async with asyncio.timeout(20):
            await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def pushes(service: Harness, count: int, name: str = "n") -> list["asyncio.Task[Json]"]:
    """So many pushes at once, of two atoms each."""
    return [
        asyncio.create_task(service.pushed([insert("todo", f"{name}{n}"), insert("todo", f"{name}{n}b")]))
        for n in range(count)
    ]


async def others_go_on(service: Harness, j: str = "other") -> None:
    """Pushes to another journal of the same process are answered as if nothing were."""
    for n in range(10):
        async with asyncio.timeout(SOON_S):
            await service.pushed([insert("todo", f"{j}{n}")], j)


# Trap 1, with a transaction that anybody may have left open.


@pytest.mark.parametrize("end", ["commit", "rollback", "terminate"])
async def test_p1_trap_1_a_number_that_is_held_back_holds_back_what_comes_after(service: Harness, end: str) -> None:
    await service.create("other")
    await service.pushed([insert("todo", "first")])
    async with read_by(service) as readers, connected(service.dsn) as holder:
        transaction = holder.transaction()
        await transaction.start()
        assert await take_numbers(holder, "x", "y") == [2, 3]

        pushing = pushes(service, 5)
        await blocked_on_lock(service.dsn)
        await others_go_on(service)

        assert not any(task.done() for task in pushing)
        assert (await service.head())["head"] == 1
        assert {reader.until for reader in readers} <= {0, 1}

        match end:
            case "commit":
                await transaction.commit()
            case "rollback":
                await transaction.rollback()
            case _:
                holder.terminate()
        answers = await asyncio.gather(*pushing)

        start = 4 if end == "commit" else 2
        assert sorted(answer["first"] for answer in answers) == list(range(start, start + 10, 2))
        assert await atoms_in_order(service) == (["first", "x", "y"] if end == "commit" else ["first"]) + [
            atom for n in sorted(range(5), key=lambda n: answers[n]["first"]) for atom in (f"n{n}", f"n{n}b")
        ]


async def atoms_in_order(service: Harness) -> list[str]:
    reply = await service.call("GET", "j/changes?since=0&limit=10000")
    return [change["atom"] for commit in reply.json["commits"] for change in commit["changes"]]


# The same with another process of the service.

HOLD = """
create function public.hold() returns trigger language plpgsql as $$
begin
  perform set_config('lock_timeout', '0', true);
  perform pg_advisory_xact_lock(42);
  return new;
end $$;
create trigger hold before insert on journal.change
for each row when (new.atom = 'held') execute function public.hold();
"""


@pytest.fixture
async def remote(database: str, tmp_path: Path) -> AsyncIterator[Remote]:
    """The service in a process of its own, with the journals `j` and `other`."""
    async with serving_apart(database, tmp_path) as running:
        for j in ("j", "other", "third"):
            await running.create(j)
        yield running


@pytest.mark.parametrize("end", ["goes on", "is killed", "is frozen and goes on"])
async def test_p1_trap_1_another_process_that_hangs_after_it_took_its_number_is_waited_for(
    remote: Remote, tmp_path: Path, end: str
) -> None:
    async with (
        serving(remote.dsn, tmp_path) as service,
        serving(remote.dsn, tmp_path) as third,
        connected(remote.dsn) as holder,
        read_by(service, third),
    ):
        await holder.execute(HOLD)
        await holder.fetch("select pg_advisory_lock(42)")
        held = asyncio.create_task(remote.push([insert("todo", "before"), insert("todo", "held")]))
        await blocked_on_lock(remote.dsn)
        pushing = pushes(service, 3, "s") + pushes(third, 3, "t")
        await blocked_on_lock(remote.dsn, 3)

        await asyncio.gather(others_go_on(service), others_go_on(third, "third"))
        assert not any(task.done() for task in (held, *pushing))
        assert (await service.head())["head"] == 0

        if end != "goes on":
            remote.freeze()
        if end == "is killed":
            await remote.kill()
        await holder.fetch("select pg_advisory_unlock(42)")
        if end == "is frozen and goes on":
            remote.thaw()
        answers = await asyncio.gather(*pushing)
        [reply] = await asyncio.gather(held, return_exceptions=end == "is killed")

        order = await atoms_in_order(service)
        is_recorded = "held" in order  # if it was killed, PostgreSQL has finished alone what it was sent
        if end != "is killed":
            assert isinstance(reply, Reply)
            assert (reply.status, reply.json["first"], is_recorded) == (200, 1, True)
        assert order[: 2 * is_recorded] == ["before", "held"][: 2 * is_recorded]
        assert sorted(answer["first"] for answer in answers) == [2 * is_recorded + n for n in range(1, 13, 2)]


# Journals that somebody holds, and how little that is to the others.


async def test_many_journals_that_are_held_do_not_stop_the_others(service: Harness) -> None:
    """Each held journal's lane kept a connection: four of them, and nobody could write."""
    await service.create("other")
    for n in range(6):
        await service.create(f"held{n}")
    async with connected(service.dsn) as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch(
            "select from journal.head h join journal.journal j on j.id = h.journal_id"
            " where j.name like 'held%' for update of h"
        )
        pushing = [asyncio.create_task(service.pushed([insert("t", "a")], f"held{n}")) for n in range(6)]
        await blocked_on_lock(service.dsn, 3)

        await others_go_on(service)

        assert not any(task.done() for task in pushing)
        await transaction.rollback()
        answers = await asyncio.gather(*pushing)
    assert [answer["revision"] for answer in answers] == [1] * 6


async def test_who_waits_too_long_for_a_held_journal_is_told_to_come_back(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LANE_S", 0.3)
    async with connected(service.dsn) as holder:
        transaction = holder.transaction()
        await transaction.start()
        await take_numbers(holder, "x")

        replies = await asyncio.gather(*(service.push([insert("todo", f"{n}")]) for n in range(3)))

        assert [(reply.status, reply.json["code"]) for reply in replies] == [(503, "unavailable")] * 3
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
        await transaction.commit()
    assert (await service.pushed([insert("todo", "a")]))["revision"] == 2
    assert await atoms_in_order(service) == ["x", "a"]


async def test_p1_under_a_storm_of_writers_that_give_up_nothing_is_skipped(database: str, tmp_path: Path) -> None:
    random_ = random.Random(7)
    async with serving(database, tmp_path) as one, serving(database, tmp_path) as other:
        await one.create("j")
        is_over = asyncio.Event()

        async def by_hand(number: int) -> None:
            async with connected(database) as connection:
                for n in range(40):
                    transaction = connection.transaction()
                    await transaction.start()
                    try:
                        await take_numbers(connection, *(f"h{number}-{n}-{k}" for k in range(random_.randint(1, 3))))
                    except asyncpg.PostgresError as error:
                        await transaction.rollback()
                        if error.sqlstate not in ("JR001", "55P03"):  # it moved on, or somebody held it for too long
                            raise
                    else:
                        await (transaction.commit() if random_.random() < 0.5 else transaction.rollback())

        async def by_the_service(service: Harness, number: int) -> None:
            n = 0
            while not is_over.is_set():
                n += 1
                await service.pushed([insert("todo", f"s{number}-{n}-{k}") for k in range(random_.randint(1, 3))])

        async with read_by(one, other):
            pushing = [asyncio.create_task(by_the_service((one, other)[n % 2], n)) for n in range(6)]
            await asyncio.gather(*(by_hand(n) for n in range(3)))
            is_over.set()
            await asyncio.gather(*pushing)
            heads = [await one.head(), await other.head()]

        assert await one.head() == await other.head()
        assert heads[0]["head"] > 200


# What append refuses, whatever its caller believes.

WRONG_NUMBERS: dict[str, tuple[int, list[tuple[int, int]], list[int]]] = {
    "a gap before": (4, [(4, 4)], [4]),
    "a number again": (2, [(2, 2)], [2]),
    "another head": (5, [(3, 3)], [3]),
    "a head that stays behind": (2, [(3, 3)], [3]),
    "a head that goes back": (1, [], []),
    "a head that moves alone": (3, [], []),
    "a gap between commits": (5, [(3, 3), (5, 5)], [3, 5]),
    "a gap between commits that changes fill": (5, [(3, 3), (5, 5)], [3, 4, 5]),
    "commits that overlap": (4, [(3, 4), (4, 4)], [3, 4]),
    "commits that overlap and leave one out": (6, [(3, 3), (3, 4), (6, 6)], [3, 4, 5, 6]),
    "commits the wrong way round": (4, [(4, 3), (3, 4)], [3, 4]),
    "a commit without its change": (3, [(3, 3)], []),
    "a commit without one of its changes": (4, [(3, 4)], [3]),
    "a change too many": (3, [(3, 3)], [3, 4]),
    "changes without a commit": (3, [], [3]),
    "a change twice": (4, [(3, 4)], [3, 3]),
    "a change of before": (4, [(3, 4)], [2, 4]),
}


@pytest.mark.parametrize(("head", "commits", "changes"), WRONG_NUMBERS.values(), ids=WRONG_NUMBERS.keys())
async def test_p1_numbers_that_do_not_continue_the_head_are_refused(
    service: Harness, head: int, commits: list[tuple[int, int]], changes: list[int]
) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    async with connected(service.dsn) as connection:
        at = await standing(connection)

        with pytest.raises(asyncpg.PostgresError) as refused:
            await append_numbers(connection, at, head, commits, changes)

        assert refused.value.sqlstate == "JR002"
        assert await standing(connection) == at


async def append_numbers(
    connection: Connection, at: Standing, head: int, commits: list[tuple[int, int]], changes: list[int]
) -> None:
    await append(
        connection,
        journal_ids=[at.id],
        turns=[at.turn],
        chains_before=[at.chain],
        heads=[head],
        chains=[bytes(32)],
        commit_journal=[at.id for _ in commits],
        commit_first=[first for first, _ in commits],
        commit_revision=[revision for _, revision in commits],
        commit_client=[None for _ in commits],
        commit_push=[None for _ in commits],
        commit_at=[None for _ in commits],
        commit_chain=[bytes(32) for _ in commits],
        change_journal=[at.id for _ in changes],
        change_revision=changes,
        change_collection=[1 for _ in changes],
        change_atom=["x" for _ in changes],
        change_op=[4 for _ in changes],
        change_data=[None for _ in changes],
        change_unset=[None for _ in changes],
        change_prev=[0 for _ in changes],
    )


@pytest.mark.parametrize("stale", ["turn", "chain", "journal"])
async def test_p1_what_was_decided_on_an_old_state_is_refused(service: Harness, stale: str) -> None:
    await service.pushed([insert("todo", "a")])
    async with connected(service.dsn) as connection:
        at = await standing(connection)
        wrong = {
            "turn": at._replace(turn=at.turn - 1),
            "chain": at._replace(chain=bytes(32)),
            "journal": at._replace(id=at.id + 1),
        }[stale]

        with pytest.raises(asyncpg.PostgresError) as refused:
            await append_numbers(connection, wrong, 2, [(2, 2)], [2])

        assert refused.value.sqlstate == "JR001"
        assert await standing(connection) == at


async def test_p1_one_journal_that_is_stale_stops_the_whole_group(service: Harness) -> None:
    await service.create("k")
    async with connected(service.dsn) as connection:
        j, k = await standing(connection), await standing(connection, "k")

        with pytest.raises(asyncpg.PostgresError) as refused:
            await append(
                connection,
                journal_ids=[j.id, k.id],
                turns=[j.turn, k.turn + 1],
                chains_before=[j.chain, k.chain],
                heads=[0, 0],
                chains=[j.chain, k.chain],
            )

        assert refused.value.sqlstate == "JR001"
        assert (await standing(connection), await standing(connection, "k")) == (j, k)


# P2: what was recorded stays.

REFUSED = [
    "update journal.change set data = '{}'",
    "update journal.change set revision = revision where false",
    "delete from journal.change",
    "delete from journal.change where revision = 1",
    "truncate journal.change",
    "truncate journal.change, journal.commit cascade",
    "insert into journal.change select * from journal.change on conflict (journal_id, revision) do update set op = 1",
    "merge into journal.change c using (select 1 as n) s on c.revision = s.n when matched then delete",
    "with gone as (delete from journal.change returning 1) select count(*) from gone",
    "update journal.commit set chain = chain",
    "update journal.commit set committed_at = now()",
    "delete from journal.commit",
    "truncate journal.commit",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_p2_the_database_refuses_to_change_what_was_recorded(service: Harness, statement: str) -> None:
    await service.pushed([insert("todo", "a")])
    before = await rows(service)

    with pytest.raises(asyncpg.PostgresError) as refused:
        await service.query(statement)

    assert refused.value.sqlstate == "JR003"
    assert await rows(service) == before


async def rows(service: Harness) -> list[Any]:
    return [*await service.query("select * from journal.change"), *await service.query("select * from journal.commit")]


async def test_p2_removing_a_journal_is_a_door_for_that_journal_alone(service: Harness) -> None:
    await service.create("gone")
    await service.pushed([insert("todo", "a")])
    kept = await rows(service)
    await service.pushed([insert("todo", "b")], "gone")

    reply = await service.call("DELETE", "gone")

    assert reply.status == 204
    assert await rows(service) == kept


async def test_p2_the_door_is_shut_behind_who_went_through_it(service: Harness) -> None:
    await service.create("gone")
    await service.pushed([insert("todo", "a")])
    async with connected(service.dsn) as connection, connection.transaction():
        await connection.fetch("select journal.remove('gone')")

        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute("delete from journal.change")

        assert refused.value.sqlstate == "JR003"


async def test_a_journal_that_was_removed_and_made_anew_is_another(database: str, tmp_path: Path) -> None:
    """A process that remembered the old one answered that there was none."""
    async with serving(database, tmp_path) as one, serving(database, tmp_path, poll_s=3600.0) as other:
        for n in range(10):
            made = await one.create("j")
            assert made["head"] == 0
            await other.head()
            await one.call("DELETE", "j")
            made = await one.create("j")

            answer = await other.pushed([insert("todo", f"{n}")])

            assert (answer["epoch"], answer["revision"]) == (made["epoch"], 1)
            await one.call("DELETE", "j")


# Trap 12.


async def test_trap_12_there_is_one_notification_a_group(service: Harness) -> None:
    journals = ["j", *(f"k{n}" for n in range(7))]
    for j in journals[1:]:
        await service.create(j)
    turns = "select sum(turn)::int as turns from journal.head"
    heard: list[str] = []
    async with connected(service.dsn) as connection:
        await connection.add_listener("journal", lambda *said: heard.append(str(said[3])))
        [before] = await service.query(turns)

        async def pushing(number: int) -> None:
            for n in range(20):
                await service.pushed([insert("todo", f"{number}-{n}")], journals[number % 8])

        await asyncio.gather(*(pushing(number) for number in range(64)))
        [after] = await service.query(turns)
        written = after["turns"] - before["turns"]

        async def all_heard() -> bool:
            return len(" ".join(heard).split()) >= int(written)

        await eventually(all_heard)
        assert len(" ".join(heard).split()) == written
        assert len(heard) < written / 2
        assert len(heard) < 64 * 20 / 10


async def test_trap_12_a_group_of_many_journals_is_told_of_whatever_its_numbers(service: Harness) -> None:
    """A payload of more than 8,000 bytes failed the whole group."""
    names = [f"k{n}" for n in range(600)]
    async with connected(service.dsn) as connection, connection.transaction():
        await connection.fetch("select journal.create('k' || n) from generate_series(0, 599) n")
        await connection.execute("update journal.head set turn = turn + 1000000000000")
    heard: set[str] = set()
    async with connected(service.dsn) as connection:
        await connection.add_listener("journal", lambda *said: heard.update(str(said[3]).split()))
        for name in names:
            await service.head(name)

        answers = await asyncio.gather(*(service.pushed([insert("todo", "a")], name) for name in names))

        assert {answer["revision"] for answer in answers} == {1}
        [told] = await service.query("select count(distinct xmin::text)::int as groups from journal.commit")

        async def all_heard() -> bool:
            return len(heard) > 599

        await eventually(all_heard)
        assert told["groups"] < 100
