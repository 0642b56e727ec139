"""Adapt Trainer to promptkit's batches: every process its share, in parts that fit, one loss for the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset, Sampler

from promptkit.adapters.card import TrainSettings
from promptkit.errors import RunError, TrainError
from promptkit.training.batches import Batch, LengthSampler, TokenRow
from promptkit.training.loss import CompletionTrainer
from promptkit.training.processes import gather, own_number

#: A row's number, and what the loss of its part counts in the step.
Drawn = tuple[int, float]


class BatchPart(Batch):
    """Some rows of a batch, with what their loss counts in the step."""

    share: float


class Rows(Dataset[tuple[TokenRow, float]]):
    """Rows, looked up together with what their part counts."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, drawn: Drawn) -> tuple[TokenRow, float]:
        number, share = drawn
        return self.rows[number], share


class Shares(Sampler[list[Drawn]]):
    """What one process of several reads: of every batch its share, in parts of at most `part` rows.

    Every process gets as many parts of a batch. With the mean over processes of the sum over parts of share x
    loss, a batch's rows all count the same, however it was cut: a part without rows has one that counts nothing.
    """

    def __init__(self, sampler: LengthSampler, part: int, process: int, processes: int) -> None:
        self.rows = sampler
        self.part = part
        self.process = process
        self.processes = processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of one epoch."""
        self.rows.set_epoch(epoch)

    def __len__(self) -> int:
        rows, batch, together = len(self.rows), self.rows.batch_size, self.part * self.processes
        return rows // batch * math.ceil(batch / together) + math.ceil(rows % batch / together)

    def __iter__(self) -> Iterator[list[Drawn]]:
        numbers, together = list(self.rows), self.part * self.processes
        for first in range(0, len(numbers), self.rows.batch_size):
            batch = numbers[first : first + self.rows.batch_size]
            for start in range(0, len(batch), together):
                part = batch[start : start + together]
                mine = part[self.process :: self.processes]
                share = self.processes * len(mine) / len(batch)
                yield [(number, share) for number in mine or part[:1]]


class Loader(DataLoader[Any]):
    """A data loader that Trainer can tell which epoch begins."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of one epoch."""
        assert isinstance(self.batch_sampler, Shares)
        self.batch_sampler.set_epoch(epoch)


class AdapterTrainer(CompletionTrainer):
    """Trainer for one adapter.

    `losses` are those of the steps since they were last taken out, as tensors: reading a number from a GPU stops it.
    """

    loss_is_scaled_for_ga = True  # shares sum to 1 over the parts of a batch

    def __init__(self, *arguments: Any, settings: TrainSettings, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings = settings
        self.losses: list[torch.Tensor] = []
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise TrainError(
                "training: promptkit trains with plain data parallelism, found FSDP or DeepSpeed in the configuration "
                "of accelerate: launch with --multi_gpu, or with --cpu"
            )

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, **options: Any) -> torch.Tensor:
        """The loss of one part of a batch, times its share."""
        loss = super().compute_loss(model, inputs, **options)
        share = cast("BatchPart", inputs)["share"]
        loss = loss if share == 1 else loss * share
        self.losses.append(loss.detach())
        return loss

    def take_losses(self) -> list[float]:
        """Return the losses (nats) of all processes since last time; they must all ask."""
        own = torch.stack(self.losses).tolist() if self.losses else []
        self.losses = []
        return [loss for losses in gather(own) for loss in losses]

    def get_train_dataloader(self) -> Loader:
        """Return the batches of this process."""
        rows, seeds = self.train_dataset, self.settings.seeds
        sampler = LengthSampler([row.length for row in rows], self.settings.batch_size, seeds.batch, seeds.order)
        return Loader(
            Rows(rows),
            batch_sampler=Shares(sampler, part_size(self.settings), own_number(), self.settings.processes),
            collate_fn=partial(_collate, self.data_collator),
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the schedule of the rate; of a single step it is the whole rate, where warming up would leave none."""
        if num_training_steps == 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter. Trainer's own way would ask the hub whether the vocabulary is still the same."""
        if self.args.should_save:
            self.model.save_pretrained(str(output_dir), save_embedding_layers=False)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        try:
            super()._save_checkpoint(*arguments, **options)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's writer raises RuntimeError
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise RunError(
                f"{self.args.output_dir}: the state of the training cannot be written: {reason}; make room there"
            ) from error


def parts_per_batch(settings: TrainSettings) -> int:
    """Return in how many parts each process computes a batch."""
    return math.ceil(settings.batch_size / (part_size(settings) * settings.processes))


def part_size(settings: TrainSettings) -> int:
    """Return how many rows of a batch go through the network of one process at once."""
    each = math.ceil(settings.batch_size / settings.processes)
    return min(each, settings.micro_batch or each)


def _collate(collate: Callable[[Sequence[TokenRow]], Batch], drawn: Sequence[tuple[TokenRow, float]]) -> BatchPart:
    return BatchPart(**collate([row for row, _ in drawn]), share=drawn[0][1])
