"""A network's layers into ones with the same result and a hand-written backward, which runs less and keeps less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

_CLOSE = 1e-5  # of what a fused layer may differ from the one it stands for, in float32
_COARSE = 2e-2  # in bfloat16, whose steps are 0.8 % apart


class FusedLinear(Linear):
    """peft's LoRA layer, the frozen layer and the adapter as one operation; for float32 or bfloat16, no dropout."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`x W' + bias + scaling x A' B'` with x [..., in], W [out, in], A [rank, in], B [out, rank]."""
        if args or kwargs or not self.is_plain:
            return super().forward(x, *args, **kwargs)
        fused: torch.Tensor = _LowRankSum.apply(x, *self.parts)  # type: ignore[no-untyped-call]
        return fused

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
    def parts(self) -> tuple[torch.Tensor | float | None, ...]:
        """W, bias, A, B and the scaling of the adapter in use."""
        (name,) = self.active_adapters
        base = self.get_base_layer()
        return base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]


def fuse_activations(network: torch.nn.Module) -> None:
    """Put fused forwards in place of those of a network's RMSNorms and SwiGLU blocks, in this copy of it.

    A layer counts as one by its parts, and only where the fused forward gives what its own does on random input.
    """
    module: Any
    for module in network.modules():
        if _looks_like_norm(module):
            _replace(module, _norm_forward, module.weight.shape[0])
        elif _looks_like_gated(module):
            _replace(module, _gated_forward, module.gate_proj.in_features)


def _looks_like_norm(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    frozen = isinstance(weight, torch.nn.Parameter) and weight.ndim == 1 and not weight.requires_grad
    return frozen and type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


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


def _gated_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    layers = module.gate_proj, module.up_proj, module.down_proj
    if not all(layer.is_plain for layer in layers):
        return module.down_proj(module.act_fn(module.gate_proj(x)) * module.up_proj(x))
    gated: torch.Tensor = _Gated.apply(x, *(part for layer in layers for part in layer.parts))  # type: ignore[no-untyped-call]
    return gated


@dataclass(frozen=True, slots=True)
class _Layer:
    """The tensors of a low-rank sum, A and B in the number format of W; all [out, in] like the layers' own."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    down: torch.Tensor
    up: torch.Tensor
    scaling: float

    @classmethod
    def of(cls, weight: Any, bias: Any, down: Any, up: Any, scaling: float) -> _Layer:
        return cls(weight, bias, down.to(weight.dtype), up.to(weight.dtype), scaling)

    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum [T, out], the low-rank product added in place, and the narrow states [T, rank]."""
        narrow = x @ self.down.t()
        return linear(x, self.weight, self.bias).addmm_(narrow, self.up.t(), alpha=self.scaling), narrow

    def run_back(
        self, gradient: torch.Tensor, x: torch.Tensor, narrow: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients of A and B, in float32, and that of the narrow states."""
        to_narrow = (gradient @ self.up).mul_(self.scaling)
        to_up = (narrow.t() @ gradient).t() * self.scaling
        return (to_narrow.t() @ x).float(), to_up.float(), to_narrow

    def to_input(
        self, gradient: torch.Tensor, to_narrow: torch.Tensor, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the gradient [T, in] of the input, added to `into` where there is one."""
        into = gradient @ self.weight if into is None else into.addmm_(gradient, self.weight)
        return into.addmm_(to_narrow, self.down)


class _LowRankSum(torch.autograd.Function):
    """Adds the low-rank product to the frozen one in place, so that no sum needs a pass of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out, narrow = _Layer.of(weight, bias, down, up, scaling).run(rows)
        ctx.save_for_backward(rows, narrow, weight, down, up)
        ctx.shape, ctx.scaling = x.shape, scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, narrow, weight, down, up = ctx.saved_tensors
        layer = _Layer.of(weight, None, down, up, ctx.scaling)
        gradient = gradient.reshape(-1, gradient.shape[-1])
        to_down, to_up, to_narrow = layer.run_back(gradient, rows, narrow)
        to_x = layer.to_input(gradient, to_narrow).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return to_x, None, None, to_down, to_up, None


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


class _Gated(torch.autograd.Function):
    """`down(silu(gate(x)) * up(x))`; the product is computed again in the backward, not kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *parts: Any) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        first, second, last = (_Layer.of(*parts[start : start + 5]) for start in (0, 5, 10))
        (gate, narrow_gate), (up, narrow_up) = first.run(rows), second.run(rows)
        out, narrow = last.run(silu(gate).mul_(up))
        matrices = [matrix for start in (0, 5, 10) for matrix in (parts[start], parts[start + 2], parts[start + 3])]
        ctx.save_for_backward(rows, gate, narrow_gate, up, narrow_up, narrow, *matrices)
        ctx.shape, ctx.scalings = x.shape, parts[4::5]
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, gate, narrow_gate, up, narrow_up, narrow, *matrices = ctx.saved_tensors
        tensors = zip(matrices[::3], matrices[1::3], matrices[2::3], ctx.scalings, strict=True)
        first, second, last = (_Layer.of(weight, None, a, b, scaling) for weight, a, b, scaling in tensors)
        gradient = gradient.reshape(-1, gradient.shape[-1])
        opened = silu(gate)
        down_last, up_last, to_narrow = last.run_back(gradient, opened * up, narrow)
        to_product = last.to_input(gradient, to_narrow)
        to_up = opened.mul_(to_product)
        to_gate = torch.ops.aten.silu_backward(to_product.mul_(up), gate)
        down_first, up_first, to_narrow_gate = first.run_back(to_gate, rows, narrow_gate)
        down_second, up_second, to_narrow_up = second.run_back(to_up, rows, narrow_up)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = second.to_input(to_up, to_narrow_up, first.to_input(to_gate, to_narrow_gate)).view(ctx.shape)
        layers = ((down_first, up_first), (down_second, up_second), (down_last, up_last))
        return to_x, *(part for pair in layers for part in (None, None, *pair, None))
