"""What a fault is made of besides signals: a small disk, a clock that jumps, a limit of memory. All is Linux's own.

The rule: where one cannot be had, `NotToBeHad` says what it takes; nothing stands in for it.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
_FAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1", "/usr/lib64/faketime/*.so.1")
_CGROUPS = Path("/sys/fs/cgroup")
_MOUNT = 'mount -t tmpfs -o "size=$2,mode=1777" none "$1" && echo mounted && exec cat'


class NotToBeHad(Exception):
    """This machine cannot make the fault: the text says what it lacks."""


class SmallDisk:
    """A disk of so many bytes at `folder`, in memory, seen only by who is started behind the words `before`."""

    def __init__(self, folder: Path, holder: int, before: list[str]) -> None:
        self.folder, self.before = folder, before
        self.seen = Path(f"/proc/{holder}/root") / folder.relative_to("/")

    def fill(self) -> None:
        """Let somebody else's file take all that is left."""
        with (self.seen / "filling").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while (room := self.free) > 0:
                file.write(b"\0" * min(room, MIB))

    def clear(self) -> None:
        """Let that file be removed."""
        (self.seen / "filling").unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """How many bytes are left."""
        of = os.statvfs(self.seen)
        return of.f_bavail * of.f_frsize


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A disk that is gone with whoever uses it: a tmpfs in a mount namespace of its own.

    Root makes the namespace; who is not root needs the system to allow user namespaces to everybody.
    """
    for program in ("unshare", "nsenter"):
        if shutil.which(program) is None:
            raise NotToBeHad(f"a small disk is made with {program} (Debian: util-linux), which is not here")
    folder.mkdir(parents=True, exist_ok=True)
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    holder = subprocess.Popen(
        ["unshare", "--mount", *as_user, "/bin/sh", "-c", _MOUNT, "sh", str(folder), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != b"mounted\n":
            said = holder.stderr.read().decode().strip()
            raise NotToBeHad(f"a small disk takes root, or user namespaces that everybody may make: {said}")
        enter = ["nsenter", "--target", str(holder.pid), "--mount"]
        yield SmallDisk(folder, holder.pid, enter if not as_user else [*enter, "--user", "--preserve-credentials"])
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()


class Clock:
    """The wall clock of processes that are started with `environment`: it can jump, as when somebody sets it.

    By libfaketime, which stands before the C library's functions of time. What only measures (the monotonic clock) goes
    on as it does where a real clock is set, and files keep the kernel's time, as on a disk of another machine. Programs
    that sleep by clock_nanosleep cannot be run so (libfaketime 0.9.10 refuses it): neither service nor PostgreSQL do.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, ahead_s: int) -> None:
        """So many seconds ahead of the true time, a second from now at the latest."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}\n")
        new.chmod(0o644)
        new.replace(self._file)


def clock(folder: Path, name: str) -> Clock:
    """A clock that jumps."""
    for pattern in _FAKETIME:
        for library in Path("/").glob(pattern.removeprefix("/")):
            return Clock(library, folder / f"clock-{name}")
    raise NotToBeHad("a clock that jumps is made with libfaketime: on Debian, apt-get install faketime")


class MemoryLimit:
    """A limit of memory that processes can be put under; who goes beyond it is killed by the kernel."""

    def __init__(self, folder: Path, *, is_unified: bool) -> None:
        self._folder, self._is_unified = folder, is_unified

    def hold(self, pid: int) -> None:
        """Put a process under it."""
        (self._folder / "cgroup.procs").write_text(f"{pid}")

    @property
    def killed(self) -> int:
        """How many processes the kernel has killed for it."""
        told = (self._folder / ("memory.events" if self._is_unified else "memory.oom_control")).read_text()
        return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("oom_kill "))


@contextmanager
def memory_limit(size: int) -> Iterator[MemoryLimit]:
    """A control group, of version 2 or 1, in which all processes together may take `size` bytes from now on."""
    is_unified = (_CGROUPS / "cgroup.controllers").exists()
    parent = _CGROUPS if is_unified else _CGROUPS / "memory"
    folder = parent / f"journal-faults-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.max" if is_unified else "memory.limit_in_bytes")).write_text(f"{size}")
    except OSError as error:
        raise NotToBeHad(f"a limit of memory takes root and control groups for memory: {error}") from None
    try:
        yield MemoryLimit(folder, is_unified=is_unified)
    finally:
        with contextlib.suppress(OSError):  # one that somebody is still in goes with the machine
            folder.rmdir()
