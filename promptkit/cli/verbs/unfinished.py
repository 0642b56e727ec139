"""Keep the rows of an unfinished output file, so that the same command goes on after a kill, to the same bytes."""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from promptkit.errors import RunError
from promptkit.storage.files import check_free, folders_above, publish, read_input, unwritable, write_whole
from promptkit.storage.parsing import parse_json_object
from promptkit.storage.staging import MARK, ROWS, Place, enter_place, find_foreign, find_place, make_place, sweep

Row = Mapping[str, Any]
_WHAT, _ROWS, _INDEX, _DONE = "what.json", "rows.jsonl", "index.jsonl", "done.json"
#: Endings of outputs.
ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")


class Unfinished:
    """The parts of an output file that are done, in the folder OUT.part beside it.

    `rows.jsonl` holds their rows; `index.jsonl` has a line per part with where it ends in that file, the SHA-256 of its
    bytes, and a digest of what it was made from. A part counts once its line is there: what a kill left behind it is
    cut off. Raises RunError where the parts are not what was written.
    """

    def __init__(self, out: Path, place: Place, rows: BinaryIO, index: BinaryIO) -> None:
        self.out, self.folder = out, place.folder
        self._place, self._rows, self._index = place, rows, index
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

    def finish(self, write: Callable[[BinaryIO], object], beside: Callable[[BinaryIO], object] | None = None) -> None:
        """Make the output file what `write` writes, with what `beside` writes in `errors_of(out)`; remove the folder.

        Both are there, or neither: where a kill comes between them, the same call finds the first as it would write it.
        """
        whole, errors = self.folder / f"whole{self.out.suffix}", self.folder / "whole.errors"
        for path, fill in ((whole, write), (errors, beside)):
            if fill:
                with path.open("wb") as file:
                    fill(file)
                    _sync(file)
        write_whole(self.folder / _DONE, orjson.dumps({"inode": whole.stat().st_ino}))
        if beside and not _is_same(errors_of(self.out), errors):
            publish(errors, errors_of(self.out))
        try:
            publish(whole, self.out)
        except BaseException:
            if beside:
                errors_of(self.out).unlink()
            raise
        self._place.remove()

    def read(self) -> Iterator[Row]:
        """Yield the rows of all parts."""
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


def errors_of(out: Path) -> Path:
    """Return where the reasons stand why rows are not in an output: OUT.errors.jsonl."""
    return out.with_name(f"{out.name}.errors.jsonl")


def _is_same(path: Path, other: Path) -> bool:
    return path.is_file() and not path.is_symlink() and filecmp.cmp(path, other, shallow=False)


def check_output(out: Path) -> None:
    """Raise RunError where `out`, or its file of reasons, exists, or `out` has an ending that is not written.

    Where it was finished by a process that was killed right after that, the parts it left are removed first.
    """
    if out.suffix not in ENDINGS:
        ending = out.suffix or "a file without an ending"
        raise RunError(f"{out}: cannot write {ending!r}; allowed: {', '.join(ENDINGS)}")
    folder = parts_folder(out)
    sweep(folder)
    if os.path.lexists(out) and (folder / MARK).is_file():
        with suppress(RunError):
            place = find_place(folder, ROWS)
            if place and not find_foreign(folder) and _is_finished(folder, out):
                place.remove()
            elif place:
                place.close()
    check_free(out)
    if not os.path.lexists(folder):
        check_free(errors_of(out))


def parts_folder(out: Path) -> Path:
    """Return where the parts of an output are until it is whole: OUT.part."""
    return out.with_name(f"{out.name}.part")


def _is_finished(folder: Path, out: Path) -> bool:
    """Whether the output is what these parts had become."""
    try:
        return bool(parse_json_object(read_input(folder / _DONE))["inode"] == out.lstat().st_ino)
    except (OSError, ValueError, KeyError):
        return False


@contextmanager
def unfinished(out: Path, what: Mapping[str, str]) -> Iterator[Unfinished]:
    """Open the parts of an output file that are done; `what` names all that its bytes depend on beside the input.

    Raises RunError where `out` exists or has an ending that is not written, where its parts are of something
    else, another process is writing them, or the disk is full.
    """
    check_output(out)
    try:
        with folders_above(out), _open(parts_folder(out)) as (place, rows, index):
            _check_same(place.folder, what)
            done = Unfinished(out, place, rows, index)
            try:
                yield done
            except Exception:
                if not done.digests:
                    place.remove()
                raise
    except OSError as error:
        raise unwritable(out, error) from error


@contextmanager
def _open(folder: Path) -> Iterator[tuple[Place, BinaryIO, BinaryIO]]:
    """Open the files of rows and of the index, in a folder that is made where there is none.

    Raises RunError for a folder that promptkit did not make, or that holds anything else: it is somebody's own.
    """
    if os.path.lexists(folder):
        place = enter_place(folder, ROWS, called="output", fix="give another --out")
    else:
        place = make_place(folder, ROWS).move(folder)
    try:
        with (folder / _ROWS).open("a+b") as rows, (folder / _INDEX).open("a+b") as index:
            yield place, rows, index
    finally:
        place.close()


def _check_same(folder: Path, what: Mapping[str, str]) -> None:
    """Raise RunError where the parts in a folder are of something else; note of what they are in a new one."""
    path, written = folder / _WHAT, orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE)
    if not path.exists() and not (folder / _INDEX).stat().st_size:
        write_whole(path, written)
        return
    try:
        there = parse_json_object(read_input(path))
    except (OSError, ValueError) as error:
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
