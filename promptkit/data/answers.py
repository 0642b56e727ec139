"""Read the answer in a generated text, and compare it with the gold answer."""

from __future__ import annotations

from promptkit.data.answer_rules import check_rule, parse_number, read_rule
from promptkit.errors import PatternError, TemplateError


def read_answer(text: str, rule: str, *, template: str = "") -> str | None:
    """Return what a rule, or a regular expression, reads in `text`, trimmed; None where it reads nothing.

    Raises TemplateError for what is no rule and no pattern with a group, and for one that exceeds the limits.
    """
    where = f"template {template!r}" if template else "the template"
    try:
        check_rule(rule)
        return read_rule(text, rule)
    except PatternError as error:
        raise TemplateError(f"{where}: `answer`: {error}") from error


def same_answer(read: str | None, gold: str) -> bool:
    """Whether a free-text answer is the right one: equal as numbers, else as trimmed text.

    How a number is written does not count: "$29.00" is "29", "1,000" is "1000", ".5" is "1/2", and "50%" is "50".
    An answer that could not be read (None) is never right.
    """
    if read is None:
        return False
    numbers = parse_number(read), parse_number(gold)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return read.strip() == gold.strip()
