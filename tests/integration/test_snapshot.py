"""Section 6: the whole state at one revision, as a file that many share (P7)."""

import asyncio
import contextlib
import gzip
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import zstandard

from journal.config import Snapshots
from tests.harness import Harness, Json, Reply, blocked_on_lock, delete, eventually, insert, put, serving, update
from tests.oracle import Held, State, apply, comparable_state, digest

CODINGS = ("identity", "gzip", "zstd")


async def pushed(service: Harness, *changes: Json) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client")
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def location(service: Harness, **parameters: str) -> str:
    """Where the snapshot is."""
    reply = await service.call("GET", "j/snapshot", params=parameters)
    assert reply.status == 303, reply.body
    told: str = reply.headers["Location"]
    return told


async def fetch(service: Harness, path: str, coding: str = "identity", method: str = "GET", **headers: str) -> Reply:
    """The file as it is sent, not decompressed."""
    told = {"Accept-Encoding": coding} | headers
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, service.url + path, headers=told) as response,
    ):
        return Reply(response.status, response.headers.copy(), await response.read())


def plain(body: bytes, coding: str) -> bytes:
    """A file without its coding; of one that is cut off what there is."""
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    if coding == "gzip":
        return gzip.decompress(body)
    return body


def state_of(lines: list[Json]) -> State:
    return {(line["collection"], line["atom"]): Held(line["data"], line["revision"]) for line in lines}


def files(service: Harness) -> list[Path]:
    """The snapshots that are kept."""
    return sorted(service.service.snapshots.folder.glob("j/*.zst"))


@pytest.fixture
async def large(service: Harness) -> Harness:
    """The service with a snapshot of some 100 KB."""
    for start in range(0, 1000, 500):
        await pushed(service, *(insert("todo", f"{n}", {"text": f"{n} " * 20}) for n in range(start, start + 500)))
    return service


# P7.


async def test_p7_a_snapshot_is_the_state_at_its_revision_and_deltas_go_on_from_it(service: Harness) -> None:
    await pushed(
        service, insert("todo", "a", {"x": 1, "y": [None, 1e300]}), insert("todo", "b"), insert("n", "é\u2028")
    )
    await pushed(service, update("todo", "a", {"x": 2}, unset=["y"]), delete("todo", "b"))
    cursor = await pushed(service, insert("todo", "c", {}))

    first, *lines, last = await service.snapshot()
    await pushed(service, put("todo", "a", {"z": 1}), insert("todo", "b", {"again": True}), delete("todo", "c"))
    replica = state_of(lines)
    held = dict(replica)
    deltas, end = await service.round(first["cursor"])
    apply(replica, deltas)

    assert first == {"epoch": cursor.split(":")[0], "revision": 6, "cursor": cursor, "atoms": 3}
    assert comparable_state(held) == comparable_state(
        {("todo", "a"): Held({"x": 2}, 4), ("n", "é\u2028"): Held({"n": 1}, 3), ("todo", "c"): Held({}, 6)}
    )
    assert last == {"end": True, "atoms": 3, "digest": digest(held)}
    assert end["digest"] == digest(replica)


async def test_p7_a_snapshot_of_an_empty_journal_is_whole_too(service: Harness) -> None:
    first, last = await service.snapshot()

    assert first["cursor"] == (await service.head())["cursor"]
    assert last == {"end": True, "atoms": 0, "digest": "0" * 16}


async def test_p7_a_snapshot_of_some_collections_has_their_cursor_and_digest(service: Harness) -> None:
    await pushed(service, insert("a", "1"), insert("b", "1"), insert("c", "1"))

    first, *lines, last = await service.snapshot(collections="c,a")
    everything = await service.snapshot()

    assert {line["collection"] for line in lines} == {"a", "c"}
    assert first["cursor"].endswith(":collections=a,c")
    assert last == {"end": True, "atoms": 2, "digest": digest(state_of(lines))}
    assert (await service.deltas(first["cursor"], collections="a,c")).json["deltas"] == []
    assert len(everything) == 5


