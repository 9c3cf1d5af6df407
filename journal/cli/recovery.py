"""`journal restored` and `journal erase`: what only somebody who knows can decide, and nobody can take back."""

import asyncio
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from journal.cli import say, server
from journal.cli.asking import heads
from journal.cli.options import URL, Atom, By, Collection, Json, Name, NameOrNone, Spread, Url, Yes
from journal.cli.service import connected
from journal.client.http import Refused
from journal.wire import EraseAnswer, HeadAnswer, HistoryAnswer

LISTED = 1000


def restored(
    name: NameOrNone = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every journal of the service.")] = False,
    revision: Annotated[
        int | None,
        typer.Option(
            "--revision",
            help="Where the new epoch begins, above all that was ever given out.",
            min=1,
            metavar="N",
            show_default="the next multiple of 2^32",
        ),
    ] = None,
    spread: Spread = 0,
    yes: Yes = False,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """The database was restored from a backup, or set back: begin a new epoch, so that all clients verify.

    What the server has forgotten and its clients still have is offered again by them. After a failover that lost
    nothing it is wrong: that is `journal failover`.
    """
    if (name is None) is not everything:
        raise typer.BadParameter("say which: a journal's NAME, or --all")
    if everything and revision is not None:
        raise typer.BadParameter("--revision goes with a journal's NAME: each stands elsewhere")
    asked: dict[str, Any] = {"spread_s": spread} | ({} if revision is None else {"revision": revision})
    with say.told(as_json=as_json):
        asyncio.run(_restored(name, asked, url, by, yes=yes, as_json=as_json))


async def _restored(
    name: str | None, asked: dict[str, Any], url: str, by: str | None, *, yes: bool, as_json: bool
) -> None:
    begun: list[HeadAnswer] = []
    failed: list[str] = []
    async with connected(url, by=by) as http:
        there = await heads(http)
        if name is not None and all(head.journal != name for head in there):
            await http.get("journals", name)  # says so
        names = [head.journal for head in there] if name is None else [name]
        if not names:
            raise say.Failed("no_journals", "there is no journal here")
        say.confirmed(_question(names), yes=yes)
        for one in names:
            try:
                body = (await http.post("journals", one, "restored", body=asked))[1]
                begun.append(msgspec.json.decode(body, type=HeadAnswer))
            except Refused as error:
                if name is not None:
                    raise
                failed.append(f"{one} ({error})")
        is_answered = not failed and len(begun) == len(there)
        postgresql = await server.remembered(http) if is_answered else None
    if as_json:
        say.result({"journals": begun, "server": postgresql})
    else:
        _show_begun(begun, is_answered=is_answered, is_remembered=postgresql is not None, left=len(there) - len(begun))
    if failed:
        raise say.Failed(
            "not_all", f"not all could be told: {', '.join(failed)}", "`journal restored NAME` does it for one."
        )


def _question(names: list[str]) -> str:
    which = names[0] if len(names) == 1 else f"all {len(names)} journals"
    return (
        f"A new epoch begins in {which}: every client is told so, verifies its data, and offers again what the server"
        " may have lost. It cannot be taken back. Go on?"
    )


def _show_begun(begun: list[HeadAnswer], *, is_answered: bool, is_remembered: bool, left: int) -> None:
    table = say.table("journal", "epoch", "begins at", right=("begins at",))
    for head in begun:
        table.add_row(f"[bold]{head.journal}[/]", head.epoch, str(head.head))
    if begun:
        say.show(table)
    if is_answered and not is_remembered:
        say.note(server.UNTOLD)
    elif is_answered:
        say.note("[dim]this PostgreSQL is remembered from now on[/]")
    else:
        others = "the other journal goes" if left == 1 else f"the other {left} journals go"
        say.note(f"[dim]{others} on as before; if this is another PostgreSQL, that stays a question[/]")


def erase(
    name: Name,
    collection: Collection,
    atom: Atom,
    *,
    yes: Yes = False,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Delete an atom, and blank its data wherever the service keeps it: changes, snapshots, answers to pushes.

    Says who may hold it still. It cannot be taken back.
    """
    with say.told(as_json=as_json):
        body = asyncio.run(_erase(name, collection, atom, url, by, yes=yes))
    if as_json:
        say.result(body)
        return
    told = msgspec.json.decode(body, type=EraseAnswer)
    say.out.print(
        f"[green]erased[/] {escape(f'{collection} {atom}')} at revision {told.revision}: its data is gone from"
        f" {say.count(told.changes, 'change')} and {say.count(told.outcomes, 'kept outcome')};"
        f" {say.count(told.snapshots, 'snapshot')} removed"
    )
    if told.conflicts:
        say.out.print(f"{say.count(told.conflicts, 'kept conflict')} lost what it was about")
    say.out.print("Who may hold it still:")
    for holder in told.may_hold:
        say.out.print(f"  - {escape(holder)}", soft_wrap=True)


async def _erase(name: str, collection: str, atom: str, url: str, by: str | None, *, yes: bool) -> bytes:
    async with connected(url, by=by) as http:
        if not yes:
            where = {"collection": collection, "atom": atom}
            body = await http.get("journals", name, "atom", "history", limit=LISTED, **where)
            told = msgspec.json.decode(body, type=HistoryAnswer)
            if not told.changes:
                await http.get("journals", name, "atom", **where)  # says so where there never was one
            say.confirmed(_what_goes(name, told), yes=False)
        asked = {"collection": collection, "atom": atom}
        return (await http.post("journals", name, "erase", body=asked))[1]


def _what_goes(name: str, told: HistoryAnswer) -> str:
    atom = escape(f"{told.collection} {told.atom}")
    with_data = sum(not isinstance(change.data, msgspec.UnsetType) for change in told.changes)
    if not told.changes:
        return f"{atom} is deleted at every client; the changes that made it were compacted away. Go on?"
    newest = told.changes[0]
    lives = "is deleted already" if newest.op == "delete" else "is deleted at every client"
    most = "more than " if told.more else ""
    return (
        f"{atom} {lives}, and the data of {most}{say.count(with_data, 'change')} in {name} is blanked for ever"
        f" (the newest of {say.moment(newest.at)}). Go on?"
    )
