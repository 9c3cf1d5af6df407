"""Drawing a curve as SVG, with matplotlib: the same figures give the same bytes.

Text stays text; the background is white, whatever the page's is; 700 pixels wide, so that it is read without zooming.
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.curves.curve import Curve, Line, Panel

WIDTH = 7.29  # inches of 72 points, which browsers show as 96 pixels
LEFT, RIGHT = 0.62, 0.25
TOP, FIRST, OTHER, HEADING, BOTTOM = 0.62, 2.5, 1.0, 0.36, 0.5
LINE = 0.165
COLOURS = ("#0072b2", "#d55e00")
GREY = "#444444"
DASHED: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (4, 2.5))}
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "curves",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.color": "#111111",
}


def draw(curve: Curve, path: Path, *, footnote: str) -> None:
    """Write it to `path`."""
    with mpl.rc_context(SETTINGS):
        caption = textwrap.wrap(f"Dashed, as it should be: {curve.should}", 112) + textwrap.wrap(footnote, 112)
        count = len(curve.panels)
        height = TOP + count * HEADING + FIRST + (count - 1) * OTHER + BOTTOM + LINE * len(caption) + 0.12
        figure = Figure(figsize=(WIDTH, height), facecolor="white")
        figure.text(LEFT / WIDTH, 1 - 0.24 / height, curve.title, size=11, weight="bold", va="center")
        bottom = height - TOP
        for place, panel in enumerate(curve.panels):
            room = FIRST if place == 0 else OTHER
            bottom -= HEADING + room if place else room + 0.22
            axes = figure.add_axes((LEFT / WIDTH, bottom / height, (WIDTH - LEFT - RIGHT) / WIDTH, room / height))
            _panel(axes, curve, panel)
            if place == 0:
                handles, names = axes.get_legend_handles_labels()
                handles, names = [*handles[1:], handles[0]], [*names[1:], names[0]]  # lines go before bars in them
                at = (LEFT / WIDTH, 1 - 0.36 / height)
                figure.legend(
                    handles, names, loc="upper left", bbox_to_anchor=at, ncols=4, frameon=False,
                    borderpad=0, borderaxespad=0, handlelength=2.2, columnspacing=1.6,
                )  # fmt: skip
            if place < count - 1:
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(curve.x)
        for place, line in enumerate(reversed(caption)):
            figure.text(LEFT / WIDTH, (0.1 + LINE * place) / height, line, size=8, color=GREY, va="bottom")
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _panel(axes: Axes, curve: Curve, panel: Panel) -> None:
    axes.set_title(panel.label, loc="left", size=9, pad=5)
    axes.grid(visible=True, color="#e2e2e2", linewidth=0.7)
    axes.set_axisbelow(True)
    values: list[float] = []
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        _line(axes, line, colour)
        values += [value for point in line.points for value in (*point.rounds, point.should)]
    axes.plot([], [], color=GREY, label="as it should be", **DASHED)
    _x(axes, curve, [point.x for point in panel.lines[0].points])
    lowest, highest = min(values), max(values)
    if panel.is_log:
        axes.set_yscale("log")
        few = 1000 if panel is curve.panels[0] else 50
        axes.set_ylim(lowest / 1.3, highest * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < few * lowest else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(min(0.0, 1.15 * lowest), 1.15 * highest or 1)
        axes.yaxis.set_major_locator(
            MaxNLocator(5 if panel is curve.panels[0] else 3, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3)
        )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))


def _line(axes: Axes, line: Line, colour: str) -> None:
    xs, middle = [point.x for point in line.points], [point.median for point in line.points]
    below = [point.median - min(point.rounds) for point in line.points]
    above = [max(point.rounds) - point.median for point in line.points]
    axes.plot(xs, [point.should for point in line.points], color=colour, zorder=4, clip_on=False, **DASHED)
    axes.errorbar(
        xs, middle, yerr=[below, above], color=colour, linewidth=1.5, marker="o", markersize=4, capsize=2.5,
        elinewidth=1, label=line.name, zorder=3,
    )  # fmt: skip


def _x(axes: Axes, curve: Curve, places: list[float]) -> None:
    if curve.scale == "symlog":
        axes.set_xscale("symlog", linthresh=100, linscale=0.6)
    elif curve.scale == "log":
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))


def amount(value: float) -> str:
    """A number as short as it can be read."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
