"""The blocking façade: scripts and threads without an event loop, and how they are interrupted and closed."""

import asyncio
import signal
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from journal.client import (
    AtomExists,
    AtomMissing,
    BlockingReplica,
    Closed,
    Conflict,
    InvalidChange,
    NotThisJournal,
    Replica,
    Unreachable,
)
from tests.command import ROOT, environment
from tests.harness import Harness, insert
from tests.replica.test_replica import at_server

WAITS_S = 20.0
SCRIPT = """
import sys
from journal.client import Replica

with Replica.open_sync(sys.argv[1], sys.argv[2]) as replica:
    todo = replica.collection("todo")
    todo.put("a", {"n": 1})
    DOING
"""


@pytest.fixture
def place(service: Harness, tmp_path: Path) -> tuple[Path, str]:
    """A file, and the journal that it is of."""
    return tmp_path / "phone.db", f"{service.url}/v1/journals/j"


async def apart(work: Callable[[], Any]) -> Any:
    """What it gives, run in a thread; the service runs in this one."""
    async with asyncio.timeout(WAITS_S):
        return await asyncio.to_thread(work)


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A journal's URL where somebody takes connections and never says anything; and that one came."""
    asked = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/journals/j", asked


async def test_a_script_writes_reads_and_syncs(service: Harness, place: tuple[Path, str]) -> None:
    await service.pushed([insert("todo", f"{n}", {"n": n}) for n in range(3)])
    told = list[str]()

    def script() -> Any:
        with Replica.open_sync(*place, progress=lambda progress: told.append(progress.phase)) as replica:
            todo = replica.collection("todo")
            replica.sync()
            todo.insert("a", {"n": 1, "m": 1})
            todo.update("a", {"n": 5}, unset=["m"])
            todo.put("b", {"n": 5})
            todo.index("n")
            assert todo.delete("0")
            replica.sync()
            assert replica.verify() == 0
            assert (replica.collections(), replica.conflicts()) == (["todo"], [])
            assert (todo.get("a"), todo.count(), replica.status().pending) == ({"n": 5}, 4, 0)
            return dict(todo), todo.find({"n": 5})

    everything, found = await apart(script)

    assert found == [("a", {"n": 5}), ("b", {"n": 5})]
    assert await at_server(service) == {"todo": everything}
    assert everything == {"1": {"n": 1}, "2": {"n": 2}, "a": {"n": 5}, "b": {"n": 5}}
    assert "pull" in told


async def test_threads_write_at_once(service: Harness, place: tuple[Path, str]) -> None:
    def write(replica: BlockingReplica, thread: int) -> None:
        for n in range(20):
            replica.collection("todo").insert(f"{thread}-{n}", {"n": n})

    def script() -> None:
        with Replica.open_sync(*place) as replica:
            threads = [threading.Thread(target=write, args=(replica, thread)) for thread in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            replica.sync()

    await apart(script)

    assert len((await at_server(service))["todo"]) == 80


async def test_a_transaction_is_of_its_thread(service: Harness, place: tuple[Path, str]) -> None:
    seen = list[Any]()

    def script() -> None:
        with Replica.open_sync(*place) as replica:
            todo = replica.collection("todo")

            def other() -> None:
                seen.append(todo.get("a"))
                todo.insert("c", {})  # waits for the other thread's transaction
                seen.append(todo.get("a"))

            thread = threading.Thread(target=other)
            with replica.transaction():
                todo.insert("a", {"n": 1})
                thread.start()
                todo.insert("b", {"n": 1})
                while not seen:
                    threading.Event().wait(0.01)
                seen_here = todo.get("a")
            thread.join()
            assert seen_here == {"n": 1}
            replica.sync()

    await apart(script)

    assert seen == [None, {"n": 1}]
    commits = (await service.call("GET", "j/changes?since=0")).json["commits"]
    assert [[change["atom"] for change in commit["changes"]] for commit in commits] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, StopIteration])
async def test_a_transaction_that_is_left_by_whatever_means_is_undone(
    place: tuple[Path, str], kind: type[BaseException]
) -> None:
    def script() -> Any:
        with Replica.open_sync(*place) as replica:
            todo = replica.collection("todo")

            def leave() -> None:
                with replica.transaction():
                    todo.insert("a", {"n": 1})
                    raise kind

            with pytest.raises(kind):
                leave()
            todo.insert("b", {})
            return dict(todo)

    assert await apart(script) == {"b": {}}


