"""Compute the figures of one finished cell from its predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.data.tasks import Task
from promptkit.scoring.self_consistency import summarize_votes
from promptkit.stats import macro_f1_interval, wilson_interval
from promptkit.stats.metrics import correctness, measure

#: The share of the probability that the choices of a prompt have together, below which that is said.
LOW_MASS = 0.1
LOW_MASS_MEANS = (
    f"the choices together have less than {100 * LOW_MASS:.0f} % of the probability, so the model would rather write "
    "something else (see docs/scoring.md)"
)


def summarize_cell(task: Task, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's figures, with their interval, and what was counted beside them."""
    counts = {key: result[key] for key in ("spanning", "unfinished", "dropped")}
    return {
        **summarize_predictions(result["predictions"], len(task.labels) if task.labels else None),
        **counts,
    }


def summarize_predictions(rows: Sequence[Mapping[str, Any]], label_count: int | None) -> dict[str, Any]:
    """Return figures with their interval; those that need labels are None where some are unknown.

    `label_count` is None where labels are free text or differ from row to row; macro-F1 is then None.
    """
    predicted, labels = [row["predicted"] for row in rows], [row["label"] for row in rows]
    if None in labels:
        unread = sum(answer is None for answer in predicted)
        known = {"n": len(rows), "accuracy": None, "ci95": None, "macro_f1": None, "unread": unread}
        return {**known, "choice_mass": measure_mass(rows), **summarize_votes(rows)}
    figures = measure(predicted, labels, label_count)
    return {
        "n": figures.n,
        "accuracy": figures.accuracy,
        "ci95": wilson_interval(figures.correct, figures.n).as_list(),
        "macro_f1": figures.macro_f1,
        "macro_f1_ci95": macro_f1_interval([predicted], labels, label_count).as_list() if label_count else None,
        "unread": figures.unread,
        "distribution": [list(pair) for pair in figures.distribution] if label_count else None,
        "choice_mass": measure_mass(rows),
        **summarize_votes(rows),
    }


def measure_mass(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the probability that a model gives the choices of a prompt together, as a mean over predictions.

    It is the sum of their probabilities as whole texts, before any calibration, and 1 at most: a choice may begin
    another one. To six places, as log-likelihoods are kept. None where no choice was scored. Of several samples each
    counts.
    """
    scored = [scores for row in rows for scores in (row["logprobs"], *(s["logprobs"] for s in row.get("samples", ())))]
    masses = [min(1.0, math.fsum(map(math.exp, scores))) for scores in scored if scores]
    return round(math.fsum(masses) / len(masses), 6) if masses else None


def right_answers(result: Mapping[str, Any]) -> tuple[int, ...]:
    """Return 1 or 0 per query: whether its answer was read and right."""
    rows = result["predictions"]
    return correctness([row["predicted"] for row in rows], [row["label"] for row in rows])
