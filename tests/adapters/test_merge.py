"""A merged model is a plain folder that answers as the adapter did, or it is not written."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from promptkit.adapters.card import CARD, read_card
from promptkit.adapters.loading import load_model
from promptkit.adapters.merge import merge
from promptkit.adapters.reference_outputs import ReferenceOutputs
from promptkit.errors import ModelError, PromptkitWarning, RunError
from promptkit.models import Model
from promptkit.prompts.pair import Pair
from promptkit.scoring import score
from promptkit.training import train
from tests.adapters.test_reference_outputs import CHOICES, PAIRS, edit
from tests.helpers.training_fakes import CORPUS, model, saved

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROMPTS = [{"prompt": pair.prompt, "choices": list(CHOICES)} for pair in PAIRS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A base model in a folder of its own."""
    return saved(model(), tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(base: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learned its rows."""
    return train(base, PAIRS, learning_rate=0.02, epochs=6, out=tmp_path_factory.mktemp("adapters") / "films").path


def turned(probes: ReferenceOutputs) -> dict[str, Any]:
    """The probes with their two choices' scores exchanged: what an adapter that says the opposite would have left."""
    rows = [{**probe.model_dump(), "logprobs": list(reversed(probe.logprobs))} for probe in probes.rows]
    return {**probes.model_dump(), "rows": rows}


def nats(folder: Path) -> Any:
    """The scores of the rows by the model or adapter in a folder."""
    return score(load_model(str(folder), device="cpu"), PROMPTS).logprobs


def test_merged_folder_is_a_plain_model(adapter: Path, tmp_path: Path) -> None:
    """transformers loads it, alone; the scores are the adapter's; its files are a model's and a card."""
    merged = merge(adapter, tmp_path / "merged", device="cpu")
    assert (merged.dtype, merged.verdict and merged.verdict.count, Path(merged)) == ("float32", 16, tmp_path / "merged")
    names = {path.name for path in merged.path.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json", "chat_template.jinja", "promptkit.json"}  # fmt: skip
    network = AutoModelForCausalLM.from_pretrained(merged.path)
    plain = Model.of("plain", network.eval(), AutoTokenizer.from_pretrained(merged.path))
    assert not plain.has_adapter
    for ours, theirs in zip(nats(adapter), score(plain, PROMPTS).logprobs, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)
    assert GenerationConfig.from_pretrained(merged.path).eos_token_id == plain.tokenizer.eos_token_id
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_merged_folder_has_the_adapter_s_card(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card says what was merged and what the probes say; loading the model asks nothing, until it changes."""
    folder = merge(adapter, tmp_path / "merged", device="cpu").path
    card = read_card(folder)
    assert card.merged
    assert (card.merged.probes, card.merged.flipped, card.merged.largest < 1e-3) == (16, 0, True)
    assert card.train == read_card(adapter).train
    with monkeypatch.context() as patch:
        patch.setattr("promptkit.adapters.loading.ask_again", lambda *_: pytest.fail("asked"))
        load_model(str(folder), device="cpu")
    assert card.probes
    edit(folder, probes=turned(card.probes), files_hash="other")
    with pytest.raises(ModelError, match=r"merged: 16 of its 16 probe rows changed their answer"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("kind", ["rslora", "dora", "pissa", "ia3"])
def test_every_kind_of_adapter_is_merged(kind: str, base: Model, tmp_path: Path) -> None:
    """What promptkit can train it can merge."""
    out = train(base, PAIRS, kind=kind, learning_rate=0.02, out=tmp_path / "adapter").path
    folder = merge(out, tmp_path / "merged", device="cpu").path
    for ours, theirs in zip(nats(out), nats(folder), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)
    assert nats(out) != nats(Path(base.name))


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_tied_head_and_embedding_are_parted(targets: list[str], tmp_path: Path) -> None:
    """What an adapter adds to a head is not added to the embedding that shares its weight, nor the other way round."""
    tied = saved(model(tie_word_embeddings=True), tmp_path / "tied")
    out = train(tied, PAIRS, targets=targets, learning_rate=0.02, out=tmp_path / "adapter").path
    folder = merge(out, tmp_path / "merged", device="cpu").path
    for ours, theirs in zip(nats(out), nats(folder), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)
    assert nats(out) != nats(Path(tied.name))
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= load_file(folder / "model.safetensors").keys()


def test_tied_weights_without_an_adapter_stay_tied(tmp_path: Path) -> None:
    """An adapter on other layers leaves head and embedding one weight, in the folder too."""
    tied = saved(model(tie_word_embeddings=True), tmp_path / "tied")
    out = train(tied, PAIRS, epochs=1, out=tmp_path / "adapter").path
    folder = merge(out, tmp_path / "merged", device="cpu").path
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_dtype_is_that_of_the_training_or_the_one_asked_for(adapter: Path, tmp_path: Path) -> None:
    """The sum is rounded to the number format, and the files say so."""
    folder = merge(adapter, tmp_path / "merged", dtype="bfloat16", device="cpu").path
    assert {str(weight.dtype) for weight in load_file(folder / "model.safetensors").values()} == {"torch.bfloat16"}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(ModelError, match="unknown dtype 'bf16': expected float32, bfloat16, float16, nf4"):
        merge(adapter, tmp_path / "other", dtype="bf16")
    with pytest.raises(ModelError, match="cannot be written in nf4: expected float32, bfloat16 or float16"):
        merge(adapter, tmp_path / "other", dtype="nf4")


def test_rounding_that_changes_labels_is_refused(tmp_path: Path) -> None:
    """Weights so large that bfloat16 rounds them to other labels: refused with a way out, and nothing is left.

    In float32 the same adapter is merged.
    """
    words = sorted({word for text in CORPUS for word in text.replace(":", "").split()})
    choices, draw = tuple(f" {word}" for word in words), random.Random(0)
    rows = [
        Pair(str(row), " ".join(draw.choices(words, k=40)), draw.choice(choices), 0, choices=choices)
        for row in range(32)
    ]
    base = saved(model(initializer_range=1.0), tmp_path / "base")
    out = train(base, rows, learning_rate=1e-6, epochs=1, alpha=512, out=tmp_path / "large").path
    with pytest.raises(
        ModelError, match=r"large: merged in bfloat16, \d+ of its 32 .*; give another --dtype such as float32"
    ):
        merge(out, tmp_path / "merged", dtype="bfloat16", device="cpu")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "large"}
    assert merge(out, tmp_path / "merged", device="cpu").verdict


def test_force_merges_all_the_same(adapter: Path, tmp_path: Path) -> None:
    """With `force` a changed label is a warning, and the card counts it."""
    copy = Path(shutil.copytree(adapter, tmp_path / "films"))
    card = read_card(copy)
    assert card.probes
    edit(copy, probes=turned(card.probes))
    with pytest.warns(PromptkitWarning, match="films: merged in float32, 16 of its 16 probe rows changed"):
        folder = merge(copy, tmp_path / "merged", device="cpu", force=True).path
    told = read_card(folder).merged
    assert told
    assert told.flipped == 16


def test_adapter_without_probes_is_merged_with_a_warning(adapter: Path, tmp_path: Path) -> None:
    """Of an adapter that another trainer wrote nothing can be compared; that is said."""
    copy = Path(shutil.copytree(adapter, tmp_path / "films"))
    (copy / CARD).unlink()
    with pytest.warns(
        PromptkitWarning, match="has no probes, so nothing shows that the merged model answers as it did"
    ):
        merged = merge(copy, tmp_path / "merged", device="cpu")
    assert merged.verdict is None
    assert not (merged.path / CARD).exists()
    assert nats(merged.path)


def test_what_cannot_be_merged_is_refused(base: Model, adapter: Path, tmp_path: Path) -> None:
    """A model, an adapter that is no change of weights, and a folder that exists are one line each."""
    with pytest.raises(ModelError, match=r"base: no adapter: expected adapter_config\.json"):
        merge(base.name, tmp_path / "merged")
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match="mine: exists already"):
        merge(adapter, tmp_path / "mine")
    virtual = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    network = AutoModelForCausalLM.from_pretrained(base.name)
    tuned = peft.get_peft_model(network, virtual)
    tuned.peft_config["default"].base_model_name_or_path = base.name
    tuned.save_pretrained(str(tmp_path / "prompt"))
    with pytest.raises(ModelError, match="prompt: an adapter of the kind PROMPT_TUNING is no change of weights"):
        merge(tmp_path / "prompt", tmp_path / "merged", device="cpu")
    assert not (tmp_path / "merged").exists()


def test_full_disk_leaves_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up is one line, and the part that was written is gone."""

    def full(self: Any, folder: str, **_: Any) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(RunError, match=r"merged: cannot be written \(No space left on device\)"):
        merge(adapter, tmp_path / "merged", device="cpu")
    assert not list(tmp_path.iterdir())
