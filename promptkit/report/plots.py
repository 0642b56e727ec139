"""Draw a run's accuracies: every run, against k, by order, what their variance is due to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptkit.report.canvas import (
    INK,
    PAPER,
    QUIET,
    SERIES,
    Plot,
    brief_name,
    colour_of,
    draw_chance,
    new_figure,
    say_conditions,
)
from promptkit.report.comparison_figure import SHAPES
from promptkit.report.curve_figure import draw_curves
from promptkit.report.numbers import ReportItem, ordered_conditions
from promptkit.report.plots_of_cost import plot_break_even, plot_costs
from promptkit.report.plots_of_records import plot_items
from promptkit.report.run_source import RunSource, cells_by_condition, condition_of, name_conditions
from promptkit.report.units import baseline, condition_name, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

#: Conditions and panels that a figure shows at most; its table has them all.
MOST_CONDITIONS, MOST_PANELS = 60, 6


def make_plots(source: RunSource, items: Sequence[ReportItem]) -> list[Plot]:
    """Return the figures that this run has the data for."""
    found = [
        _plot_strips(source),
        _plot_curves(source),
        _plot_shots(source),
        _plot_orders(source),
        _plot_shares(source),
        None if source.result.get("budget") else plot_costs(source),  # its cells were not asked the same records
        plot_break_even(source),
        plot_items(items),
    ]
    return [plot for plot in found if plot]


# Every run


def _plot_strips(source: RunSource) -> Plot:
    result = source.result
    shown = _choose(result["methods"])
    left_out = len(result["methods"]) - len(shown)
    note = f" Shown are the best and the worst by mean; {left_out} between them are in the table." if left_out else ""
    return Plot(
        "runs",
        "Every run",
        "A dot is one run: a choice of demonstrations in one order, or a seed of the training. Bar: their mean. Band: "
        f"95 % interval over runs and records. Dashed: guessing.{note}",
        say_conditions(result),
        lambda: _draw_strips(result, shown),
        ("conditions", "cells"),
    )


def _choose(methods: Sequence[Result]) -> list[Result]:
    if len(methods) <= MOST_CONDITIONS:
        return list(methods)
    ranked = sorted(range(len(methods)), key=lambda index: -methods[index]["accuracy"]["mean"])
    kept = {*ranked[: MOST_CONDITIONS // 2], *ranked[-MOST_CONDITIONS // 2 :]}
    return [method for index, method in enumerate(methods) if index in kept]


def _draw_strips(result: Result, methods: Sequence[Result]) -> Figure:
    figure, (axes,) = new_figure(1.1 + 0.42 * len(methods))
    names, cells = name_conditions(result), cells_by_condition(result)
    for row, method in enumerate(methods):
        colour, accuracy = colour_of(method["method"]), method["accuracy"]
        values = [100 * cell["accuracy"] for cell in cells[condition_of(method)]]
        if accuracy.get("ci95"):
            low, high = (100 * end for end in accuracy["ci95"])
            axes.barh(row, high - low, left=low, height=0.72, color=colour, alpha=0.16, linewidth=0)
        axes.plot([100 * accuracy["mean"]] * 2, [row - 0.4, row + 0.4], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(values, [row + shift for shift in _stack(values)], ".", color=colour, ms=7, mec=PAPER, mew=0.5)
    draw_chance(axes, result, vertical=True)
    axes.set_yticks(range(len(methods)), [brief_name(names[condition_of(each)]) for each in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel("accuracy, % of test records")
    axes.grid(visible=True, axis="x")
    return figure


def _stack(values: Sequence[float]) -> list[float]:
    """Return shifts that put equal values beside each other, within 0.34 of the middle."""
    groups: dict[float, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(round(value, 3), []).append(index)
    shifts = [0.0] * len(values)
    step = min(0.11, 0.68 / max(1, max(map(len, groups.values())) - 1))
    for group in groups.values():
        for rank, index in enumerate(group):
            shifts[index] = (rank - (len(group) - 1) / 2) * step
    return shifts


# Accuracy and cost against labelled rows


def _plot_curves(source: RunSource) -> Plot | None:
    curves = source.result.get("curves")
    if not curves:
        return None
    said = "; ".join(
        f"{line['name']}: "
        + ", ".join(f"{point['rows']:,} rows {percent(point['accuracy']['mean'])} %" for point in line["points"])
        for line in curves["lines"]
    )
    return Plot(
        "curves",
        "Accuracy and cost against labelled rows",
        "Mark: mean. Band: 95 % interval over runs and records. Dots: runs; crosses: runs at or below "
        f"{(baseline(source.result) or (0.0, 'chance'))[1]}. Dotted: shows no more rows. Right: 1,000 test records, "
        "training included; dashed: demonstrations recomputed.",
        f"{said}.",
        lambda: draw_curves(source.result),
        ("curves", *(["contests"] if curves["crossings"] else [])),
    )


# Accuracy against the number of demonstrations


def _plot_shots(source: RunSource) -> Plot | None:
    lines = _lines(source.result)
    if not lines:
        return None
    said = "; ".join(
        f"{name}: " + ", ".join(f"k={method['k']} {percent(method['accuracy']['mean'])} %" for method in methods)
        for name, methods in list(lines.items())[:MOST_PANELS]
    )
    panels = len(lines) > len(SERIES)
    note = f" The first {MOST_PANELS} of {len(lines)} lines are shown." if panels else ""
    return Plot(
        "shots",
        "Accuracy against the number of demonstrations",
        f"Line: mean. Band: lowest to highest run. Bars: 95 % interval over runs and records. Dashed: guessing.{note}",
        f"{said}.",
        lambda: _draw_shots(source.result, lines),
        ("conditions",),
    )


def _lines(result: Result) -> dict[str, list[Result]]:
    """Return the conditions with two numbers of demonstrations or more, under the name of what else they are.

    Those from which demonstrations were dropped are left out: they are not at their k.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Result]] = {}
    for method in result["methods"]:
        if method.get("k") and "shown" not in method:
            rest = tuple(item for item in condition_of(method) if item[0] != "k")
            groups.setdefault(rest, []).append(method)
    names = name_conditions(result)
    found = {}
    for methods in groups.values():
        if len({method["k"] for method in methods}) > 1:
            first = methods[0]
            name = names[condition_of(first)].replace(condition_name(first), condition_name({**first, "k": None}), 1)
            found[name] = sorted(methods, key=lambda method: method["k"])
    return found


