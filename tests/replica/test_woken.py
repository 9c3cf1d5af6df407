"""What ends the pause of a replica that syncs in the background and was cut off."""

import pytest

from journal.client import live
from tests.harness import Harness, eventually
from tests.proxy import proxied
from tests.replica.conftest import Opener


async def test_that_another_process_got_through_is_a_reason_to_try_again(
    service: Harness, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr(live, "LONGEST_PAUSE_S", 600.0)

    async with proxied(service.url) as cable:
        port = cable.dsn.rpartition(":")[2].partition("/")[0]
        first = await opened(url=f"http://127.0.0.1:{port}/v1/journals/j")
        second = await opened()

        async def is_offline() -> bool:
            return bool((await first.status()).state == "offline")

        async def follows() -> bool:
            return bool((await first.status()).state == "following")

        await first.start()
        await eventually(follows)
        cable.refuse()
        await eventually(is_offline)
        await second.collection("todo").put("a", {})
        await cable.accept()
        await second.sync()

        await eventually(follows)
