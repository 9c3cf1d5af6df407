"""No room in the spool: what needs it is told 503, what does not goes on, and all is well once there is room."""

import json
import os
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.fault.had import had
from tests.fault.places import MIB, SmallDisk, small_disk
from tests.fault.served import Served, served
from tests.harness import Json, Reply

LARGE = 300
SIZE = 8_000
ALL = {"Accept-Encoding": "identity"}
NEEDING_ROOM = {
    "deltas of rows": ("j/deltas?since=0&include=meta", {}),
    "deltas in lines": ("j/deltas?since=0&include=meta", {"Accept": "application/x-ndjson"}),
    "deltas in MessagePack": ("j/deltas?since=0&include=meta", {"Accept": "application/msgpack"}),
    "deltas to a fixed end": (f"j/deltas?since=0&until={LARGE}", {}),
    "the record": ("j/changes?since=0", {}),
    "a new snapshot": ("j/snapshot?collections=todo", {}),
    "a digest": ("j/digest", {}),
    "a manifest": ("j/manifest?of=content", {}),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """What the spool is on."""
    with had(small_disk(tmp_path / "data", 32 * MIB)) as made:
        yield made


@pytest.fixture
async def service(database: str, tmp_path: Path, disk: SmallDisk) -> AsyncIterator[Served]:
    """A service whose spool is on that disk, with more in a journal than fits into its memory."""
    async with served(database, tmp_path / "data", before=disk.before) as running:
        await call(running, "PUT", "j")
        random.seed(1)
        for start in range(0, LARGE, 50):
            atoms = range(start, start + 50)
            changes = [{"op": "insert", "collection": "todo", "atom": f"{n}", "data": {"pad": pad()}} for n in atoms]
            assert (await push(running, changes)).status == 200
        yield running
        assert running.complaints() == []


def pad() -> str:
    """What cannot be made smaller."""
    return b64encode(random.randbytes(SIZE * 3 // 4)).decode()


async def call(service: Served, method: str, path: str, **arguments: object) -> Reply:
    """A request, whose answer comes whole."""
    url = service.url + (path if path.startswith("/") else f"/v1/journals/{path}")
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, url, allow_redirects=False, **arguments) as response,  # type: ignore[arg-type]
    ):
        return Reply(response.status, response.headers.copy(), await response.read())


async def push(service: Served, changes: list[Json]) -> Reply:
    return await call(service, "POST", "j/changes", json={"changes": changes})


async def asked(service: Served) -> dict[str, Reply]:
    """For everything that needs room."""
    return {name: await call(service, "GET", path, headers=ALL | more) for name, (path, more) in NEEDING_ROOM.items()}


def is_unavailable(reply: Reply) -> bool:
    return reply.status == 503 and reply.json["code"] == "unavailable" and int(reply.headers["Retry-After"]) > 0


async def test_what_needs_room_is_told_to_come_back_and_is_whole_when_there_is_some(
    service: Served, disk: SmallDisk
) -> None:
    disk.fill()
    refused = {
        name: await call(service, "GET", path, headers=ALL | more) for name, (path, more) in NEEDING_ROOM.items()
    }
    disk.clear()
    answered = {
        name: await call(service, "GET", path, headers=ALL | more) for name, (path, more) in NEEDING_ROOM.items()
    }

    assert {
        name: (reply.status, reply.body[:300]) for name, reply in refused.items() if not is_unavailable(reply)
    } == {}
    assert all("disk" in reply.json["detail"] for reply in refused.values()), [r.json for r in refused.values()]
    assert {name: reply.status for name, reply in answered.items() if reply.status not in (200, 303)} == {}
    assert len(answered["deltas of rows"].json["deltas"]) == LARGE
    assert sum(len(commit["changes"]) for commit in answered["the record"].json["commits"]) == LARGE


async def test_what_needs_no_room_goes_on_without_it(service: Served, disk: SmallDisk) -> None:
    disk.fill()

    cursor = (await call(service, "GET", "j")).json["cursor"]
    pushed = await push(service, [{"op": "insert", "collection": "todo", "atom": "new", "data": {}}])
    deltas = await call(service, "GET", f"j/deltas?since={cursor}&include=meta")
    atom = await call(service, "GET", "j/atom?collection=todo&atom=new")

    assert [reply.status for reply in (pushed, deltas, atom)] == [200] * 3
    assert [delta["atom"] for delta in deltas.json["deltas"]] == ["new"]


async def test_p7_a_snapshot_that_is_there_is_read_on_and_its_other_codings_wait_for_room(
    service: Served, disk: SmallDisk
) -> None:
    where = (await call(service, "GET", "j/snapshot")).headers["Location"]
    disk.fill()

    packed = await call(service, "GET", where, headers={"Accept-Encoding": "zstd"})
    refused = [await call(service, "GET", where, headers={"Accept-Encoding": name}) for name in ("gzip", "identity")]
    disk.clear()
    plain = await call(service, "GET", where, headers=ALL)

    assert packed.status == 200
    assert all(is_unavailable(reply) for reply in refused), [reply.body[:300] for reply in refused]
    lines = [json.loads(line) for line in plain.body.splitlines()]
    assert (plain.status, lines[-1]["end"], lines[-1]["atoms"]) == (200, True, LARGE)
    assert not [name for name in os.listdir(disk.seen / "spool" / "snapshots" / "j") if name.endswith(".part")]
