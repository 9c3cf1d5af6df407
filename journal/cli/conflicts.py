"""`journal conflicts` and `journal settle`: changes that a person has to decide between, and deciding."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import typer
from msgspec import UnsetType
from rich.markup import escape
from rich.text import Text

from journal.cli import say
from journal.cli.options import URL, AtomOption, By, ClientOption, Json, Name, Url, Yes
from journal.cli.service import connected
from journal.client.http import Http
from journal.core.model import Keep
from journal.wire import ConflictAnswer, ConflictsAnswer, SettleAnswer

PAGE = 1000


def _conflict(text: str | None) -> str | None:
    if text is not None and not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r} is no conflict: its id is a number, as `journal conflicts NAME` shows it")
    return text


Conflict = Annotated[str, typer.Argument(help="The conflict's id.", metavar="ID", callback=_conflict)]
ConflictOrNone = Annotated[
    str | None, typer.Argument(help="One conflict's id.", metavar="ID", callback=_conflict, show_default=False)
]


def conflicts(
    name: Name,
    conflict: ConflictOrNone = None,
    *,
    state: Annotated[Literal["open", "settled", "all"], typer.Option(help="Which.")] = "open",
    client: ClientOption = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1)] = 100,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Changes that are kept for a person to settle (the policy `both`), newest first; with ID one of them, whole."""
    if conflict is not None and (client is not None or state != "open"):
        raise typer.BadParameter("ID shows one conflict: it goes without --state and --client")
    with say.told(as_json=as_json):
        if conflict is not None:
            asyncio.run(_one(name, conflict, url, by, as_json=as_json))
        else:
            asyncio.run(_all(name, state, client, limit, url, by, as_json=as_json))


async def _all(
    name: str, state: str, client: str | None, limit: int, url: str, by: str | None, *, as_json: bool
) -> None:
    async with connected(url, by=by) as http:
        told = await _found(http, name, state, client, limit)
    if as_json:
        say.result(told)
        return
    table = say.table("id", "at", "client", "op", "collection", "atom", "settled", "theirs", right=("id",))
    for one in told.conflicts:
        where = (Text(one.collection), Text(one.atom))
        table.add_row(one.id, say.moment(one.at), say.who(one.client), one.op, *where, _settled(one), _theirs(one))
    if told.conflicts:
        say.show(table)
        say.note(f"[dim]`journal conflicts {name} ID` shows both sides, `journal settle {name} ID --keep …` decides[/]")
    else:
        say.out.print("none" if state == "all" else f"none that {'is' if state == 'settled' else 'are'} {state}")
    if told.more:
        say.note(f"[dim]there are older ones: --limit {limit * 2}[/]")


async def _found(http: Http, name: str, state: str, client: str | None, limit: int) -> ConflictsAnswer:
    """At most `limit` conflicts, from as many pages as that takes."""
    found: list[ConflictAnswer] = []
    after: str | None = None
    while True:
        most = min(PAGE, limit - len(found))
        body = await http.get("journals", name, "conflicts", state=state, client=client, after=after, limit=most)
        page = msgspec.json.decode(body, type=ConflictsAnswer)
        found += page.conflicts
        if not page.more or len(found) >= limit:
            return ConflictsAnswer(found, page.more, page.next)
        after = page.next


async def _one(name: str, conflict: str, url: str, by: str | None, *, as_json: bool) -> None:
    async with connected(url, by=by) as http:
        body = await http.get("journals", name, "conflicts", conflict)
    if as_json:
        say.result(body)
        return
    one = msgspec.json.decode(body, type=ConflictAnswer)
    shown = say.table("", "")
    for label, value in _facts(one):
        shown.add_row(f"[bold]{label}[/]", value if isinstance(value, Text) else Text(value))
    say.show(shown)


def _facts(one: ConflictAnswer) -> list[tuple[str, str | Text]]:
    sender = "does not say" if one.client is None else str(one.client)
    numbered = "" if one.push is None else f", push {one.push}"
    facts: list[tuple[str, str | Text]] = [
        ("atom", f"{one.collection} {one.atom}"),
        ("at", say.moment(one.at)),
        ("client", f"{sender}{numbered}, change {one.place}"),
        ("base", "none" if one.base is None else str(one.base)),
        ("client's", Text(f"{one.op} ").append_text(_theirs(one))),
        ("met", _stood(one)),
    ]
    if one.settled is not None:
        done = one.settled
        recorded = "nothing recorded" if done.revision is None else f"revision {done.revision}"
        facts.append(("settled", f"{_settled(one)}, {recorded}, {say.moment(done.at)}, by {done.by}"))
    return facts


def _theirs(one: ConflictAnswer) -> Text:
    return Text("erased") if one.erased else say.patch(one.data, one.unset)


def _stood(one: ConflictAnswer) -> str:
    if one.stood is None:
        return "nothing"
    data = "erased" if isinstance(one.stood.data, UnsetType) else bytes(one.stood.data).decode()
    return f"revision {one.stood.revision} {data}"


def _settled(one: ConflictAnswer) -> str:
    if one.settled is None:
        return ""
    return f"both, as {one.settled.atom}" if one.settled.keep == "both" else one.settled.keep


def settle(
    name: Name,
    conflict: Conflict,
    *,
    keep: Annotated[Keep, typer.Option(help="Whose version stands.", show_default=False)],
    atom: AtomOption = None,
    yes: Yes = False,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Settle a conflict: keep what stands, record the client's change after all, or keep both.

    With --keep both the client's version becomes an atom of its own, named by --atom. It is settled once.
    """
    if (keep == "both") is not (atom is not None):
        raise typer.BadParameter("--atom names the copy: it goes with --keep both, which needs it")
    asked: dict[str, Any] = {"keep": keep} | ({} if atom is None else {"atom": atom})
    with say.told(as_json=as_json):
        body = asyncio.run(_settle(name, conflict, asked, url, by, yes=yes))
    if as_json:
        say.result(body)
        return
    told = msgspec.json.decode(body, type=SettleAnswer)
    recorded = "nothing was recorded" if told.revision is None else f"recorded as revision {told.revision}"
    say.out.print(f"[green]settled[/] {told.id} of {name}, keeping {told.keep}: {recorded}")


async def _settle(name: str, conflict: str, asked: dict[str, Any], url: str, by: str | None, *, yes: bool) -> bytes:
    async with connected(url, by=by) as http:
        if not yes:
            one = msgspec.json.decode(await http.get("journals", name, "conflicts", conflict), type=ConflictAnswer)
            if one.settled is None:
                say.confirmed(_question(one, asked), yes=False)
        return (await http.post("journals", name, "conflicts", conflict, body=asked))[1]


def _question(one: ConflictAnswer, asked: dict[str, Any]) -> str:
    theirs = f"the client's {one.op} {_theirs(one).plain}".strip()
    what = {
        "server": f"What stands stays, and {theirs} is left at that.",
        "client": f"{theirs} is recorded on what stands now.",
        "both": f"What stands stays, and {theirs} becomes {asked.get('atom')}.",
    }[asked["keep"]]
    return f"{escape(f'{one.collection} {one.atom}: {what}')} Go on?"
