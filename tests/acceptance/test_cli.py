"""The command line beside a service: what it asks, what it downloads, how it starts and stops."""

import asyncio
import json
import re
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import create_server
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from journal.store.embedded import is_running
from tests.command import ROOT, Done, done, ended, journal, start
from tests.harness import Harness, Json, blocked_on_lock, delete, eventually, insert, update
from tests.role import serves

SAMPLE, SAMPLE_HEAD = ROOT / "journal" / "sample.ndjson", 98


# Asking


@pytest.fixture
async def asked(service: Harness) -> Harness:
    """A service with something to ask about."""
    client = str(UUID(int=7))
    head = await service.pushed([insert("todo", "a"), insert("todo", "b"), insert("site", "x")], client=client, push=1)
    base = f"{head['epoch']}:{head['revision']}:{head['chain']}"
    await service.pushed([update("todo", "a", {"m": 2}, unset=["n"]), delete("todo", "b")], base=base)
    return service


@pytest.mark.parametrize(
    "words",
    [
        ("create", "j"),
        ("create", "k"),
        ("status",),
        ("status", "j"),
        ("deltas", "j"),
        ("deltas", "j", "--since", "3", "--until", "5", "--collections", "todo", "--include", "meta,revisions"),
        ("history", "j", "todo", "a"),
        ("snapshot", "j"),
    ],
    ids=" ".join,
)
async def test_every_command_that_asks_speaks_to_people_and_to_programs(
    asked: Harness, tmp_path: Path, words: tuple[str, ...]
) -> None:
    output = ("-o", str(tmp_path / "s.ndjson")) if words[0] == "snapshot" else ()

    to_people = await done(*words, *output, "--url", asked.url)
    to_programs = await done(*words, *output, "--url", asked.url, "--json")

    assert to_people.out.strip()
    assert "{'" not in to_people.out
    assert isinstance(to_programs.json, dict)
    assert to_programs.err == ""


async def test_deltas_are_those_of_the_service(asked: Harness) -> None:
    told = await done("deltas", "j", "--since", "3", "--json", JOURNAL_URL=asked.url)
    shown = await done("deltas", "j", "--since", "3", JOURNAL_URL=asked.url)
    page = await done("deltas", "j", "--limit", "1", "--json", JOURNAL_URL=asked.url)

    assert told.json == (await asked.deltas(3)).json
    assert re.search(r'4 +update +todo +a +\{"m": ?2\} −n', shown.out)
    assert re.search(r"5 +delete +todo +b", shown.out)
    assert page.json["more"]


async def test_deltas_follow_what_comes_until_they_are_interrupted(asked: Harness) -> None:
    process = await start("deltas", "j", "--follow", "--json", "--url", asked.url)
    assert process.stdout is not None

    async with asyncio.timeout(30):
        first = json.loads(await process.stdout.readline())
        await asked.pushed([insert("todo", "later")])
        second = json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    told = await ended(process)

    assert first["until"] == 5
    assert [delta["atom"] for delta in second["deltas"]] == ["later"]
    assert told.code == 130


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("stats",), "Did you mean 'status'"),
        (("status", "--json", "--urk", "x"), "--url"),
        (("status", "No Name"), "no name of a journal"),
        (("deltas",), "Missing argument"),
        (("deltas", "j", "--limit", "many"), "--limit"),
        (("deltas", "j", "--follow", "--until", "3"), "--follow"),
        (("serve", "--port", "99999"), "--port"),
        (("migrate", "--data", "x"), "JOURNAL_DSN"),
    ],
)
async def test_slips_of_the_command_line_are_told_with_what_was_perhaps_meant(
    words: tuple[str, ...], reason: str
) -> None:
    told = await journal(*words, JOURNAL_DSN="postgresql://127.0.0.1:1/none")

    assert told.code == 2
    assert reason in told.err


