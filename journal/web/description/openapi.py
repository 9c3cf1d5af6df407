"""OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1): this service described for programs.

Made of the routes, of what their handlers read with, and of the Structs of their bodies; nothing is said here alone.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, get_args

import msgspec
from aiohttp import web
from msgspec import UnsetType

import journal
from journal.config import Limits
from journal.errors import Forbidden, RequestError, Unavailable
from journal.service.answer import MEDIA, Answer, whole
from journal.web import send
from journal.web.description import calls as known
from journal.web.description import wording
from journal.web.description.calls import Call, Events, Lines, Struct, Told
from journal.web.description.described import BESIDES, Problem
from journal.web.middleware import InternalError
from journal.web.pages import HEADERS
from journal.web.parameters import Schema
from journal.web.routing import Route
from journal.wire import (
    COMPONENT,
    CheckResult,
    CompactResult,
    CursorText,
    JournalName,
    PushRequest,
    SyncRequest,
    schema_of,
)

_REF = COMPONENT + "{name}"
_ALWAYS_TOLD = ("X-Request-Id",)
_OF_CALLERS = (401, 403, 429)  # told to whoever has to say who they are
_PARAMETER = re.compile(r"\{(\w+)\}")
_METHOD_AND_PATH = re.compile(r"^(?:GET|PUT|POST|DELETE) \S+[:.]\s*")


def document(routes: Iterable[Route], limits: Limits) -> Schema:
    """All of it."""
    routes = list(routes)
    table = known.calls(limits)
    paths: dict[str, dict[str, Schema]] = {}
    for route in routes:
        call = table.get((route.method, route.path)) or Call("Not yet described", {})
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, call)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "journal",
            "summary": "A change journal and sync service on PostgreSQL",
            "description": wording.ABOUT,
            "version": journal.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": said} for name, said in wording.GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(table.values(), limits),
            "headers": {
                name: {"description": header.said, "required": True, "schema": header.schema}
                for name, header in known.TOLD_HEADERS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": wording.TOKEN}},
        },
    }


class Described:
    """The handlers of the document and of the page that shows it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._document = self._page = Answer("", b"", "", coded={})

    def beside(self, others: list[Route], page: Answer) -> list[Route]:
        """Those routes and the document's own, all of which it describes."""
        own = [Route("GET", "/openapi.json", self.document, "nothing"), Route("GET", "/docs", self.docs, "nothing")]
        body = msgspec.json.encode(document([*others, *own], self.limits))
        self._document, self._page = whole(body), page
        return [*others, *own]

    async def document(self, request: web.Request) -> web.StreamResponse:
        """GET /openapi.json: this service, described for programs."""
        return await send.answer(request, self._document)

    async def docs(self, request: web.Request) -> web.StreamResponse:
        """GET /docs: the same for people."""
        return await send.answer(request, self._page, headers=HEADERS)


def errors() -> Iterator[type[RequestError]]:
    """Every error that a caller can be told, one of those that share a code."""
    seen: set[str] = set()
    found: list[type[RequestError]] = [RequestError]
    for error in found:
        found += error.__subclasses__()
        if "code" in vars(error) and error.code not in seen:
            seen.add(error.code)
            yield error


def _operation(route: Route, call: Call) -> Schema:
    said = inspect.cleandoc(route.handler.__doc__ or "")
    first, _, rest = said.partition("\n")
    first = _METHOD_AND_PATH.sub("", first)
    told: Schema = {
        "operationId": route.handler.__name__,
        "tags": [call.group],
        "summary": (first[:1].upper() + first[1:]).rstrip("."),
        "description": "\n\n".join(part for part in (rest.strip(), wording.NEEDS[route.needs]) if part),
    }
    if route.needs != "nothing":
        told |= {"security": [{"token": []}], "x-needs": route.needs}
    if found := [*_in_path(route.path, call), *_in_query(call), *_in_headers(call)]:
        told["parameters"] = found
    if call.body is not None:
        content: Schema = {"schema": _ref(call.body)}
        if example := wording.EXAMPLES.get(call.body):
            content["example"] = example
        told["requestBody"] = {"required": True, "content": {MEDIA["json"]: content}}
    told["responses"] = dict(sorted(_answers(route, call)))
    return told


def _in_path(path: str, call: Call) -> Iterator[Schema]:
    for name in _PARAMETER.findall(path):
        schema = schema_of(JournalName) if name == "j" else call.id or {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema, "description": wording.PLACES[name]}


def _in_query(call: Call) -> Iterator[Schema]:
    for name, reader in call.query.known.items():
        default = {"default": call.query.default[name]} if call.query.default.get(name) else {}
        parameter: Schema = {
            "name": name,
            "in": "query",
            "schema": reader.schema | default,
            "description": wording.PARAMETERS[name],
        }
        if name in call.query.required:
            parameter["required"] = True
        if reader.schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        yield parameter


def _in_headers(call: Call) -> Iterator[Schema]:
    for name in call.headers:
        reader, said = known.REQUEST_HEADERS[name]
        yield {"name": name, "in": "header", "schema": reader.schema, "description": said}


def _answers(route: Route, call: Call) -> Iterator[tuple[str, Schema]]:
    for status, told in call.answers.items():
        yield str(status), _answer(status, told)
    by_status: dict[int, list[type[RequestError]]] = {}
    for error in _errors_of(route, call):
        by_status.setdefault(error.status, []).append(error)
    for status, found in by_status.items():
        yield str(status), _problem(status, found)


