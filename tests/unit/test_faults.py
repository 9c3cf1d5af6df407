"""What is told about a body that msgspec refuses: everything, each with its place."""

import enum
import json
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Meta, UnsetType

from journal.core.ijson import MOST_FAULTS
from journal.core.names import atom_ok, collection_ok, journal_ok
from journal.errors import Fault
from journal.faults import faults

Collection = Annotated[str, Meta(extra={"name": "collection"})]
Atom = Annotated[str, Meta(extra={"name": "atom"})]
Object = Annotated[msgspec.Raw, Meta(extra={"json": "object"})]
ObjectOrNull = Annotated[msgspec.Raw, Meta(extra={"json": "object or null"})]


class Keep(enum.Enum):
    SERVER = "server"
    BOTH = "both"


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    op: Literal["insert", "update", "put", "delete"]
    collection: Collection
    atom: Atom
    data: Object | UnsetType = UNSET
    if_data: ObjectOrNull | UnsetType = UNSET
    unset: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=2)] | UnsetType = UNSET
    base: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET


class Push(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    client: uuid.UUID | None = None
    changes: list[Change]
    is_atomic: bool = msgspec.field(name="atomic", default=False)
    now: datetime | UnsetType = UNSET
    keep: Keep | None = None
    get: dict[Collection, Annotated[list[Atom], Meta(max_length=3)]] | None = None
    journal: Annotated[str, Meta(extra={"name": "journal"})] | None = None
    share: Annotated[float, Meta(gt=0.5, lt=10)] = 1.0
    note: Annotated[str, Meta(max_length=3, pattern="^[a-z]*$")] | int | None = None
    parent: "Push | None" = None
    anything: Any = None
    raw: msgspec.Raw | UnsetType = UNSET
    names: Annotated[dict[str, Any], Meta(max_length=1)] = {}
    places: Annotated[tuple[int, int], "a pair"] = (0, 0)


CHANGE: dict[str, Any] = {"op": "insert", "collection": "todo", "atom": "a"}


def push(**members: Any) -> dict[str, Any]:
    return {"changes": [], **members}


def of_change(**members: Any) -> list[Fault]:
    return faults(push(changes=[CHANGE, {**CHANGE, **members}]), Push)


def test_a_body_as_it_should_be_has_no_fault() -> None:
    changes = [
        CHANGE,
        {**CHANGE, "data": {"a": None}, "if_data": None, "unset": ["x"], "base": 3},
        {**CHANGE, "if_data": {}},
    ]
    body = push(
        changes=changes, client=str(uuid.UUID(int=1)), now="2026-11-21T09:00:00.000Z", keep="both", raw=[1], share=1,
        get={"todo": ["a"]}, journal="site-1", note=7, parent=push(), anything={"x": [1]},
        places=[1, 2], names={"a": 1},
    )  # fmt: skip

    assert faults(body, Push) == []


def test_an_unknown_member_is_told_with_the_known_ones_and_what_may_be_meant() -> None:
    known = "known are: op, collection, atom, data, if_data, unset, base"

    assert of_change(colection="x") == [
        Fault("/changes/1/colection", f'unknown member, did you mean "collection"? {known}')
    ]
    assert of_change(zzz=1) == [Fault("/changes/1/zzz", f"unknown member; {known}")]
    assert of_change(**{"a/b~" * 1000: 1}) == [Fault("/changes/1/" + "a~1b~0" * 1000, f"unknown member; {known}")]


def test_members_go_by_the_name_on_the_wire() -> None:
    [fault] = faults(push(is_atomic=True), Push)

    assert fault.pointer == "/is_atomic"
    assert '"atomic"' in fault.detail


def test_a_struct_that_lets_unknown_members_pass_does_so_here() -> None:
    class Open(msgspec.Struct):
        a: int = 0

    assert faults({"b": 1}, Open) == []


def test_a_missing_member_is_told_where_it_should_be() -> None:
    assert faults({}, Push) == [Fault("/changes", "missing: this member is required")]
    assert [fault.pointer for fault in faults({"changes": [{}]}, Push)] == [
        "/changes/0/op", "/changes/0/collection", "/changes/0/atom",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "place", "detail"),
    [
        ([], "", "expected `object`, got `array`"),
        (None, "", "expected `object`, got `null`"),
        (push(changes={}), "/changes", "expected `array`, got `object`"),
        (push(changes=None), "/changes", "expected `array`, got `null`"),
        (push(changes=[3]), "/changes/0", "expected `object`, got `int`"),
        (push(atomic=1), "/atomic", "expected `bool`, got `int`"),
        (push(atomic=None), "/atomic", "expected `bool`, got `null`"),
        (push(client="x"), "/client", "invalid UUID"),
        (push(now=None), "/now", "expected `datetime`, got `null`"),
        (push(parent=[]), "/parent", "expected `object | null`, got `array`"),
        (push(parent=push(parent={})), "/parent/parent/changes", "missing: this member is required"),
        (push(get=[]), "/get", "expected `object | null`, got `array`"),
        (push(get={"a": "b"}), "/get/a", "expected `array`, got `str`"),
        (push(get={"a": [1]}), "/get/a/0", "expected `str`, got `int`"),
        (push(note=1.5), "/note", "expected `int | str | null`, got `float`"),
    ],
)
def test_a_wrong_type_is_told_with_what_is_expected(body: Any, place: str, detail: str) -> None:
    assert faults(body, Push) == [Fault(place, detail)]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (push(share=10), Fault("/share", "expected `float` < 10.0", 10)),
        (push(share=0.5), Fault("/share", "expected `float` > 0.5")),
        (push(note="abcd"), Fault("/note", "expected `str` of length <= 3", 3)),
        (push(note="A"), Fault("/note", "expected `str` matching regex '^[a-z]*$'")),
        (push(get={"a/b": ["a"] * 4}), Fault("/get/a~1b", "expected `array` of length <= 3", 3)),
        (push(names={"a": 1, "b": 2}), Fault("/names", "expected `object` of length <= 1", 1)),
        (push(changes=[{**CHANGE, "base": -1}]), Fault("/changes/0/base", "expected `int` >= 0", 0)),
        (push(changes=[{**CHANGE, "base": 2**54}]), Fault("/changes/0/base", f"expected `int` <= {2**53}", 2**53)),
        (push(changes=[{**CHANGE, "unset": [""]}]), Fault("/changes/0/unset/0", "expected `str` of length >= 1", 1)),
        (
            push(changes=[{**CHANGE, "unset": ["a"] * 3}]),
            Fault("/changes/0/unset", "expected `array` of length <= 2", 2),
        ),
    ],
)
def test_what_is_out_of_bounds_is_told_with_the_limit(body: Any, fault: Fault) -> None:
    assert faults(body, Push) == [fault]


