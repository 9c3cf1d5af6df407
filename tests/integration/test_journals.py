"""Section 2: journals are made, listed and removed; collections and their policies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import Harness, eventually, insert, listening, serving, update
from tests.postgres import Server

NAMES = ["a", "0", "a_-z", "9" * 63, "journals", "snapshot"]
NO_NAMES = ["A", "-a", "_a", "a.b", "a%2Fb", "%C3%A9", "a%20b", "a" * 64, "a%00", "%ff", "a%0A"]
WAYS_IN = [
    ("GET", ""),
    ("HEAD", ""),
    ("DELETE", ""),
    ("GET", "/deltas?since=0"),
    ("GET", "/deltas?since=0&until=0"),
    ("GET", "/changes?since=0"),
    ("POST", "/changes"),
    ("GET", "/collections"),
    ("PUT", "/collections"),
    ("GET", "/snapshot"),
    ("GET", "/snapshots/0123456789ab-0-0000000000000000-0000000000000000"),
    ("GET", "/atom?collection=c&atom=a"),
    ("GET", "/atom?collection=c&atom=a&at=0"),
    ("GET", "/atom/history?collection=c&atom=a"),
    ("GET", "/cursor?at=0123456789ab:0:0000000000000000"),
]


async def knock(service: Harness, j: str) -> dict[str, int]:
    """What every way into a journal answers."""
    found = {}
    for method, path in WAYS_IN:
        body = {"collection": "c", "policy": None} if path == "/collections" else {"changes": [insert("c", "a")]}
        json = {"json": body} if method in ("PUT", "POST") else {}
        found[f"{method} {path}"] = (await service.call(method, f"{j}{path}", **json)).status
    return found


@pytest.fixture
async def second(service: Harness, tmp_path: Path) -> AsyncIterator[Harness]:
    """Another process on the same database."""
    async with serving(service.dsn, tmp_path, poll_s=3600.0) as running:
        await listening(running)
        yield running


@pytest.mark.parametrize("name", NAMES)
async def test_a_journal_is_made_once(service: Harness, name: str) -> None:
    made = await service.call("PUT", name)
    again = await service.call("PUT", name)

    assert [made.status, again.status] == [201, 200]
    assert made.json == again.json == await service.head(name)
    assert made.json["journal"] == name


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_name_that_is_none_is_refused(service: Harness, name: str) -> None:
    made = await service.call("PUT", name)
    told = await service.call("GET", name)

    assert (made.status, made.json["code"]) == (400, "invalid_request")
    assert (told.status, told.json["code"]) == (404, "journal_not_found")


async def test_a_journal_that_never_was_is_not_found_whatever_is_asked(service: Harness) -> None:
    found = await knock(service, "never")

    assert found == dict.fromkeys(found, 404)


async def test_a_removed_journal_is_not_found_anywhere(service: Harness, second: Harness, postgres: Server) -> None:
    await service.pushed([insert("c", "a")])
    await service.snapshot()
    assert (await second.head())["head"] == 1

    removed = await service.call("DELETE", "j")

    async def is_unknown() -> bool:
        return (await second.call("GET", "j")).status == 404

    assert (removed.status, removed.body) == (204, b"")
    assert set((await knock(service, "j")).values()) == {404}
    await eventually(is_unknown)
    assert set((await knock(second, "j")).values()) == {404}


async def test_nothing_stays_of_a_removed_journal(service: Harness) -> None:
    await service.create("k")
    for j in ("j", "k"):
        client = "00000000-0000-4000-8000-000000000001"
        await service.pushed([insert("c", "a")], j, client=client, push=1)
        await service.call(
            "POST", f"{j}/changes", json={"changes": [insert("c", "b")]}, headers={"Idempotency-Key": "key"}
        )

    await service.call("DELETE", "j")

    tables = await service.query(
        "select table_name as name from information_schema.columns"
        " where table_schema = 'journal' and column_name = 'journal_id'"
    )
    left = {}
    for table in tables:
        [row] = await service.query(f'select count(distinct journal_id) as journals from journal."{table["name"]}"')
        left[table["name"]] = row["journals"]
    assert left.keys() >= {"atom", "change", "client", "collection", "commit", "head", "idempotency", "push"}
    assert set(left.values()) <= {0, 1}
    assert left["change"] == left["head"] == 1


async def test_a_journal_made_again_is_another_one(service: Harness) -> None:
    answer = await service.pushed([insert("c", "a")])
    old = f"{answer['epoch']}:1:{answer['chain']}"
    await service.call("DELETE", "j")

    made = await service.call("PUT", "j")
    await service.pushed([insert("c", "a")])
    reply = await service.deltas(old)

    assert (made.status, made.json["head"]) == (201, 0)
    assert (reply.status, reply.json["reason"]) == (410, "epoch")


async def test_a_removed_journals_snapshots_are_gone(service: Harness) -> None:
    await service.pushed([insert("c", "a")])
    location = (await service.call("GET", "j/snapshot")).headers["Location"]
    folder = service.service.snapshots.folder / "j"
    assert list(folder.iterdir())

    await service.call("DELETE", "j")
    await service.create("j")
    reply = await service.call("GET", location)

    assert (reply.status, reply.json["code"]) == (404, "not_found")
    assert not folder.exists() or not list(folder.iterdir())


# The list.


async def test_journals_are_listed_by_name_in_pages(service: Harness) -> None:
    for name in ("b-1", "a", "b_1", "b", "c"):
        await service.create(name)
    await service.pushed([insert("c", "a")], "b")

    first = (await service.call("GET", "/v1/journals?limit=4")).json
    rest = (await service.call("GET", f"/v1/journals?after={first['next']}&limit=4")).json
    exact = (await service.call("GET", "/v1/journals?limit=6")).json

    names = [[head["journal"] for head in page["journals"]] for page in (first, rest)]
    assert names == [["a", "b", "b-1", "b_1"], ["c", "j"]]
    assert [(page["more"], page["next"]) for page in (first, rest, exact)] == [
        (True, "b_1"),
        (False, None),
        (False, None),
    ]
    assert first["journals"][1] == await service.head("b")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=%00", "after=A", "before=a", "after=a&after=b"])
async def test_a_slip_is_told(service: Harness, query: str) -> None:
    reply = await service.call("GET", f"/v1/journals?{query}")

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


# Collections.


async def test_collections_are_listed_by_name_with_what_lives_in_them(service: Harness) -> None:
    await service.pushed([insert("b", "1"), insert("a", "1"), insert("a", "2")])

    told = (await service.call("GET", "j/collections")).json
    digests = [(await service.deltas(0, collections=name)).json["digest"] for name in ("a", "b")]

    assert told["head"] == 3
    assert told["collections"] == [
        {"name": "a", "atoms": 2, "digest": digests[0], "policy": None},
        {"name": "b", "atoms": 1, "digest": digests[1], "policy": None},
    ]


@pytest.mark.parametrize("name", ["todo", ".", "..", "a/b", "é ü", "null"])
async def test_a_collection_is_given_a_policy_whether_it_is_there_or_not(service: Harness, name: str) -> None:
    before = await service.head()

    given = await service.call("PUT", "j/collections", json={"collection": name, "policy": "client"})
    listed = (await service.call("GET", "j/collections")).json["collections"]
    taken = await service.call("PUT", "j/collections", json={"collection": name, "policy": None})

    empty = {"name": name, "atoms": 0, "digest": "0" * 16}
    assert (given.status, given.json) == (200, empty | {"policy": "client"})
    assert listed == [empty | {"policy": "client"}]
    assert taken.json == empty | {"policy": None}
    assert await service.head() == before


async def test_a_collections_policy_goes_before_the_requests_at_every_process(
    service: Harness, second: Harness
) -> None:
    await service.pushed([insert("todo", "a")])
    assert (await second.head())["head"] == 1
    await service.call("PUT", "j/collections", json={"collection": "todo", "policy": "client"})

    answer = await second.pushed([update("todo", "a", {"n": 2})])

    assert [outcome["status"] for outcome in answer["outcomes"]] == ["applied"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"collection": "a"},
        {"policy": None},
        {"collection": "a,b", "policy": None},
        {"collection": "", "policy": None},
        {"collection": "a", "policy": "mine"},
        {"collection": "a", "policy": None, "x": 1},
    ],
)
async def test_a_policy_that_is_none_is_refused(service: Harness, body: dict[str, object]) -> None:
    reply = await service.call("PUT", "j/collections", json=body)

    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert (await service.call("GET", "j/collections")).json["collections"] == []


async def test_a_path_that_there_is_not_is_404_and_another_method_405(service: Harness) -> None:
    nowhere = await service.call("GET", "j/nowhere")
    wrong = await service.call("POST", "j/deltas")

    assert (nowhere.status, nowhere.json["code"]) == (404, "not_found")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD")
