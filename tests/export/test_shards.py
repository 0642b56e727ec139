"""Rows go into several files whole and in order, or into none."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest

from promptkit.errors import DataError, RunError
from promptkit.export.shards import write_folder, write_shards
from promptkit.storage import files
from promptkit.storage.row_folders import iterate_rows

Write = Callable[[Iterator[dict[str, Any]], Path], int]
#: Every way to write a set; the path's ending goes with it.
WAYS: dict[str, tuple[str, Write]] = {
    "shards": ("set/train.parquet", lambda rows, path: write_shards(rows, path, shards=3)),
    "lines": ("set/train.jsonl", lambda rows, path: write_shards(rows, path, shards=3)),
    "parts": ("set/train.parquet", lambda rows, path: write_shards(rows, path, shard_rows=4)),
    "folder": ("set", lambda rows, path: write_folder(rows, path, split="train", shards=3, card=lambda: "# set\n")),
}
ways = pytest.mark.parametrize("way", WAYS)


def make(count: int) -> Iterator[dict[str, Any]]:
    """Rows whose first ones say less than later ones: no label yet, no demonstrations."""
    for number in range(count):
        shown = [] if number < 4 else ["a"]
        turns = [{"role": "user", "content": "é\n\u2028"}]
        yield {"id": str(number), "prompt": "x", "completion": " y", "demonstration_ids": shown, "messages": turns}


def contents(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of every file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@ways
def test_rows_come_back_in_order(tmp_path: Path, way: str) -> None:
    """All rows are there, in their order, from a folder of shards as from one of `datasets`."""
    name, write = WAYS[way]
    assert write(make(10), tmp_path / name) == 10
    assert [row for _, row in iterate_rows(tmp_path / "set")] == list(make(10))


@ways
def test_same_rows_make_the_same_bytes(tmp_path: Path, way: str) -> None:
    """Names and bytes are a function of the rows."""
    name, write = WAYS[way]
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write(make(10), tmp_path / place / name)
    assert contents(tmp_path / "a/set") == contents(tmp_path / "b/set")


@ways
@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_set_that_broke_off(tmp_path: Path, way: str, there: bool) -> None:
    """After an error on the way there is no file of the set, in a new folder or in one with other files."""

    def broken() -> Iterator[dict[str, Any]]:
        yield from make(9)
        raise KeyError("stop")

    name, write = WAYS[way]
    if there and way != "folder":
        (tmp_path / "set").mkdir()
        (tmp_path / "set/mine").write_text("mine")
    with pytest.raises(KeyError):
        write(broken(), tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == (["set", "mine"] if there and way != "folder" else [])


def test_move_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with other files, an error at the second shard takes the first one back."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine").write_text("mine")
    link = os.link

    def refuse(path: Path, target: Path) -> None:
        if "00001-of" in target.name:
            raise OSError("no room")
        link(path, target)

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RunError, match=r"train.parquet: cannot be written \(no room\)"):
        write_shards(make(9), tmp_path / "set/train.parquet", shards=3)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine"]


@ways
def test_what_is_there_stays(tmp_path: Path, way: str) -> None:
    """A set of that name is refused, however many files it has, and left as it is."""
    name, write = WAYS[way]
    write(make(10), tmp_path / name)
    before = contents(tmp_path / "set")
    with pytest.raises(RunError, match="exists already; give another --out"):
        write(make(20), tmp_path / name)
    assert contents(tmp_path / "set") == before


def test_names_say_which_of_how_many(tmp_path: Path) -> None:
    """Shards are named as on the hub; the first hold a row more, and other splits may stand beside them."""
    write_shards(make(7), tmp_path / "set/train.parquet", shards=3)
    write_shards(make(5), tmp_path / "set/test.parquet", shard_rows=2)
    sizes = {path.name: pyarrow.parquet.read_metadata(path).num_rows for path in (tmp_path / "set").iterdir()}
    assert sizes == {
        "train-00000-of-00003.parquet": 3,
        "train-00001-of-00003.parquet": 2,
        "train-00002-of-00003.parquet": 2,
        "test-00000-of-00003.parquet": 2,
        "test-00001-of-00003.parquet": 2,
        "test-00002-of-00003.parquet": 1,
    }


def test_all_shards_have_the_columns_of_the_set(tmp_path: Path) -> None:
    """A shard whose rows leave something out has the same schema as the others."""
    rows = [{"id": "0", "label": 1}, {"id": "1", "label": None}, {"id": "2"}]
    write_shards(rows, tmp_path / "set/train.parquet", shard_rows=1)
    schemas = {pyarrow.parquet.read_schema(path) for path in (tmp_path / "set").iterdir()}
    assert len(schemas) == 1


def test_folder_is_one_of_datasets(tmp_path: Path) -> None:
    """`load_from_disk` reads it, with its split; its card is in it."""
    write_folder(make(10), tmp_path / "set", split="validation", card=lambda: "# set\n")
    read = datasets.load_from_disk(str(tmp_path / "set"))
    assert (read.num_rows, str(read.split), list(read)) == (10, "validation", list(make(10)))
    assert (tmp_path / "set/README.md").read_text() == "# set\n"


@pytest.mark.parametrize("way", ["shards", "lines", "folder"])
def test_more_shards_than_rows_are_refused(tmp_path: Path, way: str) -> None:
    """No file of a set is empty."""
    name, write = WAYS[way]
    with pytest.raises(RunError, match=r"^2 rows cannot fill 3 shards; ask for fewer"):
        write(make(2), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_other_columns_are_named(tmp_path: Path) -> None:
    """What Parquet has no place for is an error that names the column, and nothing is lost silently."""
    late = [{"id": "0"}] * 4 + [{"id": "1", "more": "x"}]
    with pytest.raises(DataError, match="column 'more' is not in the rows before, and a column of Parquet"):
        write_shards(late, tmp_path / "set/train.parquet", shard_rows=4)
    with pytest.raises(DataError, match=r"column 'label': .*, and a column of Parquet .* write .jsonl"):
        write_shards([{"label": 1}, {"label": "one"}], tmp_path / "set/train.parquet", shard_rows=4)
    assert list(tmp_path.iterdir()) == []


@ways
def test_rows_are_not_held_in_memory(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many rows take no more memory while they are written."""
    monkeypatch.setattr(files, "GROUP_ROWS", 100)
    name, write = WAYS[way] if way != "parts" else ("rows.jsonl", partial(write_shards, shard_rows=250))

    def peak(count: int) -> int:
        (tmp_path / str(count)).mkdir()
        gc.collect()
        tracemalloc.start()
        write(({"id": str(number), "prompt": "x" * 500} for number in range(count)), tmp_path / str(count) / name)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(8)
    assert peak(2_000) < 1.3 * peak(500)
