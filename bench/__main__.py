"""`python -m bench [NAME…]`: measure, print a table, write JSON. bench/README.md says what is what."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import uvloop
from rich.console import Console

from bench import batch, deltas, live, poll, push, repair, replica, snapshot, storm
from bench.place import Place, machine, place
from bench.rows import Row, table

BENCHES: dict[str, Callable[[Place], Awaitable[list[Row]]]] = {
    "push": push.rows,
    "batch": batch.rows,
    "poll": poll.rows,
    "deltas": deltas.rows,
    "snapshot": snapshot.rows,
    "repair": repair.rows,
    "replica": replica.rows,
    "storm": storm.rows,
    "live": live.rows,
    "waiters": live.waiters,
    "slow": live.slow,
}

NOTE = "Medians of the rounds; a goal is for the ratio, or for the figure where there is none."


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(BENCHES)}; all if none is named")] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="smaller and shorter; good for seeing that it runs")] = False,
    dsn: Annotated[str | None, typer.Option(help="a PostgreSQL to measure on; else one of our own")] = None,
    json: Annotated[Path | None, typer.Option(help="write all rounds and the machine to this file")] = None,
) -> None:
    """Measure each path against its reference in the same run."""
    wanted = list(dict.fromkeys(names or BENCHES))
    if unknown := [name for name in wanted if name not in BENCHES]:
        raise typer.BadParameter(f"no such bench: {', '.join(unknown)}")
    uvloop.run(_run(wanted, dsn, json, is_quick=quick))


async def _run(names: list[str], dsn: str | None, json: Path | None, *, is_quick: bool) -> None:
    running = asyncio.current_task()
    assert running is not None
    # As Ctrl-C does: what was started is stopped, and nothing stays behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    console, rows = Console(), list[Row]()
    if not console.is_terminal:
        console.width = 140
    async with place(dsn, is_quick=is_quick) as at:
        told = await machine(at)
        try:
            for name in names:
                start = time.monotonic()
                with console.status(name):
                    rows += await BENCHES[name](at)
                console.print(f"{name}: {time.monotonic() - start:.0f} s", style="dim")
        finally:  # what was measured is told, whatever became of the rest
            console.print(table(rows, is_markdown=not console.is_terminal))
            console.print(NOTE, style="dim")
            console.print(told)
            if json is not None:
                json.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": told, "rows": rows})))


if __name__ == "__main__":
    program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    program.command()(main)
    program(prog_name="python -m bench")
