"""Section 11: a person's data goes from wherever it was kept, and the chain still proves the rest (P2)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from journal.core import chain as chains
from journal.core.model import Change, Op
from journal.service import snapshots
from tests.harness import Harness, Json, delete, eventually, insert, put, serving, update

ME = str(UUID(int=1))
SECRET = "Ada Lovelace, 12 St James's Square"


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def erase(service: Harness, collection: str = "person", atom: str = "ada") -> Json:
    """Erase; the answer."""
    reply = await service.call("POST", "j/erase", json={"collection": collection, "atom": atom})
    assert reply.status == 200, reply.body
    answer: Json = reply.json
    return answer


@pytest.fixture
async def cursors(service: Harness) -> list[str]:
    """A life in six commits: revisions 1, 2, 3, 4-5, 6, 7."""
    epoch = (await service.head())["epoch"]
    return [
        f"{epoch}:0:{'0' * 16}",
        await pushed(service, insert("person", "bob", {"name": "Bob"})),
        await pushed(service, insert("person", "ada", {"name": SECRET})),
        await pushed(service, update("person", "ada", {"note": SECRET})),
        await pushed(service, update("person", "ada", unset=["note"]), put("person", "ada", {"name": SECRET, "v": 2})),
        await pushed(service, update("person", "bob", {"name": "Bobby"})),
        await pushed(service, update("person", "ada", {"v": 3, "note": SECRET})),
    ]


async def everything(service: Harness) -> str:
    """All rows of all tables, as text."""
    tables = await service.query("select tablename from pg_tables where schemaname = 'journal'")
    rows = [await service.query(f"select t::text as row from journal.{table['tablename']} t") for table in tables]
    return "\n".join(row["row"] for table in rows for row in table)


async def test_the_data_is_gone_from_every_table(service: Harness, cursors: list[str]) -> None:
    assert SECRET in await everything(service)

    told = await erase(service)

    assert SECRET not in await everything(service)
    assert (told["revision"], told["changes"]) == (8, 4)
    assert told["may_hold"]


async def test_the_delete_is_recorded_as_a_change_like_any_other(service: Harness, cursors: list[str]) -> None:
    await erase(service)

    told = (await service.deltas(cursors[6])).json
    assert [(d["op"], d["atom"], d["revision"]) for d in told["deltas"]] == [("delete", "ada", 8)]
    assert told["digest"] == (await service.head())["digest"]
    assert (await service.call("GET", "j/atom?collection=person&atom=ada")).status == 404
    assert [line["atom"] for line in (await service.snapshot())[1:-1]] == ["bob"]


async def test_p3_every_way_of_asking_tells_that_it_is_gone_and_the_rest_as_it_was(
    service: Harness, cursors: list[str]
) -> None:
    """From each revision to each end: nothing that a requester never had, a delete of what it may have."""
    ends = [int(cursor.split(":")[1]) for cursor in cursors]
    bob = {
        (a, b): [d for d in (await service.deltas(ca, until=b)).json["deltas"] if d["atom"] == "bob"]
        for ca, a in zip(cursors, ends, strict=True)
        for b in ends
        if a <= b
    }
    await erase(service)

    for cursor, a in zip(cursors, ends, strict=True):
        for b in [*[end for end in ends if end >= a], 8]:
            for way in ({}, {"include": "revisions"}, {"format": "ndjson"}, {"client": ME}):
                reply = await service.deltas(cursor, until=b, **way)
                assert SECRET.encode() not in reply.body
                if way == {}:
                    told = reply.json["deltas"]
                    assert [d for d in told if d["atom"] == "bob"] == bob[a, min(b, 7)]
                    ada = [d["op"] for d in told if d["atom"] == "ada"]
                    has_it, changes = 2 <= a < 8, any(a < r <= b for r in (2, 3, 4, 5, 7, 8))
                    assert ada == (["delete"] if has_it and changes else []), (a, b)


async def test_the_record_says_that_it_was_erased(service: Harness, cursors: list[str]) -> None:
    await erase(service)

    commits = (await service.call("GET", "j/changes?since=0")).json["commits"]
    changes = [change for commit in commits for change in commit["changes"] if change["atom"] == "ada"]
    history = (await service.call("GET", "j/atom/history?collection=person&atom=ada")).json["changes"]

    assert [(c["op"], c.get("erased"), "data" in c) for c in changes] == [
        ("insert", True, False),
        ("update", True, False),
        ("update", None, False),  # it only took a field away
        ("replace", True, False),
        ("update", True, False),
        ("delete", None, False),
    ]
    assert [entry.get("erased", False) for entry in history] == [False, True, True, False, True, True]
    assert (await service.call("GET", "j/atom?collection=person&atom=ada&at=3")).status == 404
    assert (await service.call("GET", "j/atom?collection=person&atom=bob&at=3")).json["data"] == {"name": "Bob"}


async def test_p2_the_chain_still_proves_the_rest(service: Harness, cursors: list[str]) -> None:
    """Recomputed here from the rows, with the hashes in place of what was erased."""
    await erase(service)
    rows = await service.query(
        "select x.*, k.name from journal.change x join journal.collection k on k.id = x.collection_id order by revision"
    )
    commits = await service.query("select * from journal.commit order by revision")

    link = chains.START
    for commit in commits:
        link = chains.extend(
            link,
            [
                Change(
                    row["revision"],
                    Op(row["op"]),
                    row["name"],
                    row["atom"],
                    None if row["data"] is None else row["data"].encode(),
                    tuple(row["unset"] or ()),
                    erased=row["erased"],
                )
                for row in rows
                if commit["first"] <= row["revision"] <= commit["revision"]
            ],
        )
        assert link == commit["chain"]
    assert [f"{c['epoch'].hex()}:{c['revision']}:{chains.told(c['chain'])}" for c in commits[:6]] == cursors[1:]


async def test_check_stays_green(service: Harness, cursors: list[str]) -> None:
    await erase(service)
    await service.pushed([insert("person", "ada", {"name": "another"})])

    reply = await service.call("POST", "j/check", headers={"Prefer": "wait=60"})

    assert (reply.json["state"], reply.json["result"]["ok"]) == ("done", True), reply.body


async def test_kept_outcomes_forget_it_too_and_are_replayed_without_it(service: Harness) -> None:
    await pushed(service, insert("person", "ada", {"name": SECRET}), insert("person", "bob", {"name": "Bob"}))
    changes = [insert("person", "ada", {"name": "Ann"}), insert("person", "bob", {"name": "Ben"})]
    first = await service.push(changes, client=ME, push=1)
    keyed = await service.call("POST", "j/changes", json={"changes": changes}, headers={"Idempotency-Key": "k"})
    atomic = await service.push(changes, client=ME, push=2, atomic=True)
    assert [SECRET.encode() in reply.body for reply in (first, keyed, atomic)] == [True] * 3

    told = await erase(service)

    again = [
        await service.push(changes, client=ME, push=1),
        await service.call("POST", "j/changes", json={"changes": changes}, headers={"Idempotency-Key": "k"}),
        await service.push(changes, client=ME, push=2, atomic=True),
    ]
    assert told["outcomes"] == 3
    assert [reply.status for reply in again] == [200, 200, 409]
    for reply in again:
        ada, bob = reply.json["outcomes"]
        assert reply.json["replayed"] is True
        assert (ada["status"], ada["current"]) == ("conflict", {"revision": 1, "data": {}, "erased": True})
        assert bob["current"] == {"revision": 2, "data": {"name": "Bob"}}


async def test_snapshots_that_hold_it_are_removed_and_not_given(service: Harness, cursors: list[str]) -> None:
    location = (await service.call("GET", "j/snapshot")).headers["Location"]
    for coding in ("identity", "gzip"):
        await service.call("GET", location, headers={"Accept-Encoding": coding})

    told = await erase(service)

    assert told["snapshots"] == 1
    assert (await service.call("GET", location)).status == 404
    spool = service.service.settings.spool
    assert [path for path in spool.rglob("*") if path.is_file() and path.suffix in (".gz", ".zst", ".ndjson")] == []


async def test_a_process_with_another_spool_does_not_give_it_either(
    service: Harness, cursors: list[str], tmp_path: Path
) -> None:
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as other:
        location = (await other.call("GET", "j/snapshot")).headers["Location"]
        await erase(service)

        async def is_gone() -> bool:
            return (await other.call("GET", location)).status == 404

        await eventually(is_gone)


async def test_nothing_of_it_stays_in_what_memory_answers_from(service: Harness, cursors: list[str]) -> None:
    for cursor in cursors:
        await service.deltas(cursor)
    await erase(service)

    tail = await service.service.tails.of("j")
    assert SECRET not in str(tail.ring)
    assert service.service.reader.rendered._answers == {}


async def test_what_was_deleted_before_is_erased_without_another_delete(service: Harness, cursors: list[str]) -> None:
    await pushed(service, delete("person", "ada"))

    told = await erase(service)
    again = await erase(service)

    assert (told["revision"], told["changes"], again["changes"]) == (8, 4, 0)
    assert SECRET not in await everything(service)
    assert (await service.head())["head"] == 8


@pytest.mark.parametrize("policy", ["server", "merge", "client"])
async def test_whatever_the_collections_policy_is(service: Harness, cursors: list[str], policy: str) -> None:
    await service.call("PUT", "j/collections", json={"collection": "person", "policy": policy})

    assert (await erase(service))["revision"] == 8


async def test_a_name_that_was_erased_can_live_again(service: Harness, cursors: list[str]) -> None:
    await erase(service)
    cursor = await pushed(service, insert("person", "ada", {"name": "another"}))
    await pushed(service, update("person", "ada", {"v": 1}))

    ways: list[Json] = [{}, {"until": 10}]
    for way in ways:
        told = (await service.deltas(cursors[6], **way)).json["deltas"]
        assert [(d["op"], d.get("data")) for d in told] == [("replace", {"name": "another", "v": 1})]
    for way in ways:
        told = (await service.deltas(cursors[1], **way)).json["deltas"]
        assert [(d["atom"], d["op"]) for d in told] == [("bob", "update"), ("ada", "insert")]
    assert (await service.deltas(cursor)).json["deltas"][0]["data"] == {"v": 1}


async def test_below_a_horizon_only_what_is_left_is_blanked(service: Harness, cursors: list[str]) -> None:
    await service.call("POST", "j/compact", json={"keep_revisions": 2}, headers={"Prefer": "wait=60"})

    assert (await erase(service))["changes"] == 1
    assert SECRET not in await everything(service)


@pytest.mark.parametrize("name", [("person", "eve"), ("nobody", "ada")])
async def test_what_never_was_is_not_found(service: Harness, cursors: list[str], name: tuple[str, str]) -> None:
    reply = await service.call("POST", "j/erase", json={"collection": name[0], "atom": name[1]})

    assert (reply.status, (await service.head())["head"]) == (404, 7)


async def test_the_audit_log_says_who_and_when(service: Harness, cursors: list[str]) -> None:
    await service.call(
        "POST", "j/erase", json={"collection": "person", "atom": "ada"}, headers={"From": "ops@example.org"}
    )

    [entry] = (await service.call("GET", "j/audit")).json["audit"]
    assert (entry["by"], entry["action"]) == ("ops@example.org", "erase")
    assert entry["detail"] == {"collection": "person", "atom": "ada", "revision": 8, "changes": 4}


async def refused(service: Harness) -> Json:
    """An atom whose data a client was told in a conflict; the client's push."""
    await pushed(service, insert("person", "ada", {"name": SECRET}), insert("person", "bob", {"name": "Bob"}))
    push: Json = {"changes": [insert("person", "ada", {"n": 1}), insert("person", "bob", {"n": 1})], "client": ME}
    assert SECRET.encode() in (await service.push(push=1, **push)).body
    await pushed(service, put("person", "ada", {"name": "Ann"}))
    await pushed(service, insert("todo", "later"))
    return push


