"""The flags and arguments that commands share: each flag that is a setting has a JOURNAL_* variable of its name."""

from pathlib import Path
from typing import Annotated

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


Name = Annotated[str, typer.Argument(help="The journal's name.", metavar="NAME", callback=_journal)]
NameOrAll = Annotated[
    str | None, typer.Argument(help="A journal's name; all of them without.", metavar="NAME", callback=_journal_or_none)
]
NameOption = Annotated[
    str | None,
    typer.Option("--journal", help="The journal to record into.", metavar="NAME", callback=_journal_or_none),
]
Collection = Annotated[str, typer.Argument(help="The atom's collection.", metavar="COLLECTION", callback=_collection)]
Atom = Annotated[str, typer.Argument(help="The atom's name in it.", metavar="ATOM", callback=_atom)]

Json = Annotated[bool, typer.Option("--json", help="Results as JSON, errors as problem+json on stderr.")]
Url = Annotated[str, typer.Option(envvar="JOURNAL_URL", help="The service to ask.", metavar="URL")]
Dsn = Annotated[
    str | None,
    typer.Option(envvar="JOURNAL_DSN", help="The PostgreSQL to use.", metavar="DSN", show_default="the embedded one"),
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
