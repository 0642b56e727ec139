"""Validate after each epoch for early stopping, and keep the weights of the best one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainingArguments

from promptkit.errors import TrainError
from promptkit.scoring import score
from promptkit.scoring.prompt_rows import read_prompts
from promptkit.scoring.scoring_request import check_window, open_requests
from promptkit.stats.metrics import measure_by
from promptkit.storage.files import write_whole
from promptkit.training.processes import as_the_first

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

    from promptkit.adapters.card import TrainSettings
    from promptkit.models import Model
    from promptkit.prompts.prompt import Prompt
    from promptkit.training.trainer import AdapterTrainer

HISTORY = "promptkit_course.json"
_BEST = "promptkit_best.safetensors"


@dataclass
class TrainingHistory:
    """How a training has gone: per finished epoch the mean loss (nats) of its steps and the metric on validation.

    `tokens` and `flops` were computed to validate. `loss` is the sum over the `steps` of the epoch that is under
    way, an exact one, for it must not matter where a training was stopped in between.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
    tokens: int = 0
    flops: float = 0.0
    loss: Fraction = Fraction()
    steps: int = 0


class Validation(TrainerCallback):
    """Keeps the course of a training and the weights of its best epoch, and ends it in time."""

    def __init__(self, model: Model, validation: Sequence[Prompt] | None, settings: TrainSettings) -> None:
        self.model = model
        self.settings = settings
        self.validation = validation
        self.history = TrainingHistory()
        self.best_weights: dict[str, torch.Tensor] = {}
        self.trainer: AdapterTrainer | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.history.steps += 1

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        history = self.history
        self.gather_loss()
        history.losses.append(float(history.loss / history.steps))
        history.loss, history.steps = Fraction(), 0
        if self.validation is None:
            return
        epoch = len(history.losses)
        figure, tokens, flops = as_the_first(self._validate)
        history.tokens += tokens
        history.flops += flops
        if figure > max(history.validation, default=-1.0):
            weights = get_peft_model_state_dict(self.model.network, save_embedding_layers=False)
            self.best_weights = {name: weight.clone() for name, weight in weights.items()}
            history.best_epoch = epoch
        history.validation.append(figure)
        self._trainer.log({f"validation_{self.settings.metric}": figure})
        control.should_training_stop |= epoch - history.best_epoch >= self.settings.patience

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.best_weights:
            set_peft_model_state_dict(self.model.network, self.best_weights)
        else:
            self.history.best_epoch = len(self.history.losses)

    def gather_loss(self) -> None:
        """Add the losses of the last steps to the epoch's. Raises TrainError where one is not finite."""
        for loss in self._trainer.take_losses():
            if not math.isfinite(loss):
                raise TrainError(
                    f"training: the loss of epoch {len(self.history.losses) + 1} is {loss}: "
                    f"a learning rate below {self.settings.learning_rate:g} or dtype float32 may help"
                )
            self.history.loss += Fraction(loss) / self.settings.processes

    def save(self, folder: Path) -> None:
        """Write what `load` needs to go on; the file `HISTORY` comes last."""
        if self.best_weights:
            save_file({name: weight.contiguous() for name, weight in self.best_weights.items()}, folder / _BEST)
        write_whole(folder / HISTORY, json.dumps(asdict(self.history), default=str).encode())

    def load(self, folder: Path) -> None:
        """Take up the course that `save` wrote."""
        history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
        self.history = TrainingHistory(**{**history, "loss": Fraction(history["loss"])})
        if (folder / _BEST).is_file():
            self.best_weights = load_file(folder / _BEST)

    @property
    def _trainer(self) -> AdapterTrainer:
        assert self.trainer is not None
        return self.trainer

    def _validate(self) -> tuple[float, int, float]:
        """Return the metric on validation, the tokens and the FLOPs that it took."""
        assert self.validation is not None
        self.model.network.eval()
        table = score(self.model, self.validation, chat=self.settings.chat)
        labels = [each.label for each in table.predictions]
        count = len(self.validation[0].choices) or None
        figure = measure_by(self.settings.metric, table.predicted, labels, count)
        return figure, table.tokens_computed, table.flops


class Steps(TrainerCallback):
    """Reports every step to a progress function."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.progress(state.global_step, state.max_steps)


def read_labelled(
    model: Model,
    validation: Iterable[Prompt | Mapping[str, Any]],
    *,
    chat: bool,
    system: str = "system",
    metric: str = "accuracy",
) -> list[Prompt]:
    """Return validation prompts.

    Raises TrainError where there are none, one has no label to compare with, or `metric` averages over labels
    and these are not the same for all, and what scoring them would raise after the first epoch: choices that are the
    same tokens, prompts beyond the window.
    """
    prompts = read_prompts(validation, chat=chat, system=system)
    if not prompts:
        raise TrainError("validation has no prompts: give some, or leave it out to train for all epochs")
    for prompt in prompts:
        if prompt.label is None:
            raise TrainError(f"validation prompt {prompt.id!r} has no label, so its answer cannot be judged")
    counts = {len(prompt.choices) for prompt in prompts}
    if metric != "accuracy" and (len(counts) > 1 or 0 in counts):
        raise TrainError(f"validation prompts do not have the same labels, which {metric} averages over: take accuracy")
    check_window(model, open_requests(model, prompts, chat))
    return prompts
