"""`python -m bench.faults [NAME…]`: every fault for as long as it takes, and a table of what became of the pushes.

What happens, and what must hold afterwards, is tests/fault; the ordinary tests do the same for seconds. Whatever is
lost, doubled, torn, refused in another way than by 503 or wrong at any reader fails the run, and so does a fault that
this machine cannot make: root, util-linux, libfaketime and control groups are needed for all.
"""

import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from tests.fault.faults import FAULTS, Fault, tried
from tests.fault.load import Account
from tests.fault.places import NotToBeHad

BEFORE = AFTER = 300
NAMES = {fault.make.__name__: fault for fault in FAULTS}
COLUMNS = ("what happened", "lasted", "tried", "answered", "recorded", "unanswered, there whole", "doubled", "lost",
           "in part", "served again after")  # fmt: skip


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(NAMES)}; all if none is named")] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="as short as the ordinary tests")] = False,
    markdown: Annotated[Path | None, typer.Option(help="write the table to this file")] = None,
) -> None:
    """Let each fault happen amid pushes and reads, and account for every push."""
    if unknown := [name for name in names or () if name not in NAMES]:
        raise typer.BadParameter(f"no such fault: {', '.join(unknown)}")
    wanted = [NAMES[name] for name in names or NAMES]
    raise typer.Exit(asyncio.run(_run(wanted, markdown, is_quick=quick)))


async def _run(wanted: list[Fault], markdown: Path | None, *, is_quick: bool) -> int:
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    console, is_good = Console(), True
    if not console.is_terminal:
        console.width = 240
    rows: list[tuple[Fault, float, Account]] = []
    try:
        for fault in wanted:
            seconds = (fault.short_s or 0.0) if is_quick else fault.seconds
            began = time.monotonic()
            try:
                account = await _tried(fault, seconds, 30 if is_quick else BEFORE, 30 if is_quick else AFTER)
            except NotToBeHad as reason:
                console.print(f"NOT TRIED: {fault.name}: {reason}", markup=False)
                is_good = False
                continue
            except Exception:  # the fault could not be brought about, or never ended: the others are tried all the same
                console.print(f"FAILED: {fault.name}\n{traceback.format_exc()}", markup=False, highlight=False)
                is_good = False
                continue
            rows.append((fault, seconds, account))
            is_good &= _is_good(account)
            console.print(f"{fault.name}: {time.monotonic() - began:.0f} s", style="dim", highlight=False)
            for wrong in account.wrong[:20]:
                console.print(f"  WRONG: {wrong}", markup=False, highlight=False)
    finally:
        table = _table(rows)
        console.print(table)
        if markdown is not None:
            lines = Console(width=240, file=StringIO())
            lines.print(table)
            assert isinstance(lines.file, StringIO)
            told = "\n".join(line.rstrip() for line in lines.file.getvalue().strip().splitlines())
            markdown.write_text(f"{told}\n\n`python -m bench.faults {' '.join(sys.argv[1:])}` on {_machine()}\n")
    return 0 if is_good else 1


async def _tried(fault: Fault, seconds: float, before: int, after: int) -> Account:
    with tempfile.TemporaryDirectory(prefix="journal-faults-") as folder:
        Path(folder).chmod(0o711)  # where root runs this, PostgreSQL is another user
        return await tried(fault, Path(folder), seconds=seconds, before=before, after=after)


def _is_good(account: Account) -> bool:
    is_whole = account.recorded == account.answered + account.whole
    return is_whole and not (account.doubled or account.lost or account.torn or account.wrong)


def _table(rows: list[tuple[Fault, float, Account]]) -> Table:
    made = Table(box=box.MARKDOWN)
    for name in COLUMNS:
        made.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=True)
    for fault, seconds, it in rows:
        unanswered = f"{it.whole} of {it.unknown}"
        counts = (it.tried, it.answered, it.recorded, unanswered, it.doubled, it.lost, it.torn)
        lasted = f"{seconds:g} s" if seconds else "–"
        made.add_row(fault.name, lasted, *(f"{count}" for count in counts), f"{it.served_s:.1f} s")
    return made


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    load = os.getloadavg()[1]
    return (
        f"{os.cpu_count()} cores, {memory} GiB, Linux {platform.release()}, Python {platform.python_version()},"
        f" load average {load:.1f}"
    )


if __name__ == "__main__":
    program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    program.command()(main)
    program(prog_name="python -m bench.faults")
