"""Put an adapter around its base network as peft does, and refuse one that does not fit it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.mapping_func import MODEL_TYPE_TO_PEFT_MODEL_MAPPING

from promptkit.data.patterns import compile_pattern
from promptkit.errors import ModelError, PatternError
from promptkit.models.checkpoint import ADAPTER_CONFIG, Shapes, read_object

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PREFIX = "base_model.model."
# settings of which peft reads other files or imports modules
_REACHES_OUT = ("adapters", "megatron_config", "prompt_tuning_init_state_dict_path", "arrow_config")
# settings that say how large a tensor is: no larger than the largest that the adapter holds
_SIZES = ("r", "init_r", "num_virtual_tokens", "encoder_hidden_size", "token_dim", "vector_length", "num_vectors")
_MOST_REPLICATED = 16  # times the layers that the base model has
_PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules")
_NAMES = ("modules_to_save", "layers_pattern")
_PLAIN = re.compile(r"[\w.-]+")
#: Keys of tensors that several layers share, so that a file has them once or not at all.
_SHARED = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.", ".unilora_theta_d.")


@dataclass(frozen=True)
class Folder:
    """An adapter's folder, its settings as the file has them, and the shapes of its tensors."""

    path: Path
    settings: Mapping[str, Any]
    shapes: Shapes

    @property
    def file(self) -> Path:
        """Where the settings are."""
        return self.path / ADAPTER_CONFIG


def check_settings(path: Path, shapes: Shapes) -> Folder:
    """Return an adapter's folder. Raises ModelError where it is for no language model, reads other files, or lies.

    Nothing but its files is read, so that this comes before the base model is loaded.
    """
    folder = Folder(path, read_object(path / ADAPTER_CONFIG), shapes)
    kind, task = folder.settings.get("peft_type"), folder.settings.get("task_type")
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ModelError(f"{folder.file}: peft_type is {kind!r:.100}: expected a kind that peft has, such as 'LORA'")
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{folder.file}: task_type is {task!r:.100}: the adapter is for another task, and its head has no place in "
            "a language model; expected 'CAUSAL_LM'"
        )
    for name in _REACHES_OUT:
        if folder.settings.get(name):
            raise ModelError(f"{folder.file}: {name} reads what is not in the adapter's folder: it is not supported")
    _check_sizes(folder)
    return folder


def _check_sizes(folder: Folder) -> None:
    """Raise ModelError where the settings ask for larger tensors than the adapter holds: they would fill the memory."""
    largest = max((size for shape in folder.shapes.values() for size in shape), default=0)
    ranks = folder.settings.get("rank_pattern")
    asked = [(name, folder.settings.get(name)) for name in _SIZES]
    asked += [
        (f"rank_pattern of {name!r:.100}", rank) for name, rank in (ranks if isinstance(ranks, dict) else {}).items()
    ]
    for name, size in asked:
        if isinstance(size, int | float) and not size <= largest:
            raise ModelError(
                f"{folder.file}: {name} is {size:.0f}, but no side of the adapter's tensors is longer than {largest}: "
                "they do not belong together"
            )


def wrap_network(
    network: PreTrainedModel, folder: Folder, tokenizer: PreTrainedTokenizerBase, device: str
) -> PeftModel:
    """Return the adapter of a folder around its base network, which it changes.

    Where the adapter was trained with added tokens, the base network gets as many embeddings. Raises ModelError where
    a tensor of the adapter has no place in the network, or a place has no tensor, and what peft raises.
    """
    config = PEFT_TYPE_TO_CONFIG_MAPPING[folder.settings["peft_type"]].from_pretrained(str(folder.path))
    config.inference_mode = True
    _check_replication(network, config, folder)
    _name_modules(network, config, folder)
    before = network.get_input_embeddings().weight.shape[0]
    after = _resize(network, config, folder, len(tokenizer))
    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
    wrapped: PeftModel = kind(network, config, "default")
    try:
        found = wrapped.load_adapter(
            str(folder.path), "default", torch_device=device, key_mapping=_renamed(network, config)
        )
    except KeyError as error:
        raise ModelError(f"{folder.path}: the adapter lacks the tensor {error}, which its settings ask for") from error
    if not config.is_prompt_learning:
        _check_keys(wrapped, folder, found)
    if after > before:
        _check_added(wrapped, folder, before, after)
    return wrapped


