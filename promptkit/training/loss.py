"""Compute the loss of a batch, with logits only where the loss mask is set."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from promptkit.training.batches import Batch, LengthSampler, TokenRow
from promptkit.training.packed_attention import packed


def completion_loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The mean over rows of the mean negative log-likelihood (nats, float32) of each row's targets."""
    losses = cross_entropy(completion_logits(network, batch).float(), batch["targets"], reduction="none")
    return (losses * batch["weights"]).sum()


def completion_logits(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The logits [R, V] that predict the R targets of a batch.

    The head runs on those positions only, where the network takes a boolean `logits_to_keep`, as all that
    transformers brings along do that have this argument; otherwise on all of them. A packed batch is to be
    run within `attending`.
    """
    bare = network.module if isinstance(network, DistributedDataParallel) else network
    plain = bare.get_base_model() if isinstance(bare, PeftModel) else bare
    takes = inspect.signature(plain.forward).parameters
    inputs = {"input_ids": batch["ids"], "attention_mask": batch["attention"], "position_ids": batch["positions"]}
    inputs = {name: states for name, states in inputs.items() if states is not None}
    options = {"use_cache": False} if "use_cache" in takes else {}
    shipped = type(plain).__module__.startswith("transformers.")
    if shipped and "logits_to_keep" in takes:
        return network(**inputs, **options, logits_to_keep=batch["loss_mask"]).logits
    return network(**inputs, **options).logits[batch["loss_mask"]]


@contextmanager
def attending(network: torch.nn.Module, batch: Batch) -> Iterator[None]:
    """Let the network attend as the batch's layout wants it, in forward and backward; as ever where it is padded."""
    if batch["layout"] is None:
        yield
        return
    plain: Any = network.get_base_model() if isinstance(network, PeftModel) else network
    with packed(plain.config.get_text_config(decoder=True), batch["layout"], batch["loss_mask"]):
        yield


class CompletionTrainer(Trainer):
    """transformers' Trainer with `completion_loss` and a sampler whose only randomness is its seed."""

    loss_is_scaled_for_ga = False

    def training_step(self, model: torch.nn.Module, inputs: Batch, *more: Any, **options: Any) -> torch.Tensor:
        """Forward and backward of one batch."""
        with attending(self.model, inputs):
            return super().training_step(model, inputs, *more, **options)

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, **_: Any) -> torch.Tensor:
        """The loss of one batch."""
        return completion_loss(model, inputs)

    def floating_point_ops(self, inputs: Batch) -> int:
        """Nothing: Trainer's own count charges LoRA for weight gradients it never computes (see `cost`)."""
        return 0

    def _get_train_sampler(self, train_dataset: Sequence[TokenRow] | None = None) -> LengthSampler:
        lengths = [row.length for row in train_dataset or self.train_dataset]
        return LengthSampler(lengths, self.args.per_device_train_batch_size, self.args.seed)
