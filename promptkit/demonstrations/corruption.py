"""Change the labels or rationales of demonstrations, to see which of them a model uses.

What is done to a record depends on the seed and its id (and, for another record's rationale, on the pool),
never on the records shown beside it. Queries are left alone, and every record keeps its id.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.errors import SelectionError, TemplateError, nearest
from promptkit.templating.template import BoundTemplate

GOLD, RANDOM, FLIPPED, WORDS = "gold", "random", "flipped", "words"
VALID, INVALID_NUMBERS, SHUFFLED, IRRELEVANT = "valid", "invalid-numbers", "shuffled", "irrelevant"
RATIONALES = (VALID, INVALID_NUMBERS, SHUFFLED, IRRELEVANT)
_WORDS = """anchor autumn basket bottle branch bridge button candle carpet castle cattle chapter circle cloud copper
    corner cotton curtain dagger desert dinner engine feather fence finger forest garden glacier hammer harbour helmet
    hollow island jacket kettle ladder lantern leather lemon marble meadow mirror morning mountain needle orchard oven
    paddle paper pebble pencil pepper pillow pocket puddle quarter ribbon river saddle shadow shoulder silver spider
    stable summer table tailor thunder timber tunnel valley velvet village wagon water weather whistle window winter"""
#: What may stand in a label's place.
ENGLISH_WORDS = tuple(_WORDS.split())
#: Draws of other numbers, of which the one that leaves the fewest equations true is taken.
_DRAWS = 20
_DIGITS = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?![0-9])"
_NUMBER, _ANSWER = re.compile(rf"(?<![\w.]){_DIGITS}"), re.compile(rf"-?{_DIGITS}")
_EQUATION = re.compile(rf"({_DIGITS})\s*([-+*/x×÷])\s*\$?({_DIGITS})\s*=\s*\$?({_DIGITS})")


@dataclass(frozen=True)
class DemoLabels:
    """Which labels demonstrations show: `gold`, `random`, `words`, or `flipped` in `rate` percent of records."""

    kind: str = GOLD
    rate: int = 0

    @property
    def name(self) -> str:
        """The name that `parse_labels` reads."""
        return f"{self.kind}-{self.rate}" if self.kind == FLIPPED else self.kind


def parse_labels(text: str) -> DemoLabels:
    """Return what `gold`, `random`, `words` or `flipped-50` stands for; the rate is in percent, 0 to 100.

    Raises SelectionError for anything else.
    """
    kind, dash, rate = text.strip().partition("-")
    if kind == FLIPPED and rate.isascii() and rate.isdecimal() and int(rate) <= 100:
        return DemoLabels(FLIPPED, int(rate))
    if kind in (GOLD, RANDOM, WORDS) and not dash:
        return DemoLabels(kind)
    if kind == FLIPPED:
        raise SelectionError(f"demonstration labels {text!r}: give a percentage from 0 to 100, such as flipped-50")
    known = (GOLD, RANDOM, WORDS, "flipped-50")
    raise SelectionError(f"unknown demonstration labels {text!r}; known: {', '.join(known)}.{nearest(text, known)}")


def parse_rationale(text: str) -> str:
    """Return the name of a kind of rationale: one of `RATIONALES`; raises SelectionError for anything else."""
    name = text.strip()
    if name not in RATIONALES:
        raise SelectionError(f"unknown rationale {text!r}; known: {', '.join(RATIONALES)}.{nearest(name, RATIONALES)}")
    return name


def relabel(
    demonstrations: Sequence[Record], labels: DemoLabels, bound: BoundTemplate, *, seed: int = 0
) -> tuple[Record, ...]:
    """Return the demonstrations with other labels (Min et al. 2022, sections 4 and 5).

    `random` draws uniformly among all labels, the right one too. `flipped` gives a record a wrong label,
    uniformly drawn, where its hash is among the lowest `rate` percent: a record that is flipped at one rate is
    flipped to the same label at every higher one. `words` shows, in place of a label, one of as many random
    English words as there are labels. Relabel what was selected and ordered, as both look at the labels.

    Raises SelectionError for a record without a label among several, and TemplateError where words have no place
    in the template's target.
    """
    if labels.kind == GOLD:
        return tuple(demonstrations)
    if labels.kind == WORDS:
        words = _draw_words(bound, seed)
        places = [_draw(record, f"word {seed}", len(words)) for record in demonstrations]
        return tuple(replace(record, label=words[at]) for record, at in zip(demonstrations, places, strict=True))
    return tuple(_relabel(record, labels, bound, seed) for record in demonstrations)


def _relabel(record: Record, labels: DemoLabels, bound: BoundTemplate, seed: int) -> Record:
    count = len(bound.task.labels or record.choices or ())
    if not isinstance(record.label, int) or count < 2:
        raise SelectionError(
            f"demonstration labels {labels.name!r} need labels to choose from; record {record.id!r} of task "
            f"{bound.task.name!r} has none, use {GOLD!r}"
        )
    if labels.kind == RANDOM:
        return replace(record, label=_draw(record, f"label {seed}", count))
    if _draw(record, f"flip {seed}", 10**9) >= labels.rate * 10**7:
        return record
    return replace(record, label=(record.label + 1 + _draw(record, f"wrong {seed}", count - 1)) % count)


def _draw(record: Record, purpose: str, count: int) -> int:
    """Return a number below `count` that depends on the purpose and the record's id alone."""
    return int.from_bytes(hash_order(purpose, record.id)) % count


