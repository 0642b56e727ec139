"""Rank correlations and reversals between models, against scipy, brute force and simulation."""

from __future__ import annotations

from itertools import permutations

import numpy
import pytest
from scipy.stats import binomtest, kendalltau, spearmanr

from promptkit.errors import StudyError
from promptkit.stats import Interval
from promptkit.stats.agreement import correlate_ranks, measure_reversal


def test_correlations_are_scipys() -> None:
    """Both coefficients are scipy's, ties included, and lie within their intervals."""
    random = numpy.random.default_rng(0)
    first = random.integers(0, 9, 24) / 10
    second = first + random.integers(0, 5, 24) / 10
    found = correlate_ranks(first, second)
    assert found.spearman == pytest.approx(spearmanr(first, second).statistic)
    assert found.kendall == pytest.approx(kendalltau(first, second).statistic)
    assert found.spearman_interval.low < found.spearman < found.spearman_interval.high
    assert found.kendall_interval.low < found.kendall < found.kendall_interval.high


def test_correlation_intervals_cover() -> None:
    """Intervals of 200 samples of 24 conditions hold the true coefficients at least 92 % of the time."""
    truth, held = 0.6, [0, 0]
    spearman, kendall = 6 / numpy.pi * numpy.arcsin(truth / 2), 2 / numpy.pi * numpy.arcsin(truth)
    for seed in range(200):
        pair = numpy.random.default_rng(seed).multivariate_normal([0, 0], [[1, truth], [truth, 1]], 24).T
        found = correlate_ranks(*pair)
        held[0] += found.spearman_interval.low <= spearman <= found.spearman_interval.high
        held[1] += found.kendall_interval.low <= kendall <= found.kendall_interval.high
    assert min(held) >= 184


def test_few_or_equal_conditions_say_nothing() -> None:
    """Four conditions leave every correlation open; equal accuracies have no ranks: 0."""
    assert correlate_ranks([1, 2, 3, 4], [1, 2, 3, 4]).spearman_interval == Interval(-1.0, 1.0)
    flat = correlate_ranks([0.5] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (flat.spearman, flat.kendall) == (0.0, 0.0)
    assert correlate_ranks(range(9), range(9)).spearman_interval.high == pytest.approx(1)
    with pytest.raises(StudyError, match="3 and 2 conditions were given; ranks need the same conditions"):
        correlate_ranks([1, 2, 3], [1, 2])


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05])
def test_reversals_are_counted_over_pairs(gap: float) -> None:
    """Probabilities are those of a loop over all ordered pairs of conditions, significance included."""
    random = numpy.random.default_rng(1)
    first, second = (random.random((2, 12, 300)) < random.uniform(0.4, 0.7, (2, 12, 1))).astype(int)
    difference = first.mean(axis=1) - second.mean(axis=1)

    def is_sure(one: numpy.ndarray, two: numpy.ndarray) -> bool:
        only, other = int((one > two).sum()), int((two > one).sum())
        return bool(binomtest(only, only + other, alternative="greater").pvalue < 0.05)

    pairs = list(permutations(range(12), 2))
    won = [(a, b) for a, b in pairs if difference[a] >= gap]
    turned = [(a, b) for a, b in won if difference[b] <= -gap]
    sure = [(a, b) for a, b in turned if is_sure(first[a], second[a]) and is_sure(second[b], first[b])]
    found = measure_reversal(first, second, gap=gap)
    assert turned
    assert found.given_first == pytest.approx(len(turned) / len(won))
    assert found.probability == pytest.approx(2 * len(turned) / len(pairs))
    assert found.significant == pytest.approx(len(sure) / len(turned))
    assert measure_reversal(first.mean(axis=1), second.mean(axis=1), gap=gap).probability == found.probability


def test_no_reversal() -> None:
    """A model that always wins is never reversed, and one that never wins has no condition to start from."""
    assert measure_reversal([0.9, 0.8], [0.1, 0.2]).given_first == 0.0
    assert measure_reversal([0.1, 0.2], [0.9, 0.8]).given_first is None
    assert measure_reversal(numpy.ones((2, 5)), numpy.zeros((2, 5))).significant is None
    with pytest.raises(StudyError, match=r"shapes \(1,\) and \(1,\) were given; reversals need the same conditions"):
        measure_reversal([0.1], [0.2])
