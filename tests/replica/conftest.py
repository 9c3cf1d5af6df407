"""Replicas of the service's journal `j`, each in a file of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from journal.client import Replica
from tests.harness import Harness

pytest.register_assert_rewrite("tests.replica.facts")
Opener = Callable[..., Any]


@pytest.fixture
async def opened(service: Harness, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens a replica by a name: `await opened("phone", on_conflict="merge")`; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str = "phone", *, url: str | None = None, **options: Any) -> Replica:
            there = url or f"{service.url}/v1/journals/j"
            return await stack.enter_async_context(Replica.open(tmp_path / f"{name}.db", there, **options))

        yield open_one


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all requests that replicas of this process make."""
    request, paths = aiohttp.ClientSession._request, list[str]()

    async def noted(self: aiohttp.ClientSession, method: str, url: Any, **arguments: Any) -> Any:
        if "User-Agent" in self.headers:  # the harness has none of its own
            paths.append(str(URL(url).path))
        return await request(self, method, url, **arguments)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", noted)
    return paths
