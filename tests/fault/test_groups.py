"""Groups of pushes: the next is decided while one is recorded, and holds only if that is recorded as it was decided."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from journal.service.group import Asked, Group
from tests.harness import Harness, Json, Reply, blocked_on_lock, eventually, insert, serving, update

GATE = """
create table public.gate (what text);
create function public.wait_at_gate() returns trigger language plpgsql as $$
declare
  said text;
begin
  loop
    select g.what into said from public.gate g;
    exit when found;
    perform pg_sleep(0.005);
  end loop;
  case said
    when 'fail' then raise exception 'no';
    when 'die' then perform pg_terminate_backend(pg_backend_pid());
    else null;
  end case;
  return new;
end $$;
create trigger gate before insert on journal.change
for each row when (new.atom = 'gate') execute function public.wait_at_gate();
"""


class Gate:
    """What a group that records the atom `gate` waits at. `decided`: the pushes that were decided meanwhile."""

    def __init__(self, service: Harness) -> None:
        self.service = service
        self.decided: list[Asked] = []
        self.flying: asyncio.Task[Reply] | None = None

    async def close(self) -> None:
        """Push the atom, and wait until it is being recorded."""
        self.flying = self.push(insert("todo", "gate", {"n": 1}))
        await eventually(self._is_waited_at)
        self.decided.clear()

    def push(self, *changes: Json, j: str = "j", **members: Any) -> "asyncio.Task[Reply]":
        members = {"client": str(uuid4()), "push": 1} | members
        return asyncio.create_task(self.service.push(list(changes), j, **members))

    async def has_decided(self, pushes: int) -> None:
        """Wait until so many pushes behind it are decided, while it is still waited at."""

        async def are_decided() -> bool:
            return len(self.decided) == pushes

        await eventually(are_decided)
        assert await self._is_waited_at()

    async def open(self, what: str = "go") -> Reply:
        """Let the group go on, fail, or lose its connection; what became of it."""
        await self.service.query("insert into public.gate values ($1)", what)
        if what != "go":
            await eventually(lambda: self._is_waited_at(count=0))
            await self.service.query("update public.gate set what = 'go'")
        assert self.flying is not None
        return await self.flying

    async def _is_waited_at(self, count: int = 1) -> bool:
        [[waiting]] = await self.service.query(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
        )
        return bool(waiting == count)


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service."""
    async with serving(database, tmp_path, poll_s=3600.0) as running:
        await running.create("j")
        yield running


