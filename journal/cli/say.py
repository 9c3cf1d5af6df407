"""What the command line says, and how a command ends: results to stdout, everything else to stderr.

The rule: whatever goes wrong in a way that a person can act on is one line that says what to do, never a traceback;
with --json it is the problem (RFC 9457) that the service sent, or one like it.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer
from msgspec import Raw, UnsetType
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from journal.client.download import Damaged
from journal.client.http import Refused, Unreachable
from journal.errors import JournalError, JournalNotFound, Unavailable
from journal.store.database import Unusable
from journal.store.embedded import EmbeddedUnavailable

EXIT_CODES = (
    "Ends with 0 when it is done, 1 when it could not be (the reason is on stderr), 2 when the command line is not"
    " understood, 130 when it was interrupted."
)
COLOUR = {"insert": "green", "update": "yellow", "replace": "cyan", "delete": "red"}
NARROWEST = 12
WIDE = 100_000  # what no terminal shows need not be cut

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(highlight=False, width=None if sys.stderr.isatty() else WIDE, stderr=True)


class Failed(JournalError):
    """It could not be done: a stable code, what is the matter, and what to do about it."""

    def __init__(self, code: str, text: str, advice: str = "") -> None:
        super().__init__(text)
        self.code, self.text, self.advice = code, text, advice


@contextmanager
def told(*, as_json: bool = False) -> Iterator[None]:
    """What goes wrong inside is told, and ends the command with 1."""
    try:
        yield
    except (JournalError, Unusable, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # whoever read the output has gone: typer knows
        if as_json:
            sys.stderr.write(msgspec.json.encode(_problem(error)).decode() + "\n")
        else:
            failed = _failed(error)
            err.print(
                f"[bold red]error:[/] {escape(failed.text)}" + (f"\n{escape(failed.advice)}" * bool(failed.advice))
            )
        raise typer.Exit(1) from None


def result(value: bytes | object) -> None:
    """A line of JSON, for a program."""
    text = value if isinstance(value, bytes) else msgspec.json.encode(value)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Something that is no result, for a person. Markup is understood."""
    err.print(text)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; columns named in `right` hold numbers. Nothing is wrapped."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        made.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis")
    return made


def show(made: Table) -> None:
    """Print a table; on a terminal that is too narrow its last column is cut."""
    *others, last = made.columns
    taken = sum(2 + max(cell_len(str(cell)) for cell in (column.header, *column.cells)) for column in others)
    last.max_width = max(out.width - taken, NARROWEST)
    out.print(made)


def confirmed(question: str, *, yes: bool) -> None:
    """Go on only if a person says so, or has said so with --yes. Markup is understood."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failed("not_confirmed", "nothing was done: this asks first, and there is no terminal to ask at", ASSENT)
    with _interruptible():
        err.print(f"{question} \\[y/N] ", end="")
        answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        raise Failed("not_confirmed", "nothing was done")


TOKENS = (
    "JOURNAL_TOKEN_FILE, JOURNAL_TOKEN or --token-file says who asks; where the database is, `journal token create`"
    " makes a token and `journal token list` says which are in force."
)
MORE = "Where the database is, `journal token list` says what a token may do, `journal token grant` changes it."
ASSENT = "--yes goes on without asking."


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends what waits for a line; asyncio's own way would only cancel a task that cannot run meanwhile."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if _is_cancelled():
            raise KeyboardInterrupt  # it came just before
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return False
    return task is not None and task.cancelling() > 0


def count(number: int, thing: str) -> str:
    """How many of what."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """How long, to a unit that is worth reading."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(at: str) -> str:
    """How long since a time of the protocol, by this machine's clock."""
    return span(max((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds(), 0.0))


def moment(at: str) -> str:
    """A time of the protocol, to the second (UTC)."""
    return at[:19].replace("T", " ")


def who(client: object) -> str:
    """A client by the beginning of its id, "" for nobody."""
    return "" if client is None else str(client)[:8]


def op(name: str) -> Text:
    """An operation, in its colour."""
    return Text(name, COLOUR[name])


def patch(fields: Raw | UnsetType, unset: tuple[str, ...]) -> Text:
    """What a change sets, and what it unsets."""
    text = Text("" if isinstance(fields, UnsetType) else bytes(fields).decode())
    for name in unset:
        text.append(f" −{name}", "red")
    return text


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, Refused):
        return error.problem
    failed = _failed(error)
    told = {"type": f"urn:journal:problem:{failed.code}", "title": failed.text, "code": failed.code}
    return told | ({"detail": failed.advice} if failed.advice else {})


def _failed(error: Exception) -> Failed:
    match error:
        case Failed():
            return error
        case Refused():
            return _refused(error)
        case Unreachable():
            advice = "Is it running? `journal serve` starts it here; --url or JOURNAL_URL names another."
            return Failed("unreachable", str(error), advice)
        case Damaged():
            return Failed(
                "damaged", f"what came is not a whole snapshot: {error}", "Run the same again: it starts anew."
            )
        case Unavailable():
            cause = str(error.__cause__ or "")
            text = f"{error}{': ' if cause else ''}{cause}"
            return Failed(error.code, text, "Check that it runs, and --dsn or JOURNAL_DSN.")
        case JournalNotFound():
            return Failed(error.code, "the journal was removed meanwhile")
        case EmbeddedUnavailable():
            return Failed("embedded_unavailable", str(error))
        case Unusable():
            return Failed("unusable", str(error), "--dsn or JOURNAL_DSN names the database.")
        case OSError(filename=str() as name, strerror=str() as why):
            return Failed("file", f"{name}: {why}")
    return Failed("error", str(error))


def _refused(error: Refused) -> Failed:
    problem = error.problem
    detail = problem.get("detail")
    text = f"{problem.get('title', error)}{f': {detail}' if detail else ''}"
    faults = [f"{fault['pointer'].removeprefix('/')}: {fault['detail']}" for fault in problem.get("errors", [])]
    match error.code:
        case "journal_not_found":
            return Failed(error.code, text, "`journal status` lists those there are, `journal create NAME` makes one.")
        case "unauthenticated":
            return Failed(error.code, text, TOKENS)
        case "forbidden":
            return Failed(error.code, text, MORE)
        case "not_found" if detail:
            return Failed(error.code, str(detail))
        case "resync_required":
            return Failed(error.code, f"{text} ({problem['reason']})", "Start again from `journal snapshot NAME`.")
        case "invalid_request":
            return Failed(error.code, "; ".join(faults) or text)
    return Failed(error.code or "refused", text)
