"""An adapter is put around its base network as peft does; one that does not fit is refused in one line."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from promptkit.adapters.loading import load_model
from promptkit.adapters.merge import merge
from promptkit.errors import ModelError, PromptkitWarning
from promptkit.models.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from promptkit.scoring import score
from tests.helpers.training_fakes import model, saved, tokenizer

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.tensor([[5, 6, 7, 8, 9]])
ROWS = [{"prompt": "the soup", "choices": [" good", " bad"]}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in a folder of its own."""
    folder = tmp_path_factory.mktemp("models") / "base"
    saved(model(), folder)
    return folder


def make(base: Path, out: Path, config: PeftConfig, added: tuple[str, ...] = (), **options: Any) -> PeftModel:
    """Write an adapter as peft does, every weight drawn; of added tokens the tokenizer stands beside it."""
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(0)
    if added:
        wider = tokenizer().__class__.from_pretrained(base)
        wider.add_tokens(list(added))
        network.resize_token_embeddings(len(wider))
        wider.save_pretrained(out)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(network, config)
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
        tuned.save_pretrained(str(out), **options)
    return tuned.eval()


def lora(**options: Any) -> LoraConfig:
    """A LoRA adapter of two layers."""
    return LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options})


def edit(folder: Path, **changes: Any) -> None:
    """Change settings of an adapter."""
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(network: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """The logits of a few tokens."""
    with torch.no_grad():
        return network(input_ids=ids).logits


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter that a test may spoil."""
    make(base, tmp_path / "films", lora())
    return tmp_path / "films"


KINDS = {
    "plain": lora(),
    "regex": lora(
        target_modules=r".*layers\.[01]\..*(q|v)_proj",
        rank_pattern={r".*\.0\..*q_proj": 1},
        alpha_pattern={r"layers\.1\.self_attn\.v_proj": 3, "q_proj": 5},
    ),
    "excluded": lora(target_modules="all-linear", exclude_modules=r".*layers\.0\..*"),
    "some layers": lora(layers_to_transform=[1], layers_pattern="layers"),
    "saved head": lora(modules_to_save=["lm_head"]),
    "replicated": lora(layer_replication=[[0, 2], [0, 1]]),
    "replicated regex": lora(layer_replication=[[0, 2], [0, 2]], target_modules=r".*\.[13]\..*q_proj"),
    "ia3 regex": IA3Config(
        target_modules=r".*(k|down)_proj", feedforward_modules=r".*down_proj", task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_is_loaded_and_merged_as_peft_does(kind: str, base: Path, tmp_path: Path) -> None:
    """Patterns of layers, ranks and scales give what they give in peft; so does the merged model."""
    theirs = make(base, tmp_path / "films", KINDS[kind])
    ours = load_model(str(tmp_path / "films"), device="cpu")
    assert torch.equal(logits(ours.network), logits(theirs))
    with pytest.warns(PromptkitWarning, match="has no probes"):
        merge(tmp_path / "films", tmp_path / "merged", device="cpu")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert torch.allclose(logits(merged.eval()), logits(theirs), atol=1e-4)


NEW = ("<call>", "</call>")


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (lora(modules_to_save=["embed_tokens"]), True),
        (lora(modules_to_save=["embed_tokens"]), False),
        (lora(modules_to_save=["embed_tokens", "lm_head"]), False),
        (lora(target_modules=["q_proj", "embed_tokens"]), True),
        (lora(), False),
    ],
)
def test_added_tokens_are_loaded(config: PeftConfig, tied: bool, tmp_path: Path) -> None:
    """Of an adapter with tokens of its own the base gets as many embeddings; a shared base stays as it is."""
    saved(model(tie_word_embeddings=tied), tmp_path / "base")
    theirs = make(tmp_path / "base", tmp_path / "films", config, NEW)
    ours = load_model(str(tmp_path / "films"), device="cpu")
    ids = torch.tensor([[5, *ours.tokenizer.convert_tokens_to_ids(list(NEW)), 6]])
    assert torch.equal(logits(ours.network, ids), logits(theirs, ids))
    assert score(ours, [{"prompt": "the soup", "choices": [" good", " <call>"]}]).logprobs
    with pytest.warns(PromptkitWarning, match="has no probes"):
        folder = merge(tmp_path / "films", tmp_path / "merged", device="cpu").path
    merged = load_model(str(folder), device="cpu")
    assert torch.allclose(logits(merged.network, ids), logits(theirs, ids), atol=1e-4)


def test_added_tokens_without_their_rows_are_refused(base: Path, tmp_path: Path) -> None:
    """A head that has no rows for the added tokens would say anything; a token without an embedding is an error."""
    make(base, tmp_path / "films", lora(target_modules=["q_proj", "embed_tokens"]), NEW)
    with pytest.raises(ModelError, match=r"2 added tokens, but does not hold the rows of the output head for them"):
        load_model(str(tmp_path / "films"), device="cpu")
    make(base, tmp_path / "small", lora(), NEW, save_embedding_layers=False)
    loaded = load_model(str(tmp_path / "small"), device="cpu")
    assert score(loaded, ROWS).logprobs
    with pytest.raises(ModelError, match=r"the tokenizer gives token id \d+, but the network has"):
        score(loaded, [{"prompt": "the soup", "choices": [" good", "<call>"]}])


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM"])
def test_adapter_for_another_task_is_refused(task_type: str, adapter: Path) -> None:
    """Its head has no place in a language model."""
    edit(adapter, task_type=task_type)
    with pytest.raises(ModelError, match=rf"{ADAPTER_CONFIG}: task_type is '{task_type}': the adapter is for another"):
        load_model(str(adapter), device="cpu")


def test_head_of_a_classifier_is_not_lost(base: Path, tmp_path: Path) -> None:
    """A classifier's adapter that does not say what it is for is told by its head."""
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    config = lora(task_type=None, modules_to_save=["score"])
    get_peft_model(network, config).save_pretrained(str(tmp_path / "films"))
    with pytest.raises(ModelError, match=r"does not fit its base model.*1 of its \d+ tensors have no place in it"):
        load_model(str(tmp_path / "films"), device="cpu")


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of another prefix."""
    return {name.replace("model.model.", "model."): weight for name, weight in weights.items()}


def partly(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One layer renamed."""
    return {name.replace("layers.0.", "layers.7."): weight for name, weight in weights.items()}


def fewer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half of them gone."""
    return dict(list(weights.items())[::2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "8 of its 8 tensors have no place in it, such as .*, and 8 of its places have no tensor"),
        (partly, "4 of its 8 tensors have no place in it"),
        (fewer, "4 of its places have no tensor"),
    ],
)
def test_weights_that_do_not_fit_are_counted(change: Callable[..., Any], message: str, adapter: Path) -> None:
    """An adapter none or only some of whose tensors fit is refused, at loading and at merging."""
    save_file(change(load_file(adapter / ADAPTER_WEIGHTS)), adapter / ADAPTER_WEIGHTS, {"format": "pt"})
    for use in (load_model, lambda name: merge(name, adapter.parent / "merged")):
        with pytest.raises(ModelError, match=message) as caught:
            use(str(adapter))  # type: ignore[operator]
        assert len(str(caught.value)) < 600
    assert not (adapter.parent / "merged").exists()


def other_shape(adapter: Path) -> None:
    """Cut a matrix."""
    weights = load_file(adapter / ADAPTER_WEIGHTS)
    first = min(weights)
    save_file({**weights, first: weights[first][:, :4].contiguous()}, adapter / ADAPTER_WEIGHTS, {"format": "pt"})


def pickled(adapter: Path) -> None:
    """Leave a pickle in the place of the weights."""
    (adapter / ADAPTER_WEIGHTS).rename(adapter / "adapter_model.bin")


def lfs(adapter: Path) -> None:
    """Leave a pointer of git-lfs."""
    (adapter / ADAPTER_WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def outside(adapter: Path) -> None:
    """Link to weights elsewhere."""
    (adapter / ADAPTER_WEIGHTS).rename(adapter.parent / "w.safetensors")
    (adapter / ADAPTER_WEIGHTS).symlink_to("../w.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_shape, "films: the adapter cannot be read: .*size mismatch"),
        (pickled, r"the adapter's weights are pickled \(adapter_model.bin\)"),
        (lfs, "adapter_model.safetensors: a pointer of git-lfs"),
        (outside, "adapter_model.safetensors: a link to .*outside of the model's folder"),
        (lambda path: edit(path, peft_type="LORO"), "peft_type is 'LORO': expected a kind that peft has"),
        (lambda path: edit(path, r=10**9), "r is 1000000000, but no side of the adapter's tensors"),
        (lambda path: edit(path, rank_pattern={"q_proj": 10**9}), "rank_pattern of 'q_proj' is 1000000000"),
        (
            lambda path: edit(path, layer_replication=[[0, 9]]),
            "layer_replication is .*: expected ranges of the 2",
        ),
        (lambda path: edit(path, layer_replication=[[0, 2]] * 99), "layer_replication makes over 16 x the 2 layers"),
        (lambda path: edit(path, target_modules="("), "target_modules: '\\(' is no regular expression"),
        (lambda path: edit(path, target_modules="nothing"), "target_modules matches no module"),
        (lambda path: edit(path, modules_to_save=["(a+)+$"]), "modules_to_save has .*: expected the name of a module"),
        (
            lambda path: edit(path, megatron_config={"a": 1}),
            "megatron_config reads what is not in the adapter",
        ),
        (lambda path: edit(path, target_modules=3), "films: the adapter cannot be read"),
    ],
)
def test_adapter_that_is_spoilt_is_one_line(spoil: Callable[[Path], None], message: str, adapter: Path) -> None:
    """Whatever is wrong with an adapter's files, the file or setting is named."""
    spoil(adapter)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(adapter), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", [r"(\w+)+\W\W+x", r"(.*)*(.*)*(.*)*(.*)*x", "a{60000}{60000}"])
def test_patterns_are_bounded(key: str, pattern: str, adapter: Path) -> None:
    """A pattern that would run for years or fill the memory ends soon, whatever setting holds it."""
    edit(adapter, **{key: {pattern: 2} if key.endswith("_pattern") else pattern})
    started = time.monotonic()
    with suppress(ModelError):
        load_model(str(adapter), device="cpu")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("named", [".", "../films", "./", "link"])
def test_adapter_that_is_its_own_base_is_refused(named: str, adapter: Path) -> None:
    """However it names itself."""
    if named == "link":
        (adapter / "link").symlink_to(adapter)
    edit(adapter, base_model_name_or_path=named)
    with pytest.raises(ModelError, match=r"base_model_name_or_path is .*, the adapter itself"):
        load_model(str(adapter), device="cpu")


def test_adapter_on_an_adapter_is_refused(adapter: Path) -> None:
    """Also where the two name one another."""
    shutil.copytree(adapter, adapter.parent / "second")
    edit(adapter, base_model_name_or_path="../second")
    edit(adapter.parent / "second", base_model_name_or_path="../films")
    for use in (load_model, lambda name: merge(name, adapter.parent / "merged")):
        with pytest.raises(ModelError, match=r"base_model_name_or_path is '../second', which is an adapter too"):
            use(str(adapter))  # type: ignore[operator]


def test_folder_with_the_base_s_configuration_is_an_adapter(base: Path, adapter: Path) -> None:
    """Trainers leave the base model's config.json beside an adapter's files."""
    shutil.copy(base / "config.json", adapter)
    assert load_model(str(adapter), device="cpu").has_adapter


def test_what_cannot_be_merged_says_why(base: Path, tmp_path: Path) -> None:
    """A bias for layers that have none, and an adapter that is no change of weights."""
    make(base, tmp_path / "bias", lora(lora_bias=True))
    with (
        pytest.warns(PromptkitWarning, match="lora_bias"),
        pytest.raises(ModelError, match=r"bias: an adapter of the kind LORA that cannot be merged: .*no bias"),
    ):
        merge(tmp_path / "bias", tmp_path / "merged", device="cpu")
    make(base, tmp_path / "prompt", PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    edit(tmp_path / "prompt", num_virtual_tokens=10**9)
    with pytest.raises(ModelError, match="num_virtual_tokens is 1000000000"):
        load_model(str(tmp_path / "prompt"), device="cpu")
    assert not (tmp_path / "merged").exists()
