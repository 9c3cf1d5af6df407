"""What a peer is to the measurements: how it is started, what it is asked, how its answers are read.

A driver encodes and decodes and nothing else: what is asked of whom, how often and by how many is said once for all of
them, in measure.py and in prove.py. A write sets an atom to data, whatever it was before; each peer has a word for it.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bench.load import Fetched, Served, get, post
from bench.place import ROOT, Place, connected

START_S = 60.0
STOP_S = 20.0

Data = Mapping[str, Any]


class Sender(msgspec.Struct):
    """Who writes, for a peer that can be told: a UUID, and the number of its last push."""

    client: str
    push: int = 0


class Told(msgspec.Struct, frozen=True):
    """What a reader was told: atoms in order with their data, None for a deleted one, and where it stands now."""

    changes: Sequence[tuple[str, Data | None]]
    cursor: str
    more: bool


class Driver(Protocol):
    """One peer. A space is what a reader follows: a journal, a collection, the rows of one name."""

    name: str
    configurations: Sequence[str]
    batch: int  # writes in one request, for the measurement of batches

    async def prepare(self, dsn: str, folder: Path) -> None:
        """Make its tables in an empty database."""

    def serving(self, configuration: str, dsn: str, folder: Path) -> AbstractContextManager[Served]:
        """Its processes, once they answer; all of one process group, which `killed` can end."""

    def create(self, space: str) -> Sequence[bytes]:
        """The requests that make a space."""

    def write(self, space: str, writes: Sequence[tuple[str, Data]], sender: Sender | None = None) -> bytes:
        """The request that sets some atoms; the same bytes for the same sender at the same push."""

    def taken(self, body: bytes) -> Sequence[bool]:
        """Which writes of a request were acknowledged, by the body of its answer; [] for a request that was refused."""

    def since(self, space: str, cursor: str) -> bytes:
        """The request of a reader at `cursor`; "" is the start."""

    def told(self, space: str, fetched: Fetched, cursor: str) -> Told:
        """What the answer to it says."""

    def fill(self, space: str) -> str:
        """SQL that sets atoms 1 to $1 to $2, in the past, for a peer whose own interface takes too long; or ""."""

    def holding(self) -> str:
        """SQL after which the transaction of a write to an atom called slow-… waits in `peers_wait()` to end."""

    def recording(self) -> Sequence[str]:
        """SQL after which every application of a write is listed for `applied`; [] for a peer that keeps a record."""

    def applied(self, space: str) -> str:
        """A query for atom and key of every application of a write, in their order."""


@asynccontextmanager
async def housed(driver: Driver, at: Place) -> AsyncIterator[str]:
    """A database of its own for a peer, on the server where all of them are; gone afterwards."""
    here = at.dsn.partition("?")[0].rpartition("/")[2]
    name = f"{here}_{driver.name.lower()}"
    dsn = at.dsn.replace(f"/{here}", f"/{name}", 1)
    async with connected(at.dsn) as admin:
        await admin.execute(f'create database "{name}" template template0')
    try:
        await driver.prepare(dsn, folder(at, driver))
        yield dsn
    finally:
        async with connected(at.dsn) as admin:
            await admin.execute(f'drop database "{name}" with (force)')


def folder(at: Place, driver: Driver) -> Path:
    """A new folder for a peer's files."""
    return Path(tempfile.mkdtemp(prefix=f"{driver.name.lower()}-", dir=at.folder))


@contextmanager
def process(command: Sequence[str], port: int = 0, *, log: Path | None = None) -> Iterator[Served]:
    """A group of processes that listens on `port`, or prints where it listens; ended with all its children."""
    with (log or Path(os.devnull)).open("ab") as errors:
        out = subprocess.DEVNULL if port else subprocess.PIPE
        started = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=errors if log else None, start_new_session=True
        )
    try:
        if started.stdout is not None:
            port = int(started.stdout.readline() or 0)
        if not port or not _answers(port, started):
            raise RuntimeError(f"{' '.join(command)} did not start{f': see {log}' if log else ''}")
        yield Served(port, started.pid, log.parent if log else Path())
    finally:
        _ended(started)


def killed(served: Served) -> None:
    """SIGKILL to a service and its children: it finishes nothing."""
    os.killpg(served.pid, signal.SIGKILL)


def put(path: str, body: bytes = b"") -> bytes:
    """The bytes of a PUT of JSON."""
    return b"PUT" + post(path, body).removeprefix(b"POST")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, started: "subprocess.Popen[bytes]") -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until and started.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_S) as probe:
                probe.sendall(get("/v1/", Connection="close"))
                if probe.recv(1):
                    return True
        except OSError:
            time.sleep(0.05)
    return False


def _ended(started: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(started.pid, number)
            started.wait(STOP_S)
        except ProcessLookupError:
            started.wait()
            return
        except subprocess.TimeoutExpired:
            continue
