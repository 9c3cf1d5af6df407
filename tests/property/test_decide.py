"""Deciding against a model that knows nothing but the log: every change that was ever recorded, in order.

The service compares an atom's and its fields' last revisions. The model has none of them: it looks through the log for
what happened after a base, and folds it from the start for what stands. Time goes on by TICK with each push.
"""

import json
from typing import Any, NamedTuple

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from journal.core.decide import Decision, decide
from journal.core.model import AtomState, Change, Current, Key, Op, Outcome, Policy, Push, PushChange
from journal.errors import BaseRequired

Fields = dict[str, Any]
TICK = 10
NO_DATA = object()  # as `if_data`: none was given


class Sent(NamedTuple):
    """A change as it is drawn. `back`: how many revisions below the head its base is; None: it has none.

    `age`: how long before its push it was made; None: it does not say.
    """

    op: Any
    atom: str
    fields: Fields
    unset: tuple[str, ...]
    back: int | None
    if_data: Any
    age: int | None


class Drawn(NamedTuple):
    """A push as it is drawn; before it, the record is compacted up to so many revisions below the head."""

    changes: list[Sent]
    policy: Policy
    is_atomic: bool
    client: int | None
    compacted: int | None


FIELDS = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 1), max_size=3)
CHANGES = st.builds(
    Sent,
    st.sampled_from(["insert", "update", "update", "put", "delete"]),
    st.sampled_from("aab"),
    FIELDS,
    st.lists(st.sampled_from("xyz"), max_size=1).map(tuple),
    st.sampled_from([None, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6]),
    st.sampled_from([NO_DATA] * 3) | st.none() | FIELDS,
    st.sampled_from([None, 0, 5, TICK, 2 * TICK, 25, 60]),
)
PUSHES = st.builds(
    Drawn,
    st.lists(CHANGES, min_size=1, max_size=4),
    st.sampled_from(["server", "merge", "client", "newest", "newest", "both"]),
    st.booleans(),
    st.none() | st.integers(1, 2),
    st.sampled_from([None] * 5) | st.integers(0, 4),
)


class Model:
    """The log, and what can be seen by looking through all of it."""

    def __init__(self) -> None:
        self.log: list[Change] = []
        self.states: dict[Key, AtomState] = {}  # the service's own
        self.horizon = 0
        self.now = 0
        self.times: list[int] = []  # when each change of the log was recorded
        self.kept = 0

    @property
    def head(self) -> int:
        return len(self.log)

    def stands(self, atom: str, at: int | None = None) -> Fields | None:
        """The data of an atom after all changes up to a revision."""
        stands: Fields | None = None
        for change in self.log[:at]:
            if change.atom == atom:
                stands = applied(stands, change)
        return stands

    def happened(self, atom: str, after: int, until: int) -> list[Change]:
        """The changes of an atom within (after, until]."""
        return [change for change in self.log[after:until] if change.atom == atom]

    def last(self, atom: str) -> int | None:
        return max((change.revision for change in self.log if change.atom == atom), default=None)

    def changed_at(self, atom: str, until: int) -> int | None:
        """When an atom was last changed at or below a revision, as far as the record tells."""
        found = [change.revision for change in self.happened(atom, 0, until)]
        is_told = found and found[-1] > self.horizon and ("c", atom) in self.states
        return self.times[found[-1] - 1] if is_told else None

    def is_younger(self, push: Push, change: PushChange, until: int) -> bool:
        """Whether a change was made after the atom was last changed."""
        if change.age is None:
            return False
        changed = self.changed_at(change.atom, until)
        return changed is None or push.arrived - change.age > changed

    def compact(self, back: int) -> None:
        """Forget tombstones at or below the horizon, as the service does."""
        self.horizon = max(self.horizon, self.head - back)
        self.states = {
            key: state for key, state in self.states.items() if state.data is not None or state.revision > self.horizon
        }


def applied(stands: Fields | None, change: Change) -> Fields | None:
    fields: Fields = {} if change.data is None else json.loads(change.data)
    match change.op:
        case Op.DELETE:
            assert stands is not None
            return None
        case Op.UPDATE:
            assert stands is not None
            return {name: value for name, value in stands.items() if name not in change.unset} | fields
        case Op.INSERT:
            assert stands is None
            return fields
        case Op.REPLACE:
            assert stands is not None
            return fields


def asked(sent: Sent, head: int) -> PushChange:
    has_data = sent.op in ("insert", "put") or (sent.op == "update" and (sent.fields or not sent.unset))
    return PushChange(
        op=sent.op,
        collection="c",
        atom=sent.atom,
        data=json.dumps(sent.fields).encode() if has_data else None,
        unset=sent.unset if sent.op == "update" else (),
        base=None if sent.back is None else max(0, head - sent.back),
        if_data=UNSET
        if sent.if_data is NO_DATA
        else None
        if sent.if_data is None
        else json.dumps(sent.if_data).encode(),
        age=sent.age,
    )


