"""Section 8 from a client's side: what differs is found at the real service, and costs what differs (P11)."""

import asyncio
import json
from pathlib import Path

import pytest

from journal.client.calls import Journal
from journal.client.descent import Index, Of, differing
from journal.client.http import Http, Refused, Unreachable, connected
from journal.core import digest
from tests.harness import Harness, Json, delete, insert, update

Key = tuple[str, str]
ATOMS = 3000
KINDS: list[Of] = ["content", "revision"]


class Counted(Http):
    """The calls of a client, with what came back counted."""

    requests = 0
    answered_bytes = 0

    async def get(self, *path: str, **parameters: str | float | None) -> bytes:
        body = await super().get(*path, **parameters)
        self.requests += 1
        self.answered_bytes += len(body)
        return body


async def filled(service: Harness) -> None:
    """A journal of so many atoms, in two collections."""
    for start in range(0, ATOMS, 1000):
        await service.pushed(
            [insert("é" if n % 3 else "to do", f"{n} é😀", {"n": n}) for n in range(start, start + 1000)]
        )


async def replica(service: Harness) -> dict[Key, tuple[int, Json]]:
    """What a client holds after a snapshot."""
    _, *lines, _ = await service.snapshot()
    return {(line["collection"], line["atom"]): (line["revision"], line["data"]) for line in lines}


def leaves(of: Of, held: dict[Key, tuple[int, Json]], collections: frozenset[str] | None = None) -> Index:
    """Its leaves."""
    index = Index()
    index.add(
        (
            *key,
            digest.leaf(*key, revision) if of == "revision" else digest.content_leaf(*key, json.dumps(data).encode()),
        )
        for key, (revision, data) in held.items()
        if collections is None or key[0] in collections
    )
    return index


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("count", [0, 1, 10, 100])
async def test_p11_what_differs_is_found_and_costs_what_differs(service: Harness, of: Of, count: int) -> None:
    await filled(service)
    held = await replica(service)
    changed = sorted(held)[:: ATOMS // count][:count] if count else []
    for n, key in enumerate(changed):
        match n % 3:
            case 0:
                held[key] = held[key][0] + 1, {"n": "damaged"}
            case 1:
                del held[key]
            case 2:
                changed[n] = (key[0], f"only here {n}")
                held[changed[n]] = 1, {}
    http = Counted(service.url, service.session)

    with leaves(of, held) as index:
        found = await differing(Journal(http, "j"), index, of=of, collections=None)

    assert found == set(changed)
    assert http.requests <= 1 + 2 * count
    assert http.answered_bytes <= 1_000 + 2_500 * count  # to list all is 250 kB


@pytest.mark.parametrize("of", KINDS)
async def test_p11_what_others_did_since_is_found(service: Harness, of: Of) -> None:
    await filled(service)
    held = await replica(service)
    names = [key for key in sorted(held) if key[0] == "é"]
    await service.pushed(
        [
            *(update(*key, {"n": -1}) for key in names[:10]),
            *(delete(*key) for key in names[10:20]),
            *(insert("note", f"{n}") for n in range(10)),
        ],
        on_conflict="client",
    )

    with leaves(of, held) as index:
        found = await differing(Journal(Http(service.url, service.session), "j"), index, of=of, collections=None)

    assert found == {*names[:20], *(("note", f"{n}") for n in range(10))}


async def test_only_the_collections_that_are_asked_for_are_compared(service: Harness) -> None:
    await filled(service)
    held = await replica(service)
    await service.pushed([insert("to do", "more"), insert("é", "more"), insert("note", "more")])
    asking = Journal(Http(service.url, service.session), "j")

    async def found(*names: str) -> set[Key]:
        with leaves("content", held, frozenset(names)) as index:
            return await differing(asking, index, of="content", collections=frozenset(names))

    assert await found("é") == {("é", "more")}
    assert await found("é", "note") == {("é", "more"), ("note", "more")}
    assert await found("to do", "é", "note") == {(name, "more") for name in ("to do", "é", "note")}


async def test_a_client_that_has_nothing_is_told_all_in_pages(service: Harness, tmp_path: Path) -> None:
    await filled(service)
    http = Counted(service.url, service.session)

    with Index(tmp_path) as index:
        found = await differing(Journal(http, "j"), index, of="revision", collections=None)

    assert found == (await replica(service)).keys()
    assert http.requests == 1 + ATOMS // 1000


async def test_a_journal_that_is_empty_lacks_all_that_a_client_has(service: Harness) -> None:
    with leaves("content", {("todo", f"{n}"): (1, {}) for n in range(500)}) as index:
        found = await differing(Journal(Http(service.url, service.session), "j"), index, of="content", collections=None)

    assert found == {("todo", f"{n}") for n in range(500)}


async def test_while_others_write_what_differs_all_along_is_found(service: Harness) -> None:
    await filled(service)
    held = await replica(service)
    damaged = sorted(held)[::100]
    for key in damaged:
        held[key] = held[key][0], {"n": "damaged"}
    others = [key for key in sorted(held) if key not in damaged][::20]
    over = asyncio.Event()

    async def write() -> set[Key]:
        written: set[Key] = set()
        for n, key in enumerate(others * 20):
            if over.is_set():
                break
            await service.pushed([update(*key, {"n": f"{n}"})], on_conflict="client")
            written.add(key)
        return written

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(write())
        with leaves("content", held) as index:
            found = await differing(
                Journal(Http(service.url, service.session), "j"), index, of="content", collections=None
            )
        over.set()

    assert writing.result()
    assert set(damaged) <= found <= set(damaged) | writing.result()


async def test_what_goes_wrong_is_told(service: Harness) -> None:
    http = Http(service.url, service.session)
    with Index() as index:
        with pytest.raises(Refused) as error:
            await differing(Journal(http, "k"), index, of="content", collections=None)
        assert error.value.code == "journal_not_found"


async def test_an_answer_that_is_not_the_services_is_not_taken_for_one() -> None:
    """A network that wants a password first answers 200 to anything."""

    async def sign_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(sign_in, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with connected(url) as http:
        with Index() as index, pytest.raises(Unreachable, match="no answer of a journal service"):
            await differing(Journal(http, "j"), index, of="content", collections=None)
    server.close()
