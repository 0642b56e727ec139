"""Made-up study runs for the tests of the report: folders as a study leaves them, without any model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow
import pyarrow.parquet

from promptkit.experiments.run_folder import Run
from promptkit.report.run_source import VARIED, RunSource, load_source
from promptkit.storage.parsing import cell_key

RECORDS = 20
HASHES = dict.fromkeys(("task_hash", "test", "pool"), "0")
SETTINGS = {"command": "study", "task": "nothing", "seed": 0, "split": "test", "limit": None, "train_limit": None}


def write_study(
    folder: Path,
    *,
    shots: Sequence[int] = (2, 4),
    orders: Sequence[Sequence[str]] = (("0", "1"), ("0", "1")),
    templates: Sequence[str] = ("films/plain",),
    **changes: Any,
) -> RunSource:
    """Write a run with a draw per entry of `orders`, shown in those orders, and return it as it is read.

    Record i is right in a cell where the cell's number times i is no multiple of 3: the same every time.
    """
    run = Run.open(folder, {**SETTINGS, **HASHES})
    cells, rows = [], []
    for template, k, (draw, own) in product(templates, shots, enumerate(orders)):
        for order in own:
            factors = {"model": "tiny", "method": "few-shot", "template": template, "selection": "balanced"}
            factors |= {"k": str(k), "draw": str(draw), "order": order}
            right = [(len(cells) + 1) * item % 3 != 0 for item in range(RECORDS)]
            spec = {**factors, "made": "up"}
            run.save(spec, {"right": right})
            cells.append(_cell(factors, fmean(right)))
            rows += [_row(cell_key(spec), item, is_right) for item, is_right in enumerate(right)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "predictions.parquet")
    (folder / "study.json").write_text(json.dumps(_result(cells) | changes))
    return load_source(folder)


def _row(key: str, item: int, right: bool) -> dict[str, Any]:
    predicted = item % 2 if right else 1 - item % 2
    return {"cell": key, "id": f"r{item}", "label": str(item % 2), "predicted": str(predicted), "right": right}


def _cell(factors: dict[str, str], accuracy: float) -> dict[str, Any]:
    return {
        "method": factors["method"],
        "template": factors["template"],
        "k": int(factors["k"]),
        "draw": {"seed": int(factors["draw"]), "order": factors["order"]},
        "train_rows": None,
        "n": RECORDS,
        "accuracy": accuracy,
        "ci95": [accuracy - 0.1, accuracy + 0.1],
        "macro_f1": accuracy,
        "dropped": 0,
        "cost": {"flops": 1e9 * int(factors["k"]), "seconds": 1.0},
        "factors": factors,
    }


def _result(cells: list[dict[str, Any]]) -> dict[str, Any]:
    several = [axis for axis in ("k", "draw", "order") if len({cell["factors"][axis] for cell in cells}) > 1]
    own = [{"factor": axis, "share": 0.125, "ci95": [0.0, 0.25], "between": 0.25} for axis in several]
    rest = [{"factor": "items", "share": 1 - 0.125 * len(own), "ci95": [0.4, 0.8], "between": None}]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["template"], cell["k"]), []).append(cell)
    axes = {axis: list(dict.fromkeys(cell["factors"][axis] for cell in cells)) for axis in cells[0]["factors"]}
    return {
        "task": "nothing",
        "model": "tiny",
        "models": ["tiny"],
        "preset": {"reference": "", "about": ""},
        "labels": ["negative", "positive"],
        "chance": 0.5,
        "majority": 0.5,
        "records": {"test": RECORDS, "pool": 100, "validation": 10},
        "axes": axes,
        "cells": cells,
        "methods": [_method(group) for group in groups.values()],
        "break_even": {},
        "levels": {},
        "factors": own + rest,
        "verdict": ["Nothing is shown."],
        "notes": [],
    }


def _method(group: list[dict[str, Any]]) -> dict[str, Any]:
    seen = [cell["accuracy"] for cell in group]
    spread = {"mean": fmean(seen), "std": stdev(seen) if len(seen) > 1 else 0.0, "min": min(seen), "max": max(seen)}
    kept = {key: group[0][key] for key in ("method", "template", "k", "train_rows", "cost")}
    factors = {axis: value for axis, value in group[0]["factors"].items() if axis not in VARIED}
    interval = [spread["mean"] - 0.1, spread["mean"] + 0.1]
    accuracy = spread | {"ci95": interval}
    return {**kept, "runs": len(group), "accuracy": accuracy, "factors": factors, "spread": max(seen) - min(seen)}
