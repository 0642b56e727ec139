"""Networks that are odd, faulty or drawn at random are scored as plain passes would, or refused."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from promptkit.costs.flops import shape_of
from promptkit.errors import ModelError, WindowError
from promptkit.models import Model
from promptkit.scoring import prompt_lengths, score
from promptkit.scoring.execution_mode import choose_way
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
    network,
    tokenizer,
)


class ForgetfulLlama(LlamaForCausalLM):
    """A network that ignores the positions it is given."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        **more: Any,
    ) -> Any:
        return super().forward(input_ids, attention_mask, past_key_values=past_key_values, **more)


class RefusingLlama(LlamaForCausalLM):
    """A network that takes no cache and no padding, though its signature says so."""

    def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, **more: Any) -> Any:
        if attention_mask is not None or more.pop("past_key_values", None) is not None:
            raise RuntimeError("one row\nat a time")
        return super().forward(input_ids, past_key_values=None, **more)


def test_network_that_answers_differently_along_the_tree_is_run_whole() -> None:
    """A probe finds a network that the tree would score wrongly; the scores stay right, and a note says why."""
    scored = replace(model(), network=ForgetfulLlama(model().network.config).eval())
    assert_naive(scored, ROWS)
    (note,) = score(scored, ROWS).notes
    assert "ForgetfulLlama then differs by up to" in note


def test_window_that_the_network_ignores_is_found_out() -> None:
    """A configuration that names a window which the network does not have is seen in rows longer than it."""
    config = copy.deepcopy(model().network.config)
    config.sliding_window = 100
    scored = Model.of("llama", LlamaForCausalLM(config).eval(), tokenizer())
    assert score(scored, ROWS).notes == ()
    assert_naive(scored, many_rows(3))
    assert "LlamaForCausalLM then differs" in score(scored, many_rows(3)).notes[0]


def test_layers_that_count_columns_are_run_row_by_row() -> None:
    """GPT-Neo's local layers look back over columns, not positions, which along a tree are those of other rows."""
    config = AutoConfig.for_model(
        "gpt_neo",
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=96,
        max_position_embeddings=512,
    )
    scored = Model.of("neo", AutoModelForCausalLM.from_config(config).eval(), tokenizer())
    rows = many_rows(12)
    assert_naive(scored, rows)
    assert "counts columns, not positions" in score(scored, rows).notes[0]


def test_network_that_refuses_batches_is_run_one_by_one() -> None:
    """A network that takes neither cache nor padding is still scored, and both reasons are told."""
    scored = replace(model(), network=RefusingLlama(model().network.config).eval())
    assert_naive(scored, ROWS)
    (note,) = score(scored, ROWS).notes
    assert note.endswith("run one by one: RefusingLlama raised RuntimeError: one row at a time")


def stretched(rope: dict[str, Any]) -> Model:
    """A network whose rotary positions change with the length of the text beyond 32 tokens."""
    config = AutoConfig.for_model(
        "llama", **{**SMALL, "vocab_size": len(tokenizer()), "max_position_embeddings": 32, "rope_parameters": rope}
    )
    torch.manual_seed(0)
    return replace(Model.of("stretched", LlamaForCausalLM(config).eval(), tokenizer()), window=512)


