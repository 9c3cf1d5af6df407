"""Every fuzzer for a moment, on the same inputs each time; `make fuzz` runs them for long."""

from random import Random

import pytest

from tests.fuzz.run import TARGETS, Broken, made, run
from tests.fuzz.target import Target

INPUTS = 2000


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_no_input_breaks_it(target: Target) -> None:
    run(target, Random(6), INPUTS)


def test_an_input_that_breaks_a_target_is_told() -> None:
    def check(data: bytes) -> None:
        assert b"\xff" not in data

    with pytest.raises(Broken) as told:
        run(Target("x", check, [b"a"], [b"\xff"]), Random(6), 1000)

    assert b"\xff" in told.value.data


def test_inputs_are_many_and_the_same_for_a_seed() -> None:
    target = TARGETS["cursors"]

    first, again = (list(made(target, Random(1), 500)) for _ in range(2))

    assert first == again
    assert len(set(first)) > 400
