"""Section 11: the registry knows who syncs and how far each is, without a write for each poll."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from journal.service import registry
from tests.harness import Harness, Json, eventually, insert, listening, serving

ME, YOU = str(UUID(int=1)), str(UUID(int=2))


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push; the cursor after it."""
    answer = await service.pushed(list(changes), **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def clients(service: Harness, query: str = "") -> list[Json]:
    """The registry."""
    told: list[Json] = (await service.call("GET", f"j/clients{query}")).json["clients"]
    return told


async def row(service: Harness, client: str = ME) -> Json:
    """One client's row."""
    return (await service.call("GET", f"j/clients/{client}")).json


async def test_a_client_that_names_itself_is_known_by_where_it_asked_from(service: Harness) -> None:
    first = await pushed(service, insert("todo", "a"))
    await pushed(service, insert("todo", "b"))
    await service.call("GET", f"j/deltas?since={first}&client={ME}", headers={"User-Agent": "phone/1.0 " + "x" * 500})

    [told] = await clients(service)

    assert (told["client"], told["cursor"], told["revision"], told["lag"]) == (ME, first, 1, 1)
    assert 0 < told["lag_s"] < 60
    assert told["agent"] == ("phone/1.0 " + "x" * 500)[:200]
    assert told["first_seen"] <= told["last_seen"]
    assert (told["resync"], told["resynced"], told["pushed"]) == (None, None, 0)


async def test_at_the_head_there_is_no_lag(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await service.deltas(cursor, client=ME)

    assert ((await row(service))["lag"], (await row(service))["lag_s"]) == (0, 0.0)


async def test_who_does_not_name_itself_is_not_registered(service: Harness) -> None:
    await service.deltas(await pushed(service, insert("todo", "a")))

    assert await clients(service) == []


async def test_in_a_round_of_pages_a_client_is_where_its_round_began(service: Harness) -> None:
    begin = await pushed(service, insert("todo", "a"))
    for n in range(3):
        await pushed(service, insert("todo", f"{n}"))
    page = (await service.deltas(begin, client=ME, limit=1)).json
    await service.deltas(page["cursor"], client=ME, limit=1)

    assert (await row(service))["revision"] == 1


async def test_a_push_shows_that_a_client_lives_and_does_not_move_it(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await service.deltas(cursor, client=ME)
    await clients(service)

    await service.pushed([insert("todo", "b")], client=ME, push=7)
    await service.push([insert("todo", "b", {"x": 1})], client=ME, push=8)

    told = await row(service)
    assert (told["cursor"], told["pushed"]) == (cursor, 8)
    assert [(push["push"], push["status"], push["revision"]) for push in told["pushes"]] == [
        (8, 200, None),
        (7, 200, 2),
    ]
    assert told["pushes"][1]["outcomes"] == [{"status": "applied", "revision": 2}]
    assert told["pushes"][0]["outcomes"][0]["status"] == "conflict"


async def test_polls_are_not_writes(service: Harness, tmp_path: Path) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, registry_s=3600.0) as other:
        written = []
        for _ in range(2):
            for _ in range(50):
                await other.deltas(cursor, client=ME)
            written.append(await service.query("select xmin::text, last_seen from journal.registry"))
            await other.service.registry.flush()
        written.append(await service.query("select xmin::text, last_seen from journal.registry"))

    [nothing, [once], [twice]] = written
    assert nothing == []
    assert once["xmin"] != twice["xmin"]
    assert once["last_seen"] < twice["last_seen"]


async def test_it_is_written_by_itself_every_now_and_then(service: Harness, tmp_path: Path) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, registry_s=0.05) as other:
        await other.deltas(cursor, client=ME)

        async def is_written() -> bool:
            return bool(await service.query("select from journal.registry"))

        await eventually(is_written)


async def test_many_are_written_before_their_time(
    service: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SOON", 3)
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, registry_s=3600.0) as other:
        for n in range(5):
            await other.deltas(cursor, client=str(UUID(int=n)))

        async def are_written() -> bool:
            return len(await service.query("select from journal.registry")) >= 4

        await eventually(are_written)


async def test_what_was_seen_is_not_lost_when_the_service_stops(service: Harness, tmp_path: Path) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, registry_s=3600.0) as other:
        await other.deltas(cursor, client=ME)

    assert (await row(service))["cursor"] == cursor


