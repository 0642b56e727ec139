"""Measure the label bias of a model, and how often it repeats the labels of its demonstrations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.errors import StudyError
from promptkit.stats.intervals import RESAMPLES, Interval, bootstrap_interval, percentiles


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


def share_labels(
    predicted: Sequence[Sequence[Hashable]], labels: Sequence[Hashable], *, groups: Sequence[Hashable] | None = None
) -> list[LabelShare]:
    """Return every label's share of the predictions, in the order of first appearance among `labels`.

    `predicted` is runs x items, every run on the items that have these `labels`. Labels that were predicted but are
    never right follow, and None (an answer that could not be read) is last. The intervals are for other runs, whole
    `groups` of them, and other items, as in `bootstrap_interval`; of one run, Wilson's.
    Raises StudyError without items, or for unequal numbers.
    """
    lengths = {len(run) for run in predicted}
    if lengths != {len(labels)} or not labels:
        said = " or ".join(map(str, sorted(lengths))) or "no"
        raise StudyError(f"{said} predictions and {len(labels)} labels were given; one label per prediction of a run")
    answers = [answer for run in predicted for answer in run]
    names = [name for name in dict.fromkeys([*labels, *answers]) if name is not None]
    names += [None] if None in answers else []
    shares = []
    for name in names:
        named = [[answer == name for answer in run] for run in predicted]
        interval = bootstrap_interval(named, groups=groups)
        share, true = sum(map(sum, named)) / len(answers), sum(label == name for label in labels) / len(labels)
        shares.append(LabelShare(name, share, interval, true))
    return shares


def measure_repeats(
    predicted: Sequence[Hashable],
    demonstrations: Sequence[Sequence[Hashable]],
    *,
    groups: Sequence[Hashable] | None = None,
    items: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Repeat]:
    """Return how often answers repeat the label of a demonstration: at any place, then the last one, the one before …

    `demonstrations` holds the labels in each answer's prompt, in the order in which they stand there. Shorter
    prompts do not count for places that they lack. Unread answers (None) repeat nothing.

    Chance is what independence would give: the sum over labels of how often it is answered times how often it
    stands there. It can only be told from a bias to a label where demonstrations change between answers, so
    pass the answers of many draws at once and name in `groups` the draw of each: whole draws are resampled. With
    `items`, the name of the item that each answers, these are resampled too, as in `bootstrap_interval`: draws that
    all show the same, as those of a retrieval do, would otherwise say that the excess is certain.

    Source: Zhao et al. 2021, "Calibrate before use", section 4 (majority-label and recency bias).
    Raises StudyError without demonstrations, or for unequal numbers.
    """
    given = [len(names) for names in (predicted, demonstrations, groups, items) if names is not None]
    if len(set(given)) > 1:
        raise StudyError(
            f"{len(predicted)} predictions and {len(demonstrations)} lists of demonstrations were given (groups: "
            f"{'none' if groups is None else len(groups)}, items: {'none' if items is None else len(items)}); give one "
            "of each per prediction"
        )
    longest = max(map(len, demonstrations), default=0)
    if not longest:
        raise StudyError("no prompt has demonstrations, so there is nothing to repeat; give k = 1 or more")
    names = list(range(len(predicted))) if groups is None else list(groups)
    asked = [None] * len(predicted) if items is None else list(items)
    repeats = []
    for place in (None, *range(1, longest + 1)):
        kept = [index for index, labels in enumerate(demonstrations) if len(labels) >= (place or 1)]
        shown = [
            frozenset(demonstrations[index]) if place is None else frozenset([demonstrations[index][-place]])
            for index in kept
        ]
        answers, own, of = ([values[index] for index in kept] for values in (predicted, names, asked))
        found = _Counts(answers, shown, own, of)
        repeats.append(found.repeat(place, level, resamples, seed))
    return repeats


class _Counts:
    """Per item and group: how many answers there are, how many repeat, name each label, and see each label."""

    def __init__(
        self,
        predicted: Sequence[Hashable],
        shown: Sequence[frozenset[Hashable]],
        groups: Sequence[Hashable],
        items: Sequence[Hashable],
    ) -> None:
        import numpy

        rows, places = ({name: at for at, name in enumerate(dict.fromkeys(names))} for names in (groups, items))
        labels = {label: at for at, label in enumerate(dict.fromkeys(label for seen in shown for label in seen))}
        self.n, self.labels = len(predicted), len(labels)
        self.counts = numpy.zeros((len(places), len(rows), 2 + 2 * len(labels)))
        for answer, seen, group, item in zip(predicted, shown, groups, items, strict=True):
            counts = self.counts[places[item], rows[group]]
            counts[0] += 1
            counts[1] += answer is not None and answer in seen
            if answer is not None and answer in labels:
                counts[2 + labels[answer]] += 1
            for label in seen:
                counts[2 + len(labels) + labels[label]] += 1

    def rates(self, groups: Any, items: Any) -> tuple[Any, Any]:
        """Return rate and chance for every row of weights: of groups (resamples x groups), and of items."""
        import numpy

        per_group = (items @ self.counts.reshape(len(self.counts), -1)).reshape(-1, *self.counts.shape[1:])
        found = numpy.einsum("rg,rgc->rc", groups, per_group)
        sizes, repeated, answered, seen = numpy.split(found, [1, 2, 2 + self.labels], axis=1)
        sizes = numpy.maximum(sizes, 1)  # where groups lack items, a resample can be empty
        return (repeated / sizes)[:, 0], (answered * seen).sum(axis=1) / sizes[:, 0] ** 2

    def repeat(self, place: int | None, level: float, resamples: int, seed: int) -> Repeat:
        """Return the figures of one place; of a single group the interval says nothing: -1 to 1."""
        import numpy

        items, groups = self.counts.shape[:2]
        rate, chance = (float(value[0]) for value in self.rates(numpy.ones((1, groups)), numpy.ones((1, items))))
        interval = Interval(-1.0, 1.0)
        if groups > 1:
            random = numpy.random.default_rng(seed)
            drawn = []
            block = max(1, 1_000_000 // (groups + items))  # a group for every answer would fill the memory
            for start in range(0, resamples, block):
                size = min(block, resamples - start)
                weights = (random.multinomial(count, [1 / count] * count, size=size) for count in (groups, items))
                drawn.append(numpy.subtract(*self.rates(*weights)))
            interval = percentiles(numpy.concatenate(drawn), level)
        return Repeat(place, rate, chance, rate - chance, interval, self.n)
