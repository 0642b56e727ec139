"""Merge an adapter into its base model: one plain model folder that gives the same answers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapters.card import AdapterCard, Merged, find_card, share_weights, write_card
from promptkit.adapters.loading import ask_card, load_model
from promptkit.adapters.reference_outputs import Verdict, hash_tokenizer, installed_versions, rounding_of
from promptkit.errors import ModelError, PromptkitWarning
from promptkit.models import check_dtype, count_embeddings
from promptkit.models.location import is_adapter, locate
from promptkit.models.quantization import NF4
from promptkit.storage.files import check_free, new_folder
from promptkit.storage.libraries import quiet_transformers

if TYPE_CHECKING:
    import torch

    from promptkit.models import Model

_TEXT = "It was a bright cold day in April, and the clocks were striking 13. What is 4 + 5, he said; no: 60-7?"
#: How far the logits of a text may move, as a share of their size: in float32, and rounded to 16 bits.
_CLOSE, _COARSE = 1e-3, 0.5


@dataclass(frozen=True, slots=True)
class Merge:
    """A merged model: its folder, its number format, and what its probes say; None where the adapter has none."""

    path: Path
    dtype: str
    verdict: Verdict | None

    def __fspath__(self) -> str:
        """Return the folder's path: a merged model can be given wherever a folder can."""
        return str(self.path)

    __str__ = __fspath__


def merge(
    adapter: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    device: str | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
) -> Merge:
    """Write a plain model folder in which the adapter's weights are added to those of its base model.

    It holds weights, configuration, tokenizer and generation configuration, as transformers writes them, and the
    adapter's card. The sum is taken in float32 and rounded to `dtype`, by default that of the training. The folder is
    loaded and the adapter's probes are scored with it before it appears at `out`.

    Raises ModelError where the folder is no adapter or of a kind that cannot be merged, where a probe changes its
    label and `force` is not given, and what `load_model` raises; RunError where `out` exists or cannot be written.
    After an error nothing is left. With `force` a changed label is a PromptkitWarning. That a score moved by more than
    rounding explains is one always, and that there are no probes.
    """
    folder, path = locate(str(adapter)), Path(out)
    if not is_adapter(folder):
        raise ModelError(f"{folder}: no adapter: expected adapter_config.json, and no whole model beside it")
    check_free(path)
    card = find_card(folder)
    dtype = dtype or _dtype_of(card)
    check_dtype(dtype)
    if dtype == NF4:
        raise ModelError("a merged model cannot be written in nf4: expected float32, bfloat16 or float16")
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code, "on_flip": "ignore"}
    with new_folder(path) as part:
        tuned = load_model(str(folder), **options)
        logits = _read_logits(tuned)
        _write_sum(tuned, folder, part, dtype)
        merged = load_model(str(part), dtype=dtype, **options)
        _check_logits(merged, folder, logits)
        verdict = _judge(merged, folder, card, force)
        if card:
            write_card(part, _merged_card(card, merged, verdict))
    return Merge(path, dtype, verdict)


def _dtype_of(card: AdapterCard | None) -> str:
    """Return the number format of the training; of a quantized one, that which it computed in."""
    if card is None:
        return "float32"
    return "bfloat16" if card.dtype == NF4 else card.dtype


def _write_sum(model: Model, folder: Path, part: Path, dtype: str) -> None:
    """Write the merged model's files, all but the card."""
    import torch
    from safetensors import SafetensorError

    network = _add_up(model, folder).to(getattr(torch, dtype))
    try:
        with quiet_transformers():
            network.save_pretrained(str(part))
            model.tokenizer.save_pretrained(str(part))
        share_weights(part)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    except (RuntimeError, ValueError) as error:  # such as weights that are shared in a way that no file can say
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: the merged model cannot be saved: {reason}") from error


