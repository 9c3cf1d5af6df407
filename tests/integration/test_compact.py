"""Section 11: compaction raises the horizon and removes what is at or below it, and nothing else notices (P2, P8)."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from journal.service import compact
from journal.store import compaction
from tests.harness import Harness, Json, delete, eventually, insert, listening, put, serving, update

ME = str(UUID(int=1))


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def compacted(service: Harness, j: str = "j", **asked: Any) -> Json:
    """Compact and wait; the result."""
    reply = await service.call("POST", f"{j}/compact", json=asked, headers={"Prefer": "wait=60"})
    assert (reply.status, reply.json["state"]) == (200, "done"), reply.body
    result: Json = reply.json["result"]
    return result


async def history(service: Harness) -> list[str]:
    """Eight commits, one revision each but for the third; the cursors after them, at 1 2 4 5 6 7 8 9."""
    return [
        await pushed(service, insert("todo", "a", {"x": 1, "y": 1})),
        await pushed(service, insert("todo", "b")),
        await pushed(service, update("todo", "a", {"x": 2}), insert("note", "n")),
        await pushed(service, delete("todo", "b")),
        await pushed(service, update("todo", "a", {"z": 1})),
        await pushed(service, insert("todo", "c")),
        await pushed(service, delete("note", "n")),
        await pushed(service, put("todo", "c", {"n": 2})),
    ]


async def left(service: Harness) -> Json:
    """What is in the tables."""
    [row] = await service.query(
        """select (select array_agg(revision order by revision) from journal.change) as changes,
                  (select array_agg(revision order by revision) from journal.commit) as commits,
                  (select array_agg(atom order by atom) from journal.atom) as atoms"""
    )
    return dict(row)


async def test_what_is_at_or_below_the_horizon_goes_and_its_commit_stays(service: Harness) -> None:
    cursors = await history(service)
    before = await service.head()

    told = await compacted(service, keep_revisions=4)

    assert (told["horizon"], told["was"], told["wanted"]) == (5, 0, 5)
    assert (told["changes"], told["commits"], told["tombstones"]) == (5, 3, 1)
    assert told["bytes"] > 200
    assert await left(service) == {"changes": [6, 7, 8, 9], "commits": [5, 6, 7, 8, 9], "atoms": ["a", "c", "n"]}
    after = await service.head()
    assert after == before | {"horizon": 5}
    assert [(await service.deltas(cursor)).status for cursor in cursors] == [410] * 3 + [200] * 5
    assert (await service.deltas(cursors[2])).json["reason"] == "horizon"
    assert (await service.deltas(4)).json["reason"] == "horizon"
    assert (await service.call("GET", "j/changes?since=4")).json["reason"] == "horizon"


async def test_trap_23_deltas_and_snapshots_above_the_horizon_are_what_they_were(service: Harness) -> None:
    cursors = (await history(service))[3:]
    ways: list[Json] = [{}, {"until": 9}, {"include": "revisions"}, {"format": "ndjson"}, {"collections": "todo"}]
    before = [[(await service.deltas(cursor, **way)).body for way in ways] for cursor in cursors]
    snapshot = sorted(map(str, await service.snapshot()))
    at = (await service.call("GET", "j/atom?collection=todo&atom=c&at=7")).body

    await compacted(service, keep_revisions=4)
    after = [[(await service.deltas(cursor, **way)).body for way in ways] for cursor in cursors]

    assert [[body.replace(b'"horizon":0', b'"horizon":5') for body in row] for row in before] == after
    assert sorted(map(str, await service.snapshot())) == snapshot
    assert (await service.call("GET", "j/atom?collection=todo&atom=c&at=7")).body == at
    assert (await service.call("GET", "j/atom?collection=todo&atom=a&at=4")).json["reason"] == "horizon"


async def test_a_horizon_is_always_a_commits_end(service: Harness) -> None:
    await history(service)

    assert (await compacted(service, keep_revisions=6))["horizon"] == 2  # 3 is in the middle of a commit


async def test_a_dry_run_says_what_would_go_and_removes_nothing(service: Harness) -> None:
    cursors = await history(service)
    await service.deltas(cursors[1], client=ME)
    before = await left(service)

    dry = await compacted(service, keep_revisions=4, force=True, dry_run=True)
    after, head = await left(service), await service.head()
    real = await compacted(service, keep_revisions=4, force=True)

    assert (after, head["horizon"]) == (before, 0)
    assert dry == real | {"dry_run": True}
    [lost] = dry["cut_off"]
    assert (lost["client"], lost["revision"]) == (ME, 2)


async def test_a_client_that_was_seen_lately_is_waited_for(service: Harness) -> None:
    cursors = await history(service)
    await service.deltas(cursors[2], client=ME)

    told = await compacted(service, keep_revisions=0)

    assert (told["horizon"], told["wanted"]) == (4, 9)
    assert told["held_by"] == [{"what": "client", "name": ME, "revision": 4}]
    assert told["cut_off"] == []
    assert (await service.deltas(cursors[2], client=ME)).status == 200


async def test_a_client_that_was_not_seen_for_long_is_not(service: Harness) -> None:
    cursors = await history(service)
    await service.deltas(cursors[2], client=ME)
    await service.service.registry.flush()
    await service.query("update journal.registry set last_seen = now() - interval '31 days'")

    told = await compacted(service, keep_revisions=0)

    assert (told["horizon"], told["held_by"]) == (9, [])
    assert [lost["client"] for lost in told["cut_off"]] == [ME]


async def test_forced_it_waits_for_no_client(service: Harness) -> None:
    cursors = await history(service)
    await service.deltas(cursors[2], client=ME)

    assert (await compacted(service, keep_revisions=0, force=True))["horizon"] == 9
    assert (await service.deltas(cursors[2], client=ME)).json["reason"] == "horizon"


@pytest.mark.parametrize("force", [False, True])
async def test_a_snapshot_that_is_kept_is_not_passed(service: Harness, force: bool) -> None:
    await history(service)
    snapshot = (await service.snapshot())[0]
    await pushed(service, insert("todo", "d"))

    told = await compacted(service, keep_revisions=0, force=force)

    assert told["held_by"] == [{"what": "snapshot", "name": "9", "revision": 9}]
    assert told["horizon"] == 9
    assert (await service.deltas(snapshot["cursor"])).status == 200


async def test_a_snapshot_that_nobody_reads_any_more_is(service: Harness) -> None:
    await history(service)
    await service.snapshot()
    await service.query("update journal.kept set until = now() - interval '1 second'")
    await pushed(service, insert("todo", "d"))

    assert (await compacted(service, keep_revisions=0))["horizon"] == 10


async def test_reading_a_snapshot_again_keeps_it_for_longer(service: Harness) -> None:
    await history(service)
    found = await service.call("GET", "j/snapshot")
    await service.query("update journal.kept set until = now() + interval '1 second'")
    service.service.snapshots._kept_at.clear()

    await service.call("GET", found.headers["Location"], headers={"Range": "bytes=0-10"})

    [row] = await service.query("select until - now() > interval '50 minutes' as is_kept from journal.kept")
    assert row["is_kept"]


async def test_by_days(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as service:
        await service.create()
        connection = await asyncpg.connect(database)
        for days in (40, 20, 10, 0):
            await pushed(service, insert("todo", f"{days}"))
        await connection.execute("set session_replication_role = replica")
        for revision, days in enumerate((40, 20, 10, 0), 1):
            at = datetime.now(UTC) - timedelta(days=days)
            await connection.execute("update journal.commit set committed_at = $1 where revision = $2", at, revision)
        await connection.close()

        assert (await compacted(service, keep_days=15, dry_run=True))["horizon"] == 2
        assert (await compacted(service, keep_days=15, keep_revisions=3, dry_run=True))["horizon"] == 1
        assert (await compacted(service, keep_days=0, dry_run=True))["horizon"] == 4
        assert (await compacted(service, keep_days=30))["horizon"] == 1


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [({}, ""), ({"keep_revisions": -1}, "/keep_revisions"), ({"keep_days": 1, "dryrun": True}, "/dryrun")],
)
async def test_a_slip_is_told(service: Harness, asked: Json, pointer: str) -> None:
    reply = await service.call("POST", "j/compact", json=asked)

    assert (reply.status, reply.json["errors"][0]["pointer"]) == (400, pointer)


async def test_again_and_again(service: Harness) -> None:
    cursors = await history(service)
    for keep in (7, 7, 5, 4, 1, 0, 0):
        await compacted(service, keep_revisions=keep)

    assert await left(service) == {"changes": None, "commits": [9], "atoms": ["a", "c"]}
    assert (await service.deltas(cursors[-1])).json["deltas"] == []
    last = await pushed(service, insert("todo", "b"), update("todo", "a", {"x": 9}))
    told = (await service.deltas(cursors[-1])).json["deltas"]
    assert [(d["op"], d["atom"], d["data"]) for d in told] == [("insert", "b", {"n": 1}), ("update", "a", {"x": 9})]
    assert (await service.deltas(last)).status == 200


async def test_a_journal_without_anything_is_compacted_to_where_it_is(service: Harness) -> None:
    assert (await compacted(service, keep_revisions=0))["horizon"] == 0


async def test_what_an_interrupted_compaction_left_the_next_one_removes(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history(service)

    async def dies(*_: Any) -> tuple[int, int]:
        raise RuntimeError("killed")

    monkeypatch.setattr(compaction, "sweep_record", dies)
    reply = await service.call("POST", "j/compact", json={"keep_revisions": 4}, headers={"Prefer": "wait=60"})
    assert reply.json["state"] == "failed"
    assert (await service.head())["horizon"] == 5
    monkeypatch.undo()

    told = await compacted(service, keep_revisions=4)

    assert (told["was"], told["horizon"], told["changes"]) == (5, 5, 5)
    assert (await left(service))["changes"] == [6, 7, 8, 9]


async def test_p9a_what_was_based_below_the_horizon_is_judged_by_the_fields_that_are_kept(service: Harness) -> None:
    cursors = await history(service)
    await compacted(service, keep_revisions=4)

    [gone, changed, merged] = (
        await service.pushed(
            [
                update("todo", "b", {"n": 2}, base=2),
                update("todo", "a", {"z": 5}, base=5),
                update("todo", "a", {"y": 5}, base=5),
            ],
            base=cursors[-1],
            on_conflict="merge",
        )
    )["outcomes"]

    assert (gone["status"], gone["current"]) == ("conflict", None)
    assert changed["status"] == "conflict"
    assert merged["status"] == "conflict"  # follows what was refused


async def test_pushes_that_meet_a_tombstone_while_it_is_removed_are_decided_again(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small steps, and inserts of the very names meanwhile, in two processes."""
    monkeypatch.setattr(compact, "STEP", 1)
    monkeypatch.setattr(compact, "PAUSE_S", 0.0)
    names = [f"{n}" for n in range(60)]
    await service.pushed([insert("todo", name) for name in names])
    await service.pushed([delete("todo", name) for name in names], on_conflict="client")

    running = asyncio.create_task(compacted(service, keep_revisions=0))
    answers = [await service.push([insert("todo", name, {"again": 1})]) for name in names]
    told = await running

    assert [(reply.status, reply.json["outcomes"][0]["status"]) for reply in answers] == [(200, "applied")] * 60
    assert told["horizon"] >= 120
    assert (await service.head())["atoms"] == 60
    assert {line["atom"]: line["data"] for line in (await service.snapshot())[1:-1]} == {
        name: {"again": 1} for name in names
    }


