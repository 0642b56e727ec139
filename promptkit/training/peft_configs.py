"""Translate the kind of adapter that is asked for into peft's configuration, and its weights into what is saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, TaskType
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers.pytorch_utils import Conv1D

from promptkit.adapters.card import RANK
from promptkit.errors import TrainError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from promptkit.adapters.card import TrainSettings

ALL_LINEAR = "all-linear"
# Where peft refuses layers that such networks do not call but read the weights of.
_STATE_SPACE = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
_UNADAPTABLE = {"out_proj", "conv1d"}


def default_rank(kind: str) -> int | None:
    """Return 8; None for IA3."""
    return None if kind == "ia3" else RANK


def default_alpha(kind: str, rank: int | None) -> int | None:
    """Return 2 x rank, so that the update is scaled by 2 at any rank; None for IA3.

    rsLoRA scales by alpha / sqrt(rank) to be the same at any rank, so there it is 16, what it is at rank 8
    (Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA").
    """
    if kind == "ia3":
        return None
    return 2 * (RANK if kind == "rslora" or rank is None else rank)


def check_targets(network: PreTrainedModel, settings: TrainSettings) -> None:
    """Raise TrainError for a target that is the name of no layer, of which peft says nothing where others are one.

    With `top_layers` a target must name one of these, or the head, which is above them.
    """
    if isinstance(settings.targets, str):
        return
    names = [name for name, _ in network.named_modules() if name]
    top = _names_in_layers(network, settings.targets, _top_layers(network, settings)) if settings.top_layers else names
    for target in settings.targets:
        if not any(_is_target(name, [target]) for name in names):
            known = sorted(linear_names(network))
            near = nearest(target, known)
            raise TrainError(f"training: target {target!r} is no layer; known: {', '.join(known)}.{near}")
        if not any(_is_target(name, [target]) for name in top):
            raise TrainError(
                f"training: target {target!r} is not in the top {settings.top_layers} layers: "
                "leave it out, or raise top_layers"
            )


def default_targets(network: PreTrainedModel, kind: str) -> str | tuple[str, ...]:
    """Return the layers that are adapted: all linear ones but the head; for IA3 those that peft names.

    For IA3 these are keys, values and the second layer of the feed-forward block, where peft knows the
    architecture, after Liu et al. 2022 ("Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper"); names
    from before an architecture's experts became one weight are left out.
    """
    if kind != "ia3":
        return ALL_LINEAR
    names = [name for name, _ in network.named_modules()]
    mapped = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(_architecture(network), ())
    return tuple(target for target in mapped if any(_is_target(name, [target]) for name in names)) or ALL_LINEAR


def adapter_config(network: PreTrainedModel, settings: TrainSettings) -> PeftConfig:
    """Return peft's configuration of the adapter.

    Raises TrainError for `top_layers` that the network has not, and for experts that the adapter does not fit.
    """
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    if targets == ALL_LINEAR and _architecture(network) in _STATE_SPACE:
        targets = sorted(_linear_names_but_head(network) - _UNADAPTABLE)
    transposed = any(isinstance(module, Conv1D) for module in network.modules())
    if settings.kind == "ia3":
        if settings.top_layers:
            targets = _names_in_layers(network, targets, _top_layers(network, settings))
        feedforward = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(_architecture(network), [])
        if isinstance(targets, list):
            feedforward = [name for name in targets if _is_target(name, feedforward)]
        return IA3Config(
            target_modules=targets,
            feedforward_modules=feedforward,
            fan_in_fan_out=transposed,
            task_type=TaskType.CAUSAL_LM,
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        use_rslora=settings.kind == "rslora",
        use_dora=settings.kind == "dora",
        init_lora_weights="pissa" if settings.kind == "pissa" else True,
        fan_in_fan_out=transposed,
        task_type=TaskType.CAUSAL_LM,
    )
    # turns names of experts that are one weight today into names of that weight, as peft itself would
    convert_peft_config_for_transformers(config, network, None)
    _refuse_experts(config, settings)
    if settings.top_layers:
        _keep_layers(config, network, _top_layers(network, settings))
    return config


def _refuse_experts(config: LoraConfig, settings: TrainSettings) -> None:
    """Raise TrainError for experts that are one weight where peft adapts linear layers alone."""
    if not config.target_parameters or not (settings.kind in {"dora", "pissa"} or settings.dropout):
        return
    what = "dropout" if settings.dropout else f"a {settings.kind} adapter"
    fitting = f", or the targets {','.join(sorted(config.target_modules))}" if config.target_modules else ""
    raise TrainError(
        f"training: {what} goes with linear layers alone, and the model's experts and their router are none "
        f"({', '.join(sorted(config.target_parameters))}): choose lora without dropout{fitting}"
    )


def _keep_layers(config: LoraConfig, network: PreTrainedModel, layers: list[int]) -> None:
    """Narrow a configuration to the layers of these numbers, by full names.

    peft's own `layers_to_transform` is passed over for weights that are no layers, such as experts.
    """
    config.target_modules = _names_in_layers(network, config.target_modules, layers)
    if config.target_parameters:
        config.target_parameters = [
            name
            for name, _ in network.named_parameters()
            if _number(name) in layers and _is_target(name, config.target_parameters)
        ]


def refuse_head(network: PeftModel, settings: TrainSettings) -> None:
    """Raise TrainError where the layer that gives the logits got an adapter without being asked for by name."""
    plain = network.get_base_model()
    head = plain.get_output_embeddings()
    names = {name: module for name, module in plain.named_modules() if module is head and hasattr(head, "base_layer")}
    for name in names:
        if name.rpartition(".")[2] not in settings.targets:
            raise TrainError(
                f"training: targets {settings.targets!r} would adapt the head {name!r}, which gives the logits: "
                "name the layers that are meant, or the head itself"
            )


def refuse_embedding(network: PeftModel, settings: TrainSettings) -> None:
    """Raise TrainError where PiSSA, which changes the frozen weight too, would change that of the embedding."""
    plain = network.get_base_model()
    embedding, head = plain.get_input_embeddings(), plain.get_output_embeddings()
    shared = hasattr(head, "base_layer") and head.weight is embedding.weight
    if settings.kind == "pissa" and (shared or hasattr(embedding, "base_layer")):
        raise TrainError(
            f"training: a pissa adapter of targets {settings.targets!r} would change the embedding's weight: "
            "leave out the embedding and a head that shares its weight, or choose lora"
        )


def linear_names(network: torch.nn.Module) -> set[str]:
    """Return the last names of all linear layers."""
    return {name.rpartition(".")[2] for name, module in network.named_modules() if _is_linear(module)}


def _linear_names_but_head(network: PreTrainedModel) -> set[str]:
    head = network.get_output_embeddings()
    named = {name.rpartition(".")[2]: module for name, module in network.named_modules() if _is_linear(module)}
    return {name for name, module in named.items() if module is not head}


def first_weights(network: PeftModel) -> dict[str, torch.Tensor]:
    """Return the matrices that a PiSSA adapter starts from, by name; nothing for any other adapter.

    They were taken out of the frozen weights, and `plain_weights` needs them at the end.
    """
    if getattr(network.peft_config["default"], "init_lora_weights", None) != "pissa":
        return {}
    return {name: weight.detach().clone() for name, weight in network.named_parameters() if ".lora_" in name}


def plain_weights(network: PeftModel, first: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Turn a PiSSA adapter into a plain LoRA one of twice the rank, for the frozen weights as they were.

    With A0, B0 taken out of W at the start, W - B0 A0 + B A = W + [B, -B0] [A; A0]. So the base model stays as
    it is for everyone who loads the adapter. Returns the weights by name and sets the configuration; None,
    and nothing is done, for any other adapter.
    """
    if not first:
        return None
    config = network.peft_config["default"]
    config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, 2 * config.lora_alpha, True
    trained = {name: weight.detach() for name, weight in network.named_parameters() if name in first}
    return {
        name: _pad(torch.cat([weight, first[name]], dim=0), config.r, 0)
        if ".lora_A." in name
        else _pad(torch.cat([weight, -first[name]], dim=1), config.r, 1)
        for name, weight in trained.items()
    }


def _pad(matrix: torch.Tensor, rank: int, side: int) -> torch.Tensor:
    """Return a matrix with zeros up to the rank: a layer has no more singular values than its narrower side."""
    missing = rank - matrix.shape[side]
    return torch.nn.functional.pad(matrix, (0, 0, 0, missing) if side == 0 else (0, missing))


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)