@pytest.mark.parametrize("value", ["upsert", 3, None, [], {}])
def test_a_value_that_is_none_of_a_few_is_told_with_the_few(value: Any) -> None:
    assert of_change(op=value) == [Fault("/changes/1/op", 'must be one of "insert", "update", "put", "delete"')]
    if value is not None:
        assert faults(push(keep=value), Push) == [Fault("/keep", 'must be one of "server", "both"')]


@pytest.mark.parametrize("value", [None, [], "{}", 1])
def test_data_must_be_an_object(value: Any) -> None:
    assert of_change(data=value) == [Fault("/changes/1/data", "must be a JSON object")]


@pytest.mark.parametrize("value", [[], "{}", 1, False])
def test_data_that_may_be_absent_must_be_an_object_or_null(value: Any) -> None:
    assert of_change(if_data=value) == [Fault("/changes/1/if_data", "must be a JSON object or null")]


def test_names_are_judged_and_their_length_is_told_in_bytes() -> None:
    told = faults(
        push(
            changes=[
                {**CHANGE, "collection": "a,b", "atom": "\x9f"},
                {**CHANGE, "collection": "é" * 65, "atom": "a" * 256},
            ],
            get={"a,b": ["", "\ud800"]},
            journal="A",
        ),
        Push,
    )  # fmt: skip

    assert [(fault.pointer, fault.limit) for fault in told] == [
        ("/changes/0/collection", None), ("/changes/0/atom", None),
        ("/changes/1/collection", 128), ("/changes/1/atom", 255),
        ("/get/a,b", None), ("/get/a,b/0", None), ("/get/a,b/1", None),
        ("/journal", None),
    ]  # fmt: skip
    assert told[0].detail == "must be 1–128 bytes, no comma or control character"
    assert told[4].detail == "its name: must be 1–128 bytes, no comma or control character"


