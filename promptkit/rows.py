"""A local file into rows, one at a time, each with its place."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from promptkit.errors import DataError, InputError
from promptkit.files import LARGEST, LARGEST_DATA, check_readable, open_input, read_input

#: Endings of local files, in the order in which they are looked for.
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Row = Mapping[str, Any]
#: Characters in a cell of a CSV file at most: the largest number that the reader takes on every system.
_LONGEST_CELL = 2**31 - 1


def number_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a local file with their line numbers (positions in Parquet and JSON files).

    Raises DataError, with file and line, for what cannot be read.
    """
    read = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}.get(path.suffix, _read_csv)
    try:
        yield from read(path)
    except InputError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def place_of(path: Path, number: int) -> str:
    """Return where a numbered row stands: `file:line`, or the file and the row's position where it has no lines."""
    return f"{path}, record {number}" if path.suffix in (".json", ".parquet") else f"{path}:{number}"


def _read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    # Only "\n" ends a line: str.splitlines would also split at characters that JSON strings may hold.
    with open_input(path) as file:
        file.seek(len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0)
        for number, line in enumerate(iter(lambda: file.readline(LARGEST), b""), 1):
            if len(line) == LARGEST:
                raise DataError(f"{path}:{number}: this line has {LARGEST:,} bytes or more; one row a line is expected")
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if line.isspace():
                    continue
                reason = f"{error.msg}, at character {error.pos + 1} of the line"
                raise DataError(f"{path}:{number}: not JSON: {reason}; one JSON object per line is expected") from error
            if type(row) is not dict:
                raise DataError(f"{path}:{number}: found {type(row).__name__}; one JSON object per line is expected")
            yield number, row


def _read_json(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        rows = orjson.loads(read_input(path, LARGEST_DATA).removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}; for one object per line call it .jsonl") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: a list of JSON objects is expected; for one object per line call it .jsonl")
    yield from enumerate(rows)


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(_LONGEST_CELL)  # or 131,072 characters would be the most
    with io.TextIOWrapper(open_input(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        begun = 1
        try:
            _check_header(f"{path}:1", reader.fieldnames or ())
            begun = reader.line_num + 1
            for row in reader:
                if None in row or None in row.values():
                    expected = len(reader.fieldnames or ())
                    raise DataError(f"{path}:{reader.line_num}: this row does not have the header's {expected} columns")
                yield reader.line_num, row
                begun = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}:{begun}: this row cannot be read: {error}; is a quote not closed?") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{_find_undecodable(path)}: not UTF-8: {error}; save the file as UTF-8") from error


def _check_header(place: str, names: Sequence[str]) -> None:
    """Raise DataError where two columns have one name: nothing says which of them is meant."""
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{place}: {count} columns are called {name!r}; give each a name of its own")


def _find_undecodable(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with open_input(path) as file:
        return next(number for number, line in enumerate(file, 1) if not _is_text(line))


def _is_text(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    check_readable(path)
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        _check_header(str(path), names)
        batches = (zip(*_list_columns(path, names, batch.columns), strict=True) for batch in file.iter_batches())
        yield from enumerate(dict(zip(names, values, strict=True)) for batch in batches for values in batch)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error


def _list_columns(path: Path, names: Sequence[str], columns: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the values of each column; DataError for one with a value that Python does not have."""
    import pyarrow

    for name, column in zip(names, columns, strict=True):
        try:
            yield column.to_pylist()
        except (pyarrow.ArrowException, OverflowError, ValueError) as error:
            raise DataError(
                f"{path}: the column {name!r} ({column.type}) holds what cannot be read: {error}; write it as text, or "
                "leave the column out"
            ) from error
