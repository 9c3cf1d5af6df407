"""Section 9: deltas as they are recorded, as server-sent events that survive cuts, restarts and resyncs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import pytest

from journal.service import fanout
from journal.web import sse
from tests.harness import Harness, Json, delete, eventually, insert, listening, serving, update
from tests.proxy import proxied

ME, YOU = str(UUID(int=1)), str(UUID(int=2))


class Event(msgspec.Struct):
    """What the HTML standard makes of some lines."""

    name: str
    id: str
    data: Any


class Source:
    """An EventSource, by the letter of the HTML standard's section 9.2.6."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.status, self.headers = response.status, response.headers
        self.last_id = ""
        self.retry_ms: int | None = None

    async def next(self, *, seconds: float = 10.0) -> Event | None:
        """The next event; None at the end."""
        name, data = "message", list[str]()
        async with asyncio.timeout(seconds):
            while line := await self.response.content.readline():
                text = line.decode().removesuffix("\n")
                field, _, value = text.partition(":")
                value = value.removeprefix(" ")
                match field:
                    case "event":
                        name = value
                    case "data":
                        data.append(value)
                    case "id":
                        self.last_id = value
                    case "retry":
                        self.retry_ms = int(value)
                    case "":
                        if data:
                            return Event(name, self.last_id, json.loads("\n".join(data)))
                        name = "message"
        return None

    async def deltas(self) -> list[Json]:
        """The next event's deltas, bookmarks left out."""
        while True:
            event = await self.next()
            assert event is not None
            if event.name != "bookmark":
                assert event.name == "deltas", event
                told: list[Json] = event.data["deltas"]
                return told


@asynccontextmanager
async def source(service: Harness, since: str | int | None, **asked: str) -> AsyncIterator[Source]:
    """An open stream."""
    headers = {"Last-Event-ID": asked.pop("last")} if "last" in asked else {}
    journal = asked.pop("journal", "j")
    query = asked | ({} if since is None else {"since": str(since)})
    url = f"{service.url}/v1/journals/{journal}/stream"
    async with service.session.get(url, params=query, headers=headers) as response:
        yield Source(response)


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def test_what_is_recorded_is_told_with_the_cursor_as_its_id(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at) as told:
        bookmark = await told.next()
        then = await pushed(service, update("todo", "a", {"n": 2}), insert("todo", "b"))
        event = await told.next()

    assert (told.status, told.headers["Content-Type"]) == (200, "text/event-stream")
    assert told.headers["Cache-Control"] == "no-store"
    assert told.headers["X-Request-Id"]
    assert bookmark == Event("bookmark", at, {"revision": 1})
    assert event is not None
    assert (event.name, event.id) == ("deltas", then)
    assert event.data == (await service.deltas(at)).json
    assert told.retry_ms is not None
    assert 1000 <= told.retry_ms <= 3000


async def test_each_event_begins_where_the_id_before_it_ends(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    async with source(service, 0) as told:
        events = [await told.next()]
        for n in range(5):
            await pushed(service, insert("todo", f"{n}"))
            events.append(await told.next())

    ids = [0, *(int(event.id.split(":")[1]) for event in events if event)]
    assert [event.data["since"] for event in events if event] == ids[:-1]
    assert ids == [0, 1, 2, 3, 4, 5, 6]


async def test_last_event_id_goes_before_since(service: Harness) -> None:
    first = await pushed(service, insert("todo", "a"))
    second = await pushed(service, insert("todo", "b"))
    await pushed(service, insert("todo", "c"))

    async with source(service, first, last=second) as told:
        assert [delta["atom"] for delta in await told.deltas()] == ["c"]
    async with source(service, None, last=first) as told:
        assert [delta["atom"] for delta in await told.deltas()] == ["b", "c"]


async def test_much_that_was_missed_comes_in_pages_and_nothing_twice(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "LIMIT", 10)
    for n in range(6):
        await pushed(service, *(insert("todo", f"{n}-{m}") for m in range(7)))
    seen: list[str] = []
    last: Json = {}
    id_ = "0"
    while len(seen) < 42:  # and the connection is cut after each event
        async with source(service, 0, **({"last": id_} if seen else {})) as told:
            event = await told.next()
            assert event is not None
            seen += [delta["atom"] for delta in event.data["deltas"]]
            last, id_ = event.data, event.id

    assert seen == [f"{n}-{m}" for n in range(6) for m in range(7)]
    assert (last["more"], last["digest"]) == (False, (await service.head())["digest"])


async def test_large_deltas_come_whole(service: Harness) -> None:
    """Several lines of data are one event; larger ones than memory holds come from a file."""
    text = "x" * 30_000
    for n in range(10):
        await pushed(service, *(insert("todo", f"{n}-{m}", {"t": text, "u": "a\nb\r\n"}) for m in range(10)))

    url = f"{service.url}/v1/journals/j/stream?since=0"
    async with aiohttp.ClientSession(read_bufsize=1 << 24) as session, session.get(url) as response:
        event = await Source(response).next()

    assert event is not None
    assert len(event.data["deltas"]) == 100
    assert {delta["data"]["t"] for delta in event.data["deltas"]} == {text}
    assert {delta["data"]["u"] for delta in event.data["deltas"]} == {"a\nb\r\n"}


async def test_trap_9_a_quiet_filter_advances_by_bookmarks(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "BOOKMARK_S", 0.2)
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at, collections="note") as told:
        await told.next()
        await pushed(service, insert("todo", "b"))
        events = [await told.next() for _ in range(3)]

    assert {event.name for event in events if event} == {"bookmark"}
    assert events[-1] is not None
    assert events[-1].data == {"revision": 2}
    assert (await service.deltas(events[-1].id, collections="note")).status == 200


