"""Grants: what they add up to, and which make no sense."""

import pytest

from journal.core.grants import ALL, NOTHING, OPEN, Caller, Grant, Permission, Reach, both, faults_of, within


def may(*can: Permission, journal: str = "demo", of: str | None = None) -> Grant:
    return Grant(journal, frozenset(can), None if of is None else frozenset(of))


def caller(*grants: Grant) -> Caller:
    return Caller("token:1", "test", grants)


READS_A = Reach(frozenset("a"), frozenset(), operates=False)


@pytest.mark.parametrize(
    ("grants", "reach"),
    [
        ((), NOTHING),
        ((may("read", journal="other"),), NOTHING),
        ((may("read", of="a"),), READS_A),
        ((may("read", of="a", journal="*"),), READS_A),
        ((may("read", of="a"), may("read", of="b")), Reach(frozenset("ab"), frozenset(), operates=False)),
        ((may("read", of="a"), may("read")), Reach(None, frozenset(), operates=False)),
        ((may("read"), may("read", of="a")), Reach(None, frozenset(), operates=False)),
        ((may("read", "write", of="a"), may("read", of="b")), Reach(frozenset("ab"), frozenset("a"), operates=False)),
        ((may("read", "write"),), Reach(None, None, operates=False)),
        ((may("operate"),), Reach(None, frozenset(), operates=True)),
    ],
)
def test_what_grants_say_of_one_journal_adds_up(grants: tuple[Grant, ...], reach: Reach) -> None:
    assert caller(*grants).reach("demo") == reach


def test_where_nobody_needs_to_say_who_they_are_everybody_may_do_everything() -> None:
    assert OPEN.reach("demo") == ALL
    assert OPEN.operates_service


@pytest.mark.parametrize(
    ("grant", "operates"),
    [(may("operate", journal="*"), True), (may("operate"), False), (may("read", "write", journal="*"), False)],
)
def test_the_service_is_for_who_operates_all_of_it(grant: Grant, operates: bool) -> None:
    assert caller(grant).operates_service is operates


def test_a_journal_of_which_nothing_may_be_read_is_not_there() -> None:
    assert NOTHING.is_nothing
    assert not READS_A.is_nothing
    assert not ALL.is_nothing


@pytest.mark.parametrize(("names", "is_granted"), [("a", True), ("ab", False), ("", True), (None, False)])
def test_what_is_read_must_be_granted_whole(names: str | None, is_granted: bool) -> None:
    asked = None if names is None else frozenset(names)

    assert READS_A.reads_all(asked) is is_granted
    assert ALL.reads_all(asked)


def test_what_is_written_must_be_granted_whole() -> None:
    writes_a = Reach(frozenset("ab"), frozenset("a"), operates=False)

    assert (writes_a.writes_all("a"), writes_a.writes_all("ab"), ALL.writes_all("ab")) == (True, False, True)


def test_names_and_all_names() -> None:
    a, ab = frozenset("a"), frozenset("ab")

    assert (within(a, ab), within(ab, a), within(a, None), within(None, a), within(None, None)) == (
        True, False, True, False, True
    )  # fmt: skip
    assert (both(a, ab), both(a, None), both(None, a), both(None, None)) == (a, a, a, None)


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        (may(), "allows nothing"),
        (may("write"), "write needs read"),
        (may("operate", "read", "write"), "operators have tokens of their own"),
        (may("operate", of="a"), "as a whole"),
        (may("read", of=""), "no collection"),
    ],
)
def test_a_grant_that_makes_no_sense_says_why(grant: Grant, said: str) -> None:
    assert any(said in fault for fault in faults_of(grant))


@pytest.mark.parametrize("grant", [may("read"), may("read", "write", of="a"), may("operate"), may("operate", "read")])
def test_others_make_sense(grant: Grant) -> None:
    assert faults_of(grant) == []
