"""Compute the result of a comparison from its finished cells: figures per cell, per method, and between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptkit.analysis.cell_figures import LOW_MASS, LOW_MASS_MEANS, measure_mass, right_answers, summarize_cell
from promptkit.analysis.cells import FinishedCell
from promptkit.analysis.sentences import describe_cautions
from promptkit.costs.flops import PromptFlops, Shape, break_even, mean_cost, prompt_flops, shape_of
from promptkit.data.splits import Splits
from promptkit.data.tasks import Task
from promptkit.scoring.scoring_rules import NOT_FOR_COT, measure_cell, measure_method
from promptkit.scoring.self_consistency import mean_votes
from promptkit.stats import bootstrap_interval, macro_f1_interval, mcnemar, paired_interval
from promptkit.stats import summarize as summarize_runs
from promptkit.stats.majority import describe_majority, find_majority

if TYPE_CHECKING:
    from promptkit.models import Model


def group_runs(finished: Sequence[FinishedCell]) -> list[list[FinishedCell]]:
    """Return the cells of each row of the table, in their order: runs of one condition."""
    return [list(group) for _, group in groupby(finished, key=lambda cell: cell.group)]


def summarize(
    task: Task, model: Model, splits: Splits, finished: Sequence[FinishedCell], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the comparison as JSON; the keys are those of the command line's `--json`. `notes` are further ones."""
    groups = group_runs(finished)
    chance, majority = guess_accuracy(task, splits), name_majority(task, splits)
    beaten = majority[1] if majority else chance
    methods = [{**describe_method(task, group), "failed": count_failed(group, beaten)} for group in groups]
    cautions = describe_cautions(methods, majority, task.labels)
    return {
        "task": task.name,
        "model": model.name,
        "labels": list(task.labels) if task.labels else None,
        "metric": task.metric,
        "chance": chance,
        "majority": majority[1] if majority else None,
        "records": {"test": len(splits.test), "pool": len(splits.pool), "validation": len(splits.validation)},
        "cells": [describe_cell(task, cell) for cell in finished],
        "methods": methods,
        "paired": _paired(task, groups),
        "break_even": count_break_even(shape_of(model.network), groups),
        "cautions": cautions,
        "notes": [
            *splits.notes,
            *notes,
            *describe_notes(finished),
            *describe_dropped(finished, "the best prompt and its test"),
            *cautions,
        ],
    }


def guess_accuracy(task: Task, splits: Splits) -> float | None:
    """Return the accuracy of guessing; None where the answer is free text."""
    if task.labels:
        return 1 / len(task.labels)
    return fmean(1 / len(record.choices or "?") for record in splits.test) if task.has_choices else None


def name_majority(task: Task, splits: Splits) -> tuple[str, float] | None:
    """Return the most frequent label of the test records and its rate; None where the task has no labels."""
    if not task.labels:
        return None
    label, rate = find_majority([record.label for record in splits.test])
    assert isinstance(label, int)
    return task.labels[label], rate


def count_failed(cells: Sequence[FinishedCell], beaten: float | None) -> int | None:
    """Return how many runs are right no more often than this share of the records, which takes no reading; or None.

    It is the rate of the most frequent label; where there are no labels, the accuracy of guessing.
    """
    return None if beaten is None else sum(fmean(right_answers(cell.result)) <= beaten for cell in cells)


def _merit(task: Task, cell: FinishedCell) -> float:
    """Return what a cell is preferred by: the task's own metric."""
    figures = summarize_cell(task, cell.result)
    return float(figures[task.merit])


def _name(cell: FinishedCell) -> dict[str, Any]:
    draw = cell.condition.draw
    seed = None if cell.seed is None else {"seed": cell.seed}
    return {**name_condition(cell), "draw": {"seed": draw.seed, "order": draw.order} if draw else seed}


def name_condition(cell: FinishedCell) -> dict[str, Any]:
    """Return what tells a cell's condition from others."""
    condition = cell.condition
    retrieval = condition.draw.selection if condition.draw else None
    return {
        "method": condition.method,
        "template": condition.bound.template.name,
        "k": condition.k,
        "train_rows": cell.train_rows,
        **({"retrieval": retrieval, "pool_rows": cell.pool_rows} if cell.pool_rows else {}),
    }


def describe_cell(task: Task, cell: FinishedCell) -> dict[str, Any]:
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
        row["training"]["metric"] = cell.trained.get("metric", "accuracy")
    return row


