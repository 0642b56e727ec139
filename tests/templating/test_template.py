"""Template files: bytes kept, parts checked against the task, errors with file and line."""

from __future__ import annotations

import pytest

from promptkit.data.record import Record
from promptkit.data.tasks import find_tasks, load_task
from promptkit.errors import PromptkitWarning, TemplateError
from promptkit.templating.template import BoundTemplate, find_templates, load_template, match_templates
from tests.conftest import TASK, TEMPLATE, Project

RECORD = Record(id="r", fields={"text": "a warm film"}, label=1)


def bind(project: Project, source: str | bytes, name: str = "films/other") -> BoundTemplate:
    """Write a template, load it and bind it to the task `films`."""
    project.write(f"templates/{name}.jinja", source)
    return load_template(name).bind(load_task("films"))


@pytest.mark.parametrize(
    ("value", "printed", "message"),
    [
        (
            ["a", "b"],
            "text",
            r"films/plain.jinja:7: input of record 'r1': prints a list: \['a', 'b'\]; print its entries",
        ),
        (
            {"a": 1},
            "text",
            r"films/plain.jinja:7: input of record 'r1': prints a mapping: \{'a': 1\}; print one of its",
        ),
        (["a", "b"], "text | join(', ')", None),
        ({"a": 1}, "text.a", None),
    ],
)
def test_what_is_printed_is_text(project: Project, value: object, printed: str, message: str | None) -> None:
    """A list or mapping is not shown in Python's notation; its entries are printed."""
    project.write("templates/films/plain.jinja", TEMPLATE.replace("{{ text }}", f"{{{{ {printed} }}}}"))
    bound = load_template("films/plain").bind(load_task("films"))
    record = Record("r1", {"text": value}, 0)
    if message is None:
        assert bound.input(record) in ("Text: a, b\nSentiment:", "Text: 1\nSentiment:")
        return
    with pytest.raises(TemplateError, match=message):
        bound.input(record)


def test_parts_render_byte_for_byte(project: Project) -> None:
    """The text between the tags is the text of the part; only the line end after a tag is dropped."""
    bound = load_template("films/plain").bind(load_task("films"))
    assert bound.instruction == "Label the following review with either negative or positive."
    assert bound.input(RECORD) == "Text: a warm film\nSentiment:"
    assert bound.choices(RECORD) == (" negative", " positive")
    assert bound.target(RECORD) == " positive"


@pytest.mark.parametrize(
    "text",
    ["{{ 1 + 1 }}", "{% raw %}", "{text}", "a ||| b", "(N)\\N", "x\r\ny", "tab\tbell\x07", " two  spaces ", "<b>&amp;"],
)
def test_data_pass_through_untouched(project: Project, text: str) -> None:
    """Jinja syntax, braces, line ends and control characters inside data are just text."""
    bound = load_template("films/plain").bind(load_task("films"))
    assert bound.input(Record("r", {"text": text}, 0)) == f"Text: {text}\nSentiment:"


def test_carriage_returns_of_the_file_survive(project: Project) -> None:
    """A template file with CRLF line ends renders CRLF; the line end after a tag is dropped whole."""
    bound = bind(project, TEMPLATE.replace("\n", "\r\n"))
    assert bound.input(RECORD) == "Text: a warm film\r\nSentiment:"
    assert bound.instruction == "Label the following review with either negative or positive."


def test_parts_are_taken_over_by_import(project: Project) -> None:
    """Both `import … as` with `set` and `from … import` make a part the importing template's own."""
    target = "{% macro target(label) %} !{{ label }}{% endmacro %}"
    by_set = bind(project, '{% import "films/plain.jinja" as p %}{% set input = p.input %}' + target)
    by_from = bind(project, '{% from "films/plain.jinja" import input %}' + target, "films/third")
    assert by_set.input(RECORD) == by_from.input(RECORD) == "Text: a warm film\nSentiment:"
    assert by_from.target(RECORD) == " !positive"


def test_hash_depends_on_imported_files(project: Project) -> None:
    """Changing one byte of an imported file changes the importing template's hash."""
    source = '{% from "films/plain.jinja" import input, target %}'
    before = bind(project, source).template.hash
    assert bind(project, source).template.hash == before
    project.write("templates/films/plain.jinja", TEMPLATE.replace("Text:", "Text :"))
    assert load_template("films/other").hash != before


