"""The way back from each 410, and from damage: nothing that was not pushed is lost, nothing that is gone stays.

What a restored server no longer has of acknowledged pushes is offered again (P9, P10, P11; traps 6 and 7).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from journal.client import NotRecovered, Progress, Replica, Unreachable, download, pulled
from tests.conftest import named
from tests.harness import Harness, Json, delete, eventually, insert, put, serving, update
from tests.replica.conftest import Opener
from tests.replica.test_replica import at_server, contents


async def whole(replica: Replica) -> Json:
    """All atoms, by collection."""
    return {name: await contents(replica, name) for name in await replica.collections()}


def rows(replica: Replica, query: str) -> list[Any]:
    """What the file has."""
    with closing(sqlite3.connect(replica.path)) as db:
        return db.execute(query).fetchall()


def damage(replica: Replica, statement: str) -> None:
    """Change the file behind the replica's back."""
    with closing(sqlite3.connect(replica.path)) as db:
        db.execute(statement)
        db.commit()


def paths(asked: list[str]) -> list[str]:
    """The last parts of what was asked for."""
    return [path.rpartition("/")[2] for path in asked]


async def test_p10_behind_the_horizon_everything_is_replaced_but_what_was_not_pushed(
    service: Harness, opened: Opener
) -> None:
    await service.pushed([insert("todo", name) for name in "abc"])
    replica = await opened()
    await replica.sync()
    todo = replica.collection("todo")
    await todo.insert("mine", {"n": 5})
    await todo.update("b", {"m": 1})
    await todo.update("c", {"m": 1})
    await service.pushed(
        [delete("todo", "a", if_data={"n": 1}), delete("todo", "c", if_data={"n": 1}), insert("todo", "d")]
    )
    await service.pushed([insert("visit", "v")])
    compacted = await service.call(
        "POST", "j/compact", json={"force": True, "keep_revisions": 0}, headers={"Prefer": "wait=10"}
    )
    assert compacted.json["state"] == "done"

    await replica.sync()

    expected = {"todo": {"b": {"n": 1, "m": 1}, "d": {"n": 1}, "mine": {"n": 5}}, "visit": {"v": {"n": 1}}}
    assert await whole(replica) == await at_server(service) == expected
    [conflict] = await replica.conflicts()
    assert (conflict.atom, conflict.mine, conflict.made_on, conflict.theirs) == ("c", {"n": 1, "m": 1}, {"n": 1}, None)
    assert (await replica.status()).pending == 0


@pytest.mark.parametrize("whom", ["client", "everyone", "collection"])
async def test_an_operator_can_send_it_back_to_the_start(
    service: Harness, opened: Opener, asked: list[str], whom: str
) -> None:
    await service.pushed([insert("todo", "a"), insert("visit", "b")])
    replica = await opened()
    await replica.sync()
    await replica.collection("todo").insert("mine", {})
    who = {"client": {"client": (await replica.status()).client}, "collection": {"collections": ["todo"]}}.get(whom, {})
    assert (await service.call("POST", "j/resync", json={"reason": "looks wrong"} | who)).status == 200
    damage(replica, "update base set data = '{}' where atom = 'a'")

    await replica.sync()

    assert "snapshot" in paths(asked)
    assert await whole(replica) == await at_server(service)
    assert set((await at_server(service))["todo"]) == {"a", "mine"}


async def test_a_resync_of_a_collection_replaces_no_other_where_the_replica_names_its_own(
    service: Harness, opened: Opener
) -> None:
    await service.pushed([insert("todo", "a"), insert("visit", "b"), insert("device", "c")])
    replica = await opened(collections=["todo", "visit", "device"])
    await replica.sync()
    damage(replica, "update base set data = '{\"damaged\": 1}' where atom in ('a', 'b')")
    await service.call("POST", "j/resync", json={"reason": "looks wrong", "collections": ["todo"]})
    await service.pushed([insert("visit", "later"), delete("device", "c", if_data={"n": 1})])

    await replica.sync()

    assert await whole(replica) == {
        "todo": {"a": {"n": 1}},
        "visit": {"b": {"damaged": 1}, "later": {"n": 1}},
    }
    stale = "select count(*) from base where generation not in (select generation from collection)"
    assert rows(replica, stale) == [(0,)]


