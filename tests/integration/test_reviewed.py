"""What a hostile reading of the service has found, each as the shortest way to it."""

from pathlib import Path
from uuid import uuid4

import pytest

from journal.client import Replica
from tests.harness import Harness, Json, insert, update

LARGE = 1_000_000


@pytest.mark.parametrize("policy", ["server", "both"])
async def test_p12_a_small_push_of_a_large_atom_has_no_answer_that_fills_the_memory(
    service: Harness, policy: str
) -> None:
    """Each of its conflicts tells the whole atom: 500 changes of 50 kB took 26 s and 4 GB of a worker."""
    await service.pushed([insert("todo", "a", {"text": "x" * LARGE})])
    changes = [update("todo", "a", {"n": n}, if_data={"n": 0}) for n in range(100)]
    sender: Json = {"client": str(uuid4()), "push": 1, "on_conflict": policy}

    reply = await service.push(changes, **sender)
    fewer = await service.pushed(changes[:10], **sender)

    assert (reply.status, reply.json["code"]) == (413, "too_large")
    assert [outcome["status"] for outcome in fewer["outcomes"]] == ["conflict"] * 10
    assert await service.query("select 1 from journal.conflict offset 10") == []


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_p9_a_replica_sends_in_parts_what_has_too_large_an_answer(service: Harness, tmp_path: Path) -> None:
    for start in (0, 8, 16):
        await service.pushed([insert("todo", f"a{n}", {"text": "x" * LARGE, "n": 0}) for n in range(start, start + 8)])
    async with Replica.open(tmp_path / "phone.db", f"{service.url}/v1/journals/j", on_conflict="client") as replica:
        await replica.sync()
        for n in range(24):
            await service.pushed([update("todo", f"a{n}", {"n": 1}, if_data={"text": "x" * LARGE, "n": 0})])
        for field in "pqrst":
            for n in range(24):
                await replica.collection("todo").update(f"a{n}", {field: n})

        await replica.sync()

        assert (await replica.status()).pending == 0
        assert await replica.conflicts() == []
        assert (await replica.collection("todo").get("a7") or {}).keys() == {"text", *"npqrst"}
