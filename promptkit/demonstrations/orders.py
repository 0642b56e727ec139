"""Put chosen demonstrations in an order; an order permutes and never replaces."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.demonstrations.pool import record_text
from promptkit.errors import SelectionError, nearest
from promptkit.storage.parsing import is_whole, parse_whole

Demonstrations = tuple[Record, ...]
#: How near each of the chosen is to the query; None where the sequence of choice is all that is known of it.
Nearness = Sequence[float] | None


def order_given(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """As selected."""
    return chosen


def order_reversed(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """As selected, the last one first."""
    return chosen[::-1]


def order_shuffled(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """By the hash of (seed, record id)."""
    return tuple(sorted(chosen, key=lambda record: hash_order(f"order {seed}", record.id)))


def order_by_label(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """By label in the task's order, as selected within a label."""
    return tuple(sorted(chosen, key=lambda record: (isinstance(record.label, str), record.label)))


def order_by_length(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """By the characters of what is asked, shortest first; as selected among equals."""
    return tuple(sorted(chosen, key=lambda record: len(record_text(record))))


def order_nearest_first(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """By nearness to the query, nearest first; as selected among equals."""
    if near is None:
        return chosen
    return tuple(chosen[place] for place in sorted(range(len(chosen)), key=lambda place: -near[place]))


def order_nearest_last(chosen: Demonstrations, seed: int, near: Nearness) -> Demonstrations:
    """By nearness to the query, nearest last, next to the query itself; the reverse of nearest-first."""
    return order_nearest_first(chosen, seed, near)[::-1]


@dataclass(frozen=True)
class Order:
    """A way to put chosen demonstrations in sequence, and whether it must know how near each is to the query."""

    arrange: Callable[[Demonstrations, int, Nearness], Demonstrations]
    by_nearness: bool = False

    @property
    def about(self) -> str:
        """What it goes by, in one line."""
        return (self.arrange.__doc__ or "").strip().partition("\n")[0]


#: Every order by its name; a further one is a function above and a line here.
ORDERS: dict[str, Order] = {
    "given": Order(order_given),
    "shuffled": Order(order_shuffled),
    "reversed": Order(order_reversed),
    "by-label": Order(order_by_label),
    "by-length": Order(order_by_length),
    "nearest-first": Order(order_nearest_first, by_nearness=True),
    "nearest-last": Order(order_nearest_last, by_nearness=True),
}


def goes_by_nearness(order: str | int) -> bool:
    """Whether an order must know how near demonstrations are to the query; a permutation's number need not."""
    return isinstance(order, str) and order in ORDERS and ORDERS[order].by_nearness


def permute(chosen: Sequence[Record], number: int) -> Demonstrations:
    """Return permutation `number` of the k! of `chosen`, in lexicographic order; 0 is as given.

    Raises SelectionError for a number outside 0 to k! - 1.
    """
    count = math.factorial(len(chosen))
    if not 0 <= number < count:
        raise SelectionError(f"order {number} was asked for; {len(chosen)} demonstrations have orders 0 to {count - 1}")
    rest, ordered = list(chosen), []
    for left in range(len(chosen), 0, -1):
        position, number = divmod(number, math.factorial(left - 1))
        ordered.append(rest.pop(position))
    return tuple(ordered)


def all_orders(k: int) -> range:
    """Return the numbers of all k! permutations of k demonstrations."""
    return range(math.factorial(k))


def sample_orders(k: int, count: int, seed: int = 0) -> tuple[int, ...]:
    """Return the numbers of `count` different permutations of k demonstrations, drawn evenly by `seed`.

    Fewer are the beginning of more; asked for all k!, it returns each once. Raises SelectionError for more than
    there are.
    """
    there = math.factorial(k)
    if not 0 <= count <= there:
        raise SelectionError(f"{count} orders were asked for; {k} demonstrations have {there}: ask for 0 to {there}")
    generator, drawn = random.Random(f"orders {k}:{seed}"), dict[int, None]()
    while len(drawn) < count:
        drawn[generator.randrange(there)] = None
    return tuple(drawn)


def check_order(order: str | int) -> int | None:
    """Return the number that an order is, None for a name; raises SelectionError for one that does not exist."""
    if isinstance(order, int) or is_whole(order):
        return order if isinstance(order, int) else parse_whole(order)
    if order not in ORDERS:
        known = ", ".join(ORDERS)
        raise SelectionError(
            f"unknown order {order!r}; known: {known}, or the number of a permutation.{nearest(order, ORDERS)}"
        )
    return None


def order_demonstrations(
    chosen: Sequence[Record], order: str | int, *, seed: int = 0, near: Nearness = None
) -> Demonstrations:
    """Return `chosen` in the named order, or in the permutation of that number.

    `near` says how near each of them is to the query; without it, those chosen first count as the nearest, as they
    are where the selection went by nearness. Raises SelectionError for an order that does not exist.
    """
    number = check_order(order)
    return ORDERS[str(order)].arrange(tuple(chosen), seed, near) if number is None else permute(chosen, number)
