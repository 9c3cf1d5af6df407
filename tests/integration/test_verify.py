"""Section 8: what a suspicious client compares its data with, and mends it by (P11)."""

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import rfc8785

from examples.plain_client import Client
from journal.service import indexes
from journal.service.indexes import Indexes
from tests.conftest import new_database
from tests.harness import Harness, Json, Reply, delete, eventually, insert, put, serving, update
from tests.postgres import Server

Held = dict[tuple[str, str], tuple[int, Any]]
KINDS = ("revision", "content")
NAMES = ["a", "é", "😀", "\ufb33", 'q"\\/', "x y", "\u2028", "n" * 200]
VALUES: list[Any] = [
    {"n": 1}, {}, {"n": 1.0, "m": -0.0}, {"é": [1e21, 1e-7, 123456789012345680]}, {"\U00010000": 1, "\ufb33": 2},
    {"a": {"b": [None, True, 0.1, "\t\u0001\u007f"]}}, {"cost": 9.99, "at": "2026-11-21T09:00:00Z"}, {"n": 1e300},
]  # fmt: skip


def leaf(of: str, key: tuple[str, str], held: tuple[int, Any]) -> int:
    """Section 8, by its letter."""
    return int.from_bytes(sha256(rfc8785.dumps([*key, held[0] if of == "revision" else held[1]])).digest()[:8], "big")


def place(key: tuple[str, str]) -> str:
    return sha256(rfc8785.dumps(key)).hexdigest()


def told(of: str, held: Held, prefix: str = "", names: Iterable[str] | None = None) -> tuple[int, str]:
    """The count and the digest of what is beneath a prefix."""
    wanted = None if names is None else set(names)
    total = count = 0
    for key, value in held.items():
        if place(key).startswith(prefix) and (wanted is None or key[0] in wanted):
            total, count = total ^ leaf(of, key, value), count + 1
    return count, f"{total:016x}"


def doubles(value: Any) -> Any:
    """JSON as doubles: rfc8785 refuses integers beyond 2^53."""
    match value:
        case bool() | None | str():
            return value
        case int() | float():
            return float(value)
        case dict():
            return {name: doubles(member) for name, member in value.items()}
    return [doubles(item) for item in value]


async def state(service: Harness, j: str = "j") -> Held:
    """All atoms, as a snapshot of this very moment tells them."""
    for path in service.service.snapshots.folder.glob(f"{j}/*"):
        path.unlink()
    _, *lines, _ = await service.snapshot(j)
    return {(line["collection"], line["atom"]): (line["revision"], doubles(line["data"])) for line in lines}


async def digest(service: Harness, j: str = "j", **parameters: str) -> Json:
    reply = await service.call("GET", f"{j}/digest", params=parameters)
    assert reply.status == 200, reply.body
    return reply.json


async def manifest(service: Harness, j: str = "j", **parameters: str) -> list[Json]:
    """All pages of a manifest, at one revision."""
    atoms, revisions, after = [], set(), dict[str, str]()
    while True:
        reply = await service.call("GET", f"{j}/manifest", params=parameters | after)
        assert reply.status == 200, reply.body
        atoms += reply.json["atoms"]
        revisions.add(reply.json["revision"])
        if not reply.json["more"]:
            assert "next" not in reply.json
            assert len(revisions) == 1
            return atoms
        after = {"after": reply.json["next"]}


async def lookup(service: Harness, get: Any, j: str = "j") -> Reply:
    return await service.call("POST", f"{j}/lookup", json={"get": get})


async def agrees(service: Harness, held: Held) -> None:
    """Compare every prefix of up to three digits, and one of each depth below, with what is computed here."""
    for of in KINDS:
        for prefix in ["", *(place(key)[:depth] for key in list(held)[:5] for depth in (1, 2, 3, 4, 5, 8, 63, 64))]:
            answer = await digest(service, prefix=prefix, of=of)

            assert (answer["count"], answer["digest"]) == told(of, held, prefix)
            assert all(child.startswith(prefix) and len(child) == len(prefix) + 1 for child in answer["children"])
            for child, beneath in answer["children"].items():
                assert (beneath["count"], beneath["digest"]) == told(of, held, child)
                assert beneath["count"] > 0
            if len(prefix) < 64:
                assert sum(beneath["count"] for beneath in answer["children"].values()) == answer["count"]
        listed = await manifest(service, of=of)
        assert {(row["collection"], row["atom"]): (row["revision"], int(row["leaf"], 16)) for row in listed} == {
            key: (value[0], leaf(of, key, value)) for key, value in held.items()
        }


