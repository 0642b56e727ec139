"""An adapter's folder says where it came from, loads everywhere, and is written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from promptkit.adapters.card import Adapter, TrainSettings, count_reached_layers, read_card
from promptkit.adapters.loading import load_model
from promptkit.adapters.merge import merge
from promptkit.errors import RunError, TrainError
from promptkit.models import Model
from promptkit.prompts.pair import Pair
from promptkit.scoring import score
from promptkit.training import train
from tests.helpers.training_fakes import model, saved

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CHOICES = (" negative", " positive")
PAIRS = [
    Pair(str(number), f"Text: {word}. Sentiment:", CHOICES[label], label, choices=CHOICES, task="films",
         template="films/plain", template_hash="abc")
    for number, (word, label) in enumerate([("good", 1), ("bad", 0), ("warm", 1), ("cold", 0)] * 4)
]  # fmt: skip
PROMPTS = [{"prompt": pair.prompt, "choices": list(CHOICES)} for pair in PAIRS[:4]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A base model in a folder of its own."""
    return saved(model(), tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(base: Model, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """A trained adapter."""
    return train(base, PAIRS, learning_rate=0.05, out=tmp_path_factory.mktemp("adapters") / "films")


def test_folder_is_peft_s_and_a_card(adapter: Adapter) -> None:
    """There are peft's two files and promptkit.json; nothing else."""
    names = {path.name for path in adapter.path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "promptkit.json"}


def test_every_file_has_the_mode_that_the_umask_gives(base: Model, tmp_path: Path) -> None:
    """A server that runs as another user can read the weights, where it may read what else is written here."""
    before = os.umask(0o027)
    try:
        out = train(base, PAIRS, epochs=1, out=tmp_path / "adapter").path
        merged = merge(out, tmp_path / "merged", device="cpu").path
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for folder in (out, merged) for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "model.safetensors"} <= modes.keys()
    assert set(modes.values()) == {0o640}


def test_card_says_where_the_adapter_came_from(adapter: Adapter, base: Model) -> None:
    """Template, task, labels, base model, settings and results are read back as they were."""
    card = read_card(adapter.path)
    assert (card.task, card.template, card.template_hash) == ("films", "films/plain", "abc")
    assert (card.base_model, card.base_hash, card.dtype) == (base.name, base.hash, "float32")
    assert card.labels == CHOICES
    assert card.settings == TrainSettings.checked(
        rank=8, alpha=16, dropout=0.0, targets="all-linear", learning_rate=0.05, epochs=3, batch_size=8, seed=0,
        patience=2, chat=False,
    )  # fmt: skip
    assert (card.train.rows, card.train.epochs, card.train.losses) == (16, 3, adapter.losses)
    assert {"torch", "transformers", "peft", "promptkit"} <= card.versions.keys()


def test_card_knows_no_labels_where_pairs_differ(base: Model, tmp_path: Path) -> None:
    """Pairs without choices, or each with its own, leave the labels open; several templates are all named."""
    pairs = [Pair("1", "a", " b", None, template="t/one"), Pair("2", "a", " c", None, template="t/two")]
    card = read_card(train(base, pairs, epochs=1, out=tmp_path / "adapter").path)
    assert (card.labels, card.template) == (None, "t/one, t/two")


def test_promptkit_and_plain_peft_load_the_same(adapter: Adapter, base: Model) -> None:
    """`load_model` and `PeftModel.from_pretrained` give the same scores, and not the base model's."""
    loaded = load_model(str(adapter.path), device="cpu")
    network = AutoModelForCausalLM.from_pretrained(base.name)
    plain = Model.of("plain", PeftModel.from_pretrained(network, str(adapter.path)).eval(), base.tokenizer)
    ours, theirs, before = (score(each, PROMPTS).logprobs for each in (loaded, plain, base))
    assert ours == theirs
    assert ours != before


@pytest.mark.parametrize("kind", ["lora", "rslora", "pissa"])
def test_folder_is_what_vllm_reads(kind: str, base: Model, tmp_path: Path) -> None:
    """Its loader takes low-rank weights of named modules only, and no bias, no saved modules, no DoRA."""
    out = train(base, PAIRS, kind=kind, epochs=1, out=tmp_path / "adapter").path
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["peft_type"], config["bias"], config["modules_to_save"]) == ("LORA", "none", None)
    assert (config["use_dora"], config["use_rslora"], config["init_lora_weights"]) == (False, kind == "rslora", True)
    weights = load_file(out / "adapter_model.safetensors")
    modules = {name.rpartition(".lora_")[0].removeprefix("base_model.model.") for name in weights}
    assert modules == set(config["target_modules"])
    assert {name.rpartition(".lora_")[2] for name in weights} == {"A.weight", "B.weight"}
    assert {min(weight.shape) for weight in weights.values()} == {config["r"]} == {16 if kind == "pissa" else 8}


