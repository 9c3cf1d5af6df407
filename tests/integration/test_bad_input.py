"""What is refused at the door: every slip of the pen is told, with a pointer, and nothing is recorded."""

import asyncio
import gzip
import json
import re
import struct
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from tests.conftest import named
from tests.harness import Harness, Json, Reply, insert, serving, update
from tests.postgres import Server

AS_JSON = {"Content-Type": "application/json"}
MIB = 1 << 20
EPOCH, CHAIN = "0123456789ab", "0123456789abcdef"


@pytest.fixture(scope="module")
async def untouched(
    postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Harness]:
    """The service with one atom, which no test here changes: so they can all share it."""
    name = f"test_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f'create database "{name}" template "{template}" strategy file_copy')
    async with serving(named(postgres.dsn, name), tmp_path_factory.mktemp("bad_input")) as running:
        await running.create("j")
        await running.pushed([insert("todo", "a")])
        yield running
    await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()


@pytest.fixture
async def service(untouched: Harness) -> AsyncIterator[Harness]:
    """The same, seen to be untouched after each test."""
    yield untouched
    assert (await untouched.head())["head"] == 1, "something was recorded"
    assert await untouched.query("select from journal.client union all select from journal.push") == []


async def pushed_text(service: Harness, body: bytes | str, headers: dict[str, str] = AS_JSON) -> Reply:
    """Push a body as it is written."""
    data = BytesIO(body.encode(errors="surrogatepass") if isinstance(body, str) else body)
    return await service.call("POST", "j/changes", data=data, headers=headers)


def problem(reply: Reply, status: int, code: str) -> Json:
    """The problem that an answer tells, once all that belongs to one is seen to be there."""
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply.body
    told = reply.json
    assert (told["status"], told["code"], told["type"]) == (status, code, f"urn:journal:problem:{code}")
    assert isinstance(told["title"], str)
    assert reply.headers["X-Request-Id"]
    assert reply.headers["Cache-Control"] == "no-store"
    return told


def faults(reply: Reply, status: int = 400, code: str = "invalid_request") -> dict[str, str]:
    """What is wrong, by pointer."""
    return {fault["pointer"]: fault["detail"] for fault in problem(reply, status, code)["errors"]}


def change(**members: Any) -> Json:
    return insert("todo", "b") | members


# JSON that is none, or not I-JSON.

