"""Exports: what an import makes of one has the same state, and as far as the record reaches the same changes."""

import gzip
import json
from pathlib import Path
from uuid import UUID

import pytest
import zstandard

from tests.acceptance.test_cli import SAMPLE, cut_off
from tests.command import done, journal
from tests.harness import Harness, Json, delete, insert, put, update


async def content(service: Harness, name: str) -> tuple[int, str]:
    """How many atoms a journal has, and the digest of their data."""
    told = (await service.call("GET", f"{name}/digest?of=content")).json
    return told["count"], told["digest"]


def read(file: Path) -> list[Json]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


async def exported(service: Harness, file: Path, name: str = "j") -> Json:
    """What an export came to; the file is imported into the journal `again`."""
    told = await done("export", name, "-o", file, "--json", "--url", service.url)
    assert told.err == ""
    await done("import", "again", file, "--dsn", service.dsn)
    return told.json


async def test_the_sample_comes_through_as_it_is(service: Harness, tmp_path: Path) -> None:
    await done("import", "sample", SAMPLE, "--dsn", service.dsn)

    told = await exported(service, tmp_path / "e.ndjson", "sample")

    before, _ = await service.round(0, "sample", include="meta,revisions")
    after, _ = await service.round(0, "again", include="meta,revisions")
    assert [one | {"by": None} for one in after] == [one | {"by": None} for one in before]
    assert await content(service, "again") == await content(service, "sample")
    assert (told["form"], told["changes"]) == ("record", 98)


@pytest.fixture
async def eventful(service: Harness) -> Harness:
    """A journal with every operation, floors, an atom that was erased, and one of its name that lives."""
    numbers = '{"n": 1.50, "large": 9007199254740991, "text": "\\u00e9\\n\\u2028 \\"quoted\\""}'
    await service.pushed([insert("todo", "a", json.loads(numbers)), insert("todo", "gone"), insert("site", "é")])
    head = (await service.head())["cursor"]
    await service.pushed(
        [
            update("todo", "a", {"m": {"deep": [1, None]}}, unset=["n"]),
            put("todo", "gone", {"secret": 1, "other": 2}),
        ],
        base=head,
    )
    head = (await service.head())["cursor"]
    await service.pushed([update("todo", "gone", unset=["other"]), delete("site", "é")], base=head)
    await done("resync", "j", "--everyone", "--reason", "a floor", "--yes", "--url", service.url)
    await done("erase", "j", "todo", "gone", "--yes", "--url", service.url)
    await service.pushed([insert("todo", "gone", {"back": True}), insert("todo", "last")])
    head = (await service.head())["cursor"]
    await service.pushed([update("todo", "gone", unset=["back"]), put("todo", "last", {"new": 1})], base=head)
    await done("resync", "j", "--client", UUID(int=1).hex, "--reason", "the newest is a floor", "--url", service.url)
    return service


async def test_an_import_of_an_export_has_the_same_state(eventful: Harness, tmp_path: Path) -> None:
    file = tmp_path / "e.ndjson"

    told = await exported(eventful, file)

    changes = [change for commit in read(file) for change in commit["changes"]]
    assert await content(eventful, "again") == await content(eventful, "j")
    assert {change["op"] for change in changes} == {"insert", "update", "put", "delete"}
    assert all(commit["changes"] for commit in read(file))
    assert b"secret" not in file.read_bytes()
    assert told["changes"] == len(changes) == (await eventful.head("again"))["head"]
    assert told["revision"] == (await eventful.head())["head"]


async def test_a_later_export_goes_on_where_an_earlier_one_ended(eventful: Harness, tmp_path: Path) -> None:
    first, second = tmp_path / "1.ndjson", tmp_path / "2.ndjson"
    await exported(eventful, first)
    await eventful.pushed([insert("todo", "later")])

    await done("export", "j", "-o", second, "--url", eventful.url)
    went_on = await done("import", "again", second, "--dsn", eventful.dsn, "--json")

    assert second.read_bytes().startswith(first.read_bytes())
    assert went_on.json["changes"] == 1
    assert await content(eventful, "again") == await content(eventful, "j")


async def test_a_journal_whose_beginning_is_gone_is_exported_as_it_is(eventful: Harness, tmp_path: Path) -> None:
    file = tmp_path / "e.ndjson"
    for number in range(3):
        await eventful.pushed([insert("many", f"{number}-{n}") for n in range(900)])
    await done("compact", "j", "--keep-revisions", "100", "--yes", "--url", eventful.url)

    told = await done("export", "j", "-o", file, "--url", eventful.url)
    await done("import", "again", file, "--dsn", eventful.dsn)

    sizes = [len(commit["changes"]) for commit in read(file)]
    assert "record begins at revision" in told.err
    assert "the state at revision" in told.out
    assert sizes == [1000, 1000, 703]
    assert {change["op"] for commit in read(file) for change in commit["changes"]} == {"insert"}
    assert await content(eventful, "again") == await content(eventful, "j")


async def test_a_restored_journal_and_an_empty_one_can_be_exported(eventful: Harness, tmp_path: Path) -> None:
    await done("restored", "j", "--yes", "--url", eventful.url)
    await eventful.create("empty")

    restored = await done("export", "j", "-o", tmp_path / "r", "--json", "--url", eventful.url)
    empty = await done("export", "empty", "-o", tmp_path / "e", "--json", "--url", eventful.url)

    assert (restored.json["form"], restored.json["changes"]) == ("state", 3)
    assert (empty.json["form"], empty.json["changes"], (tmp_path / "e").read_bytes()) == ("record", 0, b"")


async def test_an_export_may_be_packed_or_piped(eventful: Harness, tmp_path: Path) -> None:
    plain, packed, gzipped = tmp_path / "e.ndjson", tmp_path / "e.ndjson.zst", tmp_path / "e.ndjson.gz"
    for file in (plain, packed, gzipped):
        await done("export", "j", "-o", file, "--url", eventful.url)
    piped = await done("export", "j", "-o", "-", "--url", eventful.url)

    with packed.open("rb") as opened:
        assert zstandard.ZstdDecompressor().stream_reader(opened).read() == plain.read_bytes()
    assert gzip.decompress(gzipped.read_bytes()) == plain.read_bytes()
    assert piped.out.encode() == plain.read_bytes()
    assert [path.name for path in tmp_path.glob("*.part")] == []


async def test_an_export_gets_here_whole_over_a_line_that_breaks(service: Harness, tmp_path: Path) -> None:
    file = tmp_path / "e.ndjson"
    for number in range(6):
        await service.pushed([insert("todo", f"{number}-{n}", {"n": f"{n:064x}"}) for n in range(1000)])

    async with cut_off(service.url, after=10_000) as (cutter, url):
        await done("export", "j", "-o", file, "--url", url)

    assert len(cutter.sent) > 2
    assert [len(commit["changes"]) for commit in read(file)] == [1000] * 6


async def test_an_export_that_fails_leaves_the_file_as_it_was(service: Harness, tmp_path: Path) -> None:
    file = tmp_path / "e.ndjson"
    file.write_text("the one of last night\n")

    told = await journal("export", "nope", "-o", file, "--url", service.url)

    assert told.code == 1
    assert "no journal of this name" in told.err
    assert file.read_text() == "the one of last night\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["e.ndjson"]
