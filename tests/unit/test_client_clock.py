"""The age of a change (trap 14): the clocks of devices are wrong, and are set while changes wait."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.client.clock import Clock, Moment

HOUR_NS = 3600 * 10**9
MINUTE_MS = 60_000.0
TIMES = st.integers(0, 2**62)
MOMENTS = st.builds(Moment, st.sampled_from(["one", "two"]), TIMES, TIMES)


class Device:
    """A machine: time passes, its owner sets its wall clock, and it starts anew."""

    def __init__(self, *, off_ns: int = 0) -> None:
        self.boots, self.steady_ns, self.wall_ns = 1, 5 * HOUR_NS, 1_795_000_000 * 10**9 + off_ns
        self.clock = Clock(steady=lambda: self.steady_ns, wall=lambda: self.wall_ns, boot=lambda: f"boot {self.boots}")

    def passes(self, ms: float) -> None:
        self.steady_ns += round(ms * 1e6)
        self.wall_ns += round(ms * 1e6)

    def reboots(self) -> None:
        self.boots, self.steady_ns = self.boots + 1, 0


@pytest.mark.parametrize("off_ns", [0, HOUR_NS, -HOUR_NS])
def test_trap_14_an_age_is_right_on_a_device_that_is_an_hour_off(off_ns: int) -> None:
    device = Device(off_ns=off_ns)
    made = device.clock.now()

    device.passes(MINUTE_MS)

    assert device.clock.age_ms(made) == MINUTE_MS


@pytest.mark.parametrize("set_by_ns", [HOUR_NS, -HOUR_NS])
def test_trap_14_an_age_is_right_where_the_clock_is_set_between_edit_and_push(set_by_ns: int) -> None:
    device = Device()
    made = device.clock.now()

    device.passes(MINUTE_MS)
    device.wall_ns += set_by_ns
    device.passes(MINUTE_MS)

    assert device.clock.age_ms(made) == 2 * MINUTE_MS


@pytest.mark.parametrize("off_ns", [0, HOUR_NS, -HOUR_NS])
def test_over_a_reboot_the_wall_clock_tells_wrong_as_it_may_be(off_ns: int) -> None:
    device = Device(off_ns=off_ns)
    made = device.clock.now()

    device.passes(MINUTE_MS)
    device.reboots()
    device.passes(MINUTE_MS)

    assert device.clock.age_ms(made) == 2 * MINUTE_MS


def test_over_a_reboot_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    device = Device()
    made = device.clock.now()

    device.reboots()
    device.wall_ns -= HOUR_NS

    assert device.clock.age_ms(made) == 0


def test_a_steady_clock_that_got_further_after_the_reboot_is_not_compared_with_the_one_before() -> None:
    device = Device()
    made = device.clock.now()

    device.reboots()
    device.passes(10 * HOUR_NS / 1e6)

    assert device.clock.age_ms(made) == 10 * HOUR_NS / 1e6


@given(MOMENTS, MOMENTS)
def test_no_age_is_negative(made: Moment, now: Moment) -> None:
    clock = Clock(steady=lambda: now.steady_ns, wall=lambda: now.wall_ns, boot=lambda: now.boot)

    assert clock.age_ms(made) >= 0


def test_a_moment_is_kept_as_json() -> None:
    made = Clock().now()

    assert msgspec.json.decode(msgspec.json.encode(made), type=Moment) == made


def test_this_machines_own_clock_goes_forward_within_one_boot() -> None:
    clock = Clock()
    made = clock.now()
    first = clock.age_ms(made)
    second = clock.age_ms(made)

    assert 0 <= first <= second < MINUTE_MS
    assert clock.now().boot == made.boot != ""


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux alone has")
def test_on_linux_it_is_the_clock_that_goes_on_in_sleep_and_the_kernels_name_of_the_boot() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    made = Clock().now()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    assert before <= made.steady_ns <= after
    assert made.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="elsewhere a boot has no name to others")
def test_another_process_of_the_same_boot_takes_it_for_the_same() -> None:
    made = Clock().now()
    program = (
        "import msgspec; from journal.client.clock import Clock; print(msgspec.json.encode(Clock().now()).decode())"
    )
    then = msgspec.json.decode(subprocess.check_output([sys.executable, "-c", program]), type=Moment)

    assert then.boot == made.boot
    assert made.steady_ns < then.steady_ns < Clock().now().steady_ns
