"""The policy `both`: the client's version is kept, and a person settles which stands (protocol, sections 5 and 11)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from journal.config import Limits
from journal.service import conflicts
from tests.harness import Harness, Json, Reply, delete, insert, put, serving, update
from tests.integration.test_order import connected

ME, OTHER = str(UUID(int=1)), str(UUID(int=2))
THEIRS: Json = {"title": "theirs", "cost": 1}
OPS = {"From": "ops@example.org"}


@pytest.fixture
async def base(service: Harness) -> str:
    """What a client knows: todo a, b, c of revision 3. Since then a was changed and b deleted: 4, 5."""
    answer = await service.pushed([insert("todo", atom, {"title": "first"}) for atom in "abc"])
    cursor = f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"
    await service.pushed([put("todo", "a", THEIRS), delete("todo", "b")], base=cursor)
    return cursor


@pytest.fixture
async def second(service: Harness, database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """Another process on the same database."""
    async with serving(database, tmp_path) as running:
        yield running


async def kept(service: Harness, *changes: Json, **members: Any) -> list[str]:
    """Push under `both`; the numbers of what was kept."""
    answer = await service.pushed(list(changes), on_conflict="both", **members)
    return [outcome["kept"] for outcome in answer["outcomes"] if "kept" in outcome]


async def settle(service: Harness, conflict: str, keep: str, **members: Any) -> Reply:
    return await service.call("POST", f"j/conflicts/{conflict}", json={"keep": keep, **members}, headers=OPS)


async def settled(service: Harness, conflict: str, keep: str, **members: Any) -> Json:
    """Settle, which must be done; the answer."""
    reply = await settle(service, conflict, keep, **members)
    assert reply.status == 200, reply.body
    return reply.json


async def listed(service: Harness, j: str = "j", **parameters: Any) -> Json:
    reply = await service.call("GET", f"{j}/conflicts", params=parameters)
    assert reply.status == 200, reply.body
    return reply.json


async def numbers(service: Harness, j: str = "j", **parameters: Any) -> list[str]:
    return [one["id"] for one in (await listed(service, j, **parameters))["conflicts"]]


async def one(service: Harness, conflict: str) -> Json:
    reply = await service.call("GET", f"j/conflicts/{conflict}")
    assert reply.status == 200, reply.body
    return reply.json


async def stands(service: Harness, atom: str) -> Json | None:
    """An atom's data; None where it does not live."""
    reply = await service.call("GET", "j/atom", params={"collection": "todo", "atom": atom})
    data: Json | None = reply.json["data"] if reply.status == 200 else None
    return data


# What is kept.


async def test_a_conflict_is_told_as_under_server_and_the_clients_version_is_kept(service: Harness, base: str) -> None:
    change = update("todo", "a", {"cost": 9}, unset=["note"])
    fine = update("todo", "c", {"cost": 1})

    answer = await service.pushed([fine, change], base=base, on_conflict="both", client=ME, push=7)

    current = {"revision": 4, "data": THEIRS}
    assert answer["outcomes"] == [
        {"status": "applied", "revision": 6},
        {"status": "conflict", "current": current, "kept": "1"},
    ]
    told = await listed(service)
    at = told["conflicts"][0].pop("at")
    assert told == {
        "conflicts": [
            {
                "id": "1", "op": "update", "collection": "todo", "atom": "a", "data": {"cost": 9}, "unset": ["note"],
                "client": ME, "push": 7, "place": 1, "base": 3, "stood": current, "settled": None,
            }
        ],
        "more": False,
        "next": None,
    }  # fmt: skip
    assert await one(service, "1") == told["conflicts"][0] | {"at": at}


