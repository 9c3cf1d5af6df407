"""`journal snapshot`: the whole state at one revision, in a file."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from journal.cli import say
from journal.cli.options import URL, Json, Name, Url
from journal.cli.service import connected
from journal.client.download import Coding, First, download

KEPT: dict[str, Coding] = {".zst": "zstd", ".gz": "gzip"}


def snapshot(
    name: Name,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to; packed if it ends in .zst or .gz; - is stdout.",
            metavar="FILE",
            show_default="NAME.snapshot.ndjson",
        ),
    ] = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Download a journal's whole state at one revision, verified to its last line.

    A download that breaks off leaves FILE.part: the same command goes on with it.
    """
    if output == Path("-"):
        with say.told(as_json=as_json), tempfile.TemporaryDirectory(prefix="journal-") as folder:
            whole = Path(folder) / "snapshot.ndjson"
            asyncio.run(_downloaded(name, url, whole))
            with whole.open("rb") as lines:
                shutil.copyfileobj(lines, sys.stdout.buffer)
        return
    file = output or Path(f"{name}.snapshot.ndjson")
    with say.told(as_json=as_json):
        if file.is_dir():
            raise say.Failed("file", f"{file} is a folder")
        try:
            first = asyncio.run(_downloaded(name, url, file))
        except KeyboardInterrupt:
            say.note(f"interrupted: the same command goes on with {file}.part")
            raise
    if as_json:
        say.result({"journal": name, "file": str(file), "revision": first.revision, "cursor": first.cursor,
                    "atoms": first.atoms})  # fmt: skip
    else:
        say.out.print(f"[green]{file}[/]: {first.atoms} atoms at revision {first.revision}; go on with")
        say.out.print(f"journal deltas {name} --since {first.cursor}", soft_wrap=True)


async def _downloaded(name: str, url: str, file: Path) -> First:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=say.err, transient=True, disable=not say.err.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        async with connected(url, is_raw=True) as http:
            return await download(
                http,
                name,
                file,
                keep=KEPT.get(file.suffix),
                told=lambda have, size: progress.update(task, completed=have, total=size or None),
            )
