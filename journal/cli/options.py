"""The flags and arguments that commands share: each flag that is a setting has a JOURNAL_* variable of its name."""

import re
import socket
from getpass import getuser
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from journal.core.names import atom_ok, collection_ok, journal_ok


def _journal(name: str) -> str:
    if not journal_ok(name):
        raise typer.BadParameter(f"{name!r} is no name of a journal: 1–63 of a-z 0-9 _ -, a letter or digit first")
    return name


def _journal_or_none(name: str | None) -> str | None:
    return None if name is None else _journal(name)


def _collection(name: str) -> str:
    if not collection_ok(name):
        raise typer.BadParameter("is no name of a collection: 1–128 bytes, no comma or control character")
    return name


def _atom(name: str) -> str:
    if not atom_ok(name):
        raise typer.BadParameter("is no name of an atom: 1–255 bytes, no control character")
    return name


def _atom_or_none(name: str | None) -> str | None:
    return None if name is None else _atom(name)


def _collections(names: str | None) -> str | None:
    return None if names is None else ",".join(map(_collection, names.split(",")))


def _client(text: str | None) -> str | None:
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no client: its id is a UUID, as `journal clients NAME` shows it"
        ) from None


def _operator(name: str | None) -> str:
    if name is None:
        return f"{_user()}@{socket.gethostname()}"
    if not (name.isprintable() and 0 < len(name.strip()) <= OPERATOR_LENGTH):
        raise typer.BadParameter(f"must be 1–{OPERATOR_LENGTH} printable characters")
    return name


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "somebody"


def seconds(text: str) -> int:
    """A time span as people write it: 90, 90s, 5m, 2h."""
    match = _SPAN.fullmatch(str(text).strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time span: 90, 90s, 5m and 2h are")
    value = int(match[1]) * _UNIT_S[match[2] or "s"]
    if value > LONGEST_SPREAD_S:
        raise typer.BadParameter("must be at most a day (24h)")
    return value


OPERATOR_LENGTH = 200
LONGEST_SPREAD_S = 86_400
_SPAN = re.compile(r"([0-9]{1,6})\s*([smh]?)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}

Name = Annotated[str, typer.Argument(help="The journal's name.", metavar="NAME", callback=_journal)]
NameOrAll = Annotated[
    str | None, typer.Argument(help="A journal's name; all of them without.", metavar="NAME", callback=_journal_or_none)
]
NameOrNone = Annotated[str | None, typer.Argument(help="A journal's name.", metavar="NAME", callback=_journal_or_none)]
NameOption = Annotated[
    str | None,
    typer.Option("--journal", help="The journal to record into.", metavar="NAME", callback=_journal_or_none),
]
Collection = Annotated[str, typer.Argument(help="The atom's collection.", metavar="COLLECTION", callback=_collection)]
Atom = Annotated[str, typer.Argument(help="The atom's name in it.", metavar="ATOM", callback=_atom)]
AtomOption = Annotated[
    str | None,
    typer.Option("--atom", help="The name of the copy.", metavar="ATOM", callback=_atom_or_none),
]
Collections = Annotated[
    str | None, typer.Option("--collections", help="Only these.", metavar="A,B", callback=_collections)
]
Client = Annotated[str | None, typer.Argument(help="A client's id.", metavar="CLIENT", callback=_client)]
ClientOption = Annotated[str | None, typer.Option("--client", help="Only this client.", metavar="ID", callback=_client)]
Forget = Annotated[
    str | None,
    typer.Option("--forget", help="Forget a client: it must take a new id.", metavar="ID", callback=_client),
]
Spread = Annotated[
    int,
    typer.Option("--spread", help="Over how long clients come back: 90, 90s, 5m, 2h.", metavar="TIME", parser=seconds),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        envvar="JOURNAL_BY",
        help="Who operates, for the audit log.",
        metavar="NAME",
        show_default="USER@HOST",
        callback=_operator,
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Results as JSON, errors as problem+json on stderr.")]
Url = Annotated[str, typer.Option(envvar="JOURNAL_URL", help="The service to ask.", metavar="URL")]
Dsn = Annotated[
    str | None,
    typer.Option(envvar="JOURNAL_DSN", help="The PostgreSQL to use.", metavar="DSN", show_default="the embedded one"),
]
ListenDsn = Annotated[
    str | None,
    typer.Option(
        envvar="JOURNAL_LISTEN_DSN",
        help="PostgreSQL itself, where --dsn leads to a pooler in transaction mode (PgBouncer).",
        metavar="DSN",
        show_default="as --dsn",
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        envvar="JOURNAL_DATA",
        help="The folder of the embedded PostgreSQL, and of the service's spool.",
        metavar="FOLDER",
        file_okay=False,
    ),
]

URL = "http://127.0.0.1:8470"
DATA = Path("journal-data")
