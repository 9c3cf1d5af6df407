"""`journal token`: making, listing, changing and revoking tokens, where the database is.

The rule: never over HTTP. Whoever has the database makes tokens; an operator's token that was stolen makes no others.
A secret is told once, alone on standard output; all the rest is told beside it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.markup import escape
from rich.text import Text

from journal.cli import say
from journal.cli.database import database, opened
from journal.cli.options import DATA, By, Data, Dsn, Json, Yes
from journal.core.grants import EVERY, PERMISSIONS, Grant, Permission, faults_of
from journal.core.names import collection_ok, journal_ok
from journal.service.access import new_token
from journal.store import doors, heads, migrate
from journal.store.database import Database
from journal.store.doors import TokenRow
from journal.wire import rfc3339

T = TypeVar("T")
TABLES = "migrations/0004_doors.sql"
NAME_LENGTH = 100
NEVER = "never"
NONE = "none"
TRIES = 5
LONGEST_DAYS = 36_500
_SPAN = re.compile(r"([0-9]{1,6})\s*([hd])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
ADVICE = (
    "[dim]It is shown this once. Keep it where only its user reads it: a file named by JOURNAL_TOKEN_FILE or"
    " --token-file, or the variable JOURNAL_TOKEN; on a command line everybody on the machine sees it. It is sent as"
    " Authorization: Bearer TOKEN.[/]"
)

app = typer.Typer(
    help="Make, list, change and revoke tokens.",
    epilog=(
        "They work on the database itself, not over HTTP: whoever has the database makes tokens, and an operator's"
        " token that was stolen makes no others. A running service learns of it within a second."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _name(name: str) -> str:
    if not (name.isprintable() and 0 < len(name.strip()) <= NAME_LENGTH):
        raise typer.BadParameter(f"must be 1–{NAME_LENGTH} printable characters")
    return name.strip()


def _journal(name: str) -> str:
    if name != EVERY and not journal_ok(name):
        raise typer.BadParameter(
            f"{name!r} is no name of a journal: 1–63 of a-z 0-9 _ -, a letter or digit first; '*' is all of them"
        )
    return name


def _journals(names: list[str] | None) -> list[str]:
    return _once(list(map(_journal, names or ())))


def _can(text: str) -> frozenset[Permission]:
    said = _once([word.strip() for word in text.split(",")])
    known: dict[str, Permission] = {name: name for name in PERMISSIONS}
    for word in said:
        if word not in known:
            raise typer.BadParameter(f"{word!r} is no permission: {', '.join(PERMISSIONS)} are")
    return frozenset(known[word] for word in said)


def _can_or_none(text: str) -> frozenset[Permission]:
    return frozenset() if text.strip() == NONE else _can(text)


def _collections(names: str | None) -> frozenset[str] | None:
    if names is None:
        return None
    said = _once(names.split(","))
    for name in said:
        if not collection_ok(name):
            raise typer.BadParameter(f"{name!r} is no name of a collection: 1–128 bytes, no comma or control character")
    return frozenset(said)


def _once(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise typer.BadParameter(f"{name!r} is said twice")
    return names


def expiry(text: str, *, now: datetime | None = None) -> datetime | None:
    """When something expires that is said to: 90d, 12h, 2026-12-31 (as that day begins, UTC); None for `never`."""
    said, now = text.strip(), now or datetime.now(UTC)
    if said == NEVER:
        return None
    if match := _SPAN.fullmatch(said):
        span = timedelta(**{"hours" if match[2] == "h" else "days": int(match[1])})
        if not timedelta(0) < span <= timedelta(days=LONGEST_DAYS):
            raise typer.BadParameter(f"must be between an hour and {LONGEST_DAYS}d, or {NEVER}")
        return now + span
    try:
        day = datetime.strptime(said, "%Y-%m-%d").replace(tzinfo=UTC) if _DAY.fullmatch(said) else None
    except ValueError:
        day = None
    if day is None:
        raise typer.BadParameter(f"{said!r} is no time: 90d, 12h, 2026-12-31 and {NEVER} are")
    if day <= now:
        raise typer.BadParameter(f"{said} has begun already (UTC)")
    return day


Number = Annotated[int, typer.Argument(help="The token's number, as `journal token list` shows it.", min=1, max=2**31)]
Expires = Annotated[
    str,
    typer.Option("--expires", help="90d, 12h, a day (2026-12-31: as it begins, UTC), or never.", metavar="TIME"),
]
CollectionsOption = Annotated[
    str | None,
    typer.Option("--collections", help="Only these; all of them without.", metavar="A,B"),
]


@app.command()
def create(
    context: typer.Context,
    *,
    name: Annotated[
        str, typer.Option("--name", help="Whose it is: a device, a program, a person.", metavar="NAME", callback=_name)
    ],
    journals: Annotated[
        list[str] | None,
        typer.Option("--journal", help="For this journal; may be repeated. '*': for all.", metavar="NAME"),
    ] = None,
    can: Annotated[
        str | None,
        typer.Option("--can", help="read; read,write; or operate, for an operator of that journal.", metavar="A,B"),
    ] = None,
    collections: CollectionsOption = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="An operator of the whole service: operate, for all journals.")
    ] = False,
    expires: Expires = "365d",
    by: By = None,
    dsn: Dsn = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Make a token. It is shown this once: only a hash of it is kept.

    The token goes to standard output, alone on a line; what it may do is told beside it.

    Works on the database itself, not over HTTP. With the first token the service is open to nobody without one.
    """
    grants = _asked(journals, can, collections, is_operators=operator)
    until = _valued("--expires", expires, expiry)
    assert by is not None  # options.By puts the user's name
    text, hash_ = new_token(is_operators=_is_operators(grants))

    async def make(database: Database) -> tuple[int, list[str]]:
        absent = [
            one.journal
            for one in grants
            if one.journal != EVERY and await heads.head_by_name(database, one.journal) is None
        ]
        return await doors.make(database, hash_, name, grants, by=by, expires_at=until), absent

    with say.told(as_json=as_json):
        number, absent = _run(context, dsn, data, make)
    told = _Told(number, name, text, grants, until)
    if not as_json:
        say.note(f"[green]made[/] token {number}, {escape(name)}: {escape(_said(grants))}; {_until(until)}")
        for journal in absent:
            say.note(f"[yellow]there is no journal {journal} yet:[/] an operator's `journal create {journal}` makes it")
    _show(told, as_json=as_json)


