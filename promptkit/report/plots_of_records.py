"""Draw how many of a run's test records flip from cell to cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptkit.report.canvas import QUIET, SERIES, Plot, new_figure
from promptkit.report.numbers import ReportItem

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_items(items: Sequence[ReportItem]) -> Plot | None:
    """Return the drawing of how many records how many cells are right about, None for a single cell."""
    if items[0].cells < 2:
        return None
    always = sum(item.right == 1 for item in items)
    never = sum(item.right == 0 for item in items)
    return Plot(
        "records",
        "How many records flip",
        "Test records, by the share of cells that are right about them. At the ends no cell differs from another; "
        "those between flip with the condition, the demonstrations or their order.",
        f"Of {len(items):,} test records, every cell is right about {always:,}, none about {never:,}, and "
        f"{len(items) - always - never:,} flip.",
        lambda: _draw_items(items),
        ("items",),
    )


def _draw_items(items: Sequence[ReportItem]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = new_figure(2.9)
    bins = min(10, items[0].cells - 1)
    names = ["never", *(f"{100 * b / bins:.0f}–{100 * (b + 1) / bins:.0f} %" for b in range(bins)), "always"]
    counts = [0] * len(names)
    for item in items:
        place = (
            len(names) - 1 if item.right == 1 else 0 if item.right == 0 else 1 + min(bins - 1, int(item.right * bins))
        )
        counts[place] += 1
    colours = [QUIET, *[SERIES[1]] * bins, QUIET]
    bars = axes.bar(range(len(names)), counts, width=0.82, color=colours, alpha=0.75)
    axes.bar_label(bars, labels=[f"{count:,}" if count else "" for count in counts], fontsize=8, padding=2)
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("share of cells that are right about the record")
    axes.set_ylabel("test records")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.12 * max(counts))
    axes.grid(visible=True, axis="y")
    return figure
