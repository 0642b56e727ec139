"""Made-up comparisons for the tests of the reports."""

from __future__ import annotations

import random
from typing import Any

ITEMS = 200


def cost(tokens: int, flops: float, seconds: float = 2.0) -> dict[str, Any]:
    """Return a cost over all test items."""
    return {
        "tokens_prompted": 2 * tokens * ITEMS,
        "tokens_computed": tokens * ITEMS,
        "flops": flops * ITEMS,
        "seconds": seconds,
        "peak_memory_bytes": 512_000_000,
    }


CONDITIONS: list[dict[str, Any]] = [
    {"method": "zero-shot", "k": 0, "runs": 1, "mean": 0.62, "std": 0.0, "cost": cost(42, 6.0e8)},
    {"method": "few-shot", "k": 1, "runs": 10, "mean": 0.66, "std": 0.05, "cost": cost(60, 1.2e9)},
    {"method": "few-shot", "k": 4, "runs": 10, "mean": 0.74, "std": 0.06, "cost": cost(61, 2.6e9, 8.0)},
    {"method": "zero-shot-cot", "k": 0, "runs": 1, "mean": 0.58, "std": 0.0, "cost": cost(85, 2.1e9, 45.0)},
    {"method": "few-shot-cot", "k": 4, "runs": 10, "mean": 0.71, "std": 0.05, "cost": cost(140, 5e9, 60.0)},
    {
        "method": "lora",
        "k": None,
        "train_rows": 4,
        "runs": 3,
        "mean": 0.64,
        "std": 0.03,
        "cost": cost(42, 6.2e8),
    },
    {
        "method": "lora",
        "k": None,
        "train_rows": 1000,
        "runs": 3,
        "mean": 0.89,
        "std": 0.01,
        "cost": cost(42, 6.2e8),
    },
]


def comparison(**changes: Any) -> dict[str, Any]:
    """Return a comparison as `--json` prints it, with the given keys changed."""
    methods, cells = [], []
    for condition in CONDITIONS:
        made = _cells(condition)
        cells += made
        methods.append(_summary(condition, made))
    result: dict[str, Any] = {
        "task": "reviews",
        "model": "tiny",
        "run": "runs/reviews-1a2b3c4d",
        "labels": ["negative", "positive"],
        "chance": 0.5,
        "records": {"test": ITEMS, "pool": 1000},
        "cells": cells,
        "methods": methods,
        "paired": {
            "prompt": {**_name(CONDITIONS[2]), "draw": {"seed": 3, "order": 3}},
            "lora": {**_name(CONDITIONS[6]), "draw": {"seed": 0}},
            "difference": 0.09,
            "ci95": [0.035, 0.145],
            "p_value": 0.0081,
            "prompt_only_right": 12,
            "lora_only_right": 30,
        },
        "break_even": {
            "few-shot k=4": {"items": 1234, "items_prefix_shared": 56789},
            "few-shot-cot k=4": {"items": 321, "items_prefix_shared": 654},
        },
        "notes": ["Demonstrations were dropped in 0 prompts."],
        "figures": ["runs/reviews-1a2b3c4d/compare.svg", "runs/reviews-1a2b3c4d/compare.png"],
    }
    return result | changes


def _name(condition: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": condition["method"],
        "template": condition.get("template", "sentiment/plain"),
        "k": condition["k"],
        "train_rows": condition.get("train_rows"),
    }


def _cells(condition: dict[str, Any]) -> list[dict[str, Any]]:
    rng = random.Random(f"{condition['method']} {condition['k']}")
    accuracies = [condition["mean"] + condition["std"] * rng.gauss(0, 1) for _ in range(condition["runs"])]
    return [
        {
            **_name(condition),
            "draw": {"seed": seed, "order": seed},
            "n": ITEMS,
            "accuracy": accuracy,
            "ci95": [accuracy - 0.06, accuracy + 0.06],
            "macro_f1": accuracy - 0.01,
            "unread": 3 if "cot" in condition["method"] else 0,
            "cost": condition["cost"] | {"flops": condition["cost"]["flops"] * rng.uniform(0.9, 1.1)},
        }
        for seed, accuracy in enumerate(accuracies)
    ]


def _summary(condition: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    seen = [cell["accuracy"] for cell in cells]
    mean = sum(seen) / len(seen)
    spread = {"mean": mean, "std": condition["std"], "min": min(seen), "max": max(seen)}
    return {
        **_name(condition),
        "runs": len(cells),
        "accuracy": spread | {"ci95": [mean - 0.06, mean + 0.06]},
        "macro_f1": {"mean": mean - 0.01},
        "unread": cells[0]["unread"],
        "cost": condition["cost"],
        "train_cost": cost(9000, 4e9, 41.0) if condition["method"] == "lora" else None,
    }
