"""What memory proves must still be so when it is told: rings are trimmed, clients and journals pushed out meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from journal.config import Memory
from journal.service import fanout, group, judge, tails
from journal.service.deltas import Reader
from journal.service.writer import Writer
from journal.store import heads, reading, record, recovery
from tests.harness import Harness, Json, delete, eventually, insert, listening, serving, update
from tests.integration.test_fanout import audience, counted, follow, named
from tests.integration.test_stream import pushed, source

LARGE = {"t": "z" * 9000}
SMALL = Memory(all_rings_bytes=3000)  # what another journal is pushed takes this one's ring


@pytest.fixture
async def crowded(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """A service that remembers next to nothing, with two journals."""
    async with serving(database, tmp_path, memory=SMALL, poll_s=3600.0) as running:
        await running.create("j")
        await running.create("k")
        yield running


async def test_p3_a_ring_that_is_trimmed_while_a_client_is_looked_up(
    crowded: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await pushed(crowded, insert("todo", "a"))
    for change in (insert("todo", "b"), insert("todo", "brief"), delete("todo", "brief")):
        await pushed(crowded, change)
    client_number = reading.client_number

    async def looked_up(*asked: Any) -> int | None:
        found = await client_number(*asked)
        await crowded.pushed([insert("x", "y", LARGE)], "k")
        return found

    monkeypatch.setattr(reading, "client_number", looked_up)
    told = (await crowded.deltas(at, client=str(UUID(int=1)))).json

    assert [delta["atom"] for delta in told["deltas"]] == ["b"]
    assert (await crowded.head("k"))["head"] > 0


async def test_p8_a_base_is_not_refused_for_what_memory_let_go_of_meanwhile(
    crowded: Harness, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock, where a refusal is the answer: between what is loaded and what is decided."""
    (tmp_path / "other").mkdir()
    async with serving(database, tmp_path / "other", poll_s=3600.0) as other:
        await listening(crowded)
        await crowded.head("k")
        at = await pushed(other, insert("todo", "a"))
        await pushed(other, insert("todo", "b"))
        await eventually(lambda: is_at(crowded, "j", 2))
        journal = (await crowded.service.tails.of("j")).head.id
        atoms, calls = record.atoms, list[int]()

        async def loaded(connection: Any, keys: Any) -> Any:
            found = await atoms(connection, keys)
            if keys and keys[0][0] == journal and not calls:
                calls.append(journal)
                await other.pushed([insert("x", "y", LARGE)], "k")
                await eventually(lambda: is_at(crowded, "k", 1))
            return found

        monkeypatch.setattr(record, "atoms", loaded)
        told = await crowded.push([update("todo", "a", {"n": 5})], base=at)

    assert calls
    assert (told.status, told.json["outcomes"][0]["status"]) == (200, "applied")


async def is_at(service: Harness, journal: str, head: int) -> bool:
    return bool((await service.head(journal))["head"] == head)


async def test_more_clients_than_are_remembered_are_decided_together(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "_CLIENTS", 4)
    clients = [str(uuid4()) for _ in range(30)]
    with counted(monkeypatch, Writer, "_record") as locked:
        for push in (1, 2, 3):
            replies = await asyncio.gather(
                *(
                    service.push([insert("todo", f"{client} {push}")], client=client, push=push)
                    for client in reversed(clients)
                )
            )
            assert [reply.status for reply in replies] == [200] * 30

    assert locked == []


