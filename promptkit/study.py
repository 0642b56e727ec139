"""A grid of conditions on the same records: how far demonstrations, templates and formats move the answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptkit.cost import Meter
from promptkit.errors import PromptkitError, StudyError, TemplateError
from promptkit.evaluate import Progress, Scorer, evaluate_together, hash_records, right_answers
from promptkit.grid import AXES, NESTED, Point, StudySettings, load_settings, plan_grid
from promptkit.splits import Splits, load_splits
from promptkit.stats.variance import decompose_variance, describe_shares
from promptkit.store import Run, default_folder, write_whole
from promptkit.summary import Finished, count_break_even, describe_cell, describe_method, describe_notes, guess_accuracy
from promptkit.task import Task, load_task
from promptkit.work import Track, Trainer, Work, default_scorer, default_trainer, load

if TYPE_CHECKING:
    from promptkit.models import Model

#: The axes that repeat a condition: their values have no meaning of their own.
VARIED = ("draw", "order", "seed")


@dataclass(frozen=True)
class Done:
    """A finished cell of a study and its place on the axes."""

    point: Point
    cell: Finished


def study(
    task: Task | str,
    *,
    model: Model | str = "tiny",
    preset: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    workers: int = 1,
    dry_run: bool = False,
    scorer: Scorer | None = None,
    trainer: Trainer | None = None,
    track: Track | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Run a grid of conditions on one task, and return the object that `--json` prints.

    `preset` names a preset or a TOML file of settings; `settings` are fields of `StudySettings` and replace its.
    `out` is the run folder (default `runs/<task>-study-<hash of the data and of what is held fixed>`): cells that it
    holds are not computed again, also where axes have got further values since. It gets `predictions.parquet`, every
    prediction of every cell, and `study.json`, the object that is returned. With several `workers` as many processes
    fill it, each with its share of the cores; models must be given by name then. With `dry_run` nothing is computed but
    what it will take: cells, trainings, tokens and minutes.

    Raises a PromptkitError for whatever is wrong with task, templates, data, models, settings or folder.
    """
    task = task if isinstance(task, Task) else load_task(task)
    plan = Study(task, load_settings(preset, **settings), data, out, device)
    models = plan.settings.models or (model,)
    if dry_run:
        return plan.forecast(models)
    track = track or (lambda name: lambda done, total: None)
    done: list[Done] = []
    for name in models:
        loaded = load(name, plan.settings.dtype, device)
        work = plan.work(loaded, scorer, trainer)
        points, bundles = plan.points(loaded)
        if workers > 1:
            plan.fill(name, work, bundles, workers, track("all"))
        finished = work.run_all(bundles, track)
        done += [Done(point, cell) for point, cell in zip(points, finished, strict=True)]
    result = {**summarize_study(task, loaded, plan.settings, plan.splits, done), "run": str(plan.run.folder)}
    write_predictions(done, plan.run.folder / "predictions.parquet")
    write_whole(plan.run.folder / "study.json", json.dumps(result, indent=1).encode() + b"\n")
    return result


class Study:
    """A study as it is asked for: its settings, records and run folder."""

    def __init__(
        self, task: Task, settings: StudySettings, data: str | Path | None, out: str | Path | None, device: str | None
    ) -> None:
        self.task, self.settings, self.data, self.device = task, settings, data, device
        self.splits = load_splits(
            task,
            data=data,
            split=settings.split,
            limit=settings.limit,
            train_limit=_pool_limit(settings),
            seed=settings.seed,
        )
        fixed = _fixed(task, settings, self.splits)
        self.run = Run.open(Path(out) if out else default_folder(f"{task.name}-study", fixed), fixed)

    def points(self, model: Model) -> tuple[list[Point], list[list[Point]]]:
        """Return the cells for this model, and the same in bundles that are scored together."""
        points = list(plan_grid(self.task, self.settings, self.splits, model))
        if not points:
            methods = ", ".join(self.settings.methods)
            raise TemplateError(
                f"no template here goes with {methods}: chain of thought needs one with a rationale, "
                "the other methods one without; see --template and --methods"
            )
        return points, [list(bundle) for _, bundle in groupby(points, key=_bundle)]

    def work(self, model: Model, scorer: Scorer | None = None, trainer: Trainer | None = None) -> Work:
        """Return what computes the cells of this model."""
        return Work(
            model, self.splits, self.settings, self.run, scorer or default_scorer(), trainer or default_trainer()
        )

    def forecast(self, models: Sequence[Model | str]) -> dict[str, Any]:
        """Return what the study will take: cells, tokens and minutes.

        Of every kind of cell that is missing (template, method, number of demonstrations) a few records are scored,
        first few and then more, which tells the part that all records share from the part of each. Minutes are of
        this machine as it is now; trainings are counted, not timed.
        """
        cells = trainings = 0
        tokens = seconds = 0.0
        for name in models:
            loaded = load(name, self.settings.dtype, self.device)
            points, bundles = self.points(loaded)
            work = self.work(loaded)
            cells += len(points)
            missing = [bundle for bundle in bundles if not all(map(work.is_done, bundle))]
            trainings += sum(bool(bundle[0].rows) for bundle in missing)
            kinds: dict[Any, list[Sequence[Point]]] = {}
            for bundle in missing:
                condition = bundle[0].condition
                kinds.setdefault((condition.method, condition.bound.template.name, condition.k), []).append(bundle)
            for alike in kinds.values():
                one = _time_bundle(loaded, self, alike[0])
                tokens += one[0] * len(alike)
                seconds += one[1] * len(alike)
        return {
            "task": self.task.name,
            "cells": cells,
            "trainings": trainings,
            "tokens_computed": round(tokens),
            "minutes": round(seconds / 60, 1),
            "run": str(self.run.folder),
        }

    def fill(
        self, model: Model | str, work: Work, bundles: Sequence[Sequence[Point]], workers: int, progress: Progress
    ) -> None:
        """Compute what is missing in so many processes; raises what the first of them raises."""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, wait

        if not isinstance(model, str):
            raise PromptkitError("several workers load the model themselves; give its name or folder, or one worker")
        missing = [number for number, bundle in enumerate(bundles) if not all(map(work.is_done, bundle))]
        given = (self.task, self.settings, self.data, self.run.folder, self.device, model)
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = [pool.submit(fill_part, *given, missing[start::workers], workers) for start in range(workers)]
            while wait(parts, timeout=1).not_done:
                left = sum(not all(map(work.is_done, bundles[number])) for number in missing)
                progress(len(missing) - left, len(missing))
            for part in parts:
                part.result()


