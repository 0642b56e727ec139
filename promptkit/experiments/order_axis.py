"""Search orders as values of a study's axis (`--orders globale,locale:4`), each search kept as a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit.building.build import Demonstrations
from promptkit.costs.meter import Meter
from promptkit.data.record import EMPTY_QUERY, Record, hash_records
from promptkit.data.splits import Splits
from promptkit.demonstrations import goes_by_query
from promptkit.demonstrations.orders import all_orders, permute, sample_orders
from promptkit.errors import SelectionError
from promptkit.experiments.run_folder import Run
from promptkit.prompts.prompt import build_prompt
from promptkit.scoring.condition import Condition, ask_model
from promptkit.scoring.order_search import SEARCHES, ChoiceProbabilities, ProbingWriter, rank_orders

if TYPE_CHECKING:
    from promptkit.experiments.executor import Track
    from promptkit.models import Model

#: What a study calls the searches, and the measure of each.
NAMES = {"globale": "global", "locale": "local"}
#: Orders that a search tries at most (Lu et al. 2022 try 24).
CANDIDATES = 24
#: A condition and the names of searches into the orders that each picks, best first.
Search = Callable[[Condition, Sequence["Wanted"]], Mapping["Wanted", tuple[int, ...]]]


@dataclass(frozen=True)
class Wanted:
    """A search that is asked for, and how many of the best orders are kept."""

    name: str
    keep: int = 1

    def __str__(self) -> str:
        """Return the name as `parse_search` reads it."""
        return self.name if self.keep == 1 else f"{self.name}:{self.keep}"


def parse_search(text: str) -> Wanted | None:
    """Return what `globale` or `locale:4` stands for, None for what names no search; raises SelectionError."""
    name, colon, keep = text.partition(":")
    if name not in NAMES:
        return None
    if colon and not (keep.isascii() and keep.isdecimal() and int(keep) > 0):
        raise SelectionError(f"order search {text!r}: behind the colon stands how many orders to keep, as in {name}:4")
    return Wanted(name, int(keep) if colon else 1)


def list_candidates(k: int, seed: int) -> tuple[int, ...]:
    """Return the permutations that a search tries: all of them, or `CANDIDATES` drawn by the seed."""
    orders = all_orders(k)
    return tuple(orders) if len(orders) <= CANDIDATES else sample_orders(k, CANDIDATES, seed)


def first_candidates(condition: Condition, wanted: Sequence[Wanted]) -> dict[Wanted, tuple[int, ...]]:
    """Return as many orders as searches would pick, without a model: enough to count cells and their work."""
    draw = condition.draw
    assert draw
    candidates = list_candidates(condition.k, draw.seed)
    return {each: candidates[: each.keep] for each in wanted}


@dataclass
class OrderSearch:
    """Searches orders for the draws of a study with its model, and keeps what was found in the run folder."""

    model: Model
    splits: Splits
    run: Run
    track: Track = lambda name: lambda done, total: None

    def __call__(self, condition: Condition, wanted: Sequence[Wanted]) -> dict[Wanted, tuple[int, ...]]:
        """Return, for every search, the orders that it keeps of the condition's draw, best first.

        Raises SelectionError where the draw has other demonstrations for other queries or the template lets the
        model reason first, and what `ProbingWriter` raises.
        """
        found = self.ranking(condition)
        ranked = {name: [each["order"] for each in found[measure]] for name, measure in NAMES.items()}
        return {each: tuple(ranked[each.name][: each.keep]) for each in wanted}

    def ranking(self, condition: Condition) -> dict[str, Any]:
        """Return `queries` (the fields that the model wrote) and, per measure, all orders tried with their nats."""
        spec = self._spec(condition)
        if (found := self.run.load(spec)) is None:
            with Meter(self.model.device) as meter:
                found = self._search(condition)
            self.run.save(spec, found, {"seconds": meter.seconds, "peak_memory_bytes": meter.peak_memory_bytes})
        return found

    def _spec(self, condition: Condition) -> dict[str, Any]:
        assert condition.draw
        plain = replace(condition, readings=(), sampling=None, draw=replace(condition.draw, order="given"))
        return {
            **plain.spec(),
            "part": "order search",
            "candidates": CANDIDATES,
            "model": self.model.hash,
            "dtype": self.model.dtype,
            "pool": hash_records(self.splits.pool),
            "labels": list(condition.bound.words or ()),
        }

    def _search(self, condition: Condition) -> dict[str, Any]:
        from promptkit.scoring import score

        bound, draw = condition.bound, condition.draw
        assert draw
        _refuse(condition)
        helpers = ask_model(draw.selection, self.model, bound, chat=condition.chat)
        chosen = Demonstrations(self.splits.pool, replace(draw, order="given"), **helpers)(EMPTY_QUERY, condition.k)
        shown = condition.relabel(chosen)
        sequences = {order: permute(shown, order) for order in list_candidates(condition.k, draw.seed)}
        progress, steps = self.track(f"order search k={condition.k} draw {draw.seed}"), len(sequences)
        writer, written = ProbingWriter(self.model, bound, seed=draw.seed), list[Record]()
        for place, sequence in enumerate(sequences.values()):
            progress(place, 2 * steps)  # the second half is to score what is written
            written += [replace(query, id=f"probe-{place}") for query in writer([sequence])]
        queries = [query for query in written if self._fits(condition, query, list(sequences.values()))]
        if not queries:
            raise SelectionError(
                f"template {bound.template.name}: the model wrote no query that fits the window after {condition.k} "
                "demonstrations, so orders cannot be searched; lower -k, or try another template"
            )

        def report(done: int, total: int) -> None:
            progress(steps + steps * done // max(1, total), 2 * steps)

        scorer = partial(score, self.model, chat=condition.chat, progress=report)
        ask = ChoiceProbabilities(bound, scorer, chat=condition.chat)
        answers = ask([(query, sequence) for sequence in sequences.values() for query in queries])
        count = len(queries)
        found = {order: answers[place * count : (place + 1) * count] for place, order in enumerate(sequences)}
        ranked = {
            search: [{"order": each.order, "entropy": each.entropy} for each in rank_orders(found, search)]
            for search in SEARCHES
        }
        return {**ranked, "queries": [dict(query.fields) for query in queries]}

    def _fits(self, condition: Condition, query: Record, sequences: Sequence[tuple[Record, ...]]) -> bool:
        from promptkit.scoring import prompt_lengths

        prompts = [build_prompt(condition.bound, query, shown, chat=condition.chat) for shown in sequences]
        return max(prompt_lengths(self.model, prompts, chat=condition.chat)) <= self.model.window


def _refuse(condition: Condition) -> None:
    assert condition.draw
    if goes_by_query(condition.draw.selection):
        raise SelectionError(
            f"order search needs demonstrations that all queries share, and selection {condition.draw.selection!r} "
            "chooses others for every query; take random or balanced"
        )
    if condition.bound.template.is_cot:
        raise SelectionError(
            f"order search asks for the choices right away, and template {condition.bound.template.name!r} lets the "
            "model reason first; take one without a rationale"
        )