async def test_of_two_processes_the_one_that_saw_a_client_last_is_right(service: Harness, tmp_path: Path) -> None:
    """Whoever writes first."""
    early = await pushed(service, insert("todo", "a"))
    late = await pushed(service, insert("todo", "b"))
    async with serving(service.dsn, tmp_path, registry_s=3600.0) as other:
        await service.deltas(early, client=ME)
        seen = (
            service.service.registry._seen
        )  # by clocks that may differ by what a busy machine takes between two lines
        seen["j", ME] = seen["j", ME]._replace(at=seen["j", ME].at - 60, cursor_at=seen["j", ME].cursor_at - 60)
        await other.deltas(late, client=ME)
        await other.service.registry.flush()
        await service.service.registry.flush()

        assert (await row(service))["cursor"] == late


async def test_two_processes_that_write_the_same_clients_at_once_do_not_block_each_other(
    service: Harness, tmp_path: Path
) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    who = [str(uuid4()) for _ in range(200)]
    async with serving(service.dsn, tmp_path, registry_s=3600.0) as other:
        for _ in range(5):
            for server in (service, other):
                for client in who if server is service else reversed(who):
                    server.service.registry.saw("j", client, None, None)
            await asyncio.gather(service.service.registry.flush(), other.service.registry.flush())
        await service.deltas(cursor, client=who[0])

    assert len(await clients(service, "?limit=1000")) == 200


async def test_the_furthest_behind_come_first_in_pages(service: Harness) -> None:
    cursors = [await pushed(service, insert("todo", f"{n}")) for n in range(6)]
    for n in (3, 0, 5, 1, 4, 2):
        await service.deltas(cursors[n], client=str(UUID(int=n)))
    await service.deltas(cursors[2], client=str(UUID(int=9)))

    told: list[int] = []
    query = "?limit=3"
    while True:
        page = (await service.call("GET", f"j/clients{query}")).json
        told += [client["lag"] for client in page["clients"]]
        if not page["more"]:
            break
        query = f"?limit=3&after={page['next']}"

    assert told == [5, 4, 3, 3, 2, 1, 0]


