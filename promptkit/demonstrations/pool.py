"""Hold what a selection may look at: the records, their texts, and what a model can tell of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.errors import SelectionError
from promptkit.storage.parsing import is_whole, parse_whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Texts into vectors [texts, D]: an encoder of sentences.
Embed = Callable[[Sequence[str]], "ArrayLike"]
#: A query and the demonstrations to show before it.
Asked = tuple[Record, tuple[Record, ...]]
#: Many of these at once into the probabilities of the query's choices after each; each adds up to 1.
Probabilities = Callable[[Sequence[Asked]], Sequence[Sequence[float]]]
#: A pool ranked once for all queries, in strands that are dealt from in turn: one strand, or one per label.
Strands = list[Iterable[Record]]
#: A query and the places in `Pool.records` that it must not be shown, into the other places, best first.
Ranking = Callable[[Record, frozenset[int]], Iterator[int]]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Pool:
    """The records to choose from, and what to choose them with.

    `given` are the records as they came. `argument` is what stood behind the selection's colon. `embed` and
    `probabilities` are the caller's; None where there is none.
    """

    given: tuple[Record, ...]
    seed: int = 0
    argument: str | None = None
    embed: Embed | None = None
    probabilities: Probabilities | None = None

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The records by the hash of (seed, id): what decides between equals, whatever order they came in."""
        return tuple(shuffled(self.given, self.seed))

    @cached_property
    def texts(self) -> list[str]:
        """The text of every one of `records`."""
        return [record_text(record) for record in self.records]

    def find_same(self, query: Record) -> frozenset[int]:
        """Return the places in `records` of those that ask the very same as the query."""
        places = self._places.get(_texts_alone(query), ())
        return frozenset(place for place in places if is_same(self.records[place], query))

    @cached_property
    def _places(self) -> dict[tuple[str, ...], list[int]]:
        places: dict[tuple[str, ...], list[int]] = {}
        for place, record in enumerate(self.records):
            places.setdefault(_texts_alone(record), []).append(place)
        return places

    def number(self, default: int, least: int = 1) -> int:
        """Return the argument as a whole number, or `default` without one; raises SelectionError below `least`."""
        if self.argument is None:
            return default
        if not is_whole(self.argument) or parse_whole(self.argument) < least:
            raise SelectionError(f"a selection's number is {self.argument!r}; a whole number from {least} is expected")
        return parse_whole(self.argument)

    def share(self, default: float) -> float:
        """Return the argument as a number from 0 to 1, or `default` without one; raises SelectionError."""
        if self.argument is None:
            return default
        try:
            share = float(self.argument)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise SelectionError(f"a selection's share is {self.argument!r}; a number from 0 to 1 is expected")
        return share


class Remembered:
    """An iterator's items, taken from it when first asked for and kept: it can be gone through again."""

    def __init__(self, items: Iterator[Record]) -> None:
        self._items, self._kept = items, list[Record]()

    def __iter__(self) -> Iterator[Record]:
        """Yield the items from the first."""
        place = 0
        while True:
            if place == len(self._kept):
                item = next(self._items, None)
                if item is None:
                    return
                self._kept.append(item)
            yield self._kept[place]
            place += 1


def shuffled(records: Iterable[Record], seed: int) -> list[Record]:
    """Return the records by the hash of (seed, record id)."""
    return sorted(records, key=lambda record: hash_order(seed, record.id))


def record_text(record: Record) -> str:
    """Return what nearness is told from: the record's fields, then its own choices, one to a line; never its label."""
    return "\n".join(_texts([*record.fields.values(), *(record.choices or ())]))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _texts(value)
        elif value is not None:
            yield str(value)


def split_words(text: str) -> list[str]:
    """Return the words of a text, in lower case: runs of letters, digits and underscores."""
    return _WORD.findall(text.lower())


def as_query(record: Record) -> Record:
    """Return the record without its answer."""
    return replace(record, label=None, rationale=None)


def _texts_alone(record: Record) -> tuple[str, ...]:
    """Return the fields that are texts: equal in records that ask the same, and hashable."""
    return tuple(value for _, value in sorted(record.fields.items()) if isinstance(value, str))


def is_same(record: Record, query: Record) -> bool:
    """Whether a record asks the very same as the query."""
    return record.fields == query.fields and record.choices == query.choices