def expected(model: Model, push: Push, known: set[str], change: PushChange, start: int) -> str:
    """What becomes of a change, by looking through the log; `start` is the head before the push."""
    stands = model.stands(change.atom)
    fields: Fields = {} if change.data is None else json.loads(change.data)
    since: list[Change] = []
    match change:
        case PushChange(if_data=bytes() | None as given_data):
            is_equal = stands == (None if given_data is None else json.loads(given_data))
            moved = "" if is_equal else "deleted" if stands is None else "changed"
        case PushChange(base=int() as base) if change.atom not in known:
            since = model.happened(change.atom, base, start)
            is_forgotten = ("c", change.atom) not in model.states and base < model.horizon
            moved = "" if not since and not is_forgotten else "deleted" if stands is None else "changed"
        case _ if change.atom in known or change.op == "insert" or push.on_conflict == "client":
            moved = ""
        case _:
            return "baseless"

    forced = push.on_conflict == "client" or (push.on_conflict == "newest" and model.is_younger(push, change, start))
    conflict = "merged" if forced else "conflict"
    match change.op, stands:
        case "insert", None:
            return "applied"
        case "insert", _:
            return "unchanged" if stands == fields else conflict
        case "put", None:
            return conflict if moved else "applied"
        case "put", _:
            return "unchanged" if stands == fields else conflict if moved else "applied"
        case "update", None:
            return "conflict"
        case "update", _:
            if fields.keys() & set(change.unset):
                return "rejected"
            wanted = {name: value for name, value in (stands or {}).items() if name not in change.unset} | fields
            if wanted == stands:
                return "unchanged"
            if moved and push.on_conflict == "merge" and change.if_data is UNSET:
                return merged(stands or {}, fields, change.unset, since)
            return conflict if moved else "applied"
        case _, None:
            return "unchanged"
    return conflict if moved else "applied"


def merged(stands: Fields, fields: Fields, unset: tuple[str, ...], since: list[Change]) -> str:
    if any(change.op is not Op.UPDATE for change in since):
        return "conflict"
    touched = {name for change in since for name in (*change.unset, *json.loads(change.data or b"{}"))}
    fields = {name: value for name, value in fields.items() if name not in touched}
    unset = tuple(name for name in unset if name not in touched)
    if not fields and not unset:
        return "conflict"
    wanted = {name: value for name, value in stands.items() if name not in unset} | fields
    return "unchanged" if wanted == stands else "merged"


def overwritten(model: Model, change: Change, start: int) -> list[int]:
    """The revisions, of before the push, that a recorded change writes over: of the atom, or of an update's fields."""
    known = [old for old in model.log[:start] if old.atom == change.atom]
    touched = {*change.unset, *json.loads(change.data or b"{}")}
    return [
        old.revision
        for old in known
        if change.op is not Op.UPDATE
        or old.op is not Op.UPDATE
        or touched & {*old.unset, *json.loads(old.data or b"{}")}
    ]


def decision_of(model: Model, push: Push) -> Decision:
    times = {("c", atom): at for atom in "ab" if (at := model.changed_at(atom, model.head)) is not None}
    return decide(
        push,
        model.states,
        head=model.head,
        horizon=model.horizon,
        policies={},
        atom_bytes=1000,
        times=times,
        conflicts=model.kept,
    )


@given(st.lists(PUSHES, max_size=12))
@settings(deadline=None, max_examples=400)
def test_p9a_decisions_are_those_that_the_whole_log_gives(pushes: list[Drawn]) -> None:
    model = Model()
    for drawn in pushes:
        if drawn.compacted is not None:
            model.compact(drawn.compacted)
        model.now += TICK
        changes = [asked(sent, model.head) for sent in drawn.changes]
        push = Push(changes, drawn.policy, drawn.is_atomic, drawn.client, arrived=model.now)

        try:
            decision = decision_of(model, push)
        except BaseRequired as refused:
            see_that_bases_lack(model, push, refused)
        else:
            see_what_was_decided(model, push, decision)


def see_that_bases_lack(model: Model, push: Push, refused: BaseRequired) -> None:
    event("base required")
    places = [int(fault.pointer.split("/")[2]) for fault in refused.errors]
    assert places
    for place in places:
        change = push.changes[place]
        assert (change.base, change.if_data, change.op == "insert") == (None, UNSET, False)
        assert push.on_conflict != "client"
        assert all(earlier.op != "insert" or earlier.atom != change.atom for earlier in push.changes[:place])


