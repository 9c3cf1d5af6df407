"""Open by default only at home: where `journal serve` listens before there is a token, and what it says of it."""

import re
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from tests.command import done, ended, journal, start


class Served(NamedTuple):
    """A service, and what it said when it began."""

    process: Process
    said: str

    async def status(self) -> int:
        """What `GET /v1/journals` is answered without a token, by its port on the loopback."""
        match = re.search(r"http://[^/ ]+:(\d+)/v1", self.said)
        assert match
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{match[1]}/v1/journals") as response,
        ):
            return response.status


@asynccontextmanager
async def serving(database: str, folder: Path, *words: str) -> AsyncIterator[Served]:
    """`journal serve` with these words, until the end of the context."""
    process = await start("serve", "--port", "0", "--dsn", database, "--data", folder, *words)
    assert process.stdout is not None
    said = ""
    while "Ctrl-C" not in said:
        line = (await process.stdout.readline()).decode()
        assert line, (await ended(process)).err
        said += line
    try:
        yield Served(process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        await ended(process)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_without_a_token_it_refuses_to_listen_elsewhere(
    database: str, tmp_path: Path, host: str, workers: str
) -> None:
    words = ("serve", "--port", "0", "--dsn", database, "--data", tmp_path, "--host", host, "--workers", workers)

    refused = await journal(*words)

    assert refused.code == 1
    assert "no token was made yet" in refused.err
    assert "journal token create" in refused.err
    assert "--insecure" in refused.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_at_home_it_is_open_and_says_so(database: str, tmp_path: Path, host: str) -> None:
    async with serving(database, tmp_path, "--host", host) as served:
        assert "Open: whoever reaches it may do everything." in served.said
        if host != "::1":
            assert await served.status() == 200


async def test_whoever_means_it_may_have_it_open_elsewhere_and_is_told_what_that_is(
    database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, "--host", "0.0.0.0", "--insecure") as served:
        assert "Open: whoever reaches it may do everything." in served.said
        assert await served.status() == 200


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_with_a_token_it_listens_anywhere_and_asks_for_it_everywhere(
    database: str, tmp_path: Path, workers: str
) -> None:
    made = await done("token", "create", "--operator", "--name", "ops", "--dsn", database)
    assert made.out.startswith("jo_")

    for more in ((), ("--insecure",)):  # which opens nothing that is closed
        async with serving(database, tmp_path, "--host", "0.0.0.0", "--workers", workers, *more) as served:
            assert "Open" not in served.said
            assert await served.status() == 401


async def test_a_service_whose_tokens_were_all_revoked_is_not_open_again(database: str, tmp_path: Path) -> None:
    await done("token", "create", "--operator", "--name", "ops", "--dsn", database)
    await done("token", "revoke", "1", "--yes", "--dsn", database)

    async with serving(database, tmp_path, "--host", "0.0.0.0") as served:
        assert await served.status() == 401
