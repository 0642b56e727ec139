"""A memory budget changes how a tree is run, never what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, LlamaForCausalLM

from promptkit.errors import PromptkitError
from promptkit.scoring import score
from promptkit.scoring.memory_budget import Footprint, count_columns, estimate_footprint, plan_within
from promptkit.scoring.prefix_tree import build_tree, lay_out, plan_steps
from tests.helpers.naive import CLOSE, ROWS, SMALL, assert_naive, many_rows, model, tokenizer

PRINT = Footprint(column=10, token=20, pair=1, read=30)
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30).map(tuple), min_size=1, max_size=20)


def test_usual_plan_is_kept_where_it_fits() -> None:
    """Enough memory, or far more, is the same plan: nothing that is recorded depends on how much is free."""
    tree, _ = build_tree([(*range(200), query, query) for query in range(100)])
    usual = plan_steps(tree, 128)
    assert plan_within(tree, [1] * 100, 128, PRINT, 10**6) == usual
    assert plan_within(tree, [1] * 100, 128, PRINT, 10**12) == usual


@settings(deadline=None)
@given(SEQUENCES, st.integers(1, 3000))
def test_every_pass_fits_or_is_one_row(sequences: list[tuple[int, ...]], budget: int) -> None:
    """Passes shrink until each fits the budget; a row that does not fit alone is run all the same."""
    tree, _ = build_tree(sequences)
    steps = plan_within(tree, [2] * len(tree.rows), 64, PRINT, budget)
    run = [row for step in steps if step.end is None for row in range(step.first, step.last)]
    assert sorted(run) == list(range(len(tree.rows)))
    for step in steps:
        new = len(lay_out(tree, step).tokens)
        assert new == count_columns(tree, step)
        reads = 0 if step.end else min(new, 2 * (step.last - step.first))
        fits = PRINT.count(step.base + new, new, reads) <= budget
        assert fits or step.end is not None or step.last - step.first == 1
        assert (step.end or 0) * PRINT.column <= budget // 2


def test_budget_changes_no_score() -> None:
    """From one byte to plenty: the naive pass's scores, and more tokens computed the less there is."""
    rows = many_rows()
    computed = []
    for memory in (1, 200_000, 400_000, "1GiB"):
        assert_naive(model(), [*ROWS, *rows[:3]], memory=memory)
        computed.append(score(model(), rows, memory=memory).tokens_computed)
    assert computed == sorted(computed, reverse=True)
    assert computed[0] > 5 * computed[-1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_batches_without_a_tree_keep_the_budget_too() -> None:
    """Where nothing can be shared, batches are smaller; the scores are the same."""
    assert_naive(model("jamba"), ROWS, memory=1)
    tight, wide = (score(model("jamba"), ROWS, memory=memory).logprobs for memory in (1, "1GiB"))
    for left, right in zip(tight, wide, strict=True):
        assert left == pytest.approx(right, abs=CLOSE)


def test_writing_keeps_the_budget() -> None:
    """The same texts are written with next to no memory."""
    generation = {"stop": ["\n"], "max_tokens": 6, "answer": None}
    rows = [{**row, "generation": generation} for row in many_rows(6)]
    tight, wide = (score(model(), rows, memory=memory) for memory in (1, None))
    assert [each.generated for each in tight.predictions] == [each.generated for each in wide.predictions]


def test_size_that_is_none_is_an_error() -> None:
    """A size that cannot be read is one clear line."""
    with pytest.raises(PromptkitError, match="memory 'much' is not a size above 0"):
        score(model(), ROWS, memory="much")


def test_footprint_is_that_of_the_configuration() -> None:
    """A token takes keys and values of every layer in the cache; a position read takes its logits thrice in float32."""
    config = AutoConfig.for_model("llama", **{**SMALL, "vocab_size": 100})
    found = estimate_footprint(config, 100, 2)
    assert found.column == 2 * 2 * 2 * 8 * 2  # keys and values, layers, heads, their size, bytes
    assert found.read == 12 * 100


def test_caches_take_what_was_reckoned() -> None:
    """The one cache of a walk has the bytes of its deepest path."""
    config = AutoConfig.for_model("llama", **{**SMALL, "vocab_size": len(tokenizer())})
    weighing = replace(model(), network=LlamaForCausalLM(config).eval())
    rows = many_rows()
    score(weighing, rows[:1])  # and the probe, which is not weighed
    sizes = []

    def weigh(network: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
        layers = options["past_key_values"].layers
        sizes.append(sum(layer.keys.nbytes + layer.values.nbytes for layer in layers))

    weighing.network.register_forward_hook(weigh, with_kwargs=True)
    score(weighing, rows, batch_tokens=64)
    longest = max(len(weighing.encoder.encode(row["prompt"])) for row in rows)
    assert len(sizes) > 5
    assert 0 < max(sizes) == min(sizes) <= estimate_footprint(config, 1, 4).column * (longest + 64)
