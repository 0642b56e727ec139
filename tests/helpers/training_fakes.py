"""A byte-level tokenizer, small random networks and rows that the training tests share."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from promptkit.adapters.card import Adapter, TrainSettings
from promptkit.adapters.loading import load_model
from promptkit.models import Model

CORPUS = [
    "Text: the soup was good and cold. Sentiment: positive",
    "Text: the bread was awful and warm. Sentiment: negative",
    "Question: what is it? Answer: yes no maybe",
]
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
CHOICES = [" negative", " positive"]
GOOD, BAD = ["good", "nice", "warm"], ["bad", "awful", "cold"]
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "gpt2": {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "resid_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
    },
    "gpt_neox": {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "qwen2": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
    "gemma": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 64,
    },
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with " positive" as one token, <s> and </s>, and a chat template."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", additional_special_tokens=["<end>"]
    )
    wrapped.chat_template = CHAT
    return wrapped


def model(kind: str = "llama", *, window: int = 128, seed: int = 1, vocab: int | None = None, **shape: Any) -> Model:
    """A random model of one architecture, hidden size 32, two layers, with the tokenizer above."""
    settings = {"hidden_size": 32, "initializer_range": 0.1, **SHAPES.get(kind, {}), **shape}
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocab or len(tokenizer()),
        max_position_embeddings=window,
        bos_token_id=tokenizer().bos_token_id,
        eos_token_id=tokenizer().eos_token_id,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config).eval()
    return Model.of("fake", network, tokenizer(), "0" * 64)


def saved(fake: Model, folder: Path) -> Model:
    """The model again, written to a folder and loaded from there, so that its name can be loaded once more."""
    fake.network.save_pretrained(str(folder))
    fake.tokenizer.save_pretrained(str(folder))
    return load_model(str(folder), device="cpu")


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Labelled reviews that one word decides, as plain rows that serve as pairs and as prompts."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        label = draw.randrange(2)
        noise = " ".join(draw.choices(["the", "soup", "bread", "was", "it"], k=draw.randint(1, 5)))
        prompt = f"Text: {noise} {draw.choice(GOOD if label else BAD)}. Sentiment:"
        made.append(
            {"id": str(number), "prompt": prompt, "completion": CHOICES[label], "label": label, "choices": CHOICES}
        )
    return made


def settings(**changes: Any) -> TrainSettings:
    """Settings of a short training."""
    given = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear", "learning_rate": 0.01}
    rest = {"epochs": 1, "batch_size": 8, "seed": 0, "patience": 1, "chat": False}
    return TrainSettings.checked(**{**given, **rest, **changes})


def files(adapter: Adapter) -> dict[str, bytes]:
    """Return the bytes of an adapter's files by name."""
    return {path.name: path.read_bytes() for path in adapter.path.iterdir()}


def weights(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return an adapter's weights by name."""
    return load_file(adapter.path / "adapter_model.safetensors")
