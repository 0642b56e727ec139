"""Replace a template's verbalizers: by given words, its own ones swapped, or arbitrary ones for every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptkit.building.mixture import OWN
from promptkit.building.row_draws import DrawKey
from promptkit.data.library import search_folders
from promptkit.demonstrations.corruption import ENGLISH_WORDS
from promptkit.errors import TemplateError, nearest
from promptkit.templating.sandbox import RENDER_ERRORS, explain_render_error, folder_loader, make_environment, parse
from promptkit.templating.template import BoundTemplate, TemplatePart
from promptkit.templating.verbalizers import give_words, replace_words

SWAPPED, RANDOM = "swapped", "random"
WORDINGS = (OWN, SWAPPED, RANDOM)
_FILE = "_legend.jinja"
#: Templates in other words that are kept at once.
_REMEMBERED = 1_000


@dataclass(frozen=True)
class Legend:
    """What `templates/_legend.jinja` makes of an instruction, words and their meanings; found as templates are."""

    path: Path
    text: str
    render: Callable[[str, Sequence[str], Sequence[str]], str]


def load_legend() -> Legend:
    """Return the legend, the working directory's first; raises TemplateError for a file that is not one."""
    environment = make_environment(folder_loader(search_folders("templates")))
    text, path, _ = parse(environment, _FILE)
    try:
        macro: Any = environment.get_template(_FILE).module.legend  # type: ignore[attr-defined]
    except (*RENDER_ERRORS, AttributeError) as error:
        raise TemplateError(f"{path}: has no macro legend(instruction, words, meanings)") from error

    def render(instruction: str, words: Sequence[str], meanings: Sequence[str]) -> str:
        try:
            return str(macro(instruction, list(words), list(meanings)))
        except RENDER_ERRORS as error:
            raise explain_render_error(error, "legend") from error

    return Legend(path, text, render)


def check_wording(name: str, bound: BoundTemplate) -> None:
    """Raise TemplateError where a template's labels cannot be worded as `name` says."""
    if name == OWN:
        return
    if not bound.words:
        raise TemplateError(f"labels {name!r}: task {bound.task.name!r} has no fixed labels to be worded otherwise")
    target = bound.template.parts["target"]
    if "label" not in target.arguments:
        raise TemplateError(f"{target.place}: labels {name!r}: the target does not show a label's word")
    if not _shows_words(bound):
        raise TemplateError(
            f"{target.place}: labels {name!r}: the target is the same in other words: {bound.shared_choices}; "
            "use a template whose target shows the label's word"
        )
    if name == RANDOM and len(_free_words(bound)) < len(bound.words):
        count, most = len(bound.words), len(_free_words(bound))
        raise TemplateError(
            f"labels {RANDOM!r}: task {bound.task.name!r} has {count} labels, words are there for {most}"
        )
    if name not in WORDINGS and "," not in name:
        known = f"{', '.join(WORDINGS)}, or words separated by commas"
        raise TemplateError(f"unknown labels {name!r}; known: {known}.{nearest(name, WORDINGS)}")
    if name not in WORDINGS:
        give_words(bound, name)


def _shows_words(bound: BoundTemplate) -> bool:
    """Whether the target of every label is another one where the label has another word, as far as no record says."""
    other = replace_words(bound, [f"{word}x" for word in bound.words])
    own, changed = bound.shared_choices or (), other.shared_choices or ()
    return all(one != another for one, another in zip(own, changed, strict=True))


class Rewording:
    """Gives a bound template the words of one row.

    `own` are the template's. Words separated by commas stand for the labels in the task's order. `swapped` gives every
    label the own word of another, and the instruction says which: all labels in one circle, drawn per row. `random`
    draws different English words per row; the instruction says what they mean, or, in a row with demonstrations, the
    demonstrations alone show it (symbol tuning, Wei et al. 2023).
    """

    def __init__(self) -> None:
        self._legend: Legend | None = None
        self._made: dict[tuple[str, str, tuple[str, ...], bool], BoundTemplate] = {}

    def __call__(self, bound: BoundTemplate, name: str, draw_key: DrawKey, *, shots: int = 0) -> BoundTemplate:
        """Return the template with the words that `name` gives it in the row of this key."""
        if name == OWN:
            return bound
        words = self._choose_words(bound, name, draw_key)
        told = name == SWAPPED or (name == RANDOM and not shots)
        key = (bound.task.hash, bound.template.hash, words, told)
        if key not in self._made:
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            worded = replace_words(bound, words)
            self._made[key] = self._explain(worded, bound.words) if told else worded
        return self._made[key]

    def _choose_words(self, bound: BoundTemplate, name: str, draw_key: DrawKey) -> tuple[str, ...]:
        if name not in WORDINGS:
            return give_words(bound, name).words
        generator = draw_key.generator(f"words {name}")
        if name == RANDOM:
            return tuple(generator.sample(_free_words(bound), len(bound.words)))
        circle = list(range(len(bound.words)))
        generator.shuffle(circle)
        following = dict(zip(circle, [*circle[1:], circle[0]], strict=True))
        return tuple(bound.words[following[place]] for place in range(len(circle)))

    def _explain(self, worded: BoundTemplate, meanings: Sequence[str]) -> BoundTemplate:
        """Return the template with an instruction that says what the words mean."""
        self._legend = self._legend or load_legend()
        text = self._legend.render(worded.instruction, worded.words, meanings)
        part = TemplatePart("instruction", "legend", self._legend.path, 1, (), (), lambda: text)
        parts = {**worded.template.parts, "instruction": part}
        return BoundTemplate(replace(worded.template, parts=parts), worded.task, worded.words, worded.system)


def _free_words(bound: BoundTemplate) -> list[str]:
    """Return the words that are no part of a label or of a word that stands for one."""
    taken = {part.casefold() for word in bound.words + (bound.task.labels or ()) for part in word.split()}
    return [word for word in ENGLISH_WORDS if word not in taken]
