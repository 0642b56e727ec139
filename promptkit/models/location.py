"""Find the local folder of a model by its name, and hash the folder's files."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from promptkit.errors import ModelError, nearest
from promptkit.models.checkpoint import ADAPTER_CONFIG, WANTED, holds_weights, list_files, read_object, refuse_gguf
from promptkit.storage.files import check_all_readable, open_input

SHIPPED = Path(__file__).parent
#: The models that ship with promptkit, by name.
NAMES: tuple[str, ...] = tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))

_NOT_ITS_SCORES = "generation_config.json"
_READ_TEXTS = ("vocab.txt", "merges.txt")  # any other text is for people
_SAYS_NOTHING = ("transformers_version", "_name_or_path")  # keys of config.json that change no network


def locate(name: str) -> Path:
    """Return the folder of a shipped model, a local folder, or a hub repository (downloaded or cached).

    Raises ModelError where there is none: with the nearest shipped name, or what the folder or hub lacks.
    """
    if not name:
        raise ModelError(f"the model's name is empty: expected {_expected()}")
    if name in NAMES:
        return SHIPPED / name
    try:
        folder = Path(name).expanduser()
        there, is_folder = os.path.lexists(folder), folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a home that nobody has, a NUL
        raise ModelError(f"model {name[:100]!r}: no name of a folder: {error}"[:300]) from error
    if is_folder:
        check_all_readable(folder)
        return folder
    if there and folder.is_file():
        refuse_gguf(folder)
        raise ModelError(f"model {name!r} is a file: give the folder it is in")
    if there:
        raise ModelError(f"model {name!r} is neither a folder nor a link to one: give a model's folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: there is no such folder{_beside(folder)}")
    return _fetch(name)


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a peft adapter, not a whole model; trainers leave the base's config.json beside one."""
    return (folder / ADAPTER_CONFIG).is_file() and not ((folder / "config.json").is_file() and holds_weights(folder))


def locate_base(folder: Path) -> tuple[str, Path]:
    """Return the name of the model that an adapter was trained on, and its folder.

    A relative folder counts from the adapter's own folder, else from the working directory. Raises ModelError where
    it is the adapter itself, or another adapter, and what `locate` raises.
    """
    path = folder / ADAPTER_CONFIG
    base = read_object(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{path}: base_model_name_or_path is {base!r:.100}, expected the name of the base model")
    beside = folder / base
    name = str(beside) if base not in NAMES and _is_folder(beside) else base
    try:
        found = locate(name)
    except ModelError as error:
        raise ModelError(f"{folder}: the adapter's base model cannot be loaded: {error}") from error
    if found.samefile(folder):
        raise ModelError(f"{path}: base_model_name_or_path is {base!r}, the adapter itself: name the model it is for")
    if is_adapter(found):
        raise ModelError(
            f"{path}: base_model_name_or_path is {base!r}, which is an adapter too: merge that one into its own base "
            "(promptkit merge), and name the merged folder"
        )
    return name, found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, or a folder that may not be looked into
        return False


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 (hex) of all that decides what the model answers: weights, configuration, tokenizer.

    File names and contents count, places and dates do not. A file is read once per process while it is
    unchanged.
    """
    total = sha256()
    for name, path in list_files(folder).items():
        status = path.stat()
        total.update(f"{name}\0{_file_hash(path, status.st_size, status.st_mtime_ns)}\0".encode())
    return total.hexdigest()


def hash_model(name: str) -> str:
    """Return the hash that the model of this name has when it is loaded, without loading it; raises ModelError."""
    folder = locate(name)
    if not is_adapter(folder):
        return fingerprint(folder)
    _, base = locate_base(folder)
    return join_hashes(fingerprint(base), fingerprint(folder))


def join_hashes(base: str, adapter: str) -> str:
    """Return the hash of a model with an adapter around it."""
    return sha256(f"{base}\0{adapter}".encode()).hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file that may change the scores of a text, by name.

    Texts for people and the settings of generation are left out. Of config.json its values count, neither its layout
    nor the release that wrote it.
    """
    hashes = {}
    for name, path in list_files(folder).items():
        if name == "config.json":
            hashes[name] = _hash_configuration(path)
        elif name != _NOT_ITS_SCORES and (path.suffix != ".txt" or name in _READ_TEXTS):
            status = path.stat()
            hashes[name] = _file_hash(path, status.st_size, status.st_mtime_ns)
    return hashes


def makes_network(name: str) -> bool:
    """Whether the file of this name holds weights or the network's configuration, not the tokenizer."""
    return name == "config.json" or name.endswith(".safetensors")


def _hash_configuration(path: Path) -> str:
    kept = {key: value for key, value in read_object(path).items() if key not in _SAYS_NOTHING}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1024)
def _file_hash(path: Path, size: int, changed: int) -> str:
    with open_input(path) as file:
        total = sha256()
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _fetch(name: str) -> Path:
    """Return the folder of a hub repository's snapshot; subfolders and pickled weights are not fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED), ignore_patterns=["*/*", "consolidated*"]))
    except HFValidationError as error:
        raise ModelError(f"unknown model {name!r}: expected {_expected()}.{nearest(name, NAMES)}") from error
    except GatedRepoError as error:
        raise ModelError(f"model {name!r} is gated: accept its terms on the hub, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"unknown model {name!r}: no such folder, and the hub has none by that name (or it is private); "
            f"expected {_expected()}.{nearest(name, NAMES)}"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"unknown model {name!r}: no such folder, and the hub cannot be reached ({_first_line(error)}); "
            f"without a network: {_expected(hub=False)}.{nearest(name, NAMES)}"
        ) from error


def _expected(*, hub: bool = True) -> str:
    return f"{', '.join(NAMES) or 'none shipped'}, a model folder{' or a hub id (owner/name)' if hub else ''}"


def _beside(folder: Path) -> str:
    names = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    return f".{nearest(folder.name, names)}" if nearest(folder.name, names) else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removeprefix("Got: ")
