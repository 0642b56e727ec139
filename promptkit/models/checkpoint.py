"""List every file that loading a model or an adapter reads, and refuse what is elsewhere, pickled or damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from promptkit.errors import ModelError
from promptkit.storage.files import open_input, read_input
from promptkit.storage.parsing import parse_json_object
from promptkit.storage.paths import lies_in, real_path

Shapes = dict[str, tuple[int, ...]]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: What may be read of a folder, by its names; what no release of transformers opens is among it, and does no harm.
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja", "*.py")
# old names of vocabularies, chat templates of other names, and code that a model's own code imports
_RARE = ("*.model.*", "*.spm", "*.codes", "*.bpe", "additional_chat_templates/*.jinja", "*/*.py")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
)
_OBJECTS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    _INDEX,
    ADAPTER_CONFIG,
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_NOT_THE_MODEL = ("promptkit.json", "trainer_state.json")  # how it was made; the weights do not depend on it
_POINTER, _GGUF = b"version https://git-lfs", b"GGUF"
_NO_LANGUAGE_MODEL = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files that decide what a model or adapter answers, by their names within its folder, sorted.

    Raises ModelError for one that is a link out of the folder or to nothing, or a pointer of git-lfs.
    """
    found = {
        path.relative_to(folder).as_posix(): path
        for pattern in (*WANTED, *_RARE)
        for path in folder.glob(pattern)
        if path.is_symlink() or path.is_file()
    }
    found |= {name: folder / name for name in (*_find_shards(folder), *_find_named(folder))}
    for name in _NOT_THE_MODEL:
        found.pop(name, None)
    listed = {name: path for name, path in sorted(found.items()) if not path.is_dir()}
    for path in listed.values():
        _check_place(folder, path)
        _check_pointer(path)
    return listed


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds. Raises ModelError, naming the file, where it holds none."""
    try:
        return parse_json_object(read_input(path), endless=True)
    except ValueError as error:
        raise ModelError(f"{path}: {_say(error)}; restore the file") from error


def read_shapes(path: Path) -> Shapes:
    """Return the shape of every tensor of a safetensors file. Raises ModelError where it is damaged or none."""
    from safetensors import SafetensorError, safe_open

    _check_pointer(path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: a damaged safetensors file, or another format under that name: {_say(error)}; "
            "copy or download it again"
        ) from error


def check_model_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Raise ModelError unless a folder holds a configuration and whole safetensors weights, and links to nothing else.

    What the configuration says is compared with the weights: their layers, and that they are a language model's.
    """
    path = folder / "config.json"
    if not path.is_file():
        refuse_gguf(folder)
        raise ModelError(f"{folder}: no config.json: expected a model folder, found {contents(folder)}")
    if (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{folder}: a whole model and an adapter ({ADAPTER_CONFIG}) in one folder, of which one would be put on "
            "the other: move each into a folder of its own"
        )
    check_files(folder)
    config = read_object(path)
    weights = _read_weights(folder)
    _check_config(path, config, weights, trust_remote_code)


def check_files(folder: Path) -> None:
    """Raise ModelError where a file that loading reads is elsewhere, a pointer, or no JSON where it should be."""
    files = list_files(folder)
    for name in _OBJECTS:
        if name in files:
            read_object(files[name])
    if "tokenizer_config.json" in files:
        _check_tokenizer_config(files["tokenizer_config.json"])


def check_tokenizer_folder(folder: Path) -> None:
    """Raise ModelError unless the folder holds a tokenizer's files."""
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise ModelError(
            f"{folder}: no tokenizer: expected tokenizer.json (tokenizer.save_pretrained() writes it), "
            f"found {contents(folder)}"
        )


def check_adapter_folder(folder: Path) -> Shapes:
    """Return the shapes of an adapter's tensors. Raises ModelError where its files are not whole and in the folder."""
    check_files(folder)
    path = folder / ADAPTER_WEIGHTS
    if path.is_file():
        return read_shapes(path)
    pickles = _find_pickles(folder)
    if pickles:
        raise ModelError(
            f"{folder}: the adapter's weights are pickled ({pickles[0]}), and loading a pickle can run any code: load "
            f"them with peft where you trust them, then save_pretrained(…), which writes {ADAPTER_WEIGHTS}"
        )
    raise ModelError(f"{folder}: the adapter has no {ADAPTER_WEIGHTS}; restore it, or train again")


def holds_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model, whatever their format."""
    names = (_WEIGHTS, _INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
    return any((folder / name).is_file() for name in names)


def refuse_gguf(path: Path) -> None:
    """Raise ModelError for a GGUF file, or for a folder with one."""
    found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if found and (found[0].suffix.lower() == ".gguf" or _read_start(found[0]).startswith(_GGUF)):
        raise ModelError(
            f"{found[0]}: a GGUF file, which promptkit does not read yet: give the folder or hub id of the model that "
            "it was made from, with safetensors weights"
        )


def contents(folder: Path) -> str:
    """Return the first names in a folder, in words."""
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def _check_place(folder: Path, path: Path) -> None:
    """Raise ModelError for a link to nothing, or out of the folder; the hub's cache links to its own blobs."""
    real, root = real_path(path), real_path(folder)
    if not os.path.isfile(real):
        raise ModelError(f"{path}: a link to {os.readlink(path)!r}, which is no file: restore it, or remove the link")
    if not any(lies_in(real, home) for home in (root, *_find_blobs(root))):
        raise ModelError(
            f"{path}: a link to {real}, outside of the model's folder: copy that file into the folder in its place"
        )


def _find_blobs(root: Path) -> list[Path]:
    """Return where the hub's cache keeps what a snapshot's files link to: its repository's blobs, and all those."""
    repository = root.parent.parent
    if root.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return []
    return [repository / "blobs", repository.parent / "blobs"]