@pytest.mark.parametrize(
    ("change", "stood"),
    [
        (insert("todo", "a", {"n": 1}), {"revision": 4, "data": THEIRS}),
        (put("todo", "a", {"n": 1}), {"revision": 4, "data": THEIRS}),
        (delete("todo", "a"), {"revision": 4, "data": THEIRS}),
        (put("todo", "b", {"n": 1}), None),
        (update("todo", "b", {"n": 1}), None),
        (update("todo", "never", {"n": 1}), None),
        (update("nowhere", "never", {"n": 1}), None),
    ],
    ids=lambda value: f"{value['op']} {value['atom']}" if value and "op" in value else "",
)
async def test_whatever_the_change_is_and_whatever_it_met(
    service: Harness, base: str, change: Json, stood: Json | None
) -> None:
    assert await kept(service, change, base=base) == ["1"]

    told = await one(service, "1")
    assert {name: told[name] for name in change} == change
    assert (told["stood"], told["client"], told["push"], told["base"]) == (stood, None, None, 3)
    assert (await service.head())["head"] == 5


async def test_data_is_kept_to_the_letter(service: Harness, base: str) -> None:
    data = '{"z":1,"a":{"deep":[1.50,1e2,"\\u00e4\\n\\"",null,true]},"":0}'
    change = f'{{"op":"insert","collection":"todo","atom":"a","data":{data}}}'
    body = f'{{"base":"{base}","on_conflict":"both","changes":[{change}]}}'

    await service.call("POST", "j/changes", data=body, headers={"Content-Type": "application/json"})

    assert data.encode() in (await service.call("GET", "j/conflicts/1")).body


async def test_p6_a_push_of_nothing_but_conflicts_is_remembered_and_so_is_what_it_kept(
    service: Harness, second: Harness, base: str
) -> None:
    members: Json = {"base": base, "on_conflict": "both", "client": ME, "push": 1}
    changes = [update("todo", "a", {"n": 1}), insert("todo", "a", {"n": 2})]

    first = await service.push(changes, **members)
    again = await service.push(changes, **members)
    elsewhere = await second.push(changes, **members)

    assert [outcome["kept"] for outcome in first.json["outcomes"]] == ["1", "2"]
    assert first.json["revision"] is None
    assert again.body == elsewhere.body == first.body.replace(b'"replayed":false', b'"replayed":true')
    assert await numbers(service) == ["2", "1"]


async def test_p6_the_same_under_an_idempotency_key(service: Harness, base: str) -> None:
    push = {"base": base, "on_conflict": "both", "changes": [update("todo", "a", {"n": 1})]}

    for _ in range(2):
        await service.call("POST", "j/changes", json=push, headers={"Idempotency-Key": "k"})

    assert await numbers(service) == ["1"]


async def test_what_follows_a_conflict_is_kept_and_says_what_it_met(service: Harness, base: str) -> None:
    changes = [
        put("todo", "c", {"n": 1}),
        insert("todo", "c", {"n": 2}),
        update("todo", "c", {"n": 3}),
        delete("todo", "b"),
    ]

    assert await kept(service, *changes, base=base) == ["1", "2"]

    found = (await listed(service))["conflicts"]
    assert [(told["op"], told["place"], told["stood"]) for told in found] == [
        ("update", 2, {"revision": 6, "data": {"n": 1}}),
        ("insert", 1, {"revision": 6, "data": {"n": 1}}),
    ]


async def test_an_atomic_push_that_is_refused_keeps_nothing(service: Harness, base: str) -> None:
    changes = [update("todo", "a", {"n": 1}), update("todo", "c", {"n": 1})]

    refused = await service.push(changes, base=base, on_conflict="both", atomic=True, client=ME, push=1)

    assert (refused.status, [outcome["status"] for outcome in refused.json["outcomes"]]) == (
        409,
        ["conflict", "applied"],
    )
    assert b"kept" not in refused.body
    assert await numbers(service, state="all") == []


async def test_a_collections_policy_may_be_both_and_only_it_keeps(service: Harness, base: str) -> None:
    await service.pushed([insert("site", "a")])
    given = await service.call("PUT", "j/collections", json={"collection": "todo", "policy": "both"})

    answer = await service.pushed([update("todo", "a", {"n": 1}), insert("site", "a", {"n": 2})], base=base)

    assert (given.status, given.json["policy"]) == (200, "both")
    assert [outcome.get("kept") for outcome in answer["outcomes"]] == ["1", None]


