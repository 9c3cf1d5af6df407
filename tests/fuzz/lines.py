"""What files hold: the lines of an import, packed or not, and downloaded snapshots; other readers say what is right."""

import functools
import gzip
import io
import operator
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import zstandard

from journal.cli.ndjson import CommitLine, Lines
from journal.cli.say import Failed
from journal.client import download, packed
from journal.client.download import Damaged
from journal.client.packed import CutOff
from journal.config import Limits
from journal.core import digest
from journal.errors import JournalError
from tests.conforming import is_valid_by
from tests.fuzz import bodies
from tests.fuzz.target import Target
from tests.unit.test_names import is_writable

_SCHEMA = msgspec.json.schema(CommitLine, ref_template="#/$defs/{name}")
MEMBERS = {"insert": ({"data"}, {"data"}), "replace": ({"data"}, {"data"}), "put": ({"data"}, {"data"}),
           "update": (set(), {"data", "unset"}), "delete": (set(), set())}  # fmt: skip
MOST = 1 << 22


def of_imports(data: bytes) -> None:
    """Each line is taken exactly if it is a commit by the schema, and each is told at its number."""
    assert Limits().nesting >= bodies.LIMITS.nesting
    lines = [(number, line.strip()) for number, line in enumerate(data.split(b"\n"), 1)]
    good = []
    for number, line in lines:
        if line and not data.startswith((packed._GZIP, packed._ZSTD)):
            if not is_commit(line):
                break
            good.append(number)
    try:
        found = []
        for entry in Lines(io.BytesIO(data), "file").entries():
            assert 1 <= entry.at.astimezone(UTC).year <= 9999
            found.append(entry.number)
    except Failed:
        pass
    if data.startswith((packed._GZIP, packed._ZSTD)):
        return
    assert found[: len(good)] == good
    assert len(found) == len(good) or is_deep(data), (found, good)


def is_deep(data: bytes) -> bool:
    """Deeper than the oracle reads, which has limits of its own."""
    return data.count(b"{") + data.count(b"[") > bodies.LIMITS.nesting


def is_commit(line: bytes) -> bool:
    try:
        value = bodies.read(line)
    except bodies.Refused:
        return False
    if not is_valid_by(_SCHEMA, value):
        return False
    try:
        datetime.fromisoformat(value["at"].upper()).astimezone(UTC)
    except OverflowError:
        return False
    for change in value["changes"]:
        needed, allowed = MEMBERS[change["op"]]
        has = change.keys() & {"data", "unset"}
        if not needed <= has <= allowed or (change["op"] == "update" and not has):
            return False
        if not is_writable(change["collection"], 128) or not is_writable(change["atom"], 255):
            return False
    return True


def of_packed(data: bytes) -> None:
    """The first byte says into which pieces; the rest is unpacked as the libraries' own readers do, or cut off."""
    step, rest = (data[0] or 1) if data else 1, data[1:]
    pieces = (rest[at : at + step] for at in range(0, len(rest), step))
    try:
        whole: bytes | None = bounded(packed.unpacked(pieces))
    except CutOff:
        whole = None
    another = by_another(rest)
    is_gzip = rest.startswith(packed._GZIP)  # Python's reader takes flags that must be refused (RFC 1952, 2.3.1.2)
    assert whole == another or (whole is None and is_gzip), another
    if whole is not None and len(whole) == MOST:
        return
    of_snapshot(rest if whole is None else whole)


def bounded(pieces: Iterator[bytes]) -> bytes:
    whole = b""
    for piece in pieces:
        whole += piece
        if len(whole) >= MOST:
            return whole[:MOST]
    return whole


def by_another(data: bytes) -> bytes | None:
    try:
        if data.startswith(packed._GZIP):
            with gzip.open(io.BytesIO(data)) as file:
                return file.read(MOST)
        if data.startswith(packed._ZSTD):
            frames = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
            whole = frames.read(MOST)
            return whole if len(whole) == MOST or is_ended(data) else None
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return None
    return data[:MOST]


