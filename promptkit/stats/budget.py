"""Estimate the best and the worst condition, and the spread between them, from a limited number of calls.

How calls are handed out, and what was measured against full grids, is in docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.data.records import hash_order
from promptkit.errors import StudyError
from promptkit.stats.intervals import Interval
from promptkit.stats.posterior import Margins, Scores

DRAWS = 4000
#: Items that one condition is asked at a time.
BATCH = 20
#: Items that every condition is asked first, whatever the time.
LEAST = 2

#: A condition and items into a score per item, or a pair (score, margin).
Evaluate = Callable[[Hashable, Sequence[Hashable]], Sequence[float] | Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One condition: its mean score over all items as far as is known, the error of that, the items it was asked."""

    condition: Hashable
    mean: float
    std: float
    items: int


@dataclass(frozen=True, slots=True)
class BudgetedSpread:
    """The spread (best - worst mean score) of a grid, known from a part of its calls.

    `spread` and `interval` are about the full grid on these items, so an answer to all calls has no width.
    `estimates` hold every condition, best first; `best` and `worst` are the ends of that list. `calls` is what
    was spent; `full_calls` what the grid would have cost.
    """

    spread: float
    interval: Interval
    estimates: tuple[Estimate, ...]
    calls: int
    full_calls: int

    @property
    def best(self) -> Estimate:
        """The condition that is probably best."""
        return self.estimates[0]

    @property
    def worst(self) -> Estimate:
        """The condition that is probably worst."""
        return self.estimates[-1]