def _check_pointer(path: Path) -> None:
    if _read_start(path).startswith(_POINTER):
        raise ModelError(
            f"{path}: a pointer of git-lfs, not the file itself: run `git lfs pull` in its folder, or download the "
            "model again"
        )


def _read_start(path: Path) -> bytes:
    try:
        with open_input(path) as file:
            return file.read(len(_POINTER))
    except PermissionError as error:
        raise ModelError(f"{path}: cannot be read: {_say(error)}") from error


def _find_shards(folder: Path) -> list[str]:
    """Return the names of the files that a folder's index names, each once.

    Raises ModelError where the index is malformed, or one of them is no safetensors file of the folder.
    """
    path = folder / _INDEX
    if not path.is_file() or (folder / _WEIGHTS).is_file():  # transformers reads the whole file where there is one
        return []
    index = read_object(path)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards or not isinstance(index.get("metadata", {}), dict):
        raise ModelError(f"{path}: expected a weight_map, the name of a file for each tensor; restore the file")
    for tensor, name in shards.items():
        _check_name(path, f"{tensor!r} is in", name)
    return sorted(set(shards.values()))


def _find_named(folder: Path) -> list[str]:
    """Return the file of weights that config.json names in place of the usual one, if any; raises ModelError."""
    path = folder / "config.json"
    if not path.is_file():
        return []
    _check_pointer(path)
    named = read_object(path).get("transformers_weights")
    if named is None:
        return []
    _check_name(path, "transformers_weights is", named)
    return [named]


def _check_name(path: Path, what: str, name: object) -> None:
    """Raise ModelError unless a file that a file names is a safetensors file beside or below it."""
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        found = f"{name!r:.200}"
        raise ModelError(f"{path}: {what} {found}: expected a *.safetensors file, for a pickle can run any code")
    if os.path.isabs(name) or "\\" in name or ".." in name.split("/"):
        raise ModelError(f"{path}: {what} {name!r:.200}: expected a file in the model's folder")
    if not (path.parent / name).is_file():
        raise ModelError(f"{path}: {what} {name!r:.200}, which is not there: download the model again")


def _read_weights(folder: Path) -> Shapes:
    """Return the shapes of all tensors that transformers will read of a model's folder."""
    if part := next(folder.glob("shard-*-model-*-of-*.safetensors"), None):
        raise ModelError(f"{part}: a part of a training's state: save the model again with save_pretrained()")
    if named := _find_named(folder):
        return read_shapes(folder / named[0])
    if (folder / _WEIGHTS).is_file():
        return read_shapes(folder / _WEIGHTS)
    if not (folder / _INDEX).is_file():
        _refuse_other_weights(folder)
    found: Shapes = {}
    for name in _find_shards(folder):
        found |= read_shapes(folder / name)
    shards = read_object(folder / _INDEX)["weight_map"]
    if lost := next((tensor for tensor in shards if tensor not in found), None):
        raise ModelError(
            f"{folder / _INDEX}: {lost!r} is not in {shards[lost]}, nor in another of its files: "
            "index and weights do not belong together; download the model again"
        )
    return found


def _refuse_other_weights(folder: Path) -> None:
    """Raise ModelError for a folder without safetensors weights: what it has in their place, and what to do."""
    refuse_gguf(folder)
    pickles = _find_pickles(folder)
    if pickles:
        raise ModelError(
            f"{folder}: the weights are pickled ({pickles[0]}), and loading a pickle can run any code: load "
            "them where you trust them and save again with save_pretrained(), which writes model.safetensors"
        )
    raise ModelError(f"{folder}: no weights: expected {_WEIGHTS} or {_INDEX}, found {contents(folder)}")


def _find_pickles(folder: Path) -> list[str]:
    return sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))


def _check_config(path: Path, config: Mapping[str, Any], weights: Shapes, trust_remote_code: bool) -> None:
    """Raise ModelError where a configuration is of no language model, or reads what is not in the folder."""
    if "configuration_files" in config:
        raise ModelError(f"{path}: has other configurations by release (configuration_files): leave that entry out")
    names = config.get("architectures")
    for name in names if isinstance(names, list) else ():
        masked = str(name).endswith("MaskedLM") and not config.get("is_decoder")
        if masked or str(name).endswith(_NO_LANGUAGE_MODEL):
            raise ModelError(
                f"{path}: the weights are of a {str(name)[:100]}, whose head is no language model's: expected a model "
                "made to continue text (…ForCausalLM)"
            )
    if trust_remote_code:
        refuse_other_code(path, config)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in _LAYERS:
            if isinstance(layers := part.get(key), int) and not 0 < layers <= len(weights):
                raise ModelError(
                    f"{path}: {key} is {layers:.0f}, but the weights hold {len(weights)} tensors in all: "
                    "configuration and weights do not belong together"
                )


def refuse_other_code(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError where a configuration takes its code from another repository, which no hash would show."""
    for name in _flatten(config.get("auto_map")):
        if "--" in name:
            raise ModelError(
                f"{path}: its code is in another repository ({name:.100}): copy those *.py files into the folder and "
                "name them without it in auto_map"
            )


def _flatten(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _flatten(each)


def _check_tokenizer_config(path: Path) -> None:
    """Raise ModelError where a tokenizer's configuration names a file elsewhere, which would be read from there."""
    for key, value in read_object(path).items():
        if (
            key.endswith("_file")
            and isinstance(value, str)
            and os.path.isfile(value)
            and not lies_in(value, path.parent)
        ):
            raise ModelError(f"{path}: {key} is {value!r:.200}, outside of the model's folder: leave that entry out")


def _say(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())[:200]
