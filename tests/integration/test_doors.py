"""Every route with every kind of caller, held against the table of the protocol's section 13."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from journal.web.routes import Routes
from tests.doors import Bearer, bearer, may
from tests.harness import Harness, insert, put

ROOT = Path(__file__).parents[2]
J = "/v1/journals/{j}"
_ROW = re.compile(r"^\| `([A-Z]+) ([^`]+)`( \([^)]*\))? \| (.*) \|$", re.M)
MARKS = ("geheim", "hidden")  # in names and data of what some callers may not read
IDENTIFYING = ("date", "x-request-id", "content-length")
OURS = str(uuid4())


def table() -> tuple[list[str], dict[tuple[str, str], dict[str, str]]]:
    """The callers, and by route (with what stands behind it) what each of them is answered."""
    text = (ROOT / "docs" / "protocol.md").read_text().partition("\n## 13. ")[2]
    header = re.search(r"^\| route \| (.*) \|$", text, re.M)
    assert header is not None
    callers = header[1].split(" | ")
    rows = {
        (f"{method} {path.replace('…', J)}", (note or "").strip()): dict(zip(callers, cells.split(" | "), strict=True))
        for method, path, note, cells in _ROW.findall(text)
    }
    return callers, rows


CALLERS, TABLE = table()


async def callers(service: Harness) -> dict[str, Bearer]:
    """One of each kind."""
    return {
        "nobody": Bearer(service, None),
        "stranger": await bearer(service, may("read", "write", journal="other")),
        "reads some": await bearer(service, may("read", of="todo,none_yet")),
        "reads all": await bearer(service, may("read")),
        "writes some": await bearer(service, may("read", of="todo,none_yet"), may("read", "write", of="todo")),
        "writes all": await bearer(service, may("read", "write")),
        "operates": await bearer(service, may("operate")),
        "operates all": await bearer(service, may("operate", journal="*"), name="the operator"),
    }


async def furnished(service: Harness) -> dict[str, str]:
    """A journal with something of everything, made while the service is open; what its URLs are made of."""
    for name in ("demo", "other", "spare"):
        await service.create(name)
    await service.call("PUT", "demo/collections", json={"collection": "geheim", "policy": "both"})
    await service.call("PUT", "demo/collections", json={"collection": "todo", "policy": "both"})
    told = await service.pushed(
        [insert("todo", "a"), insert("geheim", "hidden", {"hidden": "hidden"})], "demo", client=str(uuid4()), push=1
    )
    again = [put("geheim", "hidden", {"hidden": 2}, base=0), put("todo", "a", {"n": 2}, base=0)]
    kept = await service.pushed(again, "demo", base=f"{told['epoch']}:0:{'0' * 16}")
    operation = await service.call("POST", "demo/check", headers={"Prefer": "wait=20"})
    ids = [outcome["kept"] for outcome in kept["outcomes"]]
    stands = await service.call("GET", "/v1/server")
    return {
        "of geheim": ids[0],
        "of todo": ids[1],
        "operation": operation.json["id"],
        "system": stands.json["system"],
        "timeline": str(stands.json["timeline"]),
    }


async def asked(who: Bearer, route: str, note: str, there: dict[str, str]) -> tuple[int, str]:
    """A request to a route that is good in every way but for who makes it: status and body."""
    method, _, path = route.partition(" ")
    path = path.replace("{j}", "spare" if route == f"DELETE {J}" else "demo")
    arguments: dict[str, Any] = {}
    match route.replace(J, "…"), note:
        case "PUT /v1/server", _:
            arguments["json"] = {"system": there["system"], "timeline": int(there["timeline"])}
        case "PUT …/collections", _:
            arguments["json"] = {"collection": "todo", "policy": None}
        case "GET …/cursor", _:
            arguments["params"] = {"at": f"{there['epoch']}:0:{'0' * 16}"}
        case "GET …/deltas" | "GET …/stream" | "GET …/changes", _:
            arguments["params"] = {"since": "0"}
        case "POST …/changes", _:
            arguments["json"] = {"changes": [insert("todo", str(uuid4())), insert("geheim", str(uuid4()))]}
        case "POST …/sync", "(nothing to decide)":
            arguments["json"] = {"since": 0}
        case "POST …/sync", _:
            arguments["json"] = {"since": 0, "changes": [insert("todo", str(uuid4()))]}
        case "GET …/snapshots/{id}", _:
            path = there["snapshot"]
        case "GET …/atom" | "GET …/atom/history", _:
            arguments["params"] = {"collection": "todo", "atom": "a"}
        case "POST …/lookup", _:
            arguments["json"] = {"get": {"todo": ["a", "b"]}}
        case "GET …/conflicts/{id}" | "POST …/conflicts/{id}", _:
            path = path.replace("{id}", there["of todo"])
            arguments["json"] = {"keep": "server"} if method == "POST" else None
        case "POST …/resync", _:
            arguments["json"] = {"reason": "a test", "client": OURS}
        case "POST …/restored", _:
            arguments["json"] = {}
        case "POST …/compact", _:
            arguments["json"] = {"keep_revisions": 1_000_000}
        case "POST …/erase", _:
            arguments["json"] = {"collection": "todo", "atom": "a"}
        case "GET …/clients/{id}" | "DELETE …/clients/{id}", _:
            path = path.replace("{id}", there["client"])
        case "GET …/operations/{id}", _:
            path = path.replace("{id}", there["operation"])
        case "GET /console/{file}", _:
            path = "/console/app.js"
    if route == f"GET {J}/stream":
        return await first_event(who, path, arguments["params"])
    reply = await who.call(method, path, **arguments)
    if route == f"GET {J}/snapshot" and reply.status == 303:
        there["snapshot"] = reply.headers["Location"]
    return reply.status, reply.body.decode(errors="replace")


async def first_event(who: Bearer, path: str, params: dict[str, str]) -> tuple[int, str]:
    """A stream's status, and its first event; the whole of an answer that is none."""
    headers = {} if who.text is None else {"Authorization": f"Bearer {who.text}"}
    async with who.service.session.get(who.service.url + path, params=params, headers=headers) as response:
        if response.status != 200:
            return response.status, await response.text()
        told = b""
        while b"data: " not in told or not told.endswith(b"\n\n"):
            told += await response.content.readany()
        return response.status, told.decode()


