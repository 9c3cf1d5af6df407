"""Which request PostgreSQL works for: application_name says the request's id, in pg_stat_activity and in the log."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.store import migrate, origin
from tests.cluster import Cluster
from tests.harness import Harness, blocked_on_lock, insert, serving


@asynccontextmanager
async def holding(dsn: str, statement: str) -> AsyncIterator[None]:
    """While somebody else's transaction holds what a statement locks."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


async def waiting(service: Harness) -> list[str]:
    """The names of those that wait for a lock."""
    await blocked_on_lock(service.dsn)
    rows = await service.query(
        "select application_name from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database() order by 1"
    )
    return [row["application_name"] for row in rows]


HEADS = "select from journal.head for update"
ATOMS = "lock table journal.atom in access exclusive mode"


@pytest.mark.parametrize(
    ("held", "method", "path", "body", "name"),
    [
        (ATOMS, "GET", "j/deltas?since=0&include=meta", None, "journal read slow-one"),
        (ATOMS, "GET", "j/snapshot", None, "journal read slow-one"),
        (HEADS, "POST", "j/changes", {"changes": [insert("todo", "b")]}, "journal write slow-one"),
        (HEADS, "POST", "j/resync", {"reason": "why not"}, "journal operate slow-one"),
        (HEADS, "POST", "j/erase", {"collection": "todo", "atom": "a"}, "journal operate slow-one"),
    ],
)
async def test_who_looks_at_postgresql_sees_which_request_it_works_for(
    service: Harness, held: str, method: str, path: str, body: object, name: str
) -> None:
    await service.pushed([insert("todo", "a")])

    async with holding(service.dsn, held):
        asking = asyncio.create_task(service.call(method, path, json=body, headers={"X-Request-Id": "slow-one"}))
        seen = await waiting(service)
    answer = await asking

    assert seen == [name]
    assert answer.status in (200, 303)


def test_the_name_of_a_group_counts_who_else_is_in_it() -> None:
    assert origin.named("write", "8f2c-1a", 31) == "journal write 8f2c-1a +31"
    assert origin.named("read", "8f2c-1a") == "journal read 8f2c-1a"
    assert origin.named("read", "") == "journal read"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=128), st.integers(0, 10_000))
def test_whatever_a_client_calls_its_request_the_name_fits_and_needs_no_quoting(request_id: str, others: int) -> None:
    name = origin.named("operate", request_id, others)

    assert len(name) <= origin.LONGEST
    assert name.isascii()
    assert not set(name) & set("'\"\\;$")


async def test_afterwards_a_connection_that_reads_or_records_is_nobodys(service: Harness) -> None:
    for path, body in (("j/changes", {"changes": [insert("todo", "a")]}), ("j/deltas?since=0&include=meta", None)):
        await service.call("GET" if body is None else "POST", path, json=body, headers={"X-Request-Id": "gone"})

    rows = await service.query(
        "select application_name from pg_stat_activity"
        " where datname = current_database() and application_name ~ 'journal (read|write)'"
    )

    assert rows
    assert {row["application_name"] for row in rows} <= {"journal read", "journal write"}  # a pooler may have only one


async def test_the_log_of_postgresql_says_which_request_a_statement_was_for(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "server")
    await cluster.create()
    try:
        await cluster.stop()
        await cluster.start(log_line_prefix="<%a> ", log_min_duration_statement="0")
        await migrate.migrate(cluster.dsn)
        async with serving(cluster.dsn, tmp_path) as service:
            await service.create()
            await service.call(
                "POST", "j/changes", json={"changes": [insert("todo", "a")]}, headers={"X-Request-Id": "push-7"}
            )
            await service.call("GET", "j/deltas?since=0&include=meta", headers={"X-Request-Id": "it's;--"})
            await asyncio.gather(*(service.pushed([insert("todo", f"b{n}")]) for n in range(20)))
    finally:
        await cluster.stop()
    log = (tmp_path / "server" / "log").read_text()
    names = set(re.findall(r"^<(.*?)> LOG:  duration", log, re.M))

    assert {"journal write push-7", "journal read it_s_--"} <= names
    assert any(re.fullmatch(r"journal write \S+ \+\d+", name) for name in names)  # a group: the first, and the others
