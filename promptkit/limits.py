"""How much a template may build: refused before it is built where that can be told, else right after."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import BuiltinMethodType
from typing import Any

from jinja2.exceptions import SecurityError

#: The longest string or list a template may build by repetition, the widest field it may pad, and the bits of a number.
MAX_REPEAT = 100_000
#: The longest text or list a template may build in any way.
MAX_SIZE = 10_000_000
#: The filters whose result can be longer than what they are given, beyond a small factor.
GROWING = ("batch", "center", "format", "indent", "replace", "round", "slice", "tojson", "wordwrap")

_SIZED = (str, bytes, list, tuple)  # a union of types, made anew for every row, takes as long as the row
_CONVERSION = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")


def check_size(value: Any) -> Any:
    """Return `value`; raises SecurityError for a text, list or number beyond the limits."""
    if isinstance(value, _SIZED):
        if len(value) > MAX_SIZE:
            _check_length(len(value))
    elif isinstance(value, int) and value.bit_length() > MAX_REPEAT:
        raise SecurityError(f"numbers beyond {MAX_REPEAT} bits are not allowed")
    return value


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Raise SecurityError where `left operator right` would be too large to be built."""
    if operator == "*":
        sizes = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        counts = [side for side in (left, right) if isinstance(side, int)]
        if sizes and counts and sizes[0] * counts[0] > MAX_REPEAT:
            raise SecurityError(f"repetition beyond {MAX_REPEAT} items is not allowed")
    elif operator == "**":
        if not (isinstance(right, int | float) and abs(right) <= 64):
            raise SecurityError("powers beyond 64 are not allowed")
    elif operator == "%" and isinstance(left, str | bytes):
        check_conversions(left if isinstance(left, str) else left.decode("latin-1"), right)


def check_conversions(text: str, values: Any) -> None:
    """Raise SecurityError where `text % values` pads a field beyond the limit, also by a width among the values."""
    for widths in _CONVERSION.findall(text):
        for width in widths:
            _check_widths((values if isinstance(values, tuple) else (values,)) if width == "*" else [int(width or 0)])


def check_specification(text: str) -> None:
    """Raise SecurityError where the specification of a `format` field (`>10.3f`) pads it beyond the limit."""
    _check_widths(int(width) for width in re.findall(r"\d+", text))


def check_method(method: BuiltinMethodType, given: Sequence[Any]) -> None:
    """Raise SecurityError where a method of a text or a number would make too long a text of what it is given."""
    owner, name = method.__self__, method.__name__
    if not isinstance(owner, str | bytes | int):
        return
    if name == "join" and given and hasattr(given[0], "__len__"):
        check_join(len(owner), given[0])  # type: ignore[arg-type]
    elif name == "replace":
        _check_replace(owner, given)
    _check_widths(given)


def check_filter(name: str, given: Sequence[Any]) -> None:
    """Raise SecurityError where a filter of `GROWING` would make too long a text of what it is given."""
    value, arguments = (given[0], given[1:]) if given else ("", ())
    if name == "format":
        check_conversions(str(value), tuple(arguments))
        return
    _check_widths(arguments)
    if name == "replace":
        _check_replace(str(value), arguments)
    elif name == "indent" and arguments:
        width = arguments[0] if isinstance(arguments[0], int) else len(str(arguments[0]))
        _check_length(len(str(value).splitlines()) * width)


def check_join(separator: int, items: Iterable[Any]) -> None:
    """Raise SecurityError where items, with a separator of so many characters between them, are too long a text."""
    _check_length(sum(separator + len(item) for item in items if isinstance(item, str | bytes)))


def _check_replace(text: Any, given: Sequence[Any]) -> None:
    if len(given) > 1 and isinstance(given[0], type(text)) and isinstance(given[1], type(text)):
        _check_length(len(text) + text.count(given[0]) * len(given[1]))


def _check_widths(widths: Iterable[Any]) -> None:
    if any(isinstance(width, int) and width > MAX_REPEAT for width in widths):
        raise SecurityError(f"widths beyond {MAX_REPEAT} are not allowed")


def _check_length(length: int) -> None:
    if length > MAX_SIZE:
        raise SecurityError(f"more than {MAX_SIZE} characters or items are not allowed")
