"""Print a comparison as tables and sentences that fit 80 columns.

It takes the object that `--json` prints and computes no figure of its own. Names come from users'
files, so everything is printed as plain text, never as rich markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from promptkit.report.curve_table import (
    describe_crossings,
    list_points,
    list_size_comparisons,
    point_columns,
    size_columns,
)
from promptkit.report.findings import (
    describe_break_even,
    describe_failed,
    describe_mass,
    describe_methods,
    describe_spread,
)
from promptkit.report.ledger_table import describe_choosing, describe_money, price_columns, token_columns
from promptkit.report.units import (
    BYTES,
    FLOP,
    NOTHING,
    SECONDS,
    Units,
    cautions,
    condition_name,
    in_one_unit,
    other_notes,
    percent,
    percent_range,
    templates,
    test_items,
    with_largest_pool,
)

Result = Mapping[str, Any]
Columns = Mapping[str, Sequence[str]]  # header -> the cells below it, one per method
_SPARE = "F1 interval"  # what is left out where a table is too wide; --json and the report have it


def print_comparison(result: Result, console: Console) -> None:
    """Print a comparison: what was compared, accuracy, cost, what it means, where the files are.

    `result` is the object of `--json`; the keys beyond the documented ones may be missing.
    """
    methods = _without_sizes(result["methods"])
    items = test_items(result)
    print_lines(console, _headlines(result, items), style="bold")
    print_lines(console, cautions(result), style="bold")
    _print_table(console, "Accuracy in %, on the same test records", _accuracy_columns(methods, items), methods)
    print_lines(console, _say_pool(result["methods"]), indent=2)
    print_lines(console, ["", *mass] if (mass := describe_mass(result, methods)) else [], indent=2)
    if calibrated := _calibrated(methods):
        title = "The same records by other scores and calibrations, accuracy in %"
        _print_table(console, title, _calibration_columns(calibrated), calibrated, first="score")
    if voted := [method for method in methods if "samples" in method]:
        _print_table(console, "Votes of the texts drawn for each record", _vote_columns(voted, items), voted)
    _print_table(console, "Cost per test item, and of training once", _cost_columns(methods, items), methods)
    print_section(console, "Spread", [*describe_spread(result), *describe_failed(result)])
    if result.get("curves"):
        _print_curves(result["curves"], console)
    print_section(console, "Prompting against training", describe_methods(result))
    ledger = result.get("ledger") or {}
    if result.get("break_even"):
        title = "Break-even: test items from which on LoRA is cheaper, its training included"
        counts = result["break_even"]
        named = [{"method": _say_shots(name, counts)} for name in counts]
        _print_table(console, title, _break_even_columns(counts), named)
        print_lines(console, ["", *(ledger.get("assumptions") or describe_break_even())], indent=2)
    if ledger:
        _print_ledger(ledger, console)
    print_section(console, "Notes", other_notes(result))
    console.print()
    run = [f"run    {result['run']}"] if result["run"] else []
    places = [*run, *(f"figure {path}" for path in result.get("figures", []))]
    console.print(Text("\n".join(places)), highlight=False, soft_wrap=True)  # paths stay whole


def _print_curves(curves: Result, console: Console) -> None:
    points, crossings = list_points(curves), curves["crossings"]
    title = "Against labelled rows: accuracy in %, and 1,000 test items with training"
    _print_table(console, title, point_columns(points), points, first="line")
    names = list(dict.fromkeys(crossing["template"] for crossing in crossings))
    for name in names:
        comparisons = list_size_comparisons([crossing for crossing in crossings if crossing["template"] == name])
        title = "LoRA minus prompting in points, on the same records" + (f", {name}" if len(names) > 1 else "")
        _print_table(console, title, size_columns(comparisons), comparisons, first="LoRA on")
    if crossings:
        print_lines(console, ["", *describe_crossings(crossings)], indent=2)


def _print_ledger(ledger: Result, console: Console) -> None:
    conditions = _without_sizes(ledger["conditions"])
    _print_table(console, "Ledger: tokens of a test item, and of a training", token_columns(conditions), conditions)
    if ledger["prices"]:
        title = f"Price in {ledger['prices']['currency']}: 1,000 test items, and training once"
        _print_table(console, title, price_columns(conditions), conditions)
    print_lines(
        console, ["", *describe_choosing(ledger["choosing"]), *describe_money(ledger["break_even_money"])], indent=2
    )


def _without_sizes(conditions: Sequence[Result]) -> list[Result]:
    """Return the lines of the tables: what retrieves has one, for the largest set; the curves' table has them all."""
    return [{**each, "pool_rows": None} for each in with_largest_pool(conditions)]


