"""Copies, moves and backups of a database file, by real files: a replica must not go on as two (P6, P9)."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from journal.client.incarnation import expect, is_same

OLD, NEW = "0" * 32, "1" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database file that was left with NEW inside; its bytes are that nonce."""
    place = tmp_path / "here" / "todo.db"
    place.parent.mkdir()
    place.write_text(NEW)
    expect(place, NEW)
    return place


def is_left(file: Path) -> bool:
    """As a caller asks: with the nonce that is inside."""
    return is_same(file, file.read_text())


def sidecar(file: Path) -> Path:
    return file.with_name(file.name + "-incarnation")


def a_while() -> None:
    """Until the clock that files are dated by has moved on: nobody restores a backup in the same tick."""
    now = time.time_ns()
    while time.time_ns() < now + 20_000_000:
        time.sleep(0.001)


def test_the_file_that_was_left_here_is_the_same(file: Path) -> None:
    assert is_left(file)
    assert [path.name for path in sorted(file.parent.iterdir())] == ["todo.db", "todo.db-incarnation"]


def test_it_stays_the_same_however_it_is_written(file: Path) -> None:
    with file.open("r+b") as writing:
        writing.seek(100)
        writing.write(b"more")

    assert is_same(file, NEW)


def test_it_is_the_same_by_a_link_to_it(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(file)

    assert is_left(link)


def test_where_nothing_was_left_nothing_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "todo.db"
    file.write_text(NEW)

    assert not is_left(file)
    assert not is_same(tmp_path / "none.db", NEW)


def test_a_sidecar_without_its_file_is_no_sign_of_it(file: Path) -> None:
    file.unlink()

    assert not is_same(file, NEW)


def test_a_copy_at_another_place_is_another(file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy2(file, tmp_path / "todo.db"))

    assert not is_left(copy)
    assert is_left(file)


def test_a_copy_beside_it_is_another(file: Path) -> None:
    copy = Path(shutil.copy2(file, file.with_name("copy.db")))

    assert not is_left(copy)
    shutil.copy2(sidecar(file), sidecar(copy))
    assert not is_left(copy)


def test_a_folder_that_was_copied_whole_holds_another(file: Path, tmp_path: Path) -> None:
    shutil.copytree(file.parent, tmp_path / "there", copy_function=shutil.copy2)

    assert not is_left(tmp_path / "there" / "todo.db")
    assert is_left(file)


def test_a_file_that_was_moved_away_from_its_sidecar_is_another(file: Path, tmp_path: Path) -> None:
    inode = file.stat().st_ino
    moved = file.rename(tmp_path / "todo.db")

    assert moved.stat().st_ino == inode
    assert not is_left(moved)


def test_a_file_that_was_renamed_in_its_folder_is_another(file: Path) -> None:
    assert not is_left(file.rename(file.with_name("other.db")))


def test_a_folder_that_was_moved_whole_holds_the_same(file: Path, tmp_path: Path) -> None:
    """There is still only one of it."""
    moved = file.parent.rename(tmp_path / "there")

    assert is_left(moved / "todo.db")


def test_another_file_in_its_place_is_another(file: Path, tmp_path: Path) -> None:
    """As `mv` and what restores a file by renaming do: the nonce may even be the present one."""
    copy = Path(shutil.copy2(file, tmp_path / "copy"))

    os.replace(copy, file)

    assert not is_left(file)


def test_older_bytes_written_over_the_file_are_told_by_their_nonce(file: Path, tmp_path: Path) -> None:
    file.write_text(OLD)
    expect(file, OLD)
    backup = shutil.copy2(file, tmp_path / "backup")
    expect(file, OLD, NEW)
    file.write_text(NEW)
    expect(file, NEW)
    inode = file.stat().st_ino

    assert is_left(file)
    shutil.copyfile(backup, file)

    assert file.stat().st_ino == inode
    assert file.read_text() == OLD
    assert not is_left(file)


def test_file_and_sidecar_both_written_over_by_older_bytes_are_another(file: Path, tmp_path: Path) -> None:
    """The inodes are those of the present ones: the sidecar says which sidecar it was."""
    file.write_text(OLD)
    expect(file, OLD)
    backup = shutil.copytree(file.parent, tmp_path / "backup")
    a_while()
    expect(file, OLD, NEW)
    file.write_text(NEW)
    expect(file, NEW)
    inode = file.stat().st_ino

    for path in backup.iterdir():
        shutil.copy2(path, file.parent / path.name)

    assert (file.stat().st_ino, file.read_text()) == (inode, OLD)
    assert not is_left(file)


def test_a_file_that_was_removed_and_put_back_from_a_backup_is_another(file: Path, tmp_path: Path) -> None:
    """File systems use the number of a removed file's inode again at once: the number alone is no proof."""
    backup = shutil.copy2(file, tmp_path / "backup")

    a_while()
    file.unlink()
    shutil.copy2(backup, file)

    assert not is_left(file)


def test_a_folder_that_was_removed_and_restored_from_a_backup_holds_another(file: Path, tmp_path: Path) -> None:
    backup = shutil.copytree(file.parent, tmp_path / "backup")

    a_while()
    shutil.rmtree(file.parent)
    shutil.copytree(backup, file.parent)

    assert not is_left(file)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"nonces":["%s"]}' % NEW.encode(),
        b'{"nonces":["%s"],"database":1,"itself":2}' % NEW.encode(), b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_damaged_sidecar_is_no_sign_of_the_file(file: Path, content: bytes) -> None:
    with sidecar(file).open("r+b") as writing:
        writing.truncate()
        writing.write(content)

    assert not is_left(file)


