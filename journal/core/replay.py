"""Replaying: what the changes of an atom add up to by the record alone, to compare with what is stored.

Pure. What stands after the changes that core/decide.py recorded is what it recorded with them (test_replay.py).
The one rule: nothing is told that the record does not prove. Where it does not reach back to the atom's beginning
(compaction removed that, or it is missing), or where data was erased, only what was set since is compared. Nor is
any value told, since what is told here is kept where no erasure looks for it.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET, UnsetType

from journal.core.equal import same
from journal.core.model import Change, Op, decode_fields, type_of_fields


class Stored(msgspec.Struct, frozen=True):
    """A row of journal.atom as it was found: whether its columns agree with one another is not known."""

    born: int
    born_by: int | None
    created: int
    revision: int
    is_deleted: bool
    data: bytes | None
    fk: tuple[str, ...]
    fr: tuple[int, ...]


class Impossible(Exception):
    """A change that cannot follow those before it, or whose data is none."""


class Replay:
    """One atom, its changes taken one by one. Of what happened up to the revision `unknown` nothing is known.

    `is_living` is None where that is not known either.
    """

    __slots__ = ("_blank", "_born", "_born_by", "_created", "_data", "_fields", "_is_whole", "is_living", "unknown")

    def __init__(self, unknown: int = 0) -> None:
        self.unknown = unknown
        self.is_living: bool | None = None if unknown else False
        self._born: int | None = None
        self._born_by: int | UnsetType | None = UNSET  # unset: not known
        self._created: int | None = None
        self._data: type_of_fields = {}
        self._fields: dict[str, int] = {}
        self._is_whole = not unknown  # else there may be more fields, last set up to the revision `blank`
        self._blank = unknown

    def take(self, change: Change, *, is_client_known: bool = True) -> None:
        """Take the next change; Impossible where it cannot follow, and then nothing is taken."""
        if self.is_living is (change.op is Op.INSERT):
            detail = "lives" if self.is_living else "does not live"
            raise Impossible(f"its op is {change.op.name.lower()}, of an atom that {detail} by then")
        data = _decoded(change)
        if change.op is Op.INSERT:
            self._bear(change, is_client_known=is_client_known)
        if change.op is not Op.UPDATE:
            self._data, self._fields, self._is_whole = {}, {}, True
        if change.op in (Op.INSERT, Op.REPLACE):
            self._created = change.revision
        if change.erased is not None:
            self._data, self._fields, self._is_whole, self._blank = {}, {}, False, change.revision
        for name in change.unset:
            self._data.pop(name, None)
            self._fields[name] = change.revision
        self._data.update(data)
        self._fields.update(dict.fromkeys(data, change.revision))
        self.is_living = change.op is not Op.DELETE

    def _bear(self, change: Change, *, is_client_known: bool) -> None:
        if self._born is None and not self.unknown:
            self._born, self._born_by = change.revision, change.client if is_client_known else UNSET
        elif self._born_by is not UNSET and (not is_client_known or self._born_by != change.client):
            self._born_by = 0 if is_client_known else UNSET

    def differences(self, stored: Stored) -> list[str]:
        """What of `stored`, but for its revision, is not as the changes have left the atom: a sentence each."""
        return [
            *self._of_numbers(stored),
            *self._of_life(stored),
            *self._of_data(stored),
            *self._of_fields(stored),
        ]

    def _of_numbers(self, stored: Stored) -> Iterator[str]:
        for column, found, known in (("born", stored.born, self._born), ("created", stored.created, self._created)):
            if known is not None and found != known:
                yield f"{column} is {found}, should be {known}"
            elif known is None and found > self.unknown:
                yield f"{column} is {found}, should be at most {self.unknown}"
        if self._born_by is not UNSET and stored.born_by != self._born_by:
            yield f"born_by is {_or_null(stored.born_by)}, should be {_or_null(self._born_by)}"

    def _of_life(self, stored: Stored) -> Iterator[str]:
        if self.is_living is not None and stored.is_deleted is self.is_living:
            yield f"deleted is {_as_sql(stored.is_deleted)}, should be {_as_sql(not self.is_living)}"
        elif stored.is_deleted is not (stored.data is None):
            yield f"deleted is {_as_sql(stored.is_deleted)}, and data is {'null' if stored.data is None else 'not'}"

    def _of_data(self, stored: Stored) -> Iterator[str]:
        if stored.data is None:
            return
        try:
            found = decode_fields(stored.data)
            wrong = [name for name in self._fields if not _agree(found, self._data, name)]
        except ValueError:
            yield "data is no JSON object"
            return
        if self._is_whole:
            wrong += [name for name in found if name not in self._fields]
        if wrong:
            yield f"data is not what the record gives in {_listed(wrong)}"
        lost = [name for name in found if name not in stored.fk]
        if lost:
            yield f"fk lacks {_listed(lost)}, which data has"

    def _of_fields(self, stored: Stored) -> Iterator[str]:
        found = dict(zip(stored.fk, stored.fr, strict=False))
        if not len(found) == len(stored.fk) == len(stored.fr):
            yield "fk and fr do not name each field once"
            return
        if any(later < earlier for earlier, later in zip(stored.fr, stored.fr[1:], strict=False)):
            yield "fr is not in order"
        for name in sorted(self._fields.keys() | found.keys()):
            at, known = found.get(name), self._fields.get(name)
            if known is not None and at != known:
                yield f"fr of {_quoted(name)} is {'missing' if at is None else at}, should be {known}"
            elif known is None and at is not None and (self._is_whole or at > self._blank):
                should = "not be there" if self._is_whole else f"be at most {self._blank}"
                yield f"fr of {_quoted(name)} is {at}, should {should}"


def _decoded(change: Change) -> type_of_fields:
    """The fields that a change sets."""
    if change.data is None:
        return {}
    if change.erased is not None:
        raise Impossible("it has data, and is marked as erased")
    try:
        return decode_fields(change.data)
    except ValueError:
        raise Impossible("its data is no JSON object") from None


def _agree(found: type_of_fields, known: type_of_fields, name: str) -> bool:
    """Whether both have the field alike, or neither has it."""
    if name not in found or name not in known:
        return name not in found and name not in known
    return same(bytes(found[name]), bytes(known[name]))


_MOST = 3


def _listed(names: Iterable[str]) -> str:
    quoted = [_quoted(name) for name in sorted(names)]
    more = f" and {len(quoted) - _MOST} more" if len(quoted) > _MOST else ""
    return ", ".join(quoted[:_MOST]) + more


def _quoted(name: str) -> str:
    return f'"{name}"' if len(name) <= 40 else f'"{name[:40]}…"'


def _or_null(number: int | None) -> str:
    return "null" if number is None else str(number)


def _as_sql(truth: object) -> str:
    return "true" if truth else "false"