def _draw_words(bound: BoundTemplate, seed: int) -> list[str]:
    if not bound.words:
        raise SelectionError(f"demonstration labels {WORDS!r} need fixed labels; task {bound.task.name!r} has none")
    target = bound.template.parts["target"]
    if "index" in target.arguments or "label" not in target.arguments:
        raise TemplateError(f"{target.place}: target shows a label's position, in whose place no word can stand")
    taken = {part.casefold() for word in bound.words + (bound.task.labels or ()) for part in word.split()}
    free = [word for word in ENGLISH_WORDS if word not in taken]
    return sorted(free, key=lambda word: hash_order(f"words {seed}", word))[: len(bound.words)]


class Rationales:
    """Gives demonstrations rationales of one kind (Wang B. et al. 2023, section 3); the answers stay.

    `invalid-numbers` puts other numbers of as many digits in place of a rationale's, the same for the same
    everywhere in it; only the answer's own number stays. `shuffled` puts the lines, or in a single line the
    sentences, in another sequence. `irrelevant` shows the rationale of the next record of the pool by hash.
    A rationale without numbers, or with a single step, stays as it is.

    Raises SelectionError where no record of the pool has a rationale that this would change.
    """

    def __init__(self, kind: str, pool: Sequence[Record], *, seed: int = 0) -> None:
        self.kind, self.seed = parse_rationale(kind), seed
        with_rationale = [record for record in pool if record.rationale is not None]
        self.ranked = sorted(with_rationale, key=lambda record: hash_order(f"rationale {seed}", record.id))
        self.places = {record.id: place for place, record in enumerate(self.ranked)}
        if self.kind != VALID and all(self._change(record, None) == record.rationale for record in self.ranked):
            what = {
                INVALID_NUMBERS: "with a number besides its answer",
                SHUFFLED: "with two steps",
                IRRELEVANT: "besides the one it would replace",
            }[self.kind]
            raise SelectionError(f"rationale {self.kind!r}: none of the {len(pool)} records has a rationale {what}")

    def __call__(self, demonstrations: Sequence[Record], query: Record | None = None) -> tuple[Record, ...]:
        """Return the demonstrations with their rationales changed; never to that of a record equal to `query`.

        Raises SelectionError for a demonstration without a rationale.
        """
        if self.kind == VALID:
            return tuple(demonstrations)
        return tuple(replace(record, rationale=self._change(record, query)) for record in demonstrations)

    def _change(self, record: Record, query: Record | None) -> str:
        if record.rationale is None:
            raise SelectionError(f"rationale {self.kind!r}: record {record.id!r} has no rationale to change")
        if self.kind == IRRELEVANT:
            return self._borrow(record, query)
        if self.kind == SHUFFLED:
            return _shuffle_steps(record.rationale, f"{self.seed}:{record.id}")
        return _change_numbers(record.rationale, record.label, f"{self.seed}:{record.id}")

    def _borrow(self, record: Record, query: Record | None) -> str:
        """Return the rationale of the next record in the ranking that differs from this one and from the query."""
        assert record.rationale is not None
        first = self.places.get(record.id, -1) + 1
        for place in range(first, first + len(self.ranked)):
            lender = self.ranked[place % len(self.ranked)]
            is_query = query is not None and (lender.fields, lender.choices) == (query.fields, query.choices)
            if lender.rationale is not None and lender.rationale != record.rationale and not is_query:
                return lender.rationale
        return record.rationale


