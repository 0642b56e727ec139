"""Which records of a pool become the demonstrations of a query.

A selection ranks the pool once per seed; a query's demonstrations are the first k of that ranking
without the query itself. So a draw is a pure function of (seed, query, pool): the same in any batch,
subset or order of queries and pool, and k demonstrations are the first k of k + 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from promptkit.data import hash_order
from promptkit.errors import SelectionError, nearest
from promptkit.record import Record

#: A ranked pool in strands that are dealt from in turn: one strand, or one per label.
Strands = list[list[Record]]


def rank_first(pool: Sequence[Record], seed: int) -> Strands:
    """The pool as it comes."""
    return [list(pool)]


def rank_random(pool: Sequence[Record], seed: int) -> Strands:
    """The pool by the hash of (seed, record id): a shuffle that no other record has a say in."""
    return [_shuffled(pool, seed)]


def rank_balanced(pool: Sequence[Record], seed: int) -> Strands:
    """One shuffled strand per label, the labels themselves in shuffled order.

    Raises SelectionError where records have no label among fixed ones.
    """
    by_label: dict[int, list[Record]] = {}
    for record in pool:
        if not isinstance(record.label, int) or record.choices is not None:
            raise SelectionError(
                "selection 'balanced' needs a task with fixed labels; "
                f"record {record.id!r} has none, use selection 'random'"
            )
        by_label.setdefault(record.label, []).append(record)
    labels = sorted(by_label, key=lambda label: hash_order(seed, f"label {label}"))
    return [_shuffled(by_label[label], seed) for label in labels]


SELECTIONS: dict[str, Callable[[Sequence[Record], int], Strands]] = {
    "random": rank_random,
    "balanced": rank_balanced,
    "first": rank_first,
}


@dataclass(frozen=True)
class Draw:
    """One draw of demonstrations: how they are chosen, and how those chosen are put in sequence.

    `order` is a name of `promptkit.order.ORDERS` or the number of a permutation. `seed` decides which
    demonstrations, `order_seed` only in which sequence a shuffled order puts them.
    """

    selection: str = "balanced"
    order: str | int = "given"
    seed: int = 0
    order_seed: int = 0


class Selector:
    """A pool ranked for one selection and seed, ready to give any query its demonstrations."""

    def __init__(self, pool: Sequence[Record], selection: str = "balanced", seed: int = 0) -> None:
        if selection not in SELECTIONS:
            known = ", ".join(SELECTIONS)
            raise SelectionError(f"unknown selection {selection!r}; known: {known}.{nearest(selection, SELECTIONS)}")
        self.strands = SELECTIONS[selection](pool, seed)
        self.size = len(pool)

    def select(self, query: Record, k: int) -> tuple[Record, ...]:
        """Return the first k records of the ranking that are not the query.

        A record with the very same fields counts as the query, so that an item that stands in pool and test
        split alike never shows its own answer; ids may start anew in every split and decide nothing.
        Raises SelectionError where fewer than k are left.
        """
        if k < 0:
            raise SelectionError(f"k={k} demonstrations cannot be shown; k is 0 or more")
        chosen = tuple(itertools.islice(self._deal(query), k))
        if len(chosen) < k:
            raise SelectionError(
                f"k={k} demonstrations were asked for, but the pool of {self.size} records has "
                f"{len(chosen)} besides the query {query.id!r}; lower k or enlarge the pool"
            )
        return chosen

    def _deal(self, query: Record) -> Iterator[Record]:
        """Yield records from the strands in turn, passing over strands that have run out."""
        strands = [(record for record in strand if not _is_same(record, query)) for strand in self.strands]
        nothing = object()
        for dealt in itertools.zip_longest(*strands, fillvalue=nothing):
            yield from (record for record in dealt if isinstance(record, Record))


def _is_same(record: Record, query: Record) -> bool:
    return record.fields == query.fields and record.choices == query.choices


def _shuffled(records: Sequence[Record], seed: int) -> list[Record]:
    return sorted(records, key=lambda record: hash_order(seed, record.id))
