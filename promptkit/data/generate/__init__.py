"""Names and seeds into endless, reproducible labelled text (no download, standard library only).

Every record is drawn anew until its text falls into the wanted split: a hash of the text alone decides where it
may go, so the splits share no text whatever the seeds, and no text comes twice within one call.
"""

import random
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count as counting

from promptkit.data.generate.families import FAMILIES
from promptkit.data.generate.generator import Generator, Row
from promptkit.data.generate.reviews import REVIEWS
from promptkit.data.generate.word_problems import WORD_PROBLEMS
from promptkit.errors import DataError, nearest

__all__ = ["GENERATORS", "SPLITS", "Generator", "generate", "split_of"]

GENERATORS: dict[str, Generator] = {"reviews": REVIEWS, "word-problems": WORD_PROBLEMS, **FAMILIES}
SPLITS: dict[str, tuple[int, ...]] = {"train": (0, 1), "validation": (2,), "test": (3,)}
"""Which quarters of the hash belong to which split."""

PATIENCE = 2_000
"""Draws without a new text after which a generator counts as exhausted."""


def generate(name: str, split: str, count: int, *, seed: int = 0) -> Iterator[Row]:
    """The first `count` records of one generated data set, each a new text of this split.

    The same (name, split, seed) gives the same records in the same order, whatever the count. Labels are exactly
    balanced over every block of as many records as there are labels. Raises DataError for an unknown name or split
    and, while iterating, where the generator has no further text.
    """
    if name not in GENERATORS:
        raise DataError(
            f"No generator is called {name!r}; there are {', '.join(GENERATORS)}.{nearest(name, GENERATORS)}"
        )
    if split not in SPLITS:
        raise DataError(f"generator {name}: no split {split!r}; there are {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
    if count < 0:
        raise DataError(f"generator {name}: the number of records is {count}; it must be 0 or more")
    return _records(name, split, count, seed)


def split_of(text: str) -> str:
    """The one split that may hold this text; case, spaces and punctuation make no difference."""
    quarter = _fingerprint(text) % 4
    return next(split for split, quarters in SPLITS.items() if quarter in quarters)


def _records(name: str, split: str, count: int, seed: int) -> Iterator[Row]:
    generator = GENERATORS[name]
    rng = random.Random(f"{name}:{split}:{seed}")
    seen: set[int] = set()
    labels = _balanced(generator.labels, rng)
    for _ in range(count):
        yield _new_record(name, split, rng, next(labels), seen)


def _new_record(name: str, split: str, rng: random.Random, label: str, seen: set[int]) -> Row:
    generator = GENERATORS[name]
    for _ in range(PATIENCE):
        row = generator.write(rng, label)
        fingerprint = _fingerprint(str(row[generator.key]))
        if fingerprint % 4 in SPLITS[split] and fingerprint not in seen:
            seen.add(fingerprint)
            return row
    raise DataError(f"generator {name}, split {split}: no new text after {len(seen)} records; ask for fewer")


def _balanced(labels: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    """Labels for ever, each once per block, in random order; empty text where the answer is free."""
    for _ in counting():
        yield from rng.sample(labels, len(labels)) if labels else ("",)


def _fingerprint(text: str) -> int:
    letters = "".join(character for character in text.lower() if character.isalnum())
    return int.from_bytes(blake2b(letters.encode(), digest_size=8).digest(), "big")
