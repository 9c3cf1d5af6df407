"""The import form: a commit a line, `{"at": …, "changes": [{"op", "collection", "atom", "data"?, "unset"?}]}`.

The rule: a line is read as strictly as a request, and what is wrong with it is told with its number.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from typing import IO, Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from journal.cli.say import Failed
from journal.client.packed import CutOff, lines, unpacked
from journal.config import MIB, Limits
from journal.core import ijson
from journal.core.ijson import Fault
from journal.core.model import PushChange, on_one_line
from journal.core.names import atom_ok, collection_ok
from journal.faults import faults
from journal.service.imports import Entry
from journal.wire import AtomName, CollectionName, Data

LINE_BYTES = 64 * MIB
PIECE = 256 * 1024


class ChangeLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A change, as a history says it."""

    op: Literal["insert", "update", "replace", "put", "delete"]
    collection: CollectionName
    atom: AtomName
    data: Data | UnsetType = UNSET
    unset: list[str] | UnsetType = UNSET


class CommitLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line."""

    at: Annotated[datetime, Meta(tz=True)]
    changes: list[ChangeLine]


class _Line(NamedTuple):
    number: int
    text: bytes
    content: bytes  # a hash over it and all before it: a file is the same only if none of that was altered


class Lines:
    """The commits of a file: its lines, numbered from 1, but for those that are empty."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name = file, name
        self._lines = self._numbered()
        first = next(self._lines, None)
        self.beginning = b"" if first is None else first.content
        if first is not None:
            self._lines = chain([first], self._lines)

    def skip(self, number: int) -> bytes | None:
        """The content of line `number`, behind which `entries` goes on; None where there is no such line."""
        return next((line.content for line in self._lines if line.number == number), None)

    def entries(self) -> Iterator[Entry]:
        """The rest."""
        for line in self._lines:
            commit = _read(line)
            yield Entry(line.number, commit.at, [_change(change) for change in commit.changes], line.content)

    def where(self, number: int) -> str:
        """How a person calls the commit of this number."""
        return f"line {number}"

    def _numbered(self) -> Iterator[_Line]:
        number, content = 0, b""
        try:
            for number, text in enumerate(lines(_pieces(self.file), longest=LINE_BYTES), 1):
                text = text.strip()
                if text:
                    content = sha256(content + text).digest()
                    yield _Line(number, text, content)
        except (CutOff, ValueError) as error:
            raise Failed("unreadable", f"{self.name}, line {number + 1}: {error}") from None


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    return unpacked(iter(lambda: file.read(PIECE), b""))


_decode = msgspec.json.Decoder(CommitLine).decode


def _read(line: _Line) -> CommitLine:
    wrong = ijson.check(line.text, depth=Limits().nesting)
    if not wrong:
        try:
            commit = _decode(line.text)
        except msgspec.ValidationError as error:
            wrong = faults(json.loads(line.text), CommitLine) or [Fault("", str(error))]
        else:
            if _is_in_calendar(commit.at) and all(map(_is_sound, commit.changes)):
                return commit
            wrong = faults(json.loads(line.text), CommitLine) or list(_slips(commit))
    told = [f"{fault.pointer}: {fault.detail}".removeprefix(": ") for fault in wrong[:3]]
    raise Failed("invalid_line", f"line {line.number}: {'; '.join(told)}{'; …' * (len(wrong) > 3)}")


def _is_sound(change: ChangeLine) -> bool:
    return (
        collection_ok(change.collection)
        and atom_ok(change.atom)
        and (change.data is UNSET or bytes(change.data).startswith(b"{"))
        and _slip(change) is None
    )


def _is_in_calendar(at: datetime) -> bool:
    try:
        at.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _slips(commit: CommitLine) -> Iterator[Fault]:
    if not _is_in_calendar(commit.at):
        yield Fault("/at", "is beyond the years 1 to 9999 in UTC")
    for place, change in enumerate(commit.changes):
        if (slip := _slip(change)) is not None:
            yield Fault(f"/changes/{place}", slip)


def _slip(change: ChangeLine) -> str | None:
    """Which members go with which op."""
    has_data, has_unset = change.data is not UNSET, change.unset is not UNSET
    if change.op == "update":
        return None if has_data or has_unset else "an update has data, unset or both"
    if has_unset:
        return "unset goes with an update only"
    if change.op == "delete":
        return "a delete has no data" if has_data else None
    return None if has_data else f"data is missing: {change.op} has the whole data of the atom"


def _change(change: ChangeLine) -> PushChange:
    return PushChange(
        op="put" if change.op == "replace" else change.op,
        collection=change.collection,
        atom=change.atom,
        data=None if change.data is UNSET else on_one_line(bytes(change.data)),
        unset=() if change.unset is UNSET else tuple(change.unset),
    )
