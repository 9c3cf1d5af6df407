"""P6 and P9: a copied or restored file takes a new id and is compared; the original goes on under its own.

Files are copied, restored and left by killed processes as it happens to applications: with what SQLite and the replica
keep beside them, and without.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journal.client import Busy, Replica
from journal.client.incarnation import Left, _identity
from tests.harness import Harness
from tests.replica.facts import at_server, fates, record, see_that_it_is_the_servers

Copy = Callable[[Path, Path], Any]


def alone(original: Path, copy: Path) -> None:
    """The database only, as one that is copied while it is closed."""
    shutil.copy2(original, copy)


def with_all_beside(original: Path, copy: Path) -> None:
    """Everything whose name begins so, under the new name."""
    for path in original.parent.glob(f"{original.name}*"):
        shutil.copy2(path, copy.with_name(path.name.replace(original.name, copy.name)))


def by_backup(original: Path, copy: Path) -> None:
    """As SQLite does it, into a new file."""
    with closing(sqlite3.connect(original)) as db, closing(sqlite3.connect(copy)) as into:
        db.backup(into)


COPIES: dict[str, Copy] = {"alone": alone, "with all beside": with_all_beside, "by backup": by_backup}


@asynccontextmanager
async def opened(service: Harness, path: Path) -> AsyncIterator[Replica]:
    """A replica, which is closed as it should be."""
    async with Replica.open(path, f"{service.url}/v1/journals/j", on_conflict="merge") as replica:
        yield replica


@asynccontextmanager
async def left(service: Harness, path: Path) -> AsyncIterator[Replica]:
    """A replica whose process is killed at the end: nothing is closed or renewed."""
    replica = await Replica.open(path, f"{service.url}/v1/journals/j", on_conflict="merge").__aenter__()
    yield replica
    for connection in (replica._writer, replica._reader, replica._engine):
        await connection.close()
    assert replica._open is not None
    stack, replica._open = replica._open, None
    await stack.aclose()


async def name(replica: Replica) -> str:
    """The id that it syncs under."""
    return (await replica.status()).client


async def see_that_all_is_well(service: Harness, written: list[str], *replicas: Replica) -> None:
    """Everybody has the server's data, and all that was written is there once or kept by somebody."""
    for replica in replicas:
        await replica.sync()
    for replica in replicas:
        await replica.sync()
        await see_that_it_is_the_servers(replica, service)
    recorded, kept = await fates(service, *replicas)
    assert {
        name: recorded[name] for name in written if recorded[name] != 1 and (recorded[name] or name not in kept)
    } == {}
    assert len({await name(replica) for replica in replicas}) == len(replicas)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("folder", [".", "elsewhere"])
async def test_p6_a_copy_takes_a_new_id_and_what_waits_in_both_is_recorded_once(
    service: Harness, tmp_path: Path, how: str, folder: str
) -> None:
    path, copy = tmp_path / "phone.db", tmp_path / folder / "copy.db"
    copy.parent.mkdir(exist_ok=True)
    async with opened(service, path) as replica:
        await replica.collection("todo").insert("a", {"n": 1})
        await replica.sync()
        before = await name(replica)
        await replica.collection("todo").update("a", {"w0": 1})
        await replica.collection("todo").insert("b", {"w1": 1})
    COPIES[how](path, copy)

    async with opened(service, path) as one, opened(service, copy) as other:
        await one.collection("todo").update("a", {"w2": 1})
        await other.collection("todo").update("b", {"w3": 1})
        await one.sync()
        await other.sync()

        assert await name(one) == before
        assert await name(other) != before
        await see_that_all_is_well(service, ["w0", "w1", "w2", "w3"], one, other)


@pytest.mark.parametrize("how", COPIES)
async def test_p6_a_copy_with_a_push_under_way_sends_it_under_the_number_that_it_had(
    service: Harness, tmp_path: Path, how: str
) -> None:
    """It was numbered before it was copied: whoever of the two sends it first, it is recorded once."""
    path, copy = tmp_path / "phone.db", tmp_path / "copy.db"
    async with opened(service, path) as replica:
        await replica.sync()
        await replica.collection("todo").insert("a", {"w0": 1})
        assert await replica._syncing.pushing.next() is not None
    COPIES[how](path, copy)

    async with opened(service, copy) as other, opened(service, path) as one:
        await other.collection("todo").insert("b", {"w1": 1})
        await other.sync()
        await one.collection("todo").insert("c", {"w2": 1})
        await one.sync()

        await see_that_all_is_well(service, ["w0", "w1", "w2"], one, other)
        assert len(await record(service)) == 3


async def test_p6_a_copy_that_is_made_while_the_original_is_open_and_writes_is_another(
    service: Harness, tmp_path: Path
) -> None:
    """By SQLite's own backup, which is how an open file is copied."""
    path, copy = tmp_path / "phone.db", tmp_path / "copy.db"
    async with opened(service, path) as one:
        await one.start()
        for n in range(10):
            await one.collection("todo").insert(f"{n}", {f"w{n}": 1})
            if n == 5:
                by_backup(path, copy)
        await one.stop()

        async with opened(service, copy) as other:
            assert await name(other) != await name(one)
            await see_that_all_is_well(service, [f"w{n}" for n in range(10)], one, other)