def _renamed(network: PreTrainedModel, config: PeftConfig) -> dict[str, str]:
    """Return how peft itself renames the keys of adapters from before an architecture's modules were renamed."""
    renamed: dict[str, str] = getattr(network, "_checkpoint_conversion_mapping", {})
    return {} if config.is_prompt_learning else renamed


def _check_keys(wrapped: PeftModel, folder: Folder, found: Any) -> None:
    ends = _end_names(wrapped.get_base_model())  # of an embedding that is trained, peft may save a second copy
    unknown = sorted(key for key in found.unexpected_keys if _owner(key) not in ends)
    missing = sorted(key for key in found.missing_keys if not any(part in key for part in _SHARED))
    if not unknown and not missing:
        return
    parts = []
    if unknown:
        parts.append(f"{len(unknown)} of its {len(folder.shapes)} tensors have no place in it, such as {unknown[0]}")
    if missing:
        parts.append(f"{len(missing)} of its places have no tensor, such as {missing[0]}")
    name = type(wrapped.get_base_model()).__name__
    raise ModelError(f"{folder.path}: the adapter does not fit its base model, a {name}: {', and '.join(parts)}")


def _check_replication(network: PreTrainedModel, config: PeftConfig, folder: Folder) -> None:
    """Raise ModelError where layers are to be replicated that there are not, or far too often."""
    asked = getattr(config, "layer_replication", None)
    if not asked:
        return
    layers = network.config.get_text_config().num_hidden_layers
    whole = all(
        isinstance(part, list | tuple) and len(part) == 2 and all(type(edge) is int for edge in part) for part in asked
    )
    if not whole or not all(0 <= first < last <= layers for first, last in asked):
        raise ModelError(f"{folder.file}: layer_replication is {asked!r:.100}: expected ranges of the {layers} layers")
    if sum(last - first for first, last in asked) > _MOST_REPLICATED * layers:
        raise ModelError(
            f"{folder.file}: layer_replication makes over {_MOST_REPLICATED} x the {layers} layers of the base model"
        )


def _name_modules(network: PreTrainedModel, config: PeftConfig, folder: Folder) -> None:
    """Put the names that they match in place of an adapter's patterns: peft would run those without any limit.

    Raises ModelError for one that is no regular expression, takes too long, or matches nothing.
    """
    names = _module_names(network, config)
    for key in () if config.is_adaption_prompt else _PATTERNS:  # whose target is the end of a name
        pattern = getattr(config, key, None)
        if isinstance(pattern, str) and pattern.lower() != "all-linear":
            matched = _match(folder, key, pattern, names)
            if not matched and key == "target_modules":
                raise ModelError(f"{folder.file}: {key} matches no module of the base model: {pattern[:200]!r}")
            setattr(config, key, f"(?:{'|'.join(map(re.escape, matched))})" if matched else None)
    for key in _NAMES:
        given = getattr(config, key, None) or ()
        for name in [given] if isinstance(given, str) else given:
            if not _PLAIN.fullmatch(str(name)):
                raise ModelError(f"{folder.file}: {key} has {name!r:.100}: expected the name of a module")
    weights = [name for name, _ in network.named_parameters()]  # experts that are one weight have a rank of their own
    for key, value in vars(config).items():
        if key.endswith("_pattern") and isinstance(value, dict):
            setattr(config, key, _name_keys(folder, key, value, [*names, *weights]))


