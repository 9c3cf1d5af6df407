"""The command line as people and programs use it: a process of its own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import msgspec

from tests.harness import Json
from tests.role import as_service

ROOT = Path(__file__).parents[1]
ENDS_S = 60.0


class Done(msgspec.Struct, frozen=True):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """What it said to a program."""
        value: Json = json.loads(self.out)
        return value


def environment(**settings: str) -> dict[str, str]:
    """Ours, but for what the command line would take for its settings."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("JOURNAL_")}
    return ours | {"COLUMNS": "200"} | settings


async def start(*words: str | Path, **settings: str) -> Process:
    """A command that runs."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "journal", *(as_service(str(word)) for word in words)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=ROOT,
        env=environment(**{name: as_service(value) for name, value in settings.items()}),
        preexec_fn=_as_at_a_terminal,
    )


def _as_at_a_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup would have it ignore


async def ended(process: Process, stdin: bytes = b"") -> Done:
    """How a command ends; never with a traceback."""
    async with asyncio.timeout(ENDS_S):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode, out.decode(), err.decode())


async def journal(*words: str | Path, stdin: bytes = b"", **settings: str) -> Done:
    """A command from its start to its end."""
    return await ended(await start(*words, **settings), stdin)


async def done(*words: str | Path, **arguments: Any) -> Done:
    """A command that must succeed."""
    told = await journal(*words, **arguments)
    assert told.code == 0, told.err
    return told
