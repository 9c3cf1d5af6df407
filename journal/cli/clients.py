"""`journal clients` and `journal resync`: who syncs, how far each is, and calling them back."""

import asyncio
from collections import Counter
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.text import Text

from journal.cli import say
from journal.cli.options import (
    URL,
    By,
    Client,
    ClientOption,
    Collections,
    Forget,
    Json,
    Name,
    Spread,
    Url,
    Yes,
)
from journal.cli.service import connected
from journal.client.http import Http, Refused
from journal.wire import (
    ClientAnswer,
    ClientRow,
    ClientsAnswer,
    CollectionsAnswer,
    RevisionAnswer,
    StatsAnswer,
)

PAGE = 1000
ID_WIDTH = 36
ELSEWHERE = "elsewhere"


def clients(
    name: Name,
    client: Client = None,
    *,
    behind: Annotated[bool, typer.Option("--behind", help="Only those that are not up to date.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, the furthest behind first.", min=1)] = 100,
    forget: Forget = None,
    yes: Yes = False,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Who syncs, the furthest behind first; with CLIENT one of them, and what became of its last pushes."""
    if client and (behind or forget):
        raise typer.BadParameter("CLIENT shows one client: it goes without --behind and --forget")
    if forget and behind:
        raise typer.BadParameter("--forget goes without --behind")
    with say.told(as_json=as_json):
        if forget:
            asyncio.run(_forget(name, forget, url, by, yes=yes, as_json=as_json))
        elif client:
            asyncio.run(_one(name, client, url, by, as_json=as_json))
        else:
            asyncio.run(_all(name, url, by, limit, is_behind=behind, as_json=as_json))


async def _all(name: str, url: str, by: str | None, limit: int, *, is_behind: bool, as_json: bool) -> None:
    async with connected(url, by=by) as http:
        told = await _found(http, name, limit, is_behind=is_behind)
    if as_json:
        say.result(told)
        return
    table = say.table(
        "client", "behind", "for", "seen", "pushed", "resync", "agent", right=("behind", "for", "seen", "pushed")
    )
    table.columns[0].min_width = ID_WIDTH  # the id is what one takes along to the next command
    for one in told.clients:
        seen, agent = f"{say.ago(one.last_seen)} ago", Text(one.agent or "")
        table.add_row(str(one.client), _lag(one), _lag_s(one), seen, str(one.pushed or ""), _resync(one), agent)
    if told.clients:
        say.show(table)
        _explain(name, told)
    elif is_behind:
        say.out.print(f"nobody: every client that was seen is at {told.head}")
    else:
        say.out.print("nobody yet: a client is known once it asks with `client` or pushes with its id")


async def _found(http: Http, name: str, limit: int, *, is_behind: bool) -> ClientsAnswer:
    """At most `limit` clients, from as many pages as that takes."""
    found: list[ClientRow] = []
    after: str | None = None
    while True:
        most = PAGE if is_behind else min(PAGE, limit - len(found))
        body = await http.get("journals", name, "clients", after=after, limit=most)
        page = msgspec.json.decode(body, type=ClientsAnswer)
        found += [one for one in page.clients if not is_behind or _is_behind(one)]
        if not page.more or len(found) >= limit:
            is_cut = len(found) > limit
            return ClientsAnswer(page.epoch, page.head, found[:limit], page.more or is_cut, page.next)
        after = page.next


def _is_behind(one: ClientRow) -> bool:
    return one.lag != 0 or one.resync is not None


def _lag(one: ClientRow) -> str:
    if one.lag is None:
        return "?" if one.cursor is None else ELSEWHERE
    return str(one.lag or "")


def _lag_s(one: ClientRow) -> str:
    return say.span(one.lag_s) if one.lag_s else ""


def _resync(one: ClientRow) -> str:
    return "" if one.resync is None else "waited for"


def _explain(name: str, told: ClientsAnswer) -> None:
    """What a column says that a word cannot."""
    notes = []
    if any(_lag(one) == ELSEWHERE for one in told.clients):
        notes.append(f"{ELSEWHERE}: its cursor is of another history; when it asks next it is told to verify (410)")
    if any(_lag(one) == "?" for one in told.clients):
        notes.append("?: it has asked without a cursor only")
    if any(one.resync is not None for one in told.clients):
        notes.append("waited for: it was asked to start again, and has not been back since")
    if told.more:
        notes.append(f"there are more: --limit {2 * len(told.clients)}")
    for note in notes:
        say.note(f"[dim]{note}[/]")


async def _one(name: str, client: str, url: str, by: str | None, *, as_json: bool) -> None:
    async with connected(url, by=by) as http:
        body = await http.get("journals", name, "clients", client)
    if as_json:
        say.result(body)
        return
    one = msgspec.json.decode(body, type=ClientAnswer)
    shown = say.table("", "")
    for label, value in _facts(one):
        shown.add_row(f"[bold]{label}[/]", Text(value))
    say.show(shown)
    if not one.pushes:
        return
    table = say.table("push", "at", "status", "revision", "outcomes", right=("push", "revision"))
    for push in one.pushes:
        at, revision = say.moment(push.at), str(push.revision or "")
        table.add_row(str(push.push), at, str(push.status), revision, _outcomes(push.outcomes))
    say.out.print()
    say.show(table)


def _facts(one: ClientAnswer) -> list[tuple[str, str]]:
    lag = {"": "nothing: it is up to date", "?": "not known: it has asked without a cursor only"}.get(_lag(one))
    if lag is None:
        lag = (
            f"{say.count(one.lag, 'revision')}, {_lag_s(one) or '0 s'}"
            if one.lag
            else "its cursor is of another history"
        )
    facts = [
        ("client", str(one.client)),
        ("cursor", one.cursor or "none"),
        ("behind", lag),
        ("seen", f"{say.moment(one.last_seen)} ({say.ago(one.last_seen)} ago), first {say.moment(one.first_seen)}"),
        ("agent", one.agent or "does not say"),
        ("pushed", str(one.pushed or "never")),
    ]
    if one.resync is not None:
        facts.append(("resync", f"asked to start again at revision {one.resync}, and has not been back since"))
    if one.resynced is not None and one.resynced_at is not None:
        facts.append(("resynced", f"{say.moment(one.resynced_at)}, over revision {one.resynced}"))
    return facts


def _outcomes(outcomes: Any) -> str:
    if outcomes is None or bytes(outcomes) == b"null":
        return "kept no longer"
    told = Counter(outcome["status"] for outcome in msgspec.json.decode(outcomes))
    return ", ".join(f"{number} {status}" for status, number in told.items())


async def _forget(name: str, client: str, url: str, by: str | None, *, yes: bool, as_json: bool) -> None:
    async with connected(url, by=by) as http:
        one = msgspec.json.decode(await http.get("journals", name, "clients", client), type=ClientAnswer)
        say.confirmed(
            f"{client}, seen {say.ago(one.last_seen)} ago, is forgotten for ever: from then on it is answered 409"
            " client_forgotten, and has to take a new id. Go on?",
            yes=yes,
        )
        await http.delete("journals", name, "clients", client)
    if as_json:
        say.result({"forgotten": client})
    else:
        say.out.print(f"[green]forgotten[/] {client}")


def resync(
    name: Name,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.", metavar="TEXT")],
    client: ClientOption = None,
    collections: Collections = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Every client of the journal.")] = False,
    spread: Spread = 0,
    yes: Yes = False,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Ask clients to start again: one, those of some collections, or everyone.

    Each is told so (410, operator) when it next asks, takes a snapshot, and pushes what it has not pushed yet.
    """
    if (client is not None) + (collections is not None) + everyone != 1:
        raise typer.BadParameter("say who: one of --client ID, --collections A,B and --everyone")
    with say.told(as_json=as_json):
        body, who = asyncio.run(
            _call_back(name, client, collections, {"reason": reason, "spread_s": spread}, url, by, yes=yes)
        )
    if as_json:
        say.result(body)
        return
    over = f", spread over {say.span(spread)}" if spread else ""
    revision = msgspec.json.decode(body, type=RevisionAnswer).revision
    say.out.print(f"[green]{name}[/]: {escape(who)} will start again{over}; recorded as revision {revision}")
    if client is None:
        say.note(f"[dim]`journal clients {name} --behind` shows who has not been back yet[/]")


async def _call_back(
    name: str,
    client: str | None,
    collections: str | None,
    asked: dict[str, Any],
    url: str,
    by: str | None,
    *,
    yes: bool,
) -> tuple[bytes, str]:
    async with connected(url, by=by) as http:
        if client is not None:
            who, asked["client"] = client, client
            await _note_stranger(http, name, client)
        elif collections is not None:
            asked["collections"] = await _there(http, name, collections.split(","))
            who = f"whoever syncs {', '.join(asked['collections'])}"
        else:
            who = "everyone"
            stats = msgspec.json.decode(await http.get("journals", name, "stats"), type=StatsAnswer)
            over = (
                f"over {say.span(asked['spread_s'])}" if asked["spread_s"] else "all at once (--spread 5m would help)"
            )
            known = f"{say.count(stats.clients, 'client')} that {'was' if stats.clients == 1 else 'were'} seen"
            say.confirmed(
                f"Everyone in {name} starts again from a snapshot of {say.count(stats.atoms, 'atom')}:"
                f" {known}, and all that were not, {over}. Go on?",
                yes=yes,
            )
        return (await http.post("journals", name, "resync", body=asked))[1], who


async def _note_stranger(http: Http, name: str, client: str) -> None:
    try:
        await http.get("journals", name, "clients", client)
    except Refused as error:
        if error.code != "not_found":
            raise
        say.note(f"[yellow]no client {client} was seen here yet:[/] if it ever comes, it will start again")


async def _there(http: Http, name: str, collections: list[str]) -> list[str]:
    """The collections, all of which must be there: a slip of the pen would call nobody back."""
    body = await http.get("journals", name, "collections")
    known = [one.name for one in msgspec.json.decode(body, type=CollectionsAnswer).collections]
    missing = [wanted for wanted in collections if wanted not in known]
    if missing:
        there = f"There are {', '.join(known)}." if known else "There are none yet."
        raise say.Failed("no_such_collection", f"{name} has no collection {missing[0]!r}", there)
    return collections
