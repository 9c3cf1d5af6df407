"""Whether a database file is the one that was left here, or a copy, was moved, or came back from a backup.

Beside FILE lies FILE-incarnation: the nonces that FILE may have inside, and which two files of the file system these
are. The rule: in doubt it is another one, which costs a new client id; to take a copy for the same would let two
replicas number their pushes alike.
"""

import ctypes
import os
import struct
from pathlib import Path

import msgspec

MOST_BYTES = 64 * 1024
_AT_FDCWD, _STATX_BTIME, _BTIME_AT = -100, 0x800, 80


class Identity(msgspec.Struct, frozen=True):
    """Which file this is. An inode's number is soon used again, so when the file was made counts (0: not known)."""

    device: int
    inode: int
    born: int


class Left(msgspec.Struct, frozen=True):
    """What lies beside the database. `itself`: a sidecar that was copied over the present one is another."""

    nonces: tuple[str, ...]
    database: Identity
    itself: Identity


_decode = msgspec.json.Decoder(Left).decode


def is_same(file: Path, nonce: str) -> bool:
    """Whether the file at this place, with this nonce inside, is the one that was left here."""
    sidecar = _sidecar(file)
    try:
        with sidecar.open("rb") as lying:
            left = _decode(lying.read(MOST_BYTES))
        return nonce in left.nonces and left.database == _identity(file) and left.itself == _identity(sidecar)
    except (OSError, msgspec.MsgspecError, ValueError):
        return False


def expect(file: Path, *nonces: str) -> None:
    """Write down that the file, which is there, is the one, with any of these nonces inside; whole or not at all.

    Who renews a nonce at each opening: expect(file, old, new), commit the new one, expect(file, new).
    """
    sidecar = _sidecar(file)
    new = sidecar.with_name(sidecar.name + ".new")
    new.unlink(missing_ok=True)  # not written over: it may be somebody's link
    with new.open("xb") as lying:
        lying.write(msgspec.json.encode(Left(nonces, _identity(file), _identity(new))))
        lying.flush()
        os.fsync(lying.fileno())
    os.replace(new, sidecar)
    _fsync(sidecar.parent)


def _sidecar(file: Path) -> Path:
    """Beside the file itself, as SQLite's own: who opens it by a link finds the same one."""
    place = file.resolve()
    return place.with_name(place.name + "-incarnation")


def _identity(file: Path) -> Identity:
    known = file.stat()
    return Identity(known.st_dev, known.st_ino, _born(file, known))


def _born(file: Path, known: os.stat_result) -> int:
    told = getattr(known, "st_birthtime", None)
    return _born_on_linux(file) if told is None else round(told * 1e6)


def _born_on_linux(file: Path) -> int:
    """What statx says, which Python does not ask; 0 where it cannot be asked or does not know."""
    found = ctypes.create_string_buffer(256)
    try:
        failed = ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(file), 0, _STATX_BTIME, found)
    except (AttributeError, TypeError, OSError):  # no statx, or no C library by that name
        return 0
    (mask,) = struct.unpack_from("=I", found)
    seconds, nanoseconds = struct.unpack_from("=qI", found, _BTIME_AT)
    return 0 if failed or not mask & _STATX_BTIME else int(seconds * 10**9 + nanoseconds)


def _fsync(folder: Path) -> None:
    """Make a rename last; where folders cannot be opened (Windows) it is the file system's affair."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
