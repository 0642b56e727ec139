"""Save a trained LoRA adapter in peft's format, with a card that says where it came from."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from stat import S_IMODE
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptkit.adapters.reference_outputs import ReferenceOutputs, hash_tokenizer, installed_versions, kind_of_device
from promptkit.errors import PromptkitError, PromptkitWarning, RunError, TrainError, nearest
from promptkit.storage.files import check_readable, check_writable, new_folder, read_input

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from promptkit.data.tasks import Task
    from promptkit.models import Model
    from promptkit.templating.template import BoundTemplate

CARD = "promptkit.json"
#: Of every training that names no others: passes over the rows, and rows per step.
EPOCHS, BATCH_SIZE = 3, 8
#: Of every adapter that has one and names no other.
RANK = 8
#: What an adapter can be, see docs/training.md.
KINDS = ("lora", "rslora", "dora", "pissa", "ia3")


@dataclass(frozen=True)
class TrainingOptions:
    """How the adapters of a comparison or a study are trained: the settings of `train`, by the same names.

    `rank` left out is 8; IA3 has none. `targets` are names of layers. What is left out has the default of `train`.
    """

    kind: str = "lora"
    rank: int | None = None
    alpha: int | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    top_layers: int | None = None
    epochs: int = EPOCHS
    batch_size: int = BATCH_SIZE
    micro_batch: int | None = None
    checkpointing: bool = False
    learning_rate: float | None = None

    def check_training(self) -> None:
        """Raise PromptkitError for the first setting that is out of range; give the rank its default."""
        if self.kind not in KINDS:
            raise PromptkitError(f"unknown kind {self.kind!r}; known: {', '.join(KINDS)}.{nearest(self.kind, KINDS)}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise PromptkitError(f"learning rate is {self.learning_rate}; it must be a number above 0")
        if not 0 <= self.dropout < 1:
            raise PromptkitError(f"dropout is {self.dropout}; it must be 0 or more, and below 1")
        for name in ("epochs", "rank", "alpha", "top_layers", "batch_size", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PromptkitError(f"{name.replace('_', ' ')} is {value}; it must be 1 or more")
        check_kind(self.kind, self.rank, self.alpha, self.dropout)
        if self.rank is None and self.kind != "ia3":
            object.__setattr__(self, "rank", RANK)

    def arguments(self) -> dict[str, Any]:
        """Return what is passed to `train`, but for the epochs; of what has its default, rank and rate alone."""
        changed = {name: value for name, value in self._training().items() if value != getattr(TrainingOptions, name)}
        return {"rank": self.rank, "learning_rate": self.learning_rate, **changed}

    def spec(self) -> dict[str, Any]:
        """Return the same as a part of a cell's key."""
        return {"batch_size": self.batch_size, **self.arguments()}

    def _training(self) -> dict[str, Any]:
        names = (field.name for field in fields(TrainingOptions) if field.name != "epochs")
        return {name: getattr(self, name) for name in names}


def check_kind(kind: str, rank: int | None, alpha: int | None, dropout: float) -> None:
    """Raise TrainError where IA3, which scales activations, is given what only low-rank adapters have."""
    if kind == "ia3" and (rank is not None or alpha is not None or dropout):
        raise TrainError("training: an ia3 adapter has no rank, alpha or dropout; leave them out")


