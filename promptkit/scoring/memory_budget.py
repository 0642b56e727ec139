"""Cut a prefix tree into passes that fit a memory budget: smaller ones, which share less, where it is tight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.costs.flops import list_layers
from promptkit.scoring.prefix_tree import Tree, TreeStep, plan_steps


@dataclass(frozen=True, slots=True)
class Footprint:
    """The bytes that running a network takes beside its weights.

    `column`: a token in the cache, all layers. `token`: a token in a pass, in the widest layer. `pair`: a token of a
    pass and one that it may attend to (masks). `read`: the logits of one position.
    """

    column: int
    token: int
    pair: int
    read: int

    def count(self, room: int, new: int, reads: int) -> int:
        """Return the bytes of a pass over `new` tokens, `reads` of them read, in a cache of `room` tokens."""
        return self.column * room + self.token * new + self.pair * new * room + self.read * reads


def estimate_footprint(config: Any, vocabulary: int, size: int) -> Footprint:
    """Return the footprint of a network with this configuration and numbers of `size` bytes, rather too large."""
    hidden = config.hidden_size
    layers = list_layers(config)
    column = sum(2 * _keys(layer) * size for layer in layers)
    widest = max(4 * (_get(layer, "intermediate_size") or 4 * hidden) + 8 * _queries(layer) for layer in layers)
    return Footprint(column, 4 * (widest + 8 * hidden), 4 + 8 + 2, 12 * vocabulary)


def plan_within(
    tree: Tree, reads: Sequence[int], tokens_per_pass: int, footprint: Footprint, budget: int
) -> list[TreeStep]:
    """Return the forward passes that compute the tree, each within `budget` bytes, as `plan_steps` returns them.

    reads: at how many positions each row is read at most. Where the usual plan fits, it is that one. Else caches get
    at most half of the budget, so that what is shared beyond is computed again, and passes are halved until they
    fit, down to one row at a time.
    """
    deepest = budget // 2 // max(1, footprint.column)
    while True:
        steps = plan_steps(tree, tokens_per_pass, deepest)
        if tokens_per_pass == 1 or all(_count(tree, reads, step, footprint) <= budget for step in steps):
            return steps
        tokens_per_pass //= 2


def _count(tree: Tree, reads: Sequence[int], step: TreeStep, footprint: Footprint) -> int:
    new = count_columns(tree, step)
    read = min(new, sum(reads[step.first : step.last])) if step.end is None else 0
    return footprint.count(step.base + new, new, read)


def count_columns(tree: Tree, step: TreeStep) -> int:
    """Return the number of tokens that a step runs."""
    if step.end is not None:
        return step.end - step.base
    return tree.count_tokens(step.first, step.last, step.base)


def _get(config: Any, name: str) -> int:
    """Return a size; the largest where it is one per layer, 0 where it is not there."""
    found = getattr(config, name, None)
    return max(found) if isinstance(found, list | tuple) else int(found or 0)


def _queries(config: Any) -> int:
    heads = _get(config, "num_attention_heads")
    return heads * (_get(config, "head_dim") or -(-config.hidden_size // max(1, heads)))


def _keys(config: Any) -> int:
    heads = max(1, _get(config, "num_attention_heads"))
    return _queries(config) * (_get(config, "num_key_value_heads") or heads) // heads