async def test_each_journal_counts_its_own_also_where_they_are_decided_together(service: Harness, base: str) -> None:
    await service.create("k")
    await service.pushed([insert("todo", "a")], "k")
    pushes = [
        service.pushed([insert("todo", "a", {"mine": n})], j, on_conflict="both", client=str(UUID(int=n + 1)), push=1)
        for n in range(20)
        for j in ("j", "k")
    ]

    answers = await asyncio.gather(*pushes)

    expected = [str(number) for number in range(20, 0, -1)]
    assert await numbers(service) == await numbers(service, "k") == expected
    told = [answer["outcomes"][0]["kept"] for answer in answers]
    assert sorted(told[::2], key=int) == sorted(told[1::2], key=int) == expected[::-1]
    for j in ("j", "k"):
        for found in (await listed(service, j))["conflicts"]:
            assert UUID(found["client"]).int == found["data"]["mine"] + 1


async def test_two_processes_give_no_number_twice(service: Harness, second: Harness, base: str) -> None:
    pushes = [
        (service, second)[n % 2].pushed([insert("todo", "a", {"mine": n}), insert("new", str(n))], on_conflict="both")
        for n in range(30)
    ]

    answers = await asyncio.gather(*pushes)

    told = sorted(int(answer["outcomes"][0]["kept"]) for answer in answers)
    assert told == list(range(1, 31))
    assert sorted(found["data"]["mine"] for found in (await listed(service))["conflicts"]) == list(range(30))


# Looking at them.


async def test_they_are_told_newest_first_in_pages_by_state_and_by_client(service: Harness, base: str) -> None:
    for push in range(1, 4):
        for client in (ME, OTHER):
            await kept(service, update("todo", "a", {"n": push}), base=base, client=client, push=push)
    await settled(service, "2", "server")
    await settled(service, "5", "server")

    first = await listed(service, limit=3)
    rest = await listed(service, limit=3, after=first["next"])

    assert ([told["id"] for told in first["conflicts"]], first["more"], first["next"]) == (["6", "4", "3"], True, "3")
    assert ([told["id"] for told in rest["conflicts"]], rest["more"], rest["next"]) == (["1"], False, None)
    assert await numbers(service, state="open", limit=4) == ["6", "4", "3", "1"]
    assert await numbers(service, state="settled") == ["5", "2"]
    assert await numbers(service, state="all") == ["6", "5", "4", "3", "2", "1"]
    assert await numbers(service, state="all", client=ME) == ["5", "3", "1"]
    assert await numbers(service, client=OTHER.upper()) == ["6", "4"]
    assert await numbers(service, client=str(UUID(int=9))) == []


async def test_p12_a_page_ends_where_its_data_grows_too_large(
    service: Harness, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflicts, "PAGE_BYTES", 2500)
    for n in range(5):
        await kept(service, insert("todo", "a", {"n": n, "text": "x" * 1000}), base=base)

    pages: list[list[str]] = []
    after: str | None = None
    while after is not None or not pages:
        page = await listed(service, **({} if after is None else {"after": after}))
        pages.append([told["id"] for told in page["conflicts"]])
        after = page["next"]
        assert page["more"] is (after is not None)

    assert pages == [["5", "4", "3"], ["2", "1"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("j/conflicts/1", 404), ("j/conflicts/0", 404), ("j/conflicts/x", 404), ("j/conflicts/-1", 404),
        ("j/conflicts/99999999999999999999", 404), ("none/conflicts", 404), ("none/conflicts/1", 404),
        ("j/conflicts?state=mine", 400), ("j/conflicts?client=me", 400), ("j/conflicts?limit=0", 400),
        ("j/conflicts?after=x", 400), ("j/conflicts?of=x", 400), ("j/conflicts/1?x=1", 400),
    ],
)  # fmt: skip
async def test_what_is_not_there_or_makes_no_sense_is_said(service: Harness, path: str, status: int) -> None:
    assert (await service.call("GET", path)).status == status


# Settling.


async def test_keeping_the_servers_records_nothing(service: Harness, base: str) -> None:
    await kept(service, update("todo", "a", {"cost": 9}), base=base)
    before = await service.head()

    told = await settled(service, "1", "server")

    assert told == {"id": "1", "keep": "server", "revision": None}
    assert await service.head() == before
    done = (await one(service, "1"))["settled"]
    assert done.pop("at") > "2026"
    assert done == {"keep": "server", "revision": None, "by": "ops@example.org"}
    assert await numbers(service) == []


