"""Scores equal those of one plain forward pass per choice, whatever is shared, batched or cached."""

from __future__ import annotations

import copy
import random
import re
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import WeakSet

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging

from promptkit.cost import forward_flops, shape_of
from promptkit.errors import ModelError, WindowError
from promptkit.models import Model
from promptkit.prompt import Message, Prompt
from promptkit.score import prompt_lengths, score
from promptkit.score.forward import Network
from promptkit.score.likelihood import Usage, Way, prepare_scoring, run_scoring
from promptkit.score.probe import choose_way
from promptkit.score.tree import build_tree
from tests.naive import ARCHITECTURES, SLOW, SMALL, model, naive_logprobs, network, tokenizer

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
    choices = data.draw(st.lists(texts.filter(bool), min_size=1, max_size=4))
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


def test_first_of_equal_choices_is_predicted() -> None:
    """Ties go to the first."""
    assert score(model(), [{"prompt": "the soup", "choices": ["\n", "\n"]}]).predicted == (0,)


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
        run_scoring(counting, Way.TREE, scoring, 64)
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
        assert way is (Way.BATCHES if kind == "jamba" else Way.TREE)
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
            run_scoring(chosen, Way.TREE, scoring, 300)
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
