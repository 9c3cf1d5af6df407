"""Section 5 over HTTP: what a push is told, and what is recorded of it."""

import asyncio
import json
import struct
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import rfc8785
from msgspec import UNSET, Raw, UnsetType

from journal.core.decide import Decision
from journal.core.model import AtomState, Change, Op
from journal.service.group import Standing
from journal.service.tails import Tail
from journal.store.heads import Head
from tests.harness import Harness, Json, Reply, delete, eventually, insert, put, serving, update
from tests.proxy import proxied

CURSORS = ("epoch", "future", "diverged")


async def cursor(service: Harness, j: str = "j") -> str:
    """The cursor of who has everything."""
    told: str = (await service.head(j))["cursor"]
    return told


async def data(service: Harness, collection: str, atom: str) -> Any:
    """An atom's data as it stands; None where it does not live."""
    reply = await service.call("GET", "j/atom", params={"collection": collection, "atom": atom})
    return reply.json["data"] if reply.status == 200 else None


async def set_policy(service: Harness, collection: str, policy: str | None) -> None:
    reply = await service.call("PUT", "j/collections", json={"collection": collection, "policy": policy})
    assert reply.status == 200, reply.body


def statuses(answer: Json) -> list[str]:
    return [outcome["status"] for outcome in answer["outcomes"]]


def pointers(reply: Reply) -> list[str]:
    return [fault["pointer"] for fault in reply.json["errors"]]


# What is told.


async def test_what_is_accepted_becomes_one_commit_that_the_answer_names(service: Harness) -> None:
    await service.pushed([insert("todo", "x")])

    answer = await service.pushed([insert("todo", "a"), insert("todo", "x"), insert("other", "b")])

    head = await service.head()
    assert answer == {
        "epoch": head["epoch"],
        "first": 2,
        "revision": 3,
        "head": 3,
        "chain": head["chain"],
        "outcomes": [
            {"status": "applied", "revision": 2},
            {"status": "unchanged", "revision": 1, "current": {"revision": 1, "data": {"n": 1}}},
            {"status": "applied", "revision": 3},
        ],
        "replayed": False,
    }
    assert [(commit["first"], commit["revision"]) for commit in await record(service)] == [(1, 1), (2, 3)]


