"""Choose the demonstrations of a training row from a pool."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from promptkit.building.build import Demonstrations
from promptkit.building.row_draws import DrawKey
from promptkit.data.record import Record
from promptkit.demonstrations import Draw
from promptkit.demonstrations.orders import goes_by_nearness, order_demonstrations
from promptkit.demonstrations.pool import Pool, as_query, is_same, shuffled
from promptkit.demonstrations.selections import deal_balanced
from promptkit.errors import SelectionError

#: Selections that do not look at the query; in a training set they are drawn anew for every row.
REDRAWN = ("random", "balanced")


class RowDemonstrations:
    """A pool that gives every row of a training set its demonstrations.

    `random` and `balanced` are drawn anew for every row, or all rows would show the same; every other selection is the
    one that prompts are built with. Never among them is a record that asks the same as the query. k demonstrations are
    the first k of k + 1.
    """

    def __init__(self, pool: Sequence[Record], selection: str, order: str | int, seed: int) -> None:
        self.selection, self.order = selection, order
        self.draw = Demonstrations(pool, Draw(selection, order, seed, seed))
        strands = deal_balanced(Pool(tuple(pool), seed)) if selection == "balanced" else [shuffled(pool, seed)]
        self.strands = [list(strand) for strand in strands]

    def __call__(self, query: Record, k: int, draw_key: DrawKey) -> tuple[Record, ...]:
        """Return the k demonstrations of a row, in their sequence; raises SelectionError for a pool too small."""
        if self.selection not in REDRAWN:
            return self.draw(query, k)
        generator, asked = draw_key.generator("demonstrations"), as_query(query)
        drawn = [_shuffle(strand, generator.random()) for strand in self.strands]
        generator.shuffle(drawn)
        others = [(record for record in strand if not is_same(record, asked)) for strand in drawn]
        dealt = itertools.chain.from_iterable(itertools.zip_longest(*others))
        chosen = tuple(itertools.islice(filter(None, dealt), k))
        if len(chosen) < k:
            raise SelectionError(
                f"k={k} demonstrations were asked for, but the pool has {len(chosen)} besides the query {query.id!r}; "
                "lower k or enlarge the pool"
            )
        near = self.draw.selector.nearness(query, chosen) if k > 1 and goes_by_nearness(self.order) else None
        return order_demonstrations(chosen, self.order, seed=generator.getrandbits(32), near=near)


def _shuffle(records: Sequence[Record], seed: float) -> Iterator[Record]:
    """Yield the records in random order; no more numbers are drawn than records are taken."""
    generator, moved, count = random.Random(seed), dict[int, int](), len(records)
    for place in range(count):
        other = generator.randrange(place, count)
        yield records[moved.get(other, other)]
        moved[other] = moved.get(place, place)
