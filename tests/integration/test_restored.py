"""Section 11: a restored server begins an epoch, and the server's identity is a question to the operator (P1, P8)."""

from typing import Any

import pytest

from journal.core import chain
from tests.harness import Harness, Json, insert, update


async def pushed(service: Harness, *changes: Json, **members: Any) -> str:
    """Push under the policy `client`; the cursor after it."""
    answer = await service.pushed(list(changes), on_conflict="client", **members)
    return f"{answer['epoch']}:{answer['revision']}:{answer['chain']}"


async def restored(service: Harness, **asked: Any) -> Json:
    """Begin an epoch; the head."""
    reply = await service.call("POST", "j/restored", json=asked)
    assert reply.status == 200, reply.body
    head: Json = reply.json
    return head


async def test_trap_7_an_epoch_begins_well_above_anything_that_was_given_out(service: Harness) -> None:
    old = await pushed(service, insert("todo", "a"))

    head = await restored(service)

    assert (head["head"], head["horizon"]) == (2**32, 2**32)
    assert head["epoch"] != old[:12]
    assert (await service.deltas(old)).json["reason"] == "epoch"
    assert (await service.deltas(old)).json["reconcile"] == "verify"
    assert (await service.deltas(1)).json["reason"] == "horizon"
    assert (await service.deltas(0)).json["reason"] == "horizon"
    assert (await service.deltas(head["cursor"])).json["deltas"] == []
    assert (await restored(service))["head"] == 2**33


async def test_the_state_is_as_it_was_and_goes_on(service: Harness) -> None:
    await pushed(service, insert("todo", "a"), insert("todo", "b"))
    before = await service.head()

    head = await restored(service)
    cursor = await pushed(service, update("todo", "a", {"n": 2}), insert("todo", "c"))

    assert (head["atoms"], head["digest"]) == (2, before["digest"])
    assert cursor.split(":")[:2] == [head["epoch"], str(2**32 + 2)]
    told = (await service.deltas(head["cursor"])).json
    assert [(d["op"], d["atom"], d["revision"]) for d in told["deltas"]] == [
        ("update", "a", 2**32 + 1),
        ("insert", "c", 2**32 + 2),
    ]
    assert (await service.deltas(head["cursor"], until=2**32 + 2)).json["deltas"] == told["deltas"]
    assert len((await service.snapshot())[1:-1]) == 3


async def test_p1_it_is_a_commit_of_one_revision_whose_chain_covers_the_old_chain_and_the_new_epoch(
    service: Harness,
) -> None:
    await pushed(service, insert("todo", "a"))
    old = (await service.query("select chain from journal.head"))[0]["chain"]

    await restored(service)

    [row] = await service.query("select * from journal.commit order by revision desc limit 1")
    [head] = await service.query("select * from journal.head")
    assert (row["first"], row["revision"]) == (2**32, 2**32)
    assert row["chain"] == head["chain"] == chain.begin(old, head["epoch"], 2**32)
    assert row["epoch"] == head["epoch"]
    changes = (await service.call("GET", f"j/changes?since={2**32}")).json
    assert changes["commits"] == []


async def test_an_operator_who_knows_better_says_where(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))

    assert (await restored(service, revision=5000))["head"] == 5000
    reply = await service.call("POST", "j/restored", json={"revision": 5000})
    assert (reply.status, reply.json["errors"][0]["pointer"]) == (400, "/revision")
    assert (await restored(service))["head"] == 2**32


async def test_trap_10_everyone_comes_back_spread(service: Harness) -> None:
    old = await pushed(service, insert("todo", "a"))
    await restored(service, spread_s=1000)

    told = [(await service.deltas(old)).json["retry_after"] for _ in range(30)]

    assert len(set(told)) > 15
    assert max(told) <= 1000


