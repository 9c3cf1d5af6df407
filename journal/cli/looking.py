"""`journal digest` and `journal audit`: what a journal comes to, and what operators did to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
import typer
from rich.text import Text

from journal.cli import say
from journal.cli.options import URL, By, Collections, Json, Name, Url
from journal.cli.service import connected
from journal.client.http import Refused
from journal.wire import AuditAnswer, AuditEntry, DigestAnswer

PAGE = 1000
PATIENCE_S, AGAIN_S = 300.0, 2.0


def digest(
    name: Name,
    *,
    prefix: Annotated[str, typer.Option(help="Only below this place, hex digits.", metavar="HEX")] = "",
    of: Annotated[
        Literal["revision", "content"], typer.Option(help="Over the atoms' revisions, or over their data.")
    ] = "revision",
    collections: Collections = None,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """How many atoms there are and their digest, for the whole and for each sixteenth: what a client compares."""

    async def ask() -> bytes:
        query = {"prefix": prefix or None, "of": of, "collections": collections}
        async with connected(url, by=by) as http:
            return await _patiently(lambda: http.get("journals", name, "digest", **query))

    with say.told(as_json=as_json):
        body = asyncio.run(ask())
    if as_json:
        say.result(body)
        return
    told = msgspec.json.decode(body, type=DigestAnswer)
    table = say.table("place", "atoms", "digest", right=("atoms",))
    table.add_row(f"[bold]{told.prefix or 'all'}[/]", f"[bold]{told.count}[/]", f"[bold]{told.digest}[/]")
    for place, below in sorted(told.children.items()):
        table.add_row(place, str(below.count), below.digest)
    say.show(table)
    say.note(f"[dim]of {of}, at revision {told.revision} of epoch {told.epoch}; --prefix goes down[/]")


async def _patiently(ask: Callable[[], Awaitable[bytes]]) -> bytes:
    """The answer; of many atoms the first takes a while, in which the service says that it is not there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await ask()
        except Refused as error:
            if error.status != 503 or time.monotonic() > deadline:
                raise
            await asyncio.sleep(AGAIN_S)


def audit(
    name: Name,
    *,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1)] = 100,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """What operators did to a journal, newest first."""
    with say.told(as_json=as_json):
        told = asyncio.run(_deeds(name, limit, url, by))
    if as_json:
        say.result(told)
        return
    table = say.table("at", "by", "action", "detail")
    for deed in told.audit:
        table.add_row(say.moment(deed.at), Text(deed.by), deed.action, Text(_detail(deed)))
    if told.audit:
        say.show(table)
    else:
        say.out.print("nothing: no operator has done anything here")
    if told.more:
        say.note(f"[dim]there are older ones: --limit {limit * 2}[/]")


async def _deeds(name: str, limit: int, url: str, by: str | None) -> AuditAnswer:
    found: list[AuditEntry] = []
    after: int | None = None
    async with connected(url, by=by) as http:
        while True:
            most = min(PAGE, limit - len(found))
            body = await http.get("journals", name, "audit", after=after, limit=most)
            page = msgspec.json.decode(body, type=AuditAnswer)
            found += page.audit
            if not page.more or len(found) >= limit:
                return AuditAnswer(found, page.more, page.next)
            after = page.next


def _detail(deed: AuditEntry) -> str:
    told = msgspec.json.decode(deed.detail)
    return ", ".join(f"{name} {_plain(value)}" for name, value in told.items())


def _plain(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(_plain, value))
    return msgspec.json.encode(value).decode()
