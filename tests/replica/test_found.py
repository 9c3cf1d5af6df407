"""What the stateful machine of tests/property/test_replicas.py has found, each as the shortest way to it."""

from tests.harness import Harness, insert, put
from tests.replica.conftest import Opener


async def test_p9_a_transaction_is_kept_that_was_refused_for_what_stands(service: Harness, opened: Opener) -> None:
    """The answer's `current` is JSON, and was no type that the answer could be converted to: every sync failed."""
    await service.pushed([insert("todo", "a")])
    replica = await opened()
    await replica.sync()
    await service.pushed([put("todo", "a", {"n": 2.5}, if_data={"n": 1})])
    async with replica.transaction():
        await replica.collection("todo").update("a", {"n": 3})
        await replica.collection("todo").insert("b", {"n": 4})

    await replica.sync()

    assert [(c.atom, c.status, c.theirs) for c in await replica.conflicts()] == [
        ("a", "conflict", {"n": 2.5}),
        ("b", "not_applied", None),
    ]
    assert await replica.collection("todo").get("a") == {"n": 2.5}
