"""Right and wrong answers into intervals, tests, spreads and numbers of items.

Which question each figure answers, and where it fails, is in docs/statistics.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from promptkit.errors import StudyError

RESAMPLES = 2000
#: The shares of runs below each of the quantiles that a study prints.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CORRECTIONS = ("holm", "benjamini-hochberg", "none")


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of a confidence interval."""

    low: float
    high: float

    def as_list(self) -> list[float]:
        """Return [low, high], as `--json` prints it."""
        return [self.low, self.high]


@dataclass(frozen=True, slots=True)
class Spread:
    """How one figure varies over runs. `std` divides by runs - 1; of one run it is 0.0 and says nothing."""

    mean: float
    std: float
    min: float
    max: float
    runs: int

    def as_dict(self) -> dict[str, float]:
        """Return the keys that `--json` prints; the runs stand beside them there."""
        return {key: value for key, value in asdict(self).items() if key != "runs"}


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


def wilson_interval(correct: int, n: int, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion; no items at all say nothing: 0 to 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n == 0:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest

    found = binomtest(correct, n).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high))


def bootstrap_interval(
    runs: Sequence[Sequence[float]],
    level: float = 0.95,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of a method's mean correctness, over other runs and other items.

    `runs` is runs x items, 0 or 1: row for row one draw of demonstrations (or one training seed) on
    the same items. Rows and columns are both resampled, so the interval holds for draws and items
    that were not seen. One run is Wilson's interval: it says nothing about other draws. So are
    answers without any variation, which resampling would give an interval of no width.

    `groups` names for each run what it shares with others: the orders of one choice of demonstrations are
    not independent runs, so whole groups are resampled. Of one group, only the items are.

    Source: Owen 2007, "The pigeonhole bootstrap" (it errs to the wide side), percentile ends.
    """
    import numpy

    matrix = numpy.asarray(runs, dtype=float)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"expected runs x items, got shape {matrix.shape}")
    draws, items = matrix.shape
    if draws == 1 or numpy.ptp(matrix) == 0:
        return wilson_interval(round(float(matrix[0].sum())), items, level)
    members = _group_runs(range(draws) if groups is None else groups, draws)
    random = numpy.random.default_rng(seed)
    row_counts = random.multinomial(len(members), [1 / len(members)] * len(members), size=resamples) @ members
    item_counts = random.multinomial(items, [1 / items] * items, size=resamples)
    means = ((row_counts @ matrix) * item_counts).sum(axis=1) / (row_counts.sum(axis=1) * items)
    return _percentiles(means, level)


def _group_runs(groups: Sequence[Hashable], runs: int) -> Any:
    """Return groups x runs: 1 where the run is of the group."""
    import numpy

    if len(groups) != runs:
        raise ValueError(f"expected one group per run, got {len(groups)} groups for {runs} runs")
    names = list(dict.fromkeys(groups))
    return numpy.array([[int(group == name) for group in groups] for name in names])


def macro_f1_interval(
    predicted: Sequence[Sequence[int | None]],
    labels: Sequence[int],
    label_count: int,
    level: float = 0.95,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of a method's mean macro-F1, over other runs and other items.

    `predicted` is runs x items, None where an answer could not be read. Runs and items are resampled as
    in `bootstrap_interval`; an F1 of nothing is 0, as in `metrics.macro_f1`.
    """
    import numpy

    random = numpy.random.default_rng(seed)
    answers = numpy.array([[-1 if answer is None else answer for answer in run] for run in predicted])
    runs, items = answers.shape
    counts = random.multinomial(items, [1 / items] * items, size=resamples)
    weights = random.multinomial(runs, [1 / runs] * runs, size=resamples) / runs
    means = numpy.zeros(resamples)
    for run in range(runs):
        per_label = []
        for label in range(label_count):
            said, true = answers[run] == label, numpy.array(labels) == label
            found = counts @ (said & true)
            all_named = counts @ said + counts @ true
            per_label.append(numpy.divide(2 * found, all_named, out=numpy.zeros(resamples), where=all_named > 0))
        means += weights[:, run] * numpy.mean(per_label, axis=0)
    return _percentiles(means, level)


def paired_interval(
    first: Sequence[float],
    second: Sequence[float],
    level: float = 0.95,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of mean(first - second) over other items, item for item the same ones.

    Each value is one item's correctness: 0 or 1, or its mean over runs. Where the difference is the
    same on every item, resampling would give no width; then at most a share u of other items differs
    (u: the upper end of Wilson's interval for 0 of n), by -1 to 1.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", ch. 13 (percentile ends).
    """
    import numpy

    difference = numpy.asarray(first, dtype=float) - numpy.asarray(second, dtype=float)
    items = len(difference)
    if items == 0 or numpy.ptp(difference) == 0:
        mean = float(difference[0]) if items else 0.0
        other = wilson_interval(0, items, level).high
        return Interval((1 - other) * mean - other, (1 - other) * mean + other)
    counts = numpy.random.default_rng(seed).multinomial(items, [1 / items] * items, size=resamples)
    return _percentiles(counts @ difference / items, level)


def _percentiles(values: Any, level: float) -> Interval:
    import numpy

    low, high = numpy.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


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


def summarize(values: Sequence[float]) -> Spread:
    """Return mean, standard deviation, extremes and number of the runs' figures; at least one run."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(math.fsum(values) / len(values), std, min(values), max(values), len(values))


def quantiles(values: Sequence[float], at: Sequence[float] = QUANTILES) -> dict[float, float]:
    """Return the values below which these shares of the runs lie (linear between two runs); at least one run."""
    import numpy

    return dict(zip(at, numpy.quantile(numpy.asarray(values, dtype=float), at).tolist(), strict=True))


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
        return float(difference.mean()), _percentiles(self.means[:, rows[0]] - self.means[:, rows[1]], self.level)

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
