"""Compare training with prompting at each amount of labelled data, and find where they cross."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from promptkit.analysis.cell_figures import right_answers
from promptkit.analysis.cells import FinishedCell
from promptkit.stats import RESAMPLES, adjust_p_values, paired_interval, paired_p_value
from promptkit.stats.intervals import draw_runs, percentiles

#: Below this p-value, adjusted for all sizes, and with an interval that does not hold 0, one of the two is ahead.
LEVEL = 0.05


@dataclass(frozen=True)
class SizeComparison:
    """The runs of LoRA on `rows` records, and of the prompt that it is compared with there."""

    rows: int
    trained: Sequence[FinishedCell]
    prompted: Sequence[FinishedCell]
    prompt: Mapping[str, Any]


def compare_sizes(comparisons: Sequence[SizeComparison]) -> dict[str, Any]:
    """Return who is ahead at every size, the changes between sizes, and from how many rows on the later one leads.

    `sizes` holds, per size, LoRA minus prompt (`difference`), its 95 % interval over other items, draws and seeds,
    the p-value of the paired test on the same items, `adjusted` for the number of sizes (Holm), and who is `ahead`,
    if either is. `changes` are those from one that is ahead to the other: `between` two sizes, `to` whom. `leads` is
    who has the higher mean at the largest size, from how many `rows` on (interpolated between sizes; None: from below
    the smallest), and the 95 % interval of that, over the same resamples; None at its ends means beyond the sizes.
    """
    differences, resampled = [], list(_resample(comparisons))
    values = [_item_means(comparison.trained, comparison.prompted) for comparison in comparisons]
    p_values = [paired_p_value(trained, prompted) for trained, prompted in values]
    for comparison, pair, drawn, p_value, adjusted in zip(
        comparisons, values, resampled, p_values, adjust_p_values(p_values), strict=True
    ):
        trained, prompted = map(fmean, pair)
        alike = drawn.min() == drawn.max()  # resampling what never differs would give no width
        low, high = (paired_interval(*pair) if alike else percentiles(drawn, 0.95)).as_list()
        decided = adjusted < LEVEL and (low > 0 or high < 0)
        differences.append(
            {
                "rows": comparison.rows,
                "prompt": dict(comparison.prompt),
                "accuracy": {"lora": trained, "prompt": prompted},
                "difference": trained - prompted,
                "ci95": [low, high],
                "p_value": p_value,
                "adjusted": adjusted,
                "ahead": ("lora" if trained > prompted else "prompt") if decided else None,
            }
        )
    return {"sizes": differences, "changes": find_changes(differences), "leads": _lead(differences, resampled)}


def find_changes(sizes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the changes of who is ahead, between the last size of the one and the first of the other."""
    decided = [size for size in sizes if size["ahead"]]
    return [
        {"between": [first["rows"], second["rows"]], "to": second["ahead"]}
        for first, second in pairwise(decided)
        if first["ahead"] != second["ahead"]
    ]


def find_start(rows: Sequence[int], differences: Sequence[float]) -> float:
    """Return the number of rows from which on the difference stays above 0, on a line over log(rows).

    -inf where it is above 0 everywhere, inf where it is not at the end.
    """
    last = max((place for place, difference in enumerate(differences) if difference <= 0), default=None)
    if last is None:
        return -math.inf
    if last == len(rows) - 1:
        return math.inf
    below, above = differences[last], differences[last + 1]
    low, high = math.log(rows[last]), math.log(rows[last + 1])
    return math.exp(low - below / (above - below) * (high - low))


def _lead(sizes: Sequence[Mapping[str, Any]], resampled: Sequence[Any]) -> dict[str, Any]:
    import numpy

    rows = [size["rows"] for size in sizes]
    who, sign = ("lora", 1) if sizes[-1]["difference"] > 0 else ("prompt", -1)
    start = find_start(rows, [sign * size["difference"] for size in sizes])
    starts = [find_start(rows, drawn) for drawn in (sign * numpy.array(resampled).T).tolist()]
    ends = numpy.quantile(starts, [0.025, 0.975], method="inverted_cdf").tolist()  # which never averages infinities
    return {"who": who, "rows": _finite(start), "ci95": [_finite(end) for end in ends]}


def _finite(rows: float) -> float | None:
    return round(rows, 1) if math.isfinite(rows) else None


def _item_means(trained: Sequence[FinishedCell], prompted: Sequence[FinishedCell]) -> tuple[list[float], list[float]]:
    """Return per item the share of runs that are right, of both."""
    return _means(trained), _means(prompted)


def _means(runs: Sequence[FinishedCell]) -> list[float]:
    return [fmean(answers) for answers in zip(*(right_answers(cell.result) for cell in runs), strict=True)]


def _resample(comparisons: Sequence[SizeComparison]) -> Iterator[Any]:
    """Yield, per comparison, the difference for every resample of items (the same in all comparisons), draws and seeds.

    The orders of one choice of demonstrations are not independent, so whole choices are resampled.
    """
    import numpy

    random = numpy.random.default_rng(0)
    items = len(right_answers(comparisons[0].trained[0].result))
    weights = random.multinomial(items, [1 / items] * items, size=RESAMPLES) / items
    known: dict[int, Any] = {}
    for comparison in comparisons:
        for runs in (comparison.trained, comparison.prompted):
            if id(runs) not in known:  # a prompt may compete at several sizes
                answers = numpy.array([right_answers(cell.result) for cell in runs])
                counts = draw_runs(random, [cell.sampled for cell in runs], RESAMPLES)
                known[id(runs)] = ((counts @ answers) * weights).sum(axis=1) / counts.sum(axis=1)
        yield known[id(comparison.trained)] - known[id(comparison.prompted)]
