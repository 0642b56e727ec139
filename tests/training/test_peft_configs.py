"""Every kind of adapter trains what it should and nothing else, and plain peft loads it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from promptkit.adapters.card import read_card
from promptkit.adapters.loading import load_model
from promptkit.adapters.reference_outputs import ask_again
from promptkit.errors import ModelError, PromptkitWarning, TrainError
from promptkit.models import Model
from promptkit.models import quantization as quantize
from promptkit.scoring import score
from promptkit.training import train
from promptkit.training.batches import collate, encode_pairs, read_pairs
from promptkit.training.lora import wrap
from promptkit.training.loss import completion_loss
from promptkit.training.peft_configs import first_weights, plain_weights
from tests.helpers.training_fakes import files, model, rows, saved, settings, weights

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MAMBA = {"num_hidden_layers": 2, "state_size": 4, "conv_kernel": 4}
MIXTRAL = {
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
}
KINDS = ("lora", "rslora", "dora", "pissa", "ia3")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A base model in a folder of its own."""
    return saved(model(), tmp_path_factory.mktemp("models") / "base")


def config(path: Path) -> dict[str, Any]:
    return json.loads((path / "adapter_config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_and_loads_in_plain_peft(kind: str, base: Model, tmp_path: Path) -> None:
    """Training lowers the loss; `load_model` and plain peft give the same scores, which are not the base model's."""
    adapter = train(base, rows(32), kind=kind, epochs=3, learning_rate=0.02, out=tmp_path / kind)
    assert adapter.losses[-1] < adapter.losses[0]
    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.name), str(adapter.path))
    plain = Model.of("plain", network.eval(), base.tokenizer)
    ours, theirs, before = (
        score(each, rows(4)).logprobs for each in (load_model(str(adapter.path), device="cpu"), plain, base)
    )
    assert ours == theirs
    assert ours != before
    assert read_card(adapter.path).settings.kind == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["gpt2", "gpt_neox"])
def test_each_kind_fits_each_architecture(kind: str, shape: str, tmp_path: Path) -> None:
    """Every trained weight of every kind moves from where it started, whatever the layers are called."""
    adapter = train(model(shape), rows(8), kind=kind, epochs=2, learning_rate=0.01, out=tmp_path / "adapter")
    moved = [name for name, weight in weights(adapter).items() if "lora_B" in name or "ia3" in name]
    assert len(moved) >= 4
    neutral = 1.0 if kind == "ia3" else 0.0
    assert all((weights(adapter)[name] != neutral).any() for name in moved)


@pytest.mark.parametrize("kind", ["dora", "pissa", "ia3"])
def test_fresh_adapter_changes_nothing(kind: str) -> None:
    """Before the first step every kind leaves the network's scores as they are."""
    given = {"rank": None, "alpha": None} if kind == "ia3" else {}
    fresh = wrap(model(), settings(kind=kind, **given))
    ids = torch.arange(20)[None]
    torch.testing.assert_close(fresh(ids).logits, model().network(ids).logits, atol=1e-5, rtol=1e-4)


def test_kinds_are_what_they_are_called(base: Model, tmp_path: Path) -> None:
    """The configuration that peft reads says rsLoRA, DoRA, IA3; PiSSA becomes plain LoRA of twice the rank."""
    found = {}
    for kind in KINDS:
        found[kind] = config(train(base, rows(8), kind=kind, epochs=1, out=tmp_path / kind).path)
    assert found["rslora"]["use_rslora"]
    assert found["rslora"]["lora_alpha"] == 16
    assert found["dora"]["use_dora"]
    assert found["ia3"]["peft_type"] == "IA3"
    assert (found["pissa"]["r"], found["pissa"]["lora_alpha"]) == (16, 32)
    assert found["pissa"]["init_lora_weights"] is True