def _answer(status: int, told: Told) -> Schema:
    body: Schema = {"description": HTTPStatus(status).phrase, "headers": _headers(told.headers)}
    if told.forms:
        body["content"] = {media: {"schema": _shape(shape)} for media, shape in told.forms.items()}
    return body


def _shape(shape: Struct | Lines | Events | Schema) -> Schema:
    match shape:
        case Lines(first, each, last):
            return {"type": "string", "x-lines": {"first": _ref(first), "each": _ref(each), "last": _ref(last)}}
        case Events(data):  # before OpenAPI 3.2 this tells of each event
            return {"anyOf": [*(_event(name, struct) for name, struct in data.items()), {"required": ["retry"]}]}
        case dict():
            return shape
        case _:
            return _ref(shape)


def _event(name: str, shape: Struct) -> Schema:
    data = {"type": "string", "contentMediaType": MEDIA["json"], "contentSchema": _ref(shape)}
    members = {"event": {"const": name}, "id": schema_of(CursorText), "data": data}
    return {"type": "object", "title": name, "properties": members, "required": ["event", "data"]}


def _errors_of(route: Route, call: Call) -> list[type[RequestError]]:
    """What can go wrong with a call, beginning with what it says itself."""
    found = list(call.errors)
    found += known.ALWAYS if call.reads_query else ()
    found += known.OF_A_JOURNAL if "{j}" in route.path else ()
    found += known.WITH_A_BODY if call.body is not None else ()
    found += (Unavailable, InternalError, *known.ANYWHERE)
    found += (Forbidden,) if route.method != "GET" else ()  # to pages of others: web/origins.py
    if route.needs != "nothing":
        found += [error for error in errors() if error.status in _OF_CALLERS]
    return list(dict.fromkeys(found))


def _problem(status: int, found: list[type[RequestError]]) -> Schema:
    shapes = [{"$ref": _REF.format(name=error.code)} for error in found]
    headers = ("Cache-Control", "Retry-After") if status in (410, 429, 503) else ("Cache-Control",)
    return {
        "description": " · ".join(f"`{error.code}`: {_line(error)}" for error in found),
        "headers": _headers(headers),
        "content": {known.PROBLEM: {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}},
    }


def _headers(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, *_ALWAYS_TOLD)}


def _ref(shape: Struct) -> Schema:
    return {"$ref": _REF.format(name=shape.__name__)}


def _schemas(table: Iterable[Call], limits: Limits) -> Schema:
    """The Structs of all calls, and each error's problem."""
    shapes: dict[Struct, None] = dict.fromkeys((Problem, CompactResult, CheckResult))
    for call in table:
        shapes |= dict.fromkeys([] if call.body is None else [call.body])
        for told in call.answers.values():
            for shape in told.forms.values():
                shapes |= dict.fromkeys(_structs(shape))
    shapes |= dict.fromkeys(known.SHAPES.values())
    _, schemas = msgspec.json.schema_components(list(shapes), ref_template=_REF)
    for shape in _reachable(shapes):
        _always_there(schemas[shape.__name__], shape)
        schemas[shape.__name__]["description"] = inspect.cleandoc(schemas[shape.__name__].get("description", ""))
    for shape, besides in BESIDES.items():
        schemas[shape.__name__] |= besides
    for shape in (PushRequest, SyncRequest):
        schemas[shape.__name__]["properties"]["changes"]["maxItems"] = limits.changes
    schemas[SyncRequest.__name__]["properties"]["limit"]["maximum"] = limits.deltas
    return schemas | {error.code: _of_error(error) for error in errors()}


def _structs(shape: Struct | Lines | Events | Schema) -> Iterable[Struct]:
    match shape:
        case Lines():
            return shape
        case Events(data):
            return data.values()
        case dict():
            return ()
        case _:
            return (shape,)


def _reachable(shapes: Iterable[Struct]) -> set[Struct]:
    """The Structs, and those that stand in them."""
    found: set[Struct] = set()
    waiting: list[Any] = list(shapes)
    while waiting:
        part = waiting.pop()
        if not (isinstance(part, type) and issubclass(part, msgspec.Struct)):
            waiting += get_args(part)
        elif part not in found:
            found.add(part)
            waiting += [field.type for field in msgspec.structs.fields(part)]
    return found


def _always_there(schema: Schema, shape: Struct) -> None:
    """Of what is told, a member with a default is there all the same, unless defaults are left out."""
    config = shape.__struct_config__
    if config.forbid_unknown_fields or config.omit_defaults:
        return
    there = [field.encode_name for field in msgspec.structs.fields(shape) if UnsetType not in get_args(field.type)]
    schema["required"] = there
    for member in schema["properties"].values():
        member.pop("default", None)


def _of_error(error: type[RequestError]) -> Schema:
    shape = next((known.SHAPES[kind] for kind in error.__mro__ if kind in known.SHAPES), Problem)
    return {
        "description": _line(error),
        "allOf": [_ref(shape)],
        "properties": {"status": {"const": error.status}, "code": {"const": error.code}},
    }


def _line(error: type[RequestError]) -> str:
    return (error.__doc__ or "").partition("\n")[0]
