"""Operations: 202, progress, an end, and what becomes of one whose process is gone."""

import asyncio
from uuid import UUID, uuid4

import msgspec
import pytest

from journal.errors import Unavailable
from journal.service import operations
from journal.service.operations import Report
from journal.store import operators
from tests.harness import Harness, eventually, insert


class Done(msgspec.Struct):
    """A result."""

    n: int


async def test_what_takes_long_is_answered_with_where_to_ask(service: Harness) -> None:
    reply = await service.call("POST", "j/compact", json={"keep_revisions": 5})

    assert reply.status in (200, 202)
    told = (await service.call("GET", reply.headers["Location"])).json
    assert (told["id"], told["kind"]) == (reply.json["id"], "compact")
    assert reply.headers["Cache-Control"] == "no-store"


async def test_whoever_prefers_to_wait_gets_the_result(service: Harness) -> None:
    reply = await service.call("POST", "j/compact", json={"keep_revisions": 5}, headers={"Prefer": "wait=30"})

    assert (reply.status, reply.json["state"], reply.json["progress"]) == (200, "done", 1.0)
    assert reply.headers["Preference-Applied"] == "wait=30"
    assert reply.json["result"]["horizon"] == 0
    assert reply.json["begun_at"] <= reply.json["ended_at"]


async def test_progress_is_told_while_it_runs_and_the_same_is_not_begun_twice(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "TOLD_EVERY_S", 0.02)
    go_on, begun = asyncio.Event(), 0

    async def work(report: Report) -> msgspec.Struct:
        nonlocal begun
        begun += 1
        report(0.5)
        report(0.25)  # never backwards
        await go_on.wait()
        return Done(7)

    runner = service.service.operations
    first = await runner.start("j", "test", {"a": 1}, work, by="me")
    again = await runner.start("j", "test", {"a": 1}, work, by="you")

    async def half() -> bool:
        return (await runner.one("j", first)).progress == 0.5

    await eventually(half)
    running = (await service.call("GET", f"j/operations/{first}")).json
    go_on.set()
    await runner.wait(first, 10)
    told = (await service.call("GET", f"j/operations/{first}")).json

    assert (first, begun) == (again, 1)
    assert (running["state"], running["result"], running["ended_at"], running["by"]) == ("running", None, None, "me")
    assert (told["state"], told["progress"], told["result"]) == ("done", 1.0, {"n": 7})
    assert (await service.call("GET", "j/operations")).json["operations"] == [told]


@pytest.mark.parametrize(
    ("error", "detail"),
    [(Unavailable("PostgreSQL is away"), "PostgreSQL is away"), (RuntimeError("no"), "an internal error")],
)
async def test_what_goes_wrong_ends_as_failed(service: Harness, error: Exception, detail: str) -> None:
    async def work(report: Report) -> msgspec.Struct:
        raise error

    number = await service.service.operations.start("j", "test", None, work, by="me")
    await service.service.operations.wait(number, 10)

    told = (await service.call("GET", f"j/operations/{number}")).json
    assert told["state"] == "failed"
    assert detail in told["result"]["detail"]


async def test_one_whose_process_is_gone_has_failed(service: Harness) -> None:
    number = uuid4()
    await service.query(
        "insert into journal.operation (journal_id, id, kind, asked, by, begun_at, seen_at)"
        " values (1, $1, 'check', 'null', 'me', now() - interval '2 minutes', now() - interval '1 minute')",
        number,
    )

    told = (await service.call("GET", f"j/operations/{number}")).json

    assert told["state"] == "failed"
    assert "gone" in told["result"]["detail"]


async def test_a_service_that_stops_says_that_what_ran_has_failed(service: Harness) -> None:
    async def work(report: Report) -> msgspec.Struct:
        await asyncio.sleep(3600)
        return Done(1)

    number = await service.service.operations.start("j", "test", None, work, by="me")
    await asyncio.sleep(0.05)
    await service.service.operations.close()

    told = (await service.call("GET", f"j/operations/{number}")).json
    assert (told["state"], told["result"]["detail"]) == ("failed", "the service was stopped")


async def test_how_it_ended_is_the_last_that_is_said(service: Harness) -> None:
    reply = await service.call("POST", "j/compact", json={"keep_revisions": 5}, headers={"Prefer": "wait=30"})
    number = UUID(reply.json["id"])

    await operators.tell(service.service.database, 1, number, 0.5, "running", None)

    assert (await service.call("GET", f"j/operations/{number}")).json == reply.json


async def test_an_operation_of_another_journal_is_not_told(service: Harness) -> None:
    await service.create("k")
    reply = await service.call("POST", "j/compact", json={"keep_revisions": 5}, headers={"Prefer": "wait=30"})

    assert (await service.call("GET", f"k/operations/{reply.json['id']}")).status == 404
    assert (await service.call("GET", f"j/operations/{uuid4()}")).status == 404
    assert (await service.call("GET", "j/operations/1")).status == 404


async def test_figures_tell_what_was_recorded_lately(service: Harness) -> None:
    for n in range(3):
        await service.pushed([insert("todo", f"{n}"), insert("todo", f"{n}b")])
    await service.query("analyze journal.change")

    told = (await service.call("GET", "j/stats")).json

    assert (told["journal"], told["head"], told["atoms"], told["clients"], told["behind"]) == ("j", 6, 6, 0, 0)
    assert told["bytes"] > 0
    assert (sum(b["commits"] for b in told["activity"]), sum(b["changes"] for b in told["activity"])) == (3, 6)
