"""Load the records of one split, from the hub, files, rows in memory or a generator."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptkit.data.folders import check_data_inside, find_split, read_feature_names
from promptkit.data.labels import LabelColumn, Reading, find_truths, match_class_name
from promptkit.data.local import Data, DataFiles, RowSets, as_data
from promptkit.data.patterns import compile_pattern
from promptkit.data.record import Record
from promptkit.data.tasks import SPLITS, Column, Task
from promptkit.errors import DataError, PatternError, PromptkitWarning, RecordError, nearest
from promptkit.storage.files import check_readable, is_there
from promptkit.storage.paths import display_path
from promptkit.storage.rows import (
    SUFFIXES,
    Cells,
    Row,
    count_rows,
    find_class_names,
    number_all_rows,
    number_rows,
    place_of,
    read_class_names,
    unreadable,
)

#: What local files of a split are called beside its own name.
_SPELLINGS = {"validation": ("dev", "valid", "val")}
#: Whole numbers up to this one are floats without a loss; readers make floats of integers beyond 64 bits.
_EXACT = 2**53
_TEXTS = {str}
_SKIP = '; bad_records = "skip" in the task file leaves such records out'
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_records(
    task: Task,
    split: str,
    *,
    data: Data | None = None,
    limit: int | None = None,
    seed: int = 0,
    labelled: bool = True,
) -> list[Record]:
    """Return the records of one split, in the data's order, or `limit` of them.

    With `limit`, the records are the first `limit` of the split after a shuffle that depends on
    `seed` and the record ids alone, so that a smaller limit is a prefix of a larger one.

    Raises DataError for a limit below 1, for an empty split and for everything that `iterate_records` raises.
    """
    records: Iterable[Record] = iterate_records(task, split, data=data, labelled=labelled)
    kept = list(records) if limit is None else sample_records(records, check_limit(limit), seed=seed)
    if not kept:
        raise DataError(f"split {split!r} of task {task.name!r} has no records ({describe_source(task, split, data)})")
    return kept


def check_limit(limit: int) -> int:
    """Return the limit; raises DataError where it is below 1."""
    if not isinstance(limit, int) or limit < 1:
        raise DataError(f"limit is {limit!r}; a whole number from 1 is expected, or none for all records")
    return limit


def sample_records(records: Iterable[Record], count: int, *, seed: int) -> list[Record]:
    """Return the first `count` of `records` after a shuffle by the hash of (seed, record id)."""
    return heapq.nsmallest(count, records, key=lambda record: hash_order(seed, record.id))


def hash_order(seed: int | str, name: str) -> bytes:
    """Return a key that sorts names into an order which depends on `seed` and each name alone."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def iterate_records(task: Task, split: str, *, data: Data | None = None, labelled: bool = True) -> Iterator[Record]:
    """Yield the records of one split, one at a time, so that a split may be larger than memory.

    `data` is a folder with one file per split, or one file, and replaces the task's own source. A
    record's id is its `id` column or, where that is missing or null, `split-position`; of one file
    `test-position`, whatever the split: it is the same record. With `labelled` false, records may lack
    their label.

    Raises DataError, with file and line, for a line that cannot be read, a column that is missing, a
    label that is not the task's, and a value that is null.
    """
    given = as_data(data)
    source = _open_source(task, split, given)
    read = _Reader(task, "test" if is_one_file(given) else split, labelled, given, source.class_names)
    left_out, first = 0, ""
    for position, (number, row) in enumerate(source.rows):
        try:
            record = read(row, position)
        except RecordError as error:
            if task.bad_records != "skip":
                raise RecordError(f"{source.place(number)}: {error}") from error
            left_out, first = left_out + 1, first or f"{source.place(number)}: {error}"
            continue
        except _PlacedError:
            raise
        except DataError as error:
            raise DataError(f"{source.place(number)}: {error}") from error
        yield record
    if left_out:
        first = first.removesuffix(_SKIP)
        message = f"{left_out:,} of {position + 1:,} records were left out as bad, the first of them {first}"
        warnings.warn(message, PromptkitWarning, stacklevel=2)


@dataclass(frozen=True, slots=True)
class Query:
    """A row of a file that is to be answered: its place, what it holds, and its record, or why it makes none."""

    place: str
    row: Row
    record: Record | None
    error: DataError | None = None


