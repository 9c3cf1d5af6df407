"""`journal deltas`: everything since a revision, and with --follow what comes after it."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer
from msgspec import UNSET
from rich.table import Table
from rich.text import Text

from journal.cli import say
from journal.cli.options import URL, Json, Name, Url
from journal.cli.service import connected
from journal.client.http import Refused, Unreachable
from journal.wire import Deltas

ROWS = 1000  # of a page that a person reads: its columns are as wide as its widest
HELD_S = 30


def deltas(
    name: Name,
    *,
    since: Annotated[
        str, typer.Option(help="A cursor, or a bare revision; 0: from the start.", metavar="CURSOR")
    ] = "0",
    until: Annotated[int | None, typer.Option(help="A fixed end: the last revision of a commit.", min=0)] = None,
    collections: Annotated[str | None, typer.Option(help="Only these.", metavar="A,B")] = None,
    limit: Annotated[
        int | None, typer.Option(help="One answer of at most so many; all answers without.", min=1)
    ] = None,
    include: Annotated[str | None, typer.Option(help="meta (who and when), revisions, or both.", metavar="A,B")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as changes come, until interrupted.")] = False,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Everything since a revision, one delta an atom.

    With --json, a line for each answer of the service.
    """
    if follow and (until is not None or limit is not None):
        raise typer.BadParameter("--follow has no end: it goes without --until and --limit")
    if follow and "revisions" in (include or ""):
        raise typer.BadParameter("--follow tells of changes as they come: it goes without --include revisions")
    query = {"until": until, "collections": collections, "include": include}
    with say.told(as_json=as_json):
        asyncio.run(_deltas(url, name, since, query, limit=limit, follow=follow, as_json=as_json))


async def _deltas(
    url: str, name: str, since: str, query: dict[str, Any], *, limit: int | None, follow: bool, as_json: bool
) -> None:
    page = limit or (None if as_json else ROWS)
    told, is_first, is_over = 0, True, False
    async with connected(url) as http:
        while not is_over or follow:
            try:
                wait = HELD_S if is_over else None
                body = await http.get("journals", name, "deltas", since=since, limit=page, wait=wait, **query)
            except (Unreachable, Refused) as error:
                will_pass = not isinstance(error, Refused) or error.status >= 500
                if not (follow and will_pass) or is_first:
                    raise
                say.note(f"[yellow]{error}: trying again[/]")
                await asyncio.sleep(1)
                continue
            answer = msgspec.json.decode(body, type=Deltas)
            if as_json and (answer.deltas or not is_over):  # else nothing came while it was held
                say.result(body)
            elif answer.deltas:
                say.show(_table(body, answer, with_header=told == 0))
            told += len(answer.deltas)
            since, is_first, is_over = answer.cursor, False, not answer.more
            if limit:
                break
    if not follow and not as_json:
        _sum_up(told, answer)


def _table(body: bytes, answer: Deltas, *, with_header: bool) -> Table:
    told = msgspec.json.decode(body)["deltas"]  # with the members that `include` adds
    extra = [member for member in SHOWN if any(member in delta for delta in told)]
    table = say.table("revision", "op", "collection", "atom", *extra, "data", right=("revision",))
    table.show_header = with_header
    for delta, shown in zip(answer.deltas, told, strict=True):
        names = Text(delta.collection), Text(delta.atom)
        besides = [SHOWN[member](shown[member]) for member in extra]
        table.add_row(str(delta.revision), say.op(delta.op), *names, *besides, say.patch(delta.data, delta.unset))
    return table


SHOWN: dict[str, Callable[[Any], str]] = {
    "at": say.moment,
    "by": say.who,
    "revisions": lambda revisions: ",".join(map(str, revisions)),
}


def _sum_up(told: int, answer: Deltas) -> None:
    count = f"{told} delta{'s' * (told != 1)}"
    if answer.more:
        say.note(f"[dim]{count}; there are more: --since {answer.cursor}[/]")
    else:
        head = "" if answer.head is UNSET else f" of {answer.head}"
        say.note(f"[dim]{count}, up to revision {answer.until}{head}; cursor {answer.cursor}[/]")
