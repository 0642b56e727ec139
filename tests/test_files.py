"""Files are written whole or not at all, and never over others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from promptkit.build import iterate_prompts
from promptkit.data import number_rows
from promptkit.errors import RunError
from promptkit.files import GROUP_ROWS, write_rows
from promptkit.prompt import prompt_from_row, prompt_row

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


def test_nothing_is_left_of_a_file_that_broke_off(tmp_path: Path) -> None:
    """After an error on the way there is neither the file nor a piece of it."""

    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise KeyError("stop")

    with pytest.raises(KeyError):
        write_rows(broken(), tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_unknown_ending_and_unwritable_place_are_explained(tmp_path: Path) -> None:
    """What cannot be written is one line with the fix."""
    with pytest.raises(RunError, match=r"cannot write '.xlsx'; allowed: .jsonl, .parquet"):
        write_rows(ROWS, tmp_path / "rows.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written \(.*\); make room there or give another --out"):
        write_rows(ROWS, tmp_path / "file/rows.jsonl")
