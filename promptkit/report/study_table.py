"""Print a study: which factor matters, how sure that is, and every condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from promptkit.report.comparison_table import print_lines, print_section
from promptkit.report.findings import describe_mass
from promptkit.report.numbers import Numbers
from promptkit.report.study_numbers import count_study
from promptkit.report.units import (
    NOTHING,
    cautions,
    count_of,
    other_notes,
    p_value,
    percent,
    percent_range,
    say_cells,
)

Result = Mapping[str, Any]
_FIGURES = frozenset("0123456789.,–-±<to ")  # columns of figures are never cut short; names may go on in the next line
_GAP, _INDENT = 2, 2  # columns of blanks behind each column, and before a table


def print_study(result: Result, console: Console) -> None:
    """Print a study: what was varied, what it means in words, the conditions, the shares of variance, the files.

    `result` is the object of `--json`.
    """
    print_lines(console, [*_headlines(result), *cautions(result)], style="bold")
    print_section(console, "What matters", list(result["verdict"]))
    tables = {table.name: table for table in count_study(result)}
    for name in [name for name in tables if name.startswith("form")]:
        print_numbers(console, tables[name])
    print_table(console, f"Conditions, {_what(result)} in %, on the same test records", _conditions(result))
    if mass := describe_mass(result, result["methods"]):
        print_lines(console, ["", *mass], indent=2)
    if "by-test" in tables:
        print_numbers(console, tables["by-test"])
    if calibrated := _calibrations(result):
        print_table(console, "The same records by other scores and calibrations, accuracy in %", calibrated)
    if result["factors"]:
        print_table(console, "Shares of the variance, in %", _shares(result))
    for title, rows in _by_level(result):
        print_table(console, title, rows)
    if "ranks" in tables:
        print_numbers(console, tables["ranks"], width=6)
    print_section(console, "Notes", other_notes(result))
    console.print()
    console.print(Text(f"run    {result['run']}"), highlight=False, soft_wrap=True)


def print_forecast(result: Result, console: Console) -> None:
    """Print what a study will take: the object of `--dry-run`."""
    takes = f"{result['tokens_computed']:,} tokens, {result['minutes']:,.1f} minutes on this machine"
    print_lines(console, [f"{result['task']} · {count_of(result['cells'], 'cell')}"], style="bold")
    if "calls" in result:
        print_lines(console, [f"{result['calls']:,} of {result['of_calls']:,} calls, as --budget says"])
    print_lines(console, ["", f"To score what the run folder does not hold yet: about {takes}."])
    print_lines(console, [f"Trainings ({result['trainings']:,}) and order searches are in neither figure."])
    console.print()
    console.print(Text(f"run    {result['run']}"), highlight=False, soft_wrap=True)


def _what(result: Result) -> str:
    return "estimated accuracy" if result.get("budget") else "accuracy"


def print_numbers(console: Console, numbers: Numbers, width: int | None = None) -> None:
    """Print a table of the report, or its first `width` columns."""
    heads = [column.header for column in numbers.columns[:width]]
    print_table(console, numbers.title, [dict(zip(heads, row[:width], strict=True)) for row in numbers.shown()])


def print_table(console: Console, title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows with the same keys, names to the left and figures to the right; more figures than fit go below."""
    print_lines(console, ["", title], style="bold")
    widths = {header: max(len(header), *(len(row[header]) for row in rows)) + _GAP for header in rows[0]}
    figures = [header for header in rows[0] if all(set(row[header]) <= _FIGURES for row in rows)]
    names = [header for header in rows[0] if header not in figures]
    room = console.width - _INDENT
    room -= min(sum(widths[header] for header in names), room // 2)
    for part in _fill(figures, widths, room):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False)
        shown = [header for header in rows[0] if header in names or header in part]
        for header in shown:
            if header in part:
                width = widths[header] - _GAP
                table.add_column(Text(header), justify="right", no_wrap=True, min_width=width, vertical="bottom")
            else:
                table.add_column(Text(header), overflow="fold", vertical="bottom")
        for row in rows:
            table.add_row(*(Text(row[header]) for header in shown))
        console.print(Padding(table, (0, 0, 0, _INDENT), expand=False), highlight=False)


