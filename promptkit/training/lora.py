"""Put a fresh adapter on a copy of a network."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

from promptkit.adapters.loading import UNTRUE, share_weights
from promptkit.errors import TrainError
from promptkit.training.fused import fuse_blocks
from promptkit.training.last_layer import trim_last_layer
from promptkit.training.low_rank import FusedLinear
from promptkit.training.peft_configs import adapter_config, check_targets, linear_names, refuse_embedding, refuse_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from promptkit.adapters.card import TrainSettings
    from promptkit.models import Model


#: Of the runs of IA3 in peft's comparison of methods, those with this rate do best.
IA3_LEARNING_RATE = 5e-3


def default_learning_rate(network: PreTrainedModel, kind: str = "lora") -> float:
    """A learning rate for LoRA by the width of the network: 5e-4 x (2000 / hidden size) ** 0.781.

    3.1e-3 at a hidden size of 192, 9.4e-4 at 896, 2.9e-4 at 4096. Source: Schulman et al. 2025, "LoRA Without
    Regret", their fit for Llama models.
    For IA3 it is `IA3_LEARNING_RATE` at any width, for its vectors multiply.
    """
    if kind == "ia3":
        return IA3_LEARNING_RATE
    hidden_size = network.config.get_text_config().hidden_size
    return float(5e-4 * (2000 / hidden_size) ** 0.781)


def wrap(model: Model, settings: TrainSettings) -> PeftModel:
    """Return an adapter, drawn from torch's global random state, around a copy of the model's network.

    The copy has modules and a configuration of its own, while its frozen weights share the original's memory.

    Raises TrainError where the network has an adapter already, or not the target modules, or where its head would
    be adapted.
    """
    if isinstance(model.network, PeftModel):
        raise TrainError(f"model {model.name!r} has an adapter already: train from the base model it was made for")
    check_targets(model.network, settings)
    network = share_weights(model.network)
    try:
        config = adapter_config(network, settings)
        if _can_fuse(network, config):
            config._register_custom_module({torch.nn.Linear: FusedLinear})
        with warnings.catch_warnings():  # peft still asks transformers by an old name, which warns
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", UNTRUE)
            wrapped = get_peft_model(network, config)
    except (ValueError, TypeError, AttributeError, RuntimeError, re.error) as error:  # whatever peft stumbles over
        reason = " ".join(str(error).split())
        raise TrainError(
            f"training: a {settings.kind} adapter of targets {settings.targets!r} does not fit model {model.name!r}: "
            f"{reason[:200]}; its linear layers are {', '.join(sorted(linear_names(model.network)))}"
        ) from error
    refuse_head(wrapped, settings)
    refuse_embedding(wrapped, settings)
    fuse_blocks(wrapped, apart=trim_last_layer(wrapped))
    # peft notes the weights' folder, and the modules as sets: neither is the same everywhere
    config.base_model_name_or_path = model.name
    for modules in {"target_modules", "feedforward_modules", "target_parameters"} & vars(config).keys():
        if isinstance(found := getattr(config, modules), set | list):
            setattr(config, modules, sorted(found))
    return wrapped


def _can_fuse(network: PreTrainedModel, config: PeftConfig) -> bool:
    """Whether every adapted layer is the plain low-rank sum that `FusedLinear` computes."""
    plain = isinstance(config, LoraConfig) and not config.use_dora and config.lora_dropout == 0
    return plain and all(weight.dtype in (torch.float32, torch.bfloat16) for weight in network.parameters())
