"""PostgreSQL away and back, by real means: a proxy that refuses, cuts and swallows answers, and terminated backends.

While it is away, what needs it is told so quickly and memory answers the rest. When it is back, the service is too,
by itself; and whatever could be told apart by a number was recorded exactly once.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.harness import Harness, Json, Reply, blocked_on_lock, eventually, insert, serving, update
from tests.proxy import Proxy, proxied

QUICKLY_S = 6.0


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    """What stands between the service and its database."""
    async with proxied(database) as running:
        yield running


@pytest.fixture
async def service(proxy: Proxy, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service behind the proxy, which learns of others by notifications alone."""
    async with serving(proxy.dsn, tmp_path, poll_s=3600.0) as running:
        await running.create("j")
        yield running


@pytest.fixture
async def other(database: str, service: Harness, tmp_path: Path) -> AsyncIterator[Harness]:
    """Another process, which the proxy does not concern."""
    async with serving(database, tmp_path) as running:
        yield running


async def quickly(service: Harness, method: str, path: str, **arguments: Any) -> Reply:
    """A call that is answered soon, whatever the answer."""
    begun = time.monotonic()
    reply = await service.call(method, path, **arguments)
    assert time.monotonic() - begun < QUICKLY_S
    return reply


def is_unavailable(reply: Reply) -> bool:
    """Whether all is said that a client needs to come back."""
    return (
        reply.status == 503
        and reply.json["code"] == "unavailable"
        and reply.headers["Content-Type"] == "application/problem+json"
        and int(reply.headers["Retry-After"]) > 0
    )


async def is_heard(service: Harness, other: Harness) -> None:
    """What another process records is known here, by a notification."""
    answer = await other.pushed([insert("heard", f"{uuid4()}")])

    async def is_known() -> bool:
        return bool((await service.head())["head"] >= answer["head"])

    await eventually(is_known)


async def recorded(service: Harness) -> list[tuple[str | None, int | None]]:
    """Who pushed what, by the record."""
    commits = (await service.call("GET", "j/changes?since=0&limit=10000")).json["commits"]
    assert [commit["first"] for commit in commits] == [1, *(commit["revision"] + 1 for commit in commits[:-1])][
        : len(commits)
    ]
    return [(commit["client"], commit["push"]) for commit in commits]


async def terminated(dsn: str, application: str = "journal%") -> int:
    """Terminate the service's backends; how many there were."""
    connection = await asyncpg.connect(dsn)
    try:
        found: int = await connection.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and application_name like $1",
            application,
        )
        return found
    finally:
        await connection.close()


# Away.


async def test_while_postgresql_is_away_what_needs_it_says_so_quickly(service: Harness, proxy: Proxy) -> None:
    await service.pushed([insert("todo", "a")])
    proxy.refuse()

    changes = {"changes": [insert("todo", "b")]}
    replies = [
        await quickly(service, "POST", "j/changes", json=changes),
        await quickly(service, "POST", "j/changes", json=changes | {"client": str(uuid4()), "push": 1}),
        await quickly(service, "POST", "j/changes", json=changes, headers={"Idempotency-Key": "k"}),
        await quickly(service, "GET", "unknown"),
        await quickly(service, "POST", "unknown/changes", json=changes),
        await quickly(service, "PUT", "new"),
        await quickly(service, "DELETE", "j"),
        await quickly(service, "PUT", "j/collections", json={"collection": "todo", "policy": "merge"}),
        await quickly(service, "GET", "j/deltas?since=0&include=meta"),
        await quickly(service, "GET", "j/deltas?since=0&until=1"),
        await quickly(service, "GET", "j/changes?since=0"),
        await quickly(service, "GET", "j/snapshot"),
        await quickly(service, "GET", "j/atom?collection=todo&atom=a"),
        await quickly(service, "GET", "/v1/journals"),
        await quickly(service, "GET", f"j/deltas?since={'0' * 12}:1:{'0' * 16}"),
    ]

    assert [reply.status for reply in replies if not is_unavailable(reply)] == []


async def test_while_postgresql_is_away_many_are_told_so_quickly(service: Harness, proxy: Proxy) -> None:
    await service.pushed([insert("todo", "a")])
    proxy.refuse()

    replies = await asyncio.gather(
        *(quickly(service, "POST", "j/changes", json={"changes": [insert("todo", f"{n}")]}) for n in range(50)),
        *(
            quickly(service, "POST", "j/changes", json={"changes": [], "client": str(uuid4()), "push": 1})
            for _ in range(50)
        ),
        *(quickly(service, "GET", "j/snapshot") for _ in range(20)),
    )

    assert all(is_unavailable(reply) for reply in replies)