@pytest.fixture
async def gate(service: Harness, database: str, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate that nothing has come to yet."""
    connection = await asyncpg.connect(database)
    await connection.execute(GATE)
    await connection.close()
    made = Gate(service)
    settle = Group.settle

    def settled(group: Group, asked: Asked) -> None:
        settle(group, asked)
        made.decided.append(asked)

    monkeypatch.setattr(Group, "settle", settled)
    return made


async def is_sound(service: Harness, j: str = "j") -> None:
    """The record, the state, the digests and memory are of one mind."""
    checked = await service.call("POST", f"{j}/check", headers={"Prefer": "wait=30"})
    assert checked.json["result"]["ok"], checked.json
    [[head]] = await service.query(
        "select head from journal.head h join journal.journal j on j.id = h.journal_id where j.name = $1", j
    )
    assert (await service.head(j))["head"] == head


async def test_what_comes_while_a_group_is_recorded_is_decided_on_what_it_leaves(gate: Gate, service: Harness) -> None:
    await gate.close()
    answers = [
        gate.push(update("todo", "gate", {"n": 2}, if_data={"n": 1})),
        gate.push(insert("todo", "gate", {"n": 9})),  # it is there by then
        gate.push(insert("new", "a"), insert("new", "b")),  # a collection that is not there yet
        gate.push(insert("new", "a", {"n": 9})),
    ]
    await gate.has_decided(4)
    assert (await service.head())["head"] == 0

    first = await gate.open()
    second = [(await answer).json for answer in answers]

    assert (first.json["first"], first.json["head"]) == (1, 1)
    assert [told["outcomes"][0]["status"] for told in second] == ["applied", "conflict", "applied", "conflict"]
    assert [told["first"] for told in second] == [2, None, 3, None]
    assert len(gate.decided) == 4
    assert {d["atom"]: d["data"] for d in (await service.round(0))[0] if d["collection"] == "todo"} == {
        "gate": {"n": 2}
    }
    await is_sound(service)


async def test_p6_numbered_pushes_are_told_apart_across_groups(gate: Gate, service: Harness) -> None:
    """One number in the group that is recorded, again in the next, and the number after it; likewise a key."""
    client = str(uuid4())
    await gate.close()
    assert gate.flying is not None
    gate.flying.cancel()
    sent = [insert("todo", "mine", {"n": 1})]
    once = [gate.push(*sent, client=client, push=1), gate.push(*sent, client=client, push=1)]
    keyed = {"headers": {"Idempotency-Key": "k"}, "json": {"changes": [insert("todo", "keyed")]}}
    keys = [asyncio.create_task(service.call("POST", "j/changes", **keyed)) for _ in range(2)]
    await gate.has_decided(4)
    again = gate.push(*sent, client=client, push=1)
    late = [again, gate.push(update("todo", "mine", {"n": 2}, if_data={"n": 1}), client=client, push=2)]
    other = gate.push(*sent, insert("todo", "other"), client=client, push=1)
    await gate.has_decided(7)
    await service.query("insert into public.gate values ('go')")
    told = [(await answer).json for answer in (*once, *late)]
    keys_told = [(await answer).json for answer in keys]

    assert [(t["replayed"], t["revision"]) for t in told] == [(False, 2), (True, 2), (True, 2), (False, 4)]
    assert sorted((t["replayed"], t["revision"]) for t in keys_told) == [(False, 3), (True, 3)]
    assert (await other).json["code"] == "push_reused"
    await is_sound(service)


@pytest.mark.parametrize("what", ["fail", "die"])
async def test_p6_what_was_decided_on_a_group_that_came_to_nothing_is_decided_again(
    gate: Gate, service: Harness, what: str
) -> None:
    await gate.close()
    assert gate.flying is not None
    gate.flying.cancel()
    unnumbered = asyncio.create_task(service.push([insert("todo", "gate", {"n": 3})]))
    answers = [gate.push(insert("todo", f"{n}", {"n": n})) for n in range(3)]
    await gate.has_decided(4)
    decided = list(gate.decided)

    await service.query("insert into public.gate values ($1)", what)
    told = [(await answer).json for answer in answers]
    await service.query("update public.gate set what = 'go'")

    assert [t["outcomes"][0]["status"] for t in told] == ["applied"] * 3
    assert len(gate.decided) > len(decided)
    assert (await unnumbered).status in (200, 500, 503)
    living = {delta["atom"] for delta in (await service.round(0))[0]}
    assert {"0", "1", "2"} <= living
    await is_sound(service)


async def test_a_group_that_another_process_was_quicker_than_is_decided_again_and_so_is_the_next(
    gate: Gate, service: Harness, database: str, tmp_path: Path
) -> None:
    def has_decided(pushes: int) -> Callable[[], Awaitable[bool]]:
        async def are_decided() -> bool:
            return sum(asked.client is not None for asked in gate.decided) >= pushes

        return are_decided

    async with serving(database, tmp_path, poll_s=3600.0) as other:
        holder = await asyncpg.connect(database)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("lock table journal.commit")
        theirs = asyncio.create_task(other.push([insert("todo", "theirs")]))
        await blocked_on_lock(database)
        mine = [gate.push(insert("todo", "mine"))]
        await eventually(has_decided(1))
        mine += [gate.push(insert("todo", "theirs", {"n": 9})), gate.push(insert("todo", "more"))]
        await eventually(has_decided(3))
        await transaction.commit()
        await holder.close()
        told = [(await answer).json for answer in (theirs, *mine)]

    assert [t["revision"] for t in told] == [1, 2, None, 3]
    assert told[2]["outcomes"][0]["status"] == "conflict"
    await is_sound(service)


async def test_the_last_groups_are_answered_when_the_service_stops(gate: Gate, service: Harness) -> None:
    await gate.close()
    answers = [gate.push(insert("todo", f"{n}")) for n in range(3)]
    await gate.has_decided(3)
    service.service.writer.close()

    assert (await gate.open()).status == 200
    assert [(await answer).status for answer in answers] == [200] * 3