async def test_a_push_of_nothing_records_nothing(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    answer = await service.pushed([])

    assert (answer["first"], answer["revision"], answer["head"], answer["outcomes"]) == (None, None, 1, [])
    assert (await service.head())["head"] == 1


async def test_a_push_that_changes_nothing_records_nothing(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    answer = await service.pushed([insert("todo", "a", {"n": 1.0}), delete("todo", "none")], base=await cursor(service))

    assert statuses(answer) == ["unchanged", "unchanged"]
    assert (answer["first"], answer["revision"], answer["head"]) == (None, None, 1)


async def test_put_is_recorded_as_what_it_is(service: Harness) -> None:
    base = await cursor(service)
    await service.pushed([put("todo", "a", {"n": 1})], base=base)

    await service.pushed([put("todo", "a", {"n": 2})], base=await cursor(service))

    changes = [change for commit in await record(service) for change in commit["changes"]]
    assert [change["op"] for change in changes] == ["insert", "replace"]


async def test_a_push_is_seen_by_whoever_asks_after_its_answer(service: Harness) -> None:
    base = await cursor(service)

    answer = await service.pushed([insert("todo", "a", {"n": 1})])

    told, last = await service.round(base)
    assert [(delta["atom"], delta["revision"]) for delta in told] == [("a", answer["revision"])]
    assert (last["until"], (await service.head())["chain"]) == (1, answer["chain"])
    assert [line["atom"] for line in (await service.snapshot())[1:-1]] == ["a"]
    assert await data(service, "todo", "a") == {"n": 1}


# Bases.


async def test_the_pushs_cursor_is_the_base_of_every_change_without_one(service: Harness) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    base = await cursor(service)
    await service.pushed([update("todo", "b", {"n": 2})], base=base)

    answer = await service.pushed([update("todo", "a", {"n": 3}), update("todo", "b", {"n": 3})], base=base)

    assert answer["outcomes"] == [
        {"status": "applied", "revision": 4},
        {"status": "conflict", "current": {"revision": 3, "data": {"n": 2}}},
    ]


async def test_a_changes_own_base_goes_before_the_pushs(service: Harness) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    base = await cursor(service)
    told = await service.pushed([update("todo", "a", {"n": 2}), update("todo", "b", {"n": 2})], base=base)

    newer = await service.pushed([update("todo", "a", {"n": 3}, base=told["outcomes"][0]["revision"])], base=base)
    older = await service.pushed([update("todo", "b", {"n": 3}, base=1)], base=await cursor(service))

    assert (statuses(newer), statuses(older)) == (["applied"], ["conflict"])


async def test_a_base_of_its_own_needs_one_of_the_push(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    reply = await service.push([update("todo", "a", {"n": 2}, base=1)])

    assert (reply.status, reply.json["code"], pointers(reply)) == (400, "invalid_request", ["/changes/0/base"])


async def test_a_base_above_the_head_is_of_the_future(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    for change in (update("todo", "a", {"n": 2}, base=2), insert("todo", "b") | {"base": 2}):
        reply = await service.push([insert("todo", "c"), change], base=await cursor(service), on_conflict="client")

        assert (reply.status, reply.json["reason"], reply.json["reconcile"]) == (410, "future", "verify")
    assert (await service.head())["head"] == 1


@pytest.mark.parametrize("base_at", [0, 1])
async def test_what_needs_a_base_and_has_none_is_refused_as_a_whole(service: Harness, base_at: int) -> None:
    await service.pushed([insert("todo", "a")])
    changes = [insert("todo", "b"), update("todo", "a", {"n": 2}), put("todo", "a", {}), delete("todo", "c")]

    reply = await service.push(changes[: 3 + base_at])

    assert (reply.status, reply.json["code"]) == (400, "base_required")
    assert pointers(reply) == ["/changes/1/base", "/changes/2/base", "/changes/3/base"][: 2 + base_at]
    assert (await service.head())["head"] == 1


@pytest.mark.parametrize("reason", CURSORS)
async def test_the_base_is_checked_as_since_is(service: Harness, reason: str) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    await service.pushed([insert("todo", "c")])
    head = await service.head()
    epoch, revision, chain = head["cursor"].split(":")
    wrong = {
        "epoch": f"{'0' * 12}:{revision}:{chain}",
        "future": f"{epoch}:{int(revision) + 1}:{chain}",
        "diverged": f"{epoch}:{revision}:{'0' * 16}",
    }[reason]

    reply = await service.push([insert("todo", "d")], base=wrong)

    assert reply.status == 410
    assert (reply.json["code"], reply.json["reason"], reply.json["head"]) == ("resync_required", reason, 3)
    assert reply.headers["Cache-Control"] == "no-store"
    assert "Retry-After" in reply.headers
    assert (await service.head())["head"] == 3


async def test_a_base_within_a_commit_is_of_another_past(service: Harness) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    epoch, _, chain = (await cursor(service)).split(":")

    reply = await service.push([insert("todo", "d")], base=f"{epoch}:1:{chain}")

    assert (reply.status, reply.json["reason"]) == (410, "diverged")


async def test_a_base_below_the_horizon_is_told_so(service: Harness) -> None:
    base = await cursor(service)
    await service.pushed([insert("todo", "a")])
    await service.query("update journal.head set horizon = 1, turn = turn + 1")

    reply = await service.push([insert("todo", "b")], base=base)

    assert (reply.status, reply.json["reason"], reply.json["reconcile"]) == (410, "horizon", "replace")


async def test_a_cursor_is_no_base_of_a_collection_that_it_does_not_cover(service: Harness) -> None:
    await service.pushed([insert("a", "1"), insert("b", "1")])
    _, last = await service.round(0, collections="a")
    scoped = last["cursor"]

    reply = await service.push([update("a", "1", {"n": 2}), update("b", "1", {"n": 2})], base=scoped)
    covered = await service.pushed([update("a", "1", {"n": 2}), insert("b", "2")], base=scoped)
    own = await service.pushed([update("b", "1", {"n": 2}, base=2)], base=scoped)

    assert (reply.status, reply.json["code"], pointers(reply)) == (400, "base_required", ["/changes/1/base"])
    assert statuses(covered) == ["applied", "applied"]
    assert statuses(own) == ["applied"]


async def test_a_cursor_of_an_unfinished_round_is_the_rounds_base(service: Harness) -> None:
    await service.pushed([insert("todo", "a"), insert("todo", "b")])
    base = await cursor(service)
    await service.pushed([update("todo", "a", {"n": 2})], base=base)
    await service.pushed([update("todo", "b", {"n": 2})], base=await cursor(service))
    page = await service.deltas(base, limit=1)
    unfinished = page.json["cursor"]
    assert page.json["more"]
    assert ":base=2" in unfinished

    answer = await service.pushed([update("todo", "a", {"n": 3}), insert("todo", "c")], base=unfinished)

    assert statuses(answer) == ["conflict", "applied"]


async def test_trap_15_ones_own_last_change_excuses_nothing(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"n": 1})])
    base = await cursor(service)
    own = await service.pushed([update("todo", "a", {"n": 2})], base=base, client=str(uuid4()))
    await service.pushed([update("todo", "a", {"n": 3})], base=await cursor(service))

    from_before = await service.pushed([update("todo", "a", {"n": 4})], base=base)
    from_own = await service.pushed([update("todo", "a", {"n": 4}, base=own["revision"])], base=base)
    from_theirs = await service.pushed([update("todo", "a", {"n": 4}, base=3)], base=base)

    assert [statuses(answer) for answer in (from_before, from_own, from_theirs)] == [
        ["conflict"],
        ["conflict"],
        ["applied"],
    ]


# Expected data, unset, policies.


async def test_expected_data_takes_the_place_of_a_base(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"n": 1, "t": "x"})])

    answer = await service.pushed(
        [
            put("todo", "a", {"n": 2}, if_data={"t": "x", "n": 1.0}),
            put("todo", "b", {"n": 1}, if_data=None),
            put("todo", "c", {"n": 1}, if_data={"n": 0}),
            delete("todo", "d", if_data=None),
        ]
    )
    refused = await service.pushed(
        [update("todo", "a", {"n": 3}, if_data={"n": 1}), put("todo", "b", {"n": 2}, if_data=None)],
        on_conflict="merge",
    )

    assert statuses(answer) == ["applied", "applied", "conflict", "unchanged"]
    assert answer["outcomes"][2]["current"] is None
    assert [outcome["current"]["data"] for outcome in refused["outcomes"]] == [{"n": 2}, {"n": 1}]
    assert statuses(refused) == ["conflict", "conflict"]