@pytest.mark.parametrize("coding", CODINGS)
async def test_p7_a_snapshot_that_was_cut_off_cannot_be_mistaken_for_a_whole_one(large: Harness, coding: str) -> None:
    path = await location(large)
    whole = (await fetch(large, path, coding)).body

    for size in {0, 1, 100, len(whole) // 2, len(whole) - 100, len(whole) - 20, len(whole) - 2}:
        part = whole[:size]
        if coding == "gzip":
            with pytest.raises((EOFError, OSError)):
                gzip.decompress(part or b"\x1f\x8b\x08")
            continue
        text = plain(part, coding)
        is_ended = text.endswith(b"\n") and text.splitlines()[-1].startswith(b'{"end":true')

        assert is_ended is (text == plain(whole, coding))  # zstd's last bytes are a checksum: nothing else is missing


async def test_p7_lines_are_lines_whatever_the_data(service: Harness) -> None:
    data = {"a\nb": "\n\r\t\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", '"': "\\n", "\\.": "\\."}
    await pushed(
        service, insert("\u2028", '\u2029 ,"\\.', data), insert("x", "\\.", {}), insert("x", "\\N", {"": None})
    )

    first, *lines, _ = await service.snapshot()

    assert first["atoms"] == len(lines) == 3
    assert state_of(lines)["\u2028", '\u2029 ,"\\.'].data == data


# Served as a file.


async def test_every_coding_is_a_file_of_its_own_with_the_same_lines(large: Harness) -> None:
    path = await location(large)

    replies = {coding: await fetch(large, path, coding) for coding in CODINGS}

    assert {coding: reply.headers.get("Content-Encoding") for coding, reply in replies.items()} == {
        "identity": None, "gzip": "gzip", "zstd": "zstd",
    }  # fmt: skip
    assert len({plain(reply.body, coding) for coding, reply in replies.items()}) == 1
    assert len({reply.headers["ETag"] for reply in replies.values()}) == 3
    for reply in replies.values():
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        assert reply.headers["Content-Length"] == str(len(reply.body))
        assert reply.headers["Accept-Ranges"] == "bytes"
        assert reply.headers["Vary"] == "Accept, Accept-Encoding, Authorization"
        assert not reply.headers["ETag"].startswith("W/")


@pytest.mark.parametrize("coding", CODINGS)
async def test_head_tells_size_and_revision(large: Harness, coding: str) -> None:
    path = await location(large)

    told = await fetch(large, path, coding, "HEAD")
    ranged = await fetch(large, path, coding, "HEAD", Range="bytes=0-9")
    whole = await fetch(large, path, coding)

    assert (told.status, told.body) == (200, b"")
    assert told.headers["Content-Length"] == str(len(whole.body))
    assert told.headers["Journal-Revision"] == "1000"
    assert told.headers["ETag"] == whole.headers["ETag"]
    assert (ranged.status, ranged.headers["Content-Length"]) == (200, str(len(whole.body)))


@pytest.mark.parametrize("coding", CODINGS)
async def test_who_has_a_snapshot_is_told_so(large: Harness, coding: str) -> None:
    path = await location(large)
    tag = (await fetch(large, path, coding)).headers["ETag"]

    same = await fetch(large, path, coding, **{"If-None-Match": tag})
    other = await fetch(large, path, "zstd" if coding != "zstd" else "gzip", **{"If-None-Match": tag})

    assert (same.status, same.body, other.status) == (304, b"", 200)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_download_that_broke_off_goes_on(large: Harness, coding: str) -> None:
    path = await location(large)
    whole = await fetch(large, path, coding)
    size, tag = len(whole.body), whole.headers["ETag"]
    middle = size // 3

    begun = await fetch(large, path, coding, Range=f"bytes=0-{middle - 1}")
    rest = await fetch(large, path, coding, Range=f"bytes={middle}-", **{"If-Range": tag})

    assert [begun.status, rest.status] == [206, 206]
    assert begun.headers["Content-Range"] == f"bytes 0-{middle - 1}/{size}"
    assert rest.headers["Content-Range"] == f"bytes {middle}-{size - 1}/{size}"
    assert begun.headers["ETag"] == rest.headers["ETag"] == tag
    assert begun.body + rest.body == whole.body


async def test_a_range_of_other_bytes_is_answered_with_the_whole(large: Harness) -> None:
    path = await location(large)
    whole = await fetch(large, path)
    gzipped = (await fetch(large, path, "gzip")).headers["ETag"]

    for wrong in ('"other"', gzipped, f"W/{whole.headers['ETag']}", "Sat, 21 Nov 2026 09:00:00 GMT"):
        reply = await fetch(large, path, Range="bytes=10-", **{"If-Range": wrong})

        assert (reply.status, reply.body) == (200, whole.body)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=10-999999999", slice(10, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=-999999999", slice(None)),
    ],
)
async def test_any_one_range_can_be_had(large: Harness, asked: str, expected: slice) -> None:
    path = await location(large)
    whole = (await fetch(large, path)).body

    reply = await fetch(large, path, Range=asked)

    assert (reply.status, reply.body) == (206, whole[expected])


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=0-1", "bytes", "bytes=a-b", "", "bytes=0"])
async def test_what_is_no_single_range_is_answered_with_the_whole(large: Harness, asked: str) -> None:
    path = await location(large)

    reply = await fetch(large, path, Range=asked)

    assert reply.status == 200
    assert "Content-Range" not in reply.headers


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0", "bytes=99999999-999999999"])
async def test_a_range_outside_of_it_is_416(large: Harness, asked: str) -> None:
    path = await location(large)
    size = len((await fetch(large, path)).body)

    reply = await fetch(large, path, Range=asked)

    assert (reply.status, json.loads(reply.body)["code"]) == (416, "range_not_satisfiable")
    assert reply.headers["Content-Range"] == f"bytes */{size}"


