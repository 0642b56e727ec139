"""Methods side by side on the same records: which way of using a model suits a task, and at what cost."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapter import count_weights
from promptkit.build import default_selection
from promptkit.cost import Cost, Meter, shape_of, training_flops
from promptkit.errors import ModelError, PromptkitError, SelectionError, TemplateError, nearest
from promptkit.evaluate import Condition, Progress, Scorer, evaluate, hash_records
from promptkit.order import order_demonstrations
from promptkit.pair import build_pair
from promptkit.record import Record
from promptkit.select import Draw, Selector
from promptkit.splits import Splits, load_splits
from promptkit.store import Run, default_folder
from promptkit.summary import Finished, summarize
from promptkit.task import Task, load_task
from promptkit.template import BoundTemplate, find_templates, load_template, match_templates

if TYPE_CHECKING:
    from promptkit.adapter import Adapter
    from promptkit.models import Model

#: Every way of using a model, in the order of the table; True where the model reasons first.
METHODS = {"zero-shot": False, "few-shot": False, "zero-shot-cot": True, "few-shot-cot": True, "lora": False}
#: Draws of a chain-of-thought condition at most: each of its items is decoded token by token.
COT_DRAWS = 4
#: Passes over the k demonstrations where only they are trained on: about the steps a small set needs.
FEW_ROW_EPOCHS = 30

Trainer = Callable[..., "Adapter"]
#: Given the name of a piece of work, returns what is to be called with (done, total) as it goes on.
Track = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class CompareSettings:
    """What a comparison runs. With the task, the data and the model it decides every figure.

    `methods` and `templates` left empty mean all that fit. `draws` are draws of choice and order per
    number of `shots`: two orders of every choice, unless `order` names one. `seeds` are LoRA runs.
    """

    methods: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    shots: tuple[int, ...] = (4,)
    selection: str | None = None
    order: str | None = None
    draws: int = 10
    seeds: int = 3
    seed: int = 0
    split: str = "test"
    limit: int | None = 200
    train_limit: int | None = 512
    chat: bool = False
    rank: int = 8
    epochs: int = 5
    learning_rate: float | None = None
    dtype: str = "float32"
    overlong: str = "error"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                known = ", ".join(METHODS)
                raise PromptkitError(f"unknown method {method!r}; known: {known}.{nearest(method, METHODS)}")
        if self.seed < 0:
            raise PromptkitError(f"seed is {self.seed}; it must be 0 or more")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise PromptkitError(f"learning rate is {self.learning_rate}; it must be above 0")
        for name in ("draws", "seeds", "epochs", "rank"):
            if getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("limit", "train_limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if any(k < 1 for k in self.shots):
            raise SelectionError(f"shots are {list(self.shots)}; each must be 1 or more (zero-shot is a method)")


@dataclass(frozen=True)
class Step:
    """One cell to compute: a condition and, for LoRA, the rows to train on first; `whole`: all of the pool."""

    condition: Condition
    rows: tuple[Record, ...] = ()
    whole: bool = False
    seed: int = 0
    epochs: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 1

    @property
    def name(self) -> str:
        """What the progress line says."""
        condition = self.condition
        what = f"{len(self.rows)} rows, seed {self.seed}" if self.rows else f"k={condition.k}"
        return f"{condition.method} {what}" if self.rows or condition.k else condition.method


def compare(
    task: Task | str,
    *,
    model: Model | str = "tiny",
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    scorer: Scorer | None = None,
    trainer: Trainer | None = None,
    track: Track | None = None,
    rows: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Compare ways of using a model on one task, and return the object that `--json` prints.

    `settings` are the fields of `CompareSettings`. `data` replaces the task's source with local files;
    `out` is the run folder (default `runs/<task>-<hash of what is run>`). A run that was stopped goes on
    where it stopped when the same is asked again. With `rows` every cell shows its predictions too, the
    first cell's also at the top. `scorer` and `trainer` default to `promptkit.score`
    and `promptkit.train`.

    Raises a PromptkitError for whatever is wrong with task, template, data, model, settings or folder.
    """
    task = task if isinstance(task, Task) else load_task(task)
    chosen = CompareSettings(**settings)
    bounds = bind_templates(task, chosen.templates)
    loaded = _load(model, chosen.dtype, device)
    methods = _methods(task, chosen, bounds, loaded)
    splits = load_splits(
        task,
        data=data,
        split=chosen.split,
        limit=chosen.limit,
        train_limit=chosen.train_limit,
        seed=chosen.seed,
        pool=any(not method.startswith("zero-shot") for method in methods),
    )
    plan = list(_plan(task, chosen, methods, bounds, splits, loaded))
    asked = _asked(task, chosen, splits, loaded, plan)
    run = Run.open(Path(out) if out else default_folder(task.name, asked), asked)
    work = _Work(loaded, splits, chosen, run, scorer or _scorer(), trainer or _trainer())
    finished = list(work.run_all(plan, track or (lambda name: lambda done, total: None)))
    result = summarize(task, loaded, splits, finished)
    if rows:
        for cell, done in zip(result["cells"], finished, strict=True):
            cell["rows"] = done.result["predictions"]
        result["rows"] = finished[0].result["predictions"]
    return {**result, "run": str(run.folder)}


