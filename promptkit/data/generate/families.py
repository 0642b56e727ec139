"""Generate small labelled data sets from tables of frames and words; `tiny` was trained on them.

Each family is a table: per label the frames its texts are made of, and the words that fill the slots. A slot
{name} is filled from the label's own words if it has some under that name, else from the words all labels share.
Alternatives stand between bars.
"""

import random
from collections.abc import Mapping

from promptkit.data.generate.gadgets import write_gadget_review
from promptkit.data.generate.generator import Generator, Row, alternatives, chance, sentence
from promptkit.data.generate.vocabulary import FRAMES, SHARED, WORD_GROUPS

HELD_OUT = "intent"
"""The family the embedded model never sees in training."""


class Slots(dict[str, str]):
    """Fills {slot} while formatting: every mention is drawn anew from the first table that has it."""

    def __init__(self, rng: random.Random, *tables: Mapping[str, str]) -> None:
        self.rng = rng
        self.tables = tables

    def __missing__(self, slot: str) -> str:
        words = next(table[slot] for table in self.tables if slot in table)
        return self.rng.choice(alternatives(words)).format_map(self)


def write_from_frames(family: str, rng: random.Random, label: str) -> Row:
    """One text of this family and label, of one or two frames."""
    table = FRAMES[family][label]
    slots = Slots(rng, table, SHARED)
    told = [_fill(rng, table["frames"], slots) for _ in range(2 if chance(rng, 0.4) else 1)]
    return {"text": " ".join(dict.fromkeys(told)), "label": label}


def write_word_group(rng: random.Random, label: str) -> Row:
    """Two to five words of one group, as a list."""
    words = rng.sample(alternatives(WORD_GROUPS[label]), rng.randint(3, 5))
    return {"text": ", ".join(words), "label": label}


def write_comparison(rng: random.Random, label: str) -> Row:
    """Two numbers of the same thing; the label says whether the first or the second is more."""
    slots = Slots(rng, FRAMES["comparison"]["words"], SHARED)
    small, large = sorted(rng.sample(range(2, 99), 2))
    first, second = (large, small) if label == "first" else (small, large)
    frame = _fill(rng, FRAMES["comparison"]["words"]["frames"], slots)
    text = frame.replace("<first>", str(first)).replace("<second>", str(second))
    return {
        "text": text,
        "label": label,
        "rationale": f"{first} is {'more' if first > second else 'less'} than {second}.",
    }


def _fill(rng: random.Random, frames: str, slots: Slots) -> str:
    text = rng.choice(alternatives(frames)).format_map(slots)
    return sentence(text, "" if text[-1] in ".!?" else ".")


def _framed(family: str) -> Generator:
    def write(rng: random.Random, label: str) -> Row:
        return write_from_frames(family, rng, label)

    return Generator(write, tuple(FRAMES[family]))


FAMILIES: dict[str, Generator] = {
    "spam": _framed("spam"),
    "urgency": _framed("urgency"),
    "formality": _framed("formality"),
    "tense": _framed("tense"),
    "mood": _framed("mood"),
    "vocabulary": _framed("vocabulary"),
    "intent": _framed("intent"),
    "comparison": Generator(write_comparison, ("first", "second")),
    "word-groups": Generator(write_word_group, tuple(WORD_GROUPS)),
    "gadgets": Generator(write_gadget_review, ("negative", "positive")),
}
