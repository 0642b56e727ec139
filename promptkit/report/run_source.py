"""Read from a run folder what its report shows: the result, every answer of every cell, and what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptkit.errors import RunError
from promptkit.experiments.run_folder import Run
from promptkit.report.curve_table import describe_crossings
from promptkit.report.findings import describe_methods, describe_spread
from promptkit.report.result_schema import ComparisonSchema, MadeSchema, StudySchema, check_shape
from promptkit.report.units import condition_name
from promptkit.stats.metrics import correctness
from promptkit.storage.files import LARGEST_DATA, check_inside, check_readable, read_input
from promptkit.storage.parsing import cell_key, parse_json_object

Result = Mapping[str, Any]

#: The axes that repeat a condition, as a study has them.
VARIED = ("draw", "order", "seed")
#: The file that holds a run's result, by the command that made the run.
RESULT_FILES = {"study": "study.json", "compare": "compare.json"}
_SHAPES: dict[str, type[ComparisonSchema]] = {"study": StudySchema, "compare": ComparisonSchema}
_NAMED_BY_METHOD = ("method", "k", "train-size", "pool-rows")


@dataclass(frozen=True)
class Answers:
    """The answers of one cell, record by record; `label` and `predicted` as text, None where there is none."""

    cell: str
    ids: Sequence[str]
    labels: Sequence[str | None]
    predicted: Sequence[str | None]
    right: Sequence[bool]


@dataclass(frozen=True)
class RunSource:
    """A finished run: its `result` (the object of `--json`), its cells' answers and specs in the same order.

    `settings` and `versions` are those of run.json. The result of a comparison has a study's keys too.
    """

    folder: Path
    kind: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    result: Result
    answers: tuple[Answers, ...]
    specs: tuple[Mapping[str, Any], ...]


def load_source(folder: Path) -> RunSource:
    """Return what the run in `folder` left.

    Raises RunError for a folder that holds no run, a run that is not finished, and files that do not fit together.
    """
    for name in ("run.json", "cells", "predictions.parquet", *RESULT_FILES.values()):
        check_inside(folder, folder / name)
    made_at = folder / "run.json"
    made = _read_object(made_at, f"{folder}: holds no run (no run.json); give the folder of a run")
    settings = made.get("settings")
    command = settings.get("command") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or command not in RESULT_FILES:
        raise RunError(f"{folder}: holds a run of {command!r}; a report needs one of {', '.join(RESULT_FILES)}")
    name = RESULT_FILES[str(command)]
    missing = f"{folder}: has no {name}, so its run is not finished; give the same `promptkit {command}` again"
    result = _read_object(folder / name, missing)
    check_shape(made_at, made, MadeSchema)
    check_shape(folder / name, result, _SHAPES[str(command)])
    if any(cell["accuracy"] is None for cell in result["cells"]):
        raise RunError(f"{folder / name}: its records have no labels, so there is no accuracy to report on")
    result = {**result, "run": str(folder), "figures": []}  # paths of where the run was made
    load = {"study": _load_study, "compare": _load_comparison}[str(command)]
    run = Run(folder, {settings["test"]: result["records"]["test"]})
    return RunSource(folder, str(command), settings, made.get("versions") or {}, *load(run, result))


def _read_object(path: Path, missing: str) -> dict[str, Any]:
    try:
        return parse_json_object(read_input(path, LARGEST_DATA))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(missing) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); give the same command again, which writes it anew") from error


Loaded = tuple[Result, tuple[Answers, ...], tuple[Mapping[str, Any], ...]]


def _load_study(run: Run, result: Result) -> Loaded:
    sizes = [cell["n"] for cell in (*result["cells"], *result.get("away", ()))]
    answers = _slice_predictions(run.folder / "predictions.parquet", sizes)[: len(result["cells"])]
    specs = {}
    for cell in run.cells():
        whole = {key: value for key, value in cell.spec.items() if key != "items"}  # a budget leaves parts of cells
        specs[cell_key(whole)] = whole
    return result, answers, tuple(specs.get(each.cell, {}) for each in answers)


def _slice_predictions(path: Path, sizes: Sequence[int]) -> tuple[Answers, ...]:
    """Return the answers of cells of these sizes, which stand in the file one after the other."""
    import pyarrow
    import pyarrow.parquet

    again = "give the same command again, which writes it anew"
    try:
        check_readable(path)
        table = pyarrow.parquet.read_table(path, columns=["cell", "id", "label", "predicted", "right"])
    except (OSError, pyarrow.ArrowException) as error:
        raise RunError(f"{path}: cannot be read; {again}") from error
    if table.num_rows != sum(sizes):
        raise RunError(f"{path}: has {table.num_rows:,} rows, study.json tells of {sum(sizes):,}; {again}")
    found, start = [], 0
    for size in sizes:
        part = table.slice(start, size).to_pydict()
        found.append(Answers(part["cell"][0], part["id"], part["label"], part["predicted"], part["right"]))
        start += size
    return tuple(found)


def _load_comparison(run: Run, result: Result) -> Loaded:
    """Return a comparison with a study's keys, its answers read from its cells."""
    there: dict[tuple[Any, ...], list[Any]] = {}
    trained = {}
    cells = list(run.cells())
    for cell in cells:
        if cell.spec.get("part") == "training":
            trained[cell_key({key: value for key, value in cell.spec.items() if key != "part"})] = cell.result["rows"]
    for cell in cells:
        if "predictions" in cell.result:
            there.setdefault(_place_of_spec(cell.spec, trained), []).append(cell)
    found = []
    for cell in result["cells"]:
        candidates = there.get(_place(cell), [])
        if not candidates:
            raise RunError(
                f"{run.folder / 'cells'}: the cell of {condition_name(cell)} is gone; give the same command again"
            )
        found.append(candidates.pop(0) if len(candidates) > 1 else candidates[0])
    answers = tuple(_answers(cell.spec, cell.result["predictions"]) for cell in found)
    return _as_study(result), answers, tuple(cell.spec for cell in found)