def iterate_queries(task: Task, data: Data) -> Iterator[Query]:
    """Yield every row of a file as a record that needs no label: what its label column holds is never looked at.

    A row that cannot be read or makes no record comes with its error. Raises DataError where nothing more can be read.
    """
    path, cells = find_table(task, data)
    read = _Reader(task, "test", False, as_data(data))
    for position, (number, row) in enumerate(number_all_rows(path, cells)):
        place = place_of(path, number)
        if isinstance(row, DataError):
            yield Query(place, {}, None, DataError(str(row).removeprefix(f"{place}: ")))
            continue
        try:
            yield Query(place, row, read.read_query(row, position))
        except DataError as error:
            yield Query(place, row, None, error)


def find_table(task: Task, data: Data) -> tuple[Path, Cells]:
    """Return the file that rows to be answered are in, and how its cells are cut."""
    given = as_data(data)
    [path] = _find_files(task, "test", given)
    return path, _find_cells(task, given if isinstance(given, DataFiles) else None)


def is_one_file(data: Data | None) -> bool:
    """Return whether local data are one file, or one set of rows, for all splits."""
    given = as_data(data)
    return given is not None and given.is_one


def count_records(task: Task, split: str, data: Data | None = None) -> int | None:
    """Return about how many records a split has, told from its source without reading them; None where nothing says."""
    given = as_data(data)
    if isinstance(given, RowSets):
        return given.count(_find_set(task, split, given))
    files = _find_files(task, split, given)
    if not files:
        size = getattr(task.data, split, None)
        return size if isinstance(size, int) else None
    counts = [count_rows(path) for path in files]
    return None if None in counts else sum(filter(None, counts))


def describe_source(task: Task, split: str, data: Data | None) -> str:
    """Return in words where a split comes from."""
    given = as_data(data)
    if isinstance(given, RowSets):
        return given.describe(_find_set(task, split, given))
    files = _find_files(task, split, given)
    if len(files) == 1:
        return display_path(files[0])
    if task.data.generator:
        return f"generator {task.data.generator!r}"
    return _name_data_set(task, getattr(task.data, split))


def place_record(task: Task, split: str, data: Data | None, position: int) -> str:
    """Return where the record at a position of a split stands, as `file:line`; the source is read up to there."""
    source = _open_source(task, split, as_data(data))
    number, _ = next(itertools.islice(source.rows, position, None))
    return source.place(number)


