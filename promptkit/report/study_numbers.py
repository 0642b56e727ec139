"""Tabulate a study: its paper's forms, tests, label bias, ranks, and what a budget found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.report.numbers import OVER_RUNS, NumberColumn, Numbers, over_runs
from promptkit.report.run_source import condition_of, name_conditions, varying_axes

Result = Mapping[str, Any]


def count_study(result: Result) -> list[Numbers]:
    """Return the tables of a study that have rows, those of its paper first."""
    found = [
        *_forms(result),
        _by_test(result),
        _budget(result),
        _best(result),
        _labels(result),
        _repeats(result),
        _agreement(result),
    ]
    return [table for table in found if table and table.rows]


def _forms(result: Result) -> list[Numbers]:
    return [
        Numbers(
            f"form-{number}",
            form["title"],
            tuple(NumberColumn(head, head, kind) for head, kind in zip(form["header"], form["kinds"], strict=True)),
            tuple(tuple(row) for row in form["rows"]),
        )
        for number, form in enumerate(result.get("forms", ()), 1)
    ]


def _by_test(result: Result) -> Numbers:
    found = result.get("by_test", ())
    axes = varying_axes(found)
    columns = (*(NumberColumn(axis, axis) for axis in axes), NumberColumn("records", "n", "count"), *OVER_RUNS)
    rows = tuple(
        (*(each["factors"].get(axis) for axis in axes), each["n"], *over_runs(each["accuracy"], each["runs"]))
        for each in found
    )
    return Numbers("by-test", "Conditions by test, accuracy in %", columns, rows)


def _budget(result: Result) -> Numbers | None:
    if not (budget := result.get("budget")):
        return None
    columns = (
        NumberColumn("calls", "calls", "count"),
        NumberColumn("full grid", "full_calls", "count"),
        NumberColumn("spread", "spread", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("best", "best", "plus-minus"),
        NumberColumn("worst", "worst", "plus-minus"),
    )
    ends = ([budget[end]["mean"], budget[end]["std"]] for end in ("best", "worst"))
    row = (budget["calls"], budget["full_calls"], budget["spread"], budget["ci95"], *ends)
    return Numbers("budget", "What the budget tells: spread of accuracy, in points", columns, (row,))


def _best(result: Result) -> Numbers | None:
    if not (best := result.get("best")):
        return None
    places = [best["best"], *(row["factors"] for row in best["rows"])]
    every = dict.fromkeys(axis for place in places for axis in place)
    axes = [axis for axis in every if len({place.get(axis) for place in places}) > 1]
    columns = (
        *(NumberColumn(axis, axis) for axis in axes),
        NumberColumn("behind the best", "lead", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("p", "p_value", "p"),
        NumberColumn("p, corrected", "adjusted", "p"),
        NumberColumn("items needed", "items_needed", "count"),
    )
    rows = tuple(
        (
            *(row["factors"].get(axis) for axis in axes),
            row["lead"],
            row["ci95"],
            row["p_value"],
            row["adjusted"],
            row["items_needed"],
        )
        for row in sorted(best["rows"], key=lambda row: row["lead"])
    )
    name = ", ".join(f"{axis} {best['best'][axis]}" for axis in axes if axis in best["best"])
    return Numbers("tests", f"Against the best ({name}), in points, nearest first", columns, rows)


def _labels(result: Result) -> Numbers | None:
    labels = result.get("labels") or []
    names = name_conditions(result)
    columns = (
        NumberColumn("condition", "condition"),
        NumberColumn("label", "label"),
        NumberColumn("answered", "predicted", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("right", "true", "percent"),
    )
    rows = tuple(
        (names[condition_of(method)], _label(each["label"], labels), each["predicted"], each["ci95"], each["true"])
        for method in result["methods"]
        for each in method.get("leans", ())
    )
    return Numbers("labels", "How often each label is answered, and is right, in %", columns, rows)


def _label(label: Any, labels: Sequence[str]) -> str:
    return (
        "unread" if label is None else labels[label] if isinstance(label, int) and label < len(labels) else str(label)
    )


def _repeats(result: Result) -> Numbers | None:
    names = name_conditions(result)
    columns = (
        NumberColumn("condition", "condition"),
        NumberColumn("demonstration", "from_end"),
        NumberColumn("repeated", "rate", "percent"),
        NumberColumn("by chance", "chance", "percent"),
        NumberColumn("excess", "excess", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
    )
    rows = tuple(
        (names[condition_of(method)], _place(each), each["rate"], each["chance"], each["excess"], each["ci95"])
        for method in result["methods"]
        for each in method.get("repeats", ())
    )
    return Numbers("repeats", "How often answers repeat a demonstration's label, in %", columns, rows)


def _place(repeat: Mapping[str, Any]) -> str:
    place = repeat["from_end"]
    return "any" if place is None else "last" if place == 1 else f"{place} from the end"


def _agreement(result: Result) -> Numbers | None:
    columns = (
        NumberColumn("first", "first"),
        NumberColumn("second", "second"),
        NumberColumn("prompts", "conditions", "count"),
        NumberColumn("Spearman", "spearman", "ratio"),
        NumberColumn("95 %", "spearman_ci95", "ratios"),
        NumberColumn("turn round, %", "reversal", "percent"),
        NumberColumn("Kendall", "kendall", "ratio"),
        NumberColumn("95 %", "kendall_ci95", "ratios"),
    )
    keys = [column.name for column in columns]
    rows = tuple(tuple(each[key] for key in keys) for each in result.get("agreement", ()))
    return Numbers(
        "ranks", "How alike the same prompts are ranked, and how many pairs of them turn the two round", columns, rows
    )