def fill_part(
    task: Task,
    settings: StudySettings,
    data: str | Path | None,
    out: Path,
    device: str | None,
    model: str,
    numbers: Sequence[int],
    workers: int,
) -> None:
    """Compute the bundles of these numbers: what one of several processes does, with its share of the cores."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    plan = Study(task, settings, data, out, device)
    loaded = load(model, settings.dtype, device)
    _, bundles = plan.points(loaded)
    own = [bundles[number] for number in numbers]
    for _ in plan.work(loaded).run_all(own, lambda name: lambda done, total: None):
        pass


def _time_bundle(model: Model, plan: Study, bundle: Sequence[Point]) -> tuple[float, float]:
    """Return about how many tokens and seconds a bundle takes, from a few of its records."""
    queries = plan.splits.test

    def take(count: int) -> tuple[float, float]:
        with Meter(model.device) as meter:
            results = evaluate_together(
                model,
                [point.condition for point in bundle],
                queries[:count],
                plan.splits.pool,
                scorer=default_scorer(),
                overlong="drop",
            )
        return sum(result["tokens_computed"] for result in results), meter.seconds

    few, more = min(4, len(queries)), min(16, len(queries))
    take(1)  # which also pays for everything that is done once
    first, second = take(few), take(more)
    rest = (len(queries) - more) / max(1, more - few)
    return second[0] + rest * (second[0] - first[0]), second[1] + rest * max(0.0, second[1] - first[1])


def _pool_limit(settings: StudySettings) -> int | None:
    limit = settings.train_limit
    return None if limit is None else max(limit, *settings.train_sizes, 0)


def _fixed(task: Task, settings: StudySettings, splits: Splits) -> dict[str, Any]:
    """Return what run.json records: what no axis varies. Cells name everything else they depend on."""
    return {
        "command": "study",
        "task": task.name,
        "task_hash": task.hash,
        "test": hash_records(splits.test),
        "pool": hash_records(splits.pool),
        "seed": settings.seed,
        "split": settings.split,
        "limit": settings.limit,
        "train_limit": settings.train_limit,
        "chat": settings.chat,
        "dtype": settings.dtype,
    }


def _bundle(point: Point) -> Any:
    """Return what neighbours have in common whose prompts are scored together; nothing where texts are written."""
    writes = point.condition.bound.template.is_cot or point.condition.bound.task.is_free_text
    return tuple(point.factors.items()) if writes or point.rows else point.group


def summarize_study(
    task: Task, model: Model, settings: StudySettings, splits: Splits, done: Sequence[Done]
) -> dict[str, Any]:
    """Return the study as JSON; the keys that `compare` has too mean the same there."""
    labels = Counter(record.label for record in splits.test)
    return {
        "task": task.name,
        "model": model.name,
        "models": list(dict.fromkeys(each.point.factors["model"] for each in done)),
        "preset": {"reference": settings.reference, "about": settings.about},
        "labels": list(task.labels) if task.labels else None,
        "metric": task.metric,
        "chance": guess_accuracy(task, splits),
        "majority": max(labels.values()) / len(splits.test) if task.labels else None,
        "records": {"test": len(splits.test), "pool": len(splits.pool), "validation": len(splits.validation)},
        "axes": {axis: list(values) for axis, values in list_axes(done).items()},
        "cells": [
            {
                **describe_cell(task, each.cell),
                "model": each.point.factors["model"],
                "factors": dict(each.point.factors),
            }
            for each in done
        ],
        "methods": [_method(task, group) for group in group_methods(done)],
        "break_even": count_break_even_of(model, done),
        "levels": _levels(done),
        **_shares(done),
        "notes": [*splits.notes, *describe_notes([each.cell for each in done])],
    }


def _levels(done: Sequence[Done]) -> dict[str, Any]:
    """Return, per axis that varies, the accuracy over the cells of each of its values; draws and orders left out."""
    found: dict[str, Any] = {}
    for axis, values in list_axes(done).items():
        if len(values) < 2 or axis in VARIED:
            continue
        found[axis] = []
        for value in values:
            means = [_accuracy(each) for each in done if each.point.factors.get(axis) == value]
            found[axis].append(
                {"value": value, "cells": len(means), "mean": fmean(means), "min": min(means), "max": max(means)}
            )
    return found


def _accuracy(each: Done) -> float:
    return fmean(right_answers(each.cell.result))


def _shares(done: Sequence[Done]) -> dict[str, Any]:
    """Return the factors' shares of variance, and in words what they mean; empty for less than two cells."""
    axes = {axis: values for axis, values in list_axes(done).items() if len(values) > 1}
    if len(done) < 2 or not axes:
        return {"factors": [], "verdict": []}
    factors, notes = _tell_apart({axis: [each.point.factors.get(axis, "") for each in done] for axis in axes})
    nested = {inner: outer for inner, outer in NESTED.items() if inner in factors and outer in factors}
    right = [right_answers(each.cell.result) for each in done]
    try:
        found = decompose_variance(right, factors, nested=nested)
    except StudyError as error:
        return {"factors": [], "verdict": [f"The variance is not split: {error}."]}
    shares = [
        {"factor": part.name, "share": part.share, "ci95": part.interval.as_list(), "between": part.between}
        for part in found.parts
    ]
    return {"factors": shares, "verdict": [describe_shares(found), *notes]}


