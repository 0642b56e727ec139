"""Intervals and tests against scipy, brute force, simulation and published values."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.stats import (
    Interval,
    bootstrap_interval,
    mcnemar,
    paired_interval,
    summarize,
    wilson_interval,
)

BITS = st.integers(0, 1)


def test_wilson_known_value() -> None:
    """81 right of 263 is 0.2553 to 0.3662: Newcombe 1998, table I, method 3."""
    interval = wilson_interval(81, 263)
    assert interval.as_list() == pytest.approx([0.2553, 0.3662], abs=5e-5)


@given(st.integers(1, 300), st.data())
def test_wilson_solves_its_equation(n: int, data: st.DataObject) -> None:
    """Both ends are where the observed share is 1.96 standard errors away, or 0 or 1."""
    correct = data.draw(st.integers(0, n))
    interval, z = wilson_interval(correct, n), statistics.NormalDist().inv_cdf(0.975)
    for end in interval.as_list():
        distance = abs(correct / n - end)
        assert distance == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-6)
    assert 0 <= interval.low <= correct / n <= interval.high <= 1


def test_wilson_of_nothing_is_everything() -> None:
    """No items leave the accuracy anywhere."""
    assert wilson_interval(0, 0) == Interval(0.0, 1.0)


def random_runs(runs: int, items: int, seed: int = 0) -> numpy.ndarray:
    """Return correctness with items that are easy or hard and draws that are good or bad."""
    random = numpy.random.default_rng(seed)
    chance = 0.6 + 0.2 * random.standard_normal((runs, 1)) + 0.2 * random.standard_normal((1, items))
    return (random.random((runs, items)) < chance).astype(int)


def test_bootstrap_resamples_rows_and_columns() -> None:
    """The interval is the one that a plain loop over resampled runs and items finds."""
    matrix, random = random_runs(6, 40), numpy.random.default_rng(1)
    means = [matrix[numpy.ix_(random.integers(0, 6, 6), random.integers(0, 40, 40))].mean() for _ in range(20_000)]
    found = bootstrap_interval(matrix.tolist(), resamples=20_000)
    assert found.as_list() == pytest.approx(numpy.quantile(means, [0.025, 0.975]).tolist(), abs=0.01)


def test_bootstrap_covers_unseen_draws_and_items() -> None:
    """95 % intervals hold the true mean at least that often (it errs to the wide side)."""
    held = 0
    for seed in range(200):
        interval = bootstrap_interval(random_runs(10, 60, seed).tolist(), resamples=400)
        held += interval.low <= 0.5917 <= interval.high  # the mean of the clipped chance
    assert held >= 186


def test_bootstrap_is_a_function_of_its_seed() -> None:
    """The same seed gives the same interval, another seed nearly the same."""
    runs = random_runs(5, 50).tolist()
    assert bootstrap_interval(runs, seed=3) == bootstrap_interval(runs, seed=3)
    assert bootstrap_interval(runs, seed=3) != bootstrap_interval(runs, seed=4)


def test_bootstrap_is_wider_than_the_items_alone() -> None:
    """Draws that differ widen the interval beyond that of one draw on the same items."""
    runs = [[1] * 90 + [0] * 10, [1] * 40 + [0] * 60]
    several, one = bootstrap_interval(runs), bootstrap_interval(runs[:1])
    assert several.high - several.low > 2 * (one.high - one.low)


def test_bootstrap_of_one_run_is_wilsons() -> None:
    """One run gives the interval over items alone."""
    assert bootstrap_interval([[1, 0, 1, 1]]) == wilson_interval(3, 4)


def test_bootstrap_without_variation_is_wilsons() -> None:
    """All right in every run is not certainty: n items still leave room."""
    assert bootstrap_interval([[1] * 20] * 3) == wilson_interval(20, 20)


def test_bootstrap_refuses_no_items() -> None:
    """An empty matrix is the caller's mistake and is named as such."""
    with pytest.raises(ValueError, match=r"expected runs x items, got shape \(1, 0\)"):
        bootstrap_interval([[]])


@given(st.lists(st.tuples(BITS, BITS), min_size=1, max_size=40))
def test_mcnemar_is_the_sign_test(pairs: list[tuple[int, int]]) -> None:
    """The p-value sums the binomial probabilities of all splits no likelier than the one seen."""
    first, second = zip(*pairs, strict=True)
    found = mcnemar(first, second)
    only, other = pairs.count((1, 0)), pairs.count((0, 1))
    n = only + other
    p = sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= math.comb(n, only)) / 2**n
    assert (found.first_only, found.second_only) == (only, other)
    assert found.p_value == pytest.approx(p)
    assert found.p_value == pytest.approx(mcnemar(second, first).p_value)


def test_mcnemar_known_value() -> None:
    """9 against 1 discordant pairs: 2 * (1 + 10) / 1024."""
    assert mcnemar([1] * 9 + [0], [0] * 9 + [1]).p_value == pytest.approx(22 / 1024)


def test_mcnemar_without_disagreement() -> None:
    """Two conditions that never differ are no evidence: p is 1."""
    assert mcnemar([1, 0], [1, 0]).p_value == 1.0


def test_mcnemar_needs_the_same_items() -> None:
    """Conditions on different numbers of items cannot be paired."""
    with pytest.raises(ValueError, match="argument"):
        mcnemar([1, 0], [1])


def test_paired_interval_resamples_items() -> None:
    """The interval is the one that a plain loop over resampled items finds."""
    first, second = random_runs(2, 80)
    difference, random = first - second, numpy.random.default_rng(1)
    means = [difference[random.integers(0, 80, 80)].mean() for _ in range(20_000)]
    found = paired_interval(first.tolist(), second.tolist(), resamples=20_000)
    assert found.as_list() == pytest.approx(numpy.quantile(means, [0.025, 0.975]).tolist(), abs=0.01)


def test_pairing_beats_two_intervals() -> None:
    """Conditions that fail on the same items are told apart by few items."""
    first, second = [1] * 60 + [0] * 40, [1] * 52 + [0] * 48
    assert paired_interval(first, second).low > 0
    assert wilson_interval(60, 100).low < wilson_interval(52, 100).high


def test_paired_interval_without_variation_keeps_a_width() -> None:
    """No disagreement on n items bounds the difference, and does not make it certain."""
    share = wilson_interval(0, 50).high
    assert paired_interval([1] * 50, [1] * 50).as_list() == pytest.approx([-share, share])
    assert paired_interval([1] * 50, [0] * 50).as_list() == pytest.approx([1 - 2 * share, 1])


def test_paired_interval_of_nothing_is_everything() -> None:
    """No items leave the difference anywhere between -1 and 1."""
    assert paired_interval([], []) == Interval(-1.0, 1.0)


def test_summary_of_several_runs() -> None:
    """The standard deviation divides by runs - 1."""
    spread = summarize([0.5, 0.7, 0.9])
    assert (spread.mean, spread.min, spread.max, spread.runs) == (pytest.approx(0.7), 0.5, 0.9, 3)
    assert spread.std == pytest.approx(0.2)
    assert set(spread.as_dict()) == {"mean", "std", "min", "max"}


def test_summary_of_one_run_has_no_spread() -> None:
    """One run has a standard deviation of 0.0, which the reports do not print."""
    assert summarize([0.5]).std == 0.0


def test_the_documented_examples_hold() -> None:
    """The Python code in docs/statistics.md runs, and what it asserts is so."""
    page = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
