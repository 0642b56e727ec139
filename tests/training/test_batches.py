"""Training pairs become exactly the tokens that are scored, and batches lose and mix nothing."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from promptkit.errors import DataError, TrainError
from promptkit.models import Model
from promptkit.models.tokens import Encoder
from promptkit.prompts.pair import Pair
from promptkit.prompts.prompt import Message
from promptkit.training.batches import LengthSampler, TokenRow, collate, encode_pairs, read_pairs
from tests.helpers import naive
from tests.helpers.training_fakes import model, tokenizer

MODEL = model()
KINDS = ("byte-level", "unigram", "wordpiece")
#: Texts that each of these sees all of but the spaces.
SEEN = st.text(alphabet=st.sampled_from("ab posi tive:.\n"), max_size=20).map(lambda text: f"{text}x")
TURNS = [{"role": "user", "content": "the soup was good"}]


def encode(prompt: str, completion: str, **fields: object) -> TokenRow:
    return encode_pairs(MODEL, read_pairs([{"prompt": prompt, "completion": completion, **fields}]))[0]


def trained_characters(row: TokenRow, scored: Model, text: str) -> tuple[int, int]:
    """Return from where to where the trained tokens reach in the text that was encoded."""
    spans = scored.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    return spans[-row.targets][0], spans[-1][1]


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=10))
def test_completion_is_exactly_what_has_a_loss(prompt: str, completion: str) -> None:
    """For any texts the ids are those that the scorer joins, and the trained part decodes to the completion."""
    row = encode(prompt, completion, choices=[completion])
    joined = Encoder(tokenizer()).join(prompt, completion)
    assert (row.ids, row.start) == (joined.ids, joined.start)
    if not row.spans:
        assert tokenizer().decode(row.ids[row.start :]).encode() == completion.encode()


@pytest.mark.parametrize("kind", KINDS)
@given(prompt=SEEN, completion=SEEN)
def test_trained_characters_are_the_completion_s(kind: str, prompt: str, completion: str) -> None:
    """Whatever the tokenizer, what is scored is trained and covers the completion: more where a token spans it."""
    scored, text = naive.model(kind=kind), prompt + completion
    [row] = encode_pairs(scored, read_pairs([{"prompt": prompt, "completion": completion, "choices": [completion]}]))
    joined = Encoder(scored.tokenizer).join(prompt, completion)
    assert (row.ids, row.start, row.spans) == (joined.ids, joined.start, joined.spans)
    first, last = trained_characters(row, scored, text)
    assert not text[last:].strip()
    assert not text[len(prompt) : first].strip()
    assert row.spans or not text[first : len(prompt)].strip()


@pytest.mark.parametrize(
    ("kind", "prompt", "completion"),
    [
        ("byte-level", "Sentiment: ", "positive"),
        ("unigram", "Sentiment: posit", "ive"),
        ("wordpiece", "Sentiment: posi", "tive"),
    ],
)
def test_token_across_the_join_is_trained(kind: str, prompt: str, completion: str) -> None:
    """Where the end of the prompt and the label are one token, that token is trained, and the row says so."""
    row = {"prompt": prompt, "completion": completion, "choices": [completion]}
    scored = naive.model(kind=kind)
    [encoded] = encode_pairs(scored, read_pairs([row]))
    assert encoded.spans
    assert encoded.targets >= 1
    first, last = trained_characters(encoded, scored, prompt + completion)
    assert first < len(prompt) < last == len(prompt + completion)


def test_one_of_the_choices_gets_no_end() -> None:
    """A completion that is a choice ends where scoring ends."""
    row = encode("Sentiment:", " positive", choices=[" negative", " positive"])
    assert tokenizer().decode(row.ids[row.start :]) == " positive"


@pytest.mark.parametrize("choices", [[], [" 4", " 5"]], ids=["free-text", "chain-of-thought"])
def test_generated_text_gets_an_end(choices: list[str]) -> None:
    """Free text, and a rationale before its target, are followed by the end-of-text token."""
    row = encode("What is 2 + 2?", " two and two are 4", choices=choices)
    assert tokenizer().decode(row.ids[row.start :]) == " two and two are 4</s>"


def test_chat_answer_ends_as_the_template_ends_it() -> None:
    """With chat, the prompt is the rendered turns, and a generated answer ends with the turn's own token."""
    pairs = read_pairs([{"prompt": "", "completion": " good soup", "messages": TURNS}], chat=True)
    row = encode_pairs(MODEL, pairs, chat=True)[0]
    assert tokenizer().decode(row.ids) == "<s>user\nthe soup was good<end>\n<s>assistant\ngood soup<end>"
    assert tokenizer().decode(row.ids[row.start :]) == "good soup<end>"