@app.command("list")
def list_(context: typer.Context, *, dsn: Dsn = None, data: Data = DATA, as_json: Json = False) -> None:
    """Which tokens there are, the newest first: what each may do, until when, and when it was last used.

    When a token was last used is written down about once a minute. Secrets are not shown: only hashes are kept.
    """
    with say.told(as_json=as_json):
        found = _run(context, dsn, data, doors.every)
    if as_json:
        say.result([_listed(row) for row in found])
        return
    table = say.table("id", "name", "created", "expires", "last used", "state", "may", right=("id",))
    now = datetime.now(UTC)
    for row in found:
        expires = "never" if row.expires_at is None else _minute(row.expires_at)
        used = "never" if row.used_at is None else f"{say.span(max((now - row.used_at).total_seconds(), 0))} ago"
        table.add_row(
            str(row.id),
            Text(row.name),
            _minute(row.created_at),
            expires,
            used,
            _state(row, now),
            Text(_said(row.grants)),
        )
    if found:
        say.show(table)
    else:
        say.out.print("none: without one the service lets everybody do everything, and is for this machine only")


@app.command()
def revoke(
    context: typer.Context,
    number: Number,
    *,
    yes: Yes = False,
    by: By = None,
    dsn: Dsn = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Revoke a token: within a second nobody is let in by it, and its streams end. It cannot be taken back."""
    assert by is not None

    async def work(database: Database) -> TokenRow:
        row = await _in_force(database, number)
        say.confirmed(
            f"Token {number}, {escape(row.name)}, which may {escape(_said(row.grants))}, is revoked for ever. Go on?",
            yes=yes,
        )
        if not await doors.revoke(database, number, by=by):
            raise await _gone(database, number)
        return row

    with say.told(as_json=as_json):
        row = _run(context, dsn, data, work)
    if as_json:
        say.result({"revoked": number})
    else:
        say.out.print(f"[green]revoked[/] token {number}, {escape(row.name)}")


@app.command()
def grant(
    context: typer.Context,
    number: Number,
    *,
    journal: Annotated[
        str, typer.Option("--journal", help="Which journal; '*': all.", metavar="NAME", callback=_journal)
    ],
    can: Annotated[
        str, typer.Option("--can", help="read; read,write; operate; none takes the journal away.", metavar="A,B")
    ],
    collections: CollectionsOption = None,
    dsn: Dsn = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Say anew what a token may do with a journal; what it may do with others stays.

    Clients learn of it within a second: what they may not read any more they let go of, what is new they fetch.
    """
    allowed, names = _valued("--can", can, _can_or_none), _named(collections)
    if not allowed and names is not None:
        raise typer.BadParameter("--can none takes the journal away: it goes without --collections")
    new = Grant(journal, allowed, names)
    if allowed:
        _sensible([new])

    async def work(database: Database) -> tuple[TokenRow, tuple[Grant, ...]]:
        for _ in range(TRIES):  # whoever grants at the same time goes first
            row = await _in_force(database, number)
            grants = _replaced(row, new)
            if await doors.grant(database, number, grants, was=row.grants):
                return row, grants
        raise say.Failed("busy", f"somebody else changes token {number} all the time", "Run the same again.")

    with say.told(as_json=as_json):
        row, grants = _run(context, dsn, data, work)
    if as_json:
        say.result({"id": number, "name": row.name, "grants": _plain(grants)})
    else:
        say.out.print(f"[green]granted[/] token {number}, {escape(row.name)}, may now {escape(_said(grants))}")


@app.command()
def rotate(
    context: typer.Context,
    number: Number,
    *,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", help="90d, 12h, a day (2026-12-31), or never.", metavar="TIME", show_default="as it was"
        ),
    ] = None,
    yes: Yes = False,
    dsn: Dsn = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Give a token another secret, shown this once; within a second the one before lets nobody in.

    It stays the same token: its clients keep their ids, and what waits in them is sent once they have the new secret.
    """
    until = None if expires is None else _valued("--expires", expires, expiry)

    async def work(database: Database) -> "_Told":
        row = await _in_force(database, number)
        ends = row.expires_at if expires is None else until
        if ends is not None and ends <= datetime.now(UTC):
            raise say.Failed("expired", f"token {number} expired on {_minute(ends)}", "--expires gives it a new end.")
        say.confirmed(
            f"Token {number}, {escape(row.name)}, gets another secret: the one before lets nobody in any more. Go on?",
            yes=yes,
        )
        text, hash_ = new_token(is_operators=_is_operators(row.grants))
        if not await doors.rotate(database, number, hash_, ends):
            raise await _gone(database, number)
        return _Told(number, row.name, text, row.grants, ends)

    with say.told(as_json=as_json):
        told = _run(context, dsn, data, work)
    if not as_json:
        say.note(f"[green]rotated[/] token {number}, {escape(told.name)}; {_until(told.expires_at)}")
    _show(told, as_json=as_json)


class _Told(msgspec.Struct, frozen=True):
    """A token with its secret, as it is told once."""

    id: int
    name: str
    token: str
    grants: tuple[Grant, ...]
    expires_at: datetime | None


def _run(context: typer.Context, dsn: str | None, data: Path, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something with the database, which must have the tables of tokens."""

    async def run(found: str) -> T:
        if TABLES in await migrate.pending(found):
            raise say.Failed(
                "migration_pending",
                "the database has no tokens yet: it is not up to date",
                "`journal migrate` makes it so.",
            )
        async with opened(found) as connected:
            return await work(connected)

    with database(context, dsn, data) as found:
        return asyncio.run(run(found))