def _say_pool(methods: Sequence[Result]) -> list[str]:
    """Say how many records those lines retrieve from."""
    retrieved = [method for method in methods if method.get("pool_rows")]
    if not retrieved:
        return []
    names = " and ".join(dict.fromkeys(str(method["retrieval"]) for method in retrieved))
    most, several = max(method["pool_rows"] for method in retrieved), len({m["pool_rows"] for m in retrieved}) > 1
    return ["", f"{names} retrieves from {most:,} rows here{'; smaller sets stand below' if several else ''}."]


def print_section(console: Console, title: str, sentences: Sequence[str]) -> None:
    """Print sentences below a title; nothing where there are none."""
    if sentences:
        print_lines(console, ["", title], style="bold")
        print_lines(console, sentences, indent=2)


def print_lines(console: Console, lines: Sequence[str], *, style: str = "", indent: int = 0) -> None:
    """Print lines wrapped to the console's width, plain and without trailing spaces."""
    for text in lines:
        for part in Text(text, style=style).wrap(console, console.width - indent) or [Text()]:
            line = Text(" " * indent) + part
            line.rstrip()
            console.print(line, highlight=False)


def _print_table(
    console: Console, title: str, columns: Columns, methods: Sequence[Result], *, first: str = "method"
) -> None:
    """Print one line per method, those of the same template together where there are several.

    A last column that would not fit is left out rather than every number cut off.
    """
    gap = 2 if console.width >= 90 else 1
    texts = [[first, *map(condition_name, methods)], *([header, *below] for header, below in columns.items())]
    widths = [max(len(line) for text in column for line in text.split("\n")) for column in texts]
    if 2 + sum(widths) + (gap + 1) * (len(widths) - 1) > console.width:  # 1 is the box's own
        columns = {header: below for header, below in columns.items() if header != _SPARE}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=True, vertical="bottom")
    for header in columns:
        table.add_column(Text(header), justify="right", no_wrap=True, vertical="bottom")
    several, last = len(templates({"methods": methods})) > 1, None
    for method, cells in zip(methods, zip(*columns.values(), strict=True), strict=True):
        if several and method.get("template") != last:
            last = method.get("template")
            table.add_row(Text(str(last), style="italic"))
        table.add_row(Text(condition_name(method)), *(Text(cell) for cell in cells))
    print_lines(console, ["", title], style="bold")
    console.print(Padding(table, (0, 0, 0, 2), expand=False), highlight=False)


def _headlines(result: Result, items: int) -> list[str]:
    first = [str(result["task"] or "rows of a file"), f"model {result['model']}", f"{items:,} test records"]
    if result.get("labels"):
        first.append(f"{len(result['labels'])} labels")
    names = templates(result)
    second = [f"template {name}" for name in names if len(names) == 1 and name]
    if result.get("chance") is not None:
        second.append(f"chance {percent(result['chance'])} %")
    if result.get("majority") is not None:
        second.append(f"always the most frequent label {percent(result['majority'])} %")
    return [" · ".join(first), *([" · ".join(second)] if second else [])]


