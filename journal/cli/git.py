"""A git repository as a history: a commit on the first-parent line is a commit, a file an atom.

Its top folder is the collection ("." at the root), `{"mode", "blob", "size"}` its data. The rule: every path gets a
name of its own. What a name may not hold (a comma in a folder's, a control character, a byte that is not UTF-8) is
written %XX; what is too long is cut and ends in a hash, and then its data has the whole `path` besides.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from journal.cli.say import Failed
from journal.core.model import PushChange
from journal.core.names import ATOM_BYTES, COLLECTION_BYTES
from journal.service.imports import Entry

ABSENT, SUBMODULE = "000000", "160000"
ASKED_AT_ONCE = 256  # sizes: more could fill both pipes, and either side would wait for the other
ENVIRONMENT = os.environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}

# Whatever the user's configuration says, this is what is read.
LOG = ("-c", "log.showRoot=true", "log", "--first-parent", "--reverse", "-m", "--raw", "-z", "--no-abbrev",
       "--no-renames", "--no-color", "--no-show-signature", "--no-notes", "--no-relative", "--ignore-submodules=none",
       "--format=commit %H %ct")  # fmt: skip


class Repository:
    """The commits of HEAD's first-parent line, numbered from 1, the oldest first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._git = _git_at(path)
        if self._said("rev-parse", "--is-shallow-repository") == "true":
            raise Failed("shallow", f"{path} is a shallow clone: its beginning is missing", "git fetch --unshallow")
        if self._run("rev-parse", "--quiet", "--verify", "HEAD^{commit}").returncode:
            raise Failed("empty", f"{path} has no commits yet")
        self.commits = self._said("rev-list", "--first-parent", "--reverse", "HEAD").split()
        self.beginning = bytes.fromhex(self.commits[0])
        self.done = 0  # the number of the last commit that was read

    @property
    def name(self) -> str:
        """What the repository is called: by its folder, in the letters that a journal's name may have."""
        folder = Path(self._said("rev-parse", "--absolute-git-dir"))
        stem = folder.parent.name if folder.name == ".git" else folder.name.removesuffix(".git")
        return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:63] or "git"

    def skip(self, number: int) -> bytes | None:
        """What identifies commit `number`, behind which `entries` goes on; None where there is no such commit."""
        if number > len(self.commits):
            return None
        self.done = number
        return bytes.fromhex(self.commits[number - 1])

    def entries(self) -> Iterator[Entry]:
        """The rest, but for commits that changed no file."""
        last = self.commits[-1]
        which = [*LOG, f"{self.commits[self.done - 1]}..{last}" if self.done else last, "--"]
        with _reading(self._git, which) as log, _Sizes(self._git) as sizes:
            assert log.stdout is not None
            for name, at, files in _commits(log.stdout):
                self.done += 1
                if name != self.commits[self.done - 1]:
                    raise Failed("git", f"{self.path}: its commits have changed meanwhile: run the same again")
                if files:
                    changes = list(_changes(files, sizes))
                    yield Entry(self.done, _time(name, at), changes, bytes.fromhex(name))
        if self.done != len(self.commits):
            raise Failed("git", f"{self.path}: git log broke off: run the same again to go on")

    def where(self, number: int) -> str:
        """How a person calls the commit of this number."""
        return f"commit {self.commits[number - 1][:12]}" if number <= len(self.commits) else f"commit no. {number}"

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*self._git, *words], check=False, capture_output=True, text=True, env=ENVIRONMENT)  # noqa: S603

    def _said(self, *words: str) -> str:
        done = self._run(*words)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["git failed"])[0]
            raise Failed("git", f"{self.path}: {said.removeprefix('fatal: ')}")
        return done.stdout.strip()


def _git_at(path: Path) -> list[str]:
    git = shutil.which("git")
    if git is None:
        raise Failed("git", "git is not installed")
    if not path.is_dir():
        raise Failed("git", f"{path} is no folder")
    return [git, "-C", str(path)]


def _reading(git: Sequence[str], words: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*git, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=ENVIRONMENT)  # noqa: S603


