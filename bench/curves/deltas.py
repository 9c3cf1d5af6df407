"""Everything since: as changes become more, and as those become more whom they concern.

Each request begins one commit earlier than the last, so that no kept answer is measured; each round has a process of
its own, whose memory knows nothing of these journals: all is read from the state.
"""

from collections.abc import Sequence
from statistics import median

import msgspec

from bench.curves.curve import Curve, Panel, Peak, Rounds, rounds
from bench.load import Reader, get
from bench.place import Place, connected, serving

TOGETHER = 10
HOT = 100
ASKED = 10  # at most, of one journal in one round
SPARE = 2_000  # changes, for beginning earlier each time
_MEMORY = "memory above idle, MiB (peak)"


class Ground(msgspec.Struct, frozen=True):
    """A journal: its atoms are inserted first, then more changes update the first `touched` of them."""

    name: str
    atoms: int
    changes: int
    touched: int

    @property
    def head(self) -> int:
        """Its last revision."""
        return self.atoms + self.changes + SPARE


class Told(msgspec.Struct):
    """As much of an answer as is looked at here."""

    deltas: list[msgspec.Raw]
    more: bool


async def curves(at: Place) -> list[Curve]:
    """Both; they share the two large journals."""
    atoms, most, fixed = (10_000, 100_000, 10_000) if at.is_quick else (100_000, 1_000_000, 100_000)
    wide, hot = Ground("wide", atoms, most, atoms), Ground("hot", atoms, most, HOT)
    between = [Ground(f"of-{touched}", atoms, fixed, touched) for touched in (1_000, 10_000, 30_000) if touched < atoms]
    async with connected(at.dsn) as connection:
        for ground in (wide, hot, *between):
            filled = ground.name, ground.atoms, ground.head, ground.touched, TOGETHER
            await connection.execute("call bench.fill($1, $2, $3, $4, $5, true)", *filled)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
    cursors = {ground.name: await at.cursors(ground.name) for ground in (wide, hot, *between)}
    windows = [10**power for power in range(1, 7) if 10**power <= most]
    by_changes, by_atoms = Rounds(), Rounds()
    told: dict[int, float] = {}
    atoms_of: dict[str, float] = {}
    for place in range(rounds(at)):
        with serving("journal", at) as journal:
            asking = _Asking(Reader(journal.port), cursors, place)
            for ground in (hot, wide):
                peak = asking.begin(journal.pid, ground)
                for window in windows:
                    distinct, ms, mib = asking.point(peak, ground, window)
                    by_changes.add(ground.name, window, ms)
                    by_changes.add(f"{ground.name}: memory", window, mib)
                    if ground is wide:
                        told.setdefault(window, distinct)
            asking.reader.close()
        with serving("journal", at) as journal:
            asking = _Asking(Reader(journal.port), cursors, rounds(at) + place)
            peak = asking.begin(journal.pid, hot)
            for ground in (hot, *between, wide):
                distinct, ms, mib = asking.point(peak, ground, fixed)
                x = atoms_of.setdefault(ground.name, distinct)  # chance tells of a few more or less each time
                by_atoms.add("time", x, ms)
                by_atoms.add("memory", x, mib)
            asking.reader.close()
    assert atoms_of[hot.name] == HOT
    return [_of_changes(by_changes, told, windows, wide.touched), _of_atoms(by_atoms, fixed)]


def _of_changes(taken: Rounds, told: dict[int, float], windows: Sequence[int], touched: int) -> Curve:
    first, last = windows[0], windows[-1]
    fixed_ms = taken.median("wide", first)
    each_ms = (taken.median("wide", last) - fixed_ms) / (told[last] - told[first])

    def wide_ms(window: float) -> float:
        return fixed_ms + each_ms * (told[round(window)] - told[first])

    def hot_ms(window: float) -> float:
        return fixed_ms + each_ms * (min(window, HOT) - told[first])

    lines = [
        taken.line("wide", wide_ms, f"changes of any of {touched:,} atoms"),
        taken.line("hot", hot_ms, f"changes of the same {HOT} atoms"),
    ]
    memory = [taken.flat("wide: memory", lines[0].name), taken.flat("hot: memory", lines[1].name)]
    return Curve(
        "deltas-changes",
        "Deltas, by how many changes there were since",
        "changes since the cursor",
        "log",
        [Panel("time to the last byte, ms", lines, is_log=True), Panel(_MEMORY, memory)],
        f"a constant and {1000 * each_ms:.1f} µs for each atom that is told, not for each change: drawn through the "
        f"first and the last point of the {touched:,} atoms, and from there foretold for the {HOT}; memory: flat.",
    )


def _of_atoms(taken: Rounds, changes: int) -> Curve:
    xs = taken.xs("time")
    first, last = xs[0], xs[-1]
    fixed_ms = taken.median("time", first)
    each_ms = (taken.median("time", last) - fixed_ms) / (last - first)
    return Curve(
        "deltas-atoms",
        f"Deltas over {changes:,} changes, by how many atoms they concern",
        "atoms that are told",
        "log",
        [
            Panel(
                "time to the last byte, ms",
                [taken.line("time", lambda atoms: fixed_ms + each_ms * (atoms - first))],
                is_log=True,
            ),
            Panel(_MEMORY, [taken.flat("memory")]),
        ],
        f"a constant and {1000 * each_ms:.1f} µs for each atom that is told, drawn through the first and the last "
        "point; memory: flat.",
    )


class _Asking:
    """Asks for deltas; every time from another commit."""

    def __init__(self, reader: Reader, cursors: dict[str, dict[int, str]], place: int) -> None:
        self.reader, self.cursors = reader, cursors
        self._earlier = ASKED * place

    def begin(self, pid: int, ground: Ground) -> Peak:
        """Ask something small first: what any first answer needs is not what grows."""
        for place in range(3):
            self._ask(ground, TOGETHER, place)
        return Peak(pid)

    def point(self, peak: Peak, ground: Ground, window: int) -> tuple[float, float, float]:
        """How many atoms are told of a window, the median time in ms, and the memory at its highest in MiB."""
        times = ASKED if window <= 10_000 else 3
        peak.forget()
        taken = [self._ask(ground, window, self._earlier + place) for place in range(times)]
        return median(atoms for atoms, _ in taken), median(ms for _, ms in taken), peak.mib

    def _ask(self, ground: Ground, window: int, earlier: int) -> tuple[int, float]:
        since = ground.head - window - TOGETHER * earlier
        cursor = self.cursors[ground.name][since]
        fetched = self.reader.fetch(get(f"/v1/journals/{ground.name}/deltas?since={cursor}&limit=100000"))
        assert fetched.status == 200, fetched.raw
        told = msgspec.json.decode(fetched.body, type=Told)
        assert told.deltas, "nothing was told"
        assert not told.more
        return len(told.deltas), 1000 * fetched.seconds