def test_words_stand_for_labels(project: Project) -> None:
    """`labels` maps labels to words of any number, in the task's order."""
    words = '{% set labels = {"positive": "very good", "negative": "bad"} %}'
    bound = bind(project, TEMPLATE + words)
    assert bound.choices(RECORD) == (" bad", " very good")
    assert "either bad or very good" in bound.instruction


def test_labels_of_one_target_are_refused(project: Project) -> None:
    """No score can tell them apart, so nothing is measured or trained."""
    project.write("templates/films/same.jinja", TEMPLATE.replace("{{ label }}", "{{ label[-3:] }}"))
    bound = load_template("films/same").bind(load_task("films"))
    message = r"films/same: two labels have the same target ' ive', 'negative' and 'positive'; let `target` print the"
    with pytest.raises(TemplateError, match=message):
        bound.choices(Record(id="a", fields={"text": "x"}, label=0))


def test_optional_field_is_left_to_its_default(project: Project) -> None:
    """A part may ask for a field that a task lacks if it brings a default."""
    source = TEMPLATE.replace("input(text)", 'input(text, title="no title")').replace("Text:", "{{ title }}:")
    assert bind(project, source).input(RECORD).startswith("no title: a warm film")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input(text)", "input(txt)", r"other.jinja:7: 'text' is not defined; the macro 'input' takes: txt"),
        ("{% macro input", "{{ text }}{% macro input", r"other.jinja:\d+: 'text' is not defined outside of a macro"),
        ("{{ text }}", "{{ txt }}", r"other.jinja:7: 'txt' is not defined.*Did you mean 'text'\?"),
        ("{{ text }}", "{{ text.__class__ }}", r"other.jinja:7: the sandbox refuses the attribute '__class__'"),
        ("{{ text }}", "{{ text | attr('__class__') }}", r"other.jinja:7: .*the sandbox refuses this"),
        ("{{ text }}", "{{ text", r"other.jinja:\d+: syntax error"),
        ("{% macro target(label) %}", "{% macro goal(label) %}", r"no macro 'target'; a template needs"),
        ("macro input(text)", "macro input(text, label)", r":6: input must not take 'label'"),
        ("{{ text }}", "{{ text[9999] }}", r"other.jinja:7: input of record 'r'"),
        ("{{ text }}", "{{ text * 1000000000 }}", r"other.jinja:7: .*repetition beyond 100000"),
        ("{{ text }}", "{{ text | random }}", r"other.jinja:7: syntax error: No filter named 'random'"),
    ],
)
def test_errors_name_file_and_line(project: Project, old: str, new: str, message: str) -> None:
    """Every defect of a template is reported with its file, its line and what was allowed."""
    assert old in TEMPLATE
    with pytest.raises(TemplateError, match=message):
        bind(project, TEMPLATE.replace(old, new)).input(RECORD)


def test_missing_field_suggests_the_nearest(project: Project) -> None:
    """A field that the task does not have is an error with the nearest name, never an empty string."""
    source = TEMPLATE.replace("input(text)", "input(texts)").replace("{{ text }}", "{{ texts }}")
    message = r"other.jinja:6: input asks for 'texts', .* \(it has: labels, text\). Did you mean 'text'\?"
    with pytest.raises(TemplateError, match=message):
        bind(project, source)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('{% set labels = ["a", "b"] %}', r"`labels` is \['a', 'b'\]; a mapping such as"),
        ('{% set labels = {"negative": "bad"} %}', "`labels` has no word for 'positive'"),
        ('{% set labels = {"negative": "x", "positive": "x"} %}', "two labels of task 'films' share one word"),
        ('{% set answer = "([0-9]+" %}', r"`answer`: .* is no regular expression"),
        ('{% set answer = "[0-9]+" %}', "has no group"),
        ("{% set max_tokens = 0 %}", "`max_tokens` is 0; 1 or more is needed"),
        ('{% set stop = [""] %}', "hold text that is not empty"),
        ("{% set separator = 3 %}", "`separator` is 3; text was expected"),
    ],
)
def test_settings_are_checked(project: Project, setting: str, message: str) -> None:
    """A setting of the wrong kind is refused when the template is loaded or bound."""
    with pytest.raises(TemplateError, match=message):
        bind(project, TEMPLATE + setting)


