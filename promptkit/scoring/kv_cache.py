"""Build the KV cache of a batch from rows of KV caches; it grows by a column a token without being copied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A layer's keys and values in room that is set aside at the start, `rows` by `columns` at most.

    A DynamicLayer copies all that it holds for every token that is added.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.most = rows, columns
        self.room: tuple[torch.Tensor, ...] = ()

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Set room aside for keys and values of the shape [rows, heads, columns, size] of these."""
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, columns = self.most
        self.room = tuple(
            states.new_empty(rows, states.shape[1], columns, states.shape[3]) for states in (key_states, value_states)
        )
        self.show(len(key_states), 0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns to every row; return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, held = len(key_states), self.get_seq_length()
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:rows, :, held : held + states.shape[2]] = states
        self.show(rows, held + key_states.shape[2])
        return self.keys, self.values

    def show(self, rows: int, columns: int) -> None:
        """Hold the first so many rows and columns of the room."""
        self.keys, self.values = (room[:rows, :, :columns] for room in self.room)


def gather_rows(sources: Sequence[tuple[DynamicCache, Sequence[int]]], rows: int, columns: int) -> Cache:
    """Return a cache of N rows, each the given columns of a one-row cache, zero where a longer row goes on.

    It has room for `rows` rows of `columns` columns.
    """
    batch = Cache(layer_class_to_replicate=partial(RoomyLayer, rows, columns))
    longest = max(len(chosen) for _, chosen in sources)
    for number, first in enumerate(sources[0][0].layers):
        layer = RoomyLayer(rows, columns)
        layer.lazy_initialization(first.keys, first.values)
        for place, room in enumerate(layer.room):
            room[: len(sources), :, :longest] = 0
            for row, (cache, chosen) in enumerate(sources):
                states = (cache.layers[number].keys, cache.layers[number].values)[place]
                room[row, :, : len(chosen)] = states[0, :, list(chosen)]
        layer.show(len(sources), longest)
        batch.layers.append(layer)
    return batch


def move_rows(cache: Cache, numbers: Sequence[int]) -> None:
    """Make row i of the batch what its row `numbers[i]` was; only rows that change are copied."""
    targets = [row for row, number in enumerate(numbers) if row != number]
    sources = [numbers[row] for row in targets]
    for layer in cache.layers:
        held = layer.get_seq_length()
        for room in layer.room if targets else ():
            room[targets, :, :held] = room[sources, :, :held]
        layer.show(len(numbers), held)


def copy_rows(cache: Cache, numbers: Sequence[int]) -> DynamicCache:
    """Return a cache of its own that holds these rows of a batch."""
    twin = DynamicCache()
    for number, layer in enumerate(cache.layers):
        twin.update(layer.keys[numbers], layer.values[numbers], number)
    return twin


def count_column_bytes(cache: DynamicCache) -> int:
    """Return the bytes that one token takes in the cache, all layers together."""
    layers = [layer for layer in cache.layers if layer.keys is not None]
    return sum(2 * layer.keys[0, :, 0].numel() * layer.keys.element_size() for layer in layers)
