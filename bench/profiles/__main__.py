"""`python -m bench.profiles [NAME…]`: record each load, explain the queries, and keep it all as text beside this."""

import asyncio
import shlex
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from bench.deltas import TOGETHER
from bench.place import Place, connected, machine, place
from bench.profiles.explained import SEEN, explained
from bench.profiles.loads import LOADS
from bench.profiles.recorded import profile, spy

HERE = Path(__file__).parent
EXPLAIN = {f"explain-{name}": name for name in SEEN}
NAMES = [*EXPLAIN, *LOADS]  # plans first: they are to be those of a table that was analysed


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(NAMES)}; all if none is named")] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="smaller and shorter, into quick/")] = False,
    dsn: Annotated[str | None, typer.Option(help="a PostgreSQL to measure on; else one of our own")] = None,
) -> None:
    """Record where the time of each load goes."""
    wanted = list(dict.fromkeys(names or NAMES))
    if unknown := [name for name in wanted if name not in NAMES]:
        raise typer.BadParameter(f"no such profile: {', '.join(unknown)}")
    spy()
    uvloop.run(_run(wanted, dsn, is_quick=quick))


async def _run(names: list[str], dsn: str | None, *, is_quick: bool) -> None:
    running = asyncio.current_task()
    assert running is not None
    # As Ctrl-C does: what was started is stopped, and nothing stays behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    console, folder = Console(), HERE / "quick" if is_quick else HERE
    folder.mkdir(exist_ok=True)
    async with place(dsn, is_quick=is_quick) as at:
        if any(name.startswith(("deltas", "explain")) for name in names):
            await _fill(at)
        for name in names:
            start = time.monotonic()
            on = await machine(at)
            told = await explained(at, EXPLAIN[name]) if name in EXPLAIN else await profile(at, LOADS[name])
            (folder / f"{name}.txt").write_text(f"{_heading(name, on)}\n{told}\n")
            console.print(f"{name}: {time.monotonic() - start:.0f} s", style="dim")


async def _fill(at: Place) -> None:
    changes, atoms = (200_000, 20_000) if at.is_quick else (1_000_000, 100_000)
    async with connected(at.dsn) as connection:
        await connection.execute(
            "call bench.fill('wide', $1::bigint, $2::bigint, $1, $3, true)", atoms, changes, TOGETHER
        )
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")


def _heading(name: str, on: dict[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in on["versions"].items())
    return "\n".join(
        [
            f"command   {shlex.join(['python', '-m', 'bench.profiles', name])}",
            f"date      {on['date']}",
            f"machine   {on['cores']} cores, {on['cpu']}, load {on['load before'][0]:.1f} before",
            f"versions  Python {on['python']}, PostgreSQL {on['postgresql']}, {versions}",
        ]
    )


if __name__ == "__main__":
    program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    program.command()(main)
    program(prog_name="python -m bench.profiles")