async def compacted(service: Harness) -> None:
    reply = await service.call(
        "POST", "j/compact", json={"keep_revisions": 0, "force": True}, headers={"Prefer": "wait=60"}
    )
    assert reply.json["state"] == "done"


async def test_outcomes_that_name_compacted_revisions_forget_it_too(service: Harness) -> None:
    """They do not say whose data they told: all goes that no living atom has."""
    push = await refused(service)
    await compacted(service)

    told = await erase(service)

    ada, bob = (await service.push(push=1, **push)).json["outcomes"]
    assert (told["outcomes"], ada["current"]) == (1, {"revision": 1, "data": {}, "erased": True})
    assert bob["current"] == {"revision": 2, "data": {"name": "Bob"}}
    assert SECRET not in await everything(service)


async def test_outcomes_forget_it_also_where_the_tombstone_is_gone(service: Harness) -> None:
    await refused(service)
    await pushed(service, delete("person", "ada"))
    await compacted(service)

    told = await erase(service)
    again = await service.call("POST", "j/erase", json={"collection": "person", "atom": "ada"})

    assert (told["changes"], told["outcomes"], again.status) == (0, 1, 404)
    assert SECRET not in await everything(service)
    assert [entry["action"] for entry in (await service.call("GET", "j/audit")).json["audit"]] == ["erase", "compact"]


