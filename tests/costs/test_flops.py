"""FLOPs against PyTorch's own counter and the published worked examples; break-even counts."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from promptkit.costs.flops import (
    Cost,
    Meter,
    Shape,
    break_even,
    forward_flops,
    mean_cost,
    prompt_flops,
    shape_of,
    training_flops,
)

# peft asks transformers for a property by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LLAMA = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
}
LLAMA_TARGETS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
SMALL = {**LLAMA, "head_dim": 32, "num_hidden_layers": 2, "pad_token_id": 0}
OLD = {"vocab_size": 500, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 256}
QWEN_HALF_BILLION = Shape(body=357_826_560, head=136_134_656, layers=24, attention=896)


def build(architecture: str, **sizes: Any) -> Any:
    """Return a random model whose attention is computed with plain matrix products."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(architecture, **sizes)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def counted_forward(network: Any, new: int, cached: int = 0, read: int = 1) -> int:
    """Return the FLOPs PyTorch counts for `new` tokens after `cached` ones."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.randint(5, 400, (1, cached + new))
    with torch.no_grad():
        past = network(input_ids=ids[:, :cached], use_cache=True).past_key_values if cached else None
        with FlopCounterMode(display=False) as counter:
            network(input_ids=ids[:, cached:], past_key_values=past, logits_to_keep=read, use_cache=bool(cached))
    return int(counter.get_total_flops())


def counted_training(network: Any, length: int) -> int:
    """Return the FLOPs PyTorch counts for one training step on one row with one scored token."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.randint(5, 400, (1, length))
    with FlopCounterMode(display=False) as counter:
        network(input_ids=ids, logits_to_keep=1, use_cache=False).logits.logsumexp(-1).sum().backward()
    return int(counter.get_total_flops())


def masked_half(shape: Shape, new: int) -> float:
    """Return the FLOPs that plain attention spends above the diagonal, which is not useful work."""
    return 4 * shape.layers * shape.attention * (new * new - new * (new + 1) / 2)


def test_forward_equals_the_counter_on_llama() -> None:
    """A forward pass costs what PyTorch counts, less the masked half of plain attention."""
    network = build("llama", **LLAMA)
    shape = shape_of(network)
    expected = forward_flops(shape, 48, read=5) + masked_half(shape, 48)
    assert counted_forward(network, 48, read=5) == pytest.approx(expected, rel=0.001)
    assert counted_forward(network, 16) == pytest.approx(forward_flops(shape, 16), rel=0.03)


def test_forward_after_a_cache_equals_the_counter() -> None:
    """New tokens after cached ones cost the body for the new ones and attention to all."""
    network = build("llama", **LLAMA)
    shape = shape_of(network)
    expected = forward_flops(shape, 8, cached=100) + masked_half(shape, 8)
    assert counted_forward(network, 8, cached=100) == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("gpt2", OLD),
        ("gpt_neox", SMALL),
        ("qwen3", SMALL),
        ("gemma2", SMALL),
        ("gemma3", {"text_config": SMALL, "vision_config": {"hidden_size": 64, "num_attention_heads": 2}}),
        ("opt", {**SMALL, "ffn_dim": 384, "word_embed_proj_dim": 64}),
    ],
)
def test_forward_equals_the_counter_on_other_architectures(architecture: str, sizes: dict[str, Any]) -> None:
    """The shape is read right from Conv1D weights, tied heads, projected embeddings and text towers."""
    network = build(architecture, **sizes)
    shape = shape_of(network)
    expected = forward_flops(shape, 32) + masked_half(shape, 32)
    assert counted_forward(network, 32) == pytest.approx(expected, rel=0.03)


def test_forward_by_hand() -> None:
    """Of three tokens after ten, the first attends to eleven, the second to twelve, the third to thirteen."""
    shape = Shape(body=1000, head=100, layers=2, attention=8, adapter=50)
    assert forward_flops(shape, 3, cached=10, read=2) == 2 * 1050 * 3 + 2 * 100 * 2 + 4 * 2 * 8 * (11 + 12 + 13)


def test_training_by_hand() -> None:
    """The base costs 4 per weight and token, the adapter 6, attention three times its forward pass."""
    shape = Shape(body=1000, head=100, layers=2, attention=8, adapter=50)
    row = (4 * 1000 + 6 * 50) * 3 + 4 * 100 * 1 + 3 * 4 * 2 * 8 * (1 + 2 + 3)
    assert training_flops(shape, rows=5, length=3, epochs=2, read=1) == 5 * 2 * row


def test_a_tied_head_counts() -> None:
    """A head that is tied to the embedding is computed all the same."""
    tied, untied = (shape_of(build("llama", **LLAMA, tie_word_embeddings=tie)) for tie in (True, False))
    assert tied == untied
    assert tied.head == 500 * 128