async def test_trap_17_more_collections_are_fetched_and_fewer_are_dropped(service: Harness, opened: Opener) -> None:
    await service.pushed([insert("todo", "a"), insert("visit", "b"), insert("device", "c")])
    replica = await opened(collections=["todo"])
    await replica.sync()
    first = await whole(replica)
    await replica.close()
    await service.pushed([insert("visit", "d"), insert("todo", "e")])
    replica = await opened(collections=["todo", "visit"])
    await replica.sync()
    second = await whole(replica)
    await replica.close()
    replica = await opened(collections=["visit"])
    await service.pushed([insert("visit", "f"), insert("todo", "g")])
    await replica.sync()

    assert first == {"todo": {"a": {"n": 1}}}
    assert second == {"todo": {"a": {"n": 1}, "e": {"n": 1}}, "visit": {"b": {"n": 1}, "d": {"n": 1}}}
    assert await whole(replica) == {"visit": {name: {"n": 1} for name in "bdf"}}


async def test_what_was_there_stays_readable_until_the_new_data_is_whole(service: Harness, opened: Opener) -> None:
    await service.pushed([insert("todo", f"{n}") for n in range(30)])
    seen: list[int] = []

    def progress(now: Progress) -> None:
        if now.phase == "load":
            with closing(sqlite3.connect(replica.path)) as db:
                query = "select count(*) from base join collection using (generation)"
                seen.append(db.execute(query).fetchone()[0])

    replica = await opened(progress=progress)
    await replica.sync()
    await service.pushed([delete("todo", f"{n}", if_data={"n": 1}) for n in range(20)])
    await service.call("POST", "j/resync", json={"reason": "looks wrong"})

    await replica.sync()

    assert seen == [30]
    assert await replica.collection("todo").count() == 10


async def test_a_download_that_breaks_off_goes_on_where_it_was(service: Harness, opened: Opener) -> None:
    changes = [insert("todo", f"{n}", {"text": f"{n * 7919 % 104729:x}" * 40}) for n in range(12_000)]
    for start in range(0, len(changes), 3000):
        await service.pushed(changes[start : start + 3000])
    async with breaking(service, after=60_000) as proxy:
        replica = await opened(url=f"{proxy.url}/v1/journals/j")
        await replica.sync()

    assert await replica.collection("todo").count() == 12_000
    assert proxy.ranges
    assert all(start > 0 for start in proxy.ranges)
    assert sum(proxy.sent) < proxy.size + 65_536 * (len(proxy.ranges) + 1)
    assert rows(replica, "select count(*), count(distinct atom) from base") == [(12_000, 12_000)]


