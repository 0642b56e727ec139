"""Compute the result of a study from its finished cells: levels, shares of variance, tests, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from promptkit.analysis.cells import (
    AXES,
    NESTED,
    VARIED,
    FinishedCell,
    fixed_factors,
    group_methods,
    leave_out_dropped,
    list_axes,
)
from promptkit.analysis.comparison_result import (
    count_break_even,
    describe_cell,
    describe_dropped,
    describe_method,
    describe_notes,
    guess_accuracy,
    name_majority,
)
from promptkit.analysis.contrasts import compare_best, correlate_models, correlate_scores
from promptkit.analysis.forms import Form
from promptkit.analysis.label_bias_by_condition import ShownLabels, describe_labels
from promptkit.analysis.paper_tables import describe_tests, fill_forms
from promptkit.analysis.sentences import (
    describe_agreement,
    describe_best,
    describe_cautions,
    describe_leaning,
    say_place,
)
from promptkit.data.splits import Splits
from promptkit.data.tasks import Task
from promptkit.errors import StudyError
from promptkit.stats import quantiles
from promptkit.stats.variance import decompose_variance, describe_shares

if TYPE_CHECKING:
    from promptkit.models import Model


class Described(Protocol):
    """What of a study's settings its result repeats: where they come from, and the forms of its tables."""

    @property
    def reference(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def forms(self) -> tuple[Form, ...]: ...


def describe_study(task: Task, model: Model, settings: Described, splits: Splits) -> dict[str, Any]:
    """Return what can be said of a study before any cell is known; the keys that `compare` has mean the same."""
    majority = name_majority(task, splits)
    return {
        "task": task.name,
        "model": model.name,
        "preset": {"reference": settings.reference, "about": settings.about},
        "labels": list(task.labels) if task.labels else None,
        "metric": task.metric,
        "chance": guess_accuracy(task, splits),
        "majority": majority[1] if majority else None,
        "records": {"test": len(splits.test), "pool": len(splits.pool), "validation": len(splits.validation)},
    }


def summarize_study(
    task: Task,
    model: Model,
    settings: Described,
    splits: Splits,
    done: Sequence[FinishedCell],
    elsewhere: Sequence[FinishedCell] = (),
) -> dict[str, Any]:
    """Return the study as JSON. `elsewhere` are its cells on the records of other tasks: listed, and in the tables.

    Beside what `compare` has: the axes and their levels, the shares of variance, the best condition tested against
    the others, what conditions lean to, how far models and scores agree, and the tables of the preset's paper.
    Conditions from which demonstrations were dropped are listed and in the tables, and compared with nothing.
    """
    compared = leave_out_dropped(done)
    shares, best = share_variance(compared), compare_best(compared)
    agreement = [*correlate_models(compared), *correlate_scores(compared)]
    methods = _methods(task, splits, done)
    said = [*shares["verdict"], *describe_best(best), *describe_agreement(agreement), *describe_leaning(task, methods)]
    cells = list(done)
    cautions = describe_cautions(methods, name_majority(task, splits), task.labels)
    return {
        **describe_study(task, model, settings, splits),
        "models": list(dict.fromkeys(each.planned.factors["model"] for each in done)),
        "axes": {axis: list(values) for axis, values in list_axes(each.planned for each in done).items()},
        "cells": [_cell(task, each) for each in done],
        "methods": methods,
        "break_even": count_break_even_of(model, compared),
        "levels": describe_levels([(each.planned.factors, each.accuracy) for each in compared]),
        "quantiles": _quantiles([each.accuracy for each in done]),
        **shares,
        "verdict": said,
        "best": best,
        "agreement": agreement,
        "forms": fill_forms(settings.forms, [*done, *elsewhere]),
        "away": [_cell(task, each) for each in elsewhere],
        "by_test": describe_tests(settings.forms, done, elsewhere),
        "cautions": cautions,
        "notes": [
            *splits.notes,
            *describe_notes(cells),
            *describe_dropped(cells, "the shares of variance, the tests, the levels and the break-even"),
            *cautions,
        ],
    }


def _cell(task: Task, each: FinishedCell) -> dict[str, Any]:
    row = {
        **describe_cell(task, each),
        "model": each.planned.factors["model"],
        "factors": dict(each.planned.factors),
    }
    return {**row, "picked": list(each.planned.picked)} if each.planned.picked else row


def _methods(task: Task, splits: Splits, done: Sequence[FinishedCell]) -> list[dict[str, Any]]:
    shown, rows = ShownLabels(splits), []
    for group in group_methods(done):
        row = describe_method(task, list(group))
        factors, accuracy = fixed_factors(group[0].planned), row["accuracy"]
        row |= {"model": factors["model"], "factors": factors, "spread": accuracy["max"] - accuracy["min"]}
        row["quantiles"] = _quantiles([each.accuracy for each in group])
        if task.labels:
            row |= {"leans": describe_labels(group), "repeats": shown.repeats(group)}
        rows.append(row)
    return rows


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {str(at): value for at, value in quantiles(values).items()}


def describe_levels(cells: Sequence[tuple[Mapping[str, str], float]]) -> dict[str, Any]:
    """Return, per axis that varies, the accuracy over the cells of each of its values; draws and orders left out."""
    axes: dict[str, dict[str, None]] = {}
    for factors, _ in cells:
        for axis, value in factors.items():
            axes.setdefault(axis, {})[value] = None
    found: dict[str, Any] = {}
    for axis, values in ((axis, axes[axis]) for axis in AXES if axis in axes):
        if len(values) < 2 or axis in VARIED:
            continue
        found[axis] = []
        for value in values:
            means = [accuracy for factors, accuracy in cells if factors.get(axis) == value]
            found[axis].append(
                {"value": value, "cells": len(means), "mean": fmean(means), "min": min(means), "max": max(means)}
            )
    return found


def share_variance(done: Sequence[FinishedCell]) -> dict[str, Any]:
    """Return the factors' shares of variance, and in words what they mean; empty for less than two cells."""
    axes = {axis: values for axis, values in list_axes(each.planned for each in done).items() if len(values) > 1}
    if len(done) < 2 or not axes:
        return {"factors": [], "verdict": []}
    factors, notes = _tell_apart({axis: [each.planned.factors.get(axis, "") for each in done] for axis in axes})
    nested = {inner: outer for inner, outer in NESTED.items() if inner in factors and outer in factors}
    try:
        found = decompose_variance([each.right for each in done], factors, nested=nested)
    except StudyError as error:
        return {"factors": [], "verdict": [f"The variance is not split: {error}."]}
    shares = [
        {"factor": part.name, "share": part.share, "ci95": part.interval.as_list(), "between": part.between}
        for part in found.parts
    ]
    return {"factors": shares, "verdict": [describe_shares(found), *notes]}


def _tell_apart(factors: dict[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the factors whose levels do not follow from those before them, and sentences on the others."""
    kept: dict[str, list[str]] = {}
    notes = []
    for axis, levels in factors.items():
        pairs = set(zip(zip(*kept.values(), strict=True), levels, strict=True)) if kept else set()
        if kept and len(pairs) == len({before for before, _ in pairs}):
            notes.append(
                f"In this grid the {axis} follows from {' and '.join(kept)}: their parts cannot be told apart."
            )
        else:
            kept[axis] = levels
    return kept, notes


def count_break_even_of(model: Model, done: Sequence[FinishedCell]) -> dict[str, Any]:
    """Return the break-even counts of the cells of this model, empty where nothing was trained."""
    from promptkit.costs.flops import shape_of

    groups = [group for group in group_methods(done) if group[0].planned.factors["model"] == model.name]
    prompts = [group for group in groups if group[0].train_rows is None]
    names = {name: list(group) for name, group in _name_by_method(prompts).items()}
    return count_break_even(shape_of(model.network), [list(group) for group in groups], names)


def _name_by_method(groups: Sequence[Sequence[FinishedCell]]) -> dict[str, Sequence[FinishedCell]]:
    """Return the groups by the name of their method; further groups of one by what sets them apart as well."""
    named: dict[str, Sequence[FinishedCell]] = {}
    for group in groups:
        method, place = group[0].condition.method, fixed_factors(group[0].planned)
        among = [fixed_factors(own[0].planned) for own in groups if own[0].condition.method == method]
        named[f"{method}, {say_place(place, among)}" if method in named else method] = group
    return named
