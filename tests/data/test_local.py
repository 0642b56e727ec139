"""Rows in memory are read as files are, and what is no data is told what data are."""

from __future__ import annotations

from typing import Any

import datasets
import pandas
import pytest

import promptkit as pk
from promptkit.data.local import DataFiles, as_data, write_data
from promptkit.data.records import count_records, describe_source, has_split, load_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PromptkitWarning
from tests.conftest import SENTENCES, Project

ROWS = [{"sentence": text, "label": label} for text, label in SENTENCES]


def forms() -> list[Any]:
    """Return the same rows in every form of one set."""
    rows = datasets.Dataset.from_list(ROWS)
    return [rows, rows.to_iterable_dataset(), rows.data.table, pandas.DataFrame(ROWS), ROWS, tuple(ROWS)]


@pytest.mark.parametrize("place", range(6))
def test_one_set_of_rows_is_read_as_one_file_is(project: Project, place: int) -> None:
    """Every form gives the records that a file of the same rows gives, with the same ids, in prompts and in pairs."""
    data = forms()[place]
    task = load_task("films")
    same = load_records(task, "test", data=project.write("rows.jsonl", _lines(ROWS)))
    assert load_records(task, "test", data=data) == same
    assert load_records(task, "test", data={"test": data}) == same
    for split in (None, "train"):
        pairs = pk.build_pairs("films", "films/plain", data=data, split=split).to_list()
        assert pairs == pk.build_pairs("films", "films/plain", data="rows.jsonl", split=split).to_list()
    prompts = pk.build_prompts("films", "films/plain", data=data, k=2).to_list()
    assert prompts == pk.build_prompts("films", "films/plain", data="rows.jsonl", k=2).to_list()


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(f'{{"sentence": "{row["sentence"]}", "label": {row["label"]}}}\n' for row in rows)


def test_splits_are_found_by_their_names(project: Project) -> None:
    """A DatasetDict or a mapping has splits as a folder has files, `dev` for validation among them."""
    task = load_task("films")
    sets = {"train": ROWS, "dev": ROWS[:2]}
    for data in (datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in sets.items()}), sets):
        assert len(load_records(task, "validation", data=data)) == count_records(task, "validation", data) == 2
        assert [has_split(task, split, data) for split in ("train", "validation", "test")] == [True, True, False]
        with pytest.raises(DataError, match=r"given as data: no split 'test'; it has: train, dev"):
            load_records(task, "test", data=data)
    assert describe_source(task, "train", sets) == "split 'train' of the mapping of splits given as data"


def test_values_of_pandas_are_python_s(project: Project) -> None:
    """Numbers are numbers, and what is missing is null."""
    frame = pandas.DataFrame({"sentence": ["x", "y"], "label": [1.0, None], "id": [7, 8]})
    records = load_records(load_task("films"), "test", data=frame, labelled=False)
    assert [(record.id, record.label) for record in records] == [("7", 1), ("8", None)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data: found int; data are a file, a folder"),
        ((row for row in ROWS), "data: found generator; data are"),
        ({"train": 3}, "data: 'train' holds int; data are"),
        ({"sentence": ["x"], "label": [1]}, "data: 'sentence' holds list; data are"),
        ([{"sentence": "x", "label": 1}, 2], "the list of rows given as data, record 1: found int; data are"),
        ([], "the list of rows given as data: holds no records"),
        ([{"sentence": "x", "label": 9}] * 2, "the list of rows given as data, record 0: label 9 is not one of"),
    ],
)
def test_what_is_no_data_is_told_what_data_are(project: Project, data: Any, message: str) -> None:
    """Anything else is one line of error, and so is a row that is none."""
    with pytest.raises(DataError, match=message):
        pk.build_prompts("films", "films/plain", data=data)


def test_a_single_record_is_tested_on(project: Project) -> None:
    """One row makes a prompt, and cannot be learned from as well."""
    assert len(pk.build_prompts("films", "films/plain", data=ROWS[:1])) == 1
    with pytest.raises(DataError, match="one record cannot be both tested on and learned from"):
        pk.build_prompts("films", "films/plain", data=ROWS[:1], k=1)


def test_a_pool_without_a_label_is_warned_of(project: Project) -> None:
    """Where no record that could be shown has a label, whatever the selection, that is said."""
    data = {"train": [{"sentence": f"good {number}", "label": "positive"} for number in range(8)], "test": ROWS}
    message = "none of the 8 training records has the label 'negative': demonstrations never show it"
    for selection in ("balanced", "random"):
        with pytest.warns(PromptkitWarning, match=message):
            pk.build_prompts("films", "films/plain", data=data, k=2, selection=selection)


def test_files_are_known_by_their_path(project: Project) -> None:
    """DataFiles may stand wherever a path may, in the settings of a training set too."""
    project.write("rows.csv", "sentence|label\nx|0\ny|1\n")
    given = DataFiles("rows.csv", delimiter="|")
    pairs = pk.build_pairs("films", ["films/plain"], data=given, split="train", epochs=2)
    assert len(pairs) == 4
    assert as_data(write_data(given)) == given
    assert write_data(DataFiles("rows.csv")) == "rows.csv"


def test_a_mixture_says_how_its_data_are_read(project: Project) -> None:
    """A table in the place of a path, with the same settings; one that is misspelt is an error."""
    project.write("rows.csv", "sentence:label\nx:1\ny:2\n")
    table = 'data = {path = "rows.csv", delimiter = ":", labels_are = "index1"}\n'
    project.write("both.toml", f'split = "train"\n[tasks.films]\n{table}')
    assert pk.build_pairs("both.toml")["label"] == [0, 1]
    project.write("both.toml", f"[tasks.films]\n{table.replace('delimiter', 'delimitr')}")
    with pytest.raises(DataError, match=r"data: unknown setting 'delimitr'; allowed: .* Did you mean 'delimiter'"):
        pk.build_pairs("both.toml")
