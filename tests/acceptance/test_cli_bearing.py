"""Commands that ask the service say who asks, by a token that is told nowhere."""

from pathlib import Path
from typing import Any

import pytest
import typer

from journal.cli import app
from tests.command import Done, ended, start
from tests.doors import bearer, may
from tests.harness import Harness, insert

NOBODYS = "jc_" + "x" * 43


@pytest.fixture
async def todo(service: Harness) -> Harness:
    """An atom in each of two collections."""
    await service.pushed([insert("todo", "a"), insert("visit", "b")])
    return service


async def asked(service: Harness, *words: str | Path, **settings: str) -> Done:
    """A command that asks the service."""
    return await ended(await start(*words, "--url", service.url, **settings))


async def test_a_token_is_taken_from_a_file_a_variable_or_the_command_line(todo: Harness, tmp_path: Path) -> None:
    reader = await bearer(todo, may("read", journal="j", of="todo"))
    assert reader.text is not None
    file = tmp_path / "token"
    file.write_text(f"{reader.text}\n")

    told = [
        await asked(todo, "deltas", "j", "--since", "0", "--token", reader.text),
        await asked(todo, "deltas", "j", "--since", "0", "--token-file", file, JOURNAL_TOKEN=NOBODYS),
        await asked(todo, "deltas", "j", "--since", "0", JOURNAL_TOKEN_FILE=str(file)),
        await asked(todo, "snapshot", "j", "-o", tmp_path / "s.ndjson", JOURNAL_TOKEN=reader.text),
    ]

    assert [one.code for one in told] == [0, 0, 0, 0], told
    assert all("todo" in one.out and "visit" not in one.out for one in told[:3])
    assert "visit" not in (tmp_path / "s.ndjson").read_text()


async def test_who_is_not_known_or_may_not_is_told_the_next_step(todo: Harness) -> None:
    reader = await bearer(todo, may("read", journal="j"))
    assert reader.text is not None

    nobody = await asked(todo, "status", "j")
    unknown = await asked(todo, "status", "j", "--token", NOBODYS)
    forbidden = await asked(todo, "clients", "j", JOURNAL_TOKEN=reader.text)
    status = await asked(todo, "status", "j", JOURNAL_TOKEN=reader.text)

    assert [nobody.code, unknown.code, forbidden.code, status.code] == [1, 1, 1, 0]
    assert "JOURNAL_TOKEN_FILE" in nobody.err
    assert NOBODYS not in unknown.err + unknown.out
    assert "operators" in forbidden.err
    assert "`journal token list`" in forbidden.err
    assert status.err == ""  # which PostgreSQL it is, is not for a reader, and nothing is wrong
    everything = nobody.err + forbidden.err + status.out
    assert reader.text not in everything


async def test_what_is_no_token_is_not_sent_and_not_told(todo: Harness, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("two secrets\nin one")

    wrong = await asked(todo, "status", "j", "--token-file", file)
    absent = await asked(todo, "status", "j", "--token-file", tmp_path / "none")
    two = await asked(todo, "status", "j", JOURNAL_TOKEN=NOBODYS, JOURNAL_TOKEN_FILE=str(file))

    assert wrong.code == absent.code == 1
    assert f"{file} holds no token" in wrong.err
    assert "secrets" not in wrong.err
    assert "No such file" in absent.err
    assert two.code != 0
    assert "say one of" in two.err


def test_every_command_that_asks_a_service_takes_a_token() -> None:
    commands: Any = typer.main.get_command(app)
    asks = [command for command in commands.commands.values() if any(option.name == "url" for option in command.params)]

    without = [command.name for command in asks if not {"token", "token_file"} <= {o.name for o in command.params}]

    assert len(asks) >= 18
    assert without == []
