"""Run LoRA layers that read the same states as one operation, with a leaner backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable

_TENSORS = 4  # of a layer: W, bias, A and B
_STRETCH = 512  # columns of a product that a CPU computes at once


class FusedLinear(Linear):
    """peft's LoRA layer, the frozen layer and the adapter as one operation; for float32 or bfloat16, no dropout."""

    together: Together | None = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`x W' + bias + scaling x A' B'` with x [..., in], W [out, in], A [rank, in], B [out, rank]."""
        if args or kwargs or not self.is_plain:
            return super().forward(x, *args, **kwargs)
        return self.together.run(self, x) if self.together else _run([self], x)[0]

    @property
    def is_plain(self) -> bool:
        """Whether one adapter is in use, and the layer is nothing but the sum of two products."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        if torch.is_autocast_enabled(self.get_base_layer().weight.device.type):
            return False
        (name,) = self.active_adapters
        return name in self.lora_A and name not in self.lora_variant and self.lora_B[name].bias is None

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """W, bias, and A and B of the adapter in use."""
        (name,) = self.active_adapters
        base = self.get_base_layer()
        return base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight

    @property
    def scale(self) -> float:
        """What the adapter in use is multiplied by."""
        (name,) = self.active_adapters
        return float(self.scaling[name])


class Together:
    """Layers that a network calls one after the other on the same states, as for queries, keys and values.

    All run at the first one's turn; what the others gave waits for theirs. A layer that is called on other states
    than those runs on these.
    """

    def __init__(self, layers: Sequence[FusedLinear]) -> None:
        self.layers = layers
        self.x: torch.Tensor | None = None
        self.waiting: dict[FusedLinear, torch.Tensor] = {}
        for layer in layers:
            layer.together = self

    def run(self, layer: FusedLinear, x: torch.Tensor) -> torch.Tensor:
        """Return what one of the layers gives on x [..., in]."""
        if x is not self.x or layer not in self.waiting:
            layers = [each for each in self.layers if each.is_plain]
            self.x, self.waiting = x, dict(zip(layers, _run(layers, x), strict=True))
        found = self.waiting.pop(layer)
        if not self.waiting:
            self.x = None
        return found


