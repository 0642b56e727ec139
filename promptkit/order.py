"""In which sequence chosen demonstrations stand in the prompt. An order permutes and never replaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from promptkit.data import hash_order
from promptkit.errors import SelectionError, nearest
from promptkit.record import Record

Demonstrations = tuple[Record, ...]


def order_given(chosen: Demonstrations, seed: int) -> Demonstrations:
    """As selected."""
    return chosen


def order_reversed(chosen: Demonstrations, seed: int) -> Demonstrations:
    """As selected, the last one first."""
    return chosen[::-1]


def order_shuffled(chosen: Demonstrations, seed: int) -> Demonstrations:
    """By the hash of (seed, record id)."""
    return tuple(sorted(chosen, key=lambda record: hash_order(f"order {seed}", record.id)))


def order_by_label(chosen: Demonstrations, seed: int) -> Demonstrations:
    """By label in the task's order, as selected within a label."""
    return tuple(sorted(chosen, key=lambda record: (isinstance(record.label, str), record.label)))


ORDERS: dict[str, Callable[[Demonstrations, int], Demonstrations]] = {
    "given": order_given,
    "shuffled": order_shuffled,
    "reversed": order_reversed,
    "by-label": order_by_label,
}


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


def order_demonstrations(chosen: Sequence[Record], order: str | int, *, seed: int = 0) -> Demonstrations:
    """Return `chosen` in the named order, or in the permutation of that number.

    Raises SelectionError for an order that does not exist.
    """
    if isinstance(order, int) or (order.isascii() and order.isdecimal()):
        return permute(chosen, int(order))
    if order not in ORDERS:
        known = ", ".join(ORDERS)
        raise SelectionError(
            f"unknown order {order!r}; known: {known}, or the number of a permutation.{nearest(order, ORDERS)}"
        )
    return ORDERS[order](tuple(chosen), seed)
