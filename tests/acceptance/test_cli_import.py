"""Histories from elsewhere: recorded once, whole, in their order and with their times, whatever stops an import."""

import asyncio
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import zstandard

from journal.cli.git import named
from tests.command import done, environment, journal, start
from tests.harness import Harness, Json, eventually, insert


def a_history(commits: int) -> list[str]:
    """Lines of the import form: ten atoms that come, change, lose a field, are replaced and go, again and again."""
    lines = []
    for number in range(commits):
        change: Json = {"collection": "todo", "atom": f"a{number % 10}"}
        match number // 10 % 4:
            case 0:
                change |= {"op": "insert", "data": {"n": number, "note": "new"}}
            case 1:
                change |= {"op": "update", "data": {"n": number}, "unset": ["note"]}
            case 2:
                change |= {"op": "replace", "data": {"m": number}}
            case 3:
                change |= {"op": "delete"}
        at = f"2026-03-02T08:{number // 60 % 60:02}:{number % 60:02}Z"
        lines.append(json.dumps({"at": at, "changes": [change, insert("log", f"{number}")]}))
    return lines


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


async def recorded(dsn: str, name: str) -> list[tuple[int, int, str]]:
    """Of each commit the number of its push, its last revision, and the chain there."""
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[Any] = await connection.fetch(
            "select c.push, c.revision, encode(c.chain, 'hex') from journal.commit c"
            " join journal.journal j on j.id = c.journal_id where j.name = $1 order by c.revision",
            name,
        )
        return [tuple(row) for row in rows]
    finally:
        await connection.close()


def numbers(commits: list[tuple[int, int, str]]) -> list[int]:
    return [push for push, _, _ in commits]


async def test_an_import_keeps_the_order_and_the_times_and_says_what_it_came_to(
    service: Harness, tmp_path: Path
) -> None:
    file = written(tmp_path / "h.ndjson", a_history(35))

    said = await done("import", "h", file, "--dsn", service.dsn, "--json")
    deltas, _ = await service.round(0, "h", include="meta")

    assert said.json == {"journal": "h", "skipped": 0, "commits": 35, "changes": 70, "head": 70}
    assert [(push, revision) for push, revision, _ in await recorded(service.dsn, "h")] == [
        (number, 2 * number) for number in range(1, 36)
    ]
    times = [delta["at"] for delta in deltas if delta["collection"] == "log"]
    assert times == [f"2026-03-02T08:00:{second:02}.000000Z" for second in range(35)]


async def test_a_second_import_records_nothing_and_a_longer_file_what_is_new(database: str, tmp_path: Path) -> None:
    lines = a_history(30)
    file = written(tmp_path / "h.ndjson", lines[:20])

    first = await done("import", "h", file, "--dsn", database, "--json")
    again = await done("import", "h", file, "--dsn", database, "--json")
    longer = await done("import", "h", written(file, lines), "--dsn", database, "--json")

    assert (first.json["commits"], again.json["commits"], longer.json["commits"]) == (20, 0, 10)
    assert numbers(await recorded(database, "h")) == list(range(1, 31))


async def test_an_import_that_was_killed_goes_on_where_it_was(database: str, tmp_path: Path) -> None:
    file = written(tmp_path / "h.ndjson", a_history(8000))
    process = await start("import", "h", file, "--dsn", database)

    await eventually(lambda: recorded(database, "h"))
    process.kill()
    await process.communicate()
    there = await recorded(database, "h")
    went_on = await done("import", "h", file, "--dsn", database, "--json")
    await done("import", "whole", file, "--dsn", database)

    assert 0 < len(there) < 8000
    assert went_on.json["skipped"] == len(there)
    assert went_on.json["commits"] == 8000 - len(there)
    assert await recorded(database, "h") == await recorded(database, "whole")


async def test_two_imports_of_one_file_at_once_record_it_once(database: str, tmp_path: Path) -> None:
    file = written(tmp_path / "h.ndjson", a_history(3000))

    said = await asyncio.gather(*(done("import", "h", file, "--dsn", database, "--json") for _ in range(2)))

    assert sum(result.json["commits"] for result in said) == 3000
    assert numbers(await recorded(database, "h")) == list(range(1, 3001))