class _Reader:
    """Rows into records."""

    def __init__(
        self,
        task: Task,
        split: str,
        labelled: bool,
        data: DataFiles | RowSets | None = None,
        class_names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.task, self.split, self.labelled, self.data = task, split, labelled, data
        self.inputs = {name: task.fields[name] for name in task.input_fields}
        setting = _find_setting(task, data)
        self.class_names = {} if setting in ("index0", "index1") else dict(class_names or {})
        self.column = LabelColumn(task.labels, setting, self._read_labels)
        self.known: dict[Any, int] = {}
        self.is_simple = bool(task.labels) and not task.has_rationales and not task.has_choices
        self.is_simple &= not find_truths(task.labels or ()) and not self.class_names and setting != "index1"
        self.is_simple &= not any(column.extracts for column in task.fields.values()) and "id" not in task.fields
        self.columns = [(name, column.column[0]) for name, column in self.inputs.items()]
        self.label_column = task.fields["label"].column[0]

    def __call__(self, row: Row, position: int) -> Record:
        # The same as below for texts, of which most data sets are, at a third of the time.
        if self.is_simple:
            try:
                fields = {name: row[column] for name, column in self.columns}
                label = self.known[row[self.label_column]]
            except (KeyError, TypeError):
                return self._read(row, position)
            if {*map(type, fields.values())} == _TEXTS:
                return Record(self._name(row.get("id"), position), fields, label)
        return self._read(row, position)

    def _read(self, row: Row, position: int) -> Record:
        fields = {name: self._value(column, row, name) for name, column in self.inputs.items()}
        choices = self._choices(row)
        return Record(self._id(row, position), fields, self._label(row, choices), self._rationale(row), choices)

    def read_query(self, row: Row, position: int) -> Record:
        """Return the record without what is to be told: its label and rationale may be missing, null or unknown."""
        fields = {name: self._value(column, row, name) for name, column in self.inputs.items()}
        return Record(self._id(row, position), fields, None, None, self._choices(row))

    def _value(self, column: Column, row: Row, name: str) -> Any:
        value = _lookup(column, row, name)
        if value is _MISSING:
            raise self._miss(column, row, name)
        if _is_null(value):
            raise RecordError(f"the field {name!r} is null; every record needs a value")
        if isinstance(value, bytes):
            raise DataError(f"the field {name!r} holds bytes, {value!r:.60}; write the column as text")
        _check_exact(f"the field {name!r} is", value)
        return _extract(column, value, name)

    def _miss(self, column: Column, row: Row, name: str) -> DataError:
        columns = ", ".join(map(str, row))
        wanted = " or ".join(repr(candidate) for candidate in column.column)
        near = nearest(column.column[0], row)
        cut = " Or is --delimiter needed?" if len(row) == 1 and isinstance(self.data, DataFiles | None) else ""
        return DataError(
            f"no column {wanted} for the field {name!r} of task {self.task.name!r} (columns: {columns}).{near}{cut} A "
            f'task file of your own says which column it is: {name} = "COLUMN" under [fields]'
        )

    def _id(self, row: Row, position: int) -> str:
        column = self.task.fields.get("id")
        value = self._value(column, row, "id") if column else row.get("id")
        return self._name(value, position)

    def _name(self, value: Any, position: int) -> str:
        if _is_null(value):
            return f"{self.split}-{position}"
        _check_exact("id is", value)
        return str(value)

    def _rationale(self, row: Row) -> str | None:
        column = self.task.fields.get("rationale")
        value = _MISSING if column is None else _lookup(column, row, "rationale")
        if column is None or value is _MISSING or _is_null(value):
            return None
        return _as_text(self._value(column, row, "rationale"), "rationale")

    def _choices(self, row: Row) -> tuple[str, ...] | None:
        column = self.task.fields.get("choices")
        if column is None:
            return None
        value = self._value(column, row, "choices")
        if isinstance(value, list | tuple) and any(_is_null(choice) or choice == "" for choice in value):
            raise RecordError(
                f"choices {value!r:.200} hold one that is null or empty; every choice needs a text{_SKIP}"
            )
        if not isinstance(value, list | tuple) or len(value) < 2 or len(set(map(str, value))) < len(value):
            raise RecordError(f"choices {value!r:.200} are not a list of two or more different texts{_SKIP}")
        return tuple(_as_text(choice, "choices") for choice in value)

    def _label(self, row: Row, choices: tuple[str, ...] | None) -> int | str | None:
        value = self._label_value(row)
        if value is None:
            return None
        if self.task.is_free_text:
            return _as_text(value, "label")
        names = choices or self.task.labels or ()
        label = self.column.read(value, names)
        if self.is_simple and type(value) in (str, int):
            self.known[value] = label
        return label

    def _label_value(self, row: Row) -> Any:
        """Return what the label column holds, a name where the data name their ids; None where that is allowed."""
        column = self.task.fields["label"]
        if not self.labelled and ((value := _lookup(column, row, "label")) in (_MISSING, "") or _is_null(value)):
            return None
        value = self._value(column, row, "label")
        if self.class_names and not column.extracts and (own := self._own_names(row)):
            value = match_class_name(value, own, self.task.labels)
            if value is None and self.labelled:
                raise RecordError("the label is -1, which stands for none; every record needs a label")
        if value == "":
            raise RecordError("the label is empty; every record needs one")
        return value

    def _own_names(self, row: Row) -> tuple[str, ...] | None:
        found = next((name for name in (*self.task.fields["label"].column, "label") if _has(row, name)), "")
        return self.class_names.get(found)

    def _read_labels(self) -> Iterator[tuple[Any, Sequence[str]]]:
        """Yield all labels of all splits, each with the names it is one of; records that are bad are passed over."""
        for split in _list_splits(self.task, self.data):
            try:
                source = _open_source(self.task, split, self.data)
            except DataError:
                continue  # a split that is not there; whoever reads it says so
            read = _Reader(self.task, split, True, self.data, source.class_names)
            for row in _read_whole(source):
                with suppress(DataError):
                    yield read._label_value(row), read._choices(row) or self.task.labels or ()


class _PlacedError(DataError):
    """What is wrong elsewhere in the data than in the record that is read: it says where."""


def _read_whole(source: _Source) -> Iterator[Row]:
    try:
        yield from (row for _, row in source.rows)
    except DataError as error:
        raise _PlacedError(str(error)) from error


def _find_setting(task: Task, data: DataFiles | RowSets | None) -> Reading | None:
    """Return how the user or the task says that labels are read; `[data]` speaks of the task's own source alone."""
    if data is None:
        return task.data.labels_are or task.labels_are
    return data.labels_are or task.labels_are


def _is_null(value: Any) -> bool:
    """Whether a value is missing: null, or the number that is none, which Parquet and pandas write for it."""
    return value is None or (isinstance(value, float) and value != value)


def _check_exact(what: str, value: Any) -> None:
    """Raise DataError for a number that its reader may have rounded, also within a list or a mapping."""
    if isinstance(value, float) and abs(value) > _EXACT:
        raise DataError(f"{what} {value!r}, a number too large to be read exactly; write it as text, in quotes")
    if isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            _check_exact(what, entry)


_MISSING = object()


def _lookup(column: Column, row: Row, name: str) -> Any:
    """Return the value of the first of the column's names that `row` has, or of the field's own name."""
    for candidate in (*column.column, name):
        if candidate in row:
            return row[candidate]
        if (value := _reach(row, candidate)) is not _MISSING:
            return value
    return _MISSING


def _reach(row: Row, name: str) -> Any:
    value: Any = row
    for key in name.split("."):
        value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
    return value


def _has(row: Row, name: str) -> bool:
    return name in row or _reach(row, name) is not _MISSING


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, Mapping | list | tuple):
        kind = "a mapping" if isinstance(value, Mapping) else "a list"
        raise DataError(
            f"the field {name!r} holds {kind}, {value!r:.60}, where text is expected; name an entry of it in [fields], "
            "such as 'answers.text', or write text"
        )
    return str(value)


