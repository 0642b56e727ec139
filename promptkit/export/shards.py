"""Write rows to several files or a `datasets` folder: all of them appear, or none.

Rows are written as they come and never held in memory, so a set may be larger than it. What is written is a function
of the rows: the same rows give the same bytes under the same names.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.errors import RunError
from promptkit.storage.files import (
    Columns,
    find_writer,
    iterate_tables,
    new_folder,
    stage,
)
from promptkit.storage.row_folders import check_no_shards
from promptkit.storage.rows import number_rows

if TYPE_CHECKING:
    import datasets

Rows = Iterable[Mapping[str, Any]]


def write_shards(rows: Rows, path: Path, *, shards: int | None = None, shard_rows: int | None = None) -> int:
    """Write rows to `shards` files, or else to files of `shard_rows`, and return how many rows.

    `FOLDER/train.parquet` stands for `FOLDER/train-00000-of-00008.parquet` and so on. Their order is that of the
    rows; with `shards`, the first files hold a row more where the rows cannot be shared out evenly. A new folder is
    moved to its name when it is complete. In a folder that is there already, complete files are moved one by one,
    which is undone after an error.

    Raises RunError where there are such files already, or fewer rows than shards, and for what `write_rows` raises.
    """
    find_writer(path)
    check_no_shards(path)
    new = not path.parent.exists()

    def write(parts: Path) -> int:
        return _write_counted(rows, parts, shards) if shards else _write_parts(rows, parts, shard_rows or 1)

    if new:
        with new_folder(path.parent) as folder:
            return write(folder / path.name)
    with stage(path) as place:
        count = write(place.folder / path.name)
        place.publish(sorted(place.folder.iterdir()))
    return count


def write_folder(
    rows: Rows, path: Path, *, split: str, shards: int | None = None, card: Callable[[], str] | None = None
) -> int:
    """Write rows to a new folder that `datasets.load_from_disk` reads, and return how many.

    `shards` is the number of its files; by default `datasets` decides by their size. `card` is asked, after the last
    row, for the text of README.md. Raises RunError where `path` exists or cannot be written.
    """
    with new_folder(path) as folder:
        dataset = _spool_dataset(rows, folder / "spool", split)
        _check_enough(len(dataset), shards or 1)
        with _quiet():
            dataset.save_to_disk(str(folder), num_shards=shards)
        shutil.rmtree(folder / "spool")
        if card:
            (folder / "README.md").write_text(card(), encoding="utf-8")
        return len(dataset)


def shard_name(path: Path, number: int, count: int) -> str:
    """Return the file name of one of `count` shards of FOLDER/NAME.ENDING."""
    return f"{path.stem}-{number:05d}-of-{count:05d}{path.suffix}"


def _check_enough(count: int, shards: int) -> None:
    if count < shards:
        raise RunError(f"{count:,} rows cannot fill {shards:,} shards; ask for fewer")


def _write_parts(rows: Rows, path: Path, size: int) -> int:
    """Write files of `size` rows; they are named at the end, for a name says how many files there are."""
    iterator, columns, count = iter(rows), Columns(), 0
    parts: list[Path] = []
    for first in iterator:
        parts.append(path.with_name(f"part-{len(parts)}"))
        count += _write_part(itertools.chain([first], itertools.islice(iterator, size - 1)), parts[-1], path, columns)
    _check_enough(count, 1)
    for number, part in enumerate(parts):
        part.rename(path.with_name(shard_name(path, number, len(parts))))
    return count


def _write_counted(rows: Rows, path: Path, shards: int) -> int:
    """Write so many files of nearly equal size: the rows are counted first, in a file that is read back."""
    spool = path.with_name("spool.jsonl")
    with spool.open("wb") as file:
        count = find_writer(spool)(rows, file, Columns())
    _check_enough(count, shards)
    spooled, columns = (row for _, row in number_rows(spool)), Columns()
    for number in range(shards):
        part = itertools.islice(spooled, count // shards + (number < count % shards))
        _write_part(part, path.with_name(shard_name(path, number, shards)), path, columns)
    spool.unlink()
    return count


def _write_part(rows: Rows, part: Path, path: Path, columns: Columns) -> int:
    with part.open("wb") as file:
        count = find_writer(path)(rows, file, columns)
        file.flush()
        os.fsync(file.fileno())
    return count


def _spool_dataset(rows: Rows, folder: Path, split: str) -> datasets.Dataset:
    """Return rows as a data set mapped from a file in `folder`, whose fingerprint is that of its bytes."""
    import datasets
    import pyarrow
    from datasets.table import MemoryMappedTable

    folder.mkdir()
    spool, tables = folder / "rows.arrow", iterate_tables(rows, Columns())
    first = next(tables)
    with pyarrow.ipc.new_stream(str(spool), first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)
    with spool.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    table = MemoryMappedTable.from_file(str(spool))
    return datasets.Dataset(table, split=datasets.NamedSplit(split), fingerprint=fingerprint)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars of `datasets` off the terminal."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
