"""Optimize: Muon for the matrices of the blocks, AdamW for token vectors and norms.

Muon: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". torch.optim.Muon does the same
but orthogonalises in bfloat16, which processors without bfloat16 arithmetic do ten times slower than float32.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The quintic of the Newton-Schulz iteration, from the reference implementation."""


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; for matrices only."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float = 0.01,
        momentum: float = 0.95,
        decay: float = 0.05,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever needed
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict[str, float]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalise(gradient.lerp(state["momentum"], group["momentum"]))
        rows, columns = parameter.shape
        parameter.mul_(1 - group["lr"] * group["decay"])
        parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest half-orthogonal matrix, roughly (singular values between 0.7 and 1.2), of the same shape."""
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def make_optimizers(
    model: nn.Module, *, vector_rate: float = 1.5e-3, block_rate: float = 0.01
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    blocks = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "head" not in name]
    chosen = {id(parameter) for parameter in blocks}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        Muon(blocks, lr=block_rate),
        torch.optim.AdamW(others, lr=vector_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]
