"""What predictions lean to: labels, and the labels of demonstrations."""

from __future__ import annotations

import numpy
import pytest

from promptkit.errors import StudyError
from promptkit.stats import Interval, wilson_interval
from promptkit.stats.label_bias import measure_repeats, share_labels


def test_label_shares() -> None:
    """Every label has its predicted and its true share; unread answers come last."""
    shares = share_labels([[1, 1, None, 1, 7]], [0, 1, 0, 0, 1])
    assert [(each.label, each.predicted, each.true) for each in shares] == [
        (0, 0.0, 0.6), (1, 0.6, 0.4), (7, 0.2, 0.0), (None, 0.2, 0.0),
    ]  # fmt: skip
    assert shares[1].interval == wilson_interval(3, 5)
    with pytest.raises(StudyError, match="2 predictions and 1 labels were given"):
        share_labels([[1, 2]], [1])


def test_a_label_s_share_is_no_surer_for_equal_runs() -> None:
    """Several runs that answer alike on the same items say as much of other items as one does."""
    run, labels = [1, 1, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1]
    assert share_labels([run] * 5, labels) == share_labels([run], labels)


def test_repeats_by_hand() -> None:
    """Rates and chances per place, counted from the end; a shorter prompt does not count where it has no place."""
    anywhere, last, before = measure_repeats(["a", "b", "a", None], [["a", "b"], ["b", "b"], ["a"], ["b", "a"]])
    assert (anywhere.from_end, last.from_end, before.from_end) == (None, 1, 2)
    assert (anywhere.rate, last.rate, before.rate) == pytest.approx((3 / 4, 2 / 4, 2 / 3))
    assert (last.n, before.n) == (4, 3)
    assert last.chance == pytest.approx((2 * 2 + 1 * 2) / 16)
    assert before.chance == pytest.approx((1 * 1 + 1 * 2) / 9)
    assert anywhere.chance == pytest.approx((2 * 3 + 1 * 3) / 16)
    assert last.excess == pytest.approx(last.rate - last.chance)


def draw_answers(pull: float, seed: int) -> tuple[list[int], list[list[int]], list[int]]:
    """Return answers over 60 draws of 3 demonstrations, 20 items each; a share `pull` repeats the last label."""
    random = numpy.random.default_rng(seed)
    answers, shown, groups = [], [], []
    for draw in range(60):
        demonstrations = random.integers(0, 2, 3).tolist()
        for _ in range(20):
            answers.append(demonstrations[-1] if random.random() < pull else int(random.random() < 0.7))
            shown.append(demonstrations)
            groups.append(draw)
    return answers, shown, groups


def test_a_pull_to_the_last_label_is_found_at_its_place() -> None:
    """Where 40 % of the answers repeat the last label, the last place shows half of that above chance, others none."""
    answers, shown, groups = draw_answers(0.4, 0)
    _, last, before, first = measure_repeats(answers, shown, groups=groups)
    assert last.excess == pytest.approx(0.2, abs=0.04)
    assert last.excess_interval.low > 0.1
    for other in (before, first):
        assert other.excess_interval.low < 0 < other.excess_interval.high


def test_no_pull_is_no_excess() -> None:
    """A leaning to one label alone is chance; intervals over draws hold 0 at least 88 % of the time."""
    held = 0
    for seed in range(60):
        answers, shown, groups = draw_answers(0.0, seed)
        interval = measure_repeats(answers, shown, groups=groups, resamples=200, seed=seed)[1].excess_interval
        held += interval.low <= 0 <= interval.high
    assert held >= 53


def test_draws_that_show_the_same_are_no_certainty() -> None:
    """Ten draws of a retrieval are one: the interval is for other items, as wide as with two of them."""
    random = numpy.random.default_rng(0)
    answers, shown = random.integers(0, 2, 30).tolist(), random.integers(0, 2, (30, 2)).tolist()

    def excess(draws: int) -> Interval:
        names = {"groups": [draw for draw in range(draws) for _ in range(30)], "items": [*range(30)] * draws}
        return measure_repeats(answers * draws, shown * draws, **names)[1].excess_interval

    assert excess(10).low < 0 < excess(10).high
    assert excess(10).high - excess(10).low > 0.2
    assert excess(10).as_list() == pytest.approx(excess(2).as_list(), abs=0.03)


def test_one_draw_tells_nothing_apart() -> None:
    """With the same demonstrations throughout, repeating and leaning are the same: no excess, any interval."""
    repeats = measure_repeats([1, 1, 0], [[1, 0]] * 3, groups=["draw"] * 3)
    assert repeats[1].excess == pytest.approx(0)
    assert repeats[1].excess_interval == Interval(-1.0, 1.0)


def test_repeats_need_demonstrations() -> None:
    """Zero-shot prompts, and lists of other lengths, are refused."""
    with pytest.raises(StudyError, match="no prompt has demonstrations"):
        measure_repeats([1, 0], [[], []])
    with pytest.raises(StudyError, match="2 predictions and 1 lists of demonstrations were given"):
        measure_repeats([1, 0], [[1]])