def test_pair_longer_than_the_window_is_refused() -> None:
    """Nothing is cut: the message names the pair, its length in tokens, and what the model takes."""
    with pytest.raises(TrainError, match=r"training pair 'long'.*completion 1\).*at most 128: shorten"):
        encode("x" * 300, " positive", id="long", choices=[" positive"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no training pairs: expected at least one row"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a"}], "row 2: 'completion' is missing, found prompt"),
        ([{"prompt": 3, "completion": "b"}], "row 1: 'prompt' is 3: expected text"),
        (["a b"], "row 1 is a str: expected a Pair or"),
        ([{"prompt": "a", "completion": "b", "messages": ["hello"]}], r"row 1: 'messages' is \['hello'\]: expected"),
        ([{"id": "x", "prompt": "a", "completion": ""}], r"row 1 \(id 'x'\): the completion is empty"),
    ],
)
def test_malformed_row_is_named(rows: list[dict[str, object]], message: str) -> None:
    """A row without text to learn is an error that names the row and what was found."""
    with pytest.raises(DataError, match=message):
        read_pairs(rows)


def test_chat_needs_messages() -> None:
    """Plain rows cannot be trained as chat; the message says how to build such rows."""
    with pytest.raises(DataError, match=r"row 1 \(id '0'\): no messages: build the pairs with chat=True"):
        read_pairs([{"prompt": "a", "completion": "b"}], chat=True)


def test_pairs_pass_through_unchanged() -> None:
    """Pairs, and rows of a data set, mean the same."""
    pair = Pair("1", "a", "b", 0, messages=(Message("user", "a"),), template="t", choices=("b",))
    row = {"id": "1", "prompt": "a", "completion": "b", "label": 0, "template": "t", "choices": ["b"]}
    assert read_pairs([pair, {**row, "messages": [{"role": "user", "content": "a"}]}]) == [pair, pair]


def test_batch_reads_the_position_before_each_target() -> None:
    """The logits at t predict the token at t + 1, every row counts the same, and padding is not attended to."""
    batch = collate([TokenRow((5, 6, 7, 8), 2), TokenRow((5, 9), 1)])
    assert batch["ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch["attention"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["loss_mask"].tolist() == [[False, True, True], [True, False, False]]
    assert batch["targets"].tolist() == [7, 8, 9]
    assert batch["weights"].tolist() == [0.25, 0.25, 0.5]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=200), st.integers(1, 20), st.integers(0, 3))
def test_every_row_comes_once_per_epoch(lengths: list[int], batch_size: int, epoch: int) -> None:
    """An epoch is a permutation of the rows, the same for the same seed and epoch."""
    sampler = LengthSampler(lengths, batch_size, seed=4)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(lengths))) == list(range(len(sampler)))
    assert list(sampler) == list(sampler)


def test_order_follows_seed_and_epoch_alone() -> None:
    """Another seed or epoch gives another order, and no global random state is read or moved."""
    lengths = [1] * 100

    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthSampler(lengths, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    first, state = order(0, 0), (random.getstate(), torch.get_rng_state().tolist())
    torch.manual_seed(99)
    assert order(0, 0) == first
    torch.set_rng_state(torch.tensor(state[1], dtype=torch.uint8))
    assert first != order(1, 0)
    assert first != order(0, 1)
    assert (random.getstate(), torch.get_rng_state().tolist()) == state


def test_batches_hold_rows_of_similar_length() -> None:
    """Little of a batch is padding; that the batch which is not full comes last keeps the others together."""
    lengths = [10 + (37 * number) % 90 for number in range(1001)]
    order = list(LengthSampler(lengths, 16, seed=0))
    batches = [[lengths[number] for number in order[first : first + 16]] for first in range(0, len(order), 16)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert sum(lengths) / padded > 0.95
