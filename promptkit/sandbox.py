"""Untrusted template files into compiled Jinja2 templates, in a sandbox that keeps every byte.

The environment differs from Jinja2's own where prompts need it: line endings of the file survive,
names are strict, no source of randomness is left, and no file outside the template folders is read.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.sandbox import ImmutableSandboxedEnvironment

from promptkit.errors import TemplateError, nearest
from promptkit.library import display_path

# Jinja2's lexer turns every line ending into "\n". Carriage returns travel through it as this
# character, which counts as white space for `{%-` and which no text file holds.
_CARRIAGE_RETURN = "\x1f"
#: What rendering a broken template on any data may raise; everything else is a bug of ours.
RENDER_ERRORS = (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
#: The longest string or list a template may build by repetition.
MAX_REPEAT = 100_000
#: Changes a file's syntax tree before it is compiled; is given the tree and the file's path.
Rewrite = Callable[[nodes.Template, str], None]


class _KeepCarriageReturns(Extension):
    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        if _CARRIAGE_RETURN in source:
            raise jinja2.TemplateSyntaxError("the control character U+001F is not allowed", 1, name, filename)
        # A line ending right after a block is dropped as a whole, as trim_blocks does with "\n".
        return re.sub(r"([%#]\})\r\n", r"\1\n", source).replace("\r", _CARRIAGE_RETURN)

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            value = token.value
            if isinstance(value, str) and _CARRIAGE_RETURN in value:
                value = value.replace(_CARRIAGE_RETURN, "\r")
            yield Token(token.lineno, token.type, value)


class _TemplateFolders(jinja2.FileSystemLoader):
    """Read templates from the folders alone: a link that leads out of them is refused."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, filename, uptodate = super().get_source(environment, template)
        path = Path(filename).resolve()
        if not any(path.is_relative_to(Path(folder).resolve()) for folder in self.searchpath):
            raise jinja2.TemplateNotFound(template, f"{template!r} leads outside the template folders")
        with open(path, encoding="utf-8", newline="") as file:  # newline="": the file's bytes are the prompt's
            source = file.read()
        return source, filename, uptodate


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])
    rewrite: Rewrite | None = None

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if self.rewrite is not None:
            self.rewrite(tree, filename or "")
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            sizes = [len(side) for side in (left, right) if hasattr(side, "__len__")]
            counts = [side for side in (left, right) if isinstance(side, int)]
            if sizes and counts and sizes[0] * counts[0] > MAX_REPEAT:
                raise SecurityError(f"repetition beyond {MAX_REPEAT} items is not allowed")
        elif not (isinstance(right, int | float) and abs(right) <= 64):
            raise SecurityError("powers beyond 64 are not allowed")
        return super().call_binop(context, operator, left, right)


def join_words(words: Iterable[object], conjunction: str) -> str:
    """Return `a`, `a or b`, `a, b or c` for the conjunction `or`."""
    items = [str(word) for word in words]
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def folder_loader(folders: Sequence[Path]) -> jinja2.BaseLoader:
    """Return what reads templates from `folders`, the nearest first, and from nowhere else."""
    return _TemplateFolders([str(folder) for folder in folders])


def make_environment(loader: jinja2.BaseLoader, rewrite: Rewrite | None = None) -> jinja2.Environment:
    """Return the sandboxed environment of the templates that `loader` reads; `rewrite` is applied to each of them."""
    environment = _Sandbox(
        loader=loader,
        extensions=[_KeepCarriageReturns],
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        auto_reload=False,
        finalize=_check_printed,
    )
    del environment.filters["random"], environment.globals["lipsum"]
    environment.filters["either"] = lambda words: join_words(words, "or")
    environment.filters["both"] = lambda words: join_words(words, "and")
    environment.rewrite = rewrite
    return environment


def _check_printed(value: Any) -> Any:
    """Return what a template prints; raises TypeError for what has no text of its own but Python's notation."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        raise TypeError(f"prints a mapping: {value!r:.60}; print one of its entries, or name that entry in [fields]")
    if isinstance(value, list | tuple):
        raise TypeError(f"prints a list: {value!r:.60}; print its entries: {{{{ … | join(', ') }}}}, or a loop")
    return value


def parse(environment: jinja2.Environment, name: str) -> tuple[str, Path, nodes.Template]:
    """Return (source, file, syntax tree) of the template file `name`, statically checked.

    Raises TemplateError, with file and line, for a missing file, a syntax error, `extends`, an
    attribute that the sandbox would refuse, and a name that nothing defines.
    """
    assert environment.loader is not None
    try:
        source, filename, _ = environment.loader.get_source(environment, name)
    except jinja2.TemplateNotFound as error:
        folders = ", ".join(display_path(Path(folder)) for folder in environment.loader.searchpath)  # type: ignore[attr-defined]
        raise TemplateError(f"{error.message or name}: no such file in {folders}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{name}: cannot be read as UTF-8 text: {error}") from error
    path = Path(filename or name)
    try:
        tree = environment.parse(source, name, filename)
        undeclared = meta.find_undeclared_variables(tree)  # compiles, so it finds unknown filters too
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{display_path(path)}:{error.lineno}: syntax error: {error.message}") from error
    _check_tree(tree, path, undeclared - set(environment.globals))
    return source, path, tree


def _check_tree(tree: nodes.Template, path: Path, undeclared: set[str]) -> None:
    for parent in tree.find_all(nodes.Extends):
        raise TemplateError(
            f"{display_path(path)}:{parent.lineno}: `extends` lets the parent's macros win; "
            'take parts over with {% from "family/name.jinja" import input %}'
        )
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_"):
            raise TemplateError(
                f"{display_path(path)}:{attribute.lineno}: the sandbox refuses the attribute {attribute.attr!r}; "
                "templates see plain data only"
            )
    for name in sorted(undeclared):
        raise TemplateError(_undefined_message(tree, path, name))


def _undefined_message(tree: nodes.Template, path: Path, name: str) -> str:
    for macro in tree.find_all(nodes.Macro):
        arguments = [argument.name for argument in macro.args]
        for use in macro.find_all(nodes.Name):
            if use.name == name and use.ctx == "load":
                return (
                    f"{display_path(path)}:{use.lineno}: {name!r} is not defined; the macro {macro.name!r} "
                    f"takes: {', '.join(arguments) or 'nothing'}.{nearest(name, arguments)}"
                )
    line = next((use.lineno for use in tree.find_all(nodes.Name) if use.name == name), 1)
    return f"{display_path(path)}:{line}: {name!r} is not defined"


def explain_render_error(error: BaseException, where: str) -> TemplateError:
    """Return the TemplateError for what a template raised: its file and line, and what went wrong."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        template = frame.f_globals.get("__jinja_template__")
        if template:  # compiled template code counts the lines of its own Python source
            path = Path(frame.f_code.co_filename)
            place = f"{display_path(path)}:{template.get_corresponding_lineno(line)}: "
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SecurityError):
        reason = f"the sandbox refuses this: {reason}"
    return TemplateError(f"{place}{where}: {reason}")
