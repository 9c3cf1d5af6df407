"""Rows: what was measured, what it is held against, and whether that is good enough."""

from collections.abc import Sequence
from statistics import median

import msgspec
from rich import box
from rich.table import Table


class Row(msgspec.Struct, frozen=True):
    """A figure with its reference, medians of their rounds; `ratio` is of the medians.

    `goal` is for the ratio, or where there is none for the figure itself. `is_least`: the goal is a lower bound.
    """

    bench: str
    what: str
    against: str
    unit: str
    measured: float
    reference: float | None
    ratio: float | None
    goal: float | None
    is_least: bool
    is_met: bool | None
    rounds: tuple[Sequence[float], Sequence[float]]


def ratio(
    bench: str,
    what: str,
    against: str,
    unit: str,
    measured: Sequence[float],
    reference: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A row whose goal, if it has one, is for the ratio."""
    there, here = median(reference), median(measured)
    goal, is_met = _judged(here / there, at_least, at_most)
    is_least = at_least is not None
    return Row(bench, what, against, unit, here, there, here / there, goal, is_least, is_met, (measured, reference))


def figure(
    bench: str,
    what: str,
    unit: str,
    measured: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A row whose goal is for the figure itself."""
    here = median(measured)
    goal, is_met = _judged(here, at_least, at_most)
    return Row(bench, what, "–", unit, here, None, None, goal, at_least is not None, is_met, (measured, ()))


def _judged(value: float, at_least: float | None, at_most: float | None) -> tuple[float | None, bool | None]:
    if at_least is not None:
        return at_least, value >= at_least
    if at_most is not None:
        return at_most, value <= at_most
    return None, None


def table(rows: Sequence[Row], *, is_markdown: bool) -> Table:
    """The rows, to be printed."""
    made = Table(box=box.MARKDOWN if is_markdown else box.SIMPLE_HEAD)
    for name in ("row", "measured", "reference", "ratio", "goal", "met"):
        made.add_column(name, justify="left" if name == "row" else "right", overflow="fold")
    before = ""
    for row in rows:
        if before not in ("", row.bench) and not is_markdown:
            made.add_section()
        before = row.bench
        made.add_row(*cells(row))
    return made


def cells(row: Row) -> list[str]:
    """A row as text."""
    what = f"{row.bench}: {row.what}" if row.reference is None else f"{row.bench}: {row.what} ÷ {row.against}"
    goal = "" if row.goal is None else f"{'≥' if row.is_least else '≤'} {row.goal:g}"
    if row.goal is not None and row.ratio is None:
        goal += f" {row.unit}"
    return [
        what,
        _amount(row.measured, row.unit),
        "" if row.reference is None else _amount(row.reference, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        goal,
        {None: "", True: "yes", False: "NO"}[row.is_met],
    ]


def _amount(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{text} {unit}"