WRONG = {
    "malformed JSON": '{"at": "2026-03-02T08:00:00Z", "changes": [',
    "no such atom": '{"at": "2026-03-02T08:00:00Z", "changes": [{"op": "insert", "collection": "a", "atom": "b",'
    ' "data": {}}, {"op": "update", "collection": "a", "atom": "c", "data": {"n": 1}}]}',
}


@pytest.mark.parametrize("reason", WRONG)
async def test_a_line_that_makes_no_sense_is_named_and_once_it_is_mended_the_import_goes_on_there(
    database: str, tmp_path: Path, reason: str
) -> None:
    lines = a_history(30)
    file = written(tmp_path / "h.ndjson", [*lines[:20], WRONG[reason], *lines[20:]])

    refused = await journal("import", "h", file, "--dsn", database)
    there = await recorded(database, "h")
    mended = await done("import", "h", written(file, lines), "--dsn", database, "--json")

    assert refused.code == 1
    assert refused.err.startswith("error: line 21: ")
    assert reason in refused.err
    assert numbers(there) == list(range(1, 21))
    assert mended.json["commits"] == 10
    assert numbers(await recorded(database, "h")) == list(range(1, 31))


async def test_another_file_that_begins_alike_is_refused(database: str, tmp_path: Path) -> None:
    lines = a_history(20)
    await done("import", "h", written(tmp_path / "h.ndjson", lines), "--dsn", database)
    altered = written(tmp_path / "altered.ndjson", [*lines[:10], *reversed(lines[10:])])

    other = await journal("import", "h", altered, "--dsn", database)
    shorter = await journal("import", "h", written(tmp_path / "s.ndjson", lines[:5]), "--dsn", database, "--json")

    assert (other.code, shorter.code) == (1, 1)
    assert "another history" in other.err
    assert json.loads(shorter.err)["code"] == "another_history"
    assert len(await recorded(database, "h")) == 20


async def test_a_file_may_be_packed_or_come_through_a_pipe_but_not_be_cut_off(database: str, tmp_path: Path) -> None:
    text = "\n".join(a_history(20)).encode()
    (tmp_path / "h.gz").write_bytes(gzip.compress(text[:500]) + gzip.compress(text[500:]))
    (tmp_path / "h.zst").write_bytes(zstandard.compress(text))
    (tmp_path / "cut.zst").write_bytes(zstandard.compress(text)[:-20])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(text)[:-20])

    whole = [
        await done("import", "gz", tmp_path / "h.gz", "--dsn", database, "--json"),
        await done("import", "zst", tmp_path / "h.zst", "--dsn", database, "--json"),
        await done("import", "pipe", "-", "--dsn", database, "--json", stdin=text),
    ]
    cut = [await journal("import", "cut", tmp_path / name, "--dsn", database) for name in ("cut.zst", "cut.gz")]

    assert [told.json["head"] for told in whole] == [40, 40, 40]
    assert [told.code for told in cut] == [1, 1]
    assert all("cut off" in told.err for told in cut)


async def test_a_running_service_notices_an_import(service: Harness, tmp_path: Path) -> None:
    await service.create("h")
    waiting = asyncio.create_task(service.deltas(0, "h", wait=30))

    await done("import", "h", written(tmp_path / "h.ndjson", a_history(20)), "--dsn", service.dsn)
    answer = await waiting

    assert answer.json["until"] == 40
    assert (await service.head("h"))["head"] == 40


