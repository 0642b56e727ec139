"""What a model wrote into the answer it gave, and whether that is the right one."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import regex

from promptkit.errors import PatternError, TemplateError
from promptkit.patterns import compile_pattern

_NUMBER = regex.compile(r"[$€£]?([-+]?)[$€£]?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)[.%]?")


def read_answer(text: str, pattern: str, *, template: str = "") -> str | None:
    """Return group 1 of the first match of `pattern` in `text`, trimmed; None where it is not there.

    Raises TemplateError for a pattern that is not one, has no group, or cannot be run within the limits.
    """
    where = f"template {template!r}" if template else "the template"
    try:
        compiled = compile_pattern(pattern)
        if compiled.groups < 1:
            raise TemplateError(f"{where}: the answer pattern {pattern!r} has no group: put the answer in (...)")
        match = compiled.search(text)
    except PatternError as error:
        raise TemplateError(f"{where}: `answer`: {error}") from error
    answer = match[1] if match else None
    return answer.strip() if answer and answer.strip() else None


def same_answer(read: str | None, gold: str) -> bool:
    """Whether a free-text answer is the right one: equal as numbers, else as trimmed text.

    Currency signs, thousands separators, a trailing period or percent sign do not count: "$29.00" is "29" and
    "1,000" is "1000". An answer that could not be read (None) is never right.
    """
    if read is None:
        return False
    numbers = _read_number(read), _read_number(gold)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return read.strip() == gold.strip()


def _read_number(text: str) -> Decimal | None:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return Decimal(match[1] + match[2].replace(",", ""))
    except InvalidOperation:  # digits of another script
        return None
