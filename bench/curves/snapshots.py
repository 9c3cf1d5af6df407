"""Making a snapshot, as atoms become more. Each round has a process of its own, and goes from few atoms to many."""

import time

from bench.curves.curve import Curve, Panel, Peak, Rounds, rounds
from bench.load import Reader, Served, get
from bench.place import Place, connected, serving


async def curves(at: Place) -> list[Curve]:
    """From the request to the 303 that names the file."""
    sizes = [10_000, 100_000] if at.is_quick else [10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000]
    async with connected(at.dsn) as connection:
        for atoms in sizes:
            await connection.execute("call bench.fill($1, $2, $2, 1, 1000, false)", f"atoms-{atoms}", atoms)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
        await connection.execute("call bench.fill('atoms-10', 10, 10, 1, 10, false)")
    taken = Rounds()
    for _ in range(rounds(at)):
        with serving("journal", at) as journal:
            reader = Reader(journal.port)
            _make(reader, journal, 10)
            peak = Peak(journal.pid)
            for atoms in sizes:
                peak.forget()
                taken.add("time", atoms, _make(reader, journal, atoms))
                taken.add("memory", atoms, peak.mib)
            reader.close()
    best = max(atoms / taken.median("time", atoms) for atoms in sizes)
    return [
        Curve(
            "snapshot-atoms",
            "Making a snapshot, by how many atoms there are",
            "atoms",
            "log",
            [
                Panel("time, s", [taken.line("time", lambda atoms: atoms / best)], is_log=True),
                Panel("memory above idle, MiB (peak)", [taken.flat("memory")]),
            ],
            f"time: linear, at the best of the rates measured ({best / 1000:,.0f} k atoms a second); memory: flat, "
            "since rows pass through in pieces.",
        )
    ]


def _make(reader: Reader, server: Served, atoms: int) -> float:
    """How many seconds a snapshot takes that was not there before; it goes again, so that discs stay small."""
    start = time.perf_counter()
    fetched = reader.fetch(get(f"/v1/journals/atoms-{atoms}/snapshot"))
    took = time.perf_counter() - start
    assert fetched.status == 303, fetched.raw
    made = list((server.folder / "snapshots" / f"atoms-{atoms}").glob("*.zst"))
    assert len(made) == 1, made
    made[0].unlink()
    return took
