"""Load a model by its name: a network, its tokenizer and what the rest must know of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.errors import ModelError, PromptkitWarning, nearest
from promptkit.models.checkpoint import (
    check_files,
    check_model_folder,
    check_tokenizer_folder,
    read_object,
    refuse_other_code,
)
from promptkit.models.location import NAMES, fingerprint, hash_files, is_adapter, locate, locate_base
from promptkit.models.quantization import NF4, is_quantized, quantized_options
from promptkit.models.tokens import Encoder
from promptkit.storage.libraries import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DTYPES", "NAMES", "Model", "load_encoder"]

#: The number formats that weights can be loaded in.
DTYPES = ("float32", "bfloat16", "float16", NF4)

_WINDOW_KEYS = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
_UNBOUNDED = 2**31 - 1


@dataclass(frozen=True)
class Model:
    """A causal language model, ready to score or to train.

    `window` is the most tokens it takes (a very large number where nothing limits them). `hash` is the
    fingerprint of its files: weights, configuration, tokenizer and adapter; any change of them changes it. `files`
    are the hashes of those that may change a score, by name (see `hash_files`); empty where it was not read from files.
    """

    name: str
    network: PreTrainedModel | PeftModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    encoder: Encoder = field(repr=False)
    device: str
    dtype: str
    window: int
    hash: str
    files: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_adapter(self) -> bool:
        """Whether the network is a base model with a peft adapter around it."""
        return hasattr(self.network, "get_base_model")

    @classmethod
    def of(
        cls,
        name: str,
        network: Any,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str = "",
        files: Mapping[str, str] | None = None,
    ) -> Model:
        """Return the model for a network and a tokenizer that are loaded already."""
        return cls(
            name=name,
            network=network,
            tokenizer=tokenizer,
            encoder=Encoder(tokenizer),
            device=str(network.device),
            dtype=NF4 if is_quantized(network) else str(network.dtype).removeprefix("torch."),
            window=_find_window(network, tokenizer),
            hash=fingerprint,
            files=files or {},
        )


def load_folder(name: str, folder: Path, *, dtype: str, device: str, trust_remote_code: bool) -> Model:
    """Return the model, no adapter, of a folder; raises ModelError where a file of it cannot be read."""
    import torch
    from transformers import AutoConfig

    check_model_folder(folder, trust_remote_code=trust_remote_code)
    with reading(folder, "configuration"):  # or the tokenizer, which reads it too, would be blamed
        AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code)
    network = _load_network(folder, dtype, torch.device(device), trust_remote_code)
    with reading(folder, "tokenizer"):
        return Model.of(name, network.eval(), tokenizer, fingerprint(folder), hash_files(folder))


def count_embeddings(network: Any) -> int:
    """Return how many tokens a network can both read and predict."""
    ends = (network.get_input_embeddings(), network.get_output_embeddings())
    return min(int(end.weight.shape[0]) for end in ends if end is not None)


def check_ids(model: Model, rows: Iterable[Sequence[int]]) -> None:
    """Raise ModelError where a row has a token that the network has no embedding for, first or last in it alike."""
    network = model.network.get_base_model() if hasattr(model.network, "get_base_model") else model.network
    highest, count = max((max(ids) for ids in rows if ids), default=0), count_embeddings(network)
    if highest >= count:
        raise ModelError(
            f"model {model.name!r}: the tokenizer gives token id {highest}, but the network has {count} embeddings: "
            "they do not belong together"
        )


def check_dtype(dtype: str) -> None:
    """Raise ModelError for a number format that weights cannot be loaded in."""
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: expected {', '.join(DTYPES)}.{nearest(dtype, DTYPES)}")


def load_encoder(name: str = "tiny", *, trust_remote_code: bool = False) -> Encoder:
    """Load a model's tokenizer alone; of an adapter, its own or its base model's. Raises ModelError."""
    folder = locate(str(name))
    if is_adapter(folder) and not (folder / "tokenizer.json").is_file():
        _, folder = locate_base(folder)
    tokenizer = load_tokenizer(folder, trust_remote_code)
    with reading(folder, "tokenizer"):
        return Encoder(tokenizer)


def load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder. Raises ModelError where it cannot be read."""
    from transformers import AutoTokenizer

    check_files(folder)
    check_tokenizer_folder(folder)
    config = folder / "tokenizer_config.json"
    if trust_remote_code and config.is_file():
        refuse_other_code(config, read_object(config))
    with reading(folder, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=trust_remote_code
        )
    return tokenizer


def _load_network(folder: Path, dtype: str, device: torch.device, trust_remote_code: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    options = quantized_options(device) if dtype == NF4 else {"dtype": getattr(torch, dtype)}
    with reading(folder, "model"):
        network, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            **options,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    missing, unknown = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise ModelError(
            f"{folder}: the weights lack {missing[0]} ({len(missing)} missing in all), which would be "
            f"random: expected the weights of a {type(network).__name__}"
        )
    if unknown:
        warnings.warn(
            f"{folder}: {len(unknown)} tensors of the weights have no place in a {type(network).__name__} and are left "
            f"out, such as {unknown[0]}",
            PromptkitWarning,
            stacklevel=4,
        )
    return network if is_quantized(network) else network.to(device)


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Keep the libraries quiet while files are read, and turn what they raise into one line."""
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still asks transformers by an old name
            yield
    except ModelError:
        raise
    except Exception as error:  # safetensors and tokenizers raise bare subclasses, or Exception itself
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = f"nothing is called {reason}" if isinstance(error, KeyError) else reason
        raise ModelError(f"{folder}: the {what} cannot be read: {_explain(reason)}") from error


def _explain(reason: str) -> str:
    """Return what a library says, shortened; what it says of its own arguments in words of promptkit's."""
    if "trust_remote_code" in reason:
        return (
            "it brings its own code (auto_map), which runs only where you trust it: read its *.py files, then give "
            "--trust-remote-code, or load_model(…, trust_remote_code=True)"
        )
    if "Unrecognized configuration class" in reason:
        found = reason.partition("configuration class ")[2].partition(" for this kind")[0].split(".")[-1].strip("<>'")
        return f"a {found} is no configuration of a language model that continues text: expected a causal model"
    return reason[:300]


def find_device(device: str | None) -> torch.device:
    """Return the device of this name; by default the first GPU where there is one. Raises ModelError."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if device == "cuda" and len(there) > 1:
        return torch.device("cuda")
    if device not in there:
        raise ModelError(f"unknown device {device!r}: this machine has {', '.join(there)}.{nearest(device, there)}")
    return torch.device(device)


def _find_window(network: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    config = network.config.get_text_config(decoder=True)
    for key in _WINDOW_KEYS:
        if isinstance(size := getattr(config, key, None), int) and size > 0:
            return size
    limit = tokenizer.model_max_length
    return int(limit) if limit < _UNBOUNDED else _UNBOUNDED