def test_positions_that_depend_on_the_length_are_run_one_by_one() -> None:
    """Where rotary positions change with the length of the text, long prompts share nothing, and a note says so."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 32}
    scored = stretched({"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, **factors})
    assert_naive(scored, ROWS)
    note = "LlamaForCausalLM encodes positions differently beyond 32 tokens: run one by one"
    assert score(scored, ROWS).notes == (note,)


def test_frequencies_of_a_longer_text_are_not_kept() -> None:
    """Dynamic rotary positions, which transformers keeps from one pass to the next, do not leak between prompts."""
    scored = stretched({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0})
    fresh = score(stretched({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}), ROWS[:1])
    score(scored, many_rows())
    assert score(scored, ROWS[:1]).logprobs == fresh.logprobs


def test_network_that_is_not_causal_is_an_error() -> None:
    """An encoder whose later tokens change the scores of earlier ones is refused."""
    with pytest.raises(ModelError, match=r"BertLMHeadModel is not causal: .* set is_decoder in its config.json"):
        score(model("bert"), ROWS)


def test_network_that_gives_no_numbers_is_an_error() -> None:
    """Scores that are not numbers are never turned into a prediction."""
    broken = LlamaForCausalLM(model().network.config).eval()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(ModelError, match="model 'llama/byte-level' gives scores that are not numbers"):
        score(replace(model(), network=broken), ROWS)
    rare = LlamaForCausalLM(model().network.config).eval()  # damaged in one token's embedding only
    torch.nn.init.constant_(rare.get_input_embeddings().weight[tokenizer().convert_tokens_to_ids("z")], float("nan"))
    with pytest.raises(ModelError, match="gives scores that are not numbers"):
        score(replace(model(), network=rare), [ROWS[0], {"prompt": "z", "choices": ["a"]}])


def test_tokenizer_of_another_network_is_an_error() -> None:
    """Token ids beyond the embeddings are named before anything is run."""
    small = Model.of("small", network("llama", 50), tokenizer())
    with pytest.raises(ModelError, match=r"model 'small': the tokenizer gives token id .* has 50 embeddings"):
        score(small, ROWS)


def test_prompt_longer_than_the_window_is_an_error() -> None:
    """A prompt is never cut: its record, its length and the window are named."""
    length = prompt_lengths(model(), ROWS)[0]
    narrow = replace(model(), window=length - 1)
    with pytest.raises(WindowError, match=rf"prompt '0' takes {length} tokens, but the window .* is {length - 1}"):
        score(narrow, ROWS[:1])
    assert score(replace(model(), window=length), ROWS[:1]).predictions


KINDS = ["llama", "mistral", "gemma3_text", "gemma2", "qwen3", "gpt2", "jamba"]


@cache
def random_network(kind: str, seed: int) -> Any:
    """A network of a kind whose sizes and weights are drawn."""
    draw = random.Random(f"{kind} {seed}")
    sizes = {"num_hidden_layers": draw.randint(1, 3), "sliding_window": draw.choice([3, 8, 40])}
    if kind in ("llama", "mistral", "gemma2", "qwen3"):
        sizes["num_key_value_heads"] = draw.choice([1, 2, 4])
    if kind in ("gemma3_text", "gpt2", "jamba", "llama"):
        sizes.pop("sliding_window")
    if kind in ("gemma3_text", "jamba"):
        sizes["num_hidden_layers"] = 2
    given_sizes = {**SMALL, **{**SLOW, **ARCHITECTURES}[kind], **sizes, "vocab_size": 40}
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given_sizes)).eval()


def draw_sequences(data: st.DataObject) -> list[tuple[tuple[int, ...], int]]:
    """Token sequences that share beginnings, as branches of branches, each with the place where scoring starts."""
    pieces = st.lists(st.integers(0, 39), min_size=1, max_size=25).map(tuple)
    grown = [tuple(data.draw(st.lists(st.integers(0, 39), min_size=20, max_size=60)))]
    for _ in range(data.draw(st.integers(3, 12))):
        stem = data.draw(st.sampled_from(grown))
        grown.append(stem[: data.draw(st.integers(len(stem) // 2, len(stem)))] + data.draw(pieces))
    longer = [ids for ids in grown if len(ids) > 1] or [(1, 2)]
    return [(ids, data.draw(st.integers(1, len(ids) - 1))) for ids in longer]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_trees_over_random_networks_equal_the_naive_pass(data: st.DataObject) -> None:
    """Any tree of tokens, network, order, subset, pass size and budget: every token's score is the naive one."""
    kind = data.draw(st.sampled_from(KINDS))
    scored = replace(model(), network=random_network(kind, data.draw(st.integers(0, 3))))
    sequences = data.draw(st.permutations(draw_sequences(data)))
    sequences = sequences[: data.draw(st.integers(1, len(sequences)))]
    chosen = Network(scored, data.draw(st.sampled_from([1, 20_000, None])))
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    scoring = prepare_scoring(tree, row_of, sequences, Usage(shape_of(scored.network)))
    with chosen.evaluating():
        way = choose_way(chosen, max(len(ids) for ids, _ in sequences)).way
        assert way is (ExecutionMode.BATCHES if kind == "jamba" else ExecutionMode.TREE)
        run_scoring(chosen, way, scoring, data.draw(st.sampled_from([1, 10, 40, 200])))
        for (ids, start), found in zip(sequences, scoring.scores, strict=True):
            logits = scored.network(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            wanted = [float(logits[at - 1, ids[at]]) for at in range(start, len(ids))]
            assert found == pytest.approx(wanted, abs=CLOSE)
    assert scoring.usage.tokens >= tree.unique_tokens


@pytest.mark.parametrize(
    ("architecture", "apart"), [("llama", True), ("gpt2", True), ("mistral", True), ("gemma2", False)]
)
def test_branches_attend_apart_where_the_network_allows(architecture: str, apart: bool) -> None:
    """Attention in two parts is used where it agrees; soft caps are done the usual way. The scores are the same."""
    networks = [Network(model(architecture)) for _ in range(2)]
    sequences = [(tuple(model(architecture).encoder.encode(row["prompt"] + " yes")), 1) for row in many_rows(9)]
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    found = []
    for chosen in networks:
        scoring = prepare_scoring(tree, row_of, sequences, Usage(shape_of(model(architecture).network)))
        with chosen.evaluating():
            choose_way(chosen, 8)
            assert chosen.branches is apart
            chosen.branches = apart and chosen is networks[0]
            run_scoring(chosen, ExecutionMode.TREE, scoring, 300)
        found.append([value for values in scoring.scores for value in values])
    assert found[0] == pytest.approx(found[1], abs=CLOSE)
    assert model(architecture).network.config._attn_implementation in ("sdpa", "eager")


def test_network_is_probed_once() -> None:
    """How a network can be run is found out once, and from a text of its own: what is noted is no prompt's."""
    scored = replace(model(), network=LlamaForCausalLM(model().network.config).eval())
    passes = []
    scored.network.register_forward_hook(lambda *_: passes.append(1))
    score(scored, ROWS[:1])
    first = len(passes)
    score(scored, ROWS[:1])
    assert len(passes) - first < first
    assert len(passes) - first == 1
