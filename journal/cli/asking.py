"""Commands that ask a running service about a journal: create, status, history."""

import asyncio
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from journal.cli import say, server
from journal.cli.options import URL, Atom, Collection, Json, Name, NameOrAll, Url
from journal.cli.service import connected
from journal.client.http import Http, Refused
from journal.wire import CollectionsAnswer, HeadAnswer, HistoryAnswer, JournalsAnswer, ServerAnswer


def create(name: Name, *, url: Url = URL, as_json: Json = False) -> None:
    """Create a journal; nothing happens if it is there."""

    async def ask() -> tuple[int, bytes]:
        async with connected(url) as http:
            return await http.put("journals", name)

    with say.told(as_json=as_json):
        status, body = asyncio.run(ask())
    if as_json:
        say.result(body)
    else:
        say.out.print(f"[green]created[/] {name}" if status == 201 else f"{name} is there already")


def status(name: NameOrAll = None, *, url: Url = URL, as_json: Json = False) -> None:
    """Where journals stand: head, horizon, atoms, collections, epoch, digest."""
    with say.told(as_json=as_json):
        asyncio.run(_status_of(name, url, as_json=as_json) if name else _status_of_all(url, as_json=as_json))


async def _status_of(name: str, url: str, *, as_json: bool) -> None:
    async with connected(url) as http:
        head = await http.get("journals", name)
        collections = await http.get("journals", name, "collections")
        postgresql, note = await _postgresql(http)
    told = msgspec.json.decode(collections, type=CollectionsAnswer).collections
    if as_json:
        say.result(msgspec.json.decode(head) | {"collections": told, "server": postgresql})
        return
    stands = say.table("", "")
    for member, value in msgspec.to_builtins(msgspec.json.decode(head, type=HeadAnswer)).items():
        stands.add_row(f"[bold]{member}[/]", str(value))
    say.show(stands)
    listed = say.table("collection", "atoms", "digest", "policy", right=("atoms",))
    for one in told:
        listed.add_row(Text(one.name), str(one.atoms), one.digest, one.policy or "")
    if told:
        say.out.print()
        say.show(listed)
    _ask(postgresql, note)


async def _status_of_all(url: str, *, as_json: bool) -> None:
    async with connected(url) as http:
        there = await heads(http)
        asked = [http.get("journals", head.journal, "collections") for head in there]
        bodies = await asyncio.gather(*asked)
        postgresql, note = await _postgresql(http)
    collections = [msgspec.json.decode(body, type=CollectionsAnswer).collections for body in bodies]
    if as_json:
        told = [
            msgspec.to_builtins(head) | {"collections": held} for head, held in zip(there, collections, strict=True)
        ]
        say.result({"journals": told, "server": postgresql})
        return
    numbers = ("head", "horizon", "atoms", "collections")
    table = say.table("journal", *numbers, "epoch", "digest", right=numbers)
    for head, held in zip(there, collections, strict=True):
        row = (head.head, head.horizon, head.atoms, len(held), head.epoch, head.digest)
        table.add_row(f"[bold]{head.journal}[/]", *map(str, row))
    if there:
        say.show(table)
    else:
        say.out.print("no journals yet: `journal create NAME` makes one")
    _ask(postgresql, note)


async def _postgresql(http: Http) -> tuple[ServerAnswer | None, str]:
    """Which it is; None where that is not to be had, and what is to be said of it."""
    try:
        return await server.current(http), ""
    except Refused as error:
        match error.status:
            case 503:
                return None, "[yellow]PostgreSQL is away:[/] this is what the service remembers"
            case 403:  # it is for operators of the service
                return None, ""
        raise


def _ask(postgresql: ServerAnswer | None, note: str) -> None:
    """What only the operator can answer, where there is something."""
    if note:
        say.note(note)
    if postgresql is None:
        return
    if postgresql.system is None:
        say.note(server.UNTOLD)
    elif postgresql.is_other:
        say.out.print()
        say.out.print(server.question(postgresql), soft_wrap=True)


async def heads(http: Http) -> list[HeadAnswer]:
    """Where all journals stand."""
    told: list[HeadAnswer] = []
    after: str | None = None
    while True:
        page = msgspec.json.decode(await http.get("journals", after=after, limit=1000), type=JournalsAnswer)
        told += page.journals
        if not page.more:
            return told
        after = page.next


def history(
    name: Name,
    collection: Collection,
    atom: Atom,
    *,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=1000)] = 100,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """What happened to an atom, newest first: its changes, with who and when."""

    async def ask() -> bytes:
        async with connected(url) as http:
            return await http.get("journals", name, "atom", "history", collection=collection, atom=atom, limit=limit)

    with say.told(as_json=as_json):
        body = asyncio.run(ask())
    if as_json:
        say.result(body)
        return
    answer = msgspec.json.decode(body, type=HistoryAnswer)
    table = say.table("revision", "op", "at", "by", "data", right=("revision",))
    for change in answer.changes:
        text = Text("erased") if change.erased else say.patch(change.data, change.unset)
        table.add_row(str(change.revision), say.op(change.op), say.moment(change.at), say.who(change.by), text)
    if answer.changes:
        say.show(table)
    else:
        say.out.print("nothing: there never was an atom of this name")
    if answer.more:
        say.note(f"[dim]there are older ones: --limit {limit * 2}[/]")
