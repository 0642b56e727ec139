"""Choose the demonstrations of a query from a pool of records.

A selection ranks the pool once per seed, or once per query where it looks at it; a query's demonstrations are the
first k of that ranking without the query itself. So a draw is a pure function of (seed, query, pool): the same in any
batch, subset or order of queries and pool, and k demonstrations are the first k of k + 1. No selection sees the
query's label or rationale.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from promptkit.data.record import Record
from promptkit.demonstrations.pool import Embed, Pool, Probabilities, Strands, as_query, is_same
from promptkit.demonstrations.selections import SELECTIONS
from promptkit.errors import SelectionError, nearest

__all__ = [
    "SELECTIONS",
    "Draw",
    "Embed",
    "Probabilities",
    "Selector",
    "asks_for_probabilities",
    "asks_for_vectors",
    "goes_by_query",
    "without_model",
]


@dataclass(frozen=True)
class Draw:
    """One draw of demonstrations: how they are chosen, and how those chosen are put in sequence.

    `selection` is a name of `SELECTIONS`, some with an argument behind a colon, as in `kmeans:4`. `order` is a name
    of `orders.ORDERS` or the number of a permutation. `seed` decides which demonstrations, `order_seed` only
    in which sequence a shuffled order puts them.
    """

    selection: str = "balanced"
    order: str | int = "given"
    seed: int = 0
    order_seed: int = 0


def asks_for_vectors(selection: str) -> bool:
    """Whether a selection goes by the vectors of an encoder."""
    return _needs(selection) == "vectors"


def asks_for_probabilities(selection: str) -> bool:
    """Whether a selection goes by how sure a model is of its answers."""
    return _needs(selection) == "probabilities"


def _needs(selection: str) -> str:
    found = SELECTIONS.get(selection.partition(":")[0])  # an unknown one is told where it is used
    return found.needs if found else ""


def goes_by_query(selection: str) -> bool:
    """Whether a selection chooses other demonstrations for other queries; raises SelectionError for an unknown one."""
    return SELECTIONS[_split_selection(selection)[0]].by_query


def without_model(selection: str) -> str:
    """Return the selection, or `random` for one that asks a model: what to check a pool with before there is one."""
    return "random" if asks_for_vectors(selection) or asks_for_probabilities(selection) else selection


class Selector:
    """A pool ranked for one selection and seed, ready to give any query its demonstrations.

    `embed` turns texts into vectors, for the dense selections; without it sentence-transformers does, where it is
    installed. `probabilities` says how sure a model is, for `mdl` and `entropy`.
    Raises SelectionError for an unknown selection or argument, a pool it does not fit, and where it needs one of
    the two and has none.
    """

    def __init__(
        self,
        pool: Sequence[Record],
        selection: str = "balanced",
        seed: int = 0,
        *,
        embed: Embed | None = None,
        probabilities: Probabilities | None = None,
    ) -> None:
        self.selection, argument = _split_selection(selection)
        self.pool = Pool(tuple(pool), seed, argument, embed, probabilities)
        self._ranked = SELECTIONS[self.selection].rank(self.pool)
        self._measure: Callable[[Record], Any] | None = None

    def select(self, query: Record, k: int) -> tuple[Record, ...]:
        """Return the first k records of the ranking that are not the query.

        A record with the very same fields counts as the query, so that an item that stands in pool and test
        split alike never shows its own answer; ids may start anew in every split and decide nothing.
        Raises SelectionError where fewer than k are left.
        """
        if k < 0:
            raise SelectionError(f"k={k} demonstrations cannot be shown; k is 0 or more")
        chosen = tuple(itertools.islice(self._rank(query), k))
        if len(chosen) < k:
            where = f"the pool of {len(self.pool.given)} records has"
            fix = "enlarge the pool"
            if self.selection == "pinned":
                where, fix = f"of the records that {self.selection!r} names there are", "name more of them"
            raise SelectionError(
                f"k={k} demonstrations were asked for, but {where} "
                f"{len(chosen)} besides the query {query.id!r}; lower k or {fix}"
            )
        return chosen

    def nearness(self, query: Record, chosen: Sequence[Record]) -> list[float]:
        """Return how near each of `chosen`, records of the pool, is to the query, as the selection measures it.

        That is the BM25 score where it goes by words, the cosine of the encoder's vectors where it is dense, and
        else the cosine of TF-IDF vectors.
        """
        if self._measure is None:
            self._measure = _make_measure(self.selection, self.pool)
        scores, places = self._measure(as_query(query)), self._places
        return [float(scores[places[id(record)]]) for record in chosen]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {id(record): place for place, record in enumerate(self.pool.records)}

    def _rank(self, query: Record) -> Iterator[Record]:
        if not callable(self._ranked):
            return _deal(self._ranked, query)
        records = self.pool.records
        return (records[place] for place in self._ranked(as_query(query), self.pool.find_same(query)))


def _deal(strands: Strands, query: Record) -> Iterator[Record]:
    """Yield records from the strands in turn, passing over strands that have run out."""
    others = [(record for record in strand if not is_same(record, query)) for strand in strands]
    nothing = object()
    for dealt in itertools.zip_longest(*others, fillvalue=nothing):
        yield from (record for record in dealt if isinstance(record, Record))


def _make_measure(selection: str, pool: Pool) -> Callable[[Record], Any]:
    """Return what tells how near every one of a pool's records is to a query."""
    if SELECTIONS[selection].by_words:
        from promptkit.demonstrations.lexical import WordIndex

        return WordIndex(pool.texts).nearness
    from promptkit.demonstrations.vectors import Vectors

    return Vectors(pool, dense=asks_for_vectors(selection)).cosines


def _split_selection(selection: str) -> tuple[str, str | None]:
    """Return a selection's name and what stands behind its colon; raises SelectionError."""
    name, colon, argument = selection.partition(":")
    if name not in SELECTIONS:
        known = ", ".join(SELECTIONS)
        raise SelectionError(f"unknown selection {name!r}; known: {known}.{nearest(name, SELECTIONS)}")
    if colon and not SELECTIONS[name].takes_argument:
        those = ", ".join(known for known, each in SELECTIONS.items() if each.takes_argument)
        raise SelectionError(f"selection {name!r} takes nothing behind a colon, found {argument!r}; only {those} do")
    return name, argument if colon else None
