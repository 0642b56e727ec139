"""Write a report's files, replacing those that a report wrote there and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from promptkit.errors import RunError
from promptkit.storage.files import check_inside, check_readable, read_input, write_whole
from promptkit.storage.parsing import parse_json
from promptkit.storage.paths import lies_in
from promptkit.storage.staging import is_hidden, sweep_folder

#: Says which files of a folder a report wrote, by the hashes of what it wrote.
LIST = "files.json"
_KIND = "files of promptkit report"


def check_folder(folder: Path) -> None:
    """Raise RunError where the folder holds something and no report, so that nothing of it is for a report to write."""
    _read_list(folder)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write the files (path in the folder -> content) and return their paths; remove those of an earlier report.

    Stopped in the middle, it can be started again. Raises RunError, before anything is written, where a file is
    there that no report wrote or that was changed since.
    """
    before = _read_list(folder)
    for name in [*before, *files]:
        path = folder / name
        check_inside(folder, path)
        if path.is_symlink() or path.is_dir() or (path.exists() and _hash_file(path) not in before.get(name, [])):
            raise RunError(f"{path}: was not written by a report, or was changed since; move it, or give another --out")
    after = {name: [_hash(content)] for name, content in files.items()}
    both = {name: [*before.get(name, []), *after.get(name, [])] for name in {**before, **after}}
    for parent in {(folder / name).parent for name in files}:
        sweep_folder(parent)
    _write_list(folder, both)
    for name, content in files.items():
        write_whole(folder / name, content)
    for name in before.keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    _write_list(folder, after)
    return [folder / name for name in files]


def _hash_file(path: Path) -> str:
    check_readable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_list(folder: Path, hashes: Mapping[str, list[str]]) -> None:
    content = {"kind": _KIND, "files": dict(sorted(hashes.items()))}
    write_whole(folder / LIST, json.dumps(content, indent=1).encode() + b"\n")


def _read_list(folder: Path) -> dict[str, list[str]]:
    """Return name -> hashes of what a report wrote, empty for a folder that is empty or not there."""
    try:
        sweep_folder(folder)
        names = {path.name for path in folder.iterdir() if not is_hidden(path.name)}
        check_inside(folder, folder / LIST)
        listed = parse_json(read_input(folder / LIST)) if LIST in names else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: is no folder for a report ({error}); give another --out") from error
    if names and not (isinstance(listed, dict) and listed.get("kind") == _KIND and _is_plain(folder, listed)):
        raise RunError(f"{folder}: holds something that no report wrote; give another --out")
    return dict(listed.get("files", {}))


def _is_plain(folder: Path, listed: Mapping[str, object]) -> bool:
    """Whether every file listed is one inside the folder, so that none elsewhere is ever replaced or removed."""
    files = listed.get("files")
    return (
        isinstance(files, dict)
        and all(isinstance(hashes, list) for hashes in files.values())
        and all("\0" not in name and lies_in(folder / name, folder) for name in files)
    )
