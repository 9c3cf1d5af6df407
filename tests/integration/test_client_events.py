"""Section 9 from a client's side: the service's own stream, as events."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from journal.client.events import Event, Parser, TooLong, events
from journal.client.http import Http, Refused, Unreachable
from tests.cutting import cutting
from tests.harness import Harness, Json, eventually, insert

SILENCE_S = 30.0
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def opened(
    service: Harness, since: str | int, parser: Parser | None = None, *, url: str = "", **asked: str
) -> aclosing[AsyncGenerator[Event, None]]:
    """The events of the journal `j` since then."""
    http = Http(url or service.url, service.session)
    place = http.place("journals", asked.pop("journal", "j"), "stream").with_query(since=str(since), **asked)
    return aclosing(events(http, place, parser, silence_s=SILENCE_S))


async def pushed(service: Harness, *atoms: str) -> str:
    """Insert these; the cursor after it."""
    answer = await service.pushed([insert("todo", atom) for atom in atoms])
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


def told(event: Event) -> list[str]:
    """The atoms of an event."""
    body: Json = json.loads(event.data)
    return [delta["atom"] for delta in body["deltas"]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """The URL of something that is not the service."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_what_is_recorded_is_told_as_it_happens_with_where_to_go_on(service: Harness) -> None:
    at = await pushed(service, "a")
    parser = Parser()
    async with opened(service, at, parser) as stream:
        bookmark = await anext(stream)
        then = await pushed(service, "b", "c")
        deltas = await anext(stream)

    assert (bookmark.name, bookmark.id, json.loads(bookmark.data)) == ("bookmark", at, {"revision": 1})
    assert (deltas.name, deltas.id, told(deltas)) == ("deltas", then, ["b", "c"])
    assert json.loads(deltas.data) == (await service.deltas(at)).json
    assert parser.last_id == then
    assert parser.retry_ms is not None
    assert 1000 <= parser.retry_ms <= 3000


async def test_a_large_event_comes_whole(service: Harness) -> None:
    text = "é\n\r\n" * 20_000
    for n in range(40):
        await service.pushed([insert("todo", f"{n}-{m}", {"t": text}) for m in range(4)])

    async with opened(service, 0) as stream:
        event = await anext(stream)

    assert len(event.data) > 15_000_000
    assert len(told(event)) == 160
    assert {delta["data"]["t"] for delta in json.loads(event.data)["deltas"]} == {text}


async def test_an_event_longer_than_agreed_is_an_error(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"t": "x" * 10_000})])

    async with opened(service, 0, Parser(5000)) as stream:
        with pytest.raises(TooLong):
            await anext(stream)


async def test_a_resync_is_an_event_and_the_end_says_when_to_come_back(service: Harness) -> None:
    at = await pushed(service, "a")
    parser = Parser()
    async with opened(service, at, parser) as stream:
        await anext(stream)
        await service.call("POST", "j/resync", json={"reason": "x", "spread_s": 100})
        rest = [event async for event in stream]

    assert [event.name for event in rest] == ["resync"]
    body = json.loads(rest[0].data)
    assert (body["reason"], body["status"], parser.last_id) == ("operator", 410, at)
    assert parser.retry_ms is not None
    assert parser.retry_ms >= 1000 * max(body["retry_after"], 5)


async def test_what_the_service_refuses_is_refused(service: Harness) -> None:
    for since, journal, code in [("0", "k", "journal_not_found"), ("x", "j", "invalid_request")]:
        async with opened(service, since, journal=journal) as stream:
            with pytest.raises(Refused) as error:
                await anext(stream)
        assert error.value.code == code


async def test_p3_a_stream_that_is_cut_anywhere_goes_on_at_its_last_id(service: Harness) -> None:
    """Closed or reset, between events or inside of one: it is Unreachable, and nothing is told twice or left out."""
    written = [f"{n}-{m}" for n in range(200) for m in range(5)]
    seen: list[str] = []
    since, breaks = "0", 0

    async def write() -> None:
        for start in range(0, len(written), 5):
            await pushed(service, *written[start : start + 5])

    async with cutting(int(service.url.rpartition(":")[2]), cuts=20) as proxy, asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while seen[-1:] != written[-1:]:
            try:
                async with opened(service, since, url=proxy.url) as stream:
                    async for event in stream:
                        assert event.id is not None
                        since = event.id
                        seen += told(event) if event.name == "deltas" else []
                        if seen[-1:] == written[-1:]:
                            break
            except Unreachable:
                breaks += 1

    assert seen == written
    assert breaks > 3


async def test_nothing_heard_for_too_long_is_unreachable(service: Harness) -> None:
    """The service says something every 15 s at most; what says nothing is away."""
    at = await pushed(service, "a")
    http = Http(service.url, service.session)
    place = http.place("journals", "j", "stream").with_query(since=at)
    async with aclosing(events(http, place, silence_s=0.3)) as stream:
        bookmark = await anext(stream)
        with pytest.raises(Unreachable, match="it took too long"):
            await anext(stream)

    assert bookmark.name == "bookmark"


async def test_a_service_that_is_not_there_is_unreachable(service: Harness) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with listening(nothing) as url, opened(service, 0, url=url) as stream:
        with pytest.raises(Unreachable):
            await anext(stream)


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12",
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Type: text/event-stream\r\nContent-Length: 12",
        "HTTP/1.1 200 OK\r\nContent-Length: 12",
    ],
    ids=["a page", "sent elsewhere", "of no type"],
)
async def test_an_answer_that_is_no_stream_of_events_is_not_taken_for_one(service: Harness, head: str) -> None:
    """A network that wants a password first answers 200 to anything."""

    async def sign_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{head}\r\n\r\ndata: hello\n\n"[: len(head) + 4 + 12].encode())
        await writer.drain()
        writer.close()

    async with listening(sign_in) as url, opened(service, 0, url=url) as stream:
        with pytest.raises(Unreachable, match="not a stream of events"):
            await anext(stream)


async def test_who_leaves_a_stream_leaves_nothing_behind_at_the_service(service: Harness) -> None:
    at = await pushed(service, "a")
    async with opened(service, at) as stream:
        async for event in stream:
            assert event.name == "bookmark"
            break
    fanout = service.service.fanout

    async def is_over() -> bool:
        await service.pushed([insert("todo", f"more-{(await service.head())['head']}")])
        return not fanout._crowds

    await eventually(is_over)
