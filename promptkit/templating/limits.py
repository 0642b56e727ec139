"""Count what one rendering builds and does, and refuse what would be too much before it is built."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2.exceptions import SecurityError

#: The longest string or list a template may build by repetition, and the widest field it may pad.
MAX_REPEAT = 100_000
#: The longest text or list a template may build in any way, and what it may build in all for one text.
MAX_SIZE, MAX_BUILT = 10_000_000, 40_000_000
#: The parts of a file: compiling so many takes seconds.
MAX_TOKENS = 50_000
#: The bits of a number.
MAX_BITS = 20_000
#: What one rendering may do, in parts of the template that are gone through, and in CPU seconds.
MAX_STEPS, MAX_SECONDS = 10_000_000, 5.0
#: The entries of nested lists and mappings that are compared, sorted or searched, and how deep they are.
MAX_ENTRIES, MAX_DEPTH = 1_000_000, 100
#: The longest text for filters that go through it slowly.
MAX_SLOW = 200_000

_READ = 100  # characters of a text that are gone through in the time of a step
_PATH = re.compile("[.,]")  # between the attributes that a filter follows from each entry
_ENTRY = 8  # characters whose memory a new entry of a list takes
_WATCHED = 100_000  # steps between two looks at the clock
_FIRST_LOOK = MAX_STEPS - _WATCHED
_SIZED = (str, bytes, list, tuple)  # a union of types, made anew for every row, takes as long as the row
_CONTAINERS = (list, tuple, dict)
_CONVERSION = re.compile(r"%(?:\(([^)]*)\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?[hlL]?(.)?", re.S)
_SHORT = 10**18


class RenderBudget:
    """What one rendering may still build and do; `start` begins the next one."""

    __slots__ = ("began", "built", "steps", "watch")
    began: float | None

    def __init__(self) -> None:
        self.watch, self.began = _FIRST_LOOK, None
        self.start()

    def start(self) -> None:
        """Begin another rendering, with everything still to be spent."""
        self.built, self.steps = MAX_BUILT, MAX_STEPS
        if self.began is not None:
            self.watch, self.began = _FIRST_LOOK, None

    def build(self, size: int) -> None:
        """Count characters that are, or are about to be, built; raises SecurityError where they are too many."""
        self.built -= size
        if self.built < 0:
            raise SecurityError(f"more than {MAX_BUILT} characters or items are not allowed for one text")

    def step(self, number: int) -> None:
        """Count steps; raises SecurityError where they are too many, or take too long."""
        self.steps -= number
        if self.steps < self.watch:
            self._look()

    def _look(self) -> None:
        if self.steps < 0:
            raise SecurityError(f"more than {MAX_STEPS} steps are not allowed for one text: loops within loops")
        self.watch, now = self.steps - _WATCHED, time.thread_time()
        if self.began is None:
            self.began = now
        elif now - self.began > MAX_SECONDS:
            raise SecurityError(f"more than {MAX_SECONDS:g} seconds are not allowed for one text")

    def made(self, value: Any) -> Any:
        """Count a value that was built, and return it; raises SecurityError where it is too large."""
        check_size(value)
        if isinstance(value, str):
            self.build(len(value))
        elif isinstance(value, _CONTAINERS):
            self.build(_ENTRY * len(value))
        return value

    def number(self, value: int) -> None:
        """Count the digits of a number that becomes text, where they are many."""
        if not -_SHORT < value < _SHORT:
            self.build(value.bit_length() // 3)

    def search(self, *values: Any) -> None:
        """Count the entries of lists and mappings, and the characters, that are about to be compared or searched."""
        for value in values:
            if isinstance(value, _CONTAINERS):
                entries, characters, _ = weigh(value)
                self.step(entries + characters // _READ)
            elif isinstance(value, str):
                self.step(len(value) // _READ)

    def keep(self, *values: Any) -> None:
        """Count the entries of lists and mappings of which a copy is kept."""
        self.build(_ENTRY * sum(len(value) for value in values if isinstance(value, _CONTAINERS)))

    def follow(self, value: Any, paths: Iterable[Any]) -> None:
        """Count the attributes, such as `name.first`, that are about to be followed from each entry of a value."""
        parts = sum(len(_PATH.findall(path)) for path in paths if isinstance(path, str))
        if parts:
            self.step(parts * (len(value) if hasattr(value, "__len__") else 1))


def check_size(value: Any) -> Any:
    """Return `value`; raises SecurityError for a text, list or number beyond the limits."""
    if isinstance(value, _SIZED):
        check_length(len(value))
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise SecurityError(f"numbers beyond {MAX_BITS} bits are not allowed")
    return value


def weigh(value: Any) -> tuple[int, int, int]:
    """Return how many entries a value has, within all of its lists and mappings, their characters and their depth.

    What is in several places counts in each of them. Raises SecurityError where there are more than is allowed.
    """
    entries = characters = depth = 0
    found = [(value, 0)]
    while found:
        item, level = found.pop()
        depth = max(depth, level)
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, Mapping | list | tuple):
            entries += len(item)
            if entries > MAX_ENTRIES or level > MAX_DEPTH:
                raise SecurityError(f"lists beyond {MAX_ENTRIES} entries, or {MAX_DEPTH} deep, are not allowed here")
            if isinstance(item, Mapping):
                found += [(key, level + 1) for key in item]
            found += [(each, level + 1) for each in (item.values() if isinstance(item, Mapping) else item)]
    return entries, characters, depth


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Raise SecurityError where `left operator right` would be too large to be built."""
    if operator == "*":
        sizes = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        counts = [side for side in (left, right) if isinstance(side, int)]
        if sizes and counts and sizes[0] * counts[0] > MAX_REPEAT:
            raise SecurityError(f"repetition beyond {MAX_REPEAT} items is not allowed")
    elif operator == "+":
        if isinstance(left, _SIZED) and isinstance(right, _SIZED):
            check_length(len(left) + len(right))
    elif operator == "**" and not (isinstance(right, int | float) and abs(right) <= 64):
        raise SecurityError("powers beyond 64 are not allowed")


