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


def point(rows: int, mean: float, k: int = 0, runs: int = 3, failed: int = 0) -> dict[str, Any]:
    """Return a point of a curve."""
    spread = {"mean": mean, "std": 0.02, "min": mean - 0.02, "max": mean + 0.02, "ci95": [mean - 0.06, mean + 0.05]}
    return {
        "rows": rows,
        "rows_hash": None,
        "k": k,
        "runs": runs,
        "seeds": list(range(runs)),
        "draws": None,
        "accuracy": spread,
        "accuracies": [mean + 0.02 * (run - 1) for run in range(runs)],
        "failed": failed,
        "dropped": 0,
        "cost": {
            "training": 1e9 * rows,
            "per_1000_shared": 1e11 + 1e9 * rows,
            "per_1000_recomputed": 2e11 + 1e10 * rows,
        },
    }


def curves(template: str = "sentiment/plain") -> dict[str, Any]:
    """Return curves in which LoRA passes prompting between 128 and 2,048 rows, undecided at 512."""
    sizes = (32, 128, 512, 2048)
    named = {"shared": "few-shot", "retrieved": "few-shot k=16 bm25", "trained": "lora"}
    points = {
        "zero-shot": [point(0, 0.62, runs=1)],
        "shared": [point(4, 0.72, 4, 10), point(16, 0.76, 16, 10)],
        "retrieved": [point(size, 0.7 + 0.02 * place, 16, 1) for place, size in enumerate(sizes)],
        "trained": [point(size, 0.5 + 0.13 * place, failed=int(not place)) for place, size in enumerate(sizes)],
    }
    lines = [
        {
            "name": named.get(kind, kind),
            "kind": kind,
            "method": named.get(kind, kind).split()[0],
            "template": template,
            "points": made,
        }
        for kind, made in points.items()
    ]
    prompt = {"method": "few-shot", "k": 16, "template": template, "train_rows": None}
    contests = [
        {
            "rows": size,
            "prompt": prompt | ({"retrieval": "bm25", "pool_rows": size} if size > 32 else {}),
            "accuracy": {"lora": 0.76 + gap, "prompt": 0.76},
            "difference": gap,
            "ci95": [gap - 0.06, gap + 0.06],
            "p_value": 0.002,
            "adjusted": 0.0004 if abs(gap) > 0.1 else 0.21,
            "ahead": ahead,
        }
        for size, gap, ahead in zip(sizes, (-0.26, -0.13, 0.0, 0.13), ("prompt", "prompt", None, "lora"), strict=True)
    ]
    crossing = {
        "against": "prompting",
        "template": template,
        "sizes": contests,
        "changes": [{"between": [128, 2048], "to": "lora"}],
        "leads": {"who": "lora", "rows": 512.0, "ci95": [220.4, None]},
    }
    return {"sizes": list(sizes), "lines": lines, "crossings": [crossing]}


def ledger(prices: bool = False) -> dict[str, Any]:
    """Return the ledger of the made-up comparison."""
    rows = []
    for condition in CONDITIONS:
        trained = condition["method"] == "lora"
        tokens = {"template": 14.0, "demonstrations": 30.0 * (condition["k"] or 0), "input": 32.0, "label": 2.0}
        rows.append(
            {
                **_name(condition),
                "runs": condition["runs"],
                "tokens_per_item": tokens | {"generated": 40.0 * ("cot" in condition["method"]), "choices": 2.0},
                "flops_per_item": {"recomputed": 2e9, "shared": 1e9, "once": 1e9},
                "training": {
                    "rows": condition["train_rows"],
                    "epochs": 5.0,
                    "tokens": {"template": 7e4, "input": 1.6e5, "completion": 5e3, "validation": 800.0},
                    "flops": 4e12,
                    "seconds": 41.0,
                    "peak_memory_bytes": 512_000_000,
                }
                if trained
                else None,
                **({"money": _money(trained)} if prices else {}),
            }
        )
    return {
        "conditions": rows,
        "choosing": {
            "prompts": {"tried": 32, "flops": 3e13, "seconds": 400.0},
            "adapters": {"tried": 6, "seeds": [0, 1, 2], "flops": 3e13, "seconds": 300.0},
        },
        "prices": {"currency": "EUR", "local": {"per_hour": 1.0}, "tokens": None} if prices else None,
        "break_even_money": {"few-shot k=4": {"local": 1200, "recomputed": 345, "shared": None}} if prices else {},
        "assumptions": ["Training is one adapter on 1,000 rows.", "Shared: demonstrations are computed once."],
    }


def _money(trained: bool) -> dict[str, Any]:
    local = {"per_1000": 0.012, "training": 0.4 if trained else None}
    tokens = {"recomputed": 1.25, "shared": 0.25, "once": 0.001, "training": 12.5 if trained else None}
    return {"local": local, "tokens": tokens}
