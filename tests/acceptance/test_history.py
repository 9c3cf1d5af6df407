"""A real history: the first-parent line of a public repository, and what git itself says the tree was.

The data lies beside the project, in ../shared/data; without it there is nothing to hold the service against.
"""

import asyncio
import gzip
import itertools
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import new_database
from tests.harness import Harness, serving
from tests.postgres import Server

DATA = Path(__file__).parents[2].parent / "shared" / "data"
COMMITS = DATA / "aiohttp-history.commits.jsonl.gz"
TREES = DATA / "aiohttp-history.trees.jsonl.gz"
HEAD, PAIRS = 24_875, 66

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder shared/data is not beside the project")

Tree = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
async def history(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Harness]:
    """The service on a journal that the command line has imported the history into."""
    async with new_database(postgres, template) as dsn:
        command = [sys.executable, "-m", "journal", "import", "j", str(COMMITS), "--dsn", dsn, "--json"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=300)
        async with serving(dsn, tmp_path_factory.mktemp("history")) as service:
            yield service


@pytest.fixture(scope="module")
def trees() -> dict[int, Tree]:
    """What git says the tree was, by revision."""
    with gzip.open(TREES, "rt") as lines:
        told = [json.loads(line) for line in lines]
    return {one["revision"]: {tuple(name.split("\t")): data for name, data in one["tree"].items()} for one in told}


def applied(tree: Tree, deltas: list[dict[str, Any]]) -> Tree:
    """The tree after the deltas."""
    now = dict(tree)
    for delta in deltas:
        key = (delta["collection"], delta["atom"])
        match delta["op"]:
            case "insert" | "replace":
                now[key] = delta["data"]
            case "update":
                kept = {name: value for name, value in now[key].items() if name not in delta.get("unset", ())}
                now[key] = kept | delta.get("data", {})
            case "delete":
                now.pop(key, None)
    return now


async def test_the_whole_history_was_recorded_a_change_a_revision(history: Harness, trees: dict[int, Tree]) -> None:
    head = await history.head()

    assert head["head"] == HEAD == max(trees)
    assert head["atoms"] == len(trees[HEAD])


async def test_p3_the_tree_at_a_with_deltas_until_b_is_the_tree_at_b(history: Harness, trees: dict[int, Tree]) -> None:
    pairs = list(itertools.combinations(sorted(trees), 2))

    for a, b in pairs:
        deltas, last = await history.round(a, until=b, limit=100_000)

        told = {(delta["collection"], delta["atom"]): delta["op"] for delta in deltas}
        assert last["until"] == b
        assert len(told) == len(deltas)
        assert applied(trees[a], deltas) == trees[b]
        assert told.keys() <= trees[a].keys() | trees[b].keys()
        assert {key for key, op in told.items() if op == "insert"} == trees[b].keys() - trees[a].keys()
    assert len(pairs) == PAIRS


@pytest.mark.parametrize("way", ["whole", "paged", "ndjson"])
async def test_p5_deltas_to_the_head_lead_to_the_tree_there(history: Harness, trees: dict[int, Tree], way: str) -> None:
    for a in sorted(trees):
        match way:
            case "ndjson":
                lines = (await history.deltas(a, format="ndjson")).lines
                deltas, last = lines[1:-1], lines[-1]
                assert last["end"] is True
            case _:
                deltas, last = await history.round(a, limit=100 if way == "paged" else 100_000)

        told = {(delta["collection"], delta["atom"]): delta["op"] for delta in deltas}
        new = {key for key, op in told.items() if op in ("insert", "replace")}
        assert last["until"] == HEAD
        assert len(told) == len(deltas)
        assert applied(trees[a], deltas) == trees[HEAD]
        assert trees[HEAD].keys() - trees[a].keys() <= new
        assert {key for key, op in told.items() if op != "delete"} <= trees[HEAD].keys()


async def test_p3_pages_to_a_fixed_end_lead_to_the_tree_there(history: Harness, trees: dict[int, Tree]) -> None:
    a, b = sorted(trees)[2], sorted(trees)[-2]

    whole, _ = await history.round(a, until=b, limit=100_000)
    paged, last = await history.round(a, until=b, limit=50)

    assert last["until"] == b
    assert paged == whole


async def test_p7_the_snapshot_is_the_tree_at_the_head(history: Harness, trees: dict[int, Tree]) -> None:
    first, *atoms, last = await history.snapshot()

    assert first["revision"] == HEAD
    assert {(atom["collection"], atom["atom"]): atom["data"] for atom in atoms} == trees[HEAD]
    assert last == {"end": True, "atoms": len(trees[HEAD]), "digest": (await history.head())["digest"]}


async def test_an_atom_at_a_revision_is_what_the_tree_had(history: Harness, trees: dict[int, Tree]) -> None:
    chosen = random.Random(11).sample(
        sorted({(revision, *key) for revision, tree in trees.items() for key in tree}), 160
    )
    chosen += [(revision, *key) for revision, tree in trees.items() for key in sorted(tree) if key[0] == "."][:20]
    chosen += [(revision, *key) for revision, tree in trees.items() for key in sorted(tree) if "/" in key[1]][-20:]

    for revision, collection, atom in chosen:
        parameters = {"collection": collection, "atom": atom, "at": str(revision)}
        reply = await history.call("GET", "j/atom", params=parameters)

        assert reply.status == 200, (parameters, reply.body)
        assert reply.json["data"] == trees[revision][collection, atom]
        assert reply.json["revision"] <= revision
    assert len(chosen) == 200


async def test_an_atom_that_did_not_live_at_a_revision_is_not_found(history: Harness, trees: dict[int, Tree]) -> None:
    first = min(trees)
    absent = sorted(trees[HEAD].keys() - trees[first].keys())[:50]

    for collection, atom in absent:
        parameters = {"collection": collection, "atom": atom, "at": str(first)}
        assert (await history.call("GET", "j/atom", params=parameters)).status == 404
