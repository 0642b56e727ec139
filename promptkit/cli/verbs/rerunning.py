"""Make a run again from the files it kept, and compare every cell."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from promptkit.data.library import only_from
from promptkit.data.local import Data, DataFiles, RowSets, as_data
from promptkit.data.tasks import load_task
from promptkit.errors import PromptkitWarning, RunError
from promptkit.experiments.compare import compare
from promptkit.experiments.executor import Track
from promptkit.experiments.grid import StudySettings
from promptkit.experiments.origin import READING, kept_templates
from promptkit.experiments.plan import CompareSettings
from promptkit.experiments.run_folder import RESULTS, SOURCES, Run, checked_by, read_made
from promptkit.experiments.study import study
from promptkit.storage.libraries import versions
from promptkit.storage.parsing import cell_key, first_difference
from promptkit.storage.paths import real_path

#: Numbers that differ by less are equal within what rounding does: nats, and shares of anything else.
TOLERANCE = 1e-4
_VERBS: dict[str, Callable[..., dict[str, Any]]] = {"compare": compare, "study": study}


_SETTINGS = {"compare": CompareSettings, "study": StudySettings}


class HowRead(BaseModel):
    """How data files were read, as `DataFiles` has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    delimiter: str | None
    quoting: bool | None
    labels_are: str | None


class Origin(BaseModel):
    """What run.json says of where a run came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    command: str
    task: str | None
    task_file: str
    tests: dict[str, str | None]
    templates: dict[str, str]
    data: str | None
    reading: HowRead | None
    rows: str | None
    source: dict[str, Any]
    models: list[str]
    settings: dict[str, Any]


def rerun(
    run: str | Path,
    *,
    out: str | Path | None = None,
    data: Data | None = None,
    model: str | None = None,
    device: str | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Run the same command with the task and template files that the run kept, and return how its cells compare.

    `out` is the new run's folder (default `RUN-rerun`, with a number where that is finished). `data` and `model` say
    where records and model are now; without them they are looked for where they were. Raises RunError where they are
    not the same any more, before anything is computed, and for a run that kept no files.
    """
    folder = Path(run)
    settings, then, said = read_made(folder)
    origin = _read_origin(folder, settings, said)
    sources = folder / SOURCES
    given = _read_settings(folder / "run.json", origin)
    files = kept_templates(origin.templates, sources, _patterns(given.get("templates", ())))
    tasks = {str(Path(origin.task_file).expanduser()): origin.task, **origin.tests}
    files |= {name: sources / str(file) for name, file in tasks.items() if name.endswith(".toml")}
    if then != versions():
        warnings.warn(
            f"{folder}: was made with other versions ({first_difference(then, versions())}); figures may differ",
            PromptkitWarning,
            stacklevel=2,
        )
    models = (model,) if model else tuple(origin.models)
    if len(models) > 1:
        given["models"] = models
    elif "models" in given:
        given["models"] = ()
    task = load_task(sources / str(origin.task)).model_copy(update={"path": Path(origin.task_file).expanduser()})
    target = Path(out) if out else _free_folder(folder)
    if real_path(target) == real_path(folder):
        raise RunError(f"{target}: is the run itself; give another --out")
    place = _find_data(folder, origin, data)
    with only_from(sources, files), checked_by(lambda asked: _check(folder, settings, asked)):
        result = _VERBS[origin.command](
            task, model=models[0], data=place, out=target, device=device, track=track, **given
        )
    return {"run": str(folder), "rerun": result["run"], **compare_cells(folder, Path(result["run"]))}


def _read_origin(folder: Path, settings: Mapping[str, Any], said: object) -> Origin:
    path = folder / "run.json"
    if not isinstance(said, dict):
        raise RunError(f"{path}: does not say where the run came from, so it cannot be run again; give its command")
    try:
        origin = Origin(**said)
    except (ValidationError, TypeError) as error:
        raise RunError(f"{path}: was damaged or edited from outside: `origin` is not what promptkit wrote") from error
    if origin.command not in _VERBS:
        raise RunError(
            f"{path}: holds a run of {origin.command!r}; only {', '.join(_VERBS)} and score can be run again"
        )
    for role in ("scorer", "trainer"):
        if role in settings:
            raise RunError(f"{path}: its {role} is {settings[role]!r}, a function of Python; run it again from there")
    if origin.task is None or None in origin.tests.values():
        raise RunError(
            f"{path}: its task file was not kept, because it holds credentials or was changed in Python; give the "
            "command again where that file is"
        )
    if not origin.models:
        raise RunError(f"{path}: was damaged or edited from outside: `origin` names no model")
    for name in (origin.task, *origin.tests.values(), *origin.templates.values()):
        _check_source(folder / SOURCES, str(name))
    return origin


