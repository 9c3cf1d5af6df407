"""The database of a command: named by a DSN, or the embedded one; and `journal migrate`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from journal.cli import say
from journal.cli.options import DATA, Data, Dsn, Json
from journal.errors import Unavailable
from journal.store import migrate as migrations
from journal.store.database import Database
from journal.store.embedded import running


@contextmanager
def database(context: typer.Context, dsn: str | None, data: Path) -> Iterator[str]:
    """The DSN to use; the embedded PostgreSQL runs as long as it is needed.

    Who writes --data does not mean a database that only the environment names.
    """
    names_folder = _is_on_command_line(context, "data")
    if dsn is not None and names_folder and not _is_on_command_line(context, "dsn"):
        raise typer.BadParameter("--data names the embedded PostgreSQL, but JOURNAL_DSN is set: unset it, or use --dsn")
    if dsn is None:
        with running(data) as dsn, reachable(dsn):
            yield dsn
    else:
        with reachable(dsn):
            yield dsn


@contextmanager
def reachable(dsn: str) -> Iterator[None]:
    """What keeps PostgreSQL from being used, in a line that names it."""
    try:
        yield
    except Unavailable as error:
        why = f": {error.__cause__ or 'no answer'}"
        raise say.Failed(error.code, f"{without_password(dsn)} cannot be used{why}", ADVICE) from error
    except Exception as error:
        if getattr(error, "sqlstate", None) is None:  # asyncpg's, which only the store imports
            raise
        raise say.Failed("unusable", f"{without_password(dsn)} cannot be used: {error}", ADVICE) from error


ADVICE = "Check that it runs, and what --dsn or JOURNAL_DSN says: postgresql://USER:PASSWORD@HOST:PORT/DATABASE."


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    """Connections for one command."""
    database = Database(dsn, reading=1, writing=1)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def without_password(dsn: str) -> str:
    """A DSN that can be shown."""
    place = urlsplit(dsn)
    if place.password is None:
        return dsn
    return dsn.replace(f":{place.password}@", ":***@", 1)


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def migrate(
    context: typer.Context,
    *,
    dsn: Dsn = None,
    data: Data = DATA,
    role: Annotated[
        str | None,
        typer.Option(
            "--role", metavar="ROLE", help="Give this role what the service needs, and again with each later migration."
        ),
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a database up to date. `journal serve` does it by itself; both may run beside an older service."""
    with say.told(as_json=as_json), database(context, dsn, data) as found:
        names = asyncio.run(migrations.pending(found, role=role) if is_dry else migrations.migrate(found, role=role))
    if as_json:
        say.result({"pending" if is_dry else "applied": names})
        return
    for name in names:
        say.out.print(f"[green]{'would apply' if is_dry else 'applied'}[/] {name}")
    if not names:
        say.out.print("nothing to do: the database is up to date")
