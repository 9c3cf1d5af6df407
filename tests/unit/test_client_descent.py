"""Finding what differs by going down a tree of digests (P11), against a service that is computed by definition."""

import sqlite3
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from journal.client.descent import FEW, Index, Of, differing
from journal.core import digest
from journal.wire import DigestAnswer, ManifestAnswer, ManifestEntry, NodeAnswer

Key = tuple[str, str]
Held = dict[Key, int]  # leaves
WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])
KEYS = st.tuples(st.sampled_from(["todo", "é"]), st.integers(0, 60).map(str))
REVISIONS = st.integers(1, 3)


def with_leaves(revisions: dict[Key, int]) -> Held:
    """Real leaves: a digest tells sets of hashes from each other, not of any numbers."""
    return {key: digest.leaf(*key, revision) for key, revision in revisions.items()}


SETS = st.dictionaries(KEYS, REVISIONS, max_size=50).map(with_leaves)
SMALL_SETS = st.dictionaries(KEYS, REVISIONS, max_size=10).map(with_leaves)


@cache
def place(key: Key) -> str:
    return digest.place(*key).hex()


def beneath(held: Held, prefix: str) -> tuple[int, int]:
    """By definition."""
    total = count = 0
    for key, leaf in held.items():
        if place(key).startswith(prefix):
            total, count = total ^ leaf, count + 1
    return count, total


def differ(one: Held, other: Held) -> set[Key]:
    """By definition."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


class There:
    """What the service would answer; after each answer it may have moved on to its next state."""

    def __init__(self, *states: Held, page: int = 1000) -> None:
        self.states, self.page, self.digests, self.pages, self.listed = list(states), page, 0, 0, 0

    def state(self) -> Held:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    async def digest(self, prefix: str, of: Of, collections: frozenset[str] | None) -> DigestAnswer:
        self.digests += 1
        held = self.state()
        children = {prefix + digit: beneath(held, prefix + digit) for digit in "0123456789abcdef"}
        told = {name: NodeAnswer(count, digest.told(total)) for name, (count, total) in children.items() if count}
        count, total = beneath(held, prefix)
        return DigestAnswer("e", 1, prefix, of, count, digest.told(total), told)

    async def manifest(
        self, prefix: str, of: Of, collections: frozenset[str] | None, after: str | None
    ) -> ManifestAnswer:
        self.pages += 1
        ordered = sorted((place(key), key, leaf) for key, leaf in self.state().items())
        rest = [row for row in ordered if row[0].startswith(prefix) and row[0] > (after or "")]
        rows, is_more = rest[: self.page], len(rest) > self.page
        self.listed += len(rows)
        entries = [ManifestEntry(*key, 1, digest.told(leaf)) for _, key, leaf in rows]
        return ManifestAnswer("e", 1, entries, is_more, rows[-1][0] if is_more else UNSET)


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as index:
        yield index


def filled(index: Index, held: Held) -> Index:
    index.add((collection, atom, leaf) for (collection, atom), leaf in held.items())
    return index


def many(count: int, collection: str = "todo") -> Held:
    return with_leaves({(collection, f"{n}"): 1 for n in range(count)})


# The descent.


@given(SETS, SETS, st.integers(1, 20), st.integers(1, 7))
async def test_p11_what_differs_is_found_exactly(here: Held, there: Held, few: int, page: int) -> None:
    with Index() as index:
        found = await differing(There(there, page=page), filled(index, here), of="content", collections=None, few=few)

    assert found == differ(here, there)


@given(SETS, SMALL_SETS, st.sets(KEYS, max_size=3), st.integers(1, 20))
async def test_p11_a_few_differences_in_much_that_is_equal_are_found_exactly(
    there: Held, changed: Held, missing: set[Key], few: int
) -> None:
    here = {key: leaf for key, leaf in (there | changed).items() if key not in missing}
    with Index() as index:
        found = await differing(There(there), filled(index, here), of="revision", collections=None, few=few)

    assert found == differ(here, there)


@given(SETS, st.lists(SETS, min_size=1, max_size=3), SMALL_SETS, st.integers(1, 5))
async def test_while_the_service_moves_on_nothing_is_left_out_that_differs_all_along(
    here: Held, states: list[Held], steady: Held, page: int
) -> None:
    """Whatever is named did differ at some moment."""
    states = [state | steady for state in states for _ in range(3)]
    with Index() as index:
        found = await differing(There(*states, page=page), filled(index, here), of="content", collections=None, few=3)

    differences = [differ(here, state) for state in states]
    assert set.intersection(*differences) <= found <= set.union(*differences)


@pytest.mark.parametrize("of", ["content", "revision"])
async def test_equal_sets_cost_one_request(index: Index, of: Literal["content", "revision"]) -> None:
    held = many(2000)
    there = There(held)

    assert await differing(there, filled(index, held), of=of, collections=None) == set()
    assert (there.digests, there.pages) == (1, 0)


@pytest.mark.parametrize("count", [1, 10, 100])
async def test_p11_requests_and_what_is_listed_grow_with_the_difference(index: Index, count: int) -> None:
    """A list for each, and above it the two nodes of more than FEW: there are 5,000 / 16² in one of two digits."""
    there = many(5000)
    here = dict(there)
    for n in range(count):
        match n % 3:
            case 0:
                here[("todo", f"{n}")] = digest.leaf("todo", f"{n}", 2)
            case 1:
                del here[("todo", f"{n}")]
            case 2:
                here[("todo", f"new {n}")] = digest.leaf("todo", f"new {n}", 1)
    asked = There(there)

    found = await differing(asked, filled(index, here), of="content", collections=None)

    assert found == differ(here, there)
    assert asked.digests <= 1 + min(count, 16)
    assert asked.pages <= count
    assert asked.listed <= count * FEW
    assert asked.listed < 5000


async def test_a_client_without_anything_lists_all_in_pages(index: Index) -> None:
    there = There(many(2500))

    assert await differing(there, index, of="content", collections=None) == set(many(2500))
    assert (there.digests, there.pages) == (1, 3)


async def test_a_service_without_anything_is_asked_little(index: Index) -> None:
    there = There({})

    assert await differing(there, filled(index, many(2500)), of="content", collections=None) == set(many(2500))
    assert (there.digests, there.pages) == (1, 1)


# The index.


@given(st.dictionaries(KEYS, WORDS, max_size=50), st.data())
def test_the_sums_beneath_any_prefix_are_those_by_definition(held: Held, data: st.DataObject) -> None:
    places = st.sampled_from([place(key) for key in held] or ["0" * 64]) | st.text("0123456789abcdef", max_size=64)
    prefixes = data.draw(st.lists(st.tuples(places, st.integers(0, 64)), max_size=20))
    with Index() as index:
        filled(index, held)
        for whole, length in prefixes:
            prefix = whole[:length]
            of_each = {prefix + digit: beneath(held, prefix + digit) for digit in "0123456789abcdef"}
            listed = [(*key, leaf) for key, leaf in held.items() if place(key).startswith(prefix)]

            assert index.beneath(prefix) == beneath(held, prefix)
            assert index.children(prefix) == {child: sums for child, sums in of_each.items() if sums[0]}
            assert sorted(index.listed(prefix)) == sorted(listed)


def test_what_is_added_after_it_was_read_counts_too(index: Index) -> None:
    one, other = many(300), many(300, "note")
    filled(index, one)
    assert index.listed("ab") != []

    filled(index, other)

    for prefix in ("", "a", "abc", "abcd"):
        assert index.beneath(prefix) == beneath(one | other, prefix)
        assert len(index.listed(prefix)) == beneath(one | other, prefix)[0]


def test_an_atom_that_is_added_twice_is_an_error_and_not_a_wrong_sum(index: Index) -> None:
    index.add([("todo", "a", 1), ("todo", "b", 2), ("todo", "a", 3)])

    with pytest.raises(sqlite3.IntegrityError):
        index.listed("")


def test_the_sum_of_a_long_prefix_looks_at_few_rows(index: Index) -> None:
    """Counted in steps of SQLite's machine."""
    filled(index, many(20_000))
    index.listed("f" * 64)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    index._db.set_progress_handler(step, 1)
    for prefix in ("", "ab", "abc"):
        index.beneath(prefix)
    assert steps == 0
    index.beneath("abcd")
    index.children("abc")
    index.listed("abc")

    assert 0 < steps < 500