async def test_pushes_go_on_while_much_is_removed(service: Harness) -> None:
    for n in range(10):
        await service.pushed([insert("todo", f"{n}-{m}") for m in range(1000)])
    running = asyncio.create_task(compacted(service, keep_revisions=10))
    pushes = 0
    while not running.done():
        await service.pushed([insert("note", f"{pushes}")])
        pushes += 1

    assert (await running)["changes"] >= 9_000
    assert pushes > 5


async def test_another_process_learns_of_the_horizon(service: Harness, tmp_path: Path) -> None:
    cursors = await history(service)
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as other:
        await listening(other)
        assert (await other.deltas(cursors[0])).status == 200
        await compacted(service, keep_revisions=4)

        async def knows() -> bool:
            return (await other.deltas(cursors[0])).status == 410

        await eventually(knows)


async def test_who_was_called_back_and_then_cut_off_is_still_waited_for(service: Harness) -> None:
    cursors = await history(service)
    await service.deltas(cursors[0], client=ME)
    await service.call("POST", "j/resync", json={"reason": "x"})
    await pushed(service, insert("todo", "z"))
    await compacted(service, keep_revisions=0, force=True)

    assert (await service.call("GET", f"j/clients/{ME}")).json["resync"] == 11
    assert (await service.call("GET", "j/stats")).json["behind"] == 1


async def test_two_at_once_leave_nothing_below_the_horizon(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "STEP", 7)
    for n in range(30):
        await service.pushed([insert("todo", f"{n}-{m}") for m in range(10)])

    await asyncio.gather(compacted(service, keep_revisions=20), compacted(service, keep_revisions=10))

    assert (await service.head())["horizon"] == 290
    assert (await left(service))["changes"] == list(range(291, 301))


# The door.


async def test_p2_the_door_leads_to_nothing_above_the_horizon(service: Harness) -> None:
    await history(service)
    await compacted(service, keep_revisions=4)
    connection = await asyncpg.connect(service.dsn)
    try:
        for statement in (
            "delete from journal.change where revision = 6",
            "delete from journal.commit where revision = 6",
            "delete from journal.commit where revision = 5",
            "update journal.change set data = '{}'",
            "update journal.commit set push = 1",
        ):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await connection.execute(f"set local journal.door = 'compact'; {statement}")  # one transaction
            assert refused.value.sqlstate == "JR003", statement
    finally:
        await connection.close()
