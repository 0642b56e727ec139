"""Compute the planned cells that a run folder does not hold yet: score or train, and save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from promptkit.adapters.card import count_reached_layers, count_weights
from promptkit.analysis.cells import FinishedCell, PlannedCell
from promptkit.costs.flops import Cost, Meter, find_active_share, shape_of, training_flops
from promptkit.data.splits import Splits
from promptkit.experiments.evaluate import Progress, Scorer, evaluate_together
from promptkit.experiments.identity import complete
from promptkit.experiments.run_folder import Run
from promptkit.prompts.pair import build_pair
from promptkit.prompts.prompt import SYSTEM

if TYPE_CHECKING:
    from promptkit.adapters.card import Adapter
    from promptkit.models import Model

#: The state of a training is kept this often, so that a kill costs a minute at most.
SAVE_SECONDS = 60.0

Trainer = Callable[..., "Adapter"]
#: Given the name of a piece of work, returns what is to be called with (done, total) as it goes on.
Track = Callable[[str], Callable[[int, int], None]]


def load(model: Model | str, dtype: str, device: str | None, trust_remote_code: bool = False) -> Model:
    """Return the model of this name, or the one that is given, which has a fingerprint then."""
    if not isinstance(model, str):
        return complete(model)
    from promptkit.adapters.loading import load_model

    return load_model(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code)


def default_scorer() -> Scorer:
    """Return `promptkit.score`, which loads torch."""
    from promptkit.scoring import score

    return score


def default_trainer() -> Trainer:
    """Return `promptkit.train`, which loads torch."""
    from promptkit.training import train

    return train


class Settings(Protocol):
    """What scoring and training must know beside the steps."""

    def arguments(self) -> dict[str, Any]:
        """How adapters are trained: arguments of `train`."""

    @property
    def overlong(self) -> str | None:
        """What happens to prompts beyond the window; None: an error."""

    @property
    def batch_tokens(self) -> int | None:
        """The most tokens in one forward pass."""

    @property
    def memory(self) -> int | None:
        """The most bytes that scoring may take."""


@dataclass
class Work:
    """What every step of a comparison is computed with."""

    model: Model
    splits: Splits
    settings: Settings
    run: Run
    scorer: Scorer
    trainer: Trainer

    def run_all(self, plan: Iterable[Sequence[PlannedCell]], track: Track) -> Iterator[FinishedCell]:
        """Compute the steps that the run folder does not hold yet, and yield them all as finished.

        `plan` holds bundles: steps whose prompts are scored together. Where one of a bundle is missing, all of it is
        computed again, so that a cell's bytes do not depend on where a run was stopped.
        """
        bundles = list(plan)
        missing = [bundle for bundle in bundles if not all(map(self.is_done, bundle))]
        whole, total, done = track("all"), sum(step.weight for bundle in missing for step in bundle), 0
        for bundle in bundles:
            if bundle in missing:
                part, weight = track(bundle[0].name), sum(step.weight for step in bundle)

                def progress(
                    steps: int, of: int, part: Progress = part, done: int = done, weight: int = weight
                ) -> None:
                    part(steps, of)
                    whole(done + weight * steps // max(1, of), total)

                self._compute(bundle, progress)
                done += weight
                whole(done, total)
            for step in bundle:
                yield self._finished(step, self.run.load(step.spec) or {})

    def _compute(self, bundle: Sequence[PlannedCell], progress: Progress) -> None:
        if bundle[0].rows:
            self._train_and_score(bundle[0], progress)
        else:
            self._score(bundle, progress)

    def is_done(self, step: PlannedCell) -> bool:
        """Return whether the run folder holds this step."""
        trained = not step.rows or self.run.load(_training_spec(step)) is not None
        return trained and self.run.load(step.spec) is not None

    def _finished(self, step: PlannedCell, result: Mapping[str, Any]) -> FinishedCell:
        cost = _cost(result, self.run.load_measure(step.spec))
        if not step.rows:
            return FinishedCell(step, result, cost)
        trained = self.run.load(_training_spec(step)) or {}
        train_cost = _train_cost(trained, self.run.load_measure(_training_spec(step)))
        return FinishedCell(step, result, cost, trained, train_cost)

    def _score(self, bundle: Sequence[PlannedCell], progress: Progress, model: Model | None = None) -> None:
        with Meter(self.model.device) as meter:
            results = evaluate_together(
                model or self.model,
                [step.condition for step in bundle],
                self.splits.test,
                bundle[0].pool(self.splits),
                scorer=self.scorer,
                overlong=self.settings.overlong or "error",
                batch_tokens=self.settings.batch_tokens,
                memory=self.settings.memory,
                progress=progress,
            )
        seconds = meter.seconds / len(bundle)
        for step, result in zip(bundle, results, strict=True):
            measured = {"seconds": seconds, "peak_memory_bytes": meter.peak_memory_bytes}
            self.run.save(step.spec, result, measured)

    def _train_and_score(self, step: PlannedCell, progress: Progress) -> None:
        from promptkit.adapters.loading import put_adapter

        folder = self.run.adapter_folder(step.training)
        if not folder.exists() or self.run.load(_training_spec(step)) is None:
            self._train(step, folder, lambda part, parts: progress(9 * part, 10 * parts))
        tuned = put_adapter(self.model, folder)
        self._score([step], lambda part, parts: progress(9 * parts + part, 10 * parts), tuned)

    def _train(self, step: PlannedCell, folder: Path, progress: Progress) -> None:
        """Train the step's adapter and save what it took as a cell of its own."""
        condition = step.condition
        pairs = [build_pair(condition.bound, record, chat=condition.chat) for record in step.rows]
        validation = condition.prompts(step.validation, ()) if step.validation else None
        judged = {"metric": condition.bound.task.merit} if validation else {}
        with Meter(self.model.device) as meter, self.run.new_adapter(step.training) as unfinished:
            adapter = self.trainer(
                self.model,
                pairs,
                **self.settings.arguments(),
                epochs=step.epochs,
                seed=step.seed,
                validation=validation or None,
                **judged,
                chat=condition.chat,
                **({"system": condition.bound.system} if condition.bound.system != SYSTEM[0] else {}),
                out=unfinished,
                one_file=self.splits.one_file,
                save_seconds=SAVE_SECONDS,
                progress=progress,
            )
        measured = {"seconds": meter.seconds, "peak_memory_bytes": meter.peak_memory_bytes}
        self.run.save(_training_spec(step), _training_counts(self.model, adapter, folder), measured)