async def test_what_cannot_be_done_is_a_line_for_people_and_a_problem_for_programs(service: Harness) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    asked = [
        await journal("status", "nope", "--url", service.url),
        await journal("deltas", "j", "--since", "77", "--url", service.url),
        await journal("deltas", "j", "--since", "x", "--url", service.url),
        await journal("status", "--url", away),
        await journal("snapshot", "j", "--url", away),
        await journal("import", "j", "/nonexistent", "--dsn", service.dsn),
        await journal("migrate", "--dsn", f"postgresql://me:secret@127.0.0.1:{free_port()}/x"),
        await journal("migrate", "--dsn", service.dsn.replace("/test_", "/none_")),
        await journal("serve", "--port", away.rpartition(":")[2], "--dsn", "mysql://x"),
    ]
    problems = [
        await journal("status", "nope", "--json", "--url", service.url),
        await journal("status", "--json", "--url", away),
        await journal("migrate", "--json", "--dsn", "postgresql://127.0.0.1:1/x"),
    ]

    assert {told.code for told in asked + problems} == {1}
    assert all(told.err.startswith("error: ") and told.err.count("\n") <= 2 for told in asked)
    assert all(told.out == "" for told in asked + problems)
    assert not any("secret" in told.err for told in asked)
    assert [json.loads(told.err)["code"] for told in problems] == ["journal_not_found", "unreachable", "unavailable"]


# Downloading


class Cutter:
    """A proxy that breaks each connection off after `allowed` bytes of answer, as long as `is_cutting`."""

    def __init__(self, upstream: str, allowed: int) -> None:
        self.upstream, self.allowed = urlsplit(upstream), allowed
        self.is_cutting = True
        self.sent: list[int] = []  # bytes of answer, a connection each

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        self.sent.append(0)
        number = len(self.sent) - 1

        async def answer() -> None:
            while piece := await server.read(16384):
                writer.write(piece)
                await writer.drain()
                self.sent[number] += len(piece)
                if self.is_cutting and self.sent[number] > self.allowed:
                    break

        async def ask() -> None:
            while piece := await reader.read(16384):
                to_server.write(piece)

        both = {asyncio.create_task(answer()), asyncio.create_task(ask())}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        writer.close()
        to_server.close()


@asynccontextmanager
async def cut_off(url: str, *, after: int) -> AsyncIterator[tuple[Cutter, str]]:
    cutter = Cutter(url, after)
    server = await asyncio.start_server(cutter.link, "127.0.0.1", 0)
    try:
        yield cutter, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
async def large(service: Harness) -> Harness:
    """A journal whose snapshot has about a megabyte, however it is packed."""
    for start_at in range(0, 200, 50):
        await service.pushed(
            [insert("todo", f"{n}", {"noise": "".join(noise(n))}) for n in range(start_at, start_at + 50)]
        )
    return service


def noise(seed: int) -> Iterator[str]:
    """8 KB that cannot be packed to less than half."""
    for _ in range(1000):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        yield f"{seed >> 32:08x}"


async def test_a_snapshot_that_breaks_off_again_and_again_gets_here_whole(large: Harness, tmp_path: Path) -> None:
    file = tmp_path / "s.ndjson"
    async with cut_off(large.url, after=200_000) as (cutter, url):
        told = await done("snapshot", "j", "-o", file, "--url", url, "--json")

    snapshot = await large.snapshot()
    assert [json.loads(line) for line in file.read_text().splitlines()] == snapshot
    assert told.json["cursor"] == snapshot[0]["cursor"]
    assert len(cutter.sent) > 3
    assert [path.name for path in tmp_path.glob("s.*")] == ["s.ndjson"]


async def given_up(url: str, file: Path) -> Path:
    """A download that was killed once 100 kB had come; what it left."""
    part = file.with_name(f"{file.name}.part")

    async def has_begun() -> bool:
        return part.exists() and part.stat().st_size > 100_000

    process = await start("snapshot", "j", "-o", file, "--url", url)
    await eventually(has_begun)
    process.kill()
    await process.communicate()
    assert not file.exists()
    return part


async def test_a_download_that_was_given_up_goes_on_the_next_time_and_not_anew(large: Harness, tmp_path: Path) -> None:
    file = tmp_path / "s.ndjson"
    async with cut_off(large.url, after=200_000) as (cutter, url):
        part = await given_up(url, file)
        size = json.loads(part.read_bytes().partition(b"\n")[0])["size"]
        missing = size - part.stat().st_size
        await large.pushed([insert("todo", "later")])  # what goes on is the same snapshot all the same
        cutter.is_cutting = False
        cutter.sent.clear()
        told = await done("snapshot", "j", "-o", file, "--url", url, "--json")

    assert told.json["revision"] == 200
    assert len(file.read_text().splitlines()) == 202
    assert missing <= sum(cutter.sent) < missing + 2000  # heads of answers
    assert not part.exists()