async def filled(service: Harness, atoms: int, j: str = "j") -> None:
    """A journal of so many atoms in three collections."""
    changes = [
        insert(("todo", "note", "person")[n % 3], f"{n:06x}", {"n": n, "text": f"{n} " * 4}) for n in range(atoms)
    ]
    for start in range(0, atoms, 5000):
        await service.pushed(changes[start : start + 5000], j)


# Digests.


@pytest.fixture
async def odd(service: Harness) -> Harness:
    """The service with atoms of odd names and values."""
    await service.pushed(
        [
            insert(collection, name, value)
            for collection in ("todo", "ñ", "z")
            for name, value in zip(NAMES, VALUES, strict=True)
        ]
    )
    return service


async def test_digests_are_those_of_the_protocol(odd: Harness) -> None:
    held = await state(odd)

    assert len(held) == 3 * len(NAMES)
    await agrees(odd, held)


async def test_a_number_is_the_double_it_stands_for_however_it_was_sent(service: Harness) -> None:
    body = (
        '{"changes":[{"op":"insert","collection":"c","atom":"a","data":{"x":1.0,"y":1e2,"z":-0.0,"w":1E+21,"v":0.10}}]}'
    )
    reply = await service.call("POST", "j/changes", data=body, headers={"Content-Type": "application/json"})
    canonical = b'["c","a",{"v":0.1,"w":1e+21,"x":1,"y":100,"z":0}]'

    answer = await digest(service, of="content")

    assert reply.status == 200
    assert answer["digest"] == sha256(canonical).hexdigest()[:16]


async def test_an_empty_journal_has_the_digest_of_nothing(service: Harness) -> None:
    for of in KINDS:
        answer = await digest(service, of=of)
        epoch = answer.pop("epoch")

        assert epoch == (await service.head())["epoch"]
        assert answer == {"revision": 0, "prefix": "", "of": of, "count": 0, "digest": "0" * 16, "children": {}}
        assert await manifest(service, of=of) == []


@pytest.mark.parametrize("names", [["todo"], ["ñ", "z"], ["todo", "unknown"], ["unknown"], ["z", "todo", "ñ"]])
async def test_digests_are_of_any_set_of_collections(odd: Harness, names: list[str]) -> None:
    held = await state(odd)
    collections = ",".join(names)

    for of in KINDS:
        for prefix in ("", place(("todo", "a"))[:1], place(("z", "é"))[:4]):
            answer = await digest(odd, of=of, prefix=prefix, collections=collections)
            listed = await manifest(odd, of=of, prefix=prefix, collections=collections, limit="3")

            assert (answer["count"], answer["digest"]) == told(of, held, prefix, names)
            assert len(listed) == answer["count"]
            assert {row["collection"] for row in listed} <= set(names)


@pytest.mark.parametrize("collections", [None, "todo", "z,todo"])
async def test_the_digest_by_revision_is_the_one_that_deltas_end_with(odd: Harness, collections: str | None) -> None:
    await odd.pushed([delete("todo", "a"), update("z", "a", {"n": 2})], on_conflict="client")
    some = {} if collections is None else {"collections": collections}
    _, end = await odd.round(0, **some)

    answer = await digest(odd, **some)

    assert (answer["digest"], answer["revision"]) == (end["digest"], end["until"])


async def test_nothing_asked_is_by_revision_from_the_top(odd: Harness) -> None:
    assert await digest(odd) == await digest(odd, prefix="", of="revision")