def test_pissa_starts_from_the_largest_singular_values() -> None:
    """The first matrices are the best approximation of a layer's weight, the residual is frozen, both make it up."""
    plain = model()
    before = plain.network.model.layers[0].self_attn.q_proj.weight.clone()
    network = wrap(plain, settings(kind="pissa", rank=4, alpha=8))
    layer = network.get_base_model().model.layers[0].self_attn.q_proj
    product = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    values = torch.linalg.svdvals(before)
    torch.testing.assert_close(torch.linalg.matrix_norm(before - product), values[4:].norm())
    torch.testing.assert_close(layer.base_layer.weight + product, before)
    assert torch.equal(plain.network.model.layers[0].self_attn.q_proj.weight, before)
    first = first_weights(network)
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    trained = layer.get_delta_weight("default") + layer.base_layer.weight
    made = plain_weights(network, first) or {}
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.default.weight"
    torch.testing.assert_close(before + 2 * made[name.format("B")] @ made[name.format("A")], trained)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_top_layers_alone_are_adapted(kind: str, tmp_path: Path) -> None:
    """With `top_layers` the lower layers get no adapter, and no gradient flows into them."""
    deep = model(num_hidden_layers=4)
    adapter = train(deep, rows(8), kind=kind, top_layers=1, epochs=1, out=tmp_path / "adapter")
    assert {name.split(".layers.")[1][0] for name in weights(adapter)} == {"3"}
    given = {"rank": None, "alpha": None} if kind == "ia3" else {}
    batch = collate(encode_pairs(deep, read_pairs(rows(4))))
    cost = {}
    for top in (None, 1):
        network = wrap(deep, settings(kind=kind, top_layers=top, dropout=0.0, **given))
        with FlopCounterMode(display=False) as counter:
            loss = completion_loss(network, batch)
            forward = counter.get_total_flops()
            loss.backward()
        cost[top] = counter.get_total_flops() - forward
    assert cost[1] < 0.5 * cost[None]


def test_pissa_of_more_than_a_layer_has(base: Model, tmp_path: Path) -> None:
    """A rank above a layer's width has as many singular values as there are: what is saved loads and says the same."""
    adapter = train(base, rows(8), kind="pissa", rank=48, epochs=2, out=tmp_path / "adapter")
    assert config(adapter.path)["r"] == 96
    assert {min(weight.shape) for weight in weights(adapter).values()} <= {16, 32, 64, 96}
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptkitWarning)
        load_model(str(adapter.path), device="cpu", dtype="float32", on_flip="error")


def test_state_space_layers_that_peft_refuses_are_left_out(tmp_path: Path) -> None:
    """All linear layers of Mamba are those but its head and the one whose weight it reads without calling it."""
    adapter = train(model("mamba", **MAMBA), rows(8), epochs=1, out=tmp_path / "adapter")
    assert {name.split(".")[-3] for name in weights(adapter)} == {"in_proj", "x_proj", "dt_proj"}


def test_experts_are_written_the_same_again(tmp_path: Path) -> None:
    """The configuration of an adapter on a mixture of experts has no order but its names'."""
    adapter = train(model("mixtral", **MIXTRAL), rows(8), epochs=1, out=tmp_path / "adapter")
    written = config(adapter.path)["target_parameters"]
    assert written == sorted(written)
    assert len(written) > 1


@pytest.mark.parametrize("given", [{"kind": "dora"}, {"kind": "pissa"}, {"dropout": 0.1}])
def test_experts_take_plain_lora_alone(given: dict[str, Any], tmp_path: Path) -> None:
    """What peft cannot do with experts that are one weight is refused; the targets that are named instead work."""
    mixtral = model("mixtral", **MIXTRAL)
    what = "dropout" if "dropout" in given else f"a {given['kind']} adapter"
    with pytest.raises(
        TrainError, match=rf"training: {what} goes with linear layers alone, .*\(down_proj, gate.weight, gate_up_proj\)"
    ) as refused:
        train(mixtral, rows(8), out=tmp_path / "adapter", **given)
    targets = str(refused.value).rpartition("the targets ")[2].split(",")
    assert targets == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert weights(train(mixtral, rows(8), targets=targets, epochs=1, out=tmp_path / "adapter", **given))


