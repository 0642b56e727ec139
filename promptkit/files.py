"""Rows into files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from promptkit.errors import RunError

if TYPE_CHECKING:
    import pyarrow

_SERIAL = itertools.count()
#: Rows per Parquet row group.
GROUP_ROWS = 10_000


def check_free(path: Path) -> None:
    """Raise RunError where something is at `path` already: nothing is ever overwritten."""
    if path.exists():
        raise RunError(f"{path}: exists already; give another --out, or remove it first")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` when the block has ended, and not at all after an error or a kill.

    Raises RunError where it cannot be written: no permission, no room.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def unwritable(path: Path, error: OSError) -> RunError:
    """Return what to raise where `path` cannot be written."""
    return RunError(f"{path}: cannot be written ({error.strerror or error}); make room there or give another --out")


def temporary_path(path: Path) -> Path:
    """Return a name beside `path` that no other writer uses and that says who writes it."""
    return path.with_name(f".{path.name}.{host_mark()}.{os.getpid()}.{next(_SERIAL)}.tmp")


def host_mark() -> str:
    """Return a mark of this machine that does not tell its name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows as they come to a new .jsonl or .parquet file; return how many.

    Raises RunError for another ending, a path that exists, and a file that cannot be written.
    """
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise RunError(f"{path}: cannot write {path.suffix or 'a file without an ending'!r}; allowed: .jsonl, .parquet")
    check_free(path)
    with new_file(path) as file:
        return writers[path.suffix](rows, file)


def _write_jsonl(rows: Iterable[Mapping[str, Any]], file: BinaryIO) -> int:
    count = 0
    for row in rows:
        file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        count += 1
    return count


def rows_to_table(rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema | None = None) -> pyarrow.Table:
    """Return rows of prompts or pairs as an Arrow table; columns that happen to be empty keep their types."""
    import pyarrow

    if schema is not None:
        return pyarrow.Table.from_pylist(list(rows), schema=schema)
    texts = pyarrow.list_(pyarrow.string())
    types = {
        "choices": texts,
        "demonstration_ids": texts,
        "generation": pyarrow.struct({"stop": texts, "max_tokens": pyarrow.int64(), "answer": pyarrow.string()}),
    }
    found = pyarrow.Table.from_pylist(list(rows)).schema
    fields = [pyarrow.field(field.name, types.get(field.name, field.type)) for field in found]
    return pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(fields))


def _write_parquet(rows: Iterable[Mapping[str, Any]], file: BinaryIO) -> int:
    import pyarrow.parquet

    iterator, count, writer = iter(rows), 0, None
    while batch := list(itertools.islice(iterator, GROUP_ROWS)):
        table = rows_to_table(batch, writer.schema if writer else None)
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
        count += len(batch)
    if writer:
        writer.close()
    return count
