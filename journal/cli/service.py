"""The service that a command asks, with the token that it is asked with.

The rule: the token comes from a file, a variable or the command line, goes to the service alone, and is told nowhere.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from journal.cli import say
from journal.client import http
from journal.client.bearer import Bearer
from journal.client.http import Http

FILE_BYTES = 64 * 1024
_ASKED_WITH: ContextVar[str | None] = ContextVar("journal_token", default=None)

Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="JOURNAL_TOKEN",
        help="Who asks. On the command line everybody on the machine sees it (ps): better the variable, or the file.",
        metavar="TOKEN",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", envvar="JOURNAL_TOKEN_FILE", help="The same from a file.", metavar="FILE", dir_okay=False
    ),
]
_OPTIONS = [
    inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
    inspect.Parameter("token", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Token),
    inspect.Parameter("token_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=TokenFile),
]


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """A command that asks the service, with --token and --token-file."""

    @wraps(command)
    def with_token(*, context: typer.Context, token: str | None, token_file: Path | None, **given: Any) -> None:
        with say.told(as_json=bool(given.get("as_json"))):
            _ASKED_WITH.set(_chosen(context, token, token_file))
        command(**given)

    known = inspect.signature(command)
    *others, last = known.parameters.values()  # --json is the last of all
    with_token.__signature__ = known.replace(parameters=[*others, *_OPTIONS, last])  # type: ignore[attr-defined]
    with_token.__annotations__ = command.__annotations__ | {one.name: one.annotation for one in _OPTIONS}
    return with_token


def connected(url: str, *, is_raw: bool = False, by: str | None = None) -> AbstractAsyncContextManager[Http]:
    """The service at `url`, as http.connected has it, asked with the command's token."""
    return http.connected(url, is_raw=is_raw, by=by, bearer=Bearer(_ASKED_WITH.get()))


def _chosen(context: typer.Context, token: str | None, file: Path | None) -> str | None:
    """The token that was meant: what the command line says goes before what the environment does."""
    if token is not None and file is not None:
        on_line = {name for name in ("token", "token_file") if _is_on_command_line(context, name)}
        if len(on_line) != 1:
            raise typer.BadParameter("say one of --token (JOURNAL_TOKEN) and --token-file (JOURNAL_TOKEN_FILE)")
        token, file = (token, None) if "token" in on_line else (None, file)
    if file is not None:
        with file.open("rb") as opened:
            token = opened.read(FILE_BYTES).decode("ascii", "replace").strip()
    if token is not None:
        try:
            Bearer(token)
        except ValueError as error:
            where = "JOURNAL_TOKEN" if file is None else str(file)
            raise say.Failed("token", f"{where} holds no token: {error}") from None
    return token


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