MALFORMED = {
    "nothing": b"",
    "no JSON": b"changes",
    "cut off": b'{"changes": [',
    "a comma too many": b'{"changes": [],}',
    "a comment": b'{"changes": []} // done',
    "two values": b'{"changes": []}{}',
    "single quotes": b"{'changes': []}",
    "NaN": b'{"changes": [], "push": NaN}',
    "a byte order mark": b'\xef\xbb\xbf{"changes": []}',
    "Latin-1": '{"changes": [], "client": "é"}'.encode("latin-1"),
    "UTF-16": '{"changes": []}'.encode("utf-16"),
    "a control character in a string": b'{"changes": [], "client": "\x01"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_json_is_told_where_it_breaks(service: Harness, body: bytes) -> None:
    told = faults(await pushed_text(service, body))

    assert set(told) <= {"", "/push"}


DATA = {
    "an escaped zero": (r'{"x": "a\u0000b"}', "/x"),
    "an escaped zero in a name": (r'{"a\u0000": 1}', "/a\0"),
    "a lone surrogate": (r'{"x": ["\ud800"]}', "/x/0"),
    "a lone low surrogate in a name": (r'{"\udc00": 1}', "/\ufffd"),
    "surrogates the wrong way round": (r'{"x": "\ude00\ud83d"}', "/x"),
    "2^53 + 1": ('{"x": 9007199254740993}', "/x"),
    "a long integer": ('{"x": {"y": -123456789012345678901234567890}}', "/x/y"),
    "more digits than a double has": ('{"x": 0.1000000000000000055}', "/x"),
    "beyond all doubles": ('{"x": 1e400}', "/x"),
    "below all doubles": ('{"x": 1e-400}', "/x"),
    "a name twice": ('{"x": 1, "y": 2, "x": 3}', "/x"),
    "a name twice by escapes": (r'{"x": {"a": 1, "\u0061": 2}}', "/x/a"),
}


@pytest.mark.parametrize(("data", "pointer"), DATA.values(), ids=DATA.keys())
@pytest.mark.parametrize("member", ["data", "if_data"])
async def test_trap_13_what_cannot_be_kept_is_refused_and_never_altered(
    service: Harness, member: str, data: str, pointer: str
) -> None:
    base = json.dumps(change())[:-1]
    body = f'{{"changes": [{base}, "if_data": null}}]}}' if member == "data" else f'{{"changes": [{base}}}]}}'
    body = body.replace(
        '"data": {"n": 1}', f'"{member}": {data}, "unset": ["x"]' if member == "if_data" else f'"data": {data}'
    )

    told = faults(await pushed_text(service, body))

    assert f"/changes/0/{member}{pointer}" in told


async def test_trap_13_raw_surrogates_are_not_utf_8(service: Harness) -> None:
    told = faults(await pushed_text(service, '{"changes": [], "client": "\ud800"}'))

    assert list(told) == [""]


async def test_trap_24_numbers_that_a_double_holds_are_kept(service: Harness) -> None:
    numbers = [0.1, 1e300, -1e300, 1e22, 1.7976931348623157e308, 5e-324, 2**53, -(2**53), 1e19, 123456789012345680000]
    written = (
        "[0.1, 1e300, -1E+300, 1e22, 1.7976931348623157e308, 5e-324, 9007199254740992, -9007199254740992, 1e19,"
        " 123456789012345680000]"
    )
    await service.create("kept")
    body = '{"changes":[{"op":"insert","collection":"t","atom":"a","data":{"n":' + written + "}}]}"
    pushed = await service.call("POST", "kept/changes", data=body, headers=AS_JSON)
    assert pushed.json["outcomes"][0]["status"] == "applied"

    told = [
        (await service.deltas(0, "kept")).json["deltas"][0]["data"],
        (await service.deltas(0, "kept", until=1)).json["deltas"][0]["data"],
        (await service.deltas(0, "kept", include="meta")).json["deltas"][0]["data"],
        (await service.snapshot("kept"))[1]["data"],
        (await service.call("GET", "kept/atom?collection=t&atom=a")).json["data"],
        (await service.call("GET", "kept/changes?since=0")).json["commits"][0]["changes"][0]["data"],
        *[
            msgspec.msgpack.decode((await service.deltas(0, "kept", format="msgpack", **more)).body)["deltas"][0][
                "data"
            ]
            for more in ({}, {"until": 1}, {"include": "meta"})
        ],
    ]

    for data in told:
        assert [as_double(n) for n in data["n"]] == [as_double(n) for n in numbers]


def as_double(number: float) -> bytes:
    return struct.pack(">d", float(number))


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"x":', "}")])
async def test_nesting_has_a_limit_that_is_told(service: Harness, open_: str, close: str) -> None:
    limit = (await service.call("GET", "/v1")).json["limits"]["nesting"]

    for depth in (limit, 100_000):
        nested = open_ * depth + "1" + close * depth
        reply = await pushed_text(service, f'{{"changes": [{json.dumps(change())[:-1]}, "base": {nested}}}]}}')

        [fault] = problem(reply, 400, "invalid_request")["errors"]
        assert fault["pointer"].startswith("/changes/0/base")
        assert fault["limit"] == limit


# Shapes: unknown, missing and wrong members.

WRONG: dict[str, tuple[Any, set[str]]] = {
    "no object": ([], {""}),
    "no changes": ({}, {"/changes"}),
    "changes that are none": ({"changes": {}}, {"/changes"}),
    "a change that is none": ({"changes": [1, "x", None]}, {"/changes/0", "/changes/1", "/changes/2"}),
    "an unknown member": ({"changes": [], "chnages": []}, {"/chnages"}),
    "an unknown member of a change": ({"changes": [change(colection="x")]}, {"/changes/0/colection"}),
    "an unknown op": ({"changes": [change(op="upsert")]}, {"/changes/0/op"}),
    "no op": ({"changes": [{"collection": "t", "atom": "a"}]}, {"/changes/0/op"}),
    "an insert without data": ({"changes": [{"op": "insert", "collection": "t", "atom": "a"}]}, {"/changes/0/data"}),
    "a put without data": ({"changes": [{"op": "put", "collection": "t", "atom": "a"}]}, {"/changes/0/data"}),
    "an update of nothing": ({"changes": [{"op": "update", "collection": "t", "atom": "a"}]}, {"/changes/0"}),
    "a delete with data": ({"changes": [change(op="delete", unset=[])]}, {"/changes/0/data", "/changes/0/unset"}),
    "an insert that unsets": ({"changes": [change(unset=["x"])]}, {"/changes/0/unset"}),
    "data that is a list": ({"changes": [change(data=[])]}, {"/changes/0/data"}),
    "data that is text": ({"changes": [change(data="{}")]}, {"/changes/0/data"}),
    "data that is null": ({"changes": [change(data=None)]}, {"/changes/0/data"}),
    "if_data that is true": ({"changes": [change(if_data=True)]}, {"/changes/0/if_data"}),
    "unset of numbers": ({"changes": [update("t", "a", unset=["x", 1])]}, {"/changes/0/unset/1"}),
    "a base that is text": ({"changes": [change(base="1")]}, {"/changes/0/base"}),
    "a negative base": ({"changes": [change(base=-1)]}, {"/changes/0/base"}),
    "a base beyond 2^53": ({"changes": [change(base=2**53)]}, {"/changes/0/base"}),
    "a base without the push's": ({"changes": [change(base=1)]}, {"/changes/0/base"}),
    "push 0": ({"changes": [], "client": "6f1c1c9e-0000-4000-8000-000000000000", "push": 0}, {"/push"}),
    "push 2^53": ({"changes": [], "client": "6f1c1c9e-0000-4000-8000-000000000000", "push": 2**53}, {"/push"}),
    "push 1.5": ({"changes": [], "client": "6f1c1c9e-0000-4000-8000-000000000000", "push": 1.5}, {"/push"}),
    "a push of nobody": ({"changes": [], "push": 1}, {"/client"}),
    "a client without a UUID": ({"changes": [], "client": "me"}, {"/client"}),
    "a policy that is none": ({"changes": [], "on_conflict": "mine"}, {"/on_conflict"}),
    "atomic as text": ({"changes": [], "atomic": "yes"}, {"/atomic"}),
    "a base that is a number": ({"changes": [], "base": 0}, {"/base"}),
    "a bare revision as base": ({"changes": [], "base": "0"}, {"/base"}),
    "a time that is none": ({"changes": [], "now": "today"}, {"/now"}),
    "a negative age": ({"changes": [change(age_ms=-1)]}, {"/changes/0/age_ms"}),
}


@pytest.mark.parametrize(("body", "pointers"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_in_a_push_is_pointed_at(service: Harness, body: Any, pointers: set[str]) -> None:
    assert set(faults(await pushed_text(service, json.dumps(body)))) == pointers


async def test_a_slip_of_the_pen_is_met_with_a_suggestion(service: Harness) -> None:
    body = {"changes": [change(op="inssert", colection="x")], "on_conflcit": "merge"}

    told = faults(await pushed_text(service, json.dumps(body)))

    assert 'did you mean "collection"?' in told["/changes/0/colection"]
    assert 'did you mean "on_conflict"?' in told["/on_conflcit"]
    assert '"insert", "update", "put", "delete"' in told["/changes/0/op"]


NAMES = {
    "an empty collection": ("collection", ""),
    "a collection of 129 bytes": ("collection", "x" * 129),
    "a collection of 129 bytes in 43 letters": ("collection", "€" * 43),
    "a collection with a comma": ("collection", "a,b"),
    "a collection with a tab": ("collection", "a\tb"),
    "a collection with C1": ("collection", "a\x85b"),
    "an empty atom": ("atom", ""),
    "an atom of 256 bytes": ("atom", "x" * 256),
    "an atom of 256 bytes in 128 letters": ("atom", "é" * 128),
    "an atom with a newline": ("atom", "a\nb"),
    "an atom with DEL": ("atom", "a\x7f"),
}


@pytest.mark.parametrize(("member", "name"), NAMES.values(), ids=NAMES.keys())
async def test_names_have_their_bounds(service: Harness, member: str, name: str) -> None:
    [fault] = problem(
        await pushed_text(service, json.dumps({"changes": [change(**{member: name})]})), 400, "invalid_request"
    )["errors"]

    assert fault["pointer"] == f"/changes/0/{member}"
    assert fault.get("limit") in (None, {"collection": 128, "atom": 255}[member])


async def test_names_as_long_as_they_may_be_are_taken(service: Harness) -> None:
    await service.create("long")
    names = [("x" * 128, "x" * 255), ("€" * 42 + "é", "é" * 127 + "x"), (" ", "a,b/c?d#%2e.."), ("..", ".")]

    answer = await service.pushed([insert(*name) for name in names], "long")

    assert {outcome["status"] for outcome in answer["outcomes"]} == {"applied"}
    told, _ = await service.round(0, "long")
    assert [(delta["collection"], delta["atom"]) for delta in told] == names


async def test_all_that_is_wrong_is_told_at_once(service: Harness) -> None:
    body = {
        "base": "nonsense",
        "push": 1,
        "changes": [
            {"op": "insert", "collection": "a,b", "atom": "", "x": 1},
            {"op": "upsert", "collection": "t", "atom": "a", "data": 3},
            {"op": "update", "collection": "t", "atom": "a", "data": {}, "base": -1},
            {"op": "insert", "collection": "t", "atom": "a"},
            {"op": "delete", "collection": "t", "atom": "a", "data": {}},
            insert("t", "fine"),
        ],
    }

    told = faults(await pushed_text(service, json.dumps(body)))

    assert set(told) == {
        "/base",
        "/client",
        "/changes/0/collection",
        "/changes/0/atom",
        "/changes/0/x",
        "/changes/1/op",
        "/changes/1/data",
        "/changes/2/base",
        "/changes/3/data",
        "/changes/4/data",
    }


async def test_faults_that_only_the_service_knows_are_told_with_each_other(service: Harness) -> None:
    body = {"base": "nonsense", "push": 1, "changes": [{"op": "insert", "collection": "t", "atom": "a"}]}

    told = faults(await pushed_text(service, json.dumps(body)))

    assert set(told) == {"/base", "/client", "/changes/0/data"}


async def test_no_more_than_a_thousand_faults_are_told(service: Harness) -> None:
    for wrong in ({"op": "delete", "collection": ",", "atom": ""}, change(op="?"), change(data=2**53 + 1)):
        reply = await pushed_text(service, json.dumps({"changes": [wrong] * 3000}))

        assert len(problem(reply, 400, "invalid_request")["errors"]) == 1000


# Sizes.


async def test_a_body_has_a_limit_that_is_told(service: Harness) -> None:
    limit = (await service.call("GET", "/v1")).json["limits"]["body_bytes"]
    body = b'{"changes": [' + b" " * limit + b"]}"

    for headers in (AS_JSON, AS_JSON | {"Content-Encoding": "gzip"}):
        sent = gzip.compress(body, 1) if "Content-Encoding" in headers else body
        [fault] = problem(await pushed_text(service, sent, headers), 413, "too_large")["errors"]

        assert (fault["pointer"], fault["limit"]) == ("", limit)
        async with asyncio.timeout(5):
            assert (await service.call("GET", "/v1")).status == 200  # on another connection, or none would answer


async def test_a_push_has_so_many_changes_and_no_more(service: Harness) -> None:
    limit = (await service.call("GET", "/v1")).json["limits"]["changes"]
    none = {"op": "delete", "collection": "todo", "atom": "none", "if_data": None}

    too_many = await pushed_text(service, json.dumps({"changes": [none] * (limit + 1)}))
    just = await pushed_text(service, json.dumps({"changes": [none] * limit}))

    [fault] = problem(too_many, 413, "too_large")["errors"]
    assert (fault["pointer"], fault["limit"]) == ("/changes", limit)
    assert (just.status, len(just.json["outcomes"])) == (200, limit)


# Cursors and query parameters.

NO_CURSORS = [
    "",
    "x",
    "-1",
    "01",
    "1.0",
    "+1",
    "1e3",
    "٣",
    "9007199254740992",
    "99999999999999999999",
    f"{EPOCH}:1",
    f"{EPOCH}:1:{CHAIN}0",
    f"{EPOCH}:01:{CHAIN}",
    f"{EPOCH}:-1:{CHAIN}",
    f"{EPOCH.upper()}:1:{CHAIN}",
    f"{EPOCH}:9007199254740992:{CHAIN}",
    f"{EPOCH}:1:{CHAIN}:",
    f"{EPOCH}:1:{CHAIN}:x=1",
    f"{EPOCH}:1:{CHAIN}:base",
    f"{EPOCH}:1:{CHAIN}:base=2",
    f"{EPOCH}:1:{CHAIN}:base=x",
    f"{EPOCH}:1:{CHAIN}:base=1:base=1",
    f"{EPOCH}:1:{CHAIN}:base=0:client=me",
    f"{EPOCH}:1:{CHAIN}:client=6f1c1c9e-0000-4000-8000-000000000000",
    f"{EPOCH}:1:{CHAIN}:until=2",
    f"{EPOCH}:1:{CHAIN}:base=0:until=9007199254740992",
    f"{EPOCH}:3:{CHAIN}:base=0:until=2",
    f"{EPOCH}:1:{CHAIN}:collections=%ff",
    f"{EPOCH}:1:{CHAIN}:collections=a%00",
    f"{EPOCH}:1:{CHAIN}:collections=a%2Cb",
    f"{EPOCH}:1:{CHAIN}\n",
    f"{EPOCH}:1:{CHAIN}:base=0\x00",
    " 1",
]


@pytest.mark.parametrize("text", NO_CURSORS)
async def test_a_cursor_that_is_none_is_told_so(service: Harness, text: str) -> None:
    """An unfinished round's cursor with a client that is no UUID was an internal error."""
    assert set(faults(await service.deltas(text))) == {"/since"}
    assert set(faults(await service.call("GET", "j/changes", params={"since": text}))) == {"/since"}
    assert set(faults(await pushed_text(service, json.dumps({"changes": [], "base": text})))) == {"/base"}
    assert set(faults(await service.call("GET", "j/cursor", params={"at": text}))) == {"/at"}


QUERIES = {
    "nothing": ("j/deltas", {"/since"}),
    "an unknown parameter": ("j/deltas?since=0&colections=a", {"/colections"}),
    "one twice": ("j/deltas?since=0&since=1", {"/since"}),
    "a limit of 0": ("j/deltas?since=0&limit=0", {"/limit"}),
    "a limit beyond": ("j/deltas?since=0&limit=100001", {"/limit"}),
    "a limit of other digits": ("j/deltas?since=0&limit=%D9%A3", {"/limit"}),
    "a wait beyond": ("j/deltas?since=0&wait=61", {"/wait"}),
    "a wait of nan": ("j/deltas?since=0&wait=nan", {"/wait"}),
    "a wait of inf": ("j/deltas?since=0&wait=inf", {"/wait"}),
    "a negative wait": ("j/deltas?since=0&wait=-1", {"/wait"}),
    "a wait of nothing": ("j/deltas?since=0&wait=.", {"/wait"}),
    "until beyond 2^53": ("j/deltas?since=0&until=9007199254740992", {"/until"}),
    "until beyond the head": ("j/deltas?since=0&until=2", {"/until"}),
    "no collection": ("j/deltas?since=0&collections=", {"/collections"}),
    "a collection with a control character": ("j/deltas?since=0&collections=a%00", {"/collections"}),
    "a client that is none": ("j/deltas?since=0&client=me", {"/client"}),
    "a client with a bare revision": ("j/deltas?since=1&client=6f1c1c9e-0000-4000-8000-000000000000", {"/since"}),
    "include of anything": ("j/deltas?since=0&include=everything", {"/include"}),
    "a form that is none": ("j/deltas?since=0&format=xml", {"/format"}),
    "all of it": ("j/deltas?since=x&limit=x&until=x&wait=x&include=x&format=x&client=x&x=x", {
        "/since", "/limit", "/until", "/wait", "/include", "/format", "/client", "/x"}),
    "too many": ("j/deltas?" + "&".join(f"x{n}=1" for n in range(65)), {""}),
    "what is not UTF-8": ("j/deltas?since=0&collections=%ff", {""}),
    "an unknown parameter of the head": ("j?x=1", {"/x"}),
    "an unknown parameter of the record": ("j/changes?since=0&x=1", {"/x"}),
    "an unknown parameter of a snapshot": ("j/snapshot?x=1", {"/x"}),
    "an unknown parameter of the collections": ("j/collections?x=1", {"/x"}),
    "an unknown parameter of all journals": ("/v1/journals?x=1", {"/x"}),
    "an unknown parameter of all": ("/v1?x=1", {"/x"}),
    "no atom": ("j/atom?collection=todo", {"/atom"}),
    "an atom with a control character": ("j/atom?collection=todo&atom=%00", {"/atom"}),
    "a name that is none to go on from": ("/v1/journals?after=%00", {"/after"}),
}  # fmt: skip


@pytest.mark.parametrize(("path", "pointers"), QUERIES.values(), ids=QUERIES.keys())
async def test_what_is_wrong_in_a_query_is_pointed_at(service: Harness, path: str, pointers: set[str]) -> None:
    assert set(faults(await as_written(service, "GET", path))) == pointers


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "j/changes?atomic=true", b'{"changes": []}'),
        ("PUT", "j/collections?x=1", b'{"collection": "todo", "policy": null}'),
        ("PUT", "other?x=1", b""),
        ("DELETE", "j?force=1", b""),
    ],
)
async def test_what_writes_does_not_ignore_its_query(service: Harness, method: str, path: str, body: bytes) -> None:
    """A misplaced parameter was silence."""
    reply = await as_written(service, method, path, body)

    assert len(faults(reply)) == 1


