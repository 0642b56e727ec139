"""Read the mixture that a training set is made of, from a TOML file or from options."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from promptkit.data.local import Data, DataFiles, RowSets, as_data, plain_data, write_data
from promptkit.errors import DataError, nearest
from promptkit.storage.files import LARGEST_SOURCE, read_input
from promptkit.storage.parsing import parse_toml
from promptkit.storage.paths import display_path

OWN = "own"
#: What a template's or wording's weight is, where one is given.
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
CountFromZero = Annotated[int, Field(ge=0, strict=True)]


def _as_weights(value: object) -> object:
    """Names with weights as they are; one name, or a list of them, without weights."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return value
    weights: dict[str, float | None] = {}
    for name, weight in map(parse_weight, names):
        if name in weights:
            raise ValueError(f"{name!r} is named twice; name each once, with one weight")
        weights[name] = weight
    return weights


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, int) else value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def parse_weight(text: str) -> tuple[str, float | None]:
    """Return (name, weight) of `name=2`; the weight is None where there is none. A name may hold `=` itself."""
    name, _, number = text.rpartition("=")
    return (name, float(number)) if name and re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) else (text, None)


def _as_given(value: object) -> object:
    """A path, or a table with one and how it is read; in Python, rows in memory too."""
    try:
        return plain_data(value)
    except DataError as error:
        raise ValueError(str(error)) from error


Given = Annotated[
    str | DataFiles | InstanceOf[RowSets], BeforeValidator(_as_given), PlainSerializer(write_data, when_used="json")
]
Weights = Annotated[dict[str, Weight | None], BeforeValidator(_as_weights)]


class MixturePart(BaseModel):
    """One task of a training set, and how its records become rows.

    `task` is a task's name or file, `data` local files in place of its source. `templates` are names or globs, each
    with its weight or None; no template is the family's `plain`. `per_record` says in how many of the templates a
    record is put, each other than the one before: by default one, drawn by weight, where a weight is given, and
    otherwise in all of them. `shots` are numbers of demonstrations, `labels` ways of wording them (see `label_words`)
    with their weights. `limit` takes the first records after a shuffle by the seed; with `balance` as many of each
    label. `weight` multiplies the part's share of a mixture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: str
    data: Given | None = None
    templates: Weights = Field(default_factory=dict)
    per_record: Count | Literal["all"] | None = None
    shots: Annotated[tuple[CountFromZero, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0,)
    selection: str | None = None
    order: Annotated[str, BeforeValidator(_as_text)] = "given"
    train_limit: Count | None = None
    labels: Annotated[Weights, Field(min_length=1)] = Field(default={OWN: None})
    limit: Count | None = None
    balance: bool = False
    weight: Weight = 1.0

    @property
    def drawn(self) -> int | None:
        """How many templates are drawn for a record; None where it is put in all of them."""
        if self.per_record is None:
            return 1 if any(weight is not None for weight in self.templates.values()) else None
        return None if self.per_record == "all" else self.per_record


class Mixture(BaseModel):
    """What a training set is made of: its tasks, how they are mixed, and what is left out.

    One epoch holds `limit` records, of each task in proportion to weight x min(n, cap) ** (1 / temperature) of its n
    records (Raffel et al. 2020, section 3.5.2); left out, as many as the tasks have, `cap` of each at most. Every one
    of `epochs` holds the same records and draws templates, demonstrations and words anew. `copies`: records that
    equal one of a test or validation split of any of the tasks, or another record, are removed; `near` also where
    they differ in case, spaces and punctuation only; `keep` removes none. `hold_out` records of each training
    split are set apart for validation. `split` is the training split, and of one file for all splits the half that is
    not tested on; a split that is named is the whole of such a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tasks: dict[str, MixturePart] = Field(min_length=1)
    split: str | None = None
    temperature: Weight = 1.0
    cap: Count | None = None
    limit: Count | None = None
    epochs: Count = 1
    seed: Annotated[int, Field(strict=True)] = 0
    copies: Literal["near", "exact", "keep"] = "near"
    hold_out: CountFromZero = 0
    chat: bool = False
    system: Literal["system", "user"] = "system"

    @model_validator(mode="before")
    @classmethod
    def _name_tasks(cls, given: Any) -> Any:
        """A part's key is its task, where it names no other."""
        if isinstance(given, Mapping) and isinstance(parts := given.get("tasks"), Mapping):
            named = {
                name: {"task": name, **part} if isinstance(part, Mapping) else part for name, part in parts.items()
            }
            return {**given, "tasks": named}
        return given

    @model_validator(mode="after")
    def _shares_out(self) -> Mixture:
        if self.system != "system" and not self.chat:
            raise ValueError(f"system {self.system!r} is for chat turns; set chat too")
        if self.temperature != 1 and len(self.tasks) == 1:
            raise ValueError("temperature shares records out among several tasks, and there is one; leave it out")
        return self

    def held_out(self) -> Mixture:
        """Return the mixture without what shares out training records: limits, balance, temperature, cap and epochs."""
        parts = {name: part.model_copy(update={"limit": None, "balance": False}) for name, part in self.tasks.items()}
        whole = {"limit": None, "temperature": 1.0, "cap": None, "epochs": 1}
        return self.model_copy(update={"tasks": parts, **whole})

    def at(self, data: Data) -> Mixture:
        """Return the mixture with its data elsewhere: those of a single task at `data`, of several at `data`/NAME."""
        alone, given = len(self.tasks) == 1, as_data(data)
        if not alone and not isinstance(given, DataFiles):
            raise DataError(f"{given}: the data of {len(self.tasks)} tasks are a folder with a folder for each")
        places = {
            name: plain_data(given.at(Path(given) / name) if isinstance(given, DataFiles) and not alone else given)
            for name in self.tasks
        }
        parts = {name: part.model_copy(update={"data": places[name]}) for name, part in self.tasks.items()}
        return self.model_copy(update={"tasks": parts})


