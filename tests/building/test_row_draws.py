"""Draws for a training row: by weight, by hash, and by nothing else."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from promptkit.building.row_draws import DrawKey

NAMES = st.text("abcdef", min_size=1, max_size=3)
WEIGHTS = st.dictionaries(NAMES, st.floats(0.1, 10), min_size=1, max_size=5)
MOMENTS = st.builds(DrawKey, st.integers(0, 99), NAMES, NAMES, st.integers(0, 9), st.integers(0, 9))


def draw(weights: dict[str, float], count: int = 4_000) -> Counter[str]:
    """Return how often each name is drawn for so many records."""
    return Counter(DrawKey(0, "task", f"train-{number}").choose("template", weights)[0] for number in range(count))


def test_rates_are_the_weights() -> None:
    """Each name is drawn in proportion to its weight: within four standard deviations of the binomial."""
    for weights in ({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, {"a": 0.1, "b": 5.0, "c": 2.0, "d": 1.0}):
        counts, total = draw(weights), sum(weights.values())
        for name, weight in weights.items():
            rate = weight / total
            assert abs(counts[name] - 4_000 * rate) < 4 * math.sqrt(4_000 * rate * (1 - rate)), (name, weights)


def test_every_part_of_a_moment_draws_anew() -> None:
    """Another seed, task, record, epoch or repeat is another number; the same moment is the same number."""
    base = {"seed": 0, "part": "a", "id": "1", "epoch": 0, "repeat": 0}
    others = [base, {**base, "seed": 1}, {**base, "part": "b"}, {**base, "id": "2"}]
    others += [{**base, "epoch": 1}, {**base, "repeat": 1}]
    drawn = [DrawKey(**other).uniform("x") for other in others]  # type: ignore[arg-type]
    assert len(set(drawn)) == len(drawn)
    assert DrawKey(0, "a", "1").uniform("x") == drawn[0] != DrawKey(0, "a", "1").uniform("y")
    assert all(0 < number < 1 for number in drawn)


@given(MOMENTS, WEIGHTS)
def test_draws_are_nested_and_without_order(moment: DrawKey, weights: dict[str, float]) -> None:
    """Fewer names are the first of more, whatever order the names stand in."""
    everything = moment.choose("template", weights, len(weights))
    assert sorted(everything) == sorted(weights)
    turned = dict(reversed(weights.items()))
    for count in range(1, len(weights) + 1):
        assert moment.choose("template", turned, count) == everything[:count]


@given(MOMENTS, WEIGHTS, NAMES, st.floats(0.1, 10))
def test_a_new_name_only_wins(moment: DrawKey, weights: dict[str, float], name: str, weight: float) -> None:
    """A name that is added is drawn, or nothing changes."""
    assume(name not in weights)
    before = moment.choose("template", weights)[0]
    after = moment.choose("template", {**weights, name: weight})[0]
    assert after in (before, name)