def test_a_mixture_counts_its_active_experts() -> None:
    """Of a mixture's experts only those that a token runs through count."""
    mixture = {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}
    two_of_four = shape_of(build("mixtral", **mixture))
    all_four = shape_of(build("mixtral", **{**mixture, "num_experts_per_tok": 4}))
    assert all_four.body - two_of_four.body == 2 * 2 * (3 * 128 * 384)  # layers x experts x matrices


def lora(network: Any, rank: int = 4, **settings: Any) -> Any:
    """Return the network with LoRA on every linear layer, or with other settings of peft's."""
    from peft import LoraConfig, get_peft_model

    targets: Any = LLAMA_TARGETS if "layers_to_transform" in settings else "all-linear"  # peft wants names for layers
    config = LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM", **settings)
    return get_peft_model(network, config)


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")  # they do
def test_lora_on_a_mixture_counts_its_active_experts() -> None:
    """The adapter's weights of an expert count where the expert does; those of attention and router always."""
    mixture = {**SMALL, "num_local_experts": 4}
    counted = [shape_of(lora(build("mixtral", **mixture, num_experts_per_tok=active))).adapter for active in (2, 4)]
    per_expert = 8 * (128 + 2 * 384) + 4 * (384 + 128)  # gate and up are one weight, of twice the rank
    assert counted[1] - counted[0] == 2 * 2 * per_expert  # layers x experts


def test_layers_of_different_heads_count_with_their_mean() -> None:
    """Where head sizes differ between layers (Gemma 4), FLOPs are those of all layers together."""
    sizes = {**LLAMA, "num_hidden_layers": 4, "head_dim": 32, "global_head_dim": 64, "num_global_key_value_heads": 1}
    kinds = ["sliding_attention", "full_attention"] * 2
    network = build("gemma4_text", **sizes, layer_types=kinds, hidden_size_per_layer_input=0)
    shape = shape_of(network)
    assert (shape.layers, shape.attention) == (4, 4 * (32 + 64) // 2)


def test_lora_adds_its_weights_to_the_shape() -> None:
    """The weights of an unmerged adapter stand apart; the base's body stays what it was."""
    bare = shape_of(build("llama", **LLAMA))
    adapted = shape_of(lora(build("llama", **LLAMA)))
    assert adapted.body == bare.body
    per_layer = 2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 384)
    assert adapted.adapter == 4 * per_layer * 3


def test_lora_forward_equals_the_counter() -> None:
    """An unmerged adapter costs two more FLOPs per weight and token."""
    network = lora(build("llama", **LLAMA), rank=16).eval()
    shape = shape_of(network)
    expected = forward_flops(shape, 32) + masked_half(shape, 32)
    assert counted_forward(network, 32) == pytest.approx(expected, rel=0.001)


def test_lora_training_equals_the_counter() -> None:
    """Training an adapter costs 4 FLOPs per frozen weight and token, not the usual 6."""
    network = lora(build("llama", **LLAMA)).train()
    shape = shape_of(network)
    expected = training_flops(shape, 1, 48, 1, read=1) + 3 * masked_half(shape, 48)
    assert counted_training(network, 48) == pytest.approx(expected, rel=0.03)


HALF_BILLION = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}