def _read_settings(path: Path, origin: Origin) -> dict[str, Any]:
    """Return the settings as the command takes them; raises RunError where one is not of its type."""
    types = get_type_hints(_SETTINGS[origin.command])
    read: dict[str, Any] = {}
    for name, value in origin.settings.items():
        strict = ConfigDict(strict=name != "forms")
        try:
            given = tuple(value) if isinstance(value, list) else value
            read[name] = TypeAdapter(types[name], config=strict).validate_python(given)
        except (KeyError, ValidationError) as error:
            reason = f"{name!r} in `origin` is not what promptkit wrote"
            raise RunError(f"{path}: was damaged or edited from outside: {reason}") from error
    return read


def _find_data(folder: Path, origin: Origin, given: Data | None) -> DataFiles | RowSets | None:
    """Return the data given now or then, read as they were then where nothing else is said."""
    now = as_data(given)
    if now is None and origin.rows:
        raise RunError(f"{folder}: its records were the {origin.rows} of a program; give --data with the same records")
    if now is None and origin.data is not None:
        now = DataFiles(str(Path(origin.data).expanduser()))
    if isinstance(now, DataFiles) and origin.reading:
        then = origin.reading.model_dump()
        missing: dict[str, Any] = {name: then[name] for name in READING if getattr(now, name) is None}
        return replace(now, **missing)
    return now


def _check_source(sources: Path, name: str) -> None:
    path = sources / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise RunError(f"{sources.parent / 'run.json'}: names {name!r}, which is no file of {sources}")
    links = [part for part in (path, *path.parents) if part.is_relative_to(sources) and part.is_symlink()]
    if links:
        raise RunError(f"{links[0]}: is a link; a run's files are read from its own folder only")
    if not path.is_file():
        raise RunError(f"{path}: is missing, so the run cannot be made again; restore it")


def _patterns(templates: Any) -> list[str]:
    groups = templates.values() if isinstance(templates, Mapping) else [templates]
    return [str(name) for name in itertools.chain.from_iterable(groups)]


def _free_folder(folder: Path) -> Path:
    """Return `RUN-rerun`, or with a number: the first that is not there or not finished."""
    names = itertools.chain([f"{folder.name}-rerun"], (f"{folder.name}-rerun-{n}" for n in itertools.count(2)))
    places = (folder.parent / name for name in names)
    return next(place for place in places if not any((place / result).exists() for result in RESULTS))


#: What must be the same, and what to do where it is not.
_SAME = {
    "test": "the test records are not those of the run; give --data with those",
    "pool": "the training records are not those of the run; give --data with those",
    "validation": "the validation records are not those of the run; give --data with those",
    "model_hash": "the model is not the run's: its files have changed; give --model with the folder of that model",
    "models": "a model is not the run's: its files have changed; give --model with the folder of that model",
    "task_hash": "sources/ holds another task file than the run was made with; restore it",
    "task_content": "sources/ holds another task file than the run was made with; restore it",
    "template_hashes": "sources/ holds another template than the run was made with; restore it",
    "templates": "sources/ holds another template than the run was made with; restore it",
}


def _check(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunError where the run that is planned now has other files than the run then."""
    grids = [{**made, **(made["grid"] if isinstance(made.get("grid"), dict) else {})} for made in (then, now)]
    for name, reason in _SAME.items():
        before, after = (_hashes(grid.get(name), name) for grid in grids)
        if before != after:
            raise RunError(f"{folder}: {reason}")


def _hashes(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value if name != "templates" else None
    return sorted(value) if name == "models" else sorted(map(str, value.values()))


def compare_cells(first: Path, second: Path) -> dict[str, Any]:
    """Return how many cells of the first run are equal to the second's, equal within rounding, different or missing.

    Within rounding are numbers that differ by `TOLERANCE` at most while every label, text and count is the same.
    `different` says what each such cell is and by how much its numbers differ, None where it is more than numbers.
    """
    there = {_without_names(cell.spec): cell.result for cell in Run(second).cells()}
    equal, close, different, missing = 0, 0, [], []
    for cell in Run(first).cells():
        other = there.get(_without_names(cell.spec))
        what = {key: cell.spec[key] for key in ("method", "template", "k", "draw", "seed", "part") if key in cell.spec}
        if other is None:
            missing.append(what)
        elif other == cell.result:
            equal += 1
        else:
            gap = max(_gaps(cell.result, other), default=0.0)
            if gap <= TOLERANCE:
                close += 1
            else:
                different.append({**what, "difference": gap if math.isfinite(gap) else None})
    return {
        "cells": equal + close + len(different) + len(missing),
        "equal": equal,
        "within_rounding": close,
        "different": different,
        "missing": missing,
        "reproduced": not different and not missing,
    }


def _without_names(spec: Mapping[str, Any]) -> str:
    """Return a key that does not depend on where a template's file lies; its hash is in it."""
    return cell_key({key: value for key, value in spec.items() if key != "template"})


def _gaps(one: Any, other: Any) -> Iterator[float]:
    """Yield by how much numbers differ, relative to those above 1; infinity for everything else that differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _gaps(one[key], other[key])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for pair in zip(one, other, strict=True):
            yield from _gaps(*pair)
    elif isinstance(one, float) and isinstance(other, float):
        yield abs(one - other) / max(1.0, abs(one), abs(other))
    elif one != other:
        yield math.inf
