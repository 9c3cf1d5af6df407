"""A replica with a token: what it may read is here, what it may not is not, and without one nothing is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from journal.client import NoToken, Refused, Replica
from journal.client.pulled import whole_digest
from journal.core.grants import Grant
from journal.service.access import new_token
from journal.store import doors
from tests.doors import Bearer, bearer, database_of, may
from tests.harness import Harness, Json, eventually, insert, update
from tests.replica.conftest import Opener
from tests.replica.facts import at_server, in_base
from tests.replica.test_pushing import Requests
from tests.replica.test_pushing import requests as requests
from tests.replica.test_replica import contents

ALL = may("read", "write", journal="j")


@pytest.fixture
async def others(service: Harness) -> Bearer:
    """Somebody who writes everything, and has written an atom in each of three collections."""
    writer = await bearer(service, ALL, name="others")
    await pushed(writer, *(insert(name, "theirs", {"of": name}) for name in ("a", "b", "c")))
    return writer


async def pushed(who: Bearer, *changes: Json) -> None:
    """Have somebody push."""
    reply = await who.call("POST", "j/changes", json={"changes": changes})
    assert reply.status == 200, reply.body


async def grant(service: Harness, who: Bearer, *grants: Grant) -> None:
    """Give a token other grants, and have the service know."""
    assert await doors.grant(database_of(service), who.number, grants)
    await service.service.access.begin()


async def revoke(service: Harness, who: Bearer) -> None:
    """Revoke a token, and have the service know."""
    assert await doors.revoke(database_of(service), who.number, by="a test")
    await service.service.access.begin()


async def rotate(service: Harness, who: Bearer) -> str:
    """Give a token another secret, and have the service know."""
    text, hash_ = new_token(is_operators=False)
    assert await doors.rotate(database_of(service), who.number, hash_, None)
    await service.service.access.begin()
    return text


async def seen(replica: Replica) -> dict[str, Json]:
    """Everything that can be read of it, by collection."""
    return {name: await contents(replica, name) for name in await replica.collections()}


async def see_that_it_has(replica: Replica, service: Harness, *names: str) -> None:
    """It has the server's atoms of these collections and no others, neither in sight nor in the file."""
    there = {key: held for key, held in (await at_server(service)).items() if key[0] in names}
    assert await in_base(replica) == there
    rows, digests = await replica._reader.read(
        lambda db: (db.execute("select count(*) from base").fetchone()[0], whole_digest(db, frozenset(names)))
    )
    assert rows == len(there)
    total = await bearer(service, may("read", journal="j", of=",".join(names)))
    assert (await total.call("GET", "j")).json["digest"] == digests


def stands(replica: Replica, state: str) -> Callable[[], Awaitable[bool]]:
    """Whether it is in a state."""

    async def does() -> bool:
        return (await replica.status()).state == state

    return does


def has(replica: Replica, collection: str, atom: str) -> Callable[[], Awaitable[bool]]:
    """Whether it has an atom."""

    async def does() -> bool:
        return atom in (await seen(replica)).get(collection, {})

    return does


# Who it is.


async def test_who_is_not_let_in_loses_nothing_and_goes_on_with_a_new_token(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL)
    replica: Replica = await opened(token="jc_" + "x" * 43)
    await replica.collection("a").insert("mine", {})

    with pytest.raises(Refused) as refused:
        await replica.sync()
    status = await replica.status()
    replica.renew(phone.text)
    await replica.sync()

    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
    assert (status.state, status.pending) == ("unauthenticated", 1)
    assert (await replica.status()).state == "idle"
    assert ("a", "mine") in await at_server(service)


