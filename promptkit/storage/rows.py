"""Read rows from a local file, one at a time, each with its place."""

from __future__ import annotations

import codecs
import csv
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from promptkit.errors import DataError, InputError, PromptkitWarning
from promptkit.storage.files import LARGEST, LARGEST_DATA, check_readable, open_input, read_input

#: Endings of local files, in the order in which they are looked for.
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Row = Mapping[str, Any]
#: What may stand between the cells of a table, beside a character that is named.
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
#: Characters in a cell of a CSV file at most: the largest number that the reader takes on every system.
_LONGEST_CELL = 2**31 - 1
_OLD_END = re.compile(r"(?<=\r)(?!\n)")
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


@dataclass(frozen=True)
class Cells:
    """How the lines of a CSV or TSV file are cut into cells.

    `delimiter` is what stands between them: by default what the header shows, a comma or, in TSV, a tab before others.
    With `quoting` a cell in double quotes may hold delimiters and line breaks, as CSV has it by default; TSV has no
    quoting unless asked: a quote there is a character as any other.
    """

    delimiter: str | None = None
    quoting: bool | None = None


def parse_delimiter(text: str) -> str:
    """Return the one character that a delimiter is, also from `tab` and `\\t`; raises ValueError for anything else."""
    found = {"tab": "\t", "\\t": "\t"}.get(text, text) if isinstance(text, str) else ""
    if len(found) != 1 or found in '"\r\n\0':
        raise ValueError(f"a delimiter is one character, such as ; or | or tab, found {text!r}")
    return found


