"""Compile untrusted template files in a sandbox that keeps every byte.

The environment differs from Jinja2's own where prompts need it: line endings of the file survive,
names are strict, no source of randomness and nothing that remembers an earlier record is left, only text and numbers
are printed, and no file outside the template folders is read.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.loaders import split_template_path

from promptkit.errors import TemplateError, nearest
from promptkit.storage.files import LARGEST_SOURCE, is_there, read_input
from promptkit.storage.paths import display_path, lies_in
from promptkit.templating.environment import Rewrite, Sandbox
from promptkit.templating.printing import check_printed

# Jinja2's lexer turns every line ending into "\n". Carriage returns travel through it as these characters, which
# count as white space for `{%-` and which no text file holds. One of a "\r\n" goes after the "\n", so that the
# lexer drops or keeps that as it would a "\n" alone; without its "\n" it is dropped too.
_LINE_RETURN, _LONE_RETURN = "\x1f", "\x1e"
#: What rendering a broken template on any data may raise; everything else is a bug of ours.
RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,  # as of a length that `truncate` cannot cut to
    RuntimeError,  # also Jinja2's own, and endless recursion
    MemoryError,
    SyntaxError,  # Python's own: what Jinja2 compiles to is nested too deeply
)
_ADDRESS, _LONGEST = re.compile(" at 0x[0-9a-f]+"), 400
_TOO_DEEP = "calls itself without end, or is nested too deeply"
#: Jinja2's functions whose results remember what was done with them.
_STATEFUL = ("cycler", "joiner", "namespace")


class _KeepCarriageReturns(Extension):
    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        for mark in (_LINE_RETURN, _LONE_RETURN):
            if mark in source:
                message = f"the control character U+{ord(mark):04X} is not allowed"
                raise jinja2.TemplateSyntaxError(message, source.count("\n", 0, source.index(mark)) + 1, name, filename)
        return source.replace("\r\n", f"\n{_LINE_RETURN}").replace("\r", _LONE_RETURN)

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            value = token.value
            if isinstance(value, str) and (_LINE_RETURN in value or _LONE_RETURN in value):
                value = value.replace(f"\n{_LINE_RETURN}", "\r\n").replace(_LINE_RETURN, "").replace(_LONE_RETURN, "\r")
            yield Token(token.lineno, token.type, value)


class _TemplateFolders(jinja2.FileSystemLoader):
    """Read templates from the folders alone: other files there, and links that lead out of them, are refused."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        if not template.endswith(".jinja"):
            raise TemplateError(f"{template!r} is no template; imports and includes read *.jinja only")
        pieces = split_template_path(template)
        found = [path for folder in self.searchpath if is_there(path := Path(folder, *pieces))]
        if not found:
            raise jinja2.TemplateNotFound(template)
        filename = str(found[0])
        if not any(lies_in(found[0], folder) for folder in self.searchpath):
            raise TemplateError(f"{template!r} leads outside the template folders")
        source = read_input(found[0], LARGEST_SOURCE).decode()  # the file's bytes are the prompt's
        if source.startswith("\ufeff"):
            raise TemplateError(
                f"{display_path(Path(filename))}:1: begins with a byte order mark (U+FEFF), which is no part of a "
                "prompt; save the file as UTF-8 without it"
            )
        return source, filename, lambda: True


def folder_loader(folders: Sequence[Path]) -> jinja2.BaseLoader:
    """Return what reads templates from `folders`, the nearest first, and from nowhere else."""
    return _TemplateFolders([str(folder) for folder in folders])


def make_environment(loader: jinja2.BaseLoader, rewrite: Rewrite | None = None) -> Sandbox:
    """Return the sandboxed environment of the templates that `loader` reads; `rewrite` is applied to each of them."""
    environment = Sandbox(
        check_printed,
        loader=loader,
        extensions=[_KeepCarriageReturns],
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        auto_reload=False,
    )
    environment.rewrite = rewrite
    return environment


