"""Agree among the processes that `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from promptkit.errors import PromptkitError


def join_processes(device: str) -> int:
    """Meet the others, where there are any, and return how many they are; they compute on that kind of device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=device == "cpu")
    return count_processes()


def count_processes() -> int:
    """Return how many processes train together."""
    return torch.distributed.get_world_size() if _several() else 1


def own_number() -> int:
    """Return the number of this process; the first is 0."""
    return torch.distributed.get_rank() if _several() else 0


def gather(value: Any) -> list[Any]:
    """Return the value that every process has, in their order; they must all ask."""
    values: list[Any] = [value] * count_processes()
    if _several():
        torch.distributed.all_gather_object(values, value)
    return values


def as_the_first(compute: Callable[[], Any]) -> Any:
    """Return what the first process computes, or raise the PromptkitError it raises, in all of them."""
    if not _several():
        return compute()
    outcome: list[Any] = [None, None]
    if own_number() == 0:
        try:
            outcome[0] = compute()
        except PromptkitError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _several() -> bool:
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())