def test_its_file_is_in_the_folder_that_was_asked_for_and_gone_when_it_is_closed(tmp_path: Path) -> None:
    with Index(tmp_path) as index:
        filled(index, many(50_000))
        assert index.beneath("abcd") == beneath(many(50_000), "abcd")
        left = list(tmp_path.iterdir())

    assert len(left) == (1 if sys.platform == "win32" else 0)  # where it can be, gone before a crash could leave it
    assert not list(tmp_path.iterdir())


def test_an_index_that_is_closed_while_it_is_filled_ends_the_filling(tmp_path: Path) -> None:
    """A verify that was stopped closed the connection under the thread that filled it: the process died of it."""
    opened = Index(tmp_path)
    begun, go_on, ended = threading.Event(), threading.Event(), list[BaseException]()

    def rows() -> Iterator[tuple[str, str, int]]:
        yield "todo", "1", 1
        begun.set()
        go_on.wait()
        for number in range(2, 1000):
            yield "todo", f"{number}", number

    def fill() -> None:
        try:
            opened.add(rows())
        except sqlite3.ProgrammingError as error:
            ended.append(error)

    filling, closing = threading.Thread(target=fill), threading.Thread(target=opened.close)
    filling.start()
    begun.wait()
    closing.start()
    closing.join(0.1)
    go_on.set()
    filling.join()
    closing.join()

    assert [str(error) for error in ended] == ["the index was closed meanwhile"]
    assert list(tmp_path.iterdir()) == []
