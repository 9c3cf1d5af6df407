"""Repair: what a client fetches to mend ten damaged atoms, against taking a snapshot; and what the server pays for it.

The client is the plain one of examples/, which hashes in Python and asks one thing after the other: what it fetches and
waits for is counted, not its own work.
"""

import random
import time
from uuid import uuid4

import aiohttp
import msgspec

from bench.load import closed_loop, get
from bench.place import Place, connected, serving
from bench.rows import Row, figure, ratio
from examples.plain_client import Client

JOURNAL = "repaired"
DAMAGED = 10
CONNECTIONS = 64


async def rows(at: Place) -> list[Row]:
    """Bytes are of bodies, uncompressed, on both sides."""
    atoms = 100_000
    async with connected(at.dsn) as connection:
        await connection.execute("call bench.fill($1, $2, $2, 1, 1000, false)", JOURNAL, atoms)
        await connection.execute("vacuum (analyze)")
    repaired, taken = list[_Counted](), list[_Counted]()
    with serving("journal", at) as served:
        journal = f"http://127.0.0.1:{served.port}/v1/journals/{JOURNAL}"
        counted = _Counted()
        async with aiohttp.ClientSession(
            trace_configs=[_trace(counted)], headers={"Accept-Encoding": "identity"}
        ) as session:
            client = Client(session, journal, str(uuid4()))
            await client.replace()
            counted.reset()
            await client.ask("GET", "/digest")
            first_s = counted.seconds
            for seed in range(at.rounds):
                for key in random.Random(seed).sample(sorted(client.data), DAMAGED):
                    client.data[key] = (client.data[key][0], {"title": "damaged"})
                counted.reset()
                await client.verify()
                repaired.append(msgspec.structs.replace(counted))
                mended = client.data
                counted.reset()
                await client.replace()
                taken.append(msgspec.structs.replace(counted))
                assert client.data == mended
        load = [
            await closed_loop(served, [_Ask(n) for n in range(CONNECTIONS)], seconds=at.seconds)
            for _ in range(at.rounds)
        ]
    assert all(one.statuses.keys() == {200} for one in load)
    what = f"{DAMAGED} of {atoms // 1000} k atoms damaged"
    whole = "the whole snapshot"
    share = [100 * part.bytes / all_of_it.bytes for part, all_of_it in zip(repaired, taken, strict=True)]
    return [
        ratio("repair", f"{what}, fetched", whole, "kB", _kb(repaired), _kb(taken)),
        figure("repair", f"{what}, share of the snapshot", "%", share, at_most=1),
        figure("repair", f"{what}, requests", "", [one.requests for one in repaired]),
        ratio("repair", f"{what}, waited", whole, "ms", _ms(repaired), _ms(taken)),
        figure("repair", f"the first digest of {atoms // 1000} k atoms", "s", [first_s]),
        figure("repair", f"digests of one head, {CONNECTIONS} connections", "/s", [one.rate for one in load]),
        figure("repair", "digests of one head, CPU of the process", "µs", [one.cpu_us for one in load]),
    ]


class _Counted(msgspec.Struct):
    bytes: int = 0
    requests: int = 0
    seconds: float = 0.0

    def reset(self) -> None:
        self.bytes = self.requests = 0
        self.seconds = 0.0


def _trace(counted: _Counted) -> aiohttp.TraceConfig:
    """Counts what a session fetches, redirects too, until the last byte of each answer."""
    trace = aiohttp.TraceConfig()
    began = 0.0

    async def start(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()
        counted.requests += 1

    async def chunk(_: object, __: object, received: aiohttp.TraceResponseChunkReceivedParams) -> None:
        nonlocal began
        counted.bytes += len(received.chunk)
        counted.seconds, began = counted.seconds + time.perf_counter() - began, time.perf_counter()

    trace.on_request_start.append(start)
    trace.on_response_chunk_received.append(chunk)
    return trace


def _kb(counted: list[_Counted]) -> list[float]:
    return [one.bytes / 1e3 for one in counted]


def _ms(counted: list[_Counted]) -> list[float]:
    return [one.seconds * 1e3 for one in counted]


class _Ask:
    """Asks for the digests of one prefix after the other, as clients do that come down the tree."""

    def __init__(self, connection: int) -> None:
        self._chance = random.Random(connection)

    def __call__(self, _: bytes) -> bytes:
        depth = self._chance.choice([0, 1, 1, 2, 2])
        prefix = f"{self._chance.randrange(16**depth):0{depth}x}" if depth else ""
        return get(f"/v1/journals/{JOURNAL}/digest?of=content&prefix={prefix}")
