"""Write predictions beside the rows that they are of, as JSONL, CSV, TSV or Parquet."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from promptkit.errors import DataError
from promptkit.storage.csv_rows import make_row_writer, quote_formula
from promptkit.storage.files import GROUP_ROWS, Columns
from promptkit.storage.rows import Dialect, find_dialect, iterate_batches

if TYPE_CHECKING:
    import pyarrow

Row = Mapping[str, Any]
#: An input row with what is predicted of it.
Answered = tuple[Row, Row]


@dataclass(frozen=True)
class Fields:
    """What a prediction adds to its row: `types` are its columns in Parquet, and `labels` those of all records."""

    labels: tuple[str, ...]
    types: Mapping[str, pyarrow.DataType]
    prefix: str = ""

    @property
    def names(self) -> set[str]:
        """The names that no column of the input may have."""
        return {self.prefix + name for name in (*self.types, *self.flat) if name != "id"}

    @property
    def flat(self) -> list[str]:
        """The columns of a table: a probability per label in the place of objects."""
        single = [f"probability_{label}" for label in self.labels] or ["probabilities"]
        names = {"predicted": ["predicted"], "confidence": ["confidence"], "probabilities": single}
        return [*itertools.chain.from_iterable(names.get(name, []) for name in self.types), *self._generated()]

    def _generated(self) -> list[str]:
        return ["generated"] if "generated" in self.types else []

    def flatten(self, own: Row) -> list[str]:
        """Return the cells of a table, in the order of `flat`."""
        found = dict(own)
        if self.labels:
            found |= {f"probability_{label}": share for label, share in own.get("probabilities", {}).items()}
        return [_cell(found.get(name)) for name in self.flat]

    def put(self, row: Row, own: Row) -> dict[str, Any]:
        """Return a row with what is predicted, under the prefix; an id is added where the row has none."""
        added = {self.prefix + name: own[name] for name in self.types if name != "id" and name in own}
        return {**({} if "id" in row else {"id": own["id"]}), **row, **added}

    def shape(self, own: Row) -> dict[str, Any]:
        """Return what is predicted as Parquet holds it: choices that differ from record to record as a list."""
        if self.labels or "scores" not in own:
            return dict(own)
        listed = {
            name: [{"choice": choice, value: number} for choice, number in own[name].items()]
            for name, value in (("scores", "score"), ("probabilities", "probability"))
        }
        return {**own, **listed}


def find_writer(
    out: Path, source: Path, dialect: Dialect | None, fields: Fields
) -> Callable[[Callable[[], Iterator[Answered]], BinaryIO], None]:
    """Return what writes rows with their predictions to an open file of this ending.

    It is given what yields the answered rows, as often as it is called. `dialect` is that of the input where it is a
    table of the same ending.
    """

    def write(answered: Callable[[], Iterator[Answered]], file: BinaryIO) -> None:
        if out.suffix == ".parquet":
            _write_parquet(answered(), file, fields, source if source.suffix == ".parquet" else None)
        elif out.suffix == ".jsonl":
            for row, own in answered():
                file.write(write_json(fields.put(row, own)) + b"\n")
        else:
            rows = (row for row, _ in answered())  # of a table all rows have the same columns
            is_table = source.suffix in (".csv", ".tsv")
            shown = itertools.islice(rows, 1) if is_table else rows
            names = list(dict.fromkeys(itertools.chain.from_iterable(shown)))
            names = names or (list(dialect.names) if dialect else [])
            dialect_of_out = dialect or replace(find_dialect(out), quoting=True)
            _write_table(answered(), file, fields, names, dialect_of_out, _users_cell if is_table else _guarded_cell)

    return write


def write_json(row: Row) -> bytes:
    """Return a row as JSON; values that JSON has not, such as dates of Parquet, as text."""
    try:
        return orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:
        raise DataError(f"the row with id {row.get('id')!r} cannot be written as JSON: {error}") from error


def _cell(value: Any) -> str:
    """Return a value of our own as a cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return quote_formula(value)
    return repr(value) if isinstance(value, float) else orjson.dumps(value).decode()


def _users_cell(value: Any) -> str:
    """Return a value of the user's as a cell: text as it is."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else orjson.dumps(value, default=str).decode()


def _guarded_cell(value: Any) -> str:
    """Return a value of the user's that was in no table before: what a spreadsheet would run has an apostrophe."""
    return quote_formula(value) if isinstance(value, str) else _users_cell(value)


def _write_table(
    answered: Iterable[Answered],
    file: BinaryIO,
    fields: Fields,
    names: list[str],
    dialect: Dialect,
    write_cell: Callable[[Any], str],
) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    put = _quoted(text, dialect) if dialect.quoting else _plain(text, dialect)
    put([write_cell(name) for name in names], [quote_formula(fields.prefix + name) for name in fields.flat])
    for row, own in answered:
        put([write_cell(row.get(name)) for name in names], fields.flatten(own))
    text.detach()


def _quoted(text: io.TextIOWrapper, dialect: Dialect) -> Callable[[list[str], list[str]], object]:
    write_row = make_row_writer(text, delimiter=dialect.delimiter, end=dialect.end)
    return lambda cells, own: write_row([*cells, *own])


def _plain(text: io.TextIOWrapper, dialect: Dialect) -> Callable[[list[str], list[str]], object]:
    """Write cells without quotes; a delimiter or a line's end within one of our own is written as `\\t` or `\\n`."""
    marks = {"\n": "\\n", "\r": "\\r", dialect.delimiter: "\\t" if dialect.delimiter == "\t" else " "}

    def put(cells: list[str], own: list[str]) -> None:
        clean = ["".join(marks.get(sign, sign) for sign in cell) for cell in own]
        text.write(dialect.delimiter.join([*cells, *clean]) + dialect.end)

    return put


def _write_parquet(answered: Iterator[Answered], file: BinaryIO, fields: Fields, source: Path | None) -> None:
    import pyarrow
    import pyarrow.parquet

    own_schema = pyarrow.schema(dict(fields.types))
    columns, writer = Columns(), None
    tables = _tables_of(answered, source, columns)
    try:
        for table, own in tables:
            added = pyarrow.Table.from_pylist([fields.shape(each) for each in own], schema=own_schema)
            for name in own_schema.names:
                if name != "id":
                    table = table.append_column(fields.prefix + name, added[name])
                elif "id" not in table.column_names:
                    table = table.add_column(0, "id", added[name])
            writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def _tables_of(
    answered: Iterator[Answered], source: Path | None, columns: Columns
) -> Iterator[tuple[pyarrow.Table, list[Row]]]:
    """Yield the input's columns, and what is predicted of these rows: of Parquet as they are, with their types."""
    import pyarrow

    if source is None:
        first = True
        while (group := list(itertools.islice(answered, GROUP_ROWS))) or first:
            table = columns.table([row for row, _ in group])
            yield table, [own for _, own in group]
            first = False
        return
    position, found = 0, next(answered, None)
    for batch in iterate_batches(source):
        kept, own = [], []
        for offset in range(batch.num_rows):
            if found and found[1]["at"] == position + offset:
                kept.append(offset)
                own.append(found[1])
                found = next(answered, None)
        position += batch.num_rows
        yield pyarrow.Table.from_batches([batch]).take(pyarrow.array(kept, pyarrow.int64())), own