async def test_a_cursor_of_another_history_has_no_lag(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await service.deltas("0123456789ab" + cursor[12:], client=ME)

    told = await row(service)
    assert (told["lag"], told["lag_s"], told["cursor"][:12]) == (None, None, "0123456789ab")


async def test_a_client_that_starts_from_nothing_is_seen_without_a_cursor(service: Harness) -> None:
    """It does not hold up a compaction: it has nothing yet."""
    await pushed(service, insert("todo", "a"))
    await service.deltas(0, client=ME)

    told = await row(service)
    assert (told["cursor"], told["revision"], told["lag"]) == (None, None, None)


@pytest.mark.parametrize("agent", ["caf\udce9", "a\ud800b", "x" * 5000])
async def test_whatever_a_client_calls_itself_the_registry_goes_on(service: Harness, agent: str) -> None:
    """Headers are bytes, and names in a path may be no names at all."""
    cursor = await pushed(service, insert("todo", "a"))
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"GET /v1/journals/j/deltas?since={cursor}&client={ME} HTTP/1.1\r\nHost: localhost\r\n"
    head += "Connection: close\r\nUser-Agent: "
    writer.write(head.encode() + agent.encode("utf-8", "surrogatepass") + b"\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await service.call("POST", "j%00x/changes", json={"changes": [insert("todo", "b")], "client": ME})
    await service.call("POST", "nobody/changes", json={"changes": [insert("todo", "b")], "client": ME})
    await service.deltas(cursor, client=YOU)

    assert {client["client"] for client in await clients(service)} == {ME, YOU}
    await service.service.registry.flush()


async def test_what_cannot_be_written_does_not_end_the_registry(
    service: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, registry_s=0.05) as other:
        see = registry.recovery.see  # type: ignore[attr-defined]

        async def fails(*_: Any) -> None:
            raise RuntimeError("once")

        monkeypatch.setattr(registry.recovery, "see", fails)  # type: ignore[attr-defined]
        await other.deltas(cursor, client=ME)
        await asyncio.sleep(0.2)
        monkeypatch.setattr(registry.recovery, "see", see)  # type: ignore[attr-defined]
        await other.deltas(cursor, client=YOU)

        async def is_written() -> bool:
            return bool(await service.query("select from journal.registry where client = $1", UUID(YOU)))

        await eventually(is_written)


async def test_a_cursor_has_its_own_time_whenever_its_client_was_seen_since(service: Harness, tmp_path: Path) -> None:
    """One process still holds an older cursor when the client pushes there: that makes the cursor no newer."""
    early = await pushed(service, insert("todo", "a"))
    late = await pushed(service, insert("todo", "b"))
    async with serving(service.dsn, tmp_path, registry_s=3600.0) as other:
        await other.deltas(early, client=ME)
        await service.deltas(late, client=ME)
        await service.service.registry.flush()
        before = await row(service)
        await other.pushed([insert("todo", "c")], client=ME, push=1)
        await other.service.registry.flush()

        after = await row(service)
    assert (before["cursor"], after["cursor"]) == (late, late)
    assert after["last_seen"] > before["last_seen"]


async def test_a_forgotten_clients_late_sighting_is_not_listed(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await service.deltas(cursor, client=ME)
    await clients(service)
    await service.call("DELETE", f"j/clients/{ME}")
    await service.query(
        "insert into journal.registry (journal_id, client, cursor, epoch, revision, first_seen, last_seen)"
        " select 1, $1, 'x', h.epoch, 0, now(), now() from journal.head h",
        UUID(ME),
    )

    assert await clients(service) == []
    assert (await service.call("GET", f"j/clients/{ME}")).status == 404
    reply = await service.call("POST", "j/compact", json={"keep_revisions": 0}, headers={"Prefer": "wait=60"})
    assert reply.json["result"]["held_by"] == []


# Resyncs.


async def test_the_registry_shows_who_has_not_obeyed_yet_and_when_who_did(service: Harness) -> None:
    below = await pushed(service, insert("todo", "a"))
    for client in (ME, YOU):
        await service.deltas(below, client=client)
    await service.call("POST", "j/resync", json={"reason": "x", "client": ME})

    assert [(c["client"], c["resync"]) for c in await clients(service)] == [(ME, 2), (YOU, None)]
    await service.deltas(below, client=ME)
    assert (await row(service))["resync"] == 2
    obeyed = (await service.snapshot())[0]["cursor"]
    assert (await row(service))["resync"] == 2  # it has the snapshot, as far as anyone can say, when it asks from it
    await service.deltas(obeyed, client=ME)

    told = await row(service)
    assert (told["resync"], told["resynced"]) == (None, 2)
    assert told["resynced_at"] == told["last_seen"]
    assert (await row(service, YOU))["resynced"] is None


async def test_a_floor_for_collections_is_wanted_of_whose_cursor_covers_one(service: Harness) -> None:
    at = await pushed(service, insert("todo", "a"), insert("note", "n"))
    await service.deltas((await service.deltas(at, collections="note")).json["cursor"], client=ME)
    await service.deltas((await service.deltas(at, collections="todo")).json["cursor"], client=YOU)
    await service.call("POST", "j/resync", json={"reason": "x", "collections": ["todo"]})

    assert {c["client"]: c["resync"] for c in await clients(service)} == {ME: None, YOU: 3}
    stats = (await service.call("GET", "j/stats")).json
    assert (stats["clients"], stats["behind"]) == (2, 1)


# Forgetting.


async def test_a_forgotten_client_takes_a_new_id(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await service.deltas(cursor, client=ME)
    await service.pushed([insert("todo", "b")], client=ME, push=1)

    assert (await service.call("DELETE", f"j/clients/{ME}")).status == 204

    for reply in (
        await service.deltas(cursor, client=ME),
        await service.deltas(0, client=ME),
        await service.push([insert("todo", "c")], client=ME, push=2),
        await service.push([insert("todo", "c")], client=ME),
    ):
        assert (reply.status, reply.json["code"]) == (409, "client_forgotten")
    assert (await service.call("GET", f"j/clients/{ME}")).status == 404
    assert await clients(service) == []
    assert (await service.deltas(cursor, client=YOU)).status == 200


async def test_p6_what_a_forgotten_client_pushed_is_still_answered_and_recorded_once(service: Harness) -> None:
    first = await service.pushed([insert("todo", "b")], client=ME, push=1)
    await service.call("DELETE", f"j/clients/{ME}")

    again = await service.pushed([insert("todo", "b")], client=ME, push=1)

    assert (again["replayed"], again["outcomes"]) == (True, first["outcomes"])
    assert (await service.head())["head"] == 1


async def test_another_process_that_knew_the_client_hears_that_it_is_forgotten(
    service: Harness, tmp_path: Path
) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as other:
        await listening(other)
        await other.deltas(cursor, client=ME)
        await other.pushed([insert("todo", "b")], client=ME, push=1)
        await other.service.registry.flush()
        await service.call("DELETE", f"j/clients/{ME}")

        async def is_refused() -> bool:
            return (await other.deltas(cursor, client=ME)).status == 409

        await eventually(is_refused)
        assert (await other.push([insert("todo", "c")], client=ME, push=2)).json["code"] == "client_forgotten"


async def test_a_client_that_nobody_has_heard_of_is_not_forgotten(service: Harness) -> None:
    assert (await service.call("DELETE", f"j/clients/{ME}")).status == 404
    assert (await service.call("DELETE", "j/clients/me")).status == 404
    assert (await service.call("GET", "j/clients?after=x")).json["errors"][0]["pointer"] == "/after"
