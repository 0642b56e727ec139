"""Count FLOPs from token counts, and the number of items from which training pays.

The formulas are written out, with their assumptions, in docs/cost.md. They count the useful work:
a multiplication and an addition are two operations, padding and masked-out attention are nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from promptkit.costs.meter import Meter

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Cost",
    "Meter",
    "PromptFlops",
    "Shape",
    "break_even",
    "forward_flops",
    "mean_cost",
    "prompt_flops",
    "shape_of",
    "training_flops",
]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one cell took: tokens, FLOPs, seconds of wall clock, bytes of memory at the peak.

    `tokens_prompted` is what a tool that shares nothing would run through the model (every prompt
    with every choice, and what was generated); `tokens_computed` is what was run; `tokens_unique` the
    least that could be, every distinct beginning of a text once.
    """

    tokens_prompted: int = 0
    tokens_computed: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    tokens_unique: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of one after the other: sums, and the higher of the two peaks."""
        return Cost(
            self.tokens_prompted + other.tokens_prompted,
            self.tokens_computed + other.tokens_computed,
            self.flops + other.flops,
            self.seconds + other.seconds,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
            self.tokens_unique + other.tokens_unique,
        )

    def as_dict(self) -> dict[str, int | float]:
        """Return the keys that `--json` prints."""
        return asdict(self)


def mean_cost(costs: Iterable[Cost]) -> Cost:
    """Return the mean cost of a run, tokens rounded; the peak is the highest. No costs: all zero."""
    listed = list(costs)
    total, runs = sum(listed, Cost()), max(1, len(listed))
    return Cost(
        round(total.tokens_prompted / runs),
        round(total.tokens_computed / runs),
        total.flops / runs,
        total.seconds / runs,
        total.peak_memory_bytes,
        round(total.tokens_unique / runs),
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a causal language model that its FLOPs depend on.

    `body` is N, the weights a token is multiplied with, without embeddings and head (of a mixture
    of experts: the active ones); `head` is V·d, also where it is tied to the embedding; `attention`
    is heads·head_dim of the queries, the mean of the layers, 0 where nothing attends; `adapter` is the number of LoRA
    weights that stand beside the body, 0 once they are merged.
    """

    body: int
    head: int
    layers: int
    attention: int
    adapter: int = 0


def shape_of(network: nn.Module) -> Shape:
    """Return the shape of any causal language model of transformers, or of a peft model around one.

    Only the text decoder counts, not the vision or audio towers of a larger model. Not accounted
    for: attention windows shorter than the sequence, and weights packed to fewer than 8 bits.
    """
    wrapped: Any = network
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    config = base.config.get_text_config(decoder=True)
    head = base.get_output_embeddings()
    attention = [_attention(layer) for layer in list_layers(config)]
    body, adapter = _count_weights(base.get_decoder(), find_active_share(config))
    return Shape(body, head.weight.numel(), len(attention), round(sum(attention) / len(attention)), adapter)


def list_layers(config: Any) -> list[Any]:
    """Return a configuration per layer: that of the whole network, unless its layers differ."""
    if getattr(config, "is_heterogeneous", False):
        return list(config.per_layer_config)
    return [config] * config.num_hidden_layers


def _attention(config: Any) -> int:
    heads = getattr(config, "num_attention_heads", None) or 0
    return heads * (getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0))


def _count_weights(decoder: nn.Module, active_share: float) -> tuple[int, int]:
    """Return how many weights of the decoder a token is multiplied with, and how many more are LoRA's."""
    from torch import nn

    body = adapter = 0.0
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        share = active_share if ".experts" in name else 1.0
        for weights in module.parameters(recurse=False):
            if ".lora_" in name:
                adapter += weights.numel() * share
            elif weights.ndim >= 2:
                body += weights.numel() * share
    return round(body), round(adapter)


def find_active_share(config: Any) -> float:
    """Return the share of a mixture's experts that each token runs through; 1 without experts."""
    active = getattr(config, "num_experts_per_tok", None)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((n for name in names if (n := getattr(config, name, None))), None)
    return active / experts if active and experts else 1.0


def forward_flops(shape: Shape, new: int, cached: int = 0, read: int = 1) -> float:
    """Return the FLOPs of one pass over `new` tokens of one sequence, after `cached` ones.

    `read` is the number of positions at which the head is applied. Generating c tokens after a
    prompt of p is `forward_flops(shape, c, cached=p, read=c)`: step by step it sums to the same.
    """
    attended = new * cached + new * (new + 1) / 2
    linear = 2 * (shape.body + shape.adapter) * new
    return float(linear + 2 * shape.head * read + 4 * shape.layers * shape.attention * attended)


def training_flops(
    shape: Shape, rows: int, length: float, epochs: float, read: float, *, layers: int | None = None
) -> float:
    """Return the FLOPs of training on `rows` rows of `length` tokens, `read` of them with loss.

    With adapters the base is frozen and gets no weight gradients: per token 4 FLOPs per weight of
    the body, 6 per weight of the adapter. Without adapters (`shape.adapter == 0`) everything is
    trained: 6 per weight. Either way attention costs three forward passes. With adapters on the top
    `layers` only, nothing goes back through the layers below: their weights cost 2 FLOPs, their attention
    one pass. Validation passes, trials and gradient checkpointing (one more forward pass) are not in it.
    With `length` a mean, the spread of the lengths is left out of the attention term only.
    """
    per_weight = 4 if shape.adapter else 6
    back = 1.0 if layers is None else layers / shape.layers  # the share of the layers that gradients go through
    linear = ((2 + (per_weight - 2) * back) * shape.body + 6 * shape.adapter) * length
    attended = (4 + 8 * back) * shape.layers * shape.attention * length * (length + 1) / 2
    return epochs * rows * (linear + per_weight * shape.head * read + attended)


@dataclass(frozen=True, slots=True)
class PromptFlops:
    """FLOPs of prompting: per item where each item computes its whole prompt, per item where the
    prefix is shared, and `once` for that prefix."""

    recomputed: float
    shared: float
    once: float


def prompt_flops(shape: Shape, prefix: int, query: int, *, generated: int = 0, read: int = 1) -> PromptFlops:
    """Return what prompts of `prefix` (instruction and demonstrations) + `query` tokens cost.

    `query` counts the tokens of the query and its choices, of which `read` positions are scored;
    `generated` tokens of a chain of thought are decoded after it, which sharing does not save.
    """
    decoded = forward_flops(shape, generated, cached=prefix + query, read=generated)
    return PromptFlops(
        recomputed=forward_flops(shape, prefix + query, read=read) + decoded,
        shared=forward_flops(shape, query, cached=prefix, read=read) + decoded,
        once=forward_flops(shape, prefix, read=0),
    )


def break_even(
    train_flops: float,
    prompt_flops_per_item: float,
    adapter_flops_per_item: float,
    prompt_once_flops: float = 0.0,
) -> int | None:
    """Return the number of items at which training plus the adapter costs no more than prompting.

    None where prompting is never the dearer one per item, so that training never pays; 0 where
    training costs no more than what prompting computes once. Equal accuracy is assumed.
    """
    saving = prompt_flops_per_item - adapter_flops_per_item
    outlay = train_flops - prompt_once_flops
    if saving <= 0:
        return None
    return max(0, math.ceil(outlay / saving))
