"""`python -m bench.soak`: the long run. bench/soak/__init__.py says what it is."""

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
import msgspec
import typer
import uvloop
from rich.console import Console

from bench.place import Place, machine
from bench.soak.place import Service, postgres
from bench.soak.plan import Run
from bench.soak.verdict import Line, table, verdict


def main(
    *,
    minutes: Annotated[float, typer.Option(min=1.0, help="how long; what happens is spread over it")] = 60.0,
    json: Annotated[Path | None, typer.Option(help="write all samples, events and faults to this file")] = None,
    dsn: Annotated[str | None, typer.Option(help="a PostgreSQL to run on; it is not restarted")] = None,
) -> None:
    """Run the service for long, and see whether anything is lost, doubled, refused or grows."""
    raise typer.Exit(uvloop.run(_run(minutes, json, dsn)))


async def _run(minutes: float, json: Path | None, dsn: str | None) -> int:
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    with tempfile.TemporaryDirectory(prefix="journal-soak-") as made, postgres(dsn, Path(made) / "postgres") as server:
        name = f"journal_soak_{uuid4().hex[:8]}"
        await _execute(server.dsn, f'create database "{name}" template template0')
        mine = msgspec.structs.replace(server, dsn=_of_database(server.dsn, name))
        service = Service(mine.dsn, Path(made) / "service")
        run = Run(minutes, mine, service, console)
        try:
            await service.start()
            told = await machine(Place(mine.dsn, Path(made), is_quick=False)) | {"minutes": minutes}
            try:
                await run.whole()
            finally:
                lines = verdict(run.samples, run.tally, minutes, is_whole=run.is_whole)
                _tell(console, run, lines)
                if json is not None:
                    json.write_bytes(msgspec.json.format(msgspec.json.encode(_all(told, run, lines))))
            await service.stop()
        finally:
            await service.stop()
            await _execute(server.dsn, f'drop database "{name}" with (force)')
    return 0 if all(line.is_ok is not False for line in lines) else 1


def _tell(console: Console, run: Run, lines: list[Line]) -> None:
    console.print(table(lines, is_markdown=not console.is_terminal))
    for what, counted in (
        ("answers", run.tally.answers),
        ("expected trouble", run.tally.expected),
        ("NOT announced", run.tally.unexpected),
        ("at the end", run.ends),
    ):
        console.print(f"{what}: " + (", ".join(f"{name} {count:,}" for name, count in counted.items()) or "none"))
    for fault in run.tally.faults[:20]:
        console.print(f"  {fault.at_s} s: {fault.what}: {fault.detail}", highlight=False, markup=False)


def _all(told: dict[str, Any], run: Run, lines: list[Line]) -> dict[str, Any]:
    return {
        "machine": told,
        "verdict": lines,
        "answers": run.tally.answers,
        "expected": run.tally.expected,
        "unexpected": run.tally.unexpected,
        "faults": run.tally.faults,
        "happened": run.happened,
        "end": run.ends,
        "log": run.service.log.read_text(errors="replace")[-100_000:],
        "samples": run.samples,
    }


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _of_database(dsn: str, name: str) -> str:
    head, _, tail = dsn.partition("?")
    return head.rpartition("/")[0] + "/" + name + (f"?{tail}" if tail else "")


if __name__ == "__main__":
    program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    program.command()(main)
    program(prog_name="python -m bench.soak")