def bind_templates(task: Task, patterns: Sequence[str] = ()) -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain` and `cot`, checked against the task.

    Raises TemplateError for a pattern that matches nothing and a template that does not fit the task.
    """
    names = match_templates(patterns, task.templates) if patterns else []
    bounds = [load_template(name).bind(task) for name in names]
    known = find_templates()
    for default, is_cot in (("plain", False), ("cot", True)):
        name = f"{task.templates}/{default}"
        if name in known and not any(bound.template.is_cot == is_cot for bound in bounds):
            bounds.append(load_template(name).bind(task))
    if not bounds:
        raise TemplateError(
            f"task {task.name!r} wants the template family {task.templates!r}, which has no `plain` template; "
            "name one with --template"
        )
    return bounds


def make_draws(settings: CompareSettings, selection: str, k: int) -> list[Draw]:
    """Return the draws of k demonstrations: two orders of every choice, or the one order asked for.

    An order is the number of a permutation, drawn from (seed, choice); 0 is as selected.
    """
    draws = []
    for index in range(settings.draws):
        if settings.order is not None or k == 1:  # one demonstration has one order
            seed = settings.seed + index
            draws.append(Draw(selection, settings.order or "given", seed, seed))
            continue
        seed = settings.seed + index // 2
        count = math.factorial(k)
        order = random.Random(f"order {seed}").randrange(count)
        if index % 2:  # the second of the pair: any order but the first's
            order = (order + random.Random(f"other {seed}").randrange(1, count)) % count
        draws.append(Draw(selection, order, seed))
    return draws


def _methods(task: Task, settings: CompareSettings, bounds: Sequence[BoundTemplate], model: Model) -> list[str]:
    """Return the methods asked for, or all that fit: an adapter is not trained on top of another."""
    kinds = {bound.template.is_cot for bound in bounds}
    if "few-shot-cot" in settings.methods and not task.has_rationales:
        raise TemplateError(f"method 'few-shot-cot' shows rationales, and task {task.name!r} has no field `rationale`")
    if "lora" in settings.methods and model.has_adapter:
        raise ModelError(f"method 'lora' trains a base model, and {model.name!r} has an adapter already; give its base")
    if settings.methods:
        for method in settings.methods:
            if METHODS[method] not in kinds:
                kind = "with" if METHODS[method] else "without"
                raise TemplateError(f"method {method!r} needs a template {kind} a rationale; see --template")
        return [method for method in METHODS if method in settings.methods]
    fitting = [m for m, reasons in METHODS.items() if reasons in kinds and (task.has_rationales or not reasons)]
    return [m for m in fitting if m != "lora" or not model.has_adapter]


def _load(model: Model | str, dtype: str, device: str | None) -> Model:
    if not isinstance(model, str):
        return model
    from promptkit.models import load_model

    return load_model(model, dtype=dtype, device=device)


def _scorer() -> Scorer:
    from promptkit.score import score

    return score


def _trainer() -> Trainer:
    from promptkit.train import train

    return train


def _plan(
    task: Task,
    settings: CompareSettings,
    methods: Sequence[str],
    bounds: Sequence[BoundTemplate],
    splits: Splits,
    model: Model,
) -> Iterator[Step]:
    """Yield every cell of the comparison, in the order of the table."""
    selection = settings.selection or default_selection(task)
    common = {
        "model": model.hash,
        "dtype": model.dtype,
        "overlong": settings.overlong,
        "batch_tokens": settings.batch_tokens,
        "test": hash_records(splits.test),
    }
    pool = {"pool": hash_records(splits.pool)}
    for method in methods:
        for bound in (bound for bound in bounds if bound.template.is_cot == METHODS[method]):
            base = Condition(method, bound, chat=settings.chat)
            if method == "lora":
                for step in _training_steps(settings, selection, base, splits):
                    yield replace(step, spec={**common, **step.spec})
            elif method.startswith("zero-shot"):
                yield Step(base, spec={**base.spec(), **common}, weight=_weight(base))
            else:
                for condition in _few_shot(settings, selection, base, splits):
                    yield Step(condition, spec={**condition.spec(), **common, **pool}, weight=_weight(condition))


def _few_shot(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[Condition]:
    ranked = Selector(splits.pool, selection, settings.seed)
    for k in settings.shots:
        chosen = ranked.select(splits.test[0], k)  # what cannot be drawn is refused before anything is computed
        order_demonstrations(chosen, settings.order or "given")
        draws = make_draws(settings, selection, k)
        for draw in draws[: COT_DRAWS if base.bound.template.is_cot else None]:
            yield replace(base, k=k, draw=draw)


def _weight(condition: Condition) -> int:
    """Return about how long a cell takes, one zero-shot pass being 100: for the time left, nothing else."""
    return 1000 if condition.bound.template.is_cot else 100 + 6 * condition.k


def _training_steps(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[Step]:
    """Yield LoRA on the k demonstrations (equal data), then on the whole pool, over the seeds."""
    nobody = Record(id="", fields={}, label=None)
    for k in (*settings.shots, None):
        for seed in range(settings.seed, settings.seed + settings.seeds):
            rows = Selector(splits.pool, selection, seed).select(nobody, k) if k else splits.pool
            epochs = FEW_ROW_EPOCHS if k else settings.epochs
            spec = {
                **base.spec(),
                "seed": seed,
                "rows": hash_records(rows),
                "validation": None if k else hash_records(splits.validation),
                "rank": settings.rank,
                "epochs": epochs,
                "learning_rate": settings.learning_rate,
            }
            yield Step(base, tuple(rows), k is None, seed, epochs, spec, 100 + 2 * len(rows) * epochs)


def _asked(task: Task, settings: CompareSettings, splits: Splits, model: Model, plan: Sequence[Step]) -> dict[str, Any]:
    """Return what run.json records: settings and the hashes of everything that is read."""
    templates = {step.condition.bound.template.name: step.condition.bound.template.hash for step in plan}
    return {
        "command": "compare",
        "task": task.name,
        "task_hash": task.hash,
        "template_hashes": templates,
        "model": model.name if not Path(model.name).exists() else Path(model.name).name,
        "model_hash": model.hash,
        "test": hash_records(splits.test),
        "pool": hash_records(splits.pool),
        "validation": hash_records(splits.validation),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()},
    }


@dataclass
class _Work:
    """What every step of a comparison is computed with."""

    model: Model
    splits: Splits
    settings: CompareSettings
    run: Run
    scorer: Scorer
    trainer: Trainer

    def run_all(self, plan: Sequence[Step], track: Track) -> Iterator[Finished]:
        """Compute the steps that the run folder does not hold yet, and yield them all as finished."""
        missing = [step for step in plan if not self._is_done(step)]
        whole, total, done = track("all"), sum(step.weight for step in missing), 0
        for step in plan:
            if step in missing:
                part = track(step.name)

                def progress(
                    steps: int, of: int, part: Progress = part, done: int = done, weight: int = step.weight
                ) -> None:
                    part(steps, of)
                    whole(done + weight * steps // max(1, of), total)

                result = self._train_and_score(step, progress) if step.rows else self._score(step, progress)
                done += step.weight
                whole(done, total)
            else:
                result = self.run.load(step.spec) or {}
            yield self._finished(step, result)

    def _is_done(self, step: Step) -> bool:
        trained = not step.rows or self.run.load(_training_spec(step)) is not None
        return trained and self.run.load(step.spec) is not None

    def _finished(self, step: Step, result: Mapping[str, Any]) -> Finished:
        cost = _cost(result, self.run.load_measure(step.spec))
        if not step.rows:
            return Finished(step.condition, result, cost)
        trained = self.run.load(_training_spec(step)) or {}
        train_cost = _train_cost(trained, self.run.load_measure(_training_spec(step)))
        return Finished(step.condition, result, cost, step.seed, len(step.rows), step.whole, trained, train_cost)

    def _score(self, step: Step, progress: Progress, model: Model | None = None) -> dict[str, Any]:
        with Meter(self.model.device) as meter:
            result = self._evaluate(model or self.model, step, progress)
        self.run.save(step.spec, result, _measured(meter))
        return result

    def _train_and_score(self, step: Step, progress: Progress) -> dict[str, Any]:
        from promptkit.models import load_model

        folder = self.run.adapter_folder(step.spec)
        if not folder.exists() or self.run.load(_training_spec(step)) is None:
            self._train(step, folder, lambda part, parts: progress(9 * part, 10 * parts))
        tuned = load_model(str(folder), dtype=self.model.dtype, device=self.model.device)
        return self._score(step, lambda part, parts: progress(9 * parts + part, 10 * parts), tuned)

    def _train(self, step: Step, folder: Path, progress: Progress) -> None:
        """Train the step's adapter and save what it took as a cell of its own."""
        condition = step.condition
        pairs = [build_pair(condition.bound, record, chat=condition.chat) for record in step.rows]
        validation = condition.prompts(self.splits.validation, ()) if step.whole else None
        with Meter(self.model.device) as meter, self.run.new_adapter(step.spec) as unfinished:
            adapter = self.trainer(
                self.model,
                pairs,
                rank=self.settings.rank,
                learning_rate=self.settings.learning_rate,
                epochs=step.epochs,
                seed=step.seed,
                validation=validation or None,
                chat=condition.chat,
                out=unfinished,
                progress=progress,
            )
        self.run.save(_training_spec(step), _training_counts(self.model, adapter, folder), _measured(meter))

    def _evaluate(self, model: Model, step: Step, progress: Progress) -> dict[str, Any]:
        return evaluate(
            model,
            step.condition,
            self.splits.test,
            self.splits.pool,
            scorer=self.scorer,
            overlong=self.settings.overlong,
            batch_tokens=self.settings.batch_tokens,
            progress=progress,
        )


def _training_spec(step: Step) -> dict[str, Any]:
    return {**step.spec, "part": "training"}


def _training_counts(model: Model, adapter: Adapter, folder: Path) -> dict[str, Any]:
    """Return what a training computed: tokens and FLOPs, its validation included, and its curve."""
    passes = adapter.rows * adapter.epochs
    shape = replace(shape_of(model.network), adapter=count_weights(folder))
    flops = training_flops(
        shape,
        adapter.rows,
        adapter.tokens_trained / passes,
        adapter.epochs,
        adapter.targets_trained / passes,
    )
    return {
        "rows": adapter.rows,
        "epochs": adapter.epochs,
        "best_epoch": adapter.best_epoch,
        "losses": list(adapter.losses),
        "validation": list(adapter.validation),
        "adapter_weights": shape.adapter,
        "tokens": adapter.tokens_trained + adapter.validation_tokens,
        "flops": flops + adapter.validation_flops,
    }


def _cost(result: Mapping[str, Any], measure: Mapping[str, Any] | None) -> Cost:
    return Cost(result["tokens_prompted"], result["tokens_computed"], result["flops"], **(measure or {}))


def _train_cost(trained: Mapping[str, Any], measure: Mapping[str, Any] | None) -> Cost:
    return Cost(trained["tokens"], trained["tokens"], trained["flops"], **(measure or {}))


def _measured(meter: Meter) -> dict[str, Any]:
    return {"seconds": meter.seconds, "peak_memory_bytes": meter.peak_memory_bytes}