async def test_unset_takes_fields_away(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"x": 1, "y": 2, "z": None})])
    base = await cursor(service)

    await service.pushed([update("todo", "a", {"x": 2}, unset=["y"])], base=base)
    await service.pushed([update("todo", "a", unset=["z", "never"])], base=await cursor(service))

    assert await data(service, "todo", "a") == {"x": 2}
    told, _ = await service.round(base)
    [delta] = told
    assert (delta["op"], delta["data"], sorted(delta["unset"])) == ("update", {"x": 2}, ["never", "y", "z"])


async def test_a_field_that_is_set_and_unset_is_rejected_and_the_rest_recorded(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    answer = await service.pushed(
        [update("todo", "a", {"n": 2}, unset=["n"]), insert("todo", "b")], base=await cursor(service)
    )

    assert statuses(answer) == ["rejected", "applied"]
    assert answer["outcomes"][0]["error"]["code"] == "set_and_unset"
    assert set(answer["outcomes"][0]) == {"status", "error"}


async def test_trap_11_an_atom_that_is_too_large_is_rejected_and_the_rest_recorded(service: Harness) -> None:
    limit = (await service.call("GET", "/v1")).json["limits"]["atom_bytes"]

    answer = await push_as_written(
        service, pushing_a_list(limit) + b',{"op":"insert","collection":"t","atom":"b","data":{}}]}'
    )

    assert statuses(answer) == ["rejected", "applied"]
    assert answer["outcomes"][0]["error"]["code"] == "atom_too_large"


async def test_an_atom_that_was_taken_can_be_changed_although_postgresql_tells_it_with_blanks(
    service: Harness,
) -> None:
    limit = (await service.call("GET", "/v1")).json["limits"]["atom_bytes"]
    taken = await push_as_written(service, pushing_a_list(limit // 2 - 50) + b"]}")

    answer = await service.pushed([update("t", "a", {"small": 1})], base=await cursor(service))

    assert (statuses(taken), statuses(answer)) == (["applied"], ["applied"])


def pushing_a_list(length: int) -> bytes:
    """The beginning of a push that inserts an atom of twice as many bytes."""
    return b'{"changes":[{"op":"insert","collection":"t","atom":"a","data":{"n":[' + b"1," * length + b"1]}}"


async def test_merge_is_told_the_whole(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"x": 1, "y": 1, "z": 1})])
    base = await cursor(service)
    await service.pushed([update("todo", "a", {"x": 2}, unset=["z"])], base=base)

    answer = await service.pushed([update("todo", "a", {"x": 3, "y": 3, "z": 3})], base=base, on_conflict="merge")

    assert answer["outcomes"] == [
        {"status": "merged", "revision": 3, "current": {"revision": 3, "data": {"x": 2, "y": 3}}}
    ]
    changes = (await record(service))[-1]["changes"]
    assert [(change["op"], change["data"]) for change in changes] == [("update", {"y": 3})]