async def test_trap_10_a_compaction_does_not_take_the_spread_away(service: Harness) -> None:
    old = await pushed(service, insert("todo", "a"))
    await restored(service, spread_s=1000)
    me = "00000000-0000-0000-0000-000000000007"
    before = (await service.deltas(old, client=me)).json["retry_after"]

    asked = {"keep_revisions": 0, "force": True}
    await service.call("POST", "j/compact", json=asked, headers={"Prefer": "wait=60"})

    assert before > 10
    assert 0 <= before - (await service.deltas(old, client=me)).json["retry_after"] <= 5


async def test_a_push_of_the_old_history_is_told_and_one_without_a_base_is_taken(service: Harness) -> None:
    old = await pushed(service, insert("todo", "a"))
    await restored(service)

    assert (await service.push([insert("todo", "b")], base=old)).json["reason"] == "epoch"
    again = await service.pushed([update("todo", "a", {"n": 2}, if_data={"n": 1})])
    assert again["outcomes"][0] == {"status": "applied", "revision": 2**32 + 1}


async def test_check_is_green_across_an_epoch(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    await restored(service)
    await pushed(service, update("todo", "a", {"n": 2}), insert("todo", "b"))
    await service.call("POST", "j/resync", json={"reason": "x"})

    reply = await service.call("POST", "j/check", headers={"Prefer": "wait=60"})

    assert reply.json["result"]["ok"] is True, reply.body


async def test_what_the_old_epoch_left_is_compacted_away(service: Harness) -> None:
    await pushed(service, insert("todo", "a"))
    head = await restored(service)
    told = (
        await service.call(
            "POST", "j/compact", json={"keep_revisions": 0, "force": True}, headers={"Prefer": "wait=60"}
        )
    ).json["result"]

    assert (told["was"], told["horizon"], told["changes"], told["commits"]) == (2**32, 2**32, 1, 1)
    assert (await service.deltas(head["cursor"])).status == 200


async def test_the_audit_log_and_the_registry_tell(service: Harness) -> None:
    me = "00000000-0000-0000-0000-000000000001"
    old = await pushed(service, insert("todo", "a"))
    await service.deltas(old, client=me)
    head = await restored(service)
    await service.deltas(old, client=me)

    waiting = (await service.call("GET", f"j/clients/{me}")).json
    await service.deltas(head["cursor"], client=me)
    back = (await service.call("GET", f"j/clients/{me}")).json
    [entry] = (await service.call("GET", "j/audit")).json["audit"]

    assert (waiting["resync"], waiting["lag"]) == (2**32, None)
    assert (back["resync"], back["resynced"], back["lag"]) == (None, 2**32, 0)
    assert entry["action"] == "restored"
    assert (entry["detail"]["head"], entry["detail"]["was"]) == (1, old[:12])


# The server's identity.


async def test_the_server_is_remembered_and_another_one_is_a_question(service: Harness) -> None:
    first = (await service.call("GET", "/v1/server")).json
    await service.query("update journal.server set system = '1', timeline = 7")

    other = (await service.call("GET", "/v1/server")).json
    told = await service.call("PUT", "/v1/server", json={"system": other["system"], "timeline": other["timeline"]})

    assert first["is_other"] is False
    assert (other["is_other"], other["remembered"]["system"], other["remembered"]["timeline"]) == (True, "1", 7)
    assert (other["system"], other["timeline"]) == (first["system"], first["timeline"])
    assert told.json["is_other"] is False
    assert (await service.call("GET", "/v1/server")).json["remembered"]["system"] == first["system"]


async def test_trap_16_another_server_is_not_acted_on(service: Harness) -> None:
    cursor = await pushed(service, insert("todo", "a"))
    await service.query("update journal.server set system = '1'")

    assert (await service.deltas(cursor)).status == 200
    assert (await service.head())["epoch"] == cursor[:12]


@pytest.mark.parametrize("asked", [{"system": "1", "timeline": 1}, {"system": "x", "timeline": 0}, {}])
async def test_only_the_server_that_this_is_can_be_remembered(service: Harness, asked: Json) -> None:
    reply = await service.call("PUT", "/v1/server", json=asked)

    assert reply.status == 400
