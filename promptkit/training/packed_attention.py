"""Compute attention over a packed sequence: every row attends to its group's prefix and to itself alone.

The part that looks at the shared prefix and the part within a row are computed apart by the same kernel and merged
by their logsumexps; given the merged output and logsumexp, the kernel's own backward is exact for each part alone
(Liu et al. 2023, arXiv 2310.01889, section 3, do so around a ring of devices).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from promptkit.training.packing import Group, PackedLayout

#: The name under which transformers finds `attend`.
PACKED = "promptkit_packed"
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some networks want done to their scores besides

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class UnpackableError(Exception):
    """A network's attention asks for something that packed rows do not have."""


@dataclass
class Pack:
    """The layout that is attended to at the moment; `calls` counts the layers that did.

    `loss_mask` [1, T], bool, says of which columns the logits are read; None, where all may be.
    """

    layout: PackedLayout
    loss_mask: torch.Tensor | None = None
    calls: int = field(default=0, init=False)

    @cached_property
    def columns(self) -> torch.Tensor | None:
        """The numbers of the columns whose logits are read, int64; None where all may be."""
        return None if self.loss_mask is None else self.loss_mask[0].nonzero()[:, 0]

    @cached_property
    def seen(self) -> torch.Tensor:
        """Which columns each column looks at [T, T], bool."""
        seen = torch.zeros(self.layout.length, self.layout.length, dtype=torch.bool)
        for start, group in _starts(self.layout):
            end = start + group.prefix
            seen[start : start + group.length, start:end] = True
            seen[start:end, start:end].tril_()
            for first, count, length in _runs(group, end):
                for row in range(first, first + count * length, length):
                    seen[row : row + length, row : row + length] = torch.ones(length, length).tril_()
        return seen


_active: list[Pack] = []  # no ContextVar: on a GPU, the backward of a checkpointed layer runs in another thread


@contextmanager
def packed(config: Any, layout: PackedLayout, loss_mask: torch.Tensor | None = None) -> Iterator[Pack]:
    """Let the network with this configuration attend along `layout` meanwhile: forward and backward."""
    before = config._attn_implementation
    _active.append(Pack(layout, loss_mask))
    config._attn_implementation = PACKED
    try:
        yield _active[-1]
    finally:
        config._attn_implementation = before
        _active.pop()


def read_columns() -> torch.Tensor | None:
    """Return the numbers of the columns whose logits are read from the pack that is active; None for all."""
    return _active[-1].columns if _active else None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention [1, T, H, D] of the T columns of the pack that is active.

    query: [1, H, T, D]; key, value: [1, G, T, D]. Raises UnpackableError where the network wants more than this.
    """
    if wanted := [name for name in _UNKNOWN if more.get(name) is not None]:
        raise UnpackableError(f"its attention has {wanted[0]}")
    pack = _active[-1]
    pack.calls += 1
    if query.device.type != "cpu" or dropout or query.shape[-1] != value.shape[-1]:
        seen = pack.seen = pack.seen.to(query.device)
        mask = seen[None, None]
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling)
    attended: torch.Tensor = _Attention.apply(query, key, value, pack.layout, scaling)  # type: ignore[no-untyped-call]
    return attended, None


class _Attention(torch.autograd.Function):
    """Calls torch's CPU kernel on parts of the sequence that are views, and writes into one buffer.

    All of it is computed in float32: of 16-bit states the kernel's backward takes several times as long, and rounds.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: PackedLayout,
        scaling: float | None,
    ) -> torch.Tensor:
        _, heads, columns, size = query.shape
        wide = query.new_empty(1, columns, heads, size, dtype=torch.float32)
        sums = query.new_empty(1, columns, heads, dtype=torch.float32).transpose(1, 2)
        read, written = (query.float(), key.float(), value.float()), (wide.transpose(1, 2), sums)
        for views, causal in _parts(layout, read, written):
            (queries, _, _, out, before), (_, keys, values, _, _) = views
            own, own_sums = _forward(queries, keys, values, 0.0, causal, scale=scaling)
            if causal:
                out.copy_(own)
                before.copy_(own_sums)
            else:
                out.lerp_(own, torch.sigmoid(own_sums - before)[..., None])
                before.copy_(torch.logaddexp(before, own_sums))
        found = wide.to(query.dtype)
        ctx.save_for_backward(query, key, value, found, sums)
        ctx.layout, ctx.scaling = layout, scaling
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, found, sums = ctx.saved_tensors
        gradients = [torch.zeros_like(states, dtype=torch.float32) for states in (query, key, value)]
        read = [states.float() for states in (query, key, value, found.transpose(1, 2), sums, gradient.transpose(1, 2))]
        for views, causal in _parts(ctx.layout, read, gradients):
            (queries, _, _, out, own, towards, to_query, _, _), (_, keys, values, _, _, _, _, to_key, to_value) = views
            parts = _backward(towards, queries, keys, values, out, own, 0.0, causal, scale=ctx.scaling)
            for buffer, part in zip((to_query, to_key, to_value), parts, strict=True):
                buffer.add_(part)
        return *(each.to(query.dtype) for each in gradients), None, None


_Views = tuple[torch.Tensor, ...]


def _parts(layout: PackedLayout, *states: Sequence[torch.Tensor]) -> Iterator[tuple[tuple[_Views, _Views], bool]]:
    """Yield what attends to what, and whether causally; what rows attend to before them comes after themselves.

    Either is given as a view of each of the states [1, H, T, ...]: [rows, H, columns of a row, ...].
    """
    given = [each for several in states for each in several]
    cuts = [iter(torch.split(each[0], list(_sizes(layout)), dim=1)) for each in given]
    for start, group in _starts(layout):
        end = start + group.prefix
        prefix = tuple(next(cut)[None] for cut in cuts) if group.prefix else ()
        for count, length in group.runs:
            pieces = [next(cut) for cut in cuts]
            if count == 1:
                rows = tuple(piece[None] for piece in pieces)
            else:
                rows = tuple(piece.view(-1, count, length, *piece.shape[2:]).transpose(0, 1) for piece in pieces)
            yield (rows, rows), True
        if prefix:
            yield (prefix, prefix), True
            yield (tuple(each[:, :, end : start + group.length] for each in given), prefix), False


def _sizes(layout: PackedLayout) -> Iterator[int]:
    """Yield how many columns stand together: a prefix that is shared, rows as long as one another."""
    for group in layout.groups:
        if group.prefix:
            yield group.prefix
        yield from (count * length for count, length in group.runs)


def _starts(layout: PackedLayout) -> Iterator[tuple[int, Group]]:
    start = 0
    for group in layout.groups:
        yield start, group
        start += group.length


def _runs(group: Group, start: int) -> Iterator[tuple[int, int, int]]:
    for count, length in group.runs:
        yield start, count, length
        start += count * length


AttentionInterface.register(PACKED, attend)
