"""Give a template other verbalizers (label words)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptkit.errors import TemplateError
from promptkit.templating.template import BoundTemplate


def give_words(bound: BoundTemplate, words: str) -> BoundTemplate:
    """Return the template with other words for the task's labels in their order, separated by commas.

    Raises TemplateError unless there are as many different words as labels.
    """
    given, labels = [word.strip() for word in words.split(",")], bound.task.labels or ()
    if len(given) != len(labels) or len(set(given)) < len(given) or not all(given):
        raise TemplateError(
            f"label words {words!r}: task {bound.task.name!r} needs {len(labels)} different words, "
            f"one for each of {', '.join(labels) or 'its labels, and has none'}"
        )
    return replace_words(bound, given)


def replace_words(bound: BoundTemplate, words: Sequence[str]) -> BoundTemplate:
    """Return the template with these words for the task's labels, in their order."""
    labels = dict(zip(bound.task.labels or (), words, strict=True))
    return BoundTemplate(replace(bound.template, labels=labels), bound.task, tuple(words), bound.system)
