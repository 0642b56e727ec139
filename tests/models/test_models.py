"""Loading models: names, folders, adapters, fingerprints, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from promptkit.adapters.loading import load_model
from promptkit.errors import ModelError
from promptkit.models import NAMES, load_encoder
from promptkit.scoring import score
from tests.helpers.naive import network, tokenizer

ROWS = [{"prompt": "Text: the soup\nSentiment:", "choices": [" positive", " negative"]}]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as transformers saves it."""
    folder = tmp_path_factory.mktemp("models") / "small"
    network("llama", len(tokenizer())).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the small model that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "small"))


@pytest.fixture(scope="session")
def adapter(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A peft adapter for the small model, as peft saves it."""
    folder = tmp_path_factory.mktemp("adapters") / "tuned"
    torch.manual_seed(0)
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(saved), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    )
    tuned.save_pretrained(folder)
    return folder


def test_folder_is_loaded_as_it_was_saved(saved: Path) -> None:
    """A model folder gives its network in evaluation mode, its tokenizer, its window and its number format."""
    loaded = load_model(str(saved), device="cpu")
    assert (loaded.name, loaded.device, loaded.dtype, loaded.window) == (str(saved), "cpu", "float32", 512)
    assert not loaded.network.training
    assert loaded.encoder.encode("the soup") == tokenizer().encode("the soup")[:-1]
    for ours, theirs in zip(loaded.network.parameters(), network("llama", len(tokenizer())).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_encoder_is_loaded_without_weights(folder: Path) -> None:
    """The tokenizer alone can be had where there are no weights."""
    (folder / "model.safetensors").unlink()
    assert load_encoder(str(folder)).encode("the soup") == tokenizer().encode("the soup")[:-1]


def test_shipped_names_are_listed_and_load() -> None:
    """Every name that ships can be loaded, without a network."""
    assert "tiny" in NAMES
    assert load_model(device="cpu").name == "tiny"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_number_format_can_be_chosen(saved: Path, dtype: str) -> None:
    """Weights are loaded in the format that is asked for."""
    loaded = load_model(str(saved), dtype=dtype)
    assert loaded.dtype == dtype
    assert next(loaded.network.parameters()).dtype == getattr(torch, dtype)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
def test_adapter_is_loaded_on_its_base(saved: Path, adapter: Path) -> None:
    """An adapter's folder gives the base model with the adapter on it, and the base model's tokenizer."""
    tuned, base = load_model(str(adapter)), load_model(str(saved))
    assert tuned.encoder.encode("the soup") == base.encoder.encode("the soup")
    assert tuned.hash != base.hash
    assert score(tuned, ROWS).logprobs != score(base, ROWS).logprobs
    assert load_encoder(str(adapter)).encode("the soup") == base.encoder.encode("the soup")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapter_names_its_base_by_a_folder_beside_it(saved: Path, adapter: Path, tmp_path: Path) -> None:
    """A base model given by a relative path is found from the adapter's own folder."""
    moved = Path(shutil.copytree(adapter, tmp_path / "tuned"))
    shutil.copytree(saved, tmp_path / "base")
    settings = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "../base"}))
    assert score(load_model(str(moved)), ROWS).logprobs == score(load_model(str(adapter)), ROWS).logprobs


def test_adapter_whose_base_is_gone_is_an_error(adapter: Path, tmp_path: Path) -> None:
    """An adapter that cannot find its base model says which one that was."""
    moved = Path(shutil.copytree(adapter, tmp_path / "tuned"))
    settings = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "/no/base"}))
    with pytest.raises(
        ModelError, match="tuned: the adapter's base model cannot be loaded: model '/no/base': there is"
    ):
        load_model(str(moved))
    (moved / "adapter_config.json").write_text("[]")
    with pytest.raises(
        ModelError, match=r"adapter_config.json: a JSON object is expected, found list; restore the file"
    ):
        load_model(str(moved))