def number_rows(path: Path, cells: Cells | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a local file with their line numbers (positions in Parquet and JSON files).

    Raises DataError, with file and line, for what cannot be read.
    """
    for number, row in number_all_rows(path, cells):
        if isinstance(row, DataError):
            raise row
        yield number, row


def number_all_rows(path: Path, cells: Cells | None = None) -> Iterator[tuple[int, Row | DataError]]:
    """Yield the same, with the error in the place of a row that cannot be read where further ones can be."""
    try:
        if path.suffix in (".jsonl", ".json", ".parquet"):
            yield from {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}[path.suffix](path)
        else:
            yield from _read_table(path, cells or Cells())
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """Return what to raise where a file of data cannot be read: no OSError, which would be taken for the output's."""
    if isinstance(error, InputError):
        return DataError(str(error))
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: cannot be read ({reason:.300})")


def place_of(path: Path, number: int) -> str:
    """Return where a numbered row stands: `file:line`, or the file and the row's position where it has no lines."""
    return f"{path}, record {number}" if path.suffix in (".json", ".parquet") else f"{path}:{number}"


def count_rows(path: Path) -> int | None:
    """Return about how many rows a file has, without reading them; None where it cannot be told."""
    try:
        if path.suffix == ".parquet":
            return int(_open_parquet(path).metadata.num_rows)
        with open_input(path) as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    except (OSError, DataError):
        return None  # whoever reads it says why it is none
    return max(0, lines - 1) if path.suffix in (".csv", ".tsv") else lines


def read_class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Return column -> the names that a Parquet file's own schema, as `datasets` writes it, gives its ids."""
    if path.suffix != ".parquet":
        return {}
    try:
        return schema_class_names(_open_parquet(path).schema_arrow)
    except (OSError, DataError):
        return {}  # the reader of the rows says what is broken


def schema_class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return column -> names of every ClassLabel in what `datasets` adds to an Arrow schema."""
    written = (schema.metadata or {}).get(b"huggingface")
    try:
        return find_class_names(orjson.loads(written)["info"]["features"]) if written else {}
    except (ValueError, KeyError, TypeError):
        return {}


def find_class_names(features: Any, above: str = "") -> dict[str, tuple[str, ...]]:
    """Return column -> names of every ClassLabel in what `datasets` writes of its features."""
    found: dict[str, tuple[str, ...]] = {}
    for name, feature in features.items() if isinstance(features, Mapping) else ():
        if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            if isinstance(names, list | tuple) and names and all(isinstance(each, str) for each in names):
                found[f"{above}{name}"] = tuple(names)
        elif isinstance(feature, Mapping):
            found |= find_class_names(feature, f"{above}{name}.")
    return found


def _read_jsonl(path: Path) -> Iterator[tuple[int, Row | DataError]]:
    # Only "\n" ends a line: str.splitlines would also split at characters that JSON strings may hold.
    with open_input(path) as file:
        _skip_mark(path, file)
        for number, line in enumerate(_read_lines(path, file), 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if line.isspace():
                    continue
                reason = f"{error.msg}, at character {error.pos + 1} of the line"
                if not _is_text(line):
                    reason = f"it is not UTF-8, {line[:40]!a}; save the file as UTF-8"
                row = DataError(f"{path}:{number}: not JSON: {reason}; one JSON object per line is expected")
                row.__cause__ = error
            if type(row) is not dict and not isinstance(row, DataError):
                row = DataError(f"{path}:{number}: found {type(row).__name__}; one JSON object per line is expected")
            yield number, row


def _read_json(path: Path) -> Iterator[tuple[int, Row]]:
    with open_input(path) as file:
        _skip_mark(path, file)
    try:
        rows = orjson.loads(read_input(path, LARGEST_DATA).removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}; for one object per line call it .jsonl") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: a list of JSON objects is expected; for one object per line call it .jsonl")
    yield from enumerate(rows)


def _read_lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; raises DataError for one beyond the limit, as in a file that holds no lines."""
    for number, line in enumerate(iter(lambda: file.readline(LARGEST), b""), 1):
        if len(line) == LARGEST:
            raise DataError(f"{path}:{number}: this line has {LARGEST:,} bytes or more; one row a line is expected")
        yield line


def _skip_mark(path: Path, file: BinaryIO) -> None:
    """Pass over the byte order mark of UTF-8; raise DataError for that of another encoding."""
    begin = file.read(4)
    for mark, name in _ENCODINGS.items():
        if begin.startswith(mark):
            raise DataError(f"{path}: is {name}; save it as UTF-8")
    file.seek(len(codecs.BOM_UTF8) if begin.startswith(codecs.BOM_UTF8) else 0)


def _read_table(path: Path, cells: Cells) -> Iterator[tuple[int, Row | DataError]]:
    """Yield the rows of a CSV or TSV file, cut as `cells` says."""
    quoting = path.suffix != ".tsv" if cells.quoting is None else cells.quoting
    with open_input(path) as file:
        _skip_mark(path, file)
        lines = _decode(path, file)
        header = next(lines, None)
        if header is None:
            return
        if "\0" in header:
            raise DataError(f"{path}:1: the header holds NUL bytes; is this UTF-16? Save the file as UTF-8")
        delimiter = cells.delimiter or _find_delimiter(path, header, quoting)
        every = itertools.chain([header], lines)
        rows = _cut_quoted(path, every, delimiter) if quoting else _cut_plain(every, delimiter)
        _, names = next(rows)
        _check_header(f"{path}:1", names)
        for number, row in rows if quoting or cells.quoting is not None else _note_quotes(path, rows):
            if len(row) != len(names):
                yield number, _uneven(path, number, row, names, quoting)
            else:
                yield number, dict(zip(names, row, strict=True))


def _note_quotes(path: Path, rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Yield rows of TSV as they are; warns in the end where most have a cell that a spreadsheet may have quoted."""
    total = quoted = 0
    for number, row in rows:
        total += 1
        quoted += any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in row)
        yield number, row
    if 2 * quoted > total:
        warnings.warn(
            f"{path}: most rows have a cell in double quotes, which are read as part of the text; if a spreadsheet put "
            "them there, give --quoting, or quoting = true under [data] in the task file",
            PromptkitWarning,
            stacklevel=2,
        )


@dataclass(frozen=True)
class Dialect:
    """How a table is written: what stands between its cells, whether cells may be quoted, and what ends a line."""

    delimiter: str
    quoting: bool
    end: str
    names: tuple[str, ...] = ()


def find_dialect(path: Path, cells: Cells | None = None) -> Dialect:
    """Return how a CSV or TSV file is written; a file that is not there yet, by its ending."""
    asked = cells or Cells()
    quoting = path.suffix != ".tsv" if asked.quoting is None else asked.quoting
    header = ""
    if path.exists():
        with open_input(path) as file:
            _skip_mark(path, file)
            header = next(_decode(path, file), "")
    delimiter = asked.delimiter or (_find_delimiter(path, header, quoting) if header else None)
    delimiter = delimiter or ("\t" if path.suffix == ".tsv" else ",")
    line = header.rstrip("\r\n")
    names = next(csv.reader([line], delimiter=delimiter), []) if quoting else line.split(delimiter)
    return Dialect(delimiter, quoting, "\r\n" if header.endswith("\r\n") else "\n", tuple(filter(None, names)))


def _decode(path: Path, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(_read_lines(path, file), 1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8: {error}; save the file as UTF-8") from error


def _cut_plain(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line: nothing but the delimiter and the line's end has a meaning."""
    for number, line in enumerate(lines, 1):
        text = line.removesuffix("\n").removesuffix("\r")
        if text or number == 1:
            yield number, text.split(delimiter)


def _cut_quoted(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row, which may go over several lines, with the number of its last line."""
    csv.field_size_limit(_LONGEST_CELL)  # or 131,072 characters would be the most
    parts = (part for line in lines for part in (_OLD_END.split(line) if "\r" in line else (line,)) if part)
    reader, begun = csv.reader(parts, delimiter=delimiter, strict=True), 1
    try:
        for row in reader:
            if row or begun == 1:
                yield reader.line_num, row
            begun = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{begun}: this row cannot be read: {error}; is a quote not closed? Where quotes are characters as "
            "any other, give --no-quoting, or quoting = false under [data] in the task file"
        ) from error


def _uneven(path: Path, number: int, row: Sequence[str], names: Sequence[str], quoting: bool) -> DataError:
    fix = "write a cell that holds it in quotes" if quoting else "a cell that holds it needs quotes, and --quoting"
    return DataError(
        f"{path}:{number}: this row does not have the header's {len(names)} columns, but {len(row)}; "
        f"where the delimiter stands in a cell, {fix}"
    )


def _find_delimiter(path: Path, header: str, quoting: bool) -> str:
    """Return what stands between the names of a header; raises DataError where it may be several characters."""
    line = header.rstrip("\r\n")
    found = [each for each in DELIMITERS if _cuts(line, each, quoting)]
    if path.suffix == ".tsv" and "\t" in found:
        return "\t"
    if len(found) > 1:
        ways = " and ".join(DELIMITERS[each] for each in found)
        raise DataError(
            f"{path}:1: {ways} may stand between the columns of the header {line!r:.100}; say which with --delimiter, "
            "or delimiter under [data] in the task file"
        )
    return found[0] if found else "\t" if path.suffix == ".tsv" else ","


def _cuts(line: str, delimiter: str, quoting: bool) -> bool:
    """Whether a delimiter makes several cells of a line."""
    if delimiter not in line or not quoting:
        return delimiter in line
    try:
        return any(len(row) > 1 for row in csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return False


def _check_header(place: str, names: Sequence[str]) -> None:
    """Raise DataError where two columns have one name: nothing says which of them is meant."""
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{place}: {count} columns are called {name!r}; give each a name of its own")


def _is_text(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _open_parquet(path: Path) -> Any:
    """Return a Parquet file, opened; raises DataError for what is none."""
    import pyarrow
    import pyarrow.parquet

    check_readable(path)
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise _no_parquet(path, error) from error


def _no_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a Parquet file, or a damaged one: {' '.join(str(error).split()):.300}")


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    file = _open_parquet(path)
    names = file.schema_arrow.names
    _check_header(str(path), names)
    batches = (zip(*_list_columns(path, names, columns), strict=True) for columns in _read_batches(path, file))
    yield from enumerate(dict(zip(names, values, strict=True)) for batch in batches for values in batch)


def _read_batches(path: Path, file: Any) -> Iterator[Sequence[Any]]:
    """Yield the columns of each batch; raises DataError where the file is damaged on the way."""
    import pyarrow

    batches = file.iter_batches()
    while True:
        try:
            batch = next(batches, None)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _no_parquet(path, error) from error
        if batch is None:
            return
        yield batch.columns


def iterate_batches(path: Path) -> Iterator[Any]:
    """Yield the record batches of a Parquet file, an empty one first; raises DataError where it is damaged."""
    import pyarrow

    file = _open_parquet(path)
    yield pyarrow.RecordBatch.from_pylist([], schema=file.schema_arrow)
    for columns in _read_batches(path, file):
        yield pyarrow.RecordBatch.from_arrays(list(columns), schema=file.schema_arrow)


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
