"""Generate a short restaurant review for a label, with the reasons for it.

A review speaks of one to four aspects of a visit. Its label follows from these rules, the first that applies:

1. *Closing verdict.* Words on coming back ("we will be back", "never again") are the label, whatever else is said.
2. *Deciding aspect.* "... the food is what counts for me": the label is what is said of that aspect. An aspect waved
   aside ("I can live with that") does not count at all.
3. *Majority.* Otherwise what is said of most aspects.

What is said of an aspect counts as its author means it: "not bad at all" and "no complaints about the soup" are
praise, "hardly fresh" and "anything but cheap" are blame, and faint praise ("fine, nothing more") is blame.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

from promptkit.data.generate.aspects import (
    ASPECTS,
    BAD,
    DECIDES,
    DISMISSES,
    GOOD,
    OPENERS,
    PLACES,
    WILL_NOT_RETURN,
    WILL_RETURN,
    Aspect,
)
from promptkit.data.generate.generator import Generator, Row, chance, pick, sentence

RULES = {"majority": 0.68, "aspect": 0.14, "verdict": 0.18}
"""How often each rule decides."""

MAJORITIES = {(1,): 0.1, (1, 1): 0.24, (1, 1, 1): 0.24, (1, 1, -1): 0.22, (1, 1, 1, -1): 0.2}
"""How often a majority is of which kind; 1 agrees with the label."""

FAINT = """fine, nothing more | okay at best | acceptable, just about | so-so | all right if you expect little
 | nice enough, but forgettable | decent, not a bit more | good in parts only | good, I suppose, for a canteen"""
FAULTLESS = """no complaints about {} | nothing wrong with {} | I could find no fault with {} | you cannot go wrong with {}
 | nothing bad to say about {} | {} left nothing to be desired | {} did not disappoint | I would not change a thing about {}"""
DENIALS = (
    """not {} at all | far from {} | anything but {} | hardly {} | never {} | by no means {} | not in the least {}"""
)
DEGREES = (
    "really | truly | so | very | quite | simply | as always | again | once more | surprisingly | frankly | clearly"
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One clause on one aspect; `praises` is what its author means, not what its words look like."""

    aspect: Aspect
    praises: bool
    clause: str


def write_review(rng: random.Random, label: str, aspects: tuple[Aspect, ...] = ASPECTS) -> Row:
    """One review of this label ("negative" or "positive"): text, label, rationale."""
    rule = rng.choices(list(RULES), weights=list(RULES.values()))[0]
    text, rationale = WRITERS[rule](rng, label == "positive", aspects)
    return {"text": text, "label": label, "rationale": rationale}


def _by_majority(rng: random.Random, positive: bool, aspects: tuple[Aspect, ...]) -> tuple[str, str]:
    signs = list(rng.choices(list(MAJORITIES), weights=list(MAJORITIES.values()))[0])
    rng.shuffle(signs)
    chosen = rng.sample(aspects, len(signs))
    opinions = [say(rng, aspect, (sign > 0) == positive) for aspect, sign in zip(chosen, signs, strict=True)]
    return _opening(rng) + join(rng, opinions), walk(opinions) + _count(opinions)


def _by_aspect(rng: random.Random, positive: bool, aspects: tuple[Aspect, ...]) -> tuple[str, str]:
    first, second = rng.sample(aspects, 2)
    for_label, against = say(rng, first, positive), say(rng, second, not positive)
    opinions = [for_label, against] if chance(rng, 0.5) else [against, for_label]
    if opinions[1] is for_label and chance(rng, 0.4):
        text = f"{sentence(against.clause)} {sentence(pick(rng, DISMISSES))} {sentence(for_label.clause)}"
        reason = f" The {second.name} does not count."
    else:
        text = f"{join(rng, opinions)} {sentence(pick(rng, DECIDES).format(name=first.name))}"
        reason = f" The {first.name} decides."
    return _opening(rng) + text, walk(opinions) + reason


def _by_verdict(rng: random.Random, positive: bool, aspects: tuple[Aspect, ...]) -> tuple[str, str]:
    size = rng.choice((1, 2, 2, 3))
    opinions = [say(rng, aspect, chance(rng, 0.5)) for aspect in rng.sample(aspects, size)]
    verdict = sentence(pick(rng, WILL_RETURN if positive else WILL_NOT_RETURN), pick(rng, ". | . | . | !"))
    again = "They will come back." if positive else "They will not come back."
    return f"{_opening(rng)}{join(rng, opinions)} {verdict}", f"{walk(opinions)} {again}"


WRITERS = {"majority": _by_majority, "aspect": _by_aspect, "verdict": _by_verdict}


def say(rng: random.Random, aspect: Aspect, praises: bool) -> Opinion:
    """One clause that praises or blames the aspect, in plain words, by denial, by a small story or faintly."""
    if chance(rng, 0.15):
        return Opinion(aspect, praises, pick(rng, aspect.praise if praises else aspect.blame))
    subject, verb = _subject(rng, aspect)
    words, opposite = (aspect.good, aspect.bad) if praises else (aspect.bad, aspect.good)
    if chance(rng, 0.6):
        words = GOOD if praises else BAD
    form = rng.random()
    if form < 0.09:
        clause = f"{subject} {verb} {pick(rng, DENIALS).format(pick(rng, opposite))}"
    elif form < 0.18:
        clause = pick(rng, FAULTLESS).format(subject) if praises else f"{subject} {verb} {pick(rng, FAINT)}"
    elif form < 0.45:
        word = pick(rng, words)
        clause = f"{subject} {verb} {word if ' ' in word else f'{pick(rng, DEGREES)} {word}'}"
    elif form < 0.6:
        clause = f"{subject} {verb} {pick(rng, words)} and {pick(rng, words)}"
    else:
        clause = f"{subject} {verb} {pick(rng, words)}"
    return Opinion(aspect, praises, clause)


def join(rng: random.Random, opinions: list[Opinion]) -> str:
    """The opinions as one to three sentences; neighbours of opposite meaning are often joined by "but"."""
    text = opinions[0].clause
    for before, after in pairwise(opinions):
        links = (
            ", and | . | . | ; | , and" if before.praises == after.praises else ", but | . | , but | , though | , yet"
        )
        link = pick(rng, links)
        text += f". {after.clause[:1].upper()}{after.clause[1:]}" if link == "." else f"{link} {after.clause}"
    return sentence(text, pick(rng, ". | . | . | . | !"))


def walk(opinions: list[Opinion]) -> str:
    """The aspects in the order of the text, each with what is meant: "The food is good. The price is bad."."""
    return " ".join(f"The {opinion.aspect.name} is {'good' if opinion.praises else 'bad'}." for opinion in opinions)


def _count(opinions: list[Opinion]) -> str:
    praises = sum(opinion.praises for opinion in opinions)
    blames = len(opinions) - praises
    if not (praises and blames):
        return " There is only praise." if praises else " There is only blame."
    return " Praise outweighs blame." if praises > blames else " Blame outweighs praise."


def _opening(rng: random.Random) -> str:
    form = rng.random()
    if form < 0.2:
        return f"{sentence(pick(rng, OPENERS))} "
    if form < 0.35:
        return f"{sentence(pick(rng, OPENERS), '')}, {pick(rng, PLACES)}. "
    return f"At {pick(rng, PLACES)}: " if form < 0.45 else ""


def _subject(rng: random.Random, aspect: Aspect) -> tuple[str, str]:
    subject = pick(rng, aspect.subjects)
    return (subject[1:], "were") if subject.startswith("*") else (subject, "was")


REVIEWS = Generator(write_review, ("negative", "positive"))
