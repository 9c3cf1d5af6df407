"""The commands. All but `sync` and `watch` only read and write the file; what they wrote waits to be sent."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import uuid4

import typer

from examples.todo import shown, watching
from journal.client import AtomExists, BlockingCollection, BlockingReplica, Conflict, Keep, Progress, Replica

COLLECTION = "todo"
URL = "http://127.0.0.1:8470/v1/journals/demo"
OPTIONAL = ("cost", "who", "due", "note")
KEEP: dict[str, Keep] = {"mine": "client", "theirs": "server", "both": "both"}

app = typer.Typer(
    help="A to-do list that works offline and syncs with a journal.",
    epilog="All but `sync` and `watch` work without the service. Two lists side by side: each has a --file of its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Place(NamedTuple):
    """Where the list is, here and at the service."""

    file: Path
    url: str
    token: str | None


def _amount(text: str) -> float:
    """A sum as it is written to the journal: 300, not 300.0."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount):
        raise typer.BadParameter(f"{text!r} is no sum: 300 or 88.5 is")
    return int(amount) if amount.is_integer() else amount


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day: 2026-03-24 is") from None


def _optional(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name not in OPTIONAL:
            raise typer.BadParameter(f"{name!r} cannot be taken away: {shown.either(OPTIONAL)} can")
    return names


Id = Annotated[str, typer.Argument(help="Its id, or as much of it as no other begins with.", metavar="ID")]
NewId = Annotated[
    str | None, typer.Option("--id", help="An id of your own.", metavar="ID", show_default="eight random hex digits")
]
Cost = Annotated[float | None, typer.Option(help="What it costs.", parser=_amount, metavar="SUM")]
Who = Annotated[str | None, typer.Option(help="Who does it.", metavar="NAME")]
Due = Annotated[str | None, typer.Option(help="When it has to be done.", parser=_day, metavar="DAY")]
Note = Annotated[str | None, typer.Option(help="What else is to be said.", metavar="TEXT")]


@app.callback()
def _place(
    context: typer.Context,
    *,
    file: Annotated[
        Path, typer.Option(envvar="TODO_FILE", help="The list; made if it is not there.", dir_okay=False)
    ] = Path("todo.db"),
    url: Annotated[str, typer.Option(envvar="TODO_URL", help="The journal that it is synced with.")] = URL,
    token: Annotated[
        str | None, typer.Option(envvar="TODO_TOKEN", help="Who syncs, where the service asks; better the variable.")
    ] = None,
) -> None:
    try:
        Replica.open(file, url, token=token)  # entering it would make the file
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    context.obj = Place(file, url, token)


@contextmanager
def _opened(context: typer.Context, **options: Any) -> Iterator[BlockingReplica]:
    """The list's replica: of its collection only, though the journal may have others."""
    file, url, token = context.obj
    with shown.errors(), Replica.open_sync(file, url, collections=[COLLECTION], token=token, **options) as replica:
        yield replica


def _items(replica: BlockingReplica) -> BlockingCollection:
    """Two people who changed different fields of an item offline are no conflict."""
    return replica.collection(COLLECTION, on_conflict="merge")


def _named(items: BlockingCollection, typed: str) -> str:
    """The id that was meant."""
    if items.get(typed) is not None:
        return typed
    ids = [atom for atom, _ in items]
    begun = [atom for atom in ids if atom.startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    near = begun[:5] or get_close_matches(typed, ids, 3, 0.5)
    raise shown.Slip(
        f"there is no {typed}", f"Did you mean {shown.either(near)}?" if near else "`list --all` has them."
    )


def _fields(**typed: float | str | None) -> dict[str, Any]:
    return {name: value for name, value in typed.items() if value is not None}


@app.command()
def add(
    context: typer.Context,
    title: Annotated[str, typer.Argument(help="What is to be done.")],
    *,
    cost: Cost = None,
    who: Who = None,
    due: Due = None,
    note: Note = None,
    own_id: NewId = None,
) -> None:
    """Add something to do."""
    with _opened(context) as replica:
        atom = own_id or uuid4().hex[:8]
        try:
            _items(replica).insert(atom, {"title": title} | _fields(cost=cost, who=who, due=due, note=note))
        except AtomExists:
            raise shown.Slip(f"there is a {atom} already", f"`edit {atom}` changes it.") from None
        shown.done("added", atom, title)


@app.command("list")
def list_(
    context: typer.Context,
    *,
    who: Annotated[str | None, typer.Option(help="Only what this person does.", metavar="NAME")] = None,
    is_all: Annotated[bool, typer.Option("--all", "-a", help="Also what is done.")] = False,
) -> None:
    """What is to be done, by the day it is due."""
    with _opened(context) as replica:
        items = _items(replica)
        found = items.find({"who": who}) if who is not None else list(items)
        shown.items([(atom, data) for atom, data in found if is_all or not data.get("done")])
        shown.footer(replica.status())


@app.command()
def done(
    context: typer.Context,
    item: Id,
    *,
    is_undone: Annotated[bool, typer.Option("--undo", help="It is not done after all.")] = False,
) -> None:
    """Mark an item as done."""
    with _opened(context) as replica:
        items = _items(replica)
        atom = _named(items, item)
        if is_undone:
            items.update(atom, unset=["done"])
        else:
            items.update(atom, {"done": True})
        shown.done("to do again" if is_undone else "done", atom)


@app.command()
def edit(
    context: typer.Context,
    item: Id,
    *,
    title: Annotated[str | None, typer.Option(help="What is to be done.", metavar="TEXT")] = None,
    cost: Cost = None,
    who: Who = None,
    due: Due = None,
    note: Note = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="Take a field away; may be repeated.", metavar="FIELD", callback=_optional)
    ] = None,
) -> None:
    """Change an item."""
    fields = _fields(title=title, cost=cost, who=who, due=due, note=note)
    with _opened(context) as replica:
        if not fields and not unset:
            raise shown.Slip("nothing to change", "`edit --help` lists what can be.")
        items = _items(replica)
        atom = _named(items, item)
        items.update(atom, fields, unset=unset or ())
        shown.done("changed", atom)


