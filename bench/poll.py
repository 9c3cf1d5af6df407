"""Polls: up to date, and ten changes from the tail, against aiohttp saying hello."""

import msgspec

from bench.load import Ask, Load, Reader, Served, closed_loop, get, post
from bench.place import Place, serving
from bench.rows import Row, figure, ratio

CONNECTIONS = 64


async def rows(at: Place) -> list[Row]:
    """Requests a second."""
    with serving("journal", at) as journal, serving("hello", at) as hello:
        await at.create("poll")
        cursors = _pushed(journal, 100)
        asked = {
            "up to date": (journal, f"/v1/journals/poll/deltas?since={cursors[-1]}"),
            "10 changes": (journal, f"/v1/journals/poll/deltas?since={cursors[-11]}"),
            "hello": (hello, "/hello"),
        }
        assert _deltas(*asked["up to date"]) == 0
        assert _deltas(*asked["10 changes"]) == 10
        loads: dict[str, list[Load]] = {name: [] for name in asked}
        for place in range(-1, at.rounds):
            for name, (server, path) in asked.items():
                request = get(path)
                asks: list[Ask] = [lambda _, request=request: request] * CONNECTIONS  # type: ignore[misc]
                load = await closed_loop(server, asks, seconds=0.3 if place < 0 else at.seconds)
                assert load.statuses == {200: load.requests}, load.statuses
                if place >= 0:
                    loads[name].append(load)
    rates = {name: [load.rate for load in taken] for name, taken in loads.items()}
    cpu = {name: [load.cpu_us for load in taken] for name, taken in loads.items()}
    p99 = [load.p99_ms for load in loads["up to date"]]
    return [
        ratio("poll", "up to date", "hello", "/s", rates["up to date"], rates["hello"], at_least=0.75),
        ratio("poll", "10 changes from the tail", "hello", "/s", rates["10 changes"], rates["hello"], at_least=0.75),
        figure("poll", "up to date, p99", "ms", p99),
        ratio("poll", "up to date, CPU of the process", "hello", "µs", cpu["up to date"], cpu["hello"]),
    ]


def _pushed(server: Served, pushes: int) -> list[str]:
    """The cursors after each of some single pushes."""
    reader, cursors = Reader(server.port), []
    for place in range(pushes):
        change = {
            "op": "insert",
            "collection": "todo",
            "atom": f"{place:016x}",
            "data": {"title": "rings", "cost": place},
        }
        fetched = reader.fetch(post("/v1/journals/poll/changes", msgspec.json.encode({"changes": [change]})))
        told = msgspec.json.decode(fetched.body)
        cursors.append(f"{told['epoch']}:{told['head']}:{told['chain']}")
    reader.close()
    return cursors


def _deltas(server: Served, path: str) -> int:
    reader = Reader(server.port)
    deltas = msgspec.json.decode(reader.fetch(get(path)).body)["deltas"]
    reader.close()
    return len(deltas)
