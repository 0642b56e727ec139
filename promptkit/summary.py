"""Finished cells into the object that `--json` prints: figures per cell, per method, and between methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptkit.cost import Cost, Shape, break_even, mean_cost, prompt_flops, shape_of
from promptkit.evaluate import Condition, right_answers, summarize_cell
from promptkit.splits import Splits
from promptkit.stats import bootstrap_interval, mcnemar, paired_interval
from promptkit.stats import summarize as summarize_runs
from promptkit.task import Task

if TYPE_CHECKING:
    from promptkit.models import Model


@dataclass(frozen=True)
class Finished:
    """One computed cell: what it was, its stored result, its cost; for LoRA the training's too."""

    condition: Condition
    result: Mapping[str, Any]
    cost: Cost
    seed: int | None = None
    train_rows: int | None = None
    trained: Mapping[str, Any] | None = None
    train_cost: Cost | None = None

    @property
    def group(self) -> tuple[str, str, int, int]:
        """What runs of one method have in common."""
        return (
            self.condition.method,
            self.condition.bound.template.name,
            self.condition.k,
            self.train_rows or 0,
        )


def summarize(task: Task, model: Model, splits: Splits, finished: Sequence[Finished]) -> dict[str, Any]:
    """Return the comparison as JSON; the keys are those of the command line's `--json`."""
    groups = [list(group) for _, group in groupby(finished, key=lambda cell: cell.group)]
    labels = Counter(record.label for record in splits.test)
    return {
        "task": task.name,
        "model": model.name,
        "labels": list(task.labels) if task.labels else None,
        "chance": 1 / len(task.labels) if task.labels else None,
        "majority": max(labels.values()) / len(splits.test) if task.labels else None,
        "records": {"test": len(splits.test), "pool": len(splits.pool), "validation": len(splits.validation)},
        "cells": [_cell(task, cell) for cell in finished],
        "methods": [_method(task, group) for group in groups],
        "paired": _paired(groups),
        "break_even": _break_even(shape_of(model.network), groups),
        "notes": [*splits.notes, *_notes(finished)],
    }


def _name(cell: Finished) -> dict[str, Any]:
    draw = cell.condition.draw
    seed = None if cell.seed is None else {"seed": cell.seed}
    return {
        "method": cell.condition.method,
        "template": cell.condition.bound.template.name,
        "k": cell.condition.k,
        "draw": {"seed": draw.seed, "order": draw.order} if draw else seed,
        "train_rows": cell.train_rows,
    }


def _cell(task: Task, cell: Finished) -> dict[str, Any]:
    row = {
        **_name(cell),
        **summarize_cell(task, cell.result),
        "cost": cell.cost.as_dict(),
    }
    if cell.train_cost and cell.trained:
        row["train_cost"] = cell.train_cost.as_dict()
        row["training"] = {key: cell.trained[key] for key in ("epochs", "best_epoch", "losses", "validation")}
    return row


def _method(task: Task, cells: Sequence[Finished]) -> dict[str, Any]:
    right = [right_answers(cell.result) for cell in cells]
    figures = [summarize_cell(task, cell.result) for cell in cells]
    accuracy = summarize_runs([fmean(answers) for answers in right])
    train_costs = [cell.train_cost for cell in cells if cell.train_cost]
    first = cells[0]
    return {
        "method": first.condition.method,
        "template": first.condition.bound.template.name,
        "k": first.condition.k,
        "train_rows": first.train_rows,
        "runs": len(cells),
        "accuracy": {**accuracy.as_dict(), "ci95": bootstrap_interval(right).as_list()},
        "macro_f1": summarize_runs([f["macro_f1"] for f in figures]).as_dict() if task.labels else None,
        "unread": fmean(f["unread"] for f in figures),
        "cost": mean_cost(cell.cost for cell in cells).as_dict(),
        "train_cost": mean_cost(train_costs).as_dict() if train_costs else None,
    }


