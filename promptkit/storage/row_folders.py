"""Read rows from a file, a folder of shards or a `datasets` folder, one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from promptkit.errors import DataError, RunError
from promptkit.storage.files import check_all_readable, is_there, read_input
from promptkit.storage.parsing import parse_json_object
from promptkit.storage.paths import lies_in
from promptkit.storage.rows import number_rows
from promptkit.storage.staging import sweep

#: Files that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` leave in their folder.
_STATE, _SPLITS = "state.json", "dataset_dict.json"
#: `train-00000-of-00008.parquet`: the split, the shard's number, how many there are, the ending.
SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5,})-of-(?P<count>\d{5,})(?P<suffix>\.jsonl|\.parquet)")
#: Which split is read where a folder has several.
SPLIT = "train"


def holds_rows(source: str) -> bool:
    """Return whether a name is that of a file of rows, or of a folder of rows, rather than of a task."""
    path = Path(source)
    if path.is_dir():
        return any((path / name).is_file() for name in (_STATE, _SPLITS)) or bool(_find_shards(path))
    return source.endswith(".jsonl") or (is_there(path) and not source.endswith(".toml"))


def iterate_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a source, each with the place where it stands; of several splits, the one called train.

    Sources: a .jsonl, .json, .csv, .tsv or .parquet file; a folder of shards (`train-00000-of-00008.parquet`), which
    may be in `data/`, as on the hub; a folder that `Dataset.save_to_disk` wrote. Only .json is held in memory.

    Raises DataError where there is none of that, where shards are missing, and for what cannot be read.
    """
    if not path.is_dir():
        yield from _iterate_file(path)
    elif (path / _STATE).is_file() or (path / _SPLITS).is_file():
        yield from _iterate_folder(path)
    else:
        for shard in _choose_shards(path):
            yield from _iterate_file(shard)


def check_no_shards(path: Path) -> None:
    """Raise RunError where there is a shard of FOLDER/NAME.ENDING already: nothing is ever overwritten or mixed."""
    for left in (path, path.parent):
        sweep(left)
    for there in sorted(path.parent.glob(f"*{path.suffix}")):
        match = SHARD.fullmatch(there.name)
        if match and match["split"] == path.stem:
            raise RunError(f"{there}: exists already; give another --out, or remove it first")


def _iterate_file(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lined = path.suffix not in (".json", ".parquet")
    for number, row in number_rows(path):
        yield f"{path}:{number}" if lined else f"{path}, row {number + 1}", row


def _iterate_folder(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets
    import pyarrow

    if (path / _SPLITS).is_file():
        path = path / SPLIT
        if not path.is_dir():
            raise DataError(f"{path.parent}: no split {SPLIT!r}; name the folder of the split to train on")
    check_all_readable(path)
    try:
        _check_parts(path)
        for number, row in enumerate(datasets.load_from_disk(str(path)), 1):
            yield f"{path}, row {number}", row
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a folder that Dataset.save_to_disk wrote: {reason}") from error


def _check_parts(folder: Path) -> None:
    """Raise DataError where a folder of `datasets` names a file that is not in it."""
    parts = parse_json_object(read_input(folder / _STATE)).get("_data_files")
    for part in parts if isinstance(parts, list) else ():
        name = part.get("filename") if isinstance(part, Mapping) else None
        if not isinstance(name, str) or not lies_in(folder / name, folder):
            raise DataError(f"{folder / _STATE}: names {name!r:.200}, which is not a file in the folder")


def _find_shards(folder: Path) -> dict[str, list[re.Match[str]]]:
    """Return the shards of a folder, or of its `data/`, by split."""
    found: dict[str, list[re.Match[str]]] = {}
    names = [str(path) for part in (folder, folder / "data") if part.is_dir() for path in part.iterdir()]
    for match in filter(None, map(SHARD.fullmatch, sorted(names))):
        found.setdefault(Path(match["split"]).name, []).append(match)
    return found


def _choose_shards(folder: Path) -> list[Path]:
    """Return the files of one split in their order; raise DataError where one of them is missing."""
    found = _find_shards(folder)
    if not found:
        raise DataError(f"{folder}: no shards such as train-00000-of-00008.parquet, and not a folder of `datasets`")
    split = SPLIT if SPLIT in found else next(iter(found))
    if len(found) > 1 and split != SPLIT:
        raise DataError(f"{folder}: shards of {', '.join(found)}, none of {SPLIT!r}: keep one split in the folder")
    shards = found[split]
    count = int(shards[0]["count"])
    if {int(shard["count"]) for shard in shards} != {count} or len(shards) != count:
        raise DataError(f"{folder}: {len(shards)} of the {count} shards of {split!r} are there; make the set again")
    return [Path(shard.string) for shard in shards]
