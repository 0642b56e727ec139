"""Methods side by side on the same records: which way of using a model suits a task, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapter import count_weights
from promptkit.cost import Cost, Meter, shape_of, training_flops
from promptkit.evaluate import Progress, Scorer, evaluate, hash_records
from promptkit.pair import build_pair
from promptkit.plan import CompareSettings, Step, bind_templates, choose_methods, plan_steps
from promptkit.splits import Splits, load_splits
from promptkit.store import Run, default_folder
from promptkit.summary import Finished, summarize
from promptkit.task import Task, load_task

if TYPE_CHECKING:
    from promptkit.adapter import Adapter
    from promptkit.models import Model

Trainer = Callable[..., "Adapter"]
#: Given the name of a piece of work, returns what is to be called with (done, total) as it goes on.
Track = Callable[[str], Callable[[int, int], None]]


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
    methods = choose_methods(task, chosen, bounds, loaded)
    splits = load_splits(
        task,
        data=data,
        split=chosen.split,
        limit=chosen.limit,
        train_limit=chosen.train_limit,
        seed=chosen.seed,
        pool=any(not method.startswith("zero-shot") for method in methods),
    )
    plan = list(plan_steps(task, chosen, methods, bounds, splits, loaded))
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
