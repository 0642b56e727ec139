"""In a packed batch the last layer works on the columns that are read, and nothing that is read changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from promptkit.training.last_layer import trim_last_layer
from promptkit.training.lora import wrap
from promptkit.training.loss import completion_logits
from promptkit.training.packed_attention import packed
from promptkit.training.packing import pack
from tests.helpers.training_fakes import model
from tests.training.test_packing import ROWS
from tests.training.test_train import settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def widths(network: Any) -> dict[str, list[int]]:
    """Note how many columns the layers that read hidden states get, from now on."""
    seen: dict[str, list[int]] = {}
    for name, module in network.named_modules():
        if name.endswith(("self_attn.k_proj", "self_attn.q_proj.base_layer", "mlp.act_fn")):
            seen[name] = []
            module.register_forward_hook(lambda _, given, __, name=name: seen[name].append(given[0].shape[-2]))
    return seen


def test_columns_that_are_not_read_are_left_out_of_the_last_layer_alone() -> None:
    """Dropout keeps the layers' own forwards: the last one's queries and feed-forward see the read columns only."""
    network, batch = wrap(model(), settings(dropout=0.1)).eval(), pack(ROWS)
    seen = widths(network)
    columns, read = batch["ids"].shape[1], int(batch["loss_mask"].sum())
    assert batch["layout"] is not None
    for given, expected in ((batch["loss_mask"], read), (None, columns)):
        with torch.no_grad(), packed(network.get_base_model().config, batch["layout"], given):
            completion_logits(network, batch)
        found = {name.partition("layers.")[2]: counts.pop() for name, counts in seen.items()}
        assert found == {
            "0.self_attn.q_proj.base_layer": columns,
            "0.self_attn.k_proj": columns,
            "0.mlp.act_fn": columns,
            "1.self_attn.q_proj.base_layer": expected,
            "1.self_attn.k_proj": columns,
            "1.mlp.act_fn": expected,
        }


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_what_is_read_stays_as_it_was(kind: str) -> None:
    """The logits of the read columns are those of a last layer that computes all."""
    network, batch, found = wrap(model(kind), settings()), pack(ROWS), []
    assert batch["layout"] is not None
    for read in (batch["loss_mask"], None):
        with torch.no_grad(), packed(network.get_base_model().config, batch["layout"], read):
            found.append(completion_logits(network, batch))
    torch.testing.assert_close(*found)
    assert len(trim_last_layer(network)) == 3


def test_layers_with_other_names_are_left_alone() -> None:
    """GPT-2 calls its layers otherwise: nothing of it is trimmed."""
    assert trim_last_layer(wrap(model("gpt2"), settings())) == []
