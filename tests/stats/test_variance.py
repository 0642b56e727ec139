"""The decomposition of variance against sums of squares by hand, and by simulation."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy
import pytest

from promptkit.errors import StudyError
from promptkit.stats import Interval
from promptkit.stats.variance import Decomposition, VariancePart, decompose_variance, describe_shares

TRUE = {"choice": 0.06**2, "order": 0.03**2, "template": 0.05**2}
NESTED = {"order": "choice"}


def draw_grid(seed: int, *, choices: int = 6, orders: int = 4, templates: int = 4, items: int = 150) -> tuple[Any, Any]:
    """Return scores (0 or 1) with the variances TRUE between cells, and the factors."""
    random = numpy.random.default_rng(seed)
    cells = list(product(range(choices), range(orders), range(templates)))
    choice, order = random.normal(0, 0.06, choices), random.normal(0, 0.03, (choices, orders))
    template, item = random.normal(0, 0.05, templates), random.normal(0, 0.12, items)
    flips = random.normal(0, 0.05, (choices, items))
    chance = numpy.array([0.6 + choice[c] + order[c, o] + template[t] + item + flips[c] for c, o, t in cells])
    factors = dict(zip(("choice", "order", "template"), zip(*cells, strict=True), strict=True))
    return (random.random(chance.shape) < chance).astype(float), factors


def keep_cells(scores: Any, factors: Any, kept: list[int]) -> tuple[Any, Any]:
    """Return a part of the cells."""
    return scores[kept], {name: [levels[cell] for cell in kept] for name, levels in factors.items()}


def test_nothing_has_a_share_of_what_does_not_vary() -> None:
    """Cells with the very same answers have no variance between them: no factor is given what rounding left."""
    scores = [[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]] * 8
    factors = {"template": list("aabbccdd"), "draw": list("xyxyxyxy")}
    found = decompose_variance(scores, factors)
    assert {part.between for part in found.parts[:2]} == {0.0}
    assert found.between_std == 0.0


def test_nested_design_by_hand() -> None:
    """Orders in choices: the textbook's sums of squares, with the items' noise taken out of each mean square."""
    random = numpy.random.default_rng(3)
    table = random.normal(0, 1, (3, 4, 1)) + random.normal(0, 3, (3, 1, 1)) + random.normal(0, 0.5, (3, 4, 30))
    means, by_choice = table.mean(axis=2), table.mean(axis=(1, 2))
    noise = (table - table.mean(axis=1, keepdims=True)) - (means - by_choice[:, None])[:, :, None]
    choice_noise = table.mean(axis=1) - table.mean(axis=(0, 1)) - (by_choice - table.mean())[:, None]
    ms_order = ((means - by_choice[:, None]) ** 2).sum() / 9 - (noise**2).sum() / 9 / 29 / 30
    ms_choice = 4 * ((by_choice - table.mean()) ** 2).sum() / 2 - 4 * (choice_noise**2).sum() / 2 / 29 / 30
    factors = {"order": [0, 1, 2, 3] * 3, "choice": numpy.repeat([0, 1, 2], 4).tolist()}
    found = decompose_variance(table.reshape(12, 30), factors, nested=NESTED)
    assert found.part("order").variance == pytest.approx(ms_order)
    assert found.part("choice").variance == pytest.approx((ms_choice - ms_order) / 4)
    assert [part.name for part in found.parts] == ["order", "choice", "items", "residual"]
    assert found.balanced


def test_crossed_design_by_hand() -> None:
    """Two crossed factors without noise: the interaction is what both together leave, and items explain nothing."""
    random = numpy.random.default_rng(4)
    means = random.normal(0, 3, (5, 1)) + random.normal(0, 2, (1, 4)) + random.normal(0, 1, (5, 4))
    rows, columns = means.mean(axis=1), means.mean(axis=0)
    rest = means - rows[:, None] - columns + means.mean()
    ms_rest = (rest**2).sum() / 12
    factors = {"a": numpy.repeat(range(5), 4).tolist(), "b": list(range(4)) * 5}
    found = decompose_variance(numpy.repeat(means.reshape(20, 1), 10, axis=1), factors)
    assert found.part("interactions").variance == pytest.approx(ms_rest)
    assert found.part("a").variance == pytest.approx(rows.var(ddof=1) - ms_rest / 4)
    assert found.part("b").variance == pytest.approx(columns.var(ddof=1) - ms_rest / 5)
    assert found.part("items").variance == pytest.approx(0, abs=1e-12)
    assert found.p_value < 1e-6


def test_parts_sum_to_the_total() -> None:
    """Variances sum to the total, shares to 1, and the cells' shares between cells to 1, within 0 to 1."""
    scores, factors = draw_grid(0)
    found = decompose_variance(scores, factors, nested=NESTED)
    assert sum(part.variance for part in found.parts) == pytest.approx(found.total)
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    between = [part for part in found.parts if part.between is not None]
    assert sum(part.between or 0 for part in between) == pytest.approx(1)
    assert [part.name for part in between] == ["choice", "order", "template", "interactions"]
    assert sum(part.variance for part in between) == pytest.approx(found.between_std**2)
    assert found.total == pytest.approx(scores.var(), rel=0.05)
    for part in found.parts:
        assert 0 <= part.interval.low <= part.share <= part.interval.high <= 1


