"""A trained LoRA adapter into a folder in peft's format, with a card that says where it came from."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptkit.errors import RunError, TrainError

if TYPE_CHECKING:
    from peft import PeftModel

CARD = "promptkit.json"


class TrainSettings(BaseModel):
    """What was asked of a training run. With the base model and the pairs it determines the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    targets: str | tuple[str, ...]
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    patience: int = Field(ge=1)
    chat: bool

    @classmethod
    def checked(cls, **settings: Any) -> Self:
        """Return the settings, or raise TrainError for the first that is out of range."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise TrainError(f"training: {_first(error)}") from error


class TrainResult(BaseModel):
    """What came of a training run; nothing in it depends on the machine's speed or the date.

    `epochs` were run, and the weights are those after `best_epoch` (1 is the first). `losses` (nats, mean over
    the epoch's steps) and `validation` (label accuracy) have one entry per epoch; `validation` is empty without
    prompts. `pairs_hash` is the SHA-256 of the prompts and completions in their order.
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


class AdapterCard(BaseModel):
    """The file promptkit.json beside an adapter.

    `base_model` is the name that `load_model` takes; `labels` are the exact choices, where all pairs had the
    same. `template`, `template_hash` and `task` are empty where the rows named none.
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


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained adapter: its folder, which `load_model` takes, and what training it cost.

    `tokens_trained` counts real tokens read by the network, no padding, over all epochs; `targets_trained`
    those with a loss. `spanning` counts pairs with a token across the join. `validation_tokens` were computed
    to choose the epoch. `seconds` is the whole call.
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
    validation_tokens: int
    validation_flops: float
    seconds: float

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
        return AdapterCard.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise TrainError(f"{path}: no such file; an adapter trained by promptkit has one beside its weights") from error
    except ValidationError as error:
        raise TrainError(f"{path}: {_first(error)}; was it written by another version of promptkit?") from error


def refuse_existing(out: Path) -> None:
    """Raise RunError where `out` exists already, or could not be made: before training, not after it."""
    if out.exists():
        raise RunError(f"{out}: exists already; choose another folder for the adapter, or remove this one")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise RunError(f"{out}: no folder can be made in {above}; choose another one for the adapter")


def write_adapter(network: PeftModel, out: Path | None, card: AdapterCard) -> Path:
    """Write the adapter's folder whole or not at all, and return it.

    It is filled under another name, then renamed. None makes a new one in the system's temporary folder.

    Raises RunError where it cannot be written, for want of space or of permission.
    """
    from safetensors import SafetensorError

    out = Path(mkdtemp(prefix="promptkit-")) / "adapter" if out is None else out
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a killed process that had the same number
        part.mkdir(parents=True)
        network.save_pretrained(str(part), save_embedding_layers=False)
        (part / "README.md").unlink(missing_ok=True)  # peft's form of a model card, with every field left blank
        (part / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.rename(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"{out}: the adapter cannot be written: {reason}; choose another folder, or make room"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def count_weights(folder: str | Path) -> int:
    """Return the number of weights an adapter adds, read from the header of its file."""
    from safetensors import safe_open

    with safe_open(str(Path(folder) / "adapter_model.safetensors"), framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints: a name, what was found, what was allowed."""
    detail = error.errors()[0]
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{name} is missing"
    allowed = f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"
    return f"{name} is {detail['input']!r:.60}: {allowed}" if name else allowed
