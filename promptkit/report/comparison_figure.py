"""Draw a comparison: accuracy against cost, with every draw and seed in sight."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.report.units import FLOP, baseline, condition_name, quantity, templates, test_items, with_largest_pool
from promptkit.storage.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

# Okabe and Ito's colours, told apart with any colour vision; the shapes repeat what they say.
COLOURS = {
    "zero-shot": "#000000",
    "few-shot": "#0072B2",
    "zero-shot-cot": "#CC79A7",
    "few-shot-cot": "#D55E00",
    "lora": "#009E73",
}
OTHER_COLOUR = "#56B4E9"
SHAPES = "osD^vPX<>phd8"
# In shares of the cost axis: marks nearer than CLOSEST stand side by side, moved by FARTHEST at most.
CLOSEST, FARTHEST = 0.035, 0.05


@dataclass(frozen=True, slots=True)
class Mark:
    """One condition as it is drawn. Accuracies in percent, costs in FLOP per test item."""

    name: str
    colour: str
    shape: str
    cost: float
    with_training: float | None  # the training's cost added, shared by the items of this run
    mean: float
    low: float
    high: float
    interval: tuple[float, float] | None
    runs: tuple[float, ...]


def save_comparison(result: Result, folder: Path, name: str = "compare") -> list[Path]:
    """Save the figure as SVG and PNG and return their paths; the same result gives the same bytes.

    Raises RunError where they cannot be written.
    """
    return save_figure(draw_comparison(result), folder, name)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as SVG and PNG and return their paths; the same drawing gives the same bytes."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("svg", "png")]
    for path in paths:
        write_whole(path, _render(figure, path.suffix[1:]))
    return paths


def draw_comparison(result: Result) -> Figure:
    """Return the figure: cost from left to right, accuracy upwards, one panel per template."""
    from matplotlib.figure import Figure

    panels = {template: _marks(result, template) for template in templates(result)}
    marks = [mark for panel in panels.values() for mark in panel]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 5.0 if rows == 1 else 1.2 + 3.2 * rows
    figure = Figure(figsize=(8.6 if columns == 1 else 10.5, height), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, (template, panel) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, panel, _decades(marks), baseline(result))
        axes.set_title(plain_text(template), loc="left", fontsize=10)
    for axes in list(grid)[len(panels) :]:
        axes.set_axis_off()
    _label(figure, result, marks)
    return figure


def _marks(result: Result, template: str) -> list[Mark]:
    """Return the conditions with this template; the same condition looks alike in every panel."""
    shown = with_largest_pool(result["methods"])
    names = list(dict.fromkeys(condition_name(method) for method in shown))
    methods = [method for method in shown if (method.get("template") or "") == template]
    return [_mark(result, method, SHAPES[names.index(condition_name(method)) % len(SHAPES)]) for method in methods]


def _mark(result: Result, method: Result, shape: str) -> Mark:
    items, accuracy, train = test_items(result), method["accuracy"], method.get("train_cost")
    interval = accuracy.get("ci95")
    cost = max(method["cost"]["flops"] / items, 1.0)
    return Mark(
        name=condition_name(method),
        colour=COLOURS.get(method["method"], OTHER_COLOUR),
        shape=shape,
        cost=cost,
        with_training=cost + train["flops"] / items if train else None,
        mean=100 * accuracy["mean"],
        low=100 * accuracy["min"],
        high=100 * accuracy["max"],
        interval=(100 * interval[0], 100 * interval[1]) if interval else None,
        runs=tuple(100 * cell["accuracy"] for cell in result["cells"] if _belongs(cell, method)),
    )


def _belongs(cell: Result, method: Result) -> bool:
    return all(cell.get(key) == method.get(key) for key in ("method", "template", "k", "train_rows", "pool_rows"))


def _decades(marks: Sequence[Mark]) -> float:
    """Return how many powers of ten the costs reach over."""
    costs = [cost for mark in marks for cost in (mark.cost, mark.with_training) if cost]
    return max(0.5, math.log10(max(costs) / min(costs)))


def _side_by_side(costs: Sequence[float], decades: float) -> list[float]:
    """Return the costs, those that nearly coincide moved apart just enough to see each mark."""
    clusters: list[list[int]] = []
    for index in sorted(range(len(costs)), key=costs.__getitem__):
        if clusters and math.log10(costs[index] / costs[clusters[-1][-1]]) < CLOSEST * decades:
            clusters[-1].append(index)
        else:
            clusters.append([index])
    places = list(costs)
    for cluster in clusters:
        middle = (len(cluster) - 1) / 2
        step = min(CLOSEST, FARTHEST / max(middle, 0.5)) * decades
        centre = sum(math.log10(costs[index]) for index in cluster) / len(cluster)
        for rank, index in enumerate(cluster):
            places[index] = 10 ** (centre + (rank - middle) * step)
    return places


def _draw_panel(axes: Axes, marks: Sequence[Mark], decades: float, reached: tuple[float, str] | None) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    for mark, place in zip(marks, _side_by_side([mark.cost for mark in marks], decades), strict=True):
        _draw_mark(axes, mark, place)
    if reached:
        axes.axhline(100 * reached[0], color="grey", linewidth=0.8, linestyle="--", label=reached[1])
    axes.margins(x=0.08, y=0.06)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda flops, _: quantity(flops, FLOP).replace(".0 ", " ").removesuffix("FLOP"))
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_mark(axes: Axes, mark: Mark, place: float) -> None:
    """Draw a condition: interval as a band, extremes as a bar, runs as dots, the mean as a mark."""
    look: dict[str, Any] = {"color": mark.colour, "linestyle": ""}
    if mark.interval:
        axes.plot([place] * 2, mark.interval, **look | {"linestyle": "-"}, alpha=0.22, lw=8, solid_capstyle="butt")
    if len(mark.runs) > 1:
        axes.plot([place] * 2, [mark.low, mark.high], **look | {"linestyle": "-"}, lw=1.2, marker="_", ms=8)
        axes.plot([place] * len(mark.runs), mark.runs, **look, marker=".", ms=4)
    if mark.with_training:
        axes.plot([place, mark.with_training], [mark.mean] * 2, **look | {"linestyle": ":"}, lw=0.8)
        axes.plot(mark.with_training, mark.mean, **look, marker=mark.shape, ms=8, fillstyle="none")
    runs = f"{len(mark.runs)} runs" if len(mark.runs) > 1 else "1 run"
    label = f"{mark.name} ({runs})"
    axes.plot(place, mark.mean, **look, marker=mark.shape, ms=8, markeredgecolor="white", label=label)


def _label(figure: Figure, result: Result, marks: Sequence[Mark]) -> None:
    """Add title, axis names, legend and how to read the marks."""
    items = f"{test_items(result):,}"
    title = f"{result['task']} · {result['model']} · {items} test records"
    figure.suptitle(plain_text(title), x=0.02, ha="left")
    figure.supylabel("accuracy, % of test records", fontsize=10)
    lines = [
        "computation per test record in FLOP, logarithmic (marks of nearly equal cost stand side by side)",
        "mark: mean · band: 95 % interval · bar: lowest to highest run · dots: runs",
    ]
    if any(mark.with_training for mark in marks):
        lines.append(f"hollow mark: its training added, shared by these {items} records")
    figure.supxlabel("\n".join(lines), fontsize=8)
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        entries |= {label: mark for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    _, last = baseline(result) or (0.0, "")
    entries |= {label: entries.pop(label) for label in list(entries) if label == last}
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize=8, frameon=False)


def plain_text(text: str) -> str:
    """Keep matplotlib from reading a name with dollar signs as a formula."""
    return text.replace("$", r"\$")


def _render(figure: Figure, suffix: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    # Without a fixed salt, or with a date, an SVG would differ from one call to the next.
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "promptkit"}), warnings.catch_warnings():
        # Names may hold any script; where the font has no glyph a PNG shows a box.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(buffer, format=suffix, dpi=160, metadata=metadata)
    return buffer.getvalue()
