"""Say where the files of a run were, and keep copies of its task and template files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptkit.data.library import kept_file
from promptkit.data.local import Data, DataFiles, RowSets, as_data
from promptkit.data.tasks import Task, load_task
from promptkit.errors import TaskError
from promptkit.storage.files import read_input
from promptkit.templating.template import Template

#: Where templates are kept that were named by a path outside of the template folders; lookups pass over it.
_APART = "_files"
#: How data files are read, beside their path.
READING = ("delimiter", "quoting", "labels_are")
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_SECRET_PARAMETER = re.compile(
    r"(?<=[?&])((?:[\w-]*(?:token|secret|password|signature|credential|api-?_?key)|key|sig|auth|pwd)=)[^&\s'\"]+", re.I
)
_TOKEN = re.compile(r"\b(?:hf_|ghp_|gho_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,}")


def hide_secrets(text: str) -> str:
    """Return a text without the credentials of addresses and without access tokens."""
    return _TOKEN.sub("…", _SECRET_PARAMETER.sub(r"\1…", _USER.sub("", text)))


def describe_place(place: str | Path) -> str:
    """Return a path or name without credentials, relative where it lies in the working directory or in the home."""
    text, path = hide_secrets(str(place)), Path(place)
    if "://" in text or not path.is_absolute():
        return text
    for folder, sign in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(folder):
            return hide_secrets(f"{sign}{path.relative_to(folder).as_posix()}")
    return text


def describe_origin(
    command: str,
    task: Task,
    templates: Sequence[Template],
    settings: Mapping[str, Any],
    *,
    data: Data | None,
    models: Sequence[str],
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what a command needs to be given again, as JSON, and the files to keep, by their names in `sources/`.

    A task that was changed in Python or whose file holds credentials is not kept.
    """
    given = as_data(data)
    tests = [test.partition("=")[0] for test in settings.get("tests", ())]
    sources: dict[str, bytes] = {}
    others = {name: _keep_task(load_task(name), sources) for name in tests}
    origin = {
        "command": command,
        "task": _keep_task(task, sources),
        "task_file": describe_place(task.path),
        "tests": others,
        "templates": {template.name: _keep_template(template, sources) for template in templates},
        "data": describe_place(given.path) if isinstance(given, DataFiles) else None,
        "reading": {name: getattr(given, name) for name in READING} if isinstance(given, DataFiles) else None,
        "rows": given.kind if isinstance(given, RowSets) else None,
        "source": _plain(task.data.model_dump(mode="json", exclude_none=True)),
        "models": [describe_place(model) for model in models],
        "settings": _plain(dict(settings)),
    }
    return origin, sources


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return describe_place(value) if isinstance(value, str) else value


def _keep_task(task: Task, sources: dict[str, bytes]) -> str | None:
    """Add the task's file and return its name; None where it cannot be kept."""
    file = kept_file(str(task.path)) or task.path
    try:
        content = read_input(file)
        is_whole = load_task(file).content_hash == task.content_hash
    except (OSError, TaskError):
        return None
    text = content.decode("utf-8", "replace")
    if hashlib.sha256(content).hexdigest() != task.hash or not is_whole or hide_secrets(text) != text:
        return None
    name = f"tasks/{task.name}.toml"
    sources[name] = content
    return name


def _keep_template(template: Template, sources: dict[str, bytes]) -> str:
    """Add the template's file and those it imports, and return the name of the first."""
    main = next(iter(template.sources))
    inside = main == f"{template.name}.jinja"
    folder = "templates" if inside else f"templates/{_APART}/{template.hash[:16]}"
    for name, source in template.sources.items():
        sources[f"{folder}/{name}"] = source.text.encode()
    return f"{folder}/{main}"


def kept_templates(origin: Mapping[str, str], sources: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the copy of every template that is named by a path, by that path."""
    by_name = {Path(name).with_suffix("").as_posix(): name for name in names if name.endswith(".jinja")}
    found = {}
    for name, file in origin.items():
        for given in [by_name[own] for own in by_name if own == name or own.endswith(f"/{name}")]:
            found[given] = sources / file
    return found