def test_hash_is_that_of_the_files_whatever_their_place(saved: Path, folder: Path) -> None:
    """A copy has the same hash, and so has one with a note on how it was made."""
    (folder / "promptkit.json").write_text("{}")
    (folder / "README.md").write_text("Hello")
    assert load_model(str(folder)).hash == load_model(str(saved)).hash


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"])
def test_hash_changes_with_any_file(folder: Path, name: str) -> None:
    """One byte of the weights, the configuration or the tokenizer makes it another model."""
    before = load_model(str(folder)).hash
    content = bytearray((folder / name).read_bytes())
    if name.endswith(".json"):
        content += b" "
    else:
        content[-1] ^= 1
    (folder / name).write_bytes(bytes(content))
    assert load_model(str(folder)).hash != before


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def broken_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"123")


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 3}')


def missing_layer(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))


def other_sizes(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "intermediate_size": 60}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_weights, r"small: no weights: expected model.safetensors or .*, found chat_template.jinja, config.json"),
        (pickled_weights, r"small: the weights are pickled \(pytorch_model.bin\).* save again with save_pretrained"),
        (no_tokenizer, r"small: no tokenizer: expected tokenizer.json .*, found chat_template.jinja, config.json"),
        (no_config, "small: no config.json: expected a model folder, found "),
        (broken_config, r"small/config\.json: Expecting property name .*; restore the file"),
        (unknown_architecture, "small: the .* cannot be read: .*abacus"),
        (
            broken_weights,
            r"small/model\.safetensors: a damaged safetensors file, .*header.*; copy or",
        ),
        (broken_tokenizer, "small: the tokenizer cannot be read: "),
        (missing_layer, r"small: the weights lack model.layers.2\S+ \(\d+ missing in all\), which would be random"),
        (other_sizes, "small: the model cannot be read: .*size"),
    ],
)
def test_spoilt_folder_is_one_line(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    """Whatever is wrong with a folder: its name, what was found and what was expected, in one line."""
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the model's name is empty: expected tiny"),
        ("./smal", r"model './smal': there is no such folder. Did you mean 'small'\?"),
        ("/no/such/folder", "model '/no/such/folder': there is no such folder"),
        ("a b", "unknown model 'a b': expected tiny"),
        ("small/config.json", "model 'small/config.json' is a file: give the folder it is in"),
    ],
)
def test_unknown_name_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    """A name that is neither shipped nor a folder: what there is, and the nearest name."""
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelError, match=message):
        load_model(name)


def test_hub_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, a hub id says so at once, with what there is locally."""

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Got: ConnectError: no network\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    message = r"unknown model 'tinny': .* the hub cannot be reached \(ConnectError: no network\); without a network: "
    with pytest.raises(ModelError, match=message + r"tiny, a model folder. Did you mean 'tiny'\?"):
        load_model("tinny")


def test_hub_model_is_loaded_from_its_snapshot(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id is fetched without pickles, and then is a folder like any other."""
    asked: dict[str, object] = {}

    def fetch(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert load_model("someone/small").hash == load_model(str(saved)).hash
    assert asked["name"] == "someone/small"
    assert not any(str(pattern).endswith((".bin", ".pt")) for pattern in asked["allow_patterns"])  # type: ignore[attr-defined]


def test_unknown_dtype_and_device_are_errors(saved: Path) -> None:
    """A format or device that there is not: what there is."""
    with pytest.raises(ModelError, match=r"unknown dtype 'float23': expected float32, bfloat16, float16, nf4. Did"):
        load_model(str(saved), dtype="float23")
    with pytest.raises(ModelError, match="unknown device 'gpu': this machine has cpu"):
        load_model(str(saved), device="gpu")


def test_loading_says_nothing_and_importing_is_light(saved: Path) -> None:
    """Loading a model writes nothing to the terminal; importing the module loads neither torch nor transformers."""
    program = (
        "import sys, promptkit.models, promptkit.scoring.predictions, promptkit.models.tokens\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
        f"promptkit.load_model({str(saved)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_model_is_hashed_without_being_loaded(tmp_path: Path) -> None:
    """The hash of a name is the one the loaded model has, also of an adapter."""
    from promptkit.models.location import hash_model
    from promptkit.training import train

    assert hash_model("tiny") == load_model("tiny").hash
    pairs = [{"prompt": "Text: a film\nSentiment:", "completion": " positive"}]
    adapter = train(load_model("tiny"), pairs, rank=1, epochs=1, out=tmp_path / "adapter").path
    assert hash_model(str(adapter)) == load_model(str(adapter)).hash
