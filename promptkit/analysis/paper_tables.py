"""Fill the tables that a study's forms describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from promptkit.analysis.cells import FinishedCell, PlannedCell, condition_of, find_dropped, fixed_factors, group_methods
from promptkit.analysis.forms import FIGURES, ORDER_SEARCH, SCORE, SEARCHED, Form
from promptkit.stats import bootstrap_interval, summarize
from promptkit.stats.metrics import correctness, macro_f1

#: What stands for a cell's place on an axis that it has none on.
NONE = "none"
#: The axis of other tasks' records.
TEST = "test"
#: The score that is meant where a cell has no others.
PLAIN = "sum"

Place = tuple[str, ...]


def _std(values: Sequence[float]) -> float | None:
    return summarize(values).std if len(values) > 1 else None


_VALUES: dict[str, Callable[[Sequence[float]], Any]] = {
    "mean": fmean,
    "mean ± std": lambda values: [fmean(values), _std(values)],
    "std": _std,
    "min": min,
    "median": median,
    "max": max,
    "spread": lambda values: max(values) - min(values),
    "runs": len,
}


def fill_forms(forms: Sequence[Form], done: Sequence[FinishedCell]) -> list[dict[str, Any]]:
    """Return every form that these cells can fill, and one on searched orders where no form shows them.

    A table is `title`, `header`, `kinds` (of the values of each column: text, percent, plus-minus, count) and `rows`;
    shares are 0 to 1, plus-minus is [mean, std], and None stands where there is no such run, and for the std of one.
    Beside a k stands whether demonstrations were dropped from its prompts.
    """
    asked, done = list(forms), _mark_dropped(done)
    searched = any(each.planned.picked for each in done)
    if searched and not any(ORDER_SEARCH in (*form.rows, *form.columns) for form in asked):
        asked.append(Form(**SEARCHED))
    return [table for form in asked if (table := _fill(form, done))]


def describe_tests(
    forms: Sequence[Form], done: Sequence[FinishedCell], elsewhere: Sequence[FinishedCell]
) -> list[dict[str, Any]]:
    """Return every condition on each test, its own first, where there are several and no form tells them apart.

    `n` is the number of records of the test, and `accuracy` is over the condition's cells, as for a method.
    """
    if not elsewhere or any(TEST in (*form.rows, *form.columns) for form in forms):
        return []
    found: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for group in group_methods(_mark_dropped([*done, *elsewhere])):
        factors, right = fixed_factors(group[0].planned), [each.right for each in group]
        interval = bootstrap_interval(right, groups=[each.sampled for each in group])
        accuracy = {**summarize([each.accuracy for each in group]).as_dict(), "ci95": interval.as_list()}
        row = {"factors": factors, "runs": len(group), "n": len(right[0]), "accuracy": accuracy}
        found.setdefault(tuple(item for item in factors.items() if item[0] != TEST), []).append(row)
    return [row for rows in found.values() for row in rows]


def _mark_dropped(done: Sequence[FinishedCell]) -> list[FinishedCell]:
    short = find_dropped(done)
    return [
        replace(each, planned=_mark(each.planned)) if condition_of(each.planned) in short else each for each in done
    ]


def _mark(point: PlannedCell) -> PlannedCell:
    return replace(point, factors={**point.factors, "k": f"{point.factors['k']} (fewer shown)"})


def _fill(form: Form, done: Sequence[FinishedCell]) -> dict[str, Any] | None:
    groups: dict[tuple[Place, Place], list[float]] = {}
    for each in done:
        for place, value in _values(form, each):
            key = tuple(place[axis] for axis in form.rows), tuple(place[axis] for axis in form.columns)
            groups.setdefault(key, []).append(value)
    rows, columns = (list(dict.fromkeys(key[side] for key in groups)) for side in (0, 1))
    shown = _telling(form.rows, rows)
    if len(rows) * len(columns) < 2 and len(groups) == len(done) == 1:
        return None
    heads = [" · ".join(column) if len(columns) > 1 else "" for column in columns]
    figures = [(column, figure) for column in columns for figure in form.figures]
    names = [(heads[columns.index(column)], figure) for column, figure in figures]
    return {
        "title": form.title,
        "header": [*(form.rows[at] for at in shown), *(_head(head, figure, form) for head, figure in names)],
        "kinds": [*("text" for _ in shown), *(FIGURES[figure] for _, figure in figures)],
        "rows": [
            [
                *(row[at] for at in shown),
                *(
                    _VALUES[figure](groups[row, column]) if (row, column) in groups else None
                    for column, figure in figures
                ),
            ]
            for row in rows
        ],
    }


def _telling(axes: Sequence[str], rows: Sequence[Place]) -> list[int]:
    """Return the places of the axes on which rows differ; the last one where none does."""
    return [at for at in range(len(axes)) if len({row[at] for row in rows}) > 1] or [len(axes) - 1]


def _head(head: str, figure: str, form: Form) -> str:
    if head and len(form.figures) == 1:
        return head
    return f"{head}: {figure}" if head else figure


def _values(form: Form, each: FinishedCell) -> Iterator[tuple[Mapping[str, str], float]]:
    """Yield the places on the form's axes that a cell has a value for, and that value."""
    named = (*form.rows, *form.columns)
    picks: list[str] = ["all"] * each.planned.asked + list(each.planned.picked)
    scores = list(each.readings) or [PLAIN]
    for pick in picks if ORDER_SEARCH in named else picks[:1]:
        for score in scores if SCORE in named else scores[:1]:
            place = {axis: each.planned.factors.get(axis, NONE) for axis in named}
            yield place | {ORDER_SEARCH: pick, SCORE: score}, _measure(form.metric, each, score)


def _measure(metric: str, each: FinishedCell, score: str) -> float:
    predicted = each.readings.get(score) or [row["predicted"] for row in each.result["predictions"]]
    labels, count = each.labels, len(each.condition.bound.task.labels or ())
    if metric == "macro_f1" and count:
        return macro_f1(predicted, labels, count)
    return fmean(correctness(predicted, labels))