async def test_p6_a_folder_that_was_copied_whole_is_another(service: Harness, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    async with opened(service, here / "phone.db") as one:
        await one.collection("todo").insert("a", {"w0": 1})
        shutil.copytree(here, there, copy_function=shutil.copy2)

        async with opened(service, there / "phone.db") as other:
            await other.collection("todo").put("b", {"w1": 1})
            await see_that_all_is_well(service, ["w0", "w1"], one, other)


async def test_p6_a_folder_that_was_moved_whole_is_the_same(service: Harness, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    async with opened(service, here / "phone.db") as replica:
        before = await name(replica)
    here.rename(there)

    async with opened(service, there / "phone.db") as replica:
        assert await name(replica) == before


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("way", ["copied", "renamed", "by backup"])
async def test_p6_an_older_backup_in_its_place_takes_a_new_id_and_finds_what_it_lost(
    service: Harness, tmp_path: Path, way: str, *, is_killed: bool
) -> None:
    """`is_killed`: nobody closed the file after the backup, so that the same nonce may be in both."""
    path, backup = tmp_path / "phone.db", tmp_path / "backup.db"
    async with (left if is_killed else opened)(service, path) as replica:
        await replica.collection("todo").insert("a", {"n": 1})
        await replica.sync()
        before = await name(replica)
        by_backup(path, backup)
        for n in range(3):
            await replica.collection("todo").update("a", {f"w{n}": 1})
            await replica.sync()
    _restore(backup, path, way)

    async with opened(service, path) as replica:
        await replica.collection("todo").update("a", {"w1": 1})
        await replica.collection("todo").insert("b", {"w3": 1})
        await replica.sync()

        assert await name(replica) != before
        assert (await at_server(service))["todo", "a"][1] == {"n": 1, "w0": 1, "w1": 1, "w2": 1}
        await see_that_all_is_well(service, ["w0", "w1", "w2", "w3"], replica)


async def test_p9_a_disk_that_was_rolled_back_is_noticed_by_its_numbers(service: Harness, tmp_path: Path) -> None:
    """As a virtual machine's snapshot does it: the same files, with all that is beside them, as they were."""
    path = tmp_path / "phone.db"
    async with opened(service, path) as replica:
        await replica.collection("todo").insert("a", {"n": 1})
        await replica.sync()
        before = await name(replica)
    was = path.read_bytes()
    nonce = path.with_name(path.name + "-incarnation")
    beside = nonce.read_bytes()
    async with opened(service, path) as replica:
        await replica.collection("todo").update("a", {"n": 2})
        await replica.sync()
        await replica.collection("todo").update("a", {"n": 3})
        await replica.sync()
    with path.open("r+b") as writing:
        writing.truncate()
        writing.write(was)
    _put_back(nonce, beside)

    async with opened(service, path) as replica:
        await replica.collection("todo").update("a", {"n": 2})
        await replica.sync()

        [kept] = await replica.conflicts()
        assert (kept.mine, kept.theirs) == ({"n": 2}, {"n": 3})
        assert await name(replica) != before
        await see_that_it_is_the_servers(replica, service)


async def test_the_same_file_by_a_link_to_it_is_synced_by_one_at_a_time(service: Harness, tmp_path: Path) -> None:
    """Each had a lock of its own, by the name that it was opened with."""
    path, link = tmp_path / "phone.db", tmp_path / "link.db"
    async with opened(service, path) as one:
        link.symlink_to(path)
        async with opened(service, link) as other:
            assert await name(one) == await name(other)

            assert one._role.take()
            assert not other._role.take()
            one._role.leave()


async def test_a_new_file_is_opened_by_many_at_once(service: Harness, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for n in range(10):
            replicas = await asyncio.gather(
                *(stack.enter_async_context(opened(service, tmp_path / f"{n}.db")) for _ in range(6))
            )
            assert len({await name(replica) for replica in replicas}) == 1


async def test_closing_a_file_that_somebody_else_holds_closes_it_all_the_same(
    service: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be renewed, and was left open with its threads and connections."""
    monkeypatch.setattr("journal.client.connection.BUSY_S", 0.1)
    async with opened(service, tmp_path / "phone.db") as replica:
        with closing(sqlite3.connect(tmp_path / "phone.db", isolation_level=None)) as other:
            other.execute("begin immediate")
            with pytest.raises(Busy):
                await replica.close()

        with pytest.raises(RuntimeError, match="shutdown"):
            await replica.status()


def _put_back(path: Path, content: bytes) -> None:
    """The content of a file as it was, and the file itself the same: what lies beside says which it is."""
    path.write_bytes(content)
    was = msgspec.json.decode(content, type=Left)
    path.write_bytes(msgspec.json.encode(Left(was.nonces, was.database, _identity(path))))


def _restore(backup: Path, path: Path, way: str) -> None:
    if way == "by backup":
        by_backup(backup, path)
        return
    for beside in ("-wal", "-shm"):  # as every guide to SQLite's backups says
        path.with_name(path.name + beside).unlink(missing_ok=True)
    if way == "copied":
        shutil.copyfile(backup, path)
    else:
        backup.rename(path)
