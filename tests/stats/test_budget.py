"""The spread from a quarter of the calls, against the full grid."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy
import pytest

from promptkit.errors import StudyError
from promptkit.stats.budget import BudgetedSpread, estimate_spread

STRATEGIES = ("halving", "thompson")


class Grid:
    """Right and wrong answers of conditions that lean to one label or the other; remembers every call."""

    def __init__(self, seed: int, conditions: int = 24, items: int = 256, lean: float = 1.0) -> None:
        random = numpy.random.default_rng(seed)
        self.labels = random.integers(0, 2, items)
        margin = random.normal(1.3 * (2 * self.labels - 1), 1.0)
        answered = margin + random.normal(0, lean, (conditions, 1)) + random.normal(0, 0.5, (conditions, items))
        self.scores = ((answered > 0) == self.labels).astype(float)
        self.margins = answered * (2 * self.labels - 1)
        self.asked: list[tuple[Hashable, Hashable]] = []

    @property
    def spread(self) -> float:
        """The spread that the whole grid shows."""
        return float(numpy.ptp(self.scores.mean(axis=1)))

    def __call__(self, condition: Any, items: Sequence[Any]) -> list[float]:
        self.asked += [(condition, item) for item in items]
        return self.scores[condition, list(items)].tolist()

    def with_margins(self, condition: Any, items: Sequence[Any]) -> list[tuple[float, float]]:
        """Answer a call with pairs of a score and its margin."""
        return list(zip(self(condition, items), self.margins[condition, list(items)].tolist(), strict=True))

    def estimate(self, share: float = 0.25, **settings: Any) -> BudgetedSpread:
        """Return the estimate from this share of the calls, with the labels as strata."""
        conditions, items = map(range, self.scores.shape)
        budget = int(self.scores.size * share)
        settings = {"budget": budget, "strata": self.labels.tolist(), **settings}
        return estimate_spread(conditions, items, settings.pop("evaluate", self), **settings)


@pytest.mark.parametrize(("strategy", "grids", "enough"), [("halving", 20, 14), ("thompson", 8, 5)])
def test_a_quarter_of_the_calls_comes_within_two_points(strategy: str, grids: int, enough: int) -> None:
    """Of many grids most estimates are within two points of the full spread, and the intervals hold it."""
    errors, held = [], 0
    for seed in range(grids):
        grid = Grid(seed)
        found = grid.estimate(strategy=strategy, seed=seed)
        errors.append(found.spread - grid.spread)
        held += found.interval.low - 1e-9 <= grid.spread <= found.interval.high + 1e-9
        assert found.calls == len(grid.asked) <= grid.scores.size / 4
        assert len(set(grid.asked)) == len(grid.asked)
    assert sum(abs(error) <= 0.02 for error in errors) >= enough
    assert abs(numpy.median(errors)) < 0.015
    assert held >= 0.85 * grids


def test_margins_tell_more_than_scores() -> None:
    """With margins the same calls come closer to the full spread, and the intervals still hold it."""
    errors: dict[bool, list[float]] = {False: [], True: []}
    held = 0
    for seed in range(6):
        grid = Grid(seed, conditions=40, items=200)
        for paired in (False, True):
            evaluate = grid.with_margins if paired else grid
            found = grid.estimate(seed=seed, evaluate=evaluate)
            errors[paired].append(abs(found.spread - grid.spread))
        held += found.interval.low - 1e-9 <= grid.spread <= found.interval.high + 1e-9
    assert numpy.mean(errors[True]) < 0.6 * numpy.mean(errors[False])
    assert held >= 5


def test_margins_of_everything_leave_nothing_open() -> None:
    """With a call for every cell and item margins add nothing, and the spread has no width."""
    grid = Grid(1, conditions=6, items=40)
    found = grid.estimate(2.0, evaluate=grid.with_margins)
    assert found.spread == pytest.approx(grid.spread)
    assert found.interval.as_list() == pytest.approx([grid.spread] * 2)


def test_equal_margins_are_not_certainty() -> None:
    """All right by far so far is still a spread that could be a little more."""

    def evaluate(condition: Any, items: Sequence[Any]) -> list[tuple[float, float]]:
        return [(1.0, 5.0 + int(item) / 10) for item in items]

    found = estimate_spread(range(3), range(40), evaluate, budget=30)
    assert found.spread < 0.1
    assert found.interval.low == pytest.approx(0, abs=1e-6)
    assert 0.001 < found.interval.high < 0.3


def test_luck_does_not_make_the_spread() -> None:
    """The means of as many calls, spread evenly, overstate the spread of nearly equal conditions; the estimate less."""
    naive, found = [], []
    for seed in range(15):
        grid = Grid(seed, lean=0.2)
        naive.append(numpy.ptp(grid.scores[:, :64].mean(axis=1)) - grid.spread)
        found.append(grid.estimate(seed=seed).spread - grid.spread)
    assert numpy.mean(naive) > 0.02
    assert abs(numpy.mean(found)) < numpy.mean(naive)


def test_best_and_worst_are_close_to_the_extremes() -> None:
    """The conditions named best and worst lose little to the true ones, and the list is sorted."""
    lost = []
    for seed in range(10):
        grid = Grid(seed)
        found, means = grid.estimate(seed=seed), grid.scores.mean(axis=1)
        lost.append(grid.spread - (means[found.best.condition] - means[found.worst.condition]))
        assert [each.mean for each in found.estimates] == sorted((each.mean for each in found.estimates), reverse=True)
        assert sum(each.items for each in found.estimates) == found.calls
        assert {each.condition for each in found.estimates} == set(range(24))
    assert numpy.mean(lost) < 0.02


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_whole_budget_gives_the_whole_grid(strategy: str) -> None:
    """With a call for every cell and item the spread is exact and has no width."""
    grid = Grid(1, conditions=6, items=40)
    found = grid.estimate(2.0, strategy=strategy)
    assert found.calls == found.full_calls == 240
    assert found.spread == pytest.approx(grid.spread)
    assert found.interval.as_list() == pytest.approx([grid.spread] * 2)
    assert [each.std for each in found.estimates] == [0.0] * 6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_names_does_not_matter(strategy: str) -> None:
    """Conditions and items in any order give the same calls and the same result; another seed gives others."""
    grid = Grid(2, conditions=8, items=60)
    settings: dict[str, Any] = {"budget": 150, "strategy": strategy}
    first = estimate_spread(range(8), range(60), grid, **settings)
    calls, grid.asked = grid.asked, []
    assert estimate_spread(range(8)[::-1], range(60)[::-1], grid, **settings) == first
    assert grid.asked == calls
    assert estimate_spread(range(8), range(60), grid, seed=1, **settings) != first


def test_all_conditions_are_asked_the_same_items_in_proportion() -> None:
    """What one condition was asked is a prefix of what another was, with every label's share in it."""
    grid = Grid(5, conditions=8, items=100)
    grid.estimate()
    asked = [[item for condition, item in grid.asked if condition == row] for row in range(8)]
    longest = max(asked, key=len)
    for items in asked:
        assert items == longest[: len(items)]
        assert grid.labels[items].mean() == pytest.approx(grid.labels.mean(), abs=1 / len(items))