# Paths, methods, forms.


@pytest.mark.parametrize("name", ["-a", "A", "a.b", "a" * 64, "%C3%A9", "a%20b", "a%2Fb", "%00", "%FF", "a%0A"])
async def test_a_journals_name_has_its_bounds(service: Harness, name: str) -> None:
    """U+0000 in a journal's name was an internal error."""
    created = await as_written(service, "PUT", name)
    asked = await as_written(service, "GET", name)
    deltas = await as_written(service, "GET", f"{name}/deltas?since=0")
    pushed = await as_written(service, "POST", f"{name}/changes", b'{"changes": []}')

    assert len(faults(created)) == 1
    for reply in (asked, deltas, pushed):
        problem(reply, 404, "journal_not_found")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "none", b""),
        ("DELETE", "none", b""),
        ("GET", "none/deltas?since=0", b""),
        ("GET", "none/deltas?since=0&wait=1", b""),
        ("GET", "none/changes?since=0", b""),
        ("GET", "none/collections", b""),
        ("GET", "none/snapshot", b""),
        ("GET", "none/atom?collection=a&atom=b", b""),
        ("GET", f"none/cursor?at={EPOCH}:0:{CHAIN}", b""),
        ("POST", "none/changes", b'{"changes": []}'),
        ("PUT", "none/collections", b'{"collection": "a", "policy": null}'),
    ],
)
async def test_a_journal_that_is_not_there_is_told_so(service: Harness, method: str, path: str, body: bytes) -> None:
    problem(await as_written(service, method, path, body), 404, "journal_not_found")


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/v1/", "/v1/journals/", "j/", "j/nothing", "j/changes/", "/v1/journals//deltas", "/%2e%2e/v1"]
)
async def test_a_path_that_leads_nowhere_is_told_so(service: Harness, path: str) -> None:
    problem(await as_written(service, "GET", path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1", {"GET", "HEAD"}),
        ("PATCH", "j", {"GET", "HEAD", "PUT", "DELETE"}),
        ("DELETE", "j/deltas", {"GET", "HEAD"}),
        ("PUT", "j/changes", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "j/collections", {"GET", "HEAD", "PUT"}),
        ("TRACE", "j/snapshot", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_a_path_does_not_know_is_told_what_it_does(
    service: Harness, method: str, path: str, allowed: set[str]
) -> None:
    reply = await service.call(method, path)

    problem(reply, 405, "method_not_allowed")
    assert set(re.split(r"\s*,\s*", reply.headers["Allow"])) == allowed


@pytest.mark.parametrize(
    "media",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/msgpack",
        "json",
    ],
)
async def test_a_body_says_that_it_is_json(service: Harness, media: str) -> None:
    body = b'{"changes": []}'

    reply = await as_written(service, "POST", "j/changes", body, media=media)

    problem(reply, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "media", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF8"]
)
async def test_json_in_utf_8_may_say_so(service: Harness, media: str) -> None:
    reply = await as_written(service, "POST", "j/changes", b'{"changes": []}', media=media)

    assert reply.status == 200


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*", "x"])
async def test_a_form_that_cannot_be_had_is_told_so(service: Harness, accept: str) -> None:
    for path in ("j/deltas?since=0", "j/changes?since=0"):
        problem(await service.call("GET", path, headers={"Accept": accept}), 406, "not_acceptable")


@pytest.mark.parametrize("accept", ["*/*", "application/*", "text/html, */*;q=0.1", "application/x-ndjson, */*"])
async def test_a_form_that_can_be_had_is_given(service: Harness, accept: str) -> None:
    assert (await service.call("GET", "j/deltas?since=0", headers={"Accept": accept})).status == 200


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"{}", {"/collection", "/policy"}),
        (b'{"collection": "a,b", "policy": "mine", "x": 1}', {"/collection", "/policy", "/x"}),
        (b'{"collection": "a\\u0000", "policy": null}', {"/collection"}),
        (b"[", {""}),
    ],
)
async def test_what_is_wrong_in_a_policy_is_pointed_at(service: Harness, body: bytes, pointers: set[str]) -> None:
    assert set(faults(await as_written(service, "PUT", "j/collections", body))) == pointers


