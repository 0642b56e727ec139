"""Check what a template prints, and give it those of Jinja2's filters and tests whose work can be bounded."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter

from promptkit.templating.limits import (
    MAX_SIZE,
    RenderBudget,
    check_conversions,
    check_filter,
    check_join,
    check_length,
    weigh,
)

Filter = Callable[..., Any]
#: Returns what may be printed, and raises TypeError for anything else.
Shown = Callable[[Any], Any]
_PRINTED = (int, float, Number, jinja2.Undefined)  # what is not defined says so when it becomes text
#: Filters that make a text, or a number, of a text.
_OF_TEXT = (
    *("capitalize", "center", "e", "escape", "float", "forceescape", "format", "indent", "int", "lower", "replace"),
    *("safe", "striptags", "title", "trim", "truncate", "upper", "wordcount", "wordwrap"),
)
#: Filters that go through a list, a mapping or a text; a list, where Jinja2 gives what is used up after its first use.
_OF_LISTS = (
    *("batch", "dictsort", "groupby", "items", "list", "map", "max", "min", "reject", "rejectattr", "reverse"),
    *("select", "selectattr", "slice", "sort", "unique"),
)
_COMPARING = ("dictsort", "groupby", "max", "min", "sort", "unique")
#: Filters whose work does not grow with what they are given.
_SMALL = ("abs", "attr", "count", "d", "default", "filesizeformat", "first", "last", "length", "round")
#: Tests that compare two values, or go through a text.
_COUNTED_TESTS = (
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
    ">",
    "gt",
    "greaterthan",
    ">=",
    "ge",
    "lower",
    "upper",
)


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
        raise TypeError(f"prints a mapping{_show(value)}; print one of its entries, or name that entry in [fields]")
    if isinstance(value, list | tuple):
        raise TypeError(f"prints a list{_show(value)}; print its entries: {{{{ … | join(', ') }}}}, or a loop")
    raise TypeError(f"prints a {type(value).__name__}; text or a number is expected")


def check_python(value: Any) -> Any:
    """Return what a model's chat template prints: none and plain lists and mappings too, as Python writes them."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple):
        if not _is_plain(value):
            raise TypeError("prints a list or mapping of what is no text or number")
        return value
    return check_printed(value)


def _show(value: Any) -> str:
    """Return the beginning of a list or mapping, unless it holds what has no text of its own, or too much."""
    try:
        return f": {value!r:.60}" if _is_plain(value) and weigh(value)[1] < MAX_SIZE else ""
    except (SecurityError, ValueError):
        return ""


def _is_plain(value: Any) -> bool:
    entries, characters, _ = weigh(value)
    check_length(8 * entries + characters)
    found = [value]
    while found:
        item = found.pop()
        if isinstance(item, Mapping):
            found += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            found += item
        elif not (item is None or isinstance(item, str | int | float)):
            return False
    return True


def make_filters(own: Mapping[str, Filter], budget: RenderBudget, shown: Shown) -> dict[str, Filter]:
    """Return all filters that a template has, of Jinja2's `own` and new ones, counted by `budget`.

    `shown` says what may be printed, and so be made text by a filter.
    """
    return {
        **{name: _of_text(name, own[name], budget, shown) for name in _OF_TEXT},
        **{name: _of_lists(name, own[name], budget) for name in _OF_LISTS},
        **{name: _small(name, own[name], budget) for name in _SMALL},
        "string": _make_string(budget, shown),
        "join": _make_join(budget, shown),
        "sum": _make_sum(budget),
        "tojson": _make_json(own["tojson"], budget),
        "urlencode": _make_urlencode(own["urlencode"], budget, shown),
        "either": _make_join_words("or", budget, shown),
        "both": _make_join_words("and", budget, shown),
    }


def make_tests(own: Mapping[str, Filter], budget: RenderBudget) -> dict[str, Filter]:
    """Return the tests that a template has: Jinja2's `own`, counted by `budget`."""

    def count(test: Filter) -> Filter:
        @functools.wraps(test)
        def counted(*args: Any) -> Any:
            budget.search(*args)
            return test(*args)

        return counted

    return {name: count(test) if name in _COUNTED_TESTS else test for name, test in own.items()}


def join_words(words: Iterable[object], conjunction: str) -> str:
    """Return `a`, `a or b`, `a, b or c` for the conjunction `or`."""
    items = [str(word) for word in words]
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def check_formatted(text: str, values: Any, shown: Shown) -> None:
    """Raise TypeError or SecurityError where `text % values` would show what is not printed, or be too long."""
    for value in check_conversions(text, values):
        shown(value)