@pytest.mark.parametrize("name", ["choices", "id", "index", "title"])
def test_only_the_answer_is_kept_from_the_input(project: Project, name: str) -> None:
    """What would not show the answer is treated as any name the task lacks: an error, or left to its default."""
    with pytest.raises(TemplateError, match=rf":6: input asks for '{name}', which task 'films' does not give it"):
        bind(project, TEMPLATE.replace("input(text)", f"input(text, {name})"))
    assert bind(project, TEMPLATE.replace("input(text)", f"input(text, {name}=none)")).input(RECORD)
    for answer in ("label", "rationale=none"):
        with pytest.raises(TemplateError, match=r":6: input must not take .*: a query would show its own answer"):
            bind(project, TEMPLATE.replace("input(text)", f"input(text, {answer})"))


def test_free_text_needs_a_way_to_read_the_answer(project: Project) -> None:
    """A template for a free-text task must say how its answer is read."""
    project.write("tasks/films.toml", TASK.replace('labels = ["negative", "positive"]\n', ""))
    source = TEMPLATE.replace("instruction(labels)", "instruction()").replace("{{ labels | either }}", "words")
    with pytest.raises(TemplateError, match="does not say how to read it"):
        bind(project, source)


def test_extends_is_refused(project: Project) -> None:
    """`extends` would let the parent's macros win, so it is refused with the way that works."""
    with pytest.raises(TemplateError, match=r"other.jinja:1: `extends` lets the parent's macros win; take parts"):
        bind(project, '{% extends "films/plain.jinja" %}')


def test_circular_imports_are_named(project: Project) -> None:
    """Templates that import each other are reported as a circle."""
    project.write("templates/films/a.jinja", '{% from "films/b.jinja" import input %}')
    project.write("templates/films/b.jinja", '{% from "films/a.jinja" import input %}')
    with pytest.raises(TemplateError, match=r"in a circle: films/a.jinja imports films/b.jinja imports films/a"):
        load_template("films/a")


def test_no_file_outside_the_template_folders_is_read(project: Project) -> None:
    """Neither a path with `..` nor a symbolic link leads out of the template folders."""
    secret = project.write("secret.jinja", "{% macro input(text) %}secret{% endmacro %}")
    with pytest.raises(TemplateError, match="no such file"):
        bind(project, '{% from "../secret.jinja" import input %}')
    (project.root / "templates/films/link.jinja").symlink_to(secret)
    with pytest.raises(TemplateError, match="leads outside the template folders"):
        bind(project, '{% from "films/link.jinja" import input %}')


def test_names_match_globs_and_family(project: Project) -> None:
    """A pattern matches full names, or names inside the task's family; nothing found is an error."""
    assert match_templates(["plain"], "films") == ["films/plain"]
    assert match_templates(["*"], "films") == match_templates(["films/*"], "nothing") == ["films/plain"]
    assert "sentiment/plain" in match_templates(["sentiment/*"], "films")
    with pytest.raises(TemplateError, match=r"no template matches 'plian'.*Did you mean 'plain'"):
        match_templates(["plian"], "films")


def test_every_shipped_template_fits_every_task_of_its_family() -> None:
    """All shipped templates load, say what they are, and bind to all tasks that name their family."""
    tasks = [load_task(name) for name in find_tasks()]
    for name in find_templates():
        template = load_template(name)
        assert template.description
        for task in tasks:
            if task.templates == name.split("/")[0]:
                template.bind(task)


def test_a_template_file_may_be_named_by_its_path(project: Project) -> None:
    """A path to a file outside the template folders works, with imports from the folders."""
    path = project.write("elsewhere/mine.jinja", '{% from "films/plain.jinja" import input, target %}')
    assert load_template(path).bind(load_task("films")).input(RECORD) == "Text: a warm film\nSentiment:"


def test_a_template_of_another_family_is_a_warning(project: Project) -> None:
    """A template that fits by chance may ask for something else; one from a file of one's own is no family's."""
    project.write("templates/books/plain.jinja", TEMPLATE)
    path = project.write("mine/plain.jinja", TEMPLATE)
    task = load_task("films")
    message = "template 'books/plain' is of the family 'books', and the task 'films' is meant for 'films'; see what it"
    for name in ("books/plain", "templates/books/plain.jinja"):
        with pytest.warns(PromptkitWarning, match=message):
            load_template(name).bind(task)
    load_template(path).bind(task)
    load_template("films/plain").bind(task)