def describe_method(task: Task, cells: Sequence[FinishedCell]) -> dict[str, Any]:
    """Return the runs of one method together: mean, spread and interval, mean cost.

    `shown`, the mean number of demonstrations in a prompt, is there where some were dropped. `one_answer` and
    `against_majority` say whether it answers at all: see `promptkit.stats.majority`.
    """
    right = [right_answers(cell.result) for cell in cells]
    figures = [summarize_cell(task, cell.result) for cell in cells]
    accuracy = summarize_runs([fmean(answers) for answers in right])
    train_costs = [cell.train_cost for cell in cells if cell.train_cost]
    first, sampled = cells[0], [cell.sampled for cell in cells]
    predicted = [[row["predicted"] for row in cell.result["predictions"]] for cell in cells]
    row: dict[str, Any] = {
        **name_condition(first),
        **({"shown": fmean(cell.shown for cell in cells)} if any(cell.result["dropped"] for cell in cells) else {}),
        "runs": len(cells),
        "accuracy": {**accuracy.as_dict(), "ci95": bootstrap_interval(right, groups=sampled).as_list()},
        "macro_f1": _macro_f1(task, cells, [f["macro_f1"] for f in figures]) if task.labels else None,
        "unread": fmean(f["unread"] for f in figures),
        "choice_mass": _mean_mass(figures),
        **mean_votes(figures),
        **describe_majority(predicted, right if task.labels else None, first.labels, sampled),
        "cost": mean_cost(cell.cost for cell in cells).as_dict(),
        "train_cost": mean_cost(train_costs).as_dict() if train_costs else None,
    }
    if first.readings:
        readings = [cell.readings for cell in cells]
        row["calibrations"] = measure_method(readings, first.labels, len(task.labels or ()), sampled)
    return row


def _mean_mass(figures: Sequence[Mapping[str, Any]]) -> float | None:
    masses = [each["choice_mass"] for each in figures if each["choice_mass"] is not None]
    return fmean(masses) if masses else None


def _macro_f1(task: Task, cells: Sequence[FinishedCell], values: Sequence[float]) -> dict[str, Any]:
    rows = [cell.result["predictions"] for cell in cells]
    predicted = [[row["predicted"] for row in run] for run in rows]
    labels, groups = [row["label"] for row in rows[0]], [cell.sampled for cell in cells]
    interval = macro_f1_interval(predicted, labels, len(task.labels or ()), groups=groups)
    return {**summarize_runs(values).as_dict(), "ci95": interval.as_list()}


def _paired(task: Task, groups: Sequence[Sequence[FinishedCell]]) -> dict[str, Any] | None:
    """Compare the best prompt cell with the LoRA run of median accuracy, and with all LoRA runs' mean.

    Cells from whose prompts demonstrations were dropped are left out: they are not what their k says.
    """
    prompts = [cell for group in groups for cell in group if cell.train_rows is None and not cell.result["dropped"]]
    trained = trained_on_pool(groups)
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


def trained_on_pool(groups: Sequence[Sequence[FinishedCell]]) -> Sequence[FinishedCell]:
    """Return the LoRA runs on the whole pool; of several templates the one that is right most often."""
    trained = [group for group in groups if group[0].whole]
    return max(trained, key=lambda group: fmean(sum(right_answers(cell.result)) for cell in group), default=())


def count_break_even(
    shape: Shape, groups: Sequence[Sequence[FinishedCell]], names: Mapping[str, Sequence[FinishedCell]] | None = None
) -> dict[str, Any]:
    """Return, per prompt condition, the test items from which one training on the pool is cheaper.

    The adapter is taken as merged, so its zero-shot prompts cost what the base model's do. Of demonstrations that are
    retrieved for each item, those from the largest pool count, and of their prompts only what is before them is
    shared. `_with_trials`: training pays for all its seeds and their tests, prompting for all its draws. `names` are
    the prompt conditions by their names; where they are not given, the first condition of a method is keyed by the
    method's name, and further ones say what differs.
    """
    trained = trained_on_pool(groups)
    if not trained:
        return {}
    train_flops = fmean(cell.train_cost.flops for cell in trained if cell.train_cost)
    all_flops = sum(cell.cost.flops + (cell.train_cost.flops if cell.train_cost else 0.0) for cell in trained)
    adapter = _prompt_flops(shape, trained)
    counts: dict[str, Any] = {}
    for name, group in (_name_prompted(groups) if names is None else names).items():
        condition = group[0].condition
        prompt = _prompt_flops(shape, group, shared_prefix=_prefix_tokens(trained) if group[0].pool_rows else None)
        tried = sum(cell.cost.flops for cell in group)
        once = prompt.once - adapter.once
        counts[name] = {
            "items": break_even(train_flops, prompt.recomputed, adapter.recomputed),
            "items_prefix_shared": break_even(train_flops, prompt.shared, adapter.shared, once),
            "items_with_trials": break_even(all_flops, prompt.recomputed, adapter.recomputed, tried),
            "items_prefix_shared_with_trials": break_even(all_flops, prompt.shared, adapter.shared, once + tried),
            "k": condition.k,
            "template": condition.bound.template.name,
            **({"retrieval": condition.draw.selection} if condition.draw and group[0].pool_rows else {}),
        }
    return counts


