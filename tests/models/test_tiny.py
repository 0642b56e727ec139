"""The model in the wheel: what its files promise, in promptkit and outside of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

import promptkit
from promptkit.adapters.loading import load_model
from promptkit.building.build import build_prompts
from promptkit.models import Model
from promptkit.scoring import score

FOLDER = Path(promptkit.__file__).parent / "models" / "tiny"
MEGABYTES_IN_THE_WHEEL = 13

Row = Mapping[str, Any]


@pytest.fixture(scope="module")
def tiny() -> Model:
    """The model as promptkit loads it."""
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[Row]:
    """Prompts of the task `reviews` with and without demonstrations."""
    return [prompt for k in (0, 4) for prompt in build_prompts("reviews", "sentiment/plain", k=k, limit=12)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer as plain transformers loads it."""
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(FOLDER)
    return loaded


def test_it_fits_in_the_wheel() -> None:
    """Weights and tokenizer together are small, and the weights are safetensors."""
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MEGABYTES_IN_THE_WHEEL * 1_000_000
    assert [path.name for path in FOLDER.glob("*.safetensors")] == ["model.safetensors"]
    assert not [*FOLDER.glob("*.bin"), *FOLDER.glob("*.pt"), *FOLDER.glob("*.pkl")]


def test_plain_transformers_gives_the_same_logits(tiny: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """A Llama of 1,024 positions that loads anywhere, whose logits are those promptkit computes with."""
    plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert type(plain).__name__ == "LlamaForCausalLM"
    assert plain.config.max_position_embeddings == 1_024
    ids = torch.tensor([tokenizer("Text: The soup is cold.\nSentiment:")["input_ids"]])
    with torch.inference_mode():
        assert torch.allclose(plain(ids).logits, tiny.network(ids).logits, atol=1e-4)
        start = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 12}
        cached, again = (plain.generate(**start, use_cache=cache, pad_token_id=0) for cache in (True, False))
    assert cached.tolist() == again.tolist()


def test_batches_and_order_change_nothing(tiny: Model, prompts: list[Row]) -> None:
    """The scores of a prompt depend on nothing but the prompt."""
    whole = score(tiny, prompts).logprobs
    small = score(tiny, prompts, batch_tokens=16).logprobs
    turned = score(tiny, prompts[::-1]).logprobs[::-1]
    for at, *others in zip(whole, small, turned, strict=True):
        for other in others:
            assert other == pytest.approx(at, abs=1e-4)


def test_bfloat16_changes_answers_by_rounding_alone(tiny: Model, prompts: list[Row]) -> None:
    """In bfloat16 the difference of two choices moves by little, and only close answers flip."""
    half = score(load_model("tiny", dtype="bfloat16", device="cpu"), prompts)
    for full, rounded in zip(score(tiny, prompts).logprobs, half.logprobs, strict=True):
        margin, found = full[0] - full[1], rounded[0] - rounded[1]
        assert found == pytest.approx(margin, abs=0.25)


def test_plain_peft_trains_an_adapter(tokenizer: PreTrainedTokenizerBase) -> None:
    """LoRA without promptkit: a few steps lower the loss."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    adapted = get_peft_model(plain, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    ids = torch.tensor([tokenizer("Text: The soup is cold.\nSentiment: zip")["input_ids"]])
    losses = []
    for _ in range(5):
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


@settings(deadline=None, max_examples=100)
@given(text=st.text().filter(lambda text: "<|" not in text))
def test_any_text_comes_back(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Encoding and decoding give the text again, whatever it holds."""
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_numbers_go_digit_by_digit_and_newlines_stay(tokenizer: PreTrainedTokenizerBase) -> None:
    """Every digit and every newline is a token of its own."""
    tokens = [tokenizer.decode([number]) for number in tokenizer("31 + 42\n\n= 73\n")["input_ids"]]
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("314273")
    assert tokens.count("\n") == 3


def test_chat_turns_have_their_marks(tokenizer: PreTrainedTokenizerBase) -> None:
    """The chat template marks roles, ends turns, and opens the assistant's."""
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|system|>Be brief.<|end|><|user|>Hello<|end|><|assistant|>"
    assert len(tokenizer(rendered)["input_ids"]) < len(rendered) / 2
