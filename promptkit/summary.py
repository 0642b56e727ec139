"""Finished cells into the object that `--json` prints: figures per cell, per method, and between methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptkit.cost import Cost, PromptFlops, Shape, break_even, mean_cost, prompt_flops, shape_of
from promptkit.evaluate import Condition, right_answers, summarize_cell
from promptkit.metrics import Answer
from promptkit.readings import NOT_FOR_COT, Readings, measure_cell, measure_method, read_predictions
from promptkit.score.votes import mean_votes
from promptkit.splits import Splits
from promptkit.stats import bootstrap_interval, macro_f1_interval, mcnemar, paired_interval
from promptkit.stats import summarize as summarize_runs
from promptkit.task import Task

if TYPE_CHECKING:
    from promptkit.models import Model


@dataclass(frozen=True)
class Finished:
    """One computed cell: what it was, its stored result, its cost; for LoRA the training's too.

    `whole` tells an adapter trained on the whole pool from one trained on as many rows as a prompt shows.
    """

    condition: Condition
    result: Mapping[str, Any]
    cost: Cost
    seed: int | None = None
    train_rows: int | None = None
    whole: bool = False
    trained: Mapping[str, Any] | None = None
    train_cost: Cost | None = None

    @property
    def group(self) -> tuple[str, str, int, int, bool]:
        """What runs of one method have in common."""
        template = self.condition.bound.template.name
        return self.condition.method, template, self.condition.k, self.train_rows or 0, self.whole

    @cached_property
    def readings(self) -> Readings:
        """What is predicted under every score and calibration that was asked for."""
        return read_predictions(self.result)

    @property
    def labels(self) -> list[Answer]:
        """The right answers, in the order of the predictions."""
        return [row["label"] for row in self.result["predictions"]]


def summarize(task: Task, model: Model, splits: Splits, finished: Sequence[Finished]) -> dict[str, Any]:
    """Return the comparison as JSON; the keys are those of the command line's `--json`."""
    groups = [list(group) for _, group in groupby(finished, key=lambda cell: cell.group)]
    labels = Counter(record.label for record in splits.test)
    return {
        "task": task.name,
        "model": model.name,
        "labels": list(task.labels) if task.labels else None,
        "metric": task.metric,
        "chance": guess_accuracy(task, splits),
        "majority": max(labels.values()) / len(splits.test) if task.labels else None,
        "records": {"test": len(splits.test), "pool": len(splits.pool), "validation": len(splits.validation)},
        "cells": [describe_cell(task, cell) for cell in finished],
        "methods": [describe_method(task, group) for group in groups],
        "paired": _paired(task, groups),
        "break_even": count_break_even(shape_of(model.network), groups),
        "notes": [*splits.notes, *describe_notes(finished)],
    }


def guess_accuracy(task: Task, splits: Splits) -> float | None:
    """Return the accuracy of guessing; None where the answer is free text."""
    if task.labels:
        return 1 / len(task.labels)
    return fmean(1 / len(record.choices or "?") for record in splits.test) if task.has_choices else None


def _merit(task: Task, cell: Finished) -> float:
    """Return what a cell is preferred by: the task's own metric."""
    figures = summarize_cell(task, cell.result)
    return float(figures["macro_f1"] if task.metric == "macro_f1" and task.labels else figures["accuracy"])


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


def describe_cell(task: Task, cell: Finished) -> dict[str, Any]:
    """Return a cell as `--json` shows it: what it is, its figures, its cost."""
    row = {
        **_name(cell),
        **summarize_cell(task, cell.result),
        "cost": cell.cost.as_dict(),
    }
    if cell.readings:
        row["calibrations"] = measure_cell(cell.readings, cell.labels, len(task.labels or ()))
    if cell.train_cost and cell.trained:
        row["train_cost"] = cell.train_cost.as_dict()
        row["training"] = {key: cell.trained[key] for key in ("epochs", "best_epoch", "losses", "validation")}
    return row