def _name_keys(folder: Folder, key: str, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a setting by pattern as one by plain names; a module has that of the first pattern that matches it."""
    if all(_PLAIN.fullmatch(pattern) for pattern in values):
        return dict(values)
    found: dict[str, Any] = {}
    for pattern, value in values.items():
        for name in _match(folder, key, rf"(.*\.)?({pattern})", names):
            found.setdefault(f"^{re.escape(name)}", value)
    return found


def _match(folder: Folder, key: str, pattern: str, names: Sequence[str]) -> list[str]:
    try:
        compiled = compile_pattern(pattern)
        return [name for name in names if compiled.matches(name)]
    except PatternError as error:
        raise ModelError(f"{folder.file}: {key}: {error}") from error


def _module_names(network: PreTrainedModel, config: PeftConfig) -> list[str]:
    """Return the names of all modules, also of the layers that are to be replicated."""
    names = [name for name, _ in network.named_modules() if name]
    asked = getattr(config, "layer_replication", None) or ()
    total = sum(last - first for first, last in asked)
    more = [re.sub(r"\.0\b", f".{layer}", name, count=1) for name in names for layer in range(total)]
    return list(dict.fromkeys([*names, *more])) if total else names


def _resize(network: PreTrainedModel, config: PeftConfig, folder: Folder, tokens: int) -> int:
    """Give the network as many embeddings as the adapter was trained with, and return their number.

    What a new one holds is not a number, so that it shows where the adapter does not bring it.
    """
    before: int = network.get_input_embeddings().weight.shape[0]
    after = _find_rows(network, config, folder, tokens) or before
    if after == before:
        return before
    network.resize_token_embeddings(after, mean_resizing=False)
    with torch.no_grad():
        for module in (network.get_input_embeddings(), network.get_output_embeddings()):
            if module is not None and after > before:
                module.weight[before:] = torch.nan
    return after


def _find_rows(network: PreTrainedModel, config: PeftConfig, folder: Folder, tokens: int) -> int | None:
    """Return how many embeddings an adapter's tensors are for; None where it has none for them."""
    names, rows = _end_names(network), []
    for key, shape in folder.shapes.items():
        name, tensor = _owner(key), key.rpartition(".")[2]
        if name in names and tensor == "weight" and shape:
            rows.append(shape[0])
        elif name in names and tensor == "lora_embedding_A" and len(shape) == 2:
            rows.append(shape[1])
        elif name.removesuffix(".lora_B") in names and name.endswith(".lora_B") and shape:
            rows.append(shape[0])
    trained = getattr(config, "trainable_token_indices", None) or ()
    several = trained.values() if isinstance(trained, dict) else [trained]
    highest = max((index for each in several for index in each if isinstance(index, int)), default=-1)
    if highest >= network.get_input_embeddings().weight.shape[0] and highest < tokens:
        rows.append(tokens)
    return max(rows, default=None)


def _end_names(network: Any) -> set[str]:
    """Return the names of the modules that hold the embeddings, and the output head."""
    ends = [network.get_input_embeddings(), network.get_output_embeddings()]
    return {
        name.removesuffix(".base_layer")
        for name, module in network.named_modules()
        if any(module is end for end in ends)
    }


def _owner(key: str) -> str:
    """Return the name of the module that a tensor of an adapter belongs to, without what peft puts around it."""
    name = key.removeprefix(_PREFIX).rpartition(".")[0]
    return re.sub(r"\.(modules_to_save|base_layer|original_module)(\.default)?$", "", name)


def _check_added(wrapped: PeftModel, folder: Folder, before: int, after: int) -> None:
    """Raise ModelError where the adapter does not bring what it has trained for the tokens that were added."""
    network = wrapped.get_base_model()
    device = network.get_input_embeddings().weight.device
    with torch.inference_mode():
        read = network.get_input_embeddings()(torch.arange(before, after, device=device))
        logits = wrapped(input_ids=torch.tensor([[0]], device=device)).logits[0, -1, before:]
    for what, numbers in (("embedding", read), ("output head", logits)):
        if not bool(torch.isfinite(numbers).all()):
            raise ModelError(
                f"{folder.path}: the adapter was trained with {after - before} added tokens, but does not hold the "
                f"rows of the {what} for them, which would be random: save it again with "
                "save_pretrained(…, save_embedding_layers=True)"
            )