def parse(environment: jinja2.Environment, name: str) -> tuple[str, Path, nodes.Template]:
    """Return (source, file, syntax tree) of the template file `name`, statically checked.

    Raises TemplateError, with file and line, for a missing file, a syntax error, `extends`, an attribute that the
    sandbox would refuse, a name that nothing defines, and what would carry a state from record to record.
    """
    assert environment.loader is not None
    try:
        source, filename, _ = environment.loader.get_source(environment, name)
    except jinja2.TemplateNotFound as error:
        folders = ", ".join(display_path(Path(folder)) for folder in environment.loader.searchpath)  # type: ignore[attr-defined]
        raise TemplateError(f"{name}: no such file in {folders}") from error
    except OSError as error:
        raise TemplateError(f"{name}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise TemplateError(f"{name}: cannot be read as UTF-8 text: {error}") from error
    path = Path(filename or name)
    try:
        tree = environment.parse(source, name, filename)
        undeclared = meta.find_undeclared_variables(tree)  # compiles, so it finds unknown filters too
        _check_tree(tree, path, undeclared - set(environment.globals))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{display_path(path)}:{error.lineno}: syntax error: {error.message}") from error
    except ValueError as error:  # Python's own, for a number of thousands of digits that a filter makes
        raise TemplateError(f"{display_path(path)}: a number cannot be read: {str(error).partition(';')[0]}") from error
    except (RecursionError, MemoryError) as error:
        raise TemplateError(f"{display_path(path)}: is nested too deeply to be read; write it flatter") from error
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
    inside = {id(use) for macro in tree.find_all(nodes.Macro) for use in macro.find_all(nodes.Name)}
    for use in tree.find_all(nodes.Name):
        if use.name in _STATEFUL and use.ctx == "load" and id(use) not in inside:
            raise TemplateError(
                f"{display_path(path)}:{use.lineno}: {use.name!r} outside a macro would carry what one record left "
                "there into the next; use it inside the macro that needs it"
            )


def _undefined_message(tree: nodes.Template, path: Path, name: str) -> str:
    for macro in tree.find_all(nodes.Macro):
        arguments = [argument.name for argument in macro.args]
        for use in macro.find_all(nodes.Name):
            if use.name == name and use.ctx == "load" and name not in arguments:
                return (
                    f"{display_path(path)}:{use.lineno}: {name!r} is not defined; the macro {macro.name!r} "
                    f"takes: {', '.join(arguments) or 'nothing'}.{nearest(name, arguments)}"
                )
    line = next((use.lineno for use in tree.find_all(nodes.Name) if use.name == name), 1)
    return f"{display_path(path)}:{line}: {name!r} is not defined outside of a macro"


def explain_render_error(error: BaseException, where: str, path: Path | None = None) -> TemplateError:
    """Return the TemplateError for what a template raised: its file and line, or else `path`, and what went wrong."""
    found, line, reason = explain_reason(error)
    place = f"{display_path(found)}:{line}: " if found else f"{display_path(path)}: " if path else ""
    return TemplateError(f"{place}{where}: {reason}")


def explain_reason(error: BaseException) -> tuple[Path | None, int, str]:
    """Return the file and the line of a template that raised an error (none and 0 where there is none), and why."""
    path, number = None, 0
    for frame, line in traceback.walk_tb(error.__traceback__):
        template = frame.f_globals.get("__jinja_template__")
        if template:  # compiled template code counts the lines of its own Python source
            path, number = Path(frame.f_code.co_filename), template.get_corresponding_lineno(line)
    reason = _ADDRESS.sub("", " ".join(str(error)[:_LONGEST].split())) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"there is no {reason}"
    elif isinstance(error, SecurityError):
        reason = f"the sandbox refuses this: {reason}"
    elif isinstance(error, RecursionError | SyntaxError):
        reason = _TOO_DEEP
    elif isinstance(error, MemoryError):
        reason = "needs more memory than there is"
    return path, number, reason
