"""Run untrusted Jinja2 so that everything it builds, calls and goes through is allowed and counted.

What a template may call is a list of what is allowed, not of what is forbidden: methods of plain values, macros, and
the functions that the environment gives it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinMethodType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.exceptions import SecurityError
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner

from promptkit.templating.limits import (
    MAX_BUILT,
    MAX_REPEAT,
    MAX_SIZE,
    MAX_TOKENS,
    RenderBudget,
    check_length,
    check_method,
    check_operands,
    check_specification,
)
from promptkit.templating.printing import Shown, check_formatted, make_filters, make_tests

#: Changes a file's syntax tree before it is compiled; is given the tree and the file's path.
Rewrite = Callable[[nodes.Template, str], None]
#: The methods that templates may call, by the kind of value: none of them changes it, or looks into Python.
_METHODS: tuple[tuple[type | tuple[type, ...], frozenset[str]], ...] = (
    (
        str,
        frozenset(
            [
                *("capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format"),
                *("format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier"),
                *("islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower"),
                *("lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust"),
                *("rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase"),
                *("title", "upper", "zfill"),
            ]
        ),
    ),
    (dict, frozenset(["copy", "get", "items", "keys", "values"])),
    ((list, tuple, range), frozenset(["copy", "count", "index"])),
    ((int, float), frozenset(["is_integer"])),
    (
        (datetime.date, datetime.time, datetime.timedelta),
        frozenset(["date", "isoformat", "isoweekday", "strftime", "time", "timestamp", "total_seconds", "weekday"]),
    ),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLOSE = MAX_BUILT - MAX_SIZE
_CALL = 20  # steps of a call whose own are not counted
_FEW = 1000  # steps of a loop that is not interrupted


class _Compiler(CodeGenerator):
    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write(f"environment.{node.node.name}(")
        for argument in node.args:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")

    @optimizeconst
    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.cut(")
        self.visit(node.node, frame)
        self.write("[")
        self.visit(node.arg, frame)
        self.write("])")


class _Formatter(SandboxedFormatter):
    def __init__(self, environment: Sandbox) -> None:
        super().__init__(environment)
        self._budget, self._shown = environment.budget, environment.shown

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return super().convert_field(self._shown(value), conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        check_specification(value, format_spec)
        text: str = super().format_field(self._shown(value), format_spec)
        self._budget.build(len(text))
        return text


class _Format:
    """The method `format` of a text, or `format_map`."""

    def __init__(self, environment: Sandbox, text: str, name: str) -> None:
        self._formatter, self._text, self.name = _Formatter(environment), text, name

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        if self.name == "format_map":
            (values,) = args
            return self._formatter.vformat(self._text, (), values)
        return self._formatter.vformat(self._text, args, kwargs)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment with a budget; whoever renders calls `budget.start()` first.

    `shown` returns what may be printed, and raises TypeError for what may not. `json` takes the place of what
    the filter `tojson` calls.
    """

    code_generator_class = _Compiler
    intercepted_binops = frozenset(["+", "*", "**", "%"])
    rewrite: Rewrite | None = None

    def __init__(self, shown: Shown, *, json: Callable[..., str] | None = None, **settings: Any) -> None:
        self.budget, self.shown = RenderBudget(), shown
        super().__init__(finalize=_make_finalize(self.budget, shown), **settings)
        vars(self)["concat"] = _make_concat(self.budget)
        del self.globals["lipsum"]
        own: dict[str, Any] = {**self.filters, **({"tojson": json} if json else {})}
        self.filters: Any = make_filters(own, self.budget, shown)
        self.tests: Any = make_tests(dict[str, Any](self.tests), self.budget)

    def join_parts(self, *parts: Any) -> str:
        """Return what `~` puts together."""
        assert self.finalize is not None
        return self.concat([str(self.finalize(part)) for part in parts])

    def iterate(self, values: Any, weight: int) -> Any:
        """Return what a loop goes through, whose body has so many parts: counted at once, or one by one."""
        try:
            steps = len(values) * weight
        except TypeError:
            steps = _FEW
        if steps < _FEW:
            self.budget.step(steps)
            return values
        return self._count(iter(values), weight)

    def _count(self, values: Iterator[Any], weight: int) -> Iterator[Any]:
        for value in values:
            self.budget.step(weight)
            yield value

    def comparable(self, value: Any) -> Any:
        """Return what is compared, or a key; lists within lists may take forever."""
        self.budget.search(value)
        return value

    def cut(self, value: Any) -> Any:
        """Return a slice."""
        return self.budget.made(value)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an entry."""
        self.budget.search(argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator."""
        if operator == "%" and isinstance(left, str):
            self.budget.search(left)
            check_formatted(left, right, self.shown)
        check_operands(operator, left, right)
        result = self.binop_table[operator](left, right)
        if isinstance(result, list | tuple):
            check_length(len(result))
            self.budget.build(len(result))
            return result
        return self.budget.made(result)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return what a function gives that a template may call."""
        if isinstance(function, Macro):
            self.budget.step(len(function._func.__code__.co_code))
            self.budget.keep(args, kwargs)
            return super().call(context, function, *args, **kwargs)
        self.budget.step(_CALL)
        if isinstance(function, BuiltinMethodType):
            return self._call_method(context, function, args, kwargs)
        if isinstance(function, LoopContext):
            args = tuple(self.iterate(each, _CALL) for each in args)
        elif not self._is_callable(function):
            raise SecurityError(f"a value of the type {type(function).__name__} cannot be called")
        self.budget.search(*args)
        self.budget.keep(args, kwargs, *args)
        return self.budget.made(super().call(context, function, *args, **kwargs))

    def _call_method(self, context: Any, method: BuiltinMethodType, args: Any, kwargs: Any) -> Any:
        owner, name, given = method.__self__, method.__name__, (*args, *kwargs.values())
        allowed = next((names for kinds, names in _METHODS if isinstance(owner, kinds)), frozenset())
        if name not in allowed:
            raise SecurityError(f"the method {name!r} of the type {type(owner).__name__} is not allowed")
        check_method(owner, name, given)
        self.budget.search(*given)
        if isinstance(owner, str | list | tuple):
            self.budget.search(owner)
        return self.budget.made(super().call(context, method, *args, **kwargs))

    def _is_callable(self, function: Any) -> bool:
        if isinstance(function, _Format | Joiner | BlockReference | jinja2.Undefined):
            return True
        if isinstance(function, MethodType):
            return isinstance(function.__self__, Cycler | LoopContext)
        return any(function is each for each in self.globals.values())

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `format` or `format_map` of a text with the sandbox inside."""
        if isinstance(value, BuiltinMethodType) and value.__name__ in ("format", "format_map"):
            return _Format(self, value.__self__, value.__name__) if isinstance(value.__self__, str) else None
        return None

    def get_template(self, name: Any, *args: Any, **kwargs: Any) -> jinja2.Template:
        """Return a template, also one that another includes."""
        template = super().get_template(name, *args, **kwargs)
        self.budget.step(len(template.root_render_func.__code__.co_code))
        return template

    def _tokenize(self, source: str, name: str | None, filename: str | None = None, state: Any = None) -> TokenStream:
        return TokenStream(_limited(super()._tokenize(source, name, filename, state)), name, filename)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for modifier in tree.find_all(nodes.EvalContextModifier):
            raise jinja2.TemplateSyntaxError("`autoescape` is not allowed", modifier.lineno, name, filename)
        for node in tree.find_all(nodes.Const):
            if isinstance(node.value, str) and not node.value.isascii() and _SURROGATE.search(node.value):
                raise jinja2.TemplateSyntaxError("half of a surrogate pair is no text", node.lineno, name, filename)
        if self.rewrite is not None:
            self.rewrite(tree, filename or "")
        return tree

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        self.budget.start()
        self.budget.built = MAX_REPEAT  # what is constant is computed here; beyond, it is when it is rendered
        _count_operations(source)
        return super()._generate(source, name, filename, defer_init)


