"""Apply the scores and calibrations that were asked for, and choose what a cell stores for them.

Nothing here runs a model: a cell holds the log-likelihoods that every score is computed from.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from promptkit.data.tasks import Task
from promptkit.errors import PromptkitError, nearest
from promptkit.prompts.prompt import Prompt
from promptkit.scoring.calibration import Likelihoods
from promptkit.scoring.predictions import Prediction, Table
from promptkit.stats import bootstrap_interval, summarize, wilson_interval
from promptkit.stats.metrics import Answer, correctness, macro_f1

#: Name of a reading -> what is predicted by it.
Readings = Mapping[str, tuple[Answer, ...]]
#: What `--calibrate` may name, as (score, calibration), in the order of the table; `sum` is always shown.
READINGS = {
    "sum": ("sum", "none"),
    "token": ("token", "none"),
    "byte": ("byte", "none"),
    "first": ("first", "none"),
    "pmi": ("pmi", "none"),
    "contextual": ("sum", "contextual"),
    "domain": ("sum", "domain"),
    "batch": ("sum", "batch"),
}
ALL = "all"
SAME_CHOICES = "needs the same choices in every prompt"
NOT_FOR_COT = "chain of thought is not calibrated: what the model wrote is part of its prompts, and differs"


def choose_readings(names: Sequence[str], refused: Mapping[str, str]) -> tuple[str, ...]:
    """Return the readings asked for, `sum` first, each once; none where none is asked for.

    `all` is every one but those in `refused` (name -> why). Raises PromptkitError for an unknown name and for a
    refused one that is asked for by its name.
    """
    known = (ALL, *READINGS)
    for name in names:
        if name not in known:
            raise PromptkitError(f"unknown calibration {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
        if name in refused:
            raise PromptkitError(f"calibration {name!r}: {refused[name]}")
    wanted = READINGS.keys() - refused.keys() if ALL in names else {"sum", *names}
    return tuple(name for name in READINGS if name in wanted) if names else ()


def refuse_readings(task: Task) -> dict[str, str]:
    """Return the readings that a task has no use for, and why."""
    if task.is_free_text:
        return dict.fromkeys((ALL, *READINGS), f"task {task.name!r} is answered in free text, which has no choices")
    if task.has_choices:
        return {"domain": f"the records of task {task.name!r} have choices of their own, so they share no bias"}
    return {}


def refuse_rows(prompts: Sequence[Prompt]) -> dict[str, str]:
    """Return the readings that ready-made prompts do not allow, and why."""
    if any(prompt.generation for prompt in prompts):
        return dict.fromkeys((ALL, *READINGS), f"in these rows the model writes first; {NOT_FOR_COT}")
    refused = {}
    if not all(prompt.content_free for prompt in prompts):
        refused = dict.fromkeys(("pmi", "contextual"), "needs a list of prompts `content_free` in every row")
    if not all(prompt.domain for prompt in prompts):
        refused["domain"] = "needs a list of prompts `domain` in every row"
    if _differ_in_choices(prompts):
        refused["batch"] = SAME_CHOICES
    return refused


def split_readings(names: Sequence[str], prompts: Sequence[Prompt]) -> tuple[tuple[str, ...], list[str]]:
    """Return those of the readings that these prompts allow, and notes on the others."""
    if "batch" in names and _differ_in_choices(prompts):
        return tuple(name for name in names if name != "batch"), [f"batch calibration {SAME_CHOICES}: left out"]
    return tuple(names), []


def keep_needed(prompts: Sequence[Prompt], names: Sequence[str]) -> list[Prompt]:
    """Return the prompts with those of their content-free prompts that the readings need."""
    plain, domain = "pmi" in names or "contextual" in names, "domain" in names
    return [
        replace(prompt, content_free=prompt.content_free if plain else (), domain=prompt.domain if domain else ())
        for prompt in prompts
    ]


def _differ_in_choices(prompts: Sequence[Prompt]) -> bool:
    return len({prompt.choices for prompt in prompts}) > 1


def store_table(table: Table, names: Sequence[str]) -> dict[str, Any]:
    """Return what a cell keeps, beside its predictions, to compute these readings from.

    `rows` stand in the order of the predictions; a row's `set` says which of `content_free` is its own.
    """
    sets: dict[tuple[tuple[Likelihoods, ...], ...], int] = {}
    rows = []
    for each in table.predictions:
        number = sets.setdefault((each.content_free, each.domain), len(sets))
        rows.append({**_row(each.likelihoods), "set": number})
    return {
        "readings": list(names),
        "rows": [{key: value for key, value in row.items() if key != "logprobs"} for row in rows],
        "content_free": [{"content_free": [*map(_row, own)], "domain": [*map(_row, other)]} for own, other in sets],
    }


def load_table(result: Mapping[str, Any]) -> Table:
    """Return the table that a cell was made of, as far as scores and calibrations need it."""
    stored = result["calibration"]
    sets = [{key: tuple(map(_likelihoods, rows)) for key, rows in each.items()} for each in stored["content_free"]]
    return Table(
        tuple(
            Prediction(
                id=row["id"],
                logprobs=tuple(row["logprobs"]),
                predicted=row["predicted"],
                label=row["label"],
                first=tuple(own["first"]),
                tokens=tuple(own["tokens"]),
                bytes=tuple(own["bytes"]),
                **sets[own["set"]],
            )
            for row, own in zip(result["predictions"], stored["rows"], strict=True)
        )
    )


def show_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a cell's predictions, each with its scores under every reading that the cell was asked for."""
    rows: list[dict[str, Any]] = [dict(row) for row in result["predictions"]]
    if "calibration" in result:
        table = load_table(result)
        for name in result["calibration"]["readings"]:
            scores, chosen = table.scores(*READINGS[name]), table.choose(*READINGS[name])
            for row, values, index in zip(rows, scores, chosen, strict=True):
                shown = {"scores": [round(value, 6) for value in values], "predicted": index}
                row.setdefault("calibrations", {})[name] = shown
    return rows