def _extract(column: Column, value: Any, name: str) -> Any:
    if not column.extracts:
        return value
    text = _as_text(value, name)
    for marker in (column.after, column.before):
        if marker is not None and marker not in text:
            raise RecordError(f"column {column.column[0]!r} does not hold {marker!r}: {text[:60]!r}")
    if column.after is not None:
        text = text.rpartition(column.after)[2]
    if column.before is not None:
        text = text.partition(column.before)[0]
    if not column.remove:
        return text
    try:
        return compile_pattern(column.remove).remove(text)
    except PatternError as error:
        raise DataError(f"column {column.column[0]!r}: `remove`: {error}") from error


@dataclass(frozen=True)
class _Source:
    """Rows, each with its number, and what a number means: `file:line`, or a position.

    `class_names` are the names that the data themselves give the ids of a column.
    """

    place: Callable[[Any], str]
    rows: Iterator[tuple[Any, Row]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _open_source(task: Task, split: str, data: DataFiles | RowSets | None) -> _Source:
    if isinstance(data, RowSets):
        name = _find_set(task, split, data)
        place = data.describe(name)
        return _Source(lambda number: f"{place}, record {number}", data.number_rows(name), data.class_names(name))
    if files := _find_files(task, split, data):
        names = {} if data else _folder_names(task)
        for path in files:
            names |= read_class_names(path)
        return _Source(lambda at: place_of(*at), _read_files(files, _find_cells(task, data)), names)
    if task.data.generator:
        from promptkit.data.generate import generate

        rows = generate(task.data.generator, split, _source_split(task, split), seed=task.data.seed)
        return _Source(lambda number: f"generator {task.data.generator!r}, record {number}", enumerate(rows))
    return _open_hub(task, split)


def _read_files(files: Sequence[Path], cells: Cells) -> Iterator[tuple[tuple[Path, int], Row]]:
    for path in files:
        for number, row in number_rows(path, cells):
            yield (path, number), row


def _find_cells(task: Task, data: DataFiles | None) -> Cells:
    """Return how the cells of a table are cut: as the user says, else as the task does."""
    given, own = data.cells if data else Cells(), task.data
    return Cells(
        own.delimiter if given.delimiter is None else given.delimiter,
        own.quoting if given.quoting is None else given.quoting,
    )


def _find_set(task: Task, split: str, data: RowSets) -> str | None:
    """Return which of the sets in memory is a split; raises DataError where none is."""
    if data.is_one:
        return None
    for name in _file_names(task, split):
        if name in data.sets:
            return name
    raise DataError(f"{data}: no split {split!r}; it has: {', '.join(map(str, data.sets))}")


def _list_splits(task: Task, data: DataFiles | RowSets | None) -> list[str]:
    """Return the splits that a source has: what all of its labels are in."""
    return ["test"] if is_one_file(data) else [split for split in SPLITS if has_split(task, split, data)]


def _source_split(task: Task, split: str) -> Any:
    name = getattr(task.data, split) if split in SPLITS else None
    if name is None:
        known = [known for known in SPLITS if getattr(task.data, known) is not None]
        has = f"it has: {', '.join(known)}" if known else "it names none under [data]"
        raise DataError(f"task {task.name!r} has no split {split!r}; {has}; or give --data.{nearest(split, known)}")
    return name


def _open_hub(task: Task, split: str) -> _Source:
    import datasets

    own, path = _source_split(task, split), str(task.data.path)
    place = _name_data_set(task, own)
    if not _HUB_ID.fullmatch(path) or Path(path).exists():
        raise DataError(
            f"{display_path(task.path)}: path {path!r} is neither a folder beside the task file nor, as OWNER/NAME, a "
            "data set of the hub; data elsewhere are given with --data"
        )
    try:
        rows = datasets.load_dataset(path, task.data.name, split=own, revision=task.data.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, RuntimeError, ImportError) as error:
        raise _unloaded(place, error) from error
    names = find_class_names(rows.features.to_dict()) if rows.features else {}
    return _Source(lambda number: f"{place}, record {number}", _read_hub(rows, place), names)


def _read_hub(rows: Any, place: str) -> Iterator[tuple[int, Row]]:
    import pyarrow

    try:
        yield from enumerate(rows)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unloaded(place, error) from error


def _unloaded(place: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{place}: cannot be loaded: {reason}; without a network, give local files with --data")


def _name_data_set(task: Task, split: Any) -> str:
    beside = folder_beside(task)
    return f"{f'folder {display_path(beside)}' if beside else f'hub data set {task.data.path!r}'}, split {split!r}"


def folder_beside(task: Task) -> Path | None:
    """Return the folder beside the task file that its data are in; None where they are elsewhere."""
    beside = task.path.parent / str(task.data.path)
    return beside if task.data.path and beside.exists() else None


def _find_files(task: Task, split: str, data: DataFiles | RowSets | None) -> list[Path]:
    """Return the files that a split is read from: of `data`, else of the folder beside the task; none without one."""
    if isinstance(data, DataFiles):
        return [_local_file(task, split, Path(data))]
    beside = folder_beside(task)
    if beside is None or data is not None:
        return []
    check_data_inside(task.path.parent, beside)
    own = str(_source_split(task, split))
    if not beside.is_dir():
        raise DataError(f"{display_path(beside)}: is a file, and `path` names a folder; give one file with --data")
    if not task.data.name and (file := _only_file(beside, own)):
        check_data_inside(beside, file)
        return [file]
    return find_split(beside, own, task.data.name)


def _folder_names(task: Task) -> dict[str, tuple[str, ...]]:
    beside = folder_beside(task)
    return read_feature_names(beside, task.data.name) if beside else {}


def _only_file(folder: Path, name: str) -> Path | None:
    """Return the folder's file of a split's name; raises DataError where there are several."""
    found = [path for suffix in SUFFIXES if is_there(path := folder / f"{name}{suffix}")]
    if len(found) > 1:
        raise DataError(f"{folder}: {' and '.join(path.name for path in found)} are one split; keep one of them")
    return found[0] if found else None


def _local_file(task: Task, split: str, data: Path) -> Path:
    if is_there(data):
        try:
            check_readable(data)
        except OSError as error:  # it is the data's fault, wherever it is noticed
            raise unreadable(data, error) from error
        if data.suffix not in SUFFIXES:
            raise DataError(f"{data}: unknown kind of file {data.suffix!r}; allowed: {', '.join(SUFFIXES)}")
        return data
    if not data.is_dir():
        raise DataError(f"{data}: no such file or folder")
    for name in _file_names(task, split):
        if path := _only_file(data, name):
            return path
    found = sorted(path.name for path in data.iterdir() if path.suffix in SUFFIXES)
    raise DataError(
        f"{data}: no file for the split {split!r}; expected {split}.jsonl, .csv or .parquet "
        f"(found: {', '.join(found) or 'no data files'})"
    )


def _file_names(task: Task, split: str) -> list[str]:
    """Return what a local file of this split may be called: so, or by the hub's name or a usual one, if no other's."""
    if split not in SPLITS:
        return [split]
    own = getattr(task.data, split)
    others = [getattr(task.data, other) for other in SPLITS if other != split]
    usual = [name for name in _SPELLINGS.get(split, ()) if name not in others]
    return [split, own, *usual] if isinstance(own, str) and own not in SPLITS else [split, *usual]


def has_split(task: Task, split: str, data: Data | None = None) -> bool:
    """Return whether the task, or the local `data`, has a source for this split."""
    given = as_data(data)
    if given is None:
        return split in SPLITS and getattr(task.data, split) is not None
    if isinstance(given, RowSets):
        return given.is_one or any(name in given.sets for name in _file_names(task, split))
    path = Path(given)
    if is_there(path):
        return path.suffix in SUFFIXES
    return any(is_there(path / f"{name}{suffix}") for name in _file_names(task, split) for suffix in SUFFIXES)
