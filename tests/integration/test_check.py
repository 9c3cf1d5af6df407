"""A check: what is sound is found sound, and of what one damages by hand it names exactly the place."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest

from journal.core import chain
from journal.errors import JournalGone
from journal.service import check_record
from journal.service.check import check
from journal.store.database import Database
from journal.wire import CheckResult
from tests.conftest import new_database
from tests.harness import Json, delete, insert, put, serving, update
from tests.postgres import Server

J = 1
EVA, TOM = "0d9c2f0e-0000-4000-8000-000000000001", "0d9c2f0e-0000-4000-8000-000000000002"

# The revisions: each push is a commit.
PUSHES: list[tuple[str | None, list[Json]]] = [
    (EVA, [insert("todo", "a", {"title": "one", "cost": 1}), insert("todo", "b"), insert("note", "n")]),  # 1-3
    (TOM, [update("todo", "a", {"cost": 2}, unset=["title"]), insert("todo", "c", {"é": "ü", "x": [1, {"y": 1e2}]})]),
    (EVA, [put("todo", "b", {"n": 2, "m": None}), delete("note", "n")]),  # 6-7
    (None, [insert("note", "n", {"n": 3}), update("todo", "a", {"title": "two"})]),  # 8-9
    (TOM, [delete("todo", "c")]),  # 10
    (EVA, [update("todo", "a", {"cost": 3}), insert("note", "m", {"p": 1, "q": 2}), update("todo", "b", {"n": 4})]),
    (TOM, [update("note", "m", unset=["q"])]),  # 14
    (EVA, [insert("tag", "t")]),  # 15
]
HEAD, CHANGES, ATOMS = 15, 15, 6
ATOM = {1: "atom todo/a", 2: "atom todo/b", 4: "atom todo/a", 5: "atom todo/c", 9: "atom todo/a", 11: "atom todo/a",
        15: "atom tag/t"}  # fmt: skip
END = {1: 3, 2: 3, 4: 5, 5: 5, 9: 9, 11: 13, 15: 15}  # of the commits that hold them


class Journal(msgspec.Struct, frozen=True):
    """A database with that journal; `connection` may do what no role of the service may."""

    dsn: str
    database: Database
    connection: Any


TABLES = "select tablename from pg_tables where schemaname = 'journal'"


@pytest.fixture(scope="module")
async def filled(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Journal]:
    """The journal, and a copy of every table to put it back from."""
    async with new_database(postgres, template) as dsn:
        async with serving(dsn, tmp_path_factory.mktemp("filled")) as service:
            await service.create()
            for number, (client, changes) in enumerate(PUSHES, 1):
                by: Json = {} if client is None else {"client": client, "push": number}
                await service.pushed(changes, on_conflict="client", **by)
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            """set session_replication_role = replica;
               set search_path = journal;
               alter table change drop constraint change_op_is_known, drop constraint change_follows_its_past;
               create cast (bytea as json) without function;
               create cast (bytea as text) without function;
               create schema sound"""
        )
        for (table,) in await connection.fetch(TABLES):
            await connection.execute(f"create table sound.{table} as table journal.{table}")
        database = Database(dsn, reading=2)
        await database.open()
        yield Journal(dsn, database, connection)
        await database.close()
        await connection.close()


@pytest.fixture
async def journal(filled: Journal) -> Journal:
    """The journal as it was, to be damaged."""
    async with filled.connection.transaction():
        for (table,) in await filled.connection.fetch(TABLES):
            copy = f"insert into journal.{table} overriding system value table sound.{table}"
            await filled.connection.execute(f"delete from journal.{table}; {copy}")
    return filled


async def damage(journal: Journal, *statements: str) -> None:
    for statement in statements:
        assert await journal.connection.execute(statement) not in ("UPDATE 0", "DELETE 0"), statement


async def checked(journal: Journal, number: int = J) -> CheckResult:
    return await check(journal.database, number, lambda share: None)


def places(result: CheckResult) -> list[str]:
    """What is told to be wrong, and where."""
    assert result.ok is not bool(result.faults)
    return sorted(f"{fault.what} {fault.where}" for fault in result.faults)


async def test_a_sound_journal_is_found_sound(journal: Journal) -> None:
    shares: list[float] = []

    result = await check(journal.database, J, shares.append)

    assert result == CheckResult(True, HEAD, 0, CHANGES, ATOMS, [], False)
    assert msgspec.json.decode(msgspec.json.encode(result))["from"] == 0
    assert shares[-1] == 1.0
    assert all(earlier <= later for earlier, later in pairwise(shares))


async def test_an_empty_journal_is_found_sound(journal: Journal) -> None:
    await damage(journal, "select journal.create('empty')")

    assert await checked(journal, 2) == CheckResult(True, 0, 0, 0, 0, [], False)


async def test_a_journal_that_is_not_there_is_gone(journal: Journal) -> None:
    with pytest.raises(JournalGone):
        await checked(journal, 7)


def of(table: str, key: str, *, set_: str) -> str:
    return f"update {table} set {set_} where journal_id = {J} and {key}"


def change(revision: int, set_: str) -> str:
    return of("change", f"revision = {revision}", set_=set_)


def commit(revision: int, set_: str) -> str:
    return of("commit", f"revision = {revision}", set_=set_)


def atom(name: str, set_: str) -> str:
    return of("atom", f"atom = '{name}'", set_=set_)


def collection(name: str, set_: str) -> str:
    return of("collection", f"name = '{name}'", set_=set_)


def head(set_: str) -> str:
    return of("head", "true", set_=set_)


FLIPPED = "chain = set_byte(chain, 31, get_byte(chain, 31) # 1)"
DAMAGES: dict[str, tuple[list[str], list[str]]] = {
    # The record: what the chain is over shows in its commit.
    "data that still counts": ([change(11, """data = '{"cost":7}'""")], ["atom todo/a", "commit 13"]),
    "data that was overwritten since": ([change(4, """data = '{"cost":7}'""")], ["commit 5"]),
    "data that says the same": ([change(11, """data = '{"cost":3}'""")], ["commit 13"]),
    "data of the last commit": ([change(15, """data = '{"n":2}'""")], ["atom tag/t", "commit 15"]),
    "data that is no JSON": (
        [change(15, "data = set_byte(json_send(data), 0, 122)::json")],
        ["change 15", "commit 15"],
    ),
    "data that is no text": (
        [change(15, "data = set_byte(json_send(data), 2, 238)::json")],
        ["change 15", "commit 15"],
    ),
    "data that is no object": ([change(8, "data = '[]'")], ["change 8", "commit 9"]),
    "data that is marked as erased": ([change(11, "erased = sha256('x')")], ["change 11"]),
    "an op that fits": ([change(11, "op = 3")], ["atom todo/a", "commit 13"]),
    "an op that cannot be": ([change(15, "op = 3")], ["change 15", "commit 15"]),
    "an op that means nothing": (
        [change(11, "op = 9")],
        ["change 11"],
    ),
    "a name, of an atom that goes on": ([change(9, "atom = 'z'")], ["change 9", "commit 9"]),
    "a name, of an atom's last change": ([change(11, "atom = 'z'")], ["change 11", "commit 13"]),
    "a name, to that of another atom": ([change(9, "atom = 'b'")], ["change 9", "commit 9"]),
    "a name, to that of one that is younger": ([change(4, "atom = 'c'")], ["change 4", "commit 5"]),
    "a name, of an insert": ([change(1, "atom = 'z'")], ["change 1", "commit 3"]),
    "a name, of an insert, to that of another": ([change(1, "atom = 'c'")], ["change 1", "commit 3"]),
    "a name, of an only change": ([change(15, "atom = 'u'")], ["change 15", "commit 15"]),
    "a name, of a delete": ([change(10, "atom = 'b'")], ["change 10", "commit 10"]),
    "a name that is no text": (
        [change(11, "atom = '\\x61ee'::bytea::text")],
        ["change 11"],
    ),
    "another collection": ([change(9, "collection_id = 2")], ["change 9", "commit 9"]),
    "a collection that is not there": ([change(9, "collection_id = 9")], ["change 9"]),
    "what is unset": ([change(14, "unset = '{p}'")], ["atom note/m", "commit 14"]),
    "what was unset and set again": ([change(4, "unset = '{titlf}'")], ["atom todo/a", "commit 5"]),
    "prev, to an earlier one": ([change(11, "prev = 4")], ["change 11"]),
    "prev, to one of another atom": ([change(11, "prev = 8")], ["change 11"]),
    "prev, to nothing": ([change(11, "prev = 0")], ["change 11"]),
    "prev of an insert": ([change(15, "prev = 3")], ["change 15"]),
    "prev, below nothing": ([change(15, "prev = -1")], ["change 15"]),
    "a change is missing": (["delete from change where revision = 9"], ["change 9"]),
    "an insert is missing": (["delete from change where revision = 1"], ["change 1"]),
    "an atom's last change is missing": (["delete from change where revision = 13"], ["change 13"]),
    "a commit's only change is missing": (["delete from change where revision = 10"], ["change 10"]),
    "the last change is missing": (["delete from change where revision = 15"], ["change 15"]),
    "changes are missing": (["delete from change where revision between 8 and 9"], ["change 8-9"]),
    "changes of two commits are missing": (
        ["delete from change where revision between 9 and 11"],
        ["change 11", "change 9", "commit 10"],
    ),
    "a change above the head": (
        [f"insert into change values ({J}, 16, 1, 'a', 2, '{{}}', null, 11)"],
        ["change 16"],
    ),
    "an insert above the head": (
        [f"insert into change values ({J}, 18, 1, 'z', 1, '{{}}', null, 0)"],
        ["change 18"],
    ),
    "an erased hash": ([change(4, "data = null, erased = sha256('x')")], ["commit 5"]),
    "a chain": ([commit(9, FLIPPED)], ["commit 9"]),
    "the last commit's chain": ([commit(15, FLIPPED)], ["commit 15"]),
    "the first commit's chain": ([commit(3, FLIPPED)], ["commit 3"]),
    "two chains": ([commit(9, FLIPPED), commit(10, FLIPPED)], ["commit 10", "commit 9"]),
    "a first revision, lower": ([commit(9, "first = 7")], ["commit 9"]),
    "a first revision, higher": ([commit(9, "first = 9")], ["commit 9"]),
    "a first revision beyond": ([commit(3, "first = 2")], ["commit 3"]),
    "a commit's revision": ([commit(9, "revision = 900")], ["commit 9", "commit 900"]),
    "the last commit's revision": ([commit(15, "revision = 900")], ["commit 900"]),
    "a commit too many": (
        ["insert into commit select journal_id, 8, 7, epoch, null, null, now(), chain from commit where revision = 7"],
        ["commit 8", "commit 9"],
    ),
    "the last commit is missing, and its change": (
        ["delete from commit where revision = 15", "delete from change where revision = 15"],
        ["commit 15"],
    ),
    "a commit is missing, and a change of the next": (
        ["delete from commit where revision = 10", "delete from change where revision = 12"],
        ["change 12", "commit 10"],
    ),
    "an epoch": ([commit(9, "epoch = '\\x010203040506'")], ["commit 9"]),
    "the first epoch": ([commit(3, "epoch = '\\x010203040506'")], ["commit 3"]),
    "the last epoch": ([commit(15, "epoch = '\\x010203040506'")], ["commit 15"]),
    "who committed": ([commit(5, "client_id = 1")], ["atom todo/c"]),
    "a commit is missing": (["delete from commit where revision = 9"], ["commit 9"]),
    "the first commit is missing": (["delete from commit where revision = 3"], ["commit 3"]),
    "the last commit is missing": (["delete from commit where revision = 15"], ["commit 15"]),
    "commits are missing": (["delete from commit where revision in (9, 10)"], ["commit 10"]),
    "a commit is missing, and its changes": (
        ["delete from commit where revision = 9", "delete from change where revision between 8 and 9"],
        ["commit 9"],
    ),
    # The state.
    "an atom's data": ([atom("a", """data = jsonb_set(data, '{cost}', '4')""")], ["atom todo/a"]),
    "an atom's data, a field less": ([atom("a", "data = data - 'cost'")], ["atom todo/a"]),
    "an atom's data, a field more": ([atom("a", """data = data || '{"more": 1}'""")], ["atom todo/a"]),
    "an atom's data, what was unset": ([atom("m", """data = data || '{"q": 2}'""")], ["atom note/m"]),
    "an atom's revision": ([atom("a", "revision = 9")], ["atom todo/a"]),
    "an atom's revision, above the head": ([atom("a", "revision = 900")], ["atom todo/a"]),
    "an atom's created": ([atom("b", "created = 5")], ["atom todo/b"]),
    "an atom's born": ([atom("n", "born = 2")], ["atom note/n"]),
    "an atom's born_by": ([atom("a", "born_by = 2")], ["atom todo/a"]),
    "an atom's born_by, of nobody": ([atom("n", "born_by = null")], ["atom note/n"]),
    "an atom is deleted": ([atom("a", "deleted = true, data = null")], ["atom todo/a"]),
    "a tombstone lives": ([atom("c", "deleted = false, data = '{}'")], ["atom todo/c"]),
    "an atom's fk": ([atom("a", "fk = '{titlf,cost}'")], ["atom todo/a"]),
    "an atom's fk is short": ([atom("t", "fk = '{}', fr = '{}'")], ["atom tag/t"]),
    "an atom's fr": ([atom("b", "fr = '{5,13}'")], ["atom todo/b"]),
    "an atom's fr is not in order": ([atom("b", "fk = '{n,m}', fr = '{13,6}'")], ["atom todo/b"]),
    "an atom's fr is not known": ([atom("b", "fr = '{6,null}'")], ["atom todo/b"]),
    "a tombstone's fk": ([atom("c", "fk = '{x}', fr = '{5}'")], ["atom todo/c"]),
    "an atom is missing": (["delete from atom where atom = 'a'"], ["atom todo/a"]),
    "a tombstone is missing": (["delete from atom where atom = 'c'"], ["atom todo/c"]),
    "an atom of no change": (
        [f"insert into atom values ({J}, 1, 'z', 9, 1, 9, 9, false, '{{}}', '{{}}', '{{}}')"],
        ["atom todo/z"],
    ),
    "an atom's name": ([atom("t", "atom = 's'")], ["atom tag/s", "atom tag/t"]),
    "an atom's collection": ([atom("t", "collection_id = 9")], ["atom tag/t", "collection 9"]),
    "an atom's revision, and data of the change that it is at": (
        [change(4, """data = '{"cost":7}'"""), atom("a", "revision = 4")],
        ["atom todo/a", "commit 5"],
    ),
    # The collections.
    "a collection's count": ([collection("todo", "atoms = 1")], ["collection todo"]),
    "a collection's digest": ([collection("note", "digest = digest # 1")], ["collection note"]),
    # The head.
    "the head's chain": ([head(FLIPPED)], ["head chain"]),
    "the head, lower": ([head("head = 13")], ["head head"]),
    "the head, higher": ([head("head = 16")], ["head head"]),
    "the head's epoch": ([head("epoch = '\\x010203040506'")], ["head epoch"]),
    "the head's horizon": ([head("horizon = 8")], ["head horizon"]),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_the_damaged_place_is_named_and_no_other(journal: Journal, name: str) -> None:
    statements, expected = DAMAGES[name]
    await damage(journal, *statements)

    result = await checked(journal)

    assert places(result) == expected, result.faults
    assert not result.more


BITS = [(revision, column) for revision in (1, 2, 4, 5, 9, 11, 15) for column in ("data", "atom")] * 4


async def test_whatever_bit_of_what_was_sent_is_flipped_the_commit_or_the_change_is_named(journal: Journal) -> None:
    draw = Random(7)
    ask = journal.connection.fetchval
    for revision, column in BITS:
        send, kind = ("json_send", "json") if column == "data" else ("textsend", "text")
        size = await ask(f"select length({send}({column})) from change where revision = $1", revision)
        bit = draw.randrange(8 * size)
        flipped = f"set_bit({send}({column}), {bit}, 1 - get_bit({send}({column}), {bit}))::{kind}"
        await damage(journal, change(revision, f"{column} = {flipped}"))

        result = await checked(journal)

        told = set(places(result))
        assert told & {f"commit {END[revision]}", f"change {revision}"}, (revision, column, bit)
        assert told <= {f"commit {END[revision]}", f"change {revision}", ATOM[revision]}, result.faults
        await damage(journal, change(revision, f"{column} = {flipped}"))
    assert (await checked(journal)).ok


async def test_p12_of_a_gap_no_more_is_kept_than_there_is_room_for(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_record, "_STRAYS", 1)
    await damage(journal, "delete from commit where revision in (5, 7)")

    assert places(await checked(journal)) == ["commit 7"]


async def test_a_commit_of_many_changes_is_followed_and_the_one_that_is_off_is_named(
    journal: Journal, tmp_path: Path
) -> None:
    async with serving(journal.dsn, tmp_path) as service:
        await service.pushed([insert("many", str(n)) for n in range(2000)])
        await service.pushed([update("many", str(n), {"n": 2}) for n in range(2000)], on_conflict="client")
    sound = await checked(journal)
    await damage(journal, change(3000, """data = '{"n":3}'"""))

    assert sound == CheckResult(True, HEAD + 4000, 0, CHANGES + 4000, ATOMS + 2000, [], False)
    assert places(await checked(journal)) == ["atom many/984", "commit 4015"]


async def test_a_check_is_of_one_moment_whatever_is_recorded_meanwhile(journal: Journal, tmp_path: Path) -> None:
    async with serving(journal.dsn, tmp_path) as service:

        async def push() -> None:
            for n in range(60):
                await service.pushed(
                    [put("todo", "b", {"n": n}), put("busy", str(n % 7), {"n": n})], on_conflict="client"
                )

        pushing = asyncio.create_task(push())
        results = []
        while not pushing.done():
            results.append(await check(service.service.database, J, lambda share: None))
            await asyncio.sleep(0)
        await pushing

    assert [result for result in results if not result.ok] == []
    assert len({result.revision for result in results}) > 1


async def test_texts_that_are_none_any_more_are_told_and_stop_nothing(journal: Journal) -> None:
    await damage(
        journal,
        atom("t", "atom = '\\xee74'::bytea::text"),
        atom("m", "fk = array['\\xee'::bytea::text, 'p']"),
        change(14, "unset = array['\\xee'::bytea::text]"),
    )

    assert places(await checked(journal)) == ["atom note/m", "atom tag/t", "atom tag/\ufffdt", "change 14"]


async def test_a_collection_that_is_missing_is_told_with_its_first_change_and_not_with_all(journal: Journal) -> None:
    await damage(journal, "delete from collection where name = 'todo'")

    assert places(await checked(journal)) == ["change 1", "collection 1"]


async def test_of_many_faults_a_hundred_are_told_and_that_there_are_more(journal: Journal) -> None:
    extra = f"insert into atom select {J}, 1, 'z' || n, 9, 1, 9, 9, false, '{{}}', '{{}}', '{{}}' from generate_series"
    await damage(journal, f"{extra}(1, 100) n")
    hundred = await checked(journal)
    await damage(journal, f"{extra}(101, 101) n")

    more = await checked(journal)

    assert (len(hundred.faults), hundred.more) == (100, False)
    assert (len(more.faults), more.more, more.ok) == (100, True, False)


# Below a horizon.

COMPACTED = [
    "update head set horizon = 10",
    "delete from change where revision <= 10",
    "delete from commit where revision < 10",
    "delete from atom where deleted and revision <= 10",
]
ABOVE: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "what compaction left for later": ([f"insert into change values ({J}, 2, 1, 'b', 1, '{{}}', null, 0)"], []),
    "data that counts": ([change(11, """data = '{"cost":7}'""")], ["atom todo/a", "commit 13"]),
    "prev": ([change(13, "prev = 11")], ["change 13"]),
    "prev of an insert": ([change(12, "prev = 11")], ["change 12"]),
    "prev, to nothing": ([change(13, "prev = 0")], ["change 13"]),
    "a change is missing": (["delete from change where revision = 13"], ["change 13"]),
    "a chain": ([commit(13, FLIPPED)], ["commit 13"]),
    "the chain at the horizon": ([commit(10, FLIPPED)], ["commit 13"]),
    "the commit at the horizon is missing": (["delete from commit where revision = 10"], ["commit 10"]),
    "all commits are missing": (["delete from commit"], ["commit 10", "commit 15"]),
    "the horizon": ([head("horizon = 12")], ["head horizon"]),
    "data that was set since": ([atom("a", """data = jsonb_set(data, '{cost}', '4')""")], ["atom todo/a"]),
    "a field of which nothing is known": ([atom("a", """data = data || '{"more": 1}'""")], ["atom todo/a"]),
    "fr, of what was set since": ([atom("a", "fr = '{9,10}'")], ["atom todo/a"]),
    "fr, of what was not": ([atom("a", "fr = '{11,11}'")], ["atom todo/a"]),
    "created": ([atom("b", "created = 11")], ["atom todo/b"]),
    "born": ([atom("m", "born = 11")], ["atom note/m"]),
    "a revision": ([atom("a", "revision = 9")], ["atom todo/a"]),
    "an old atom's revision": ([atom("n", "revision = 9")], ["collection note"]),
    "an old atom's revision, above the horizon": ([atom("n", "revision = 11")], ["atom note/n"]),
    "an old atom's field has no revision": ([atom("n", "fk = '{}', fr = '{}'")], ["atom note/n"]),
    "an old atom's field is of later": ([atom("n", "fr = '{11}'")], ["atom note/n"]),
    "an old atom is missing": (["delete from atom where atom = 'n'"], ["collection note"]),
    "an atom is missing": (["delete from atom where atom = 'm'"], ["atom note/m"]),
    "a name": ([change(13, "atom = 'a'")], ["change 13", "commit 13"]),
    "a name, of an insert": ([change(15, "atom = 'u'")], ["change 15", "commit 15"]),
}


@pytest.mark.parametrize("name", ABOVE)
async def test_below_a_horizon_a_check_starts_from_what_compaction_left(journal: Journal, name: str) -> None:
    statements, expected = ABOVE[name]
    await damage(journal, *COMPACTED)
    assert await checked(journal) == CheckResult(True, HEAD, 10, 5, 5, [], False)
    await damage(journal, *statements)

    result = await checked(journal)

    assert places(result) == expected, result.faults


async def test_a_journal_of_which_only_the_state_is_left_is_found_sound(journal: Journal) -> None:
    await damage(
        journal, "update head set horizon = head", "delete from change", "delete from commit where revision < 15"
    )

    assert await checked(journal) == CheckResult(True, HEAD, HEAD, 0, ATOMS, [], False)


# What operators leave in the record.


async def test_what_was_erased_counts_by_its_hash_and_is_not_missed(journal: Journal) -> None:
    erased = "data = null, erased = sha256(json_send(data))"
    await damage(journal, change(5, erased), change(3, erased), atom("c", "fk = '{}', fr = '{}'"))
    sound = await checked(journal)
    await damage(journal, change(5, "erased = sha256('x')"))

    assert sound == CheckResult(True, HEAD, 0, CHANGES, ATOMS, [], False)
    assert places(await checked(journal)) == ["commit 5"]


async def recorded(journal: Journal, revision: int, stored: bytes, epoch: bytes | None, *statements: str) -> None:
    """A commit without an atom at the head."""
    columns = f"{J}, {revision}, {revision}, {_bytea(epoch)}, null::int, null::bigint, now(), {_bytea(stored)}"
    await damage(
        journal,
        f"insert into commit select {columns} from head",
        f"update head set head = {revision}, chain = {_bytea(stored)}, turn = turn + 1",
        *statements,
    )


def _bytea(value: bytes | None) -> str:
    return "epoch" if value is None else f"'\\x{value.hex()}'"


async def stored_chain(journal: Journal) -> bytes:
    found: bytes = await journal.connection.fetchval("select chain from head")
    return found


async def pushed_once_more(journal: Journal, folder: Path) -> None:
    async with serving(journal.dsn, folder) as service:
        await service.pushed([update("tag", "t", {"n": 2})], on_conflict="client")


FLOORS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "its chain": ([commit(16, FLIPPED)], ["commit 16"]),
    "it is missing": (["delete from commit where revision = 16"], ["commit 16"]),
    "it has a change": ([f"insert into change values ({J}, 16, 1, 'b', 4, null, null, 13)"], ["change 16"]),
    "its epoch": ([commit(16, "epoch = '\\x010203040506'")], ["commit 16"]),
    "the commit after it is missing": (["delete from commit where revision = 17"], ["commit 17"]),
}


@pytest.mark.parametrize("name", FLOORS)
async def test_a_floor_is_followed(journal: Journal, tmp_path: Path, name: str) -> None:
    statements, expected = FLOORS[name]
    await recorded(journal, 16, chain.extend_bare(await stored_chain(journal), 16), None)
    assert (await checked(journal)).ok
    await pushed_once_more(journal, tmp_path)
    await damage(journal, *statements)

    result = await checked(journal)

    assert places(result) == expected, result.faults


async def test_an_epoch_that_was_begun_is_followed_from_where_it_began_and_over_it(
    journal: Journal, tmp_path: Path
) -> None:
    epoch, at = bytes.fromhex("0a0b0c0d0e0f"), 2**32
    begun = chain.begin(await stored_chain(journal), epoch, at)
    await recorded(journal, at, begun, epoch, f"update head set epoch = {_bytea(epoch)}, horizon = {at}")
    await pushed_once_more(journal, tmp_path)
    from_its_beginning = await checked(journal)
    await damage(journal, "update head set horizon = 0")
    over_it = await checked(journal)
    await damage(journal, f"insert into change values ({J}, 900, 1, 'b', 4, null, null, 13)")

    assert from_its_beginning == CheckResult(True, at + 1, at, 1, ATOMS, [], False)
    assert over_it == CheckResult(True, at + 1, 0, CHANGES + 1, ATOMS, [], False)
    assert "change 900" in places(await checked(journal))