def test_all_that_is_wrong_is_told_at_once() -> None:
    body = {"changes": [{"op": "x", "atom": 1, "bass": 2}, {**CHANGE, "data": None}], "atomic": "yes", "pusch": 1}

    assert {fault.pointer for fault in faults(body, Push)} == {
        "/changes/0/op", "/changes/0/collection", "/changes/0/atom", "/changes/0/bass", "/changes/1/data", "/atomic",
        "/pusch",
    }  # fmt: skip


def test_no_more_is_told_than_an_answer_should_carry() -> None:
    assert len(faults(push(changes=[{}] * 5000), Push)) == MOST_FAULTS


def test_a_rule_that_nobody_knows_is_a_mistake_of_the_struct() -> None:
    class Mistaken(msgspec.Struct):
        a: Annotated[str, Meta(extra={"name": "colection"})]

    with pytest.raises(KeyError):
        faults({"a": "x"}, Mistaken)


# Against msgspec itself

NAME = st.sampled_from(["a", "todo", "", "a,b", "\x00", "é" * 70, "a" * 200, "A"])
LEAF = st.none() | st.booleans() | st.integers(-1, 3) | st.just(2**60) | st.just(0.75) | NAME | st.just("both")
LOOSE = LEAF | st.lists(LEAF, max_size=4) | st.dictionaries(NAME, LEAF, max_size=2)
CHANGES = st.fixed_dictionaries(
    {"op": st.sampled_from(["insert", "put", "delete"]), "collection": NAME, "atom": NAME},
    optional={"data": LOOSE, "if_data": LOOSE, "unset": LOOSE, "base": LOOSE, "bass": LOOSE},
)
ANY_MEMBERS = ("atomic", "keep", "share", "note", "anything", "raw", "names", "places", "now")


def pushes(parents: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    required: dict[str, st.SearchStrategy[Any]] = {"changes": st.lists(CHANGES, max_size=2) | LOOSE}
    optional: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(ANY_MEMBERS, LOOSE),
        "get": st.dictionaries(NAME, st.lists(NAME, max_size=4), max_size=2) | LOOSE,
        "journal": NAME | LEAF,
        "parent": parents,
        "unknown": LEAF,
    }
    return st.fixed_dictionaries(required, optional=optional)


def is_push(body: Any) -> bool:
    """What the service goes by: msgspec's reading of the text, then the rules by hand."""
    try:
        read = msgspec.json.decode(json.dumps(body), type=Push)
    except msgspec.ValidationError:
        return False
    return follows_the_rules(read)


def follows_the_rules(read: Push) -> bool:
    return (
        all(collection_ok(change.collection) and atom_ok(change.atom) for change in read.changes)
        and all(change.data is UNSET or bytes(change.data)[:1] == b"{" for change in read.changes)
        and all(change.if_data is UNSET or bytes(change.if_data)[:1] in b"{n" for change in read.changes)
        and all(collection_ok(name) and all(map(atom_ok, atoms)) for name, atoms in (read.get or {}).items())
        and (read.journal is None or journal_ok(read.journal))
        and (read.parent is None or follows_the_rules(read.parent))
    )


@given(pushes(st.none() | pushes(LOOSE)))
@settings(deadline=None, max_examples=1000)
def test_there_is_a_fault_exactly_if_the_service_would_refuse(body: dict[str, Any]) -> None:
    assert (faults(body, Push) == []) is is_push(body)
