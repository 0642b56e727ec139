"""The cells of a study into the tables that its forms describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from promptkit.forms import FIGURES, ORDER_SEARCH, SCORE, SEARCHED, Form
from promptkit.grid import Point
from promptkit.metrics import correctness, macro_f1
from promptkit.outcome.cells import Done, condition_of, find_dropped
from promptkit.stats import summarize

#: What stands for a cell's place on an axis that it has none on.
NONE = "none"
#: The score that is meant where a cell has no others.
PLAIN = "sum"

Place = tuple[str, ...]
_VALUES: dict[str, Callable[[Sequence[float]], Any]] = {
    "mean": fmean,
    "mean ± std": lambda values: [fmean(values), summarize(values).std],
    "std": lambda values: summarize(values).std,
    "min": min,
    "median": median,
    "max": max,
    "spread": lambda values: max(values) - min(values),
    "runs": len,
}


def fill_forms(forms: Sequence[Form], done: Sequence[Done]) -> list[dict[str, Any]]:
    """Return every form that these cells can fill, and one on searched orders where no form shows them.

    A table is `title`, `header`, `kinds` (of the values of each column: text, percent, plus-minus, count) and `rows`;
    shares are 0 to 1, plus-minus is [mean, std], and None stands where there is no such run. Beside a k stands
    whether demonstrations were dropped from its prompts.
    """
    asked, done = list(forms), _mark_dropped(done)
    searched = any(each.point.picked for each in done)
    if searched and not any(ORDER_SEARCH in (*form.rows, *form.columns) for form in asked):
        asked.append(Form(**SEARCHED))
    return [table for form in asked if (table := _fill(form, done))]


def _mark_dropped(done: Sequence[Done]) -> list[Done]:
    short = find_dropped(done)
    return [replace(each, point=_mark(each.point)) if condition_of(each.point) in short else each for each in done]


def _mark(point: Point) -> Point:
    return replace(point, factors={**point.factors, "k": f"{point.factors['k']} (fewer shown)"})


def _fill(form: Form, done: Sequence[Done]) -> dict[str, Any] | None:
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


def _values(form: Form, each: Done) -> Iterator[tuple[Mapping[str, str], float]]:
    """Yield the places on the form's axes that a cell has a value for, and that value."""
    named = (*form.rows, *form.columns)
    picks: list[str] = ["all"] * each.point.asked + list(each.point.picked)
    scores = list(each.cell.readings) or [PLAIN]
    for pick in picks if ORDER_SEARCH in named else picks[:1]:
        for score in scores if SCORE in named else scores[:1]:
            place = {axis: each.point.factors.get(axis, NONE) for axis in named}
            yield place | {ORDER_SEARCH: pick, SCORE: score}, _measure(form.metric, each, score)


def _measure(metric: str, each: Done, score: str) -> float:
    predicted = each.cell.readings.get(score) or [row["predicted"] for row in each.cell.result["predictions"]]
    labels, count = each.cell.labels, len(each.cell.condition.bound.task.labels or ())
    if metric == "macro_f1" and count:
        return macro_f1(predicted, labels, count)
    return fmean(correctness(predicted, labels))
