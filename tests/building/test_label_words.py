"""Label words in training rows: other ones, swapped ones, arbitrary ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from promptkit.building import make_set
from promptkit.demonstrations.corruption import ENGLISH_WORDS
from promptkit.errors import TemplateError
from tests.conftest import TASK, TEMPLATE, Project

THREE = TASK.replace('"positive"]', '"positive", "mixed"]')


def build(template: str = "films/plain", **given: Any) -> list[dict[str, Any]]:
    """Return the rows of the films, which have six records."""
    return list(make_set("films", template, **{"data": "data", **given}).rows())


def test_own_words_are_the_templates(project: Project) -> None:
    """`own` changes nothing but that the row says so."""
    rows = build(labels={"own": 1.0, "zip,nop": 1e-9})
    assert [{key: value for key, value in row.items() if key != "wording"} for row in rows] == build(epochs=1)
    assert {row["wording"] for row in rows} == {"own"}


def test_given_words_stand_for_the_labels_in_order(project: Project) -> None:
    """Words by comma take the place of the labels in instruction, completion and choices, also of demonstrations."""
    for row in build(labels="zip,nop", k=2):
        assert row["choices"] == [" zip", " nop"]
        assert row["completion"] == row["choices"][row["label"]]
        assert "with either zip or nop." in row["prompt"]
        assert "tive" not in row["prompt"]
        assert row["prompt"].count("Sentiment: zip") + row["prompt"].count("Sentiment: nop") == 2


def test_swapped_words_are_explained(project: Project) -> None:
    """Each label has the word of the other, demonstrations too, and the instruction says so."""
    for row in build(labels="swapped", k=2):
        assert row["choices"] == [" positive", " negative"]
        assert row["completion"] == row["choices"][row["label"]]
        assert row["prompt"].startswith(
            "Label the following review with either positive or negative.\n"
            'In what follows, "positive" means negative and "negative" means positive.\n\nText: '
        )


def test_no_label_keeps_its_word_when_more_than_two_are_swapped(project: Project) -> None:
    """Three labels go round in one circle, either way round, drawn per row."""
    project.write("tasks/films.toml", THREE)
    words = Counter(tuple(row["choices"]) for row in build(labels="swapped", epochs=20))
    assert set(words) == {(" positive", " mixed", " negative"), (" mixed", " negative", " positive")}
    assert min(words.values()) > 30


def test_random_words_are_told_by_the_instruction_or_by_demonstrations(project: Project) -> None:
    """Every row has its own words, from a list; zero-shot rows say what they mean, k-shot rows only show it."""
    told, shown = build(labels="random", epochs=5), build(labels="random", epochs=5, k=2)
    assert len({tuple(row["choices"]) for row in told}) > 20
    for row in told + shown:
        first, second = (choice.strip() for choice in row["choices"])
        assert {first, second} <= set(ENGLISH_WORDS)
        assert first != second
        legend = f'"{first}" means negative and "{second}" means positive.'
        assert (legend in row["prompt"]) == (not row["demonstration_ids"])
        assert row["prompt"].count(f": {first}") + row["prompt"].count(f": {second}") == len(row["demonstration_ids"])


def test_several_wordings_are_drawn_by_weight(project: Project) -> None:
    """Weights say how often each wording comes; a row says which it has."""
    counts = Counter(row["wording"] for row in build(labels={"own": 3.0, "swapped": 1.0}, epochs=200))
    assert abs(counts["own"] - 900) < 4 * (1200 * 3 / 16) ** 0.5


def test_the_legend_is_a_file_of_the_project(project: Project) -> None:
    """`templates/_legend.jinja` in the working directory takes the place of the one that ships."""
    project.write(
        "templates/_legend.jinja",
        "{% macro legend(instruction, words, meanings) %}"
        "{{ words | join('/') }} = {{ meanings | join('/') }}{% endmacro %}",
    )
    assert build(labels="swapped")[0]["prompt"].startswith("positive/negative = negative/positive\n\nText")
    project.write("templates/_legend.jinja", "{% macro key(words) %}{% endmacro %}")
    with pytest.raises(TemplateError, match=r"_legend\.jinja: has no macro legend"):
        build(labels="swapped")


def test_a_template_without_instruction_gets_one(project: Project) -> None:
    """Where there is no instruction to add to, the legend is the instruction."""
    project.write("templates/films/bare.jinja", TEMPLATE[TEMPLATE.index("{% macro input") :])
    assert build("films/bare", labels="swapped")[0]["prompt"].startswith('In what follows, "positive" means negative')


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("swaped", r"unknown labels 'swaped'; known: own, swapped, random.*Did you mean 'swapped'"),
        ("zip,nop,zap", r"label words 'zip,nop,zap': task 'films' needs 2 different words"),
        ("zip,zip", r"needs 2 different words"),
    ],
)
def test_words_that_do_not_fit_are_refused(project: Project, labels: str, message: str) -> None:
    """Unknown names and wrong numbers of words are errors before any row is made."""
    with pytest.raises(TemplateError, match=message):
        build(labels=labels)


def test_labels_that_have_no_words_are_refused(project: Project) -> None:
    """A free answer has no word to change, nor has a target that shows no label."""
    shipped = Path(project.root / "templates/films/letter.jinja")
    shipped.write_text(TEMPLATE.replace("target(label) %} {{ label }}", "target(index) %} {{ index }}"))
    with pytest.raises(TemplateError, match=r"letter\.jinja:\d+: labels 'swapped': the target does not show"):
        build("films/letter", labels="swapped")
    shipped.write_text(TEMPLATE.replace("target(label) %} {{ label }}", "target(label, index) %} {{ 'AB'[index] }}"))
    with pytest.raises(
        TemplateError, match=r"letter\.jinja:\d+: labels 'random': the target is the same in other words"
    ):
        build("films/letter", labels="random")
    project.write("tasks/films.toml", TASK.replace('labels = ["negative", "positive"]\n', ""))
    project.write(
        "templates/films/free.jinja",
        '{% set answer = "(.*)" %}\n'
        + "{% macro input(text) %}{{ text }}{% endmacro %}{% macro target(label) %} {{ label }}{% endmacro %}",
    )
    with pytest.raises(TemplateError, match="labels 'random': task 'films' has no fixed labels"):
        build("films/free", labels="random")
