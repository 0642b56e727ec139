"""Predictions and the demonstrations before them into what a model leans to: labels, and repeating."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.errors import StudyError
from promptkit.stats.intervals import RESAMPLES, Interval, wilson_interval


@dataclass(frozen=True, slots=True)
class LabelShare:
    """How often one label was predicted and how often it is right; shares of all items. None is unread."""

    label: Hashable
    predicted: float
    interval: Interval
    true: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often the answer is the label of the demonstration at one place, against chance.

    `from_end` is 1 for the last demonstration, 2 for the one before; None stands for any place. `chance` is
    the rate for answers that are given as often but without regard to this place; `excess` is rate - chance.
    """

    from_end: int | None
    rate: float
    chance: float
    excess: float
    excess_interval: Interval
    n: int


def share_labels(predicted: Sequence[Hashable], labels: Sequence[Hashable]) -> list[LabelShare]:
    """Return every label's share of the predictions, in the order of first appearance among `labels`.

    Labels that were predicted but are never right follow, and None (an answer that could not be read) is last.
    The intervals are Wilson's, for other items. Raises StudyError without items, or for unequal numbers.
    """
    if len(predicted) != len(labels) or not labels:
        raise StudyError(f"{len(predicted)} predictions and {len(labels)} labels were given; one label per prediction")
    n = len(labels)
    names = [name for name in dict.fromkeys([*labels, *predicted]) if name is not None]
    names += [None] if None in predicted else []
    counts = {name: sum(answer == name for answer in predicted) for name in names}
    return [
        LabelShare(name, counts[name] / n, wilson_interval(counts[name], n), sum(label == name for label in labels) / n)
        for name in names
    ]


def measure_repeats(
    predicted: Sequence[Hashable],
    demonstrations: Sequence[Sequence[Hashable]],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Repeat]:
    """Return how often answers repeat the label of a demonstration: at any place, then the last one, the one before …

    `demonstrations` holds the labels in each answer's prompt, in the order in which they stand there. Shorter
    prompts do not count for places that they lack. Unread answers (None) repeat nothing.

    Chance is what independence would give: the sum over labels of how often it is answered times how often it
    stands there. It can only be told from leaning to a label where demonstrations change between answers, so
    pass the answers of many draws at once and name in `groups` the draw of each: whole draws are resampled.

    Source: Zhao et al. 2021, "Calibrate before use", section 4 (majority-label and recency bias).
    Raises StudyError without demonstrations, or for unequal numbers.
    """
    if not (len(predicted) == len(demonstrations) == len(predicted if groups is None else groups)):
        raise StudyError(
            f"{len(predicted)} predictions and {len(demonstrations)} lists of demonstrations were given (groups: "
            f"{'none' if groups is None else len(groups)}); give one of each per prediction"
        )
    longest = max(map(len, demonstrations), default=0)
    if not longest:
        raise StudyError("no prompt has demonstrations, so there is nothing to repeat; give k = 1 or more")
    names = list(range(len(predicted))) if groups is None else list(groups)
    repeats = []
    for place in (None, *range(1, longest + 1)):
        kept = [index for index, labels in enumerate(demonstrations) if len(labels) >= (place or 1)]
        shown = [
            frozenset(demonstrations[index]) if place is None else frozenset([demonstrations[index][-place]])
            for index in kept
        ]
        found = _Counts([predicted[index] for index in kept], shown, [names[index] for index in kept])
        repeats.append(found.repeat(place, level, resamples, seed))
    return repeats


class _Counts:
    """Per group: how many answers there are, repeat, name each label, and see each label."""

    def __init__(
        self, predicted: Sequence[Hashable], shown: Sequence[frozenset[Hashable]], groups: Sequence[Hashable]
    ) -> None:
        import numpy

        rows = {group: row for row, group in enumerate(dict.fromkeys(groups))}
        labels = {label: column for column, label in enumerate(dict.fromkeys(x for seen in shown for x in seen))}
        self.sizes, self.repeated = numpy.zeros(len(rows)), numpy.zeros(len(rows))
        self.answered, self.seen = numpy.zeros((len(rows), len(labels))), numpy.zeros((len(rows), len(labels)))
        for answer, seen, group in zip(predicted, shown, groups, strict=True):
            row = rows[group]
            self.sizes[row] += 1
            self.repeated[row] += answer is not None and answer in seen
            if answer is not None and answer in labels:
                self.answered[row, labels[answer]] += 1
            for label in seen:
                self.seen[row, labels[label]] += 1

    def rates(self, weights: Any) -> tuple[Any, Any]:
        """Return rate and chance for every row of `weights` (resamples x groups)."""
        sizes = weights @ self.sizes
        chance = ((weights @ self.answered) * (weights @ self.seen)).sum(axis=1) / sizes**2
        return weights @ self.repeated / sizes, chance

    def repeat(self, place: int | None, level: float, resamples: int, seed: int) -> Repeat:
        """Return the figures of one place; of a single group the interval says nothing: -1 to 1."""
        import numpy

        groups = len(self.sizes)
        rate, chance = (float(value[0]) for value in self.rates(numpy.ones((1, groups))))
        interval = Interval(-1.0, 1.0)
        if groups > 1:
            random = numpy.random.default_rng(seed)
            block = max(1, 1_000_000 // groups)  # with every answer its own group, all at once would fill the memory
            sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
            counts = (random.multinomial(groups, [1 / groups] * groups, size=size) for size in sizes)
            drawn = numpy.concatenate([numpy.subtract(*self.rates(each)) for each in counts])
            low, high = numpy.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
            interval = Interval(float(low), float(high))
        return Repeat(place, rate, chance, rate - chance, interval, int(self.sizes.sum()))
