"""The operators' commands: what they ask for, what they ask before they do it, and what they say came of it."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import typer

import journal as package
from journal.cli import app
from tests.command import ROOT, Done, done, ended, environment, journal, start
from tests.harness import Harness, Json, blocked_on_lock, delete, eventually, insert, update

PHONE, TABLET = str(UUID(int=7)), str(UUID(int=8))


@pytest.fixture
async def synced(service: Harness) -> Harness:
    """Eight revisions; a phone that is at 3 and has pushed, a tablet that is at the head."""
    first = await service.pushed([insert("todo", "a"), insert("todo", "b"), insert("site", "x")], client=PHONE, push=1)
    base = f"{first['epoch']}:{first['revision']}:{first['chain']}"
    await service.pushed([update("todo", "a", {"m": 2}, unset=["n"]), delete("todo", "b")], base=base)
    await service.pushed([insert("todo", "c"), insert("todo", "a", {"mine": 1})], client=PHONE, push=2)
    await service.pushed([insert("todo", "d"), insert("todo", "e")])
    kept = update("todo", "a", {"m": 3}, unset=["x"])
    await service.pushed([kept], base=base, client=PHONE, push=3, on_conflict="both")
    await service.deltas(base, client=PHONE)
    await service.deltas((await service.head())["cursor"], client=TABLET)
    return service


async def at_terminal(answer: str, *words: str) -> Done:
    """A command whose questions are answered at a terminal."""
    outer, inner = os.openpty()
    try:
        process = await _at(inner, *words)
        os.write(outer, f"{answer}\n".encode())
        return await _told(process)
    finally:
        os.close(outer)
        os.close(inner)


async def _at(terminal: int, *words: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "journal", *words),
        stdin=terminal, stdout=PIPE, stderr=PIPE, cwd=ROOT, env=environment(), start_new_session=True,
    )  # fmt: skip


async def _told(process: Process) -> Done:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode, out.decode(), err.decode())


async def audited(service: Harness) -> list[Json]:
    found: list[Json] = (await service.call("GET", "j/audit")).json["audit"]
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("clients", "j"),
        ("clients", "j", PHONE),
        ("clients", "j", "--behind", "--limit", "1"),
        ("clients", "j", "--forget", TABLET, "--yes"),
        ("resync", "j", "--everyone", "--reason", "a test", "--yes"),
        ("resync", "j", "--collections", "todo,site", "--reason", "a test", "--spread", "5m"),
        ("digest", "j", "--of", "content", "--collections", "todo"),
        ("check", "j"),
        ("compact", "j", "--keep-revisions", "2", "--yes"),
        ("compact", "j", "--keep-days", "0.5", "--dry-run"),
        ("operations", "j"),
        ("failover",),
        ("restored", "j", "--yes"),
        ("restored", "--all", "--yes"),
        ("erase", "j", "todo", "a", "--yes"),
        ("conflicts", "j"),
        ("conflicts", "j", "--state", "all", "--client", PHONE, "--limit", "1"),
        ("conflicts", "j", "1"),
        ("settle", "j", "1", "--keep", "server", "--yes"),
        ("settle", "j", "1", "--keep", "both", "--atom", "a copy", "--yes"),
        ("audit", "j"),
        ("export", "j"),
    ],
    ids=" ".join,
)
async def test_every_command_that_operates_speaks_to_people_and_to_programs(
    synced: Harness, tmp_path: Path, words: tuple[str, ...]
) -> None:
    output = ("-o", str(tmp_path / "e.ndjson")) if words[0] == "export" else ()

    to_programs = await done(*words, *output, "--url", synced.url, "--json")
    to_people = await journal(*words, *output, "--url", synced.url)

    assert isinstance(to_programs.json, dict)
    assert to_programs.err == ""
    is_gone = "--forget" in words  # it can be forgotten only once
    assert to_people.code == is_gone
    assert (to_people.out + to_people.err).strip()
    assert "{'" not in to_people.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("clients", "j", "phone"), "no client"),
        (("clients", "j", PHONE, "--behind"), "CLIENT"),
        (("resync", "j", "--reason", "x"), "say who"),
        (("resync", "j", "--reason", "x", "--everyone", "--client", PHONE), "say who"),
        (("resync", "j", "--everyone"), "--reason"),
        (("resync", "j", "--reason", "x", "--everyone", "--spread", "soon"), "no time span"),
        (("resync", "j", "--reason", "x", "--everyone", "--spread", "25h"), "at most a day"),
        (("resync", "j", "--reason", "x", "--collections", "a,,b"), "no name of a collection"),
        (("compact", "j"), "--keep-revisions"),
        (("compact", "j", "--keep-days", "-1"), "--keep-days"),
        (("restored",), "--all"),
        (("restored", "j", "--all"), "--all"),
        (("restored", "--all", "--revision", "7"), "--revision"),
        (("digest", "j", "--of", "data"), "--of"),
        (("audit", "j", "--by", "a\nb"), "printable"),
        (("erase", "j", "todo"), "ATOM"),
        (("conflicts", "j", "first"), "no conflict"),
        (("conflicts", "j", "1", "--state", "all"), "--state"),
        (("conflicts", "j", "--state", "mine"), "--state"),
        (("settle", "j", "1"), "--keep"),
        (("settle", "j", "--keep", "server"), "ID"),
        (("settle", "j", "1", "--keep", "mine"), "--keep"),
        (("settle", "j", "1", "--keep", "both"), "--atom"),
        (("settle", "j", "1", "--keep", "client", "--atom", "x"), "--atom"),
        (("settle", "j", "1", "--keep", "both", "--atom", "x\ny"), "no name of an atom"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_slips_end_with_2_and_ask_nothing_of_the_service(words: tuple[str, ...], reason: str) -> None:
    told = await journal(*words, "--url", "http://127.0.0.1:1")

    assert told.code == 2, told.err
    assert reason in told.err


async def test_every_command_says_who_operates_and_what_it_is() -> None:
    heads: list[str] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        told = [
            await journal("check", "j", "--url", url),
            await journal("audit", "j", "--by", "Zoë", "--url", url),
            await journal("erase", "j", "todo", "a", "--yes", "--url", url, JOURNAL_BY="night shift"),
        ]

    assert all(one.code == 1 and "HTTP 500 No, not from a journal service" in one.err for one in told)
    assert all(f"User-Agent: journal/{package.__version__}\r\n" in head for head in heads)
    who = [match[1] for head in heads if (match := re.search(r"^From: (.*)\r$", head, re.M))]
    assert re.fullmatch(r"\S+@\S+", who[0])
    assert who[1:] == ["Zoë", "night shift"]


async def test_clients_tells_who_is_behind_and_what_became_of_their_pushes(synced: Harness) -> None:
    shown = await done("clients", "j", "--url", synced.url)
    behind = await done("clients", "j", "--behind", "--json", "--url", synced.url)
    one = await done("clients", "j", PHONE, "--url", synced.url)
    nobody = await journal("clients", "j", str(UUID(int=9)), "--url", synced.url)

    assert re.search(rf"{PHONE} +5 ", shown.out)
    assert TABLET in shown.out
    assert [client["client"] for client in behind.json["clients"]] == [PHONE]
    assert re.search(r"behind +5 revisions", one.out)
    assert re.search(r"^ *2 .* 200 +6 +1 applied, 1 conflict", one.out, re.M)
    assert nobody.code == 1
    assert "no client of this id" in nobody.err


async def test_clients_are_told_as_far_as_the_limit_from_as_many_pages_as_that_takes(synced: Harness) -> None:
    for number in range(20, 23):
        await synced.deltas(0, client=str(UUID(int=number)))

    two = await done("clients", "j", "--limit", "2", "--json", "--url", synced.url)
    shown = await done("clients", "j", "--limit", "2", "--url", synced.url)

    assert [client["client"] for client in two.json["clients"]] == [str(UUID(int=number)) for number in (20, 21)]
    assert two.json["more"]
    assert "--limit 4" in shown.err


async def test_forgetting_a_client_is_asked_about_and_final(synced: Harness) -> None:
    no = await at_terminal("n", "clients", "j", "--forget", PHONE, "--url", synced.url)
    yes = await at_terminal("y", "clients", "j", "--forget", PHONE, "--url", synced.url)
    refused = await synced.deltas(0, client=PHONE)

    assert (no.code, yes.code) == (1, 0)
    assert "nothing was done" in no.err
    assert "new id" in yes.err
    assert refused.status == 409


async def test_a_resync_says_whom_it_calls_back_and_why_in_the_audit_log(synced: Harness) -> None:
    await done("resync", "j", "--client", PHONE, "--reason", "it lies", "--by", "Ann", "--url", synced.url)
    wide = ("resync", "j", "--collections", "todo,site", "--spread", "2m", "--reason", "wrong sites")
    await done(*wide, "--url", synced.url)
    waiting = await done("clients", "j", "--url", synced.url)

    later, first = await audited(synced)
    assert (first["by"], first["detail"]["reason"], first["detail"]["client"]) == ("Ann", "it lies", PHONE)
    assert (later["detail"]["collections"], later["detail"]["spread_s"]) == (["site", "todo"], 120)
    assert re.search(rf"{PHONE}.*waited for", waiting.out)


async def test_a_resync_of_nobody_is_a_slip_and_not_silence(synced: Harness) -> None:
    wrong = await journal("resync", "j", "--collections", "todo,tood", "--reason", "x", "--url", synced.url)
    stranger = await done("resync", "j", "--client", str(UUID(int=99)), "--reason", "x", "--url", synced.url)

    assert wrong.code == 1
    assert "no collection 'tood'" in wrong.err
    assert "site, todo" in wrong.err
    assert "was seen here yet" in stranger.err
    assert len(await audited(synced)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("resync", "j", "--everyone", "--reason", "x"),
        ("compact", "j", "--keep-revisions", "2"),
        ("restored", "j"),
        ("restored", "--all"),
        ("erase", "j", "todo", "a"),
        ("settle", "j", "1", "--keep", "client"),
        ("clients", "j", "--forget", PHONE),
    ],
    ids=" ".join,
)
async def test_what_cannot_be_taken_back_is_never_done_without_a_yes(synced: Harness, words: tuple[str, ...]) -> None:
    before = await synced.head()

    piped = await journal(*words, "--url", synced.url, stdin=b"y\n")
    declined = await at_terminal("", *words, "--url", synced.url)
    as_json = await journal(*words, "--json", "--url", synced.url)

    assert (piped.code, declined.code, as_json.code) == (1, 1, 1)
    assert "--yes" in piped.err
    assert "[y/N]" in declined.err
    assert json.loads(as_json.err.splitlines()[-1])["code"] == "not_confirmed"
    assert await synced.head() == before
    assert await audited(synced) == []


async def test_a_question_is_ended_by_one_ctrl_c(synced: Harness) -> None:
    outer, inner = os.openpty()
    try:
        process = await _at(inner, "erase", "j", "todo", "a", "--url", synced.url)
        assert process.stderr is not None
        async with asyncio.timeout(30):
            await process.stderr.readuntil(b"[y/N]")
        process.send_signal(signal.SIGINT)
        told = await _told(process)
    finally:
        os.close(outer)
        os.close(inner)

    assert told.code == 130
    assert await audited(synced) == []


async def test_compact_shows_what_it_would_do_and_who_holds_it_back_and_asks(synced: Harness) -> None:
    dry = await done("compact", "j", "--keep-revisions", "1", "--dry-run", "--url", synced.url)
    untouched = (await synced.head())["horizon"]
    held = await at_terminal("y", "compact", "j", "--keep-revisions", "1", "--url", synced.url)
    horizon = (await synced.head())["horizon"]
    again = await done("compact", "j", "--keep-revisions", "1", "--url", synced.url)
    forced = await at_terminal("yes", "compact", "j", "--keep-revisions", "1", "--force", "--url", synced.url)

    assert "from 0 to 3, and 3 changes" in dry.err
    assert f"client {PHONE} stands at 3" in dry.err
    assert untouched == 0
    assert (held.code, horizon) == (0, 3)
    assert "the horizon is 3, it was 0" in held.out
    assert "nothing to remove" in again.err
    assert re.search(rf"cut off: 1 client;.*\n.*\n{PHONE} +3", forced.err)
    assert "the horizon is 6" in forced.out


async def test_a_compaction_that_is_no_longer_looked_at_goes_on(synced: Harness) -> None:
    holder = await asyncpg.connect(synced.dsn)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("lock table journal.kept")
    process = await start("compact", "j", "--keep-revisions", "4", "--yes", "--url", synced.url)
    await blocked_on_lock(synced.dsn)
    process.send_signal(signal.SIGINT)
    told = await ended(process)
    running = await done("operations", "j", "--json", "--url", synced.url)
    await transaction.commit()
    await holder.close()

    async def is_over() -> Any:
        return (await synced.head())["horizon"] == 3

    assert told.code == 130
    assert "journal operations j" in told.err
    assert [one["state"] for one in running.json["operations"]] == ["running"]
    await eventually(is_over)


async def test_check_names_each_fault_and_ends_with_1(synced: Harness) -> None:
    sound = await done("check", "j", "--url", synced.url)
    await synced.query("""update journal.atom set data = '{"n": 9}' where atom = 'c'""")

    told = await journal("check", "j", "--url", synced.url)
    to_programs = await journal("check", "j", "--json", "--url", synced.url)

    assert "all is as it should be: 8 changes" in sound.out
    assert (told.code, to_programs.code) == (1, 1)
    assert re.search(r"atom +todo/c +data", told.out)
    assert "1 fault" in told.err
    assert "check found something" in told.err
    [fault] = to_programs.json["result"]["faults"]
    assert fault["what"] == "atom"


async def test_an_operation_that_fails_says_why(synced: Harness) -> None:
    await synced.query("alter table journal.commit rename to elsewhere")

    told = await journal("check", "j", "--url", synced.url)

    assert told.code == 1
    assert "error: check of j: " in told.err


async def test_digest_and_audit_are_those_of_the_service(synced: Harness) -> None:
    await done("resync", "j", "--client", PHONE, "--reason", "x", "--url", synced.url)
    digest = await done("digest", "j", "--of", "content", "--json", "--url", synced.url)
    shown = await done("digest", "j", "--of", "content", "--url", synced.url)
    audit = await done("audit", "j", "--json", "--url", synced.url)

    assert digest.json == (await synced.call("GET", "j/digest?of=content")).json
    assert re.search(rf"all +5 +{digest.json['digest']}", shown.out)
    assert audit.json["audit"] == await audited(synced)


async def test_restored_begins_an_epoch_in_one_journal_or_in_all(synced: Harness) -> None:
    await synced.create("k")
    before = {name: (await synced.head(name))["epoch"] for name in ("j", "k")}

    one = await done("restored", "j", "--revision", "1000", "--yes", "--json", "--url", synced.url)
    low = await journal("restored", "j", "--revision", "999", "--yes", "--url", synced.url)
    every = await done("restored", "--all", "--spread", "1h", "--yes", "--json", "--url", synced.url)

    assert [(head["journal"], head["head"]) for head in one.json["journals"]] == [("j", 1000)]
    assert one.json["server"] is None
    assert low.code == 1
    assert "above the head, 1000" in low.err
    assert {head["journal"] for head in every.json["journals"]} == {"j", "k"}
    assert all(head["epoch"] != before[head["journal"]] for head in every.json["journals"])
    assert (await audited(synced))[0]["detail"]["spread_s"] == 3600


@pytest.fixture
async def elsewhere(synced: Harness) -> Harness:
    """A service whose PostgreSQL is not the one that was remembered."""
    await synced.query("update journal.server set system = '7000000000000000001', timeline = 9")
    return synced


async def test_another_postgresql_is_a_question_until_somebody_answers(elsewhere: Harness) -> None:
    asked = [await done("status", *name, "--url", elsewhere.url) for name in ((), ("j",))]
    to_programs = [await done("status", *name, "--json", "--url", elsewhere.url) for name in ((), ("j",))]
    no = await at_terminal("n", "failover", "--url", elsewhere.url)
    yes = await at_terminal("y", "failover", "--url", elsewhere.url)
    again = await done("failover", "--url", elsewhere.url)
    quiet = await done("status", "--url", elsewhere.url)

    for told in asked:
        assert "system identifier 7000000000000000001 then" in told.out
        assert "timeline 9 then" in told.out
        assert "`journal failover`" in told.out
        assert "`journal restored --all`" in told.out
    assert [told.json["server"]["is_other"] for told in to_programs] == [True, True]
    assert (no.code, yes.code) == (1, 0)
    assert "remembered" in yes.out
    assert "nothing to answer" in again.out
    assert "another PostgreSQL" not in quiet.out


async def test_restored_answers_the_question_once_it_is_answered_for_every_journal(elsewhere: Harness) -> None:
    async def is_asked() -> bool:
        told = await done("status", "--json", "--url", elsewhere.url)
        return bool(told.json["server"]["is_other"])

    await elsewhere.create("k")

    await done("restored", "j", "--yes", "--url", elsewhere.url)
    still = await is_asked()
    await done("restored", "--all", "--yes", "--url", elsewhere.url)

    assert still
    assert not await is_asked()


async def test_erase_shows_what_goes_and_says_who_may_hold_it(synced: Harness) -> None:
    nothing = await at_terminal("y", "erase", "j", "todo", "never", "--url", synced.url)
    told = await at_terminal("y", "erase", "j", "todo", "a", "--url", synced.url)
    history = (await synced.call("GET", "j/atom/history?collection=todo&atom=a")).json["changes"]

    assert nothing.code == 1
    assert "no such atom ever lived" in nothing.err
    assert "the data of 2 changes in j is blanked for ever" in told.err
    assert "from 2 changes and 2 kept outcomes" in told.out
    assert "1 kept conflict lost what it was about" in told.out
    assert "backups" in told.out
    assert [change.get("data") for change in history] == [None, None, None]


async def test_a_conflict_is_looked_at_and_settled_once(synced: Harness) -> None:
    change = update("todo", "a", {"m": "[bold]4"})
    base = (await synced.call("GET", "j/changes?since=0&limit=1")).json["cursor"]
    await synced.pushed([change], base=base, client=PHONE, push=4, on_conflict="both")

    listed = await done("conflicts", "j", "--url", synced.url)
    shown = await done("conflicts", "j", "1", "--url", synced.url)
    declined = await at_terminal("n", "settle", "j", "2", "--keep", "client", "--url", synced.url)
    settled = await at_terminal("y", "settle", "j", "2", "--keep", "client", "--by", "ada", "--url", synced.url)
    again = await done("settle", "j", "2", "--keep", "client", "--url", synced.url)
    other = await journal("settle", "j", "2", "--keep", "server", "--url", synced.url)
    left = await done("conflicts", "j", "--json", "--url", synced.url)

    assert [line.split()[0] for line in listed.out.splitlines()] == ["id", "2", "1"]
    assert "[bold]4" in listed.out
    for fact in ("todo a", PHONE, "push 3", '{"m": 3}', "−x", "revision 4"):
        assert fact in shown.out
    assert (declined.code, "[bold]4" in declined.err) == (1, True)
    assert settled.code == 0
    assert settled.out == again.out
    assert "settled otherwise" in other.err
    assert [one["id"] for one in left.json["conflicts"]] == ["1"]
    assert [(deed["by"], deed["action"]) for deed in await audited(synced)] == [("ada", "settle")]


RUNBOOK = (ROOT / "docs" / "operations.md").read_text()


def test_the_runbook_names_only_commands_and_options_that_there_are() -> None:
    options = {
        name: {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        for name, command in _commands(typer.main.get_command(app))
    }
    pieces = re.findall(r"`(journal [a-z][^`]*)`", RUNBOOK) + re.findall(r"^(journal [a-z].*)$", RUNBOOK, re.M)

    for piece in pieces:
        words = re.split(r" [|#] ", re.sub(r'"[^"]*"', "TEXT", piece))[0].split()
        name = _named(words, options)
        assert name in options, piece
        assert {word for word in words if word.startswith("--")} <= options[name], piece
    assert len(pieces) > 30
    told = {_named(piece.split(), options) for piece in pieces}
    assert options.keys() - told <= {"token", "create", "snapshot", "import-git"}


def _commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """All commands by name, those of groups within as `GROUP NAME`."""
    for name, command in group.commands.items():
        yield above + name, command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} ")


def _named(words: list[str], known: Container[str]) -> str:
    """The command that a line names."""
    both = " ".join(words[1:3])
    return both if both in known else words[1]


def test_the_runbook_leads_where_it_says() -> None:
    headings = re.findall(r"^## (.*)$", RUNBOOK, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]*)\)", RUNBOOK)) <= anchors
