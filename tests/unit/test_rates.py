"""Rates: buckets, held against one that is counted out by hand."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from journal.core.rates import Rates

STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=60)


@given(per_s=st.sampled_from([1, 2, 4, 8]), burst=st.integers(1, 6), steps=STEPS)
def test_no_more_is_taken_than_a_bucket_holds(per_s: int, burst: int, steps: list[tuple[str, int]]) -> None:
    """By the letter: a bucket of `burst`, of which `per_s` drain in a second. Eighths of a second, exactly."""
    rates, level, at, now = Rates(per_s, burst), {"a": Fraction(0), "b": Fraction(0)}, {"a": 0, "b": 0}, 0
    for key, eighths in steps:
        now += eighths
        level[key] = max(level[key] - Fraction((now - at[key]) * per_s, 8), Fraction(0))
        at[key] = now
        fits = level[key] + 1 <= burst

        wait = rates.take(key, now / 8)

        assert (wait == 0.0) is fits
        if fits:
            level[key] += 1
        else:
            assert abs(wait - float((level[key] + 1 - burst) / per_s)) < 1e-6


def test_who_waits_as_long_as_told_is_let_in() -> None:
    rates = Rates(per_s=3, burst=2)
    assert [rates.take("a", 100.0) for _ in range(2)] == [0.0, 0.0]

    wait = rates.take("a", 100.0)

    assert 0 < wait <= 1 / 3 + 1e-9
    assert rates.take("a", 100.0 + wait / 2) > 0
    assert rates.take("a", 100.0 + wait) == 0.0


def test_a_clock_that_stands_still_or_goes_back_lets_nobody_in() -> None:
    rates = Rates(per_s=1, burst=1)

    assert rates.take("a", 50.0) == 0.0
    assert rates.take("a", 50.0) == 1.0
    assert rates.take("a", 40.0) == 11.0


def test_only_so_many_are_remembered_and_who_asks_most_is_not_forgotten() -> None:
    rates = Rates(per_s=1, burst=1, most=10)
    rates.take("greedy", 0.0)

    for n in range(1000):
        rates.take(f"{n}", 0.0)
        assert rates.take("greedy", 0.0) > 0

    assert len(rates) == 10