@pytest.mark.parametrize("policy", [None, "server", "merge", "newest", "both"])
@pytest.mark.parametrize(
    ("change", "op", "data"),
    [
        (insert("todo", "a", {"mine": 1}), "replace", {"mine": 1}),
        (put("todo", "a", {"mine": 1}), "replace", {"mine": 1}),
        (update("todo", "a", {"mine": 1}, unset=["title"]), "update", {"cost": 1, "mine": 1, "later": 1}),
        (delete("todo", "a"), "delete", None),
        (put("todo", "b", {"mine": 1}), "insert", {"mine": 1}),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) and "op" in value else "",
)
async def test_keeping_the_clients_records_it_on_what_stands_now_whatever_the_policy(
    service: Harness, base: str, change: Json, op: str, data: Json | None, policy: str | None
) -> None:
    await kept(service, change, base=base)
    cursor = (await service.head())["cursor"]
    if change["atom"] == "a":
        await service.pushed([update("todo", "a", {"later": 1})], base=cursor)
    cursor = (await service.head())["cursor"]
    await service.call("PUT", "j/collections", json={"collection": "todo", "policy": policy})

    told = await settled(service, "1", "client")

    head = await service.head()
    assert told == {"id": "1", "keep": "client", "revision": head["head"]}
    assert await stands(service, change["atom"]) == data
    changes = (await service.call("GET", "j/changes", params={"since": cursor})).json["commits"]
    assert [(commit["client"], [each["op"] for each in commit["changes"]]) for commit in changes] == [(None, [op])]
    deltas = (await service.deltas(cursor)).json
    assert ([delta["atom"] for delta in deltas["deltas"]], deltas["digest"]) == ([change["atom"]], head["digest"])
    assert await numbers(service, state="all") == ["1"]


@pytest.mark.parametrize("change", [put("todo", "a", {"mine": 1}), delete("todo", "a")], ids=lambda it: it["op"])
async def test_what_is_so_already_is_settled_without_a_change(service: Harness, base: str, change: Json) -> None:
    await kept(service, change, base=base)
    await service.pushed([change], on_conflict="client")
    before = (await service.head())["head"]

    told = await settled(service, "1", "client")

    assert (told["revision"], (await service.head())["head"]) == (None, before)


@pytest.mark.parametrize(
    ("change", "data"),
    [
        (insert("todo", "a", {"mine": 1}), {"mine": 1}),
        (put("todo", "a", {"mine": 1}), {"mine": 1}),
        (delete("todo", "a"), None),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) and "op" in value else "",
)
async def test_what_was_deleted_meanwhile_is_no_obstacle_to_what_is_whole(
    service: Harness, base: str, change: Json, data: Json | None
) -> None:
    await kept(service, change, base=base)
    await service.pushed([delete("todo", "a")], on_conflict="client")

    told = await settled(service, "1", "client")

    assert told["revision"] == (None if data is None else 7)
    assert await stands(service, "a") == data


async def test_an_update_of_what_is_gone_is_refused_with_what_to_do_and_stays_open(service: Harness, base: str) -> None:
    await kept(service, update("todo", "a", {"cost": 9}), update("todo", "b", {"cost": 9}), base=base)
    await service.pushed([delete("todo", "a")], on_conflict="client")

    has_stood = await settle(service, "1", "client")
    never_stood = await settle(service, "2", "client")
    beside = await settle(service, "2", "both", atom="b2")

    assert [(reply.status, reply.json["code"]) for reply in (has_stood, never_stood)] == [(409, "atom_gone")] * 2
    assert "or both with a name" in has_stood.json["detail"]
    assert "both" not in never_stood.json["detail"]
    assert (beside.status, [fault["pointer"] for fault in beside.json["errors"]]) == (400, ["/keep"])
    assert await numbers(service) == ["2", "1"]
    assert (await settled(service, "1", "both", atom="a"))["revision"] == 7
    assert await stands(service, "a") == THEIRS | {"cost": 9}