async def test_one_tag_is_of_one_file_also_where_two_processes_made_it(large: Harness, tmp_path: Path) -> None:
    """Rows lie otherwise by then: who went on at the other process got the one's beginning and the other's end."""
    path = await location(large)
    async with serving(large.dsn, tmp_path) as second:
        await large.query("update journal.atom set born_by = born_by where revision % 2 = 0")
        assert await location(second) == path

        for coding in CODINGS:
            one, other = [await fetch(server, path, coding) for server in (large, second)]

            assert one.body != other.body
            assert one.headers["ETag"] != other.headers["ETag"]


async def test_one_tag_is_of_one_file_also_where_it_was_made_again(large: Harness) -> None:
    path = await location(large)
    before = {coding: await fetch(large, path, coding) for coding in CODINGS}
    for file in large.service.snapshots.folder.glob("j/*"):
        file.unlink()
    await large.query("update journal.atom set born_by = born_by where revision % 2 = 0")

    assert await location(large) == path
    for coding in CODINGS:
        after = await fetch(large, path, coding)

        assert after.body != before[coding].body
        assert after.headers["ETag"] != before[coding].headers["ETag"]


async def test_a_tag_stays_for_as_long_as_the_file_does(large: Harness) -> None:
    path = await location(large)

    tags = {(await fetch(large, path, "gzip")).headers["ETag"] for _ in range(5)}

    assert len(tags) == 1


# Made once, shared, and not for longer than it may be.


async def test_trap_10_who_asks_at_once_shares_one(large: Harness) -> None:
    lock = await asyncpg.connect(large.dsn)
    try:
        await lock.execute("begin; lock table journal.atom in access exclusive mode")

        asking = [asyncio.create_task(location(large)) for _ in range(8)]
        await blocked_on_lock(large.dsn)
        await large.head()
        [waiting] = await lock.fetch("select count(*) as n from pg_stat_activity where wait_event_type = 'Lock'")
        await lock.execute("rollback")
        found = await asyncio.gather(*asking)
    finally:
        await lock.close()

    assert waiting["n"] == 1
    assert len(set(found)) == 1
    assert len(files(large)) == 1


async def test_trap_10_who_asks_and_leaves_does_not_take_it_from_the_others(large: Harness) -> None:
    lock = await asyncpg.connect(large.dsn)
    try:
        await lock.execute("begin; lock table journal.atom in access exclusive mode")
        leaving, staying = [asyncio.create_task(location(large)) for _ in range(2)]
        await blocked_on_lock(large.dsn)

        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await lock.execute("rollback")
        found = await staying
    finally:
        await lock.close()

    assert (await fetch(large, found)).status == 200


