"""A replica that is closed, cancelled or not open, and what was going on meanwhile."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from journal.client import Changed, Closed, Replica
from tests.harness import Harness, eventually
from tests.replica.conftest import Opener


async def test_closing_ends_what_is_followed(opened: Opener) -> None:
    replica = await opened()
    seen = list[Changed]()

    async def follow() -> None:
        async for change in replica.follow():
            seen.append(change)

    async def has_begun() -> bool:
        await replica.collection("todo").put("a", {"n": len(seen)})
        await replica.collection("todo").delete("a")
        return bool(seen)

    following = asyncio.create_task(follow())
    await eventually(has_begun)
    await replica.close()

    async with asyncio.timeout(5):
        await following


async def test_a_replica_that_is_not_open_says_so(service: Harness, tmp_path: Path) -> None:
    replica = Replica.open(tmp_path / "phone.db", f"{service.url}/v1/journals/j")
    todo = replica.collection("todo")

    async def refuses_all() -> bool:
        calls = (lambda: todo.get("a"), lambda: todo.put("a", {}), replica.sync, replica.status, replica.start)
        for call in calls:
            with pytest.raises(Closed):
                await call()
        with pytest.raises(Closed):
            await anext(replica.follow())
        return True

    assert await refuses_all()
    async with replica:
        await todo.put("a", {})
    assert await refuses_all()


async def test_closing_undoes_a_transaction_that_is_open(opened: Opener, tmp_path: Path) -> None:
    replica = await opened()
    is_in, is_closed = asyncio.Event(), asyncio.Event()

    async def change() -> None:
        async with replica.transaction():
            await replica.collection("todo").put("a", {})
            is_in.set()
            await is_closed.wait()

    changing = asyncio.create_task(change())
    await is_in.wait()
    await replica.close()
    is_closed.set()

    with pytest.raises(Closed):
        await changing
    assert await (await opened()).collection("todo").count() == 0


async def test_a_transaction_that_is_cancelled_as_it_begins_leaves_nothing_open(opened: Opener, tmp_path: Path) -> None:
    replica = await opened()
    other = sqlite3.connect(tmp_path / "phone.db", isolation_level=None)
    other.execute("begin immediate")

    async def change() -> None:
        async with replica.transaction():
            pass

    changing = asyncio.create_task(change())
    await asyncio.wait([changing], timeout=0.1)  # it waits for the other one's lock
    changing.cancel()
    other.execute("rollback")
    other.close()

    with pytest.raises(asyncio.CancelledError):
        await changing
    await replica.collection("todo").put("a", {})
