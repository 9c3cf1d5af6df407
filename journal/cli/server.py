"""Which PostgreSQL the service runs on, and `journal failover`: one answer where it is another than it was.

The rule: it is a question, which `journal status` asks; nothing is done until somebody answers.
"""

import asyncio

import msgspec
from rich.markup import escape

from journal.cli import say
from journal.cli.options import URL, By, Json, Url, Yes
from journal.cli.service import connected
from journal.client.http import Http
from journal.wire import ServerAnswer

UNTOLD = "[dim]this PostgreSQL does not say which it is: it cannot be told from another here[/]"


def failover(*, yes: Yes = False, by: By = None, url: Url = URL, as_json: Json = False) -> None:
    """It was a failover and nothing is lost: remember the PostgreSQL that the service runs on now.

    Shows which it is, and which was remembered. Changes nothing for clients.
    """
    with say.told(as_json=as_json):
        told = asyncio.run(_failover(url, by, yes=yes, as_json=as_json))
    if as_json:
        say.result(told)


async def _failover(url: str, by: str | None, *, yes: bool, as_json: bool) -> ServerAnswer:
    async with connected(url, by=by) as http:
        told = await current(http)
        if told.system is None:
            raise say.Failed(
                "not_told",
                "this PostgreSQL does not say which it is, so it cannot be told from another",
                "After a failover that lost nothing there is nothing to do; after any other: `journal restored --all`.",
            )
        if not told.is_other and told.remembered is not None:
            if not as_json:
                say.out.print(f"nothing to answer: it is the PostgreSQL that is remembered ({_named(told)})")
            return told
        say.note("\n".join(difference(told)))
        say.confirmed(
            "Did the new one have everything that the old one had confirmed? If not, or if you do not know, it is"
            " `journal restored --all`. Remember it as the same?",
            yes=yes,
        )
        now = await remembered(http)
        if now is None:
            raise say.Failed("read_only", "this PostgreSQL is a standby that only reads: promote it first")
    if not as_json:
        say.out.print(f"[green]remembered[/]: {_named(now)}")
    return now


async def current(http: Http) -> ServerAnswer:
    """Which PostgreSQL it is."""
    return msgspec.json.decode(await http.get("server"), type=ServerAnswer)


async def remembered(http: Http) -> ServerAnswer | None:
    """The server, remembered as it is now; None where it cannot be: a standby, or one that does not say which it is."""
    told = await current(http)
    if told.system is None or told.timeline is None:
        return None
    body = (await http.put("server", body={"system": told.system, "timeline": told.timeline}))[1]
    return msgspec.json.decode(body, type=ServerAnswer)


def difference(told: ServerAnswer) -> list[str]:
    """What of the PostgreSQL is another than what was remembered, in lines."""
    then = told.remembered
    if then is None:
        return [f"no PostgreSQL is remembered yet; this one is {_named(told)}"]
    lines = [f"This is another PostgreSQL than the one that was remembered on {say.moment(then.at)}:"]
    if then.system != told.system:
        lines.append(f"  system identifier {then.system} then, {told.system} now")
    if then.timeline != told.timeline:
        lines.append(f"  timeline {then.timeline} then, {told.timeline} now")
    return lines


def question(told: ServerAnswer) -> str:
    """What an operator is asked when it is another one. Markup is understood."""
    lines = difference(told)
    return "\n".join(
        [
            f"[yellow]{escape(lines[0])}[/]",
            *lines[1:],
            "  Nothing was done about it. What happened?",
            "  a failover, and nothing is lost                `journal failover`",
            "  restored from a backup, or a copy of another   `journal restored --all`",
            "  docs/operations.md says how to tell.",
        ]
    )


def _named(told: ServerAnswer) -> str:
    return f"system {told.system}, timeline {told.timeline}, PostgreSQL {told.postgresql}"
