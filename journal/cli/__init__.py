"""The command line: one file a group of commands. What goes wrong ends in cli/say.py."""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

import journal
from journal.cli import (
    asking,
    clients,
    conflicts,
    database,
    deltas,
    export,
    imports,
    looking,
    operations,
    recovery,
    say,
    serve,
    server,
    snapshot,
    tokens,
)
from journal.cli.service import asking as with_token

app = typer.Typer(
    name="journal",
    help="A change journal and sync service on PostgreSQL: everything since revision N, exact.",
    epilog=say.EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
SERVICE, ASKING, OPERATING, RECORDING = "The service", "Ask a running service", "Operate", "Record a history"


def _tell_version(is_asked: bool) -> None:  # noqa: FBT001 — typer calls it
    if is_asked:
        say.out.print(f"journal {journal.__version__}")
        raise typer.Exit


@app.callback()
def _journal(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Tell the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None: ...


app.command(rich_help_panel=SERVICE)(serve.serve)
app.command(rich_help_panel=SERVICE)(database.migrate)
app.command(rich_help_panel=ASKING)(with_token(asking.create))
app.command(rich_help_panel=ASKING)(with_token(asking.status))
app.command(rich_help_panel=ASKING)(with_token(deltas.deltas))
app.command(rich_help_panel=ASKING)(with_token(asking.history))
app.command(rich_help_panel=ASKING)(with_token(snapshot.snapshot))
app.command(rich_help_panel=OPERATING)(with_token(clients.clients))
app.command(rich_help_panel=OPERATING)(with_token(clients.resync))
app.command(rich_help_panel=OPERATING)(with_token(conflicts.conflicts))
app.command(rich_help_panel=OPERATING)(with_token(conflicts.settle))
app.command(rich_help_panel=OPERATING)(with_token(looking.digest))
app.command(rich_help_panel=OPERATING)(with_token(operations.check))
app.command(rich_help_panel=OPERATING)(with_token(operations.compact))
app.command(rich_help_panel=OPERATING)(with_token(operations.operations))
app.command(rich_help_panel=OPERATING)(with_token(server.failover))
app.command(rich_help_panel=OPERATING)(with_token(recovery.restored))
app.command(rich_help_panel=OPERATING)(with_token(recovery.erase))
app.command(rich_help_panel=OPERATING)(with_token(looking.audit))
app.command(rich_help_panel=OPERATING)(with_token(export.export))
app.add_typer(tokens.app, name="token", rich_help_panel=OPERATING)
app.command("import", rich_help_panel=RECORDING)(imports.import_)
app.command("import-git", rich_help_panel=RECORDING)(imports.import_git)


def main() -> None:
    """Run the command that was asked for."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _terminated)
    app()


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # through every `finally`, so that the embedded PostgreSQL is stopped
