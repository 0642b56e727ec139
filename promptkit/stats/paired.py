"""Test two conditions on the same items: differences, p-values, corrections, numbers of items."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from promptkit.errors import StudyError
from promptkit.stats.intervals import RESAMPLES, Interval, paired_interval, percentiles

CORRECTIONS = ("holm", "benjamini-hochberg", "none")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two conditions of a grid on the same items: difference (first - second), its interval, the test.

    `adjusted` is the p-value with respect to all comparisons that were made together.
    """

    first: Hashable
    second: Hashable
    difference: float
    interval: Interval
    p_value: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two conditions on the same items: on how many only the one was right, and how surprising that is."""

    first_only: int
    second_only: int
    p_value: float


def mcnemar(first: Sequence[int], second: Sequence[int]) -> McNemar:
    """Return the exact two-sided test that two conditions are right equally often on the same items.

    Only the items on which one is right and the other wrong count; without any the p-value is 1.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages", in its exact binomial form.
    """
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    first_only, second_only = pairs.count((1, 0)), pairs.count((0, 1))
    discordant = first_only + second_only
    p_value = float(binomtest(first_only, discordant).pvalue) if discordant else 1.0
    return McNemar(first_only, second_only, p_value)


def paired_p_value(
    first: Sequence[float], second: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Return the two-sided p-value that two conditions are equally good on the same items.

    Of right and wrong (0 and 1) it is McNemar's exact test. Of other scores, such as an item's mean over
    draws, it is the test that flips the sign of each item's difference at random; of `resamples` flips the
    p-value is never below 1 / (resamples + 1).

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".
    """
    import numpy

    one, two = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    if one.shape != two.shape:
        raise ValueError(f"expected the same items in both, got {len(one)} and {len(two)}")
    if numpy.isin(numpy.concatenate([one, two]), (0, 1)).all():
        return mcnemar(one.astype(int).tolist(), two.astype(int).tolist()).p_value
    return _share_as_far(_draw_signs(len(one), resamples, seed) @ (one - two), (one - two).sum())


def _draw_signs(items: int, resamples: int, seed: int) -> Any:
    import numpy

    return numpy.random.default_rng(seed).integers(0, 2, (resamples, items)) * 2 - 1


def _share_as_far(drawn: Any, observed: float) -> float:
    """Return the share of draws, with the observed one among them, that lie as far from 0."""
    return float((1 + (abs(drawn) >= abs(observed) - 1e-9).sum()) / (len(drawn) + 1))


def adjust_p_values(p_values: Sequence[float], correction: str = "holm") -> list[float]:
    """Return p-values that hold for all of these tests together, in the order given.

    `holm` keeps the chance of any false finding at the level, whatever the tests have in common;
    `benjamini-hochberg` keeps the expected share of false ones among the findings there (tests that are
    independent or favour each other); `none` changes nothing.

    Sources: Holm 1979, "A simple sequentially rejective multiple test procedure"; Benjamini and Hochberg 1995,
    "Controlling the false discovery rate". Raises StudyError for another name.
    """
    import numpy
    from scipy.stats import false_discovery_control

    values = numpy.asarray(p_values, dtype=float)
    if correction not in CORRECTIONS:
        raise StudyError(f"unknown correction {correction!r}; known: {', '.join(CORRECTIONS)}")
    if correction == "none" or not len(values):
        return values.tolist()
    if correction == "benjamini-hochberg":
        return false_discovery_control(values, method="bh").tolist()
    order = numpy.argsort(values, kind="stable")
    raised = numpy.maximum.accumulate(values[order] * numpy.arange(len(values), 0, -1)).clip(max=1)
    adjusted = numpy.empty_like(values)
    adjusted[order] = raised
    return adjusted.tolist()