async def test_a_burst_becomes_few_events(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "TICK_S", (0.5, 0.5))
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at) as told:
        await told.next()
        for n in range(30):
            await pushed(service, update("todo", "a", {"n": n + 10}))
        first = await told.deltas()
        second = await told.deltas() if first[0]["data"] != {"n": 39} else first

    assert second[0]["data"] == {"n": 39}


async def test_a_client_that_names_itself_is_told_the_delete_of_what_it_inserted(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    await service.pushed([insert("todo", "mine")], client=ME, push=1)
    await pushed(service, delete("todo", "mine"))

    async with source(service, at, client=ME) as told:
        assert [(delta["op"], delta["atom"]) for delta in await told.deltas()] == [("delete", "mine")]


# Called back.


async def test_p8_an_open_stream_is_told_of_a_resync_at_once_and_others_are_not(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at, client=ME) as mine, source(service, at, client=YOU) as yours:
        await mine.next()
        await yours.next()
        await service.call("POST", "j/resync", json={"reason": "x", "client": ME, "spread_s": 100})
        event = await mine.next()
        end = await mine.next()
        await pushed(service, insert("todo", "b"))

        assert [delta["atom"] for delta in await yours.deltas()] == ["b"]

    assert event is not None
    assert event.name == "resync"
    assert (event.data["reason"], event.data["status"]) == ("operator", 410)
    assert (end, mine.last_id) == (None, at)
    assert mine.retry_ms is not None
    assert mine.retry_ms >= 1000 * max(event.data["retry_after"], 5)


@pytest.mark.parametrize(
    ("reason", "since"),
    [
        ("epoch", "0123456789ab:1:0123456789abcdef"),
        ("diverged", "{epoch}:1:0123456789abcdef"),
        ("future", "{epoch}:9:0123456789abcdef"),
    ],
)
async def test_p8_a_cursor_that_leads_nowhere_is_told_in_an_answer_of_200(
    service: Harness, reason: str, since: str
) -> None:
    await pushed(service, insert("todo", "a"))
    epoch = (await service.head())["epoch"]

    async with source(service, since.format(epoch=epoch)) as told:
        event = await told.next()

    assert told.status == 200
    assert event is not None
    assert (event.name, event.data["reason"], event.id) == ("resync", reason, "")


# Trouble that passes, and trouble that does not.


async def test_a_service_that_stops_says_when_to_come_back(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as first:
        await first.create()
        at = await pushed(first, insert("todo", "a"))
        opened = source(first, at)
        told = await opened.__aenter__()
        await told.next()
        last = await pushed(first, insert("todo", "b"))
        await told.deltas()
        closing = asyncio.create_task(told.next())
        await asyncio.sleep(0)
        first.service.tails.close()
        end = await closing
        await opened.__aexit__(None, None, None)
    async with serving(database, tmp_path) as again:
        await pushed(again, insert("todo", "c"))
        async with source(again, at, last=last) as back:
            assert [delta["atom"] for delta in await back.deltas()] == ["c"]

    assert end is None
    assert told.last_id == last


async def test_while_postgresql_is_away_a_stream_ends_with_retry_and_no_error(service: Harness, tmp_path: Path) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with proxied(service.dsn) as proxy, serving(proxy.dsn, tmp_path, poll_s=3600.0) as other:
        proxy.refuse()
        async with source(other, at) as told:
            assert await told.next() is None
            assert (told.status, told.retry_ms is not None) == (200, True)
        await proxy.accept()

        async def is_back() -> bool:
            async with source(other, 0) as told:
                event = await told.next()
                return event is not None and event.name == "deltas"

        await eventually(is_back)


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [
        ("", 400, "/since"),
        ("since=x", 400, "/since"),
        ("since=0&wait=1", 400, "/wait"),
        ("since=0&client=me", 400, "/client"),
        ("since=1&client=00000000-0000-0000-0000-000000000001", 400, "/since"),
    ],
)
async def test_a_slip_is_an_error(service: Harness, query: str, status: int, pointer: str) -> None:
    reply = await service.call("GET", f"j/stream?{query}")

    assert (reply.status, reply.json["errors"][0]["pointer"]) == (status, pointer)


async def test_what_will_never_work_is_an_error(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    await service.deltas(at, client=ME)
    await service.call("DELETE", f"j/clients/{ME}")

    assert (await service.call("GET", "k/stream?since=0")).json["code"] == "journal_not_found"
    assert (await service.call("GET", f"j/stream?since={at}&client={ME}")).json["code"] == "client_forgotten"
    assert (await service.call("HEAD", "j/stream?since=0")).status == 200


async def test_a_journal_that_is_removed_ends_its_streams(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at) as told:
        await told.next()
        await service.call("DELETE", "j")

        assert await told.next() is None


# Readers.


async def test_p12_a_slow_reader_is_caught_up_with_what_is_true_by_then(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent nothing while its buffers are full, however much happens; then the net effect."""
    text = "y" * 200_000
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at) as told:
        await told.next()
        for n in range(60):
            await pushed(service, update("todo", "a", {"t": f"{n}{text}"}))
        values: list[str] = []
        while not values or not values[-1].startswith("59y"):
            [delta] = await told.deltas()
            values.append(delta["data"]["t"])

    assert len(values) < 50


async def test_p12_a_reader_that_never_reads_is_closed(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PATIENCE_S", 0.3)
    at = await pushed(service, insert("todo", "a"))
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET /v1/journals/j/stream?since={at} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readline()
    for n in range(100):
        await pushed(service, update("todo", "a", {"t": f"{n}" + "z" * 200_000}))
        await asyncio.sleep(0.02)

    async def is_closed() -> bool:
        try:
            while await asyncio.wait_for(reader.read(1 << 16), 0.5):
                pass
        except (ConnectionError, TimeoutError) as error:
            return isinstance(error, ConnectionError)
        return True

    await eventually(is_closed)
    writer.close()


async def test_p12_a_slow_but_steady_reader_is_not_cut_off(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for taking nothing at all, not for how long an event takes."""
    monkeypatch.setattr(sse, "PATIENCE_S", 0.5)
    at = await pushed(service, insert("todo", "a"))
    for n in range(12):
        await pushed(service, insert("todo", f"{n}", {"t": "w" * 900_000}))
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 16)
    writer.write(f"GET /v1/journals/j/stream?since={at} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    size = 0
    async with asyncio.timeout(60):
        while size < 10_800_000:  # at 4 MB/s: several times as long as the patience
            piece = await reader.read(1 << 17)
            assert piece, f"cut off after {size} bytes"
            size += len(piece)
            await asyncio.sleep(len(piece) / 4_000_000)
    writer.close()


async def test_a_forgotten_clients_open_stream_ends(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    await service.deltas(at, client=ME)
    async with source(service, at, client=ME) as told:
        await told.next()
        await service.call("DELETE", f"j/clients/{ME}")
        await pushed(service, insert("todo", "b"))

        assert await told.next() is None


async def test_who_streams_is_seen_and_where_it_surely_is(service: Harness) -> None:
    """An event that was sent may not have been read; the one before it was, once there is room for another."""
    at = await pushed(service, insert("todo", "a"))
    async with source(service, at, client=ME) as told:
        await told.next()
        for n in range(3):
            await pushed(service, insert("todo", f"{n}"))
            await told.deltas()

        async def has_moved() -> bool:
            [row] = (await service.call("GET", "j/clients")).json["clients"]
            return bool(row["revision"] == 3)

        await eventually(has_moved)


async def test_who_streams_at_another_process_is_told_at_once(service: Harness, tmp_path: Path) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as other:
        await listening(other)
        async with source(other, at) as told:
            await told.next()
            await pushed(service, insert("todo", "b"))
            assert [delta["atom"] for delta in await told.deltas()] == ["b"]
