"""The README, line by line: what it shows is what happens."""

import asyncio
import json
import re
import shlex
import shutil
import sys
from asyncio import create_subprocess_exec, timeout, to_thread
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from journal.cli.imports import record
from journal.cli.ndjson import Lines
from tests.command import environment
from tests.harness import Harness, Json, eventually, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
HERE = "http://127.0.0.1:8470"
PER_SERVER = ("epoch", "cursor")


@pytest.fixture
async def sample(database: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """A service with the sample, as `make run` loads it."""
    with (ROOT / "journal" / "sample.ndjson").open("rb") as file:
        await record(database, "demo", "ndjson", Lines(file, "the sample"))
    async with serving(database, tmp_path) as service:
        yield service


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.M | re.S)


def shown(text: str) -> Any:
    """An answer as the README shows it: as far as it is not cut at …"""
    return json.loads(re.sub(r", …}", "}", text))


def holds(is_shown: Any, answer: Any) -> bool:
    match is_shown:
        case dict():
            names = is_shown.keys() - PER_SERVER
            return all(name in answer and holds(is_shown[name], answer[name]) for name in names)
        case list():
            return len(is_shown) == len(answer) and all(map(holds, is_shown, answer))
    return bool(is_shown == answer)


async def curl(words: list[str]) -> bytes:
    """What it prints; a stream does not end by itself, and is left after a second (which curl calls 28)."""
    is_stream = any("/stream" in word for word in words)
    limit = ["--max-time", "1"] if is_stream else []
    process = await create_subprocess_exec("curl", "--silent", "--show-error", "--fail", *limit, *words, stdout=PIPE)
    async with timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == (28 if is_stream else 0), words
    return out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_curl_lines_work_as_they_stand_and_answer_what_is_shown(sample: Harness) -> None:
    commands = [line for block in blocks("sh") for line in re.findall(r"^curl .*(?:\n  .*)*", block, re.M)]
    answers = [shown(block) for block in blocks("json")]

    told = []
    for command in commands:
        assert HERE in command
        told.append(await curl(shlex.split(command.replace(HERE, sample.url))[1:]))

    assert len(commands) == 8
    assert b"event: " in told[7]
    assert [holds(*pair) for pair in zip(answers, map(json.loads, told[:4]), strict=False)] == [True] * 4


async def test_the_client_has_what_the_service_has(sample: Harness) -> None:
    code, _ = blocks("python")
    names: Json = {}
    exec(code.replace(HERE, sample.url), names)
    data: dict[tuple[str, str], Any] = {}
    late = {("todo", "gone"): {"n": 1}}

    middle = await to_thread(names["sync"], data)
    await sample.pushed([{"op": "insert", "collection": "todo", "atom": "new", "data": {"n": 1}}], "demo")
    end = await to_thread(names["sync"], data, middle)
    recovered = await to_thread(names["sync"], late, "123456789012:5:0123456789abcdef")

    snapshot = await sample.snapshot("demo")
    state = {(line["collection"], line["atom"]): line["data"] for line in snapshot[1:-1]}
    assert data == late == state
    assert end == recovered == snapshot[0]["cursor"]


async def test_the_client_to_embed_pushes_what_it_wrote_and_tells_what_happens(sample: Harness, tmp_path: Path) -> None:
    _, code = blocks("python")
    assert HERE in code
    script = await create_subprocess_exec(
        *(sys.executable, "-u", "-c", code.replace(HERE, sample.url)),
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=PIPE,
    )
    assert script.stdout is not None

    async def has_pushed() -> bool:
        reply = await sample.call("GET", "demo/atom?collection=todo&atom=f426")
        return reply.status == 200 and bool(reply.json["data"] == {"title": "rings", "cost": 210})

    try:
        await eventually(has_pushed, seconds=30)
        await sample.pushed([{"op": "insert", "collection": "visit", "atom": "0310", "data": {"who": "Aylin"}}], "demo")
        told = asyncio.create_task(script.stdout.readline())
        while not told.done():  # it tells what changes from the moment on that it begins to follow
            head = (await sample.head("demo"))["head"]
            await sample.pushed([{"op": "insert", "collection": "visit", "atom": f"n{head}", "data": {}}], "demo")
            await asyncio.wait([told], timeout=0.2)
    finally:
        script.kill()
        await script.communicate()

    assert re.match(rb"visit (0310|n\d+) {", told.result())


async def test_the_two_lists_say_what_is_shown(sample: Harness, tmp_path: Path) -> None:
    [session] = blocks("console")
    commands = re.findall(r"^\$ todo (.*)\n((?:(?!\$ ).*\n)*)", session, re.M)

    said = []
    for words, _ in commands:
        process = await create_subprocess_exec(
            *(sys.executable, "-m", "examples.todo", *shlex.split(words)),
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT), TODO_URL=f"{sample.url}/v1/journals/demo"),
            stdout=PIPE,
            stderr=STDOUT,
        )
        async with timeout(30):
            out, _ = await process.communicate()
        said.append("".join(f"{line.rstrip()}\n" for line in out.decode().splitlines()))

    assert len(commands) == 13
    assert said == [shown for _, shown in commands]


def test_its_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]

    assert targets
    assert all((ROOT / target).is_file() for target in targets)
