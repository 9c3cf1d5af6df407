"""Query parameters: read strictly, every slip told.

The rule: an unknown, doubled or unreadable parameter is a fault that points at itself, never silence.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from journal.config import Limits
from journal.core import cursor
from journal.core.names import atom_ok, collection_ok, journal_ok
from journal.errors import Fault, InvalidRequest
from journal.faults import unknown
from journal.service.answer import MEDIA, Form
from journal.service.rounds import Page, page
from journal.service.tree import Of
from journal.store.conflicts import State

Read = Callable[[str], Any]


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


def _pairs(query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=64)
    except UnicodeDecodeError:
        raise InvalidRequest([Fault("", "the query is not UTF-8")]) from None
    except ValueError:
        raise InvalidRequest([Fault("", "too many parameters", 64)]) from None


def number(lowest: int, highest: int) -> Read:
    """A reader of whole numbers within bounds."""

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


def seconds(most: int) -> Read:
    """A reader of a time in seconds."""

    def read_seconds(text: str) -> float:
        if not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 16:
            raise WrongValue("must be a number of seconds")
        value = float(text)
        if value > most:
            raise WrongValue(f"must be at most {most}", most)
        return value

    return read_seconds


def collections(text: str) -> frozenset[str]:
    """Names with commas between."""
    names = text.split(",")
    if wrong := [name for name in names if not collection_ok(name)]:
        raise WrongValue(f"no name of a collection: {wrong[0]!r} (1–128 bytes, no comma or control character)", 128)
    return frozenset(names)


def collection(text: str) -> str:
    """One collection's name."""
    if not collection_ok(text):
        raise WrongValue("no name of a collection: 1–128 bytes, no comma or control character", 128)
    return text


def atom(text: str) -> str:
    """One atom's name."""
    if not atom_ok(text):
        raise WrongValue("no name of an atom: 1–255 bytes, no control character", 255)
    return text


def journal(text: str) -> str:
    """One journal's name."""
    if not journal_ok(text):
        raise WrongValue("no name of a journal: 1–63 of a-z 0-9 _ -, a letter or digit first", 63)
    return text


def client(text: str) -> str:
    """A client's id."""
    try:
        return str(UUID(text))
    except ValueError:
        raise WrongValue("must be a UUID") from None


def conflict_state(text: str) -> State:
    """Which conflicts."""
    match text:
        case "open" | "settled" | "all":
            return text
    raise WrongValue("must be one of open, settled, all")


def plain(text: str) -> str:
    """Whatever it says."""
    return text


def form(text: str) -> str:
    """The name of a form."""
    if text not in MEDIA:
        raise WrongValue(f"must be one of {', '.join(MEDIA)}")
    return text


def include(text: str) -> frozenset[str]:
    """What deltas shall have besides."""
    wanted = frozenset(text.split(","))
    if not wanted <= {"meta", "revisions"}:
        raise WrongValue("must be of meta, revisions")
    return wanted


def since(text: str) -> cursor.Cursor | int:
    """A cursor or a bare revision."""
    return cursor.parse_since(text)


def at_cursor(text: str) -> cursor.Cursor:
    """A cursor."""
    return cursor.parse(text, parameter="at")


class DeltasReader:
    """Reads the query of …/deltas, and remembers the recent ones: clients in step ask alike."""

    def __init__(self, limits: Limits) -> None:
        self._known: dict[str, Read] = {
            "since": since,
            "limit": number(1, limits.deltas),
            "until": revision,
            "collections": collections,
            "client": client,
            "wait": seconds(limits.wait_s),
            "include": include,
            "format": form,
        }
        self.read = lru_cache(maxsize=4096)(self._read)

    def _read(self, query: str, form: Form) -> Page:
        found = read(query, self._known, required=("since",))
        include = found.pop("include", frozenset())
        return page(
            found.pop("since"),
            wait_s=found.pop("wait", 0.0),
            form=found.pop("format", form),
            with_meta="meta" in include,
            with_revisions="revisions" in include,
            **found,
        )


_PREFIX = re.compile(r"[0-9a-f]{0,64}").fullmatch


def prefix(text: str) -> str:
    """The beginning of atoms' places."""
    if not _PREFIX(text):
        raise WrongValue("must be up to 64 hex digits, in lower case", 64)
    return text


def place(text: str) -> str:
    """An atom's place."""
    if len(text) != 64 or not _PREFIX(text):
        raise WrongValue("must be the `next` of the page before: 64 hex digits")
    return text


def of(text: str) -> Of:
    """What leaves are of."""
    match text:
        case "revision" | "content":
            return text
    raise WrongValue("must be one of revision, content")
