"""Draw learning curves: accuracy, and the cost of 1,000 test records, against labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.report.canvas import LINES, PAPER, QUIET, colour_of
from promptkit.report.comparison_figure import OTHER_COLOUR, plain_text, save_figure
from promptkit.report.units import FLOP, baseline, quantity, test_items

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

#: Retrieved demonstrations: a colour and a shape per number of them.
_RETRIEVED = ((OTHER_COLOUR, "^"), ("#E69F00", "v"), ("#CC79A7", "P"), ("#D55E00", "X"))
_SHAPES = {"zero-shot": "o", "shared": "s", "trained": "D"}
_FAINT = 0.18


def save_curves(result: Result, folder: Path, name: str = "curves") -> list[Path]:
    """Save the curves as SVG and PNG and return their paths; none where the comparison has no curves.

    Raises RunError where they cannot be written.
    """
    return save_figure(draw_curves(result), folder, name) if result.get("curves") else []


def draw_curves(result: Result) -> Figure:
    """Return the figure: accuracy on the left and cost on the right, a row per template that LoRA was trained with.

    Lines of other templates, such as those that reason first, stand in every row.
    """
    from matplotlib.figure import Figure

    lines = result["curves"]["lines"]
    templates = list(dict.fromkeys(line["template"] for line in lines if line["kind"] == "trained"))
    templates = templates or list(dict.fromkeys(line["template"] for line in lines))
    figure = Figure(figsize=(10.5, 1.5 + 3.9 * len(templates)), layout="constrained")
    grid = figure.subplots(len(templates), 2, sharex=True, squeeze=False)
    for panels, template in zip(grid, templates, strict=True):
        own = [line for line in lines if line["template"] == template or line["template"] not in templates]
        accuracy, cost = panels
        _draw_accuracy(accuracy, own, baseline(result))
        _draw_costs(cost, own)
        for axes in panels:
            axes.set_facecolor("none")
            _scale(axes, lines)
        if len(templates) > 1:
            accuracy.set_title(plain_text(template), loc="left", fontsize=10)
        accuracy.set_ylabel("accuracy, % of test records")
        cost.set_ylabel("FLOP for 1,000 test records, training included")
    _label(figure, grid, result)
    return figure


def _look(line: Result, lines: Sequence[Result]) -> tuple[str, str]:
    """Return the colour and the shape of a line's marks."""
    if line["kind"] != "retrieved":
        return colour_of(line["method"]), _SHAPES[line["kind"]]
    place = [each["name"] for each in lines if each["kind"] == "retrieved"].index(line["name"])
    return _RETRIEVED[place % len(_RETRIEVED)]


def _draw_accuracy(axes: Axes, lines: Sequence[Result], reached: tuple[float, str] | None) -> None:
    """Draw means with their intervals as bands and every run as a dot; crosses are runs below `reached`."""
    for line in lines:
        colour, shape = _look(line, lines)
        points = line["points"]
        means = [100 * point["accuracy"]["mean"] for point in points]
        ends = [point["accuracy"].get("ci95") or [point["accuracy"]["mean"]] * 2 for point in points]
        if line["kind"] == "zero-shot":
            axes.axhline(means[0], color=colour, lw=1.4, ls="-.", label=line["name"])
            axes.axhspan(*(100 * end for end in ends[0]), color=colour, alpha=0.06, lw=0)
            continue
        rows = [point["rows"] for point in points]
        low, high = ([100 * end[side] for end in ends] for side in (0, 1))
        axes.fill_between(rows, low, high, color=colour, alpha=_FAINT, lw=0)
        if len(rows) == 1:
            axes.plot(rows * 2, [low[0], high[0]], color=colour, alpha=_FAINT, lw=8, solid_capstyle="butt")
        _draw_runs(axes, points, colour, reached)
        axes.plot(rows, means, color=colour, marker=shape, ms=7, mec=PAPER, lw=1.8, label=line["name"])
        if line["kind"] == "shared":  # further labelled rows change nothing: the prompt shows no more
            axes.plot([rows[-1], _last(lines)], means[-1:] * 2, color=colour, lw=1, ls=":")
    if reached:
        axes.axhline(100 * reached[0], color=QUIET, lw=0.8, ls="--", label=reached[1])


def _draw_runs(axes: Axes, points: Sequence[Result], colour: str, reached: tuple[float, str] | None) -> None:
    for point in points:
        if point["runs"] < 2:
            continue
        for accuracy in point["accuracies"]:
            failed = reached is not None and accuracy <= reached[0]
            marker, size = ("x", 6) if failed else (".", 4)
            axes.plot(point["rows"], 100 * accuracy, color=colour, ls="", alpha=0.75, marker=marker, ms=size)


def _draw_costs(axes: Axes, lines: Sequence[Result]) -> None:
    """Draw what 1,000 records cost: what can be shared as a line, the same recomputed as a dashed one."""
    axes.set_yscale("log")
    for line in lines:
        colour, shape = _look(line, lines)
        rows, shared, recomputed = ([] for _ in range(3))  # type: list[int], list[float], list[float]
        for point in line["points"]:
            rows.append(point["rows"])
            shared.append(point["cost"]["per_1000_shared"])
            recomputed.append(point["cost"]["per_1000_recomputed"])
        if line["kind"] == "zero-shot":
            axes.axhline(shared[0], color=colour, lw=1.4, ls="-.")
            continue
        axes.plot(rows, shared, color=colour, marker=shape, ms=7, mec=PAPER, lw=1.8)
        if line["kind"] == "shared":
            name = f"{line['name']}, recomputed"
            axes.plot(rows, recomputed, color=colour, marker=shape, mfc="none", ms=7, lw=1.4, ls="--", label=name)
            for ends, style in ((shared, ":"), (recomputed, ":")):
                axes.plot([rows[-1], _last(lines)], ends[-1:] * 2, color=colour, lw=1, ls=style)


def _last(lines: Sequence[Result]) -> int:
    return max(point["rows"] for line in lines for point in line["points"])


def _scale(axes: Axes, lines: Sequence[Result]) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    rows = sorted({point["rows"] for line in lines for point in line["points"]} - {0})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(rows)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda rows, _: f"{rows:,.0f}")
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda flop, _: quantity(flop, FLOP).replace(".0 ", " "))
    axes.margins(x=0.06, y=0.08)
    axes.grid(visible=True, color=LINES, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _apart(rows: Sequence[int]) -> list[int]:
    """Return the numbers of rows that have room for their figures below the axis, the largest first."""
    kept: list[int] = []
    for number in reversed(rows):
        if not kept or number * (rows[-1] / rows[0]) ** 0.08 <= kept[-1]:
            kept.append(number)
    return kept


def _label(figure: Figure, grid: Any, result: Result) -> None:
    title = f"{result['task']} · {result['model']} · {test_items(result):,} test records"
    figure.suptitle(plain_text(title), x=0.02, ha="left")
    retrieves = any(line["kind"] == "retrieved" for line in result["curves"]["lines"])
    reading = "labelled rows: trained on, shown" + (", or retrieved from" if retrieves else "") + ", logarithmic\n"
    _, last = baseline(result) or (0.0, "chance")
    reading += f"mark: mean · band: 95 % interval · dots: runs · crosses: at or below {last} · dotted: shows no more"
    figure.supxlabel(reading, fontsize=8)
    entries: dict[str, Any] = {}
    for axes in grid.flat:
        entries |= {label: mark for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if last in entries:
        entries[last] = entries.pop(last)
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize=8, frameon=False)
