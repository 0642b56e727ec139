"""Define what a generator is: a function from a random source and a label to one record."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Generator:
    """One family of generated text.

    `write(rng, label)` makes one record whose label is `label` ("" where `labels` is empty and the answer is free);
    `key` is the field that tells records apart.
    """

    write: Callable[[random.Random, str], Row]
    labels: tuple[str, ...]
    key: str = "text"


def sentence(clause: str, end: str = ".") -> str:
    """The clause with a capital first letter and its end mark."""
    return clause[:1].upper() + clause[1:] + end


def chance(rng: random.Random, probability: float) -> bool:
    """True with this probability."""
    return rng.random() < probability


def pick(rng: random.Random, words: str | Sequence[str]) -> str:
    """One of the words; text is read as alternatives between bars."""
    return rng.choice(alternatives(words) if isinstance(words, str) else words)


@cache
def alternatives(text: str) -> tuple[str, ...]:
    """The alternatives of "a | b | c"; line breaks and outer spaces do not count."""
    return tuple(" ".join(part.split()) for part in text.split("|"))
