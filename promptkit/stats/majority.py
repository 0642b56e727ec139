"""Compare the answers of a method with always giving the most frequent label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

from promptkit.stats.intervals import Interval, bootstrap_interval, paired_interval
from promptkit.stats.paired import paired_p_value

#: The share of the records from which on a run is said to give one answer to nearly all of them, and the fewest
#: records of which anything is said.
ONE_ANSWER, FEWEST = 0.95, 5
_LEVEL = 0.05
Label = TypeVar("Label", bound=Hashable)


@dataclass(frozen=True, slots=True)
class OneAnswer:
    """In how many `runs` one answer was given to nearly every record, and the smallest share of the records there.

    `answer` is that answer; None where runs differ in it.
    """

    runs: int
    answer: Hashable
    share: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"runs": self.runs, "answer": self.answer, "share": self.share}


@dataclass(frozen=True, slots=True)
class AgainstMajority:
    """The accuracy of a method less the rate of the most frequent label, its 95 % interval, and the test of it.

    `better` says whether that is shown: the test is significant at 5 %, and the interval lies above 0.
    """

    difference: float
    interval: Interval
    p_value: float
    better: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "difference": self.difference,
            "ci95": self.interval.as_list(),
            "p_value": self.p_value,
            "better": self.better,
        }


def find_majority(labels: Sequence[Label]) -> tuple[Label, float]:
    """Return the most frequent of these labels, at least one, and its share; of equals the one that comes first."""
    label, count = Counter(labels).most_common(1)[0]
    return label, count / len(labels)


def find_one_answer(predicted: Sequence[Sequence[Hashable]]) -> OneAnswer | None:
    """Return in how many runs one answer was given to nearly every record; None where there is no such run.

    `predicted` is runs x records; None is an answer that could not be read.
    """
    found = []
    for run in predicted:
        if len(run) >= FEWEST:
            answer, share = find_majority(run)
            if answer is not None and share >= ONE_ANSWER:
                found.append((answer, share))
    if not found:
        return None
    answers = {answer for answer, _ in found}
    return OneAnswer(len(found), answers.pop() if len(answers) == 1 else None, min(share for _, share in found))


def compare_with_majority(
    right: Sequence[Sequence[int]], labels: Sequence[Hashable], *, groups: Sequence[Hashable] | None = None
) -> AgainstMajority:
    """Return how a method compares with always giving the most frequent label of the same records.

    `right` is runs x records, 0 or 1. One run is tested by McNemar's exact test; of several, records have their means
    (the test that flips signs), and the interval is for other runs too, whole `groups` of them. The label is picked on
    these very records, which favours it a little.
    """
    majority, _ = find_majority(labels)
    always = [int(label == majority) for label in labels]
    means = [fmean(answers) for answers in zip(*right, strict=True)]
    if all(list(run) == list(right[0]) for run in right):
        interval = paired_interval(means, always)
    else:  # a share between 0 and 1 is what is resampled
        halves = [[(1 + own - other) / 2 for own, other in zip(run, always, strict=True)] for run in right]
        found = bootstrap_interval(halves, groups=groups)
        interval = Interval(2 * found.low - 1, 2 * found.high - 1)
    p_value = paired_p_value(means, always)
    return AgainstMajority(fmean(means) - fmean(always), interval, p_value, p_value < _LEVEL and interval.low > 0)


def describe_majority(
    predicted: Sequence[Sequence[Hashable]],
    right: Sequence[Sequence[int]] | None,
    labels: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
) -> Mapping[str, Any]:
    """Return both as JSON; `right` is None where there is no most frequent label."""
    one = find_one_answer(predicted)
    right = right if len(labels) >= FEWEST else None
    return {
        "one_answer": one.as_dict() if one else None,
        "against_majority": compare_with_majority(right, labels, groups=groups).as_dict() if right else None,
    }
