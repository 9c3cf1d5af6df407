"""Consolidation by examples: the table of the protocol's section 4 cell by cell, and what a fold tells of it."""

import pytest
from msgspec import UNSET, Raw

from journal.core.consolidate import Delta, Effect, Fold, consolidate, patched, then
from journal.core.model import Change, Op

INSERT = Effect(Op.INSERT, b'{"a":1,"b":1}')
UPDATE = Effect(Op.UPDATE, b'{"a":1,"b":1}', ("c", "d"))
REPLACE = Effect(Op.REPLACE, b'{"a":1,"b":1}')
DELETE = Effect(Op.DELETE)
NEW_INSERT = Effect(Op.INSERT, b'{"b":2}')
NEW_UPDATE = Effect(Op.UPDATE, b'{"b":2,"c":2}', ("a", "e"))
NEW_REPLACE = Effect(Op.REPLACE, b'{"b":2}')

TABLE = [
    (None, NEW_INSERT, NEW_INSERT),
    (None, NEW_UPDATE, NEW_UPDATE),
    (None, NEW_REPLACE, NEW_REPLACE),
    (None, DELETE, DELETE),
    (INSERT, NEW_UPDATE, Effect(Op.INSERT, b'{"b":2,"c":2}')),
    (INSERT, NEW_REPLACE, Effect(Op.INSERT, b'{"b":2}')),
    (INSERT, DELETE, None),
    (UPDATE, NEW_UPDATE, Effect(Op.UPDATE, b'{"b":2,"c":2}', ("d", "a", "e"))),
    (UPDATE, NEW_REPLACE, NEW_REPLACE),
    (UPDATE, DELETE, DELETE),
    (REPLACE, NEW_UPDATE, Effect(Op.REPLACE, b'{"b":2,"c":2}')),
    (REPLACE, NEW_REPLACE, NEW_REPLACE),
    (REPLACE, DELETE, DELETE),
    (DELETE, NEW_INSERT, Effect(Op.REPLACE, b'{"b":2}')),
]


@pytest.mark.parametrize(("before", "after", "expected"), TABLE)
def test_every_cell_of_the_table(before: Effect | None, after: Effect, expected: Effect | None) -> None:
    assert then(before, after) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (INSERT, NEW_INSERT),
        (UPDATE, NEW_INSERT),
        (REPLACE, NEW_INSERT),
        (DELETE, NEW_UPDATE),
        (DELETE, NEW_REPLACE),
        (DELETE, DELETE),
    ],
)
def test_what_cannot_be_recorded_cannot_be_folded(before: Effect, after: Effect) -> None:
    with pytest.raises(ValueError, match=f"{after.op.name} cannot follow {before.op.name}"):
        then(before, after)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Effect(Op.UPDATE, None, ("a",)), Effect(Op.UPDATE, None, ("b",)), Effect(Op.UPDATE, None, ("a", "b"))),
        (Effect(Op.UPDATE, b'{"a":1}'), Effect(Op.UPDATE, None, ("a",)), Effect(Op.UPDATE, None, ("a",))),
        (Effect(Op.UPDATE, None, ("a",)), Effect(Op.UPDATE, b'{"a":1}'), Effect(Op.UPDATE, b'{"a":1}')),
        (Effect(Op.UPDATE, b'{"a":null}'), Effect(Op.UPDATE, b'{"b":1}'), Effect(Op.UPDATE, b'{"a":null,"b":1}')),
    ],
)
def test_patches_that_only_set_or_only_unset_merge_too(first: Effect, second: Effect, expected: Effect) -> None:
    assert then(first, second) == expected


@pytest.mark.parametrize(
    ("data", "patch", "unset", "expected"),
    [
        (b'{"a":1}', b'{"a":null}', (), b'{"a":null}'),
        (b'{"a":1,"b":2}', None, ("a", "z"), b'{"b":2}'),
        (b'{"a":{"x":1}}', b'{"a":{"y":1}}', (), b'{"a":{"y":1}}'),
        (b"{}", b'{"":[]}', (), b'{"":[]}'),
        (b'{"a":1.0}', b'{"b":1e0}', (), b'{"a":1.0,"b":1e0}'),
    ],
)
def test_a_patch_goes_by_top_level_fields_and_leaves_values_as_they_are_spelled(
    data: bytes, patch: bytes | None, unset: tuple[str, ...], expected: bytes
) -> None:
    assert patched(data, patch, unset) == expected


def change(revision: int, op: Op, atom: str = "a", data: bytes | None = None, client: int | None = None) -> Change:
    if data is None and op is not Op.DELETE:
        data = b'{"n":%d}' % revision
    return Change(revision, op, "todo", atom, data, client=client)


def test_p3_there_is_one_delta_an_atom_in_the_order_of_the_last_revisions() -> None:
    changes = [
        change(1, Op.INSERT, "a"),
        change(2, Op.INSERT, "b"),
        change(3, Op.UPDATE, "a"),
        change(4, Op.UPDATE, "c"),
    ]

    deltas = consolidate(changes)

    assert deltas == [
        Delta("insert", "todo", "b", 2, Raw(b'{"n":2}')),
        Delta("insert", "todo", "a", 3, Raw(b'{"n":3}')),
        Delta("update", "todo", "c", 4, Raw(b'{"n":4}')),
    ]


