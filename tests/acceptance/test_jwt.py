"""`journal serve` that believes JWTs, as it is started by a person."""

import asyncio
import re
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.command import ended, journal, start
from tests.jwts import SECRET, listing, of_secret, signer

GRANT = [{"journal": "*", "can": ["operate"]}]


@pytest.mark.parametrize("workers", [1, 2])
async def test_serve_lets_in_who_brings_a_jwt_and_nobody_else(workers: int, database: str, tmp_path: Path) -> None:
    one = signer("ES256", "k")
    (tmp_path / "keys").write_bytes(listing(one))
    words = ("--dsn", database, "--data", tmp_path, "--port", "0", "--workers", str(workers))
    process = await start("serve", *words, JOURNAL_JWT_SECRET=SECRET, JOURNAL_JWT_JWKS=str(tmp_path / "keys"))
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        while "Ctrl-C" not in said:
            said += (await process.stdout.readline()).decode()
    [url] = re.findall(r"http://\S+?(?=/v1)", said)[:1]

    async with aiohttp.ClientSession() as session:
        statuses = []
        for token in ("", of_secret("x" * 32), of_secret(journal=GRANT), one.token(journal=GRANT)):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.put(f"{url}/v1/journals/j", headers=headers) as response:
                statuses.append(response.status)
    process.send_signal(signal.SIGTERM)
    told = await ended(process)

    assert statuses == [401, 401, 201, 200]
    assert "Open:" not in said
    assert SECRET not in said + told.err
    assert told.code == 0


async def test_a_variable_that_is_there_and_empty_does_not_open_the_service(database: str, tmp_path: Path) -> None:
    words = ("--dsn", database, "--data", tmp_path, "--port", "0")

    told = await journal("serve", *words, JOURNAL_JWT_SECRET="")

    assert told.code == 1
    assert "JOURNAL_JWT_SECRET is there, and empty" in told.err
