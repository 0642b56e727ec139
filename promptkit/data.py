"""Hub data sets, local files and generators into records, one split at a time."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from promptkit.errors import DataError, PatternError, nearest
from promptkit.files import check_all_readable, check_readable, is_there, open_input
from promptkit.library import display_path
from promptkit.patterns import compile_pattern
from promptkit.record import Record
from promptkit.rows import SUFFIXES, Row, number_rows, place_of
from promptkit.task import SPLITS, Column, Task

#: What local files of a split are called beside its own name.
_SPELLINGS = {"validation": ("dev", "valid", "val")}
#: Whole numbers up to this one are floats without a loss; readers make floats of integers beyond 64 bits.
_EXACT = 2**53
_TEXTS = {str}
_TRUTHS = {"true": True, "false": False}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def load_records(
    task: Task,
    split: str,
    *,
    data: str | Path | None = None,
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


def iterate_records(
    task: Task, split: str, *, data: str | Path | None = None, labelled: bool = True
) -> Iterator[Record]:
    """Yield the records of one split, one at a time, so that a split may be larger than memory.

    `data` is a folder with one file per split, or one file, and replaces the task's own source. A
    record's id is its `id` column or, where that is missing or null, `split-position`; of one file
    `test-position`, whatever the split: it is the same record. With `labelled` false, records may lack
    their label.

    Raises DataError, with file and line, for a line that cannot be read, a column that is missing, a
    label that is not the task's, and a value that is null.
    """
    read = _Reader(task, "test" if is_one_file(data) else split, labelled)
    source = _open_source(task, split, data)
    for position, (number, row) in enumerate(source.rows):
        try:
            yield read(row, position)
        except DataError as error:
            raise DataError(f"{source.place(number)}: {error}") from error


def is_one_file(data: str | Path | None) -> bool:
    """Return whether local data are one file for all splits."""
    return data is not None and is_there(Path(data))


def count_records(task: Task, split: str, data: str | Path | None = None) -> int | None:
    """Return about how many records a split has, told from its source without reading them; None where nothing says."""
    path = _find_file(task, split, data)
    if path is None:
        size = getattr(task.data, split, None)
        return size if isinstance(size, int) else None
    if path.suffix == ".parquet":
        import pyarrow.parquet

        check_readable(path)
        try:
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        except pyarrow.ArrowException:
            return None  # whoever reads it says why it is none
    with open_input(path) as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    return max(0, lines - 1) if path.suffix in (".csv", ".tsv") else lines


def describe_source(task: Task, split: str, data: str | Path | None) -> str:
    """Return in words where a split comes from."""
    if path := _find_file(task, split, data):
        return display_path(path)
    if task.data.generator:
        return f"generator {task.data.generator!r}"
    return _name_data_set(task, getattr(task.data, split))


def place_record(task: Task, split: str, data: str | Path | None, position: int) -> str:
    """Return where the record at a position of a split stands, as `file:line`; the source is read up to there."""
    source = _open_source(task, split, data)
    number, _ = next(itertools.islice(source.rows, position, None))
    return source.place(number)


class _Reader:
    """Rows into records."""

    def __init__(self, task: Task, split: str, labelled: bool) -> None:
        self.task, self.split, self.labelled = task, split, labelled
        self.inputs = {name: task.fields[name] for name in task.input_fields}
        self.labels, self.truths = _label_index(task.labels or ()), _truths(task.labels or ())
        self.is_simple = bool(task.labels) and not task.has_rationales and not task.has_choices and not self.truths
        self.is_simple &= not any(column.extracts for column in task.fields.values()) and "id" not in task.fields
        self.columns = [(name, column.column[0]) for name, column in self.inputs.items()]
        self.label_column = task.fields["label"].column[0]

    def __call__(self, row: Row, position: int) -> Record:
        # The same as below for texts, of which most data sets are, at a third of the time.
        if self.is_simple:
            try:
                fields = {name: row[column] for name, column in self.columns}
                label = self.labels[row[self.label_column]]
            except (KeyError, TypeError):
                return self._read(row, position)
            if {*map(type, fields.values())} == _TEXTS:
                return Record(self._name(row.get("id"), position), fields, label)
        return self._read(row, position)

    def _read(self, row: Row, position: int) -> Record:
        fields = {name: self._value(column, row, name) for name, column in self.inputs.items()}
        choices = self._choices(row)
        return Record(self._id(row, position), fields, self._label(row, choices), self._rationale(row), choices)

    def _value(self, column: Column, row: Row, name: str) -> Any:
        value = _lookup(column, row, name)
        if value is _MISSING:
            columns = ", ".join(row)
            wanted = " or ".join(repr(candidate) for candidate in column.column)
            near = nearest(column.column[0], row)
            raise DataError(
                f"no column {wanted} for the field {name!r} of task {self.task.name!r} (columns: {columns}).{near}"
            )
        if value is None:
            raise DataError(f"the field {name!r} is null; every record needs a value")
        if isinstance(value, bytes):
            raise DataError(f"the field {name!r} holds bytes, {value!r:.60}; write the column as text")
        _check_exact(f"the field {name!r} is", value)
        return _extract(column, value, name)

    def _id(self, row: Row, position: int) -> str:
        column = self.task.fields.get("id")
        value = self._value(column, row, "id") if column else row.get("id")
        return self._name(value, position)

    def _name(self, value: Any, position: int) -> str:
        if value is None:
            return f"{self.split}-{position}"
        _check_exact("id is", value)
        return str(value)

    def _rationale(self, row: Row) -> str | None:
        column = self.task.fields.get("rationale")
        if column is None or _lookup(column, row, "rationale") in (None, _MISSING):
            return None
        return _as_text(self._value(column, row, "rationale"), "rationale")

    def _choices(self, row: Row) -> tuple[str, ...] | None:
        column = self.task.fields.get("choices")
        if column is None:
            return None
        value = self._value(column, row, "choices")
        if not isinstance(value, list | tuple) or len(value) < 2 or len(set(map(str, value))) < len(value):
            raise DataError(f"choices {value!r} are not a list of two or more different texts")
        return tuple(_as_text(choice, "choices") for choice in value)

    def _label(self, row: Row, choices: tuple[str, ...] | None) -> int | str | None:
        column = self.task.fields["label"]
        if not self.labelled and _lookup(column, row, "label") in (_MISSING, None, ""):
            return None
        value = self._value(column, row, "label")
        if self.task.is_free_text:
            return _as_text(value, "label")
        labels = {**_label_index(choices), **_letters(len(choices))} if choices else self.labels
        truth = _TRUTHS.get(str(value).casefold())  # as a CSV file writes it, too
        if truth in self.truths:
            return self.truths[truth]
        if truth is not None and not choices and value not in labels:
            value = truth
        try:
            return labels[value]
        except (KeyError, TypeError) as error:
            names = choices or self.task.labels or ()
            numbered = "" if _name_numbers(names) else f" (or their numbers 0 to {len(names) - 1})"
            allowed = f"{', '.join(map(repr, names))}{numbered}"
            near = nearest(str(value), names)
            raise DataError(f"label {value!r} is not one of {allowed}.{near}") from error


def _label_index(labels: Sequence[str]) -> dict[Any, int]:
    """Return every way in which data write a label -> its index: its name, number, or number as text.

    Python's own equality makes True and 1.0 the number 1. Where a name is a whole number itself (stars from 1 to
    5, or -1 and 1), a number is a name and never an index.
    """
    names = {label: index for index, label in enumerate(labels)}
    named = {float(label): index for label, index in names.items() if _NUMBER.fullmatch(label)}
    if _name_numbers(labels):
        return {**named, **names}
    numbers = {number: index for index in range(len(labels)) for number in (index, str(index), f"{index}.0")}
    return {**numbers, **named, **names}


def _name_numbers(labels: Sequence[str]) -> bool:
    return any(_NUMBER.fullmatch(label) and float(label).is_integer() for label in labels)


def _truths(labels: Sequence[str]) -> dict[bool, int]:
    """Return which of two labels true and false are, where their names say so; nothing where they do not."""
    names = [label.casefold() for label in labels]
    said = next((words for words in (("false", "true"), ("no", "yes")) if sorted(names) == list(words)), ())
    return {bool(truth): names.index(word) for truth, word in enumerate(said)}


def _check_exact(what: str, value: Any) -> None:
    """Raise DataError for a number that its reader may have rounded, also within a list or a mapping."""
    if isinstance(value, float) and abs(value) > _EXACT:
        raise DataError(f"{what} {value!r}, a number too large to be read exactly; write it as text, in quotes")
    if isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            _check_exact(what, entry)


def _letters(count: int) -> dict[Any, int]:
    return {letter: index for index, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count])}


_MISSING = object()


def _lookup(column: Column, row: Row, name: str) -> Any:
    """Return the value of the first of the column's names that `row` has, or of the field's own name."""
    for candidate in (*column.column, name):
        if candidate in row:
            return row[candidate]
        value: Any = row
        for key in candidate.split("."):
            value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is not _MISSING:
            return value
    return _MISSING


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
            raise DataError(f"column {column.column[0]!r} does not hold {marker!r}: {text[:60]!r}")
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
    """Rows, each with its number, and what a number means: `file:line`, or a position."""

    place: Callable[[int], str]
    rows: Iterator[tuple[int, Row]]


def _open_source(task: Task, split: str, data: str | Path | None) -> _Source:
    if path := _find_file(task, split, data):
        return _Source(partial(place_of, path), number_rows(path))
    if task.data.generator:
        from promptkit.generate import generate

        rows = generate(task.data.generator, split, _source_split(task, split), seed=task.data.seed)
        return _Source(lambda number: f"generator {task.data.generator!r}, record {number}", enumerate(rows))
    place = _name_data_set(task, _source_split(task, split))
    return _Source(lambda number: f"{place}, record {number}", _hub_rows(task, split, place))


def _source_split(task: Task, split: str) -> Any:
    name = getattr(task.data, split) if split in SPLITS else None
    if name is None:
        known = [known for known in SPLITS if getattr(task.data, known) is not None]
        raise DataError(
            f"task {task.name!r} has no split {split!r}; it has: {', '.join(known)}.{nearest(split, known)}"
        )
    return name


def _hub_rows(task: Task, split: str, place: str) -> Iterator[tuple[int, Row]]:
    import datasets

    beside = folder_beside(task)
    if beside:
        check_all_readable(beside)
    try:
        rows = datasets.load_dataset(
            str(beside or task.data.path),
            task.data.name,
            split=_source_split(task, split),
            revision=task.data.revision,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        fix = "put files such as train.jsonl there" if beside else "without a network, give local files with --data"
        raise DataError(f"{place}: cannot be loaded: {reason}; {fix}") from error
    yield from enumerate(rows)


def _name_data_set(task: Task, split: Any) -> str:
    beside = folder_beside(task)
    return f"{f'folder {display_path(beside)}' if beside else f'hub data set {task.data.path!r}'}, split {split!r}"


def folder_beside(task: Task) -> Path | None:
    """Return the folder beside the task file that its data are in; None where they are elsewhere."""
    beside = task.path.parent / str(task.data.path)
    return beside if task.data.path and beside.exists() else None


def _find_file(task: Task, split: str, data: str | Path | None) -> Path | None:
    """Return the file that a split is read from: of `data`, else of the folder beside the task; None without one."""
    if data is not None:
        return _local_file(task, split, Path(data))
    beside = folder_beside(task)
    if beside is None or task.data.name or task.data.revision:
        return None
    return _only_file(beside, str(_source_split(task, split)))


def _only_file(folder: Path, name: str) -> Path | None:
    """Return the folder's file of a split's name; raises DataError where there are several."""
    found = [path for suffix in SUFFIXES if is_there(path := folder / f"{name}{suffix}")]
    if len(found) > 1:
        raise DataError(f"{folder}: {' and '.join(path.name for path in found)} are one split; keep one of them")
    return found[0] if found else None


def _local_file(task: Task, split: str, data: Path) -> Path:
    if is_there(data):
        check_readable(data)
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


def has_split(task: Task, split: str, data: str | Path | None = None) -> bool:
    """Return whether the task, or the local `data`, has a source for this split."""
    if data is None:
        return split in SPLITS and getattr(task.data, split) is not None
    path = Path(data)
    if is_there(path):
        return path.suffix in SUFFIXES
    return any(is_there(path / f"{name}{suffix}") for name in _file_names(task, split) for suffix in SUFFIXES)
