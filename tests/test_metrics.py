"""Accuracy, macro-F1 and counts from predictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from promptkit.errors import DataError
from promptkit.metrics import correctness, macro_f1, measure

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
    """Macro-F1 averages over all labels of the task, those that never occur too."""
    predicted, labels = zip(*pairs, strict=True)
    expected = f1_score(labels, predicted, labels=[0, 1, 2, 3], average="macro", zero_division=0)
    assert macro_f1(predicted, labels, 4) == pytest.approx(expected)


def test_a_label_that_never_occurs_counts_as_zero() -> None:
    """Perfect predictions on two of four labels are a macro-F1 of one half."""
    assert macro_f1([0, 1], [0, 1], 4) == 0.5


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
