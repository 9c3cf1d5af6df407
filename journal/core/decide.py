"""Deciding: what a push comes to on the state it meets, by the table of the protocol's section 5.

Pure. The caller loads the state of every atom that the push names, and records what comes back. The one rule:
nothing that the sender has not seen is overwritten, unless the policy says so (docs/properties.md, P9a).
"""

from collections.abc import Mapping
from typing import assert_never

import msgspec
from msgspec import UNSET, Raw

from journal.core.equal import same
from journal.core.model import (
    AtomState,
    Change,
    Conflict,
    Current,
    Key,
    Op,
    Outcome,
    Policy,
    Push,
    PushChange,
    Rejection,
    decode_fields,
    encode_fields,
)
from journal.errors import BaseRequired, Fault

FAILED = frozenset(("conflict", "rejected"))
LATEST = 2**63 - 1
"""As the time of an atom's last change: later than any change can have been made."""


class Decision(msgspec.Struct, frozen=True):
    """`outcomes` one a change of the push, in its order; `changes` to record; `atoms` as they leave them.

    `conflicts`: the changes that are kept for a person. `is_refused`: the push was atomic and something failed; then
    nothing is to be recorded or kept, and an outcome that would have been recorded has no revision.
    """

    outcomes: list[Outcome]
    changes: list[Change]
    atoms: dict[Key, AtomState]
    is_refused: bool = False
    conflicts: list[Conflict] = []


class _Known(msgspec.Struct, frozen=True):
    """What the sender knows of an atom: whether it moved on since, and whether it said what it knew it at."""

    has_moved: bool
    is_told: bool


class _Atom:
    """One atom during a push: as it was before, and as the push has left it so far."""

    __slots__ = ("before", "has_failed", "is_known", "now")

    def __init__(self, before: AtomState | None) -> None:
        self.before = before
        self.now = before
        self.is_known = False  # the push itself inserted it: its later changes need no base
        self.has_failed = False

    @property
    def data(self) -> bytes | None:
        """Its data; None where it does not live."""
        return None if self.now is None else self.now.data


def decide(
    push: Push,
    states: Mapping[Key, AtomState],
    *,
    head: int,
    horizon: int,
    policies: Mapping[str, Policy],
    atom_bytes: int,
    times: Mapping[Key, int] | None = None,
    conflicts: int = 0,
) -> Decision:
    """What `push` comes to. `states` holds the atoms it names that ever were, as they are at `head`.

    `policies` are those that an operator gave collections; they go before the push's own. `atom_bytes` is how large
    an atom's data may become. `times` says when atoms were last changed, in microseconds since 1970: of those that
    `newest` may judge; what is not in it was changed longer ago than any record reaches. `conflicts` is how many
    were kept before: the next has the number after. BaseRequired points at the changes that lack a base.
    """
    deciding = _Deciding(push, states, head, horizon, policies, atom_bytes, times or {}, conflicts)
    return deciding.result()


def made_at(push: Push, change: PushChange) -> int | None:
    """When a change was made, by the server's clock; None where its sender does not say.

    An age is of a clock that cannot be set. A moment is moved by as much as the sender's clock was off when the push
    was sent. Nothing was made after it came in (docs/properties.md, trap 14).
    """
    if change.age is not None:
        made = push.arrived - change.age
    elif change.changed_at is None:
        return None
    elif push.sent is None:
        made = change.changed_at
    else:
        made = change.changed_at + (push.arrived - push.sent)
    return min(made, push.arrived)