def test_the_table_is_of_the_routes_that_there_are(service: Harness) -> None:
    there = {f"{route.method} {route.path}" for route in Routes(service.service).table()}

    assert {route for route, _ in TABLE} == there


@pytest.mark.parametrize("kind", CALLERS)
async def test_every_route_answers_each_kind_of_caller_as_the_protocol_says(service: Harness, kind: str) -> None:
    there = await furnished(service)
    who = (await callers(service))[kind]
    everything = await bearer(service, may("read", "write", journal="demo"))
    there["epoch"] = (await everything.call("GET", "demo")).json["epoch"]
    if TABLE[f"GET {J}/snapshot", ""][kind] in ("401", "404"):
        there["snapshot"] = (await everything.call("GET", "demo/snapshot")).headers["Location"]
    service.service.registry.saw("demo", there.setdefault("client", str(uuid4())), None, "a test")
    await service.service.registry.flush()

    # What ends things comes last; a snapshot is asked for before it is fetched.
    last = (f"DELETE {J}", f"POST {J}/erase", f"POST {J}/restored", f"DELETE {J}/clients/{{id}}")
    for route, note in sorted(TABLE, key=lambda row: (last.index(row[0]) if row[0] in last else -1, row[0])):
        status, body = await asked(who, route, note, there)

        meant = TABLE[route, note][kind]
        told = f"{kind}: {route} {note} → {status} {body[:300]}"
        if meant in ("yes", "its"):
            assert status in (200, 201, 202, 204, 303), told
            assert meant == "yes" or not any(mark in body for mark in MARKS), told
        else:
            assert status == int(meant), told