def compare_conditions(
    scores: Mapping[Hashable, Sequence[float]],
    *,
    baseline: Hashable | None = None,
    correction: str = "holm",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Return every two conditions of a grid compared on the same items, or each with the `baseline`.

    `scores` holds one value per item for every condition: 0 or 1, or means over draws. The intervals are those
    of single comparisons (`paired_interval`), the p-values those of `paired_p_value`, adjusted for all that
    are returned (`adjust_p_values`).

    Raises StudyError for an unknown baseline, an unknown correction and conditions on other items.
    """
    if len({len(values) for values in scores.values()}) > 1:
        sizes = ", ".join(str(size) for size in sorted({len(values) for values in scores.values()}))
        raise StudyError(f"the conditions have {sizes} items; a paired test needs the same items in all of them")
    if baseline is not None and baseline not in scores:
        raise StudyError(f"unknown baseline {baseline!r}; known: {', '.join(map(repr, scores))}")
    pairs = list(combinations(scores, 2))
    if baseline is not None:
        pairs = [(other, baseline) for other in scores if other != baseline]
    resampled = _Resampled(scores, level, resamples, seed)
    p_values = [resampled.p_value(one, two) for one, two in pairs]
    return [
        Comparison(one, two, *resampled.difference(one, two), p_value, adjusted)
        for (one, two), p_value, adjusted in zip(pairs, p_values, adjust_p_values(p_values, correction), strict=True)
    ]


class _Resampled:
    """One resampling of the items for all conditions of a grid, so that every pair costs a subtraction."""

    def __init__(self, scores: Mapping[Hashable, Sequence[float]], level: float, resamples: int, seed: int) -> None:
        import numpy

        self.scores, self.level, self.resamples, self.seed = scores, level, resamples, seed
        self.row = {condition: row for row, condition in enumerate(scores)}
        self.table = numpy.array([list(values) for values in scores.values()], dtype=float)
        self.items = self.table.shape[-1]
        self.is_binary = bool(numpy.isin(self.table, (0, 1)).all())
        draw = numpy.random.default_rng(seed).multinomial
        if self.items:
            counts = draw(self.items, [1 / self.items] * self.items, size=resamples)
            self.means = counts @ self.table.T / self.items
        if not self.is_binary:
            self.flips = _draw_signs(self.items, resamples, seed) @ self.table.T

    def difference(self, one: Hashable, two: Hashable) -> tuple[float, Interval]:
        """Return mean(one - two) and what `paired_interval` gives."""
        import numpy

        rows = self.row[one], self.row[two]
        difference = self.table[rows[0]] - self.table[rows[1]]
        if not self.items or numpy.ptp(difference) == 0:
            interval = paired_interval(self.scores[one], self.scores[two], self.level)
            return float(difference.mean()) if self.items else 0.0, interval
        return float(difference.mean()), percentiles(self.means[:, rows[0]] - self.means[:, rows[1]], self.level)

    def p_value(self, one: Hashable, two: Hashable) -> float:
        """Return what `paired_p_value` gives; where any condition's scores are not 0 and 1, by flipping signs."""
        rows = self.row[one], self.row[two]
        if self.is_binary:
            first, second = (self.table[row].astype(int).tolist() for row in rows)
            return mcnemar(first, second).p_value
        difference = self.table[rows[0]] - self.table[rows[1]]
        return _share_as_far(self.flips[:, rows[0]] - self.flips[:, rows[1]], difference.sum())


def items_needed(gap: float, discordance: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """Return how many items tell two conditions apart whose accuracies differ by `gap`.

    That many items make McNemar's two-sided test at `level` significant with probability `power`.
    `discordance` is the share of items on which one is right and the other wrong; it cannot be smaller than
    the gap, so the larger of the two counts. Both are shares, 0 to 1: 0.02 is two points. The exact test is
    stricter than the normal approximation in use here, for which one item per 1 / gap is added.

    Sources: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design";
    Fleiss, Levin and Paik 2003, "Statistical methods for rates and proportions", 13.1 (the addition).

    Raises StudyError for a gap outside 0 to 1.
    """
    if not 0 < abs(gap) <= 1:
        raise StudyError(f"a gap of {gap} was asked for; allowed: above 0 and up to 1 (0.02 is two points)")
    normal, gap = statistics.NormalDist(), abs(gap)
    share = max(discordance, gap)
    alpha, beta = normal.inv_cdf(1 - level / 2), normal.inv_cdf(power)
    return math.ceil((alpha * math.sqrt(share) + beta * math.sqrt(share - gap**2)) ** 2 / gap**2 + 1 / gap)


def gap_resolved(items: int, discordance: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest difference in accuracy that `items` tell apart (see `items_needed`), to 0.0001; 1 if none."""
    low, high = 0, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        enough = items_needed(middle / 10_000, discordance, power=power, level=level) <= items
        low, high = (low, middle) if enough else (middle, high)
    return high / 10_000