class _Deciding:
    def __init__(
        self,
        push: Push,
        states: Mapping[Key, AtomState],
        head: int,
        horizon: int,
        policies: Mapping[str, Policy],
        atom_bytes: int,
        times: Mapping[Key, int],
        last_conflict: int,
    ) -> None:
        self.push, self.states, self.policies = push, states, policies
        self.head, self.horizon, self.atom_bytes = head, horizon, atom_bytes
        self.times, self.last_conflict = times, last_conflict
        self.conflicts: list[Conflict] = []
        self.atoms: dict[Key, _Atom] = {}
        self.changes: list[Change] = []
        self.baseless: list[Fault] = []

    def result(self) -> Decision:
        outcomes = [self.outcome(place, change) for place, change in enumerate(self.push.changes)]
        if self.baseless:
            raise BaseRequired(self.baseless)
        if self.push.is_atomic and any(outcome.status in FAILED for outcome in outcomes):
            told = [self.unrecorded(*pair) for pair in zip(self.push.changes, outcomes, strict=True)]
            return Decision(told, [], {}, is_refused=True)
        touched = {key: atom.now for key, atom in self.atoms.items() if atom.now is not atom.before}
        states = {key: now for key, now in touched.items() if now is not None}
        return Decision(outcomes, self.changes, states, conflicts=self.conflicts)

    def outcome(self, place: int, change: PushChange) -> Outcome:
        if self.push.writes is not None and change.collection not in self.push.writes:
            return _rejected("forbidden", "the sender may not write this collection")
        key = (change.collection, change.atom)
        atom = self.atoms.get(key)
        if atom is None:
            atom = self.atoms[key] = _Atom(self.states.get(key))
        if atom.has_failed:
            return self.kept(place, change, _conflict(atom))
        known = self.known(atom, change)
        if known is None:
            detail = "needs a base (its own or the push's), if_data, or the policy client"
            self.baseless.append(Fault(f"/changes/{place}/base", detail))
            return _conflict(atom)
        outcome = self.judge(atom, change, known)
        atom.has_failed = outcome.status in FAILED
        return self.kept(place, change, outcome)

    def kept(self, place: int, change: PushChange, outcome: Outcome) -> Outcome:
        """The outcome; under `both` a conflict is kept, and says so."""
        if outcome.status != "conflict" or self.policy(change) != "both":
            return outcome
        stood = outcome.current
        assert stood is not UNSET  # a conflict says what stands
        conflict = Conflict(self.last_conflict + len(self.conflicts) + 1, place, change, stood)
        self.conflicts.append(conflict)
        return msgspec.structs.replace(outcome, kept=str(conflict.id))

    def policy(self, change: PushChange) -> Policy:
        return self.policies.get(change.collection, self.push.on_conflict)

    def is_the_clients(self, change: PushChange) -> bool:
        """Whether a conflict becomes the client's."""
        match self.policy(change):
            case "client":
                return True
            case "newest":
                made, changed = made_at(self.push, change), self.times.get((change.collection, change.atom))
                return made is not None and (changed is None or made > changed)
        return False

    def known(self, atom: _Atom, change: PushChange) -> _Known | None:
        """None where the change needs a base and has none."""
        if change.if_data is not UNSET:
            return _Known(has_moved=not _equal(change.if_data, atom.data), is_told=True)
        if atom.is_known:
            return _Known(has_moved=False, is_told=True)
        if change.base is not None:
            return _Known(has_moved=self.moved_since(atom, change.base), is_told=True)
        if change.op == "insert" or self.policy(change) == "client":
            return _Known(has_moved=False, is_told=False)
        return None

    def moved_since(self, atom: _Atom, base: int) -> bool:
        if atom.before is None:
            return base < self.horizon  # its tombstone may have been compacted away
        return atom.before.revision > base

    def judge(self, atom: _Atom, change: PushChange, known: _Known) -> Outcome:
        match change.op:
            case "insert":
                return self.insert(atom, change, known)
            case "put":
                return self.put(atom, change, known)
            case "update":
                return self.update(atom, change, known)
            case "delete":
                return self.delete(atom, change, known)
        assert_never(change.op)

    def insert(self, atom: _Atom, change: PushChange, known: _Known) -> Outcome:
        assert change.data is not None
        if atom.data is None:
            outcome = self.record_whole(atom, change, Op.INSERT, has_moved=False)
            atom.is_known = outcome.status == "applied"
            return outcome
        if same(atom.data, change.data):
            atom.is_known = True  # its sender has said all its data: no change of it is unseen
            return _unchanged(atom, with_current=known.has_moved or not known.is_told)
        if self.is_the_clients(change):
            return self.record_whole(atom, change, Op.REPLACE, has_moved=True)
        return _conflict(atom)

    def put(self, atom: _Atom, change: PushChange, known: _Known) -> Outcome:
        assert change.data is not None
        if atom.data is not None and same(atom.data, change.data):
            return _unchanged(atom, with_current=known.has_moved)
        if known.has_moved and not self.is_the_clients(change):
            return _conflict(atom)
        op = Op.INSERT if atom.data is None else Op.REPLACE
        outcome = self.record_whole(atom, change, op, has_moved=known.has_moved)
        atom.is_known = atom.is_known or (op is Op.INSERT and outcome.status == "applied")
        return outcome

    def update(self, atom: _Atom, change: PushChange, known: _Known) -> Outcome:
        if atom.data is None:
            return _conflict(atom)
        fields = {} if change.data is None else decode_fields(change.data)
        if change.unset and not fields.keys().isdisjoint(change.unset):
            both = sorted(fields.keys() & set(change.unset))
            return _rejected("set_and_unset", f"sets and unsets the same: {', '.join(both)}")
        present = decode_fields(atom.data)
        if _is_so_already(present, fields, change.unset):
            return _unchanged(atom, with_current=known.has_moved)
        if not known.has_moved or self.is_the_clients(change):
            said, unset = change.data, change.unset
            return self.record_patch(atom, change, present, fields, said, unset, has_moved=known.has_moved)
        if self.policy(change) == "merge" and change.if_data is UNSET:
            return self.merge(atom, change, present, fields)
        return _conflict(atom)

    def merge(self, atom: _Atom, change: PushChange, present: dict[str, Raw], fields: dict[str, Raw]) -> Outcome:
        """Record the fields that nobody set or unset since the base."""
        before, base = atom.before, change.base
        assert before is not None  # it has moved since a base, so there are both
        assert base is not None
        if before.data is None or before.created > base:
            return _conflict(atom)
        left = {name: value for name, value in fields.items() if before.fields.get(name, 0) <= base}
        unset = tuple(name for name in change.unset if before.fields.get(name, 0) <= base)
        if not left and not unset:
            return _conflict(atom)
        if _is_so_already(present, left, unset):
            return _unchanged(atom, with_current=True)
        said = encode_fields(left) if left else None
        return self.record_patch(atom, change, present, left, said, unset, has_moved=True)

    def delete(self, atom: _Atom, change: PushChange, known: _Known) -> Outcome:
        if atom.data is None:
            return _unchanged(atom, with_current=known.has_moved)
        if known.has_moved and not self.is_the_clients(change):
            return _conflict(atom)
        now = atom.now
        assert now is not None
        revision = self.record(atom, change, Op.DELETE, None, ())
        atom.now = msgspec.structs.replace(now, revision=revision, data=None, fields={})
        return _recorded(atom, has_moved=known.has_moved)

    def record_whole(self, atom: _Atom, change: PushChange, op: Op, *, has_moved: bool) -> Outcome:
        assert change.data is not None
        if self.is_too_large(change.data):
            return self.too_large(change.data)
        now, client = atom.now, self.push.client
        revision = self.record(atom, change, op, change.data, ())
        born_by = client if now is None or now.born_by == client else 0
        atom.now = AtomState(
            born=revision if now is None else now.born,
            born_by=born_by if now is None or op is Op.INSERT else now.born_by,
            created=revision,
            revision=revision,
            data=change.data,
            fields=dict.fromkeys(decode_fields(change.data), revision),
        )
        return _recorded(atom, has_moved=has_moved)

    def record_patch(
        self,
        atom: _Atom,
        change: PushChange,
        present: dict[str, Raw],
        patch: dict[str, Raw],
        said: bytes | None,
        unset: tuple[str, ...],
        *,
        has_moved: bool,
    ) -> Outcome:
        """Record an update by a `patch`, which is `said` so; `present`, the atom's fields, is put to date with it."""
        now = atom.now
        assert now is not None
        for name in unset:
            present.pop(name, None)
        present.update(patch)
        data = encode_fields(present)
        if self.is_too_large(data):
            return self.too_large(data)
        revision = self.record(atom, change, Op.UPDATE, said, unset)
        fields = now.fields.copy()
        for name in (*unset, *patch):
            fields.pop(name, None)
            fields[name] = revision
        atom.now = AtomState(now.born, now.born_by, now.created, revision, data, fields)
        return _recorded(atom, has_moved=has_moved)

    def record(self, atom: _Atom, change: PushChange, op: Op, data: bytes | None, unset: tuple[str, ...]) -> int:
        revision = self.head + len(self.changes) + 1
        prev = 0 if atom.now is None else atom.now.revision
        self.changes.append(Change(revision, op, change.collection, change.atom, data, unset, prev, self.push.client))
        return revision

    def is_too_large(self, data: bytes) -> bool:
        """By the bytes that say something: PostgreSQL tells jsonb with blanks that nobody sent."""
        return len(data) > self.atom_bytes and len(_dense(data)) > self.atom_bytes

    def too_large(self, data: bytes) -> Outcome:
        size = len(_dense(data))
        return _rejected("atom_too_large", f"the atom would have {size} bytes; at most {self.atom_bytes} are kept")

    def unrecorded(self, change: PushChange, outcome: Outcome) -> Outcome:
        """What to say of a change whose push was refused: against what stands, which the push has not altered."""
        if outcome.status == "rejected":
            return outcome
        if outcome.status in ("applied", "merged"):
            return Outcome(outcome.status)
        before = self.atoms[change.collection, change.atom].before
        current = UNSET if outcome.current is UNSET else _current(before)
        revision = None if outcome.revision is None or before is None else before.revision
        revision_told = UNSET if outcome.revision is UNSET else revision
        return msgspec.structs.replace(outcome, current=current, revision=revision_told, kept=UNSET)


