"""What a template may build: no text, list or number that eats the machine's memory."""

from __future__ import annotations

import pytest

from promptkit.errors import TemplateError
from promptkit.record import Record
from promptkit.task import load_task
from promptkit.template import load_template
from tests.conftest import Project

TARGET = "{% macro target(label) %} {{ label }}{% endmacro %}"
DOUBLED = "{% set ns = namespace(x=text) %}{% for i in range(60) %}{% set ns.x = %s %}{% endfor %}"


def render(project: Project, body: str, text: str = "a film") -> str:
    """Return the input that the body makes of a text."""
    project.write("templates/films/other.jinja", "{% macro input(text) %}" + body + "{% endmacro %}" + TARGET)
    return load_template("films/other").bind(load_task("films")).input(Record("r", {"text": text}, 0))


@pytest.mark.parametrize(
    "expression",
    [
        "'%1000000000d' % 1",
        "'%*d' % (1000000000, 1)",
        "'%.1000000000f' % 1",
        "'%(a)1000000000s' % {'a': 1}",
        "'%1000000000d' | format(1)",
        "'{:1000000000}'.format(1)",
        "'{:{}}'.format(1, 1000000000)",
        "'{a:1000000000}'.format_map({'a': 1})",
        "text.ljust(1000000000)",
        "text.rjust(1000000000)",
        "text.center(1000000000)",
        "text.zfill(1000000000)",
        "(1).to_bytes(1000000000, 'big') | string",
        "text | center(1000000000)",
        "text | indent(1000000000, first=true)",
        "text | batch(1000000000, 'x') | list | length",
        "text | round(1000000000, 'ceil')",
    ],
)
def test_wide_fields_are_refused(project: Project, expression: str) -> None:
    """A width beyond the limit is refused before anything is padded."""
    with pytest.raises(TemplateError, match=r"other.jinja:1: .*sandbox refuses this: widths beyond 100000 are not all"):
        render(project, "{{ " + expression + " }}")


@pytest.mark.parametrize(
    "body",
    [
        DOUBLED.replace("%s", "ns.x ~ ns.x"),
        DOUBLED.replace("%s", "ns.x + ns.x"),
        DOUBLED.replace("%s", "[ns.x, ns.x] | join"),
        DOUBLED.replace("%s", "''.join([ns.x, ns.x])"),
        DOUBLED.replace("%s", "ns.x.replace('a', 'aaa')"),
        DOUBLED.replace("%s", "ns.x | replace('a', 'aaa')"),
        DOUBLED.replace("%s", "'%s%s' % (ns.x, ns.x)"),
        DOUBLED.replace("%s", "'{0}{0}'.format(ns.x)"),
        "{% macro a() %}" + "{{ 'x' * 100000 }}" * 101 + "{% endmacro %}{{ a() | length }}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
        "{{ ('b' * 100000).join('a' * 100000) }}",
        "{{ ('a' * 100000) | join('b' * 100000) }}",
        "{{ ('\n' * 100000) | indent(100000, blank=true) }}",
    ],
)
def test_long_texts_are_refused(project: Project, body: str) -> None:
    """A text that grows beyond the limit is refused, however it is put together."""
    with pytest.raises(TemplateError, match="more than 10000000 characters or items are not allowed"):
        render(project, body)


def test_large_numbers_are_refused(project: Project) -> None:
    """A power of a power does not run for hours."""
    power = "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x ** 60 %}{% endfor %}"
    with pytest.raises(TemplateError, match="numbers beyond 100000 bits are not allowed"):
        render(project, power)


def test_long_data_pass(project: Project) -> None:
    """A record of a million characters is no concern of the limits."""
    text = "a film. " * 125_000
    assert (
        render(project, "{{ text | replace('film', 'movie') | trim }}!", text)
        == text.replace("film", "movie")[:-1] + "!"
    )
    assert render(project, "{{ text.ljust(80) ~ ('%5.1f%%' % 12.25) }}", text) == text + " 12.2%"
