"""What the stateful machine of tests/property/test_replicas.py has found, each as the shortest way to it."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from journal.client import Replica, Unreachable
from tests.harness import Harness, insert, put
from tests.replica.conftest import Opener
from tests.replicas import staged


async def test_p9_a_transaction_is_kept_that_was_refused_for_what_stands(service: Harness, opened: Opener) -> None:
    """The answer's `current` is JSON, and was no type that the answer could be converted to: every sync failed."""
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    await service.pushed([put("todo", "a", {"n": 2.5}, if_data={"n": 1})])
    async with replica.transaction():
        await replica.collection("todo").update("a", {"n": 3})
        await replica.collection("todo").insert("b", {"n": 4})

    await replica.sync()

    assert [(c.atom, c.status, c.theirs) for c in await replica.conflicts()] == [
        ("a", "conflict", {"n": 2.5}),
        ("b", "not_applied", None),
    ]
    assert await replica.collection("todo").get("a") == {"n": 2.5}


async def test_p8_a_way_back_that_is_cut_off_by_another_resync_is_found_all_the_same(
    service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the missing collection was fetched, an operator asked for a resync: the sync raised the 410."""
    await service.pushed([insert("todo", "a"), insert("visit", "b")])
    replica = await opened(collections=["todo"])
    await replica.sync()
    await replica.close()
    replica = await opened(collections=["todo", "visit"])
    request, is_asked = aiohttp.ClientSession._request, list[bool]()

    async def meddled(self: aiohttp.ClientSession, method: str, url: Any, **arguments: Any) -> Any:
        if "/snapshots/" in str(url) and not is_asked:
            is_asked.append(True)
            await service.call("POST", "j/resync", json={"reason": "chance"})
        return await request(self, method, url, **arguments)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", meddled)

    await replica.sync()

    assert is_asked
    assert await replica.collection("visit").get("b") == {"n": 1}


async def test_trap_17_a_resync_of_one_collection_and_another_that_is_new_here_are_one_way_back(
    service: Harness, opened: Opener
) -> None:
    """Each was replaced by itself while the other was to go on, which it could not: NotRecovered."""
    await service.pushed([insert("todo", "a"), insert("visit", "b"), insert("note", "c")])
    replica = await opened(collections=["todo", "note"])
    await replica.sync()
    await replica.close()
    replica = await opened(collections=["todo", "note", "visit"])
    await service.call("POST", "j/resync", json={"collections": ["todo"], "reason": "chance"})

    await replica.sync()

    assert [await replica.collection(name).count() for name in ("todo", "note", "visit")] == [1, 1, 1]


async def test_p9_what_a_restore_took_is_offered_again_also_when_the_horizon_has_passed_since(
    database: str, tmp_path: Path
) -> None:
    """Compacted past the cursor, a journal that was set back says `horizon` and not `diverged`: nothing was offered."""
    async with staged(database, tmp_path) as stage:
        await stage.call("PUT", "/v1/journals/j")
        async with Replica.open(tmp_path / "phone.db", f"{stage.url}/v1/journals/j") as replica:
            await replica.collection("todo").insert("kept", {"n": 1})
            await replica.sync()
            await stage.keep("j", 0)
            await replica.collection("todo").insert("lost", {"n": 2})
            await replica.sync()
            await stage.set_back("j", 0)
            await stage.call("POST", "/v1/journals/j/changes", {"changes": [insert("todo", f"{n}") for n in range(3)]})
            await stage.call("POST", "/v1/journals/j/compact", {"keep_revisions": 0, "force": True})

            await replica.sync()

            assert await replica.collection("todo").get("lost") == {"n": 2}
            assert ("todo", "lost") in await stage.state("j")


async def test_p9_what_was_acknowledged_ahead_of_the_cursor_is_offered_again_when_a_restore_took_it(
    database: str, tmp_path: Path
) -> None:
    """The cursor was older than the backup, and so still good: nobody noticed, and what was pushed since was let go."""
    async with staged(database, tmp_path) as stage:
        await stage.call("PUT", "/v1/journals/j")
        async with Replica.open(tmp_path / "phone.db", f"{stage.url}/v1/journals/j") as replica:
            await replica.sync()
            await stage.keep("j", 0)
            await replica.collection("todo").insert("lost", {"n": 2})
            await replica._syncing.push()  # as in the background; the process ends before the stream tells of it
            await stage.set_back("j", 0)
            await stage.call("POST", "/v1/journals/j/changes", {"changes": [insert("todo", f"{n}") for n in range(3)]})

            await replica.sync()
            await replica.sync()

            assert ("todo", "lost") in await stage.state("j")
            assert await replica.collection("todo").get("lost") == {"n": 2}


async def test_p9_an_offer_that_was_refused_is_kept_also_where_its_answer_was_lost(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay was taken for that of the first decision, and the change was nowhere."""
    async with staged(database, tmp_path) as stage:
        await stage.call("PUT", "/v1/journals/j")
        async with Replica.open(tmp_path / "phone.db", f"{stage.url}/v1/journals/j") as replica:
            await replica.sync()
            await stage.keep("j", 0)
            await replica.collection("todo").insert("a", {"n": "mine"})
            await replica.sync()
            await stage.set_back("j", 0)
            theirs = [insert("todo", "a", {"n": "theirs"}), insert("todo", "b")]
            await stage.call("POST", "/v1/journals/j/changes", {"changes": theirs})
            push = replica._syncing.journal.push

            async def unheard(body: Any) -> Any:
                await push(body)
                raise Unreachable(stage.url, "cut")

            with monkeypatch.context() as patch:
                patch.setattr(replica._syncing.journal, "push", unheard)
                with pytest.raises(Unreachable):
                    await replica.sync()

            await replica.sync()

            assert [(c.atom, c.mine, c.theirs) for c in await replica.conflicts()] == [
                ("a", {"n": "mine"}, {"n": "theirs"})
            ]
            assert await replica.collection("todo").get("a") == {"n": "theirs"}
