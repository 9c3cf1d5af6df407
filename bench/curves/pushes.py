"""Single pushes, as clients become more, and as journals do. Every point of a round has a process of its own."""

from itertools import cycle

from bench.curves.curve import Curve, Panel, Peak, Rounds, rounds, seconds
from bench.load import Ask, Load, Reader, Served, closed_loop, get
from bench.place import Place, connected, serving
from bench.push import CONNECTIONS, Variant, plain

_HEADS = """select sum(h.head)::bigint from journal.journal j join journal.head h on h.journal_id = j.id
             where j.name = any($1)"""
_CREATE = "select journal.create(name) from unnest($1::text[]) as name"
_MEMORY = "memory above idle, MiB (peak)"


async def clients(at: Place) -> list[Curve]:
    """All to one journal."""
    counts = [1, 4, 16, 64, 256] if at.is_quick else [2**power for power in range(9)]
    taken, variant = Rounds(), plain()
    for place in range(rounds(at)):
        for count in counts:
            await _point(at, taken, variant, count, [f"clients-{place}-{count}"], count)
    alone, most = taken.median("rate", 1), 1e6 / taken.median("cpu", counts[-1])

    def rate(count: float) -> float:
        return min(count * alone, most)

    def p99_ms(count: float) -> float:
        return max(taken.median("p99", 1), 1000 * count / rate(count))

    return [
        Curve(
            "push-clients",
            "Single pushes, by how many push at once",
            "clients, a connection each, one journal",
            "log",
            [
                Panel("pushes a second", [taken.line("rate", rate)], is_log=True),
                Panel("p99, ms", [taken.line("p99", p99_ms)], is_log=True),
                Panel(_MEMORY, [taken.flat("memory")]),
            ],
            f"rate: {alone:,.0f}/s for each client, until the process has no time left "
            f"({1e6 / most:.0f} µs of it a push with {counts[-1]} clients), then flat; p99: that of one client, "
            "then clients ÷ rate; memory: flat.",
        )
    ]


async def journals(at: Place) -> list[Curve]:
    """By a fixed number of connections, all of which go round all journals that are theirs."""
    counts = [1, 16, 256] if at.is_quick else [4**power for power in range(5)]
    taken, variant = Rounds(), plain()
    for place in range(rounds(at)):
        for count in counts:
            names = [f"journals-{place}-{count}-{number}" for number in range(count)]
            await _point(at, taken, variant, count, names, CONNECTIONS)
    return [
        Curve(
            "push-journals",
            f"Single pushes of {CONNECTIONS} clients, by how many journals they push to",
            "journals",
            "log",
            [
                Panel("pushes a second", [taken.flat("rate")]),
                Panel("p99, ms", [taken.flat("p99")]),
                Panel(_MEMORY, [taken.flat("memory")]),
            ],
            "all flat: one group is recorded over all journals, by one call, so that it should not matter "
            "whose its pushes are.",
        )
    ]


async def _point(at: Place, taken: Rounds, variant: Variant, x: int, names: list[str], connections: int) -> None:
    async with connected(at.dsn) as connection:
        await connection.execute(_CREATE, names)
    with serving("journal", at) as journal:
        reader = Reader(journal.port)
        assert reader.fetch(get(f"/v1/journals/{names[0]}")).status == 200
        reader.close()
        peak = Peak(journal.pid)
        await _round(at, journal, variant, names, connections, 0.2)
        load = await _round(at, journal, variant, names, connections, seconds(at))
        taken.add("memory", x, peak.mib)
    taken.add("rate", x, load.rate)
    taken.add("p99", x, load.p99_ms)
    taken.add("cpu", x, load.cpu_us)


async def _round(
    at: Place, journal: Served, variant: Variant, names: list[str], connections: int, seconds: float
) -> Load:
    """One round; every push must have been taken, and the heads must have moved by as many revisions."""
    pushes = [variant(name)[0] for name in names]
    before = await _heads(at, names)
    load = await closed_loop(
        journal,
        [_in_turn(pushes[place % len(pushes) :: connections]) for place in range(connections)],
        seconds=seconds,
    )
    assert load.statuses == {200: load.requests}, load.statuses
    assert await _heads(at, names) - before == load.requests
    return load


def _in_turn(asks: list[Ask]) -> Ask:
    if len(asks) == 1:
        return asks[0]
    turns = cycle(asks)
    return lambda answered: next(turns)(answered)


async def _heads(at: Place, names: list[str]) -> int:
    async with connected(at.dsn) as connection:
        heads: int = await connection.fetchval(_HEADS, names)
        return heads
