"""Whether an answer is what the description of the service says: the document of /openapi.json, read strictly.

The document lets clients meet members that they do not know; here a member that it does not know is a fault.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec

from journal.config import Settings
from journal.service.running import Service
from journal.web.description.openapi import document
from journal.web.routes import Routes
from journal.wire import COMPONENT

Schema = dict[str, Any]
MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.[0-9]+)?(?:[Zz]|[+-]([0-9]{2}):?([0-9]{2}))"
)
HEX_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")
EVENT = re.compile(rb"event: (\w+)\n(?:id: .*\n)?((?:data: .*\n)+)")


@cache
def described() -> Schema:
    """The document, as a client reads it."""
    settings = Settings(dsn="", spool=Path("."))
    made: Schema = json.loads(msgspec.json.encode(document(Routes(Service(settings)).table(), settings.limits)))
    return made


def operation(method: str, path: str) -> Schema | None:
    """What the document says of a call; None where it knows no such path, or not by this method."""
    for pattern, methods in _paths():
        if pattern.fullmatch(path):
            found: Schema | None = methods.get("get" if method == "HEAD" else method.lower())
            return found
    return None


def conforms(method: str, url: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """AssertionError where the answer to a call is none that the document tells of."""
    said = operation(method, urlsplit(url).path)
    if said is None:
        elsewhere = (204, 404, 405) if method == "OPTIONS" else (404, 405)
        assert status in (*elsewhere, 403, 421, 429), f"{method} {url}: {status}, and the document has no such call"
        return
    told = said["responses"].get(str(status))
    assert told is not None, f"{method} {url}: {status} is not in the document: {body[:300]!r}"
    for name, reference in told["headers"].items():
        assert name in headers, f"{method} {url}: {status} without {name}"
        header = described()["components"]["headers"][reference["$ref"].rpartition("/")[2]]
        value: str | int = headers[name]
        _valid(json.dumps(header["schema"]), int(value) if header["schema"].get("type") == "integer" else value)
    forms = told.get("content")
    if method == "HEAD" or forms is None:
        assert not body, f"{method} {url}: {status} with a body"
        return
    media = headers["Content-Type"].partition(";")[0]
    assert media in forms, f"{method} {url}: {status} as {media}, of {', '.join(forms)}"
    bodies_conform(forms[media]["schema"], media, body, is_whole=status != 206)


def bodies_conform(schema: Schema, media: str, body: bytes, *, is_whole: bool = True) -> None:
    """The same of a body of one form."""
    if media == "text/event-stream":
        kinds = {kind["title"]: kind["properties"]["data"]["contentSchema"] for kind in schema["anyOf"][:-1]}
        for name, data in EVENT.findall(body):
            one = b"\n".join(line.removeprefix(b"data: ") for line in data.splitlines())
            _valid(json.dumps(kinds[name.decode()]), json.loads(one))
    elif "x-lines" in schema and is_whole:
        lines = [json.loads(line) for line in body.splitlines()]
        kinds = schema["x-lines"]
        for place, line in enumerate(lines):
            kind = "first" if place == 0 else "last" if place == len(lines) - 1 else "each"
            _valid(json.dumps(kinds[kind]), line)
    elif media == "application/msgpack":
        _valid(json.dumps(schema), msgspec.msgpack.decode(body))
    elif media in ("application/json", "application/problem+json"):
        _valid(json.dumps(schema), json.loads(body))


def is_moment(text: str) -> bool:
    """Whether it is a time that requests may say: RFC 3339, also with a blank for T, and offsets without a colon."""
    match = MOMENT.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    try:
        datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return False
    return match[7] is None or (int(match[7]) < 24 and int(match[8]) < 60)


def is_uuid(text: str) -> bool:
    """Whether it is a UUID as requests may write it: with all of its hyphens, or none."""
    return HEX_UUID.fullmatch(text) is not None


def is_valid(shape: type[msgspec.Struct], value: object) -> bool:
    """Whether `value` is a body of this Struct."""
    return is_valid_by({"$ref": f"{COMPONENT}{shape.__name__}"}, value)


def is_valid_by(schema: Schema, value: object) -> bool:
    """Whether `value` is valid by a schema of the document."""
    is_sound: bool = _requests(json.dumps(schema)).is_valid(value)
    return is_sound


def _valid(schema: str, value: object) -> None:
    wrong = next(iter(_validator(schema).iter_errors(value)), None)
    assert wrong is None, f"{wrong.message} at {wrong.instance_path}: {schema}, {str(value)[:500]}"


@cache
def _validator(schema: str) -> Any:
    whole = {**json.loads(schema), "components": _strict()}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


@cache
def _requests(schema: str) -> Any:
    formats = {"date-time": is_moment, "uuid": is_uuid}
    whole = {**json.loads(schema), "components": _strict()}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True, formats=formats)


@cache
def _strict() -> Schema:
    components: Schema = json.loads(json.dumps(described()["components"]))
    for schema in components["schemas"].values():
        if "properties" in schema and "allOf" not in schema:
            schema.setdefault("additionalProperties", False)
    return {"schemas": components["schemas"]}


@cache
def _paths() -> list[tuple[re.Pattern[str], Schema]]:
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), methods) for path, methods in described()["paths"].items()]
