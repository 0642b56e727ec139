"""Task files: what is read, and what is said about files that are wrong."""

from __future__ import annotations

import re

import pytest

from promptkit.data.tasks import find_tasks, load_task
from promptkit.errors import TaskError
from tests.conftest import TASK, Project


def test_task_reads_labels_fields_and_splits(project: Project) -> None:
    """A task file gives its labels, its fields besides the label, and the hub's split names."""
    task = load_task("films")
    assert task.labels == ("negative", "positive")
    assert task.input_fields == ("text",)
    assert (task.data.train, task.data.test, task.data.validation) == ("train", "validation", None)


def test_project_hides_shipped_task(project: Project) -> None:
    """A task in the working directory comes before the shipped one of the same name."""
    project.write("tasks/sst2.toml", TASK.replace("Movie-review", "My own"))
    assert load_task("sst2").description.startswith("My own")
    assert "trec" in find_tasks()


def test_unknown_task_suggests_the_nearest(project: Project) -> None:
    """A misspelt name is answered with the known names and the nearest."""
    with pytest.raises(TaskError, match=r"unknown task 'flims'; known: agnews, .*Did you mean 'films'\?"):
        load_task("flims")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('labels = ["negative"', 'labells = ["negative"', r"films.toml:2: unknown setting 'labells'.*'labels'"),
        ('label = "label"', "", r"films.toml: \[fields\] has no `label`"),
        ('templates = "films"', "", r"films.toml.*'templates' is missing"),
        ('text = "sentence"', 'text = "sentence', r"films.toml:6: Illegal character"),
        ('path = "nobody/films"', "", "give either `path` or `generator`"),
        ('"positive"]', '"negative"]', "`labels` must be two or more different names"),
        (
            '["negative", "positive"]',
            "[]",
            r"films.toml:2: labels: .* two or more different names, found 0",
        ),
        (
            '["negative", "positive"]',
            '["yes"]',
            r"films.toml:2: .* different names, found 1; leave them out",
        ),
        ('"positive"]', '" "]', r"films.toml:2: labels: a label is empty"),
        ('text = "sentence"', 'text = ""', r"films.toml:6: fields.text.column"),
        ('train = "train"', "train = 12", "films.toml:9: data: `train` must be a split's name, got 12"),
        (
            'text = "sentence"',
            'text = {colum = "sentence"}',
            r"films.toml:6: unknown setting 'colum'; allowed: column, after, before, remove\. Did you mean 'column'\?",
        ),
        ('text = "sentence"', 'text = {after = "x"}', r"films.toml:6: 'fields.text.column' is missing"),
        ('"positive"]', "1]", r"films.toml:2: labels.1: .*valid string, got 1"),
        ('"positive"]', "\n1,\n]", r"films.toml:2: labels.1: .*valid string, got 1"),
        ('test = "validation"', "test = 1.5", r"films.toml:12: data.test.*got 1.5"),
        (
            'label = "label"',
            'label = "label"\nlabels = "x"',
            "films.toml:8: fields.labels: the name is taken: templates",
        ),
        ('text = "sentence"', 'index = "sentence"', "films.toml:6: fields.index: the name is taken: templates get"),
        (
            'label = "label"',
            'label = {column = "label", remove = "(("}',
            r"films.toml:7: fields.label.remove: '\(\(' is no regular expression: missing \)",
        ),
        (
            '"positive"]',
            '"positive"]\nextra = ' + "[" * 3000 + "]" * 3000,
            "films.toml: its lists or objects are nested too deeply",
        ),
    ],
)
def test_wrong_task_file_names_file_and_line(project: Project, old: str, new: str, message: str) -> None:
    """What is wrong in a task file is said with the file, the line and what was allowed."""
    assert old in TASK
    project.write("tasks/films.toml", TASK.replace(old, new))
    with pytest.raises(TaskError, match=message):
        load_task("films")


def test_lines_are_told_however_the_file_is_laid_out(project: Project) -> None:
    """Tables of their own, dotted keys and quoted keys are found as well."""
    fields = '[fields]\ntext = "sentence"\nlabel = "label"\n'
    table = '[fields.label]\ncolumn = "label"\n\n[fields.text]\nafter = "column = 1"\nbefor = "x"\n'
    project.write("tasks/films.toml", TASK.replace(fields, table))
    with pytest.raises(TaskError, match=r"films.toml:10: unknown setting 'befor'.* Did you mean 'before'\?"):
        load_task("films")
    dotted = 'fields."text".column = "sentence"\nfields.label.column = "label"\nfields.label.remve = "x"\n'
    project.write("tasks/films.toml", TASK.replace(fields, dotted))
    with pytest.raises(TaskError, match=r"films.toml:7: unknown setting 'remve'.* Did you mean 'remove'\?"):
        load_task("films")


def test_a_byte_order_mark_is_no_part_of_the_file(project: Project) -> None:
    """Editors that write one at the beginning change nothing; lines are told as before."""
    project.write("tasks/films.toml", b"\xef\xbb\xbf" + TASK.encode())
    assert load_task("films").description == "Movie-review sentences, positive or negative"
    project.write("tasks/films.toml", b"\xef\xbb\xbf" + TASK.replace("description", "descripton").encode())
    with pytest.raises(TaskError, match=r"films.toml:1: unknown setting 'descripton'"):
        load_task("films")


def test_every_shipped_task_loads() -> None:
    """All shipped tasks are valid, and those the documentation promises are among them."""
    promised = "sst2 sst5 mr cr mpqa subj trec trec-fine agnews dbpedia rte cb boolq gsm8k reviews word-problems"
    assert set(promised.split()) <= set(find_tasks())
    for name in find_tasks():
        assert load_task(name).name == name


def test_error_is_one_line(project: Project) -> None:
    """Error messages have no line breaks in them."""
    project.write("tasks/films.toml", TASK + "\nextra = 1\n")
    with pytest.raises(TaskError) as caught:
        load_task("films")
    assert not re.search(r"\n", str(caught.value))