def _name_prompted(groups: Sequence[Sequence[FinishedCell]]) -> dict[str, Sequence[FinishedCell]]:
    named: dict[str, Sequence[FinishedCell]] = {}
    for group in prompted(groups):
        shots = say_condition(group[0])
        known = (group[0].condition.method, shots, f"{shots} {group[0].condition.bound.template.name}")
        name = next(name for name in known if name not in named and (name != known[0] or not group[0].pool_rows))
        named[name] = group
    return named


def prompted(groups: Sequence[Sequence[FinishedCell]]) -> list[Sequence[FinishedCell]]:
    """Return the prompt conditions; of those that retrieve, those from the largest pool."""
    most = max((group[0].pool_rows or 0 for group in groups), default=0)
    return [group for group in groups if group[0].train_rows is None and group[0].pool_rows in (None, most)]


def say_condition(cell: FinishedCell) -> str:
    """Return a prompt condition's method, number of demonstrations and, where it retrieves, by what."""
    shots = f"{cell.condition.method} k={cell.condition.k}"
    return f"{shots} {cell.condition.draw.selection}" if cell.condition.draw and cell.pool_rows else shots


def _prompt_flops(shape: Shape, cells: Sequence[FinishedCell], shared_prefix: float | None = None) -> PromptFlops:
    """Return the mean cost of a prompt of these cells, whose tokens were counted when it was scored.

    All before the query is shared, or so many tokens of it. Choices are left out: they cost the same behind every
    prompt.
    """
    items = len(cells[0].result["predictions"])
    prompt = fmean(cell.result["prompt_tokens"] for cell in cells)
    prefix = _prefix_tokens(cells) if shared_prefix is None else min(shared_prefix, prompt)
    generated = fmean(cell.result["tokens_generated"] for cell in cells) / items
    return prompt_flops(shape, round(prefix), max(1, round(prompt - prefix)), generated=round(generated))


def _prefix_tokens(cells: Sequence[FinishedCell]) -> float:
    """Return the mean tokens before the query."""
    prompt = fmean(cell.result["prompt_tokens"] for cell in cells)
    return prompt - min(fmean(cell.result["query_tokens"] for cell in cells), prompt)


def describe_dropped(finished: Sequence[FinishedCell], where: str) -> list[str]:
    """Say which conditions lost demonstrations to the window, and `where` they are left out for that."""
    names = dict.fromkeys(say_condition(cell) for cell in finished if cell.result["dropped"])
    said = f"{', '.join(names)}: prompts show fewer demonstrations than k, so this is listed but left out of {where}"
    return [said] if names else []


def describe_low_mass(finished: Sequence[FinishedCell]) -> list[str]:
    """Say after the prompts of which conditions the model would rather write something else than any choice."""
    masses: dict[str, list[float]] = {}
    for cell in finished:
        if (mass := measure_mass(cell.result["predictions"])) is not None:
            name = say_condition(cell) if cell.train_rows is None else cell.condition.method
            masses.setdefault(name, []).append(mass)
    low = [f"{name} {100 * fmean(own):.2g} %" for name, own in masses.items() if fmean(own) < LOW_MASS]
    return [f"{LOW_MASS_MEANS}: {', '.join(low)}"] if low else []


def describe_notes(finished: Sequence[FinishedCell]) -> list[str]:
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
    notes += describe_low_mass(finished)
    if len({bool(cell.readings) for cell in finished}) > 1:
        notes.append(NOT_FOR_COT)
    said = dict.fromkeys(note for cell in finished for note in cell.result["notes"])
    return [*notes, *said]
