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

from promptkit.errors import StudyError
from promptkit.stats import (
    Interval,
    adjust_p_values,
    bootstrap_interval,
    compare_conditions,
    gap_resolved,
    items_needed,
    mcnemar,
    paired_interval,
    paired_p_value,
    quantiles,
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
    assert bootstrap_interval([[1] * 3 + [0] * 12] * 4) == wilson_interval(3, 15)


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


def test_groups_are_resampled_whole() -> None:
    """Twenty orders of four choices say no more about other choices than the choices' means do."""
    random = numpy.random.default_rng(0)
    choices = random.random((4, 1)) * 0.6 + 0.2
    runs = (random.random((80, 300)) < numpy.repeat(choices, 20, axis=0)).astype(int)
    groups = numpy.repeat(range(4), 20).tolist()
    alone, grouped = bootstrap_interval(runs.tolist()), bootstrap_interval(runs.tolist(), groups=groups)
    means = [choices[random.integers(0, 4, 4)].mean() for _ in range(5000)]
    assert grouped.as_list() == pytest.approx(numpy.quantile(means, [0.025, 0.975]).tolist(), abs=0.03)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="expected one group per run, got 4 groups for 80 runs"):
        bootstrap_interval(runs.tolist(), groups=range(4))


def test_quantiles() -> None:
    """The median and the ends of 101 even steps are where they should be."""
    assert quantiles([step / 100 for step in range(101)]) == pytest.approx(
        {0.05: 0.05, 0.25: 0.25, 0.5: 0.5, 0.75: 0.75, 0.95: 0.95}
    )


def test_paired_p_value_of_right_and_wrong_is_mcnemars() -> None:
    """For 0 and 1 the sign-flip test is McNemar's, exactly."""
    first, second = random_runs(2, 60)
    assert paired_p_value(first, second) == mcnemar(first.tolist(), second.tolist()).p_value


def test_paired_p_value_counts_sign_flips() -> None:
    """Of means over draws it is the share of all sign flips that lie as far from 0."""
    difference = numpy.array([0.5, 0.25, 0.25, -0.25, 0.75, 0.5, 0.125, 0.125])
    signs = numpy.array(numpy.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    exact = (abs(difference @ signs) >= difference.sum()).mean()
    assert paired_p_value(difference, numpy.zeros(8), resamples=20_000) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("draws", [1, 4], ids=["right and wrong", "means over draws"])
def test_paired_tests_hold_their_level(draws: int) -> None:
    """Two equally good conditions are called different in at most 5 % of 400 pairs (and the test is not idle)."""
    found = 0
    for seed in range(400):
        random = numpy.random.default_rng(seed)
        chance = random.random(80)
        first, second = ((random.random((draws, 80)) < chance).mean(axis=0) for _ in range(2))
        found += paired_p_value(first, second, resamples=400) < 0.05
    assert 4 <= found <= 28


def test_a_corrected_grid_holds_its_level() -> None:
    """Of 100 grids of six equal conditions (15 pairs), Holm finds a difference in few and no correction in many."""
    any_found = {"holm": 0, "none": 0}
    for seed in range(100):
        random = numpy.random.default_rng(seed)
        scores = dict(enumerate((random.random((6, 150)) < random.random(150)).astype(int)))
        compared = compare_conditions(scores, resamples=2)
        any_found["holm"] += any(each.adjusted < 0.05 for each in compared)
        any_found["none"] += any(each.p_value < 0.05 for each in compared)
    assert any_found["holm"] <= 10
    assert any_found["none"] >= 20


def test_holm_known_values() -> None:
    """0.01, 0.04, 0.03 and 0.005 become 0.03, 0.06, 0.06 and 0.02, in their places (R's p.adjust)."""
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_benjamini_hochberg_known_values() -> None:
    """The same p-values become 0.02, 0.04, 0.04 and 0.02 (R's p.adjust)."""
    adjusted = adjust_p_values([0.01, 0.04, 0.03, 0.005], "benjamini-hochberg")
    assert adjusted == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_corrections_by_name() -> None:
    """`none` changes nothing, nothing stays nothing, and another name is refused."""
    assert adjust_p_values([0.2, 0.01], "none") == [0.2, 0.01]
    assert adjust_p_values([]) == []
    with pytest.raises(StudyError, match="unknown correction 'bonferroni'; known: holm, benjamini-hochberg, none"):
        adjust_p_values([0.1], "bonferroni")


@pytest.mark.parametrize("draws", [1, 3])
def test_a_grid_is_compared_pair_by_pair(draws: int) -> None:
    """Differences, intervals and p-values are those of each pair alone; the adjusted ones take all into account."""
    table = random_runs(4 * draws, 60).reshape(4, draws, 60).mean(axis=1)
    table[3] = table[2]
    scores = dict(zip("abcd", table.tolist(), strict=True))
    compared = compare_conditions(scores, resamples=300)
    assert [(each.first, each.second) for each in compared] == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"),
    ]  # fmt: skip
    for each in compared:
        first, second = scores[each.first], scores[each.second]
        assert each.difference == pytest.approx(statistics.mean(first) - statistics.mean(second))
        alone = paired_interval(first, second, resamples=300)
        assert each.interval.as_list() == pytest.approx(alone.as_list())
        assert each.p_value == pytest.approx(paired_p_value(first, second, resamples=300))
    assert [each.adjusted for each in compared] == adjust_p_values([each.p_value for each in compared])


def test_a_grid_against_its_baseline() -> None:
    """With a baseline each other condition is compared with it, and fewer tests are corrected for."""
    scores = dict(zip("abc", random_runs(3, 50).tolist(), strict=True))
    compared = compare_conditions(scores, baseline="b")
    assert [(each.first, each.second) for each in compared] == [("a", "b"), ("c", "b")]
    with pytest.raises(StudyError, match="unknown baseline 'z'; known: 'a', 'b', 'c'"):
        compare_conditions(scores, baseline="z")
    with pytest.raises(StudyError, match="the conditions have 1, 2 items; a paired test needs the same items"):
        compare_conditions({"a": [1], "b": [1, 0]})


@pytest.mark.parametrize(("gap", "discordance"), [(0.05, 0.2), (0.1, 0.3), (0.1, 0.1), (0.3, 0.4)])
def test_the_items_needed_are_enough_and_not_too_many(gap: float, discordance: float) -> None:
    """With that many items McNemar's exact test finds the gap in about 80 % of 600 samples."""
    n, found = items_needed(gap, discordance), 0
    shares = [(discordance + gap) / 2, (discordance - gap) / 2, 1 - discordance]
    for only, other, _ in numpy.random.default_rng(0).multinomial(n, shares, size=600):
        found += mcnemar([1] * only + [0] * other, [0] * only + [1] * other).p_value < 0.05
    assert 0.76 <= found / 600 <= 0.92


def test_gap_resolved_inverts_items_needed() -> None:
    """The gap that n items resolve needs at most n items, and one a little smaller more."""
    gap = gap_resolved(200, 0.2)
    assert items_needed(gap, 0.2) <= 200 < items_needed(gap - 0.0002, 0.2)
    assert gap_resolved(2, 0.5) == 1.0
    assert items_needed(0.02, 0.1) == items_needed(-0.02, 0.1)
    with pytest.raises(StudyError, match="a gap of 0 was asked for; allowed: above 0 and up to 1"):
        items_needed(0, 0.2)


def test_the_documented_examples_hold() -> None:
    """The Python code in docs/statistics.md runs, and what it asserts is so."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