async def served(database: str, tmp_path: Path, **settings: Any) -> AsyncIterator[Harness]:
    async with serving(database, tmp_path, snapshots=Snapshots(**settings)) as running:
        await running.create("j")
        await pushed(running, insert("todo", "a"))
        yield running


@pytest.mark.parametrize(
    ("settings", "is_reused"),
    [
        ({}, True),
        ({"behind_revisions": 2}, True),
        ({"behind_revisions": 1}, False),
        ({"behind_s": 0.0}, False),
    ],
)
async def test_a_snapshot_is_reused_while_the_head_has_not_moved_far(
    database: str, tmp_path: Path, settings: Json, is_reused: bool
) -> None:
    async for service in served(database, tmp_path, **settings):
        before = await location(service)
        still = await location(service)
        await pushed(service, insert("todo", "b"), insert("todo", "c"))
        after = await location(service)

        assert still == before
        assert (after == before) is is_reused
        assert f"-{1 if is_reused else 3}-" in after


async def test_an_old_snapshot_is_as_good_as_new_where_the_head_has_not_moved(database: str, tmp_path: Path) -> None:
    async for service in served(database, tmp_path, behind_s=0.0, behind_revisions=0):
        before = await location(service)

        after = await location(service)

        assert after == before
        assert len(files(service)) == 1


async def test_processes_that_share_a_folder_share_snapshots(large: Harness, tmp_path: Path) -> None:
    path = await location(large)

    async with serving(large.dsn, tmp_path, spool=large.service.settings.spool) as second:
        found = await location(second)
        one, other = [await fetch(server, path, "gzip") for server in (large, second)]

    assert found == path
    assert (one.headers["ETag"], one.body) == (other.headers["ETag"], other.body)
    assert len(files(large)) == 1


async def test_a_snapshot_below_the_horizon_is_not_reused(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    before = await location(service)
    await pushed(service, insert("todo", "b"))
    await service.query("update journal.head set horizon = 2, turn = turn + 1")
    await service.query("select pg_notify('journal', journal_id || ':' || turn) from journal.head")

    async def is_known() -> bool:
        return bool((await service.head())["horizon"] == 2)

    await eventually(is_known)
    after = await location(service)

    assert ("-1-" in before, "-2-" in after) == (True, True)


async def test_what_nobody_read_for_an_hour_is_removed_and_what_was_read_is_not(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    path = await location(service)
    await fetch(service, path, "gzip")
    await fetch(service, path, "identity")
    [file] = files(service)
    part = file.with_suffix(".part")
    part.touch()
    hours_ago = time.time() - 7200

    os.utime(file, (hours_ago, hours_ago))
    await fetch(service, path)
    service.service.snapshots.clean()
    kept = files(service)
    os.utime(file, (hours_ago, hours_ago))
    os.utime(part, (hours_ago, hours_ago))
    service.service.snapshots.clean()

    assert kept == [file]
    assert list(file.parent.iterdir()) == []
    assert (await fetch(service, path)).status == 404


# Of another past.


@pytest.mark.parametrize(
    "other",
    [
        lambda epoch, revision, chain, scope: (epoch, revision, "0123456789abcdef", scope),
        lambda epoch, revision, chain, scope: ("0123456789ab", revision, chain, scope),
        lambda epoch, revision, chain, scope: (epoch, "1", chain, scope),
        lambda epoch, revision, chain, scope: (epoch, "99", chain, scope),
    ],
)
async def test_trap_7_a_snapshot_of_another_past_is_neither_served_nor_kept(service: Harness, other: Any) -> None:
    await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))
    path = await location(service)
    [file] = files(service)
    name = "-".join(other(*path.rpartition("/")[2].split("-")))
    wrong = file.with_name(f"{name}.ndjson.zst")
    file.rename(wrong)

    replies = [await fetch(service, f"/v1/journals/j/snapshots/{name}", coding) for coding in CODINGS]
    found = await location(service)

    assert [reply.status for reply in replies] == [404] * 3
    assert found == path
    assert files(service) == [file]