def describe_method(task: Task, cells: Sequence[Finished]) -> dict[str, Any]:
    """Return the runs of one method together: mean, spread and interval, mean cost."""
    right = [right_answers(cell.result) for cell in cells]
    figures = [summarize_cell(task, cell.result) for cell in cells]
    accuracy = summarize_runs([fmean(answers) for answers in right])
    train_costs = [cell.train_cost for cell in cells if cell.train_cost]
    first = cells[0]
    row: dict[str, Any] = {
        "method": first.condition.method,
        "template": first.condition.bound.template.name,
        "k": first.condition.k,
        "train_rows": first.train_rows,
        "runs": len(cells),
        "accuracy": {**accuracy.as_dict(), "ci95": bootstrap_interval(right).as_list()},
        "macro_f1": _macro_f1(task, cells, [f["macro_f1"] for f in figures]) if task.labels else None,
        "unread": fmean(f["unread"] for f in figures),
        **mean_votes(figures),
        "cost": mean_cost(cell.cost for cell in cells).as_dict(),
        "train_cost": mean_cost(train_costs).as_dict() if train_costs else None,
    }
    if first.readings:
        readings = [cell.readings for cell in cells]
        row["calibrations"] = measure_method(readings, first.labels, len(task.labels or ()))
    return row


def _macro_f1(task: Task, cells: Sequence[Finished], values: Sequence[float]) -> dict[str, Any]:
    rows = [cell.result["predictions"] for cell in cells]
    predicted = [[row["predicted"] for row in run] for run in rows]
    interval = macro_f1_interval(predicted, [row["label"] for row in rows[0]], len(task.labels or ()))
    return {**summarize_runs(values).as_dict(), "ci95": interval.as_list()}


def _paired(task: Task, groups: Sequence[Sequence[Finished]]) -> dict[str, Any] | None:
    """Compare the best prompt cell with the LoRA run of median accuracy, and with all LoRA runs' mean."""
    prompts = [cell for group in groups for cell in group if cell.train_rows is None]
    trained = _trained_on_pool(groups)
    if not prompts or not trained:
        return None
    best = max(prompts, key=lambda cell: _merit(task, cell))
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


def _trained_on_pool(groups: Sequence[Sequence[Finished]]) -> Sequence[Finished]:
    """Return the LoRA runs on the whole pool; of several templates the one that is right most often."""
    trained = [group for group in groups if group[0].whole]
    return max(trained, key=lambda group: fmean(sum(right_answers(cell.result)) for cell in group), default=())


def count_break_even(shape: Shape, groups: Sequence[Sequence[Finished]]) -> dict[str, Any]:
    """Return, per prompt condition, the test items from which one training on the pool is cheaper.

    The adapter is taken as merged, so its zero-shot prompts cost what the base model's do. The first
    condition of a method is keyed by the method's name; further ones say what differs.
    """
    trained = _trained_on_pool(groups)
    if not trained:
        return {}
    train_flops = fmean(cell.train_cost.flops for cell in trained if cell.train_cost)
    adapter = _prompt_flops(shape, trained)
    counts: dict[str, Any] = {}
    for group in (group for group in groups if group[0].train_rows is None):
        condition, prompt = group[0].condition, _prompt_flops(shape, group)
        template = condition.bound.template.name
        shots = f"{condition.method} k={condition.k}"
        name = next(name for name in (condition.method, shots, f"{shots} {template}") if name not in counts)
        counts[name] = {
            "items": break_even(train_flops, prompt.recomputed, adapter.recomputed),
            "items_prefix_shared": break_even(train_flops, prompt.shared, adapter.shared, prompt.once - adapter.once),
            "k": condition.k,
            "template": template,
        }
    return counts


def _prompt_flops(shape: Shape, cells: Sequence[Finished]) -> PromptFlops:
    """Return the mean cost of a prompt of these cells, whose tokens were counted when it was scored.

    Choices are left out: they cost the same behind every prompt.
    """
    items = len(cells[0].result["predictions"])
    prompt = fmean(cell.result["prompt_tokens"] for cell in cells)
    query = min(fmean(cell.result["query_tokens"] for cell in cells), prompt)
    generated = fmean(cell.result["tokens_generated"] for cell in cells) / items
    return prompt_flops(shape, round(prompt - query), max(1, round(query)), generated=round(generated))


def describe_notes(finished: Sequence[Finished]) -> list[str]:
    """Say what a reader of the figures must know: joins, drops, limits, and what the scorer noticed."""
    notes = []
    counted = {
        "spanning": "prompts, all cells together, share a token with one of their choices (see docs/scoring.md)",
        "unfinished": "rationales were still going on at the token limit",
        "dropped": "demonstrations were dropped because their prompts did not fit the window",
    }
    for key, what in counted.items():
        total = sum(cell.result[key] for cell in finished)
        if total:
            notes.append(f"{total:,} {what}")
    if len({bool(cell.readings) for cell in finished}) > 1:
        notes.append(NOT_FOR_COT)
    said = dict.fromkeys(note for cell in finished for note in cell.result["notes"])
    return [*notes, *said]
