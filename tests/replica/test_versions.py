"""P9, P10 and trap 8: a sync that is met, stopped or broken between any two steps loses and repeats nothing.

Each test goes through the steps of one sync, one by one: at step n something happens, and then a plain sync must end
at the server's state. It begins anew for each n, until a sync has fewer steps than that.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from journal.client import AtomMissing, Replica, Unreachable, pulling
from tests.harness import Harness, delete, insert, update
from tests.replica.facts import (
    see_that_it_is_the_servers,
    see_that_nothing_is_lost,
    see_that_versions_hold,
)
from tests.replica.steps import Watched, watching

Act = Callable[["Run"], Awaitable[None]]


class Interrupted(Exception):
    """What happens at a step, where that is a failure."""


class Run:
    """One sync of a replica, to which something happens at one step. `other`: the same file, as another process has it.

    `written`: the fields that acknowledged local changes have set, each in a change of its own.
    """

    def __init__(self, service: Harness, j: str, path: Path, at: int) -> None:
        self.service, self.j, self.path, self.at = service, j, path, at
        self.written: list[str] = []
        self.replica: Replica
        self.other: Replica
        self.step, self.told = 0, ""
        self.act: Act | None = None
        self.failure: Exception | None = None
        self.is_stopped = False
        self._syncing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def has_happened(self) -> bool:
        """Whether the sync had that many steps."""
        return self.step >= self.at

    async def write(self, atom: str, collection: str = "todo") -> None:
        """Set a field of its own in an atom, from the other process; where the atom is gone nothing was written."""
        name = f"w{len(self.written)}"
        self.written.append(name)
        try:
            await self.other.collection(collection).update(atom, {name: 1})
        except AtomMissing:
            self.written.remove(name)

    async def sync(self, act: Act | None, failure: Exception | None = None, *, is_stopped: bool = False) -> None:
        """Sync; at its step something is done, or it fails there."""
        self.act, self.failure, self.is_stopped = act, failure, is_stopped
        self._syncing = asyncio.create_task(self.replica.sync())
        try:
            await self._syncing
        finally:
            self._syncing = None

    def cancel(self) -> None:
        """Stop the sync here."""
        assert self._syncing is not None
        self._syncing.cancel()

    def before(self, db: Watched, statement: str) -> None:
        """In the connection's thread. Inside of a transaction that writes, others are only to be met by a failure."""
        if (self.act is not None and db.is_writing) or not self._is_now(statement):
            return
        if self.act is not None:
            acting = asyncio.run_coroutine_threadsafe(_awaited(self.act(self)), self._loop)
            if not self.is_stopped:
                acting.result()
        if self.failure is not None:
            raise sqlite3.OperationalError("disk I/O error")

    async def at_request(self, what: str) -> None:
        """In the event loop."""
        if not self._is_now(what):
            return
        if self.act is not None:
            await self.act(self)
            await asyncio.sleep(0)  # where one that was cancelled ends
        if self.failure is not None:
            raise aiohttp.ServerDisconnectedError

    def _is_now(self, what: str) -> bool:
        if self._syncing is None:
            return False
        self.step += 1
        if self.step == self.at:
            self.told = what
        return self.step == self.at


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def ordinary(run: Run) -> None:
    """A transaction, changes that are taken, merged and refused, and what others did: several pushes, and a pull."""
    todo = run.replica.collection("todo")
    async with run.replica.transaction():
        await todo.insert("t1", {"n": 1})
        await todo.update("a", {"w": 1})
    await todo.update("a", {"x": 1})
    await todo.insert("e", {"n": 1})
    await todo.update("gone", {"y": 1})
    await todo.delete("c")
    run.written += ["w", "x", "y"]
    await others(run)


async def others(run: Run) -> None:
    """What others do: they change, delete and insert, each in a commit of its own, so that there are pages."""
    for change in (
        update("todo", "a", {"theirs": 1}, if_data={"n": 1}), delete("todo", "gone", if_data={"n": 1}),
        update("todo", "d", {"theirs": 1}, if_data={"n": 1}), insert("todo", "new"), insert("visit", "v"),
    ):  # fmt: skip
        await run.service.pushed([change], run.j)