def test_ia3_leaves_out_names_that_experts_no_longer_have(tmp_path: Path) -> None:
    """Of the layers that peft names for Mixtral those are scaled that it has today."""
    adapter = train(model("mixtral", **MIXTRAL), rows(8), kind="ia3", epochs=1, out=tmp_path / "adapter")
    assert read_card(adapter.path).settings.targets == ("k_proj", "v_proj")
    assert {name.split(".")[-2] for name in weights(adapter)} == {"k_proj", "v_proj"}


def test_top_layers_have_their_experts(tmp_path: Path) -> None:
    """All layers by number are all layers; fewer have the same kinds of weights, and load as they were saved."""
    mixtral = saved(model("mixtral", **{**MIXTRAL, "num_hidden_layers": 3}), tmp_path / "base")
    plain = train(mixtral, rows(8), epochs=1, out=tmp_path / "plain")
    by_number = train(mixtral, rows(8), top_layers=3, epochs=1, out=tmp_path / "by-number")
    name = "adapter_model.safetensors"
    assert files(by_number)[name] == files(plain)[name]
    top = train(mixtral, rows(8), top_layers=1, epochs=1, learning_rate=0.02, out=tmp_path / "top")
    assert weights(top).keys() == {name for name in weights(plain) if ".layers.2." in name}
    assert any(".experts." in name for name in weights(top))
    again = load_model(str(top.path), device="cpu")
    again.network.base_model.merge_adapter(safe_merge=True)
    card = read_card(top.path)
    assert card.probes
    assert ask_again(again, card.probes).largest < 1e-4