# Request ids, codings and transfers.


async def test_a_request_id_is_echoed_or_made(service: Harness) -> None:
    echoed = await service.call("GET", "j", headers={"X-Request-Id": "from-me:1"})
    of_error = await service.call("GET", "none", headers={"X-Request-Id": "from-me:2"})
    made = [(await service.call("GET", "j", headers=headers)).headers["X-Request-Id"] for headers in
            ({}, {"X-Request-Id": ""}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 129})]  # fmt: skip

    assert echoed.headers["X-Request-Id"] == "from-me:1"
    assert of_error.headers["X-Request-Id"] == "from-me:2"
    assert len(set(made)) == 4
    assert all(re.fullmatch(r"[\x21-\x7e]{1,128}", told) for told in made)


async def test_a_large_answer_has_its_request_id_too(service: Harness) -> None:
    """What was sent in pieces had none."""
    await service.create("large")
    for collection in "abc":
        await service.pushed([insert(collection, f"{n}", {"x": f"{n}" * 20_000}) for n in range(10, 30)], "large")

    deltas = await service.call("GET", "large/deltas?since=0&include=meta", headers={"X-Request-Id": "mine"})
    snapshot = await service.call("GET", "large/snapshot", headers={"X-Request-Id": "mine"}, allow_redirects=True)

    assert len(deltas.body) > MIB
    assert (deltas.headers["X-Request-Id"], snapshot.headers["X-Request-Id"]) == ("mine", "mine")


