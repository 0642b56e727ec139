"""Compute, in the last layer of a network, only what the loss of a packed batch needs.

What that layer makes of a column goes to the head and to no other column, so that behind its keys and values only the
columns count whose logits are read: one of each row that ends in a label of one token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel

from promptkit.training.packed_attention import read_columns


def trim_last_layer(network: PeftModel) -> list[torch.nn.Module]:
    """Let the last layer's queries, outputs and feed-forward run on the columns that are read; return these modules.

    None is trimmed in a network whose layers have other names than Llama's. Columns that are not read become zero
    behind the trimmed modules, which the result does not depend on.
    """
    decoder: Any = network.get_base_model().get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or len(layers) != decoder.config.num_hidden_layers:
        return []
    attention, block = getattr(layers[-1], "self_attn", None), getattr(layers[-1], "mlp", None)
    trimmed = [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    trimmed += [block] if hasattr(block, "down_proj") else []
    found = [module for module in trimmed if isinstance(module, torch.nn.Module)]
    for module in found:
        module.forward = partial(_run_on_read_columns, module.forward)
    return found


def _run_on_read_columns(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return what `forward` gives on the columns of x [1, T, in] that are read, zeros elsewhere: [1, T, out]."""
    columns = read_columns()
    if columns is None:
        return forward(x)
    found = forward(x.index_select(1, columns))
    return found.new_zeros(*x.shape[:-1], found.shape[-1]).index_copy(1, columns, found)