def test_targets_by_name(tmp_path: Path) -> None:
    """Named layers alone are adapted; ("all-linear",) is the same as "all-linear"."""
    named = train(model(), rows(8), targets=["q_proj", "v_proj"], epochs=1, out=tmp_path / "named")
    assert {name.split(".")[-3] for name in weights(named)} == {"q_proj", "v_proj"}
    listed = train(model(), rows(8), targets=["all-linear"], epochs=1, out=tmp_path / "listed")
    assert files(listed) == files(train(model(), rows(8), epochs=1, out=tmp_path / "plain"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "loha"}, "training: kind is 'loha': input should be 'lora', 'rslora', 'dora', 'pissa' or 'ia3'"),
        ({"kind": "ia3", "rank": 4}, "an ia3 adapter has no rank, alpha or dropout; leave them out"),
        ({"targets": ["q_proj", "v_prj"]}, r"target 'v_prj' is no layer; known: .*\. Did you mean 'v_proj'\?"),
        ({"targets": "("}, r"a lora adapter of targets '\(' does not fit model 'fake': "),
        ({"targets": 5}, "targets is 5: expected names of layers, or 'all-linear'"),
        ({"probes": -1}, "probes is -1: expected how many rows"),
        ({"top_layers": 3}, "top_layers is 3, but the model has 2 layers"),
        ({"top_layers": 1, "targets": ".*q_proj"}, "top_layers goes with targets by name, not with the pattern"),
        (
            {"top_layers": 1, "targets": ["q_proj", "model.layers.0.self_attn.v_proj"]},
            r"target 'model.layers.0.self_attn.v_proj' is not in the top 1 layers: leave it out, or raise top_layers",
        ),
        ({"top_layers": 1, "targets": ["embed_tokens"]}, "target 'embed_tokens' is not in the top 1 layers"),
        (
            {"kind": "pissa", "targets": ["embed_tokens"]},
            "would change the embedding's weight: leave out the embedding",
        ),
        ({"targets": ".*_(proj|head)"}, "would adapt the head 'lm_head', which gives the logits"),
    ],
)
def test_impossible_adapter_is_one_line(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    """What does not go together is named; the head is never adapted unless it was named itself."""
    with pytest.raises(TrainError, match=message):
        train(model(), rows(8), out=tmp_path / "adapter", **given)
    assert not list(tmp_path.iterdir())


def test_head_can_be_adapted_by_name(tmp_path: Path) -> None:
    """Who names the head gets it."""
    adapter = train(model(), rows(8), targets=["lm_head"], epochs=1, out=tmp_path / "adapter")
    assert {name.split(".")[-3] for name in weights(adapter)} == {"lm_head"}


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_names_in_the_top_layers_are_adapted(kind: str, tmp_path: Path) -> None:
    """With `top_layers` a full name in them, and the head above them, are adapted as named."""
    targets = ["k_proj", "model.layers.1.self_attn.v_proj", "lm_head"]
    adapter = train(model(), rows(8), kind=kind, top_layers=1, targets=targets, epochs=1, out=tmp_path / "adapter")
    ends = [".layers.1.self_attn.k_proj.", ".layers.1.self_attn.v_proj.", ".lm_head."]
    assert {end for name in weights(adapter) for end in ends if end in name} == set(ends)
    assert all(any(end in name for end in ends) for name in weights(adapter))


def test_pissa_spares_a_tied_embedding(tmp_path: Path) -> None:
    """PiSSA takes its start out of the frozen weight, which a tied head must not do to the embedding."""
    with pytest.raises(TrainError, match=r"would change the embedding's weight: .* a head that shares its weight"):
        train(model(tie_word_embeddings=True), rows(8), kind="pissa", targets=["lm_head"], out=tmp_path / "tied")
    assert train(model(), rows(8), kind="pissa", targets=["lm_head"], epochs=1, out=tmp_path / "own")


@pytest.mark.parametrize("given", [{"micro_batch": 3}, {"checkpointing": True}, {"micro_batch": 4, "epochs": 2}])
def test_saving_memory_changes_nothing_else(given: dict[str, Any], tmp_path: Path) -> None:
    """Parts of a batch, also uneven ones, and activations computed twice lead to the same weights, but for rounding."""
    epochs = given.pop("epochs", 1)
    plain = train(model(), rows(19), epochs=epochs, batch_size=8, out=tmp_path / "plain")
    spared = train(model(), rows(19), epochs=epochs, batch_size=8, out=tmp_path / "spared", **given)
    assert spared.losses == pytest.approx(plain.losses, rel=1e-5)
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(spared)[name], weight, atol=2e-4, rtol=1e-3)


def test_qlora_trains_over_four_bits(tmp_path: Path) -> None:
    """The frozen layers keep their 4 bits, the adapter is float32 and learns, and loads over the same 4 bits."""
    pytest.importorskip("bitsandbytes")
    folder = saved(model(hidden_size=64, intermediate_size=128), tmp_path / "base").name
    base = load_model(folder, dtype="nf4", device="cpu")
    layer = base.network.model.layers[0].self_attn.q_proj
    before = layer.weight.clone()
    adapter = train(base, rows(16), learning_rate=0.01, out=tmp_path / "adapter")
    assert adapter.losses[-1] < adapter.losses[0]
    assert torch.equal(layer.weight, before)
    assert before.dtype == torch.uint8
    assert {weight.dtype for weight in weights(adapter).values()} == {torch.float32}
    assert (base.dtype, read_card(adapter.path).dtype) == ("nf4", "nf4")
    again = load_model(str(adapter.path), dtype="nf4", device="cpu")
    assert score(again, rows(4)).logprobs != score(base, rows(4)).logprobs


def test_four_bits_need_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without bitsandbytes the number format is refused in one line that says how to get it."""
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    folder = saved(model(), tmp_path / "base").name
    with pytest.raises(ModelError, match=r"dtype 'nf4' needs bitsandbytes: pip install 'promptkit\[qlora\]', or"):
        load_model(folder, dtype="nf4", device="cpu")