async def test_a_damaged_download_is_never_taken_for_a_snapshot(large: Harness, tmp_path: Path) -> None:
    file = tmp_path / "s.ndjson"
    async with cut_off(large.url, after=200_000) as (_, url):
        part = await given_up(url, file)
        damaged = bytearray(part.read_bytes())
        damaged[50_000] ^= 1
        part.write_bytes(damaged)
        refused = await journal("snapshot", "j", "-o", file, "--url", url)
        is_there = file.exists()
        await done("snapshot", "j", "-o", file, "--url", url)

    assert refused.code == 1
    assert "not a whole snapshot" in refused.err
    assert not is_there
    assert len(file.read_text().splitlines()) == 202


@pytest.mark.parametrize("name", ["s.ndjson.zst", "s.ndjson.gz"])
async def test_a_snapshot_may_stay_packed(asked: Harness, tmp_path: Path, name: str) -> None:
    await done("snapshot", "j", "-o", tmp_path / name, "--url", asked.url)
    piped = await done("snapshot", "j", "-o", "-", "--url", asked.url)

    unpacked = await journal("import", "k", tmp_path / name, "--dsn", asked.dsn)

    assert len(piped.out.splitlines()) == 4
    assert "line 1: " in unpacked.err  # it was unpacked, and is no history


# Serving


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def serve(*words: str | Path) -> tuple[Process, str, str]:
    """A service that has started: the process, its URL and what it printed."""
    process = await start("serve", "--port", "0", *words)
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        while "Ctrl-C" not in said:
            line = (await process.stdout.readline()).decode()
            if not line:
                raise AssertionError((await ended(process)).err)
            said += line
    match = re.search(r"http://\S+?(?=/v1)", said)
    assert match
    return process, match[0], said


async def stopped(process: Process, how: signal.Signals = signal.SIGTERM) -> Done:
    process.send_signal(how)
    return await ended(process)


async def test_serve_migrates_says_where_it_is_and_stops_when_told(empty_database: str, tmp_path: Path) -> None:
    process, url, said = await serve("--dsn", empty_database, "--data", tmp_path)
    await done("create", "j", "--url", url)
    status = await done("status", "--json", "--url", url)
    told = await stopped(process)

    assert "PostgreSQL 1" in said
    shown = re.sub(r":[^:@/]+@", ":***@", empty_database)  # a password is not for the screen
    assert f"psql '{shown}'" in said
    assert f"curl -X PUT {url}/v1/journals/first" in said
    assert [there["journal"] for there in status.json["journals"]] == ["j"]
    assert told.code == 0


async def test_what_is_being_pushed_is_answered_before_the_service_stops(database: str, tmp_path: Path) -> None:
    process, url, _ = await serve("--dsn", database, "--data", tmp_path)
    await done("create", "j", "--url", url)
    holder = await asyncpg.connect(database)
    async with aiohttp.ClientSession() as session:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("select from journal.head for update")
        pushing = asyncio.create_task(push(session, url, [insert("todo", "a")]))
        waiting = asyncio.create_task(session.get(f"{url}/v1/journals/j/deltas?since=0&wait=60"))
        await blocked_on_lock(database)
        process.send_signal(signal.SIGTERM)
        asked_for_long = await waiting
        await transaction.commit()
        answer = await pushing
    told = await ended(process)
    await holder.close()

    assert answer["revision"] == 1
    assert asked_for_long.status in (200, 503)
    assert told.code == 0


async def push(session: aiohttp.ClientSession, url: str, changes: list[Json]) -> Json:
    async with session.post(f"{url}/v1/journals/j/changes", json={"changes": changes}) as answer:
        told: Json = await answer.json()
        return told


