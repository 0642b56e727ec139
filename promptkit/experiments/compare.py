"""Compare methods on the same records: accuracy, stability and cost."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapters.card import Asked, TrainingOptions, card_of, warn_of_other_form
from promptkit.analysis.cells import PlannedCell
from promptkit.analysis.comparison_result import group_runs, summarize
from promptkit.analysis.curves import draw_curves
from promptkit.analysis.ledger import keep_ledger
from promptkit.costs.prices import Prices, load_prices
from promptkit.data.local import Data
from promptkit.data.record import hash_records
from promptkit.data.splits import Splits, hash_one_file, load_splits, note_unlearned
from promptkit.data.tasks import Task, load_task
from promptkit.experiments.evaluate import Scorer
from promptkit.experiments.executor import Track, Trainer, Work, default_scorer, default_trainer, load
from promptkit.experiments.identity import Identity, name_model
from promptkit.experiments.origin import describe_origin
from promptkit.experiments.plan import (
    METHODS,
    NO_RETRIEVAL,
    SKIP,
    CompareSettings,
    choose_methods,
    keep_fitting,
    list_shots,
    plan_steps,
)
from promptkit.experiments.run_folder import Made, Run, default_folder
from promptkit.experiments.training_options import Scene, check_effects, check_seeds_of_runs
from promptkit.scoring.scoring_rules import show_rows
from promptkit.templating.binding import bind_templates
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.models import Model


def compare(
    task: Task | str,
    *,
    model: Model | str = "tiny",
    data: Data | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    scorer: Scorer | None = None,
    trainer: Trainer | None = None,
    track: Track | None = None,
    prices: Prices | str | Path | None = None,
    rows: bool = False,
    explicit: Collection[str] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Compare ways of using a model on one task, and return the object that `--json` prints.

    `settings` are the fields of `CompareSettings`. `data` replaces the task's source with local files
    or rows in memory, see docs/tasks.md;
    `out` is the run folder (default `runs/<task>-<hash of what is run>`). A run that was stopped goes on
    where it stopped when the same is asked again. `prices` (a TOML file, see docs/cost.md) tell costs in money too.
    With `rows` every cell shows its predictions too, the first cell's also at the top. `scorer` and `trainer` default
    to `promptkit.score` and `promptkit.train`. A text in an attribute `identity` of theirs names them in the result and
    in every cell that depends on them; without one their cells are never found again (see docs/runs.md).
    Code that a model brings runs only with `trust_remote_code`.

    Raises a PromptkitError for whatever is wrong with task, template, data, model, settings or folder.
    """
    task = task if isinstance(task, Task) else load_task(task)
    asked_for = CompareSettings(**settings)
    chosen = asked_for.scored
    prices = load_prices(prices) if isinstance(prices, str | Path) else prices
    if chosen.methods:
        _check_settings(chosen, chosen.methods, explicit)
    bounds = bind_templates(task, chosen.templates, system=chosen.system)
    loaded = load(model, chosen.dtype, device, trust_remote_code)
    methods = choose_methods(task, chosen, bounds, loaded)
    _check_settings(chosen, methods, explicit)
    warn_of_other_form(loaded.name, _describe_asked(task, chosen, methods, bounds))
    splits = load_splits(
        task,
        data=data,
        split=chosen.split,
        limit=chosen.limit,
        train_limit=_pool_limit(chosen),
        seed=chosen.seed,
        pool=any(not method.startswith("zero-shot") for method in methods),
        cut=_may_know(loaded, data),
    )
    identity = Identity.of(scorer, trainer)
    plan = [identity.mark(step) for step in plan_steps(task, chosen, methods, bounds, splits, loaded)]
    asked = {**_asked(task, asked_for, splits, loaded, plan), **identity.settings}
    sizes = {asked["test"]: len(splits.test)}
    used = {step.condition.bound.template.name: step.condition.bound.template for step in plan}
    name = model if isinstance(model, str) else model.name
    origin = describe_origin("compare", task, list(used.values()), asdict(asked_for), data=data, models=[name])
    made = Made(asked, *origin)
    run = Run.plan(Path(out) if out else default_folder(task.name, asked), made, sizes)
    work = Work(loaded, splits, chosen, run, scorer or default_scorer(), trainer or default_trainer())
    trained = (step.rows for step in plan if step.rows and (step.whole or chosen.train_sizes))
    warned = note_unlearned(task, [[record.label for record in rows] for rows in trained])
    plan, left_out = keep_fitting(plan, loaded, splits, work.is_done) if asked_for.skips else (plan, [])
    finished = list(work.run_all([[step] for step in plan], track or (lambda name: lambda done, total: None)))
    named = replace(loaded, name=identity.name(loaded.name))
    summary = summarize(task, named, splits, finished, [*identity.notes(), *warned, *left_out])
    ledger = keep_ledger(loaded, splits, group_runs(finished), prices)
    curves = {}
    if chosen.train_sizes:
        curves = draw_curves(loaded, splits, group_runs(finished), summary["methods"], ledger)
    result = {**summary, "ledger": ledger, **({"curves": curves} if curves else {}), "run": str(run.folder)}
    run.finish("compare.json", json.dumps(result, indent=1).encode() + b"\n")
    if rows:
        for cell, done in zip(result["cells"], finished, strict=True):
            cell["rows"] = show_rows(done.result)
        result["rows"] = result["cells"][0]["rows"]
    return result