def _asked(
    journals: list[str] | None, can: str | None, collections: str | None, *, is_operators: bool
) -> tuple[Grant, ...]:
    """What a new token is to be allowed."""
    names, only = _valued("--journal", journals, _journals), _named(collections)
    if is_operators:
        if names or can is not None or only is not None:
            raise typer.BadParameter("--operator says it all: it goes without --journal, --can and --collections")
        return (Grant(EVERY, frozenset[Permission](("operate",))),)
    if not names or can is None:
        raise typer.BadParameter(
            "say what it is for: --journal NAME (or '*') with --can read or read,write; or --operator"
        )
    allowed = _valued("--can", can, _can)
    return _sensible([Grant(name, allowed, only) for name in names])


def _valued(option: str, said: str | list[str] | None, read: Callable[..., T]) -> T:
    """A value as it was read; what is wrong with it is told with the option's name."""
    try:
        return read(said)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{option}: {error.message}") from None


def _named(collections: str | None) -> frozenset[str] | None:
    return _valued("--collections", collections, _collections)


def _sensible(grants: list[Grant]) -> tuple[Grant, ...]:
    faults = list(dict.fromkeys(fault for one in grants for fault in faults_of(one)))
    if faults:
        raise typer.BadParameter("; ".join(faults))
    return tuple(grants)


