"""Deciding a push: the table of the protocol's section 5, cell by cell, and the fine print around it.

A cell says what is recorded: `insert`, `replace`, `update`, `delete`. A `*` behind it: the sender is told `merged`
and what stands, else `applied`. `unchanged*` and `conflict` carry what stands, `unchanged` does not; `conflict:null`
and `unchanged:null` say that nothing does. `newest` is `server` or `client`, by the time; `both` is `server`, and what
ends as a conflict is kept.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from journal.core.decide import LATEST, Decision, decide
from journal.core.model import AtomState, Change, Conflict, Current, Key, Op, Outcome, Policy, Push, PushChange
from journal.errors import BaseRequired

HEAD, BASE = 20, 10
ARRIVED, CHANGED = 1_000_000, 400_000  # when the push came in, and when the server last changed the atom
STANDS = {"title": "theirs", "cost": 1}
KEY: Key = ("todo", "a")


def lives(revision: int, data: Any = STANDS, **members: Any) -> AtomState:
    """An atom that lives; all its fields are of its last revision unless said otherwise."""
    known: dict[str, Any] = {
        "born": 1,
        "born_by": 7,
        "created": 1,
        "revision": revision,
        "data": json.dumps(data).encode(),
        "fields": dict.fromkeys(data, revision),
    }
    return AtomState(**known | members)


def gone(revision: int) -> AtomState:
    """A tombstone."""
    return AtomState(born=1, born_by=7, created=1, revision=revision, data=None, fields={})


def asks(op: Any, data: Any = UNSET, **members: Any) -> PushChange:
    """A change of the one atom that these tests are about."""
    text = None if data is UNSET else json.dumps(data).encode()
    return PushChange(**{"op": op, "collection": "todo", "atom": "a", "data": text} | members)


def decided(
    changes: Sequence[PushChange],
    state: AtomState | None,
    policy: Policy = "server",
    *,
    is_atomic: bool = False,
    client: int | None = 3,
    horizon: int = 0,
    policies: Mapping[str, Policy] | None = None,
    atom_bytes: int = 1000,
    sent: int | None = None,
    changed: int | None = CHANGED,
    conflicts: int = 0,
) -> Decision:
    """What a push of `changes` comes to where the atom stands like this."""
    return decide(
        Push(changes, policy, is_atomic, client, sent, ARRIVED),
        {} if state is None else {KEY: state},
        head=HEAD,
        horizon=horizon,
        policies=policies or {},
        atom_bytes=atom_bytes,
        times={} if changed is None else {KEY: changed},
        conflicts=conflicts,
    )


def told(outcome: Outcome) -> Any:
    """An outcome as it crosses the wire."""
    return json.loads(msgspec.json.encode(outcome))


def cell(decision: Decision, before: AtomState | None) -> str:
    """The one outcome in the words of the table, once all that must go with them is seen to be there."""
    [outcome] = decision.outcomes
    after = decision.atoms.get(KEY, before)
    stands = None if after is None or after.data is None else Current(after.revision, Raw(after.data))
    if outcome.status in ("conflict", "unchanged"):
        assert decision.changes == []
        assert decision.atoms == {}
        assert outcome.current in (UNSET, stands)
        if outcome.status == "conflict":
            kept = [conflict.id for conflict in decision.conflicts]
            assert outcome == Outcome("conflict", current=stands, kept=str(kept[0]) if kept else UNSET)
            return "conflict" if stands else "conflict:null"
        assert outcome.revision == (None if before is None else before.revision)
        return "unchanged" if outcome.current is UNSET else "unchanged*" if stands else "unchanged:null"
    [change] = decision.changes
    assert (change.revision, change.client, change.prev) == (HEAD + 1, 3, 0 if before is None else before.revision)
    assert after is not None
    assert after.revision == outcome.revision == HEAD + 1
    is_told = outcome.status == "merged"
    assert outcome.current == (stands if is_told else UNSET)
    return change.op.name.lower() + ("*" if is_told else "")


# The table. Its columns:

STATES = {
    "never lived": None,
    "deleted before base": gone(BASE),
    "deleted after base": gone(BASE + 1),
    "unchanged since base": lives(BASE),
    "changed after base": lives(BASE + 1),
}

NEW, SAME = {"title": "ours"}, STANDS
INSERT, INSERT_SAME = asks("insert", NEW), asks("insert", SAME)
PUT, PUT_SAME = asks("put", NEW), asks("put", SAME)
UPDATE, UPDATE_SAME = asks("update", {"title": "ours"}), asks("update", {"title": "theirs"}, unset=("none",))
DELETE = asks("delete")

AS_STANDS = b'{ "cost": 1.0, "title": "theirs" }'

TABLE: dict[tuple[Policy, ...], list[tuple[PushChange, list[str]]]] = {
    ("server", "merge", "client"): [
        # ---------- never lived ----- deleted before -- deleted after --- unchanged ------ changed ----------
        (INSERT_SAME, ["insert        ", "insert        ", "insert        ", "unchanged      ", "unchanged*    "]),
        (UPDATE,      ["conflict:null ", "conflict:null ", "conflict:null ", "update         ", "              "]),
        (UPDATE_SAME, ["conflict:null ", "conflict:null ", "conflict:null ", "unchanged      ", "unchanged*    "]),
        (PUT_SAME,    ["insert        ", "insert        ", "              ", "unchanged      ", "unchanged*    "]),
        (DELETE,      ["unchanged     ", "unchanged     ", "unchanged:null", "delete         ", "              "]),
    ],
    ("server", "merge"): [
        (INSERT,      ["insert        ", "insert        ", "insert        ", "conflict       ", "conflict      "]),
        (PUT,         ["insert        ", "insert        ", "conflict:null ", "replace        ", "conflict      "]),
        (PUT_SAME,    ["insert        ", "insert        ", "conflict:null ", "unchanged      ", "unchanged*    "]),
        (UPDATE,      ["conflict:null ", "conflict:null ", "conflict:null ", "update         ", "conflict      "]),
        (DELETE,      ["unchanged     ", "unchanged     ", "unchanged:null", "delete         ", "conflict      "]),
    ],
    ("client",): [
        (INSERT,      ["insert        ", "insert        ", "insert        ", "replace*       ", "replace*      "]),
        (PUT,         ["insert        ", "insert        ", "insert*       ", "replace        ", "replace*      "]),
        (PUT_SAME,    ["insert        ", "insert        ", "insert*       ", "unchanged      ", "unchanged*    "]),
        (UPDATE,      ["conflict:null ", "conflict:null ", "conflict:null ", "update         ", "update*       "]),
        (DELETE,      ["unchanged     ", "unchanged     ", "unchanged:null", "delete         ", "delete*       "]),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "change", "column", "expected"),
    [
        (policy, change, column, cell.strip())
        for policies, rows in TABLE.items()
        for policy in policies
        for change, cells in rows
        for column, cell in zip(STATES, cells, strict=True)
        if cell.strip()
    ],
)
def test_the_table_by_base(policy: Policy, change: PushChange, column: str, expected: str) -> None:
    based = msgspec.structs.replace(change, base=BASE)

    decision = decided([based], STATES[column], policy)

    assert cell(decision, STATES[column]) == expected


YOUNGER, OLDER = ARRIVED - CHANGED - 1, ARRIVED - CHANGED


@pytest.mark.parametrize(
    ("policy", "age", "change", "column", "expected"),
    [
        (policy, age, change, column, cell.strip())
        for policies, rows in TABLE.items()
        for policy, age in (("client", YOUNGER), ("server", OLDER), ("server", None))
        if policy in policies
        for change, cells in rows
        for column, cell in zip(STATES, cells, strict=True)
        if cell.strip()
    ],
)
@pytest.mark.parametrize("by", ["base", "if_data"])
def test_trap_14_newest_is_client_for_what_is_younger_and_server_for_all_else(
    policy: Policy, age: int | None, change: PushChange, column: str, expected: str, by: str
) -> None:
    known: dict[str, Any] = {"base": BASE}
    if by == "if_data":
        data = {"never lived": None, "deleted before base": None, "changed after base": b"{}"}
        known = {"if_data": data.get(column, AS_STANDS)}
    asked = msgspec.structs.replace(change, age=age, **known)

    decision = decided([asked], STATES[column], "newest")

    assert cell(decision, STATES[column]) == expected


@pytest.mark.parametrize(
    ("change", "column", "expected"),
    [
        (change, column, cell.strip())
        for policies, rows in TABLE.items()
        if "server" in policies
        for change, cells in rows
        for column, cell in zip(STATES, cells, strict=True)
        if cell.strip()
    ],
)
def test_both_is_server_and_keeps_what_ends_as_a_conflict(change: PushChange, column: str, expected: str) -> None:
    based, state = msgspec.structs.replace(change, base=BASE), STATES[column]

    decision = decided([based], state, "both", conflicts=7)

    stood = None if state is None or state.data is None else Current(state.revision, Raw(state.data))
    kept = [Conflict(8, 0, based, stood)] if expected.startswith("conflict") else []
    assert cell(decision, state) == expected
    assert decision.conflicts == kept


# `if_data` in place of the base: what the sender gives as data, what there is, and the column that it makes.

GIVEN: list[tuple[bytes | None, AtomState | None, str]] = [
    (None, None, "never lived"),
    (None, gone(5), "deleted before base"),
    (AS_STANDS, None, "deleted after base"),
    (AS_STANDS, gone(5), "deleted after base"),
    (AS_STANDS, lives(19), "unchanged since base"),
    (b'{"cost": 2}', lives(19), "changed after base"),
    (None, lives(19), "changed after base"),
]


@pytest.mark.parametrize(
    ("policy", "change", "given", "state", "expected"),
    [
        (policy, change, given, state, cells[list(STATES).index(column)].strip())
        for given, state, column in GIVEN
        for policies, rows in TABLE.items()
        for policy in policies
        for change, cells in rows
        if cells[list(STATES).index(column)].strip()
    ],
)
def test_the_table_by_the_data_that_was_expected(
    policy: Policy, change: PushChange, given: bytes | None, state: AtomState | None, expected: str
) -> None:
    asked = msgspec.structs.replace(change, if_data=given, base=1)  # which goes before a base

    decision = decided([asked], state, policy)

    assert cell(decision, state) == expected


# Without either: what needs no base, and what is refused.

BASELESS = [
    # ------------ never lived ----- gone ------------ lives -------
    (INSERT,      ["insert       ", "insert       ", "conflict  "]),
    (INSERT_SAME, ["insert       ", "insert       ", "unchanged*"]),
]  # fmt: skip
BASELESS_UNDER_CLIENT = [
    (INSERT,      ["insert       ", "insert       ", "replace*  "]),
    (INSERT_SAME, ["insert       ", "insert       ", "unchanged*"]),
    (PUT,         ["insert       ", "insert       ", "replace   "]),
    (PUT_SAME,    ["insert       ", "insert       ", "unchanged "]),
    (UPDATE,      ["conflict:null", "conflict:null", "update    "]),
    (UPDATE_SAME, ["conflict:null", "conflict:null", "unchanged "]),
    (DELETE,      ["unchanged    ", "unchanged    ", "delete    "]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "change", "state", "expected"),
    [
        (policy, change, state, cell.strip())
        for policy, rows in [
            *((policy, BASELESS) for policy in ("server", "merge", "newest", "both")),
            ("client", BASELESS_UNDER_CLIENT),
        ]
        for change, cells in rows
        for state, cell in zip([None, gone(5), lives(19)], cells, strict=True)
    ],
)
def test_an_insert_needs_no_base_and_under_client_nothing_does(
    policy: Policy, change: PushChange, state: AtomState | None, expected: str
) -> None:
    decision = decided([change], state, policy)

    assert cell(decision, state) == expected


@pytest.mark.parametrize("policy", ["server", "merge", "newest", "both"])
@pytest.mark.parametrize("state", [None, gone(5), lives(5)])
def test_every_change_that_lacks_a_base_is_pointed_at(policy: Policy, state: AtomState | None) -> None:
    changes = [PUT, asks("insert", NEW, atom="b"), UPDATE, DELETE, asks("delete", base=BASE)]

    with pytest.raises(BaseRequired) as refused:
        decided(changes, state, policy)

    assert [fault.pointer for fault in refused.value.errors] == [
        "/changes/0/base",
        "/changes/2/base",
        "/changes/3/base",
    ]


def test_the_policy_of_a_collection_goes_before_the_pushs() -> None:
    under_client = decided([UPDATE], lives(19), "server", policies={"todo": "client"})
    under_server = decided(
        [msgspec.structs.replace(UPDATE, base=BASE)], lives(19), "client", policies={"todo": "server"}
    )
    elsewhere = decided([msgspec.structs.replace(UPDATE, base=BASE)], lives(19), "client", policies={"else": "server"})

    assert [decision.outcomes[0].status for decision in (under_client, under_server, elsewhere)] == [
        "applied",
        "conflict",
        "merged",
    ]


def test_a_base_is_required_where_the_collections_policy_asks_for_one() -> None:
    with pytest.raises(BaseRequired):
        decided([DELETE], lives(19), "client", policies={"todo": "server"})


# Merge: the fields that nobody set or unset since the base (trap 22).

MOVED = lives(
    19, {"title": "theirs", "cost": 1, "note": "x"}, created=8, fields={"cost": 8, "note": 9, "gone": 15, "title": 19}
)


def merged(change: PushChange, state: AtomState = MOVED) -> tuple[Outcome, list[Change], Decision]:
    decision = decided([msgspec.structs.replace(change, base=BASE)], state, "merge")
    return decision.outcomes[0], decision.changes, decision


def test_merge_records_the_fields_that_stood_since_base() -> None:
    outcome, [change], decision = merged(asks("update", {"title": "ours", "cost": 2}, unset=("note", "gone")))

    assert (change.op, json.loads(change.data or b""), change.unset) == (Op.UPDATE, {"cost": 2}, ("note",))
    assert outcome.status == "merged"
    assert isinstance(outcome.current, Current)
    assert json.loads(bytes(outcome.current.data)) == {"title": "theirs", "cost": 2}
    assert decision.atoms[KEY].fields == {"gone": 15, "title": 19, "note": HEAD + 1, "cost": HEAD + 1}


def test_merge_may_only_unset() -> None:
    _, [change], decision = merged(asks("update", {"title": "ours"}, unset=("note",)))

    assert (change.data, change.unset) == (None, ("note",))
    assert json.loads(decision.atoms[KEY].data or b"") == {"title": "theirs", "cost": 1}


def test_merge_sets_a_field_that_never_was() -> None:
    _, [change], _ = merged(asks("update", {"title": "ours", "new": 1}))

    assert json.loads(change.data or b"") == {"new": 1}


def test_merge_of_nothing_but_changed_fields_is_a_conflict() -> None:
    outcome, changes, _ = merged(asks("update", {"title": "ours"}, unset=("gone",)))

    assert outcome == Outcome("conflict", current=Current(19, Raw(MOVED.data or b"")))
    assert changes == []


def test_trap_22_merge_does_not_bring_back_a_field_that_was_unset_since_base() -> None:
    outcome, changes, _ = merged(asks("update", {"gone": "back", "title": "ours"}))

    assert (outcome.status, changes) == ("conflict", [])


def test_merge_whose_fields_are_so_already_is_unchanged() -> None:
    outcome, changes, _ = merged(asks("update", {"title": "ours", "cost": 1}, unset=("none",)))

    assert outcome == Outcome("unchanged", revision=19, current=Current(19, Raw(MOVED.data or b"")))
    assert changes == []


@pytest.mark.parametrize("created", [BASE + 1, 19])
def test_trap_22_merge_into_an_atom_that_was_made_anew_since_base_is_a_conflict(created: int) -> None:
    anew = msgspec.structs.replace(MOVED, created=created)

    outcome, changes, _ = merged(asks("update", {"cost": 2}), anew)

    assert (outcome.status, changes) == ("conflict", [])


def test_merge_needs_a_revision_and_not_data() -> None:
    decision = decided([asks("update", {"cost": 2}, base=BASE, if_data=b"{}")], MOVED, "merge")

    assert (decision.outcomes[0].status, decision.changes) == ("conflict", [])


def test_merge_of_other_operations_is_as_server() -> None:
    for change in (PUT, DELETE):
        outcome, changes, _ = merged(change)

        assert (outcome.status, changes) == ("conflict", [])


# Newest: when a change was made (trap 14). The atom was changed at CHANGED, and the push came in at ARRIVED.

MOVED_ON = asks("put", {"n": 1}, base=BASE)


def became(made: dict[str, Any], **members: Any) -> str:
    """What becomes of a change that was made then, where the atom has changed since its base."""
    decision = decided([msgspec.structs.replace(MOVED_ON, **made)], lives(19), "newest", **members)
    return decision.outcomes[0].status


@pytest.mark.parametrize(
    ("made", "sent", "status"),
    [
        ({"age": ARRIVED - CHANGED - 1}, None, "merged"),
        ({"age": ARRIVED - CHANGED}, None, "conflict"),
        ({"age": 0}, None, "merged"),
        ({"age": 10**18}, None, "conflict"),
        ({"changed_at": CHANGED + 1}, None, "merged"),
        ({"changed_at": CHANGED}, None, "conflict"),
        ({"changed_at": -(10**15)}, None, "conflict"),
        ({}, ARRIVED, "conflict"),
    ],
)
def test_trap_14_a_change_is_the_clients_if_it_is_younger_and_a_tie_is_the_servers(
    made: dict[str, Any], sent: int | None, status: str
) -> None:
    assert became(made, sent=sent) == status


@pytest.mark.parametrize("off", [-3_600_000_000, -1, 0, 1, 3_600_000_000])
def test_trap_14_the_senders_clock_may_be_off_by_whatever_it_is_at_the_push(off: int) -> None:
    younger = became({"changed_at": CHANGED + 1 + off}, sent=ARRIVED + off)
    as_old = became({"changed_at": CHANGED + off}, sent=ARRIVED + off)

    assert (younger, as_old) == ("merged", "conflict")


@pytest.mark.parametrize("made", [{"changed_at": 10**15}, {"changed_at": ARRIVED + 1}, {"age": -5}])
def test_trap_14_nothing_was_made_after_it_came_in(made: dict[str, Any]) -> None:
    just_before = became(made, changed=ARRIVED - 1)
    just_then = became(made, changed=ARRIVED)

    assert (just_before, just_then) == ("merged", "conflict")


def test_an_age_goes_before_a_moment() -> None:
    assert became({"age": ARRIVED, "changed_at": ARRIVED}) == "conflict"
    assert became({"age": 0, "changed_at": 0}) == "merged"


def test_what_no_record_reaches_any_more_is_older_and_what_has_no_time_yet_is_younger() -> None:
    assert became({"age": 10**18}, changed=None) == "merged"
    assert became({}, changed=None) == "conflict"
    assert became({"age": 0}, changed=LATEST) == "conflict"


def test_newest_judges_a_tombstone_that_was_compacted_away_as_older() -> None:
    decision = decided([msgspec.structs.replace(MOVED_ON, age=10**18)], None, "newest", horizon=HEAD, changed=None)

    assert decision.outcomes[0].status == "merged"


def test_each_change_is_judged_by_its_own_age_against_the_atom_as_it_was_before_the_push() -> None:
    changes = [
        asks("put", {"n": 1}, base=BASE, age=0),
        asks("put", {"n": 2}, base=BASE, age=ARRIVED - CHANGED - 1),
        asks("put", {"n": 3}, base=BASE, age=ARRIVED),
        asks("put", {"n": 4}, base=BASE, age=0),
    ]

    decision = decided(changes, lives(19), "newest")

    assert statuses(decision) == ["merged", "merged", "conflict", "conflict"]


def test_a_collection_may_be_judged_by_time() -> None:
    young = msgspec.structs.replace(MOVED_ON, age=0)

    by_time = decided([young], lives(19), "server", policies={"todo": "newest"})
    not_by_time = decided([young], lives(19), "newest", policies={"todo": "server"})

    assert (statuses(by_time), statuses(not_by_time)) == (["merged"], ["conflict"])


# Both: what is kept.


def test_followers_of_a_conflict_are_kept_too_each_with_what_it_met() -> None:
    changes = [
        asks("update", {"cost": 2}, base=BASE),
        asks("insert", NEW),
        asks("delete", base=BASE),
        asks("insert", NEW, collection="b"),
    ]

    decision = decided(changes, lives(BASE), "both", conflicts=41)

    met = Current(HEAD + 1, Raw(b'{"title":"theirs","cost":2}'))
    assert decision.conflicts == [Conflict(42, 1, changes[1], met), Conflict(43, 2, changes[2], met)]
    assert [outcome.kept for outcome in decision.outcomes] == [UNSET, "42", "43", UNSET]


def test_what_is_rejected_is_not_kept_but_its_followers_are() -> None:
    changes = [asks("update", {"n": 1}, unset=("n",), base=19), asks("delete", base=19)]

    decision = decided(changes, lives(19), "both")

    assert (statuses(decision), [conflict.place for conflict in decision.conflicts]) == (["rejected", "conflict"], [1])


def test_only_what_is_under_both_is_kept() -> None:
    changes = [asks("insert", NEW), asks("update", NEW, collection="b", base=BASE)]

    by_collection = decided(changes, lives(19), "server", policies={"todo": "both"})
    by_push = decided(changes, lives(19), "both", policies={"todo": "server"})

    assert [conflict.place for conflict in by_collection.conflicts] == [0]
    assert [conflict.place for conflict in by_push.conflicts] == [1]


def test_a_refused_push_keeps_nothing() -> None:
    decision = decided([INSERT, asks("insert", NEW, atom="b")], lives(19), "both", is_atomic=True)

    assert (decision.is_refused, decision.conflicts) == (True, [])
    assert [outcome.kept for outcome in decision.outcomes] == [UNSET, UNSET]


# Several changes of one atom: data as the push has left it, revisions as they were before it.


def statuses(decision: Decision) -> list[str]:
    return [outcome.status for outcome in decision.outcomes]


def ops(decision: Decision) -> list[str]:
    return [change.op.name.lower() for change in decision.changes]


def test_what_the_push_inserted_needs_no_base() -> None:
    changes = [asks("insert", {"n": 1}), asks("update", {"n": 2}), asks("put", {"n": 3}), DELETE, asks("put", {"n": 4})]

    decision = decided(changes, None)

    assert statuses(decision) == ["applied"] * 5
    assert ops(decision) == ["insert", "update", "replace", "delete", "insert"]
    assert [change.prev for change in decision.changes] == [0, 21, 22, 23, 24]
    assert decision.atoms == {
        KEY: AtomState(born=21, born_by=3, created=25, revision=25, data=b'{"n": 4}', fields={"n": 25})
    }


def test_what_the_push_put_where_nothing_was_needs_no_base_either() -> None:
    decision = decided([asks("put", {"n": 1}, base=0), asks("update", {"n": 2})], None)

    assert (statuses(decision), ops(decision)) == (["applied", "applied"], ["insert", "update"])


def test_what_the_push_put_over_something_needs_a_base_still() -> None:
    with pytest.raises(BaseRequired) as refused:
        decided([asks("put", {"n": 1}, if_data=b'{"cost":1,"title":"theirs"}'), asks("update", {"n": 2})], lives(19))

    assert [fault.pointer for fault in refused.value.errors] == ["/changes/1/base"]


def test_revisions_are_compared_as_they_were_before_the_push() -> None:
    changes = [
        asks("update", {"title": "1"}, base=BASE),
        asks("update", {"title": "2"}, base=BASE),
        asks("delete", base=BASE),
    ]

    decision = decided(changes, lives(BASE))

    assert statuses(decision) == ["applied"] * 3
    assert ops(decision) == ["update", "update", "delete"]


def test_merge_compares_fields_as_they_were_before_the_push() -> None:
    changes = [asks("update", {"cost": 2}, base=BASE), asks("update", {"cost": 3, "title": "ours"}, base=BASE)]

    decision = decided(changes, MOVED, "merge")

    assert statuses(decision) == ["merged", "merged"]
    assert [json.loads(change.data or b"") for change in decision.changes] == [{"cost": 2}, {"cost": 3}]


def test_an_atom_that_the_push_has_deleted_can_be_inserted_again() -> None:
    decision = decided([asks("delete", base=BASE), asks("insert", {"n": 1}), asks("update", {"n": 2})], lives(BASE))

    assert (statuses(decision), ops(decision)) == (["applied"] * 3, ["delete", "insert", "update"])
    assert decision.atoms[KEY] == AtomState(
        born=1, born_by=0, created=22, revision=23, data=b'{"n":2}', fields={"n": 23}
    )


def test_expected_data_is_compared_with_what_the_push_has_left() -> None:
    changes = [asks("update", {"title": "1"}, base=BASE), asks("put", {"n": 1}, if_data=b'{"title": "1", "cost": 1}')]

    decision = decided(changes, lives(BASE))

    assert (statuses(decision), ops(decision)) == (["applied", "applied"], ["update", "replace"])


def test_an_insert_of_what_stands_makes_the_atom_known() -> None:
    decision = decided([INSERT_SAME, asks("update", {"cost": 2})], lives(19))

    assert (statuses(decision), ops(decision)) == (["unchanged", "applied"], ["update"])


def test_several_atoms_are_apart() -> None:
    changes = [
        INSERT,
        asks("insert", NEW, atom="b"),
        asks("insert", NEW, collection="b"),
        asks("update", {"n": 1}, atom="b"),
    ]

    decision = decided(changes, lives(19))

    assert statuses(decision) == ["conflict", "applied", "applied", "applied"]
    assert set(decision.atoms) == {("todo", "b"), ("b", "a")}
    assert [change.revision for change in decision.changes] == [21, 22, 23]


# Trap 21: the followers of what failed.


@pytest.mark.parametrize(
    ("failing", "status"),
    [
        (INSERT, "conflict"),
        (asks("update", {"n": 1}, base=BASE), "conflict"),
        (asks("update", {"n": 1}, unset=("n",), base=19), "rejected"),
        (asks("put", {"n": "x" * 1000}, base=19), "rejected"),
    ],
)
def test_trap_21_what_follows_a_failed_change_of_an_atom_is_a_conflict(failing: PushChange, status: str) -> None:
    followers = [
        asks("update", {"title": "ours"}),
        asks("put", NEW, base=19),
        asks("delete", if_data=AS_STANDS),
        asks("insert", SAME),
    ]

    decision = decided([failing, *followers, asks("insert", NEW, atom="b")], lives(19))

    assert statuses(decision) == [status, *["conflict"] * 4, "applied"]
    assert decision.outcomes[1:5] == [Outcome("conflict", current=Current(19, Raw(lives(19).data or b"")))] * 4
    assert [change.atom for change in decision.changes] == ["b"]


def test_trap_21_what_a_push_recorded_before_its_failure_stays() -> None:
    changes = [asks("update", {"cost": 2}, base=BASE), asks("insert", NEW), asks("delete", base=BASE)]

    decision = decided(changes, lives(BASE))

    assert (statuses(decision), ops(decision)) == (["applied", "conflict", "conflict"], ["update"])
    assert isinstance(decision.outcomes[2].current, Current)
    assert decision.outcomes[2].current.revision == HEAD + 1


# Rejected: what makes no sense.


def test_setting_and_unsetting_the_same_field_is_rejected() -> None:
    decision = decided([asks("update", {"b": 1, "a": 2, "c": 3}, unset=("a", "b"), base=BASE)], lives(BASE))

    [outcome] = decision.outcomes
    assert told(outcome) == {
        "status": "rejected",
        "error": {"code": "set_and_unset", "detail": "sets and unsets the same: a, b"},
    }
    assert decision.changes == []


SIZED = asks("insert", {"n": "x" * 12})  # 20 bytes without blanks


def test_an_atom_may_have_so_many_bytes_and_no_more() -> None:
    fits = decided([SIZED], None, atom_bytes=20)
    does_not = decided([SIZED], None, atom_bytes=19)

    assert statuses(fits) == ["applied"]
    assert [told(outcome) for outcome in does_not.outcomes] == [
        {
            "status": "rejected",
            "error": {"code": "atom_too_large", "detail": "the atom would have 20 bytes; at most 19 are kept"},
        }
    ]
    assert (does_not.changes, does_not.atoms) == ([], {})


def test_an_update_may_not_make_an_atom_too_large() -> None:
    decision = decided([asks("update", {"note": "x" * 50}, base=BASE)], lives(BASE), atom_bytes=60)

    assert statuses(decision) == ["rejected"]


def test_white_space_does_not_make_an_atom_too_large() -> None:
    """PostgreSQL tells jsonb with blanks: an atom that was taken became too large for its own updates."""
    stands = lives(BASE, {"list": [1] * 20})

    decision = decided([asks("update", {"n": 1}, base=BASE)], stands, atom_bytes=60)

    assert len(stands.data or b"") > 60
    assert statuses(decision) == ["applied"]


# Atomic: all or nothing.


def test_an_atomic_push_that_fails_in_part_records_nothing() -> None:
    changes = [
        asks("insert", NEW, atom="b"),
        asks("update", {"title": "2"}, atom="b"),
        asks("insert", SAME),
        asks("insert", NEW),
        asks("update", {"title": "x"}, unset=("title",), atom="b"),
    ]

    decision = decided(changes, lives(19), is_atomic=True)

    assert decision.is_refused
    assert (decision.changes, decision.atoms) == ([], {})
    stands = {"revision": 19, "data": STANDS}
    assert [told(outcome) for outcome in decision.outcomes[:4]] == [
        {"status": "applied"},
        {"status": "applied"},
        {"status": "unchanged", "revision": 19, "current": stands},
        {"status": "conflict", "current": stands},
    ]
    assert decision.outcomes[4].status == "rejected"


def test_a_refused_push_is_told_what_stands_and_not_what_it_would_have_made() -> None:
    changes = [
        asks("insert", {"n": 1}),
        asks("insert", {"n": 1}),
        asks("delete", atom="b", base=1),
        asks("insert", {"n": 2}),
    ]

    decision = decided(changes, None, is_atomic=True)

    assert [told(outcome) for outcome in decision.outcomes] == [
        {"status": "applied"},
        {"status": "unchanged", "revision": None},
        {"status": "unchanged", "revision": None},
        {"status": "conflict", "current": None},
    ]


def test_a_refused_push_has_no_revision_for_what_it_would_have_merged() -> None:
    changes = [asks("update", {"cost": 5}, base=BASE), asks("insert", NEW)]

    decision = decided(changes, MOVED, "merge", is_atomic=True)

    assert [told(outcome) for outcome in decision.outcomes] == [
        {"status": "merged"},
        {"status": "conflict", "current": {"revision": 19, "data": json.loads(MOVED.data or b"")}},
    ]


def test_an_atomic_push_of_which_all_is_taken_is_recorded() -> None:
    decision = decided([asks("insert", NEW), asks("delete", atom="b", base=1)], None, is_atomic=True)

    assert not decision.is_refused
    assert (statuses(decision), ops(decision)) == (["applied", "unchanged"], ["insert"])


# Compaction: a tombstone may be gone.


@pytest.mark.parametrize(("horizon", "column"), [(BASE, "deleted before base"), (BASE + 1, "deleted after base")])
@pytest.mark.parametrize("policy", ["server", "merge", "client"])
def test_below_the_horizon_what_is_not_there_counts_as_deleted_after_base(
    policy: Policy, horizon: int, column: str
) -> None:
    for change in (INSERT, PUT, UPDATE, DELETE):
        based = msgspec.structs.replace(change, base=BASE)

        decision = decided([based], None, policy, horizon=horizon)

        assert statuses(decision) == statuses(decided([based], STATES[column], policy))


def test_below_the_horizon_what_lives_is_judged_like_any_other() -> None:
    decision = decided([asks("update", {"cost": 2}, base=BASE)], MOVED, "merge", horizon=HEAD)

    assert statuses(decision) == ["merged"]


# The state that is kept: born, born_by, created, fields.


def test_what_is_inserted_for_the_first_time_is_born() -> None:
    decision = decided([asks("insert", {"b": 1, "a": 2})], None)

    assert decision.atoms[KEY] == AtomState(
        born=21, born_by=3, created=21, revision=21, data=b'{"b": 1, "a": 2}', fields={"b": 21, "a": 21}
    )


@pytest.mark.parametrize(
    ("was", "client", "becomes"), [(3, 3, 3), (7, 3, 0), (0, 3, 0), (None, 3, 0), (None, None, None), (7, None, 0)]
)
def test_trap_2_who_inserted_is_remembered_until_several_have(
    was: int | None, client: int | None, becomes: int | None
) -> None:
    tombstone = msgspec.structs.replace(gone(5), born_by=was)

    decision = decided([INSERT], tombstone, client=client)

    assert (decision.atoms[KEY].born, decision.atoms[KEY].born_by) == (1, becomes)


def test_replacing_begins_new_data() -> None:
    decision = decided([asks("put", {"n": 1}, base=BASE)], lives(BASE))

    assert decision.atoms[KEY] == AtomState(
        born=1, born_by=7, created=21, revision=21, data=b'{"n": 1}', fields={"n": 21}
    )


def test_an_update_moves_its_fields_to_the_end_and_keeps_what_it_unset() -> None:
    stands = lives(BASE, {"a": 1, "b": 1, "c": 1}, fields={"a": 2, "b": 3, "c": 4})

    decision = decided([asks("update", {"b": 2}, unset=("a", "none"), base=BASE)], stands)

    state = decision.atoms[KEY]
    assert list(state.fields.items()) == [("c", 4), ("a", 21), ("none", 21), ("b", 21)]
    assert (state.created, state.revision, json.loads(state.data or b"")) == (1, 21, {"b": 2, "c": 1})


def test_an_atom_of_many_fields_costs_what_its_fields_are() -> None:
    """Each field was looked for among all others: the service stood still for minutes (the time-out of tests)."""
    names = [f"{n}" for n in range(200_000)]
    stands = lives(BASE, dict.fromkeys(names, 1))

    update_all = asks("update", dict.fromkeys(names[1::2], 2), unset=tuple(names[::2]), base=BASE)
    decision = decided([update_all], stands, atom_bytes=10_000_000)

    assert list(decision.atoms[KEY].fields) == names[::2] + names[1::2]


def test_an_update_may_only_unset() -> None:
    decision = decided([asks("update", unset=("cost",), base=BASE)], lives(BASE))

    [change] = decision.changes
    assert (change.data, change.unset) == (None, ("cost",))


def test_a_tombstone_knows_where_it_came_from() -> None:
    decision = decided([asks("delete", base=BASE)], lives(BASE))

    assert decision.atoms[KEY] == AtomState(born=1, born_by=7, created=1, revision=21, data=None, fields={})


def test_a_push_of_nothing_comes_to_nothing() -> None:
    decision = decided([], None, is_atomic=True)

    assert decision == Decision([], [], {})


def test_p9_a_change_that_its_sender_may_not_make_is_rejected_alone_and_told_nothing() -> None:
    ours = PushChange("insert", "ours", "a", b"{}")
    theirs = asks("put", {"title": "mine"}, if_data=json.dumps(STANDS).encode())
    without_base = asks("delete")

    for is_atomic in (False, True):
        push = Push([theirs, ours, without_base], is_atomic=is_atomic, writes=frozenset(["ours"]))
        decision = decide(push, {KEY: lives(15)}, head=HEAD, horizon=0, policies={}, atom_bytes=1000)

        outcomes = [told(outcome) for outcome in decision.outcomes]
        assert outcomes[0] == outcomes[2]
        assert (outcomes[0]["status"], outcomes[0]["error"]["code"]) == ("rejected", "forbidden")
        assert "current" not in outcomes[0]
        assert outcomes[1]["status"] == "applied"
        assert [change.collection for change in decision.changes] == ([] if is_atomic else ["ours"])
        assert decision.is_refused is is_atomic
