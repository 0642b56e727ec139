"""Spend a budget of calls or minutes on the cells of a study that tell most about its spread.

A call is one prompt: a test record under one cell. What was asked is kept in the run folder as parts of cells, so that
a search that was stopped goes on, and a finished one costs nothing to look at again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from promptkit.analysis.cell_figures import right_answers
from promptkit.analysis.cells import PlannedCell, fixed_factors, list_axes
from promptkit.analysis.sentences import say_place
from promptkit.analysis.study_result import describe_levels
from promptkit.costs.flops import Cost, mean_cost
from promptkit.costs.meter import Meter
from promptkit.data.splits import Splits
from promptkit.errors import PromptkitError, StudyError
from promptkit.experiments.evaluate import Progress, Scorer, evaluate
from promptkit.experiments.grid import StudySettings
from promptkit.experiments.run_folder import Run
from promptkit.stats import quantiles, summarize
from promptkit.stats.budget import BudgetedSpread, Estimate, estimate_spread
from promptkit.stats.majority import find_one_answer
from promptkit.storage.parsing import cell_key

if TYPE_CHECKING:
    from promptkit.models import Model

_UNITS = {"m": 60.0, "h": 3600.0}
_LEVEL = 0.95


@dataclass(frozen=True)
class Budget:
    """What may be spent: so many calls, or so many seconds of scoring; the other is None."""

    calls: int | None = None
    seconds: float | None = None


def parse_budget(asked: int | str) -> Budget:
    """Return what `2000` (calls), `10m` or `1.5h` stands for; raises StudyError for anything else."""
    text = str(asked).strip()
    if re.fullmatch(r"[1-9][0-9]*", text):
        return Budget(calls=int(text))
    if (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([mh])", text)) and float(found[1]) > 0:
        return Budget(seconds=float(found[1]) * _UNITS[found[2]])
    raise StudyError(f"a budget is {text!r}; give a number of calls, such as 2000, or minutes or hours: 10m, 1.5h")


class BudgetedEvaluator:
    """Scores the parts of cells that a search asks for, and keeps count of what they took."""

    def __init__(self, splits: Splits, settings: StudySettings, run: Run, scorer: Scorer, progress: Progress) -> None:
        self._splits, self._settings, self._run, self._scorer = splits, settings, run, scorer
        self._progress = progress
        self._cells: dict[str, tuple[Model, PlannedCell]] = {}
        self._known: dict[str, dict[int, Mapping[str, Any]]] = {}
        self._costs: dict[str, list[Cost]] = {}
        self._asked: dict[str, set[int]] = {}
        self._seen: set[str] = set()
        self._parts = self._find_parts()
        self.calls, self.seconds = 0, 0.0
        self.total = 1

    def add(self, model: Model, point: PlannedCell) -> str:
        """Take up a cell and return its name; a cell that the run folder holds whole is known already."""
        name = cell_key(point.spec)
        self._cells[name], self._known[name] = (model, point), {}
        self._costs[name], self._asked[name] = [], set()
        if whole := self._run.load(point.spec):
            _refuse_dropped(point, whole)
            self._known[name] = dict(enumerate(whole["predictions"]))
        return name

    def _find_parts(self) -> dict[str, list[Mapping[str, Any]]]:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for cell in self._run.cells():
            if "items" in cell.spec:
                whole = {key: value for key, value in cell.spec.items() if key != "items"}
                found.setdefault(cell_key(whole), []).append(cell.spec)
        return found

    def ask(self, name: Any, items: Sequence[Any]) -> list[Any]:
        """Return a score per item of a cell, with its margin where all of them have one."""
        self._recall(name, items)
        known = self._known[name]
        if missing := [item for item in items if item not in known]:
            self._score(name, missing)
        self._asked[name].update(items)
        self.calls += len(items)
        self._progress(min(self.calls, self.total), self.total)
        rows = [known[item] for item in items]
        right = right_answers({"predictions": rows})
        margins = [_margin(row) for row in rows]
        return list(right) if None in margins else list(zip(right, margins, strict=True))

    def _recall(self, name: str, items: Sequence[int]) -> None:
        """Take over what earlier runs of this search scored of these items, and the time it took."""
        for spec in self._parts.get(name, ()):
            key = cell_key(spec)
            if key in self._seen or not set(spec["items"]) & set(items):
                continue
            result = self._run.load(spec)
            if result:
                self._take(name, spec["items"], result, self._run.load_measure(spec) or {})
                self._seen.add(key)

    def _score(self, name: str, items: Sequence[int]) -> None:
        model, point = self._cells[name]
        with Meter(model.device) as meter:
            result = evaluate(
                model,
                point.condition,
                [self._splits.test[item] for item in items],
                self._splits.pool,
                scorer=self._scorer,
                overlong=self._settings.overlong,
                batch_tokens=self._settings.batch_tokens,
                memory=self._settings.memory,
            )
        measure = {"seconds": meter.seconds, "peak_memory_bytes": meter.peak_memory_bytes}
        spec = {**point.spec, "items": list(items)}
        self._run.save(spec, result, measure)
        self._seen.add(cell_key(spec))
        self._take(name, items, result, measure)

    def _take(self, name: str, items: Sequence[int], result: Mapping[str, Any], measure: Mapping[str, Any]) -> None:
        _refuse_dropped(self._cells[name][1], result)
        self._known[name].update(zip(items, result["predictions"], strict=True))
        counts = {key: result.get(key, 0) for key in ("tokens_prompted", "tokens_computed", "tokens_unique", "flops")}
        cost = Cost(**counts, **measure)
        self._costs[name].append(cost)
        self.seconds += cost.seconds

    def asked(self, name: str) -> list[Mapping[str, Any]]:
        """Return the predictions of a cell's items that were asked for, in their order."""
        return [self._known[name][item] for item in sorted(self._asked[name])]

    def cost(self, name: str) -> Cost:
        """Return what the parts of a cell took together."""
        return sum(self._costs[name], Cost())