def read_predictions(result: Mapping[str, Any]) -> Readings:
    """Return the predictions of a cell under every reading it was asked for; none where none was."""
    if "calibration" not in result:
        return {}
    table = load_table(result)
    return {name: table.choose(*READINGS[name]) for name in result["calibration"]["readings"]}


def measure_cell(readings: Readings, labels: Sequence[Answer], label_count: int) -> list[dict[str, Any]]:
    """Return the figures of every reading of one cell; all are None where a label is unknown.

    `label_count` is 0 where labels differ from row to row; macro-F1 is then None.
    """
    figures = []
    for name, predicted in readings.items():
        row: dict[str, Any] = {**_named(name), "accuracy": None, "ci95": None, "macro_f1": None}
        if None not in labels:
            right = correctness(predicted, labels)
            row |= {"accuracy": fmean(right), "ci95": wilson_interval(sum(right), len(right)).as_list()}
            row["macro_f1"] = macro_f1(predicted, labels, label_count) if label_count else None
        figures.append(row)
    return figures


def measure_method(
    cells: Sequence[Readings], labels: Sequence[Answer], label_count: int, groups: Sequence[Hashable]
) -> list[dict[str, Any]]:
    """Return the figures of every reading over the cells of one method, all on the same labelled records.

    `groups` are those of `bootstrap_interval`: what is resampled as a whole.
    """
    figures = []
    for name in (name for name in cells[0] if all(name in readings for readings in cells)):
        runs = [readings[name] for readings in cells]
        right = [correctness(predicted, labels) for predicted in runs]
        interval = bootstrap_interval(right, groups=groups).as_list()
        accuracy = {**summarize([fmean(run) for run in right]).as_dict(), "ci95": interval}
        f1 = [macro_f1(predicted, labels, label_count) for predicted in runs] if label_count else []
        figures.append({**_named(name), "accuracy": accuracy, "macro_f1": summarize(f1).as_dict() if f1 else None})
    return figures


def _named(name: str) -> dict[str, str]:
    score, calibration = READINGS[name]
    return {"name": name, "score": score, "calibration": calibration}


def _row(seen: Likelihoods) -> dict[str, Any]:
    return {
        "logprobs": [round(nats, 6) for nats in seen.logprobs],
        "first": [round(nats, 6) for nats in seen.first],
        "tokens": list(seen.tokens),
        "bytes": list(seen.bytes),
    }


def _likelihoods(row: Mapping[str, Any]) -> Likelihoods:
    return Likelihoods(**{name: tuple(values) for name, values in row.items()})
