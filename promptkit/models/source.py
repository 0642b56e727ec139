"""A model's name into the local folder that holds its files, and the folder into a fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from promptkit.errors import ModelError, nearest
from promptkit.files import check_all_readable, open_input, read_input
from promptkit.parsing import parse_json

SHIPPED = Path(__file__).parent
#: The models that ship with promptkit, by name.
NAMES: tuple[str, ...] = tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))

_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja", "*.py")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NOT_THE_MODEL = ("promptkit.json", "trainer_state.json")  # how it was made; the weights do not depend on it
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
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_all_readable(folder)
        return folder
    if folder.exists():
        raise ModelError(f"model {name!r} is a file: give the folder it is in")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: there is no such folder{_beside(folder)}")
    return _fetch(name)


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a peft adapter, not a whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def adapter_base(folder: Path) -> str:
    """Return the name of the model that an adapter was trained on.

    A relative folder counts from the adapter's own folder, else from the working directory.
    """
    path = folder / "adapter_config.json"
    try:
        base = parse_json(read_input(path))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: expected a JSON object that names base_model_name_or_path") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"{path}: base_model_name_or_path is {base!r}, expected the name of the base model")
    beside = folder / base
    return str(beside) if base not in NAMES and beside.is_dir() else base


def check_model_folder(folder: Path) -> None:
    """Raise ModelError unless the folder holds a configuration and safetensors weights."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json: expected a model folder, found {_contents(folder)}")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder}: the weights are pickled ({pickles[0]}), and loading a pickle can run any code: load "
            "them where you trust them and save again with save_pretrained(), which writes model.safetensors"
        )
    raise ModelError(f"{folder}: no weights: expected *.safetensors, found {_contents(folder)}")


def check_tokenizer_folder(folder: Path) -> None:
    """Raise ModelError unless the folder holds a tokenizer's files."""
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise ModelError(
            f"{folder}: no tokenizer: expected tokenizer.json (tokenizer.save_pretrained() writes it), "
            f"found {_contents(folder)}"
        )


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 (hex) of all that decides what the model answers: weights, configuration, tokenizer.

    File names and contents count, places and dates do not. A file is read once per process while it is
    unchanged.
    """
    total = sha256()
    for path in _model_files(folder):
        status = path.stat()
        total.update(f"{path.name}\0{_file_hash(path, status.st_size, status.st_mtime_ns)}\0".encode())
    return total.hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file that may change the scores of a text, by name.

    Texts for people and the settings of generation are left out. Of config.json its values count, neither its layout
    nor the release that wrote it.
    """
    hashes = {}
    for path in _model_files(folder):
        if path.name == "config.json":
            hashes[path.name] = _hash_configuration(path)
        elif path.name != _NOT_ITS_SCORES and (path.suffix != ".txt" or path.name in _READ_TEXTS):
            status = path.stat()
            hashes[path.name] = _file_hash(path, status.st_size, status.st_mtime_ns)
    return hashes


def makes_network(name: str) -> bool:
    """Whether the file of this name holds weights or the network's configuration, not the tokenizer."""
    return name == "config.json" or name.endswith(".safetensors")


def _hash_configuration(path: Path) -> str:
    said = json.loads(read_input(path))
    kept = {key: value for key, value in said.items() if key not in _SAYS_NOTHING}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _model_files(folder: Path) -> Iterator[Path]:
    found = {path for pattern in _WANTED for path in folder.glob(pattern) if path.is_file()}
    return (path for path in sorted(found) if path.name not in _NOT_THE_MODEL)


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
        return Path(snapshot_download(name, allow_patterns=list(_WANTED), ignore_patterns=["*/*", "consolidated*"]))
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


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def _beside(folder: Path) -> str:
    names = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    return f".{nearest(folder.name, names)}" if nearest(folder.name, names) else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removeprefix("Got: ")
