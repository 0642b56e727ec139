"""The encoder: special tokens once, joins, chat turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import SentencePieceBPETokenizer
from transformers import LlamaTokenizer

from promptkit.errors import DataError, ModelError
from promptkit.models.tokens import Encoder, count_shared
from promptkit.prompts.prompt import Message
from tests.helpers.naive import CORPUS, tokenizer

KINDS = ("byte-level", "unigram", "wordpiece")
TEXTS = st.text(alphabet=st.sampled_from("abc posi tive:\n.é🙂"), max_size=20)
TURNS = (Message("system", "Label it."), Message("user", "the soup"))


def llama_tokenizer(**options: Any) -> LlamaTokenizer:
    """A tokenizer of Llama 2's kind: SentencePiece pieces, byte fallback, a space before the first word."""
    trained = SentencePieceBPETokenizer()
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trained.train_from_iterator(
        CORPUS, vocab_size=330, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    return LlamaTokenizer(vocab=model["vocab"], merges=merges, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_special_token_stands_in_front_once_and_nothing_behind(kind: str) -> None:
    """A tokenizer with BOS and EOS gives BOS once and no EOS; text that brings its BOS gets no second one."""
    encoder = Encoder(tokenizer(kind))
    assert encoder.before == (1,)
    for text in ("the soup", "<s>the soup"):
        ids = encoder.encode(text)
        assert ids[0] == 1
        assert ids.count(1) == 1
        assert 2 not in ids


def test_tokenizer_without_special_tokens_gets_none() -> None:
    """A tokenizer that puts nothing in front of text (as GPT-2's) stays that way."""
    encoder = Encoder(tokenizer(bos=False))
    assert encoder.before == ()
    assert encoder.encode("the soup") == tokenizer(bos=False).encode("the soup")


def test_llama_tokenizer_with_sentencepiece_pieces() -> None:
    """A SentencePiece tokenizer joins across a space and across characters that fall back to bytes."""
    encoder = Encoder(llama_tokenizer())
    for completion in (" positive", " é", "\n"):
        joined = encoder.join("Text: the soup\nSentiment:", completion)
        assert list(joined.ids) == encoder.encode("Text: the soup\nSentiment:" + completion)
        assert joined.start == len(encoder.encode("Text: the soup\nSentiment:"))


def test_truncation_and_padding_of_the_tokenizer_file_are_not_applied() -> None:
    """A tokenizer.json that truncates or pads neither cuts a prompt nor fills it up."""
    cut = type(tokenizer())(tokenizer_object=tokenizer().backend_tokenizer, bos_token="<s>", eos_token="</s>")
    wanted = cut.encode("the soup was good and cold", add_special_tokens=False)
    cut.backend_tokenizer.enable_truncation(2)
    cut.backend_tokenizer.enable_padding(length=50)
    assert Encoder(cut).encode("the soup was good and cold", chat=True) == wanted


class CountingTokenizer:
    """A tokenizer that counts the texts it is given."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, texts: str | list[str], **options: Any) -> Any:
        self.count += len(texts)
        return tokenizer()(texts, **options)


def test_texts_are_encoded_once() -> None:
    """Prompts that are measured first and scored then, or are there twice, are tokenized once; not kept for ever."""
    counting: Any = CountingTokenizer()
    encoder = Encoder(counting)
    counting.count = 0
    rows = [("the soup", " was"), ("the soup", " is"), ("the soup", " was")]
    assert encoder.join_all(rows) == encoder.join_all(rows) == Encoder(tokenizer()).join_all(rows)
    assert counting.count == 3
    encoder.encode_all([" soup" * 2**15 + str(number) for number in range(40)])  # more tokens than are kept
    assert encoder.encode_all(["the soup"]) == [encoder.encode("the soup")]
    assert counting.count == 3 + 40 + 1


def test_join_starts_where_the_prompt_ends() -> None:
    """Where no token crosses the join, what is scored is the completion's own tokens."""
    joined = Encoder(tokenizer()).join("Sentiment:", " positive")
    assert tokenizer().decode(list(joined.ids[joined.start :])) == " positive"
    assert not joined.spans


def test_join_inside_a_token_is_scored_from_the_last_shared_token() -> None:
    """A token that swallows the prompt's last space is scored whole, and reported."""
    joined = Encoder(tokenizer()).join("Sentiment: ", "positive")
    assert tokenizer().decode(list(joined.ids[joined.start :])) == " positive"
    assert joined.spans


def test_join_without_a_prompt_stands_behind_bos_or_eos() -> None:
    """An empty prompt leaves a first token to predict from: BOS, and EOS where there is no BOS."""
    assert Encoder(tokenizer(bos=False)).join("", "x").ids[0] == 1
    no_bos = type(tokenizer())(tokenizer_object=tokenizer(bos=False).backend_tokenizer, eos_token="</s>")
    joined = Encoder(no_bos).join("", "x")
    assert joined.ids[0] == 2
    assert joined.start == 1


def test_join_without_any_opening_token_is_an_error() -> None:
    """A tokenizer with neither BOS nor EOS cannot score the first token of a text, and says so."""
    bare = type(tokenizer())(tokenizer_object=tokenizer(bos=False).backend_tokenizer)
    with pytest.raises(ModelError, match=r"neither a BOS nor an EOS token .* set bos_token in tokenizer_config.json"):
        Encoder(bare).join("", "x")


def test_empty_completion_is_an_error() -> None:
    """A completion without a character has nothing to score."""
    with pytest.raises(DataError, match="the completion of prompt 'Sentiment:' is empty"):
        Encoder(tokenizer()).join("Sentiment:", "")


@pytest.mark.parametrize("kind", KINDS)
@given(prefix=TEXTS, completion=TEXTS.filter(bool))
def test_join_is_the_joint_encoding_for_any_text(kind: str, prefix: str, completion: str) -> None:
    """For any text: the ids are those of the whole, the start is shared, and something is scored."""
    encoder = Encoder(tokenizer(kind))
    joined = encoder.join(prefix, completion)
    whole, alone = encoder.encode(prefix + completion), encoder.encode(prefix)
    assert joined.ids in (tuple(whole), (1, *whole))
    assert 1 <= joined.start < len(joined.ids)
    assert joined.ids[: joined.start] in (tuple(alone[: joined.start]), (1,))
    assert joined.spans == (whole[: len(alone)] != alone or len(whole) == len(alone))


def test_text_without_any_token_is_an_error() -> None:
    """A prompt and completion of spaces only, which WordPiece does not see, cannot be scored."""
    with pytest.raises(DataError, match="neither the prompt nor its completion has a character"):
        Encoder(tokenizer("wordpiece", bos=False)).join("", " ")


@given(left=st.lists(st.integers(0, 2), max_size=12), right=st.lists(st.integers(0, 2), max_size=12))
def test_count_shared_counts_leading_equals(left: list[int], right: list[int]) -> None:
    """The shared length is the number of leading tokens that are equal, found by halving."""
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    assert count_shared(left, right) == shared


def test_chat_prefix_is_the_tokenizers_own_rendering() -> None:
    """Chat turns go through the tokenizer's template, whose BOS is the only one."""
    encoder = Encoder(tokenizer())
    prefix = encoder.chat_prefix(TURNS)
    assert prefix == "<s><|system|>\nLabel it.</s>\n<|user|>\nthe soup</s>\n<|assistant|>\n"
    assert encoder.encode(prefix, chat=True).count(1) == 1


def test_chat_completion_is_what_the_template_makes_of_the_answer() -> None:
    """A template that trims turns trims the target; the end of the turn is left out."""
    assert Encoder(tokenizer()).chat_completion(TURNS, " positive") == "positive"


def test_chat_completion_keeps_what_opens_the_turn() -> None:
    """A template that opens the assistant's turn with an empty thinking block has it in the prompt, not the target."""
    thinking = type(tokenizer())(
        tokenizer_object=tokenizer().backend_tokenizer,
        chat_template="{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<think></think>{% endif %}"
        "{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    )
    encoder = Encoder(thinking)
    assert encoder.chat_prefix(TURNS).endswith("<end><assistant><think></think>")
    assert encoder.chat_completion(TURNS, " end") == "end"


def test_missing_chat_template_is_an_error() -> None:
    """Chat turns without a chat template: one line that says what to do instead."""
    plain = type(tokenizer())(tokenizer_object=tokenizer().backend_tokenizer)
    with pytest.raises(ModelError, match=r"has no chat template: use plain prompts \(--plain\)"):
        Encoder(plain).chat_prefix(TURNS)


def test_template_that_refuses_a_role_is_an_error() -> None:
    """A chat template that knows no system turn: its own words, in one line."""
    strict = type(tokenizer())(
        tokenizer_object=tokenizer().backend_tokenizer,
        chat_template="{% if messages[0].role == 'system' %}{{ raise_exception('no system\nrole') }}{% endif %}",
    )
    with pytest.raises(ModelError, match=r"no system role \(asked for the turns system, user\); use plain"):
        Encoder(strict).chat_prefix(TURNS)
