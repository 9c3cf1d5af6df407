"""`journal import` and `journal import-git`: histories with their own times, straight into the database."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Protocol

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from journal.cli import say
from journal.cli.database import database, opened
from journal.cli.git import Repository
from journal.cli.ndjson import Lines
from journal.cli.options import DATA, Data, Dsn, Json, Name, NameOption
from journal.service.imports import Entry, EntryRefused, Import, batches, client_of
from journal.store.migrate import migrate

STAYS = "What comes before it is recorded. Once it is mended, the same command goes on there."


class History(Protocol):
    """What can be imported: its commits are numbered."""

    beginning: bytes

    def skip(self, number: int) -> bytes | None:
        """What identifies commit `number`, behind which `entries` goes on; None where there is no such commit."""

    def entries(self) -> Iterator[Entry]:
        """The rest."""

    def where(self, number: int) -> str:
        """How a person calls the commit of this number."""


class Result(msgspec.Struct):
    """What an import came to; `skipped` is the number of the last commit that was recorded before."""

    journal: str
    skipped: int
    commits: int = 0
    changes: int = 0
    head: int = 0


async def record(
    dsn: str, journal: str, kind: str, history: History, advance: Callable[[Result], None] = lambda _: None
) -> Result:
    """Record what of `history` the journal does not have."""
    async with opened(dsn) as connections:
        importing = Import(connections, journal, client_of(journal, kind, history.beginning))
        before = await importing.begin()
        result = Result(journal, before.number)
        if before.number:
            _go_on(history, before.number, before.content)
        advance(result)
        try:
            for batch in batches(history.entries()):
                count = await importing.record(batch)
                result.commits += count.commits
                result.changes += count.changes
                advance(result)
        except EntryRefused as refused:
            raise say.Failed("refused", f"{history.where(refused.number)}: {refused.detail}", STAYS) from None
        except say.Failed as failed:
            failed.advice = failed.advice or STAYS
            raise
        result.head = await importing.head()
        return result


def _go_on(history: History, number: int, content: bytes | None) -> None:
    here = history.skip(number)
    if here is None or (content is not None and here != content):
        text = f"another history that begins like this one was recorded before: they part by {history.where(number)}"
        raise say.Failed("another_history", text, "Record this one into a journal of its own.")


def import_(
    context: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Argument(help="A file, plain or packed by gzip or zstd; - is stdin.", metavar="FILE")],
    *,
    dsn: Dsn = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Record a history from a file, straight into the database; the journal is made if it is not there.

    A line is a commit: {"at": TIME, "changes": [{"op", "collection", "atom", "data"?, "unset"?}]}, op being insert,
    update, replace, put or delete. A line is recorded whole or not at all, and once: after whatever stopped an import,
    the same command goes on where it was. A running service notices.
    """
    with say.told(as_json=as_json), _opened(file) as source:
        size = file.stat().st_size if file.is_file() else None
        lines = Lines(source, str(file))
        _import(
            context, dsn, data, name, "ndjson", lines, lambda: source.tell() if size else None, size, as_json=as_json
        )


def import_git(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A git repository, or a folder in one.", metavar="PATH")],
    *,
    journal: NameOption = None,
    dsn: Dsn = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Record a git repository: each commit of HEAD's first-parent line is a commit, each file an atom.

    A file's top folder is its collection ("." at the root), {"mode", "blob", "size"} its data. Run it again after new
    commits: only those are recorded.
    """
    with say.told(as_json=as_json):
        repository = Repository(path)
        name, total = journal or repository.name, len(repository.commits)
        _import(context, dsn, data, name, "git", repository, lambda: repository.done, total, as_json=as_json)


def _import(
    context: typer.Context,
    dsn: str | None,
    data: Path,
    journal: str,
    kind: str,
    history: History,
    place: Callable[[], int | None],
    total: int | None,
    *,
    as_json: bool,
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"),
               TimeRemainingColumn())  # fmt: skip
    with database(context, dsn, data) as found:
        asyncio.run(migrate(found))
        with Progress(*columns, console=say.err, transient=True, disable=not say.err.is_terminal) as progress:
            task = progress.add_task(journal, total=total, said="")

            def advance(result: Result) -> None:
                rate = result.commits / max(progress.tasks[0].elapsed or 0, 0.001)
                progress.update(task, completed=place(), said=f"{result.commits} commits, {rate:.0f}/s")

            try:
                result = asyncio.run(record(found, journal, kind, history, advance))
            except KeyboardInterrupt:
                say.note("interrupted: what is recorded stays, and the same command goes on there")
                raise
    if as_json:
        say.result(result)
    else:
        before = f", {history.where(result.skipped)} was the last before" if result.skipped else ""
        say.out.print(
            f"[green]{journal}[/]: {result.commits} commits with {result.changes} changes recorded{before};"
            f" head {result.head}"
        )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if file == Path("-"):
        yield sys.stdin.buffer
    else:
        with file.open("rb") as opened:
            yield opened
