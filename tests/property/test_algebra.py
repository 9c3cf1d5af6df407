"""The algebra of consolidation: P3 and P4 on any history, and that the table is associative."""

from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from journal.core.consolidate import Delta, Effect, Fold, consolidate, then
from journal.core.model import Change, Op
from tests.oracle import Oracle, State, apply, comparable_state, told

COLLECTIONS, ATOMS, FIELDS = ("c", "d"), ("a", "b"), ("x", "y", "z")
VALUES: st.SearchStrategy[Any] = st.sampled_from([None, True, False, 0, 1, 1.0, "t", [], {"x": 1}])
DATA = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3)
UNSET = st.lists(st.sampled_from(FIELDS), max_size=2)


@st.composite
def pushed_changes(draw: st.DrawFn) -> dict[str, Any]:
    """A change as it is pushed, sensible or not."""
    op = draw(st.sampled_from(["insert", "update", "update", "put", "delete"]))
    change: dict[str, Any] = {
        "op": op,
        "collection": draw(st.sampled_from(COLLECTIONS)),
        "atom": draw(st.sampled_from(ATOMS)),
    }
    if op in ("insert", "put", "update"):
        change["data"] = draw(DATA)
    if op == "update":
        change["unset"] = draw(UNSET)
    return change


PUSHES = st.tuples(st.sampled_from(["me", "you", None]), st.lists(pushed_changes(), max_size=4))
HISTORIES = st.lists(PUSHES, max_size=20)
NUMBERS = {"me": 1, "you": 2, None: None}
OPS = {"insert": Op.INSERT, "update": Op.UPDATE, "replace": Op.REPLACE, "delete": Op.DELETE}


def oracle_of(history: list[tuple[str | None, list[dict[str, Any]]]]) -> Oracle:
    """The journal that a history of pushes leads to."""
    oracle = Oracle()
    for client, changes in history:
        oracle.push(changes, client)
    return oracle


def recorded(oracle: Oracle, after: int, until: int) -> list[Change]:
    """What the service would have recorded."""
    return [
        Change(
            revision=c.revision,
            op=OPS[c.op],
            collection=c.key[0],
            atom=c.key[1],
            data=msgspec.json.encode(c.data) if c.data or (c.data is not None and c.op != "update") else None,
            unset=tuple(sorted(c.unset)),
            client=NUMBERS[c.client],
        )
        for c in oracle.changes[after:until]
    ]


def as_answered(deltas: list[Delta]) -> list[dict[str, Any]]:
    """Deltas as a client reads them."""
    found: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(deltas))
    return found


def applied(state: State, deltas: list[Delta]) -> State:
    after = dict(state)
    apply(after, as_answered(deltas))
    return after


