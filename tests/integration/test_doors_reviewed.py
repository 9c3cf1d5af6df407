"""What a hostile reading of the doors found: each was open once (protocol, section 13)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.doors import Bearer, bearer
from tests.harness import Harness, insert, listening, serving
from tests.integration.test_access import BOTH


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service with a journal `demo` that has some of two collections."""
    async with serving(database, tmp_path) as running:
        await running.create("demo")
        await running.pushed([insert("todo", "a"), insert("other", "b")], "demo")
        await listening(running)
        yield running


@pytest.mark.parametrize("ticket", ["x", "a" * 43])
async def test_a_ticket_that_is_none_does_not_tell_which_journals_there_are(service: Harness, ticket: str) -> None:
    await bearer(service, BOTH)
    nobody = Bearer(service, None)

    told = [
        await nobody.call("GET", f"{journal}/stream", params={"since": "0", "ticket": ticket})
        for journal in ("demo", "no-such", "NO SUCH")
    ]

    assert [reply.status for reply in told] == [401] * 3
    assert len({reply.body for reply in told}) == 1
