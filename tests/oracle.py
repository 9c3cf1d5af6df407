"""The journal in plain Python: what pushes under the policy `client` record, and what it adds up to.

By the letter of docs/properties.md and of the protocol's sections 4 and 8, and in no way clever. Whatever a client is
told is compared with this. Values are JSON values: a number is the double it stands for, and `true` is not 1.
"""

from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import Any, NamedTuple

import rfc8785

Json = dict[str, Any]
Key = tuple[str, str]
Fields = dict[str, Any]


class Recorded(NamedTuple):
    """A change as it was recorded."""

    revision: int
    op: str
    key: Key
    data: Fields | None
    unset: frozenset[str]
    client: str | None


class Told(NamedTuple):
    """A delta: `data` is made comparable."""

    op: str
    data: Any
    unset: frozenset[str]
    revision: int
    revisions: tuple[int, ...]


class Held(NamedTuple):
    """An atom as somebody has it."""

    data: Fields
    revision: int


State = dict[Key, Held]


class Oracle:
    """A journal: `ends` are the last revisions of its commits, 0 the one of none."""

    def __init__(self) -> None:
        self.changes: list[Recorded] = []
        self.ends = [0]
        self.clients: set[str | None] = set()

    @property
    def head(self) -> int:
        return len(self.changes)

    def push(self, changes: Iterable[Json], client: str | None = None) -> list[str]:
        """Record what a push under the policy `client`, without bases, comes to: the status of each change."""
        state, failed, statuses = self.state(self.head), set[Key](), []
        for change in changes:
            key = (change["collection"], change["atom"])
            status, op = ("conflict", None) if key in failed else self._decide(change, state.get(key))
            if status in ("conflict", "rejected"):
                failed.add(key)
            if op is not None:
                unset = frozenset(change.get("unset", ()))
                self.changes.append(Recorded(self.head + 1, op, key, change.get("data"), unset, client))
                change_state(state, self.changes[-1])
            statuses.append(status)
        self.clients.add(client)
        if self.head > self.ends[-1]:
            self.ends.append(self.head)
        return statuses

    def _decide(self, change: Json, now: Held | None) -> tuple[str, str | None]:
        """What becomes of a change, and the op that is recorded (protocol, section 5)."""
        data, unset = change.get("data", {}), change.get("unset", [])
        op, living = change["op"], None if now is None else comparable(now.data)
        if now is None:
            not_there = {"update": ("conflict", None), "delete": ("unchanged", None)}
            return not_there.get(op, ("applied", "insert"))
        if op == "delete":
            return "applied", "delete"
        if op == "update" and data.keys() & set(unset):
            return "rejected", None
        if comparable(patched(now.data, data, unset) if op == "update" else data) == living:
            return "unchanged", None
        return {"insert": ("merged", "replace"), "put": ("applied", "replace"), "update": ("applied", "update")}[op]

    def state(self, revision: int, collections: Collection[str] | None = None) -> State:
        """S(n)."""
        state: State = {}
        for change in self.changes[:revision]:
            if collections is None or change.key[0] in collections:
                change_state(state, change)
        return state

    def deltas(
        self, after: int, until: int, collections: Collection[str] | None = None, client: str | None = None
    ) -> dict[Key, Told]:
        """D(a, b), by the table: with `client`, also the deletes that it is told of what came to nothing.

        A client that never pushed has inserted nothing, and is told as if it had not named itself.
        """
        client = client if client in self.clients else None
        found: dict[Key, list[Recorded]] = {}
        for change in self.changes[after:until]:
            if collections is None or change.key[0] in collections:
                found.setdefault(change.key, []).append(change)
        told = {}
        for key, changes in found.items():
            effect: tuple[str, Fields, frozenset[str]] | None = None
            for change in changes:
                effect = then(effect, change)
            inserters = {change.client for change in changes if change.op == "insert"}
            if effect is None and client is not None and (client in inserters or len(inserters) > 1):
                effect = ("delete", {}, frozenset())
            if effect is not None:
                op, data, unset = effect
                revisions = tuple(change.revision for change in changes)
                told[key] = Told(op, None if op == "delete" else comparable(data), unset, revisions[-1], revisions)
        return told


def then(before: tuple[str, Fields, frozenset[str]] | None, c: Recorded) -> tuple[str, Fields, frozenset[str]] | None:
    """The table of section 4."""
    data = c.data or {}
    match before, c.op:
        case None, op:
            return op, data, c.unset
        case ("insert", _, _), "delete":
            return None
        case ("delete", _, _), "insert":
            return "replace", data, frozenset()
        case _, "delete":
            return "delete", {}, frozenset()
        case (("insert" | "replace") as op, d, _), "update":
            return op, patched(d, data, c.unset), frozenset()
        case ("update", d, unset), "update":
            return "update", patched(d, data, c.unset), (unset | c.unset) - data.keys()
        case ("insert", _, _), "replace":
            return "insert", data, frozenset()
        case (("update" | "replace"), _, _), "replace":
            return "replace", data, frozenset()
    raise AssertionError(f"{c.op} cannot follow {before}")


def patched(data: Fields, patch: Fields, unset: Iterable[str]) -> Fields:
    """d | p."""
    without = set(unset)
    return {name: value for name, value in data.items() if name not in without} | patch


def change_state(state: State, change: Recorded) -> None:
    """Apply a recorded change."""
    if change.op == "delete":
        del state[change.key]
    elif change.op == "update":
        state[change.key] = Held(patched(state[change.key].data, change.data or {}, change.unset), change.revision)
    else:
        state[change.key] = Held(change.data or {}, change.revision)


def apply(state: State, deltas: Iterable[Json]) -> None:
    """Do with deltas as they are answered what a client does; KeyError where it has no atom to update."""
    for delta in deltas:
        key = (delta["collection"], delta["atom"])
        match delta["op"]:
            case "insert" | "replace":
                state[key] = Held(delta["data"], delta["revision"])
            case "update":
                data = patched(state[key].data, delta.get("data", {}), delta.get("unset", ()))
                state[key] = Held(data, delta["revision"])
            case "delete":
                state.pop(key, None)


def told(delta: Json) -> Told:
    """A delta as it is answered, in the shape of `Oracle.deltas`."""
    data = None if delta["op"] == "delete" else comparable(delta.get("data", {}))
    unset, revisions = frozenset(delta.get("unset", ())), tuple(delta.get("revisions", ()))
    return Told(delta["op"], data, unset, delta["revision"], revisions)


def digest(state: State) -> str:
    """The digest of section 8."""
    total = 0
    for (collection, atom), held in state.items():
        total ^= int.from_bytes(sha256(rfc8785.dumps([collection, atom, held.revision])).digest()[:8], "big")
    return f"{total:016x}"


def comparable(value: Any) -> Any:
    """A JSON value that equals its like and nothing else."""
    match value:
        case bool() | None | str():
            return value
        case int() | float():
            return ("number", float(value))
        case dict():
            return {name: comparable(member) for name, member in value.items()}
    return [comparable(item) for item in value]


def comparable_state(state: State) -> dict[Key, tuple[Any, int]]:
    """A state to be compared with another."""
    return {key: (comparable(held.data), held.revision) for key, held in state.items()}
