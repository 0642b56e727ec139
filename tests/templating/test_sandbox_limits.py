"""What a template may build: no text, list or number that eats the machine's memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.errors import TemplateError
from promptkit.templating.template import load_template
from tests.conftest import Project
from tests.helpers.hostile_templates import FAILING, NONES, PRINTED, refuse

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
    with pytest.raises(TemplateError, match="numbers beyond 20000 bits are not allowed"):
        render(project, power)


def test_long_data_pass(project: Project) -> None:
    """A record of a million characters is no concern of the limits."""
    text = "a film. " * 125_000
    assert (
        render(project, "{{ text | replace('film', 'movie') | trim }}!", text)
        == text.replace("film", "movie")[:-1] + "!"
    )
    assert render(project, "{{ text.ljust(80) ~ ('%5.1f%%' % 12.25) }}", text) == text + " 12.2%"


def test_no_template_takes_the_machine(project: Project) -> None:
    """However a template goes about it, it is refused in one line, within a GiB and 20 seconds of CPU time."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.helpers.hostile_templates"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
        cwd=project.root,
    )
    found = json.loads(run.stdout)
    assert len(found["said"]) > 50
    for body, message, seconds in found["said"]:
        assert re.match(r"templates/films/other.jinja:1: ", message), (body, message)
        assert "\n" not in message
        assert seconds < 20, body
    assert found["peak"] < 1024


@pytest.mark.parametrize("body", [*PRINTED, *NONES, *FAILING])
def test_what_fails_is_one_line(project: Project, body: str) -> None:
    """Whatever goes wrong in a template is one line with its file, and no line shows an address in memory."""
    message = refuse(project, body)
    assert re.match(r"templates/films/other.jinja(:1: | imports )", message), message
    assert "\n" not in message
    assert " at 0x" not in message


@pytest.mark.parametrize("body", NONES)
def test_none_is_printed_through_no_filter(project: Project, body: str) -> None:
    """A null of the data never becomes the word None."""
    assert re.search("prints none|NoneType", refuse(project, body))


def test_what_a_template_prints_of_a_list_is_no_address(project: Project) -> None:
    """The message on a list of functions does not show them."""
    assert "prints a list; print its entries" in refuse(project, "{{ [text.upper] }}")


def test_loops_over_long_data_pass(project: Project) -> None:
    """A record's list of ten thousand entries is no concern of the limits."""
    body = "{% for part in text.split() %}{{ loop.index }}. {{ part | upper }}{{ ', ' if not loop.last }}{% endfor %}"
    shown = render(project, body, "word " * 10_000)
    assert shown.startswith("1. WORD, 2. WORD, ")
    assert shown.endswith(", 10000. WORD")
