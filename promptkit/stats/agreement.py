"""Correlate two models' ranks of the same conditions, and count reversals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.errors import StudyError
from promptkit.stats.intervals import Interval


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """How alike two models rank the same conditions, -1 to 1; 0.0 where one of them finds all equally good."""

    spearman: float
    spearman_interval: Interval
    kendall: float
    kendall_interval: Interval
    conditions: int


@dataclass(frozen=True, slots=True)
class Reversal:
    """How often the better of two models becomes the worse one under another condition.

    `probability` is that of two different conditions, drawn at random, where the first model wins under the one
    by at least `gap` and loses under the other by at least `gap`. `given_first` is that of losing so under the
    other condition, given that it wins so under the one; None where it never wins so. `significant` is the
    share of these reversals in which both sides pass a one-sided McNemar test at the level; None without
    reversals, or where the items were not given.
    """

    probability: float
    given_first: float | None
    significant: float | None
    gap: float
    conditions: int


def correlate_ranks(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> RankCorrelation:
    """Return Spearman's and Kendall's (tau-b) correlation of two models' accuracies, condition for condition.

    The intervals are for other conditions of the same kind; fewer than five leave everything open. Too few items
    pull the correlation towards 0: noise in the accuracies is not taken out.

    Source of the intervals: Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations". Raises StudyError for fewer than two conditions, or different numbers of them.
    """
    from scipy.stats import kendalltau, spearmanr

    if len(first) != len(second) or len(first) < 2:
        raise StudyError(
            f"{len(first)} and {len(second)} conditions were given; ranks need the same conditions of both, two or more"
        )
    varies = len(set(first)) > 1 and len(set(second)) > 1
    spearman = float(spearmanr(first, second).statistic) if varies else 0.0
    kendall = float(kendalltau(first, second).statistic) if varies else 0.0
    count = len(first)
    return RankCorrelation(
        spearman=spearman,
        spearman_interval=_interval(spearman, (1 + spearman**2 / 2) / max(count - 3, 1), count, level),
        kendall=kendall,
        kendall_interval=_interval(kendall, 0.437 / max(count - 4, 1), count, level),
        conditions=count,
    )


def _interval(correlation: float, variance: float, count: int, level: float) -> Interval:
    """Return the interval of a correlation by Fisher's z with this variance."""
    if count < 5:
        return Interval(-1.0, 1.0)
    middle = math.atanh(max(min(correlation, 1 - 1e-9), -1 + 1e-9))
    width = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    return Interval(math.tanh(middle - width), math.tanh(middle + width))


def measure_reversal(first: Any, second: Any, *, gap: float = 0.02, level: float = 0.05) -> Reversal:
    """Return how often the comparison of two models turns round from one condition to another.

    `first` and `second` hold one accuracy per condition, or right and wrong (conditions x items, the same items).

    Source: Sclar et al. 2024, "Quantifying language models' sensitivity to spurious features in prompt design",
    section 4.2 and figure 4. Raises StudyError for shapes that differ and fewer than two conditions.
    """
    import numpy

    one, two = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    if one.shape != two.shape or len(one) < 2:
        raise StudyError(
            f"scores of shapes {one.shape} and {two.shape} were given; reversals need the same conditions (and items) "
            "of both models, two conditions or more"
        )
    difference = one - two if one.ndim == 1 else one.mean(axis=1) - two.mean(axis=1)
    wins, losses = difference >= gap - 1e-12, difference <= -gap + 1e-12
    count = len(difference)
    pairs = float(wins.sum() * losses.sum())
    if not gap:
        pairs -= float((wins & losses).sum())
    significant = None
    if one.ndim == 2 and pairs:
        sure = _better(one, two) < level, _better(two, one) < level
        significant = float((wins & sure[0]).sum() * (losses & sure[1]).sum()) / pairs
    return Reversal(
        probability=2 * pairs / (count * (count - 1)),
        given_first=pairs / float(wins.sum() * (count - 1)) if wins.any() else None,
        significant=significant,
        gap=gap,
        conditions=count,
    )


def _better(one: Any, two: Any) -> Any:
    """Return the one-sided p-value, per condition, that `one` is right no more often than `two`."""
    from scipy.stats import binom

    only, other = (one > two).sum(axis=1), (two > one).sum(axis=1)
    return binom.sf(only - 1, only + other, 0.5)
