"""Tabulate a run, the same for the page, for CSV files and for LaTeX."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from promptkit.report.run_source import (
    Answers,
    RunSource,
    cells_by_condition,
    condition_of,
    name_conditions,
    varying_axes,
)
from promptkit.report.units import FLOP, NOTHING, p_value, percent, percent_range, quantity
from promptkit.storage.csv_rows import make_row_writer, quote_formula

Result = Mapping[str, Any]

#: Rows from which on a LaTeX table may break over pages.
_LONG = 40
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
} | {sign: "\\" + sign for sign in "&%$#_{}"}


@dataclass(frozen=True)
class NumberColumn:
    """A column: its header, the name it has in a CSV file, and what its values are (a key of `SHOWN`)."""

    header: str
    name: str
    kind: str = "text"

    @property
    def is_number(self) -> bool:
        """Whether its values stand to the right."""
        return self.kind != "text"


@dataclass(frozen=True)
class Numbers:
    """A table: `name` is its file's. Values are as computed (shares from 0 to 1); an interval is a pair."""

    name: str
    title: str
    columns: tuple[NumberColumn, ...]
    rows: tuple[tuple[Any, ...], ...]

    def shown(self) -> list[list[str]]:
        """Return the rows as a reader sees them."""
        return [
            [
                NOTHING if value is None else SHOWN[column.kind](value)
                for column, value in zip(self.columns, row, strict=True)
            ]
            for row in self.rows
        ]


#: How values are shown, by their kind.
SHOWN: dict[str, Callable[[Any], str]] = {
    "text": str,
    "count": lambda value: f"{value:,}",
    "never": lambda value: "never" if value == "never" else f"{value:,}",
    "percent": percent,
    "interval": percent_range,
    "points": lambda value: f"{100 * value:+.1f}",
    "points-interval": lambda value: f"{100 * value[0]:+.1f} to {100 * value[1]:+.1f}",
    "flop": lambda value: quantity(value, FLOP),
    "seconds": lambda value: f"{value:.3g}",
    "plus-minus": lambda value: f"{percent(value[0])} ± {percent(value[1])}",
    "ratio": lambda value: f"{value:.2f}",
    "ratios": lambda value: f"{value[0]:.2f} to {value[1]:.2f}",
    "p": lambda value: p_value(value).removeprefix("p = ").removeprefix("p "),
}
#: What the two values of a pair are called in a CSV file.
_PAIRS = {
    "interval": ("low", "high"),
    "points-interval": ("low", "high"),
    "ratios": ("low", "high"),
    "plus-minus": ("mean", "std"),
}


#: The columns of an accuracy over several runs.
OVER_RUNS = (
    NumberColumn("runs", "runs", "count"),
    NumberColumn("mean", "mean", "percent"),
    NumberColumn("95 %", "ci95", "interval"),
    NumberColumn("std", "std", "percent"),
    NumberColumn("min", "min", "percent"),
    NumberColumn("max", "max", "percent"),
)


def count_conditions(source: RunSource) -> Numbers:
    """Return a row per condition: what it is, and its accuracy over draws, orders and seeds."""
    result = source.result
    axes = varying_axes(result["methods"])
    names = name_conditions(result)
    columns = (
        NumberColumn("condition", "condition"),
        *(NumberColumn(axis, axis) for axis in axes),
        *OVER_RUNS,
        NumberColumn("spread", "spread", "percent"),
    )
    rows = []
    for each in result["methods"]:
        place = [each["factors"].get(axis) for axis in axes]
        spread = each["spread"] if each["runs"] > 1 else None
        rows.append((names[condition_of(each)], *place, *over_runs(each["accuracy"], each["runs"]), spread))
    return Numbers("conditions", "Every condition, accuracy in %", columns, tuple(rows))


def over_runs(accuracy: Result, runs: int) -> list[Any]:
    """Return the values of the columns `OVER_RUNS`; one run has no spread."""
    extremes = [accuracy[key] if runs > 1 else None for key in ("std", "min", "max")]
    return [runs, accuracy["mean"], accuracy.get("ci95"), *extremes]


def count_calibrations(source: RunSource) -> Numbers:
    """Return a row per condition and score or calibration of it: its accuracy over draws, orders and seeds."""
    names = name_conditions(source.result)
    rows = tuple(
        (names[condition_of(method)], reading["name"], *over_runs(reading["accuracy"], method["runs"]))
        for method in source.result["methods"]
        for reading in method.get("calibrations", ())
    )
    columns = (NumberColumn("condition", "condition"), NumberColumn("score", "score"), *OVER_RUNS)
    title = "The same records by other scores and calibrations, accuracy in %"
    return Numbers("calibrations", title, columns, rows)


