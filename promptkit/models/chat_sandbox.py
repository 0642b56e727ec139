"""Compile and render a model's own chat template in the sandbox, as transformers would render it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from promptkit.errors import TemplateError
from promptkit.templating.environment import Sandbox
from promptkit.templating.limits import check_specification
from promptkit.templating.printing import check_python
from promptkit.templating.sandbox import RENDER_ERRORS, explain_reason


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}` marks what an assistant wrote; here it is shown like other text."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2's own annotation

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class ChatTemplate:
    """A model's chat template: compiled once, rendered in the sandbox, within the limits of any other template.

    `ChatTemplate(text, "model 'folder'").render(messages, add_generation_prompt=True, bos_token="<s>")` is the text
    that `tokenizer.apply_chat_template(messages, tokenize=False, …)` gives: pass the tokenizer's special tokens by
    name, `tools`, `documents` and whatever else a template may ask for. `now` is what the template takes for the
    present time. Names that are not given are undefined and print nothing, and none prints "None", as there.

    Both raise TemplateError, one line that begins with `name`, for everything that a template can do wrong.
    """

    def __init__(self, text: str, name: str, *, now: Callable[[], datetime.datetime] = datetime.datetime.now) -> None:
        self.name = name
        self._environment = _make_environment(now)
        try:
            self._template = self._environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{name}: its chat template, line {error.lineno}: {error.message}") from error
        except RENDER_ERRORS as error:
            raise self._explain(error) from error

    def render(self, messages: Sequence[Mapping[str, Any]], **values: Any) -> str:
        """Return the chat as text; `messages` and `values` are plain values: text, numbers, lists, mappings, none."""
        self._environment.budget.start()
        given = {"tools": None, "documents": None, "add_generation_prompt": False, **values}
        try:
            context = self._template.new_context({"messages": messages, **given})
            return self._environment.concat(self._template.root_render_func(context))
        except RENDER_ERRORS as error:
            raise self._explain(error) from error

    def _explain(self, error: BaseException) -> TemplateError:
        _, line, reason = explain_reason(error)
        place = f", line {line}" if line else ""
        return TemplateError(f"{self.name}: its chat template{place}: {reason}")


def _make_environment(now: Callable[[], datetime.datetime]) -> Sandbox:
    environment = Sandbox(
        check_python, json=json.dumps, trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: _tell_time(now(), form)
    return environment


def _tell_time(now: datetime.datetime, form: str) -> str:
    check_specification(now, form)  # `%999999999d` is as wide as that
    return now.strftime(form)


def _refuse(message: object) -> None:
    raise jinja2.TemplateError(str(message))