def _draw_shots(result: Result, lines: Mapping[str, Sequence[Result]]) -> Figure:
    several = len(lines) > len(SERIES)
    names = list(lines)[: MOST_PANELS if several else len(SERIES)]
    rows = math.ceil(len(names) / 3) if several else 1
    figure, panels = new_figure(2.5 * rows if several else 3.8, rows, 3 if several else 1, share=True)
    for index, name in enumerate(names):
        axes = panels[index if several else 0]
        shots, accuracies = [method["k"] for method in lines[name]], [method["accuracy"] for method in lines[name]]
        means = [100 * each["mean"] for each in accuracies]
        colour = SERIES[index % len(SERIES)]
        low, high = [100 * each["min"] for each in accuracies], [100 * each["max"] for each in accuracies]
        axes.fill_between(shots, low, high, color=colour, alpha=0.18, linewidth=0)
        if all(each.get("ci95") for each in accuracies):
            places = [k * 1.02 ** (index - len(names) // 2) for k in shots] if not several else shots
            ends = zip(*(each["ci95"] for each in accuracies), strict=True)
            away = [[abs(100 * end - mean) for end, mean in zip(side, means, strict=True)] for side in ends]
            axes.errorbar(places, means, away, fmt="none", ecolor=colour, elinewidth=1, capsize=3, alpha=0.8)
        axes.plot(shots, means, color=colour, marker=SHAPES[index], ms=6, mec=PAPER, label=brief_name(name))
        if several:
            axes.set_title(brief_name(name, 26), fontsize=8.5, loc="left")
    shown = sorted({method["k"] for name in names for method in lines[name]})
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks(shown, [str(k) for k in shown])
        axes.minorticks_off()
        axes.grid(visible=True)
        draw_chance(axes, result)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    if not several:
        figure.legend(loc="outside upper left", ncols=2)
    figure.supxlabel("demonstrations per prompt, k", fontsize=9)
    figure.supylabel("accuracy, % of test records", fontsize=9)
    return figure


# Order within draw


def _plot_orders(source: RunSource) -> Plot | None:
    conditions = ordered_conditions(source.result)
    if not conditions:
        return None
    spread = {key: _reach(cells) for key, cells in conditions.items()}
    shown = sorted(conditions, key=lambda key: -spread[key])[:MOST_PANELS]
    shown = [key for key in conditions if key in shown]
    names = name_conditions(source.result)
    said = "; ".join(
        f"{names[key]}: from {percent(min(cell['accuracy'] for cell in conditions[key]))} to "
        f"{percent(max(cell['accuracy'] for cell in conditions[key]))} %"
        for key in shown
    )
    note = f" Of {len(conditions)} conditions the {MOST_PANELS} with the widest spread." * (
        len(conditions) > len(shown)
    )
    return Plot(
        "orders",
        "Draw and order",
        "A row is one choice of demonstrations, a field one order of it, with its accuracy in %. Where the choices "
        f"have orders of their own, each row is sorted, and # is the number of the permutation.{note}",
        f"{said}.",
        lambda: _draw_orders({names[key]: conditions[key] for key in shown}),
        ("orders",),
    )


def _reach(cells: Sequence[Result]) -> float:
    accuracies = [cell["accuracy"] for cell in cells]
    return float(max(accuracies) - min(accuracies))


def _draw_orders(conditions: Mapping[str, Sequence[Result]]) -> Figure:
    tables = {name: _arrange(cells) for name, cells in conditions.items()}
    heights = [0.55 + 0.34 * len(rows) for _, rows in tables.values()]
    figure, panels = new_figure(0.7 + sum(heights), len(tables), 1, heights=heights)
    values = [100 * cell["accuracy"] for cells in conditions.values() for cell in cells]
    low, high = min(values), max(max(values), min(values) + 1)
    mesh: Any = None
    for axes, (name, (header, rows)) in zip(panels, tables.items(), strict=True):
        width = max(map(len, rows.values()))
        grid = [[100 * c["accuracy"] for c in row] + [math.nan] * (width - len(row)) for row in rows.values()]
        mesh = axes.pcolormesh(
            grid,
            cmap="cividis",
            vmin=low,
            vmax=high,
            edgecolors=PAPER,
            linewidth=1,
            rasterized=width * len(rows) > 3000,
        )
        if width <= 24:
            _write_fields(axes, rows, header is None, low + 0.4 * (high - low), width)
        axes.set_yticks([place + 0.5 for place in range(len(rows))], [f"draw {draw}" for draw in rows])
        axes.set_xticks([place + 0.5 for place in range(width)] if header and width <= 24 else [], header or [])
        axes.tick_params(length=0)
        axes.margins(0)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.set_title(brief_name(name), loc="left", fontsize=9)
    figure.colorbar(mesh, ax=panels, label="accuracy, %", fraction=0.03, aspect=30)
    figure.supxlabel("order of the demonstrations", fontsize=9)
    return figure


def _arrange(cells: Sequence[Result]) -> tuple[list[str] | None, dict[str, list[Result]]]:
    """Return (orders, draw -> cells): the orders that all draws share, or None and each draw's cells, best first."""
    draws: dict[str, dict[str, Result]] = {}
    for cell in cells:
        draws.setdefault(cell["factors"]["draw"], {})[cell["factors"]["order"]] = cell
    first = list(next(iter(draws.values())))
    orders = sorted(first, key=int) if all(order.isdecimal() for order in first) else first
    if all(set(found) == set(orders) for found in draws.values()):
        return orders, {draw: [found[order] for order in orders] for draw, found in draws.items()}
    return None, {draw: sorted(found.values(), key=lambda cell: -cell["accuracy"]) for draw, found in draws.items()}


def _write_fields(axes: Axes, rows: Mapping[str, Sequence[Result]], numbered: bool, middle: float, width: int) -> None:
    size = 8 if width <= 12 else 6
    for row, cells in enumerate(rows.values()):
        for column, cell in enumerate(cells):
            text = f"{100 * cell['accuracy']:.0f}" if width > 12 else percent(cell["accuracy"])
            text += f"  #{cell['factors']['order']}" if numbered and width <= 12 else ""
            colour = "#ffffff" if 100 * cell["accuracy"] < middle else "#000000"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)


# Variance


def _plot_shares(source: RunSource) -> Plot | None:
    factors = source.result["factors"]
    if not factors:
        return None
    said = "; ".join(
        f"{each['factor']} {percent(each['share'])} % (95 % interval {percent(each['ci95'][0])} to "
        f"{percent(each['ci95'][1])} %)"
        for each in factors
    )
    return Plot(
        "variance",
        "What the variance is due to",
        "Bar: share of the variance of a single answer, right or wrong; line: its 95 % interval. Ring: share of the "
        "variance of accuracy between cells, where the factor is one of cells.",
        f"{said}.",
        lambda: _draw_shares(factors),
        ("variance",),
    )


def _draw_shares(factors: Sequence[Result]) -> Figure:
    figure, (axes,) = new_figure(1.2 + 0.38 * len(factors))
    for row, each in enumerate(factors):
        own = each["between"] is not None
        axes.barh(row, 100 * each["share"], height=0.6, color=SERIES[0] if own else QUIET, alpha=0.75 if own else 0.45)
        low, high = (100 * end for end in each["ci95"])
        axes.plot([low, high], [row, row], color=INK, lw=1.2, marker="|", ms=6)
        if own:
            axes.plot(100 * each["between"], row, "o", color=SERIES[1], mfc="none", mew=1.6, ms=8)
    axes.set_yticks(range(len(factors)), [brief_name(each["factor"]) for each in factors])
    axes.set_ylim(len(factors) - 0.4, -0.6)
    axes.set_xlim(left=-1)
    axes.set_xlabel("share of the variance, %")
    axes.grid(visible=True, axis="x")
    return figure