def _replaced(row: TokenRow, new: Grant) -> tuple[Grant, ...]:
    """A token's grants with another for a journal, or without it where it allows nothing."""
    others = tuple(one for one in row.grants if one.journal != new.journal)
    if not new.can:
        if len(others) == len(row.grants):
            raise say.Failed(
                "nothing_to_take", f"token {row.id} was not given {_where(new.journal)}: it may {_said(row.grants)}"
            )
        if not others:
            raise say.Failed(
                "nothing_left",
                "that would leave it nothing that it may do",
                f"`journal token revoke {row.id}` ends it.",
            )
        return others
    if _is_operators((new,)) != _is_operators(row.grants):
        kind = "an operator's" if _is_operators(row.grants) else "a client's"
        raise say.Failed(
            "other_kind", f"token {row.id} is {kind}: operators have tokens of their own",
            "`journal token create` makes another.",
        )  # fmt: skip
    return (*others, new)


async def _in_force(database: Database, number: int) -> TokenRow:
    for row in await doors.every(database):
        if row.id == number and row.revoked_at is None:
            return row
    raise await _gone(database, number)


async def _gone(database: Database, number: int) -> say.Failed:
    """Why a token cannot be changed."""
    for row in await doors.every(database):
        if row.id == number and row.revoked_at is not None:
            when, who = _minute(row.revoked_at), row.revoked_by
            return say.Failed("revoked", f"token {number} was revoked on {when} by {who}")
    return say.Failed("token_not_found", f"there is no token {number}", "`journal token list` shows those there are.")


def _show(told: _Told, *, as_json: bool) -> None:
    """The secret, alone on a line of standard output."""
    if as_json:
        expires_at = None if told.expires_at is None else rfc3339(told.expires_at)
        secret = {"id": told.id, "name": told.name, "token": told.token}
        say.result(secret | {"grants": _plain(told.grants), "expires_at": expires_at})
        return
    say.out.print(told.token, markup=False, soft_wrap=True)
    say.note(ADVICE)


def _is_operators(grants: Iterable[Grant]) -> bool:
    return any("operate" in one.can for one in grants)


def _said(grants: Iterable[Grant]) -> str:
    """What grants allow, in words."""
    return "; ".join(
        f"{_permissions(one)} {_where(one.journal)}"
        + ("" if one.collections is None else f" ({', '.join(sorted(one.collections))})")
        for one in grants
    )


def _permissions(grant: Grant) -> str:
    return " and ".join(name for name in PERMISSIONS if name in grant.can)


def _where(journal: str) -> str:
    return "all journals" if journal == EVERY else journal


def _until(moment: datetime | None) -> str:
    return "it has no end" if moment is None else f"until {_minute(moment)} UTC"


def _state(row: TokenRow, now: datetime) -> Text:
    if row.revoked_at is not None:
        return Text(f"revoked {_minute(row.revoked_at)}", "red")
    if row.expires_at is not None and row.expires_at <= now:
        return Text("expired", "yellow")
    return Text("in force", "green")


def _listed(row: TokenRow) -> dict[str, object]:
    at = {
        name: None if moment is None else rfc3339(moment)
        for name, moment in (
            ("created_at", row.created_at), ("expires_at", row.expires_at), ("used_at", row.used_at),
            ("revoked_at", row.revoked_at),
        )
    }  # fmt: skip
    who = {"created_by": row.created_by, "revoked_by": row.revoked_by}
    return {"id": row.id, "name": row.name, "grants": _plain(row.grants)} | at | who


def _plain(grants: Iterable[Grant]) -> list[dict[str, object]]:
    return [
        {
            "journal": one.journal,
            "can": [name for name in PERMISSIONS if name in one.can],
            "collections": None if one.collections is None else sorted(one.collections),
        }
        for one in grants
    ]


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