def _limited(stream: TokenStream) -> Iterator[Token]:
    """Give the tokens of a file; raises TemplateSyntaxError for too many, or a number that Python does not read."""
    try:
        for count, token in enumerate(stream):
            if count > MAX_TOKENS:
                message = f"more than {MAX_TOKENS} words and signs are not allowed in one file"
                raise jinja2.TemplateSyntaxError(message, token.lineno, stream.name, stream.filename)
            str(token.value)  # a compiled template holds its numbers as decimal text
            yield token
    except ValueError as error:
        message = f"a number cannot be read: {str(error).partition(';')[0]}"
        raise jinja2.TemplateSyntaxError(message, stream.current.lineno, stream.name, stream.filename) from error


def _make_finalize(budget: RenderBudget, shown: Shown) -> Callable[[Any], Any]:
    def finalize(value: Any) -> Any:
        """Return what is printed, as it is."""
        if isinstance(value, str):
            return value
        if isinstance(value, int):
            budget.number(value)
        return shown(value)

    return finalize


def _make_concat(budget: RenderBudget) -> Callable[[Iterable[str]], str]:
    """Return what puts a macro, a block or a file together; this is where the time of a plain template goes."""

    def concat(parts: Iterable[str]) -> str:
        if type(parts) is not list:
            parts = list(parts)
        if len(parts) > 16:  # a few of any length fit
            check_length(sum(map(len, parts)))
        text = "".join(parts)
        budget.built = left = budget.built - len(text)
        if left < _CLOSE:
            budget.made(text)
        return text

    return concat


def _count_operations(tree: nodes.Template) -> None:
    """Put the environment's methods around what loops go through, what is compared, and keys."""
    for loop in list(tree.find_all(nodes.For)):
        weight = 1 + sum(1 for node in loop.body for _ in node.find_all(nodes.Node))
        loop.iter = _through("iterate", loop.iter, nodes.Const(weight))
    for compare in list(tree.find_all(nodes.Compare)):
        short = any(isinstance(each, nodes.Const) for each in (compare.expr, *(op.expr for op in compare.ops)))
        if not short or any(op.op in ("in", "notin") for op in compare.ops):
            compare.expr = _through("comparable", compare.expr)
            for operand in compare.ops:
                operand.expr = _through("comparable", operand.expr)
    for text in list(tree.find_all(nodes.Concat)):  # a constant one would be put together unchecked
        text.nodes = [_through("join_parts", *text.nodes)]
    for pair in list(tree.find_all(nodes.Pair)):
        if not isinstance(pair.key, nodes.Const):
            pair.key = _through("comparable", pair.key)


def _through(method: str, *arguments: Any) -> nodes.Call:
    line = arguments[0].lineno
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None, lineno=line)
