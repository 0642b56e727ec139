"""Run a grid of conditions on the same records: how far do demonstrations, templates and formats move the answer?"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapters.card import Asked, warn_of_other_form
from promptkit.analysis.cells import FinishedCell, PlannedCell, write_predictions
from promptkit.analysis.comparison_result import name_majority
from promptkit.analysis.sentences import describe_cautions
from promptkit.analysis.study_result import describe_study, summarize_study
from promptkit.costs.meter import Meter
from promptkit.data.local import Data
from promptkit.data.record import hash_records
from promptkit.data.records import load_records
from promptkit.data.splits import Splits, leave_out_copies, load_splits, note_unlearned
from promptkit.data.tasks import Task, load_task
from promptkit.errors import DataError, PromptkitError, TemplateError
from promptkit.experiments.budgeted_evaluator import Budget, BudgetedEvaluator, check_budget, describe_spent, spend
from promptkit.experiments.evaluate import Progress, Scorer, evaluate_together
from promptkit.experiments.executor import Track, Trainer, Work, default_scorer, default_trainer, load
from promptkit.experiments.grid import (
    StudySettings,
    bind_ways,
    describe_scene,
    describe_settings,
    load_settings,
    load_templates,
    plan_grid,
)
from promptkit.experiments.identity import Identity, complete, name_model
from promptkit.experiments.order_axis import OrderSearch, Search, first_candidates
from promptkit.experiments.origin import describe_origin
from promptkit.experiments.plan import list_shots
from promptkit.experiments.run_folder import Made, Run, default_folder
from promptkit.experiments.training_options import check_effects, check_seeds_of_runs
from promptkit.storage.workers import worker_pool

if TYPE_CHECKING:
    from promptkit.models import Model


def study(
    task: Task | str,
    *,
    model: Model | str = "tiny",
    preset: str | Path | None = None,
    data: Data | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    workers: int = 1,
    dry_run: bool = False,
    scorer: Scorer | None = None,
    trainer: Trainer | None = None,
    track: Track | None = None,
    explicit: Collection[str] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Run a grid of conditions on one task, and return the object that `--json` prints.

    `preset` names a preset or a TOML file of settings; `settings` are fields of `StudySettings` and replace its.
    `out` is the run folder (default `runs/<task>-study-<hash of everything that is run>`): cells that it holds are not
    computed again, also where axes have got further values since. It gets `predictions.parquet`, every
    prediction of every cell, and `study.json`, the object that is returned. With several `workers` as many processes
    fill it, each with its share of the cores; models must be given by name then. With `dry_run` nothing is computed but
    what it will take: cells, trainings, tokens and minutes. With a `budget` in the settings only so many calls are
    made, and the result has `budget`: the spread as far as they tell; see `budgeted_evaluator`. What an own `scorer` or
    `trainer` must say of itself is in docs/runs.md.
    Code that a model brings runs only with `trust_remote_code`.

    Raises a PromptkitError for whatever is wrong with task, templates, data, models, settings or folder.
    """
    task = task if isinstance(task, Task) else load_task(task)
    asked = load_settings(preset, **settings)
    check_effects(explicit, describe_scene(asked))
    check_seeds_of_runs(asked.methods, asked.seed, asked.seeds)
    budget = check_budget(asked, workers)
    identity = Identity.of(scorer, trainer)
    if workers > 1 and identity.settings:
        raise PromptkitError("several workers score and train with promptkit's own; leave `workers` out")
    models = asked.models or (model if isinstance(model, str) else complete(model),)
    form = _describe_asked(task, asked)
    for each in models:
        warn_of_other_form(each if isinstance(each, str) else each.name, form)
    plan = Study(task, asked, data, out, device, models, identity, trust_remote_code)
    if dry_run:
        return plan.forecast(budget)
    track = track or (lambda name: lambda done, total: None)
    if budget:
        return plan.spend(budget, scorer or default_scorer(), track)
    done: list[FinishedCell] = []
    elsewhere: list[FinishedCell] = []
    for name in models:
        loaded = plan.load(name)
        work = plan.work(loaded, scorer, trainer)
        points, bundles = plan.points(loaded, OrderSearch(loaded, plan.splits, plan.run, track))
        if workers > 1:
            plan.fill(name, work, bundles, workers, track("all"))
        done += work.run_all(bundles, track)
        for splits, _, bundles in plan.move_all(points):
            elsewhere += replace(work, splits=splits).run_all(bundles, track)
    result = summarize_study(task, plan.rename(loaded), plan.settings, plan.splits, done, elsewhere)
    trained = [[record.label for record in each.planned.rows] for each in done if each.planned.rows]
    result["notes"] = [*identity.notes(), *note_unlearned(task, trained), *result["notes"]]
    return plan.write(result, ((each.planned, each.result["predictions"]) for each in (*done, *elsewhere)))


