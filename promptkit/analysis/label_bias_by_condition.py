"""Measure the label bias of each condition: towards labels, and towards those of its demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptkit.analysis.cells import FinishedCell
from promptkit.building.build import Demonstrations
from promptkit.data.record import Record
from promptkit.data.splits import Splits
from promptkit.demonstrations import Draw, asks_for_probabilities, asks_for_vectors
from promptkit.stats.label_bias import measure_repeats, share_labels
from promptkit.stats.metrics import Answer


def describe_labels(group: Sequence[FinishedCell]) -> list[dict[str, Any]]:
    """Return how often each label was answered over the cells of one condition, beside how often it is right.

    A label is its index; None is an answer that could not be read.
    """
    predicted = [[row["predicted"] for row in each.result["predictions"]] for each in group]
    shares = share_labels(predicted, group[0].labels, groups=[each.sampled for each in group])
    return [
        {"label": share.label, "predicted": share.predicted, "ci95": share.interval.as_list(), "true": share.true}
        for share in shares
    ]


class ShownLabels:
    """The labels that the prompts of cells show, worked out anew from pool and draw, each choice once."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._draws: dict[tuple[Any, ...], Demonstrations] = {}

    def repeats(self, group: Sequence[FinishedCell]) -> list[dict[str, Any]]:
        """Return how often answers repeat the label of a demonstration: of any (None), the last (1), the one before …

        Draws and records are told apart, so that intervals are for other choices and other records. Nothing for cells
        without demonstrations, for those from which some were dropped, for labels that are none of the task's, and
        where a model chose.
        """
        if any(not _is_known(each) for each in group):
            return []
        predicted: list[Answer] = []
        shown: list[Sequence[Answer]] = []
        draws: list[str] = []
        items: list[int] = []
        for each in group:
            rows = each.result["predictions"]
            predicted += [row["predicted"] for row in rows]
            shown += self._labels(each)
            draws += [each.planned.factors["draw"]] * len(rows)
            items += range(len(rows))
        return [
            {
                "from_end": repeat.from_end,
                "rate": repeat.rate,
                "chance": repeat.chance,
                "excess": repeat.excess,
                "ci95": repeat.excess_interval.as_list(),
                "n": repeat.n,
            }
            for repeat in measure_repeats(predicted, shown, groups=draws, items=items)
        ]

    def _labels(self, each: FinishedCell) -> list[Sequence[Answer]]:
        """Return, per query, the labels of its demonstrations in the order in which they stand there."""
        condition = each.condition
        assert condition.draw
        own, found = self._demonstrations(condition.draw), []
        seen: dict[tuple[str, ...], Sequence[Answer]] = {}
        for query in self._splits.test:
            chosen: tuple[Record, ...] = own(query, condition.k)
            key = tuple(record.id for record in chosen)
            if key not in seen:
                seen[key] = [record.label for record in condition.relabel(chosen)]
            found.append(seen[key])
        return found

    def _demonstrations(self, draw: Draw) -> Demonstrations:
        key = (draw.selection, draw.order, draw.seed, draw.order_seed)
        if key not in self._draws:
            self._draws[key] = Demonstrations(self._splits.pool, draw)
        return self._draws[key]


def _is_known(each: FinishedCell) -> bool:
    condition = each.condition
    return bool(
        condition.draw
        and condition.bound.task.labels
        and not each.result["dropped"]
        and condition.demo_labels != "words"
        and not asks_for_vectors(condition.draw.selection)
        and not asks_for_probabilities(condition.draw.selection)
    )
