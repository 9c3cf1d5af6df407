"""docs/replica.md: its pieces of code, one after the other, against a service with the sample."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.acceptance.test_readme import HERE, ROOT
from tests.acceptance.test_readme import sample as sample
from tests.harness import Harness, Json

GUIDE = (ROOT / "docs" / "replica.md").read_text()


async def run(block: str, names: Json) -> None:
    """A piece of code with `await` in it, as at asyncio's prompt."""
    compiled: CodeType = compile(block, "docs/replica.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & inspect.CO_COROUTINE:
        await FunctionType(compiled, names)()
    else:
        FunctionType(compiled, names)()


async def test_its_code_does_what_it_says(
    sample: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: Json = {}
    blocks = [block.replace(HERE, sample.url) for block in re.findall(r"^```python\n(.*?)^```", GUIDE, re.M | re.S)]

    for block in blocks:
        running = asyncio.create_task(run(block, names))
        while not running.done() and "follow(" in block:  # it tells what changes from the moment on that it begins
            head = (await sample.head("demo"))["head"]
            await sample.pushed([{"op": "insert", "collection": "todo", "atom": f"n{head}", "data": {}}], "demo")
            await asyncio.wait([running], timeout=0.1)
        await running
    await names["replica"].close()
    await asyncio.to_thread(names["script"])

    assert len(blocks) == 9
    there = {line["atom"]: line["data"] for line in (await sample.snapshot("demo"))[1:-1]}
    assert there["f426"] == {"title": "rings", "cost": 210, "done": True}
    assert there["0310"]["customer"] == "kessler"
    assert re.search(r"todo n\d+ {} False\n", capsys.readouterr().out)