@given(HISTORIES, st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_p3_deltas_lead_from_the_one_state_to_the_other(history: Any, one: int, other: int) -> None:
    oracle = oracle_of(history)
    a, b = sorted((one % (oracle.head + 1), other % (oracle.head + 1)))

    deltas = consolidate(recorded(oracle, a, b))

    assert comparable_state(applied(oracle.state(a), deltas)) == comparable_state(oracle.state(b))
    keys = [(delta.collection, delta.atom) for delta in deltas]
    assert len(set(keys)) == len(keys)


@given(HISTORIES, st.integers(0, 60), st.integers(0, 60), st.sampled_from([None, "me", "you"]))
@settings(deadline=None)
def test_p3_deltas_are_those_of_the_table_to_the_letter(history: Any, one: int, other: int, client: str | None) -> None:
    oracle = oracle_of(history)
    a, b = sorted((one % (oracle.head + 1), other % (oracle.head + 1)))

    deltas = Fold(recorded(oracle, a, b)).deltas(client=NUMBERS[client], with_revisions=True)

    answered = {(delta["collection"], delta["atom"]): told(delta) for delta in as_answered(deltas)}
    assert answered == oracle.deltas(a, b, client=client)
    assert [delta.revision for delta in deltas] == sorted(delta.revision for delta in deltas)


@given(HISTORIES, st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_p3_what_was_born_and_died_in_the_window_is_absent(history: Any, one: int, other: int) -> None:
    oracle = oracle_of(history)
    a, b = sorted((one % (oracle.head + 1), other % (oracle.head + 1)))

    deltas = consolidate(recorded(oracle, a, b))

    is_there = oracle.state(a).keys() | oracle.state(b).keys()
    assert {(delta.collection, delta.atom) for delta in deltas} <= is_there


@given(HISTORIES, st.lists(st.integers(0, 60), min_size=3, max_size=3))
@settings(deadline=None)
def test_p4_deltas_of_two_windows_have_the_effect_of_those_of_both(history: Any, places: list[int]) -> None:
    oracle = oracle_of(history)
    a, b, c = sorted(place % (oracle.head + 1) for place in places)

    in_two = applied(applied(oracle.state(a), consolidate(recorded(oracle, a, b))), consolidate(recorded(oracle, b, c)))
    in_one = applied(oracle.state(a), consolidate(recorded(oracle, a, c)))

    assert comparable_state(in_two) == comparable_state(in_one)


@given(HISTORIES, st.lists(st.integers(0, 60), min_size=3, max_size=3))
@settings(deadline=None)
def test_p4_the_consolidation_of_two_consolidations_is_that_of_both_windows(history: Any, places: list[int]) -> None:
    oracle = oracle_of(history)
    a, b, c = sorted(place % (oracle.head + 1) for place in places)

    of_two = Fold(as_changes(consolidate(recorded(oracle, a, b))) + as_changes(consolidate(recorded(oracle, b, c))))

    in_one = consolidate(recorded(oracle, a, c))
    assert sorted(map(effective, of_two.deltas()), key=repr) == sorted(map(effective, in_one), key=repr)


def as_changes(deltas: list[Delta]) -> list[Change]:
    """Deltas as if they had been recorded."""
    return [
        Change(
            revision=delta.revision,
            op=OPS[delta.op],
            collection=delta.collection,
            atom=delta.atom,
            data=None if isinstance(delta.data, msgspec.UnsetType) else bytes(delta.data),
            unset=delta.unset,
        )
        for delta in deltas
    ]


def effective(delta: Delta) -> tuple[Any, ...]:
    """What a delta does. What was deleted in the first window may have been born and have died in the second."""
    [answered] = as_answered([delta])
    effect = told(answered)
    return (delta.collection, delta.atom, effect._replace(revision=0) if effect.op == "delete" else effect)


@given(HISTORIES, st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_p4_applying_deltas_twice_changes_nothing_more(history: Any, one: int, other: int) -> None:
    oracle = oracle_of(history)
    a, b = sorted((one % (oracle.head + 1), other % (oracle.head + 1)))
    deltas = consolidate(recorded(oracle, a, b))

    once = applied(oracle.state(a), deltas)

    assert comparable_state(applied(once, deltas)) == comparable_state(once)


@given(HISTORIES, st.integers(0, 60), st.sampled_from(["me", "you"]))
@settings(deadline=None)
def test_trap_2_no_ghost_stays_with_who_holds_its_own_inserts_ahead(history: Any, since: int, client: str) -> None:
    oracle = oracle_of(history)
    a = since % (oracle.head + 1)
    held = oracle.state(a)
    for change in oracle.changes[a:]:
        if change.op == "insert" and change.client == client:
            held.update({change.key: oracle.state(change.revision)[change.key]})

    deltas = Fold(recorded(oracle, a, oracle.head)).deltas(client=NUMBERS[client])

    assert applied(held, deltas).keys() == oracle.state(oracle.head).keys()


# The table itself: that it does not matter where a history of one atom is cut.

EFFECTS = st.builds(
    lambda op, data, unset: Effect(
        op,
        None if op is Op.DELETE else msgspec.json.encode(data),
        tuple(name for name in dict.fromkeys(unset) if name not in data) if op is Op.UPDATE else (),
    ),
    st.sampled_from(Op),
    DATA,
    UNSET,
)


def effect(of: Effect | None) -> Any:
    """An effect, to be compared: the order of fields and of names is none."""
    if of is None:
        return None
    return of.op, msgspec.json.decode(of.data or b"{}"), frozenset(of.unset)


def may_follow(before: Effect, after: Effect) -> bool:
    return (before.op is Op.DELETE) == (after.op is Op.INSERT)


@given(EFFECTS, EFFECTS, EFFECTS)
@settings(deadline=None, max_examples=1000)
def test_p4_the_table_is_associative_wherever_a_history_is_cut(a: Effect, b: Effect, c: Effect) -> None:
    assume(may_follow(a, b) and may_follow(b, c))
    after = then(b, c)

    left, right = then(then(a, b), c), a if after is None else then(a, after)

    if after is None:  # what was deleted before, born and died again is deleted, as `a` says
        assert a.op is Op.DELETE
    assert effect(left) == effect(right)


@given(EFFECTS, EFFECTS)
@settings(deadline=None, max_examples=500)
def test_a_pair_can_be_folded_exactly_if_it_can_be_recorded(a: Effect, b: Effect) -> None:
    try:
        then(a, b)
    except ValueError:
        assert not may_follow(a, b)
    else:
        assert may_follow(a, b)
