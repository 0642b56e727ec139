"""Keep finished cells in a run folder that survives kills and is resumed.

    runs/reviews-1a2b3c4d/
      run.json      what was run: settings, seeds, hashes, versions; where its data and model were
      sources/      copies of the task and template files
      cells/        one file per finished cell, a function of what was run
      measures/     what depends on the machine and the moment: seconds, memory, dates
      adapters/     trained adapters

Nothing is written before there is something to keep: a command that is refused leaves no folder.
Every file is written beside its name and then moved there, so it is whole or not there at all, and
several processes may fill the same folder. A temporary file names the process that writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptkit.errors import RunError
from promptkit.experiments.cell_schema import check_measure, check_result
from promptkit.storage.files import (
    LARGEST_DATA,
    check_inside,
    check_name,
    check_tree,
    check_writable,
    new_file,
    read_input,
    unwritable,
    write_whole,
)
from promptkit.storage.libraries import versions
from promptkit.storage.parsing import JSON, canonical_json, cell_key, first_difference, parse_json_object
from promptkit.storage.staging import (
    ADAPTER,
    MADE,
    MARK,
    Place,
    find_foreign,
    find_place,
    is_hidden,
    make_place,
    sweep_folder,
)

#: Copies of task and template files, and results of a study before its grid grew.
SOURCES, EARLIER = "sources", "earlier"
#: What a finished run holds beside its cells.
RESULTS = ("study.json", "compare.json", "predictions.parquet")
_UNFINISHED = ".unfinished"
_CHECK: ContextVar[Callable[[Mapping[str, Any]], None] | None] = ContextVar("check", default=None)


@contextmanager
def checked_by(check: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Let `check` see the settings of every run that is planned meanwhile, and refuse them."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


@dataclass(frozen=True, slots=True)
class Cell:
    """One finished point of a run: what it is, and what came out."""

    spec: Mapping[str, Any]
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """What a run is made of: settings, which decide whether two runs are one, and what it takes to run it again.

    `origin` says where data and model were; `sources` are the files to keep a copy of, by their names in `sources/`.
    """

    settings: Mapping[str, JSON]
    origin: Mapping[str, JSON] = field(default_factory=dict)
    sources: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def wanted(self) -> dict[str, JSON]:
        """What must be equal in a run that is resumed."""
        return {"settings": self.settings, "versions": versions()}

    def content(self, path: Path) -> bytes:
        """Return the bytes of run.json."""
        origin = {"origin": self.origin} if self.origin else {}
        return canonical_json({**self.wanted, **origin}, path, indent=2) + b"\n"


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, opened with `Run.open`.

    Specs, settings and results are JSON. A spec names everything that its result depends on, hashes
    of template, task, records and model included; nothing else may be in either. `sizes` says for the
    hash of test records (`test` in a spec) how many they are, and so how many predictions a cell has.
    """

    folder: Path
    sizes: Mapping[str, int] = field(default_factory=dict)
    made: Made | None = None

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, JSON], sizes: Mapping[str, int] | None = None) -> Run:
        """Return the run in `folder`, new or resumed; its settings and versions must be equal then.

        Raises RunError where the folder holds something else, another run, or cannot be written.
        Settings go into run.json as they are: give hashes rather than paths of this machine.
        """
        run = cls.plan(folder, Made(settings), sizes)
        run.begin()
        return run

    @classmethod
    def plan(cls, folder: Path, made: Made, sizes: Mapping[str, int] | None = None) -> Run:
        """Return the run in `folder`, which is made with the first thing that it keeps; raises what `open` raises.

        What settings hold under `grid` may have grown since: the cells of the earlier grid are among those of the
        new one then. Everything else must be equal.
        """
        check_name(folder)
        for name in ("run.json", "cells", "measures", "adapters", SOURCES, EARLIER):
            check_inside(folder, folder / name)
        if check := _CHECK.get():
            check(made.settings)
        if _is_run(folder):
            _refuse_difference(folder, made.wanted)
        else:
            check_writable(folder / "run.json")
        _remove_leftovers(folder)
        return cls(folder, sizes or {}, made)

    def begin(self) -> bool:
        """Write run.json and copies of the sources, where they are not there yet; return whether run.json is new.

        Raises RunError where another run has come into the folder by now. Results of a grid that was smaller are kept
        in `earlier/`.
        """
        if self.made is None:
            return False
        path = self.folder / "run.json"
        content = self.made.content(path)
        is_new = not os.path.lexists(path)
        if is_new:
            is_new = _write_first(path, content)
        if path.read_bytes() != content and _refuse_difference(self.folder, self.made.wanted):
            _set_aside(self.folder)
            write_whole(path, content)
        for name, text in self.made.sources.items():
            if not (self.folder / SOURCES / name).exists():
                write_whole(self.folder / SOURCES / name, text)
        return is_new

    def finish(self, name: str, content: bytes) -> None:
        """Write a result of the whole run, such as study.json, in place of the same run's earlier one."""
        self.begin()
        check_inside(self.folder, self.folder / name)
        write_whole(self.folder / name, content)

    def load(self, spec: Mapping[str, JSON]) -> dict[str, Any] | None:
        """Return the result saved for `spec`, None where it is still to be computed.

        Raises RunError for a file that was not written by `save`, and for one with too few or too many predictions.
        """
        path = self._path("cells", spec)
        return self._read_result(path)[1] if os.path.lexists(path) else None

    def save(
        self,
        spec: Mapping[str, JSON],
        result: Mapping[str, JSON],
        measure: Mapping[str, JSON] | None = None,
    ) -> None:
        """Write a finished cell; its bytes are a function of spec and result.

        `measure` is what computing it took here (seconds, memory, dates) and goes into a file apart,
        written first: a cell that is there has its measure.
        """
        self.begin()
        if measure is not None:
            _write_cell(self._path("measures", spec), spec, "measure", measure)
        _write_cell(self._path("cells", spec), spec, "result", result)

    def load_measure(self, spec: Mapping[str, JSON]) -> dict[str, Any] | None:
        """Return the measure saved for `spec`, None where there is none."""
        path = self._path("measures", spec)
        if not os.path.lexists(path):
            return None
        measure = _read_cell(path, "measure")[1]
        with _refused_as_damaged(path):
            check_measure(measure)
        return measure

    def cells(self) -> Iterator[Cell]:
        """Yield all finished cells, in the order of their keys."""
        for path in sorted((self.folder / "cells").glob("[!.]*.json")):
            check_inside(self.folder, path)
            yield Cell(*self._read_result(path))

    def adapter_folder(self, spec: Mapping[str, JSON]) -> Path:
        """Return where the adapter of `spec` is, or will be: whole, or not there at all."""
        folder = self.folder / "adapters" / cell_key(spec)
        check_inside(self.folder, folder)
        if folder.is_dir():
            check_tree(self.folder, folder)
        return folder

    @contextmanager
    def new_adapter(self, spec: Mapping[str, JSON]) -> Iterator[Path]:
        """Yield a folder to train into, not there yet; it becomes `adapter_folder(spec)` at the end.

        What the training keeps beside it to go on from is there again after a kill or an error. While another process
        is at this adapter, the folder is one of its own; where that one was first, its adapter stays.
        """
        final = self.adapter_folder(spec)
        is_new = self.begin()
        try:
            with _workplace(final) as folder:
                yield folder / "adapter"
                _move_folder(folder / "adapter", final)
        except BaseException:
            if is_new:
                self._abandon()
            raise

    def _abandon(self) -> None:
        """Remove what `begin` made where nothing has come into the folder since: a refused training leaves no run."""
        own = {self.folder / SOURCES / name: text for name, text in (self.made.sources if self.made else {}).items()}
        files = {path for path in self.folder.rglob("*") if not path.is_dir() or path.is_symlink()}
        if files - own.keys() != {self.folder / "run.json"}:
            return
        if any(path in files and (path.is_symlink() or path.read_bytes() != text) for path, text in own.items()):
            return
        with suppress(OSError):  # something has come into one of them
            for path in files:
                path.unlink()
            folders = {place for path in own for place in path.parents if place.is_relative_to(self.folder)}
            for folder in sorted({*folders, self.folder / "adapters", self.folder}, reverse=True):
                folder.rmdir()

    def _read_result(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (spec, result) of a cell file.

        A budget's part of a cell has as many predictions as `items`; what is no cell of its own (`part`) has none.
        """
        spec, result = _read_cell(path, "result")
        with _refused_as_damaged(path):
            wanted = len(spec["items"]) if "items" in spec else self.sizes.get(str(spec.get("test")))
            check_result(spec, result, wanted)
        return spec, result

    def _path(self, kind: str, spec: Mapping[str, JSON]) -> Path:
        path = self.folder / kind / f"{cell_key(spec)}.json"
        check_inside(self.folder, path)
        return path


def read_made(folder: Path) -> tuple[dict[str, Any], dict[str, Any], object]:
    """Return what run.json holds: settings, versions, and the origin if there is one; raises RunError."""
    path = folder / "run.json"
    if not os.path.lexists(path):
        raise RunError(f"{folder}: holds no run (no run.json); give the folder of a run")
    check_inside(folder, path)
    found = _read_object(path)
    settings, made_with = found.get("settings"), found.get("versions")
    if not isinstance(settings, dict) or not isinstance(made_with, dict):
        raise _damaged(path)
    return settings, made_with, found.get("origin")


def default_folder(task: str, settings: Mapping[str, JSON]) -> Path:
    """Return `runs/<task>-<8 hex digits>`: other settings or library versions, another folder."""
    digest = cell_key({"settings": settings, "versions": versions()})
    return Path("runs") / f"{task}-{digest[:8]}"


@contextmanager
def _workplace(final: Path) -> Iterator[Path]:
    """Yield the folder in which `final` is made: the same after a kill, a new one while another process has that.

    It is gone after the block, unless that ends in an error and leaves something to go on from.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        kept = _enter(final)
        place = kept or make_place(final)
    except OSError as error:
        raise unwritable(final, error) from error
    folder = place.folder if kept else place.folder / MADE
    folder.mkdir(exist_ok=True)
    done = False
    try:
        yield folder
        done = True
    finally:
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        if done or not kept or [path.name for path in folder.iterdir()] == [MARK]:
            place.remove()
        place.close()


def _enter(final: Path) -> Place | None:
    """Return the folder that is kept beside an adapter until it is made; None where it is another's, or in use."""
    folder = final.with_name(f".{final.name}{_UNFINISHED}")
    if os.name != "posix":
        return None
    if not os.path.lexists(folder):
        with suppress(OSError):  # another process was first
            return make_place(folder, ADAPTER).move(folder)
    with suppress(RunError):
        place = find_place(folder, ADAPTER)
        if place and not find_foreign(folder):
            place.clear("adapter")  # of a process that was killed before it was moved
            return place
        if place:
            place.close()
    return None


def _move_folder(finished: Path, final: Path) -> None:
    """Move a folder to its name; where another process was first, its folder stays."""
    try:
        finished.rename(final)
    except OSError as error:
        if not final.exists():
            raise unwritable(final, error) from error


def _is_run(folder: Path) -> bool:
    """Say whether the folder holds a run (True) or is free for one (False); otherwise raise RunError."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunError(f"{folder}: is no run folder ({error.strerror}); give another --out") from error
    if "run.json" not in names and not all(map(is_hidden, names)):
        raise RunError(f"{folder}: exists and holds no run (no run.json); give another --out")
    return "run.json" in names


def _refuse_difference(folder: Path, wanted: Mapping[str, JSON]) -> bool:
    """Return whether `wanted` has a larger grid than the run there, and the rest is equal.

    Raises RunError with the first setting or version in which it differs otherwise.
    """
    found = _read_object(folder / "run.json")
    plain = json.loads(canonical_json(wanted, folder))
    difference = first_difference({key: found.get(key) for key in plain}, plain)
    if not difference:
        return False
    grids = [_take_grid(each) for each in (found, plain)]
    rest = first_difference({key: found.get(key) for key in plain}, plain)
    if all(grids) and not rest and all(_contains(values, grids[0].get(axis)) for axis, values in grids[1].items()):
        return True
    raise RunError(f"{folder}: this run was started with {difference}; give another --out, or the same again")


def _take_grid(made: dict[str, Any]) -> dict[str, Any]:
    """Remove what may grow from the settings of a run, and return it."""
    settings = made.get("settings")
    grid = settings.pop("grid", None) if isinstance(settings, dict) else None
    return grid if isinstance(grid, dict) else {}


def _contains(larger: Any, smaller: Any) -> bool:
    """Whether the values of an axis, or how many there are, have only been added to; None is without a limit."""
    if larger is None or smaller is None:
        return larger is None
    if isinstance(larger, dict) and isinstance(smaller, dict):
        return smaller.items() <= larger.items()
    if isinstance(larger, list) and isinstance(smaller, list):
        return all(value in larger for value in smaller)
    return isinstance(larger, int | float) and isinstance(smaller, int | float) and smaller <= larger


def _write_first(path: Path, content: bytes) -> bool:
    """Write a file and return whether it is this process's; it is not where another one was first."""
    try:
        with new_file(path) as file:
            file.write(content)
    except RunError:
        if path.exists():
            return False
        raise
    return True


def _set_aside(folder: Path) -> None:
    """Move the results of a smaller grid, and a copy of what was run for them, into a folder of their own."""
    content = (folder / "run.json").read_bytes()
    place = folder / EARLIER / hashlib.sha256(content).hexdigest()[:8]
    found = [folder / name for name in RESULTS if (folder / name).exists()]
    if found:
        write_whole(place / "run.json", content)
    for path in found:
        with suppress(FileNotFoundError):  # another process was first
            os.replace(path, place / path.name)


def _write_cell(path: Path, spec: Mapping[str, JSON], name: str, value: Mapping[str, JSON]) -> None:
    content: dict[str, JSON] = {
        "spec": spec,
        name: value,
        "sha256": hashlib.sha256(canonical_json(value, path)).hexdigest(),
    }
    write_whole(path, canonical_json(content, path) + b"\n")


def _read_cell(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (spec, value) of a cell file; RunError where it is not what `_write_cell` wrote there."""
    content = _read_object(path)
    spec, value = content.get("spec"), content.get(name)
    with _refused_as_damaged(path):
        if not isinstance(spec, dict) or not isinstance(value, dict) or cell_key(spec) != path.stem:
            raise ValueError(f"spec and {name} are not those of this file's name")
        if content.get("sha256", cell_key(value)) != cell_key(value):  # cells from before it was kept have none
            raise ValueError(f"{name} has another sha256 than when it was written")
        return spec, value


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return parse_json_object(read_input(path, LARGEST_DATA))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); give another --out") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error


@contextmanager
def _refused_as_damaged(path: Path) -> Iterator[None]:
    """Raise what is found wrong with a file's content in the block as a RunError that names the file."""
    try:
        yield
    except (ValueError, RunError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str = "") -> RunError:
    fix = "give another --out" if path.name == "run.json" else "delete it and start again, which computes it anew"
    what = f" ({reason:.200})" if reason else ""
    return RunError(f"{path}: was damaged or edited from outside{what}; files of a run are written whole; {fix}")


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that live no more have left: files that they were writing, and states of adapters."""
    parts = [folder / name for name in ("cells", "measures", "adapters", SOURCES)]
    for part in (folder, *parts, *folder.glob(f"{EARLIER}/*")):
        if part == folder or not part.is_symlink():
            sweep_folder(part)
    for path in folder.glob(f"adapters/.*{_UNFINISHED}"):
        final = path.with_name(path.name.removeprefix(".").removesuffix(_UNFINISHED))
        if final.exists() and (place := _enter(final)):  # another process made it
            place.remove()
