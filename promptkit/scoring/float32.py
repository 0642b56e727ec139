"""Compute in float32 with a network in 16 bits, converted a layer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_HALVES = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(network: nn.Module) -> Iterator[None]:
    """Let every layer compute in float32 meanwhile. No more than one of them is held in both formats at a time."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for unit in _find_units(network):
            wide = _Wide(unit)
            stack.callback(unit.register_forward_pre_hook(wide.widen).remove)
            stack.callback(unit.register_forward_hook(wide.narrow, always_call=True).remove)
        yield


class _Wide:
    """The hooks around one unit, and its weights as they were."""

    def __init__(self, unit: nn.Module) -> None:
        self.unit = unit
        self.kept: list[tuple[nn.Parameter, torch.Tensor]] = []

    def widen(self, *_: Any) -> None:
        self.kept = [(weights, weights.data) for weights in self.unit.parameters() if weights.dtype in _HALVES]
        for weights, half in self.kept:
            weights.data = half.float()

    def narrow(self, *_: Any) -> None:
        for weights, half in self.kept:
            weights.data = half
        self.kept = []


def _find_units(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a network's lists, and outside them every module that holds weights and no others."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif next(child.children(), None) is None:
            yield child
        else:
            yield from _find_units(child)
