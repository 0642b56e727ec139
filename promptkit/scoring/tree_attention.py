"""Compute attention over one pass of a prefix tree: shared columns without a mask, each branch's own apart.

A mask over cache and pass together makes every column look at every other branch, to no end, and transformers
then copies keys and values for each group of heads. Here both parts are computed by the same kernel and merged by
their logsumexps (Rabe and Staats 2021, arXiv 2112.05682, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: The name under which transformers finds `attend`.
BRANCHED = "promptkit_branched"
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some networks want done to their scores besides


@dataclass(frozen=True, slots=True)
class Branches:
    """How the columns of a pass are cut: `parts` are (first, last, mask); columns see nothing of other parts.

    The mask [c, c] is 0 where a column may look and -inf elsewhere; None where the part is one chain.
    """

    parts: tuple[tuple[int, int, torch.Tensor | None], ...]


_active: ContextVar[Branches | None] = ContextVar("branches", default=None)


@contextmanager
def branched(config: Any, branches: Branches) -> Iterator[None]:
    """Let the network with this configuration attend along `branches` meanwhile."""
    before = config._attn_implementation
    token = _active.set(branches)
    config._attn_implementation = BRANCHED
    try:
        yield
    finally:
        config._attn_implementation = before
        _active.reset(token)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention [1, C, H, D] of C columns to the cache before them and to their own branches.

    query: [1, H, C, D]; key, value: [1, G, K, D], those in the cache first (K - C of them).
    """
    branches = _active.get()
    if branches is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    if wanted := [name for name in _UNKNOWN if more.get(name) is not None]:
        raise NotImplementedError(f"attention with {wanted[0]}")
    _, heads, columns, size = query.shape
    groups, base = key.shape[1], key.shape[2] - columns
    folded = query.view(groups, heads // groups, columns, size)  # the heads that share keys, side by side
    new_keys, new_values = key[0, :, base:], value[0, :, base:]
    parts = [
        _flash(folded[:, :, first:last], new_keys[:, first:last], new_values[:, first:last], mask, scaling)
        for first, last, mask in branches.parts
    ]
    own, own_sums = (torch.cat(tensors, dim=2) for tensors in zip(*parts, strict=True))
    if base:
        shared, sums = _flash(folded, key[0, :, :base], value[0, :, :base], _ALL, scaling)
        own = torch.lerp(own, shared, torch.sigmoid(sums - own_sums)[..., None].to(own.dtype))
    return own.reshape(1, heads, columns, size).transpose(1, 2).contiguous(), None


_ALL = torch.empty(0)  # in place of a mask: every column looks at every key


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention [G, E, C, D] and its logsumexp [G, E, C] of E heads to each of G groups of keys [G, K, D]."""
    groups, each, columns, size = query.shape
    if mask is None:
        keys, values = (states[:, None].expand(-1, each, -1, -1) for states in (key, value))
        return _kernel(query, keys, values, is_causal=True, scale=scaling)
    found, sums = _kernel(
        query.reshape(1, groups, each * columns, size),
        key[None],
        value[None],
        attn_mask=None if mask is _ALL else mask.repeat(each, 1)[None, None],
        scale=scaling,
    )
    return found.view(groups, each, columns, size), sums.view(groups, each, columns)


def _kernel(*inputs: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*inputs, **options)
    return found, sums


AttentionInterface.register(BRANCHED, attend)
AttentionMaskInterface.register(BRANCHED, sdpa_mask)
