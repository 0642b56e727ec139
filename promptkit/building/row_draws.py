"""Draw at random for one row of a training set, from a hash of the row alone."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from promptkit.data.records import hash_order

_RANGE = 2.0**64


@dataclass(frozen=True, slots=True)
class DrawKey:
    """One appearance of a record in a training set: what every draw of its rows depends on, and nothing else.

    `repeat` counts appearances within an epoch, from 0: a small task of a mixture comes more than once.
    """

    seed: int
    part: str
    id: str
    epoch: int = 0
    repeat: int = 0

    @property
    def name(self) -> str:
        """The key as text, to be hashed."""
        return f"{self.part}:{self.epoch}:{self.repeat}:{self.id}"

    def uniform(self, purpose: str) -> float:
        """Return a number between 0 and 1, both left out."""
        return (int.from_bytes(hash_order(f"{purpose} {self.seed}", self.name)[:8]) + 0.5) / _RANGE

    def generator(self, purpose: str) -> random.Random:
        """Return a generator of its own, for what takes many numbers."""
        return random.Random(hash_order(f"{purpose} {self.seed}", self.name))

    def choose(self, purpose: str, weights: Mapping[str, float], count: int = 1) -> list[str]:
        """Return `count` different names, each drawn by weight among those that are left, the first one first.

        Every name has a hash of its own: the draw does not depend on their order, fewer names are the first of more,
        and a name that is added or taken away changes only the draws that it wins. (Exponential races; Efraimidis and
        Spirakis 2006, Weighted random sampling with a reservoir.)
        """
        if len(weights) == 1:
            return list(weights)
        times = {name: -math.log(self.uniform(f"{purpose} {name}")) / weight for name, weight in weights.items()}
        return sorted(times, key=lambda name: (times[name], name))[:count]