@pytest.mark.parametrize(
    ("given", "reached"),
    [
        ({}, 3),
        ({"top_layers": 2}, 2),
        ({"targets": ["model.layers.1.self_attn.q_proj", "model.layers.2.mlp.up_proj"]}, 2),
        ({"targets": ["lm_head"]}, 0),
        ({"targets": ["lm_head", "embed_tokens"]}, 3),
        ({"top_layers": 1, "kind": "ia3"}, 1),
    ],
)
def test_gradients_reach_the_lowest_weight(given: dict[str, Any], reached: int, tmp_path: Path) -> None:
    """Whatever the configuration says, the lowest adapted layer is that of the tensors in the file."""
    adapter = train(model(num_hidden_layers=3), PAIRS, epochs=1, probes=0, out=tmp_path / "adapter", **given)
    assert count_reached_layers(adapter.path, 3) == reached


def test_folder_can_be_moved(adapter: Adapter, tmp_path: Path) -> None:
    """No file of the adapter names the place it was written to."""
    shutil.copytree(adapter.path, tmp_path / "elsewhere")
    assert score(load_model(str(tmp_path / "elsewhere"), device="cpu"), PROMPTS).logprobs
    for path in adapter.path.iterdir():
        assert str(adapter.path.parent).encode() not in path.read_bytes()


def test_shipped_base_model_is_kept_as_a_name(tmp_path: Path) -> None:
    """The configuration names the base model as `load_model` takes it, wherever its weights lay."""
    fake = model()
    fake.network.name_or_path = fake.network.config._name_or_path = "/somewhere/site-packages/tiny"
    out = train(Model.of("tiny", fake.network, fake.tokenizer), PAIRS, epochs=1, out=tmp_path / "adapter").path
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    assert read_card(out).base_model == "tiny"
    assert b"site-packages" not in b"".join(path.read_bytes() for path in out.iterdir())


def test_existing_folder_is_never_written_over(base: Model, tmp_path: Path) -> None:
    """Where the output exists already, nothing is trained and nothing is touched."""
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(RunError, match="kept: exists already; choose another folder"):
        train(base, PAIRS, out=tmp_path / "kept", progress=pytest.fail)
    assert (tmp_path / "kept").read_text() == "mine"


def test_failed_write_leaves_nothing(base: Model, tmp_path: Path) -> None:
    """Where the folder cannot be made the message says why, and no half-written folder stays."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/adapter: nothing can be written in .*file; give another --out"):
        train(base, PAIRS, epochs=1, out=tmp_path / "file" / "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_full_disk_leaves_nothing(base: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while the weights are written is one line, and the part that was written is gone."""

    def full(self: Any, folder: str, **_: Any) -> None:
        (Path(folder) / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PeftModel, "save_pretrained", full)
    with pytest.raises(RunError, match="adapter: the adapter cannot be written: No space left on device"):
        train(base, PAIRS, epochs=1, out=tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def test_without_a_place_the_adapter_is_temporary(base: Model) -> None:
    """`out=None` makes a new folder among the system's temporary ones."""
    made = train(base, PAIRS, epochs=1).path
    assert made.is_relative_to(tempfile.gettempdir())
    assert read_card(made).train.rows == 16
    shutil.rmtree(made.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"promptkit\.json: no such file; an adapter trained by promptkit has one"),
        ("{", r"promptkit\.json: invalid JSON: EOF while parsing"),
        ('{"surprise": 1}', r"promptkit\.json: base_model is missing; was it written by another version"),
    ],
    ids=["missing", "not-json", "incomplete"],
)
def test_unreadable_card_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    """A card that is missing, no JSON or incomplete is named with its path."""
    if content is not None:
        (tmp_path / "promptkit.json").write_text(content)
    with pytest.raises(TrainError, match=message):
        read_card(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("settings", []), ("settings", "x"), ("seeds", [1]), ("seeds", "x")])
def test_settings_of_another_kind_are_one_line(key: str, value: object, adapter: Adapter, tmp_path: Path) -> None:
    """Whatever stands where settings or seeds should is told with its place."""
    path = tmp_path / "promptkit.json"
    card = json.loads((adapter.path / path.name).read_text())
    if key == "settings":
        card["settings"] = value
    else:
        card["settings"]["seeds"] = value
    path.write_text(json.dumps(card))
    with pytest.raises(TrainError, match=r"promptkit\.json: settings(\.seeds)? is .*: input should be an object"):
        read_card(path.parent)