async def test_a_body_may_be_compressed(service: Harness) -> None:
    body = gzip.compress(b'{"changes": []}')

    reply = await pushed_text(service, body, AS_JSON | {"Content-Encoding": "gzip"})

    assert reply.status == 200


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
async def test_a_compressed_body_that_is_cut_off_is_malformed(service: Harness, cut: int) -> None:
    """It was an internal error."""
    body = gzip.compress(json.dumps({"changes": [insert("todo", f"{n}") for n in range(9)]}).encode())

    reply = await pushed_text(service, body[:cut], AS_JSON | {"Content-Encoding": "gzip"})

    assert set(faults(reply)) == {""}


async def test_a_body_that_is_not_compressed_as_it_says_is_malformed(service: Harness) -> None:
    """It was an internal error."""
    reply = await as_written(service, "POST", "j/changes", b'{"changes": []}', more=["Content-Encoding: gzip"])

    assert set(faults(reply)) == {""}


async def test_a_body_may_come_in_chunks(service: Harness) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"chan', b'ges"', b": []}"):
            yield piece

    reply = await service.call("POST", "j/changes", data=pieces(), headers=AS_JSON)

    assert reply.status == 200


async def test_a_chunked_body_has_the_same_limit(service: Harness) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"changes": ['
        for _ in range(17):
            yield b" " * MIB
        yield b"]}"

    reply = await service.call("POST", "j/changes", data=pieces(), headers=AS_JSON)

    problem(reply, 413, "too_large")


async def test_who_expects_100_continue_gets_it(service: Harness) -> None:
    reply = await service.call("POST", "j/changes", data=b'{"changes": []}', headers=AS_JSON, expect100=True)

    assert reply.status == 200


async def test_http_1_0_is_spoken(service: Harness) -> None:
    reply = await as_written(service, "POST", "j/changes", b'{"changes": []}', version="1.0")

    assert reply.status == 200
    assert reply.json["outcomes"] == []


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\xff\xfe", b"caf\xe9", b"a\tb"])
async def test_an_idempotency_key_has_its_bounds(service: Harness, key: bytes) -> None:
    """A key that is not UTF-8 was an internal error."""
    reply = await as_written(service, "POST", "j/changes", b'{"changes": []}', more=[b"Idempotency-Key: " + key])

    assert len(faults(reply)) == 1


async def test_a_sender_that_goes_away_in_the_middle_leaves_nothing(service: Harness) -> None:
    place = urlsplit(service.url)
    body = json.dumps({"changes": [insert("todo", "b")]}).encode()
    for cut in (0, 1, len(body) - 1):
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(head("POST", "/v1/journals/j/changes", body) + body[:cut])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert (await service.call("GET", "j")).status == 200


def head(
    method: str,
    path: str,
    body: bytes,
    *,
    media: str = "application/json",
    version: str = "1.1",
    more: list[Any] | None = None,
) -> bytes:
    """The head of a request, as it is written."""
    lines: list[Any] = [
        f"{method} {path} HTTP/{version}",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"Content-Type: {media}"] if media else []
    lines += more or []
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in [*lines, "", ""])


async def as_written(service: Harness, method: str, path: str, body: bytes = b"", **members: Any) -> Reply:
    """A request byte for byte: no client library puts anything right."""
    place = urlsplit(service.url)
    path = path if path.startswith("/") else f"/v1/journals/{path}"
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(head(method, path, body, **members) + body)
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Reply(int(first.split()[1]), headers, rest)
