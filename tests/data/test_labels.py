"""A label column is read in one way for the whole of it, and what it leaves open is an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from promptkit.data.records import load_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PromptkitWarning, TaskError
from tests.conftest import TASK, Project

THREE = TASK.replace('["negative", "positive"]', '["low", "middle", "high"]')
OWN_CHOICES = TASK.replace('labels = ["negative", "positive"]\n', "").replace(
    'label = "label"', 'label = "label"\nchoices = "choices"'
)


def read(
    project: Project, task: str, labels: Sequence[Any], choices: Sequence[Any] = (), setting: str = ""
) -> list[int | str | None]:
    """Return the labels of a file with these, read with the task's text and one setting at its top."""
    project.write("tasks/films.toml", f'labels_are = "{setting}"\n{task}' if setting else task)
    rows = [{"sentence": "x", "label": label} for label in labels]
    for row, own in zip(rows, choices, strict=False):
        row["choices"] = own
    project.write("rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    return [record.label for record in load_records(load_task("films"), "test", data="rows.jsonl")]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 2], [0, 2]),
        (["0", "1", "1"], [0, 1, 1]),
        ([1, 2, 3, 2], [0, 1, 2, 1]),
        (["3.0", "2.0", "1.0"], [2, 1, 0]),
        (["low", "high"], [0, 2]),
        (["low", 0, 1], [0, 0, 1]),
    ],
)
def test_ids_count_from_zero_or_from_one(project: Project, labels: list[Any], found: list[int]) -> None:
    """A 0 says that ids count from 0; all of 1 to the number of labels, without a 0, that they count from 1."""
    assert read(project, THREE, labels) == found


@pytest.mark.parametrize("labels", [[1, 2], ["2", "2"], ["low", 1]])
def test_ids_without_the_first_and_the_last_are_open(project: Project, labels: list[Any]) -> None:
    """Ids 1 and 2 of three labels are an error that names both readings and the setting; the setting decides."""
    message = (
        r"rows.jsonl:\d: label .* counted from 0 or .* counted from 1: .*labels_are = \"index0\" or labels_are = \"i"
    )
    with pytest.raises(DataError, match=message):
        read(project, THREE, labels)
    assert read(project, THREE, ["1", 2], setting="index0") == [1, 2]
    assert read(project, THREE, ["1", 2], setting="index1") == [0, 1]


def test_all_splits_decide_and_no_limit_changes_it(project: Project) -> None:
    """The train split has what the test split leaves open, and a record that is drawn alone is read as in the whole."""
    project.write("tasks/films.toml", THREE)
    project.write("data/train.jsonl", '{"sentence": "x", "label": 0}\n')
    project.write("data/test.jsonl", '{"sentence": "x", "label": 1}\n{"sentence": "y", "label": 2}\n')
    task = load_task("films")
    assert [record.label for record in load_records(task, "test", data="data")] == [1, 2]
    assert [record.label for record in load_records(task, "test", data="data", limit=1, seed=1)] in ([1], [2])
    project.write("data/train.jsonl", "".join(f'{{"sentence": "x", "label": {label}}}\n' for label in (1, 2, 3)))
    assert [record.label for record in load_records(task, "test", data="data")] == [0, 1]


def test_many_ones_of_two_labels_are_open(project: Project) -> None:
    """Twenty labels 1 of two, and no other, may count from 1 with the last class missing: an error, or as is set."""
    with pytest.raises(DataError, match="'positive' counted from 0 or 'negative' counted from 1"):
        read(project, TASK, [1] * 20)
    assert read(project, TASK, [1] * 20, setting="index1") == [0] * 20
    assert read(project, TASK, [1] * 20 + [0]) == [1] * 20 + [0]


def test_of_two_labels_one_is_the_second(project: Project) -> None:
    """A few labels that are all 1 are the second of two, as 0 and 1 number them; labels that are all 2 are no label."""
    assert read(project, TASK, [1, "1"]) == [1, 1]
    assert read(project, TASK, [1, 2]) == [0, 1]
    with pytest.raises(
        DataError, match=r"label 2 is not one of .* If it is one of them counted from 1, say labels_are"
    ):
        read(project, TASK, [2, 2])


