"""Spool: lines on their way to a client, in memory while they are few and in a file when they are many.

They are read from PostgreSQL to the end before the first is sent: a slow reader holds no connection and no snapshot.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK = 256 * 1024


class Spool:
    """Lines, each with its newline. Close it, or leave it as a context, to let go of the file."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes, dir=str(folder))  # noqa: SIM115
        self.memory_bytes = memory_bytes
        self.size = 0
        self.lines = 0

    async def write(self, lines: bytes) -> None:
        """Take some more; async so that it can be a sink of COPY."""
        self._file.write(lines)
        self.size += len(lines)
        self.lines += lines.count(b"\n")

    def finish(self) -> None:
        """Nothing more comes: where there is no room for the last of it, that is known before any is sent."""
        self._file.flush()

    @property
    def is_small(self) -> bool:
        """Whether it is still in memory."""
        return self.size <= self.memory_bytes

    def chunks(self) -> Iterator[bytes]:
        """All of it, from the beginning, in pieces that end anywhere."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk

    def whole_lines(self) -> Iterator[bytes]:
        """All of it in pieces that end at a line's end."""
        rest = b""
        for chunk in self.chunks():
            head, newline, tail = chunk.rpartition(b"\n")
            if newline:
                yield rest + head + newline
                rest = tail
            else:
                rest += chunk

    def close(self) -> None:
        """Let go of what it holds."""
        with contextlib.suppress(OSError):  # what there was no room for is not needed any more
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