@pytest.mark.parametrize("dropped", [False, True], ids=["balanced", "unbalanced"])
def test_known_components_lie_in_the_intervals(dropped: bool) -> None:
    """Of 60 grids of 0 and 1 with known components, the 95 % intervals of the shares hold at least 53."""
    held = dict.fromkeys(TRUE, 0)
    total = sum(TRUE.values())
    estimates = []
    for seed in range(60):
        scores, factors = draw_grid(seed)
        if dropped:
            scores, factors = keep_cells(scores, factors, [cell for cell in range(96) if (cell * 7 + seed) % 5])
        found = decompose_variance(scores, factors, nested=NESTED, draws=500)
        assert found.balanced != dropped
        estimates.append([found.part(name).variance for name in TRUE])
        for name, variance in TRUE.items():
            interval = found.part(name).between_interval
            assert interval is not None
            held[name] += interval.low <= variance / total <= interval.high
    assert min(held.values()) >= 53
    assert numpy.mean(estimates, axis=0) == pytest.approx(list(TRUE.values()), rel=0.3)


def test_items_are_recovered() -> None:
    """The variance between items is what it was drawn with, apart from how items differ from cell to cell."""
    found = [decompose_variance(*draw_grid(seed, items=400), nested=NESTED, draws=50) for seed in range(10)]
    assert numpy.mean([each.part("items").variance for each in found]) == pytest.approx(0.12**2, rel=0.15)


def test_equal_cells_are_rarely_called_different() -> None:
    """The test of equal cells holds its level, for items that are hard in some cells and not in others."""
    found = 0
    for seed in range(200):
        random = numpy.random.default_rng(seed)
        chance = 0.2 + 0.6 * random.random(120) * numpy.ones((20, 1))
        chance[:10] = chance[:10, random.permutation(120)]
        scores = (random.random(chance.shape) < chance).astype(float)
        found += decompose_variance(scores, {"choice": list(range(20))}, draws=2).p_value < 0.05
    assert found <= 18


def test_a_factor_of_one_level_is_left_out() -> None:
    """What did not vary explains nothing and is not a part."""
    scores, factors = draw_grid(1)
    found = decompose_variance(scores, {**factors, "k": [4] * len(scores)}, nested=NESTED)
    assert "k" not in {part.name for part in found.parts}


def test_the_result_is_a_function_of_its_seed() -> None:
    """The same seed gives the same intervals, another seed others."""
    scores, factors = draw_grid(1)
    first = decompose_variance(scores, factors, nested=NESTED, draws=100, seed=1)
    assert first == decompose_variance(scores, factors, nested=NESTED, draws=100, seed=1)
    assert first != decompose_variance(scores, factors, nested=NESTED, draws=100, seed=2)


ONES = numpy.ones((4, 3))


@pytest.mark.parametrize(
    ("scores", "factors", "nested", "message"),
    [
        (ONES[:1], {"a": [1]}, {}, r"scores of shape \(1, 3\) were given; variance needs cells x items"),
        (ONES * numpy.nan, {"a": [1, 2, 1, 2]}, {}, "hold values that are not numbers"),
        (ONES, {"a": [1, 2]}, {}, "factor 'a' has 2 levels for 4 cells; give one per cell"),
        (ONES, {"a": [1, 1, 1, 1]}, {}, "no factor has more than one level"),
        (ONES, {"a": [1, 2, 1, 2], "b": [3, 4, 3, 4]}, {}, "factor 'b' cannot be told from 'a': in this grid"),
        (ONES, {"a": [1, 2, 1, 2]}, {"a": "z"}, "'a' is nested in 'z', but there is no factor 'z'; known: a"),
        (
            ONES,
            {"a": [1, 2, 1, 2], "b": [1, 1, 2, 2]},
            {"a": "b", "b": "a"},
            "'a' and 'b' are each nested in the other",
        ),
        (ONES, {"items": [1, 2, 1, 2]}, {}, "a factor cannot be called 'items'"),
    ],
)
def test_grids_that_cannot_be_decomposed(scores: Any, factors: Any, nested: Any, message: str) -> None:
    """What does not fit is named, with what is allowed."""
    with pytest.raises(StudyError, match=message):
        decompose_variance(scores, factors, nested=nested)


def result(**changes: Any) -> Decomposition:
    """Return a decomposition with round figures."""
    whole = Interval(0.25, 0.57)
    parts = (
        VariancePart("order", 0.001, 0.02, Interval(0.0, 0.1), 0.2, Interval(0.05, 0.2)),
        VariancePart("choice", 0.004, 0.08, whole, 0.8, whole),
        VariancePart("items", 0.02, 0.4, Interval(0.3, 0.5)),
        VariancePart("residual", 0.025, 0.5, Interval(0.4, 0.6)),
    )
    settings = {"between_std": 0.0707, "cells": 24, "items": 100, "balanced": True, "first_in": 0.97, "p_value": 0.001}
    return Decomposition(parts, total=0.05, confidence=0.95, **{**settings, **changes})


def test_the_words() -> None:
    """The largest factor comes first, with how sure that is, and then what the rest is."""
    assert describe_shares(result()) == (
        "The choice of demonstrations explains 80 % [25, 57] of the variance between cells; the order of "
        "demonstrations explains 20 % [5, 20] (95 % intervals in brackets). That the choice of demonstrations matters "
        "most is sure (97 %). Cells differ by 7.1 points (standard deviation, beyond the luck of 100 items). Of the "
        "variance of a single answer, the items explain 40 % [30, 50]."
    )
    assert "matters most is likely (85 %), not sure." in describe_shares(result(first_in=0.85))
    assert "is open: the choice of demonstrations comes first with 60 % only" in describe_shares(result(first_in=0.6))
    assert describe_shares(result(balanced=False)).endswith("unbalanced, so the intervals are approximate.")


def test_the_words_claim_nothing_that_is_not_shown() -> None:
    """Where equal cells would differ as much, no factor is named first."""
    words = describe_shares(result(p_value=0.3))
    assert words.startswith("It is not shown that anything varied here (order of demonstrations, choice of")
    assert "explains" not in words