class Seeds(BaseModel):
    """The seed of each source of chance in a training run; changing one changes its source and nothing else.

    `data`: which records; `template`: which of several templates each gets. Both are None where the pairs were
    given as they are. `init`: the adapter's first weights; `batch`: which rows share a step; `order`: the
    sequence of the steps; `dropout`: what is dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: int | None = Field(default=None, ge=0, lt=2**32)
    template: int | None = Field(default=None, ge=0, lt=2**32)
    init: int = Field(ge=0, lt=2**32)
    batch: int = Field(ge=0, lt=2**32)
    order: int = Field(ge=0, lt=2**32)
    dropout: int = Field(ge=0, lt=2**32)


def check_seeds(names: Iterable[str]) -> None:
    """Raise TrainError for the first name that is no source of chance."""
    for name in names:
        if name not in Seeds.model_fields:
            allowed = ", ".join(Seeds.model_fields)
            raise TrainError(
                f"training: there is no seed {name!r}: expected {allowed}.{nearest(name, Seeds.model_fields)}"
            )


class TrainSettings(BaseModel):
    """What was asked of a training run. With the base model and the pairs it determines the adapter.

    `rank` and `alpha` are None for IA3, which has neither. `top_layers` counts from the output; None is all.
    `micro_batch` rows at most go through the network at once; None is the whole batch. `processes` took part.
    `seed` is the one seed given; `seeds` is what each source of chance got. `system` is the turn of a chat that holds
    the instruction; `join` is "turn" where an answer begins as a turn does, and empty in cards of chats from before it
    did: these were trained with the white space that joins answers to plain prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["lora", "rslora", "dora", "pissa", "ia3"] = "lora"
    rank: int | None = Field(ge=1)
    alpha: int | None = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    targets: str | tuple[str, ...]
    top_layers: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    checkpointing: bool = False
    processes: int = Field(default=1, ge=1)
    seed: int = Field(ge=0, lt=2**32)
    seeds: Seeds
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    patience: int = Field(ge=1)
    chat: bool
    system: Literal["system", "user"] = "system"
    join: Literal["", "turn"] = ""

    @model_validator(mode="before")
    @classmethod
    def _spread_seed(cls, values: Any) -> Any:
        """Give `seed` to every source that has none of its own, as cards from before there were sources mean it."""
        seeds = (values.get("seeds") or {}) if isinstance(values, dict) else None
        if not isinstance(seeds, dict):
            return values  # of another kind, which is told by its type
        own = dict.fromkeys(("init", "batch", "order", "dropout"), values.get("seed"))
        return {**values, "seeds": {**own, **seeds}}

    @classmethod
    def checked(cls, **settings: Any) -> Self:
        """Return the settings, or raise TrainError for the first that is out of range."""
        check_seeds(settings.get("seeds") or {})
        try:
            return cls(**settings)
        except ValidationError as error:
            raise TrainError(f"training: {_first(error)}") from error


class TrainResult(BaseModel):
    """What came of a training run; nothing in it depends on the machine's speed or the date.

    `epochs` were run, and the weights are those after `best_epoch` (1 is the first). `losses` (nats, mean over
    the epoch's steps) and `validation` (the settings' metric) have one entry per epoch; `validation` is empty without
    prompts. `pairs_hash` is the SHA-256 of prompts, completions, turns and choices in their order. `padded` says why
    rows were padded, and is empty where they were packed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    pairs_hash: str
    epochs: int
    best_epoch: int
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    tokens_trained: int
    targets_trained: int
    spanning: int
    padded: str = ""


class Merged(BaseModel):
    """Says of the card of a merged model what became of the adapter's probes: how many were asked, and what moved.

    `flipped` answers changed, and no score moved by more than `largest` nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probes: int
    flipped: int
    largest: float