def _describe_asked(
    task: Task, settings: CompareSettings, methods: Sequence[str], bounds: Sequence[BoundTemplate]
) -> Asked:
    """Return in which form the model is asked, over all methods."""
    taken = (bound for bound in bounds if _takes(methods, bound))
    shots = list_shots(methods, settings.few)
    return Asked.of(task, taken, shots, chat=settings.chat, system=settings.system)


def _takes(methods: Sequence[str], bound: BoundTemplate) -> bool:
    return any(METHODS[method] == bound.template.is_cot for method in methods)


def _check_settings(settings: CompareSettings, methods: Sequence[str], explicit: Collection[str]) -> None:
    """Raise PromptkitError for a setting that changes nothing beside these methods, and for seeds that run out."""
    check_seeds_of_runs(methods, settings.seed, settings.seeds)
    by_name = {name: getattr(settings, name) for name in ("shots", "train_sizes", "overlong", "kind")}
    retrieves = settings.retrieval != NO_RETRIEVAL
    scene = Scene(methods, retrieves=retrieves, learns_shown=not settings.train_sizes, **by_name)
    check_effects(explicit, scene)


def _may_know(model: Model, data: Data | None) -> bool:
    """Return whether the model may have been trained on a part of the one file that it is to be tested on."""
    card = card_of(model.name)
    return card is not None and card.may_know(hash_one_file(data))


def _pool_limit(settings: CompareSettings) -> int | None:
    """Return how many training records to take: as many as the largest training needs."""
    limit = settings.train_limit
    return None if limit is None else max(limit, *settings.train_sizes, 0)


def _asked(
    task: Task, settings: CompareSettings, splits: Splits, model: Model, plan: Sequence[PlannedCell]
) -> dict[str, Any]:
    """Return what run.json records: settings and the hashes of everything that is read."""
    templates = {step.condition.bound.template.name: step.condition.bound.template.hash for step in plan}
    return {
        "command": "compare",
        "task": task.name,
        "task_hash": task.hash,
        "template_hashes": templates,
        "model": name_model(model),
        "model_hash": model.hash,
        "test": hash_records(splits.test),
        "pool": hash_records(splits.pool),
        "validation": hash_records(splits.validation),
        **({"cut": True} if splits.one_file and not splits.pool else {}),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in _given(settings).items()},
        "overlong": SKIP if settings.skips else settings.scored.overlong,
    }


def _given(settings: CompareSettings) -> dict[str, Any]:
    """Return the settings, less those that change nothing where they are empty."""
    empty = asdict(CompareSettings())
    quiet = {field.name for field in fields(TrainingOptions)} - {"rank", "epochs", "learning_rate"}
    quiet |= {"calibrate", "train_sizes", "retrieval", "samples", "temperature", "top_p", "memory", "system"}
    return {key: value for key, value in asdict(settings).items() if key not in quiet or value != empty[key]}
