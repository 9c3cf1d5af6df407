"""The figures under a curve, as README.md tells them: written there by the bench, between two marks."""

import re
from collections.abc import Sequence
from typing import Any

from bench.curves.curve import Curve, Point


def put(text: str, curve: Curve, table: str) -> str:
    """README.md with another table under this curve; ValueError where it has no place for one."""
    marks = re.compile(rf"(<!-- {curve.name} -->\n).*?(<!-- end -->)", re.S)
    if marks.search(text) is None:
        raise ValueError(f"README.md has no place for {curve.name}")
    return marks.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def table(curve: Curve, machine: dict[str, Any]) -> str:
    """Markdown: the median of the rounds, the least and the most, and what should be."""
    columns = [(panel.label, line) for panel in curve.panels for line in panel.lines]
    names = [label if line.name == "measured" else f"{label}: {line.name}" for label, line in columns]
    rows: list[list[str]] = [[curve.x, *(cell for name in names for cell in (name, "should be"))]]
    rows.append(["---:"] * len(rows[0]))
    for place, point in enumerate(columns[0][1].points):
        rows.append([_number(point.x), *(cell for _, line in columns for cell in _cells(line.points[place]))])
    load = machine["load before"][0]
    said = f"Measured {machine['date']} by `{machine['command']}`, load of the machine before {load:.1f}."
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + ["", said])


def _cells(point: Point) -> Sequence[str]:
    spread = f"{_number(point.median)} ({_number(min(point.rounds))}–{_number(max(point.rounds))})"
    return spread, _number(point.should)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