async def test_while_postgresql_is_away_memory_answers(service: Harness, proxy: Proxy) -> None:
    start = (await service.head())["cursor"]
    await service.pushed([insert("todo", "a")])
    middle = await service.head()
    await service.pushed([insert("todo", "b")])
    proxy.refuse()

    head = await quickly(service, "GET", "j")
    up_to_date = await service.deltas(head.json["cursor"])
    from_tail = [await service.deltas(since) for since in (start, middle["cursor"], 0, 1)]
    waited = await quickly(service, "GET", "j/deltas", params={"since": head.json["cursor"], "wait": "1"})
    collections = await quickly(service, "GET", "j/collections")

    assert (head.status, head.json["head"], collections.status) == (200, 2, 200)
    assert (up_to_date.status, up_to_date.json["deltas"], waited.json["deltas"]) == (200, [], [])
    assert [len(reply.json["deltas"]) for reply in from_tail] == [2, 1, 2, 1]


async def test_p8_what_memory_cannot_prove_is_not_denied_while_postgresql_is_away(
    service: Harness, proxy: Proxy
) -> None:
    await service.pushed([insert("todo", "a")])
    epoch, _, chain = (await service.head())["cursor"].split(":")
    proxy.refuse()

    for wrong in (f"{epoch}:2:{chain}", f"{epoch}:1:{'0' * 16}", f"{'0' * 12}:1:{chain}"):
        assert is_unavailable(await service.deltas(wrong))
        assert is_unavailable(await service.push([insert("todo", "b")], base=wrong))


# And back.


async def test_when_postgresql_is_back_the_service_is_too(service: Harness, other: Harness, proxy: Proxy) -> None:
    await service.pushed([insert("todo", "a")])
    for n in range(3):
        proxy.refuse()
        assert is_unavailable(await service.push([insert("todo", "b")]))
        answer = await other.pushed([insert("todo", f"meanwhile {n}")])
        await proxy.accept()

        async def has_learnt(head: int = answer["head"]) -> bool:
            return bool((await service.head())["head"] == head)

        await eventually(has_learnt)
        assert (await service.pushed([insert("todo", f"after {n}")]))["revision"] == answer["head"] + 1
        await is_heard(service, other)


@pytest.mark.parametrize("how", ["cut", "terminate"])
async def test_connections_that_broke_while_idle_are_made_anew(
    service: Harness, other: Harness, proxy: Proxy, how: str
) -> None:
    await service.pushed([insert("todo", "a")])
    for n in range(3):
        if how == "cut":
            proxy.cut()
        else:
            assert await terminated(other.dsn, "journal%") > 0

        async def is_back(n: int = n) -> bool:
            reply = await service.push([insert("todo", f"{n}")], client=str(uuid4()), push=1)
            assert reply.status == 200 or is_unavailable(reply)
            return reply.status == 200

        await eventually(is_back)
        assert (await service.deltas(0, include="meta")).status == 200
        await is_heard(service, other)


async def test_a_listener_that_is_lost_comes_back(service: Harness, other: Harness) -> None:
    for _ in range(3):
        assert await terminated(other.dsn, "journal listen") >= 1

        await is_heard(service, other)