def _tell_apart(factors: dict[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the factors whose levels do not follow from those before them, and sentences on the others."""
    kept: dict[str, list[str]] = {}
    notes = []
    for axis, levels in factors.items():
        pairs = set(zip(zip(*kept.values(), strict=True), levels, strict=True)) if kept else set()
        if kept and len(pairs) == len({before for before, _ in pairs}):
            notes.append(
                f"In this grid the {axis} follows from {' and '.join(kept)}: their parts cannot be told apart."
            )
        else:
            kept[axis] = levels
    return kept, notes


def list_axes(done: Sequence[Done]) -> dict[str, tuple[str, ...]]:
    """Return the values that every axis takes in these cells, in the order of the cells."""
    found: dict[str, dict[str, None]] = {}
    for each in done:
        for axis, value in each.point.factors.items():
            found.setdefault(axis, {})[value] = None
    return {axis: tuple(found[axis]) for axis in AXES if axis in found}


def group_methods(done: Sequence[Done]) -> list[list[Done]]:
    """Return the cells that differ in nothing but the draw, its order and the seed, together."""
    groups: dict[tuple[tuple[str, str], ...], list[Done]] = {}
    for each in done:
        fixed = tuple(item for item in each.point.factors.items() if item[0] not in VARIED)
        groups.setdefault(fixed, []).append(each)
    return list(groups.values())


def _method(task: Task, group: Sequence[Done]) -> dict[str, Any]:
    row = describe_method(task, [each.cell for each in group])
    factors = {axis: value for axis, value in group[0].point.factors.items() if axis not in VARIED}
    accuracy = row["accuracy"]
    return {**row, "model": factors["model"], "factors": factors, "spread": accuracy["max"] - accuracy["min"]}


def count_break_even_of(model: Model, done: Sequence[Done]) -> dict[str, Any]:
    """Return the break-even counts of the cells of this model, empty where nothing was trained."""
    from promptkit.cost import shape_of

    groups = [[each.cell for each in group] for group in group_methods(done)]
    own = [group for group, each in zip(groups, group_methods(done), strict=True) if _is_of(model, each)]
    return count_break_even(shape_of(model.network), own)


def _is_of(model: Model, group: Sequence[Done]) -> bool:
    return group[0].point.factors["model"] == model.name


def write_predictions(done: Sequence[Done], path: Path) -> None:
    """Write every prediction of every cell as a row of a Parquet file, in place of one that is there.

    Columns: the axes, `cell` (its key), `id`, `label`, `predicted` (as text), `right`, `logprobs` (nats per choice).
    """
    import pyarrow
    import pyarrow.parquet

    from promptkit.files import new_file

    with new_file(path) as file:
        table = pyarrow.Table.from_pylist(list(_prediction_rows(done)))
        pyarrow.parquet.write_table(table, file)


def _prediction_rows(done: Sequence[Done]) -> Iterator[Mapping[str, Any]]:
    from promptkit.store import cell_key

    for each in done:
        axes = {axis: each.point.factors.get(axis) for axis in AXES}
        key = cell_key(each.point.spec)
        right = right_answers(each.cell.result)
        for row, is_right in zip(each.cell.result["predictions"], right, strict=True):
            yield {
                "cell": key,
                **axes,
                "id": row["id"],
                "label": None if row["label"] is None else str(row["label"]),
                "predicted": None if row["predicted"] is None else str(row["predicted"]),
                "right": bool(is_right),
                "logprobs": row["logprobs"],
            }
