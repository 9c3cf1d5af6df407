"""`journal export`: everything that a journal holds, in the form that `journal import` reads (cli/ndjson.py).

The rule: what an import makes of it has the same state. As long as the record reaches back to the beginning it is the
record, commit by commit with its times, and a later export begins with the same bytes; else it is the state.
"""

import asyncio
import gzip
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Literal, cast

import msgspec
import typer
import zstandard
from msgspec import UNSET, Raw, UnsetType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from journal.cli import say
from journal.cli.ndjson import ChangeLine, CommitLine
from journal.cli.options import URL, By, Json, Name, Url
from journal.cli.service import connected
from journal.client.download import LINE_BYTES, download
from journal.client.http import Http, Refused, Unreachable
from journal.client.packed import lines, unpacked
from journal.wire import AuditAnswer, HeadAnswer

FIRST_PAGE, LARGEST_PAGE = 500, 10_000
PAGE_BYTES = 8 << 20  # what a page should come to: the next one asks for more or fewer changes
PIECE = 256 * 1024
INSERTS = 1000  # of a commit that is made of the state
COMMIT_BYTES = 8 << 20  # and how large it may become
PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)  # between attempts, as long as nothing comes

Form = Literal["record", "state"]


class Exported(msgspec.Struct):
    """What an export came to. `form`: the record from its beginning, or the state as it is at `revision`."""

    journal: str
    file: str
    form: Form
    revision: int
    commits: int = 0
    changes: int = 0


class _Change(msgspec.Struct, gc=False):
    op: Literal["insert", "update", "replace", "delete"]
    collection: str
    atom: str
    data: Raw | UnsetType = UNSET
    unset: list[str] | UnsetType = UNSET
    erased: bool = False


class _Commit(msgspec.Struct):
    first: int
    at: datetime
    changes: list[_Change]


class _Page(msgspec.Struct):
    epoch: str
    commits: list[_Commit]
    until: int
    more: bool


class _Atom(msgspec.Struct, gc=False):
    collection: str
    atom: str
    data: Raw


_page = msgspec.json.Decoder(_Page).decode
_atom = msgspec.json.Decoder(_Atom).decode
_encode = msgspec.json.Encoder().encode
Write = Callable[[CommitLine], None]