async def test_what_goes_wrong_is_raised_as_what_it_is(place: tuple[Path, str]) -> None:
    file, url = place

    def script() -> None:
        with Replica.open_sync(file, "http://127.0.0.1:1/v1/journals/j", collections=["todo"]) as replica:
            todo = replica.collection("todo")
            todo.insert("a", {})
            with pytest.raises(AtomExists):
                todo.insert("a", {})
            with pytest.raises(AtomMissing):
                todo.update("b", {"n": 1})
            with pytest.raises(InvalidChange):
                todo.put("b", {"n": float("nan")})
            with pytest.raises(InvalidChange):
                replica.collection("visit")
            with pytest.raises(Unreachable):
                replica.sync()
            with replica.transaction(), pytest.raises(RuntimeError, match="nested"), replica.transaction():
                pass
        with pytest.raises(Closed):
            todo.get("a")
        with pytest.raises(Closed):
            next(iter(replica.follow()))
        replica.close()
        with pytest.raises(ValueError, match="a journal's URL"):
            Replica.open_sync(file, "http://127.0.0.1:8470")
        with pytest.raises(NotThisJournal), Replica.open_sync(file, url + "k"):
            pass

    await apart(script)


async def test_a_thread_follows_what_happens_here_and_there(service: Harness, place: tuple[Path, str]) -> None:
    begun = threading.Event()

    def script() -> Any:
        with Replica.open_sync(*place) as replica:
            replica.sync()
            begun.set()
            seen = []
            for change in replica.follow("todo"):
                seen.append((change.atom, change.data))
                if change.atom == "there":
                    replica.collection("other").put("x", {})
                    replica.collection("todo").put("here", {"n": 2})
                if change.atom == "here":
                    break
            return seen

    following = asyncio.create_task(apart(script))
    await asyncio.to_thread(begun.wait)
    while not following.done():  # following begins some time after it is called for
        await service.pushed([{"op": "put", "collection": "todo", "atom": "there", "data": {"n": 1}, "if_data": None}])
        await service.pushed([{"op": "delete", "collection": "todo", "atom": "there", "if_data": {"n": 1}}])
        await service.pushed([insert("todo", "there", {"n": 1})])
        await asyncio.wait([following], timeout=2)
        break
    seen = await following

    assert seen[0] == ("there", {"n": 1})
    assert seen[-1] == ("here", {"n": 2})


async def test_closing_ends_what_other_threads_follow_and_wait_for(place: tuple[Path, str]) -> None:
    file, _ = place
    ends, syncs = list[str](), threading.Event()

    def script(url: str) -> None:
        with Replica.open_sync(file, url) as replica:
            replica.collection("todo").put("a", {})
            changes = replica.follow()

            def follow() -> None:
                for _ in changes:
                    syncs.set()
                ends.append("followed")

            def sync() -> None:
                try:
                    replica.sync()
                except Closed:
                    ends.append("synced")

            threads = [threading.Thread(target=work) for work in (follow, sync)]
            for thread in threads:
                thread.start()
            while not syncs.is_set():
                replica.collection("todo").put("a", {"n": len(ends) + replica.status().pending})
                replica.collection("todo").delete("a")
        for thread in threads:
            thread.join()

    async with silent() as (url, _):
        await apart(lambda: script(url))

    assert sorted(ends) == ["followed", "synced"]


async def test_who_is_told_of_something_cannot_wait_for_the_replica_that_tells_it(
    service: Harness, place: tuple[Path, str]
) -> None:
    await service.pushed([insert("todo", "a", {"n": 1})])
    raised = list[BaseException]()

    def script() -> None:
        def settle(conflict: Conflict) -> None:
            try:
                replica.settle(conflict, "server")
            except RuntimeError as error:
                raised.append(error)

        with Replica.open_sync(*place, conflict=settle) as replica:
            replica.collection("todo").insert("a", {"n": 2})
            replica.sync()
            while not raised:
                assert len(replica.conflicts()) == 1

    await apart(script)

    assert "thread" in str(raised[0])


@pytest.mark.parametrize("doing", ["replica.sync()", "replica.start(); all(replica.follow())"])
async def test_ctrl_c_ends_a_script_at_once_and_leaves_a_good_file(
    service: Harness, place: tuple[Path, str], doing: str
) -> None:
    file, url = place

    async with silent() as (nowhere, asked), asyncio.timeout(WAITS_S):
        script = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-c", SCRIPT.replace("DOING", doing), str(file), nowhere),
            cwd=ROOT,
            env=environment(PYTHONPATH=str(ROOT)),
            stderr=PIPE,
        )
        await asked.wait()
        script.send_signal(signal.SIGINT)
        _, said = await script.communicate()

    assert script.returncode == -signal.SIGINT
    assert said.decode().rstrip().endswith("KeyboardInterrupt")
    assert said.count(b"Traceback") == 1, said.decode()
    assert await apart(lambda: _synced(file, url)) == {"a": {"n": 1}}
    commits = (await service.call("GET", "j/changes?since=0")).json["commits"]
    assert [[change["atom"] for change in commit["changes"]] for commit in commits] == [["a"]]


def _synced(file: Path, url: str) -> Any:
    with Replica.open_sync(file, url) as replica:
        assert replica.status().pending == 1
        replica.sync()
        return dict(replica.collection("todo"))
