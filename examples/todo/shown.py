"""What the program says: results to stdout, the rest to stderr. What went wrong is a line that says what to do."""

import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from journal.client import Conflict, NotThisJournal, Progress, Refused, Status, Unreachable
from journal.errors import JournalError

WIDE = 100_000  # what no terminal shows need not be broken into lines
out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(highlight=False, stderr=True)
Data = dict[str, Any]
COLUMNS = {"due": "due", "title": "what", "who": "who", "cost": "cost", "note": "note"}
LONG = ("what", "note", "before", "mine", "theirs")


class Slip(Exception):
    """Something was typed that cannot be meant: what, and what may have been."""

    def __init__(self, text: str, advice: str = "") -> None:
        super().__init__(text)
        self.advice = advice


@contextmanager
def errors() -> Iterator[None]:
    """What goes wrong inside is told, and ends the program with 1."""
    try:
        yield
    except (Slip, JournalError, sqlite3.DatabaseError) as error:
        err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        if advice := _advice(error):
            err.print(Text(advice), soft_wrap=True)
        raise typer.Exit(1) from None


def _advice(error: Exception) -> str:
    match error:
        case Slip():
            return error.advice
        case Unreachable():
            return "What was changed here waits; nothing is lost. --url or TODO_URL names another journal."
        case Refused(status=401 | 403):
            return "What was changed here waits; nothing is lost. TODO_TOKEN says who syncs."
        case Refused(code="journal_not_found"):
            return "--url or TODO_URL names the journal: http://…/v1/journals/NAME."
        case NotThisJournal():
            return "--file names another list, --url another journal."
        case sqlite3.DatabaseError():
            return "Is --file a list, and in a folder that is there?"
    return ""


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """Says that something takes long, and how far it is; on a terminal only."""
    with err.status(text) as status:
        yield status.update


def progress(told: Progress) -> str:
    """How far a sync is."""
    return f"{told.phase}: {told.done}" + ("" if told.total is None else f" of {told.total}")


def note(text: str) -> None:
    """Something that is no result."""
    err.print(Text(text, "dim"), soft_wrap=True)


def done(what: str, atom: str, more: str = "") -> None:
    """That something is so now."""
    out.print(Text.assemble(what + " ", (atom, "bold"), f"  {more}" if more else ""), soft_wrap=True)


def either(names: Sequence[str]) -> str:
    """a, b or c."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def count(number: int, thing: str) -> str:
    """How many of what."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def items(found: list[tuple[str, Data]]) -> None:
    """A line an item: what is due first, first."""
    rows = sorted(found, key=lambda one: (bool(one[1].get("done")), one[1].get("due") or "~", one[0]))
    used = [field for field in COLUMNS if any(data.get(field) is not None for _, data in rows)]
    table = _table("id", *(COLUMNS[field] for field in used))
    for atom, data in rows:
        is_done = bool(data.get("done"))
        cells = (text(data.get(field)) for field in used)
        table.add_row(Text("✓ " * is_done + atom), *cells, style="dim" if is_done else "")
    if rows:
        out.print(table)
    else:
        out.print("nothing to do")


def text(value: Any) -> Text:
    """A field as people read it. What others wrote is never markup."""
    return Text("" if value is None else str(value))


def footer(status: Status) -> None:
    """What waits, where something does."""
    waits = [f"{count(status.pending, 'change')} to send: `sync`"] if status.pending else []
    open_ = [f"{count(status.conflicts, 'conflict')} to settle: `conflicts`"] if status.conflicts else []
    if waits or open_:
        note(" · ".join(waits + open_))


def synced(before: Status, after: Status) -> None:
    """What a sync has done."""
    moved = f"revision {after.revision}"
    if before.revision is not None and before.revision != after.revision:
        moved = f"revision {before.revision} → {after.revision}"
    sent = f", {count(before.pending, 'change')} sent" if before.pending else ""
    out.print(f"synced: {moved}{sent}")
    footer(after)


def status(file: Path, url: str, how: Status, items: int) -> None:
    """Everything that is known about a list."""
    table = Table.grid(padding=(0, 2, 0, 0))
    at = "never" if how.synced_at is None else f"{ago(how.synced_at)} ago"
    table.add_row("list", Text(f"{file}, {count(items, 'item')}"))
    table.add_row("journal", Text(url))
    table.add_row("synced", at + ("" if how.revision is None else f", to revision {how.revision}"))
    table.add_row("to send", str(how.pending))
    table.add_row("to settle", str(how.conflicts))
    table.add_row("client", how.client)
    out.print(table)


def ago(at: datetime) -> str:
    """How long since, to a unit that is worth reading."""
    seconds = max((datetime.now(UTC) - at).total_seconds(), 0.0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def conflicts(waiting: list[Conflict]) -> None:
    """Each with the fields that are not the same in all three versions."""
    for number, conflict in enumerate(waiting):
        if number:
            out.print()
        conflict_title(conflict)
        versions = (conflict.made_on, conflict.mine, conflict.theirs)
        table = _table("", "before", "mine", "theirs")
        for name in dict.fromkeys(name for data in versions for name in data or ()):
            values = [(data or {}).get(name) for data in versions]
            if any(value != values[0] for value in values):
                table.add_row(Text(f"  {name}"), *(text(value) for value in values))
        out.print(table)
    if waiting:
        note("`settle NUMBER mine`, `theirs` or `both`")
    else:
        out.print("no conflicts")


def conflict_title(conflict: Conflict) -> None:
    """Which conflict it is, and why."""
    if conflict.error is not None:
        why = f"the service does not take it: {conflict.error}"
    elif conflict.theirs is None:
        why = "others removed it meanwhile"
    elif conflict.made_on is None:
        why = "others added it meanwhile"
    else:
        why = "others changed it meanwhile"
    out.print(Text.assemble((f"{conflict.id}  {conflict.op} {conflict.atom}", "bold"), f": {why}"), soft_wrap=True)


def difference(before: Data | None, after: Data | None) -> Text:
    """What became of an item."""
    if after is None:
        return Text("removed", "red")
    if before is None:
        return Text.assemble(("added", "green"), f"  {after.get('title', '')}")
    said = [_became(name, before.get(name), after.get(name)) for name in dict.fromkeys((*before, *after))]
    return Text(", ".join(filter(None, said)))


def _became(name: str, before: Any, after: Any) -> str:
    if before == after:
        return ""
    if after is None:
        return f"{name} taken away"
    return f"{name} {after}" if before is None else f"{name} {before} → {after}"


def _table(*columns: str) -> Table:
    """Without lines. On a narrow terminal only what is long is broken into lines, nothing is cut."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        is_long = column in LONG
        justify: JustifyMethod = "right" if column == "cost" else "left"
        table.add_column(column, justify=justify, no_wrap=not is_long, overflow="fold", min_width=12 * is_long)
    return table
