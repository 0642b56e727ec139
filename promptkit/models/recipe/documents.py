"""Write records as documents: pieces of text, each with its weight in the loss."""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptkit.data.record import Record
from promptkit.data.tasks import Task
from promptkit.models.recipe.corpus import FamilyPool, vary
from promptkit.models.recipe.label_names import MOST_ARBITRARY, choose_words
from promptkit.prompts.prompt import Piece, render_answer, render_messages, render_pieces
from promptkit.templating.template import BoundTemplate, Template, find_templates, load_template

END = "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}

ANSWER, ALONE, ARBITRARY, FIRST, RESULT, REASON, STOP, TEXT = 1.0, 2.0, 1.5, 0.1, 1.5, 0.7, 0.3, 0.15
"""Weights: an answer, a zero-shot answer, one in arbitrary words, a class's first appearance in arbitrary words (which
nothing predicts), a number after "=", a rationale, the mark that ends a document, and all other text (sampled)."""

MANY = 6
"""Of tasks with more labels, a document shows 2 to this many."""

DENSE = ("word", "word", "colon", "colon", "arrow")
"""The templates of practice, by their shares: little text between a word and its label."""

PRACTICE, BY_CHANCE, MOST_WORDS = 0.08, 0.5, 24
"""Share of practice in the classification documents; in how much of it words are labelled by chance; its words."""

UNFAMILIAR = 0.1
"""Share of the other classification documents whose labels are arbitrary words."""

ADDED = {"lu2022"}
"""Templates that came after the shipped weights were trained, and would change what the recipe makes."""

LONG_INSTRUCTIONS = 0.4
"""The share that a template with a long instruction gets, against 1 for others."""

AT_ONCE = 0.12
"""Share of the documents with word problems whose answers come without reasons."""

_RESULT = re.compile(r"(?<= = )\d+")


@dataclass(frozen=True, slots=True)
class Weighted:
    """A piece of a document and the weight of its tokens in the loss."""

    text: str
    weight: float


Document = list[Weighted]