async def test_client_overwrites_and_is_told_so(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"x": 1}), insert("todo", "b")])
    base = await cursor(service)
    await service.pushed([update("todo", "a", {"x": 2, "y": 2}), update("todo", "b", {"n": 2})], base=base)

    answer = await service.pushed(
        [update("todo", "a", {"x": 3}), delete("todo", "b"), insert("todo", "a", {"z": 1})],
        base=base,
        on_conflict="client",
    )

    assert answer["outcomes"] == [
        {"status": "merged", "revision": 5, "current": {"revision": 5, "data": {"x": 3, "y": 2}}},
        {"status": "merged", "revision": 6, "current": None},
        {"status": "merged", "revision": 7, "current": {"revision": 7, "data": {"z": 1}}},
    ]


async def test_a_collections_policy_goes_before_the_requests(service: Harness) -> None:
    await service.pushed([insert("free", "a"), insert("strict", "a")])
    await set_policy(service, "free", "client")
    await set_policy(service, "strict", "server")

    free = await service.pushed([update("free", "a", {"n": 2})])
    strict = await service.push([update("free", "a", {"n": 3}), update("strict", "a", {"n": 2})], on_conflict="client")
    await set_policy(service, "strict", None)
    open_again = await service.pushed([update("strict", "a", {"n": 2})], on_conflict="client")

    assert statuses(free) == ["applied"]
    assert (strict.status, strict.json["code"], pointers(strict)) == (400, "base_required", ["/changes/1/base"])
    assert statuses(open_again) == ["applied"]


async def test_a_policy_waits_for_the_collection_it_is_for(service: Harness) -> None:
    await set_policy(service, "later", "client")

    answer = await service.pushed([insert("later", "a", {"n": 1}), insert("later", "a", {"n": 2})])

    assert statuses(answer) == ["applied", "merged"]
    told = (await service.call("GET", "j/collections")).json["collections"]
    assert [(k["name"], k["atoms"], k["policy"]) for k in told] == [("later", 1, "client")]


