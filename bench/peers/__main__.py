"""`python -m bench.peers` measures the peers, `python -m bench.peers prove` tells what each loses (README.md)."""

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from rich.console import Console

from bench.peers import measure, prove
from bench.peers.journal import Journal
from bench.peers.kinto import versions
from bench.place import Place, machine, place
from bench.rows import table

Quick = Annotated[bool, typer.Option("--quick", help="smaller and shorter; good for seeing that it runs")]
Dsn = Annotated[str | None, typer.Option(help="a PostgreSQL to run on; else one of our own")]
Json = Annotated[Path | None, typer.Option(help="write everything, and the machine, to this file")]

program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@program.callback(invoke_without_command=True)
def bench(told: typer.Context, *, quick: Quick = False, dsn: Dsn = None, json: Json = None) -> None:
    """Measure each peer at the same work in the same run."""
    if told.invoked_subcommand is None:
        uvloop.run(_stoppable(_bench(dsn, json, is_quick=quick)))


@program.command("prove")
def prove_(*, quick: Quick = False, dsn: Dsn = None, json: Json = None) -> None:
    """Show what each peer loses; fails if this service lost, doubled or never showed anything."""
    uvloop.run(_stoppable(_prove(dsn, json, is_quick=quick)))


async def _prove(dsn: str | None, json: Path | None, *, is_quick: bool) -> None:
    console = _console()
    start = time.monotonic()
    async with place(dsn, is_quick=is_quick) as at:
        about = await _about(at)
        with console.status("proving"):
            found = await prove.verdicts(at)
    console.print(prove.table(found, is_markdown=not console.is_terminal))
    console.print(f"{time.monotonic() - start:.0f} s.", style="dim")
    console.print(about)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": about, "verdicts": found})))
    if not all(one.is_clean for one in found if one.peer == Journal.name):
        console.print("This service lost, doubled or never showed something.")
        raise typer.Exit(1)


async def _bench(dsn: str | None, json: Path | None, *, is_quick: bool) -> None:
    console = _console()
    start = time.monotonic()
    async with place(dsn, is_quick=is_quick) as at:
        about = await _about(at)
        with console.status("peers"):
            rows, everything = await measure.rows(at)
    console.print(table(rows, is_markdown=not console.is_terminal))
    console.print(f"Medians of {measure.ROUNDS} rounds; {time.monotonic() - start:.0f} s.", style="dim")
    console.print(about)
    if json is not None:
        told = {"machine": about, "rows": rows, "all": everything}
        json.write_bytes(msgspec.json.format(msgspec.json.encode(told)))


async def _about(at: Place) -> dict[str, Any]:
    about = await machine(at)
    about["command"] = shlex.join(["python", "-m", "bench.peers", *sys.argv[1:]])
    about["versions"] |= versions()
    return about


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = 160
    return console


async def _stoppable(running: Awaitable[None]) -> None:
    """As Ctrl-C does, SIGTERM stops what was started, and nothing stays behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await running


if __name__ == "__main__":
    program(prog_name="python -m bench.peers")
