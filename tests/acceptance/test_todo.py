"""The to-do program, as two people use it: processes of their own, side by side, with the network cut between them."""

import asyncio
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from journal.client import Replica
from tests.command import ROOT, Done, ended, environment
from tests.doors import bearer, may
from tests.harness import Harness, insert
from tests.proxy import proxied

NOWHERE = "http://127.0.0.1:1/v1/journals/j"
WAITS_S = 30.0


class List:
    """A person's list: a file, and how the journal is reached."""

    def __init__(self, file: Path, url: str) -> None:
        self.file, self.url, self.token = file, url, ""
        self.said = ""

    async def __call__(self, *words: str, url: str | None = None) -> Done:
        """A command, however it ends."""
        return await ended(await self._start(*words, url=url))

    async def told(self, *words: str) -> str:
        """What a command says that must succeed."""
        done = await self(*words)
        assert done.code == 0, done.err
        return done.out

    async def items(self) -> dict[str, str]:
        """All lines of the list, by id."""
        lines = (await self.told("list", "--all")).splitlines()[1:]
        return {line.removeprefix("✓ ").split()[0]: line for line in lines}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Watch"]:
        """A watch that runs meanwhile, and is ended by Ctrl-C."""
        process = await self._start("watch")
        try:
            yield Watch(process)
            process.send_signal(signal.SIGINT)
            assert (await ended(process)).code == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def _start(self, *words: str, url: str | None = None) -> Process:
        return await _program(
            *("examples.todo", *words),
            TODO_FILE=str(self.file), TODO_URL=url or self.url, TODO_TOKEN=self.token, PYTHONUNBUFFERED="1",
        )  # fmt: skip


class Watch:
    """What a watch says."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def says(self, pattern: str) -> None:
        """Wait for a line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAITS_S):
            while line := (await self._process.stdout.readline()).decode():
                if re.search(pattern, line):
                    return
        raise AssertionError(f"it ended without {pattern}")


