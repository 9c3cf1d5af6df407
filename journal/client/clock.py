"""How old a local change is, by a clock that cannot be set.

The rule: within one boot only the steady clock counts; the wall clock, which anybody may set, is asked only about
changes made before the machine was last started.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from uuid import uuid4

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESS = uuid4().hex


class Moment(msgspec.Struct, frozen=True):
    """When a change was made: in which boot, and what the steady clock and the wall clock said."""

    boot: str
    steady_ns: int
    wall_ns: int


def steady_ns() -> int:
    """Nanoseconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # time.monotonic stands still in sleep there; this one goes on, unadjusted
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return time.monotonic_ns()  # Windows: it counts the time asleep as well; elsewhere there may be none that does


@cache
def boot() -> str:
    """Which boot this is; where no system call tells, a value of this process, as if it had been started with it."""
    if sys.platform == "darwin":
        return _session() or _PROCESS
    try:
        return _BOOT_ID.read_text().strip() or _PROCESS
    except OSError:
        return _PROCESS


class Clock:
    """Tells moments and how long ago they were."""

    def __init__(
        self,
        *,
        steady: Callable[[], int] = steady_ns,
        wall: Callable[[], int] = time.time_ns,
        boot: Callable[[], str] = boot,
    ) -> None:
        self._steady, self._wall, self._boot = steady, wall, boot

    def now(self) -> Moment:
        """This moment."""
        return Moment(self._boot(), self._steady(), self._wall())

    def age_ms(self, made: Moment) -> float:
        """How long ago that was; 0 where the clock has gone back."""
        now = self.now()
        if now.boot == made.boot:
            return max(0, now.steady_ns - made.steady_ns) / 1e6
        return max(0, now.wall_ns - made.wall_ns) / 1e6


def _session() -> str:
    """The boot session of macOS; "" where it does not say."""
    told, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", told, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else told.value.decode()
