"""`journal token`: it makes, lists, changes and revokes tokens where the database is, and a running service follows."""

import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import typer

from journal.cli.tokens import expiry
from journal.store import doors
from tests.acceptance.test_cli_operators import at_terminal
from tests.command import Done, done, journal
from tests.doors import Bearer, bearer, database_of, may
from tests.harness import Harness, Json, eventually, insert

FOR_DEMO = ("--journal", "j", "--can", "read,write")
WRITER = may("read", "write", journal="j")


async def token(service: Harness, *words: str, **settings: str) -> Done:
    """A command on the service's database."""
    return await done("token", *words, "--dsn", service.dsn, **settings)


async def made(service: Harness, *words: str) -> Json:
    """A new token, as a program is told of it."""
    return (await token(service, "create", "--json", *words)).json


async def refused(service: Harness, *words: str) -> Done:
    """A command that must not succeed."""
    told = await journal("token", *words, "--dsn", service.dsn)
    assert told.code != 0
    return told


async def status_with(service: Harness, secret: str | None, path: str = "j") -> int:
    """What the service answers to who bears a secret."""
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return (await service.call("GET", path, headers=headers)).status


async def answers(service: Harness, secret: str | None, status: int) -> None:
    """Wait until the service answers so, for a second at most."""

    async def does() -> bool:
        return await status_with(service, secret) == status

    await eventually(does, seconds=1.5)


async def test_a_token_is_told_once_alone_on_standard_output_and_kept_as_a_hash(service: Harness) -> None:
    told = await token(service, "create", "--name", "phone", *FOR_DEMO, "--collections", "todo,budget", "--by", "ops")

    secret = told.out.removesuffix("\n")
    assert secret.startswith("jc_")
    assert secret.isprintable()
    assert secret not in told.err
    assert "token 1, phone: read and write j (budget, todo)" in told.err
    assert "JOURNAL_TOKEN_FILE" in told.err
    (row,) = await service.query("select hash, name, created_by, expires_at - created_at as kept from journal.token")
    assert (row["hash"], row["name"], row["created_by"]) == (sha256(secret.encode()).digest(), "phone", "ops")
    assert timedelta(days=364) < row["kept"] < timedelta(days=366)
    listed = await token(service, "list")
    assert secret not in listed.out
    assert "phone" in listed.out


async def test_a_running_service_is_closed_by_the_first_token_and_lets_in_who_has_it(service: Harness) -> None:
    assert await status_with(service, None) == 200

    phone = await made(service, "--name", "phone", *FOR_DEMO)

    await answers(service, phone["token"], 200)
    assert await status_with(service, None) == 401
    assert await status_with(service, phone["token"], "other") == 404
    assert phone["grants"] == [{"journal": "j", "can": ["read", "write"], "collections": None}]


async def test_an_operators_token_is_apart(service: Harness) -> None:
    whole = await made(service, "--name", "ops", "--operator", "--expires", "never")
    one = await made(service, "--name", "ops of j", "--journal", "j", "--can", "operate", "--expires", "12h")

    assert whole["token"].startswith("jo_")
    assert one["token"].startswith("jo_")
    assert whole["expires_at"] is None
    assert whole["grants"] == [{"journal": "*", "can": ["operate"], "collections": None}]
    await answers(service, whole["token"], 200)
    assert await status_with(service, whole["token"], "/v1/server") == 200
    assert await status_with(service, one["token"], "j/audit") == 200
    assert await status_with(service, one["token"], "/v1/server") == 403


async def test_the_list_says_what_each_may_and_when_it_was_used(service: Harness) -> None:
    first = await bearer(service, WRITER, may("read", "write", journal="other"), name="first")
    second = await bearer(service, may("read", journal="*"), name="second", ends_in_s=86_400)
    await answers(service, first.text, 200)
    await service.service.access.flush()
    await doors.revoke(database_of(service), second.number, by="ops")

    rows: Any = (await token(service, "list", "--json")).json
    told = (await token(service, "list")).out

    assert [row["name"] for row in rows] == ["second", "first"]
    assert rows[0]["grants"] == [{"journal": "*", "can": ["read"], "collections": None}]
    assert (rows[0]["created_by"], rows[0]["revoked_by"]) == ("a test", "ops")
    assert rows[0]["expires_at"] > rows[0]["revoked_at"]
    assert rows[0]["used_at"] is None
    assert [grant["journal"] for grant in rows[1]["grants"]] == ["j", "other"]
    assert rows[1]["used_at"] is not None
    assert "read all journals" in told
    assert "read and write j; read and write other" in told
    assert "revoked" in told
    assert re.search(r"\d+ s ago", told)


async def test_who_revokes_is_asked_and_within_a_second_nobody_is_let_in(service: Harness) -> None:
    phone = await bearer(service, WRITER, name="phone")
    await answers(service, phone.text, 200)
    asked = await refused(service, "revoke", "1")
    declined = await at_terminal("n", "token", "revoke", "1", "--dsn", service.dsn)
    assert (asked.code, declined.code) == (1, 1)
    assert "--yes" in asked.err
    assert await status_with(service, phone.text) == 200

    told = await token(service, "revoke", "1", "--yes")

    await answers(service, phone.text, 401)
    assert "revoked token 1, phone" in told.out
    again = await refused(service, "revoke", "1", "--yes")
    assert "was revoked on" in again.err
    assert "there is no token 9" in (await refused(service, "revoke", "9", "--yes")).err