def export(
    name: Name,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to; packed if it ends in .zst or .gz; - is stdout.",
            metavar="FILE",
            show_default="NAME.export.ndjson",
        ),
    ] = None,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Everything that a journal holds, a commit a line with its time, as `journal import` reads it.

    Where the record was compacted, or an epoch begun, it is the state as it is. What was erased is not in it.
    """
    file = output or Path(f"{name}.export.ndjson")
    with say.told(as_json=as_json):
        if file.is_dir():
            raise say.Failed("file", f"{file} is a folder")
        with _opened(file) as opened:
            told = asyncio.run(_export(name, file, opened, url, by))
    if file == Path("-"):
        return
    if as_json:
        say.result(told)
    else:
        say.out.print(
            f"[green]{file}[/]: {say.count(told.changes, 'change')} in {say.count(told.commits, 'commit')},"
            f" {'up to' if told.form == 'record' else 'the state at'} revision {told.revision}"
        )


async def _export(name: str, file: Path, opened: IO[bytes], url: str, by: str | None) -> Exported:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"),
               TimeRemainingColumn())  # fmt: skip
    async with connected(url, by=by) as http:
        head = msgspec.json.decode(await http.get("journals", name), type=HeadAnswer)
        erased = await _last_erased(http, name)
        form: Form = "state" if head.horizon else "record"
        told = Exported(name, str(file), form, head.head)
        with Progress(*columns, console=say.err, transient=True, disable=not say.err.is_terminal) as progress:
            task = progress.add_task(name, total=head.head if form == "record" else None, said="")

            def write(line: CommitLine) -> None:
                opened.write(_encode(line) + b"\n")
                told.commits += 1
                told.changes += len(line.changes)

            def advance(done: int, of: int) -> None:
                progress.update(task, completed=done, total=of or None, said=say.count(told.changes, "change"))

            if form == "record":
                await _record(http, head, told, write, advance)
            else:
                say.note(
                    f"[yellow]{name}'s record begins at revision {head.horizon}:[/] this is the state as it is,"
                    " without what led to it"
                )
                await _state(name, told, url, by, write, advance)
        if await _last_erased(http, name) != erased:
            say.note(
                f"[yellow]something was erased while this was written,[/] and may be in {file}: delete it, and export"
                " once more"
            )
    return told


async def _last_erased(http: Http, name: str) -> int | None:
    """The number of the last erasure in the audit log, as far as that is looked through."""
    told = msgspec.json.decode(await http.get("journals", name, "audit", limit=1000), type=AuditAnswer)
    return next((deed.id for deed in told.audit if deed.action == "erase"), None)


async def _record(
    http: Http, head: HeadAnswer, told: Exported, write: Write, advance: Callable[[int, int], None]
) -> None:
    """The record from the beginning, as it is when its end is reached."""
    kept = _Kept()
    async for page in _pages(http, head):
        for commit in page.commits:
            changes = [_line(change) for change in commit.changes if kept.has(change)]
            if changes:
                write(CommitLine(at=commit.at, changes=changes))
        told.revision = page.until
        advance(page.until, max(page.until, head.head))


async def _pages(http: Http, head: HeadAnswer) -> AsyncIterator[_Page]:
    """The pages of the record; by bare revisions, since a cursor from before a resync leads on no more."""
    since, limit, failures = 0, FIRST_PAGE, 0
    while True:
        try:
            body = await http.get("journals", head.journal, "changes", since=since, limit=limit)
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.code == "resync_required":
                raise _changed(head.journal) from None
            will_pass = isinstance(error, Unreachable) or error.status >= 500
            if since == 0 or not will_pass or failures == len(PAUSES_S):
                raise
            await asyncio.sleep(PAUSES_S[failures])
            failures, limit = failures + 1, max(limit // 4, 1)  # a line that breaks carries small pages
            continue
        page, failures = _page(body), 0
        if page.epoch != head.epoch or (page.commits and page.commits[0].first != since + 1):
            raise _changed(head.journal)
        yield page
        if not page.more:
            return
        since = page.until
        limit = min(max(limit * PAGE_BYTES // len(body), 1), 2 * limit, LARGEST_PAGE)


def _changed(journal: str) -> say.Failed:
    return say.Failed("changed", f"{journal} was compacted or restored while it was exported", "Run the same again.")


class _Kept:
    """Which changes are told: those whose data was not erased, nor that of the insert that they build on."""

    def __init__(self) -> None:
        self._gone: set[tuple[str, str]] = set()

    def has(self, change: _Change) -> bool:
        """Whether the next change is told."""
        key = change.collection, change.atom
        if key in self._gone:
            if change.op == "delete":
                self._gone.remove(key)
            return False
        if change.erased and change.op == "insert":
            self._gone.add(key)
        return not change.erased


def _line(change: _Change) -> ChangeLine:
    op: Literal["insert", "update", "put", "delete"] = "put" if change.op == "replace" else change.op
    return ChangeLine(op, change.collection, change.atom, change.data, change.unset)


async def _state(
    name: str, told: Exported, url: str, by: str | None, write: Write, advance: Callable[[int, int], None]
) -> None:
    """The state, from a snapshot that is verified before the first line of it is written."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="journal-") as folder:
        file = Path(folder) / "snapshot.ndjson.zst"
        async with connected(url, is_raw=True, by=by) as http:
            first = await download(http, name, file, keep="zstd", told=advance)
        told.revision = first.revision
        commit = CommitLine(at=now, changes=[])
        size = 0
        for atom in _atoms(file):
            line = ChangeLine("insert", atom.collection, atom.atom, atom.data)
            if commit.changes and (len(commit.changes) == INSERTS or size + len(bytes(atom.data)) > COMMIT_BYTES):
                write(commit)
                advance(told.changes, first.atoms)
                commit, size = CommitLine(at=now, changes=[]), 0
            commit.changes.append(line)
            size += len(bytes(atom.data))
        if commit.changes:
            write(commit)


def _atoms(file: Path) -> Iterator[_Atom]:
    with file.open("rb") as packed:
        found = lines(unpacked(iter(lambda: packed.read(PIECE), b"")), longest=LINE_BYTES)
        next(found)
        for line in found:
            if not line.startswith(b'{"end"'):
                yield _atom(line)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """What to write to; FILE is there once all of it is written, and as it was if that comes to nothing."""
    if file == Path("-"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as written:
            match file.suffix:
                case ".zst":
                    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(written, closefd=False) as packed:
                        yield packed
                case ".gz":
                    with gzip.GzipFile(fileobj=written, mode="wb", compresslevel=6, mtime=0) as packed:
                        yield cast(IO[bytes], packed)
                case _:
                    yield written
            written.flush()
            os.fsync(written.fileno())
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