@pytest.mark.parametrize(
    ("change", "data"),
    [
        (insert("todo", "a", {"mine": 1}), {"mine": 1}),
        (put("todo", "a", {"mine": 1}), {"mine": 1}),
        (put("todo", "b", {"mine": 1}), {"mine": 1}),
        (update("todo", "a", {"mine": 1}, unset=["title", "none"]), {"cost": 1, "mine": 1}),
        (update("todo", "a", unset=["title"]), {"cost": 1}),
    ],
    ids=lambda value: f"{value['op']} {value['atom']}" if isinstance(value, dict) and "op" in value else "",
)
async def test_keeping_both_gives_the_clients_version_a_name_of_its_own(
    service: Harness, base: str, change: Json, data: Json
) -> None:
    """Of an update, what stood at the conflict with the patch over it, whatever has become of the atom since."""
    await kept(service, change, base=base)
    await service.pushed([put("todo", "a", {"later": 1})], on_conflict="client")

    told = await settled(service, "1", "both", atom="a (from the phone)")

    assert told == {"id": "1", "keep": "both", "revision": 7}
    assert await stands(service, "a (from the phone)") == data
    assert await stands(service, "a") == {"later": 1}
    assert (await one(service, "1"))["settled"]["atom"] == "a (from the phone)"


async def test_a_copy_takes_no_name_that_lives_but_one_that_is_free_again(service: Harness, base: str) -> None:
    await kept(service, insert("todo", "a", {"mine": 1}), base=base)

    taken = [await settle(service, "1", "both", atom=name) for name in ("a", "c")]
    free = await settled(service, "1", "both", atom="b")

    assert [(reply.status, reply.json["code"]) for reply in taken] == [(409, "atom_exists")] * 2
    assert (free["revision"], await stands(service, "b"), await stands(service, "c")) == (
        6,
        {"mine": 1},
        {"title": "first"},
    )


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"keep": "both"}, ["/atom"]),
        ({"keep": "server", "atom": "x"}, ["/atom"]),
        ({"keep": "client", "atom": "x"}, ["/atom"]),
        ({"keep": "both", "atom": ""}, ["/atom"]),
        ({"keep": "mine"}, ["/keep"]),
        ({}, ["/keep"]),
        ({"keep": "server", "why": "x"}, ["/why"]),
        ({"keep": "both", "atom": "x"}, ["/keep"]),
    ],
)
async def test_a_choice_that_makes_no_sense_is_refused(
    service: Harness, base: str, body: Json, pointers: list[str]
) -> None:
    """The last one is of a delete, of which there is no version."""
    await kept(service, delete("todo", "a"), base=base)

    reply = await service.call("POST", "j/conflicts/1", json=body)

    assert (reply.status, [fault["pointer"] for fault in reply.json["errors"]]) == (400, pointers)
    assert await numbers(service) == ["1"]


async def test_what_makes_no_sense_at_all_is_not_recorded_when_it_is_settled(service: Harness, base: str) -> None:
    """It was never looked at while it followed a conflict."""
    senseless = update("todo", "a", {"n": 1}, unset=["n"])
    await kept(service, insert("todo", "a", {"n": 1}), senseless, base=base)

    reply = await settle(service, "2", "client")

    assert (reply.status, reply.json["code"]) == (409, "not_applied")
    assert reply.json["outcomes"][0]["error"]["code"] == "set_and_unset"
    assert (await settled(service, "2", "server"))["revision"] is None


async def test_an_atom_does_not_become_too_large_by_settling(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, limits=Limits(atom_bytes=100)) as service:
        await service.create("j")
        await service.pushed([insert("todo", "a", {"n": 1})])
        base = (await service.head())["cursor"]
        await service.pushed([put("todo", "a", {"n": "x" * 60})], base=base)
        await kept(service, update("todo", "a", {"m": "y" * 60}), base=base)

        reply = await settle(service, "1", "client")
        beside = await settle(service, "1", "both", atom="b")

        assert [reply.json["outcomes"][0]["error"]["code"] for reply in (reply, beside)] == ["atom_too_large"] * 2
        assert (await service.head())["head"] == 2