def _paired(groups: Sequence[Sequence[Finished]]) -> dict[str, Any] | None:
    """Compare the best prompt cell with the LoRA run of median accuracy, and with all LoRA runs' mean."""
    prompts = [cell for group in groups for cell in group if cell.train_rows is None]
    trained = _largest_training(groups)
    if not prompts or not trained:
        return None
    best = max(prompts, key=lambda cell: sum(right_answers(cell.result)))
    by_accuracy = sorted(trained, key=lambda cell: sum(right_answers(cell.result)))
    median = by_accuracy[(len(by_accuracy) - 1) // 2]
    prompt_right, runs = right_answers(best.result), [right_answers(cell.result) for cell in trained]
    lora_right = [fmean(answers) for answers in zip(*runs, strict=True)]
    test = mcnemar(prompt_right, right_answers(median.result))
    return {
        "prompt": _name(best),
        "lora": _name(median),
        "difference": fmean(lora_right) - fmean(prompt_right),
        "ci95": paired_interval(lora_right, prompt_right).as_list(),
        "p_value": test.p_value,
        "prompt_only_right": test.first_only,
        "lora_only_right": test.second_only,
        "lora_runs": len(runs),
    }


def _largest_training(groups: Sequence[Sequence[Finished]]) -> Sequence[Finished]:
    """Return the LoRA runs on the most rows; of several templates the one that is right most often."""
    trained = [group for group in groups if group[0].train_rows]
    if not trained:
        return ()
    most = max(group[0].train_rows or 0 for group in trained)
    return max(
        (group for group in trained if group[0].train_rows == most),
        key=lambda group: fmean(sum(right_answers(cell.result)) for cell in group),
    )


def _break_even(shape: Shape, groups: Sequence[Sequence[Finished]]) -> dict[str, Any]:
    """Return, per prompt condition, the test items from which one training on the pool is cheaper.

    The first condition of a method is keyed by the method's name; further ones say what differs.
    """
    trained = _largest_training(groups)
    if not trained:
        return {}
    train_flops = fmean(cell.train_cost.flops for cell in trained if cell.train_cost)
    zero_shot = _prompt_flops(replace(shape, adapter=_adapter_weights(trained[0])), trained)
    counts: dict[str, Any] = {}
    for group in (group for group in groups if group[0].train_rows is None):
        condition = group[0].condition
        prompt = _prompt_flops(shape, group)
        name = condition.method
        if name in counts:
            name = f"{name} k={condition.k}" if condition.k else f"{name} {condition.bound.template.name}"
        if name in counts:
            name = f"{condition.method} k={condition.k} {condition.bound.template.name}"
        counts[name] = {
            "items": break_even(train_flops, prompt.recomputed, zero_shot.recomputed),
            "items_prefix_shared": break_even(
                train_flops, prompt.shared, zero_shot.shared, prompt.once - zero_shot.once
            ),
        }
    return counts


def _prompt_flops(shape: Shape, cells: Sequence[Finished]) -> Any:
    """Return the mean cost of a prompt of these cells: its tokens were counted when it was scored."""
    items = len(cells[0].result["predictions"])
    prompt = fmean(cell.result["prompt_tokens"] for cell in cells)
    query = min(fmean(cell.result["query_tokens"] for cell in cells), prompt)
    generated = fmean(cell.result["tokens_generated"] for cell in cells) / items
    return prompt_flops(shape, round(prompt - query), max(1, round(query)), generated=round(generated))


def _adapter_weights(cell: Finished) -> int:
    return int((cell.trained or {})["adapter_weights"])


def _notes(finished: Sequence[Finished]) -> list[str]:
    """Say what a reader of the figures must know: joins, drops, limits, and what the scorer noticed."""
    notes = []
    counted = {
        "spanning": "choices shared a token with the end of their prompt (see docs/scoring.md)",
        "unfinished": "rationales were still going on at the token limit",
        "dropped": "demonstrations were dropped because their prompts did not fit the window",
    }
    for key, what in counted.items():
        total = sum(cell.result[key] for cell in finished)
        if total:
            notes.append(f"{total:,} {what}")
    said = dict.fromkeys(note for cell in finished for note in cell.result["notes"])
    return [*notes, *said]