def _shuffle_steps(text: str, seed: str) -> str:
    """Return the lines of `text`, or its sentences where it is one line, in another sequence."""
    pattern = r"(\n+)" if "\n" in text.strip("\n") else r"((?<=[.!?])\s+)"
    pieces = re.split(pattern, text)
    steps = pieces[::2]
    rng, shuffled = random.Random(seed), list(steps)
    while shuffled == steps and len(set(steps)) > 1:
        rng.shuffle(shuffled)
    pieces[::2] = shuffled
    return "".join(pieces)


def _change_numbers(text: str, label: int | str | None, seed: str) -> str:
    """Return the text with other numbers, the answer's kept, in which the fewest equations are true."""
    answer = abs(_read_number(label)) if isinstance(label, str) and _ANSWER.fullmatch(label.strip()) else None
    numbers = [value for value in map(_read_number, _NUMBER.findall(text)) if value != answer]
    rng, best, fewest = random.Random(seed), text, sys.maxsize
    for _ in range(_DRAWS if numbers else 0):
        others = _draw_numbers(dict.fromkeys(numbers), answer, rng)
        other = _NUMBER.sub(partial(_write_number, others=others), text)
        count = _count_true(other)
        if count < fewest:
            best, fewest = other, count
        if count == 0:
            break
    return best


def _draw_numbers(numbers: Iterable[Decimal], answer: Decimal | None, rng: random.Random) -> dict[Decimal, Decimal]:
    """Return another number for each, no two the same and none the answer, of as many digits while there are any."""
    others: dict[Decimal, Decimal] = {}
    for number in numbers:
        places, digits = max(0, -int(number.as_tuple().exponent)), len(str(int(number)))
        first = 10 ** (digits - 1 + places)
        last = 10 * first - 1
        if places and number < 1:
            first, last = 1, first - 1
        other, tries = number, 0
        while other in (number, answer) or other in others.values():
            other = Decimal(rng.randint(first, last)).scaleb(-places)
            tries += 1
            last = last * 10 + 9 if tries % 50 == 0 else last
        others[number] = other
    return others


def _read_number(text: str) -> Decimal:
    return Decimal(text.strip().replace(",", "")).normalize()


def _write_number(found: re.Match[str], others: Mapping[Decimal, Decimal]) -> str:
    """Return the other number as this one is written: with as many decimals, and commas where it has some."""
    other = others.get(_read_number(found[0]))
    decimals = len(found[0].partition(".")[2])
    return found[0] if other is None else format(other, f"{',' if ',' in found[0] else ''}.{decimals}f")


def _count_true(text: str) -> int:
    return sum(_is_true(*equation) for equation in _EQUATION.findall(text))


def _is_true(left: str, sign: str, right: str, result: str) -> bool:
    a, b, c = (_read_number(text) for text in (left, right, result))
    if sign in "/÷":
        return b != 0 and a == b * c
    return {"+": a + b, "-": a - b}.get(sign, a * b) == c