def _place(cell: Result) -> tuple[Any, ...]:
    draw = cell.get("draw") or {}
    rows = cell.get("train_rows"), cell.get("pool_rows")
    return cell["method"], cell["template"], cell["k"] or 0, draw.get("seed"), draw.get("order"), *rows


def _place_of_spec(spec: Mapping[str, Any], trained: Mapping[str, int]) -> tuple[Any, ...]:
    draw = spec.get("draw") or {}
    return (
        spec["method"],
        spec["template"],
        spec["k"],
        draw.get("seed", spec.get("seed")),
        draw.get("order"),
        trained.get(cell_key(spec)),
        spec.get("pool_rows"),
    )


def _answers(spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Answers:
    labels, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    right = [bool(each) for each in correctness(predicted, labels)]
    return Answers(cell_key(spec), [row["id"] for row in rows], _texts(labels), _texts(predicted), right)


def _texts(values: Sequence[Any]) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


def _as_study(result: Result) -> Result:
    cells = [{**cell, "factors": _factors(cell, result["model"])} for cell in result["cells"]]
    methods = [
        {
            **method,
            "factors": {axis: value for axis, value in _factors(method, result["model"]).items() if axis not in VARIED},
            "spread": method["accuracy"]["max"] - method["accuracy"]["min"],
        }
        for method in result["methods"]
    ]
    axes: dict[str, dict[str, None]] = {}
    for cell in cells:
        for axis, value in cell["factors"].items():
            axes.setdefault(axis, {})[value] = None
    return {
        **result,
        "models": [result["model"]],
        "preset": {"reference": "", "about": ""},
        "axes": {axis: list(values) for axis, values in axes.items()},
        "cells": cells,
        "methods": methods,
        "levels": {},
        "factors": [],
        "verdict": [
            *describe_spread(result),
            *describe_methods(result),
            *describe_crossings((result.get("curves") or {}).get("crossings", ())),
        ],
    }


def _factors(condition: Result, model: str) -> dict[str, str]:
    draw = condition.get("draw") or {}
    place = {
        "model": model,
        "method": condition["method"],
        "template": condition["template"],
        "k": str(condition.get("k") or 0),
        "draw": draw.get("seed") if "order" in draw else None,
        "order": draw.get("order"),
        "train-size": condition.get("train_rows"),
        "pool-rows": condition.get("pool_rows"),
        "seed": None if "order" in draw else draw.get("seed"),
    }
    return {axis: str(value) for axis, value in place.items() if value is not None}


def condition_of(cell: Result) -> tuple[tuple[str, str], ...]:
    """Return what the cells of one condition have in common: every factor but draw, order and seed."""
    return tuple(item for item in cell["factors"].items() if item[0] not in VARIED)


def name_conditions(result: Result) -> dict[tuple[tuple[str, str], ...], str]:
    """Return a name for every condition: its method and number, and what else differs between conditions."""
    methods = result["methods"]
    others = [axis for axis in varying_axes(methods) if axis not in _NAMED_BY_METHOD]
    return {
        condition_of(method): " · ".join(
            [condition_name(method), *(method["factors"][axis] for axis in others if axis in method["factors"])]
        )
        for method in methods
    }


def varying_axes(methods: Sequence[Result]) -> list[str]:
    """Return the axes on which conditions have different values."""
    axes = dict.fromkeys(axis for method in methods for axis in method["factors"])
    values = {axis: {each["factors"][axis] for each in methods if axis in each["factors"]} for axis in axes}
    return [axis for axis in axes if len(values[axis]) > 1]


def cells_by_condition(result: Result) -> dict[tuple[tuple[str, str], ...], list[Result]]:
    """Return the cells of every condition, in the order of the conditions."""
    groups: dict[tuple[tuple[str, str], ...], list[Result]] = {condition_of(each): [] for each in result["methods"]}
    for cell in result["cells"]:
        groups.setdefault(condition_of(cell), []).append(cell)
    return groups
