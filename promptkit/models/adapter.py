"""A peft adapter's folder and its base model into a model that says what it said when it was trained."""

from __future__ import annotations

import copy
import warnings
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapter import AdapterCard, find_card
from promptkit.errors import ModelError, PromptkitWarning, nearest
from promptkit.models import Model, load_model, load_tokenizer, reading
from promptkit.models.quantize import is_quantized
from promptkit.models.source import adapter_base, fingerprint
from promptkit.probes import ask_again, kind_of_device, rounding_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: What to do where an adapter's probes no longer say what they said: refuse it, warn, or never ask them.
ON_FLIP = ("error", "warn", "ignore")


def load_adapter(name: str, folder: Path, *, on_flip: str, trust_remote_code: bool, **placed: Any) -> Model:
    """Return the adapter of a folder around its base model, loaded with the dtype and device `placed`.

    Raises ModelError where one of them cannot be read, the base model is another than that of the training, or a probe
    has changed its label; see `check_probes`.
    """
    try:
        base = load_model(adapter_base(folder), trust_remote_code=trust_remote_code, on_flip=on_flip, **placed)
    except ModelError as error:
        raise ModelError(f"{folder}: the adapter's base model cannot be loaded: {error}") from error
    return _wrap(base, name, folder, on_flip, trust_remote_code)


def put_adapter(base: Model, folder: Path) -> Model:
    """Return the adapter of a folder around a base model that is loaded already, which stays as it is.

    The frozen weights are shared and not copied. Raises what `load_adapter` raises.
    """
    from dataclasses import replace

    return _wrap(replace(base, network=share_weights(base.network)), str(folder), folder, "error", False)


def share_weights(network: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a network with modules and a configuration of its own; its frozen weights share memory."""
    import torch

    def freeze(weight: torch.nn.Parameter) -> torch.nn.Parameter:
        if is_quantized(network):  # such a weight is more than its tensor, and has no gradient anyway
            return weight
        return torch.nn.Parameter(weight.detach(), requires_grad=False)

    frozen = {id(weight): freeze(weight) for weight in network.parameters()}
    return copy.deepcopy(network, memo=frozen)


def _wrap(base: Model, name: str, folder: Path, on_flip: str, trust_remote_code: bool) -> Model:
    card = find_card(folder)
    if card and card.base_hash != base.hash:
        raise ModelError(
            f"{folder}: the adapter was trained on other weights than those of {base.name!r} now; "
            "restore that model, or train again"
        )
    from peft import PeftModel

    with reading(folder, "adapter"):
        network = PeftModel.from_pretrained(base.network, str(folder), torch_device=base.device)
    tokenizer = base.tokenizer
    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder, trust_remote_code)
    files = fingerprint(folder)
    both = sha256(f"{base.hash}\0{files}".encode()).hexdigest()
    model = Model.of(name, network.eval(), tokenizer, both)
    check_probes(model, folder, card, files, on_flip=on_flip)
    return model


def check_probes(model: Model, folder: Path, card: AdapterCard | None, files_hash: str, *, on_flip: str) -> None:
    """Ask the probes of a card again, where something has changed that may change the answers.

    A label that changed raises ModelError; it is a warning where `on_flip` is "warn", or where the number format or
    the kind of device is another, which rounds otherwise. Scores that moved by more than rounding explains are a
    warning too. With "ignore" nothing is asked.

    Raises ModelError for another `on_flip`.
    """
    if on_flip not in ON_FLIP:
        raise ModelError(f"on_flip is {on_flip!r}: expected {', '.join(ON_FLIP)}.{nearest(on_flip, ON_FLIP)}")
    if on_flip == "ignore" or card is None or card.probes is None:
        return
    changes = card.changes(model, files_hash)
    if not changes:
        return
    verdict = ask_again(model, card.probes)
    alike = (model.dtype, kind_of_device(model)) == (card.probes.dtype, card.probes.device)
    found = f"{folder}: {verdict}; since it was saved: {', '.join(changes)}"
    if verdict.flips and alike and on_flip == "error":
        way_out = 'take it as it is with `promptkit predict --force` or load_model(…, on_flip="warn")'
        raise ModelError(f"{found}; restore these, train again, or {way_out}")
    if verdict.flips or (alike and verdict.largest > rounding_of(model.dtype)):
        warnings.warn(found, PromptkitWarning, stacklevel=2)
