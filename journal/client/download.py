"""Downloading a snapshot: what breaks off goes on, and only what is whole and right gets its name.

FILE.part holds a line that says what is being downloaded, then the bytes as they were sent. Its rule: bytes are only
added to what their ETag says they continue. The last line of a snapshot counts and digests all lines: what was cut
off or damaged is told from what is whole (docs/protocol.md, sections 6 and 8).
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Literal

import msgspec

from journal.client.http import Http, Refused, Unreachable
from journal.client.packed import CutOff, lines, unpacked
from journal.core import digest
from journal.errors import JournalError

Coding = Literal["zstd", "gzip"]
PIECE = 256 * 1024
LINE_BYTES = 64 << 20
ASKED = 3  # how often for one that is there
PAUSES_S = (0.1, 0.5, 1.0, 2.0)  # between attempts, as long as nothing comes
LONGEST_SIZE = 18  # digits
Told = Callable[[int, int], None]  # bytes that are here, and of how many


class Damaged(JournalError):
    """What was downloaded is not the whole snapshot."""


class First(msgspec.Struct):
    """A snapshot's first line."""

    epoch: str
    revision: int
    cursor: str
    atoms: int


class Origin(msgspec.Struct, frozen=True):
    """The first line of FILE.part: which bytes these are, in which coding, and how many there will be (0: not said)."""

    service: str
    journal: str
    path: str
    etag: str
    coding: str
    size: int


class _Line(msgspec.Struct):
    collection: str
    atom: str
    revision: int


class _Last(msgspec.Struct):
    end: Literal[True]
    atoms: int
    digest: str


_origin = msgspec.json.Decoder(Origin).decode
_first = msgspec.json.Decoder(First).decode
_line = msgspec.json.Decoder(_Line).decode
_last = msgspec.json.Decoder(_Last).decode


async def download(
    http: Http, journal: str, file: Path, *, keep: Coding | None, told: Told, collections: str | None = None
) -> First:
    """The journal's snapshot in `file`, in the coding to `keep`; it goes on where an earlier download broke off.

    `http` is raw. `collections`: `a,b`, only these. Unreachable when it breaks off for good: FILE.part stays, for the
    next time, with the same collections.
    """
    part = file.with_name(file.name + ".part")
    begun, failures = _size(part), 0
    while True:
        had = _size(part)
        try:
            origin = await _fetch(http, journal, part, keep or "zstd", told, collections)
            break
        except Unreachable:
            failures = 1 if _size(part) > had else failures + 1
            if failures > len(PAUSES_S) or _size(part) == begun:  # where not a byte came, trying again is for a person
                raise
            await asyncio.sleep(PAUSES_S[failures - 1])
    return await asyncio.to_thread(_finish, part, file, origin, keep)


async def _fetch(http: Http, journal: str, part: Path, coding: Coding, told: Told, collections: str | None) -> Origin:
    """Get what is missing of FILE.part; begin anew where it cannot go on."""
    origin = _begun(part)
    if origin is not None and (origin.service, origin.journal) == (http.url, journal):
        have = part.stat().st_size - _head_bytes(part)
        if have == origin.size:
            return origin
        try:
            headers = {"Accept-Encoding": coding, "Range": f"bytes={have}-", "If-Range": origin.etag}
            return await _receive(http, journal, origin.path, headers, part, told)
        except Refused as error:
            if error.status not in (404, 416):  # kept no more, or other bytes
                raise
    place = http.place("journals", journal, "snapshot")
    if collections is not None:
        place = place.with_query(collections=collections)
    for attempts in count(1):
        async with http.request("GET", place) as response:
            path = response.headers.get("Location", "")
            if response.status != 303 or not path:
                raise Unreachable(http.url, f"{response.status} without a snapshot's place")
        try:
            return await _receive(http, journal, path, {"Accept-Encoding": coding}, part, told)
        except Refused as error:
            if error.status != 404 or attempts == ASKED:  # kept no more: the server was set back, or has another spool
                raise
    raise AssertionError


async def _receive(http: Http, journal: str, path: str, headers: dict[str, str], part: Path, told: Told) -> Origin:
    async with http.request("GET", http.below(path), headers) as response:
        tag = response.headers.get("ETag", "")
        sent_in = response.headers.get("Content-Encoding", "identity")
        told_size = (
            response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status == 206
            else response.headers.get("Content-Length", "0")
        )
        size = size_of(told_size)
        if response.status not in (200, 206) or size is None:
            raise Unreachable(http.url, f"{response.status} is no snapshot")
        origin = Origin(http.url, journal, path, tag, sent_in, size)
        with part.open("ab" if response.status == 206 else "wb") as file:
            if response.status != 206:
                file.write(msgspec.json.encode(origin) + b"\n")
                file.flush()
            have = file.tell() - _head_bytes(part)
            told(have, size)
            async for piece in response.content.iter_chunked(PIECE):
                file.write(piece)
                have += len(piece)
                told(have, size)
    if size and have != size:
        raise Unreachable(http.url, "the answer broke off")
    return origin


def size_of(told: str) -> int | None:
    """A size in bytes, as a header tells it; None where it does not, or of more bytes than there can be."""
    return int(told) if told.isdecimal() and len(told) <= LONGEST_SIZE else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _begun(part: Path) -> Origin | None:
    """What FILE.part says it is; None where there is none."""
    try:
        with part.open("rb") as file:
            return _origin(file.readline(64 * 1024))
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _head_bytes(part: Path) -> int:
    with part.open("rb") as file:
        return len(file.readline())


def _finish(part: Path, file: Path, origin: Origin, keep: Coding | None) -> First:
    """Verify FILE.part and give the snapshot its name."""
    whole = file.with_name(file.name + ".whole")
    try:
        with part.open("rb") as received, whole.open("wb") as kept:
            received.readline()
            sent = _pieces(received)
            if keep is None:
                first = _verified(_copied(unpacked(sent), kept))
            elif origin.coding == keep:
                first = _verified(unpacked(_copied(sent, kept)))
            else:
                raise Damaged(f"it was to come in {keep}, and came in {origin.coding}")
            kept.flush()
            os.fsync(kept.fileno())
        os.replace(whole, file)
        part.unlink()
        return first
    except Damaged:
        part.unlink()  # going on would not mend it
        raise
    finally:
        whole.unlink(missing_ok=True)


def _verified(pieces: Iterator[bytes]) -> First:
    """Read a snapshot through to its last line, which must count and digest what came before it."""
    atoms = total = 0
    first: First | None = None
    last: _Last | None = None
    try:
        for line in lines(pieces, longest=LINE_BYTES):
            if last is not None:
                raise Damaged("there are lines after the last")
            if first is None:
                first = _first(line)
            elif line.startswith(b'{"end"'):
                last = _last(line)
            else:
                atom = _line(line)
                atoms += 1
                total ^= digest.leaf(atom.collection, atom.atom, atom.revision)
    except (msgspec.MsgspecError, CutOff, ValueError) as error:
        raise Damaged(f"after {atoms} atoms: {error}") from None
    if first is None or last is None:
        raise Damaged(f"it ends after {atoms} atoms, without a last line")
    if (atoms, digest.told(total)) != (last.atoms, last.digest):
        raise Damaged(f"{atoms} atoms with digest {digest.told(total)} where {last.atoms} with {last.digest} were sent")
    return first


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _copied(pieces: Iterator[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        copy.write(piece)
        yield piece
