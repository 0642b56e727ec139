"""What a template may print, and the filters that differ from Jinja2's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Number
from typing import Any

import jinja2
from jinja2.filters import make_attrgetter

from promptkit.limits import GROWING, check_filter, check_join, check_size

Filter = Callable[..., Any]
_PRINTED = (int, float, Number, jinja2.Undefined)  # what is not defined says so when it becomes text
#: Filters of Jinja2 whose result would be used up after its first use, and be empty for the next record.
_LAZY = ("batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique")


def check_printed(value: Any) -> Any:
    """Return what a template prints; raises TypeError for what has no text of its own but Python's notation."""
    if isinstance(value, str):
        return value
    if isinstance(value, _PRINTED):
        return value
    if value is None:
        raise TypeError("prints none, such as a null of the data; put `{% if … is not none %}` around it")
    if callable(value):
        name = getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)
        raise TypeError(f"prints the function {name!r} itself; call it: {{{{ {name}(…) }}}}")
    if isinstance(value, Mapping):
        raise TypeError(f"prints a mapping: {value!r:.60}; print one of its entries, or name that entry in [fields]")
    if isinstance(value, list | tuple):
        raise TypeError(f"prints a list: {value!r:.60}; print its entries: {{{{ … | join(', ') }}}}, or a loop")
    raise TypeError(
        f"prints a {type(value).__name__}; text or a number is expected: {{{{ … | string }}}} makes it text"
    )


def make_filters(own: Mapping[str, Filter]) -> dict[str, Filter]:
    """Return the filters that are new, or take the place of one of Jinja2's `own`."""
    filters = {name: _limit(name, own[name]) for name in GROWING}
    filters |= {name: _list(filters.get(name, own[name])) for name in _LAZY}
    return {
        **filters,
        "join": _join,
        "either": lambda words: join_words(map(check_printed, words), "or"),
        "both": lambda words: join_words(map(check_printed, words), "and"),
    }


def join_words(words: Iterable[object], conjunction: str) -> str:
    """Return `a`, `a or b`, `a, b or c` for the conjunction `or`."""
    items = [str(word) for word in words]
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def _limit(name: str, function: Filter) -> Filter:
    passed = hasattr(function, "jinja_pass_arg")  # then the first argument is Jinja2's, not the template's

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        check_filter(name, (*args[passed:], *kwargs.values()))
        return check_size(function(*args, **kwargs))

    return limited


def _list(function: Filter) -> Filter:
    @functools.wraps(function)
    def listed(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return list(result) if isinstance(result, Iterator) else result

    return listed


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    texts, separator = [str(check_printed(item)) for item in items], str(check_printed(d))
    check_join(len(separator), texts)
    return separator.join(texts)
