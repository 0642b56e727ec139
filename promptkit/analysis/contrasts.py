"""Test the conditions of a study against each other, and measure how far models agree on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Any

from promptkit.analysis.cells import FinishedCell, fixed_factors, group_methods
from promptkit.errors import StudyError
from promptkit.stats.agreement import correlate_ranks, measure_reversal
from promptkit.stats.metrics import correctness
from promptkit.stats.paired import compare_conditions, gap_resolved, items_needed

#: Conditions from which on two models are compared by them; with fewer they are compared by cells.
LEAST_CONDITIONS = 5
#: Where the difference of two conditions is no more than this, no number of items is named.
_NO_GAP = 1e-9


def compare_best(done: Sequence[FinishedCell]) -> dict[str, Any] | None:
    """Return the best condition tested against every other one on the same items; None where there is no other.

    Of a single condition its cells are compared. `best` and the rows' `factors` name them, in the order of the cells;
    a row has the best one's lead, its interval, the p-value and the one adjusted for all rows (Holm), the mean square
    of the two's difference per item (of two cells: the share of items on which one is right and the other wrong), and
    how many items would tell them apart (80 % power). `resolved` is the smallest lead that so many items tell apart at
    the median of these squares. The best was chosen on these very items, which favours it.
    """
    groups = group_methods(done)
    of = "conditions" if len(groups) > 1 else "cells"
    units = groups if of == "conditions" else [[each] for each in done]
    if len(units) < 2:
        return None
    scores = [[fmean(answers) for answers in zip(*(each.right for each in unit), strict=True)] for unit in units]
    best = max(range(len(units)), key=lambda index: fmean(scores[index]))
    found = compare_conditions(dict(enumerate(scores)), baseline=best)
    rows: list[dict[str, Any]] = []
    for each in found:
        lead, other = 0.0 - each.difference, scores[int(str(each.first))]
        apart = fmean((one - two) ** 2 for one, two in zip(scores[best], other, strict=True))
        rows.append(
            {
                "factors": _name(units[int(str(each.first))], of),
                "lead": lead,
                "ci95": [0.0 - each.interval.high, 0.0 - each.interval.low],
                "p_value": each.p_value,
                "adjusted": each.adjusted,
                "discordance": apart,
                "items_needed": items_needed(lead, apart) if lead > _NO_GAP else None,
            }
        )
    items = len(scores[0])
    return {
        "of": of,
        "best": _name(units[best], of),
        "items": items,
        "resolved": gap_resolved(items, median(row["discordance"] for row in rows)),
        "rows": rows,
    }


def _name(unit: Sequence[FinishedCell], of: str) -> dict[str, str]:
    return fixed_factors(unit[0].planned) if of == "conditions" else dict(unit[0].planned.factors)


def correlate_models(done: Sequence[FinishedCell]) -> list[dict[str, Any]]:
    """Return, for every two models, how alike they rank what both were asked, and how often one overtakes the other."""
    return _correlate({name: _answers_of_model(done, name) for name in _models(done)}, "model")


def correlate_scores(done: Sequence[FinishedCell]) -> list[dict[str, Any]]:
    """Return the same for every two scores or calibrations of the same cells."""
    names = dict.fromkeys(name for each in done for name in each.readings)
    return _correlate({name: _answers_by_score(done, name) for name in names}, "score")


def _models(done: Sequence[FinishedCell]) -> list[str]:
    return list(dict.fromkeys(each.planned.factors["model"] for each in done))


Answers = Mapping[tuple[tuple[str, str], ...], Sequence[float]]


def _answers_of_model(done: Sequence[FinishedCell], model: str) -> Answers:
    """Return the answers of one model by condition or, of few conditions, by cell; less the model's own name."""
    own = [each for each in done if each.planned.factors["model"] == model]
    groups = group_methods(own)
    units = groups if len(groups) >= LEAST_CONDITIONS else [[each] for each in own]
    of = "conditions" if units is groups else "cells"
    return {
        tuple(item for item in _name(unit, of).items() if item[0] != "model"): [
            fmean(answers) for answers in zip(*(each.right for each in unit), strict=True)
        ]
        for unit in units
    }


def _answers_by_score(done: Sequence[FinishedCell], name: str) -> Answers:
    read = [each for each in done if name in each.readings]
    return {tuple(each.planned.factors.items()): correctness(each.readings[name], each.labels) for each in read}


def _correlate(answers: Mapping[str, Answers], kind: str) -> list[dict[str, Any]]:
    rows = []
    for first, second in combinations(answers, 2):
        shared = [key for key in answers[first] if key in answers[second]]
        one, two = ([list(answers[name][key]) for key in shared] for name in (first, second))
        try:
            found = correlate_ranks([fmean(values) for values in one], [fmean(values) for values in two])
            reversal = measure_reversal(one, two)
        except StudyError:
            continue  # fewer than two in common
        rows.append(
            {
                "kind": kind,
                "first": first,
                "second": second,
                "conditions": found.conditions,
                "spearman": found.spearman,
                "spearman_ci95": found.spearman_interval.as_list(),
                "kendall": found.kendall,
                "kendall_ci95": found.kendall_interval.as_list(),
                "reversal": reversal.probability,
                "reversal_gap": reversal.gap,
            }
        )
    return rows
