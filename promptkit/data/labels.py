"""Decide how a label column is read, once for the whole of it: by names, by indices from 0 or from 1, or by letters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from promptkit.errors import DataError, PromptkitWarning, RecordError, nearest

Reading = Literal["names", "index0", "index1", "letters"]
#: What each reading takes a label for.
READINGS: Mapping[Reading, str] = {
    "names": "by its name",
    "index0": "counted from 0",
    "index1": "counted from 1",
    "letters": "as a letter",
}
#: All labels of a source, each with the names it is one of.
Column = Callable[[], Iterable[tuple[Any, Sequence[str]]]]
#: So many indices of which none is 0 are more than chance: they may count from 1, and lack the last label.
_MANY = 20
#: So many are enough to say it.
_FEW = 5
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_ID = re.compile(r"-1|[0-9]{1,9}")
_LETTER = re.compile(r"[A-Za-z]")
_TRUTHS = {"true": True, "false": False}


class LabelColumn:
    """A source's labels on their way to indices.

    `setting` is the task's `labels_are`, and decides. Without it every kind of value (numbers, letters, other texts) is
    read in the same way all through the `column`, which is looked at when its first number or letter is met: a number
    is a name where names are numbers, else it counts from 0 or from 1; a letter, beside `choices`, is a choice's place
    or its text. What the column leaves open is a DataError that names both readings.
    """

    def __init__(self, labels: Sequence[str] | None, setting: Reading | None, column: Column) -> None:
        self.labels, self.setting, self._column = labels, setting, column
        self._truths = find_truths(labels or ())
        self._chosen: dict[str, Reading | _Open] = {}  # by kind of value

    def read(self, value: Any, names: Sequence[str]) -> int:
        """Return which of `names` a label is.

        Raises RecordError for a label that is none of them, and DataError where it may be several.
        """
        truth = _TRUTHS.get(str(value).casefold())  # as a CSV file writes it, too
        if truth is not None and self.setting in (None, "names") and truth in self._truths:
            return self._truths[truth]
        reading = self.setting or self._choose(value)
        if truth is not None and (self.setting == "index0" or self._counts_truths(value, names)):
            reading, value = "index0", int(truth)  # false is the first
        place = _find(reading, value, names)
        if place is None:
            raise self._refuse(value, names, reading)
        return place

    def _counts_truths(self, value: Any, names: Sequence[str]) -> bool:
        """Whether true and false stand for two labels that are not called so."""
        unnamed = self.setting is None and _find("names", value, names) is None
        return unnamed and len(names) == 2 and (self.labels is not None or isinstance(value, bool))

    def _choose(self, value: Any) -> Reading:
        """Return how values of this kind are read in the whole column; raises DataError where that is open."""
        kind = _kind(value)
        if kind == "name" or (self.labels and (kind == "letter" or name_numbers(self.labels))):
            return "names"
        if kind not in self._chosen:
            same = ((each, names) for each, names in self._column() if _kind(each) == kind)
            self._chosen[kind] = self._decide_fixed(same) if self.labels else _decide_choices(same, kind)
        chosen = self._chosen[kind]
        if not isinstance(chosen, _Open):
            return chosen
        if self.labels and _find("index0", value, self.labels) is None:
            return "index0"  # no label, whichever it is
        raise DataError(chosen.reason)

    def _decide_fixed(self, numbers: Iterable[tuple[Any, Sequence[str]]]) -> Reading | _Open:
        """Return whether ids count from 0 or from 1; what is open where they do not tell."""
        labels = self.labels or ()
        seen: set[int] = set()
        count = 0
        for value, _ in numbers:
            number = _as_number(value)
            if number == 0:
                return "index0"
            if number is not None and number in range(1, len(labels) + 1):
                seen.add(int(number))
                count += 1
                if len(seen) == len(labels):
                    return "index1"
        if seen <= {1} and len(labels) == 2 and count < _MANY:  # 0 and 1 are what two labels are numbered by
            if count >= _FEW:
                _warn_of_reading("every label is 1", labels[1], labels[0])
            return "index0"
        first = min(seen, default=1)
        return _tell_open(
            first,
            {"index0": labels[first] if first < len(labels) else "", "index1": labels[first - 1]},
            f"the data have no label 0, and not every one of 1 to {len(labels)}",
        )

    def _refuse(self, value: Any, names: Sequence[str], reading: Reading) -> RecordError:
        shown, allowed = f"{value!r:.80}", ", ".join(map(repr, names))
        if self.setting:
            return RecordError(f"label {shown} is not one of {allowed}, {READINGS[reading]} ({_write(reading)})")
        first = 1 if reading == "index1" else 0
        numbered = "" if name_numbers(names) else f" (or their numbers {first} to {len(names) - 1 + first})"
        others = [each for each in READINGS if _find(each, value, names) is not None]
        hint = (
            f" If it is one of them {READINGS[others[0]]}, say {_write(others[0])} in the task file." if others else ""
        )
        return RecordError(f"label {shown} is not one of {allowed}{numbered}.{nearest(str(value), names)}{hint}")


@dataclass(frozen=True)
class _Open:
    """Why a column does not tell how it is read."""

    reason: str


def _decide_choices(values: Iterable[tuple[Any, Sequence[str]]], kind: str) -> Reading | _Open:
    """Return the reading that every value of a kind allows, with each record's own choices; what is open for several.

    Indices count from 0 where nothing speaks against it: that is how choices are numbered.
    """
    open_: tuple[Reading, ...] = ("index0", "names", "index1") if kind == "number" else ("letters", "names")
    apart: dict[frozenset[Reading], tuple[Any, dict[Reading, str]]] = {}
    count, most = 0, 0
    for value, names in values:
        places = {reading: _find(reading, value, names) for reading in open_}
        left = tuple(reading for reading in open_ if places[reading] is not None)
        if not left:
            continue  # no reading fits: whoever reads the record says so
        count, most = count + 1, max(most, len(names))
        open_ = left
        if len(open_) == 1:
            return open_[0]
        for one, other in _pairs(open_):
            if places[one] != places[other]:
                found = {each: names[place] for each, place in places.items() if place is not None}
                apart.setdefault(frozenset((one, other)), (value, found))
    if "index0" in open_ and (count < _MANY or most == 2):
        if count >= _FEW and "index1" in open_ and (differ := apart.get(frozenset(("index0", "index1")))):
            _warn_of_reading(f"no label is 0; one is {differ[0]!r:.80}", differ[1]["index0"], differ[1]["index1"])
        open_ = tuple(reading for reading in open_ if reading != "index1")
    for pair in _pairs(open_):
        if frozenset(pair) in apart:
            value, found = apart[frozenset(pair)]
            return _tell_open(value, {each: found[each] for each in pair}, "every label of the data allows both")
    return open_[0]


def _pairs(readings: Sequence[Reading]) -> list[tuple[Reading, Reading]]:
    return [(one, other) for at, one in enumerate(readings) for other in readings[at + 1 :]]


def _warn_of_reading(found: str, from_0: str, from_1: str) -> None:
    """Warn that few labels were read as counting from 0, which they do not show."""
    warnings.warn(
        f"{found}, read as {from_0!r:.80} counted from 0; if it is {from_1!r:.80}, counted from 1, say "
        f"{_write('index1')} in the task file, or --labels-are index1",
        PromptkitWarning,
        stacklevel=2,
    )


def _tell_open(value: Any, found: Mapping[Reading, str], why: str) -> _Open:
    ways = " or ".join(
        f"{name!r} {READINGS[each]}" if name else f"one {READINGS[each]}" for each, name in found.items()
    )
    fix = " or ".join(map(_write, found))
    return _Open(
        f"label {value!r:.80} may be {ways}: {why}; say which with {fix} in the task file, or with --labels-are"
    )


def _write(reading: Reading) -> str:
    return f'labels_are = "{reading}"'


def _kind(value: Any) -> str:
    number = _as_number(value)
    if number is not None and float(number).is_integer():
        return "number"
    return "letter" if isinstance(value, str) and _LETTER.fullmatch(value) and value.isupper() else "name"


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _find(reading: Reading, value: Any, names: Sequence[str]) -> int | None:
    """Return the index that a value means in one reading; None where it means none."""
    if reading == "names":
        return _find_name(value, names)
    if reading == "letters":
        place = ord(value.upper()) - ord("A") if isinstance(value, str) and _LETTER.fullmatch(value) else -1
    else:
        number = _as_number(value)
        whole = number is not None and number in range(len(names) + 1)  # 1.0 is in it, 1.5 is not
        place = int(number or 0) - (reading == "index1") if whole else -1
    return place if 0 <= place < len(names) else None


def _find_name(value: Any, names: Sequence[str]) -> int | None:
    if isinstance(value, str) and value in names:
        return names.index(value)
    if isinstance(value, bool):
        alike = [place for place, name in enumerate(names) if name.casefold() == str(value).casefold()]
        return alike[0] if len(alike) == 1 else None
    number = _as_number(value)
    if number is None:
        return None
    return next((place for place, name in enumerate(names) if _as_number(name) == number), None)


def name_numbers(names: Sequence[str]) -> bool:
    """Whether a name is a whole number itself: stars from 1 to 5, or -1 and 1."""
    return any(_kind(name) == "number" for name in names)


def find_truths(labels: Sequence[str]) -> dict[bool, int]:
    """Return which of two labels true and false are, where their names say so; nothing where they do not."""
    names = [label.casefold() for label in labels]
    said = next((words for words in (("false", "true"), ("no", "yes")) if sorted(names) == list(words)), ())
    return {bool(truth): names.index(word) for truth, word in enumerate(said)}


def match_class_name(value: Any, own: Sequence[str], labels: Sequence[str] | None) -> Any:
    """Return the name that a data set's own list gives a label id, spelt as the task spells it; None for no label.

    What is no id stays as it is, and -1 is how `datasets` writes that there is no label. Raises DataError for a name
    that is none of the task's labels.
    """
    if isinstance(value, str) and _ID.fullmatch(value) and value not in own:  # as a CSV file writes it
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if value == -1:
        return None
    if not 0 <= value < len(own):
        raise RecordError(f"label {value!r} is not one of the {len(own)} that the data name: {', '.join(own)}")
    name = own[value]
    if labels is None or name in labels:
        return name
    alike = [label for label in labels if label.casefold() == name.casefold()]
    if len(alike) != 1:
        raise DataError(
            f"label {value} is called {name!r} by the data, whose labels are {', '.join(map(repr, own))}, and the "
            f"task's are {', '.join(map(repr, labels))}; rename the task's, or, where the ids mean these in their "
            f"order, say {_write('index0')} in the task file, or --labels-are index0"
        )
    return alike[0]
