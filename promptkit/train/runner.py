"""The training run: settings, seeds, Trainer, validation after every epoch."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from promptkit import __version__
from promptkit.adapter import Adapter, AdapterCard, TrainResult, TrainSettings, refuse_existing, write_adapter
from promptkit.errors import TrainError
from promptkit.metrics import correctness
from promptkit.score import score
from promptkit.score.rows import read_prompts
from promptkit.train.batches import Row, collate, encode_pairs, read_pairs
from promptkit.train.lora import default_learning_rate, wrap
from promptkit.train.loss import CompletionTrainer

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

    from promptkit.models import Model
    from promptkit.pair import Pair
    from promptkit.prompt import Prompt


def train(
    model: Model,
    pairs: Iterable[Pair | Mapping[str, Any]],
    *,
    rank: int = 8,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
    learning_rate: float | None = None,
    epochs: int = 3,
    batch_size: int = 16,
    seed: int = 0,
    validation: Sequence[Prompt | Mapping[str, Any]] | None = None,
    patience: int = 2,
    chat: bool = False,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Adapter:
    """Train a LoRA adapter on pairs and return it, saved as a folder that `load_model` and plain peft load.

    The loss is the mean over pairs of the mean negative log-likelihood (nats) of a completion's tokens. Left
    out, `alpha` is 2 x `rank` and `learning_rate` is `default_learning_rate`; it warms up over the first
    tenth of the steps, then falls to zero. `seed` decides the adapter's first weights, the batches and
    dropout: on one CPU the same seed gives the same bytes. `model` and the global random state are left as
    they were.

    With `validation` prompts, their label accuracy under promptkit's own scorer is taken after every epoch;
    the weights of the best epoch, the earlier of equals, are kept, and training ends after `patience` epochs
    without a new best. `out` is a folder that does not exist yet; None makes one in the system's temporary
    folder. `progress` is called with (steps done, steps in all).

    Raises DataError for a malformed row; TrainError for a setting out of range, a pair longer than the
    window, a loss that is not finite; RunError where `out` exists already or cannot be written.
    """
    started = time.perf_counter()
    settings = TrainSettings.checked(
        rank=rank,
        alpha=2 * rank if alpha is None else alpha,
        dropout=dropout,
        targets=targets if isinstance(targets, str) else tuple(targets),
        learning_rate=default_learning_rate(model.network) if learning_rate is None else learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        patience=patience,
        chat=chat,
    )
    folder = None if out is None else Path(out)
    if folder:
        refuse_existing(folder)
    lessons = read_pairs(pairs, chat=chat)
    prompts = None if validation is None else _labelled(validation, chat=chat)
    rows = encode_pairs(model, lessons, chat=chat)
    with _seeded(seed):
        network = wrap(model, settings)
        judge = _Judge(replace(model, network=network), prompts, settings)
        _fit(network, rows, settings, judge, progress)
    result = _result(rows, lessons, judge)
    return Adapter(
        path=write_adapter(network, folder, _card(model, lessons, settings, result)),
        validation_tokens=judge.tokens,
        validation_flops=judge.flops,
        seconds=time.perf_counter() - started,
        **result.model_dump(exclude={"pairs_hash"}),
    )


class _Steps(TrainerCallback):
    """Reports every step to a progress function."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


class _Judge(TrainerCallback):
    """Takes every epoch's loss and label accuracy, keeps the best weights, and ends training in time."""

    def __init__(self, model: Model, validation: Sequence[Prompt] | None, settings: TrainSettings) -> None:
        self.model = model
        self.settings = settings
        self.validation = validation
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.tokens, self.flops = 0, 0.0
        self.best_epoch = 0
        self.best_weights: dict[str, torch.Tensor] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainError(
                f"training: the loss of epoch {len(self.losses) + 1} is {logs['loss']}: "
                f"a learning rate below {self.settings.learning_rate:g} or dtype float32 may help"
            )
        self.losses.append(logs["loss"])

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.validation is None:
            return
        epoch = len(self.accuracies) + 1
        accuracy = self._accuracy(self.validation)
        if accuracy > max(self.accuracies, default=-1.0):
            weights = get_peft_model_state_dict(self.model.network, save_embedding_layers=False)
            self.best_weights = {name: weight.clone() for name, weight in weights.items()}
            self.best_epoch = epoch
        self.accuracies.append(accuracy)
        control.should_training_stop = epoch - self.best_epoch >= self.settings.patience

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.best_weights:
            set_peft_model_state_dict(self.model.network, self.best_weights)
        else:
            self.best_epoch = len(self.losses)

    def _accuracy(self, validation: Sequence[Prompt]) -> float:
        self.model.network.eval()
        table = score(self.model, validation, chat=self.settings.chat)
        self.tokens += table.tokens_computed
        self.flops += table.flops
        right = correctness(table.predicted, [each.label for each in table.predictions])
        return sum(right) / len(right)


def _labelled(validation: Iterable[Prompt | Mapping[str, Any]], *, chat: bool) -> list[Prompt]:
    prompts = read_prompts(validation, chat=chat)
    if not prompts:
        raise TrainError("validation has no prompts: give some, or leave it out to train for all epochs")
    for prompt in prompts:
        if prompt.label is None:
            raise TrainError(f"validation prompt {prompt.id!r} has no label, so its answer cannot be judged")
    return prompts


def _fit(
    network: PeftModel,
    rows: Sequence[Row],
    settings: TrainSettings,
    judge: _Judge,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Run Trainer, in silence and with nothing left on disk."""
    with TemporaryDirectory(prefix="promptkit-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=0.1,  # below 1 it is a share of all steps
            seed=settings.seed,
            use_cpu=judge.model.device == "cpu",
            save_strategy="no",
            logging_strategy="epoch",
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            report_to="none",
        )
        arguments._n_gpu = 1  # else Trainer splits batches over all GPUs of the machine by itself
        trainer = CompletionTrainer(
            model=network,
            args=arguments,
            train_dataset=rows,
            data_collator=collate,
            callbacks=[judge, *([_Steps(progress)] if progress else [])],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global randomness, with gradients on; then put all back as it was."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)


def _result(rows: Sequence[Row], lessons: Sequence[Pair], judge: _Judge) -> TrainResult:
    epochs = len(judge.losses)
    digest = sha256()
    for pair in lessons:
        digest.update(f"{len(pair.prompt)} {len(pair.completion)} {pair.prompt}{pair.completion}".encode())
    return TrainResult(
        rows=len(rows),
        pairs_hash=digest.hexdigest(),
        epochs=epochs,
        best_epoch=judge.best_epoch,
        losses=tuple(judge.losses),
        validation=tuple(judge.accuracies),
        tokens_trained=epochs * sum(row.length for row in rows),
        targets_trained=epochs * sum(row.targets for row in rows),
        spanning=sum(row.spans for row in rows),
    )


def _card(model: Model, lessons: Sequence[Pair], settings: TrainSettings, result: TrainResult) -> AdapterCard:
    choices = {pair.choices for pair in lessons}
    return AdapterCard(
        base_model=model.name,
        base_hash=model.hash,
        dtype=model.dtype,
        task=_only({pair.task for pair in lessons}),
        template=_only({pair.template for pair in lessons}),
        template_hash=_only({pair.template_hash for pair in lessons}),
        labels=next(iter(choices)) or None if len(choices) == 1 else None,
        settings=settings,
        train=result,
        versions={"promptkit": __version__, **{name: version(name) for name in ("torch", "transformers", "peft")}},
    )


def _only(names: set[str]) -> str:
    return ", ".join(sorted(names))