def _run(layers: Sequence[FusedLinear], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    sums: tuple[torch.Tensor, ...] = _LowRankSums.apply(x, *list_parts(layers))  # type: ignore[no-untyped-call]
    return sums


def list_parts(layers: Sequence[FusedLinear]) -> tuple[Any, ...]:
    """Return what an operation takes of its layers: their scalings, then the tensors of each."""
    return tuple(layer.scale for layer in layers), *(tensor for layer in layers for tensor in layer.tensors)


class LowRankSums:
    """The layers behind what `list_parts` lists. T rows of states go in; `ranks` is the sum of all their ranks.

    A and B are taken in the number format of W, and in two parts where that is coarser than theirs: as it is rounded,
    many small steps of an adapter would be none or too long. Their gradients are float32. B is turned, for which
    products with a few columns are faster.
    """

    def __init__(self, scalings: Sequence[float], tensors: Sequence[Any]) -> None:
        self.scalings = scalings
        self.weights, self.biases, downs, ups = (tensors[kind::_TENSORS] for kind in range(_TENSORS))
        dtype = self.weights[0].dtype
        self.down = _in_parts(torch.cat(list(downs)), dtype)
        self.ups = [_in_parts(up.t(), dtype) for up in ups]
        self.ranks = [down.shape[0] for down in downs]

    def run(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return every sum [T, out], the low-rank product added in place, and the narrow states [T, ranks]."""
        narrow = _add_parts(x @ self.down.t(), sum(self.ranks))
        sums = [multiply(x, weight.t()) for weight in self.weights]
        added = zip(sums, self.biases, self._split(narrow), self.ups, self.scalings, strict=True)
        for total, bias, states, up, scaling in added:
            total.addmm_(_repeat(states, up), up, alpha=scaling)
            if bias is not None:
                total.add_(bias)
        return sums, narrow

    def run_back(
        self, gradients: Sequence[torch.Tensor], x: torch.Tensor, narrow: torch.Tensor
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Return the gradients of each layer's A and B, and that of the narrow states."""
        to_narrow, to_ups = [], []
        given = zip(gradients, self._split(narrow), self.ups, self.scalings, self.ranks, strict=True)
        for gradient, states, up, scaling, rank in given:
            to_narrow.append(_add_parts(gradient @ up.t(), rank).mul_(scaling))
            to_ups.append(((states.t() @ gradient).t() * scaling).float())
        together = torch.cat(to_narrow, dim=1)
        to_downs = torch.split((together.t() @ x).float(), self.ranks)
        return list(zip(to_downs, to_ups, strict=True)), together

    def run_back_to_input(self, gradients: Sequence[torch.Tensor], to_narrow: torch.Tensor) -> torch.Tensor:
        """Return the gradient [T, in] of the states."""
        to_x = multiply(gradients[0], self.weights[0])
        for gradient, weight in zip(gradients[1:], self.weights[1:], strict=True):
            for columns in _stretches(to_x):
                to_x[:, columns].addmm_(gradient, weight[:, columns])
        return to_x.addmm_(_repeat(to_narrow, self.down), self.down)

    def _split(self, narrow: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.split(narrow, self.ranks, dim=1)


def _in_parts(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a matrix [rank, out] in its own format; in another, its rounding and below it the rest [2 rank, out]."""
    rounded = matrix.to(dtype)
    return matrix.contiguous() if dtype == matrix.dtype else torch.cat([rounded, (matrix - rounded).to(dtype)])


def _add_parts(product: torch.Tensor, rank: int) -> torch.Tensor:
    """Return `y M'` [T, rank] from `product`, what y [T, out] made of a matrix in parts."""
    return product if product.shape[1] == rank else product[:, :rank] + product[:, rank:]


def _repeat(states: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return states [T, rank] once for each part of the matrix."""
    return states if states.shape[1] == matrix.shape[0] else torch.cat([states, states], dim=1)


def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return `x @ weight` [T, out], of x [T, in] and weight [in, out] that no gradient is wanted for."""
    product = x.new_empty(x.shape[0], weight.shape[1])
    for columns in _stretches(product):
        torch.mm(x, weight[:, columns], out=product[:, columns])
    return product


def _stretches(product: torch.Tensor) -> Iterator[slice]:
    """Yield the columns of a product [T, out] that are to be computed at once.

    MKL takes up to a third longer for a wide product than for its stretches one after the other, on some CPUs.
    """
    width = product.shape[1]
    divided = product.device.type == "cpu" and width > 2 * _STRETCH
    step = _STRETCH if divided else width
    return (slice(first, first + step) for first in range(0, width, step))


def list_gradients(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor | None]:
    """Return the gradients of what `list_parts` lists, of which every A and B alone has one."""
    return [None, *(gradient for to_down, to_up in pairs for gradient in (None, None, to_down, to_up))]


class _LowRankSums(torch.autograd.Function):
    """Adds low-rank products to frozen ones in place, so that no sum needs a pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scalings: Sequence[float], *tensors: Any) -> tuple[torch.Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        sums, narrow = LowRankSums(scalings, tensors).run(rows)
        ctx.save_for_backward(rows, narrow, *tensors)
        ctx.shape, ctx.scalings = x.shape, scalings
        # in their shape, and not as views, which a network could not change in place
        return tuple(total.resize_(*x.shape[:-1], total.shape[1]) for total in sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, narrow, *tensors = ctx.saved_tensors
        layers = LowRankSums(ctx.scalings, tensors)
        flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        found, to_narrow = layers.run_back(flat, rows, narrow)
        to_x = layers.run_back_to_input(flat, to_narrow).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return to_x, *list_gradients(found)
