"""Load a model by name: an adapter around its base model, checked against its reference outputs, or a plain model."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.adapters.card import CARD, AdapterCard, find_card, find_merged
from promptkit.adapters.reference_outputs import ReferenceOutputs, Verdict, ask_again, kind_of_device, rounding_of
from promptkit.errors import ModelError, PromptkitWarning, WindowError, nearest
from promptkit.models import Model, check_dtype, find_device, load_folder, load_tokenizer, reading
from promptkit.models.checkpoint import check_adapter_folder
from promptkit.models.location import fingerprint, is_adapter, join_hashes, locate, locate_base, makes_network
from promptkit.models.quantization import is_quantized

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: What peft says that does not hold here: the ranks of experts are in use all the same, and `merge` parts tied weights.
UNTRUE = r"The following (rank|alpha)_pattern keys did not match|Model has `tie_word_embeddings=True`"
#: What to do where an adapter's probes no longer say what they said: refuse it, warn, or never ask them.
ON_FLIP = ("error", "warn", "ignore")


def load_model(
    name: str = "tiny",
    *,
    dtype: str = "float32",
    device: str | None = None,
    trust_remote_code: bool = False,
    on_flip: str = "error",
) -> Model:
    """Load a causal language model: a shipped name, a local folder, a peft adapter's folder, or a hub id.

    An adapter's base model is loaded with it. `device` is by default the first GPU where there is one.
    Weights are read from safetensors only: a pickle can run any code. Code that comes with a model runs only
    with `trust_remote_code`.

    An adapter that promptkit trained brings probes: training rows and what it said to them. Where the number format,
    the device, the tokenizer, its files or a library has changed since, they are scored again. A label that changed is
    a ModelError, or a PromptkitWarning under another number format or device, which round otherwise; `on_flip` "warn"
    makes it a warning always, "ignore" asks nothing. Other weights of the base model are a ModelError always. A model
    that an adapter was merged into has probes too.

    Raises ModelError for an unknown name, dtype or device, and for a folder that lacks a configuration, a
    tokenizer or safetensors weights, or whose files cannot be read.
    """
    name = str(name)
    check_dtype(dtype)
    options: dict[str, Any] = {"dtype": dtype, "device": str(find_device(device)), "on_flip": on_flip}
    folder = locate(name)
    load = load_adapter if is_adapter(folder) else load_plain
    return load(name, folder, trust_remote_code=trust_remote_code, **options)


def load_plain(name: str, folder: Path, *, on_flip: str, **options: Any) -> Model:
    """Return the model of a folder that is no adapter's; one that an adapter was merged into is asked its probes."""
    model = load_folder(name, folder, **options)
    check_probes(model, folder, find_merged(folder), model.hash, on_flip=on_flip)
    return model


def load_adapter(name: str, folder: Path, *, on_flip: str, trust_remote_code: bool, **placed: Any) -> Model:
    """Return the adapter of a folder around its base model, loaded with the dtype and device `placed`.

    Raises ModelError where one of them cannot be read, the base model is another than that of the training, or a probe
    has changed its label; see `check_probes`.
    """
    from promptkit.adapters.wrapping import check_settings

    check_settings(folder, check_adapter_folder(folder))  # before the base model is loaded, which takes longer
    named, found = locate_base(folder)
    try:
        base = load_plain(named, found, trust_remote_code=trust_remote_code, on_flip=on_flip, **placed)
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
    from promptkit.adapters.wrapping import check_settings, wrap_network

    card = find_card(folder)
    since = check_base(base, folder, card) if card else ()
    settings = check_settings(folder, check_adapter_folder(folder))
    if card and card.other_join:
        warnings.warn(f"{folder}: {card.other_join}", PromptkitWarning, stacklevel=4)
    tokenizer = base.tokenizer
    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder, trust_remote_code)
    with reading(folder, "adapter"), _telling(folder):
        network = wrap_network(base.network, settings, tokenizer, base.device)
    files = fingerprint(folder)
    model = Model.of(name, network.eval(), tokenizer, join_hashes(base.hash, files))
    check_probes(model, folder, card, files, since, on_flip=on_flip)
    return model


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Turn what peft warns of, such as weights that are missing, into warnings of one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        said = " ".join(str(each.message).split())
        if not issubclass(each.category, FutureWarning | DeprecationWarning) and not re.match(UNTRUE, said):
            warnings.warn(f"{folder}: {said}", PromptkitWarning, stacklevel=3)


def check_base(base: Model, folder: Path, card: AdapterCard) -> tuple[str, ...]:
    """Return in words which files of the base model are others than in the training and may change a score.

    Raises ModelError where those of the network are: an adapter goes with the weights that it was trained on.
    """
    if card.base_hash == base.hash:
        return ()
    if not (card.base_files and base.files):  # a card from before there were such hashes, or a model without files
        raise ModelError(
            f"{folder}: the adapter was trained on other weights, configuration or tokenizer than those of "
            f"{base.name!r} now; restore that model, or train again"
        )
    then, now = card.base_files, base.files
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    for name in filter(makes_network, changed):
        what = "has changed" if name in then and name in now else "is new" if name in now else "is gone"
        raise ModelError(
            f"{folder}: {name} of the base model {base.name!r} {what} since the adapter was trained on it; "
            "restore that model, or train again"
        )
    return tuple(f"other {name} of the base model" for name in changed)


def check_probes(
    model: Model,
    folder: Path,
    card: AdapterCard | None,
    files_hash: str,
    since: Sequence[str] = (),
    *,
    on_flip: str,
) -> None:
    """Ask the probes of a card again, where something has changed that may change the answers.

    `since` says what has changed beside what the card itself tells; without probes that is a warning.

    A label that changed raises ModelError; it is a warning where `on_flip` is "warn", or where the number format or
    the kind of device is another, which rounds otherwise. Scores that moved by more than rounding explains are a
    warning too. With "ignore" nothing is asked.

    Raises ModelError for another `on_flip`.
    """
    if on_flip not in ON_FLIP:
        raise ModelError(f"on_flip is {on_flip!r}: expected {', '.join(ON_FLIP)}.{nearest(on_flip, ON_FLIP)}")
    if on_flip == "ignore" or card is None:
        return
    changes = (*card.changes(model, files_hash), *since)
    if not changes:
        return
    if card.probes is None:
        found = f"{folder}: {', '.join(changes)}, and the adapter has no probes to show that it answers as it did"
        warnings.warn(found, PromptkitWarning, stacklevel=2)
        return
    verdict = ask_card(model, folder, card.probes)
    alike = (model.dtype, kind_of_device(model)) == (card.probes.dtype, card.probes.device)
    found = f"{folder}: {verdict}; since it was saved: {', '.join(changes)}"
    if verdict.flips and alike and on_flip == "error":
        way_out = 'take it as it is with `promptkit predict --force` or load_model(…, on_flip="warn")'
        raise ModelError(f"{found}; restore these, train again, or {way_out}")
    if verdict.flips or (alike and verdict.largest > rounding_of(model.dtype)):
        warnings.warn(found, PromptkitWarning, stacklevel=2)


def ask_card(model: Model, folder: Path, probes: ReferenceOutputs) -> Verdict:
    """Ask the probes of a folder's card again. Raises WindowError, with the card's name, for one that is too long."""
    try:
        return ask_again(model, probes)
    except WindowError as error:
        raise WindowError(
            f"{folder / CARD}: a probe does not fit the model any more: {error}; restore model and card, or train again"
        ) from error