def check_conversions(text: str, values: Any) -> list[Any]:
    """Return those of `values` that `text % values` shows.

    Raises SecurityError where the text would be too long, also by a width among the values, and ValueError for a
    conversion to a character that is no character.
    """
    given = iter(values if isinstance(values, tuple) else (values,))
    shown: list[Any] = []
    length = len(text)
    for name, *widths, kind in _CONVERSION.findall(text):
        numbers = [next(given, 0) if width == "*" else int((width or "0")[:9]) for width in widths]
        _check_widths(numbers)
        length += sum(number for number in numbers if isinstance(number, int))
        if kind and kind != "%":
            value = values.get(name) if name and isinstance(values, Mapping) else next(given, "")
            shown.append(value)
            length += len(value) if isinstance(value, str) else 0
            if kind == "c":
                _check_character(value)
        check_length(length)
    return shown


def check_specification(value: Any, text: str) -> None:
    """Raise SecurityError where the specification of a `format` field (`>10.3f`) pads it beyond the limit."""
    _check_widths(int(width[:9]) for width in re.findall(r"\d+", text))
    if text.endswith("c"):
        _check_character(value)


def _check_character(value: Any) -> None:
    if isinstance(value, int) and 0xD800 <= value < 0xE000:
        raise ValueError(f"the number {value} is a surrogate, no character")


def check_method(owner: Any, name: str, given: Sequence[Any]) -> None:
    """Raise SecurityError where a method of a text would make too long a text, or a list, of what it is given."""
    if not isinstance(owner, str):
        return
    if name == "join" and given and hasattr(given[0], "__len__"):
        check_join(len(owner), given[0])
    elif name == "replace":
        check_replace(owner, given)
    elif name == "expandtabs":
        size = given[0] if given and isinstance(given[0], int) else 8
        check_length(len(owner) + owner.count("\t") * min(size, MAX_SIZE))
    check_length(len(owner))
    _check_widths(given)


def check_filter(name: str, value: Any, given: Sequence[Any]) -> None:
    """Raise SecurityError where a filter would make too long a text of what it is given."""
    if name == "format":
        return  # its conversions are checked where they are shown
    _check_widths(given)
    text = value if isinstance(value, str) else ""
    check_length(len(text))
    if name == "replace":
        check_replace(text, given)
    elif name in ("title", "wordcount"):
        check_length(_ENTRY * len(text))  # they make a list of its words
    elif name == "indent" and given:
        width = given[0] if isinstance(given[0], int) else len(str(given[0]))
        check_length(len(text) + (text.count("\n") + 1) * width)
    elif name in ("striptags", "urlencode", "wordwrap") and len(text) > MAX_SLOW:
        raise SecurityError(f"texts beyond {MAX_SLOW} characters are not allowed in {name!r}")
    elif name == "wordwrap":
        check_length(len(text) * (1 + max((len(each) for each in given if isinstance(each, str)), default=0)))


def check_join(separator: int, items: Iterable[Any]) -> None:
    """Raise SecurityError where items, with a separator of so many characters between them, are too long a text."""
    check_length(sum(separator + len(item) for item in items if isinstance(item, str | bytes)))


def check_replace(text: str, given: Sequence[Any]) -> None:
    """Raise SecurityError where what is put in the place of parts of a text makes it too long."""
    if len(given) > 1 and isinstance(given[0], str) and isinstance(given[1], str):
        check_length(len(text) + text.count(given[0]) * len(given[1]))


def check_length(length: int) -> None:
    """Raise SecurityError for so many characters or items, where they are too many."""
    if length > MAX_SIZE:
        raise SecurityError(f"more than {MAX_SIZE} characters or items are not allowed")


def _check_widths(widths: Iterable[Any]) -> None:
    if any(isinstance(width, int) and width > MAX_REPEAT for width in widths):
        raise SecurityError(f"widths beyond {MAX_REPEAT} are not allowed")
