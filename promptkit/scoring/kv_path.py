"""Hold the keys and values (KV cache) of one path through a prefix tree, written as the tree is walked."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class PathCache(Cache):
    """A cache of at most `room` tokens whose end can be moved back, so that another branch overwrites what follows.

    Visited depth first, a tree needs no more: whatever stands before a branch is still there when its turn comes.
    """

    def __init__(self, room: int) -> None:
        super().__init__(layer_class_to_replicate=partial(PathLayer, room))

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens; the next ones are written behind them."""
        for layer in self.layers:
            layer.length = length


class PathLayer(CacheLayerMixin):
    """One layer of it: a buffer [1, heads, room, head size] each for keys and values, filled to `length`."""

    is_sliding = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers, of the shape and type of the first keys and values."""
        self.keys, self.values = (
            states.new_empty(*states.shape[:2], self.room, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write behind what is there; return views of it all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        found = []
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            buffer[:, :, start : self.length] = states
            found.append(buffer[:, :, : self.length])
        return found[0], found[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys `query_length` new tokens will see, and the place of the first."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of tokens in the layer."""
        return self.length

    def get_max_length(self) -> int:
        """Return the most tokens that it holds."""
        return self.room