@app.command()
def remove(context: typer.Context, item: Id) -> None:
    """Remove an item."""
    with _opened(context) as replica:
        items = _items(replica)
        atom = _named(items, item)
        items.delete(atom)
        shown.done("removed", atom)


@app.command()
def sync(context: typer.Context) -> None:
    """Send what was changed here, and take what others changed."""
    with shown.busy("syncing") as tell:

        def progress(told: Progress) -> None:
            tell(shown.progress(told))

        with _opened(context, progress=progress) as replica:
            before = replica.status()
            replica.sync()
            shown.synced(before, replica.status())


@app.command()
def watch(context: typer.Context) -> None:
    """Stay, sync all the time, and tell what changes here and elsewhere. Ctrl-C ends it."""
    file, url, token = context.obj
    with shown.errors():
        try:
            asyncio.run(watching.watch(file, url, token, COLLECTION))
        except KeyboardInterrupt:
            shown.note("the list stays where it is; what waits is sent next time")


@app.command()
def status(context: typer.Context) -> None:
    """How the list stands."""
    with _opened(context) as replica:
        shown.status(context.obj.file, context.obj.url, replica.status(), _items(replica).count())


@app.command()
def conflicts(context: typer.Context) -> None:
    """What was changed here and could not be recorded, since others had changed the same."""
    with _opened(context) as replica:
        shown.conflicts(replica.conflicts())


@app.command()
def settle(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="Of the conflict, as `conflicts` shows it.", metavar="NUMBER")],
    keep: Annotated[Literal["mine", "theirs", "both"], typer.Argument(help="Which version is to stand.")],
    *,
    copy_id: Annotated[
        str | None, typer.Option("--id", help="With both: what mine is called then.", show_default="the id and -2")
    ] = None,
) -> None:
    """Settle a conflict: with `both`, theirs stays as it is and mine becomes an item of its own."""
    with _opened(context) as replica:
        conflict = _numbered(replica.conflicts(), number)
        if keep != "both":
            if copy_id is not None:
                raise shown.Slip("--id goes with both only")
            replica.settle(conflict, KEEP[keep])
            shown.done(f"settled, {keep} stands:", conflict.atom)
            return
        copy = copy_id or _free(_items(replica), conflict.atom)
        replica.settle(conflict, "both", atom=copy)
        shown.done(f"settled, {conflict.atom} is theirs and mine is", copy)


def _numbered(waiting: list[Conflict], number: int) -> Conflict:
    for conflict in waiting:
        if conflict.id == number:
            return conflict
    numbers = shown.either([str(conflict.id) for conflict in waiting])
    raise shown.Slip(f"there is no conflict {number}", f"There is {numbers}." if waiting else "There is none at all.")


def _free(items: BlockingCollection, atom: str) -> str:
    """A name for a copy that nothing has yet."""
    number = 2
    while items.get(f"{atom}-{number}") is not None:
        number += 1
    return f"{atom}-{number}"
