"""Read plain files, and write rows into files that are there whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from promptkit.errors import DataError, InputError, RunError
from promptkit.storage.paths import lies_in
from promptkit.storage.staging import MADE, give_name, make_place, sweep, take_back, write_journal

if TYPE_CHECKING:
    import pyarrow

#: Bytes at most of a file that is read whole: a card, a manifest.
LARGEST = 64 * 2**20
#: Bytes at most of a file that somebody writes by hand: a task, a template, a mixture, a preset, prices.
LARGEST_SOURCE = 4 * 2**20
#: Bytes at most of JSON that may be as large as the data: a cell, a result, a data file, a tokenizer.
LARGEST_DATA = 256 * 2**20
_READ_WHOLE = (".json", ".txt", ".jinja", ".toml", ".py", ".md")
#: What may be in the place of a file, in words.
_NO_FILES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
#: Where what looks like a file is none: reading it may wait, or never end.
_OF_THE_SYSTEM = ("/proc/", "/sys/")
#: Rows per Parquet row group.
GROUP_ROWS = 10_000
_ONE_KIND = "a column of Parquet or Arrow holds values of one kind; write .jsonl, or build the sets apart"


def check_readable(path: str | Path, limit: int | None = None) -> None:
    """Raise InputError for what is no plain file, such as a pipe or a device, or has more than `limit` bytes.

    Raises another OSError where nothing is there or it is a folder, as opening it would. Nothing is opened, so this
    never waits for whoever writes to a pipe.
    """
    try:
        status = os.stat(path)
    except ValueError as error:
        raise InputError(str(path).replace("\0", "\\0"), "the name holds a NUL character") from error
    except OSError as error:
        if os.path.islink(path):
            raise InputError(path, "is a link that leads nowhere") from error
        raise
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _NO_FILES if is_kind(status.st_mode)), "something else")
        raise InputError(path, f"is {kind}, and a plain file is expected; write what it gives to a file first")
    if os.path.realpath(path).startswith(_OF_THE_SYSTEM):
        raise InputError(path, "is made by the system as it is read, and a plain file is expected; copy it first")
    if limit is not None and status.st_size > limit:
        raise InputError(path, f"has {status.st_size:,} bytes; such a file has {limit:,} at most")


def check_all_readable(folder: Path, limit: int = LARGEST_DATA) -> None:
    """Raise what `check_readable` raises for the first entry of a folder and of those in it that is no plain file.

    `limit` holds for what libraries read whole: JSON and texts. Links to nothing are left to whoever needs them.
    """
    for above, _, names in os.walk(folder):
        for path in (Path(above, name) for name in sorted(names)):
            if path.exists():
                check_readable(path, limit if path.suffix in _READ_WHOLE else None)


def is_there(path: Path) -> bool:
    """Whether something other than a folder is at `path`: a file, or what `check_readable` refuses."""
    return os.path.lexists(path) and not path.is_dir()


def check_inside(folder: Path, path: Path) -> None:
    """Raise RunError where a path below `folder` leads out of it through a link; the folder itself may be one.

    Whatever is read or written in a folder that may be somebody else's goes through this.
    """
    if not lies_in(path, folder):
        raise RunError(f"{path}: leads out of {folder} through a link; put the file itself there, or remove the link")


def check_tree(folder: Path, inside: Path) -> None:
    """Raise RunError where anything in a folder inside `folder` leads out of that through a link."""
    for above, folders, names in os.walk(inside):
        for name in (*folders, *names):
            check_inside(folder, Path(above, name))


def open_input(path: str | Path) -> BinaryIO:
    """Open a plain file to be read; raises what `check_readable` raises, and OSError as `open` does."""
    check_readable(path)
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - whoever asked closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise InputError(path, "is no plain file any more; write what it gives to a file first")


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, should a pipe have come into its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_input(path: str | Path, limit: int = LARGEST) -> bytes:
    """Return what a plain file holds; raises what `open_input` raises, and InputError beyond `limit` bytes."""
    check_readable(path, limit)
    with open_input(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise InputError(path, f"has more than {limit:,} bytes; such a file has no more")
    return content


def check_free(path: Path) -> None:
    """Raise RunError where something is at `path` already, be it a link to nothing: nothing is ever overwritten.

    What a killed process has left of this output is cleared away first; what one had begun to publish is finished.
    """
    check_name(path)
    sweep(path)
    try:
        os.lstat(path)
    except FileNotFoundError:
        check_writable(path)
    except OSError as error:
        raise unwritable(path, error) from error
    else:
        raise _taken(path)


def check_writable(path: Path) -> None:
    """Raise RunError where nothing can be made in the folder that `path` is to be in: before the work, not after it."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise RunError(f"{path}: nothing can be written in {above}; give another --out")


