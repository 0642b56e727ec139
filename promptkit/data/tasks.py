"""Load a task file: what is to be predicted, from which columns of which data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from promptkit.data.labels import Reading
from promptkit.data.library import find_names, kept_file
from promptkit.data.patterns import compile_pattern
from promptkit.errors import PatternError, TaskError, nearest
from promptkit.storage.files import LARGEST_SOURCE, read_input
from promptkit.storage.parsing import parse_toml
from promptkit.storage.paths import display_path
from promptkit.storage.rows import parse_delimiter

#: Field names with a meaning of their own; every other name but those of `TAKEN` is the template author's.
RESERVED = ("id", "label", "rationale", "choices")
#: What templates get under these names comes from the label, so no field can have them.
TAKEN = ("index", "labels")
#: The splits a task names; a task without `validation` has it cut from `train` where one is needed.
SPLITS = ("train", "validation", "test")
#: What begins a path, or stands in one, that leads out of the task's folder or to the network.
_OUTSIDE = re.compile(r"^[/~]|^[A-Za-z]:|:/|::|\\|\0")


def _as_column(value: object) -> object:
    if isinstance(value, str):
        return {"column": (value,)}
    if isinstance(value, list):
        return {"column": tuple(value)}
    if isinstance(value, dict) and isinstance(value.get("column"), str):
        return {**value, "column": (value["column"],)}
    return value


def _check_field_name(name: str) -> str:
    if name in TAKEN:
        raise ValueError(f"the name is taken: templates get the label's own {name!r}; give the field another name")
    return name


class Column(BaseModel):
    """Where a field's value stands in the data: the first of `column` that a row has.

    A dot reaches into a struct (`choices.text`). Of the value, `after` keeps what follows its last
    occurrence, `before` what precedes its first one, and `remove` deletes matches of a regular expression.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    after: str | None = Field(default=None, min_length=1)
    before: str | None = Field(default=None, min_length=1)
    remove: str | None = None

    @field_validator("remove")
    @classmethod
    def _check_remove(cls, pattern: str | None) -> str | None:
        try:
            compile_pattern(pattern or "")
        except PatternError as error:
            raise ValueError(str(error)) from error
        return pattern

    @cached_property
    def extracts(self) -> bool:
        """Whether the value is a part of what the column holds."""
        return (self.after, self.before, self.remove) != (None, None, None)


