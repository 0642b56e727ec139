"""Answers read from free text, and when they are right."""

from __future__ import annotations

import pytest

from promptkit.errors import TemplateError
from promptkit.scoring import read_answer, same_answer


@pytest.mark.parametrize(
    ("read", "gold"),
    [
        ("29", "29"),
        ("$29.00", "29"),
        ("1,000", "1000"),
        ("1,234,567.50", "1234567.5"),
        ("-3", "-3.0"),
        ("-$5", "$-5"),
        ("12.", "12"),
        ("50%", "50"),
        (".5", "0.5"),
        (".50", "1/2"),
        ("3/4", "0.75"),
        ("1 000", "1000"),
        ("1e3", "1000"),
        ("\u22125", "-5"),
        (" Paris ", "Paris"),
    ],
)
def test_equal_numbers_and_equal_texts_are_the_same_answer(read: str, gold: str) -> None:
    """How a number is written does not count, nor the space around a text."""
    assert same_answer(read, gold)


@pytest.mark.parametrize(
    ("read", "gold"),
    [("29", "28"), ("-3", "3"), ("10,00", "1000"), ("1 2", "12"), ("paris", "Paris"), ("", "0"), (None, "0")],
)
def test_other_answers_are_not(read: str | None, gold: str) -> None:
    """Another number, another spelling, half a number, and an answer that was not read are wrong."""
    assert not same_answer(read, gold)


def test_answer_is_group_one_of_the_first_match() -> None:
    """The first match counts, trimmed."""
    assert read_answer("so #### 12 \n#### 13", r"#### *(.+)") == "12"


@pytest.mark.parametrize("text", ["no marker", "####  "])
def test_answer_that_is_not_there_is_none(text: str) -> None:
    """Without a match, or with an empty one, nothing was read."""
    assert read_answer(text, r"####(.*)") is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("####", r"template 'a/b': `answer`: '####' has no group; put the part that is the answer into \(…\)"),
        ("(", r"template 'a/b': `answer`: '\(' is no regular expression: missing \)"),
        ("(a|aa)+$", r"template 'a/b': `answer`: .* takes over 1 s on one text; remove nested repetition"),
    ],
)
def test_pattern_that_cannot_be_used_is_an_error(pattern: str, message: str) -> None:
    """A pattern without a group, not a pattern at all, or one that takes forever names the template."""
    with pytest.raises(TemplateError, match=message):
        read_answer("a" * 60 + "b", pattern, template="a/b")