def _dense(data: bytes) -> bytes:
    return msgspec.json.format(data, indent=-1)


def _equal(expected: bytes | None, data: bytes | None) -> bool:
    if expected is None or data is None:
        return expected is data
    return same(expected, data)


def _is_so_already(present: dict[str, Raw], fields: dict[str, Raw], unset: tuple[str, ...]) -> bool:
    for name in unset:
        if name in present:
            return False
    for name, value in fields.items():
        there = present.get(name)
        if there is None or not same(bytes(there), bytes(value)):
            return False
    return True


def _current(state: AtomState | None) -> Current | None:
    return None if state is None or state.data is None else Current(state.revision, Raw(state.data))


def _conflict(atom: _Atom) -> Outcome:
    return Outcome("conflict", current=_current(atom.now))


def _rejected(code: str, detail: str) -> Outcome:
    return Outcome("rejected", error=Rejection(code, detail))  # type: ignore[arg-type]


def _unchanged(atom: _Atom, *, with_current: bool) -> Outcome:
    revision = None if atom.now is None else atom.now.revision
    return Outcome("unchanged", revision=revision, current=_current(atom.now) if with_current else UNSET)


def _recorded(atom: _Atom, *, has_moved: bool) -> Outcome:
    """`applied` says that the sender knows the atom now; over what it had not seen it is told the whole."""
    assert atom.now is not None
    if has_moved:
        return Outcome("merged", revision=atom.now.revision, current=_current(atom.now))
    return Outcome("applied", revision=atom.now.revision)
