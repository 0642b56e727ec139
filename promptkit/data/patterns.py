"""Compile and run the regular expressions that files give, under limits of size, time and memory.

Files are untrusted, and a regular expression of a few characters can fill the memory while it is compiled, or run for
years. Every one that comes from a file passes through `compile_pattern`; what it returns is safe to run on any text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import regex

from promptkit.errors import PatternError

#: The longest pattern, its deepest nesting, and the most parts it may have once its repeats are written out.
MAX_PATTERN, MAX_DEPTH, MAX_PARTS = 10_000, 50, 100_000
#: The longest text that is searched, and how long a search may take, in CPU seconds.
MAX_TEXT, MAX_SECONDS = 1_000_000, 1.0
_REPEAT = regex.compile(r"\{(\d*)(?:,\d*)?\}")
_COMMENT = regex.compile(r"\(\?#[^)]*\)")
_OPENING = regex.compile(r"\((?:\?(?:[:=!>|]|<[=!]|P?<\w+>|\(\w+\)|[aiLmsu]*(?:-[ims]+)?[:)]))?")
_CLASS = regex.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*+\]", regex.S)  # a first `]` is a sign like any other
_OTHER_NAME = regex.compile(r"\(\?P=\w+\)")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Pattern:
    """A regular expression that was checked: its text, the number of its groups, and what it finds.

    Every search raises PatternError for a text beyond `MAX_TEXT` characters, and where it takes longer than
    `MAX_SECONDS` or more memory than there is for it.
    """

    text: str
    groups: int
    _compiled: regex.Pattern[str]

    def search(self, text: str) -> tuple[str | None, ...] | None:
        """Return the first match, whole, and its groups (None for those without a part in it); None without a match."""
        match = self._run(self._compiled.search, text)
        return (match[0], *match.groups()) if match else None

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        return self._run(self._compiled.fullmatch, text) is not None

    def remove(self, text: str) -> str:
        """Return the text without its matches."""

        def substitute(text: str, **limits: float) -> str:
            return self._compiled.sub("", text, **limits)

        return self._run(substitute, text)

    def _run(self, search: Callable[..., _Found], text: str) -> _Found:
        if len(text) > MAX_TEXT:
            raise PatternError(
                f"the pattern {_show(self.text)} is given a text of {len(text):,} characters; "
                f"{MAX_TEXT:,} can be searched"
            )
        try:
            return search(text, timeout=MAX_SECONDS)
        except TimeoutError as error:
            raise PatternError(
                f"the pattern {_show(self.text)} takes over {MAX_SECONDS:g} s on one text; "
                "remove nested repetition such as (a+)+"
            ) from error
        except (MemoryError, RecursionError) as error:
            raise PatternError(
                f"the pattern {_show(self.text)} needs too much memory on one text; "
                "remove nested repetition such as (a+)+"
            ) from error


@lru_cache(maxsize=256)
def compile_pattern(text: str) -> Pattern:
    """Return the pattern of a regular expression.

    The syntax is that of Python's `re`, and of what the `regex` package adds to it, `\\p{L}`, atomic groups and
    possessive repeats. Raises PatternError, without a place (the caller knows it), for one that is not valid or too
    large, and for what is not bounded: verbose mode, POSIX classes, and groups that call themselves.
    """
    _check(text)
    try:
        compiled = regex.compile(text)
    except (regex.error, ValueError, LookupError, OverflowError, TypeError) as error:
        raise PatternError(f"{_show(text)} is no regular expression: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise PatternError(f"the pattern {_show(text)} is too large or nested too deeply; write it flatter") from error
    return Pattern(text, compiled.groups, compiled)


def _show(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}… of {len(text):,} characters"


def _check(text: str) -> None:
    """Raise PatternError for a pattern that would be too large once compiled: repeats are then written out.

    What this reads otherwise than the compiler does must not be allowed, or it would hide a repeat.
    """
    if len(text) > MAX_PATTERN:
        raise PatternError(f"the pattern {_show(text)} is too long; {MAX_PATTERN:,} characters are allowed")
    parts = [[0, 0]]  # of every open group: the parts before its last item, and those of its last item
    at = 0
    while at < len(text):
        sign, found = text[at], None
        if sign == "(":
            if found := _COMMENT.match(text, at) or _OTHER_NAME.match(text, at):
                parts[-1] = [sum(parts[-1]), 1]
            else:
                found = _open(text, at)
                if not found[0].endswith(")") or "?(" in found[0]:
                    parts.append([0, 0])
        elif sign == ")":
            if len(parts) == 1:
                raise PatternError(f"{_show(text)} is no regular expression: unbalanced parenthesis at position {at}")
            inner = sum(parts.pop())
            parts[-1] = [sum(parts[-1]), inner + 1]
        elif sign == "{" and (found := _REPEAT.match(text, at)):
            parts[-1][1] *= max(1, int(found[1][:10] or 0))
        else:
            found = _CLASS.match(text, at) if sign == "[" else None
            if found and "[:" in found[0][1:]:
                raise PatternError(f"the pattern {_show(text)} has a POSIX class; write \\p{{Alpha}} for [[:alpha:]]")
            parts[-1] = [sum(parts[-1]), 1]
        at = found.end() if found else at + (2 if sign == "\\" else 1)
        if len(parts) > MAX_DEPTH:
            raise PatternError(f"the pattern {_show(text)} has groups more than {MAX_DEPTH} deep; write it flatter")
        if sum(map(sum, parts)) > MAX_PARTS:
            raise PatternError(
                f"the pattern {_show(text)} repeats more than {MAX_PARTS:,} parts; lower the numbers in {{…}}"
            )


def _open(text: str, at: int) -> Any:
    found = _OPENING.match(text, at)
    if found is None or (text.startswith("(?", at) and found[0] == "("):
        raise PatternError(
            f"the pattern {_show(text)} has a group that is not allowed, {text[at : at + 6]!r}; plain, named, "
            "non-capturing and atomic groups, lookarounds and the flags a, i, m, s, u are"
        )
    return found
