"""Fan-out: streams that stand at the same place are told together, and who is a case of its own is told apart."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from journal.service.pages import Pages
from journal.store.database import Database
from journal.web import sse
from tests.harness import Harness, Json, delete, eventually, insert, listening, serving
from tests.integration.test_stream import Event, Source, pushed, source


@asynccontextmanager
async def audience(service: Harness, since: str, asked: list[Json]) -> AsyncIterator[list[Source]]:
    """Streams that are up to date, and told so."""
    async with AsyncExitStack() as stack:
        # A session of its own: the test's keeps a hundred connections at most.
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        apart = Harness(service.url, service.dsn, session, service.service)
        told = [await stack.enter_async_context(source(apart, since, **query)) for query in asked]
        for one in told:
            await one.next()
        await follow(service, len(told))
        yield told


async def follow(service: Harness, count: int) -> None:
    """Wait until so many streams are told together."""

    async def are_following() -> bool:
        return sum(len(crowd._of) for crowd in service.service.fanout._crowds.values()) == count

    await eventually(are_following)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, of: type, method: str) -> Iterator[list[Any]]:
    """The calls of a method."""
    calls: list[Any] = []
    inner = getattr(of, method)

    def outer(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return inner(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(of, method, outer)
        yield calls


def named(number: int) -> Json:
    return {"client": str(UUID(int=number + 1))}


async def test_what_many_are_told_is_made_and_framed_once(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    at = await pushed(service, insert("todo", "a"))
    made: list[bytes] = []
    monkeypatch.setattr(sse, "_framed", _noting(made))
    async with audience(service, at, [{}] * 30 + [named(n) for n in range(30)]) as told:
        then = await pushed(service, insert("todo", "b"))
        events = [await one.next() for one in told]

    assert events == [Event("deltas", then, (await service.deltas(at)).json)] * 60
    assert len(made) == 60
    assert len({id(data) for data in made}) == 1


def _noting(made: list[bytes]) -> Any:
    framed = sse._framed

    def note(data: bytes) -> bytes:
        made.append(data)
        return framed(data)

    return note


async def test_p12_streams_that_joined_at_different_places_each_miss_nothing(service: Harness) -> None:
    """Of other collections, at other revisions, some of them quiet: each event begins where the one before ended."""
    filters: list[Json] = [{}, {"collections": "todo"}, {"collections": "note"}, {"collections": "note,todo"}]
    at = await pushed(service, insert("todo", "a"))
    async with AsyncExitStack() as stack:
        told: list[tuple[Json, Source, str]] = []
        for n in range(12):
            told += [(asked, await stack.enter_async_context(source(service, at, **asked)), at) for asked in filters]
            at = await pushed(service, insert("note" if n % 3 else "todo", f"{n}"))
        last = await pushed(service, insert("todo", "last"), insert("note", "last"))
        for asked, one, since in told:
            where, atoms = int(since.split(":")[1]), list[str]()
            while "last" not in atoms:
                event = await one.next()
                assert event is not None
                assert event.data.get("since", where) == where
                atoms += [delta["atom"] for delta in event.data.get("deltas", [])]
                where = int(event.id.split(":")[1])
            owed = (await service.deltas(since, **asked)).json["deltas"]
            assert sorted(atoms) == sorted(delta["atom"] for delta in owed)
            assert where == int(last.split(":")[1])


async def test_p8_one_clients_resync_costs_the_others_one_look_at_the_floors(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with audience(service, at, [named(n) for n in range(30)]) as told:
        with counted(monkeypatch, Pages, "from_state") as asked:
            await service.call("POST", "j/resync", json={"reason": "x", **named(7)})
            called = await told.pop(7).next()
            await pushed(service, insert("todo", "b"))
            atoms = [[delta["atom"] for delta in await one.deltas()] for one in told]

    assert called is not None
    assert (called.name, called.data["reason"]) == ("resync", "operator")
    assert atoms == [["b"]] * 29
    assert len(asked) == 1


async def test_p8_a_resync_of_a_collection_calls_those_who_sync_it(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"), insert("note", "a"))
    asked = [{}, {"collections": "todo"}, {"collections": "note"}, named(1) | {"collections": "note"}, named(2)]
    async with audience(service, at, asked) as told:
        await service.call("POST", "j/resync", json={"reason": "x", "collections": ["todo"]})
        called = [await told[n].next() for n in (0, 1, 4)]
        await pushed(service, insert("note", "b"))
        atoms = [[delta["atom"] for delta in await told[n].deltas()] for n in (2, 3)]

    assert [event.name for event in called if event] == ["resync"] * 3
    assert atoms == [["b"]] * 2


async def test_who_is_owed_something_of_its_own_is_told_apart(service: Harness) -> None:
    """What was inserted and deleted between two looks is nothing to anybody but to who inserted it."""
    await service.pushed([insert("todo", "first")], **named(0), push=1)
    at = await pushed(service, insert("todo", "a"))
    async with audience(service, at, [{}, named(0), named(1)]) as (anyone, mine, yours):
        await pushed(service, insert("todo", "brief"), delete("todo", "brief"), **named(0), push=2)
        await pushed(service, insert("todo", "c"))
        told = []
        for one in (anyone, mine, yours):
            deltas: list[tuple[str, str]] = []
            while ("insert", "c") not in deltas:
                deltas += [(delta["op"], delta["atom"]) for delta in await one.deltas()]
            told.append(deltas)

    assert told == [[("insert", "c")], [("delete", "brief"), ("insert", "c")], [("insert", "c")]]


async def test_p12_who_does_not_read_holds_up_nobody(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    host, port = service.url.removeprefix("http://").split(":")
    idle = [await asyncio.open_connection(host, int(port), limit=1024) for _ in range(5)]
    for _, writer in idle:
        writer.write(f"GET /v1/journals/j/stream?since={at} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await follow(service, 5)
    async with audience_beside(service, at) as told:
        for n in range(40):
            await pushed(service, insert("todo", f"{n}", {"t": "z" * 200_000}))
            [delta] = await told.deltas()
            assert delta["atom"] == f"{n}"
    for _, writer in idle:
        writer.close()


@asynccontextmanager
async def audience_beside(service: Harness, at: str) -> AsyncIterator[Source]:
    async with source(service, at) as told:
        await told.next()
        yield told


async def test_who_went_away_is_let_go(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with audience(service, at, [{}] * 10):
        pass
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))
        await asyncio.sleep(0.05)

    async def nobody_is_left() -> bool:
        return not service.service.fanout._crowds

    await eventually(nobody_is_left)


async def test_no_query_runs_while_nothing_happens(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database, tmp_path, poll_s=3600.0, registry_s=3600.0) as quiet:
        await quiet.create()
        at = await pushed(quiet, insert("todo", "a"))
        async with audience(quiet, at, [{}] * 20 + [named(n) for n in range(20)]):
            polls = [asyncio.create_task(quiet.deltas(at, wait=20)) for _ in range(40)]
            await asyncio.sleep(0.3)
            with (
                counted(monkeypatch, Database, "reading") as read,
                counted(monkeypatch, Database, "writing") as written,
            ):
                await asyncio.sleep(1.0)
            await pushed(quiet, insert("todo", "b"))
            answers = [await poll for poll in polls]

    assert (read, written) == ([], [])
    assert {len(answer.json["deltas"]) for answer in answers} == {1}


async def test_p12_streams_of_another_process_miss_nothing_while_its_listener_is_killed(
    service: Harness, tmp_path: Path
) -> None:
    at = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=1.0) as other:
        await listening(other)
        async with audience(other, at, [{}] * 5) as told:
            for n in range(60):
                if n % 10 == 5:
                    await service.query(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where application_name = 'journal listen' and datname = current_database()"
                    )
                await pushed(service, insert("todo", f"{n}"))
            for one in told:
                where, atoms = 1, list[str]()
                while len(atoms) < 60:
                    event = await one.next(seconds=20)
                    assert event is not None
                    if event.name == "deltas":
                        assert event.data["since"] == where
                        atoms += [delta["atom"] for delta in event.data["deltas"]]
                    where = int(event.id.split(":")[1])
                assert atoms == [f"{n}" for n in range(60)]


async def test_who_leaves_while_others_are_told_takes_nobody_along(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that is told an event leaves before the second is: the others are still told the next ones."""
    at = await pushed(service, insert("todo", "a"))
    async with audience(service, at, [{}] * 6) as told:
        [crowd] = service.service.fanout._crowds.values()
        send_now, sent = sse.Sink.send_now, list[sse.Sink]()

        def send_and_leave(sink: sse.Sink, data: bytes) -> bool:
            sent.append(sink)
            if len(sent) == 2:
                crowd._let_go([stream for cohort in crowd._cohorts.values() for stream in cohort.members])
            return send_now(sink, data)

        monkeypatch.setattr(sse.Sink, "send_now", send_and_leave)
        for n in range(3):
            await pushed(service, insert("todo", f"{n}"))
            await asyncio.sleep(0.1)
        for one in told:
            atoms: list[str] = []
            while len(atoms) < 3:
                atoms += [delta["atom"] for delta in await one.deltas()]
            assert atoms == ["0", "1", "2"]