def test_atoms_of_one_name_in_two_collections_are_two() -> None:
    changes = [Change(1, Op.DELETE, "x", "a"), Change(2, Op.DELETE, "y", "a")]

    assert [(delta.collection, delta.revision) for delta in consolidate(changes)] == [("x", 1), ("y", 2)]


def test_a_delete_and_an_update_that_only_unsets_are_told_without_data() -> None:
    changes = [Change(1, Op.DELETE, "todo", "a"), Change(2, Op.UPDATE, "todo", "b", None, ("x",))]

    gone, unset = consolidate(changes)

    assert (gone.data, gone.unset) == (UNSET, ())
    assert (unset.data, unset.unset) == (UNSET, ("x",))


def test_revisions_are_listed_when_they_are_asked_for_and_only_then() -> None:
    fold = Fold([change(1, Op.INSERT), change(5, Op.UPDATE), change(9, Op.REPLACE)])

    assert [delta.revisions for delta in fold.deltas(with_revisions=True)] == [[1, 5, 9]]
    assert [delta.revisions for delta in fold.deltas()] == [UNSET]


BORN_AND_DIED = [change(1, Op.INSERT, client=1), change(2, Op.UPDATE, client=2), change(3, Op.DELETE, client=2)]
AND_AGAIN = [*BORN_AND_DIED, change(4, Op.INSERT, client=2), change(5, Op.DELETE, client=2)]


def test_p3_what_was_born_and_died_is_not_told() -> None:
    assert consolidate(BORN_AND_DIED) == []
    assert consolidate(AND_AGAIN) == []


@pytest.mark.parametrize(
    ("changes", "client", "told"),
    [
        (BORN_AND_DIED, 1, ["delete"]),
        (BORN_AND_DIED, 2, []),
        (BORN_AND_DIED, 3, []),
        (AND_AGAIN, 1, ["delete"]),
        (AND_AGAIN, 3, ["delete"]),
        ([change(1, Op.INSERT), change(2, Op.DELETE)], 1, []),
    ],
)
def test_trap_2_who_inserted_an_atom_is_told_its_delete_and_everyone_where_several_have(
    changes: list[Change], client: int, told: list[str]
) -> None:
    assert [delta.op for delta in consolidate(changes, client=client)] == told


def test_trap_2_the_delete_that_is_told_has_the_revision_of_the_delete() -> None:
    [delta] = Fold(BORN_AND_DIED).deltas(client=1, with_revisions=True)

    assert (delta.revision, delta.revisions, delta.data) == (3, [1, 2, 3], UNSET)


def test_trap_3_what_was_deleted_and_inserted_again_is_replaced() -> None:
    [delta] = consolidate([change(7, Op.DELETE), change(8, Op.INSERT, data=b'{"x":1}'), change(9, Op.UPDATE)])

    assert (delta.op, delta.data) == ("replace", Raw(b'{"x":1,"n":9}'))


def test_trap_5_what_lived_before_is_told_deleted_however_often_it_came_back() -> None:
    changes = [change(5, Op.DELETE), change(6, Op.INSERT), change(7, Op.DELETE)]

    assert [(delta.op, delta.revision) for delta in consolidate(changes)] == [("delete", 7)]


def test_who_asks_matters_only_where_something_came_to_nothing() -> None:
    assert Fold(BORN_AND_DIED).has_cancelled
    assert not Fold(BORN_AND_DIED[:2]).has_cancelled
    assert not Fold().has_cancelled


def blanked(revision: int, op: Op) -> Change:
    return Change(revision, op, "todo", "a", erased=b"h" * 32)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([blanked(1, Op.INSERT)], []),
        ([blanked(1, Op.INSERT), blanked(2, Op.UPDATE), blanked(3, Op.REPLACE)], []),
        ([blanked(2, Op.UPDATE)], ["delete"]),
        ([blanked(2, Op.REPLACE), Change(3, Op.UPDATE, "todo", "a", unset=("n",))], ["delete"]),
        ([blanked(1, Op.INSERT), change(2, Op.DELETE)], []),
        ([blanked(2, Op.UPDATE), change(3, Op.DELETE)], ["delete"]),
        ([blanked(2, Op.UPDATE), change(3, Op.DELETE), change(4, Op.INSERT)], ["replace"]),
        ([blanked(1, Op.INSERT), change(2, Op.DELETE), change(3, Op.INSERT)], ["insert"]),
        ([change(1, Op.INSERT), change(2, Op.DELETE), blanked(3, Op.INSERT)], []),
    ],
)
def test_what_was_erased_is_gone_for_who_may_have_it_and_never_was_for_others(
    changes: list[Change], told: list[str]
) -> None:
    assert [delta.op for delta in consolidate(changes)] == told
    assert Fold(changes).has_cancelled is (told == [])


def test_who_inserted_what_was_erased_is_told_that_it_is_gone() -> None:
    assert [d.op for d in consolidate([Change(1, Op.INSERT, "todo", "a", client=7, erased=b"h" * 32)], client=7)] == [
        "delete"
    ]