async def test_a_second_signal_does_not_wait(database: str, tmp_path: Path) -> None:
    process, url, _ = await serve("--dsn", database, "--data", tmp_path)
    place = urlsplit(url)
    _, slow = await asyncio.open_connection(place.hostname, place.port)
    slow.write(b"POST /v1/journals/j/changes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    slow.write(b"Content-Length: 100\r\n\r\n{")  # and no more
    await slow.drain()
    await done("status", "--url", url)

    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"stopping" in await process.stderr.readline()
    told = await stopped(process, signal.SIGINT)
    slow.close()

    assert told.code == 130


async def test_the_sample_is_loaded_once(empty_database: str, tmp_path: Path) -> None:
    heads = []
    for _ in range(2):
        process, url, said = await serve("--dsn", empty_database, "--data", tmp_path, "--sample")
        heads.append((await done("status", "demo", "--json", "--url", url)).json)
        assert "/v1/journals/demo/deltas?since=86'" in said
        assert (await stopped(process)).code == 0

    assert heads[0] == heads[1]
    assert heads[0]["head"] == SAMPLE_HEAD


async def test_the_sample_shows_each_operation_and_keeps_its_dates(empty_database: str, tmp_path: Path) -> None:
    process, url, _ = await serve("--dsn", empty_database, "--data", tmp_path, "--sample")
    late = await done("deltas", "demo", "--since", "86", "--include", "meta", "--json", "--url", url)
    whole = await done("deltas", "demo", "--json", "--url", url)
    await stopped(process)

    assert {delta["op"] for delta in late.json["deltas"]} == {"insert", "update", "replace", "delete"}
    assert any("unset" in delta for delta in late.json["deltas"])
    assert all(delta["at"].startswith("2026-03-") for delta in late.json["deltas"])
    assert {delta["collection"] for delta in whole.json["deltas"]} == {"customer", "device", "todo", "visit"}


async def test_serve_says_in_a_line_why_it_cannot_start(empty_database: str, database: str, tmp_path: Path) -> None:
    process, url, _ = await serve("--dsn", database, "--data", tmp_path)
    port = url.rpartition(":")[2]

    busy = await journal("serve", "--dsn", database, "--port", port, "--data", tmp_path)
    behind = await journal("serve", "--dsn", empty_database, "--no-migrate", "--port", "0", "--data", tmp_path)
    await stopped(process)

    assert (busy.code, behind.code) == (1, 1)
    assert f"port {port} of 127.0.0.1 is taken" in busy.err
    assert "journal migrate" in behind.err


async def test_an_import_beside_a_service_shares_its_embedded_postgresql() -> None:
    with tempfile.TemporaryDirectory(prefix="journal-test-") as parent:
        Path(parent).chmod(0o711)  # where root runs the tests, the server is another user
        folder = Path(parent) / "data"
        process, url, said = await serve("--data", folder)
        told = await done("import", "demo", SAMPLE, "--data", folder, "--json")
        head = await done("status", "demo", "--json", "--url", url)
        is_up = is_running(folder)
        stop = await stopped(process, signal.SIGHUP)  # as when its terminal is closed

        assert f"embedded in {folder}" in said
        assert told.json["head"] == head.json["head"] == SAMPLE_HEAD
        assert is_up
        assert stop.code == 0
        assert not is_running(folder)


async def test_migrate_tells_what_it_would_do_and_does_it_once(empty_database: str) -> None:
    dry = await done("migrate", "--dsn", empty_database, "--dry-run", "--json")
    wet = await done("migrate", "--dsn", empty_database, "--json")
    again = await done("migrate", "--dsn", empty_database)

    assert dry.json["pending"] == wet.json["applied"]
    assert "migrations/0001_journal.sql" in wet.json["applied"]
    assert "up to date" in again.out


async def test_migrate_gives_a_role_what_serving_needs_and_tells_whom_it_cannot(
    empty_database: str, service_role: str, tmp_path: Path
) -> None:
    owner = ("migrate", "--dsn", empty_database)
    dry = await done(*owner, "--role", service_role, "--dry-run", "--json")
    wet = await done(*owner, "--role", service_role, "--json")
    again = await done(*owner, "--json")
    nobody = await journal(*owner, "--role", "nobody")
    serves(service_role, urlsplit(empty_database).path[1:])

    served = await start("serve", "--dsn", empty_database, "--data", tmp_path, "--port", "0")
    assert served.stdout is not None
    said = await served.stdout.readline()
    served.terminate()
    ended_as = await ended(served)

    assert dry.json["pending"] == wet.json["applied"]
    assert wet.json["applied"][-1] == f"roles/{service_role}"
    assert again.json["applied"] == []
    assert (nobody.code, "there is no role nobody" in nobody.err) == (1, True)
    assert (said.startswith(b"journal"), ended_as.code) == (True, 0)