async def test_in_the_background_it_waits_for_a_new_token_and_goes_on_at_once(
    service: Harness, others: Bearer, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.client.live.LONGEST_PAUSE_S", 600.0)
    first, second = await bearer(service, ALL), await bearer(service, ALL)
    replica: Replica = await opened(token=first.text)
    await replica.start()
    await eventually(stands(replica, "following"))

    await revoke(service, first)

    await eventually(stands(replica, "unauthenticated"))
    await replica.collection("a").insert("mine", {})
    assert (await replica.status()).error is not None
    replica.renew(second.text)
    await eventually(stands(replica, "following"))
    assert ("a", "mine") in await at_server(service)
    assert (await replica.status()).error is None


async def test_a_token_is_asked_for_when_there_is_none_and_once_when_one_is_refused(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL)
    secret, asked = [phone.text], [0]

    async def give() -> Any:
        asked[0] += 1
        return secret[0]

    replica: Replica = await opened(token=give)
    await replica.sync()
    await replica.sync()
    assert asked == [1]
    secret[0] = await rotate(service, phone)
    await replica.collection("a").insert("mine", {})
    await replica.sync()

    assert asked == [2]
    assert ("a", "mine") in await at_server(service)
    client = (await replica.status()).client
    await rotate(service, phone)
    with pytest.raises(Refused):
        await replica.sync()
    assert asked == [3]
    assert (await replica.status()).client == client


async def test_what_gives_no_token_is_told_and_nothing_is_lost(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL)
    is_away = [True]

    async def give() -> Any:
        if is_away[0]:
            raise OSError("no way there")
        return phone.text

    replica: Replica = await opened(token=give)
    await replica.collection("a").insert("mine", {})
    with pytest.raises(NoToken, match="no way there"):
        await replica.sync()
    await replica.start()
    await eventually(stands(replica, "offline"))
    is_away[0] = False
    replica.wake()
    await eventually(stands(replica, "following"))

    assert ("a", "mine") in await at_server(service)


async def test_what_cannot_be_a_token_is_not_sent(opened: Opener) -> None:
    with pytest.raises(ValueError, match="printable") as refused:
        await opened(token="secret\r\nX-Other: 1")

    assert "secret" not in str(refused.value)


async def test_p6_a_file_that_another_caller_goes_on_with_takes_a_new_id_and_doubles_nothing(
    service: Harness, others: Bearer, opened: Opener, requests: Requests
) -> None:
    first, second = await bearer(service, ALL), await bearer(service, ALL)
    replica: Replica = await opened(token=first.text)
    await replica.sync()
    await replica.collection("a").update("theirs", {"n": 1})
    client, requests.lost = (await replica.status()).client, 1
    with pytest.raises(Exception, match="does not answer"):
        await replica.sync()
    await replica.collection("a").insert("mine", {})

    replica.renew(second.text)
    await replica.sync()

    status = await replica.status()
    assert (status.client == client, status.pending, status.conflicts) == (False, 0, 0)
    changes = (await others.call("GET", "j/changes?since=0")).json["commits"]
    told = [(change["atom"], change.get("data")) for commit in changes for change in commit["changes"]]
    assert told[3:] == [("theirs", {"n": 1}), ("mine", {})]
    await see_that_it_has(replica, service, "a", "b", "c")


# What it may read.


async def test_a_replica_of_everything_is_of_what_it_may_read(service: Harness, others: Bearer, opened: Opener) -> None:
    phone = await bearer(service, may("read", "write", journal="j", of="a,b"))
    replica: Replica = await opened(token=phone.text)
    await replica.sync()
    await see_that_it_has(replica, service, "a", "b")

    await pushed(others, update("a", "theirs", {"n": 2}, if_data={"of": "a"}), insert("c", "more"))
    await replica.collection("b").insert("mine", {})
    await replica.sync()

    await see_that_it_has(replica, service, "a", "b")
    assert await replica.verify() == 0


@pytest.mark.parametrize("page", [1, 2, 10_000])
async def test_pages_of_what_it_may_read_come_to_their_end(
    service: Harness, others: Bearer, opened: Opener, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("journal.client.pulling.PAGE", page)
    phone = await bearer(service, may("read", journal="j", of="a,b"))
    replica: Replica = await opened(token=phone.text)
    await replica.sync()
    for n in range(5):
        await pushed(others, insert("a", f"{n}"))
        await pushed(others, insert("c", f"{n}"))

    await replica.sync()

    await see_that_it_has(replica, service, "a", "b")


async def test_p10_what_a_replica_of_everything_may_read_changes_and_it_has_that(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL)
    replica: Replica = await opened(token=phone.text)
    await replica.sync()
    await see_that_it_has(replica, service, "a", "b", "c")

    for names in ("a", "a,c", "b", "a,b,c"):
        await grant(service, phone, may("read", "write", journal="j", of=names))
        await pushed(others, insert("b", f"at {names}"))
        await replica.sync()
        await see_that_it_has(replica, service, *names.split(","))

    await grant(service, phone, ALL)
    await replica.sync()
    await see_that_it_has(replica, service, "a", "b", "c")
    assert await replica.verify() == 0


async def test_p10_what_a_replica_of_named_collections_may_read_changes_and_it_has_that(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL)
    replica: Replica = await opened(token=phone.text, collections=["a", "b"])
    await replica.sync()

    for names in ("a,c", "a,b,c", "b", "b,c", "a,b"):
        await grant(service, phone, may("read", "write", journal="j", of=names))
        await pushed(others, insert("a", f"at {names}"))
        await replica.sync()
        readable = {"a", "b"} & set(names.split(","))
        await see_that_it_has(replica, service, *readable)
        assert (await replica.status()).taken == sorted({"a", "b"} - readable)

    await grant(service, phone, ALL)
    await replica.sync()
    await see_that_it_has(replica, service, "a", "b")


async def test_what_was_taken_away_stays_away_over_a_restart(service: Harness, others: Bearer, opened: Opener) -> None:
    phone = await bearer(service, ALL)
    replica: Replica = await opened(token=phone.text, collections=["a", "b"])
    await replica.sync()
    await grant(service, phone, may("read", "write", journal="j", of="a"))
    await replica.sync()
    await replica.close()

    replica = await opened(token=phone.text, collections=["a", "b"])
    await replica.sync()
    await replica.start()
    await eventually(stands(replica, "following"))

    await see_that_it_has(replica, service, "a")
    assert (await replica.status()).taken == ["b"]


async def test_where_all_that_is_wanted_is_taken_away_nothing_of_it_is_left_and_the_status_says_why(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL)
    replica: Replica = await opened(token=phone.text, collections=["a", "b"])
    await replica.sync()
    await replica.collection("a").update("theirs", {"mine": 1})

    await grant(service, phone, may("read", "write", journal="j", of="c"))
    with pytest.raises(Refused, match="the collections that may be read: c"):
        await replica.sync()
    status = await replica.status()
    assert (status.state, status.taken, status.pending, status.conflicts) == ("forbidden", ["a", "b"], 0, 1)
    assert await in_base(replica) == {}
    assert await seen(replica) == {}

    await grant(service, phone, ALL)
    await replica.sync()
    await see_that_it_has(replica, service, "a", "b")


async def test_what_it_never_might_read_is_forbidden_and_told(service: Harness, others: Bearer, opened: Opener) -> None:
    phone = await bearer(service, may("read", journal="j", of="a,b"))
    replica: Replica = await opened(token=phone.text, collections=["b", "c"])

    with pytest.raises(Refused) as refused:
        await replica.sync()
    alone = await replica.status()
    await replica.start()
    await eventually(stands(replica, "forbidden"))

    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    for status in (alone, await replica.status()):
        assert status.state == "forbidden"
        assert "the collections that may be read: a, b" in str(status.error)


async def test_a_stream_follows_what_may_be_read(service: Harness, others: Bearer, opened: Opener) -> None:
    phone = await bearer(service, may("read", "write", journal="j", of="a,b"))
    everything: Replica = await opened("everything", token=phone.text)
    named: Replica = await opened("named", token=phone.text, collections=["a", "b"])
    replicas = [everything, named]
    for replica in replicas:
        await replica.start()
        await eventually(stands(replica, "following"))

    await pushed(others, insert("a", "1"), insert("c", "1"))
    for replica in replicas:
        await eventually(has(replica, "a", "1"))
        assert "c" not in await seen(replica)

    await grant(service, phone, may("read", "write", journal="j", of="a"))

    async def is_gone() -> bool:
        return not any(["b" in await seen(replica) for replica in replicas])

    await eventually(is_gone)
    await pushed(others, insert("a", "2"), insert("b", "2"))
    for replica in replicas:
        await eventually(has(replica, "a", "2"))
    await grant(service, phone, ALL)
    await eventually(has(everything, "c", "1"))
    named.renew(phone.text)
    await eventually(has(named, "b", "2"))


# What it may write.


async def test_p9_what_may_not_be_written_leaves_the_queue_and_is_kept(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, may("read", journal="j"), may("read", "write", journal="j", of="a"))
    replica: Replica = await opened(token=phone.text)
    await replica.sync()
    await replica.collection("b").update("theirs", {"mine": 1})
    await replica.collection("a").insert("mine", {})
    async with replica.transaction():
        await replica.collection("a").insert("with it", {})
        await replica.collection("b").insert("without", {})

    await replica.sync()

    kept = {(conflict.collection, conflict.atom): conflict for conflict in await replica.conflicts()}
    assert {key: conflict.status for key, conflict in kept.items()} == {
        ("b", "theirs"): "rejected", ("a", "with it"): "not_applied", ("b", "without"): "rejected",
    }  # fmt: skip
    assert str(kept["b", "theirs"].error).startswith("forbidden: ")
    assert kept["b", "theirs"].mine == {"of": "b", "mine": 1}
    assert kept["b", "theirs"].theirs == {"of": "b"}
    await see_that_it_has(replica, service, "a", "b", "c")
    assert ("a", "mine") in await at_server(service)


async def test_p9_what_is_written_where_nothing_may_be_is_kept_and_reading_goes_on(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    """A push is refused as a whole then: it must not stand before what is to be pulled for ever."""
    phone = await bearer(service, may("read", journal="j"))
    replica: Replica = await opened(token=phone.text)
    await replica.collection("a").insert("first", {})
    await replica.sync()
    await replica.collection("a").insert("second", {})
    await pushed(others, insert("a", "more"))

    await replica.sync()

    assert [(one.atom, one.status) for one in await replica.conflicts()] == [
        ("first", "rejected"), ("second", "rejected"),
    ]  # fmt: skip
    await see_that_it_has(replica, service, "a", "b", "c")
    assert "more" in await contents(replica, "a")


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_p9_a_push_without_an_answer_that_may_not_be_sent_again_is_judged_by_the_data(
    service: Harness, others: Bearer, opened: Opener, requests: Requests, *, is_recorded: bool
) -> None:
    phone = await bearer(service, ALL)
    replica: Replica = await opened(token=phone.text)
    await replica.sync()
    await replica.collection("a").insert("mine", {"n": 1})
    if is_recorded:
        requests.lost = 1
    else:
        requests.unsent = 1
    with pytest.raises(Exception, match="does not answer"):
        await replica.sync()

    await grant(service, phone, may("read", journal="j"))
    await replica.sync()

    assert ("a", "mine") in await at_server(service) or not is_recorded
    kept = [(one.atom, one.status, one.mine) for one in await replica.conflicts()]
    assert kept == ([] if is_recorded else [("mine", "forgotten", {"n": 1})])
    await see_that_it_has(replica, service, "a", "b", "c")


# Until when.


async def test_before_its_token_ends_a_stream_goes_on_with_another_and_misses_nothing(
    service: Harness, others: Bearer, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lives for two seconds; no request is ever made with one that has ended."""
    statuses, given = list[int](), list[str]()
    request = aiohttp.ClientSession._request

    async def noted(self: aiohttp.ClientSession, *arguments: Any, **options: Any) -> aiohttp.ClientResponse:
        response = await request(self, *arguments, **options)
        if "User-Agent" in self.headers:
            statuses.append(response.status)
        return response

    monkeypatch.setattr(aiohttp.ClientSession, "_request", noted)

    async def give() -> Any:
        phone = await bearer(service, ALL, ends_in_s=2.0)
        given.append(str(phone.text))
        return phone.text

    replica: Replica = await opened(token=give)
    await replica.start()
    names = list[str]()
    async with asyncio.timeout(20):
        while len(given) < 4:
            names.append(f"{len(names)}")
            await pushed(others, insert("a", names[-1]))
            await eventually(has(replica, "a", names[-1]))
            await asyncio.sleep(0.1)

    assert set(statuses) <= {200, 403}  # 403: each is another caller, to whom the client's id does not belong
    assert {*names, "theirs"} == set(await contents(replica, "a"))


async def test_a_token_that_ends_without_another_stops_the_stream_in_time(
    service: Harness, others: Bearer, opened: Opener
) -> None:
    phone = await bearer(service, ALL, ends_in_s=1.0)
    replica: Replica = await opened(token=phone.text)
    await replica.start()
    await eventually(stands(replica, "following"))

    await eventually(stands(replica, "unauthenticated"), seconds=5)

    assert "a" in await seen(replica)
    status = await replica.status()
    assert status.error is not None
    assert str(phone.text) not in status.error


async def test_the_blocking_one_takes_a_token_and_another(service: Harness, others: Bearer, tmp_path: Any) -> None:
    phone = await bearer(service, may("read", journal="j", of="a"))

    def script() -> list[str]:
        with Replica.open_sync(tmp_path / "b.db", f"{service.url}/v1/journals/j", token="nobody") as replica:
            with pytest.raises(Refused):
                replica.sync()
            assert replica.status().state == "unauthenticated"
            replica.renew(phone.text)
            replica.sync()
            return replica.collections()

    assert await asyncio.to_thread(script) == ["a"]
