"""Choose the words for a task's labels: a template's own, others as natural, or arbitrary ones."""

import random
from collections.abc import Mapping
from dataclasses import replace

from promptkit.data.tasks import Task
from promptkit.templating.template import Template

SYNONYMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sentiment": {
        "negative": ("bad", "terrible", "unfavorable", "poor", "critical", "against"),
        "positive": ("good", "great", "favorable", "excellent", "approving", "for"),
        "terrible": ("awful", "very bad", "very negative", "horrible", "hated", "1"),
        "bad": ("poor", "negative", "rather bad", "weak", "disliked", "2"),
        "okay": ("neutral", "mixed", "fine", "average", "so-so", "3"),
        "good": ("decent", "positive", "rather good", "solid", "liked", "4"),
        "great": ("excellent", "very good", "very positive", "superb", "loved", "5"),
    },
    "subjectivity": {
        "subjective": ("opinion", "view", "personal", "judgement"),
        "objective": ("fact", "plot", "factual", "description"),
    },
    "question-type": {
        "ABBR": ("abbreviation", "acronym", "short form", "expression"),
        "ENTY": ("entity", "thing", "object", "entity"),
        "DESC": ("description", "explanation", "definition", "description"),
        "HUM": ("person", "human", "somebody", "human"),
        "LOC": ("location", "place", "where", "location"),
        "NUM": ("number", "quantity", "numeric", "number"),
    },
}
"""Words of the same meaning: family -> label -> words; the n-th words of all labels go together."""

ARBITRARY = """zap dox | foo bar | red blue | cat dog | A B C D E F | X Y Z W V U | one two three four five six
 | apple pear plum lemon grape fig | ja nein | north south east west up down | alpha beta gamma delta epsilon zeta
 | moon sun star planet comet sky | J K L M N O | left right | circle square triangle star line dot"""
SETS = tuple(tuple(words.split()) for words in ARBITRARY.split("|"))


MOST_ARBITRARY = 4
"""The most classes that arbitrary words are given to at once."""


def choose_words(template: Template, task: Task, rng: random.Random, *, arbitrary: bool) -> Template:
    """The template with words for the task's labels; where not arbitrary, its own ones in seven cases of ten."""
    assert task.labels is not None
    if arbitrary:
        return replace(template, labels=_arbitrary(task.labels, rng))
    synonyms = SYNONYMS.get(task.templates, {})
    if rng.random() < 0.3 and all(label in synonyms for label in task.labels):
        number = rng.randrange(min(len(synonyms[label]) for label in task.labels))
        return replace(template, labels={label: synonyms[label][number] for label in task.labels})
    return replace(template, labels={label: template.labels.get(label, label) for label in task.labels})


def _arbitrary(labels: tuple[str, ...], rng: random.Random) -> dict[str, str]:
    words = rng.choice([words for words in SETS if len(words) >= len(labels)])
    return dict(zip(labels, rng.sample(words, len(labels)), strict=True))