def _training_spec(step: PlannedCell) -> dict[str, Any]:
    return {**step.training, "part": "training"}


def _training_counts(model: Model, adapter: Adapter, folder: Path) -> dict[str, Any]:
    """Return what a training computed: tokens and FLOPs, its validation included, and its curve."""
    passes = adapter.rows * adapter.epochs
    share = find_active_share(model.network.config.get_text_config(decoder=True))
    shape = replace(shape_of(model.network), adapter=count_weights(folder, share))
    flops = training_flops(
        shape,
        adapter.rows,
        adapter.tokens_trained / passes,
        adapter.epochs,
        adapter.targets_trained / passes,
        layers=count_reached_layers(folder, shape.layers),
    )
    return {
        "rows": adapter.rows,
        "epochs": adapter.epochs,
        "best_epoch": adapter.best_epoch,
        "losses": list(adapter.losses),
        "validation": list(adapter.validation),
        "metric": adapter.metric,
        "adapter_weights": count_weights(folder),
        "tokens": adapter.tokens_trained + adapter.validation_tokens,
        "flops": flops + adapter.validation_flops,
    }


def _cost(result: Mapping[str, Any], measure: Mapping[str, Any] | None) -> Cost:
    counts = {key: result.get(key, 0) for key in ("tokens_prompted", "tokens_computed", "tokens_unique", "flops")}
    return Cost(**counts, **(measure or {}))


def _train_cost(trained: Mapping[str, Any], measure: Mapping[str, Any] | None) -> Cost:
    return Cost(trained["tokens"], trained["tokens"], trained["flops"], **(measure or {}))
