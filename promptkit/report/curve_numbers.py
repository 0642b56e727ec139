"""Curves into tables of numbers: every point, and who is ahead at which size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptkit.report.curve_table import HEADINGS, name_prompt
from promptkit.report.numbers import Column, Numbers

Result = Mapping[str, Any]


def count_curves(result: Result) -> list[Numbers]:
    """Return the tables of a comparison with `--train-sizes`; none of any other run."""
    curves = result.get("curves")
    return [_count_points(curves), _count_contests(curves)] if curves else []


def _count_points(curves: Result) -> Numbers:
    columns = (
        Column("line", "line"),
        Column("template", "template"),
        Column("labelled rows", "rows", "count"),
        Column("runs", "runs", "count"),
        Column("mean", "mean", "percent"),
        Column("95 %", "ci95", "interval"),
        Column("min", "min", "percent"),
        Column("max", "max", "percent"),
        Column("failed", "failed", "count"),
        Column("1,000 records, shared", "flop_per_1000_shared", "flop"),
        Column("recomputed", "flop_per_1000_recomputed", "flop"),
        Column("hash of the rows", "rows_hash"),
    )
    rows = []
    for line in curves["lines"]:
        for point in line["points"]:
            accuracy, cost = point["accuracy"], point["cost"]
            figures = [accuracy["mean"], accuracy.get("ci95"), accuracy["min"], accuracy["max"], point["failed"]]
            paid = [cost["per_1000_shared"], cost["per_1000_recomputed"]]
            named = [line["name"], line["template"], point["rows"], point["runs"]]
            rows.append((*named, *figures, *paid, point["rows_hash"]))
    return Numbers("curves", "Against labelled rows: accuracy in %, cost with training", columns, tuple(rows))


def _count_contests(curves: Result) -> Numbers:
    columns = (
        Column("against", "against"),
        Column("template", "template"),
        Column("labelled rows", "rows", "count"),
        Column("prompt", "prompt"),
        Column("LoRA", "lora", "percent"),
        Column("prompt's accuracy", "prompt_accuracy", "percent"),
        Column("LoRA minus prompt", "difference", "points"),
        Column("95 %", "ci95", "points-interval"),
        Column("p, Holm", "adjusted", "p"),
        Column("ahead", "ahead"),
    )
    rows = tuple(
        (
            HEADINGS[crossing["against"]],
            crossing["template"],
            size["rows"],
            name_prompt(size),
            size["accuracy"]["lora"],
            size["accuracy"]["prompt"],
            size["difference"],
            size["ci95"],
            size["adjusted"],
            size["ahead"] or "open",
        )
        for crossing in curves["crossings"]
        for size in crossing["sizes"]
    )
    return Numbers("contests", "LoRA beside the best prompt of no more labelled rows, in %", columns, rows)