def estimate_spread(
    conditions: Sequence[Hashable],
    items: Sequence[Hashable],
    evaluate: Evaluate,
    *,
    budget: int,
    strata: Sequence[Hashable] | None = None,
    strategy: str = "halving",
    batch: int = BATCH,
    until: Callable[[], bool] | None = None,
    allow: Callable[[int], int] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> BudgetedSpread:
    """Return the spread of a grid, its best and its worst condition from at most `budget` calls.

    A call is one item under one condition: `evaluate(condition, items)` returns a score per item, 0 or 1 or
    any real score. Where it returns pairs (score, margin), a score is 0 or 1 and its margin says by how far: above 0
    where right, such as the log-likelihood of the right choice less that of the best other one. Margins tell several
    times as much as scores, so give them where there are any. Items come in one order for all conditions, so that
    conditions are compared on the same items as far as possible; what an item's difficulty did to a condition's mean is
    taken out. `until` is asked before every request but the first two items of each condition and ends the search once
    it is true; `allow` is given the calls that these took and returns how many more there may be: together, a limit
    in minutes.

    `strata` names a kind per item, best its label: every condition is then asked the kinds in proportion, and a
    condition that favours one kind is known sooner.

    Strategies: `thompson` asks, in turn, the condition that is best (worst) in a draw of what is known;
    `halving` gives all conditions still in play the same items and keeps the best and the worst of them, half
    as many each round.

    Means are drawn to each other as far as their errors demand (`promptkit.stats.posterior`), so the extremes are not
    picked for their luck (the winner's curse). How much more a condition that was asked little may hide depends on
    whether the errors of conditions are shared: nothing if all are, most if none is. The spread lies between the two,
    the interval reaches from the low end of the one to the high end of the other.

    The result is a function of the seed, the names (as text) of conditions and items and the scores; their order
    does not matter.

    Sources: Sclar et al. 2024, section 3 (FormatSpread: Thompson sampling for both ends); Karnin, Koren and Somekh
    2013, "Almost optimal exploration in multi-armed bandits" (halving).

    Raises StudyError for an unknown strategy, too small a budget, names that are not unique, and fewer than two
    conditions or items.
    """
    _check(conditions, items, budget, strategy, batch)
    if strata is not None and len(strata) != len(items):
        raise StudyError(f"{len(strata)} strata were given for {len(items)} items; give one per item")
    full = len(conditions) * len(items)
    kinds = dict(zip(items, [None] * len(items) if strata is None else strata, strict=True))
    search = _Search(conditions, kinds, evaluate, min(budget, full), seed)
    if until or allow:
        search.ask(range(len(conditions)), LEAST)
        search.left = min(search.left, max(0, allow(search.calls))) if allow else search.left
        search.until = until
    equal = search.left // len(conditions)  # what everyone could be asked
    first = equal // (_count_rounds(len(conditions)) + 1) if strategy == "halving" else min(batch, equal // 2)
    search.ask(range(len(conditions)), first if search.calls else max(LEAST, first))
    STRATEGIES[strategy](search, batch)
    return search.conclude(level)


def _check(conditions: Sequence[Hashable], items: Sequence[Hashable], budget: int, strategy: str, batch: int) -> None:
    if strategy not in STRATEGIES:
        raise StudyError(f"unknown strategy {strategy!r}; known: {', '.join(STRATEGIES)}")
    for what, names in (("conditions", conditions), ("items", items)):
        if len(names) < 2 or len({str(name) for name in names}) < len(names):
            raise StudyError(f"{len(names)} {what} were given; a spread needs two or more with different names")
    least = LEAST * len(conditions)
    if budget < least:
        raise StudyError(
            f"a budget of {budget} calls for {len(conditions)} conditions; the least is {least}, two items for each"
        )
    if batch < 1:
        raise StudyError(f"a batch of {batch} items was asked for; the least is 1")


class _Search:
    """The scores seen so far and what they say; the only thing here that changes."""

    def __init__(
        self,
        conditions: Sequence[Hashable],
        strata: Mapping[Hashable, Hashable],
        evaluate: Evaluate,
        budget: int,
        seed: int,
    ) -> None:
        import numpy

        self.conditions = sorted(conditions, key=lambda name: hash_order(f"conditions {seed}", str(name)))
        self.items = _spread_strata(sorted(strata, key=lambda name: hash_order(f"items {seed}", str(name))), strata)
        self.evaluate, self.left = evaluate, budget
        self.until: Callable[[], bool] | None = None
        self.random = numpy.random.default_rng(seed)
        shape = len(self.conditions), len(self.items)
        self.scores, self.margins, self.seen = (numpy.zeros(shape) for _ in range(3))
        self.asked = numpy.zeros(shape[0], dtype=int)
        kinds = list(dict.fromkeys(strata[item] for item in self.items))
        self.member = numpy.array([[float(strata[item] == kind) for kind in kinds] for item in self.items])
        self.posterior: Scores | Margins | None = None  # which it is, the first answers tell
        self.calls = 0

    @property
    def is_over(self) -> bool:
        """Whether the budget, the grid or the time is used up."""
        return self.left <= 0 or bool((self.asked == len(self.items)).all()) or bool(self.until and self.until())

    def ask(self, rows: Sequence[int], count: int) -> None:
        """Have these conditions answer their next `count` items each, as far as budget and items reach."""
        for row in rows:
            start = int(self.asked[row])
            stop = min(start + count, len(self.items), start + self.left)
            if stop <= start or self.is_over:
                continue
            scores = self.evaluate(self.conditions[row], self.items[start:stop])
            if len(scores) != stop - start:
                raise StudyError(
                    f"condition {self.conditions[row]!r} gave {len(scores)} scores for {stop - start} items; "
                    "one per item is expected"
                )
            self._note(row, slice(start, stop), scores)
            self.asked[row] = stop
            self.left -= stop - start
            self.calls += stop - start

    def _note(self, row: int, part: slice, answers: Sequence[Any]) -> None:
        paired = isinstance(answers[0], tuple | list)
        if self.posterior is None:
            self.posterior = (Margins if paired else Scores)(len(self.conditions), self.member)
        if paired:
            self.scores[row, part], self.margins[row, part] = zip(*answers, strict=True)
        else:
            self.scores[row, part] = answers
        self.seen[row, part] = 1

    def update_posterior(self, sweeps: int = 1) -> tuple[Any, Any]:
        """Return mean and standard deviation of every condition's mean over all items, given the answers seen."""
        assert self.posterior
        return self.posterior.update(self.seen, self.scores, self.margins, sweeps)

    def conclude(self, level: float) -> BudgetedSpread:
        """Return the spread and the conditions, best first."""
        import numpy

        means, stds = self.update_posterior(sweeps=30)
        drawn = means + stds * self.random.standard_normal((DRAWS, len(means)))
        spreads = drawn.max(axis=1) - drawn.min(axis=1)
        low, high = numpy.quantile(spreads, [(1 - level) / 2, (1 + level) / 2])
        hidden = float(spreads.mean() - numpy.ptp(means))
        assert self.posterior
        order = numpy.argsort(-means, kind="stable")
        estimates = [
            Estimate(self.conditions[row], float(means[row]), float(stds[row]), int(self.asked[row])) for row in order
        ]
        full = len(self.conditions) * len(self.items)
        return BudgetedSpread(
            float(numpy.ptp(means)) + self.posterior.hidden * hidden,
            Interval(max(float(low) - hidden, 0.0), float(high)),
            tuple(estimates),
            self.calls,
            full,
        )


def _spread_strata(items: Sequence[Hashable], strata: Mapping[Hashable, Hashable]) -> list[Hashable]:
    """Return `items` with each stratum spread evenly, in its own order, so that every prefix has its share of all."""
    members: dict[Hashable, list[Hashable]] = {}
    for item in items:
        members.setdefault(strata[item], []).append(item)
    place = {item: (rank + 0.5) / len(kind) for kind in members.values() for rank, item in enumerate(kind)}
    return sorted(items, key=place.__getitem__)


def _sample(search: _Search, batch: int) -> None:
    """Thompson sampling: the best and the worst in turn, of a draw, among those with items left."""
    import numpy

    sign = 1
    while not search.is_over:
        means, stds = search.update_posterior()
        drawn = sign * (means + stds * search.random.standard_normal(len(means)))
        drawn[search.asked == len(search.items)] = -numpy.inf
        search.ask([int(drawn.argmax())], batch)
        sign = -sign


def _count_rounds(conditions: int) -> int:
    """Return how often the conditions at each end are halved until one is left."""
    return max(1, math.ceil(math.log2(conditions)) - 1)


def _halve(search: _Search, batch: int) -> None:
    """Successive halving at both ends: each round spends the same, on half as many conditions."""
    import numpy

    count = len(search.conditions)
    rounds = _count_rounds(count)
    for done in range(rounds):
        means, _ = search.update_posterior(sweeps=5)
        kept = max(1, math.ceil(count / 2 ** (done + 2)))
        order = numpy.argsort(means, kind="stable")
        rows = sorted({*order[:kept].tolist(), *order[-kept:].tolist()})
        share = search.left // (rounds - done) // len(rows)
        search.ask(rows, share)
    _sample(search, batch)


STRATEGIES: dict[str, Callable[[_Search, int], None]] = {"thompson": _sample, "halving": _halve}