def test_a_sidecar_that_was_cut_off_anywhere_is_no_sign_of_the_file(file: Path) -> None:
    whole = sidecar(file).read_bytes()

    for end in range(len(whole)):
        with sidecar(file).open("r+b") as writing:
            writing.truncate()
            writing.write(whole[:end])
        assert not is_left(file), end
    sidecar(file).write_bytes(whole)

    assert is_left(file)


def test_a_sidecar_that_cannot_be_read_is_no_sign_of_the_file(file: Path) -> None:
    sidecar(file).unlink()
    sidecar(file).mkdir()

    assert not is_left(file)


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_between_the_steps_of_a_renewal_leaves_it_the_same(file: Path, steps: int) -> None:
    newest = "2" * 32
    renewal: list[Callable[[], object]] = [
        lambda: expect(file, NEW, newest),
        lambda: file.write_text(newest),
        lambda: expect(file, newest),
    ]

    for step in renewal[:steps]:
        step()

    assert is_left(file)


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("renewal", ["before", "after"])
def test_a_crash_inside_of_a_step_leaves_it_the_same(
    file: Path, call: str, renewal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first writing or the last is cut off: what was left before stands, and the next goes through."""
    newest = "2" * 32
    nonces = (NEW, newest) if renewal == "before" else (newest,)
    if renewal == "after":
        expect(file, NEW, newest)
        file.write_text(newest)

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        if call == "open":  # half of it is written, and nothing else done
            sidecar(file).with_name("todo.db-incarnation.new").write_bytes(b'{"nonces":["')
        patched.setattr(os, "replace" if call == "open" else call, crash)
        with pytest.raises(Crash):
            expect(file, *nonces)

    assert is_left(file)
    expect(file, *nonces)
    assert is_left(file)


def test_what_is_left_is_put_on_the_disk_before_it_gets_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(opened: int) -> None:
        done.append("fsync")
        real_fsync(opened)

    def replace(source: Path, target: Path) -> None:
        done.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    expect(file, NEW)

    assert done == (["fsync", "replace"] if sys.platform == "win32" else ["fsync", "replace", "fsync"])