def is_ended(data: bytes) -> bool:
    """Whether the last frame of zstd is whole: its reader does not say."""
    while data:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        decoder.decompress(data)
        if not decoder.eof:
            return False
        data = decoder.unused_data
    return True


def of_snapshot(text: bytes) -> None:
    """A snapshot is found whole exactly if its lines add up to its last one."""
    try:
        download._verified(iter([text]))
        is_whole = True
    except Damaged:
        is_whole = False
    try:
        text.decode()
    except UnicodeDecodeError:  # data is not looked into here
        return
    assert is_whole == adds_up(text), text


def adds_up(text: bytes) -> bool:
    *lines, rest = text.split(b"\n")
    lines += [rest] if rest else []
    try:
        first, *atoms, last = (msgspec.json.decode(line) for line in lines)
        leaves = (digest.leaf(atom["collection"], atom["atom"], atom["revision"]) for atom in atoms)
        total = digest.told(functools.reduce(operator.xor, leaves, 0))
    except (ValueError, TypeError, KeyError, JournalError):
        return False
    if not all(isinstance(line, dict) for line in (first, last)):
        return False
    typed = all(type(atom["collection"]) is str and type(atom["atom"]) is str for atom in atoms)
    return (
        typed
        and type(first.get("epoch")) is str and type(first.get("cursor")) is str
        and type(first.get("revision")) is int and type(first.get("atoms")) is int
        and last.get("end") is True
        and (last.get("atoms"), last.get("digest")) == (len(atoms), total)
    )  # fmt: skip


_LINE = (
    b'{"at": "2026-03-02T08:00:00Z", "changes": [{"op": "put", "collection": "a", "atom": "b", "data": {"n": 1}},'
    b'{"op":"update","collection":"a","atom":"b","unset":["n"]},{"op":"delete","collection":"a","atom":"b"}]}'
)
_SNAPSHOT = (
    b'{"epoch":"5f1c09ab33d2","revision":1,"cursor":"5f1c09ab33d2:1:9f86d081884c7d65","atoms":1}\n'
    b'{"collection":"todo","atom":"a","revision":1,"data":{}}\n{"end": true,"atoms":1,"digest":"%s"}\n'
    % digest.told(digest.leaf("todo", "a", 1)).encode()
)
IMPORTS = Target(
    "imports",
    of_imports,
    [_LINE, _LINE + b"\n\r\n" + _LINE + b"\r\n", gzip.compress(_LINE, mtime=0), zstandard.compress(_LINE)],
    [b"\n", b"\r\n", b'"op":"insert"', b'"op":"replace"', b'"op":"update"', b'"op":"delete"', b'"data":{}',
     b'"unset":["n"]', b'"at":', b'"changes":[', b"null", b"{", b"}", b",", b"]", b"\\u0000", b"1e400", b"+01:00",
     b"0001-01-01", b"9999-12-31T23:59:59-10:00",
     b"2026-02-30", b" ", b"\t", "é".encode(), b"\xff"],
)  # fmt: skip
FILES = Target(
    "files",
    of_packed,
    [b"\x05" + _SNAPSHOT, b"\xff" + gzip.compress(_SNAPSHOT, mtime=0), b"\x01" + zstandard.compress(_SNAPSHOT),
     b"\x40" + gzip.compress(_SNAPSHOT[:80], mtime=0) + gzip.compress(_SNAPSHOT[80:], mtime=0),
     b"\x40" + zstandard.compress(_SNAPSHOT[:80]) + zstandard.compress(_SNAPSHOT[80:])],
    [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\n", b'{"end": true', b'{"end"', b'"atoms":', b'"revision":', b"1", b"-1",
     b"null", b'"collection":"', b'"atom":"', b'"digest":"', b"0000000000000000", b"\0", b"\x50\x2a\x4d\x18"],
)  # fmt: skip
