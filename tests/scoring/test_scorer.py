"""Scores equal those of one plain forward pass per choice, whatever is shared, batched or cached."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging

from promptkit.costs.flops import forward_flops, shape_of
from promptkit.models import Model
from promptkit.prompts.prompt import Message, Prompt
from promptkit.scoring import score
from promptkit.scoring.forward import Network
from promptkit.scoring.log_likelihood import ExecutionMode, Usage, prepare_scoring, run_scoring
from promptkit.scoring.prefix_tree import build_tree
from tests.helpers.naive import (
    ARCHITECTURES,
    CLOSE,
    ROWS,
    SLOW,
    SMALL,
    assert_naive,
    many_rows,
    model,
    naive_logprobs,
    network,
    tokenizer,
)


@pytest.mark.parametrize("kind", ["byte-level", "unigram", "wordpiece"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_the_naive_pass_along_the_prefix_tree(architecture: str, kind: str) -> None:
    """Any architecture and tokenizer: multi-token choices, joins inside a token, windows shorter than the prompt."""
    scored = model(architecture, kind)
    assert_naive(scored, ROWS, batch_tokens=64)
    assert score(scored, ROWS).notes == ()


@pytest.mark.parametrize("architecture", SLOW)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_equal_the_naive_pass_where_nothing_can_be_shared(architecture: str) -> None:
    """Recurrent and hybrid networks, and those with positions of their own, are run whole, and the table says so."""
    scored = model(architecture)
    assert_naive(scored, ROWS, batch_tokens=256)
    (note,) = score(scored, ROWS).notes
    assert note.startswith("what prompts share was computed again for each: ")
    assert "one by one" not in note


@pytest.mark.parametrize("architecture", ["gemma2", "mistral", "gemma3_text"])
def test_sliding_windows_change_the_scores(architecture: str) -> None:
    """The check above can fail: without their windows these networks give other scores."""
    scored = model(architecture)
    wide = AutoConfig.for_model(
        architecture, **{**SMALL, **ARCHITECTURES[architecture], "vocab_size": len(scored.tokenizer)}
    )
    wide.sliding_window = 512
    other = AutoModelForCausalLM.from_config(wide)
    other.load_state_dict(scored.network.state_dict())
    seen = score(scored, ROWS).logprobs[0][0]
    assert abs(seen - score(Model.of("wide", other, scored.tokenizer), ROWS).logprobs[0][0]) > 100 * CLOSE


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_scores_depend_on_nothing_but_the_prompt(data: st.DataObject) -> None:
    """Random texts and choices, any order, subset and batch size: the naive pass's scores."""
    texts = st.text(alphabet=st.sampled_from("abc posi tive:\n.é"), max_size=30)
    prompts = data.draw(st.lists(texts, min_size=1, max_size=6))
    choices = data.draw(st.lists(texts.filter(bool), min_size=1, max_size=4, unique=True))
    rows = [{"prompt": data.draw(st.sampled_from(prompts)) + prompt, "choices": choices} for prompt in prompts]
    assert_naive(
        model(data.draw(st.sampled_from(["llama", "gemma2"]))), rows, batch_tokens=data.draw(st.integers(1, 99))
    )


def test_what_prompts_share_is_computed_once() -> None:
    """The instruction is computed once for all queries: at most 5 % more than the tree's unique tokens."""
    rows = many_rows()
    table = score(model(), rows)
    assert table.tokens_unique <= table.tokens_computed <= 1.05 * table.tokens_unique
    assert table.tokens_prompted > 20 * table.tokens_computed


def test_single_token_choices_come_from_one_position() -> None:
    """More choices of one token each cost nothing but their reading."""
    rows = [{**row, "choices": ["\n"]} for row in many_rows()]
    more = [{**row, "choices": ["\n", ".", "x"]} for row in many_rows()]
    assert score(model(), more).tokens_computed == score(model(), rows).tokens_computed


def test_equal_prompts_are_computed_once() -> None:
    """A prompt that is there twice costs what it costs once, and scores the same."""
    once, twice = score(model(), ROWS[:1]), score(model(), ROWS[:1] * 2)
    assert twice.tokens_computed == once.tokens_computed
    assert twice.logprobs == once.logprobs * 2


def test_counts_of_one_prompt() -> None:
    """Tokens prompted count every choice at full length; FLOPs are those of the tokens that were run."""
    scored = model()
    table = score(scored, [{"prompt": "the soup", "choices": ["\n", "."]}])
    length = len(scored.encoder.encode("the soup"))
    assert table.tokens_prompted == 2 * (length + 1)
    assert table.tokens_computed == table.tokens_unique == length
    assert table.flops == forward_flops(shape_of(scored.network), length, read=1)


def test_tokens_across_the_join_are_counted() -> None:
    """A prompt that ends in a space is scored from before it, and the table counts it."""
    table = score(model(), ROWS)
    assert [prediction.spans for prediction in table.predictions] == [False] * 5 + [True, False]
    assert table.spanning == 1


