"""Take what a user gives in place of a task's own source: files, with how they are read, or rows in memory."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from promptkit.data.labels import READINGS, Reading
from promptkit.errors import DataError, nearest
from promptkit.storage.files import is_there
from promptkit.storage.paths import real_path
from promptkit.storage.rows import Cells, Row, find_class_names, parse_delimiter, schema_class_names

if TYPE_CHECKING:
    import datasets
    import pandas
    import pyarrow

    #: Rows of one set, or of one set per split.
    Rows: TypeAlias = (
        datasets.Dataset
        | datasets.IterableDataset
        | pandas.DataFrame
        | pyarrow.Table
        | Sequence[Mapping[str, Any]]
        | datasets.DatasetDict
        | Mapping[str, Any]
    )
#: What `data=` takes.
Data: TypeAlias = "str | os.PathLike[str] | DataFiles | RowSets | Rows"
TAKEN = (
    "a file, a folder with one file per split, a datasets.Dataset or DatasetDict, a pandas DataFrame, a list of rows "
    "as dicts, or a mapping of splits to any of these"
)


@dataclass(frozen=True)
class DataFiles:
    """A file, or a folder with one file per split, and what its ending does not say.

    `delimiter` stands between the cells of CSV and TSV; with `quoting` a cell in double quotes may hold it.
    `labels_are` says how labels are read, in place of the task's own setting. Where the command line or Python take a
    path, they take one of these. Raises DataError for a delimiter that is not one character, and for another reading.
    """

    path: str
    delimiter: str | None = None
    quoting: bool | None = None
    labels_are: Reading | None = None

    def __post_init__(self) -> None:
        try:
            delimiter = None if self.delimiter is None else parse_delimiter(self.delimiter)
        except ValueError as error:
            raise DataError(f"--delimiter: {error}") from error
        if self.labels_are not in (None, *READINGS):
            raise DataError(f"--labels-are: {self.labels_are!r} is not one of {', '.join(READINGS)}")
        if self.quoting not in (None, True, False):
            raise DataError(f"--quoting: {self.quoting!r} is neither true nor false")
        object.__setattr__(self, "path", os.fspath(self.path))
        object.__setattr__(self, "delimiter", delimiter)

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path

    @property
    def cells(self) -> Cells:
        """How the cells of a table are cut."""
        return Cells(self.delimiter, self.quoting)

    @property
    def is_one(self) -> bool:
        """Whether this is one file for all splits."""
        return is_there(Path(self.path))

    def at(self, path: str | Path) -> DataFiles:
        """Return the same for another path."""
        return replace(self, path=str(path))

    @property
    def key(self) -> object:
        """What tells these data from others."""
        return replace(self, path=str(real_path(self.path)))


@dataclass(frozen=True, eq=False)
class RowSets:
    """Rows in memory: one set for all splits, whose name is then None, or one per split. `kind` says what was given."""

    kind: str
    sets: Mapping[str | None, Any]
    labels_are: Reading | None = None

    def __str__(self) -> str:
        return f"the {self.kind} given as data"

    @property
    def is_one(self) -> bool:
        """Whether this is one set for all splits."""
        return None in self.sets

    @property
    def key(self) -> object:
        """What tells these data from others."""
        return id(self)

    def describe(self, name: str | None) -> str:
        """Return in words where the rows of one set come from."""
        return str(self) if name is None else f"split {name!r} of {self}"

    def number_rows(self, name: str | None) -> Iterator[tuple[int, Row]]:
        """Yield the rows of one set with their positions; raises DataError for one that is no row."""
        for number, row in enumerate(_iterate(self.sets[name])):
            if not isinstance(row, Mapping):
                raise DataError(f"{self.describe(name)}, record {number}: found {type(row).__name__}; data are {TAKEN}")
            yield number, row

    def class_names(self, name: str | None) -> dict[str, tuple[str, ...]]:
        """Return column -> the names that a set's own features give its ids."""
        given = self.sets[name]
        if _home(given) == ("pyarrow", "Table"):
            return schema_class_names(given.schema)
        features = getattr(given, "features", None)
        return find_class_names(features.to_dict()) if features is not None and hasattr(features, "to_dict") else {}

    def hash_rows(self) -> str:
        """Return the hex SHA-256 of the rows of one set for all splits; empty where there are several sets."""
        if not self.is_one:
            return ""
        digest = hashlib.sha256()
        for _, row in self.number_rows(None):
            digest.update(repr(sorted(row.items(), key=lambda item: str(item[0]))).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def count(self, name: str | None) -> int | None:
        """Return how many rows a set has; None where that is not known before they are read."""
        given = self.sets[name]
        return len(given) if hasattr(given, "__len__") else None


def as_data(given: Data | None) -> DataFiles | RowSets | None:
    """Return what was given as data in one of its two forms; None stays None. Raises DataError for anything else."""
    if given is None or isinstance(given, DataFiles | RowSets):
        return given
    if isinstance(given, str | os.PathLike):
        return DataFiles(os.fspath(given))
    if isinstance(given, Mapping) and isinstance(given.get("path"), str):
        return _files_of(given)
    kind = type(given).__name__
    if _is_set(given):
        return RowSets("list of rows" if isinstance(given, list | tuple) else kind, {None: given})
    if isinstance(given, Mapping) and given and all(isinstance(name, str) for name in given):
        for name, rows in given.items():
            if not _is_set(rows):
                raise DataError(f"data: {name!r} holds {type(rows).__name__}; data are {TAKEN}")
        sets: dict[str | None, Any] = dict(given.items())
        return RowSets("mapping of splits" if kind == "dict" else kind, sets)
    raise DataError(f"data: found {kind}; data are {TAKEN}")


def _files_of(told: Mapping[str, Any]) -> DataFiles:
    """Return files from the table that a mixture's or a manifest's file has of them."""
    names = [field.name for field in fields(DataFiles)]
    for name in told:
        if name not in names:
            raise DataError(f"data: unknown setting {name!r}; allowed: {', '.join(names)}.{nearest(name, names)}")
    return DataFiles(**told)


def write_data(given: Data | None) -> str | dict[str, Any] | None:
    """Return data as JSON holds them and `as_data` reads them: a path, or a table of one and how it is read.

    Of rows in memory it is what they were, which nothing can be read from.
    """
    data = plain_data(given)
    if not isinstance(data, DataFiles):
        return None if data is None else str(data)
    return {name: value for name, value in asdict(data).items() if value is not None}


def plain_data(given: Any) -> str | DataFiles | RowSets | None:
    """Return data as `as_data` does, and as a mere path where there is no more to say of them."""
    data = as_data(given)
    return str(data) if isinstance(data, DataFiles) and data == DataFiles(data.path) else data


def _is_set(given: Any) -> bool:
    if isinstance(given, list | tuple):
        return all(isinstance(row, Mapping) for row in itertools.islice(given, 1))
    return _home(given) in (
        ("datasets", "Dataset"),
        ("datasets", "IterableDataset"),
        ("pandas", "DataFrame"),
        ("pyarrow", "Table"),
    )


def _home(given: Any) -> tuple[str, str]:
    """Return the package and the name of a value's type, which is not imported for it."""
    return type(given).__module__.partition(".")[0], type(given).__name__


def _iterate(given: Any) -> Iterable[Any]:
    package = _home(given)[0]
    if package == "datasets":
        return given.with_format(None)
    if package == "pyarrow":
        return (row for batch in given.to_batches() for row in batch.to_pylist())
    if package == "pandas":
        names = [str(name) for name in given.columns]
        if len(set(names)) < len(names):
            raise DataError(f"the DataFrame given as data has two columns of one name: {', '.join(names)}")
        rows = given.itertuples(index=False, name=None)
        return (dict(zip(names, map(_plain, row), strict=True)) for row in rows)
    return given


def _plain(value: Any) -> Any:
    """Return what pandas and numpy hold as Python does; nothing for what is missing."""
    package, kind = _home(value)
    if package == "pandas" and kind in ("NAType", "NaTType"):
        return None
    if package == "numpy":
        return value.tolist()
    return value
