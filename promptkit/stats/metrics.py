"""Compute accuracy, macro-F1 and counts from predictions and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from promptkit.data.answers import same_answer
from promptkit.errors import DataError

Answer = int | str | None  # an index into the labels, a free text, or nothing that could be read


@dataclass(frozen=True, slots=True)
class Metrics:
    """How well n predictions fit; rates are between 0 and 1.

    `macro_f1` is None where there are no labels to average over (free text, per-record choices).
    `unread` of the wrong predictions are answers that could not be read. `distribution` says how
    often each answer was predicted: in the order of the labels, or the most frequent free text first.
    """

    n: int
    correct: int
    accuracy: float
    macro_f1: float | None
    unread: int
    distribution: tuple[tuple[int | str, int], ...]


def measure(predicted: Sequence[Answer], labels: Sequence[Answer], label_count: int | None) -> Metrics:
    """Return the metrics of predictions against labels, both index for index.

    `label_count` is the number of the task's labels; None where the answer is free text or each
    record has its own choices. Raises DataError where a label is unknown or there is no prediction.
    """
    right = correctness(predicted, labels)
    return Metrics(
        n=len(right),
        correct=sum(right),
        accuracy=sum(right) / len(right),
        macro_f1=None if label_count is None else macro_f1(predicted, labels, label_count),
        unread=sum(answer is None for answer in predicted),
        distribution=_distribution(predicted, label_count),
    )


def correctness(predicted: Sequence[Answer], labels: Sequence[Answer]) -> tuple[int, ...]:
    """Return 1 for every right prediction and 0 for every wrong or unread one.

    Raises DataError where a label is unknown or there is no prediction at all.
    """
    if not labels:
        raise DataError("nothing was predicted, so there is nothing to measure; give at least one record")
    unknown = [index for index, label in enumerate(labels) if label is None]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(labels)} records have no label (the first at index {unknown[0]}); "
            "accuracy needs every label; use predict where they are unknown"
        )
    return tuple(int(_same(answer, label)) for answer, label in zip(predicted, labels, strict=True))


def macro_f1(predicted: Sequence[Answer], labels: Sequence[Answer], label_count: int) -> float:
    """Return the mean F1 over the labels that are right or predicted for some record, as scikit-learn's default has it.

    A label that neither the data nor the predictions have has no F1, and is not counted. Unread predictions count as
    wrong: against recall, and against no label's precision.
    """
    from sklearn.metrics import f1_score

    read = [label_count if answer is None else answer for answer in predicted]
    found = {*labels, *read}
    present = [label for label in range(label_count) if label in found]
    return float(f1_score(labels, read, labels=present, average="macro", zero_division=0))


def measure_by(metric: str, predicted: Sequence[Answer], labels: Sequence[Answer], label_count: int | None) -> float:
    """Return the figure of this name, `accuracy` or `macro_f1`; errors and arguments are those of `measure`."""
    figures = measure(predicted, labels, label_count)
    value = {"accuracy": figures.accuracy, "macro_f1": figures.macro_f1}[metric]
    assert value is not None, f"{metric} of answers without labels"
    return value


def _same(predicted: Answer, label: Answer) -> bool:
    if isinstance(label, str):
        return same_answer(None if predicted is None else str(predicted), label)
    return predicted is not None and predicted == label


def _distribution(predicted: Sequence[Answer], label_count: int | None) -> tuple[tuple[int | str, int], ...]:
    counts = Counter(answer for answer in predicted if answer is not None)
    if label_count is None:
        return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0]))))
    return tuple((label, counts[label]) for label in range(label_count))
