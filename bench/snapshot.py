"""Snapshots: making one against COPY to nowhere, the memory that it takes, and sending it from the spool."""

import time
from pathlib import Path

import msgspec

from bench.load import Reader, Served, get
from bench.place import Place, connected, serving
from bench.rows import Row, figure, ratio
from journal.store.queries import QUERY

JOURNAL = "large"
GIGA, MIB = 1e9, 1 << 20


async def rows(at: Place) -> list[Row]:
    """Bytes of lines a second, whatever they become on disk."""
    atoms = 100_000 if at.is_quick else 1_000_000
    await _fill(at, atoms)
    with serving("journal", at) as journal:
        reader = Reader(journal.port)
        made, copied = [], []
        size = await _copy(at)  # not counted: it warms what both read
        memory = Memory(journal.pid)
        for _ in range(at.rounds):
            start = time.perf_counter()
            location = _make(reader, journal)
            made.append(size.bytes / (time.perf_counter() - start) / 1e6)
            copied.append((await _copy(at)).rate / 1e6)
        grown_mib = memory.grown_mib()
        sent = {coding: _sent(reader, location, coding, atoms) for coding in ("identity", "zstd")}
        with serving("file", at, journal.folder / "snapshots" / JOURNAL) as static:
            by_aiohttp = Reader(static.port)
            plain = get("/" + location.rpartition("/")[2] + ".ndjson")
            beside: dict[str, list[float]] = {"spool": [], "aiohttp": []}
            for _ in range(2 * at.rounds):
                beside["spool"].append(_rate(reader, get(location, Accept_Encoding="identity")))
                beside["aiohttp"].append(_rate(by_aiohttp, plain))
            by_aiohttp.close()
        reader.close()
    told = f"{atoms // 1000} k atoms"
    return [
        ratio("snapshot", f"making, {told}", "COPY to nowhere", "MB/s", made, copied, at_least=0.9),
        figure("snapshot", "making, memory above idle", "MiB", [grown_mib], at_most=80),
        figure("snapshot", "sending", "GB/s", beside["spool"], at_least=1.0),
        figure("snapshot", "sending zstd", "GB/s", sent["zstd"], at_least=1.0),
        ratio("snapshot", "sending", "aiohttp's FileResponse", "GB/s", beside["spool"], beside["aiohttp"]),
    ]


async def _fill(at: Place, atoms: int) -> None:
    """Atoms without their record, of which a snapshot reads nothing."""
    async with connected(at.dsn) as connection:
        await connection.execute("call bench.fill($1, $2, $2, 1, 1000, false)", JOURNAL, atoms)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")


def _make(reader: Reader, server: Served) -> str:
    """Where a snapshot is that was not there before."""
    for path in (server.folder / "snapshots").glob(f"{JOURNAL}/*"):
        path.unlink()
    fetched = reader.fetch(get(f"/v1/journals/{JOURNAL}/snapshot"))
    assert fetched.status == 303
    return fetched.header("Location")


class _Copied(msgspec.Struct):
    bytes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.bytes / self.seconds


async def _copy(at: Place) -> _Copied:
    """The same lines to nowhere."""
    copied = _Copied()

    async def nowhere(lines: bytes) -> None:
        copied.bytes += len(lines)

    async with connected(at.dsn) as connection:
        journal = await connection.fetchval("select id from journal.journal where name = $1", JOURNAL)
        start = time.perf_counter()
        await connection.copy_from_query(
            QUERY["snapshot_lines"], journal, None, output=nowhere, format="csv", quote="\x01", delimiter="\x02"
        )
        copied.seconds = time.perf_counter() - start
    return copied


class Memory:
    """How far a process's memory grows above what it is now."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._idle_mib = self._of("VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest ever is counted anew

    def grown_mib(self) -> float:
        """The highest since, above what it was."""
        return self._of("VmHWM") - self._idle_mib

    def _of(self, name: str) -> float:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _sent(reader: Reader, location: str, coding: str, atoms: int) -> list[float]:
    """GB/s of a coding, read and thrown away; before that it is looked at."""
    request = get(location, Accept_Encoding=coding)
    body = reader.fetch(request).body
    if coding == "identity":
        last = msgspec.json.decode(body[body.rindex(b"\n", 0, -1) :])
        assert (body.count(b"\n"), last["atoms"]) == (atoms + 2, atoms)
    return [_rate(reader, request) for _ in range(10)]


def _rate(reader: Reader, request: bytes) -> float:
    fetched = reader.fetch(request, keep=False)
    assert fetched.status == 200
    return fetched.size / fetched.seconds / GIGA
