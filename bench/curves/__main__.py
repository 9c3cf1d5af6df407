"""`python -m bench.curves [NAME…]`: measure, draw, write down. README.md says what is what."""

import asyncio
import shlex
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from rich.console import Console

from bench.curves import deltas, polls, pushes, snapshots, told
from bench.curves.curve import Curve, rounds
from bench.place import Place, machine, place

try:
    from bench.curves.draw import draw
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing: pip install -e '.[bench]', or `make bench-curves`") from None

HERE = Path(__file__).parent
CURVES: dict[str, Callable[[Place], Awaitable[list[Curve]]]] = {
    "clients": pushes.clients,
    "journals": pushes.journals,
    "workers": polls.workers,
    "polls": polls.journals,
    "streams": polls.streams,
    "deltas": deltas.curves,
    "snapshot": snapshots.curves,
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(CURVES)}; all if none is named")] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="fewer and smaller points, drawn into quick/")] = False,
    dsn: Annotated[str | None, typer.Option(help="a PostgreSQL to measure on; else one of our own")] = None,
    json: Annotated[Path | None, typer.Option(help="write all rounds and the machine to this file")] = None,
) -> None:
    """Measure how each cost grows, and draw it beside how it should."""
    wanted = list(dict.fromkeys(names or CURVES))
    if unknown := [name for name in wanted if name not in CURVES]:
        raise typer.BadParameter(f"no such curve: {', '.join(unknown)}")
    uvloop.run(_run(wanted, dsn, json, is_quick=quick))


async def _run(names: list[str], dsn: str | None, json: Path | None, *, is_quick: bool) -> None:
    running = asyncio.current_task()
    assert running is not None
    # As Ctrl-C does: what was started is stopped, and nothing stays behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    console, drawn = Console(), list[Curve]()
    async with place(dsn, is_quick=is_quick) as at:
        on = await machine(at)
        on["command"] = shlex.join(["python", "-m", "bench.curves", *([] if names == list(CURVES) else names)])
        for name in names:
            start = time.monotonic()
            with console.status(name):
                found = await CURVES[name](at)
            for curve in found:
                _write(curve, on, at)
            drawn += found
            console.print(f"{name}: {time.monotonic() - start:.0f} s", style="dim")
    console.print(on)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": on, "curves": drawn})))


def _write(curve: Curve, on: dict[str, Any], at: Place) -> None:
    """Draw it, and put its figures below it; those of a quick run stay out of what is read."""
    load = on["load before"][0]
    footnote = (
        f"Points: medians of {rounds(at)} rounds; bars: least and most. {on['cores']} cores, load {load:.1f} before."
    )
    if at.is_quick:
        (HERE / "quick").mkdir(exist_ok=True)
        draw(curve, HERE / "quick" / f"{curve.name}.svg", footnote=f"A quick run, not to quote from. {footnote}")
        return
    draw(curve, HERE / f"{curve.name}.svg", footnote=footnote)
    readme = HERE / "README.md"
    readme.write_text(told.put(readme.read_text(), curve, told.table(curve, on)))


if __name__ == "__main__":
    program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    program.command()(main)
    program(prog_name="python -m bench.curves")
