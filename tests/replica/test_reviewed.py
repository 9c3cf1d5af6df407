"""What a hostile reading of the replica has found, each as the shortest way to it."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from journal.client import InvalidChange, Replica, Unreachable
from tests.harness import Harness, eventually, insert, update
from tests.replica.conftest import Opener
from tests.replica.front import front


async def begun(service: Harness) -> None:
    """More atoms than a first sync takes in a page: it asks for a snapshot."""
    for start in (0, 600):
        await service.pushed([insert("todo", f"a{n:04}") for n in range(start, start + 600)])


@pytest.mark.parametrize("status", [200, 204, 301, 303])
async def test_what_answers_in_place_of_a_snapshot_is_no_answer(service: Harness, opened: Opener, status: int) -> None:
    """A portal's page, where the snapshot's place was expected, was a KeyError."""
    await begun(service)

    async def portal(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/snapshot"):
            return web.Response(status=status, text=None if status == 204 else "<html>", content_type="text/html")
        return None

    async with front(service.url, portal) as url:
        replica: Replica = await opened(url=f"{url}/v1/journals/j")

        with pytest.raises(Unreachable):
            await replica.sync()


@pytest.mark.parametrize("is_token", [True, False])
@pytest.mark.parametrize("status", [302, 303])
async def test_a_token_goes_to_no_other_host_that_an_answer_leads_to(
    service: Harness, opened: Opener, status: int, *, is_token: bool
) -> None:
    """The Location of a portal, or of anybody who answers in the service's place, was sent the Authorization."""
    await begun(service)
    heard = list[str | None]()

    async def listen(request: web.Request) -> web.StreamResponse:
        heard.append(request.headers.get("Authorization"))
        return web.Response(text="<html>", content_type="text/html")

    async with front(service.url, listen) as elsewhere:

        async def portal(request: web.Request) -> web.StreamResponse | None:
            if request.path.endswith("/snapshot"):
                return web.Response(status=status, headers={"Location": f"{elsewhere}/login"})
            return None

        async with front(service.url, portal) as url:
            headers = {"Authorization": "Bearer secret"}
            bearing: Any = {"token": "secret"} if is_token else {"headers": headers}
            replica: Replica = await opened(url=f"{url}/v1/journals/j", **bearing)

            with pytest.raises(Unreachable):
                await replica.sync()

    assert heard == []


async def test_a_service_below_a_prefix_gives_its_snapshots_there_as_well(service: Harness, opened: Opener) -> None:
    """A Location without the prefix, which the service does not know of, was asked for without it."""
    await begun(service)

    async def pass_on(_: web.Request) -> None:
        pass

    async with front(service.url, pass_on, prefix="/under") as url:
        replica: Replica = await opened(url=f"{url}/v1/journals/j")

        await replica.sync()

        assert await replica.collection("todo").count() == 1200