def check_name(path: Path) -> None:
    """Raise RunError for a path that is no text, or that a terminal or a list of files would not show as it is."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise RunError(f"{str(path)!r}: the name is not UTF-8; give another --out") from error
    if any(unicodedata.category(sign) == "Cc" for sign in str(path)):
        raise RunError(f"{str(path)!r}: the name holds a control character; give another --out")


@contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` when the block has ended, and not at all after an error or a kill.

    Raises RunError where it cannot be written: no permission, no room. What has come to `path` by then is an error
    too; or, with `replace`, it is replaced.
    """
    with _staged(path) as stage:
        temporary = stage.folder / path.name
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            publish(temporary, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill that appears at `path` when the block has ended, and not at all after an error or a kill.

    Raises RunError where something is at `path` by then, and where it cannot be written.
    """
    check_free(path)
    with _staged(path) as stage:
        folder = stage.folder / path.name
        folder.mkdir()
        yield folder
        publish(folder, path)


@dataclass(frozen=True)
class Stage:
    """A folder in which several files or folders are made, to appear together beside `out`."""

    folder: Path
    out: Path

    def publish(self, finished: Sequence[Path]) -> None:
        """Give what is finished its names beside `out`, in this order; after an error none of it is there.

        A kill in between is made good by the next `check_free` or `sweep`: what is still missing gets its name then.
        Nothing is overwritten; raises RunError where a name is taken.
        """
        for path in finished:
            _refuse_taken(self.out.with_name(path.name))
        write_journal(self.folder.parent, finished)
        try:
            for path in finished:
                publish(path, self.out.with_name(path.name))
        except BaseException:
            take_back(self.folder.parent)
            raise


@contextmanager
def stage(out: Path) -> Iterator[Stage]:
    """Give a hidden folder beside `out` that is gone when the block has ended; RunError where it cannot be written."""
    with _staged(out) as made:
        yield made


@contextmanager
def _staged(path: Path) -> Iterator[Stage]:
    try:
        with folders_above(path):
            place = make_place(path)
            try:
                made = Stage(place.folder / MADE, path)
                made.folder.mkdir()
                yield made
            finally:
                shutil.rmtree(place.folder / MADE, ignore_errors=True)  # this process made all of it
                place.remove()
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Make the folders above `path`; after an error those of them that are new and empty are gone again."""
    made = list(itertools.takewhile(lambda folder: not folder.exists(), path.parents))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # something else has come into one of them
            for folder in made:
                folder.rmdir()
        raise


def publish(finished: Path, path: Path) -> None:
    """Give what is finished its name; raises RunError where something has it by now."""
    try:
        give_name(finished, path)
    except FileExistsError as error:
        raise _taken(path) from error


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise _taken(path)


def _taken(path: Path) -> RunError:
    return RunError(f"{path}: exists already; give another --out, or remove it first")


def unwritable(path: Path, error: OSError) -> RunError:
    """Return what to raise where `path` cannot be written."""
    return RunError(f"{path}: cannot be written ({error.strerror or error}); make room there or give another --out")


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows as they come to a new .jsonl or .parquet file; return how many.

    Raises RunError for another ending, a path that exists, and a file that cannot be written.
    """
    write = find_writer(path)
    check_free(path)
    with new_file(path) as file:
        return write(rows, file, Columns())


def find_writer(path: Path) -> Callable[[Iterable[Mapping[str, Any]], BinaryIO, Columns], int]:
    """Return what writes rows to an open file of this ending and returns how many; RunError for another ending."""
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise RunError(f"{path}: cannot write {path.suffix or 'a file without an ending'!r}; allowed: .jsonl, .parquet")
    return writers[path.suffix]


def _write_jsonl(rows: Iterable[Mapping[str, Any]], file: BinaryIO, columns: Columns | None = None) -> int:
    count = 0
    for row in rows:
        try:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        except orjson.JSONEncodeError as error:
            raise DataError(f"row {count + 1} cannot be written as JSON: {error}") from error
        count += 1
    return count


class Columns:
    """The columns of a set of rows, for formats that have columns: those of the first rows serve all that follow."""

    def __init__(self) -> None:
        self.schema: pyarrow.Schema | None = None

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
        """Return rows as an Arrow table; raises DataError for a column, or a kind of value, that came too late."""
        import pyarrow

        names = dict.fromkeys(name for row in rows for name in row)
        if self.schema is not None and (late := names.keys() - set(self.schema.names)):
            raise DataError(f"column {min(late)!r} is not in the rows before, and {_ONE_KIND}")
        try:
            if not rows:
                table = self.schema.empty_table() if self.schema else _no_rows()
            else:
                table = rows_to_table([{**dict.fromkeys(names), **rows[0]}, *rows[1:]], self.schema)
        except pyarrow.ArrowException as error:
            raise self._explain(rows, names) or DataError(f"the rows make no columns: {error}") from error
        self.schema = self.schema or table.schema
        return table

    def _explain(self, rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> DataError | None:
        """Return the error that names the column whose values are of more than one kind."""
        import pyarrow

        for name in names:
            wanted = self.schema.field(name).type if self.schema else None
            try:
                pyarrow.array([row.get(name) for row in rows], wanted)
            except pyarrow.ArrowException as error:
                return DataError(f"column {name!r}: {' '.join(str(error).split())}, and {_ONE_KIND}")
        return None


def _no_rows() -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({})


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
    if "label" in found.names and pyarrow.types.is_null(found.field("label").type):  # later rows may have one
        types["label"] = pyarrow.int64() if any(row.get("choices") for row in rows) else pyarrow.string()
    fields = [pyarrow.field(field.name, types.get(field.name, field.type)) for field in found]
    return pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(fields))


def _write_parquet(rows: Iterable[Mapping[str, Any]], file: BinaryIO, columns: Columns) -> int:
    import pyarrow.parquet

    batches = iterate_tables(rows, columns)
    first = next(batches)
    with pyarrow.parquet.ParquetWriter(file, first.schema) as writer:
        count = 0
        for table in itertools.chain([first], batches):
            writer.write_table(table)
            count += table.num_rows
    return count


def iterate_tables(rows: Iterable[Mapping[str, Any]], columns: Columns) -> Iterator[pyarrow.Table]:
    """Yield rows as Arrow tables of `GROUP_ROWS`, of the same columns; one without rows where there are none."""
    iterator = iter(rows)
    batch = list(itertools.islice(iterator, GROUP_ROWS))
    yield columns.table(batch)
    while batch := list(itertools.islice(iterator, GROUP_ROWS)):
        yield columns.table(batch)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of one that is there, so that it is whole also after a kill or on a full disk.

    Raises RunError where it cannot be written; nothing half-written stays.
    """
    with new_file(path, replace=True) as file:
        file.write(content)
