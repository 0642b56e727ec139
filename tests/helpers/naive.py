"""Small random networks, tokenizers of every kind, and the scorer one would write without thinking of speed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from promptkit.models import Model
from promptkit.scoring import score

CORPUS = [
    "Text: the soup was good and cold. Sentiment: positive",
    "Text: the bread was awful and warm. Sentiment: negative",
    "Label the following review with either positive or negative.",
    "Question: what is it? Answer: yes no maybe Science and Technology, Business, Sports, World",
] * 4
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CLOSE = 1e-4  # nats
INSTRUCTION = (
    "Label the following review with either positive or negative.\n\n"
    "Text: the soup was good and cold.\nSentiment: positive\n\nText: the bread was awful.\nSentiment: negative\n\n"
)
QUERIES = ["the soup was cold", "the bread was good and warm", "what is it?", "x", "the soup was cold and awful"]
CHOICES = [" positive", " negative", " Science and Technology", " Science"]
ROWS: list[dict[str, Any]] = [
    *({"prompt": f"{INSTRUCTION}Text: {query}\nSentiment:", "choices": CHOICES} for query in QUERIES),
    {"prompt": f"{INSTRUCTION}Text: x\nSentiment: ", "choices": ["positive", "negative"]},  # joins inside a token
    {"prompt": "", "choices": ["yes", " no"]},
]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
#: Per architecture, what its configuration needs beside `SMALL`.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "gpt_neox": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        "sliding_window": 8,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mistral": {"sliding_window": 8},
}
#: Architectures whose state cannot be shared, or that take no tree: scored in a slower way.
SLOW: dict[str, dict[str, Any]] = {
    "bloom": {"n_head": 4, "n_layer": 2},
    "mamba": {"state_size": 4, "expand": 2, "conv_kernel": 4},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    "jamba": {
        "mamba_d_state": 4,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
}


@cache
def network(kind: str, vocabulary: int) -> Any:
    """A network of an architecture with random weights, the same each time."""
    torch.manual_seed(0)
    extra = {**SLOW, **ARCHITECTURES, "bert": {}}[kind]
    config = AutoConfig.for_model(kind, **{**SMALL, "vocab_size": vocabulary, **extra})
    return AutoModelForCausalLM.from_config(config).eval()


@cache
def tokenizer(kind: str = "byte-level", *, bos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, trained on `CORPUS`; with `bos`, it puts a special token before text."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    options: dict[str, Any] = {"special_tokens": special, "vocab_size": 400, "show_progress": False}
    if kind == "byte-level":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**options, unk_token="<unk>")
    else:
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
    backend.train_from_iterator(CORPUS, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        chat_template=CHAT,
    )


@cache
def model(architecture: str = "llama", kind: str = "byte-level", *, bos: bool = True) -> Model:
    """A random model, ready to score."""
    chosen = tokenizer(kind, bos=bos)
    return Model.of(f"{architecture}/{kind}", network(architecture, len(chosen)), chosen)


def naive_logprobs(scored: Model, prompt: str, choices: Sequence[str]) -> list[float]:
    """The log-likelihood of every choice (nats): one full forward pass each, no cache, no batch, no mask."""
    return [naive_logprob(scored, prompt, choice) for choice in choices]


def naive_logprob(scored: Model, prompt: str, choice: str) -> float:
    """One choice: encode prompt and choice together, run them, add up what follows their last common token."""
    encode = scored.tokenizer.encode
    whole = encode(prompt + choice, add_special_tokens=False)
    alone = encode(prompt, add_special_tokens=False)
    start = 0
    while start < min(len(alone), len(whole) - 1) and alone[start] == whole[start]:
        start += 1
    bos = scored.tokenizer.bos_token_id
    if start == 0 or encode("x")[0] == bos:
        whole, start = [bos, *whole], start + 1
    with torch.no_grad():
        logits = scored.network(input_ids=torch.tensor([whole])).logits[0]
    values = logits.double().log_softmax(-1)
    return sum(float(values[at - 1, whole[at]]) for at in range(start, len(whole)))


def many_rows(count: int = 40) -> list[dict[str, Any]]:
    """Queries behind one long instruction."""
    words = random.Random(0).choices(["the", "soup", "was", "good", "cold", "bread", "awful"], k=4 * count)
    texts = [" ".join(words[4 * row : 4 * row + 4]) for row in range(count)]
    return [{"prompt": f"{INSTRUCTION * 3}Text: {t} {i}\nSentiment:", "choices": CHOICES} for i, t in enumerate(texts)]


def assert_naive(scored: Model, rows: list[dict[str, Any]], **options: Any) -> None:
    """Every score is that of the plain pass, and so is the choice."""
    table = score(scored, rows, **options)
    for row, prediction in zip(rows, table.predictions, strict=True):
        wanted = naive_logprobs(scored, row["prompt"], row["choices"])
        assert prediction.logprobs == pytest.approx(wanted, abs=CLOSE)
        assert prediction.predicted == wanted.index(max(wanted))