@pytest.mark.parametrize("choice", [{"keep": "server"}, {"keep": "client"}, {"keep": "both", "atom": "copy"}])
async def test_p6_the_same_choice_again_has_the_same_answer_and_another_is_told_how_it_was_settled(
    service: Harness, second: Harness, base: str, choice: Json
) -> None:
    await kept(service, update("todo", "a", {"cost": 9}), base=base)
    others: list[Json] = [{"keep": "server"}, {"keep": "client"}, {"keep": "both", "atom": "copy"}]
    others.append({"keep": "both", "atom": "another"})
    others.remove(choice)

    first = await settled(service, "1", **choice)
    await service.pushed([delete("todo", "a")], on_conflict="client")
    again = [await settled(service, "1", **choice), await settled(second, "1", **choice)]
    otherwise = [await settle(second, "1", **other) for other in others]

    assert again == [first] * 2
    for reply in otherwise:
        assert (reply.status, reply.json["code"]) == (409, "conflict_settled")
        assert {name: reply.json[name] for name in ("keep", "revision")} == {
            name: first[name] for name in ("keep", "revision")
        }
        assert reply.json.get("atom") == choice.get("atom")
    assert len((await service.call("GET", "j/audit")).json["audit"]) == 1


async def test_p6_of_many_who_settle_at_once_one_does(service: Harness, second: Harness, base: str) -> None:
    """Two processes, six choices each way, and pushes that go on meanwhile: each conflict is settled exactly once."""
    ids = [(await kept(service, insert("todo", "a", {"mine": n}), base=base))[0] for n in range(6)]

    async def settling(number: str, place: int) -> tuple[str, Reply]:
        choices: list[Json] = [{"keep": "server"}, {"keep": "client"}, {"keep": "both", "atom": f"copy of {number}"}]
        choice = choices[place % 3]
        return number, await settle((service, second)[place % 2], number, **choice)

    async def pushing(n: int) -> Json:
        return await (service, second)[n % 2].pushed([insert("other", str(n))])

    before = (await service.head())["head"]
    results = await asyncio.gather(
        *(settling(number, place) for place in range(6) for number in ids), *(pushing(n) for n in range(20))
    )

    replies = [result for result in results if isinstance(result, tuple)]
    assert {reply.status for _, reply in replies} <= {200, 409}
    recorded = 0
    for number in ids:
        answers = [reply.json for which, reply in replies if which == number and reply.status == 200]
        assert answers == [answers[0]] * 2  # the same choice, once at each process
        done = (await one(service, number))["settled"]
        assert (done["keep"], done["revision"]) == (answers[0]["keep"], answers[0]["revision"])
        recorded += done["revision"] is not None
    assert (await service.head())["head"] == before + 20 + recorded
    deeds = (await service.call("GET", "j/audit")).json["audit"]
    assert sorted(deed["detail"]["conflict"] for deed in deeds) == ids
    assert (await service.call("POST", "j/check", headers={"Prefer": "wait=60"})).json["result"]["ok"]


async def test_the_audit_log_says_who_settled_what_and_how(service: Harness, base: str) -> None:
    await kept(service, update("todo", "a", {"cost": 9}), base=base)

    await settled(service, "1", "both", atom="copy")

    [deed] = (await service.call("GET", "j/audit")).json["audit"]
    assert (deed["by"], deed["action"]) == ("ops@example.org", "settle")
    assert deed["detail"] == {
        "conflict": "1", "keep": "both", "collection": "todo", "atom": "a", "copy": "copy", "revision": 6
    }  # fmt: skip


async def test_p3_whoever_waits_is_told_of_what_settling_recorded(service: Harness, second: Harness, base: str) -> None:
    await kept(service, update("todo", "a", {"cost": 9}), base=base)
    cursor = (await second.head())["cursor"]
    waiting = [asyncio.ensure_future(each.deltas(cursor, wait=20)) for each in (service, second)]

    await settled(service, "1", "client")

    for told in await asyncio.gather(*waiting):
        assert [(delta["op"], delta["data"]) for delta in told.json["deltas"]] == [("update", {"cost": 9})]


# What is kept stays, but for two things.