class _Sizes:
    """Asks git for the sizes of blobs, many at once."""

    def __init__(self, git: Sequence[str]) -> None:
        words = [*git, "cat-file", "--batch-check=%(objectsize)"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT)  # noqa: S603

    def __enter__(self) -> "_Sizes":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def of(self, blobs: Sequence[str]) -> dict[str, int]:
        """The size of each, but of those that the repository does not have."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sizes: dict[str, int] = {}
        for start in range(0, len(blobs), ASKED_AT_ONCE):
            asked = blobs[start : start + ASKED_AT_ONCE]
            self._process.stdin.write("".join(f"{blob}\n" for blob in asked).encode())
            self._process.stdin.flush()
            for blob in asked:
                answer = self._process.stdout.readline().strip()
                if answer.isdigit():
                    sizes[blob] = int(answer)
        return sizes


# What git log says.


class _File(NamedTuple):
    """What a commit did to a path."""

    path: bytes
    old_mode: str
    new_mode: str
    old_blob: str
    new_blob: str


def _commits(log: IO[bytes]) -> Iterator[tuple[str, str, list[_File]]]:
    """Each commit's name, time and files."""
    name, at, files = "", "", list[_File]()
    words = _words(log)
    for word in words:
        if word.lstrip(b"\n").startswith(b":"):
            old_mode, new_mode, old_blob, new_blob, _ = word.decode().lstrip("\n:").split(" ")
            files.append(_File(next(words), old_mode, new_mode, old_blob, new_blob))
            continue
        if name:
            yield name, at, files
        _, name, at = word.decode().split(" ")
        files = []
    if name:
        yield name, at, files


def _words(log: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while piece := log.read1(1 << 18):  # type: ignore[attr-defined]
        *whole, rest = (rest + piece).split(b"\0")
        yield from whole


def _time(name: str, seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (OverflowError, ValueError, OSError):
        raise Failed("git", f"commit {name[:12]} is of a time that no calendar has: {seconds}") from None


# What it comes to.


def _changes(files: Sequence[_File], sizes: _Sizes) -> Iterator[PushChange]:
    blobs = dict.fromkeys(file.new_blob for file in files if file.new_mode not in (ABSENT, SUBMODULE))
    size = sizes.of(list(blobs))
    for file in files:
        collection, atom, path = named(file.path)
        if file.new_mode == ABSENT:
            yield PushChange("delete", collection, atom)
            continue
        is_new = file.old_mode == ABSENT
        fields: dict[str, str | int] = {}
        unset: tuple[str, ...] = ()
        if is_new and path is not None:
            fields["path"] = path
        if file.new_mode != file.old_mode:
            fields["mode"] = file.new_mode
        if file.new_blob != file.old_blob:
            fields["blob"] = file.new_blob
            if file.new_blob in size:
                fields["size"] = size[file.new_blob]
            elif not is_new:
                unset = ("size",)
        yield PushChange("insert" if is_new else "update", collection, atom, msgspec.json.encode(fields), unset)


def named(path: bytes) -> tuple[str, str, str | None]:
    """The collection and the atom of a path, and the whole of it where they are cut."""
    text = path.decode(errors="surrogateescape")
    folder, slash, rest = text.partition("/")
    collection, atom = (folder, rest) if slash else (".", text)
    collection, atom = _FOLDER.sub(_escaped, collection), _FILE.sub(_escaped, atom)
    names = _cut(collection, COLLECTION_BYTES), _cut(atom, ATOM_BYTES)
    return *names, None if names == (collection, atom) else _FILE.sub(_escaped, text)


_FILE = re.compile(r"[\x00-\x1f\x7f-\x9f\udc80-\udcff]|%(?=[0-9A-F]{2})")
_FOLDER = re.compile(f"{_FILE.pattern}|,")


def _cut(name: str, most: int) -> str:
    whole = name.encode()
    if len(whole) <= most:
        return name
    return whole[: most - 17].decode(errors="ignore") + "~" + sha256(whole).hexdigest()[:16]


def _escaped(match: "re.Match[str]") -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode(errors="surrogateescape"))