def _architecture(network: PreTrainedModel) -> str:
    return str(network.config.get_text_config().model_type)


def _top_layers(network: PreTrainedModel, settings: TrainSettings) -> list[int]:
    depth = network.config.get_text_config().num_hidden_layers
    top = settings.top_layers or depth
    if top > depth:
        raise TrainError(f"training: top_layers is {top}, but the model has {depth} layers")
    if isinstance(settings.targets, str) and settings.targets != ALL_LINEAR:
        raise TrainError(
            f"training: top_layers goes with targets by name, not with the pattern {settings.targets!r}: "
            "give a list of names, or leave targets out"
        )
    return list(range(depth - top, depth))


def _names_in_layers(network: PreTrainedModel, targets: str | Iterable[str], layers: list[int]) -> list[str]:
    """The full names of the targets in these layers; of the head too, which is above them, where it is named."""
    if isinstance(targets, str):  # all linear ones
        return [name for name, module in network.named_modules() if _number(name) in layers and _is_linear(module)]
    head = network.get_output_embeddings()
    return [
        name
        for name, module in network.named_modules()
        if (_number(name) in layers or module is head) and _is_target(name, targets)
    ]


def _is_target(name: str, targets: Iterable[str]) -> bool:
    """Whether a full name is one of the targets or ends in one."""
    return any(f".{name}".endswith(f".{target}") for target in targets)


def _number(name: str) -> int | None:
    """The number of the layer in a full name, None outside the layers. That of an expert would come later."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
