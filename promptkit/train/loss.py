"""The loss of a batch: logits where there is something to learn, and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import Trainer

from promptkit.train.batches import Batch, LengthSampler, Row


def completion_loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The mean over rows of the mean negative log-likelihood (nats, float32) of each row's targets."""
    losses = cross_entropy(completion_logits(network, batch).float(), batch["targets"], reduction="none")
    return (losses * batch["weights"]).sum()


def completion_logits(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The logits [R, V] that predict the R targets of a batch.

    The head runs on those positions only, where the network takes a boolean `logits_to_keep`, as all that
    transformers brings along do that have this argument; otherwise on all of them.
    """
    inputs = {"input_ids": batch["ids"], "attention_mask": batch["attention"]}
    plain = network.get_base_model() if isinstance(network, PeftModel) else network
    shipped = type(plain).__module__.startswith("transformers.")
    if shipped and "logits_to_keep" in inspect.signature(plain.forward).parameters:
        return network(**inputs, logits_to_keep=batch["read"]).logits
    return network(**inputs).logits[batch["read"]]


class CompletionTrainer(Trainer):
    """transformers' Trainer with `completion_loss` and a sampler whose only randomness is its seed."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, **_: Any) -> torch.Tensor:
        """The loss of one batch."""
        return completion_loss(model, inputs)

    def floating_point_ops(self, inputs: Batch) -> int:
        """Nothing: Trainer's own count charges LoRA for weight gradients it never computes (see `cost`)."""
        return 0

    def _get_train_sampler(self, train_dataset: Sequence[Row] | None = None) -> LengthSampler:
        lengths = [row.length for row in train_dataset or self.train_dataset]
        return LengthSampler(lengths, self.args.per_device_train_batch_size, self.args.seed)