def see_what_was_decided(model: Model, push: Push, decision: Decision) -> None:
    start, failed, known = model.head, set[str](), set[str]()
    recorded = iter(decision.changes)
    is_failed = any(outcome.status in ("conflict", "rejected") for outcome in decision.outcomes)
    assert decision.is_refused == (push.is_atomic and is_failed)
    if decision.is_refused:
        event("refused")
        assert (decision.changes, decision.atoms) == ([], {})
        decision = decision_of(model, msgspec.structs.replace(push, is_atomic=False))
        recorded = iter([])

    for change, outcome in zip(push.changes, decision.outcomes, strict=True):
        if change.atom in failed:
            assert outcome.status == "conflict"
        elif not (push.is_atomic and is_failed):
            told = expected(model, push, known, change, start)
            assert outcome.status == told, (change, model.log)
            event(f"{change.op} {told}")
        if outcome.status in ("conflict", "rejected"):
            failed.add(change.atom)
        if push.is_atomic and is_failed:
            continue
        if change.op == "insert" and outcome.status in ("applied", "unchanged"):
            known.add(change.atom)
        if outcome.status in ("applied", "merged"):
            new = next(recorded)
            if change.op == "put" and new.op is Op.INSERT and outcome.status == "applied":
                known.add(change.atom)
            see_what_was_recorded(model, push, change, new, outcome, start, known)
            model.log.append(new)
            model.times.append(model.now)
        see_what_was_told(model, change, outcome)
    assert next(recorded, None) is None
    if not (push.is_atomic and is_failed):
        see_the_state(model, decision, start)
        see_what_is_kept(model, push, decision)


def see_what_is_kept(model: Model, push: Push, decision: Decision) -> None:
    """Under `both` each conflict, once, with what it was told; else nothing."""
    ended = [place for place, outcome in enumerate(decision.outcomes) if outcome.status == "conflict"]
    assert [conflict.place for conflict in decision.conflicts] == (ended if push.on_conflict == "both" else [])
    for conflict in decision.conflicts:
        model.kept += 1
        outcome = decision.outcomes[conflict.place]
        assert (conflict.id, outcome.kept) == (model.kept, str(model.kept))
        assert (conflict.change, conflict.stood) == (push.changes[conflict.place], outcome.current)


def see_what_was_recorded(
    model: Model, push: Push, change: PushChange, new: Change, outcome: Outcome, start: int, known: set[str]
) -> None:
    assert new.revision == model.head + 1 == outcome.revision
    is_forgotten = ("c", change.atom) not in model.states and not model.happened(change.atom, start, model.head)
    assert (new.prev or None, new.client) == (None if is_forgotten else model.last(change.atom), push.client)
    if outcome.status == "applied":
        assert (new.data, new.unset) == (change.data, change.unset)
    if push.on_conflict == "client":
        return
    # P9a: nothing is written over that the sender had not seen, or under `newest` that is not older than the change.
    if push.on_conflict == "newest" and model.is_younger(push, change, start):
        return
    if change.if_data is not UNSET:
        assert new.op is Op.INSERT or model.stands(change.atom) == json.loads(change.if_data or b"null")
    elif change.atom not in known:
        assert new.op is Op.INSERT or change.base is not None
        assert new.op is Op.INSERT or max(overwritten(model, new, start), default=0) <= (change.base or 0)


def see_what_was_told(model: Model, change: PushChange, outcome: Outcome) -> None:
    stands = model.stands(change.atom)
    if isinstance(outcome.current, Current):
        assert json.loads(bytes(outcome.current.data)) == stands
        assert outcome.current.revision == model.last(change.atom)
    elif outcome.current is None:
        assert stands is None
    assert (outcome.current is UNSET) or outcome.status in ("merged", "conflict", "unchanged")
    assert (outcome.current is not UNSET) or outcome.status in ("applied", "unchanged", "rejected")


def see_the_state(model: Model, decision: Decision, start: int) -> None:
    """The changes, applied to what stood, are the state; its revisions are those of the log."""
    assert {key[1] for key in decision.atoms} == {change.atom for change in model.log[start:]}
    model.states.update(decision.atoms)
    for (_, atom), state in model.states.items():
        changes = [change for change in model.log if change.atom == atom]
        whole = max(change.revision for change in changes if change.op in (Op.INSERT, Op.REPLACE))
        since = [change for change in changes if change.revision >= whole]
        fields = {
            name: change.revision for change in since for name in (*change.unset, *json.loads(change.data or b"{}"))
        }
        stands = model.stands(atom)
        assert (None if state.data is None else json.loads(state.data)) == stands
        assert (state.created, state.revision) == (whole, changes[-1].revision)
        assert state.fields == (fields if stands is not None else {})
        assert list(state.fields.values()) == sorted(state.fields.values())
        assert state.born in [change.revision for change in changes if change.op is Op.INSERT]