def count_cells(source: RunSource) -> Numbers:
    """Return a row per cell: its condition, draw, order and seed, and its accuracy with its interval."""
    result, names = source.result, name_conditions(source.result)
    columns = (
        NumberColumn("condition", "condition"),
        NumberColumn("draw", "draw"),
        NumberColumn("order", "order"),
        NumberColumn("seed", "seed"),
        NumberColumn("records", "n", "count"),
        NumberColumn("accuracy", "accuracy", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("macro-F1", "macro_f1", "percent"),
        NumberColumn("on choices", "choice_mass", "percent"),
        NumberColumn("computed per record", "flop_per_item", "flop"),
    )
    rows = tuple(
        (
            names[condition_of(cell)],
            *(cell["factors"].get(axis) for axis in ("draw", "order", "seed")),
            cell["n"],
            cell["accuracy"],
            cell["ci95"],
            cell.get("macro_f1"),
            cell.get("choice_mass"),
            cell["cost"]["flops"] / cell["n"],
        )
        for cell in result["cells"]
    )
    return Numbers("cells", "Every run, accuracy in %", columns, rows)


def count_shares(source: RunSource) -> Numbers:
    """Return a row per factor: the share of the variance that it explains."""
    columns = (
        NumberColumn("factor", "factor"),
        NumberColumn("of one answer", "share", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("of the cells' accuracy", "between", "percent"),
    )
    rows = tuple((each["factor"], each["share"], each["ci95"], each["between"]) for each in source.result["factors"])
    return Numbers("variance", "Shares of the variance, in %", columns, rows)


def count_levels(source: RunSource) -> Numbers:
    """Return a row per value of every axis that varies: the accuracy over all cells with it."""
    columns = (
        NumberColumn("axis", "axis"),
        NumberColumn("value", "value"),
        NumberColumn("cells", "cells", "count"),
        NumberColumn("mean", "mean", "percent"),
        NumberColumn("min", "min", "percent"),
        NumberColumn("max", "max", "percent"),
    )
    rows = tuple(
        (axis, level["value"], level["cells"], level["mean"], level["min"], level["max"])
        for axis, levels in source.result["levels"].items()
        for level in levels
    )
    return Numbers("levels", "By one axis, over all else, accuracy in %", columns, rows)


def count_orders(source: RunSource) -> Numbers:
    """Return a row per draw and order of the conditions that have several orders of a draw."""
    names = name_conditions(source.result)
    columns = (
        NumberColumn("condition", "condition"),
        NumberColumn("draw", "draw"),
        NumberColumn("order", "order"),
        NumberColumn("accuracy", "accuracy", "percent"),
    )
    rows = tuple(
        (names[condition], cell["factors"]["draw"], cell["factors"]["order"], cell["accuracy"])
        for condition, cells in ordered_conditions(source.result).items()
        for cell in cells
    )
    return Numbers("orders", "Every order of every draw, accuracy in %", columns, rows)


def ordered_conditions(result: Result) -> dict[tuple[tuple[str, str], ...], list[Result]]:
    """Return the cells of the conditions in which a draw of demonstrations is shown in several orders."""
    found = {}
    for condition, cells in cells_by_condition(result).items():
        drawn = [cell for cell in cells if {"draw", "order"} <= cell["factors"].keys()]
        if max(Counter(cell["factors"]["draw"] for cell in drawn).values(), default=0) > 1:
            found[condition] = drawn
    return found


def count_costs(source: RunSource) -> Numbers:
    """Return a row per condition: accuracy, what a record costs and what training costs once."""
    names, cells = name_conditions(source.result), cells_by_condition(source.result)
    records = {  # that a cell was asked: of a budget, a part of them
        condition: fmean(cell["n"] for cell in own) for condition, own in cells.items()
    }
    columns = (
        NumberColumn("condition", "condition"),
        NumberColumn("accuracy", "accuracy", "percent"),
        NumberColumn("computed per record", "flop_per_item", "flop"),
        NumberColumn("seconds per record", "seconds_per_item", "seconds"),
        NumberColumn("training", "training_flop", "flop"),
    )
    rows = tuple(
        (
            names[condition_of(each)],
            each["accuracy"]["mean"],
            each["cost"]["flops"] / records[condition_of(each)],
            each["cost"]["seconds"] / records[condition_of(each)],
            each["train_cost"]["flops"] if each.get("train_cost") else None,
        )
        for each in source.result["methods"]
    )
    return Numbers("costs", "Accuracy in %, and cost", columns, rows)


def count_break_even(source: RunSource) -> Numbers:
    """Return a row per way of prompting: from how many test records on training is cheaper; `never` where it is not."""
    columns = (
        NumberColumn("condition", "condition"),
        NumberColumn("demonstrations recomputed", "items", "never"),
        NumberColumn("demonstrations shared", "items_prefix_shared", "never"),
    )
    rows = tuple(
        (name, *("never" if counts[key] is None else counts[key] for key in ("items", "items_prefix_shared")))
        for name, counts in source.result["break_even"].items()
    )
    return Numbers("break-even", "Test records from which on training is cheaper", columns, rows)


@dataclass(frozen=True)
class ReportItem:
    """One test record over all cells: the share of cells that are right, and what they answered how often.

    `nth` tells records of one id apart: 0 for the first.
    """

    id: str
    label: str
    right: float
    cells: int
    answers: tuple[tuple[str, int], ...]
    nth: int = 0


def gather_items(source: RunSource) -> list[ReportItem]:
    """Return every test record over all cells, those that flip most first: the nearest to half right, half wrong."""
    right: dict[tuple[str, int], list[bool]] = {}
    said: dict[tuple[str, int], Counter[str | None]] = {}
    labels: dict[tuple[str, int], str | None] = {}
    for answers in source.answers:
        for place, label, predicted, is_right in _rows(answers):
            right.setdefault(place, []).append(is_right)
            said.setdefault(place, Counter())[predicted] += 1
            labels[place] = label
    names = source.result.get("labels")
    items = [
        ReportItem(
            place[0],
            name_label(labels[place], names),
            sum(found) / len(found),
            len(found),
            tuple((name_label(answer, names), count) for answer, count in said[place].most_common()),
            place[1],
        )
        for place, found in right.items()
    ]
    return sorted(items, key=lambda item: (abs(item.right - 0.5), item.id))


def _rows(answers: Answers) -> Iterable[tuple[tuple[str, int], str | None, str | None, bool]]:
    return zip(number_ids(answers.ids), answers.labels, answers.predicted, answers.right, strict=True)


def number_ids(ids: Iterable[str]) -> list[tuple[str, int]]:
    """Return every id with the number of those like it before it, which tells records of one id apart."""
    seen: Counter[str] = Counter()
    numbered = []
    for id_ in ids:
        numbered.append((id_, seen[id_]))
        seen[id_] += 1
    return numbered


def name_label(label: str | None, names: Sequence[str] | None) -> str:
    """Return a label's word where labels are fixed; `unread` for an answer that was not read."""
    if label is None:
        return "unread"
    return names[int(label)] if names and label.isdecimal() and int(label) < len(names) else label


def count_items(items: Sequence[ReportItem]) -> Numbers:
    """Return a row per test record, those that flip most first."""
    columns = (
        NumberColumn("record", "id"),
        NumberColumn("label", "label"),
        NumberColumn("cells", "cells", "count"),
        NumberColumn("right", "right", "percent"),
        NumberColumn("answers", "answers"),
    )
    rows = tuple((item.id, item.label, item.cells, item.right, say_answers(item)) for item in items)
    return Numbers("items", "Every test record, share of cells that are right in %", columns, rows)


def say_answers(item: ReportItem) -> str:
    """Return `negative 14, positive 10`, the most frequent first; of many, the first five."""
    shown = [f"{answer} {count}" for answer, count in item.answers[:5]]
    return ", ".join([*shown, *(["…"] if len(item.answers) > 5 else [])])


def to_csv(numbers: Numbers) -> bytes:
    """Return the table as CSV in UTF-8, every value as computed; an interval is two columns, nothing is empty.

    Text that a spreadsheet would compute has an apostrophe in front, see `quote_formula`.
    """
    text = io.StringIO(newline="")
    names = [name for column in numbers.columns for name in _csv_names(column)]
    rows = (
        [part for column, value in zip(numbers.columns, row, strict=True) for part in _csv_values(column, value)]
        for row in numbers.rows
    )
    write_row = make_row_writer(text)
    for cells in (names, *rows):
        write_row(cells)
    return text.getvalue().encode("utf-8", "replace")


def _csv_names(column: NumberColumn) -> list[str]:
    name = quote_formula(column.name)
    return [f"{name}_{end}" for end in _PAIRS[column.kind]] if column.kind in _PAIRS else [name]


def _csv_values(column: NumberColumn, value: Any) -> list[Any]:
    if column.kind in _PAIRS:
        return ["", ""] if value is None else list(value)
    return ["" if value is None else quote_formula(value) if isinstance(value, str) else value]


def to_latex(numbers: Numbers) -> bytes:
    """Return the table for LaTeX (package booktabs, and longtable where it is long), text escaped."""
    kind = "longtable" if len(numbers.rows) > _LONG else "tabular"
    shape = "".join("r" if column.is_number else "l" for column in numbers.columns)
    lines = [
        "% needs: \\usepackage[T1]{fontenc} \\usepackage{booktabs}"
        + (" \\usepackage{longtable}" if kind == "longtable" else ""),
        f"% {_one_line(numbers.title)}",
        rf"\begin{{{kind}}}{{{shape}}}",
        r"\toprule",
        " & ".join(escape_latex(column.header) for column in numbers.columns) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape_latex, row)) + r" \\" for row in numbers.shown()),
        r"\bottomrule",
        rf"\end{{{kind}}}",
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def escape_latex(text: str) -> str:
    """Return text as LaTeX prints it: no character is a command, a line break is a space."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) else escaped  # after \\ they would be its arguments


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