async def test_another_secret_takes_the_place_of_the_one_before_and_it_stays_the_same_caller(service: Harness) -> None:
    phone = await bearer(service, WRITER, ends_in_s=3600)
    client = "6f1c0000-0000-4000-8000-000000000001"
    push = {"client": client, "push": 1, "changes": [insert("todo", "a")]}
    assert (await phone.call("POST", "j/changes", json=push)).status == 200
    (before,) = await service.query("select expires_at from journal.token")

    told = await token(service, "rotate", "1", "--yes")

    secret = told.out.strip()
    await answers(service, phone.text, 401)
    replay = await Bearer(service, secret).call("POST", "j/changes", json=push)
    assert (replay.status, replay.json["replayed"]) == (200, True)
    assert await service.query("select expires_at from journal.token") == [before]


async def test_a_rotated_token_may_be_given_another_end_and_one_that_expired_needs_it(service: Harness) -> None:
    await bearer(service, WRITER, ends_in_s=-3600)

    late = await refused(service, "rotate", "1", "--yes")
    told = (await token(service, "rotate", "1", "--yes", "--expires", "never", "--json")).json

    assert "--expires" in late.err
    assert told["expires_at"] is None
    await answers(service, told["token"], 200)


async def test_a_grant_replaces_what_a_token_may_do_with_one_journal(service: Harness) -> None:
    phone = await bearer(service, WRITER, may("read", "write", journal="other"))

    told = await token(service, "grant", "1", "--journal", "j", "--can", "read", "--collections", "todo")

    assert "may now read and write other; read j (todo)" in told.out

    async def is_read_only() -> bool:
        caller = await phone.call("GET", "/v1/caller")
        return {"journal": "j", "can": ["read"], "collections": ["todo"]} in caller.json["grants"]

    await eventually(is_read_only, seconds=1.5)
    taken = (await token(service, "grant", "1", "--journal", "j", "--can", "none", "--json")).json
    assert taken["grants"] == [{"journal": "other", "can": ["read", "write"], "collections": None}]
    await answers(service, phone.text, 404)


async def test_who_grants_at_the_same_time_takes_nothing_back(service: Harness) -> None:
    """Each reads what a token may do, and writes it with a part of it replaced."""
    await bearer(service, WRITER)
    database = database_of(service)
    (before,) = await doors.every(database)
    more = (*before.grants, may("read", journal="other"))

    assert await doors.grant(database, 1, more, was=before.grants)
    assert not await doors.grant(database, 1, (), was=before.grants)

    await token(service, "grant", "1", "--journal", "j", "--can", "read")
    (row,) = await doors.every(database)
    assert row.grants == (may("read", journal="other"), may("read", journal="j"))


async def test_what_makes_no_sense_of_a_grant_is_refused(service: Harness) -> None:
    await bearer(service, WRITER)
    await bearer(service, may("operate", journal="*"))

    last = await refused(service, "grant", "1", "--journal", "j", "--can", "none")
    absent = await refused(service, "grant", "1", "--journal", "other", "--can", "none")
    operating = await refused(service, "grant", "1", "--journal", "j", "--can", "operate")
    writing = await refused(service, "grant", "2", "--journal", "j", "--can", "read,write")

    assert "`journal token revoke 1` ends it" in last.err
    assert "was not given other" in absent.err
    assert "operators have tokens of their own" in operating.err
    assert "operators have tokens of their own" in writing.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--journal", "j"], "say what it is for"),
        (["--can", "read"], "say what it is for"),
        (["--operator", "--can", "read"], "goes without"),
        (["--journal", "J!", "--can", "read"], "no name of a journal"),
        (["--journal", "j", "--journal", "j", "--can", "read"], "said twice"),
        (["--journal", "j", "--can", "read,read"], "said twice"),
        (["--journal", "j", "--can", "raed"], "no permission"),
        (["--journal", "j", "--can", "write"], "write needs read"),
        (["--journal", "j", "--can", "read,write,operate"], "tokens of their own"),
        (["--journal", "j", "--can", "operate", "--collections", "a"], "as a whole"),
        (["--journal", "j", "--can", "read", "--collections", "a,,b"], "no name of a collection"),
        (["--journal", "j", "--can", "read", "--collections", "a,a"], "said twice"),
        ([*FOR_DEMO, "--expires", "soon"], "is no time"),
        ([*FOR_DEMO, "--expires", "2020-01-01"], "begun already"),
        ([*FOR_DEMO, "--name", " "], "printable"),
    ],
)
async def test_a_slip_is_told_and_makes_no_token(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _in_this_process("token", "create", "--name", "phone", *words, "--dsn", "postgresql://127.0.0.1:1/never")

    assert ended.value.code == 2
    assert why in " ".join(capsys.readouterr().err.replace("│", " ").split())


def _in_this_process(*words: str) -> None:
    """A command that does not get as far as a database."""
    from journal.cli import app

    app(list(words), standalone_mode=True)


def test_an_end_is_a_span_a_day_or_none() -> None:
    now = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

    assert expiry("90d", now=now) == datetime(2027, 2, 19, 9, 30, tzinfo=UTC)
    assert expiry("12h", now=now) == datetime(2026, 11, 21, 21, 30, tzinfo=UTC)
    assert expiry("2026-12-31", now=now) == datetime(2026, 12, 31, tzinfo=UTC)
    assert expiry("never", now=now) is None
    for text in ("0d", "99999d", "2026-02-30", "2026-11-21", "-1d", "1", ""):
        with pytest.raises(typer.BadParameter):
            expiry(text, now=now)


async def test_a_database_without_the_tables_is_told_of_and_left_alone(empty_database: str) -> None:
    told = await journal("token", "list", "--dsn", empty_database)

    assert told.code == 1
    assert "`journal migrate`" in told.err