def _accuracy_columns(methods: Sequence[Result], items: int) -> Columns:
    accuracies = [method["accuracy"] for method in methods]
    several = [method["runs"] > 1 for method in methods]
    ranges = [percent_range((accuracy["min"], accuracy["max"])) for accuracy in accuracies]
    f1 = [method.get("macro_f1") or {} for method in methods]
    columns = {
        "runs": [str(method["runs"]) for method in methods],
        "mean": [percent(accuracy["mean"]) for accuracy in accuracies],
        "95 % interval": [percent_range(accuracy.get("ci95")) for accuracy in accuracies],
        "std": [percent(each["std"]) if runs else NOTHING for each, runs in zip(accuracies, several, strict=True)],
        "min–max": [each if runs else NOTHING for each, runs in zip(ranges, several, strict=True)],
    }
    columns["F1"] = [percent(each.get("mean")) for each in f1]
    intervals = [percent_range(each.get("ci95")) for each in f1]
    if any(method.get("unread") for method in methods) or set(intervals) == {NOTHING}:
        columns["unread"] = [percent(method.get("unread", 0) / items) for method in methods]
    else:  # choices are always read, so their line has room for the interval
        columns[_SPARE] = intervals
    return columns


def _vote_columns(methods: Sequence[Result], items: int) -> Columns:
    texts = [items * method["samples"] for method in methods]
    return {
        "texts": [str(method["samples"]) for method in methods],
        "for the\nwinner %": [percent(method["agreement"]) for method in methods],
        "ties %": [percent(method["ties"] / items) for method in methods],
        "texts\nunread %": [
            percent(method["unread_samples"] / count) for method, count in zip(methods, texts, strict=True)
        ],
        "records\nunread %": [percent(method["unread"] / items) for method in methods],
    }


def _calibrated(methods: Sequence[Result]) -> list[Result]:
    """Return one line per method and score or calibration, those of a method under its name as their heading."""
    several = len(templates({"methods": methods})) > 1
    return [
        {"method": each["name"], "template": _heading(method, several), "runs": method["runs"], **_figures(each)}
        for method in methods
        for each in method.get("calibrations", ())
    ]


def _heading(method: Result, several: bool) -> str:
    return f"{condition_name(method)}, {method['template']}" if several else condition_name(method)


def _figures(calibration: Result) -> Result:
    return {"accuracy": calibration["accuracy"], "macro_f1": calibration["macro_f1"]}


def _calibration_columns(lines: Sequence[Result]) -> Columns:
    accuracy = _accuracy_columns(lines, 1)
    return {header: accuracy[header] for header in ("mean", "95 % interval", "std", "min–max", "F1")}


def _cost_columns(methods: Sequence[Result], items: int) -> Columns:
    costs = [method["cost"] for method in methods]
    training = [method.get("train_cost") for method in methods]

    def per_item(key: str, words: str, units: Units) -> tuple[str, list[str]]:
        return in_one_unit(words, [cost[key] / items for cost in costs], units)

    def of_training(key: str, units: Units) -> tuple[str, list[str]]:
        return in_one_unit("train", [cost[key] if cost else None for cost in training], units)

    return dict(
        (
            ("tokens\nprompted", [f"{cost['tokens_prompted'] / items:,.0f}" for cost in costs]),
            ("tokens\ncomputed", [f"{cost['tokens_computed'] / items:,.0f}" for cost in costs]),
            per_item("flops", "", FLOP),
            per_item("seconds", "", SECONDS),
            in_one_unit("peak", [cost["peak_memory_bytes"] for cost in costs], BYTES),
            of_training("flops", FLOP),
            of_training("seconds", SECONDS),
        )
    )


def _say_shots(name: str, counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a count's name, with its number of demonstrations where further ones of its method follow."""
    several = any(other.startswith(f"{name} k=") for other in counts)
    return f"{name} k={counts[name]['k']}" if several and counts[name].get("k") else name


def _break_even_columns(counts: Mapping[str, Mapping[str, int | None]]) -> Columns:
    def column(key: str) -> list[str]:
        return ["never" if (count := counts[name].get(key)) is None else f"{count:,}" for name in counts]

    columns = {
        "demonstrations\nrecomputed": column("items"),
        "demonstrations\nshared": column("items_prefix_shared"),
    }
    if all("items_with_trials" in each for each in counts.values()):
        columns["trials paid,\nrecomputed"] = column("items_with_trials")
        columns["trials paid,\nshared"] = column("items_prefix_shared_with_trials")
    return columns