async def _program(module: str, *words: str, **settings: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        cwd=ROOT,
        env=environment(**settings),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


@pytest.fixture
def laptop(service: Harness, tmp_path: Path) -> List:
    """A list that reaches the service whenever it is there."""
    return List(tmp_path / "laptop.db", f"{service.url}/v1/journals/j")


async def test_two_lists_are_one_again_when_the_network_is_back(service: Harness, laptop: List, tmp_path: Path) -> None:
    await service.pushed([insert("todo", "rings", {"title": "order sealing rings", "cost": 300, "who": "Mirjam"})])
    async with proxied(service.url) as cable:
        phone = List(tmp_path / "phone.db", f"http://127.0.0.1:{urlsplit(cable.dsn).port}/v1/journals/j")

        async with phone.watching() as at_phone, laptop.watching() as at_laptop:
            await at_phone.says("in step")
            await at_laptop.says("in step")
            await phone.told("add", "summer tyres for van 2", "--id", "tyres")
            await at_laptop.says("there  tyres  added")

            cable.refuse()
            await at_phone.says("offline")
            await phone.told("edit", "rings", "--cost", "250")
            await phone.told("edit", "tyres", "--note", "ask Hansen")
            await phone.told("add", "call back", "--id", "call")
            await laptop.told("edit", "rings", "--cost", "199.50")
            await laptop.told("done", "tyres")
            refused = await phone("sync")
            offline = await phone.items()
            await cable.accept()
            synced = await phone.told("sync")

            await at_phone.says("1 conflict to settle")
            await at_laptop.says("there  call  added")
        conflict = await phone("conflicts")
        settled = await phone.told("settle", "1", "mine")
        await phone.told("sync")
        await laptop.told("sync")

    assert refused.code == 1
    assert "does not answer" in refused.err
    assert "250" in offline["rings"]
    assert "✓" not in offline["tyres"]
    assert synced.startswith("synced")
    assert re.search(r"cost +300 +250 +199\.5", conflict.out)
    assert "settled" in settled
    assert await phone.items() == await laptop.items()
    there = {line["atom"]: line["data"] for line in (await service.snapshot())[1:-1]}
    assert there == {
        "rings": {"title": "order sealing rings", "cost": 250, "who": "Mirjam"},
        "tyres": {"title": "summer tyres for van 2", "note": "ask Hansen", "done": True},
        "call": {"title": "call back"},
    }


@pytest.mark.parametrize(("keep", "left"), [("theirs", {"a": 3}), ("mine", {"a": 2}), ("both", {"a": 3, "a-2": 2})])
async def test_a_conflict_is_settled_as_one_says(
    service: Harness, laptop: List, keep: str, left: dict[str, Any]
) -> None:
    await service.pushed([insert("todo", "a", {"title": "a", "cost": 1})])
    await laptop.told("sync")
    await laptop.told("edit", "a", "--cost", "2")
    await service.pushed([
        {"op": "update", "collection": "todo", "atom": "a", "data": {"cost": 3}, "if_data": {"title": "a", "cost": 1}}
    ])  # fmt: skip
    await laptop.told("sync")

    await laptop.told("settle", "1", keep)
    await laptop.told("sync")

    assert "no conflicts" in await laptop.told("conflicts")
    there = {line["atom"]: line["data"]["cost"] for line in (await service.snapshot())[1:-1]}
    assert there == left


async def test_a_service_that_asks_who_it_is_lets_in_a_list_with_a_token(service: Harness, laptop: List) -> None:
    person = await bearer(service, may("read", "write", journal="j", of="todo"))
    await laptop.told("add", "order sealing rings")

    refused = await laptop("sync")
    laptop.token = str(person.text)
    await laptop.told("sync")

    assert refused.code == 1
    assert "TODO_TOKEN" in refused.err
    assert (await person.call("GET", "j")).json["atoms"] == 1


async def test_everything_but_sync_works_where_there_is_no_service(tmp_path: Path) -> None:
    phone = List(tmp_path / "phone.db", NOWHERE)

    await phone.told("add", "order sealing rings", "--cost", "300", "--who", "Mirjam", "--due", "2026-03-24")
    [atom] = await phone.items()
    await phone.told("edit", atom[:4], "--cost", "88.5", "--unset", "due")
    await phone.told("add", "gone", "--id", "gone")
    await phone.told("remove", "gone")
    await phone.told("done", atom)
    listed, hidden = await phone.told("list", "--all", "--who", "Mirjam"), await phone.told("list")
    undone = await phone.told("done", atom, "--undo")
    sync, status = await phone("sync"), await phone.told("status")

    assert re.search(rf"✓ {atom} +order sealing rings +Mirjam +88\.5", listed)
    assert hidden == "nothing to do\n"
    assert "to do again" in undone
    assert (sync.code, sync.out) == (1, "")
    assert "does not answer: Connection refused" in sync.err
    assert re.search(r"to send +1 *\n", status)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["edit", "rigns", "--cost", "3"], "Did you mean rings or rings-2?"),
        (["done", "van"], "Did you mean van-1 or van-2?"),
        (["remove", "zzz"], "`list --all` has them"),
        (["edit", "rings"], "nothing to change"),
        (["edit", "rings", "--unset", "title"], "'title' cannot be taken away"),
        (["add", "again", "--id", "rings"], "`edit rings` changes it"),
        (["add", "x", "--cost", "much"], "'much' is no sum"),
        (["add", "x", "--due", "tomorrow"], "'tomorrow' is no day"),
        (["settle", "7", "mine"], "There is none at all"),
        (["settle", "7", "mien"], "'mien' is not one of 'mine', 'theirs', 'both'"),
        (["--url", "http://127.0.0.1:1/v1/journals/other", "list"], "--file names another list"),
        (["--url", "nonsense", "list"], "a journal's URL is expected"),
        (["--file", "/nowhere/at/all.db", "list"], "Is --file a list"),
        (["--file", "README.md", "list"], "Is --file a list"),
    ],
)
async def test_a_slip_is_answered_by_what_may_have_been_meant(tmp_path: Path, words: list[str], said: str) -> None:
    phone = List(tmp_path / "phone.db", NOWHERE)
    async with Replica.open(phone.file, NOWHERE) as replica:
        for atom in ("rings", "rings-2", "van-1", "van-2"):
            await replica.collection("todo").insert(atom, {"title": atom})

    done = await phone(*words)

    assert done.code in (1, 2)
    assert said in re.sub(r"[\s│]+", " ", done.err)
    async with Replica.open(phone.file, NOWHERE) as replica:
        assert await replica.collection("todo").count() == 4


async def test_a_person_cuts_the_cable_and_joins_it(service: Harness, laptop: List) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    there = str(urlsplit(service.url).port)
    cable = await _program("examples.todo.cable", "--port", str(port), "--to", there, PYTHONUNBUFFERED="1")
    assert cable.stdin is not None
    assert cable.stdout is not None
    laptop.url = f"http://127.0.0.1:{port}/v1/journals/j"

    said = [await cable.stdout.readline()]
    joined = await laptop("sync")
    cable.stdin.write(b"\n")
    said.append(await cable.stdout.readline())
    cut = await laptop("sync")
    cable.stdin.write(b"\n")
    said.append(await cable.stdout.readline())
    again = await laptop("sync")
    cable.send_signal(signal.SIGINT)

    assert [joined.code, cut.code, again.code] == [0, 1, 0]
    assert [b"is cut" in line for line in said] == [False, True, False]
    assert (await ended(cable)).code == 0
