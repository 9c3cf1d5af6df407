"""The verdict: the medians of the first tenth of what was measured against those of the last.

The rules. Memory: not more than a tenth or 16 MiB above, where the run was long enough for the service's caches to be
full. Open files: within 5 or a twentieth. Connections to PostgreSQL: within 4, and never more than the service's pools
may have. The record of compacted journals: not half as long again. p99: not more than 1.5 times or 5 ms above. And
nothing that was not announced.
"""

from collections.abc import Callable, Sequence
from statistics import median

import msgspec
from rich import box
from rich.table import Table

from bench.soak.plan import COMPACTED, Sample
from bench.soak.tally import Tally

CONNECTIONS = 8 + 4 + 6 + 1  # reading, writing, operating, listening
FILLED_MINUTES = 30  # a sixth of it is the time that the service's memory of journals and answers takes to be full
SPEEDS = ("push", "poll", "delivery")


class Line(msgspec.Struct, frozen=True):
    """A line of the verdict; `is_ok` None: only told."""

    what: str
    first: str
    last: str
    rule: str
    is_ok: bool | None


def verdict(samples: Sequence[Sample], tally: Tally, minutes: float, *, is_whole: bool) -> list[Line]:
    """All lines. `is_whole`: the run went to its end."""
    measured = [sample for sample in samples if sample.is_measured]
    if len(measured) < 10:
        return [Line("samples", "", f"{len(measured)}", "at least 10", False)]
    tenth = len(measured) // 10
    first, last = measured[:tenth], measured[-tenth:]

    def line(
        what: str, of: Callable[[Sample], float | None], rule: str, is_ok: Callable[[float, float], bool | None]
    ) -> Line:
        here, there = _median(first, of), _median(last, of)
        if here is None or there is None:
            return Line(what, _told(here), _told(there), rule, False)
        return Line(what, _told(here), _told(there), rule, is_ok(here, there))

    def told(what: str, of: Callable[[Sample], float | None]) -> Line:
        return line(what, of, "", lambda *_: None)

    lines = [
        line("memory, RSS MiB", lambda s: s.service.rss_mib, *_memory(minutes)),
        told("memory, PSS MiB", lambda s: s.service.pss_mib),
        told("memory of its children, MiB", lambda s: s.service.children_mib),
        line("open files", lambda s: s.service.files, "± 5 or 5 %", lambda a, b: abs(b - a) <= max(5, 0.05 * a)),
        line("connections to PostgreSQL", _connections, "± 4", lambda a, b: abs(b - a) <= 4),
    ]
    most = max((count for sample in measured if (count := _connections(sample)) is not None), default=0)
    lines.append(Line("most connections at a time", "", _told(most), f"≤ {CONNECTIONS}", most <= CONNECTIONS))
    lines += [
        line(f"record of {journal}, changes", _changes(journal), "≤ 1.5 ×", lambda a, b: b <= 1.5 * a)
        for journal in COMPACTED
    ]
    lines.append(told("database, MiB", lambda s: s.database_mib))
    for what in SPEEDS:
        lines.append(told(f"{what}, a second", _rate(what, measured)))
        lines.append(told(f"{what}, p50 ms", _speed(what, "p50_ms")))
        lines.append(
            line(f"{what}, p99 ms", _speed(what, "p99_ms"), "≤ 1.5 × or +5", lambda a, b: b <= max(1.5 * a, a + 5))
        )
    lines.append(told("the service, cores", lambda s: s.service_cores))
    lines.append(told("the load, cores", lambda s: s.load_cores))
    lines.append(told("the machine with everybody's work, cores", lambda s: s.busy_cores))
    faults = sum(tally.unexpected.values())
    lines.append(Line("not announced", "", _told(faults), "0", faults == 0))
    lines.append(Line("went to its end", "", "yes" if is_whole else "no", "yes", is_whole))
    return lines


def _memory(minutes: float) -> tuple[str, Callable[[float, float], bool | None]]:
    if minutes < FILLED_MINUTES:
        return f"from {FILLED_MINUTES} minutes on", lambda *_: None
    return "≤ +10 % or +16", lambda first, last: last <= max(1.1 * first, first + 16)


def table(lines: Sequence[Line], *, is_markdown: bool) -> Table:
    """The lines, to be printed."""
    made = Table(box=box.MARKDOWN if is_markdown else box.SIMPLE_HEAD)
    for name in ("what", "first tenth", "last tenth", "rule", ""):
        made.add_column(name, justify="left" if name == "what" else "right", overflow="fold")
    for line in lines:
        made.add_row(line.what, line.first, line.last, line.rule, {None: "", True: "ok", False: "NO"}[line.is_ok])
    return made


def _median(samples: Sequence[Sample], of: Callable[[Sample], float | None]) -> float | None:
    known = [value for sample in samples if (value := of(sample)) is not None]
    return median(known) if known else None


def _connections(sample: Sample) -> float | None:
    return None if sample.connections is None else sum(sample.connections.values())


def _changes(journal: str) -> Callable[[Sample], float | None]:
    return lambda sample: None if sample.changes is None else sample.changes.get(journal)


def _speed(what: str, which: str) -> Callable[[Sample], float | None]:
    return lambda sample: getattr(sample.speeds[what], which) if what in sample.speeds else None


def _rate(what: str, measured: Sequence[Sample]) -> Callable[[Sample], float | None]:
    every_s = (measured[-1].at_s - measured[0].at_s) / (len(measured) - 1)
    return lambda sample: sample.speeds[what].count / every_s if what in sample.speeds else None


def _told(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