def test_chat_turns_are_scored_as_the_template_renders_them() -> None:
    """Chat scores are those of the rendered conversation, in which BOS stands once and targets are trimmed."""
    scored = model()
    prompt = Prompt("a", "", (" positive", " negative"), 0, (Message("user", "the soup"),))
    table = score(scored, [prompt], chat=True)
    rendered = "<|user|>\nthe soup</s>\n<|assistant|>\n"
    assert table.logprobs[0] == pytest.approx(naive_logprobs(scored, rendered, ["positive", "negative"]), abs=CLOSE)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
def test_adapter_is_scored_with_its_weights() -> None:
    """A peft model scores like its own naive pass, not like its base."""
    base = AutoModelForCausalLM.from_config(network("llama", len(tokenizer())).config)
    tuned = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False)).eval()
    scored = Model.of("tuned", tuned, tokenizer())
    assert_naive(scored, ROWS)
    with tuned.disable_adapter():
        plain = score(scored, ROWS).logprobs[0][0]
    assert abs(plain - score(scored, ROWS).logprobs[0][0]) > CLOSE


def test_half_precision_stays_near() -> None:
    """bfloat16 along the tree differs from float32 by its rounding only, is trusted, and a note says by how much."""
    half = AutoModelForCausalLM.from_config(network("llama", len(tokenizer())).config).to(torch.bfloat16)
    half.load_state_dict(network("llama", len(tokenizer())).state_dict())
    before = {name: weights.data_ptr() for name, weights in half.named_parameters()}
    table = score(Model.of("half", half, tokenizer()), ROWS)
    (note,) = table.notes
    found = re.fullmatch(r"bfloat16: on (\d+) tokens of .* by (\S+) nats per token on average, (\S+) at most", note)
    assert found
    assert float(found[1]) > 100
    assert 0.001 < float(found[2]) < float(found[3]) < 1
    assert {name: weights.data_ptr() for name, weights in half.named_parameters()} == before
    for found, wanted in zip(table.logprobs, score(model(), ROWS).logprobs, strict=True):
        assert found == pytest.approx(wanted, abs=1.0)


def test_transformers_is_quiet_while_scoring() -> None:
    """What transformers would hint at while a network runs does not reach the terminal; afterwards it may again."""
    heard = set()

    class ListeningLlama(LlamaForCausalLM):
        def forward(self, *inputs: Any, **more: Any) -> Any:
            heard.add(logging.get_verbosity())
            return super().forward(*inputs, **more)

    before = logging.get_verbosity()
    score(replace(model(), network=ListeningLlama(model().network.config).eval()), ROWS)
    assert heard == {logging.ERROR}
    assert logging.get_verbosity() == before != logging.ERROR


def test_network_is_left_as_it_was() -> None:
    """Scoring uses no dropout, and afterwards the network is in training again if it was."""
    training = AutoModelForCausalLM.from_config(network("gpt2", len(tokenizer())).config)
    training.load_state_dict(network("gpt2", len(tokenizer())).state_dict())
    training.train()
    table = score(Model.of("gpt2", training, tokenizer()), ROWS)
    assert training.training
    assert table.logprobs == score(model("gpt2"), ROWS).logprobs


def test_logits_are_read_where_the_network_has_no_choice() -> None:
    """A network without logits_to_keep gives all logits, of which the same are read."""
    scored = model()
    whole = Network(scored)
    whole.takes.discard("logits_to_keep")
    row = scored.encoder.encode("the soup")
    with whole.evaluating():
        assert torch.allclose(whole.run_rows([row], [[1, 2]]), Network(scored).run_rows([row], [[1, 2]]))


class CountingNetwork(Network):
    """A network that notes how many of the caches it was given are held at a time."""

    def __init__(self, scored: Model) -> None:
        super().__init__(scored)
        self.held: WeakSet[Any] = WeakSet()
        self.most = 0

    def run_columns(self, tokens: Any, places: Any, seen: Any, cache: Any, read: Any) -> torch.Tensor:
        self.held.add(cache)
        self.most = max(self.most, len(self.held))
        return super().run_columns(tokens, places, seen, cache, read)


def test_one_cache_serves_all_branches() -> None:
    """Twenty prefixes of their own, one after the other: one cache is held, that of the path at hand."""
    counting = CountingNetwork(model())
    sequences = [((*[prefix] * 100, *range(row, row + 20)), 119) for prefix in range(20) for row in range(10)]
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    scoring = prepare_scoring(tree, row_of, sequences, Usage(shape_of(model().network)))
    with counting.evaluating():
        run_scoring(counting, ExecutionMode.TREE, scoring, 64)
    assert counting.most == 1


def test_progress_grows_to_all_prompts() -> None:
    """Progress counts prompts, never backwards, and ends with all of them."""
    seen: list[tuple[int, int]] = []
    score(model(), many_rows(), batch_tokens=64, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == (40, 40)


def test_no_prompts_give_an_empty_table() -> None:
    """Nothing to score is no error here."""
    table = score(model(), [])
    assert (table.predictions, table.tokens_computed, table.flops) == ((), 0, 0.0)


#: Random small networks of these kinds: full attention, windows, both, soft caps, per-head norms, learnt positions.