class AdapterCard(BaseModel):
    """The file promptkit.json beside an adapter, or beside the model it was merged into.

    `base_model` is the name that `load_model` takes, `base_files` are the hashes of its files that may change a score
    (empty in older cards); `labels` are the exact choices, where all pairs had the same. `template`, `task` and their
    hashes are empty where the rows named none. `demonstrations` is the most that a row's prompt held. `one_file` is the
    hash of the one file of which a half was trained on, empty where records came from elsewhere, None where the rows
    do not say. `files_hash` is the fingerprint of the folder. `probes` is None where there was nothing to
    ask, or nothing was to be kept of the rows; `merged` is None for an adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    base_hash: str
    dtype: str
    task: str
    template: str
    template_hash: str
    labels: tuple[str, ...] | None
    settings: TrainSettings
    train: TrainResult
    versions: dict[str, str]
    task_hash: str = ""
    tokenizer_hash: str = ""
    files_hash: str = ""
    base_files: dict[str, str] = {}
    demonstrations: int = 0
    one_file: str | None = None
    probes: ReferenceOutputs | None = None
    merged: Merged | None = None

    def may_know(self, one_file: str) -> bool:
        """Return whether the adapter may have been trained on a part of the file that has this hash."""
        return bool(one_file) and self.one_file in (None, one_file)

    @property
    def other_join(self) -> str:
        """What is to be said where it was trained on chats whose answers began otherwise than now; else nothing."""
        if not self.settings.chat or self.settings.join:
            return ""
        return (
            "was trained on chat turns whose answers began with the white space of plain prompts, and they begin "
            "without it now; train it again"
        )

    def changes(self, model: Model, files_hash: str) -> tuple[str, ...]:
        """Return in words what differs from when the adapter was saved, and may change what the model says."""
        now, then = installed_versions(), dict(self.versions)
        if self.probes:
            now |= {"dtype": model.dtype, "device": kind_of_device(model)}
            then |= {"dtype": self.probes.dtype, "device": self.probes.device}
        named = [f"{name} {then[name]} -> {now[name]}" for name in now if then.get(name, now[name]) != now[name]]
        hashes = {
            "tokenizer": (self.tokenizer_hash, hash_tokenizer(model.tokenizer)),
            "files": (self.files_hash, files_hash),
        }
        return (*named, *(f"other {name}" for name, (old, new) in hashes.items() if old not in ("", new)))


@dataclass(frozen=True)
class Asked:
    """How a model is asked: on a task, under templates (name -> hash), with demonstrations, as chat or not.

    `task_hash` and `labels`, the exact choices, are compared with the card's where they are given.
    """

    task: str
    templates: Mapping[str, str]
    shots: tuple[int, ...]
    chat: bool
    system: str = "system"
    task_hash: str = ""
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task, bounds: Iterable[BoundTemplate], shots: Iterable[int], *, chat: bool, system: str) -> Asked:
        """Return how a model is asked under these templates; their choices count where all have the same."""
        bounds = list(bounds)
        choices = {bound.shared_choices for bound in bounds}
        templates = {bound.template.name: bound.template.hash for bound in bounds}
        labels = choices.pop() if len(choices) == 1 else None
        return cls(task.name, templates, tuple(shots), chat, system, task.hash, labels or ())

    def differs(self, card: AdapterCard) -> str:
        """Return in words how this differs from an adapter's training; empty where the trained form is asked too."""
        found = [*self._compare_turns(card), *self._compare_files(card), *self._compare_shots(card)]
        if card.labels and self.labels and self.labels != card.labels:
            found.append((f"to answer {_list(card.labels)}", f"for {_list(self.labels)}"))
        then, now = (", ".join(words) for words in zip(*found, strict=True)) if found else ("", "")
        return f"was trained {then}, and is asked {now}" if found else ""

    def _compare_turns(self, card: AdapterCard) -> Iterator[tuple[str, str]]:
        if card.settings.chat != self.chat:
            yield ("as chat", "as plain text") if card.settings.chat else ("as plain text", "as chat")
        elif self.chat and card.settings.system != self.system:
            yield f"with the instruction in the {card.settings.system}'s turn", f"in the {self.system}'s"

    def _compare_files(self, card: AdapterCard) -> Iterator[tuple[str, str]]:
        if card.task and self.task not in card.task.split(", "):
            yield f"on task {card.task}", f"on {self.task}"
            return  # another task has other templates
        if self.task_hash and card.task_hash and self.task_hash not in card.task_hash.split(", "):
            yield f"on another version of task {self.task}", "on the file as it is now"
        if card.template and not self.templates.keys() & set(card.template.split(", ")):
            yield f"with template {card.template}", f"with {', '.join(self.templates)}"
        elif changed := self._changed(card):
            yield f"with another version of template {changed}", "with the file as it is now"

    def _compare_shots(self, card: AdapterCard) -> Iterator[tuple[str, str]]:
        if card.demonstrations and not any(self.shots):
            yield f"with up to {card.demonstrations} demonstrations", "without any"
        if card.template and not card.demonstrations and 0 not in self.shots:
            yield "without demonstrations", f"with {' and '.join(map(str, self.shots))}"

    def _changed(self, card: AdapterCard) -> str:
        hashes = card.template_hash.split(", ")
        trained = [name for name in card.template.split(", ") if name in self.templates]
        return next((name for name in trained if card.template_hash and self.templates[name] not in hashes), "")


def warn_of_other_form(model: str, asked: Asked, card: AdapterCard | None = None) -> None:
    """Warn, in one line, where a model that promptkit trained is asked in another form than it was trained in.

    The form is that of its own card unless one is given.
    """
    card = card or card_of(model)
    if card and (differs := asked.differs(card)):
        warnings.warn(f"{model}: {differs}", PromptkitWarning, stacklevel=3)


def _list(words: Iterable[str]) -> str:
    return ", ".join(map(repr, words))


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained adapter: its folder, which `load_model` takes, and what training it cost.

    `tokens_trained` counts the rows' tokens, each row's in full and no padding, over all epochs; `targets_trained`
    those with a loss. `spanning` counts pairs with a token across the join. `padded` says why rows were padded, and
    is empty where they were packed. `validation` is the `metric` per epoch, `validation_tokens` were computed to choose
    the epoch. `seconds` is the whole call.
    `notes` say what should be known of the rows, such as a choice that none of them teaches.
    """

    path: Path
    rows: int
    epochs: int
    best_epoch: int
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    tokens_trained: int
    targets_trained: int
    spanning: int
    padded: str
    validation_tokens: int
    validation_flops: float
    seconds: float
    metric: str = "accuracy"
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        """Return the folder's path: an adapter can be given wherever a folder can."""
        return str(self.path)

    __str__ = __fspath__