async def test_a_coding_that_is_being_made_meanwhile_does_not_stay(
    service: Harness, cursors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = (await service.call("GET", "j/snapshot")).headers["Location"]
    going_on, make = threading.Event(), snapshots._transcode

    def slowly(*arguments: Any) -> Path:
        going_on.wait(10)
        return make(*arguments)

    monkeypatch.setattr(snapshots, "_transcode", slowly)
    asking = asyncio.create_task(service.call("GET", location, headers={"Accept-Encoding": "gzip"}))
    await asyncio.sleep(0.2)
    await erase(service)
    going_on.set()

    assert (await asking).status == 404
    folder = service.service.snapshots.folder
    assert [path for path in folder.rglob("*") if path.is_file()] == []


# The door.


@pytest.fixture
async def connection(service: Harness) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "update journal.change set data = '{}' where revision = 2",
        "update journal.change set data = null, erased = sha256('x') where revision = 2",
        "update journal.change set data = null, erased = sha256(data::text::bytea), atom = 'x' where revision = 2",
        "update journal.change set revision = 100, data = null, erased = sha256(data::text::bytea) where revision = 2",
        "update journal.commit set push = 1 where revision = 2",
        "delete from journal.change where revision = 2",
        "truncate journal.change",
    ],
)
async def test_p2_the_door_leads_to_nothing_but_a_hash(connection: Any, cursors: list[str], statement: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.execute(f"set local journal.door = 'erase'; {statement}")  # one transaction

    assert refused.value.sqlstate in ("JR003", "23514")