def _refuse_dropped(point: PlannedCell, result: Mapping[str, Any]) -> None:
    """Raise StudyError for a cell that lost demonstrations: a budget compares every cell with every other."""
    if result["dropped"]:
        raise StudyError(
            f"prompts with k={point.condition.k} do not fit the window and lost demonstrations, which a budget cannot "
            "compare with others: lower -k"
        )


def _margin(row: Mapping[str, Any]) -> float | None:
    """Return by how many nats the right choice is ahead of the best other one; None where no choices decide."""
    scores, label = row["logprobs"], row["label"]
    if not isinstance(label, int) or len(scores) < 2 or "generated" in row:
        return None
    return scores[label] - max(score for place, score in enumerate(scores) if place != label)


@dataclass(frozen=True)
class Spent:
    """What a budget bought: the estimate, and every cell with its own, in the order of the grid.

    `rows` are the predictions that were asked for, in the order of the test records.
    """

    budget: Budget
    spread: BudgetedSpread
    seconds: float
    points: tuple[PlannedCell, ...]
    estimates: tuple[Estimate, ...]
    rows: tuple[Sequence[Mapping[str, Any]], ...]
    costs: tuple[Cost, ...]


def spend(
    budget: Budget,
    evaluator: BudgetedEvaluator,
    grid: Sequence[tuple[Model, PlannedCell]],
    splits: Splits,
    settings: StudySettings,
) -> Spent:
    """Return what is known of the grid's spread for this budget.

    Minutes are those of scoring, here or in an earlier run of the same search: after the first two items of every cell
    they become a number of calls at the pace so far, and no further part is begun when they are over.

    Raises StudyError for a budget below two items per cell, a grid of less than two cells, and the method lora.
    """
    names = [evaluator.add(model, point) for model, point in grid]
    full = len(names) * len(splits.test)
    evaluator.total = min(budget.calls or full, full)

    def allow(calls: int) -> int:
        pace = evaluator.seconds / calls
        left = math.floor((float(budget.seconds or 0) - evaluator.seconds) / pace) if pace else full
        evaluator.total = max(1, min(full, calls + max(0, left)))
        return left

    timed = budget.seconds is not None
    found = estimate_spread(
        names,
        range(len(splits.test)),
        evaluator.ask,
        budget=full if budget.calls is None else budget.calls,
        strata=[str(record.label) for record in splits.test] if grid[0][1].condition.bound.task.labels else None,
        strategy=settings.strategy,
        until=(lambda: evaluator.seconds >= (budget.seconds or 0)) if timed else None,
        allow=allow if timed else None,
        level=_LEVEL,
        seed=settings.seed,
    )
    known = {each.condition: each for each in found.estimates}
    return Spent(
        budget,
        found,
        evaluator.seconds,
        tuple(point for _, point in grid),
        tuple(known[name] for name in names),
        tuple(evaluator.asked(name) for name in names),
        tuple(evaluator.cost(name) for name in names),
    )


def describe_spent(spent: Spent) -> dict[str, Any]:
    """Return the keys of a study's result that a budget decides; a cell's accuracy is its estimate on all records."""
    cells = [_cell(*each) for each in zip(spent.points, spent.estimates, spent.rows, spent.costs, strict=True)]
    groups: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for point, cell in zip(spent.points, cells, strict=True):
        groups.setdefault(tuple(fixed_factors(point).items()), []).append(cell)
    values = [cell["accuracy"] for cell in cells]
    return {
        "models": list(dict.fromkeys(point.factors["model"] for point in spent.points)),
        "axes": {axis: list(found) for axis, found in list_axes(spent.points).items()},
        "cells": cells,
        "methods": [_method(dict(key), group, spent) for key, group in groups.items()],
        "break_even": {},
        "levels": describe_levels([(cell["factors"], cell["accuracy"]) for cell in cells]),
        "quantiles": {str(at): value for at, value in quantiles(values).items()},
        "factors": [],
        "best": None,
        "agreement": [],
        "forms": [],
        "away": [],
        "by_test": [],
        "budget": _budget(spent),
        "verdict": _sentences(spent),
    }