async def test_trap_21_the_followers_of_a_refused_insert_do_not_hit_somebody_elses_atom(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"n": "theirs"})])

    answer = await service.pushed(
        [insert("todo", "a", {"n": "ours"}), update("todo", "a", {"n": "ours"}), delete("todo", "a")],
        base=await cursor(service),
    )

    assert statuses(answer) == ["conflict"] * 3
    assert await data(service, "todo", "a") == {"n": "theirs"}


# Atomic.


async def test_an_atomic_push_that_meets_a_conflict_records_nothing_and_tells_all(service: Harness) -> None:
    await service.pushed([insert("todo", "a", {"n": 1})])
    before = await service.head()

    reply = await service.push([insert("todo", "b"), insert("todo", "a", {"n": 2}), insert("new", "c")], atomic=True)

    assert (reply.status, reply.headers["Content-Type"]) == (409, "application/problem+json")
    assert reply.json["code"] == "not_applied"
    assert reply.json["outcomes"] == [
        {"status": "applied"},
        {"status": "conflict", "current": {"revision": 1, "data": {"n": 1}}},
        {"status": "applied"},
    ]
    assert await service.head() == before
    assert [k["name"] for k in (await service.call("GET", "j/collections")).json["collections"]] == ["todo"]


async def test_an_atomic_push_of_which_all_is_taken_is_recorded(service: Harness) -> None:
    answer = await service.pushed([insert("todo", "a"), delete("todo", "b", if_data=None)], atomic=True)

    assert statuses(answer) == ["applied", "unchanged"]


# Who pushes.


async def test_a_client_may_push_without_numbers(service: Harness) -> None:
    client = str(uuid4())

    first = await service.pushed([insert("todo", "a")], client=client)
    again = await service.pushed([insert("todo", "a")], client=client)

    assert (statuses(first), statuses(again)) == (["applied"], ["unchanged"])
    assert again["replayed"] is False
    [commit] = await record(service)
    assert (commit["client"], commit["push"]) == (client, None)


async def test_the_record_says_who_pushed_under_which_number(service: Harness) -> None:
    one, two = str(uuid4()), str(uuid4())

    await service.pushed([insert("todo", "a")], client=one, push=7)
    await service.pushed([insert("todo", "b")], client=two)
    await service.pushed([insert("todo", "c")])
    await service.pushed([insert("todo", "d")], client=one, push=9)

    assert [(commit["client"], commit["push"]) for commit in await record(service)] == [
        (one, 7),
        (two, None),
        (None, None),
        (one, 9),
    ]


async def test_trap_2_a_client_is_told_the_delete_of_what_it_inserted(service: Harness) -> None:
    base, client = await cursor(service), str(uuid4())
    await service.pushed([insert("todo", "a")], client=client)
    await service.pushed([delete("todo", "a")], base=await cursor(service))

    own, _ = await service.round(base, client=client)
    others, _ = await service.round(base, client=str(uuid4()))

    assert [delta["op"] for delta in own] == ["delete"]
    assert [delta["op"] for delta in others] in ([], ["delete"])


# The record, and what is computed of it.


class RawChange(msgspec.Struct):
    """A change of the raw record, its data as the bytes that were told."""

    op: str
    collection: str
    atom: str
    data: Raw | UnsetType = UNSET
    unset: list[str] = []


class RawCommit(msgspec.Struct):
    """A commit of the raw record."""

    epoch: str
    first: int
    revision: int
    client: str | None
    push: int | None
    at: str
    chain: str
    changes: list[RawChange]


class RawRecord(msgspec.Struct):
    """The raw record."""

    commits: list[RawCommit]


async def record(service: Harness) -> list[Json]:
    """All commits of the raw record."""
    reply = await service.call("GET", "j/changes", params={"since": "0", "limit": "10000"})
    assert reply.status == 200, reply.body
    assert not reply.json["more"]
    commits: list[Json] = reply.json["commits"]
    return commits


