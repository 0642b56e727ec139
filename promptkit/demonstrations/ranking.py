"""Sort records by their scores; ties, and what differs by rounding alone, stay in the order of the pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]
#: Decimals that count: what lies beyond depends on how a sum was cut into parts.
DECIMALS = 9


def rounded(scores: Any) -> Floats:
    """Return scores as they are compared."""
    return numpy.asarray(scores, dtype=numpy.float64).round(DECIMALS)


def best_first(scores: Floats, hidden: frozenset[int] = frozenset()) -> Iterator[int]:
    """Yield the places of scores [N] from the highest, less those that are hidden."""
    for place in numpy.argsort(-rounded(scores), kind="stable").tolist():
        if place not in hidden:
            yield place


def take_best(scores: Floats, left: NDArray[numpy.bool_]) -> int:
    """Return the place of the highest of scores [N] among those `left`, and take it from them."""
    best = int(numpy.where(left, rounded(scores), -numpy.inf).argmax())
    left[best] = False
    return best


def all_but(size: int, hidden: frozenset[int]) -> NDArray[numpy.bool_]:
    """Return [size] true for every place that is not hidden."""
    left = numpy.ones(size, dtype=bool)
    left[list(hidden)] = False
    return left
