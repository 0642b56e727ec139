"""Rows into an output file that a kill interrupts and the same command goes on with, to the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from promptkit.errors import RunError
from promptkit.files import Columns, check_free, find_writer, folders_above, publish, unwritable
from promptkit.lock import take_lock

Row = Mapping[str, Any]
_WHAT, _ROWS, _INDEX = "what.json", "rows.jsonl", "index.jsonl"
_OWN = re.compile(r"what\.(json|new)|(rows|index)\.jsonl|whole\.\w+")  # all that a folder of parts holds


class Unfinished:
    """The parts of an output file that are done, in the folder OUT.part beside it.

    `rows.jsonl` holds their rows; `index.jsonl` has a line per part with where it ends in that file, the SHA-256 of its
    bytes, and a digest of what it was made from. A part counts once its line is there: what a kill left behind it is
    cut off. Raises RunError where the parts are not what was written.
    """

    def __init__(self, out: Path, folder: Path, rows: BinaryIO, index: BinaryIO) -> None:
        self.out, self.folder = out, folder
        self._rows, self._index = rows, index
        self.digests: list[str] = []
        self.count = 0
        self._cut()

    def add(self, rows: Sequence[Row], digest: str) -> None:
        """Keep the rows of one more part, and the digest of what they were made from."""
        written = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        self._rows.write(written)
        _sync(self._rows)
        own = hashlib.sha256(written).hexdigest()
        line = {"rows": self.count + len(rows), "end": self._rows.tell(), "sha256": own, "digest": digest}
        self._index.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        _sync(self._index)
        self.count += len(rows)
        self.digests.append(digest)

    def finish(self, columns: Columns, shape: Callable[[Row], Row]) -> None:
        """Make the rows the output file, and remove the folder.

        A Parquet file has these `columns`, and of every row what `shape` makes of it. Rows go there one group at a
        time, so that a file may be larger than memory.
        """
        whole = self.folder / _ROWS
        if self.out.suffix != ".jsonl":
            whole = self.folder / f"whole{self.out.suffix}"
            with whole.open("wb") as file:
                find_writer(self.out)(map(shape, self._read()), file, columns)
                _sync(file)
        publish(whole, self.out)
        _remove(self.folder)

    def _read(self) -> Iterator[Row]:
        with (self.folder / _ROWS).open("rb") as file:
            yield from map(orjson.loads, file)

    def _cut(self) -> None:
        """Take over the parts that are there, and cut off what lies behind the last of them."""
        size = self._rows.seek(0, os.SEEK_END)
        self._rows.seek(0)
        self._index.seek(0)
        end = place = 0
        try:
            for line in self._index:
                if not line.endswith(b"\n") or (part := orjson.loads(line))["end"] > size:
                    break
                if hashlib.sha256(self._rows.read(part["end"] - end)).hexdigest() != part["sha256"]:
                    raise ValueError("its rows are not those that were written")
                place, end, self.count = place + len(line), part["end"], part["rows"]
                self.digests.append(part["digest"])
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(self.folder / _INDEX, error) from error
        for file, size in ((self._index, place), (self._rows, end)):
            file.seek(size)
            file.truncate()


def check_output(out: Path) -> None:
    """Raise RunError where `out` exists or has another ending than .jsonl or .parquet."""
    find_writer(out)
    check_free(out)


@contextmanager
def unfinished(out: Path, what: Mapping[str, str]) -> Iterator[Unfinished]:
    """Open the parts of an output file that are done; `what` names all that its bytes depend on beside the input.

    Raises RunError where `out` exists or has another ending than .jsonl or .parquet, where its parts are of something
    else, another process is writing them, or the disk is full.
    """
    check_output(out)
    folder = out.with_name(f"{out.name}.part")
    try:
        with folders_above(out), _open(folder) as (rows, index):
            _check_same(folder, what)
            done = Unfinished(out, folder, rows, index)
            try:
                yield done
            except Exception:
                if not done.digests:
                    _remove(folder)
                raise
    except OSError as error:
        raise unwritable(out, error) from error


@contextmanager
def _open(folder: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open the files of rows and of the index, in a folder that is made where there is none.

    Raises RunError for a folder that holds anything else: it is somebody's own.
    """
    if os.path.lexists(folder) and not _holds_parts(folder):
        raise RunError(f"{folder}: exists and holds no unfinished output; move it, or give another --out")
    folder.mkdir(exist_ok=True)
    with (folder / _ROWS).open("a+b") as rows, (folder / _INDEX).open("a+b") as index:
        if not take_lock(rows):
            raise RunError(f"{folder}: another process is writing there; wait for it, or give another --out")
        yield rows, index


def _holds_parts(folder: Path) -> bool:
    """Whether a folder is empty or holds what this module wrote, and nothing else."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    names = {path.name for path in folder.iterdir()}
    begun = _WHAT in names or not any((folder / name).stat().st_size for name in names)
    return all(map(_OWN.fullmatch, names)) and begun


def _remove(folder: Path) -> None:
    """Remove a folder of parts; what somebody else has put there meanwhile stays."""
    for path in folder.iterdir():
        if _OWN.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _check_same(folder: Path, what: Mapping[str, str]) -> None:
    """Raise RunError where the parts in a folder are of something else; note of what they are in a new one."""
    path, written = folder / _WHAT, orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE)
    if not path.exists():
        temporary = path.with_suffix(".new")
        temporary.write_bytes(written)
        os.replace(temporary, path)
        return
    try:
        there = dict(orjson.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    differing = [
        f"{name} {there.get(name)!s:.12} there, {value:.12} now"
        for name, value in what.items()
        if there.get(name) != value
    ]
    if differing:
        raise RunError(
            f"{folder}: holds the beginning of another output ({differing[0]}); remove it, or give another --out"
        )


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: is damaged ({error}); remove {path.parent}, or give another --out")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