async def test_nothing_that_is_not_granted_can_be_told_from_what_is_not_there(service: Harness) -> None:
    there = await furnished(service)
    who = await bearer(service, may("read", of="todo"), may("read", "write", of="todo"))
    epoch = (await who.call("GET", "demo")).json["epoch"]
    zero = f"{epoch}:0:{'0' * 16}"
    asks: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "deltas", {"params": {"since": "0", "collections": "NAME"}}),
        ("GET", "deltas", {"params": {"since": "0", "collections": "todo,NAME"}}),
        ("GET", "deltas", {"params": {"since": zero + ":collections=todo", "collections": "NAME"}}),
        ("GET", "deltas", {"params": {"since": zero + ":collections=todo,NAME"}}),
        ("GET", "deltas", {"params": {"since": zero + ":collections=NAME:base=0"}}),
        ("GET", "deltas", {"params": {"since": zero}}),
        ("GET", "stream", {"params": {"since": "0", "collections": "NAME"}}),
        ("GET", "cursor", {"params": {"at": zero, "collections": "NAME"}}),
        ("GET", "snapshot", {"params": {"collections": "NAME"}}),
        ("GET", "digest", {"params": {"collections": "NAME"}}),
        ("GET", "manifest", {"params": {"collections": "todo,NAME", "of": "content"}}),
        ("POST", "lookup", {"json": {"get": {"NAME": ["hidden"]}}}),
        ("POST", "lookup", {"json": {"get": {"todo": ["a"], "NAME": []}}}),
        ("GET", "atom", {"params": {"collection": "NAME", "atom": "hidden"}}),
        ("GET", "atom", {"params": {"collection": "NAME", "atom": "hidden", "at": "1"}}),
        ("GET", "atom/history", {"params": {"collection": "NAME", "atom": "hidden"}}),
        ("POST", "changes", {"json": {"changes": [put("NAME", "hidden", {"n": 1}, if_data={"hidden": "hidden"})]}}),
        ("POST", "changes", {"json": {"changes": [insert("NAME", "hidden")], "atomic": True}}),
        ("POST", "changes", {"json": {"changes": [{"op": "delete", "collection": "NAME", "atom": "hidden"}]}}),
        ("POST", "changes", {"json": {"changes": [insert("NAME", "hidden")], "on_conflict": "client"}}),
        ("POST", "sync", {"json": {"since": 0, "changes": [insert("NAME", "hidden")]}}),
        ("POST", "sync", {"json": {"since": 0, "get": {"NAME": ["hidden"]}}}),
        ("POST", "sync", {"json": {"since": 0, "collections": ["NAME"]}}),
        ("GET", "conflicts/ID", {}),
        ("POST", "conflicts/ID", {"json": {"keep": "client"}}),
    ]

    for method, path, arguments in asks:
        told = []
        for name, number in (("geheim", there["of geheim"]), ("no_such", "4711")):
            filled = eval(repr(arguments).replace("NAME", name))
            reply = await who.call(method, f"demo/{path}".replace("ID", number), **filled)
            body = reply.body.decode().replace(name, "NAME")
            headers = {k: v for k, v in reply.headers.items() if k.lower() not in IDENTIFYING}
            told.append((reply.status, body, headers))

        assert told[0] == told[1], (method, path, arguments)
        assert not any(mark in told[0][1] for mark in MARKS), (method, path, told[0])


async def test_a_journal_that_is_not_granted_can_not_be_told_from_one_that_is_not_there(service: Harness) -> None:
    await furnished(service)
    who = await bearer(service, may("read", "write", journal="other"))

    for method, path in (route.partition(" ")[::2] for route, _ in TABLE if J in route):
        told = []
        for name in ("demo", "no-such"):
            reply = await who.call(method, path.format(j=name, id=UUID(int=1)), json={})
            told.append((reply.status, reply.body.replace(name.encode(), b"J")))

        assert told[0] == told[1], (method, path)
        assert told[0][0] in (403, 404)


async def test_the_state_that_a_reader_of_some_is_told_is_the_state_of_those(service: Harness) -> None:
    await furnished(service)
    who = await bearer(service, may("read", of="todo"))

    head = (await who.call("GET", "demo")).json
    deltas = (await who.call("GET", "demo/deltas", params={"since": "0"})).json
    collections = (await who.call("GET", "demo/collections")).json["collections"]
    tree = (await who.call("GET", "demo/digest")).json
    lines = (await who.call("GET", (await who.call("GET", "demo/snapshot")).headers["Location"])).lines
    journals = (await who.call("GET", "/v1/journals")).json["journals"]
    conflicts = (await who.call("GET", "demo/conflicts")).json["conflicts"]

    assert [delta["atom"] for delta in deltas["deltas"]] == ["a"]
    assert head["cursor"] == deltas["cursor"] == lines[0]["cursor"]
    assert deltas["cursor"].endswith(":collections=todo")
    assert head["digest"] == deltas["digest"] == tree["digest"] == lines[-1]["digest"] == collections[0]["digest"]
    assert (head["atoms"], tree["count"], lines[0]["atoms"], len(lines)) == (1, 1, 1, 3)
    assert [one["name"] for one in collections] == ["todo"]
    assert [one["journal"] for one in journals] == ["demo"]
    assert journals[0]["digest"] == head["digest"]
    assert [one["collection"] for one in conflicts] == ["todo"]


async def test_a_snapshot_of_everything_is_not_given_to_a_reader_of_some(service: Harness) -> None:
    await furnished(service)
    everything = await bearer(service, may("read"))
    some = await bearer(service, may("read", of="todo"))

    whole = (await everything.call("GET", "demo/snapshot")).headers["Location"]
    part = (await some.call("GET", "demo/snapshot")).headers["Location"]

    assert (await everything.call("GET", part)).status == 200
    assert (await some.call("GET", part)).status == 200
    assert (await some.call("GET", part.partition("?")[0])).status == 200  # all that it may read is what is meant
    for url in (whole, f"{whole}?collections=todo", f"{part.partition('?')[0]}?collections=geheim"):
        assert (await some.call("GET", url)).status in (403, 404)
        assert (await some.call("HEAD", url)).status in (403, 404)
