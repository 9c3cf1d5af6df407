"""A storm: everyone is called back at once, while others push and ask on.

The clients that come back are separate TCP connections in a process of their own (`python -m bench.storm`), each of
which reads at 1 MB/s: it asks for deltas, is told 410, asks for the snapshot and reads it to its last byte; told 503 it
waits as long as it was told. What the others get is measured before, and while all of them read.
"""

import asyncio
import re
import socket
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import msgspec
import zstandard

from bench.load import Ask, Load, Reader, Served, closed_loop, get, post
from bench.place import ROOT, Place, connected, serving
from bench.rows import Row, figure, ratio
from bench.snapshot import Memory

JOURNAL, OTHERS = "storm", "others"
CLIENTS = 200
RATE = 1_000_000  # bytes a second that each reads
PIECE = 32 << 10
CONNECTIONS = 16


class Told(msgspec.Struct):
    """What the clients that came back say."""

    seconds: list[float]
    sizes: list[int]
    tags: list[str]
    busy: int
    atoms: int


async def rows(at: Place) -> list[Row]:
    """Rates of others before and during, what it took, and how long until everyone was back."""
    atoms, clients = (50_000, 40) if at.is_quick else (500_000, CLIENTS)
    async with connected(at.dsn) as connection:
        await connection.execute("call bench.fill($1, $2, $2, 1, 1000, false)", JOURNAL, atoms)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
    await at.create(OTHERS)
    with serving("journal", at) as journal:
        reader = Reader(journal.port)
        cursor = _cursor(reader, JOURNAL)
        tail = _tail(reader)
        names = count(1)
        await _others(journal, tail, names, seconds=1.0)
        memory = Memory(journal.pid)
        before = [await _others(journal, tail, names, seconds=at.seconds) for _ in range(at.rounds)]
        asked = reader.fetch(post(f"/v1/journals/{JOURNAL}/resync", b'{"reason":"a storm"}'))
        assert asked.status == 200, asked.raw
        storm = await _storm(journal, cursor, clients)
        during = []
        while storm.returncode is None:
            during.append(await _others(journal, tail, names, seconds=at.seconds))
        during[1:] = during[1:-1]  # the storm ended in the middle of the last
        grown_mib = memory.grown_mib()
        told = msgspec.json.decode((await storm.communicate())[0], type=Told)
        reader.close()
        made = list((journal.folder / "snapshots" / JOURNAL).glob("*.zst"))
    assert len(told.sizes) == clients
    assert told.atoms == atoms
    pushes, polls = zip(*before, strict=True)
    pushes_then, polls_then = zip(*during, strict=True)
    what = f"{clients} clients at 1 MB/s, {atoms // 1000} k atoms"
    return [
        ratio("storm", f"{what}: pushes of others", "before", "/s", _rates(pushes_then), _rates(pushes), at_least=0.5),
        ratio("storm", f"{what}: polls of others", "before", "/s", _rates(polls_then), _rates(polls), at_least=0.5),
        figure("storm", f"{what}: snapshots made", "", [float(len(made) + len(set(told.tags)) - 1)], at_most=1),
        figure("storm", f"{what}: memory above idle", "MiB", [grown_mib], at_most=80),
        figure("storm", f"{what}: until a client was back", "s", told.seconds),
        figure("storm", f"{what}: until the last was", "s", [max(told.seconds)]),
        figure("storm", f"{what}: bytes each read", "MB", [told.sizes[0] / 1e6]),
        figure("storm", f"{what}: told to come later", "", [float(told.busy)]),
    ]


def _rates(loads: tuple[Load, ...]) -> list[float]:
    return [load.rate for load in loads]


async def _others(journal: Served, tail: str, names: "count[int]", *, seconds: float) -> tuple[Load, Load]:
    """Pushes of one insert, and polls of ten changes from the tail, of another journal."""
    change = b'{"changes":[{"op":"insert","collection":"todo","atom":"%s","data":{"title":"rings","cost":310}}]}'
    head, end = post(f"/v1/journals/{OTHERS}/changes", change.replace(b"%s", b"~" * 16)).split(b"~" * 16)
    poll = get(f"/v1/journals/others-quiet/deltas?since={tail}")
    pushing: list[Ask] = [lambda _: b"%b%016x%b" % (head, next(names), end)] * CONNECTIONS
    polling: list[Ask] = [lambda _: poll] * CONNECTIONS
    pushes, polls = await asyncio.gather(
        closed_loop(journal, pushing, seconds=seconds), closed_loop(journal, polling, seconds=seconds)
    )
    assert pushes.statuses.keys() == polls.statuses.keys() == {200}, (pushes.statuses, polls.statuses)
    return pushes, polls


