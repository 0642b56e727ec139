"""Read and check a manifest file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from promptkit.building.mixture import Mixture
from promptkit.errors import DataError
from promptkit.storage.files import read_input
from promptkit.storage.parsing import parse_json

#: The first key of a manifest, and which form it has.
MARK, FORM = "promptkit_manifest", 1
#: What the name of a manifest ends in.
ENDING = ".manifest.json"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Strict):
    """A split that records were read from: how many were kept, and how many were removed for which reason."""

    split: str
    source: str
    records: int
    repeated_ids: int = 0
    sha256: str
    kept: int
    removed: dict[str, int]
    copies_with_another_answer: int


class Ingredients(_Strict):
    """What the rows of one task were made of; `templates` and `compared_with` are names with hashes."""

    task: str
    sha256: str
    templates: dict[str, str]
    data: Data
    compared_with: dict[str, str]
    pool: Data | None = None


class Counts(_Strict):
    """How many rows one task has in all, and by each thing in which they may differ."""

    rows: int
    records: int
    templates: dict[str, int]
    shots: dict[str, int]
    wordings: dict[str, int]
    epochs: dict[str, int]
    labels: dict[str, int]


class FileLayout(_Strict):
    """How rows were laid out: the settings of `promptkit build` that say so."""

    format: str | None = None
    split: str | None = None
    shards: int | None = None
    shard_rows: int | None = None
    suffix: str = ""


class File(_Strict):
    """A file of rows: its size in bytes, and its hash."""

    bytes: int
    sha256: str


class Contents(_Strict):
    """A manifest: settings, what rows were made of, what was removed, how many rows there are, and their hashes."""

    promptkit_manifest: Literal[1]
    settings: Mixture
    tasks: dict[str, Ingredients]
    legend: str | None
    removed_ids: dict[str, dict[str, list[str]]]
    rows: int
    rows_sha256: str
    ids_sha256: str
    counts: dict[str, Counts]
    export: FileLayout
    files: dict[str, File]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _describe_every_task(self) -> Contents:
        if self.tasks.keys() != self.settings.tasks.keys():
            described, mixed = (", ".join(map(repr, named)) or "none" for named in (self.tasks, self.settings.tasks))
            raise ValueError(f"describes the tasks {described}, and its settings mix {mixed}")
        return self


def is_manifest(source: str | Path) -> bool:
    """Whether a file is the manifest of a training set: by its name, whatever is there, or by what it says."""
    path = Path(source)
    if path.name.endswith(ENDING):
        return True
    if path.suffix != ".json" or not path.is_file():
        return False
    with suppress(ValueError, OSError):
        read = parse_json(read_input(path))
        return isinstance(read, dict) and MARK in read
    return False


def read_contents(path: Path) -> Contents:
    """Return what a manifest says; raises DataError for a file that is not there, not whole or no manifest."""
    try:
        read = parse_json(read_input(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a manifest ({error.strerror})") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not a whole manifest: {error}; build the set anew from its task or mixture"
        ) from error
    form = read.get(MARK) if isinstance(read, dict) else None
    if form != FORM:
        raise DataError(f"{path}: a manifest of form {form!r}; this promptkit reads form {FORM}")
    try:
        return Contents.model_validate(read)
    except ValidationError as error:
        raise DataError(f"{path}: {_explain(error)}; build the set anew from its task or mixture") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"the manifest is not whole: {name!r} is missing"
    if first["type"] == "extra_forbidden":
        return f"{name!r} has no place in a manifest of form {FORM}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name} is {first['input']!r:.60}: {message[:1].lower()}{message[1:]}" if name else message
