"""Compute intervals and spreads from right and wrong answers.

Which question each figure answers, and where it fails, is in docs/statistics.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

RESAMPLES = 2000
#: The shares of runs below each of the quantiles that a study prints.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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
    runs that all answer alike, which resampling would give too narrow an interval, or none.

    `groups` names for each run what it shares with others: the orders of one choice of demonstrations are
    not independent runs, so whole groups are resampled. Of one group, only the items are.

    Source: Owen 2007, "The pigeonhole bootstrap" (it errs to the wide side), percentile ends.
    """
    import numpy

    matrix = numpy.asarray(runs, dtype=float)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"expected runs x items, got shape {matrix.shape}")
    draws, items = matrix.shape
    if groups is not None and len(groups) != draws:
        raise ValueError(f"expected one group per run, got {len(groups)} groups for {draws} runs")
    if (matrix == matrix[0]).all():
        return wilson_interval(round(float(matrix[0].sum())), items, level)
    random = numpy.random.default_rng(seed)
    row_counts = draw_runs(random, range(draws) if groups is None else groups, resamples)
    item_counts = random.multinomial(items, [1 / items] * items, size=resamples)
    means = ((row_counts @ matrix) * item_counts).sum(axis=1) / (row_counts.sum(axis=1) * items)
    return percentiles(means, level)


def draw_runs(random: Any, groups: Sequence[Hashable], resamples: int) -> Any:
    """Return resamples x runs: how often each run is drawn, where whole groups are; `groups` names that of each run."""
    import numpy

    names = list(dict.fromkeys(groups))
    members = numpy.array([[int(group == name) for group in groups] for name in names])
    return random.multinomial(len(names), [1 / len(names)] * len(names), size=resamples) @ members


def macro_f1_interval(
    predicted: Sequence[Sequence[int | None]],
    labels: Sequence[int],
    label_count: int,
    level: float = 0.95,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of a method's mean macro-F1, over other runs and other items.

    `predicted` is runs x items, None where an answer could not be read. Runs, in `groups`, and items are resampled as
    in `bootstrap_interval`; of each resample those labels count that it has, as in `metrics.macro_f1`.
    """
    import numpy

    random = numpy.random.default_rng(seed)
    answers = numpy.array([[-1 if answer is None else answer for answer in run] for run in predicted])
    runs, items = answers.shape
    counts = random.multinomial(items, [1 / items] * items, size=resamples)
    drawn = draw_runs(random, range(runs) if groups is None else groups, resamples)
    weights = drawn / drawn.sum(axis=1, keepdims=True)
    means = numpy.zeros(resamples)
    for run in range(runs):
        total, present = numpy.zeros(resamples), numpy.zeros(resamples)
        for label in range(label_count):
            said, true = answers[run] == label, numpy.array(labels) == label
            found = counts @ (said & true)
            all_named = counts @ said + counts @ true
            total += numpy.divide(2 * found, all_named, out=numpy.zeros(resamples), where=all_named > 0)
            present += all_named > 0
        means += weights[:, run] * total / present
    return percentiles(means, level)


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
    return percentiles(counts @ difference / items, level)


def percentiles(values: Any, level: float) -> Interval:
    """Return the interval that holds the middle `level` of resampled values."""
    import numpy

    low, high = numpy.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def summarize(values: Sequence[float]) -> Spread:
    """Return mean, standard deviation, extremes and number of the runs' figures; at least one run."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(math.fsum(values) / len(values), std, min(values), max(values), len(values))


def quantiles(values: Sequence[float], at: Sequence[float] = QUANTILES) -> dict[float, float]:
    """Return the values below which these shares of the runs lie (linear between two runs); at least one run."""
    import numpy

    return dict(zip(at, numpy.quantile(numpy.asarray(values, dtype=float), at).tolist(), strict=True))
