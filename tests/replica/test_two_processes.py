"""P9: two processes on one file, one that syncs and one that writes, lose nothing when either is killed anywhere.

The processes are real ones (processes.py); what one has acknowledged by a line on its standard output must be at the
server once, or be kept as a conflict. This process opens the file only after both have ended.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from journal.client import Replica
from tests.harness import Harness, delete, eventually, insert, update
from tests.replica.facts import (
    in_base,
    record,
    see_that_it_is_the_servers,
    see_that_nothing_is_lost,
    see_that_versions_hold,
)
from tests.replica.processes import Job, Processes, processes

AT_ONCE = 4
WRITES: list[list[Any]] = [
    ["update", "a", "w1"], ["update", "gone", "w2"], ["transaction", "a", "w3", "t", "w4"], ["update", "d", "w5"],
]  # fmt: skip


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Processes]:
    async with processes() as found:
        yield found


def url(service: Harness, j: str = "j") -> str:
    return f"{service.url}/v1/journals/{j}"


def fields(job: Job) -> list[str]:
    """The fields that acknowledged writes have set."""
    return [name for _, what, *told in job.did if what in ("update", "transaction") for name in told[1::2]]


async def begun(service: Harness, j: str, path: Path) -> None:
    """A file that was synced once, of a journal that went on since."""
    await service.create(j)
    await service.pushed([insert("todo", atom) for atom in ("a", "gone", "d")], j)
    async with Replica.open(path, url(service, j), on_conflict="merge") as replica:
        await replica.sync()
    await service.pushed(
        [update("todo", "a", {"theirs": 1}, if_data={"n": 1}), delete("todo", "gone", if_data={"n": 1})], j
    )


async def see_that_all_is_well(service: Harness, j: str, path: Path, written: list[str]) -> None:
    async with Replica.open(path, url(service, j), on_conflict="merge") as replica:
        see_that_versions_hold(path)
        await replica.sync()
        await see_that_it_is_the_servers(replica, service, j)
        await see_that_nothing_is_lost(replica, service, written, j)


async def has_synced(service: Harness, j: str, written: list[str]) -> None:
    """Wait until all of it is in the record, but for what must become a conflict."""

    async def is_there() -> bool:
        names = {name for change in await record(service, j) for name in change.get("data") or {}}
        return set(written) - {"w2"} <= names

    await eventually(is_there, seconds=30)


async def each_step(service: Harness, folder: Path, one_run: Any) -> int:
    """Go through the steps, some at a time, until a process has come to its end; how many it has."""
    steps, at = 0, 1
    while not steps:
        ended = await asyncio.gather(*(one_run(at + n) for n in range(AT_ONCE)))
        steps, at = max(ended), at + AT_ONCE
    return steps


async def test_p9_the_writing_process_is_killed_at_any_step(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    """The one that syncs goes on, and brings everything to the server that was acknowledged."""

    async def one_run(at: int) -> int:
        j, path = f"j{at}", tmp_path / f"{at}.db"
        await begun(service, j, path)
        syncing = await running.begin(path, url(service, j), ["start"], ["for ever"])
        writing = await running.begin(path, url(service, j), *WRITES, kill_at=at)

        await writing.ended()
        await has_synced(service, j, fields(writing))
        syncing.send(signal.SIGKILL)
        await syncing.ended()

        await see_that_all_is_well(service, j, path, fields(writing))
        return writing.steps

    assert await each_step(service, tmp_path, one_run) > 50


async def test_p9_the_syncing_process_is_killed_at_any_step(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    """The other, which writes meanwhile, takes its part."""

    async def one_run(at: int) -> int:
        j, path, sign = f"j{at}", tmp_path / f"{at}.db", tmp_path / f"{at}.ended"
        await begun(service, j, path)
        async with Replica.open(path, url(service, j), on_conflict="merge") as replica:
            await replica.collection("todo").update("a", {"w0": 1})
        syncing = await running.begin(path, url(service, j), ["sync"], kill_at=at)
        writing = await running.begin(path, url(service, j), *WRITES, ["wait", str(sign)], ["sync"])

        await syncing.ended()
        sign.touch()
        await writing.ended()

        await see_that_all_is_well(service, j, path, ["w0", *fields(writing)])
        return syncing.steps

    assert await each_step(service, tmp_path, one_run) > 50


@pytest.mark.parametrize("part", range(2))
async def test_p9_the_process_that_syncs_in_the_background_is_killed_at_any_step(
    service: Harness, running: Processes, tmp_path: Path, part: int
) -> None:
    """The other, which waits for its turn, takes the part over by itself."""

    async def one_run(at: int) -> None:
        j, path = f"j{at}", tmp_path / f"{at}.db"
        await begun(service, j, path)
        syncing = await running.begin(path, url(service, j), ["start"], ["for ever"], kill_at=at)
        await syncing.until("did" if at > 40 else "ended")
        writing = await running.begin(path, url(service, j), ["start"], *WRITES, ["for ever"])

        await syncing.ended()
        await has_synced(service, j, ["w1", "w3", "w4", "w5"])
        writing.send(signal.SIGKILL)
        await writing.ended()

        await see_that_all_is_well(service, j, path, fields(writing))

    for first in range(1 + part * 80, 81 + part * 80, AT_ONCE):
        await asyncio.gather(*(one_run(first + n) for n in range(AT_ONCE)))


async def test_a_sync_that_is_asked_of_another_process_is_answered_by_it(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    path = tmp_path / "two.db"
    await begun(service, "j", path)
    syncing = await running.begin(path, url(service), ["start"], ["for ever"])
    await syncing.until("did")

    asking = await running.begin(path, url(service), ["update", "a", "w1"], ["sync"])

    assert await asking.ended() == 0
    assert "w1" in {name for change in await record(service) for name in change.get("data") or {}}
    syncing.send(signal.SIGKILL)
    await syncing.ended()
    await see_that_all_is_well(service, "j", path, ["w1"])


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_sync_that_is_asked_of_a_process_that_stands_still_waits_for_it_or_for_its_end(
    service: Harness, running: Processes, tmp_path: Path, *, is_killed: bool
) -> None:
    """Two must never sync one file, and who was stopped may go on at any moment: its part is free when it has ended."""
    path = tmp_path / "two.db"
    await begun(service, "j", path)
    syncing = await running.begin(path, url(service), ["start"], ["for ever"])
    await syncing.until("did")

    async def is_following() -> bool:
        async with Replica.open(path, url(service)) as replica:
            return (await in_base(replica)).keys() == {("todo", "a"), ("todo", "d")}

    await eventually(is_following)
    syncing.send(signal.SIGSTOP)
    asking = await running.begin(path, url(service), ["update", "a", "w1"], ["sync"])
    await asking.until("did")
    async with Replica.open(path, url(service)) as replica:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(replica.sync(), 0.5)
        assert asking.did == [[0, "update", "a", "w1"]]
        assert (await replica.status()).pending == 1
    syncing.send(signal.SIGKILL if is_killed else signal.SIGCONT)

    assert await asking.ended() == 0
    if not is_killed:
        syncing.send(signal.SIGKILL)
    await syncing.ended()
    await see_that_all_is_well(service, "j", path, ["w1"])


async def test_both_write_at_once_and_nothing_is_lost(service: Harness, running: Processes, tmp_path: Path) -> None:
    path = tmp_path / "two.db"
    await begun(service, "j", path)

    jobs = [
        await running.begin(path, url(service), ["start"], ["write", prefix, 60], ["sync"], ["for ever"])
        for prefix in ("p", "q")
    ]
    for job in jobs:
        await eventually(lambda job=job: _is(len(job.did) == 3), seconds=60)  # type: ignore[misc]
        job.send(signal.SIGKILL)
        await job.ended()

    written = [f"{prefix}_{n}" for prefix in ("p", "q") for n in range(60)]
    await see_that_all_is_well(service, "j", path, written)


async def test_who_follows_in_one_process_is_told_what_another_writes(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    path = tmp_path / "two.db"
    await begun(service, "j", path)

    async with Replica.open(path, url(service)) as replica:
        told: Any = replica.follow("todo")
        looking = asyncio.ensure_future(anext(told))
        writing = await running.begin(path, url(service), ["wait", str(tmp_path / "go")], ["update", "new", "w1"])
        first = await looking  # what was pulled
        (tmp_path / "go").touch()
        found = [first]
        while found[-1].atom != "new":
            found.append(await anext(told))
        await told.aclose()
    await writing.ended()

    assert found[-1].data == {"w1": 1}
    await see_that_all_is_well(service, "j", path, ["w1"])


async def test_while_one_holds_a_transaction_open_the_other_reads_and_waits_to_write(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    path, go, is_open = tmp_path / "two.db", tmp_path / "go", tmp_path / "open"
    await begun(service, "j", path)
    holding = await running.begin(path, url(service), ["hold", "a", "w1", str(is_open), str(go)])
    await eventually(lambda: _is(is_open.exists()))
    writing = await running.begin(path, url(service), ["update", "d", "w2b"], ["sync"])

    async with contextlib.AsyncExitStack() as stack:
        replica = Replica.open(path, url(service))
        opening = asyncio.ensure_future(stack.enter_async_context(replica))
        await asyncio.wait([opening], timeout=0.5)
        assert (holding.did, writing.did) == ([], [])
        go.touch()
        await opening
        await holding.ended()
        await writing.ended()

    await see_that_all_is_well(service, "j", path, ["w1", "w2b"])


async def _is(fact: bool) -> bool:
    return fact


async def test_a_process_verifies_while_another_syncs_in_the_background(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    """The one that syncs has its part for as long as it lives: verify waited for it to end."""
    path = tmp_path / "two.db"
    await begun(service, "j", path)
    syncing = await running.begin(path, url(service), ["start"], ["for ever"])
    await syncing.until("did")

    verifying = await running.begin(path, url(service), ["verify"])
    assert await verifying.ended() == 0
    writing = await running.begin(path, url(service), ["update", "a", "w1"])
    await writing.ended()
    await has_synced(service, "j", ["w1"])

    syncing.send(signal.SIGKILL)
    await syncing.ended()
    await see_that_all_is_well(service, "j", path, ["w1"])


async def test_p9_a_process_that_makes_the_file_is_killed_at_any_step(
    service: Harness, running: Processes, tmp_path: Path
) -> None:
    """What was acknowledged is in the file, which is either whole or made anew by the next."""

    async def one_run(at: int) -> int:
        j, path = f"j{at}", tmp_path / f"{at}.db"
        await service.create(j)
        making = await running.begin(path, url(service, j), ["update", "a", "w1"], kill_at=at)
        await making.ended()

        await see_that_all_is_well(service, j, path, fields(making))
        return making.steps

    assert await each_step(service, tmp_path, one_run) > 40
