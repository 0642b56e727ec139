"""Rows are read from files, shards and folders, and an incomplete set is not read at all."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from promptkit.errors import DataError
from promptkit.export.shards import write_shards
from promptkit.storage.files import write_rows
from promptkit.storage.row_folders import holds_rows, iterate_rows

ROWS = [{"id": str(number)} for number in range(5)]


def ids(path: Path) -> list[str]:
    """Return the ids of a source's rows."""
    return [row["id"] for _, row in iterate_rows(path)]


def test_places_name_the_row(tmp_path: Path) -> None:
    """A row of a file of lines stands at a line, any other at its number."""
    write_rows(ROWS, tmp_path / "rows.jsonl")
    write_rows(ROWS, tmp_path / "rows.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "rows"))
    places = [
        [place for place, _ in iterate_rows(tmp_path / name)][4] for name in ("rows.jsonl", "rows.parquet", "rows")
    ]
    assert places == [f"{tmp_path}/rows.jsonl:5", f"{tmp_path}/rows.parquet, row 5", f"{tmp_path}/rows, row 5"]


def test_train_is_read_where_there_are_several_splits(tmp_path: Path) -> None:
    """Of shards, in `data/` too, and of a folder with splits, the one called train is read."""
    for place in ("shards", "hub/data"):
        write_shards(ROWS[:2], tmp_path / place / "test.parquet", shards=2)
        write_shards(ROWS, tmp_path / place / "train.parquet", shards=2)
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:2])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "splits"))
    for name in ("shards", "hub", "splits"):
        assert holds_rows(str(tmp_path / name))
        assert ids(tmp_path / name) == ["0", "1", "2", "3", "4"]


def test_only_split_is_read_whatever_its_name(tmp_path: Path) -> None:
    """Shards of one split need not be called train; of several, one must."""
    write_shards(ROWS, tmp_path / "set/test.jsonl", shards=2)
    assert len(ids(tmp_path / "set")) == 5
    write_shards(ROWS, tmp_path / "set/validation.jsonl", shards=2)
    with pytest.raises(DataError, match="set: shards of test, validation, none of 'train': keep one"):
        ids(tmp_path / "set")
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(DataError, match="splits: no split 'train'; name the folder of the split"):
        ids(tmp_path / "splits")


def test_missing_shard_is_noticed(tmp_path: Path) -> None:
    """A set of which a file is gone, or that was mixed with another, is not read."""
    write_shards(ROWS, tmp_path / "set/train.jsonl", shards=3)
    (tmp_path / "set/train-00001-of-00003.jsonl").unlink()
    with pytest.raises(DataError, match="set: 2 of the 3 shards of 'train' are there; make the set again"):
        ids(tmp_path / "set")
    (tmp_path / "set/train-00000-of-00001.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match="3 of the 1 shards of 'train'"):
        ids(tmp_path / "set")


def test_what_holds_no_rows_is_said(tmp_path: Path) -> None:
    """An empty folder, a damaged one and a file that is not there are one line; a task's name is no source."""
    with pytest.raises(DataError, match=r"no shards such as train-00000-of-00008.parquet, and not a folder of"):
        ids(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"not a folder that Dataset.save_to_disk wrote"):
        ids(tmp_path)
    with pytest.raises(DataError, match=r"missing.jsonl: cannot be read"):
        ids(tmp_path / "missing.jsonl")
    (tmp_path / "task.toml").write_text("")
    (tmp_path / "project").mkdir()
    names = ["sst2", str(tmp_path / "task.toml"), str(tmp_path / "project"), "missing.jsonl"]
    assert [holds_rows(name) for name in names] == [False, False, False, True]


def test_a_folder_of_datasets_names_files_in_itself(tmp_path: Path) -> None:
    """What a folder's state says of its files reads nothing outside of the folder."""
    for name in ("own", "other"):
        datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / name))
    state = tmp_path / "own/state.json"
    state.write_text(state.read_text().replace("data-00000-of-00001.arrow", "../other/data-00000-of-00001.arrow"))
    with pytest.raises(DataError, match=r"own/state.json: names '../other/data-.*', which is not a file in the folder"):
        ids(tmp_path / "own")
