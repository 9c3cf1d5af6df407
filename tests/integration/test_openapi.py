"""The description of the service: valid, complete, and the same as what its handlers read and tell."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from journal.config import Settings
from journal.core.names import atom_ok, collection_ok, journal_ok
from journal.service.running import Service
from journal.web.description import wording
from journal.web.description.calls import NEVER_TOLD, REQUEST_HEADERS, calls
from journal.web.description.openapi import errors
from journal.web.routes import Routes
from journal.wire import AtomName, CollectionName, JournalName, schema_of
from tests.conforming import bodies_conform, conforms, described
from tests.harness import Harness, Json, insert

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
EXAMPLE = re.compile(r"```json\n(.*?)\n```", re.S)
PLACE = {"j": "j", "id": "1", "file": "app.js"}


def operations() -> list[tuple[str, str, Json]]:
    """Each call of the document: method, path, and what is said of it."""
    return [
        (method.upper(), path, said)
        for path, methods in described()["paths"].items()
        for method, said in methods.items()
    ]


def test_it_is_valid_openapi() -> None:
    validate(described())


def test_every_route_is_in_it_and_everything_in_it_is_a_route() -> None:
    settings = Settings(dsn="", spool=Path("."))
    routes = {(route.method, route.path) for route in Routes(Service(settings)).table()}

    assert {(method, path) for method, path, _ in operations()} == routes
    assert calls(settings.limits).keys() == routes, "journal/web/description/calls.py has a line a route"
    names = [said["operationId"] for _, _, said in operations()]
    assert len(set(names)) == len(names)


def test_every_error_is_told_by_some_call() -> None:
    told = json.dumps([said["responses"] for _, _, said in operations()])

    missing = {error.code for error in errors() if f'schemas/{error.code}"' not in told}

    assert missing == {error.code for error in NEVER_TOLD}


async def test_the_parameters_that_it_tells_are_those_that_are_read(service: Harness) -> None:
    for method, path, said in operations():
        if said["tags"] == ["Pages"] or path in ("/healthz", "/readyz"):
            continue  # they take no notice of a query
        known = [place["name"] for place in said.get("parameters", []) if place["in"] == "query"]
        reply = await service.call(method, path.format(**PLACE) + "?surely_unknown=1", json={})

        if reply.status == 404:  # ids are looked at first
            assert "{id}" in path
            continue
        assert reply.status == 400, (method, path, reply.body)
        [detail] = [fault["detail"] for fault in reply.json["errors"] if fault["pointer"] == "/surely_unknown"]
        assert detail.rpartition("known are: ")[2] == ", ".join(known), (method, path)


async def test_it_is_served_to_anybody_and_not_again_to_who_has_it(service: Harness) -> None:
    first = await service.call("GET", "/openapi.json")
    again = await service.call("GET", "/openapi.json", headers={"If-None-Match": first.headers["ETag"]})

    assert first.json == described()
    assert (again.status, again.body) == (304, b"")


def test_its_examples_are_what_is_asked_for() -> None:
    bodies = [
        said["requestBody"]["content"]["application/json"] for _, _, said in operations() if "requestBody" in said
    ]

    for body in bodies:
        bodies_conform(body["schema"], "application/json", json.dumps(body["example"]).encode())
    assert len(bodies) == len(wording.EXAMPLES)


def test_the_examples_of_the_protocol_are_what_it_tells() -> None:
    kinds = ["DeltasAnswer", "PushRequest", "PushAnswer", "SyncRequest", "SyncAnswer"]
    examples = EXAMPLE.findall(PROTOCOL.read_text())

    assert len(examples) == len(kinds), "which Struct is the new example one of?"
    for kind, example in zip(kinds, examples, strict=True):
        bodies_conform({"$ref": f"#/components/schemas/{kind}"}, "application/json", example.encode())


def test_what_is_not_in_it_is_found() -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": "1"}
    known: Json = {"epoch": "0" * 12, "revision": 1, "cursor": f"{'0' * 12}:1:{'0' * 16}"}
    url = "http://host/v1/journals/j/cursor?at=…"
    conforms("GET", url, 200, headers, msgspec.json.encode(known))

    for wrong in ({"more": 1}, {"revision": "1"}, {"cursor": "1"}):
        with pytest.raises(AssertionError):
            conforms("GET", url, 200, headers, msgspec.json.encode(known | wrong))
    with pytest.raises(AssertionError, match="not in the document"):
        conforms("GET", url, 201, headers, msgspec.json.encode(known))
    with pytest.raises(AssertionError, match="without X-Request-Id"):
        conforms("GET", url, 200, {"Content-Type": "application/json"}, msgspec.json.encode(known))


async def test_the_events_of_a_stream_are_what_it_tells(service: Harness) -> None:
    [schema] = [
        said["responses"]["200"]["content"]["text/event-stream"]["schema"]
        for _, path, said in operations() if path.endswith("/stream")
    ]  # fmt: skip
    heard = b""
    async with service.session.get(f"{service.url}/v1/journals/j/stream?since=0") as stream:
        while heard.count(b"event: ") < 3:
            heard += await stream.content.readany()
            if heard.count(b"event: ") == 1 and b"bookmark" in heard:
                await service.pushed([insert("todo", "a")])
            if b"event: deltas" in heard and b"event: resync" not in heard:
                await service.call("POST", "j/resync", json={"reason": "x"})
                break
    cursor = (await service.head())["cursor"]
    await service.call("POST", "j/resync", json={"reason": "again"})
    async with service.session.get(f"{service.url}/v1/journals/j/stream?since={cursor}") as stream:
        heard += await stream.content.read()

    assert re.findall(rb"event: (\w+)", heard) == [b"bookmark", b"deltas", b"resync"]
    bodies_conform(schema, "text/event-stream", heard)


@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(r"[a-z0-9_,\-\x7f-\xa0]{0,66}", fullmatch=True)
)
def test_the_patterns_of_names_say_what_is_judged_but_for_bytes(name: str) -> None:
    for kind, is_ok, most in (
        (JournalName, journal_ok, 63),
        (CollectionName, collection_ok, 128),
        (AtomName, atom_ok, 255),
    ):
        schema = schema_of(kind)
        is_told = (
            len(name) <= schema["maxLength"] and re.search(schema["pattern"].replace("$", r"\Z"), name) is not None
        )

        assert (is_told and len(name.encode()) <= most) == is_ok(name)


def test_headers_that_it_tells_are_read_by_what_it_tells() -> None:
    told: dict[str, Any] = {
        place["name"]: place["schema"]
        for _, _, said in operations()
        for place in said.get("parameters", [])
        if place["in"] == "header"
    }

    assert told == {name: reader.schema for name, (reader, _) in REQUEST_HEADERS.items()}
