"""Query parameters: read strictly, every slip told.

The rules: an unknown, doubled or unreadable parameter is a fault that points at itself, never silence; and what reads
a parameter bears the JSON Schema of it, so that the description of this service cannot say anything else.
"""

import re
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, Generic, NamedTuple, TypeVar, get_args
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

from journal import wire
from journal.core import cursor
from journal.core.names import atom_ok, collection_ok, journal_ok
from journal.errors import Fault, InvalidRequest
from journal.faults import unknown
from journal.service.answer import MEDIA
from journal.service.tree import Of
from journal.store.conflicts import State

_KEY = re.compile(r"[\x20-\x7e]{1,255}").fullmatch
Value = TypeVar("Value")
Schema = dict[str, Any]


class Reader(Generic[Value]):
    """What makes a value of a parameter's text, and the JSON Schema of what it takes.

    A list is written with commas between its items.
    """

    def __init__(self, made: Callable[[str], Value], schema: Schema) -> None:
        update_wrapper(self, made)
        self._made, self.schema = made, schema

    def __call__(self, text: str) -> Value:
        return self._made(text)


Read = Reader[Any]


def takes(schema: Schema) -> Callable[[Callable[[str], Value]], Reader[Value]]:
    """Makes a reader of a function; the schema is of what it takes."""

    def reader(made: Callable[[str], Value]) -> Reader[Value]:
        return Reader(made, schema)

    return reader


class WrongValue(Exception):
    """What is wrong with a parameter's value."""

    def __init__(self, detail: str, limit: int | None = None) -> None:
        super().__init__(detail)
        self.detail, self.limit = detail, limit


def read(query: str, known: Mapping[str, Read], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The parameters of a query string by name, each as its reader gives it; InvalidRequest with all that is wrong."""
    faults: list[Fault] = []
    found: dict[str, Any] = {}
    for name, text in _pairs(query):
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        if name not in known:
            faults.append(Fault(pointer, unknown(name, known)))
        elif name in found:
            faults.append(Fault(pointer, "given twice"))
        else:
            found[name] = None
            try:
                found[name] = known[name](text)
            except WrongValue as wrong:
                faults.append(Fault(pointer, wrong.detail, wrong.limit))
            except InvalidRequest as error:
                faults.extend(error.errors)
    faults += [Fault(f"/{name}", "missing") for name in required if name not in found]
    if faults:
        raise InvalidRequest(faults)
    return found


class Query(NamedTuple):
    """What a call's query may say: a reader for each parameter, and what holds where one is not given."""

    known: Mapping[str, Read]
    required: tuple[str, ...] = ()
    default: Mapping[str, Any] = {}

    def read(self, text: str) -> dict[str, Any]:
        """The parameters, and the defaults of those that are not there."""
        return {**self.default, **read(text, self.known, required=self.required)}


def _pairs(query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        query.encode()
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=64)
    except UnicodeError:
        raise InvalidRequest([Fault("", "the query is not UTF-8")]) from None
    except ValueError:
        raise InvalidRequest([Fault("", "too many parameters", 64)]) from None


def number(lowest: int, highest: int) -> Reader[int]:
    """A reader of whole numbers within bounds."""

    @takes({"type": "integer", "minimum": lowest, "maximum": highest})
    def read_number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 16):
            raise WrongValue("must be a whole number")
        value = int(text)
        if value < lowest:
            raise WrongValue(f"must be at least {lowest}", lowest)
        if value > highest:
            raise WrongValue(f"must be at most {highest}", highest)
        return value

    return read_number


revision = number(0, cursor.LARGEST)


_SECONDS = re.compile(r"[0-9]{1,16}(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,3})?").fullmatch  # as JSON has it


def seconds(most: int) -> Reader[float]:
    """A reader of a time in seconds."""

    @takes({"type": "number", "minimum": 0, "maximum": most})
    def read_seconds(text: str) -> float:
        if not _SECONDS(text):
            raise WrongValue("must be a number of seconds")
        value = float(text)
        if value > most:
            raise WrongValue(f"must be at most {most}", most)
        return value

    return read_seconds