async def test_who_has_an_answer_is_told_so(odd: Harness) -> None:
    first = await odd.call("GET", "j/digest")
    again = await odd.call("GET", "j/digest", headers={"If-None-Match": first.headers["ETag"]})
    await odd.pushed([insert("todo", "new")])
    then = await odd.call("GET", "j/digest", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "no-cache"
    assert (again.status, again.body) == (304, b"")
    assert then.status == 200


# The index moves on.


async def test_an_index_that_was_moved_on_is_as_one_that_is_made_anew(service: Harness, tmp_path: Path) -> None:
    chance = random.Random(11)
    pool = [(collection, f"{n}") for collection in ("todo", "note") for n in range(60)]
    for step in range(25):
        taken = chance.sample(pool, chance.randint(1, 30))
        await service.pushed(
            [
                delete(*key) if chance.random() < 0.4 else put(*key, data=chance.choice(VALUES) | {"step": step})
                for key in taken
            ],
            on_conflict="client",
        )
        await digest(service)

    moved = {of: [await digest(service, of=of, prefix=prefix) for prefix in ("", "a", "ab")] for of in KINDS}
    async with serving(service.dsn, tmp_path) as other:
        anew = {of: [await digest(other, of=of, prefix=prefix) for prefix in ("", "a", "ab")] for of in KINDS}

    assert service.service.verify.indexes.built == 1
    assert moved == anew
    await agrees(service, await state(service))


async def test_many_changes_are_put_in_by_a_process_of_their_own(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(service, 300)
    await digest(service)
    monkeypatch.setattr(indexes, "SMALL", 20)

    await service.pushed([update("todo", f"{n:06x}", {"n": -n}) for n in range(0, 90, 3)], on_conflict="client")
    await service.pushed([delete("note", f"{n:06x}") for n in range(1, 30, 3)], on_conflict="client")
    await agrees(service, await state(service))

    assert service.service.verify.indexes.built == 1


async def test_an_index_of_another_past_is_made_anew(service: Harness) -> None:
    await filled(service, 30)
    await digest(service)
    await service.query("update journal.head set chain = sha256('other'), turn = turn + 1")

    answer = await digest(service)

    assert answer["revision"] == 30
    assert service.service.verify.indexes.built == 2
    await agrees(service, await state(service))


async def test_an_index_that_was_damaged_is_made_anew(service: Harness) -> None:
    await filled(service, 30)
    held = await state(service)
    await digest(service)
    [file] = service.service.verify.indexes.folder.glob("j/*.sqlite")
    file.write_bytes(b"no database" * 1000)
    service.service.verify.rendered.clear()

    await agrees(service, held)

    assert service.service.verify.indexes.built == 2


async def test_an_index_that_does_not_add_up_is_made_anew(service: Harness) -> None:
    await filled(service, 30)
    await digest(service)
    [file] = service.service.verify.indexes.folder.glob("j/*.sqlite")
    with sqlite3.connect(file) as db:
        db.execute("update node set revision = revision + 1 where depth = 1")
    db.close()

    await service.pushed([insert("todo", "new")])
    await agrees(service, await state(service))

    assert service.service.verify.indexes.built == 2


async def test_an_index_below_the_horizon_is_made_anew(service: Harness) -> None:
    await filled(service, 30)
    await digest(service)
    await service.pushed([delete("todo", "000000")], on_conflict="client")
    await service.query("delete from journal.atom where deleted")  # as a compaction does
    await service.query("update journal.head set horizon = head, turn = turn + 1")

    await agrees(service, await state(service))

    assert service.service.verify.indexes.built == 2


async def test_processes_that_share_a_folder_share_the_index(service: Harness, database: str, tmp_path: Path) -> None:
    await filled(service, 60)
    async with serving(database, tmp_path) as other:
        other.service.verify.indexes.folder = service.service.verify.indexes.folder
        for n in range(10):
            await service.pushed([insert("todo", f"new-{n}")])
            first, second = await asyncio.gather(digest(service, of="content"), digest(other, of="content"))
            assert first == second

        assert service.service.verify.indexes.built + other.service.verify.indexes.built == 1
        await agrees(other, await state(service))


async def test_an_answer_is_never_older_than_what_another_process_was_told(
    service: Harness, database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, poll_s=3600.0) as other:
        for n in range(10):
            recorded = await service.pushed([insert("todo", f"{n}")])
            answer = await digest(other)

            assert answer["revision"] >= recorded["revision"]


async def test_an_index_survives_a_restart(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as service:
        await service.create()
        await filled(service, 30)
        first = await digest(service)
        folder = service.service.verify.indexes.folder
    async with serving(database, tmp_path) as service:
        service.service.verify.indexes.folder = folder
        again = await digest(service)

        assert again == first
        assert service.service.verify.indexes.built == 0


async def test_a_journal_of_the_same_name_has_an_index_of_its_own(service: Harness) -> None:
    await filled(service, 30)
    await digest(service)
    await service.call("DELETE", "j")
    await service.create()
    await service.pushed([insert("todo", "other")])

    await agrees(service, await state(service))
    assert (await digest(service))["count"] == 1


async def test_what_nobody_asks_for_is_removed_in_time(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(service, 30)
    await digest(service)
    made = service.service.verify.indexes

    made.clean()
    kept = list(made.folder.glob("j/*.sqlite"))
    monkeypatch.setattr(indexes, "KEPT_S", -1.0)
    made.clean()

    assert len(kept) == 1
    assert list(made.folder.iterdir()) == []
    assert (await digest(service, of="content"))["count"] == 30


# Many at once, and much.


async def test_many_who_ask_at_one_head_share_one_index(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(service, 3000)
    steps = 0
    gathered = Indexes._gathered

    async def counted(self: Indexes, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        return await gathered(self, *arguments)

    monkeypatch.setattr(Indexes, "_gathered", counted)
    prefixes = ["", "a", "ab", "0"]

    answers = await asyncio.gather(*(digest(service, prefix=prefixes[n % 4]) for n in range(200)))

    assert service.service.verify.indexes.built == 1
    assert steps == 2  # a look at how much it is, and the reading
    assert len({json.dumps(answer) for answer in answers}) == len(prefixes)


async def test_others_are_answered_while_a_large_index_is_made(service: Harness) -> None:
    await filled(service, 40_000)
    await service.create("other")
    slowest, polls = 0.0, 0
    made = asyncio.ensure_future(digest(service, of="content"))

    while not made.done():
        start = time.perf_counter()
        assert (await service.head("other"))["head"] == 0
        slowest, polls = max(slowest, time.perf_counter() - start), polls + 1
        await asyncio.sleep(0)

    assert (await made)["count"] == 40_000
    assert polls >= 10
    assert slowest < 1.0


async def test_a_journal_that_waits_for_its_turn_is_told_so_where_too_many_do(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "SMALL", 0)
    monkeypatch.setattr(indexes, "MOST_WAITING", 1)
    for j in ("a", "b"):
        await service.create(j)
        await filled(service, 10, j)
    made = service.service.verify.indexes

    async with made._admission:
        first = asyncio.ensure_future(service.call("GET", "a/digest"))
        await eventually(lambda: _is(made._waiting == 1))
        refused = await service.call("GET", "b/digest")
    answered = await first
    again = await service.call("GET", "b/digest")

    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert (answered.status, again.status) == (200, 200)


async def test_who_waits_for_long_is_told_to_come_back(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "SMALL", 0)
    monkeypatch.setattr(indexes, "PATIENCE_S", 0.05)
    await filled(service, 10)
    made = service.service.verify.indexes

    async with made._admission:
        refused = await service.call("GET", "j/digest")
    monkeypatch.setattr(indexes, "PATIENCE_S", 25.0)
    answered = await service.call("GET", "j/digest")

    assert (refused.status, refused.json["code"], answered.status) == (503, "unavailable", 200)
    assert made.built == 1


async def _is(fact: bool) -> bool:
    return fact


async def test_an_index_that_cannot_be_made_is_no_answer(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "SMALL", 0)
    await filled(service, 10)
    with monkeypatch.context() as without:
        without.setattr("sys.executable", "/bin/false")
        refused = await service.call("GET", "j/digest")
    answered = await service.call("GET", "j/digest")

    assert (refused.status, answered.status) == (503, 200)
    assert not list(service.service.verify.indexes.folder.glob("j/*.part"))


# Manifests and lookups.


async def test_a_manifest_comes_in_pages_by_place(odd: Harness) -> None:
    held = await state(odd)
    whole = await manifest(odd)

    for limit in ("1", "5", "24", "1000"):
        assert await manifest(odd, limit=limit) == whole
    assert [(row["collection"], row["atom"]) for row in whole] == sorted(held, key=place)


async def test_a_manifest_is_of_what_is_beneath_its_prefix(odd: Harness) -> None:
    held = await state(odd)

    for prefix in ("0", "7", "f", place(("z", "a"))[:3], place(("z", "a"))):
        listed = await manifest(odd, prefix=prefix, limit="2")

        assert [(row["collection"], row["atom"]) for row in listed] == [
            key for key in sorted(held, key=place) if place(key).startswith(prefix)
        ]


async def test_a_lookup_tells_what_is_there_and_what_is_not(odd: Harness) -> None:
    await odd.pushed([delete("todo", "a")], on_conflict="client")
    held = await state(odd)

    reply = await lookup(odd, {"todo": ["é", "a", "é", "never", '"'], "none": ["a"], "z": [], "ñ": NAMES})
    atoms = reply.json["atoms"]

    assert reply.status == 200
    assert (reply.json["revision"], reply.json["epoch"]) == (25, (await odd.head())["epoch"])
    assert atoms["todo"].keys() == {"é", "a", "never", '"'}
    assert [atoms["todo"][name] for name in ("a", "never", '"')] == [None] * 3
    assert (atoms["none"], atoms["z"]) == ({"a": None}, {})
    assert list(atoms) == ["todo", "none", "z", "ñ"]
    for name in NAMES:
        assert (atoms["ñ"][name]["revision"], doubles(atoms["ñ"][name]["data"])) == held["ñ", name]


async def test_a_lookup_of_nothing_tells_the_head(odd: Harness) -> None:
    reply = await lookup(odd, {})

    assert reply.json == {"epoch": (await odd.head())["epoch"], "revision": 24, "atoms": {}}


async def test_a_large_lookup_comes_whole(service: Harness) -> None:
    text = "x" * 900
    for start in range(0, 3000, 1000):
        await service.pushed([insert("todo", f"{n}", {"text": text, "n": n}) for n in range(start, start + 1000)])

    reply = await lookup(service, {"todo": [f"{n}" for n in range(3500)]})
    atoms = reply.json["atoms"]["todo"]

    assert [atoms[f"{n}"] and atoms[f"{n}"]["data"]["n"] for n in range(3500)] == [*range(3000), *[None] * 500]


# What is wrong with a request.


@pytest.mark.parametrize(
    ("path", "parameters", "pointers"),
    [
        ("digest", {"prefix": "G"}, ["/prefix"]),
        ("digest", {"prefix": "AB"}, ["/prefix"]),
        ("digest", {"prefix": "0" * 65}, ["/prefix"]),
        ("digest", {"prefix": "٣"}, ["/prefix"]),
        ("digest", {"prefix": "a\n"}, ["/prefix"]),
        ("digest", {"of": "both"}, ["/of"]),
        ("digest", {"of": "", "prefix": "x", "colections": "a"}, ["/of", "/prefix", "/colections"]),
        ("digest", {"collections": "a,,b"}, ["/collections"]),
        ("digest", {"limit": "1"}, ["/limit"]),
        ("manifest", {"limit": "0"}, ["/limit"]),
        ("manifest", {"limit": "10001"}, ["/limit"]),
        ("manifest", {"after": "ab"}, ["/after"]),
        ("manifest", {"after": "G" * 64}, ["/after"]),
    ],
)
async def test_what_is_wrong_with_a_question_is_pointed_at(
    service: Harness, path: str, parameters: dict[str, str], pointers: list[str]
) -> None:
    reply = await service.call("GET", f"j/{path}", params=parameters)

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert [fault["pointer"] for fault in reply.json["errors"]] == pointers


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/get"]),
        ({"get": [], "got": {}}, ["/got", "/get"]),
        ({"get": {"todo": "a"}}, ["/get/todo"]),
        (
            {"get": {"a,b": ["x"], "todo": ["", "ok", "a\u0001", 7]}},
            ["/get/a,b", "/get/todo/0", "/get/todo/2", "/get/todo/3"],
        ),
        ({"get": {"todo": ["x" * 256]}}, ["/get/todo/0"]),
    ],
)
async def test_what_is_wrong_with_a_lookup_is_pointed_at(service: Harness, body: Json, pointers: list[str]) -> None:
    reply = await service.call("POST", "j/lookup", json=body)

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert [fault["pointer"] for fault in reply.json["errors"]] == pointers


async def test_a_lookup_of_too_much_says_how_much_may_be(service: Harness) -> None:
    most = await lookup(service, {"a": [f"{n}" for n in range(6000)], "b": [f"{n}" for n in range(4000)]})
    more = await lookup(service, {"a": [f"{n}" for n in range(6000)], "b": [f"{n}" for n in range(4001)]})

    assert most.status == 200
    assert (more.status, more.json["code"]) == (413, "too_large")
    assert more.json["errors"] == [{"pointer": "/get", "detail": "10001 atoms", "limit": 10000}]


async def test_there_is_nothing_to_verify_of_an_unknown_journal(service: Harness) -> None:
    replies = [
        await service.call("GET", "k/digest"),
        await service.call("GET", "k/manifest"),
        await lookup(service, {"a": ["b"]}, "k"),
    ]

    assert [(reply.status, reply.json["code"]) for reply in replies] == [(404, "journal_not_found")] * 3


# A client that mends itself (P11).


class Counting(Client):
    """The plain client, with what it looked up and what it asked."""

    looked_up: list[tuple[str, str]]
    asked: int

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        self.asked += 1
        if path == "/lookup":
            self.looked_up += [(name, atom) for name, atoms in body["json"]["get"].items() for atom in atoms]
        return await super().ask(method, path, **body)


async def replica(service: Harness) -> Counting:
    """A client that has everything."""
    client = Counting(service.session, f"{service.url}/v1/journals/j", str(uuid4()))
    client.looked_up, client.asked = [], 0
    await client.pull()
    return client


def moved(client: Client, service: Harness) -> None:
    """From now on the client talks to this service."""
    client.session, client.journal = service.session, f"{service.url}/v1/journals/j"


async def is_exact(service: Harness, client: Client) -> bool:
    held = await state(service)
    return {key: (value[0], doubles(value[1])) for key, value in client.data.items()} == held


DAMAGES = {
    "missing": lambda data, key: data.pop(key),
    "stale": lambda data, key: data.update({key: (data[key][0] - 1, {"old": True})}),
    "damaged": lambda data, key: data.update({key: (data[key][0], data[key][1] | {"n": -1})}),
    "wrongly merged": lambda data, key: data.update({key: (data[key][0], {"n": data[key][1]["n"]})}),
    "of another revision": lambda data, key: data.update({key: (data[key][0] + 1000, data[key][1])}),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_p11_damage_is_found_and_nothing_else_is_fetched(service: Harness, damage: str) -> None:
    await filled(service, 2000)
    client = await replica(service)
    hit = random.Random(7).sample(sorted(client.data), 10)
    for key in hit:
        DAMAGES[damage](client.data, key)

    await client.verify()

    assert await is_exact(service, client)
    assert sorted(client.looked_up) == sorted(hit)


async def test_p11_what_is_too_much_is_dropped_and_nothing_is_fetched(service: Harness) -> None:
    await filled(service, 2000)
    client = await replica(service)
    for n in range(10):
        client.data["ghost", f"{n}"] = (5, {"n": n})

    await client.verify()

    assert await is_exact(service, client)
    assert client.looked_up == []


async def test_p11_requests_grow_with_the_difference(service: Harness) -> None:
    await filled(service, 3000)
    client = await replica(service)
    asked = []
    for damaged in (0, 1, 8):
        for key in random.Random(damaged).sample(sorted(client.data), damaged):
            client.data[key] = (client.data[key][0], {"damaged": True})
        client.asked = 0
        await client.verify()
        asked.append(client.asked)

    assert asked[0] <= 4  # the head, two digests, and a round
    assert asked[1] <= asked[0] + 5
    assert asked[2] <= asked[0] + 8 * 5


async def test_p11_a_pull_finds_by_itself_what_is_missing_extra_or_stale(service: Harness) -> None:
    await filled(service, 500)
    client = await replica(service)
    keys = sorted(client.data)
    client.data.pop(keys[0])
    client.data[keys[1]] = (1, {"old": True})
    client.data["ghost", "g"] = (3, {})

    await client.pull()

    assert await is_exact(service, client)


async def test_p11_an_update_of_what_a_client_lost_is_found(service: Harness) -> None:
    await filled(service, 50)
    client = await replica(service)
    del client.data["todo", "000000"]
    await service.pushed([update("todo", "000000", {"n": 7})], on_conflict="client")

    await client.pull()

    assert await is_exact(service, client)
    assert client.looked_up == [("todo", "000000")]


async def test_p11_a_client_is_mended_while_others_write(service: Harness) -> None:
    await filled(service, 600)
    client = await replica(service)
    for key in sorted(client.data)[::20]:
        client.data[key] = (client.data[key][0], {"damaged": True})
    chance = random.Random(3)

    async def write() -> None:
        for _ in range(100):
            keys = [("todo", f"{chance.randrange(0, 900):06x}") for _ in range(3)]
            changes = [
                delete(*key) if chance.random() < 0.3 else put(*key, data={"n": 1}) for key in dict.fromkeys(keys)
            ]
            await service.pushed(changes, on_conflict="client")

    await asyncio.gather(client.verify(), write())
    await client.pull()

    assert await is_exact(service, client)


# The way back for a plain client.


async def test_p10_a_client_whose_cursor_is_too_old_takes_a_snapshot(service: Harness) -> None:
    await filled(service, 50)
    client = await replica(service)
    await service.pushed([delete("todo", "000000"), insert("todo", "new")], on_conflict="client")
    await service.query("delete from journal.atom where deleted")  # as a compaction does
    await service.query("update journal.head set horizon = head, turn = turn + 1")
    service.service.tails.forget(await service.service.tails.of("j"))

    outcomes = await client.push([insert("todo", "mine")])

    assert [outcome["status"] for outcome in outcomes] == ["applied"]
    assert await is_exact(service, client)
    assert client.looked_up == []


@pytest.mark.parametrize(
    "cursor", ["0123456789ab:50:0123456789abcdef", "{epoch}:50:0123456789abcdef", "{epoch}:99:0123456789abcdef"]
)
async def test_p10_a_client_of_another_past_compares(service: Harness, cursor: str) -> None:
    await filled(service, 50)
    client = await replica(service)
    await client.push([put("todo", "000000", {"mine": 1})])
    client.data["todo", "000003"] = (44, {"of": "another past"})
    client.data["ghost", "g"] = (45, {})
    client.cursor = cursor.replace("{epoch}", (await service.head())["epoch"])

    await client.pull()

    assert await is_exact(service, client)
    assert client.looked_up == [("todo", "000003")]


async def test_p9_what_a_restored_server_lost_is_offered_again(postgres: Server, database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as service:
        await service.create()
        await filled(service, 30)
        client = await replica(service)
        await client.push([put("todo", "000000", {"kept": 1}), insert("todo", "both")])
    async with new_database(postgres, urlsplit(database).path[1:]) as backup:
        async with serving(database, tmp_path) as service:
            moved(client, service)
            await client.push([insert("todo", "lost", {"n": 1}), delete("todo", "000003")])
            await client.push([put("todo", "000000", {"kept": 2}), update("todo", "lost", {"n": 2})])
            await service.pushed([insert("todo", "of nobody")])
            await client.pull()
            before = dict(client.data)
        async with serving(backup, tmp_path) as service:
            moved(client, service)
            await service.pushed([insert("todo", "new")])
            await client.pull()

            assert await is_exact(service, client)
            assert client.data.keys() == (before.keys() | {("todo", "new")}) - {("todo", "of nobody")}
            assert {key: held[1] for key, held in client.data.items() if key in before} == {
                key: held[1] for key, held in before.items() if key in client.data
            }
            assert {atom for _, atom in client.looked_up} == {"000000", "000003", "new"}
