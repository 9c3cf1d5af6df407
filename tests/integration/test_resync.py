"""Section 7: every reason why a cursor leads nowhere, in what order they are judged, and what is said (P8)."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.harness import Harness, Json, Reply, eventually, insert, update

OTHER_EPOCH, OTHER_CHAIN = "0123456789ab", "0123456789abcdef"


async def pushed(service: Harness, *changes: Json) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client")
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def raise_horizon(service: Harness, horizon: int) -> None:
    """What a compaction does to the head; the service has heard of it."""
    await service.query("update journal.head set horizon = $1, turn = turn + 1", horizon)
    await service.query("select pg_notify('journal', string_agg(journal_id || ':' || turn, ' ')) from journal.head")

    async def is_known() -> bool:
        known: bool = (await service.head())["horizon"] == horizon
        return known

    await eventually(is_known)


async def history(service: Harness) -> list[str]:
    """Five commits of one revision each; the cursors at 0…5."""
    epoch = (await service.head())["epoch"]
    told = [await pushed(service, insert("todo" if n < 4 else "note", f"{n}")) for n in range(5)]
    return [f"{epoch}:0:{'0' * 16}", *told]


def parts(cursor: str, *, epoch: str | None = None, revision: int | None = None, chain: str | None = None) -> str:
    """A cursor with other parts."""
    old_epoch, old_revision, old_chain, *members = cursor.split(":")
    return ":".join([epoch or old_epoch, str(revision or old_revision), chain or old_chain, *members])


def asked(reply: Reply) -> str:
    assert (reply.status, reply.json["code"]) == (410, "resync_required"), reply.body
    reason: str = reply.json["reason"]
    return reason


# What is said.


@pytest.mark.parametrize(
    ("since", "reason", "reconcile"),
    [
        (lambda cursors: cursors[1], "horizon", "replace"),
        (lambda cursors: 1, "horizon", "replace"),
        (lambda cursors: 0, "horizon", "replace"),
        (lambda cursors: parts(cursors[5], epoch=OTHER_EPOCH), "epoch", "verify"),
        (lambda cursors: parts(cursors[5], chain=OTHER_CHAIN), "diverged", "verify"),
        (lambda cursors: parts(cursors[3], chain=OTHER_CHAIN), "diverged", "verify"),
        (lambda cursors: parts(cursors[5], revision=6), "future", "verify"),
        (lambda cursors: 2**53 - 1, "future", "verify"),
        (lambda cursors: cursors[5] + ":collections=todo", "scope", "replace"),
    ],
)
async def test_p8_a_cursor_that_leads_nowhere_is_told_why(
    service: Harness, since: Callable[[list[str]], str | int], reason: str, reconcile: str
) -> None:
    cursors = await history(service)
    await raise_horizon(service, 2)

    reply = await service.deltas(since(cursors))

    head = await service.head()
    body = dict(reply.json)
    assert body.pop("title")
    assert body == {
        "type": "urn:journal:problem:resync_required",
        "status": 410,
        "code": "resync_required",
        "reason": reason,
        "epoch": head["epoch"],
        "head": 5,
        "horizon": 2,
        "reconcile": reconcile,
        "snapshot": "/v1/journals/j/snapshot",
        "retry_after": body["retry_after"],
    } | ({"collections": ["note"]} if reason == "scope" else {})
    assert reply.status == 410
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Retry-After"] == str(body["retry_after"])


@pytest.mark.parametrize("parameters", [{}, {"include": "meta"}, {"until": 5}, {"format": "ndjson"}, {"wait": 60}])
async def test_p8_it_is_told_in_every_way_of_asking(service: Harness, parameters: Json) -> None:
    cursors = await history(service)
    await raise_horizon(service, 2)

    wrong = [cursors[1], 1, parts(cursors[4], chain=OTHER_CHAIN), parts(cursors[4], epoch=OTHER_EPOCH), 6]
    reasons = [asked(await service.deltas(str(since), **parameters)) for since in wrong]

    assert reasons == ["horizon", "horizon", "diverged", "epoch", "future"]


@pytest.mark.parametrize("path", ["changes?since=", "deltas?since=", "cursor?collections=todo&at="])
async def test_p8_it_is_told_wherever_a_cursor_is_taken(service: Harness, path: str) -> None:
    cursors = await history(service)
    await raise_horizon(service, 2)

    wrong = [
        cursors[1],
        parts(cursors[4], chain=OTHER_CHAIN),
        parts(cursors[4], epoch=OTHER_EPOCH),
        parts(cursors[4], revision=6),
    ]
    reasons = [asked(await service.call("GET", f"j/{path}{since}")) for since in wrong]

    assert reasons == ["horizon", "diverged", "epoch", "future"]


async def test_p8_it_is_told_to_pushes_and_nothing_is_recorded(service: Harness) -> None:
    cursors = await history(service)
    await raise_horizon(service, 2)

    wrong = [cursors[1], parts(cursors[4], chain=OTHER_CHAIN), parts(cursors[4], epoch=OTHER_EPOCH)]
    reasons = [asked(await service.push([insert("todo", "x")], base=base)) for base in wrong]

    assert reasons == ["horizon", "diverged", "epoch"]
    assert (await service.head())["head"] == 5


async def test_a_cursor_between_two_commits_ends_has_no_chain_to_compare(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"), insert("todo", "b"))

    reply = await service.deltas(parts(cursor, revision=1))

    assert asked(reply) == "diverged"


async def test_the_horizon_itself_is_not_too_old(service: Harness) -> None:
    cursors = await history(service)
    await raise_horizon(service, 2)

    replies = [await service.deltas(since, until=until) for since in (cursors[2], "2") for until in (None, 5)]

    assert [reply.status for reply in replies] == [200] * 4
    assert all([delta["revision"] for delta in reply.json["deltas"]] == [3, 4, 5] for reply in replies)


# In what order it is judged.


@pytest.mark.parametrize("members", ["", ":collections=note"])
async def test_reasons_are_judged_in_the_protocols_order(service: Harness, members: str) -> None:
    cursors = await history(service)
    await raise_horizon(service, 3)
    at_2, at_3 = cursors[2] + members, cursors[3] + members

    reasons = [
        asked(await service.deltas(since, collections="todo"))
        for since in (
            parts(at_2, epoch=OTHER_EPOCH, chain=OTHER_CHAIN),
            parts(at_2, epoch=OTHER_EPOCH, chain=OTHER_CHAIN, revision=9),
            parts(at_2, chain=OTHER_CHAIN, revision=9),
            parts(at_2, chain=OTHER_CHAIN),
            parts(at_3, chain=OTHER_CHAIN),
        )
    ]

    assert reasons == ["epoch", "epoch", "future", "horizon", "diverged"]


# Trap 23: between two pages of a round.


async def test_trap_23_a_compaction_below_a_rounds_position_does_not_disturb_it(service: Harness) -> None:
    await history(service)
    first = (await service.deltas(0, limit=2)).json

    await raise_horizon(service, 2)
    reply = await service.deltas(first["cursor"], limit=10)

    assert [delta["revision"] for delta in reply.json["deltas"]] == [3, 4, 5]


async def test_trap_23_a_compaction_above_a_rounds_position_ends_it(service: Harness) -> None:
    await history(service)
    first = (await service.deltas(0, limit=2)).json

    await raise_horizon(service, 3)
    reply = await service.deltas(first["cursor"], limit=10)

    assert asked(reply) == "horizon"


async def test_trap_23_a_round_to_a_fixed_end_needs_the_record_from_its_base_on(service: Harness) -> None:
    cursors = await history(service)
    kept = (await service.deltas(cursors[1], until=5, limit=2)).json
    lost = (await service.deltas(0, until=5, limit=2)).json

    await raise_horizon(service, 1)
    replies = [await service.deltas(answer["cursor"]) for answer in (kept, lost)]

    assert [reply.status for reply in replies] == [200, 410]
    assert asked(replies[1]) == "horizon"


async def test_trap_23_a_restore_between_two_pages_is_told(service: Harness) -> None:
    await history(service)
    await service.create("k")
    first = (await service.deltas(0, limit=2)).json
    other = (await service.deltas(0, "k")).json

    replies = [
        await service.deltas(parts(first["cursor"], epoch=other["epoch"])),
        await service.deltas(parts(first["cursor"], chain=OTHER_CHAIN)),
        await service.deltas(parts(first["cursor"], revision=9)),
    ]

    assert [asked(reply) for reply in replies] == ["epoch", "diverged", "future"]


# Trap 7: a server that was set back.


async def test_trap_7_a_past_under_the_same_numbers_is_another_past(service: Harness) -> None:
    """Two journals whose histories differ in one value only, and one is taken for the other."""
    await service.create("k")
    for j, n in (("j", 1), ("k", 2)):
        await service.pushed([insert("todo", "a", {"n": 1})], j)
        await service.pushed([update("todo", "a", {"n": n + 1})], j, on_conflict="client")
        await service.pushed([insert("todo", "b")], j)
    await service.query("update journal.head set epoch = (select epoch from journal.head order by journal_id limit 1)")
    await service.query("update journal.head set turn = turn + 1")
    await service.query("select pg_notify('journal', string_agg(journal_id || ':' || turn, ' ')) from journal.head")
    epoch = (await service.head())["epoch"]

    async def is_known() -> bool:
        return bool((await service.head("k"))["epoch"] == epoch)

    await eventually(is_known)
    commits = (await service.call("GET", "j/changes?since=0")).json["commits"]

    replies = [await service.deltas(f"{epoch}:{c['revision']}:{c['chain']}", "k") for c in commits]

    assert replies[0].status == 200
    assert [asked(reply) for reply in replies[1:]] == ["diverged", "diverged"]


async def test_p8_an_anonymous_question_is_judged_like_a_clients(service: Harness) -> None:
    cursors = await history(service)
    await raise_horizon(service, 2)

    reasons = [asked(await service.deltas(cursors[1], client=client)) for client in (None, str(uuid4()))]

    assert reasons == ["horizon", "horizon"]