@takes({"type": "array", "minItems": 1, "items": wire.schema_of(wire.CollectionName)})
def collections(text: str) -> frozenset[str]:
    """Names with commas between."""
    names = text.split(",")
    if wrong := [name for name in names if not collection_ok(name)]:
        raise WrongValue(f"no name of a collection: {wrong[0]!r} (1–128 bytes, no comma or control character)", 128)
    return frozenset(names)


@takes(wire.schema_of(wire.CollectionName))
def collection(text: str) -> str:
    """One collection's name."""
    if not collection_ok(text):
        raise WrongValue("no name of a collection: 1–128 bytes, no comma or control character", 128)
    return text


@takes(wire.schema_of(wire.AtomName))
def atom(text: str) -> str:
    """One atom's name."""
    if not atom_ok(text):
        raise WrongValue("no name of an atom: 1–255 bytes, no control character", 255)
    return text


@takes(wire.schema_of(wire.JournalName))
def journal(text: str) -> str:
    """One journal's name."""
    if not journal_ok(text):
        raise WrongValue("no name of a journal: 1–63 of a-z 0-9 _ -, a letter or digit first", 63)
    return text


@takes({"type": "string", "format": "uuid"})
def client(text: str) -> str:
    """A client's id."""
    found = uuid(text)
    if found is None:
        raise WrongValue("must be a UUID")
    return str(found)


def uuid(text: str) -> UUID | None:
    """The UUID that `text` is, as bodies have it; Python's own reading takes blanks and underscores for digits."""
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        return None


@takes({"enum": list(get_args(State))})
def conflict_state(text: str) -> State:
    """Which conflicts."""
    match text:
        case "open" | "settled" | "all":
            return text
    raise WrongValue("must be one of open, settled, all")


@takes({"type": "string"})
def text(said: str) -> str:
    """Whatever it says."""
    return said


@takes({"type": "string", "pattern": r"^[\x20-\x7e]{1,255}$"})
def key(said: str) -> str:
    """What a push that is not numbered is told from others by."""
    if not _KEY(said):
        raise InvalidRequest([Fault("", "Idempotency-Key: 1–255 printable characters of ASCII", 255)])
    return said


@takes({"enum": list(MEDIA)})
def form(text: str) -> str:
    """The name of a form."""
    if text not in MEDIA:
        raise WrongValue(f"must be one of {', '.join(MEDIA)}")
    return text


@takes({"type": "array", "minItems": 1, "items": {"enum": ["meta", "revisions"]}})
def include(text: str) -> frozenset[str]:
    """What deltas shall have besides."""
    wanted = frozenset(text.split(","))
    if not wanted <= {"meta", "revisions"}:
        raise WrongValue("must be of meta, revisions")
    return wanted


@takes({"anyOf": [wire.schema_of(wire.CursorText), wire.schema_of(wire.Revision)]})
def since(text: str) -> cursor.Cursor | int:
    """A cursor or a bare revision."""
    return cursor.parse_since(text)


@takes(wire.schema_of(wire.CursorText))
def at_cursor(text: str) -> cursor.Cursor:
    """A cursor."""
    return cursor.parse(text, parameter="at")


_PREFIX = re.compile(r"[0-9a-f]{0,64}").fullmatch


@takes({"type": "string", "pattern": "^[0-9a-f]{0,64}$"})
def prefix(text: str) -> str:
    """The beginning of atoms' places."""
    if not _PREFIX(text):
        raise WrongValue("must be up to 64 hex digits, in lower case", 64)
    return text


@takes({"type": "string", "pattern": "^[0-9a-f]{64}$"})
def place(text: str) -> str:
    """An atom's place."""
    if len(text) != 64 or not _PREFIX(text):
        raise WrongValue("must be the `next` of the page before: 64 hex digits")
    return text


@takes({"enum": list(get_args(Of))})
def of(text: str) -> Of:
    """What leaves are of."""
    match text:
        case "revision" | "content":
            return text
    raise WrongValue("must be one of revision, content")
