"""Reading what may be packed: gzip and zstd are told by their first bytes, and one that was cut off never ends well."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard

from journal.errors import JournalError

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class CutOff(JournalError):
    """It is packed, and ends too early or is damaged."""


def unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes as they were before they were packed; those that never were are left as they are."""
    pieces = iter(pieces)
    first = next(pieces, b"")
    while len(first) < len(_ZSTD) and (more := next(pieces, b"")):
        first += more
    if not first.startswith((_GZIP, _ZSTD)):
        yield first
        yield from pieces
        return
    is_zstd = first.startswith(_ZSTD)
    decoder = _decoder(is_zstd=is_zstd)
    piece = first
    try:
        while True:
            while piece:
                if decoder.eof:  # several, one after the other, are one: as `cat` makes them
                    decoder = _decoder(is_zstd=is_zstd)
                yield decoder.decompress(piece)
                piece = decoder.unused_data
            piece = next(pieces, b"")
            if not piece:
                break
    except (zlib.error, zstandard.ZstdError) as error:
        raise CutOff(f"damaged: {error}") from None
    if not decoder.eof:
        raise CutOff("cut off: it ends too early")


def lines(pieces: Iterable[bytes], *, longest: int) -> Iterator[bytes]:
    """The lines, without their newlines; ValueError where one is longer than `longest` bytes."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > longest:
            raise ValueError(f"a line of more than {longest} bytes")
    if rest:
        yield rest


def _decoder(*, is_zstd: bool) -> Any:
    return zstandard.ZstdDecompressor().decompressobj() if is_zstd else zlib.decompressobj(31)
