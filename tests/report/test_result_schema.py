"""What a report refuses to read of a run's result: one line that names the file and the place in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptkit.errors import RunError
from promptkit.report.result_schema import ComparisonSchema, check_shape

SPREAD = {"mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5}
PLACE = {"method": "zero-shot", "template": "a/b", "k": 0}
COST = {"flops": 1.5, "seconds": 0.5}
TOKENS = dict.fromkeys(("template", "demonstrations", "input", "label", "generated", "choices"), 1.0)
TRIED = {"tried": 1, **COST}
POINT = {
    "rows": 4,
    "rows_hash": None,
    "runs": 1,
    "accuracy": SPREAD,
    "accuracies": [0.5],
    "failed": None,
    "cost": {"per_1000_shared": 1.0, "per_1000_recomputed": 2.0},
}
RESULT = {
    "task": "t",
    "model": "m",
    "records": {"test": 2, "pool": 2},
    "break_even": {},
    "notes": [],
    "cells": [{**PLACE, "n": 2, "accuracy": 0.5, "ci95": [0.1, 0.9], "cost": COST}],
    "methods": [{**PLACE, "runs": 1, "accuracy": SPREAD, "cost": COST}],
    "ledger": {
        "conditions": [{**PLACE, "tokens_per_item": TOKENS, "training": None}],
        "choosing": {"prompts": TRIED, "adapters": TRIED},
        "break_even_money": {},
        "prices": None,
    },
    "curves": {
        "lines": [{"name": "lora", "kind": "trained", "method": "lora", "template": "a/b", "points": [POINT]}],
        "crossings": [],
    },
}


def test_a_result_is_read_as_it_was_written() -> None:
    """A comparison with its ledger and its curves is taken."""
    check_shape(Path("compare.json"), RESULT, ComparisonSchema)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("cells.0.accuracy", 1.5),
        ("cells.0.cost.flops", -1.0),
        ("cells.0.ci95", [0.1]),
        ("methods.0.accuracy.mean", float("inf")),
        ("methods.0.cost.seconds", 1e308),
        ("records.test", 10**30),
        ("ledger.conditions.0.tokens_per_item.demonstrations", [None]),
        ("ledger.conditions.0.training", {"flops": 1.0}),
        ("ledger.conditions.0.money", {"local": None}),
        ("ledger.choosing.adapters.tried", "1"),
        ("ledger.prices", {"currency": "EUR"}),
        ("curves.lines", []),
        ("curves.lines.0.kind", "x"),
        ("curves.lines.0.points", []),
        ("curves.lines.0.points.0.cost.per_1000_shared", None),
        ("curves.crossings", [{}]),
    ],
)
def test_other_values_are_one_line_with_their_place(place: str, value: Any) -> None:
    """Text for a number, a share above 1, a negative count, an infinite mean, a list without entries."""
    content: Any = json.loads(json.dumps(RESULT))
    *inner, last = place.split(".")
    part = content
    for key in inner:
        part = part[int(key)] if key.isdecimal() else part[key]
    part[last] = value
    with pytest.raises(
        RunError, match=rf"^compare.json: {place.split('.')[0]}.*; give the same command again"
    ) as caught:
        check_shape(Path("compare.json"), content, ComparisonSchema)
    assert "\n" not in str(caught.value)