class Study:
    """A study as it is asked for: its settings, records, models and run folder."""

    def __init__(
        self,
        task: Task,
        settings: StudySettings,
        data: Data | None,
        out: str | Path | None,
        device: str | None,
        models: Sequence[Model | str],
        identity: Identity | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.task, self.settings, self.data, self.device = task, settings, data, device
        self.models, self.identity = models, identity or Identity()
        self.trust_remote_code = trust_remote_code
        self.splits = load_splits(
            task,
            data=data,
            split=settings.split,
            limit=settings.limit,
            train_limit=_pool_limit(settings),
            seed=settings.seed,
        )
        self.elsewhere = {test: load_elsewhere(task, test, settings, self.splits) for test in settings.tests}
        notes = (note for splits in self.elsewhere.values() for note in splits.notes)
        self.splits = replace(self.splits, notes=(*self.splits.notes, *notes))
        asked = {**_describe(task, settings, self.splits, self.elsewhere, models), **self.identity.settings}
        sizes = {hash_records(each.test): len(each.test) for each in (self.splits, *self.elsewhere.values())}
        given = {each.name: getattr(settings, each.name) for each in fields(settings)}
        given["forms"] = [form.model_dump(mode="json") for form in settings.forms]
        names = [model if isinstance(model, str) else model.name for model in models]
        made = Made(
            asked,
            *describe_origin("study", task, load_templates(task, settings), given, data=data, models=names),
        )
        self.run = Run.plan(Path(out) if out else default_folder(f"{task.name}-study", asked), made, sizes)

    def load(self, model: Model | str) -> Model:
        """Return a model of the study, by its name or as it is given."""
        return load(model, self.settings.dtype, self.device, self.trust_remote_code)

    def points(
        self, model: Model, search: Search = first_candidates
    ) -> tuple[list[PlannedCell], list[list[PlannedCell]]]:
        """Return the cells for this model, and the same in bundles that are scored together.

        Without a `search` the orders that one would pick are taken by their numbers: as many, not the same.
        """
        points = self.plan(model, self.settings, search)
        if self.elsewhere:
            points = [replace(point, factors={**point.factors, "test": self.task.name}) for point in points]
        if not points:
            methods = ", ".join(self.settings.methods)
            raise TemplateError(
                f"no template here goes with {methods}: chain of thought needs one with a rationale, "
                "the other methods one without; see --template and --methods"
            )
        return points, _bundle_up(points)

    def plan(self, model: Model, settings: StudySettings, search: Search) -> list[PlannedCell]:
        """Return the cells for this model, as those of whoever scores them."""
        marked = map(self.identity.mark, plan_grid(self.task, settings, self.splits, model, search))
        name = self.rename(model).name
        return [replace(point, factors={**point.factors, "model": name}) for point in marked]

    def rename(self, model: Model) -> Model:
        """Return the model under the name that results give it."""
        return replace(model, name=self.identity.name(model.name, among=len(self.models)))

    def move_all(
        self, points: Sequence[PlannedCell]
    ) -> Iterator[tuple[Splits, list[PlannedCell], list[list[PlannedCell]]]]:
        """Yield every further test with these cells on its records, and the same in bundles."""
        for test, splits in self.elsewhere.items():
            moved = [self.move(point, test, splits) for point in points]
            yield splits, moved, _bundle_up(moved)

    def move(self, point: PlannedCell, test: str, splits: Splits) -> PlannedCell:
        """Return the cell on the records of another test, scored with the adapter it has on its own."""
        return replace(
            point,
            spec={**point.spec, "test": hash_records(splits.test)},
            factors={**point.factors, "test": self.name_test(test)},
            adapter_of=point.spec if point.rows else None,
        )

    def name_test(self, test: str) -> str:
        """Return a further test's task, with its data where another test is of the same task."""
        names = [self.task.name, *(other.partition("=")[0] for other in self.elsewhere)]
        name = test.partition("=")[0]
        if names.count(name) == 1:
            return name
        return f"{test} (its source)" if test == self.task.name else test

    def work(self, model: Model, scorer: Scorer | None = None, trainer: Trainer | None = None) -> Work:
        """Return what computes the cells of this model."""
        return Work(
            model, self.splits, self.settings, self.run, scorer or default_scorer(), trainer or default_trainer()
        )

    def spend(self, budget: Budget, scorer: Scorer, track: Track) -> dict[str, Any]:
        """Return the study as far as a budget tells; calibrations, which need all records of a cell, are left out."""
        plain = replace(self.settings, calibrate=())
        grid: list[tuple[Model, PlannedCell]] = []
        for name in self.models:
            model = self.load(name)
            search = OrderSearch(model, self.splits, self.run, track)
            grid += [(model, point) for point in self.plan(model, plain, search)]
        evaluator = BudgetedEvaluator(self.splits, plain, self.run, scorer, track("all"))
        spent = spend(budget, evaluator, grid, self.splits, plain)
        found = describe_spent(spent)
        notes = [
            *self.splits.notes,
            *self.identity.notes(),
            "accuracies are estimates from a part of the calls; see docs/statistics.md",
        ]
        if self.settings.calibrate:
            notes.append("calibrations are left out of a budget: they need all records of a cell")
        majority = name_majority(self.task, self.splits)
        cautions = describe_cautions(found["methods"], majority, self.task.labels)
        described = describe_study(self.task, self.rename(model), plain, self.splits)
        result = {**described, **found, "cautions": cautions, "notes": [*notes, *cautions]}
        return self.write(result, zip(spent.points, spent.rows, strict=True))

    def write(
        self, result: Mapping[str, Any], cells: Iterable[tuple[PlannedCell, Sequence[Mapping[str, Any]]]]
    ) -> dict[str, Any]:
        """Write the result and every prediction into the run folder, and return the result with the folder's path."""
        whole = {**result, "run": str(self.run.folder)}
        self.run.begin()
        write_predictions(cells, self.run.folder / "predictions.parquet")
        self.run.finish("study.json", json.dumps(whole, indent=1).encode() + b"\n")
        return whole

    def forecast(self, budget: Budget | None = None) -> dict[str, Any]:
        """Return what the study will take: cells, those on the records of other tests too, tokens and minutes.

        Of every kind of cell that is missing (template, method, number of demonstrations) a few records are scored,
        first few and then more, which tells the part that all records share from the part of each. Minutes are of
        this machine as it is now; trainings are counted, and neither they nor order searches are in tokens and minutes.
        Of a `budget` they are its share of the grid's calls.
        """
        cells = trainings = 0
        tokens = seconds = 0.0
        for name in self.models:
            loaded = self.load(name)
            points, bundles = self.points(loaded)
            work = self.work(loaded)
            trainings += sum(bool(bundle[0].rows) and not all(map(work.is_done, bundle)) for bundle in bundles)
            for splits, asked, parts in ((self.splits, points, bundles), *self.move_all(points)):
                cells += len(asked)
                for alike in _kinds(bundle for bundle in parts if not all(map(work.is_done, bundle))):
                    one = _time_bundle(loaded, splits, alike[0])
                    tokens += one[0] * len(alike)
                    seconds += one[1] * len(alike)
        calls = cells * len(self.splits.test)
        share = _find_share(budget, calls, seconds) if budget else 1.0
        tokens, seconds = share * tokens, share * seconds
        return {
            "task": self.task.name,
            "cells": cells,
            "trainings": trainings,
            **({"calls": round(share * calls), "of_calls": calls} if budget else {}),
            "tokens_computed": round(tokens),
            "minutes": round(seconds / 60, 1),
            "run": str(self.run.folder),
        }

    def fill(
        self, model: Model | str, work: Work, bundles: Sequence[Sequence[PlannedCell]], workers: int, progress: Progress
    ) -> None:
        """Compute what is missing in so many processes; raises what the first of them raises."""
        from concurrent.futures import wait

        if not isinstance(model, str):
            raise PromptkitError("several workers load the model themselves; give its name or folder, or one worker")
        missing = [number for number, bundle in enumerate(bundles) if not all(map(work.is_done, bundle))]
        given = (self.task, self.settings, self.data, self.run.folder, self.device, self.trust_remote_code)
        names = [each for each in self.models if isinstance(each, str)]
        with worker_pool(workers) as pool:
            parts = [
                pool.submit(fill_part, *given, names, model, missing[start::workers], workers)
                for start in range(workers)
            ]
            while wait(parts, timeout=1).not_done:
                left = sum(not all(map(work.is_done, bundles[number])) for number in missing)
                progress(len(missing) - left, len(missing))
            for part in parts:
                part.result()


def load_elsewhere(task: Task, test: str, settings: StudySettings, own: Splits) -> Splits:
    """Return the study's own splits with the test records of another task, named as `TASK` or `TASK=DATA`.

    Records that the study trains on or shows, or nearly so, are left out, with a note. Raises DataError where none
    stay, and where they cannot be asked in the words of the study's own task: other labels or fields.
    """
    name, _, data = test.partition("=")
    other = load_task(name)
    if other.labels != task.labels or not set(task.fields) <= set(other.fields):
        raise DataError(
            f"test {name!r}: its labels are {list(other.labels or ())} and its fields {sorted(other.fields)}; those of "
            f"{task.name!r} are {list(task.labels or ())} and {sorted(task.fields)}, and only a task with the same can "
            "be asked in its words"
        )
    records = load_records(other, "test", data=data or None, limit=settings.limit, seed=settings.seed)
    kept, notes = leave_out_copies(records, {"training": own.pool, "validation": own.validation}, f"{name} test")
    if not kept:
        raise DataError(f"test {test!r}: every record is also a training record of {task.name!r}; give other data")
    return replace(own, test=tuple(kept), notes=tuple(notes))


def fill_part(
    task: Task,
    settings: StudySettings,
    data: Data | None,
    out: Path,
    device: str | None,
    trust_remote_code: bool,
    models: Sequence[str],
    model: str,
    numbers: Sequence[int],
    workers: int,
) -> None:
    """Compute the bundles of these numbers: what one of several processes does, with its share of the cores."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    plan = Study(task, settings, data, out, device, models, trust_remote_code=trust_remote_code)
    loaded = plan.load(model)
    _, bundles = plan.points(loaded, OrderSearch(loaded, plan.splits, plan.run))
    own = [bundles[number] for number in numbers]
    for _ in plan.work(loaded).run_all(own, lambda name: lambda done, total: None):
        pass


def _kinds(bundles: Iterable[Sequence[PlannedCell]]) -> list[list[Sequence[PlannedCell]]]:
    """Return the bundles that take about as long as each other together."""
    kinds: dict[Any, list[Sequence[PlannedCell]]] = {}
    for bundle in bundles:
        condition = bundle[0].condition
        kinds.setdefault((condition.method, condition.bound.template.name, condition.k), []).append(bundle)
    return list(kinds.values())


def _time_bundle(model: Model, splits: Splits, bundle: Sequence[PlannedCell]) -> tuple[float, float]:
    """Return about how many tokens and seconds a bundle takes, from a few of its records."""
    queries = splits.test

    def take(count: int) -> tuple[float, float]:
        with Meter(model.device) as meter:
            results = evaluate_together(
                model,
                [point.condition for point in bundle],
                queries[:count],
                splits.pool,
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


def _describe(
    task: Task, settings: StudySettings, splits: Splits, elsewhere: Mapping[str, Splits], models: Sequence[Model | str]
) -> dict[str, Any]:
    """Return what run.json records and the folder is named after: everything that is run."""
    said, budget = describe_settings(task, settings), check_budget(settings, workers=1) or Budget()
    grid = {
        **said.pop("grid"),
        "budget_calls": budget.calls,
        "budget_seconds": budget.seconds,
        "templates": {template.name: template.hash for template in load_templates(task, settings)},
        "models": {_hash(model): name_model(model) for model in models},
        "tests": {hash_records(each.test): test.partition("=")[0] for test, each in elsewhere.items()},
    }
    return {
        **said,
        "command": "study",
        "task": task.name,
        "task_hash": task.hash,
        "task_content": task.content_hash,
        "test": hash_records(splits.test),
        "pool": hash_records(splits.pool),
        "validation": hash_records(splits.validation),
        "grid": grid,
    }


def _hash(model: Model | str) -> str:
    from promptkit.models.location import hash_model

    return hash_model(model) if isinstance(model, str) else model.hash


def _find_share(budget: Budget, calls: int, seconds: float) -> float:
    """Return which part of a grid a budget pays for, of so many calls and seconds."""
    part = budget.calls / calls if budget.calls else (budget.seconds or 0.0) / max(seconds, 1e-9)
    return min(1.0, part)


def _describe_asked(task: Task, settings: StudySettings) -> Asked:
    """Return in which form the models are asked, over all cells."""
    bounds, shots = (bound for bound, _ in bind_ways(task, settings)), list_shots(settings.methods, settings.shots)
    return Asked.of(task, bounds, shots, chat=settings.chat, system=settings.system)


def _bundle_up(points: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Return cells in bundles that are scored together."""
    return [list(bundle) for _, bundle in groupby(points, key=_bundle)]


def _bundle(point: PlannedCell) -> Any:
    """Return what neighbours have in common whose prompts are scored together; nothing where texts are written."""
    writes = point.condition.bound.template.is_cot or point.condition.bound.task.is_free_text
    return tuple(point.factors.items()) if writes or point.rows else point.group
