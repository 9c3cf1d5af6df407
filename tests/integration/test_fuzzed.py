"""What the fuzzers (tests/fuzz) found, each as it comes in over HTTP."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from yarl import URL

from journal.client import download
from journal.client.calls import Journal
from journal.client.http import Http, Unreachable, _refusal
from journal.config import Jwt, Limits
from journal.errors import Fault, InvalidRequest, Unauthenticated
from journal.web.jwts.claims import caller
from journal.web.queries import Queries
from journal.wire import HeadAnswer
from tests.harness import Harness, insert


@pytest.mark.parametrize("query", ["since=0&client=%FF", "since=0&client=\udcff", "since=0&collections=\udcff"])
def test_a_query_that_is_no_utf_8_is_told_so(query: str) -> None:
    """Bytes above 127 come as lone surrogates where aiohttp reads requests without its own C."""
    with pytest.raises(InvalidRequest) as told:
        Queries(Limits()).deltas.read(query)

    assert told.value.errors == [Fault("", "the query is not UTF-8")]


@pytest.mark.parametrize(
    "client",
    [
        "6f1c0000-0000-4000-8000-00000000000%0D",
        "%206f1c000000004000800000000000001",
        "6f1c0000_0000_4000_8000_000000000001",
        "6f1c0000-0000-4000-8000-0000000_0001",
    ],
)
async def test_a_client_is_a_uuid_without_blanks_and_underscores(service: Harness, client: str) -> None:
    """Python's own reading takes them for digits that are not there, and another client for the one that asks."""
    asked = await service.call(
        "GET", URL(f"{service.url}/v1/journals/j/deltas?since=0&client={client}", encoded=True).path_qs
    )
    shown = await service.call("GET", f"j/clients/{client}")

    assert asked.status == 400
    assert asked.json["errors"] == [{"pointer": "/client", "detail": "must be a UUID"}]
    assert shown.status == 404


async def test_a_range_in_bytes_is_one_however_it_is_written(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    place = (await service.call("GET", "j/snapshot")).headers["Location"]

    parts = [
        await service.call("GET", place, headers={"Range": asked, "Accept-Encoding": "identity"})
        for asked in ("bytes=0-4", "Bytes=0-4")
    ]

    assert [(part.status, len(part.body)) for part in parts] == [(206, 5), (206, 5)]


def test_a_place_with_a_port_that_is_none_leads_nowhere() -> None:
    service = Http("http://service.test", None)  # type: ignore[arg-type]  # nothing is asked

    for path in ("//elsewhere.test:x/", "http://service.test:99999/", "http://[::1/", "//els[::1]x@/behind"):
        with pytest.raises(Unreachable):
            service.below(path)


def test_an_answer_whose_text_is_no_utf_8_is_not_from_a_service(tmp_path: Path) -> None:
    """msgspec tells that by an error that is none of its own."""
    answer: Any = SimpleNamespace(status=502, reason="Bad Gateway", headers={})
    part = tmp_path / "snapshot.part"
    part.write_bytes(b'{"service":"\xb1"}\n')

    refused = _refusal(answer, b'{"title":"\xb1"}')

    assert refused.problem == {"title": "HTTP 502 Bad Gateway, not from a journal service", "status": 502}
    assert download._begun(part) is None
    with pytest.raises(Unreachable):
        Journal(Http("http://service.test", None), "j")._read(HeadAnswer, b'{"journal":"\xb1"}')  # type: ignore[arg-type]


def test_a_size_of_thousands_of_digits_is_none() -> None:
    """Python refuses to read them, by a ValueError that nobody expects."""
    assert download.size_of("9" * 5000) is None
    assert download.size_of("18014398509481984") == 2**54


def test_a_token_of_claims_that_are_no_utf_8_is_refused_also_where_nobody_looks_at_them() -> None:
    payload = b'{"exp":1750000060,"sub":"a","journal":[{"journal":"demo","can":["read"]}],"x":"\xff"}'
    settings = Jwt(secret="a secret of thirty-two characters")

    with pytest.raises(Unauthenticated):
        caller(payload, settings, 1_750_000_000.0)
    assert caller(payload.replace(b"\xff", b"y"), settings, 1_750_000_000.0).name == "a"