async def test_a_database_that_lets_nobody_in_is_waited_for(
    service: Harness, other: Harness, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As while it is restored: a refusal that is no broken connection."""
    [[name]] = await other.query("select current_database()")
    admin = await asyncpg.connect(database, database="postgres")

    async def is_told() -> bool:
        return any(
            record.name == "asyncpg.pool" and "not currently accepting" in record.message for record in caplog.records
        )

    await admin.execute(f'alter database "{name}" allow_connections false')
    try:
        await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
        assert is_unavailable(await service.push([insert("todo", "a")], client=str(uuid4()), push=1))
        assert not service.service.watch.listener.is_connected
        await eventually(is_told)
    finally:
        await admin.execute(f'alter database "{name}" allow_connections true')
        await admin.close()

    async def is_back() -> bool:
        return (await service.push([insert("todo", "b")], client=str(uuid4()), push=1)).status == 200

    await eventually(is_back)
    await is_heard(service, other)
    assert "Traceback" not in caplog.text


async def test_what_was_missed_while_nobody_listened_is_found(service: Harness, other: Harness, proxy: Proxy) -> None:
    proxy.refuse()
    answer = await other.pushed([insert("todo", "a")])
    await proxy.accept()

    async def is_known() -> bool:
        return bool((await service.head())["head"] == answer["head"])

    await eventually(is_known)


async def test_a_silent_network_holds_up_what_needs_it_and_nothing_else(service: Harness, proxy: Proxy) -> None:
    await service.pushed([insert("todo", "a")])
    proxy.stall()
    pushing = asyncio.create_task(service.push([insert("todo", "b")]))

    head = await quickly(service, "GET", "j")
    tail = await quickly(service, "GET", "j/deltas?since=0")
    proxy.go()
    reply = await pushing

    assert (head.json["head"], len(tail.json["deltas"])) == (1, 1)
    assert (reply.status, reply.json["revision"]) == (200, 2)


# Pushes whose connection broke.

MARK = {"mark": "this one"}


@pytest.mark.parametrize("is_let_through", [False, True], ids=["before it got there", "before its answer came back"])
@pytest.mark.parametrize("kind", ["numbered", "keyed", "plain"])
async def test_p6_a_push_whose_connection_broke_is_recorded_once_if_it_can_be_told_apart(
    service: Harness, proxy: Proxy, kind: str, is_let_through: bool
) -> None:
    await service.pushed([insert("todo", "a")])
    body: Json = {"changes": [insert("todo", "b", MARK)]}
    headers = {"Idempotency-Key": "k"} if kind == "keyed" else {}
    if kind == "numbered":
        body |= {"client": str(uuid4()), "push": 1}
    proxy.trap(b"this one", is_let_through=is_let_through)

    reply = await quickly(service, "POST", "j/changes", json=body, headers=headers)
    again = await service.call("POST", "j/changes", json=body, headers=headers)

    assert proxy.sprung.is_set()
    assert is_unavailable(reply) if kind == "plain" else (reply.status, reply.json["revision"]) == (200, 2)
    assert again.status == 200
    if kind != "plain":
        assert (again.json["replayed"], again.json["outcomes"]) == (True, reply.json["outcomes"])
    elif is_let_through:
        assert again.json["outcomes"][0]["status"] == "unchanged"
    assert (await service.head())["head"] == len(await recorded(service)) == 2


async def test_p6_a_commit_whose_answer_was_lost_is_recorded_once(
    service: Harness, other: Harness, proxy: Proxy
) -> None:
    """Where two processes write, the group is recorded under the lock: then it is COMMIT that is in doubt."""
    who = [str(uuid4()) for _ in range(5)]
    for number in range(1, 6):
        await other.pushed([insert("todo", f"other {number}")])
        await is_heard(service, other)
        proxy.trap(b"COMMIT", is_let_through=number % 2 == 0)

        replies = await asyncio.gather(
            *(service.push([insert("todo", f"{one} {number}")], client=one, push=number) for one in who)
        )

        assert proxy.sprung.is_set()
        assert [reply.status for reply in replies] == [200] * 5
    pushes = [push for push in await recorded(service) if push[0] is not None]
    assert sorted(pushes, key=str) == sorted([(one, number) for one in who for number in range(1, 6)], key=str)


async def test_p6_a_backend_that_is_terminated_in_the_middle_of_recording(service: Harness, other: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    holder = await asyncpg.connect(other.dsn)
    transaction = holder.transaction()
    await transaction.start()
    await holder.fetch("select from journal.head for update")
    who = str(uuid4())
    numbered = asyncio.create_task(service.push([insert("todo", "b")], client=who, push=1))
    plain = asyncio.create_task(service.push([insert("todo", "c")]))
    await blocked_on_lock(other.dsn)

    assert await terminated(other.dsn, "journal write") > 0
    await transaction.rollback()
    await holder.close()

    reply = await numbered
    assert (reply.status, reply.json["outcomes"][0]["status"]) == (200, "applied")
    assert (await plain).status in (200, 503)
    assert [push for push in await recorded(service) if push[0]] == [(who, 1)]
    assert (await service.push([insert("todo", "b")], client=who, push=1)).json["replayed"] is True


async def test_p6_of_a_group_whose_connection_broke_the_numbered_are_recorded_once(
    service: Harness, proxy: Proxy
) -> None:
    await service.pushed([insert("todo", "a")])
    who = [str(uuid4()) for _ in range(20)]
    for number in range(1, 5):
        proxy.trap(b"this one", is_let_through=number % 2 == 0)

        replies = await asyncio.gather(
            *(service.push([insert("todo", f"{one}-{number}", MARK)], client=one, push=number) for one in who),
            *(service.push([insert("todo", f"{n}-{number}", MARK)]) for n in range(20)),
        )

        assert proxy.sprung.is_set()
        assert [reply.status for reply in replies[:20]] == [200] * 20
        assert all(reply.status == 200 or is_unavailable(reply) for reply in replies[20:])
    pushes = await recorded(service)
    assert sorted(push for push in pushes if push[0]) == sorted((one, number) for one in who for number in range(1, 5))


@pytest.mark.parametrize("path", ["j/deltas?since=0&include=meta", "j/snapshot", "j/changes?since=0"])
async def test_a_read_whose_connection_broke_is_never_half_told(service: Harness, proxy: Proxy, path: str) -> None:
    await service.pushed([insert("todo", f"{n}", {"n": "x" * 1000}) for n in range(100)])
    proxy.trap(b"COPY", is_let_through=True, of=b"journal read")

    broken = await quickly(service, "GET", path)
    again = await service.call("GET", path)

    assert proxy.sprung.is_set()
    assert is_unavailable(broken)
    assert again.status in (200, 303)


# A poisonous push.

POISON = """
create function public.poison() returns trigger language plpgsql as $$
begin
  {0};
  return new;
end $$;
create trigger poison before insert on journal.change
for each row when (new.atom = 'poison') execute function public.poison();
"""


async def poisoned(database: str, statement: str) -> None:
    """Let recording an atom of the name `poison` do this."""
    connection = await asyncpg.connect(database)
    await connection.execute(POISON.format(statement))
    await connection.close()


async def with_neighbours(service: Harness, database: str, poison: Json) -> tuple[Reply, list[Reply]]:
    """A push of `poison` and many others, all of one group: the head is held until all of them wait."""
    holder = await asyncpg.connect(database)
    transaction = holder.transaction()
    await transaction.start()
    await holder.fetch("select from journal.head for update")
    first = asyncio.create_task(service.push([insert("todo", "first")], client=str(uuid4()), push=1))
    await blocked_on_lock(database)
    neighbours = [
        asyncio.create_task(service.push([insert("todo", f"{n}")], ("j", "k")[n % 2], client=str(uuid4()), push=1))
        for n in range(10)
    ]
    poisonous = asyncio.create_task(service.call("POST", "j/changes", json=poison))
    neighbours += [
        asyncio.create_task(service.push([insert("todo", f"{n}")], ("j", "k")[n % 2], client=str(uuid4()), push=1))
        for n in range(10, 20)
    ]
    await transaction.rollback()
    await holder.close()
    return await poisonous, [await first, *await asyncio.gather(*neighbours)]


@pytest.mark.parametrize(
    "error", ["raise exception 'no'", "perform 1 / 0", "raise exception 'no' using errcode = '23505'"]
)
async def test_a_poisonous_push_does_not_fail_its_neighbours(service: Harness, database: str, error: str) -> None:
    await service.create("k")
    await service.pushed([insert("todo", "a")])
    await poisoned(database, error)
    body = {"changes": [insert("todo", "poison"), insert("todo", "with it")], "client": str(uuid4()), "push": 1}

    poisonous, neighbours = await with_neighbours(service, database, body)

    assert (poisonous.status, poisonous.json["code"]) == (500, "internal_error")
    assert [reply.status for reply in neighbours] == [200] * 21
    assert len(await recorded(service)) == (await service.head())["head"] == 12

    await service.query("drop trigger poison on journal.change")
    cured = await service.call("POST", "j/changes", json=body)
    assert (cured.status, cured.json["replayed"], cured.json["first"]) == (200, False, 13)


async def test_a_push_that_kills_its_backend_does_not_fail_its_neighbours(service: Harness, database: str) -> None:
    """All of its group were tried with it again and again, until they were told that PostgreSQL is away."""
    await service.create("k")
    await service.pushed([insert("todo", "a")])
    await poisoned(database, "perform pg_terminate_backend(pg_backend_pid())")
    body = {"changes": [insert("todo", "poison")], "client": str(uuid4()), "push": 1}

    poisonous, neighbours = await with_neighbours(service, database, body)

    assert is_unavailable(poisonous)
    assert [reply.status for reply in neighbours] == [200] * 21
    assert len(await recorded(service)) == (await service.head())["head"] == 12


async def test_an_atom_that_could_not_be_recorded_is_not_remembered_as_if_it_were(
    service: Harness, database: str
) -> None:
    await service.pushed([insert("todo", "a")])
    cursor = (await service.head())["cursor"]
    await poisoned(database, "raise exception 'no'")

    failed = await service.push([insert("todo", "poison"), update("todo", "a", {"n": 2})], base=cursor)

    assert failed.status == 500
    told, last = await service.round(0)
    assert ([delta["atom"] for delta in told], last["cursor"]) == (["a"], cursor)
    assert (await service.pushed([update("todo", "a", {"n": 3})], base=cursor))["revision"] == 2
