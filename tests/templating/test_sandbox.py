"""The sandbox: what is printed is text, bytes of the file stay, no state is kept, a hopeless file is one error."""

from __future__ import annotations

import pytest

from promptkit.cli.verbs.listing import list_names
from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.errors import TemplateError
from promptkit.linting.lint import lint
from promptkit.templating.template import BoundTemplate, load_template
from tests.conftest import TEMPLATE, Project

RECORD = Record(id="r", fields={"text": "a film"}, label=1)
TARGET = "{% macro target(label) %} {{ label }}{% endmacro %}"


def bind(project: Project, source: str | bytes, name: str = "films/other") -> BoundTemplate:
    """Write a template, load it and bind it to the task `films`."""
    project.write(f"templates/{name}.jinja", source)
    return load_template(name).bind(load_task("films"))


def show(project: Project, expression: str, value: object = "a film") -> str:
    """Return what the expression prints for a record whose text is `value`."""
    bound = bind(project, "{% macro input(text) %}{{ " + expression + " }}{% endmacro %}" + TARGET)
    return bound.input(Record("r", {"text": value}, 0))


@pytest.mark.parametrize("made", ["namespace(seen='')", "cycler('a', 'b')", "joiner(', ')"])
def test_nothing_is_carried_from_record_to_record(project: Project, made: str) -> None:
    """What remembers is refused outside a macro, where a demonstration's label could reach the query; lint says so."""
    message = rf"films/other.jinja:2: '{made.split('(')[0]}' outside a macro would carry what one record left"
    with pytest.raises(TemplateError, match=message):
        bind(project, f"{{# Remembers. #}}\n{{% set kept = {made} %}}\n{TEMPLATE}")
    assert any("outside a macro" in str(defect) for defect in lint(["templates"]).defects)
    inside = TEMPLATE.replace("Text:", f"{{% set kept = {made} %}}Text:")
    assert bind(project, inside).input(RECORD) == "Text: a film\nSentiment:"


def test_a_list_made_by_a_filter_serves_every_record(project: Project) -> None:
    """Jinja's own filters give iterators, which the first record would use up."""
    words = "{% set words = ['a', 'b'] | map('upper') %}"
    source = words + "{% macro input(text) %}{{ words | join }}{% endmacro %}" + TARGET
    bound = bind(project, source)
    assert [bound.input(RECORD), bound.input(RECORD)] == ["AB", "AB"]


@pytest.mark.parametrize(
    ("expression", "value", "message"),
    [
        ("text.upper", "x", r"prints the function 'upper' itself; call it: \{\{ upper\(…\) \}\}"),
        ("range", "x", "prints the function 'safe_range' itself"),
        ("target", "x", "prints the function 'target' itself"),
        ("text.start", {"start": None}, r"other.jinja:1: input of record 'r': prints none"),
        ("none", "x", "prints none"),
        ("text.items()", {"a": 1}, "prints a dict_items; text or a number is expected"),
        ("text | join(', ')", ["a", None], "prints none"),
        ("text | join(', ')", ["a", ["b"]], r"prints a list: \['b'\]"),
        ("text | join(', ', 'a')", [{"a": {"b": 1}}], r"prints a mapping: \{'b': 1\}"),
        ("text | either", ["a", None], "prints none"),
        ("'so ' ~ text.upper", "x", "prints the function 'upper' itself"),
    ],
)
def test_what_is_no_text_is_not_printed(project: Project, expression: str, value: object, message: str) -> None:
    """Functions, null and containers are errors wherever they would become text."""
    with pytest.raises(TemplateError, match=message):
        show(project, expression, value)