async def in_doubt(run: Run) -> None:
    """A file whose data is to be compared with the server's and differs."""
    await run.replica.collection("todo").update("a", {"w": 1})
    run.written.append("w")

    def damage(db: sqlite3.Connection) -> None:
        db.execute("""update base set data = '{"n":2}' where atom = 'd'""")
        db.execute("delete from base where atom = 'c'")
        db.execute("insert or replace into meta values ('in_doubt', 1)")

    await run.other._writer.write(damage)


async def called_back(run: Run) -> None:
    """A replica that an operator has told to start again from a snapshot, with changes of its own."""
    await ordinary(run)
    reply = await run.service.call("POST", f"{run.j}/resync", json={"reason": "a test", "spread_s": 0})
    assert reply.status == 200, reply.body


SCENARIOS = {"ordinary": ordinary, "in doubt": in_doubt, "called back": called_back}


@asynccontextmanager
async def begun(service: Harness, folder: Path, at: int, scenario: str) -> AsyncIterator[Run]:
    """A replica of a journal of its own, synced once and then left alone for a while."""
    run = Run(service, f"j{at}", folder / f"{at}.db", at)
    await service.create(run.j)
    await service.pushed([insert("todo", atom) for atom in ("a", "gone", "c", "d")], run.j)
    url = f"{service.url}/v1/journals/{run.j}"
    async with Replica.open(run.path, url, on_conflict="merge") as other:
        with watching(run.path, run.before, run.at_request):
            async with Replica.open(run.path, url, on_conflict="merge") as replica:
                run.replica, run.other = replica, other
                await replica.sync()
                await SCENARIOS[scenario](run)
                yield run


async def see_that_all_is_well(run: Run, *, by: Replica) -> None:
    """A plain sync ends at the server's state, with everything that was written recorded once or kept."""
    see_that_versions_hold(run.path)
    await by.sync()
    see_that_versions_hold(run.path)
    await see_that_it_is_the_servers(by, run.service, run.j)
    await see_that_nothing_is_lost(by, run.service, run.written, run.j)


async def each_step(
    service: Harness, folder: Path, scenario: str, meet: Callable[[Run], Awaitable[Any]], stride: int = 1
) -> int:
    """Begin anew for each step, until a sync has come through untouched; how many steps it has."""
    at = 1
    while True:
        async with begun(service, folder, at, scenario) as run:
            await meet(run)
            try:
                await see_that_all_is_well(run, by=run.replica if at % 2 else run.other)
            except BaseException as error:
                error.add_note(f"at step {at}: {run.told}")
                raise
            if not run.has_happened:
                return run.step
        at += stride


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of several pages."""
    monkeypatch.setattr(pulling, "PAGE", 2)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_p9_what_is_changed_at_any_step_of_a_sync_is_kept_and_pushed(
    service: Harness, tmp_path: Path, scenario: str
) -> None:
    """Trap 8: the atoms that are being pushed, pulled, and found deleted are changed by another process meanwhile."""

    async def change(run: Run) -> None:
        for atom in ("a", "d", "gone", "e"):
            await run.write(atom)

    async def meet(run: Run) -> None:
        await run.sync(change)

    assert await each_step(service, tmp_path, scenario, meet) > 15


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_p9_a_sync_that_is_stopped_at_any_step_is_ended_by_the_next(
    service: Harness, tmp_path: Path, scenario: str
) -> None:
    async def stop(run: Run) -> None:
        run.cancel()

    async def meet(run: Run) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await run.sync(stop, is_stopped=True)

    assert await each_step(service, tmp_path, scenario, meet) > 15


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_p9_a_sync_that_fails_at_any_step_is_ended_by_the_next(
    service: Harness, tmp_path: Path, scenario: str
) -> None:
    """The disk fails before a statement, or the network before a request is sent or when it was answered."""

    async def meet(run: Run) -> None:
        with contextlib.suppress(sqlite3.OperationalError, Unreachable):
            await run.sync(None, Interrupted())

    assert await each_step(service, tmp_path, scenario, meet) > 15