class TaskSource(BaseModel):
    """Where records come from: a hub data set, files beside the task file, or a generator."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str | None = None
    name: str | None = None
    revision: str | None = None
    generator: str | None = None
    seed: int = 0
    train: str | int | None = None
    validation: str | int | None = None
    test: str | int | None = None
    delimiter: str | None = None
    quoting: bool | None = None
    labels_are: Reading | None = None

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        if path is not None and (not path.strip() or _OUTSIDE.search(path) or ".." in path.split("/")):
            raise ValueError(
                f"{path!r} is neither a folder beside the task file nor a data set of the hub, as OWNER/NAME; data "
                "elsewhere are given with --data"
            )
        return path

    @field_validator("name", *SPLITS)
    @classmethod
    def _check_name(cls, name: str | int | None) -> str | int | None:
        if isinstance(name, str) and (not name.strip() or _OUTSIDE.search(name) or ".." in name.split("/")):
            raise ValueError(f"{name!r} is no name of a configuration or split")
        return name

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, text: str | None) -> str | None:
        return None if text is None else parse_delimiter(text)

    @model_validator(mode="after")
    def _one_source(self) -> TaskSource:
        if (self.path is None) == (self.generator is None):
            raise ValueError("give either `path` or `generator`")
        kind = int if self.generator else str
        for split in SPLITS:
            value = getattr(self, split)
            if value is not None and not isinstance(value, kind):
                expected = "a number of records" if self.generator else "a split's name"
                raise ValueError(f"`{split}` must be {expected}, got {value!r}")
        return self


class Task(BaseModel):
    """A task: its fields, labels, data and the template family that fits.

    `labels` is None where the answer is free text or where each record brings its own choices
    (`fields` then maps `choices`). `path` and `hash` identify the file the task was read from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    path: Path
    hash: str
    description: str
    reference: str = ""
    labels: tuple[str, ...] | None = None
    labels_are: Reading | None = None
    bad_records: Literal["error", "skip"] = "error"
    templates: str
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    fields: dict[Annotated[str, AfterValidator(_check_field_name)], Annotated[Column, BeforeValidator(_as_column)]]
    data: TaskSource

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for label in labels or ():
            if not label.strip():
                raise ValueError("a label is empty; every label has a name")
            if (labels or ()).count(label) > 1:
                raise ValueError(f"{label!r} is there twice; `labels` must be two or more different names")
        if labels is not None and len(labels) < 2:
            raise ValueError(
                f"`labels` must be two or more different names, found {len(labels)}; leave them out where the answer "
                "is free text"
            )
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if "label" not in self.fields:
            raise ValueError("[fields] has no `label`")
        if not self.input_fields and "choices" not in self.fields:
            raise ValueError("[fields] names no field besides the label")
        if self.labels is not None and "choices" in self.fields:
            raise ValueError("give either `labels` or a `choices` field")
        return self

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The fields a template's `input` may ask for, besides `labels` and `choices`."""
        return tuple(name for name in self.fields if name not in RESERVED)

    @property
    def content_hash(self) -> str:
        """The SHA-256 (hex) of what the task says, however it was made: also of one that was changed in Python."""
        content = self.model_dump(mode="json", exclude={"path", "hash"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def has_choices(self) -> bool:
        """Whether each record brings its own choices."""
        return "choices" in self.fields

    @property
    def has_rationales(self) -> bool:
        """Whether the data holds a rationale for each record."""
        return "rationale" in self.fields

    @property
    def merit(self) -> str:
        """The metric by which one of several is chosen: the task's own, or accuracy without labels to average over."""
        return self.metric if self.labels else "accuracy"

    @property
    def is_free_text(self) -> bool:
        """Whether the answer is written rather than chosen."""
        return self.labels is None and not self.has_choices


def find_tasks() -> dict[str, Path]:
    """Return name -> file of every task, the working directory's first."""
    return find_names("tasks", ".toml")


def load_task(name: str | Path) -> Task:
    """Load a task by its name or by the path of its TOML file.

    Raises TaskError for an unknown name (the nearest one is suggested) and for a file that is not
    valid; the message names the file and, where it can be told, the line.
    """
    path = kept_file(str(name)) or (Path(name) if str(name).endswith(".toml") else find_tasks().get(str(name)))
    if path is None:
        known = find_tasks()
        if Path(name).suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
            raise TaskError(
                f"{name}: a task or a mixture's file is expected, and this is the name of data; give the task's name, "
                f"and the data with --data {name}"
            )
        raise TaskError(
            f"unknown task {str(name)!r}; known: {', '.join(known)}.{nearest(str(name), known)} "
            "`promptkit list tasks` tells what each is; a task of your own is a file tasks/NAME.toml, see docs/tasks.md"
        )
    try:
        content = read_input(path, LARGEST_SOURCE)
        settings, text = parse_toml(content), content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise TaskError(f"{path}: no such task file; give a name from `promptkit list` or a path") from error
    except OSError as error:
        raise TaskError(f"{display_path(path)}: {error.strerror}") from error
    except ValueError as error:
        raise TaskError(f"{_place(path, error)}: {error}") from error
    if "tasks" in settings:
        raise TaskError(f"{display_path(path)}: is a mixture of tasks, which only `promptkit build` takes; name a task")
    reserved = {"name": path.stem, "path": path, "hash": hashlib.sha256(content).hexdigest()}
    for key in reserved:
        if key in settings:
            raise TaskError(f"{_find_place(path, text, (key,))}: {key!r} is not a setting of a task file")
    try:
        return Task.model_validate({**settings, **reserved})
    except ValidationError as error:
        raise TaskError(_explain(path, text, error)) from error


def _place(path: Path, error: Exception) -> str:
    line = re.search(r"at line (\d+)", str(error))
    return f"{display_path(path)}:{line.group(1)}" if line else display_path(path)


def _find_place(path: Path, text: str, keys: Sequence[str]) -> str:
    """Return the file and the line where the innermost of `keys` that stands on a line of its own is set."""
    lines: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[+([^\[\],=]+)\]", line):
            header = _split_key(found[1])
            lines.setdefault(header, number)
        elif found := re.match(r"([^=#\[\]{},]+)=", line):
            lines.setdefault((*header, *_split_key(found[1])), number)
    known = [tuple(keys[:count]) for count in range(len(keys), 0, -1)]
    number = next((lines[key] for key in known if key in lines), 0)
    return f"{display_path(path)}:{number}" if number else display_path(path)


def _split_key(text: str) -> tuple[str, ...]:
    return tuple(part.strip(" \t\"'") for part in text.split("."))


def _explain(path: Path, text: str, error: ValidationError) -> str:
    # What is misspelt comes before what is missing for it.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    keys = [str(key) for key in first["loc"] if key != "[key]"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        allowed = _allowed(keys)
        message = f"unknown setting {keys[-1]!r}; allowed: {', '.join(allowed)}.{nearest(keys[-1], allowed)}"
    elif first["type"] == "missing":
        message = f"{'.'.join(keys)!r} is missing"
    elif keys:
        message = f"{'.'.join(keys)}: {message}"
    found = "" if first["type"] in ("extra_forbidden", "missing", "value_error") else f", got {first['input']!r:.60}"
    return f"{_find_place(path, text, keys)}: {message}{found}"


def _allowed(keys: list[str]) -> list[str]:
    if keys[0] == "fields":
        return list(Column.model_fields)
    model: Any = TaskSource if keys[0] == "data" and len(keys) > 1 else Task
    return [name for name in model.model_fields if name not in ("name", "path", "hash") or model is TaskSource]
