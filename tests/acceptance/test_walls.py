"""`journal serve` with walls as an operator sets them."""

import re
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.command import ended, journal, start


async def test_flags_and_variables_set_what_each_worker_gives(database: str, tmp_path: Path) -> None:
    flags: list[str | Path] = [
        "--dsn", database, "--data", tmp_path, "--port", "0", "--workers", "2",
        "--rate", "0.2", "--burst", "6", "--unlimited", "192.0.2.0/24", "--allowed-host", "journal.example",
    ]  # fmt: skip
    origins = "https://app.example http://localhost:3000"  # a list in a variable has spaces between
    process = await start("serve", *flags, JOURNAL_STREAMS="7", JOURNAL_CORS_ORIGIN=origins)
    assert process.stdout is not None
    url = None
    while url is None:
        url = re.search(r"http://\S+?(?=/v1)", (await process.stdout.readline()).decode())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:  # so always the same worker
        headers = {"Host": "journal.example", "Origin": "http://localhost:3000"}
        async with session.get(f"{url[0]}/v1", headers=headers) as response:
            told, allowed = (await response.json())["limits"], response.headers["Access-Control-Allow-Origin"]
        statuses = [(await session.get(f"{url[0]}/v1")).status for _ in range(3)]
    process.send_signal(signal.SIGTERM)

    assert (await ended(process)).code == 0
    assert (told["requests_per_s"], told["requests_at_once"], told["streams"]) == (0.1, 3, 4)
    assert allowed == "http://localhost:3000"
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--cors-origin", "https://app.example/", "is no origin"),
        ("--cors-origin", "null", "is no origin"),
        ("--trusted-proxy", "10.0.0.1/8", "has host bits set"),
        ("--unlimited", "localhost", "does not appear to be"),
        ("--rate", "-1", "Input should be"),
    ],
)
async def test_what_can_not_be_meant_is_refused(flag: str, value: str, said: str) -> None:
    told = await journal("serve", flag, value)

    assert told.code == 2
    assert said in told.err.replace("\n", " ")