@pytest.mark.parametrize(
    ("expression", "value", "text"),
    [
        ("text", 7, "7"),
        ("text", True, "True"),
        ("text", 0.5, "0.5"),
        ("text | join(', ')", [1, "b"], "1, b"),
        ("text | join(attribute='a')", [{"a": "x"}, {"a": 2}], "x2"),
        ("text ~ 1 ~ '!'", "x", "x1!"),
        ("'%s, %05d' % (text, 7)", "x", "x, 00007"),
        ("'{:>4}|{}'.format(text, 1)", "x", "   x|1"),
    ],
)
def test_text_numbers_and_truths_are_printed(project: Project, expression: str, value: object, text: str) -> None:
    """What has a text of its own is shown as before."""
    assert show(project, expression, value) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{% raw %}\n{{ x }}{% endraw %}\n{{ text }}", "\n{{ x }}a film"),
        ("{% if true +%}\nX{% endif %}", "\nX"),
        ("{% if true %}\nX{% endif %}", "X"),
        ("{# note #}\nX", "X"),
        ("50%}\nnext #}\nX", "50%}\nnext #}\nX"),
        ("A\n\n{{ text }}\n{%- if true -%}\n\n B{% endif %}", "A\n\na filmB"),
        ("{{ 'a\nb' }}", "a\nb"),
    ],
)
def test_line_ends_are_kept_or_dropped_alike(project: Project, body: str, text: str) -> None:
    """A file with CRLF keeps and drops the line ends that the same file with LF does; a lone CR is no line end."""
    source = "{% macro input(text) %}" + body + "{% endmacro %}" + TARGET
    assert bind(project, source).input(RECORD) == text
    assert bind(project, source.replace("\n", "\r\n")).input(RECORD) == text.replace("\n", "\r\n")
    assert bind(project, source.replace("X", "X\rY")).input(RECORD) == text.replace("X", "X\rY")


DEEP = {
    "calls": "{% macro f() %}{{ f() }}{% endmacro %}{% set separator = f() %}" + TEMPLATE,
    "parentheses": TEMPLATE.replace("{{ text }}", "{{ " + "(" * 3000 + "text" + ")" * 3000 + " }}"),
    "lists": TEMPLATE.replace("{{ text }}", "{{ " + "[" * 150 + "text" + "]" * 150 + " | string }}"),
    "loops": TEMPLATE.replace("{{ text }}", "{% for x in text %}" * 30 + "{% endfor %}" * 30),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_hopeless_file_hides_no_other(project: Project, name: str) -> None:
    """Endless recursion and deep nesting are one line about that file; list and lint go on to the others."""
    project.write("templates/films/other.jinja", DEEP[name])
    found = [str(defect) for defect in lint(["templates"]).defects]
    assert len(found) == 1
    assert "templates/films/other.jinja" in found[0]
    assert "nested too deeply" in found[0]
    assert "\n" not in found[0]
    shown = list_names("templates")["templates"]
    assert shown["films/plain"] == "The usual way."
    assert "films/other" in shown


def test_an_input_that_calls_itself_is_an_error_of_the_record(project: Project) -> None:
    """A macro without end is found when it is rendered, with its line."""
    bound = bind(project, TEMPLATE.replace("{{ text }}", "{{ input(text) }}"))
    with pytest.raises(TemplateError, match=r"other.jinja:7: input of record 'r': calls itself without end"):
        bound.input(RECORD)


def test_only_templates_are_included(project: Project) -> None:
    """A file beside a template that is given by its path is not read, unless it is a template too."""
    project.write("mine/.env", "KEY=secret")
    path = project.write("mine/way.jinja", "{% macro input(text) %}{% include '.env' %}{% endmacro %}" + TARGET)
    with pytest.raises(TemplateError, match=r"mine/way.jinja imports '.env': '.env' is no template; .* \*\.jinja only"):
        load_template(path)


def test_a_byte_order_mark_is_refused(project: Project) -> None:
    """It would be a part of the text, and hide the first line's comment."""
    with pytest.raises(TemplateError, match=r"other.jinja:1: begins with a byte order mark \(U\+FEFF\).* without it"):
        bind(project, b"\xef\xbb\xbf" + TEMPLATE.encode())


def test_a_control_character_that_is_needed_is_refused_with_its_line(project: Project) -> None:
    """Two control characters carry line ends through the lexer, so no file may hold them."""
    with pytest.raises(TemplateError, match=r"other.jinja:2: syntax error: the control character U\+001E is not allow"):
        bind(project, TEMPLATE.replace("instruction", "instruction\x1e", 1))