class Documents:
    """Draws documents from pools of records and from the templates of their tasks' families."""

    def __init__(self, pools: Sequence[FamilyPool], problems: FamilyPool) -> None:
        self.pools = pools
        self.problems = problems
        folder = Path(__file__).parent / "templates"
        own = {path.stem: load_template(path) for path in sorted(folder.glob("*.jinja"))}
        self.dense = [own[name] for name in DENSE]
        self.own = [template for name, template in own.items() if name not in DENSE or name == "arrow"]
        families = {pool.task.templates for pool in [*pools, problems]}
        self.shipped = {
            family: [load_template(f"{family}/{way}") for way in ways] for family, ways in _find_ways(families).items()
        }

    def practice(self, rng: random.Random, length: int) -> Document:
        """Words and arbitrary labels side by side, as many as fit `length` tokens: the context tells the answers.

        Two word groups, or a few words that come again and again, labelled by chance.
        """
        count = min(MOST_WORDS, length // 3)
        groups = next(pool for pool in self.pools if pool.task.name == "word-groups")
        task, records = draw_classes(rng, groups, most=2)
        if by_chance := rng.random() < BY_CHANCE:
            few = rng.sample(groups.records, rng.randint(3, 8))
            known = [replace(_first_word(record), label=rng.randrange(2)) for record in few]
            words = rng.choices(known, k=count)
        else:
            words = [_first_word(record) for record in rng.sample(records, min(len(records), count))]
        template = choose_words(rng.choice(self.dense), task, rng, arbitrary=True)
        firsts = find_firsts(word.fields["text"] if by_chance else word.label for word in words)
        return render(template.bind(task), words, chat=False, firsts=firsts)

    def classification(self, rng: random.Random, length: int) -> Document:
        """A classification prompt of 0 to 12 demonstrations, or fewer where `length` (tokens, roughly) is short."""
        if rng.random() < PRACTICE:
            return self.practice(rng, length)
        pool = rng.choices(self.pools, weights=[pool.share for pool in self.pools])[0]
        arbitrary = rng.random() < UNFAMILIAR
        task, records = draw_classes(rng, pool, most=MOST_ARBITRARY if arbitrary else MANY)
        template = choose_words(self._draw_template(rng, pool), task, rng, arbitrary=arbitrary)
        if rng.random() < 0.15:
            template = _without_instruction(template)
        shown = _number_of_demonstrations(rng, length, arbitrary=arbitrary)
        varied = [vary(record, rng) for record in rng.sample(records, shown + 1)]
        firsts = find_firsts(record.label for record in varied) if arbitrary else None
        return render(template.bind(task), varied, chat=rng.random() < 0.12, firsts=firsts)

    def problem(self, rng: random.Random, length: int, drills: float = 0.15) -> Document:
        """A word problem or several: bare steps (in this share of the documents), the answer at once, or reasoned."""
        roll = rng.random()
        if roll < drills:
            steps = [str(record.rationale) for record in rng.sample(self.problems.records, 5)]
            return [*_weigh_rationale("\n".join(steps)), Weighted(END, STOP)]
        reasoned = [
            template for template in self.shipped["word-problems"] if template.is_cot == (roll > drills + AT_ONCE)
        ]
        shown = rng.choice((0, 0, 0, 1, 1, 2)) if length < 400 else rng.choice((0, 2, 3, 4, 4, 5, 6, 8))
        records = rng.sample(self.problems.records, shown + 1)
        template = rng.choice(reasoned)
        return render(template.bind(self.problems.task), records, chat=rng.random() < 0.1)

    def _draw_template(self, rng: random.Random, pool: FamilyPool) -> Template:
        shipped = self.shipped[pool.task.templates]
        candidates = shipped if shipped and rng.random() < 0.75 else self.own
        reasoned = [template for template in candidates if template.is_cot]
        if reasoned and pool.records[0].rationale is not None and rng.random() < 0.5:
            return rng.choice(reasoned)
        plain = [template for template in candidates if not template.is_cot]
        return rng.choices(plain, weights=[LONG_INSTRUCTIONS if "wordy" in t.name else 1 for t in plain])[0]


def _find_ways(families: Iterable[str]) -> dict[str, list[str]]:
    """Return the shipped templates of every family, less those that were added since."""
    names = [name.split("/", 1) for name in find_templates() if "/" in name]
    return {family: [way for own, way in names if own == family and way not in ADDED] for family in families}


def draw_classes(rng: random.Random, pool: FamilyPool, *, most: int) -> tuple[Task, Sequence[Record]]:
    """The pool's task and records; where it has more classes than `most`, those of 2 to `most` of them."""
    labels = pool.task.labels or ()
    if len(labels) <= most:
        return pool.task, pool.records
    kept = rng.sample(range(len(labels)), rng.randint(2, most))
    candidates = rng.sample(pool.records, min(len(pool.records), 40 * len(labels)))
    records = [replace(record, label=kept.index(record.label)) for record in candidates if record.label in kept]
    return pool.task.model_copy(update={"labels": tuple(labels[index] for index in kept)}), records


def _without_instruction(template: Template) -> Template:
    return replace(template, parts={name: part for name, part in template.parts.items() if name != "instruction"})


def find_firsts(keys: Iterable[object]) -> frozenset[int]:
    """The places at which a key comes for the first time."""
    places: dict[object, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    return frozenset(places.values())


def render(
    bound: BoundTemplate, records: Sequence[Record], *, chat: bool, firsts: frozenset[int] | None = None
) -> Document:
    """All records solved, one after the other, as promptkit shows demonstrations; the last one ends the document.

    `firsts` are the places of answers in arbitrary words that nothing before them tells; None for natural words.
    """
    *shown, query = records
    pieces = _chat_pieces(bound, shown, query) if chat else _plain_pieces(bound, shown, query)
    answered = 0
    document: Document = []
    for kind, text in pieces:
        if kind == "rationale":
            document += _weigh_rationale(text)
        elif kind == "target":
            document.append(Weighted(text, _weigh_answer(answered, firsts, alone=not shown)))
            answered += 1
        else:
            document.append(Weighted(text, STOP if kind == "end" else TEXT))
    return document


def _weigh_answer(place: int, firsts: frozenset[int] | None, *, alone: bool) -> float:
    if firsts is None:
        return ALONE if alone else ANSWER
    return FIRST if place in firsts else ARBITRARY


def _first_word(record: Record) -> Record:
    return replace(record, fields={"text": str(record.fields["text"]).split(",")[0]})


def _plain_pieces(bound: BoundTemplate, shown: Sequence[Record], query: Record) -> Iterator[Piece]:
    yield from render_pieces(bound, query, shown)
    yield from render_answer(bound, query)
    yield "end", END


def _chat_pieces(bound: BoundTemplate, shown: Sequence[Record], query: Record) -> Iterator[Piece]:
    """The same as chat turns; tests compare it with what the tokenizer's chat template makes."""
    answers = iter([*shown, query])
    for message in render_messages(bound, query, shown):
        if message.role == "assistant":
            continue
        yield "text", f"{ROLES[message.role]}{message.content}{END}"
        if message.role == "user":
            yield "text", ROLES["assistant"]
            yield from render_answer(bound, next(answers))
            yield "end", END


def _weigh_rationale(text: str) -> Document:
    """The rationale in pieces: numbers after "=" weigh more."""
    document, end = [], 0
    for match in _RESULT.finditer(text):
        document += [Weighted(text[end : match.start()], REASON), Weighted(match.group(), RESULT)]
        end = match.end()
    return [piece for piece in [*document, Weighted(text[end:], REASON)] if piece.text]


def _number_of_demonstrations(rng: random.Random, length: int, *, arbitrary: bool) -> int:
    most = 12 if length > 400 else 6
    if arbitrary:
        return rng.randint(4, most)
    return 0 if rng.random() < (0.25 if length > 400 else 0.5) else rng.randint(1, most)
