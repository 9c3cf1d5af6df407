"""What schemathesis cannot know of this service: which journals, cursors and ids there are, and what is endless.

Run inside of schemathesis (test_schemathesis.py). Only what is meant to be right is made right here, so that it comes
further than a 404; what is meant to be wrong is left alone, but for requests that nothing would end.
"""

import itertools
import json
import os
import re
from typing import Any
from uuid import uuid4

import msgspec
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, HookContext

from journal.core.cursor import parse_since
from journal.core.names import atom_ok, collection_ok, journal_ok
from journal.errors import InvalidRequest

Json = dict[str, Any]
URL = os.environ["JOURNAL_URL"]
LONGEST_WAIT_S = 0.1
J = "/v1/journals/{j}"
ELSEWHERE = "0123456789ab:1:0123456789abcdef"  # a cursor of no history here: a stream from it is told so, and ends
_count = itertools.count(1)

_TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
schemathesis.openapi.format(
    "journal-name", st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True).filter(journal_ok)
)
schemathesis.openapi.format("collection-name", _TEXT.filter(collection_ok))
schemathesis.openapi.format("atom-name", _TEXT.filter(atom_ok))


def told(path: str, method: str = "GET", body: Json | None = None) -> Json:
    """What the service answers; {} to what it refuses."""
    data = None if body is None else json.dumps(body).encode()
    token = os.environ["JOURNAL_WRITES" if path.endswith("/changes") else "JOURNAL_OPERATES"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = requests.request(method, URL + path, data=data, headers=headers, allow_redirects=False, timeout=20)
    if answer.status_code == 303:
        return {"location": answer.headers["Location"]}
    found: Json = answer.json() if answer.status_code == 200 else {}
    return found


@schemathesis.auth(refresh_interval=None)
class Bearers:
    """Who makes a request: somebody who writes everywhere, or where that is not enough an operator."""

    def get(self, case: Case[Any], context: schemathesis.AuthContext) -> str:
        """The token."""
        needs = context.operation.definition.raw.get("x-needs")
        return os.environ["JOURNAL_OPERATES" if needs in ("operate", "service", "read_all") else "JOURNAL_WRITES"]

    def set(self, case: Case[Any], data: str, context: schemathesis.AuthContext) -> None:
        """Bear it."""
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.deserializer("application/msgpack")
def unpacked(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """MessagePack says what JSON does."""
    return msgspec.msgpack.decode(response.content)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: Json) -> None:
    """Before each request."""
    kwargs["allow_redirects"] = False
    if case.path_parameters is not None and case.query is not None:
        bounded(case)
    if case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE:
        made_right(case)


def bounded(case: Case[Any]) -> None:
    """Nothing waits for long, and no stream goes on for ever."""
    wait = case.query.get("wait")
    if is_number(wait) and float(str(wait)) > LONGEST_WAIT_S:
        case.query["wait"] = LONGEST_WAIT_S
    if "wait" in str(case.headers.get("Prefer")):
        case.headers["Prefer"] = "wait=0"
    if case.path.endswith("/stream"):
        for place in (case.query, case.headers):
            for name in ("since", "Last-Event-ID"):
                if place and name in place and leads_on(place[name]):
                    place[name] = ELSEWHERE


def is_number(value: object) -> bool:
    return re.fullmatch(r"[0-9]+\.?[0-9]*", str(value)) is not None


def leads_on(value: object) -> bool:
    try:
        parse_since(str(value))
    except InvalidRequest:
        return False
    return True


def made_right(case: Case[Any]) -> None:
    """What is meant to be right names what there is."""
    places = case.path_parameters
    if "file" in places:
        places["file"] = "app.js"
    if "j" in places and case.operation.label != f"PUT {J}":
        places["j"] = journal_for(case)
    j = places.get("j", "kept")
    if "id" in places:
        places["id"] = id_for(case, j) or places["id"]
    head = told(f"/v1/journals/{j}") if "j" in places else {}
    query_made_right(case, head)
    if isinstance(case.body, dict):
        body = held(case.body)
        body_made_right(case.path.removeprefix(J), body, head)
        case.body = body


def journal_for(case: Case[Any]) -> str:
    name = "kept"
    if case.operation.label == f"DELETE {J}":
        name = f"doomed-{next(_count)}"
        told(f"/v1/journals/{name}", "PUT")
    return name


def id_for(case: Case[Any], j: str) -> str | None:
    """An id that there is, of the kind that the path asks for."""
    kind = case.path.split("/")[4]
    journal = f"/v1/journals/{j}"
    if kind == "snapshots":
        place = told(f"{journal}/snapshot").get("location", "")
        return str(place).rpartition("/")[2] or None
    if kind == "clients" and case.method == "DELETE":
        client = str(uuid4())
        told(f"{journal}/changes", "POST", {"changes": [], "client": client, "push": 1})
        return client
    found = told(f"{journal}/{kind}" + ("?state=all" if kind == "conflicts" else "")).get(kind, [])
    if not found:
        return None
    return str(found[next(_count) % len(found)]["client" if kind == "clients" else "id"])


def query_made_right(case: Case[Any], head: Json) -> None:
    query, where = case.query, case.path.removeprefix(J)
    if where == "/stream" and "Last-Event-ID" not in case.headers:  # one of the two, which no schema can say
        query["since"] = ELSEWHERE
    if "since" in query:
        query["since"] = ELSEWHERE if where == "/stream" else head.get("cursor", 0)
    if "until" in query:
        query["until"] = head.get("head", 0)
    if "at" in query:
        query["at"] = head.get("cursor" if where == "/cursor" else "head", 0)
    if where.startswith("/atom"):
        query.update(collection="todo", atom="a")
    if where in ("/clients", "/manifest"):
        query.pop("after", None)


def body_made_right(where: str, body: Json, head: Json) -> None:
    if where in ("/changes", "/sync"):
        push_made_right(body, head)
    if where == "/sync":
        body["since"] = head.get("cursor", 0)
    if where == "/compact":
        body["keep_revisions"] = 1000
    if where == "/v1/server":
        body.update({name: told(where)[name] or 1 for name in ("system", "timeline")})
    if where == "/restored":
        body.pop("revision", None)


def push_made_right(body: Json, head: Json) -> None:
    """A base, data that a double holds, and the members that go with each op."""
    body["base"] = head.get("cursor", "")
    if "push" in body:
        body.setdefault("client", str(uuid4()))
    for change in body.get("changes", []):
        if change["op"] in ("insert", "put"):
            change.setdefault("data", {})
        if change["op"] == "update":
            change.setdefault("unset", [])
        else:
            change.pop("unset", None)
        if change["op"] == "delete":
            change.pop("data", None)
        if "base" in change:
            change["base"] = head.get("horizon", 0)


def held(value: Any) -> Any:
    """A value that I-JSON keeps as it is, with integers that are written as such: 1.0 is one to a schema only."""
    match value:
        case dict():
            return {str(held(name)): held(member) for name, member in value.items()}
        case list():
            return [held(member) for member in value]
        case str():
            return value.replace("\0", "").encode(errors="ignore").decode()
        case bool() | None:
            return value
        case float() if value.is_integer() and abs(value) <= 2**53:
            return int(value)
        case int() if abs(value) > 2**53:
            return 2**53
        case _:
            return value