def is_mixture(source: str | Path) -> bool:
    """Whether a TOML file is a mixture rather than a task: it has a table `tasks`. False for what is no TOML file."""
    path = Path(source)
    if path.suffix != ".toml" or not path.is_file():
        return False
    try:
        return "tasks" in parse_toml(read_input(path, LARGEST_SOURCE))
    except (OSError, ValueError):
        return False


def load_mixture(path: str | Path, **given: Any) -> Mixture:
    """Return the mixture of a TOML file, settings that are `given` in place of the file's.

    Paths of data and task files are taken from the folder of the file. Raises DataError, with the file and the
    setting, for what is not valid.
    """
    path = Path(path)
    try:
        read = parse_toml(read_input(path, LARGEST_SOURCE))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such mixture file") from error
    except OSError as error:
        raise DataError(f"{display_path(path)}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{display_path(path)}: {error}") from error
    if "tasks" not in read:
        raise DataError(
            f"{display_path(path)}: no [tasks.NAME]; a mixture has one such table per task"
            + (", this is a task file" if "fields" in read else "")
        )
    mixture = make_mixture({**read, **given}, display_path(path))
    beside = {name: _from_folder(part, path.parent) for name, part in mixture.tasks.items()}
    return mixture.model_copy(update={"tasks": beside})


def _from_folder(part: MixturePart, folder: Path) -> MixturePart:
    """Return the part with its paths as seen from the working directory."""
    update: dict[str, Any] = {}
    given = as_data(part.data)
    if isinstance(given, DataFiles):
        update["data"] = plain_data(given.at(display_path(folder / given.path)))
    if part.task.endswith(".toml"):
        update["task"] = display_path(folder / part.task)
    return part.model_copy(update=update)


def make_mixture(settings: Mapping[str, Any], where: str) -> Mixture:
    """Return checked settings as a Mixture; raises DataError, which begins with `where` and names the setting."""
    try:
        return Mixture.model_validate(settings)
    except ValidationError as error:
        raise DataError(f"{where}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    keys = _setting(first["loc"])
    told = [each["msg"] for each in error.errors() if _setting(each["loc"]) == keys]  # of a union, one per member
    message = ", or ".join([told[0], *(msg[:1].lower() + msg[1:] for msg in told[1:])]).removeprefix("Value error, ")
    message = message.replace("valid tuple", "valid list")
    if first["type"] == "too_short":
        message = "nothing in it; give one or more"
    elif first["type"] == "extra_forbidden":
        allowed = list((MixturePart if keys[0] == "tasks" else Mixture).model_fields)
        message = f"unknown setting; allowed: {', '.join(allowed)}.{nearest(keys[-1], allowed)}"
    elif "input" in first and not isinstance(first["input"], Mapping):
        message = f"found {first['input']!r}; {message[:1].lower()}{message[1:]}"
    return f"{'.'.join(keys)}: {message}" if keys else message


def _setting(place: Sequence[int | str]) -> list[str]:
    """Return the keys that lead to a setting, without pydantic's names for the members of a union."""
    return [str(key) for key in place if not re.match(r"constrained-|literal\[|int$", str(key))]


def share_records(counts: Sequence[int], mixture: Mixture) -> list[float]:
    """Return what each part's share of a mixture is proportional to; 0 for a part without records.

    Sizes are counted in the largest, so that no temperature makes a number too large.
    """
    cap = min(max(counts), mixture.cap or max(counts))
    weights = [part.weight for part in mixture.tasks.values()]
    return [
        weight * (min(count, cap) / cap) ** (1 / mixture.temperature)
        for weight, count in zip(weights, counts, strict=True)
    ]


def deal_parts(shares: Sequence[float]) -> Iterator[int]:
    """Yield without end whose turn it is, so that any beginning holds the parts by their shares (Webster's method).

    A part's count among the first N is its quota rounded up or down, but for rare cases, and never falls as N grows: a
    smaller mixture is the beginning of a larger one.
    """
    turns = [(-share / 0.5, place) for place, share in enumerate(shares) if share > 0]
    heapq.heapify(turns)
    dealt = [0] * len(shares)
    while True:
        place = turns[0][1]
        dealt[place] += 1
        heapq.heapreplace(turns, (-shares[place] / (dealt[place] + 0.5), place))
        yield place
