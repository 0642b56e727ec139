"""Accuracy, macro-F1 and counts from predictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from promptkit.errors import DataError
from promptkit.stats import macro_f1_interval
from promptkit.stats.metrics import correctness, macro_f1, measure

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def test_measure_counts_and_rates() -> None:
    """All figures of one small example, by hand."""
    metrics = measure([0, 1, 1, None], [0, 1, 0, 1], 2)
    assert (metrics.n, metrics.correct, metrics.accuracy, metrics.unread) == (4, 2, 0.5, 1)
    assert metrics.distribution == ((0, 1), (1, 2))
    # label 0: precision 1, recall 1/2; label 1: precision 1/2, recall 1/2
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_unread_is_wrong_and_no_label() -> None:
    """An unread answer is wrong, and counts as a prediction of no label."""
    assert correctness([None, 0], [0, 0]) == (0, 1)
    assert macro_f1([None, 0], [0, 0], 1) == pytest.approx(2 / 3)


@given(LABELS)
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """Macro-F1 is scikit-learn's default: over the labels that are right or predicted for some record."""
    predicted, labels = zip(*pairs, strict=True)
    assert macro_f1(predicted, labels, 4) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_a_label_that_is_nowhere_is_not_counted() -> None:
    """Perfect predictions are a macro-F1 of 1, whatever labels the task has beside."""
    assert macro_f1([0, 1], [0, 1], 4) == 1.0
    assert macro_f1([0, 2], [0, 0], 4) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1([None, None], [0, 0], 4) == 0.0


@pytest.mark.parametrize("count", [2, 3, 40])
def test_the_interval_is_of_the_same_figure(count: int) -> None:
    """The interval of macro-F1 counts the labels of each resample, so labels that are nowhere move neither end."""
    predicted, labels = [0, 1, 1, 0, None] * 8, [0, 1, 0, 0, 1] * 8
    low, high = macro_f1_interval([predicted], labels, count).as_list()
    assert (low, high) == tuple(macro_f1_interval([predicted], labels, 2).as_list())
    assert low < macro_f1(predicted, labels, count) < high
    assert macro_f1_interval([labels], labels, count).as_list() == [1.0, 1.0]


def test_free_text_has_no_macro_f1() -> None:
    """Without labels there is nothing to average over; the most frequent answer comes first."""
    metrics = measure(["7", "8", "8", None], ["7", "8", "9", "9"], None)
    assert metrics.macro_f1 is None
    assert metrics.accuracy == 0.5
    assert metrics.distribution == (("8", 2), ("7", 1))


@pytest.mark.parametrize(("predicted", "label"), [("1,000", "1000"), ("18.0", "18"), (" Paris ", "Paris")])
def test_free_text_equals_as_number_or_text(predicted: str, label: str) -> None:
    """A number is right however it is written, and outer white space does not matter."""
    assert correctness([predicted], [label]) == (1,)


@pytest.mark.parametrize(("predicted", "label"), [("18", "180"), ("paris", "Paris"), ("", "0"), ("nan", "inf")])
def test_free_text_differs(predicted: str, label: str) -> None:
    """Anything else is wrong, also case, emptiness and what only looks like a number."""
    assert correctness([predicted], [label]) == (0,)


def test_unknown_labels_are_an_error() -> None:
    """Records without a label cannot be measured; the message says how many and what to do."""
    with pytest.raises(DataError, match=r"1 of 2 records have no label \(the first at index 1\).*use predict"):
        measure([0, 0], [0, None], 2)


def test_no_predictions_are_an_error() -> None:
    """An accuracy over nothing is refused rather than made up."""
    with pytest.raises(DataError, match="nothing was predicted"):
        measure([], [], 2)