class Breaking:
    """A proxy that breaks each answer with a snapshot off after so many bytes, ten times."""

    def __init__(self, service: Harness, after: int) -> None:
        self.service, self.after, self.left = service, after, 10
        self.url, self.size = "", 0
        self.ranges: list[int] = []
        self.sent: list[int] = []

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Answer as the service does."""
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.service.url + request.path_qs, headers=headers, data=await request.read(),
                allow_redirects=False,
            ) as answer,
        ):  # fmt: skip
            body = await answer.read()
            kept = {n: v for n, v in answer.headers.items() if n not in ("Transfer-Encoding", "Content-Length")}
            response = web.StreamResponse(status=answer.status, headers=kept)
            response.content_length = len(body)
            await response.prepare(request)
            if "/snapshots/" in request.path:
                if "Range" in request.headers:
                    self.ranges.append(int(request.headers["Range"].removeprefix("bytes=").rstrip("-")))
                self.size = self.size or len(body)
                self.sent.append(min(len(body), self.after))
                if self.left > 0 and len(body) > self.after:
                    self.left -= 1
                    await response.write(body[: self.after])
                    assert request.transport is not None
                    request.transport.close()
                    return response
            await response.write(body)
            return response


@asynccontextmanager
async def breaking(service: Harness, *, after: int) -> AsyncIterator[Breaking]:
    proxy = Breaking(service, after)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", proxy.pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()


async def test_a_snapshot_that_is_gone_before_it_was_fetched_is_asked_for_again(
    service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was set back between its naming the snapshot and its being asked for it."""
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    await service.call("POST", "j/resync", json={"reason": "looks wrong"})
    receive, gone = download._receive, list[str]()

    async def too_late(http: Any, journal: str, path: str, *rest: Any) -> Any:
        if not gone:
            gone.append(path)
            path += "0"
        return await receive(http, journal, path, *rest)

    monkeypatch.setattr(download, "_receive", too_late)

    await replica.sync()

    assert gone
    assert await whole(replica) == {"todo": {"a": {"n": 1}}}


async def test_a_sync_waits_as_long_as_the_operator_said(service: Harness, opened: Opener) -> None:
    told: list[Progress] = []
    replica = await opened(progress=told.append)
    await service.pushed([insert("todo", "a")])
    await replica.sync()
    begun = asyncio.get_running_loop().time()
    await service.call("POST", "j/resync", json={"reason": "slowly", "spread_s": 4})

    await replica.sync()

    [wait] = [now.total for now in told if now.phase == "wait"] or [0]
    assert asyncio.get_running_loop().time() - begun >= (wait or 0)
    assert await whole(replica) == {"todo": {"a": {"n": 1}}}


