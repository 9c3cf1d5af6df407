"""What revision should I have? Section 2's answer, from memory."""

from pathlib import Path

import pytest

from tests.harness import Harness, delete, eventually, insert, serving
from tests.oracle import Held, digest
from tests.proxy import proxied


async def test_a_new_journal_is_empty_and_in_an_epoch_of_its_own(service: Harness) -> None:
    await service.create("k")

    j, k = await service.head(), await service.head("k")

    epoch = j.pop("epoch")
    assert j == {
        "journal": "j",
        "head": 0,
        "horizon": 0,
        "chain": "0" * 16,
        "cursor": f"{epoch}:0:{'0' * 16}",
        "digest": "0" * 16,
        "atoms": 0,
    }
    assert len(epoch) == 12
    assert k["epoch"] != epoch


async def test_the_head_tells_revision_chain_digest_and_how_many_atoms_live(service: Harness) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b"), insert("note", "a")])
    answer = await service.pushed([delete("todo", "a")], on_conflict="client")

    head = await service.head()

    live = {("todo", "b"): Held({}, 2), ("note", "a"): Held({}, 3)}
    assert (head["head"], head["chain"], head["atoms"]) == (4, answer["chain"], 2)
    assert head["cursor"] == f"{answer['epoch']}:4:{answer['chain']}"
    assert head["digest"] == digest(live)


async def test_the_cursor_of_the_head_is_one_to_go_on_from(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    head = await service.head()

    reply = await service.deltas(head["cursor"])

    assert (reply.json["deltas"], reply.json["until"]) == ([], 1)


@pytest.mark.parametrize("path", ["j", "j/deltas?since=1"])
async def test_no_query_reaches_the_database_for_who_is_up_to_date(service: Harness, tmp_path: Path, path: str) -> None:
    await service.pushed([insert("todo", "a")])
    async with proxied(service.dsn) as proxy, serving(proxy.dsn, tmp_path) as second:
        known = await second.call("GET", path)

        proxy.refuse()
        replies = [await second.call(method, path) for method in ("GET", "HEAD")]

    assert [reply.status for reply in (known, *replies)] == [200] * 3
    assert replies[0].body == known.body


async def test_no_query_reaches_the_database_for_what_is_in_memory(service: Harness, tmp_path: Path) -> None:
    async with proxied(service.dsn) as proxy, serving(proxy.dsn, tmp_path) as second:
        answer = await second.pushed([insert("todo", "a")])
        since = f"{answer['epoch']}:1:{answer['chain']}"
        await second.pushed([insert("todo", "b"), insert("note", "c")])

        proxy.refuse()
        replies = [await second.deltas(at, collections=names) for at in (0, 1, since) for names in (None, "todo")]

    assert [len(reply.json["deltas"]) for reply in replies] == [3, 2, 2, 1, 2, 1]


async def test_who_has_the_head_is_told_so_in_few_words(service: Harness) -> None:
    tag = (await service.call("GET", "j")).headers["ETag"]

    same = await service.call("GET", "j", headers={"If-None-Match": tag})
    weak = await service.call("GET", "j", headers={"If-None-Match": f'"x", W/{tag}'})
    await service.pushed([insert("todo", "a")])
    other = await service.call("GET", "j", headers={"If-None-Match": tag})

    assert [same.status, weak.status, other.status] == [304, 304, 200]
    assert (same.body, same.headers["ETag"]) == (b"", tag)
    assert other.headers["ETag"] != tag


async def test_a_raised_horizon_is_another_head(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    tag = (await service.call("GET", "j")).headers["ETag"]

    await service.query("update journal.head set horizon = 1, turn = turn + 1")
    await service.query("select pg_notify('journal', journal_id || ':' || turn) from journal.head")

    async def differs() -> bool:
        return (await service.call("GET", "j", headers={"If-None-Match": tag})).status == 200

    await eventually(differs)
    assert (await service.head())["horizon"] == 1


async def test_head_tells_what_get_would_but_for_the_body(service: Harness) -> None:
    told, bodiless = await service.call("GET", "j"), await service.call("HEAD", "j")

    assert (bodiless.status, bodiless.body) == (200, b"")
    for name in ("ETag", "Content-Length", "Content-Type", "Cache-Control", "Vary"):
        assert bodiless.headers[name] == told.headers[name]


async def test_a_parameter_that_there_is_not_is_told(service: Harness) -> None:
    reply = await service.call("GET", "j?since=0")

    assert (reply.status, [fault["pointer"] for fault in reply.json["errors"]]) == (400, ["/since"])


async def test_what_the_service_can_do_is_told(service: Harness) -> None:
    about = (await service.call("GET", "/v1")).json

    assert about["version"] == 1
    assert about["limits"]["changes"] == 10_000
    assert about["policies"] == ["server", "merge", "client", "newest", "both"]
    assert about["forms"] == ["application/json", "application/x-ndjson", "application/msgpack"]