def read_card(folder: str | Path) -> AdapterCard:
    """Return the card of an adapter folder that promptkit wrote.

    Raises TrainError where there is none or it cannot be read.
    """
    path = Path(folder) / CARD
    try:
        return AdapterCard.model_validate_json(read_input(path))
    except OSError as error:
        if os.path.lexists(path):
            raise TrainError(f"{path}: cannot be read ({error.strerror}); restore it, or train again") from error
        raise TrainError(f"{path}: no such file; an adapter trained by promptkit has one beside its weights") from error
    except ValidationError as error:
        raise TrainError(f"{path}: {_first(error)}; was it written by another version of promptkit?") from error


def find_card(folder: str | Path) -> AdapterCard | None:
    """Return the card of a folder, None where promptkit wrote none. Raises TrainError where it cannot be read."""
    return read_card(folder) if (Path(folder) / CARD).is_file() else None


def card_of(model: str) -> AdapterCard | None:
    """Return the card of the model of this name; None where it is no folder that promptkit wrote."""
    return find_card(model) if Path(model).is_dir() else None


def find_merged(folder: str | Path) -> AdapterCard | None:
    """Return the card of a model that an adapter was merged into, None of any other model."""
    path = Path(folder) / CARD
    return read_card(folder) if path.is_file() and b'"merged"' in read_input(path) else None


def refuse_existing(out: Path) -> None:
    """Raise RunError where `out` exists already, or could not be made: before training, not after it."""
    if os.path.lexists(out):
        raise RunError(f"{out}: exists already; choose another folder for the adapter, or remove this one")
    check_writable(out)


def write_adapter(
    network: PeftModel, out: Path | None, card: AdapterCard, weights: Mapping[str, torch.Tensor] | None = None
) -> Path:
    """Write the adapter's folder whole or not at all, and return it.

    It is filled under another name, then renamed. None makes a new one in the system's temporary folder.
    `weights`, by the network's names for them, are written in place of the network's own.

    Raises RunError where it cannot be written, for want of space or of permission.
    """
    from safetensors import SafetensorError

    out = Path(mkdtemp(prefix="promptkit-")) / "adapter" if out is None else out
    with new_folder(out) as part:
        try:
            network.save_pretrained(str(part), save_embedding_layers=False, state_dict=weights)
            (part / "README.md").unlink(missing_ok=True)  # peft's form of a model card, with every field left blank
            share_weights(part)
            write_card(part, card)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(
                f"{out}: the adapter cannot be written: {reason}; choose another folder, or make room"
            ) from error
    return out


def share_weights(folder: Path) -> None:
    """Give the weights of a folder the mode of its configuration, which follows the umask.

    safetensors makes its files private, and a server that runs as another user could not read them.
    """
    mode = S_IMODE(next(folder.glob("*config.json")).stat().st_mode)
    with suppress(OSError):  # a file system without modes
        for path in folder.glob("*.safetensors"):
            path.chmod(mode)


def write_card(folder: Path, card: AdapterCard) -> None:
    """Write the card into a folder whose other files are complete: it says what these are."""
    from promptkit.models.location import fingerprint

    card = card.model_copy(update={"files_hash": fingerprint(folder)})
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def count_weights(folder: str | Path, active_share: float = 1.0) -> int:
    """Return the number of weights an adapter adds, read from the header of its file.

    Those of a mixture's experts count by `active_share`, the share of the experts that each token runs through.
    """
    from safetensors import safe_open

    check_readable(Path(folder) / "adapter_model.safetensors")
    with safe_open(str(Path(folder) / "adapter_model.safetensors"), framework="numpy") as file:
        return round(
            sum(
                math.prod(file.get_slice(name).get_shape()) * (active_share if ".experts" in name else 1)
                for name in file.keys()  # noqa: SIM118 - no dict
            )
        )


def count_reached_layers(folder: str | Path, layers: int) -> int:
    """Return how many of a model's `layers` an adapter's gradients go through: none go below its lowest weight."""
    from safetensors import safe_open

    check_readable(Path(folder) / "adapter_model.safetensors")
    with safe_open(str(Path(folder) / "adapter_model.safetensors"), framework="numpy") as file:
        return layers - min(_find_layer(name, layers) for name in file.keys())  # noqa: SIM118 - no dict


def _find_layer(name: str, layers: int) -> int:
    """Return the number of the layer of an adapter's tensor; 0 of the embedding, that behind the last of the head."""
    if "lora_embedding" in name:
        return 0
    return next((int(part) for part in name.split(".") if part.isdigit()), layers)


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints: a name, what was found, what was allowed."""
    detail = error.errors()[0]
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{name} is missing"
    allowed = detail["msg"].removeprefix("Value error, ")
    allowed = f"{allowed[:1].lower()}{allowed[1:]}"
    return f"{name} is {detail['input']!r:.60}: {allowed}" if name else allowed
