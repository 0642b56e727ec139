"""Tabulate learning curves: every point, and who is ahead at which size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptkit.report.curve_table import HEADINGS, name_prompt
from promptkit.report.numbers import NumberColumn, Numbers

Result = Mapping[str, Any]


def count_curves(result: Result) -> list[Numbers]:
    """Return the tables of a comparison with `--train-sizes`; none of any other run."""
    curves = result.get("curves")
    return [_count_points(curves), _count_size_comparisons(curves)] if curves else []


def _count_points(curves: Result) -> Numbers:
    columns = (
        NumberColumn("line", "line"),
        NumberColumn("template", "template"),
        NumberColumn("labelled rows", "rows", "count"),
        NumberColumn("runs", "runs", "count"),
        NumberColumn("mean", "mean", "percent"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("min", "min", "percent"),
        NumberColumn("max", "max", "percent"),
        NumberColumn("failed", "failed", "count"),
        NumberColumn("1,000 records, shared", "flop_per_1000_shared", "flop"),
        NumberColumn("recomputed", "flop_per_1000_recomputed", "flop"),
        NumberColumn("hash of the rows", "rows_hash"),
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


def _count_size_comparisons(curves: Result) -> Numbers:
    columns = (
        NumberColumn("against", "against"),
        NumberColumn("template", "template"),
        NumberColumn("labelled rows", "rows", "count"),
        NumberColumn("prompt", "prompt"),
        NumberColumn("LoRA", "lora", "percent"),
        NumberColumn("prompt's accuracy", "prompt_accuracy", "percent"),
        NumberColumn("LoRA minus prompt", "difference", "points"),
        NumberColumn("95 %", "ci95", "points-interval"),
        NumberColumn("p, Holm", "adjusted", "p"),
        NumberColumn("ahead", "ahead"),
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