async def test_recovering_ends_with_an_error_where_it_leads_nowhere(
    service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here somebody resyncs everyone whenever it asks for deltas."""
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    ask = replica._syncing.journal.deltas

    async def called_back(*arguments: Any, **named: Any) -> Any:
        await service.call("POST", "j/resync", json={"reason": "again"})
        return await ask(*arguments, **named)

    monkeypatch.setattr(replica._syncing.journal, "deltas", called_back)

    with pytest.raises(NotRecovered, match="ask its operator"):
        await replica.sync()


@pytest.mark.parametrize(
    "statement",
    [
        "update base set revision = 1 where atom = '7'",
        "delete from base where atom = '7'",
        "insert into base (generation, atom, revision, data) select generation, 'ghost', 3, '{}' from collection",
    ],
)
async def test_p11_another_digest_after_a_sync_is_repaired_by_fetching_what_differs(
    service: Harness, opened: Opener, asked: list[str], statement: str
) -> None:
    await service.pushed([insert("todo", f"{n}") for n in range(500)])
    replica = await opened()
    await replica.sync()
    damage(replica, statement)
    damage(replica, "update collection set digest = 0")
    asked.clear()

    await replica.sync()

    assert await whole(replica) == await at_server(service)
    assert "snapshot" not in paths(asked)
    assert len(asked) < 10


async def test_p11_damaged_data_is_found_by_verify_and_nothing_else_is_fetched(
    service: Harness, opened: Opener, asked: list[str]
) -> None:
    await service.pushed([insert("todo", f"{n}") for n in range(500)])
    replica = await opened()
    await replica.sync()
    damage(replica, "update base set data = '{\"n\": 7}' where atom in ('7', '8')")
    asked.clear()

    mended = await replica.verify()

    assert mended == 2
    assert await whole(replica) == await at_server(service)
    assert "snapshot" not in paths(asked)


async def test_an_update_of_what_is_not_there_shows_that_the_replica_is_damaged(
    service: Harness, opened: Opener
) -> None:
    await service.pushed([insert("todo", "a", {"n": 1, "m": 1}), insert("todo", "b", {"n": 1})])
    replica = await opened()
    await replica.sync()
    damage(replica, "delete from base where atom = 'a'")
    damage(replica, "update base set data = '{\"n\": 5}' where atom = 'b'")
    await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1, "m": 1})])

    await replica.sync()

    assert await whole(replica) == {"todo": {"a": {"n": 2, "m": 1}, "b": {"n": 1}}}


async def test_trap_20_an_atom_that_repair_fetched_ahead_of_the_cursor_leaves_no_ghost(
    service: Harness, opened: Opener
) -> None:
    """It was born after the cursor, is looked up, and is deleted again before the next round."""
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    await service.pushed([insert("todo", "ghost")])
    found = await replica._syncing.journal.lookup([("todo", "ghost")])

    await replica._engine.write(lambda db: pulled.mend(db, found, cursor=None))
    await service.pushed([delete("todo", "ghost", if_data={"n": 1})])

    await replica.sync()

    assert await whole(replica) == {"todo": {"a": {"n": 1}}}
    assert rows(replica, "select * from ahead") == []


class Restorable:
    """A service whose database is backed up, and restored under another address."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder, self.backups = dsn, folder, 0

    async def backup(self) -> str:
        """A copy of the database as it is; nobody is connected to it."""
        self.backups += 1
        name = f"{self.dsn.partition('?')[0].rpartition('/')[2]}_{self.backups}"
        admin = await asyncpg.connect(named(self.dsn, "postgres"))
        try:
            origin = self.dsn.partition("?")[0].rpartition("/")[2]
            await admin.execute(f'create database "{name}" template "{origin}" strategy file_copy')
        finally:
            await admin.close()
        return named(self.dsn, name)


@pytest.fixture
async def restorable(database: str, tmp_path: Path) -> AsyncIterator[Restorable]:
    found = Restorable(database, tmp_path)
    yield found
    admin = await asyncpg.connect(named(database, "postgres"))
    for number in range(1, found.backups + 1):
        name = f"{database.partition('?')[0].rpartition('/')[2]}_{number}"
        await admin.execute(f'drop database if exists "{name}" with (force)')
    await admin.close()


@pytest.mark.parametrize("way", ["future", "diverged", "epoch"])
async def test_p9_what_a_restored_server_lost_of_acknowledged_pushes_is_offered_again(
    restorable: Restorable, tmp_path: Path, way: str
) -> None:
    path = tmp_path / "phone.db"

    async def at(service: Harness) -> Replica:
        return Replica.open(path, f"{service.url}/v1/journals/j")

    async with serving(restorable.dsn, tmp_path) as service:
        await service.create()
        await service.pushed([insert("todo", "old"), insert("todo", "theirs", {"v": 1})])
        async with await at(service) as replica:
            await replica.collection("todo").insert("kept", {"n": 1})
            await replica.sync()
    backup = await restorable.backup()
    async with serving(restorable.dsn, tmp_path) as service:
        async with await at(service) as replica:
            await replica.collection("todo").update("kept", {"n": 2})
            await replica.collection("todo").insert("lost", {"n": 3})
            await replica.sync()
            await replica.collection("todo").delete("old")
            await replica.sync()
        await service.pushed([put("todo", "theirs", {"v": 2}, if_data={"v": 1})])
        async with await at(service) as replica:
            await replica.sync()
            await replica.collection("todo").insert("unsent", {"n": 4})

    async with serving(backup, tmp_path) as service:
        if way == "epoch":
            assert (await service.call("POST", "j/restored", json={})).status == 200
        elif way == "diverged":
            await service.pushed([insert("other", f"{n}") for n in range(9)])
        async with await at(service) as replica:
            await replica.sync()

            expected = {"kept": {"n": 2}, "lost": {"n": 3}, "theirs": {"v": 1}, "unsent": {"n": 4}}
            assert (await at_server(service))["todo"] == expected
            assert await whole(replica) == await at_server(service)
            assert await replica.conflicts() == []
            assert (await replica.status()).pending == 0
            history = (await service.call("GET", "j/atom/history?collection=todo&atom=lost")).json["changes"]
            assert [entry["op"] for entry in history] == ["insert"]


async def test_what_was_acknowledged_is_kept_for_seven_days_unless_told_otherwise(
    service: Harness, opened: Opener
) -> None:
    replica = await opened()
    for days in (8, 7.1, 6.9):
        await replica.collection("todo").insert(f"{days}", {})
        await replica.sync()
        ago = days * 86_400
        damage(replica, f"update push set answered = answered - {ago} where number = (select max(number) from push)")
    await replica.close()

    replica = await opened()
    await replica.sync()
    kept = rows(replica, "select atom from change")
    await replica.close()
    replica = await opened(keep_days=6)
    await replica.sync()

    assert kept == [("6.9",)]
    assert rows(replica, "select (select count(*) from push) + (select count(*) from change)") == [(0,)]
    assert await replica.collection("todo").count() == 3


async def test_what_had_been_refused_is_refused_again_by_a_restored_server(
    restorable: Restorable, tmp_path: Path
) -> None:
    """It is offered with what was acknowledged beside it, and somebody has decided meanwhile that it is not to be."""
    path = tmp_path / "phone.db"
    async with serving(restorable.dsn, tmp_path) as service:
        await service.create()
        await service.pushed([insert("todo", "a"), insert("todo", "b")])
        async with Replica.open(path, f"{service.url}/v1/journals/j") as replica:
            await replica.sync()
    backup = await restorable.backup()
    async with serving(restorable.dsn, tmp_path) as service:
        await service.pushed([update("todo", "b", {"n": 2}, if_data={"n": 1})])
        async with Replica.open(path, f"{service.url}/v1/journals/j") as replica:
            await replica.collection("todo").update("a", {"m": 1})
            await replica.collection("todo").update("b", {"m": 1})
            await replica.sync()
            [conflict] = await replica.conflicts()
            await replica.settle(conflict, "server")

    async with (
        serving(backup, tmp_path) as service,
        Replica.open(path, f"{service.url}/v1/journals/j") as replica,
    ):
        await replica.sync()

        assert await at_server(service) == {"todo": {"a": {"n": 1, "m": 1}, "b": {"n": 1}}}
        assert await whole(replica) == await at_server(service)
        assert await replica.conflicts() == []


async def test_a_sync_that_is_cut_goes_on_in_the_middle_of_its_round(
    service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    for n in range(5):
        await service.pushed([insert("todo", f"{n}"), insert("todo", f"{n}x")])
    monkeypatch.setattr("journal.client.pulling.PAGE", 2)
    ask, left = replica._syncing.journal.deltas, 3

    async def cut(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Unreachable(service.url, "cut")
        return await ask(*arguments, **named)

    monkeypatch.setattr(replica._syncing.journal, "deltas", cut)
    with pytest.raises(Unreachable):
        await replica.sync()
    [(cursor,)] = rows(replica, "select value from meta where name = 'cursor'")
    asked.clear()
    left = -1
    await replica.sync()

    assert ":base=" in cursor
    assert len(asked) == 3
    assert await whole(replica) == await at_server(service)


async def test_a_client_that_was_forgotten_takes_a_new_id_and_loses_nothing(service: Harness, opened: Opener) -> None:
    replica = await opened()
    await replica.collection("todo").insert("a", {"n": 1})
    await replica.sync()
    before = (await replica.status()).client
    await eventually(lambda: _is_registered(service, before))
    assert (await service.call("DELETE", f"j/clients/{before}")).status == 204
    await replica.collection("todo").insert("b", {"n": 1})

    await replica.sync()

    assert await whole(replica) == await at_server(service) == {"todo": {"a": {"n": 1}, "b": {"n": 1}}}
    assert (await replica.status()).client != before


async def _is_registered(service: Harness, client: str) -> bool:
    return (await service.call("GET", f"j/clients/{client}")).status == 200
