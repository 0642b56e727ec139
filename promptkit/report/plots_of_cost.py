"""Draw a run's costs: accuracy against computation, and from how many records on training pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptkit.report.canvas import PAPER, QUIET, SERIES, Plot, brief_name, colour_of, draw_chance, new_figure
from promptkit.report.comparison_figure import SHAPES
from promptkit.report.run_source import RunSource, condition_of, name_conditions
from promptkit.report.units import FLOP, percent, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]


def plot_costs(source: RunSource) -> Plot:
    """Return the drawing of accuracy against computation per test record."""
    result = source.result
    trained = any(each.get("train_cost") for each in result["methods"])
    records = result["records"]["test"]
    note = f" Hollow: its training added, shared by these {records:,} records." if trained else ""
    ranked = sorted(result["methods"], key=lambda each: each["cost"]["flops"])
    names = name_conditions(result)
    said = "; ".join(
        f"{names[condition_of(each)]}: {quantity(each['cost']['flops'] / records, FLOP)} per record, "
        f"{percent(each['accuracy']['mean'])} %"
        for each in (ranked if len(ranked) <= 6 else [ranked[0], ranked[-1]])
    )
    start = "" if len(ranked) <= 6 else f"The cheapest and the dearest of {len(ranked)} conditions. "
    return Plot(
        "cost",
        "Accuracy against cost",
        "Mark: mean accuracy of a condition; line: lowest to highest run. To the right: more computation per test "
        f"record, logarithmic, as computed here, where prompts share what they can.{note}",
        f"{start}{said}.",
        lambda: _draw_costs(result, records),
        ("costs",),
    )


def _draw_costs(result: Result, records: int) -> Figure:
    figure, (axes,) = new_figure(4.2)
    names, methods = name_conditions(result), result["methods"]
    single = len(methods) <= 12
    kinds = list(dict.fromkeys(method["method"] for method in methods))
    seen: set[str] = set()
    for index, method in enumerate(methods):
        cost, accuracy = max(1.0, method["cost"]["flops"] / records), method["accuracy"]
        several = single and len(kinds) < len(methods)
        colour = SERIES[index % len(SERIES)] if several and len(kinds) == 1 else colour_of(method["method"])
        shape = SHAPES[(index if single else kinds.index(method["method"])) % len(SHAPES)]
        name = names[condition_of(method)] if single else method["method"]
        axes.plot([cost] * 2, [100 * accuracy["min"], 100 * accuracy["max"]], color=colour, lw=1.2, alpha=0.7)
        label = None if name in seen else brief_name(name)
        axes.plot(cost, 100 * accuracy["mean"], shape, color=colour, mec=PAPER, ms=9, ls="", label=label)
        seen.add(name)
        if method.get("train_cost"):
            whole = cost + method["train_cost"]["flops"] / records
            axes.plot([cost, whole], [100 * accuracy["mean"]] * 2, ":", color=colour, lw=1)
            axes.plot(whole, 100 * accuracy["mean"], shape, color=colour, mfc="none", mew=1.4, ms=9)
    draw_chance(axes, result)
    _scale_flop(axes, [each["cost"]["flops"] / records for each in methods])
    axes.set_xlabel("computation per test record, FLOP")
    axes.set_ylabel("accuracy, % of test records")
    axes.grid(visible=True)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _scale_flop(axes: Axes, costs: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.08)
    low, high = axes.get_xlim()
    near = math.log10(high / low) < 1.5
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if near else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda flop, _: quantity(flop, FLOP).removesuffix("FLOP").replace(".0 ", " "))


def plot_break_even(source: RunSource) -> Plot | None:
    """Return the drawing of the break-even counts, None where nothing was trained."""
    counts = source.result["break_even"]
    if not counts:
        return None
    said = "; ".join(
        f"{name}: {_say_count(each['items'])} where demonstrations are computed for every prompt, "
        f"{_say_count(each['items_prefix_shared'])} where all prompts share them"
        for name, each in counts.items()
    )
    return Plot(
        "break-even",
        "When training pays",
        "Right of a mark, training an adapter once and prompting it without demonstrations needs less computation than "
        "this way of prompting; accuracies are not weighed. Full: demonstrations computed again for every prompt, or "
        "retrieved for each. Hollow: computed once and shared by all.",
        f"{said}.",
        lambda: _draw_break_even(counts),
        ("break-even",),
    )


def _say_count(count: int | None) -> str:
    return "never" if count is None else f"from {count:,} test records on"


def _draw_break_even(counts: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, (axes,) = new_figure(1.4 + 0.42 * len(counts))
    known = [each[key] for each in counts.values() for key in ("items", "items_prefix_shared") if each[key] is not None]
    low, high = min(known, default=1), max(known, default=10)
    never = max(high, low * 10) * 10**0.6
    for row, each in enumerate(counts.values()):
        ends = [max(1, each[key]) if each[key] is not None else never for key in ("items", "items_prefix_shared")]
        axes.plot(ends, [row, row], color=SERIES[2], lw=1.2, alpha=0.6)
        for end, full in zip(ends, (True, False), strict=True):
            axes.plot(end, row, "o", color=SERIES[2], mfc=SERIES[2] if full else PAPER, mew=1.6, ms=8 if full else 9)
    axes.set_xscale("log")
    axes.set_xlim(max(0.7, low / 2), never * 2)
    axes.axvline(never, color=QUIET, lw=0.8, ls="--")
    axes.minorticks_off()
    ticks = [10**power for power in range(30) if axes.get_xlim()[0] <= 10**power < never / 1.8]
    axes.set_xticks([*ticks, never], [*(f"{tick:,}" for tick in ticks), "never"])
    axes.set_yticks(range(len(counts)), [brief_name(name) for name in counts])
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.set_xlabel("test records from which on training is cheaper")
    axes.grid(visible=True, axis="x")
    return figure