def _fill(headers: Sequence[str], widths: Mapping[str, int], room: int) -> list[list[str]]:
    """Return the headers in parts, each at most `room` wide, or of one."""
    parts: list[list[str]] = [[]]
    for header in headers:
        if parts[-1] and sum(widths[other] for other in (*parts[-1], header)) > room:
            parts.append([])
        parts[-1].append(header)
    return parts


def _headlines(result: Result) -> list[str]:
    first = [str(result["task"]), *result["models"], count_of(result["records"]["test"], "test record")]
    reference = result["preset"]["reference"]
    return [" · ".join(first), say_cells(result), *([reference] if reference else [])]


def _conditions(result: Result) -> list[dict[str, str]]:
    """A row per condition: everything that differs between conditions, then the spread over draws and orders."""
    return [
        {
            **_place(method, result),
            **_shown(method, result),
            "runs": str(method["runs"]),
            **_spread(method["accuracy"], method["runs"]),
            **_behind(method, result),
        }
        for method in result["methods"]
    ]


def _shown(method: Result, result: Result) -> dict[str, str]:
    """How many demonstrations its prompts show, where some of a condition were dropped."""
    if not any("shown" in each for each in result["methods"]):
        return {}
    return {"shown": f"{method['shown']:.1f}" if "shown" in method else NOTHING}


def _behind(method: Result, result: Result) -> dict[str, str]:
    """How far a condition is behind the best one, and the corrected p-value of that."""
    best = result.get("best")
    if not best or best["of"] != "conditions":
        return {}
    row = next((row for row in best["rows"] if row["factors"] == method["factors"]), None)
    if row is None:
        return {"behind": "best" if best["best"] == method["factors"] else NOTHING, "p": NOTHING}
    return {"behind": percent(row["lead"]), "p": p_value(row["adjusted"]).removeprefix("p = ").removeprefix("p ")}


def _calibrations(result: Result) -> list[dict[str, str]]:
    """A row per condition and score or calibration."""
    return [
        {**_place(method, result), "score": reading["name"], **_spread(reading["accuracy"], method["runs"])}
        for method in result["methods"]
        for reading in method.get("calibrations", ())
    ]


def _place(method: Result, result: Result) -> dict[str, str]:
    """What a condition differs in from others, under the names of those axes."""
    methods = result["methods"]
    axes = list(dict.fromkeys(axis for each in methods for axis in each["factors"] if _varies(methods, axis)))
    axes = axes or ["method"]
    return {" · ".join(axes): " · ".join(_short(axis, method["factors"].get(axis, "–"), result) for axis in axes)}


def _spread(accuracy: Result, runs: int) -> dict[str, str]:
    """The figures over runs; one run has no spread."""
    return {
        "mean": percent(accuracy["mean"]),
        **({"95 %": percent_range(accuracy["ci95"])} if accuracy.get("ci95") else {}),
        "std": percent(accuracy["std"]) if runs > 1 else NOTHING,
        "min-max": percent_range((accuracy["min"], accuracy["max"])) if runs > 1 else NOTHING,
    }


def _short(axis: str, value: str, result: Result) -> str:
    """A template without its family where all are of one."""
    families = {str(method["factors"].get("template", "")).split("/")[0] for method in result["methods"]}
    return value.split("/", 1)[-1] if axis == "template" and len(families) == 1 else value


def _varies(methods: Sequence[Result], axis: str) -> bool:
    return len({method["factors"][axis] for method in methods if axis in method["factors"]}) > 1


def _shares(result: Result) -> list[dict[str, str]]:
    return [
        {
            "factor": part["factor"],
            "of one answer": percent(part["share"]),
            "95 %": percent_range(part["ci95"]),
            "of the cells' accuracy": "–" if part["between"] is None else percent(part["between"]),
        }
        for part in result["factors"]
    ]


def _by_level(result: Result) -> list[tuple[str, list[dict[str, str]]]]:
    """A small table per axis with several values: the mean over all cells of each."""
    tables = []
    for axis, levels in result["levels"].items():
        rows = [
            {
                axis: _short(axis, level["value"], result),
                "cells": str(level["cells"]),
                "mean": percent(level["mean"]),
                "min-max": percent_range((level["min"], level["max"])) if level["cells"] > 1 else NOTHING,
            }
            for level in levels
        ]
        tables.append((f"By {axis}, over all else", rows))
    return tables
