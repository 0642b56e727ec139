"""Files are written whole or not at all, and never over others."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from promptkit.build import iterate_prompts
from promptkit.errors import RunError
from promptkit.files import GROUP_ROWS, new_file, new_folder, write_rows
from promptkit.prompt import prompt_from_row, prompt_row
from promptkit.rows import number_rows

ROWS: list[dict[str, Any]] = [{"id": str(number), "text": "é\n\u2028", "choices": ["a", "b"]} for number in range(5)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    """Both formats keep rows in order, with every character."""
    path = tmp_path / f"new/rows{suffix}"
    assert write_rows(iter(ROWS), path) == 5
    assert [row for _, row in number_rows(path)] == ROWS


def test_parquet_is_written_in_parts(tmp_path: Path) -> None:
    """Rows beyond one group make another row group of the same schema."""
    rows = ({"id": str(number)} for number in range(GROUP_ROWS + 1))
    write_rows(rows, tmp_path / "rows.parquet")
    assert pyarrow.parquet.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 2


@pytest.mark.parametrize(("choices", "label"), [(["a", "b"], 1), ([], "free text")])
def test_labels_may_come_late(tmp_path: Path, choices: list[str], label: int | str) -> None:
    """Where no row of the first group has a label, a later one may have: an index into choices, or a text."""
    rows: list[dict[str, Any]] = [
        {"id": str(number), "choices": choices, "label": None} for number in range(GROUP_ROWS)
    ]
    write_rows([*rows, {"id": "last", "choices": choices, "label": label}], tmp_path / "rows.parquet")
    assert [row["label"] for _, row in number_rows(tmp_path / "rows.parquet")] == [None] * GROUP_ROWS + [label]


def test_mixed_rows_keep_every_column(tmp_path: Path) -> None:
    """Rows that say how to write an answer may follow rows that do not, and empty lists keep their type."""
    plain, cot = (next(iterate_prompts("reviews", f"sentiment/{name}", limit=1)) for name in ("plain", "cot"))
    write_rows(map(prompt_row, [plain, cot]), tmp_path / "rows.parquet")
    read = [prompt_from_row(row) for _, row in number_rows(tmp_path / "rows.parquet")]
    assert read == [plain, cot]
    assert pyarrow.parquet.read_schema(tmp_path / "rows.parquet").field("demonstration_ids").type.value_type == "string"


def test_existing_file_is_kept(tmp_path: Path) -> None:
    """A path that exists is refused and left as it is."""
    path = tmp_path / "rows.jsonl"
    path.write_text("mine")
    with pytest.raises(RunError, match=r"rows.jsonl: exists already; give another --out, or remove it first"):
        write_rows(ROWS, path)
    assert path.read_text() == "mine"


def interrupted(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows; while they are written, something comes to `path`."""
    yield ROWS[0]
    path.write_text("mine")
    yield ROWS[1]


@pytest.mark.parametrize("links", [True, False])
def test_what_comes_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """A file that somebody makes while rows are written stays, also where there are no hard links."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(RunError, match=r"rows.jsonl: exists already; give another --out"):
        write_rows(interrupted(path), path)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("rows.jsonl", "mine")]


def no_links(*_: Path) -> None:
    """Do what a file system without hard links does."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_files_are_written_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system has no hard links, the file has its name all the same, and nothing else is left."""
    monkeypatch.setattr(os, "link", no_links)
    write_rows(ROWS, tmp_path / "rows.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_folder_that_comes_meanwhile_is_kept(tmp_path: Path) -> None:
    """A folder that somebody makes at the same place meanwhile is left as it is, also an empty one."""

    def fill() -> None:
        with new_folder(tmp_path / "set") as folder:
            (folder / "rows").write_text("ours")
            (tmp_path / "set").mkdir()

    with pytest.raises(RunError, match="set: exists already"):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["set"]


def test_a_link_to_nothing_is_kept(tmp_path: Path) -> None:
    """A dangling symbolic link is something that is there."""
    path = tmp_path / "rows.jsonl"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"rows.jsonl: exists already"):
        write_rows(ROWS, path)
    assert path.is_symlink()


def test_a_cell_may_be_written_twice(tmp_path: Path) -> None:
    """With `replace`, what is there already gives way: several processes may write the same cell."""
    for text in (b"one", b"two"):
        with new_file(tmp_path / "cell", replace=True) as file:
            file.write(text)
    assert (tmp_path / "cell").read_bytes() == b"two"


def test_nothing_is_left_of_a_file_that_broke_off(tmp_path: Path) -> None:
    """After an error on the way there is neither the file nor a piece of it."""

    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise KeyError("stop")

    with pytest.raises(KeyError):
        write_rows(broken(), tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_new_folders_go_when_nothing_comes_into_them(tmp_path: Path) -> None:
    """After an error, folders that were made for the file are gone, and those that hold something stay."""
    (tmp_path / "there").mkdir()
    path = tmp_path / "there/new/deep/rows.jsonl"

    def broken() -> Iterator[dict[str, Any]]:
        assert path.parent.is_dir()
        yield ROWS[0]
        raise OSError("no room")

    with pytest.raises(RunError, match="no room"):
        write_rows(broken(), path)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with pytest.raises(RunError, match="no room"):
        write_rows((row for row in broken() if (path.parents[1] / "mine").write_text("mine")), path)
    assert {path.name for path in tmp_path.rglob("*")} == {"there", "new", "mine"}


def test_unknown_ending_and_unwritable_place_are_explained(tmp_path: Path) -> None:
    """What cannot be written is one line with the fix."""
    with pytest.raises(RunError, match=r"cannot write '.xlsx'; allowed: .jsonl, .parquet"):
        write_rows(ROWS, tmp_path / "rows.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written \(.*\); make room there or give another --out"):
        write_rows(ROWS, tmp_path / "file/rows.jsonl")
