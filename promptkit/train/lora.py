"""A network into a copy of it with a fresh LoRA adapter."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from promptkit.errors import TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from promptkit.adapter import TrainSettings
    from promptkit.models import Model


def default_learning_rate(network: PreTrainedModel) -> float:
    """A learning rate for LoRA by the width of the network: 3.3e-4 x (2000 / hidden size) ** 0.781.

    2.1e-3 at a hidden size of 192, 6.2e-4 at 896, 1.9e-4 at 4096. Source: Schulman et al. 2025, "LoRA Without
    Regret", their fit for Llama models; two thirds of it, for training sets are small here and epochs few.
    """
    hidden_size = network.config.get_text_config().hidden_size
    return float(3.3e-4 * (2000 / hidden_size) ** 0.781)


def wrap(model: Model, settings: TrainSettings) -> PeftModel:
    """Return a LoRA adapter, drawn from torch's global random state, around a copy of the model's network.

    The copy has modules and a configuration of its own, while its frozen weights share the original's memory.

    Raises TrainError where the network has an adapter already, or not the target modules.
    """
    if isinstance(model.network, PeftModel):
        raise TrainError(f"model {model.name!r} has an adapter already: train from the base model it was made for")
    frozen = {
        id(weight): torch.nn.Parameter(weight.detach(), requires_grad=False) for weight in model.network.parameters()
    }
    network = copy.deepcopy(model.network, memo=frozen)
    config = _config(network, settings)
    try:
        with warnings.catch_warnings():  # peft still asks transformers by an old name, which warns
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = get_peft_model(network, config)
    except ValueError as error:
        raise TrainError(
            f"training: targets {settings.targets!r} do not fit model {model.name!r}: expected 'all-linear' "
            f"or some of {', '.join(sorted(_linear_names(network)))}"
        ) from error
    # peft notes the weights' folder, and the target modules as a set: neither is the same everywhere
    config.base_model_name_or_path = model.name
    config.target_modules = sorted(config.target_modules)
    return wrapped


def _config(network: PreTrainedModel, settings: TrainSettings) -> LoraConfig:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets if isinstance(settings.targets, str) else list(settings.targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
        task_type=TaskType.CAUSAL_LM,
    )
    if settings.dropout == 0 and all(weight.dtype == torch.float32 for weight in network.parameters()):
        config._register_custom_module({torch.nn.Linear: FusedLinear})
    return config


def _linear_names(network: torch.nn.Module) -> set[str]:
    return {
        name.rpartition(".")[2]
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


class FusedLinear(Linear):
    """peft's LoRA layer, the frozen layer and the adapter as one operation; for float32, no dropout."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`x W' + bias + scaling x A' B'` with x [..., in], W [out, in], A [rank, in], B [out, rank]."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        base = self.get_base_layer()
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        fused: torch.Tensor = _LowRankSum.apply(x, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return fused


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
        narrow = rows @ down.t()
        ctx.save_for_backward(rows, narrow, weight, down, up)
        ctx.shape, ctx.scaling = x.shape, scaling
        return linear(rows, weight, bias).addmm_(narrow, up.t(), alpha=scaling).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, narrow, weight, down, up = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        narrow_gradient = (gradient @ up).mul_(ctx.scaling)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (gradient @ weight).addmm_(narrow_gradient, down).view(ctx.shape)
        to_up = (narrow.t() @ gradient).t() * ctx.scaling
        return to_x, None, None, narrow_gradient.t() @ rows, to_up, None
