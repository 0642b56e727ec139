"""Define what the drawings of a report share: their canvas, colours and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptkit.report.comparison_figure import COLOURS
from promptkit.report.run_source import condition_of, name_conditions
from promptkit.report.units import baseline, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

#: Colours of what is not data; the page puts its theme's in their place. The others are Okabe and Ito's.
INK, QUIET, LINES, PAPER = "#1b1f24", "#5b6470", "#d9dee4", "#fffffe"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_WIDTH = 7.2
_LONGEST_NAME = 44


@dataclass(frozen=True)
class Plot:
    """A figure of the report: its file's name, its title, what it shows in words, and how to draw it.

    `reading` says how to read it, `description` what is on it, for who does not see it. `numbers` names the tables
    that hold its numbers.
    """

    name: str
    title: str
    reading: str
    description: str
    draw: Callable[[], Figure]
    numbers: tuple[str, ...]


def say_conditions(result: Result) -> str:
    """Return the conditions in a few words: all of up to six, otherwise the best and the worst."""
    names = name_conditions(result)
    ranked = sorted(result["methods"], key=lambda each: -each["accuracy"]["mean"])
    said = ranked if len(ranked) <= 6 else [ranked[0], ranked[-1]]
    parts = []
    for each in said:
        low, high = each["accuracy"]["min"], each["accuracy"]["max"]
        reach = f", {each['runs']} runs from {percent(low)} to {percent(high)} %" if each["runs"] > 1 else ""
        parts.append(f"{names[condition_of(each)]}: {percent(each['accuracy']['mean'])} %{reach}")
    start = "" if len(ranked) <= 6 else f"The best and the worst of {len(ranked)} conditions by mean. "
    return start + "; ".join(parts) + "."


def new_figure(
    height: float, rows: int = 1, columns: int = 1, *, share: bool = False, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as a page's text and `height` inches high, and its panels, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share, height_ratios=heights)
    panels = list(grid.flat)
    for axes in panels:
        axes.set_facecolor("none")
        axes.set_axisbelow(True)
        axes.use_sticky_edges = False  # a bar ends within the axes
    return figure, panels


def draw_chance(axes: Axes, result: Result, *, vertical: bool = False) -> None:
    """Draw what can be reached without reading a record, where it is known: the most frequent label, or guessing."""
    if reached := baseline(result):
        line = axes.axvline if vertical else axes.axhline
        line(100 * reached[0], color=QUIET, lw=1, ls="--", zorder=1)


def colour_of(method: str) -> str:
    """Return the colour that a method has in every drawing."""
    return INK if method == "zero-shot" else COLOURS.get(method, SERIES[5])


def brief_name(name: str, most: int = _LONGEST_NAME) -> str:
    """Return a name as there is room for it in a drawing, what cannot be printed as a replacement character."""
    shown = "".join(sign if sign.isprintable() else "\ufffd" for sign in name)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