def _cursor(reader: Reader, journal: str) -> str:
    cursor: str = msgspec.json.decode(reader.fetch(get(f"/v1/journals/{journal}")).body)["cursor"]
    return cursor


def _tail(reader: Reader) -> str:
    """The cursor ten changes before the head of a journal that nobody pushes to."""
    reader.fetch(b"PUT /v1/journals/others-quiet HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    cursors = []
    for place in range(20):
        change = {"op": "insert", "collection": "todo", "atom": f"{place}", "data": {"title": "rings", "cost": place}}
        reader.fetch(post("/v1/journals/others-quiet/changes", msgspec.json.encode({"changes": [change]})))
        cursors.append(_cursor(reader, "others-quiet"))
    return cursors[-11]


async def _storm(journal: Served, cursor: str, clients: int) -> asyncio.subprocess.Process:
    """The clients' process, once all of them are reading."""
    arguments = (sys.executable, "-m", "bench.storm", str(journal.port), JOURNAL, cursor, str(clients))
    storm = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert storm.stdout is not None
    assert await storm.stdout.readline() == b"begun\n"
    return storm


# The process of those who come back.


class Client:
    """One that comes back; plain sockets, so that 200 of them cost little."""

    def __init__(self, port: int, told: Told) -> None:
        self.port, self.told = port, told

    async def come_back(self, journal: str, cursor: str, spool: Path | None) -> None:
        """Until it has the whole snapshot."""
        start = time.perf_counter()
        status, _, body = await self._ask(f"/v1/journals/{journal}/deltas?since={cursor}")
        assert status == 410, (status, body)
        problem = msgspec.json.decode(body)
        assert problem["reason"] == "operator"
        await asyncio.sleep(problem["retry_after"])
        while True:
            status, head, _ = await self._ask(problem["snapshot"])
            if status == 303:
                status, head, _ = await self._ask(_header(head, "Location"), spool=spool, rate=RATE)
            if status == 200:
                break
            assert status == 503, status
            self.told.busy += 1
            await asyncio.sleep(float(_header(head, "Retry-After")))
        self.told.seconds.append(time.perf_counter() - start)
        self.told.tags.append(_header(head, "ETag"))

    async def _ask(self, path: str, *, spool: Path | None = None, rate: float | None = None) -> tuple[int, str, bytes]:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * PIECE)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(connection, ("127.0.0.1", self.port))
            await loop.sock_sendall(connection, get(path, Accept_Encoding="zstd"))
            received = b""
            while b"\r\n\r\n" not in received:
                received += await loop.sock_recv(connection, PIECE)
            head, _, body = received.partition(b"\r\n\r\n")
            text = head.decode()
            size = int(_header(text, "Content-Length"))
            have = len(body)
            kept = [body]
            begun = time.perf_counter()
            while have < size:
                piece = await loop.sock_recv(connection, PIECE)
                assert piece, "cut off"
                have += len(piece)
                if rate is None or spool is not None:
                    kept.append(piece)
                if rate is not None:
                    await asyncio.sleep(max(begun + have / rate - time.perf_counter(), 0))
            if rate is not None and text.startswith("HTTP/1.1 200"):
                self.told.sizes.append(size)
                if spool is not None:
                    spool.write_bytes(b"".join(kept))
            return int(text.split(" ", 2)[1]), text, b"".join(kept)
        finally:
            connection.close()


def _header(head: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*?)\r?$", head, re.M | re.I)
    assert found is not None, (name, head)
    return found[1]


async def _main(port: int, journal: str, cursor: str, clients: int) -> None:
    told = Told([], [], [], 0, 0)
    print("begun", flush=True)
    with tempfile.NamedTemporaryFile() as kept:
        spool = Path(kept.name)
        async with asyncio.TaskGroup() as tasks:
            for place in range(clients):
                client = Client(port, told)
                tasks.create_task(client.come_back(journal, cursor, spool if place == 0 else None))
        lines = zstandard.ZstdDecompressor().stream_reader(kept).read().splitlines()
    last = msgspec.json.decode(lines[-1])
    assert last["end"] is True
    told.atoms = len(lines) - 2
    print(msgspec.json.encode(told).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