async def test_trap_7_a_snapshot_of_another_past_is_not_told_as_the_current_one(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    path = await location(service)
    [file] = files(service)
    epoch, revision, _, scope = path.rpartition("/")[2].split("-")
    file.rename(file.with_name(f"{epoch}-{revision}-0123456789abcdef-{scope}.ndjson.zst"))

    found = await location(service)

    assert found == path
    assert files(service) == [file]
    assert (await fetch(service, found)).status == 200


async def test_a_snapshot_of_another_journal_is_not_this_ones(service: Harness) -> None:
    await service.create("k")
    await pushed(service, insert("todo", "a"))
    name = (await location(service)).rpartition("/")[2]

    reply = await fetch(service, f"/v1/journals/k/snapshots/{name}")

    assert reply.status == 404


@pytest.mark.parametrize(
    "name", ["x", "..", "..%2F..%2Fetc", "0123456789ab-1-0123456789abcdef-0000000000000000", "%00"]
)
async def test_what_is_no_snapshot_is_not_found(service: Harness, name: str) -> None:
    reply = await service.call("GET", f"j/snapshots/{name}")

    assert reply.status == 404


@pytest.mark.parametrize("query", ["collections=", "collections=a,,b", "since=0"])
async def test_a_slip_is_told(service: Harness, query: str) -> None:
    reply = await service.call("GET", f"j/snapshot?{query}")

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


async def test_where_the_snapshot_is_is_not_kept(service: Harness) -> None:
    told, bodiless = await service.call("GET", "j/snapshot"), await service.call("HEAD", "j/snapshot")

    assert told.headers["Cache-Control"] == "no-store"
    assert told.headers["Location"].startswith("/v1/journals/j/snapshots/")
    assert (bodiless.status, bodiless.headers["Location"]) == (303, told.headers["Location"])


# Storms.


async def test_trap_10_readers_beyond_what_is_admitted_are_told_to_come_later_and_nobody_else_is(
    database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, snapshots=Snapshots(read_at_once=3)) as running:
        await running.create("j")
        for n in range(10):  # 8 MB: no socket buffers that much
            noise = [insert("todo", f"{n}-{m}", {"x": token_hex(40_000)}) for m in range(10)]
            cursor = await pushed(running, *noise)
        found = await location(running)
        url = urlsplit(running.url)
        with contextlib.ExitStack() as opened:
            for _ in range(3):
                reader = opened.enter_context(socket.create_connection((url.hostname, url.port), timeout=30))
                reader.sendall(f"GET {found} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert (await asyncio.to_thread(reader.recv, 12)) == b"HTTP/1.1 200"

            late = await running.call("GET", found)
            deltas, push = await running.deltas(cursor), await running.push([insert("todo", "while they read")])
            again = await location(running)

        assert (late.status, late.json["code"]) == (503, "unavailable")
        assert 2 <= int(late.headers["Retry-After"]) <= 15
        assert (deltas.status, push.status, again[:8]) == (200, 200, found[:8])

        async def is_admitted() -> bool:
            return (await running.call("GET", found)).status == 200

        await eventually(is_admitted)


async def test_trap_10_those_who_wait_for_one_to_be_made_are_bounded_too(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, snapshots=Snapshots(waiting_at_once=2)) as running:
        await running.create("j")
        await pushed(running, insert("todo", "a"))
        lock = await asyncpg.connect(running.dsn)
        try:
            await lock.execute("begin; lock table journal.atom in access exclusive mode")
            asking = [asyncio.create_task(location(running)) for _ in range(2)]
            await blocked_on_lock(running.dsn)
            late = await running.call("GET", "j/snapshot")
            await lock.execute("rollback")
            found = await asyncio.gather(*asking)
        finally:
            await lock.close()

        assert (late.status, late.json["code"]) == (503, "unavailable")
        assert found[0] == found[1] == await location(running)


async def test_p8_one_that_became_useless_while_it_was_made_is_made_again(service: Harness) -> None:
    """An operator called everyone back meanwhile: what is given is not below the floor."""
    await pushed(service, insert("todo", "a"))
    lock = await asyncpg.connect(service.dsn)
    try:
        await lock.execute("begin; lock table journal.atom in access exclusive mode")
        asking = asyncio.create_task(location(service))
        await blocked_on_lock(service.dsn)
        reply = await service.call("POST", "j/resync", json={"reason": "meanwhile"})
        await lock.execute("rollback")
        found = await fetch(service, await asking)
    finally:
        await lock.close()

    assert found.lines[0]["revision"] == reply.json["revision"] == 2