def test_equal_answers_are_not_certainty() -> None:
    """All right so far is a spread near 0 that could be a little more."""
    found = estimate_spread(range(3), range(40), lambda condition, items: [1.0] * len(items), budget=30)
    assert found.spread < 0.05
    assert found.interval.low == pytest.approx(0, abs=1e-6)
    assert 0.001 < found.interval.high < 0.2


def test_time_ends_the_search() -> None:
    """Once `until` is true nothing more is asked, and what is known is returned."""
    grid = Grid(0, conditions=6, items=100)
    found = grid.estimate(until=lambda: len(grid.asked) >= 130, strategy="thompson")
    assert 130 <= found.calls < 150
    assert found.interval.low <= found.spread <= found.interval.high


def test_calls_are_allowed_after_the_first() -> None:
    """Every condition answers twice, whatever the time; then as many calls are made as there is time for."""
    grid = Grid(0, conditions=6, items=100)
    none = grid.estimate(until=lambda: True, allow=lambda calls: 1000)
    assert [each.items for each in none.estimates] == [2] * 6
    some = grid.estimate(allow=lambda calls: 60 - calls)
    assert some.calls == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "greedy"}, "unknown strategy 'greedy'; known: thompson, halving"),
        ({"budget": 11}, "a budget of 11 calls for 6 conditions; the least is 12, two items for each"),
        ({"batch": 0}, "a batch of 0 items was asked for; the least is 1"),
        ({"strata": [0, 1]}, "2 strata were given for 10 items; give one per item"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    """What is wrong is named, with what is allowed."""
    with pytest.raises(StudyError, match=message):
        Grid(0, conditions=6, items=10).estimate(**settings)


def test_names_and_scores_that_cannot_work() -> None:
    """Names must differ, also as text, and every item needs a score."""
    with pytest.raises(StudyError, match="3 conditions were given; a spread needs two or more with different names"):
        estimate_spread([1, "1", 2], range(9), lambda condition, items: [1] * len(items), budget=20)
    with pytest.raises(StudyError, match="gave 1 scores for 2 items; one per item is expected"):
        estimate_spread([1, 2], range(9), lambda condition, items: [1], budget=8)