def test_a_reading_that_few_labels_do_not_show_is_told(project: Project) -> None:
    """Some labels without a 0 count from 0, and a warning names what they would mean counted from 1."""
    with pytest.warns(
        PromptkitWarning, match=r"every label is 1, read as 'positive' .*'negative', counted from 1, say"
    ):
        assert read(project, TASK, [1] * 5) == [1] * 5
    with pytest.warns(PromptkitWarning, match="no label is 0; one is 2, read as 'iron' counted from 0"):
        assert read(project, OWN_CHOICES, [2, 1, 3, 2, 1], [FOUR] * 5) == [2, 1, 3, 2, 1]


FOUR = ["glass", "wood", "iron", "paper"]


@pytest.mark.parametrize(
    ("labels", "choices", "found"),
    [
        ([2, 2, 3], [FOUR, ["1", "2", "3", "4"], ["3", "0", "2", "1"]], [2, 2, 3]),
        ([1], [["8", "12", "6", "9"]], [1]),
        ([12, 8], [["8", "12", "6"], ["8", "12", "6"]], [1, 0]),
        (["A", 1, 4], [FOUR] * 3, [0, 0, 3]),
        (["B", "A"], [["A", "B"], ["red", "blue"]], [1, 0]),
        (["blue", 0], [["red", "blue"]] * 2, [1, 0]),
    ],
)
def test_choices_that_are_numbers_are_told_from_indices(
    project: Project, labels: list[Any], choices: list[list[str]], found: list[int]
) -> None:
    """Whatever reading fits every record is the column's: an index is no name because one question has numbers."""
    assert read(project, OWN_CHOICES, labels, choices) == found


@pytest.mark.parametrize(
    ("label", "own", "message"),
    [
        (1, ["1", "3", "0"], "'3' counted from 0 or '1' by its name"),
        (2, ["1", "2"], "'2' by its name or '2' counted from 1|'2'"),
        ("A", ["B", "A", "O"], "'B' as a letter or 'A' by its name"),
    ],
)
def test_choices_that_leave_it_open_are_an_error(project: Project, label: Any, own: list[str], message: str) -> None:
    """Where every record allows a name and an index, or a name and a letter, both are named; the setting decides."""
    if label != 2:  # as a name and counted from 1 it is the same choice
        with pytest.raises(DataError, match=message):
            read(project, OWN_CHOICES, [label], [own])
    assert read(project, OWN_CHOICES, [label], [own], setting="names") == [own.index(str(label))]


def test_many_indices_without_the_first_and_the_last_are_open(project: Project) -> None:
    """Twenty numbers of which none is 0 and none the number of choices do not tell where the count starts."""
    with pytest.raises(DataError, match="'wood' counted from 0 or 'glass' counted from 1"):
        read(project, OWN_CHOICES, [1, 2] * 10, [FOUR] * 20)