class Repository:
    """A git repository whose commits have times of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = 1_700_000_000
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> str:
        who = {f"GIT_{role}_{what}": "t@e" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        when = {"GIT_AUTHOR_DATE": f"{self.clock} +0000", "GIT_COMMITTER_DATE": f"{self.clock} +0000"}
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        settings = environment(**who, **when, **alone)
        command = ["git", *words]
        return subprocess.run(command, cwd=self.path, env=settings, check=True, capture_output=True, text=True).stdout

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def commit(self, message: str) -> None:
        self.clock += 60
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def files(self) -> dict[tuple[str, str], Json]:
        """What git itself says is in HEAD."""
        told = {}
        for line in self.git("ls-tree", "-r", "-l", "-z", "HEAD").split("\0")[:-1]:
            facts, _, path = line.partition("\t")
            mode, _, blob, size = facts.split()
            folder, slash, rest = path.partition("/")
            told[(folder, rest) if slash else (".", path)] = {"mode": mode, "blob": blob, "size": int(size)}
        return told


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Subfolders, a merge, a commit that only makes a file executable, one without files, a delete, a move, a link."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    made = Repository(tmp_path / "My Project.x")
    made.write("README", "read me")
    made.write("src/a.py", "a")
    made.write("src/deep/er/b.py", "b")
    made.commit("begin")
    made.git("checkout", "--quiet", "-b", "side")
    made.write("src/side.py", "one")
    made.commit("side 1")
    made.write("src/side.py", "two")
    made.write("docs/ü — x", "x")
    made.commit("side 2")
    made.git("checkout", "--quiet", "main")
    (made.path / "src/a.py").chmod(0o755)
    made.commit("executable")
    made.clock += 60
    made.git("merge", "--quiet", "--no-ff", "--message", "merge", "side")
    made.commit("nothing")
    made.git("rm", "--quiet", "README")
    made.git("mv", "src/deep/er/b.py", "src/c.py")
    made.commit("away")
    (made.path / "src/link").symlink_to("c.py")
    made.commit("link")
    return made


async def state(service: Harness, name: str) -> dict[tuple[str, str], Json]:
    deltas, _ = await service.round(0, name)
    return {(delta["collection"], delta["atom"]): delta["data"] for delta in deltas}


async def test_a_repository_becomes_a_journal_that_stands_where_its_head_does(
    service: Harness, repository: Repository
) -> None:
    said = await done("import-git", repository.path, "--dsn", service.dsn, "--json")
    name = said.json["journal"]
    commits = (await service.call("GET", f"{name}/changes", params={"since": "0"})).json["commits"]

    assert name == "my-project-x"
    assert await state(service, name) == repository.files()
    assert [commit["push"] for commit in commits] == [1, 2, 3, 5, 6]  # the fourth changed no file
    assert [len(commit["changes"]) for commit in commits] == [3, 1, 2, 3, 1]
    assert commits[1]["changes"][0]["data"] == {"mode": "100755"}
    assert [commit["at"][11:19] for commit in commits] == ["22:14:20", "22:17:20", "22:18:20", "22:20:20", "22:21:20"]


async def test_later_commits_of_a_repository_are_recorded_later(service: Harness, repository: Repository) -> None:
    first = await done("import-git", repository.path, "--dsn", service.dsn, "--json")
    again = await done("import-git", repository.path / "src", "--dsn", service.dsn, "--json")
    repository.write("src/a.py", "another")
    repository.commit("more")
    later = await done("import-git", repository.path, "--dsn", service.dsn, "--json")

    assert [told.json["commits"] for told in (first, again, later)] == [5, 0, 1]
    assert await state(service, "my-project-x") == repository.files()


async def test_a_repository_whose_past_was_rewritten_is_refused(database: str, repository: Repository) -> None:
    await done("import-git", repository.path, "--journal", "j", "--dsn", database)
    repository.clock += 60
    repository.git("commit", "--quiet", "--amend", "--message", "amended")

    refused = await journal("import-git", repository.path, "--journal", "j", "--dsn", database)

    assert refused.code == 1
    assert "another history" in refused.err


async def test_what_is_no_whole_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    repository.git("init", "--quiet", str(tmp_path / "empty"))
    repository.git("clone", "--quiet", "--depth", "1", f"file://{repository.path}", str(tmp_path / "shallow"))

    said = {name: await journal("import-git", tmp_path / name) for name in ("plain", "empty", "shallow", "none")}

    assert {told.code for told in said.values()} == {1}
    assert "not a git repository" in said["plain"].err
    assert "no commits yet" in said["empty"].err
    assert "shallow" in said["shallow"].err
    assert "no folder" in said["none"].err


def test_every_path_has_a_name_of_its_own() -> None:
    long = "f/" + "x" * 300
    paths = ["a/b,c", "a,b/c", "a%2Cb/c", "a/%0A", "a/\n", "a/100%", "a", "a/b/c", long, long + "y"]

    names = [named(path.encode()) for path in paths] + [named(b"a/\xff"), named(b"a/%FF")]

    assert len({(collection, atom) for collection, atom, _ in names}) == len(names)
    assert names[:3] == [("a", "b,c", None), ("a%2Cb", "c", None), ("a%252Cb", "c", None)]
    assert names[5:8] == [("a", "100%", None), (".", "a", None), ("a", "b/c", None)]
    assert names[8][2] == long
    assert all(len(atom.encode()) <= 255 for _, atom, _ in names)