async def everything(service: Harness) -> str:
    """All rows of all tables, as text."""
    tables = await service.query("select tablename from pg_tables where schemaname = 'journal'")
    rows = [await service.query(f"select t::text as row from journal.{table['tablename']} t") for table in tables]
    return "\n".join(row["row"] for table in rows for row in table)


SECRET = "Ada Lovelace, 12 St James's Square"


async def erased(service: Harness, atom: str) -> Json:
    reply = await service.call("POST", "j/erase", json={"collection": "todo", "atom": atom}, headers=OPS)
    assert reply.status == 200, reply.body
    return reply.json


async def test_erasure_blanks_what_is_kept_and_what_stood(service: Harness, base: str) -> None:
    await service.pushed([update("todo", "a", {"name": SECRET})], on_conflict="client")
    await kept(service, update("todo", "a", {"mine": SECRET}), delete("todo", "a"), base=base)
    await kept(service, insert("todo", "c", {"mine": 1}), base=base)

    told = await erased(service, "a")

    assert told["conflicts"] == 2
    assert SECRET not in await everything(service)
    blanked = await one(service, "1")
    assert (blanked["erased"], blanked["stood"], "data" in blanked) == (True, {"revision": 6}, False)
    untouched = await one(service, "3")
    assert (untouched["data"], untouched.get("erased")) == ({"mine": 1}, None)
    for choice in ({"keep": "client"}, {"keep": "both", "atom": "x"}):
        reply = await settle(service, "1", **choice)
        assert (reply.status, reply.json["code"]) == (409, "conflict_erased")
    assert (await settled(service, "1", "server"))["revision"] is None
    assert (await settled(service, "2", "client"))["revision"] is None  # a delete, of what is deleted


async def test_erasure_reaches_what_an_atom_was_made_from_and_what_never_became_one(
    service: Harness, base: str
) -> None:
    await kept(service, insert("todo", "a", {"mine": SECRET}), update("todo", "never", {"mine": SECRET}), base=base)
    await settled(service, "1", "both", atom="copy")

    copy = await erased(service, "copy")
    never = await erased(service, "never")
    again = await service.call("POST", "j/erase", json={"collection": "todo", "atom": "never"})

    assert (copy["conflicts"], never["conflicts"], again.status) == (1, 1, 404)
    assert SECRET not in await everything(service)
    deeds = (await service.call("GET", "j/audit")).json["audit"]
    assert [(deed["action"], deed["detail"].get("conflicts")) for deed in deeds] == [
        ("erase", 1), ("erase", 1), ("settle", None)
    ]  # fmt: skip


async def test_they_go_with_their_journal_and_a_new_one_counts_anew(service: Harness, base: str) -> None:
    await kept(service, insert("todo", "a", {"mine": 1}), base=base)

    await service.call("DELETE", "j")
    await service.create("j")
    await service.pushed([insert("todo", "a")])

    assert await service.query("select id from journal.conflict") == []
    assert await kept(service, insert("todo", "a", {"mine": 2})) == ["1"]


async def test_compaction_a_new_epoch_and_a_forgotten_client_leave_them_alone(service: Harness, base: str) -> None:
    await kept(service, update("todo", "a", {"mine": 1}), base=base, client=ME, push=1)
    before = await one(service, "1")

    await service.call("DELETE", f"j/clients/{ME}")
    await service.call("POST", "j/restored", json={})
    asked = {"keep_revisions": 0, "force": True}
    await service.call("POST", "j/compact", json=asked, headers={"Prefer": "wait=60"})
    await service.call("POST", "j/resync", json={"reason": "x"})

    assert await one(service, "1") == before
    revision = (await settled(service, "1", "client"))["revision"]
    assert revision == (await service.head())["head"]
    assert await stands(service, "a") == THEIRS | {"mine": 1}


async def test_a_settlement_waits_for_who_holds_the_journal_and_is_told_503_in_the_end(
    service: Harness, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflicts, "PATIENCE_S", 0.2)
    await kept(service, update("todo", "a", {"mine": 1}), base=base)

    async with connected(service.dsn) as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch("select from journal.head for update")
        busy = await settle(service, "1", "client")
        await transaction.rollback()

    assert (busy.status, busy.json["code"]) == (503, "unavailable")
    assert (await settled(service, "1", "client"))["revision"] == 6