@pytest.mark.parametrize(
    ("setting", "label", "message"),
    [
        ("index0", "low", "label 'low' is not one of .*, counted from 0"),
        ("index1", 0, "label 0 is not one of .*, counted from 1"),
        ("letters", "D", "label 'D' is not one of .*, as a letter"),
        ("names", 1, "label 1 is not one of .*, by its name"),
    ],
)
def test_the_setting_holds_for_every_label(project: Project, setting: str, label: Any, message: str) -> None:
    """What cannot be read as `labels_are` says is an error, not read in another way."""
    with pytest.raises(DataError, match=message):
        read(project, THREE, [label], setting=setting)
    assert read(project, THREE, ["a", "C"], setting="letters") == [0, 2]
    with pytest.raises(TaskError, match=r"films.toml:1: labels_are: Input should be 'names', 'index0', 'index1' or"):
        read(project, THREE, [0], setting="index2")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": None, "choices": ["a", "None"]}, "the field 'label' is null"),
        ({"label": "", "choices": ["a", "b"]}, "the label is empty"),
        ({"label": 0, "choices": ["a", None]}, r"choices \['a', None\] hold one that is null or empty"),
        ({"label": 0, "choices": ["a", ""]}, "hold one that is null or empty"),
        ({"label": 1, "choices": ["2", "8", "2"]}, r"are not a list of two or more different texts; bad_records"),
        ({"label": 5, "choices": ["a", "b"]}, "label 5 is not one of 'a', 'b'"),
    ],
)
def test_bad_records_are_an_error_or_left_out_and_counted(project: Project, row: dict[str, Any], message: str) -> None:
    """A null is never the choice "None"; `bad_records = "skip"` leaves records out, counts them and tells the first."""
    good = {"sentence": "x", "label": 0, "choices": ["a", "b"]}
    project.write("tasks/films.toml", OWN_CHOICES)
    project.write("rows.jsonl", "".join(f"{json.dumps(each)}\n" for each in (good, {"sentence": "y", **row}, good)))
    with pytest.raises(DataError, match=f"rows.jsonl:2: .*{message}"):
        load_records(load_task("films"), "test", data="rows.jsonl")
    project.write("tasks/films.toml", f'bad_records = "skip"\n{OWN_CHOICES}')
    with pytest.warns(PromptkitWarning, match=r"1 of 3 records were left out as bad, the first of them rows.jsonl:2: "):
        found = load_records(load_task("films"), "test", data="rows.jsonl")
    assert [record.id for record in found] == ["test-0", "test-2"]


def test_a_missing_number_is_no_label(project: Project) -> None:
    """What Parquet and pandas write for a missing number is null, in labels as in fields."""
    table = pyarrow.table({"sentence": ["x", "y"], "label": [1.0, float("nan")]})
    pyarrow.parquet.write_table(table, "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet, record 1: the field 'label' is null"):
        load_records(load_task("films"), "test", data="rows.parquet")


def classes(*names: str) -> datasets.Dataset:
    """Return two records whose label column says itself what 0 and 1 are called."""
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
    )
    return datasets.Dataset.from_dict({"sentence": ["x", "y"], "label": [0, 1]}, features=features)


@pytest.mark.parametrize(("names", "found"), [(("positive", "negative"), [1, 0]), (("Negative", "POSITIVE"), [0, 1])])
def test_the_names_that_data_bring_are_used(project: Project, names: tuple[str, str], found: list[int]) -> None:
    """Ids are the labels that the Parquet file or the data set itself calls so, whatever their order."""
    rows = classes(*names)
    rows.to_parquet("rows.parquet")
    for data in ("rows.parquet", rows, {"test": rows}, rows.data.table):
        assert [record.label for record in load_records(load_task("films"), "test", data=data)] == found
    assert load_records(load_task("films"), "test", data="rows.parquet", limit=1)[0].label in found


def test_names_that_the_task_does_not_know_are_listed(project: Project) -> None:
    """Other names are an error with both lists, unless the setting says that ids mean the task's labels."""
    classes("bad", "good").to_parquet("rows.parquet")
    message = (
        r"rows.parquet, record 0: label 0 is called 'bad' by the data, whose labels are 'bad', 'good', and the task's"
    )
    with pytest.raises(DataError, match=message):
        load_records(load_task("films"), "test", data="rows.parquet")
    project.write("tasks/films.toml", f'labels_are = "index0"\n{TASK}')
    assert [record.label for record in load_records(load_task("films"), "test", data="rows.parquet")] == [0, 1]


def test_a_setting_of_the_task_s_own_source_is_not_that_of_other_data(project: Project) -> None:
    """`labels_are` under [data] speaks of the folder beside the task; names in other data stay names."""
    project.write("tasks/local/train.jsonl", '{"sentence": "x", "label": 2}\n')
    task = TASK.replace("nobody/films", "local").replace("[data]", '[data]\nlabels_are = "index1"')
    project.write("tasks/films.toml", task)
    assert load_records(load_task("films"), "train")[0].label == 1
    project.write("rows.jsonl", '{"sentence": "x", "label": "positive"}\n')
    assert load_records(load_task("films"), "train", data="rows.jsonl")[0].label == 1
