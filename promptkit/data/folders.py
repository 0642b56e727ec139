"""Find the files of a data folder that is laid out as on the Hugging Face hub, and nothing outside of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from promptkit.errors import DataError, InputError
from promptkit.storage.files import is_there, open_input
from promptkit.storage.paths import display_path, lies_in, real_path
from promptkit.storage.rows import SUFFIXES

#: The bytes of a README that are looked at.
_MOST = 2**20
_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)


def find_split(folder: Path, split: str, name: str | None = None) -> list[Path]:
    """Return the files of one split: those that the README's `configs` name, else those that are called after it.

    `name` is a configuration: of the README, or a folder in the folder. Files of a split are `train.csv`,
    `train-00000-of-00002.parquet`, or all in `train/`, in the folder itself or its `data/`.

    Raises DataError where there are none, and for a file that is not in the folder, of another kind or on the network.
    """
    configs = _read_head(folder).get("configs")
    found = _find_named(folder, configs, split, name) if configs else list(_find_usual(folder, split, name))
    if not found:
        some = f", configuration {name!r}" if name else ""
        raise DataError(
            f"folder {display_path(folder)}, split {split!r}{some}: cannot be loaded: no files of it are there, "
            f"such as {split}.jsonl; put files such as train.jsonl there"
        )
    for path in found:
        check_data_inside(folder, path)
        if path.suffix not in SUFFIXES:
            raise DataError(
                f"{display_path(path)}: unknown kind of file {path.suffix!r}; allowed: {', '.join(SUFFIXES)}"
            )
    return found


def check_data_inside(folder: Path, path: Path) -> None:
    """Raise DataError for a file or folder of a task's data that a link or `..` puts outside of `folder`."""
    if not lies_in(path, folder):
        raise DataError(
            f"{display_path(folder)}: {path.name} is a link to outside of the folder ({real_path(path)}), and a task's "
            "data are read from the folder alone; give what lies elsewhere with --data"
        )


def read_feature_names(folder: Path, name: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return column -> the names that the README's `dataset_info` gives its ids; none where it says nothing."""
    infos = _read_head(folder).get("dataset_info")
    found: dict[str, tuple[str, ...]] = {}
    for info in infos if isinstance(infos, list) else [infos]:
        if not isinstance(info, Mapping) or (name and info.get("config_name") != name):
            continue
        for feature in info.get("features") or ():
            if (names := _class_names(feature)) and isinstance(feature.get("name"), str):
                found[feature["name"]] = names
    return found


def _class_names(feature: Any) -> tuple[str, ...]:
    kind = feature.get("dtype") if isinstance(feature, Mapping) else None
    label = kind.get("class_label") if isinstance(kind, Mapping) else None
    names = label.get("names") if isinstance(label, Mapping) else None
    if isinstance(names, Mapping):  # '0': negative
        names = [names.get(str(number), names.get(number)) for number in range(len(names))]
    return tuple(map(str, names)) if isinstance(names, list) and None not in names else ()


def _read_head(folder: Path) -> Mapping[str, Any]:
    """Return the YAML at the top of the folder's README; raises DataError where it is damaged."""
    path = folder / "README.md"
    if not is_there(path):
        return {}
    check_data_inside(folder, path)
    try:
        with open_input(path) as file:
            text = file.read(_MOST).decode("utf-8", "replace")
    except InputError:
        raise
    except OSError as error:
        raise DataError(f"{display_path(path)}: cannot be read ({error.strerror})") from error
    head = _HEAD.match(text.removeprefix("\ufeff"))
    if head is None:
        return {}
    import yaml

    try:
        read = yaml.safe_load(head[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{display_path(path)}: its YAML head cannot be read: {reason}") from error
    return read if isinstance(read, Mapping) else {}


def _find_named(folder: Path, configs: Any, split: str, name: str | None) -> list[Path]:
    config = _choose_config(folder, configs, name)
    base = config.get("data_dir", "")
    patterns = _patterns(config.get("data_files", [{"split": split, "path": "*"}]), split)
    return [path for pattern in patterns for path in _glob(folder, f"{base}/{pattern}" if base else pattern)]


def _choose_config(folder: Path, configs: Any, name: str | None) -> Mapping[str, Any]:
    known = [each for each in configs if isinstance(each, Mapping)] if isinstance(configs, list) else []
    names = [str(each.get("config_name", "default")) for each in known]
    wanted = [each for each, called in zip(known, names, strict=True) if called == (name or "default")]
    wanted = wanted or ([] if name else [each for each in known if each.get("default")])
    if not wanted and (name or len(known) != 1):
        raise DataError(
            f"{display_path(folder / 'README.md')}: its configurations are {', '.join(names) or 'none'}; name one of "
            "them with `name` under [data]"
        )
    return (wanted or known)[0]


def _patterns(given: Any, split: str) -> Iterator[str]:
    """Yield the patterns of one split in what a README has under `data_files`."""
    if isinstance(given, Mapping):
        given = [{"split": name, "path": paths} for name, paths in given.items()]
    for each in given if isinstance(given, list) else [given]:
        own = each if isinstance(each, Mapping) else {"split": "train", "path": each}
        if own.get("split", "train") == split:
            paths = own.get("path")
            yield from map(str, paths if isinstance(paths, list) else [paths])


def _glob(folder: Path, pattern: str) -> list[Path]:
    """Return the folder's files that a pattern of its README names; raises DataError for one that reaches outside."""
    parts = PurePosixPath(pattern).parts
    if not parts or pattern.startswith("/") or ".." in parts or re.search(r"::|:/|\\|\0|^~", pattern):
        raise DataError(
            f"{display_path(folder / 'README.md')}: names {pattern!r}, which is not a file in the folder; a data "
            "folder is read from itself alone, and what lies elsewhere is given with --data"
        )
    try:
        found = sorted(path for path in folder.glob(pattern) if is_there(path))
    except (ValueError, NotImplementedError, OSError) as error:
        raise DataError(f"{display_path(folder / 'README.md')}: {pattern!r} cannot be looked for: {error}") from error
    return [path for path in found if path.name != "README.md"]


def _find_usual(folder: Path, split: str, name: str | None) -> Iterator[Path]:
    """Yield the files that are called after a split, in the first place that has any."""
    above = [folder / name, folder / "data" / name] if name else []
    for base in [*above, folder, folder / "data"]:
        if not base.is_dir():
            continue
        stem = re.compile(rf"{re.escape(split)}([-_.].*)?")
        inside = [path for path in base.iterdir() if path.suffix in SUFFIXES and stem.fullmatch(path.stem)]
        inside += [path for path in (base / split).glob("*") if path.suffix in SUFFIXES]
        files = [path for path in inside if is_there(path)]
        if files:
            yield from sorted(files)
            return
