"""The live service against its own description: schemathesis asks everything, in right ways and in wrong ones.

A minute in the suite, with the same seed each time; `make fuzz` gives it as many seconds as a parser, and a seed of
its own (JOURNAL_TEST_SCHEMATHESIS). schemathesis.toml says what is allowed, and why; nothing is off.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.command import done
from tests.doors import Bearer
from tests.harness import insert, update
from tests.subprocess_service import Remote, serving_apart

HERE = Path(__file__).parent
SECONDS = os.environ.get("JOURNAL_TEST_SCHEMATHESIS")
PHONE, DESK = (f"6f1c0000-0000-4000-8000-00000000000{place}" for place in (1, 2))


async def token(dsn: str, *can: str) -> str:
    """A token for all journals."""
    told = await done("token", "create", "--dsn", dsn, "--journal", "*", "--can", ",".join(can), "--name", can[0])
    return told.out.strip()


async def filled(service: Remote, writes: str, operates: str) -> None:
    """A journal `kept` with something of everything: atoms, clients, a conflict that is kept, an operation."""
    writer, operator = Bearer(service, writes), Bearer(service, operates)

    async def push(*changes: object, **members: object) -> None:
        reply = await writer.call("POST", "kept/changes", json={"changes": changes, **members})
        assert reply.status == 200, reply.body

    assert (await operator.call("PUT", "kept")).status == 201
    base = (await writer.call("GET", "kept")).json["cursor"]
    await push(insert("todo", "a"), insert("todo", "b"), insert("budget", "x"), client=PHONE, push=1)
    await push(update("todo", "a", {"n": 2}), on_conflict="client", client=DESK, push=1)
    await push(update("todo", "a", {"n": 3}), base=base, on_conflict="both", client=PHONE, push=2)
    await operator.call("POST", "kept/check", headers={"Prefer": "wait=10"})


@pytest.mark.timeout(180 + 2 * int(SECONDS or 60))
async def test_the_service_does_what_its_description_says(database: str, tmp_path: Path) -> None:
    async with serving_apart(database, tmp_path) as service:
        operates, writes = await token(database, "operate"), await token(database, "read", "write")
        await filled(service, writes, operates)
        words = ["--checks", "all", "--request-timeout", "20", "--report", "ndjson", "--report-dir", str(tmp_path)]
        words += ["--seed", "6", "--max-examples", "10"] if SECONDS is None else ["--max-time", SECONDS]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{service.url}/openapi.json", *words),
            cwd=tmp_path,  # where it keeps what it has seen
            env=os.environ
            | {
                "PYTHONPATH": str(HERE.parents[1]),
                "SCHEMATHESIS_HOOKS": "tests.acceptance.schemathesis_hooks",
                "JOURNAL_URL": service.url,
                "JOURNAL_OPERATES": operates,
                "JOURNAL_WRITES": writes,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()

    assert process.returncode == 0, out.decode()