async def test_p12_what_a_group_knows_of_chains_does_not_grow_while_groups_overlap(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    init = group.Standing.__init__

    def noted(self: group.Standing, *arguments: Any) -> None:
        init(self, *arguments)
        sizes.append(len(self.chains))

    monkeypatch.setattr(group.Standing, "__init__", noted)

    async def pushing(one: int) -> None:
        for n in range(25):
            await service.pushed([insert("todo", f"{one} {n}")])

    await asyncio.gather(*(pushing(one) for one in range(16)))

    assert len(sizes) > 10
    assert max(sizes) <= 16


async def test_a_burst_too_large_for_an_event_is_folded_once(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "LIMIT", 10)
    at = await pushed(service, insert("todo", "a"))
    async with audience(service, at, [{}] * 30) as told:
        with counted(monkeypatch, Reader, "_from_memory") as folds:
            await pushed(service, *(insert("todo", f"{n}") for n in range(40)))
            for one in told:
                atoms: list[str] = []
                while len(atoms) < 40:
                    atoms += [delta["atom"] for delta in await one.deltas()]
                assert atoms == [f"{n}" for n in range(40)]
            await follow(service, 30)

    assert len(folds) <= 5


async def test_p12_what_rings_take_is_counted_as_it_is(database: str, tmp_path: Path) -> None:
    """Also of journals that are pushed out of memory while they are written."""
    async with serving(database, tmp_path, memory=Memory(journals=2), poll_s=3600.0) as service:
        for n in range(6):
            await service.create(f"d{n}")
        for n in range(10):
            await asyncio.gather(*(service.pushed([insert("todo", f"{n}", LARGE)], f"d{m}") for m in range(6)))
        known = service.service.tails

        assert known._bytes == sum(tail.bytes for tail in known._tails.values())


async def test_journals_that_are_waited_for_do_not_push_each_other_out(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database, tmp_path, memory=Memory(journals=3), poll_s=3600.0) as service:
        names = [f"d{n}" for n in range(6)]
        cursors = {}
        for name in names:
            await service.create(name)
            cursors[name] = (await service.head(name))["cursor"]
        async with AsyncExitStack() as stack:
            for name in names[:3]:
                told = await stack.enter_async_context(source(service, cursors[name], journal=name))
                await told.next()
            polls = [asyncio.create_task(service.deltas(cursors[name], name, wait=20)) for name in names[3:]]
            await asyncio.sleep(0.3)
            asked: list[Any] = []
            head_by_name = heads.head_by_name

            async def noted(*arguments: Any) -> Any:
                asked.append(arguments)
                return await head_by_name(*arguments)

            with monkeypatch.context() as patched:
                patched.setattr(heads, "head_by_name", noted)
                await asyncio.sleep(0.5)
            for name in names[3:]:
                await service.pushed([insert("todo", "a")], name)
            answers = [await poll for poll in polls]

    assert asked == []
    assert {len(answer.json["deltas"]) for answer in answers} == {1}


async def test_who_is_looked_up_after_another_was_forgotten_takes_turns(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await pushed(service, insert("todo", "a"))
    await service.deltas(at, client=str(UUID(int=999)))
    is_forgotten, at_once, most = recovery.is_forgotten, [0], [0]

    async def slowly(*arguments: Any) -> bool:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await asyncio.sleep(0.005)
        try:
            return await is_forgotten(*arguments)
        finally:
            at_once[0] -= 1

    async with audience(service, at, [named(n) for n in range(40)]) as told:
        monkeypatch.setattr(recovery, "is_forgotten", slowly)
        assert (await service.call("DELETE", f"j/clients/{UUID(int=999)}")).status == 204
        await pushed(service, insert("todo", "b"))
        assert [[delta["atom"] for delta in await one.deltas()] for one in told] == [["b"]] * 40

    assert 0 < most[0] <= fanout.APART


async def test_a_floor_is_looked_at_once_for_each_cohort(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing of a cohort's collections changes, so that it stays where it is."""
    at = await pushed(service, insert("todo", "a"), insert("note", "n"))
    asked: list[Json] = [{"collections": ",".join(["note", *(f"c{m}" for m in range(n))])} for n in range(5)]
    async with audience(service, at, asked):
        looks: list[Any] = []
        floors_for = judge.floors_for

        async def noted(*arguments: Any) -> Any:
            looks.append(arguments)
            return await floors_for(*arguments)

        monkeypatch.setattr(fanout, "floors_for", noted)
        await service.call("POST", "j/resync", json={"client": str(UUID(int=77)), "reason": "x"})
        for n in range(20):
            await pushed(service, insert("todo", f"{n}"))
            await asyncio.sleep(0.02)

    assert 0 < len(looks) <= 5
