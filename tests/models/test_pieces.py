"""A text encoded in pieces gives the ids of the text encoded whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from promptkit.models.pieces import find_splitter
from promptkit.models.tokens import Encoder
from tests.helpers.naive import CORPUS, tokenizer

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA), "isolated"), BYTES]),
    "qwen": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA.replace(r"\p{N}{1,3}", r"\p{N}")), "isolated"), BYTES]
    ),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "tiny": pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
LINES = [line + end for line in CORPUS for end in ("\n", "\n\n", " \n", "1\n\r\n", ".\n", "'s\n  ")]


def train(pre_tokenizer: Any, special: Any = "<s>", normalizer: Any = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE that has merged across newlines wherever it may."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    if normalizer:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 500, "initial_alphabet": alphabet, "show_progress": False, "special_tokens": [special]}
    backend.train_from_iterator(LINES, trainers.BpeTrainer(**options))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


TOKENIZERS = {name: train(split, normalizer=normalizers.NFC()) for name, split in SPLITS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=150)
@given(texts=st.lists(st.text(alphabet=st.sampled_from("ab 1\n\n\r\t.'sé\u0301\u3000<"), max_size=40), max_size=4))
def test_ids_are_those_of_the_whole_text(name: str, texts: list[str]) -> None:
    """Letters, digits, spaces and newlines in any order: as the tokenizer encodes each text at once."""
    encoder = Encoder(TOKENIZERS[name])
    for text in (*texts, "".join(texts), "a\n".join(texts)):
        assert encoder.encode(text, chat=True) == TOKENIZERS[name].encode(text, add_special_tokens=False)


def test_lines_are_pieces() -> None:
    """A text is cut where a letter or digit meets a newline, and nothing is lost."""
    for known in TOKENIZERS.values():
        split = find_splitter(known)
        assert split
        assert split("Text: so 9\n\nText: x.\nb\n") == ["Text: so 9", "\n\nText: x.\nb", "\n"]


@pytest.mark.parametrize(
    "whole",
    [
        tokenizer("unigram"),
        tokenizer("wordpiece"),
        train(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        train(pre_tokenizers.Metaspace()),
        train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{L}+\s+"), "isolated"), BYTES])),
        train(BYTES),
        train(SPLITS["gpt2"], normalizer=normalizers.Lowercase()),
        train(SPLITS["gpt2"], AddedToken("a\nb", special=True)),
        train(SPLITS["gpt2"], AddedToken("<s>", rstrip=True, special=True)),
    ],
)
def test_other_tokenizers_get_whole_texts(whole: PreTrainedTokenizerFast) -> None:
    """Where a token might reach across a newline, or a piece's beginning be seen as a text's, nothing is cut."""
    assert find_splitter(whole) is None
    text = "the soup\nwas good\n\nthe bread"
    assert Encoder(whole).encode(text, chat=True) == whole.encode(text, add_special_tokens=False)


class CountingTokenizer:
    """A tokenizer that counts the characters it is given."""

    def __init__(self) -> None:
        self.backend_tokenizer = TOKENIZERS["gpt2"].backend_tokenizer
        self.all_special_ids: list[int] = []
        self.count = 0

    def __call__(self, texts: str | list[str], **options: Any) -> Any:
        self.count += sum(map(len, [texts] if isinstance(texts, str) else texts))
        return TOKENIZERS["gpt2"](texts, **options)


def test_shared_lines_are_encoded_once() -> None:
    """Of a hundred prompts behind the same demonstrations only the queries are new."""
    counting: Any = CountingTokenizer()
    encoder = Encoder(counting)
    counting.count = 0
    shown = "Text: the soup was cold.\nSentiment: negative\n\n" * 20
    encoder.encode_all([f"{shown}Text: {number}.\nSentiment:" for number in range(100)])
    assert counting.count < len(shown) + 100 * 30