async def test_syncing_in_the_background_goes_on_after_an_answer_that_makes_no_sense(
    service: Harness, opened: Opener
) -> None:
    """It had ended for good, `start` did not begin it again, and `close` raised with the file left open."""
    is_bad = [True]

    async def portal(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/stream") and is_bad[0]:
            return web.Response(text="event: deltas\ndata: <html>\n\n", content_type="text/event-stream")
        return None

    async with front(service.url, portal) as url:
        replica: Replica = await opened(url=f"{url}/v1/journals/j")
        await replica.start()

        async def has_failed() -> bool:
            return (await replica.status()).error is not None

        async def follows() -> bool:
            return (await replica.status()).state == "following"

        await eventually(has_failed)
        is_bad[0] = False
        replica.wake()
        await eventually(follows)
        await replica.close()


@pytest.mark.parametrize("wrong", ["mrege", "", "Server"])
async def test_trap_11_what_is_no_policy_is_not_written(service: Harness, opened: Opener, wrong: Any) -> None:
    """It was kept with the change, and every push of it was refused, and of all that waited behind it, for ever."""
    replica = await opened()

    with pytest.raises(InvalidChange):
        await replica.collection("todo", on_conflict=wrong).insert("a", {"n": 1})
    with pytest.raises(InvalidChange):
        async with replica.transaction(on_conflict=wrong):
            await replica.collection("todo").insert("a", {"n": 1})
    with pytest.raises(InvalidChange):
        Replica.open("a.db", f"{service.url}/v1/journals/j", on_conflict=wrong)
    await replica.sync()

    assert (await replica.status()).pending == 0
    assert await replica.collection("todo").count() == 0


async def have_seen(replica: Replica, *told: "asyncio.Future[Any]") -> None:
    """Change something until all have been told of a change: who has just begun to look is not told of older ones."""
    numbers = count()

    async def have() -> bool:
        await replica.collection("todo").put("a", {"n": next(numbers)})
        return all(one.done() for one in told)

    await eventually(have)


async def test_the_background_that_was_started_outlives_who_looked_before(service: Harness, opened: Opener) -> None:
    """What a `follow` had begun ended with it, though `start` had been called meanwhile."""
    replica: Replica = await opened()
    looking = replica.follow()
    told = asyncio.ensure_future(anext(looking))
    await asyncio.sleep(0)
    await replica.start()
    await have_seen(replica, told)

    await looking.aclose()
    await replica.collection("todo").insert("b", {"n": 1})

    async def is_pushed() -> bool:
        return (await replica.status()).pending == 0

    await eventually(is_pushed)


async def test_the_background_ends_with_the_last_who_looks(service: Harness, opened: Opener) -> None:
    """It went on for ever where the one who had looked first left first."""
    replica: Replica = await opened()
    first, second = replica.follow(), replica.follow()
    both = [asyncio.ensure_future(anext(one)) for one in (first, second)]
    await have_seen(replica, *both)

    await first.aclose()
    is_still_on = (await replica.status()).state != "idle"
    await second.aclose()

    assert is_still_on
    assert (await replica.status()).state == "idle"


async def test_a_process_may_go_to_another_folder(
    service: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies beside the file was sought in the new folder: closing raised, and snapshots were loaded there."""
    await begun(service)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    async with Replica.open("phone.db", f"{service.url}/v1/journals/j") as replica:
        monkeypatch.chdir(elsewhere)
        await replica.sync()
        client = (await replica.status()).client
    async with Replica.open(tmp_path / "phone.db", f"{service.url}/v1/journals/j") as replica:
        is_same = (await replica.status()).client == client

    assert is_same
    assert list(elsewhere.iterdir()) == []


async def refused(service: Harness, opened: Opener, **options: Any) -> Replica:
    """A replica whose one conflict was settled, which nobody was told yet."""
    await service.pushed([insert("todo", "a")])
    replica: Replica = await opened(**options)
    await replica.sync()
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    await replica.collection("todo").update("a", {"n": 3})
    await replica.sync()
    [conflict] = await replica.conflicts()
    await replica.settle(conflict, "server")
    return replica


async def test_nothing_is_left_of_a_settled_conflict(service: Harness, opened: Opener) -> None:
    """Its data stayed in the file for ever, also what was erased at the service since."""
    replica = await refused(service, opened, keep_days=0)
    await replica.close()

    replica = await opened(keep_days=0)
    await replica.sync()

    left = await replica._engine.read(lambda db: db.execute("select count(*) from conflict").fetchone()[0])
    assert left == 0


async def test_another_journal_of_the_name_is_not_told_that_a_conflict_of_the_same_number_is_settled(
    service: Harness, opened: Opener
) -> None:
    """What somebody else's change had met there was marked as settled, and nobody was shown it any more."""
    replica = await refused(service, opened, on_conflict="both")
    await service.call("DELETE", "j")
    await service.create("j")
    await service.pushed([insert("todo", "theirs")])
    await service.pushed([update("todo", "theirs", {"n": 9}, if_data={"n": 7})], on_conflict="both")

    await replica.sync()

    there = (await service.call("GET", "j/conflicts")).json["conflicts"]
    assert "theirs" in [conflict["atom"] for conflict in there]


async def test_a_field_is_found_however_its_name_was_spelled(service: Harness, opened: Opener) -> None:
    """What Python writes by itself, `"caf\\u00e9"`, is kept as it was sent, and SQLite did not find the field."""
    body = '{"changes": [{"op": "insert", "collection": "todo", "atom": "a%d", "data": {"caf\\u00e9": "\\u00e9"}}]}'
    by_delta: Replica = await opened("phone")
    await by_delta.collection("todo").index("café")
    await by_delta.sync()
    for n in range(2):
        await service.call("POST", "j/changes", data=body % n, headers={"Content-Type": "application/json"})
    await begun(service)
    by_snapshot: Replica = await opened("tablet")

    await by_delta.sync()
    await by_snapshot.sync()

    for replica in (by_delta, by_snapshot):
        assert [atom for atom, _ in await replica.collection("todo").find({"café": "é"})] == ["a0", "a1"]
        assert await replica.verify() == 0


async def test_a_password_in_the_url_is_not_told(opened: Opener) -> None:
    """Errors told it, also in the file to other processes, and a download that goes on kept it beside the file."""
    replica: Replica = await opened(url="http://me:secret@127.0.0.1:1/v1/journals/j")

    with pytest.raises(Unreachable) as raised:
        await replica.sync()

    assert "secret" not in str(raised.value)
    assert "secret" not in raised.value.url
    assert "secret" not in str(await replica.status())


async def test_who_is_asked_to_come_back_in_an_hour_says_so_and_can_be_woken(service: Harness, opened: Opener) -> None:
    """It slept inside a call, five times an hour: it said `syncing` without an error, and `wake` did nothing."""
    is_away = [True]

    async def maintenance(_: web.Request) -> web.StreamResponse | None:
        return web.Response(status=503, headers={"Retry-After": "3600"}) if is_away[0] else None

    async with front(service.url, maintenance) as url:
        replica: Replica = await opened(url=f"{url}/v1/journals/j")
        await replica.start()

        async def is_offline() -> bool:
            status = await replica.status()
            return status.state == "offline" and status.error is not None

        async def follows() -> bool:
            return (await replica.status()).state == "following"

        await eventually(is_offline)
        is_away[0] = False
        replica.wake()
        await eventually(follows)
        await replica.close()


async def test_where_no_stream_passes_pauses_grow(service: Harness, opened: Opener) -> None:
    """A sync that works sets the failures back to none: 15 requests a second, for ever, while nothing happens."""
    asked = list[str]()

    async def proxy(request: web.Request) -> web.StreamResponse | None:
        asked.append(request.path)
        is_stream = request.path.endswith("/stream")
        return web.Response(text="", content_type="text/event-stream") if is_stream else None

    async with front(service.url, proxy) as url:
        replica: Replica = await opened(url=f"{url}/v1/journals/j")
        await replica.start()
        await asyncio.sleep(4)
        before = len(asked)
        await replica.collection("todo").insert("a", {"n": 1})
        await eventually(lambda: _has(service, "a"))
        await replica.close()

    assert before < 14
    assert len(asked) - before < 6


async def test_a_replica_of_many_collections_with_long_names_syncs(service: Harness, opened: Opener) -> None:
    """They are in the URL, and in its cursor once more, quoted twice: over 8190 bytes is a 400 for ever."""
    names = [f"Заметки отдела {number:03}" for number in range(60)]
    await service.pushed([insert(name, "a") for name in names])
    replica = await opened(collections=names)

    await replica.sync()
    await replica.sync()

    assert await replica.collection(names[0]).count() == 1


async def _has(service: Harness, atom: str) -> bool:
    return (await service.call("GET", f"j/atom?collection=todo&atom={atom}")).status == 200
