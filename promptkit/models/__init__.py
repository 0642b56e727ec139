"""A model's name into a network, its tokenizer and what the rest must know of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.errors import ModelError, nearest
from promptkit.models.source import (
    NAMES,
    adapter_base,
    check_model_folder,
    check_tokenizer_folder,
    fingerprint,
    is_adapter,
    locate,
)
from promptkit.tokens import Encoder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DTYPES", "NAMES", "Model", "load_encoder", "load_model", "quiet_transformers"]

#: The number formats that weights can be loaded in.
DTYPES = ("float32", "bfloat16", "float16")

_WINDOW_KEYS = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
_UNBOUNDED = 2**31 - 1


@dataclass(frozen=True)
class Model:
    """A causal language model, ready to score or to train.

    `window` is the most tokens it takes (a very large number where nothing limits them). `hash` is the
    fingerprint of its files: weights, configuration, tokenizer and adapter; any change of them changes it.
    """

    name: str
    network: PreTrainedModel | PeftModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    encoder: Encoder = field(repr=False)
    device: str
    dtype: str
    window: int
    hash: str

    @property
    def has_adapter(self) -> bool:
        """Whether the network is a base model with a peft adapter around it."""
        return hasattr(self.network, "get_base_model")

    @classmethod
    def of(cls, name: str, network: Any, tokenizer: PreTrainedTokenizerBase, fingerprint: str = "") -> Model:
        """Return the model for a network and a tokenizer that are loaded already."""
        return cls(
            name=name,
            network=network,
            tokenizer=tokenizer,
            encoder=Encoder(tokenizer),
            device=str(network.device),
            dtype=str(network.dtype).removeprefix("torch."),
            window=_find_window(network, tokenizer),
            hash=fingerprint,
        )


def load_model(
    name: str = "tiny",
    *,
    dtype: str = "float32",
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a causal language model: a shipped name, a local folder, a peft adapter's folder, or a hub id.

    An adapter's base model is loaded with it. `device` is by default the first GPU where there is one.
    Weights are read from safetensors only: a pickle can run any code. Code that comes with a model runs only
    with `trust_remote_code`.

    Raises ModelError for an unknown name, dtype or device, and for a folder that lacks a configuration, a
    tokenizer or safetensors weights, or whose files cannot be read.
    """
    name = str(name)
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: expected {', '.join(DTYPES)}.{nearest(dtype, DTYPES)}")
    target = _find_device(device)
    folder = locate(name)
    if is_adapter(folder):
        return _load_adapter(name, folder, dtype, target, trust_remote_code)
    check_model_folder(folder)
    check_tokenizer_folder(folder)
    tokenizer = _load_tokenizer(folder, trust_remote_code)
    network = _load_network(folder, dtype, trust_remote_code)
    return Model.of(name, network.to(target).eval(), tokenizer, fingerprint(folder))


def load_encoder(name: str = "tiny", *, trust_remote_code: bool = False) -> Encoder:
    """Load a model's tokenizer alone; of an adapter, its own or its base model's. Raises ModelError."""
    folder = locate(str(name))
    if is_adapter(folder) and not (folder / "tokenizer.json").is_file():
        return load_encoder(adapter_base(folder), trust_remote_code=trust_remote_code)
    check_tokenizer_folder(folder)
    return Encoder(_load_tokenizer(folder, trust_remote_code))


def _load_adapter(name: str, folder: Path, dtype: str, device: torch.device, trust_remote_code: bool) -> Model:
    base_name = adapter_base(folder)
    try:
        base = load_model(base_name, dtype=dtype, device=str(device), trust_remote_code=trust_remote_code)
    except ModelError as error:
        raise ModelError(f"{folder}: the adapter's base model cannot be loaded: {error}") from error
    _refuse_other_base(folder, base)
    from peft import PeftModel

    with _reading(folder, "adapter"):
        network = PeftModel.from_pretrained(base.network, str(folder), torch_device=str(device))
    tokenizer = base.tokenizer
    if (folder / "tokenizer.json").is_file():
        tokenizer = _load_tokenizer(folder, trust_remote_code)
    both = sha256(f"{base.hash}\0{fingerprint(folder)}".encode()).hexdigest()
    return Model.of(name, network.eval(), tokenizer, both)


def _refuse_other_base(folder: Path, base: Model) -> None:
    """Raise ModelError where promptkit trained the adapter on other weights than those the name leads to now."""
    from promptkit.adapter import CARD, read_card

    if (folder / CARD).is_file() and read_card(folder).base_hash != base.hash:
        raise ModelError(
            f"{folder}: the adapter was trained on other weights than those of {base.name!r} now; "
            "restore that model, or train again"
        )


def _load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with _reading(folder, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=trust_remote_code
        )
    return tokenizer


def _load_network(folder: Path, dtype: str, trust_remote_code: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with _reading(folder, "model"):
        network, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder}: the weights lack {missing[0]} ({len(missing)} missing in all), which would be "
            f"random: expected the weights of a {type(network).__name__}"
        )
    return network


@contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Keep the libraries quiet while files are read, and turn what they raise into one line."""
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still asks transformers by an old name
            yield
    except Exception as error:  # safetensors and tokenizers raise bare subclasses, or Exception itself
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder}: the {what} cannot be read: {reason[:300]}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers write neither hints nor progress bars to the terminal meanwhile."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _find_device(device: str | None) -> torch.device:
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