def part(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def chain_after(chain: bytes, commit: RawCommit) -> bytes:
    """The chain by docs/architecture.md, from what …/changes tells."""
    parts = [chain]
    for revision, change in enumerate(commit.changes, commit.first):
        parts.append(part(struct.pack(">Q", revision)))
        parts.append(part(bytes([["insert", "update", "replace", "delete"].index(change.op) + 1])))
        parts += [part(change.collection.encode()), part(change.atom.encode())]
        parts.append(part(struct.pack(">I", len(change.unset))))
        parts += [part(name.encode()) for name in change.unset]
        parts.append(part(b"" if change.data is UNSET else sha256(bytes(change.data)).digest()))
    return sha256(b"".join(parts)).digest()


MIXED = rb"""
{ "changes": [
  {"op": "insert", "collection": "t\u00f6do", "atom": "a/b c", "data": {
      "z": 1.0, "a": 1e300,
      "text": "\u00e9\n\t\"\\ \ud83d\ude00",
      "list": [ 1, 2,
                {"deep": null} ]
  }},
  {"op": "insert", "collection": "todo", "atom": "\u2028", "data": {}},
  {"op": "update", "collection": "todo", "atom": "\u2028", "data": {"x":	0.1}, "unset": ["none", "a,b", "\"{}\\"]},
  {"op": "update", "collection": "todo", "atom": "\u2028", "unset": ["x"]},
  {"op": "put", "collection": "todo", "atom": "\u2028", "data": {"x": [-0, 5e-324, 9007199254740992]}},
  {"op": "delete", "collection": "todo", "atom": "\u2028"}
] }
""".replace(b"\n", b"\r\n", 5)


async def push_as_written(service: Harness, body: bytes) -> Json:
    reply = await service.call("POST", "j/changes", data=BytesIO(body), headers={"Content-Type": "application/json"})
    assert reply.status == 200, reply.body
    return reply.json


async def test_the_chain_is_what_anybody_can_compute_from_the_record(service: Harness) -> None:
    first = await push_as_written(service, MIXED)
    second = await service.pushed([insert("todo", "b"), insert("todo", "c")])

    reply = await service.call("GET", "j/changes?since=0")

    chain, told = bytes(32), []
    for commit in msgspec.json.decode(reply.body, type=RawRecord).commits:
        chain = chain_after(chain, commit)
        assert commit.chain == chain[:8].hex()
        told.append(commit.chain)
    assert told == [first["chain"], second["chain"]]
    assert (await service.head())["chain"] == chain[:8].hex()


async def test_data_that_was_sent_over_many_lines_is_one_line_wherever_lines_matter(service: Harness) -> None:
    """The bytes as they were sent went into lines of NDJSON, newlines and all, and made MessagePack fail."""
    await push_as_written(service, MIXED)
    _, last = await service.round(0)

    for path in ("j/deltas?since=0", f"j/deltas?since=0&until={last['until']}", "j/deltas?since=0&include=revisions"):
        whole = (await service.call("GET", path)).json
        lines = (await service.call("GET", f"{path}&format=ndjson")).lines
        packed = msgspec.msgpack.decode((await service.call("GET", f"{path}&format=msgpack")).body)

        assert lines[1:-1] == whole["deltas"] == packed["deltas"]
        assert lines[-1]["end"]
    [told] = whole["deltas"]
    assert told["data"]["text"] == 'é\n\t"\\ 😀'


async def test_digests_and_counts_are_those_of_what_lives(service: Harness) -> None:
    await service.pushed([insert("a", str(n)) for n in range(20)] + [insert("b", str(n)) for n in range(20)])
    base = await cursor(service)
    await service.pushed([delete("a", str(n)) for n in range(0, 20, 2)], base=base)
    await service.pushed([update("b", str(n), {"n": 2}) for n in range(0, 20, 3)], base=base)
    await service.pushed([insert("a", "0"), delete("b", "1", base=40)], base=base)

    head = await service.head()
    collections = (await service.call("GET", "j/collections")).json["collections"]
    lines = (await service.snapshot())[1:-1]

    assert head["atoms"] == len(lines) == sum(k["atoms"] for k in collections)
    assert int(head["digest"], 16) == digest(lines)
    for k in collections:
        own = [line for line in lines if line["collection"] == k["name"]]
        assert (k["atoms"], int(k["digest"], 16)) == (len(own), digest(own))


def digest(lines: list[Json]) -> int:
    """The XOR of the leaves by section 8."""
    found = 0
    for line in lines:
        canonical = rfc8785.dumps([line["collection"], line["atom"], line["revision"]])
        found ^= int.from_bytes(sha256(canonical).digest()[:8], "big")
    return found


def test_many_new_collections_cost_what_they_are() -> None:
    """For each the highest number was looked for among all: the service stood still (the time-out of tests)."""
    head = Head(id=1, journal="j", epoch="0" * 12, head=0, horizon=0, chain=bytes(32), turn=0, collections={})
    atoms = {
        (f"c{n}", "a"): AtomState(born=n, born_by=None, created=n, revision=n, data=b"{}", fields={})
        for n in range(1, 100_001)
    }
    changes = [Change(state.revision, Op.INSERT, *key, state.data) for key, state in atoms.items()]
    group = Standing(Tail(head))

    group.go_on(Decision([], changes, atoms))

    assert [k.id for k in group.collections.values()] == list(range(1, 100_001))


# What one process has not heard of.


async def test_trap_18_nothing_is_refused_on_a_memory_that_is_behind(database: str, tmp_path: Path) -> None:
    """A refusal records nothing, so nothing compared memory with the rows: `unchanged` was said of what lived."""
    async with proxied(database) as proxy, serving(database, tmp_path) as other:
        proxy.stall(b"journal listen")  # its notifications are held
        async with serving(proxy.dsn, tmp_path, poll_s=3600.0) as deaf:
            await other.create("j")
            base = await cursor(deaf)
            await other.pushed([insert("todo", "a", {"n": 1})])
            await set_policy(other, "free", "client")

            deleted = await deaf.pushed([delete("todo", "a")], base=base)
            updated = await deaf.pushed([update("todo", "b", {"n": 2}), insert("todo", "a", {"n": 2})], base=base)
            required = await deaf.pushed([delete("free", "b")])

            told = await other.pushed([update("todo", "a", {"n": 2})], base=await cursor(other))
            ahead = await deaf.pushed([update("todo", "a", {"n": 3}, base=told["revision"])], base=base)

            assert (statuses(ahead), ahead["revision"]) == (["applied"], 3)
            stands = {"revision": 1, "data": {"n": 1}}
            assert deleted["outcomes"] == [{"status": "conflict", "current": stands}]
            assert updated["outcomes"][1] == {"status": "conflict", "current": stands}
            assert (deleted["head"], statuses(required)) == (1, ["unchanged"])


async def test_a_policy_is_told_while_others_push(service: Harness) -> None:
    """A refresh that a push overtook was dropped, and the collection it was to tell of was missing: 500."""

    async def pushing() -> None:
        for n in range(150):
            await service.pushed([insert("todo", f"{uuid4()}")], client=str(uuid4()), push=n + 1)

    async def deciding() -> None:
        for n in range(40):
            await set_policy(service, f"k{n}", "merge")

    async def everything() -> bool:
        collections = (await service.call("GET", "j/collections")).json["collections"]
        return len([k for k in collections if k["policy"] == "merge"]) == 40

    await asyncio.gather(*(pushing() for _ in range(4)), deciding())

    assert await eventually(everything)
    assert (await service.head())["head"] == 600


def test_the_body_of_these_tests_is_what_it_means_to_be() -> None:
    assert json.loads(MIXED)["changes"][0]["data"]["text"] == 'é\n\t"\\ 😀'
