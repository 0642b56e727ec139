"""Regular expressions of files: what is refused before it is compiled, and what ends while it runs."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.cli.verbs.listing import list_names
from promptkit.data.patterns import MAX_TEXT, compile_pattern
from promptkit.data.records import load_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PatternError, TaskError, TemplateError
from promptkit.linting.lint import lint
from promptkit.templating.template import load_template
from tests.conftest import TASK, TEMPLATE, Project


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("((((a{9999}){9999}){9999}){9999})", "repeats more than 100,000 parts; lower the numbers in {…}"),
        ("a{4000000000}", "repeats more than 100,000 parts"),
        ("a{99999999999999999999}", "repeats more than 100,000 parts"),
        ("(?:[ab]{999}|c){999}", "repeats more than 100,000 parts"),
        ("(?:[[]a{9999}){9999}", "repeats more than 100,000 parts"),
        ("(?#((()(?:[]]a{9999}){9999}", "repeats more than 100,000 parts"),
        (r"(?:\(a{9999}){9999}", "repeats more than 100,000 parts"),
        ("(" * 400 + ")" * 400, "groups more than 50 deep; write it flatter"),
        ("a" * 10_001, "is too long; 10,000 characters are allowed"),
        ("(?x)a # (", r"a group that is not allowed, '(?x)a '"),
        ("(?V1)[[a]]", "a group that is not allowed"),
        ("a(?R)?b", "a group that is not allowed"),
        ("(?<x>a(?&x)?b)", "a group that is not allowed"),
        ("(?:[[:alpha:])]a{9999}){9999}", "has a POSIX class; write \\p{Alpha} for [[:alpha:]]"),
        ("(?:a))b{9999}){9999}", "unbalanced parenthesis at position 5"),
        ("(", "'(' is no regular expression: missing ) at position 1"),
        ("[a", "'[a' is no regular expression: unterminated character set"),
        (r"\L<names>", "is no regular expression: undefined named list"),
        ("a{5,2}", "is no regular expression: min repeat greater than max repeat"),
    ],
)
def test_a_pattern_that_is_not_valid_or_too_large_is_one_line(pattern: str, message: str) -> None:
    """What cannot be compiled in a moment is refused first, and says what to change."""
    started = time.process_time()
    with pytest.raises(PatternError, match=re.escape(message)) as caught:
        compile_pattern(pattern)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "pattern", ["(a|aa)+$", "(?:(?:a|a)*)*[bc]", "(a*)*[bc]", "(?:(a)|(aa)|(?=(a*)))*[bc]", "(?:aa){e}[bc]"]
)
def test_a_pattern_that_runs_without_end_is_one_line(pattern: str) -> None:
    """Time and memory of a search have an end, on a long text too."""
    said = []
    for text in ("a" * 60 + "!", "a" * MAX_TEXT):
        try:
            compile_pattern(pattern).search(text)
        except PatternError as error:
            said.append(str(error))
    assert said
    assert all(re.search(r"takes over 1 s on one text|needs too much memory on one text", each) for each in said)
    assert "\n" not in said[0]


def test_a_text_beyond_the_limit_is_not_searched() -> None:
    """A search of a gigabyte is not begun."""
    with pytest.raises(PatternError, match="is given a text of 1,000,001 characters; 1,000,000 can be searched"):
        compile_pattern("a").search("b" * (MAX_TEXT + 1))


_GROUPS = ["(a)", "(?:a)", "(?P<n>b)", "(?i:a)", "(?=b)", "(?<!a)", "[^]a]", r"[\]b]", r"\(", ".", "a|b", "b{2}", "c*?"]


@given(st.lists(st.sampled_from(_GROUPS), max_size=6), st.text("abcABC](", max_size=12))
def test_common_patterns_find_what_pythons_own_find(parts: list[str], text: str) -> None:
    """The limits change nothing about what is found and removed."""
    pattern = "".join(part for number, part in enumerate(parts) if "P<n>" not in part or part not in parts[:number])
    found = re.search(pattern, text)
    expected = (found[0], *found.groups()) if found else None
    checked = compile_pattern(pattern)
    assert checked.search(text) == expected
    assert checked.groups == re.compile(pattern).groups
    assert checked.remove(text) == re.sub(pattern, "", text)
    assert checked.matches(text) == bool(re.fullmatch(pattern, text))


def test_list_and_lint_name_the_template_and_go_on(project: Project) -> None:
    """A pattern that cannot be compiled is a line about its file, and hides no other."""
    project.write("templates/films/other.jinja", '{% set answer = "(a{9999}){9999}" %}\n' + TEMPLATE)
    message = "templates/films/other.jinja: `answer`: the pattern '(a{9999}){9999}' repeats more than 100,000 parts"
    shown = list_names("templates")["templates"]
    assert shown["films/other"].startswith(f"! {message}")
    assert shown["films/plain"] == "The usual way."
    assert [str(each) for each in lint(["templates"]).defects if message in str(each)]
    with pytest.raises(TemplateError, match=re.escape(message)):
        load_template("films/other")


def test_a_task_names_the_line_of_what_to_remove(project: Project) -> None:
    """`remove` is checked when the task is read; `after` and `before` look for something."""
    settings = {
        'remove = "(a{9999}){9999}"': r"films.toml:6: fields.text.remove: the pattern .* repeats more than 100,000",
        'after = ""': r"films.toml:6: fields.text.after: String should have at least 1 character",
        'before = ""': r"films.toml:6: fields.text.before: String should have at least 1 character",
    }
    for setting, message in settings.items():
        project.write(
            "tasks/films.toml", TASK.replace('text = "sentence"', f'text = {{column = "sentence", {setting}}}')
        )
        with pytest.raises(TaskError, match=message):
            load_task("films")


def test_removing_without_end_names_the_record(project: Project) -> None:
    """A pattern that takes too long on one record is an error about that record."""
    column = r'{column = "sentence", remove = "(a|aa)+$"}'
    project.write("tasks/films.toml", TASK.replace('text = "sentence"', f"text = {column}"))
    path = project.write("data/test.jsonl", '{"sentence": "' + "a" * 60 + '!", "label": 0}\n')
    with pytest.raises(DataError, match=r"test.jsonl:1: column 'sentence': `remove`: the pattern .* takes over 1 s"):
        load_records(load_task("films"), "test", data=path)