def _add_up(model: Model, folder: Path) -> Any:
    """Return the base network with the adapter in its weights. Raises ModelError for a kind that peft cannot merge."""
    kind = next(iter(model.network.peft_config.values())).peft_type.value
    if not hasattr(model.network, "merge_and_unload"):
        raise ModelError(f"{folder}: an adapter of the kind {kind} is no change of weights, so it cannot be merged")
    _untie(model.network.get_base_model())
    if getattr(model.network.peft_config["default"], "layer_replication", None):
        _part_layers(model.network.get_base_model())
    try:
        with warnings.catch_warnings():  # of parted ends, for one: the logits are compared afterwards
            warnings.simplefilter("ignore", UserWarning)
            return model.network.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: an adapter of the kind {kind} that cannot be merged: {reason}") from error


def _read_logits(model: Model) -> torch.Tensor:
    """Return the logits [T, V], float32, of a short text."""
    import torch

    network: Any = model.network
    highest = count_embeddings(network)
    ids = [token for token in model.encoder.encode(_TEXT) if token < highest] or [0]
    with torch.inference_mode():
        logits: torch.Tensor = network(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()
    return logits


def _check_logits(merged: Model, folder: Path, wanted: torch.Tensor) -> None:
    """Raise ModelError where a merged model says something else than the adapter did, by more than rounding explains.

    That is not for probes to find: an adapter of another trainer has none, and a label may stay as it was.
    """
    import torch

    found = _read_logits(merged)
    apart = torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted - wanted.mean(-1, keepdim=True))
    close = _CLOSE if merged.dtype == "float32" else _COARSE
    if not float(apart) <= close:
        raise ModelError(
            f"{folder}: the merged model differs from the adapter by {float(apart):.1e} of its logits, above "
            f"{close:g}: this adapter cannot be merged right; nothing was written"
        )


def _part_layers(network: Any) -> None:
    """Give every replicated layer weights of its own: else what is added to one is added to its copies as well."""
    from torch.nn import Parameter

    ends = (network.get_input_embeddings(), network.get_output_embeddings())
    kept = {id(weight) for end in ends if end is not None for weight in end.parameters()}
    seen: set[int] = set()
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) in seen - kept:
                setattr(module, name, Parameter(weight.detach().clone(), requires_grad=False))
            seen.add(id(weight))


def _untie(network: Any) -> None:
    """Give a head its own weight where it or the embedding that it shares one with has an adapter.

    Else a change of the one would be added to the other as well.
    """
    from torch.nn import Parameter

    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    plain_head, plain_embedding = (getattr(module, "base_layer", module) for module in (head, embedding))
    if head is None or plain_head.weight is not plain_embedding.weight:
        return
    if plain_head is head and plain_embedding is embedding:
        return
    plain_head.weight = Parameter(plain_head.weight.detach().clone(), requires_grad=False)
    for config in (network.config, network.config.get_text_config()):
        config.tie_word_embeddings = False


def _judge(merged: Model, folder: Path, card: AdapterCard | None, force: bool) -> Verdict | None:
    """Ask the adapter's probes again; raise ModelError where one changed its label, unless `force` is given."""
    if card is None or card.probes is None:
        warnings.warn(
            f"{folder}: the adapter has no probes, so nothing shows that the merged model answers as it did",
            PromptkitWarning,
            stacklevel=3,
        )
        return None
    verdict = ask_card(merged, folder, card.probes)
    found = f"{folder}: merged in {merged.dtype}, {verdict}"
    if verdict.flips and not force:
        other = "" if merged.dtype == "float32" else "another --dtype such as float32, or "
        raise ModelError(f"{found}; give {other}--force to merge all the same; nothing was written")
    if verdict.flips or verdict.largest > max(map(rounding_of, (merged.dtype, card.probes.dtype))):
        warnings.warn(found, PromptkitWarning, stacklevel=3)
    return verdict


def _merged_card(card: AdapterCard, merged: Model, verdict: Verdict | None) -> AdapterCard:
    """Return the card of the merged model: where it came from, and what its probes say from now on."""
    told = Merged(
        probes=verdict.count if verdict else 0,
        flipped=len(verdict.flips) if verdict else 0,
        largest=round(verdict.largest, 6) if verdict else 0.0,
    )
    now = {
        "dtype": merged.dtype,
        "versions": {**card.versions, **installed_versions()},
        "tokenizer_hash": hash_tokenizer(merged.tokenizer),
        "probes": verdict.probes if verdict else None,
        "merged": told,
    }
    return card.model_copy(update=now)