def _split(function: Filter, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Return what a filter is applied to and its further arguments, without what Jinja2 passes to some before them."""
    given = args[hasattr(function, "jinja_pass_arg") :]
    return (given[0], given[1:]) if given else ("", ())


def _of_text(name: str, function: Filter, budget: RenderBudget, shown: Shown) -> Filter:
    @functools.wraps(function)
    def of_text(*args: Any, **kwargs: Any) -> Any:
        value, given = _split(function, args)
        given = (*given, *kwargs.values())
        shown(value)
        budget.step(1)
        budget.search(value)
        if name == "format":
            check_formatted(str(value), kwargs or args[1:], shown)
        elif name == "replace":
            for each in given[:2]:
                shown(each)
        check_filter(name, value, given)
        made = budget.made(function(*args, **kwargs))
        return str(made) if isinstance(made, str) else made  # `escape` makes a text that would escape what is added

    return of_text


def _of_lists(name: str, function: Filter, budget: RenderBudget) -> Filter:
    @functools.wraps(function)
    def of_lists(*args: Any, **kwargs: Any) -> Any:
        value, given = _split(function, args)
        _check_iterated(value, budget)
        given = (*given, *kwargs.values())
        budget.search(value, *given)
        budget.follow(value, given)
        if name in _COMPARING and isinstance(value, list | tuple | dict):
            check_length(weigh(value)[1])
        check_filter(name, "", given)
        result = function(*args, **kwargs)
        result = list(result) if isinstance(result, Iterator) else result
        if name in ("batch", "groupby", "slice"):
            budget.keep(*result)
        return result if name in ("max", "min") else budget.made(result)

    return of_lists


def _check_iterated(value: Any, budget: RenderBudget) -> None:
    if isinstance(value, str):
        check_length(8 * len(value))
        budget.step(len(value))


def _small(name: str, function: Filter, budget: RenderBudget) -> Filter:
    @functools.wraps(function)
    def small(*args: Any, **kwargs: Any) -> Any:
        budget.step(1)
        if name == "round":
            check_filter(name, "", (*args[1:], *kwargs.values()))
        return function(*args, **kwargs)

    return small


def _make_join(budget: RenderBudget, shown: Shown) -> Filter:
    @jinja2.pass_environment
    def join(environment: jinja2.Environment, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
        _check_iterated(value, budget)
        budget.follow(value, [attribute])
        items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
        shown_items, separator = [shown(item) for item in items], str(shown(d))
        budget.step(len(shown_items))
        check_join(len(separator), shown_items)
        texts = [str(item) for item in shown_items]
        check_join(len(separator), texts)
        made: str = budget.made(separator.join(texts))
        return made

    return join


def _make_string(budget: RenderBudget, shown: Shown) -> Filter:
    def string(value: Any) -> str:
        if isinstance(value, int):
            budget.number(value)
        return str(shown(value))

    return string


def _make_join_words(conjunction: str, budget: RenderBudget, shown: Shown) -> Filter:
    def join_all(words: Any) -> str:
        _check_iterated(words, budget)
        items = [shown(word) for word in words]
        budget.step(len(items))
        check_join(len(conjunction), items)
        made: str = budget.made(join_words(items, conjunction))
        return made

    return join_all


def _make_sum(budget: RenderBudget) -> Filter:
    @jinja2.pass_environment
    def add(environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        _check_iterated(iterable, budget)
        budget.follow(iterable, [attribute])
        total = start
        for item in iterable if attribute is None else map(make_attrgetter(environment, attribute), iterable):
            budget.step(1)
            total = environment.call_binop(None, "+", total, item)
        return total

    return add


def _make_json(function: Filter, budget: RenderBudget) -> Filter:
    """Return `tojson`: Jinja2's own, or transformers' for chat templates where `function` is `json.dumps`."""

    def check(value: Any, indent: Any) -> None:
        entries, characters, depth = weigh(value)
        budget.step(entries)
        width = len(indent) if isinstance(indent, str) else indent if isinstance(indent, int) else 0
        check_length(6 * characters + (entries + 1) * (16 + width * (depth + 1)))

    if function is not json.dumps:

        @jinja2.pass_eval_context
        def html_json(context: Any, value: Any, indent: int | None = None) -> str:
            check(value, indent)
            return str(budget.made(function(context, value, indent)))

        return html_json

    def plain_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        check(value, indent)
        if separators is not None:
            check_length(sum(map(len, separators)) * (weigh(value)[0] + 1))
        made = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        budget.made(made)
        return made

    return plain_json


def _make_urlencode(function: Filter, budget: RenderBudget, shown: Shown) -> Filter:
    def urlencode(value: Any) -> str:
        items: Sequence[Any] = ()
        if isinstance(value, Mapping):
            items = [*value, *value.values()]
        elif isinstance(value, list | tuple):
            items = [each for pair in value for each in (pair if isinstance(pair, list | tuple) else [pair])]
        else:
            shown(value)
        check_filter("urlencode", "".join(str(shown(item)) for item in items), ())
        check_filter("urlencode", value, ())
        made: str = budget.made(function(value))
        return made

    return urlencode
