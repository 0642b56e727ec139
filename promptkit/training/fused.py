"""Replace a network's blocks by ones with the same result and a leaner backward pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from promptkit.training.low_rank import FusedLinear, LowRankSums, Together, list_gradients, list_parts, multiply

_CLOSE = 1e-5  # of what a fused layer may differ from the one it stands for, in float32
_COARSE = 2e-2  # in bfloat16, whose steps are 0.8 % apart


def fuse_blocks(network: torch.nn.Module, apart: Collection[torch.nn.Module] = ()) -> None:
    """Fuse a network's RMSNorms, SwiGLU blocks, head and the projections of its attention, in this copy of it.

    A block counts as one by its parts, and all but projections only where the fused forward gives what its own does on
    random input. Projections that are `apart` run by themselves, for they get other states than their neighbours.
    """
    head: Any = getattr(network, "get_output_embeddings", lambda: None)()
    if _is_plain_head(head):
        _replace(head, _head_forward, head.in_features)
    module: Any
    for module in network.modules():
        if _looks_like_norm(module):
            _replace(module, _norm_forward, module.weight.shape[0])
        elif _looks_like_gated(module):
            _replace(module, _gated_forward, module.gate_proj.in_features)
        projections = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj")]
        fused = [layer for layer in projections if isinstance(layer, FusedLinear) and layer not in apart]
        if len(fused) > 1:
            Together(fused)


def _looks_like_norm(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    frozen = isinstance(weight, torch.nn.Parameter) and weight.ndim == 1 and not weight.requires_grad
    return frozen and type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _is_plain_head(module: Any) -> bool:
    return type(module) is torch.nn.Linear and module.bias is None and not module.weight.requires_grad


def _looks_like_gated(module: torch.nn.Module) -> bool:
    layers = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    return all(isinstance(layer, FusedLinear) for layer in layers) and hasattr(module, "act_fn")


def _replace(module: torch.nn.Module, forward: Any, width: int) -> None:
    """Give a module another forward where both agree on two random rows of `width` numbers."""
    weight = next(module.parameters())
    generator = torch.Generator().manual_seed(0)  # the global random state is the adapter's
    x = torch.randn(1, 2, width, generator=generator).to(weight)
    with torch.no_grad():
        expected, found = module(x).float(), forward(module, x).float()
    close = _CLOSE if weight.dtype == torch.float32 else _COARSE
    if (expected - found).abs().max() <= close * expected.abs().max():
        module.forward = partial(forward, module)


def _norm_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    normed: torch.Tensor = _Norm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def _head_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = _Head.apply(x, module.weight)  # type: ignore[no-untyped-call]
    return logits


def _gated_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    layers = module.gate_proj, module.up_proj, module.down_proj
    if not all(layer.is_plain for layer in layers):
        return module.down_proj(module.act_fn(module.gate_proj(x)) * module.up_proj(x))
    gated: torch.Tensor = _Gated.apply(x, *list_parts(layers))  # type: ignore[no-untyped-call]
    return gated


class _Norm(torch.autograd.Function):
    """RMSNorm with a frozen weight; keeps its input and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        inverse = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(epsilon).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        wide, to_normed = x.float(), (gradient * weight).float()
        along = torch.linalg.vecdot(to_normed, wide)[..., None] * inverse**3 / x.shape[-1]
        return to_normed.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype), None, None


class _Head(torch.autograd.Function):
    """`x W'` with a frozen W, of few rows: its products are faster the other way round in the backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return multiply(x.reshape(-1, x.shape[-1]), weight.t()).resize_(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (weight.t() @ flat.t()).t().reshape(*gradient.shape[:-1], -1), None


class _Gated(torch.autograd.Function):
    """`down(silu(gate(x)) * up(x))`; the product is computed again in the backward, not kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scalings: Sequence[float], *tensors: Any) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        opening, last = _opening_and_last(scalings, tensors)
        (gate, up), narrow = opening.run(rows)
        (out,), narrow_last = last.run(silu(gate).mul_(up))
        ctx.save_for_backward(rows, gate, up, narrow, narrow_last, *tensors)
        ctx.shape, ctx.scalings = x.shape, scalings
        return out.resize_(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, gate, up, narrow, narrow_last, *tensors = ctx.saved_tensors
        opening, last = _opening_and_last(ctx.scalings, tensors)
        gradient = gradient.reshape(-1, gradient.shape[-1])
        opened = silu(gate)
        of_last, to_narrow_last = last.run_back([gradient], opened * up, narrow_last)
        to_product = last.run_back_to_input([gradient], to_narrow_last)
        to_up = opened.mul_(to_product)
        to_gate = torch.ops.aten.silu_backward(to_product.mul_(up), gate)
        of_opening, to_narrow = opening.run_back([to_gate, to_up], rows, narrow)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = opening.run_back_to_input([to_gate, to_up], to_narrow).view(ctx.shape)
        return to_x, *list_gradients([*of_opening, *of_last])


def _opening_and_last(scalings: Sequence[float], tensors: Sequence[Any]) -> tuple[LowRankSums, LowRankSums]:
    """Return the gate and the projection up, which read the same states, and the projection down."""
    last = len(tensors) // 3 * 2
    return LowRankSums(scalings[:2], tensors[:last]), LowRankSums(scalings[2:], tensors[last:])