def _cell(point: PlannedCell, estimate: Estimate, rows: Sequence[Mapping[str, Any]], cost: Cost) -> dict[str, Any]:
    condition = point.condition
    reach = NormalDist().inv_cdf((1 + _LEVEL) / 2) * estimate.std
    return {
        "method": condition.method,
        "template": condition.bound.template.name,
        "k": condition.k,
        "draw": {"seed": condition.draw.seed, "order": condition.draw.order} if condition.draw else None,
        "train_rows": None,
        "n": len(rows),
        "accuracy": estimate.mean,
        "ci95": [max(0.0, estimate.mean - reach), min(1.0, estimate.mean + reach)],
        "macro_f1": None,
        "unread": sum(row["predicted"] is None for row in rows),
        "seen": fmean(right_answers({"predictions": rows})),
        "cost": cost.as_dict(),
        "model": point.factors["model"],
        "factors": dict(point.factors),
    }


def _method(factors: dict[str, str], cells: Sequence[Mapping[str, Any]], spent: Spent) -> dict[str, Any]:
    values = [cell["accuracy"] for cell in cells]
    own = [index for index, point in enumerate(spent.points) if fixed_factors(point) == factors]
    costs = [spent.costs[index] for index in own]
    one = find_one_answer([[row["predicted"] for row in spent.rows[index]] for index in own])
    return {
        **{key: cells[0][key] for key in ("method", "template", "k", "train_rows", "model")},
        "runs": len(cells),
        "accuracy": {**summarize(values).as_dict(), "ci95": None},
        "macro_f1": None,
        "unread": fmean(cell["unread"] for cell in cells),
        "one_answer": one.as_dict() if one else None,
        "cost": mean_cost(costs).as_dict(),
        "train_cost": None,
        "factors": factors,
        "spread": max(values) - min(values),
        "quantiles": {str(at): value for at, value in quantiles(values).items()},
    }


def _budget(spent: Spent) -> dict[str, Any]:
    found, point = spent.spread, dict(zip(map(_name, spent.estimates), spent.points, strict=True))
    return {
        "calls": found.calls,
        "full_calls": found.full_calls,
        "asked_calls": spent.budget.calls,
        "asked_seconds": spent.budget.seconds,
        "seconds": spent.seconds,
        "spread": found.spread,
        "ci95": found.interval.as_list(),
        **{
            end: {"factors": dict(point[_name(each)].factors), "mean": each.mean, "std": each.std, "items": each.items}
            for end, each in (("best", found.best), ("worst", found.worst))
        },
    }


def _name(estimate: Estimate) -> str:
    return str(estimate.condition)


def _sentences(spent: Spent) -> list[str]:
    found = spent.spread
    budget, all_ = _budget(spent), [dict(point.factors) for point in spent.points]
    low, high = (100 * end for end in found.interval.as_list())
    ends = [
        f"{end} {say_place(budget[end]['factors'], all_)}, {100 * budget[end]['mean']:.1f} % ± "
        f"{100 * budget[end]['std']:.1f} ({budget[end]['items']:,} records asked)"
        for end in ("best", "worst")
    ]
    return [
        f"The best and the worst of {len(all_):,} prompts lie {100 * found.spread:.1f} points apart "
        f"[{low:.1f}, {high:.1f}] on these records, as far as {found.calls:,} of the full grid's {found.full_calls:,} "
        f"calls ({100 * found.calls / found.full_calls:.0f} %) can tell.",
        f"Probably {ends[0]}; {ends[1]}.{_explain_distance(found)}",
    ]


def _explain_distance(found: BudgetedSpread) -> str:
    """Say why the two that are named may lie less far apart than the best and the worst, where they do."""
    between, spread = (f"{100 * value:.1f}" for value in (found.best.mean - found.worst.mean, found.spread))
    if between == spread:
        return ""
    return f" These two lie {between} points apart; the {spread} also count that others may be the best and the worst."


def check_budget(settings: StudySettings, workers: int) -> Budget | None:
    """Return the budget of a study, None without one; raises StudyError and PromptkitError for what it rules out."""
    if settings.budget is None:
        return None
    if workers > 1:
        raise PromptkitError(
            "the calls of a budget follow from one another, so one process makes them; leave --workers out"
        )
    if "lora" in settings.methods:
        raise StudyError("a budget is spent on prompts, and the method lora trains; leave it out of --methods")
    if settings.tests:
        raise StudyError("a budget is spent on the records of one task; leave --test-on out")
    return parse_budget(settings.budget)