def counted_on_meta(network: Any, read: int, *, backward: bool) -> int:
    """Return the FLOPs PyTorch counts for 8 rows of 64 tokens without weights, the head on `read` rows of each."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        ids = torch.empty((8, 64), dtype=torch.long)
        mask = torch.empty((8, 1, 64, 64))  # given, since a mask of tokens asks for their values
    with FlopCounterMode(display=False) as counter:
        logits = network(input_ids=ids, attention_mask=mask, logits_to_keep=read, use_cache=False).logits
        if backward:
            logits.logsumexp(-1).sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("read", [64, 2])
@pytest.mark.parametrize("way", ["forward", "all layers", "top 6"])
def test_half_a_billion_weights_on_meta_tensors(way: str, read: int) -> None:
    """Forward and LoRA training, whole and on the top layers, all logits or label rows only: within 3 per cent."""
    import torch

    with torch.device("meta"):
        network = build("qwen2", **HALF_BILLION)
        if way != "forward":
            top = {"layers_to_transform": list(range(18, 24))} if way == "top 6" else {}
            network = lora(network, rank=8, **top).train()
    shape, layers = shape_of(network), 6 if way == "top 6" else 24
    if way == "forward":
        expected = 8 * (forward_flops(shape, 64, read=read) + masked_half(shape, 64))
    else:
        square = (1 + 2 * layers / 24) * masked_half(shape, 64)
        expected = training_flops(shape, 8, 64, 1, read=read, layers=layers) + 8 * square
    assert counted_on_meta(network, read, backward=way != "forward") == pytest.approx(expected, rel=0.03)


def test_full_training_equals_the_counter() -> None:
    """Without an adapter all weights are trained: 6 FLOPs per weight and token."""
    network = build("llama", **LLAMA).train()
    shape = shape_of(network)
    expected = training_flops(shape, 1, 48, 1, read=1) + 3 * masked_half(shape, 48)
    assert counted_training(network, 48) == pytest.approx(expected, rel=0.03)


def test_training_scales_with_rows_and_epochs() -> None:
    """Twice the rows or twice the epochs is twice the work."""
    shape = Shape(body=1000, head=100, layers=2, attention=16, adapter=10)
    once = training_flops(shape, 10, 20, 1, read=2)
    assert training_flops(shape, 20, 20, 1, read=2) == training_flops(shape, 10, 20, 2, read=2) == 2 * once


def test_decoding_sums_over_its_steps() -> None:
    """Generating c tokens at once costs, in the formula, what c single steps cost."""
    shape = Shape(body=1000, head=100, layers=2, attention=16)
    steps = sum(forward_flops(shape, 1, cached=30 + step) for step in range(7))
    assert forward_flops(shape, 7, cached=30, read=7) == steps


def test_sharing_saves_everything_but_the_attention_to_the_prefix() -> None:
    """One shared item costs, with the prefix counted once, what a recomputed item costs."""
    prompt = prompt_flops(QWEN_HALF_BILLION, 500, 60, generated=40, read=2)
    assert prompt.shared + prompt.once == pytest.approx(prompt.recomputed)
    assert prompt.shared < prompt.recomputed / 4


def test_break_even_of_the_worked_example() -> None:
    """16 demonstrations of 64 tokens against 1,000 rows x 3 epochs: hundreds, or tens of thousands."""
    shape = QWEN_HALF_BILLION
    # An adapter of no size worth counting: 4 FLOPs per frozen weight, as in the published table.
    train = training_flops(Shape(shape.body, shape.head, shape.layers, shape.attention, 1), 1000, 64, 3, read=2)
    prompt, merged = prompt_flops(shape, 16 * 64, 64), forward_flops(shape, 64)
    assert break_even(train, prompt.recomputed, merged) == pytest.approx(357, rel=0.02)
    assert break_even(train, prompt.shared, merged, prompt.once) == pytest.approx(49_000, rel=0.03)


def test_break_even_rounds_up() -> None:
    """The count is the first whole item at which training costs no more."""
    assert break_even(100, 30, 10) == 5
    assert break_even(101, 30, 10) == 6
    assert break_even(101, 30, 10, prompt_once_flops=1) == 5


def test_break_even_is_never_where_prompting_is_not_dearer() -> None:
    """None says that no number of items pays for the training."""
    assert break_even(100, 10, 10) is None
    assert break_even(100, 9, 10) is None


def test_break_even_is_zero_where_the_prefix_costs_more_than_training() -> None:
    """Training that costs less than the shared prefix has paid before the first item."""
    assert break_even(100, 11, 10, prompt_once_flops=200) == 0


def test_cost_keys() -> None:
    """The printed keys are exactly the documented ones."""
    keys = {"tokens_prompted", "tokens_computed", "flops", "seconds", "peak_memory_bytes", "tokens_unique"}
    assert set(Cost().as_dict()) == keys


def test_costs_add_up_and_peaks_do_not() -> None:
    """Tokens, FLOPs and seconds are summed; of two peaks the higher one stands."""
    assert Cost(1, 2, 3.0, 4.0, 50, 6) + Cost(10, 20, 30.0, 40.0, 5, 60) == Cost(11, 22, 33.0, 44.0, 50, 66)


def test_mean_cost() -> None:
    """The mean of several runs keeps whole tokens and the highest peak; no runs cost nothing."""
    assert mean_cost([Cost(1, 2, 3.0, 4.0, 50, 2), Cost(4, 4, 5.0, 6.0, 5, 4)]) == Cost(2, 3, 4.0, 5.0, 50, 3)
    assert mean_cost([]) == Cost()


def test_meter_measures_seconds_and_memory() -> None:
    """The meter sees the time that passes and the memory that a block takes."""
    with Meter() as meter:
        block = bytearray(64 << 20)
        time.sleep(0.02)
    assert meter.seconds >= 0.02
    assert meter.peak_memory_bytes > len(block)


def test_an_inner_meter_leaves_the_outer_peak() -> None:
    """A meter within a meter does not hide the memory the outer one saw before it."""
    with Meter() as outer:
        bytearray(128 << 20)
        with Meter() as inner:
            pass
    assert outer.peak_memory_bytes >= inner.peak_memory_bytes + (100 << 20) or _peaks_cannot_be_reset()


def _peaks_cannot_be_reset() -> bool:
    """Say whether this system lets no process reset the peak of its own memory."""
    try:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    except OSError:
        return True
    return False


def test_the_documented_examples_hold() -> None:
    """The Python code in docs/cost.md runs, and what it asserts is so."""
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
