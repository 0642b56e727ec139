"""Token ids into next-token logits, through one network, called the way its architecture takes it."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from promptkit.errors import ModelError
from promptkit.models import Model, quiet_transformers

_CPU_TOKENS = 384  # per pass; on a CPU more only makes attention within the pass dearer
_LOGITS = 2**28  # the most numbers that the logits of one pass may have: 1 GiB in float32
_LENGTH_DEPENDENT = ("dynamic", "longrope")  # position encodings that change with the length of the whole
_ATTENDING = {"full_attention", "sliding_attention"}


class Network:
    """A model's network with what scoring must know of it.

    `windows` maps a kind of layer to how far it looks back in tokens (None: all the way); the key None stands
    for every layer of a network whose layers are all of one kind. `unshared` says why this network cannot take
    a prefix tree; None where it may.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.module: Any = model.network
        base = self.module.get_base_model() if hasattr(self.module, "get_base_model") else self.module
        self.name = type(base).__name__
        self.config = base.config.get_text_config(decoder=True)
        self.vocabulary = base.get_input_embeddings().num_embeddings
        self.takes = set(inspect.signature(base.forward).parameters)
        self.windows = _find_windows(self.config)
        self.unshared = self._why_unshared()

    @property
    def window(self) -> int | None:
        """The shortest distance that a layer looks back, None where all look back to the start."""
        return min((window for window in self.windows.values() if window), default=None)

    @property
    def length_limit(self) -> int | None:
        """The most tokens for which positions are encoded alike whatever the whole length; None: no limit."""
        rope = getattr(self.config, "rope_parameters", None) or {}
        layers = [rope] if "rope_type" in rope else list(rope.values())
        if not any(layer.get("rope_type") in _LENGTH_DEPENDENT for layer in layers if isinstance(layer, dict)):
            return None
        default = getattr(self.config, "original_max_position_embeddings", None)
        default = default or self.config.max_position_embeddings
        return min(layer.get("original_max_position_embeddings") or default for layer in layers)

    def tokens_per_pass(self, batch_tokens: int) -> int:
        """How many tokens of a prefix tree to run in one pass, at most `batch_tokens`."""
        fitting = min(batch_tokens, max(1, _LOGITS // self.vocabulary))
        return min(fitting, _CPU_TOKENS) if self.model.device == "cpu" else fitting

    def run_columns(
        self,
        tokens: Sequence[int],
        places: numpy.ndarray,
        seen: numpy.ndarray | None,
        cache: DynamicCache | None,
        read: Sequence[int],
    ) -> torch.Tensor:
        """Return the logits [R, V] at the columns `read` of one pass over C columns.

        places: [K] the position in its own sequence of every column, those in the cache first (K - C of them).
        seen: [C, K] which columns each new one attends to; None where each attends to all before it.
        `cache` grows by the C columns; None where nothing is to be kept.
        """
        new = places[len(places) - len(tokens) :]
        distance = new[:, None] - places[None]
        logits = self._call(
            input_ids=self._tensor([tokens]),
            position_ids=self._tensor(new[None]),
            attention_mask=None if seen is None else self._masks(seen[None], distance[None]),
            past_key_values=cache,
            use_cache=cache is not None,
            read=list(read) or [len(tokens) - 1],
        )
        return logits[0][: len(read)]

    def run_batch(self, tokens: Sequence[int], places: numpy.ndarray, cache: DynamicCache) -> torch.Tensor:
        """Return the logits [N, V] after one more token of every row of a batch; `cache` grows by it.

        places: [N, K] the position of every column in its own row, the new token's last; -1 marks padding.
        """
        new = places[:, -1:]
        masks = self._masks((places >= 0)[:, None], (new - places)[:, None])
        return self._call(
            input_ids=self._tensor(tokens)[:, None],
            position_ids=self._tensor(new),
            attention_mask=masks,
            past_key_values=cache,
            use_cache=True,
            read=[0],
        )[:, 0]

    def run_rows(self, rows: Sequence[Sequence[int]], read: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits [R, V] at positions `read[i]` of every row, rows in order, nothing cached.

        Rows of different lengths are padded at their ends.
        """
        length = max(map(len, rows))
        ragged = any(len(row) < length for row in rows)
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        positions = sorted({position for wanted in read for position in wanted})
        if self.length_limit is not None:
            self._call(input_ids=self._tensor([[0]]), read=[0])  # transformers keeps the longest text's frequencies
        logits = self._call(
            input_ids=self._tensor([[*row, *[0] * (length - len(row))] for row in rows]),
            attention_mask=self._tensor(mask) if ragged else None,
            use_cache=False,
            read=positions,
        )
        index = {position: column for column, position in enumerate(positions)}
        picked = [(row, index[position]) for row, wanted in enumerate(read) for position in wanted]
        return logits[[row for row, _ in picked], [column for _, column in picked]]

    def check_ids(self, rows: Iterable[Sequence[int]]) -> None:
        """Raise ModelError where the tokenizer's ids do not fit the network's embeddings."""
        highest = max((max(ids) for ids in rows if ids), default=0)
        if highest >= self.vocabulary:
            raise ModelError(
                f"model {self.model.name!r}: the tokenizer gives token id {highest}, but the network has "
                f"{self.vocabulary} embeddings: they do not belong together"
            )

    def check_numbers(self, scores: Iterable[float]) -> None:
        """Raise ModelError where a score is not a number."""
        if not all(map(math.isfinite, scores)):
            raise ModelError(
                f"model {self.model.name!r} gives scores that are not numbers in {self.model.dtype}: its weights are "
                "damaged, or too large for 16 bits (try --dtype float32)"
            )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without dropout, gradients and hints on the terminal; the network's mode is put back afterwards."""
        training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode(), quiet_transformers():
                yield
        finally:
            self.module.train(training)

    def _call(self, *, read: list[int], **inputs: Any) -> torch.Tensor:
        if "logits_to_keep" in self.takes:
            return self.module(**inputs, logits_to_keep=self._tensor(read)).logits
        return self.module(**inputs).logits[:, read]

    def _masks(self, seen: numpy.ndarray, distance: numpy.ndarray) -> Any:
        """Return what the network takes as an attention mask [N, 1, C, K]: one, or one per kind of layer.

        seen: [N, C, K] which columns each new one may attend to at all; distance: how far back each of them is.
        """
        masks = {}
        for kind, window in self.windows.items():
            near = seen & (distance < window) if window else seen
            allowed = torch.from_numpy(near).to(self.module.device)
            mask = torch.zeros(near.shape, dtype=self.module.dtype, device=self.module.device)
            masks[kind] = mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)[:, None]
        return masks.get(None, masks)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(numpy.asarray(values, dtype=numpy.int64), device=self.module.device)

    def _why_unshared(self) -> str | None:
        missing = {"position_ids", "past_key_values", "attention_mask"} - self.takes
        if missing:
            return f"{self.name} takes no {' or '.join(sorted(missing))}"
        others = {str(kind) for kind in self.windows if kind is not None} - _ATTENDING
        if others:
            return f"{self.name} has layers of kind {', '.join(sorted(others))}"
        if getattr(self.config, "attention_chunk_size", None):
            return f"{self.name} attends in chunks"
        return None


def branch_cache(cache: DynamicCache | None) -> DynamicCache:
    """Return a cache that holds the same and grows on its own; the tensors are shared, not copied."""
    twin = DynamicCache()
    if cache is not None:
        twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def gather_rows(sources: Sequence[tuple[DynamicCache, Sequence[int]]]) -> DynamicCache:
    """Return a cache of N rows, each the given columns of a one-row cache, padded at its end to the longest."""
    batch = DynamicCache()
    batch.layers = [copy.copy(layer) for layer in sources[0][0].layers]
    for number, layer in enumerate(batch.layers):
        keys, values = [], []
        for cache, columns in sources:
            index = torch.as_tensor(columns, dtype=torch.long, device=layer.keys.device)
            keys.append(cache.layers[number].keys[0].index_select(1, index).transpose(0, 1))
            values.append(cache.layers[number].values[0].index_select(1, index).transpose(0, 1))
        layer.keys = pad_sequence(keys, batch_first=True).transpose(1, 2)
        layer.values = pad_sequence(values, batch_first=True).transpose(1, 2)
    return batch


def keep_rows(cache: DynamicCache, rows: Sequence[int]) -> None:
    """Drop every row of the cache but those whose numbers are given."""
    for layer in cache.layers:
        index = torch.as_tensor(rows, dtype=torch.long, device=layer.keys.device)
        layer.keys, layer.values = layer.keys.index_select(0, index), layer.values.index_select(0, index)


def count_column_bytes(cache: DynamicCache) -> int:
    """Return the bytes that one token takes in the cache, all layers together."""
    layers = [layer for layer in cache.layers if layer.keys is not None]
    return sum(2 * layer.keys[0, :, 0].numel() * layer.keys.element_size() for layer in layers)


def is_chain(parents: Sequence[int]) -> bool:
    """Whether every column follows the one before it, so that plain causal attention is right."""
    return all(parent == column - 1 for column, parent in enumerate(parents))


def find_seen(parents: Sequence[int]) -> numpy.ndarray:
    """Return which columns [C, C] each column attends to: itself and its ancestors.

    parents: the column before each, smaller than its own number, -1 where that is the cache.
    """
    seen = numpy.eye(len(parents), dtype=bool)
    for column, parent in enumerate(parents):
        if parent >= 0:
            seen[column] |= seen[parent]
    return seen


def _find_windows(config: Any) -> dict[str | None, int | None]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return {None: window}
    return {kind: window if kind == "sliding_attention" else None for kind in dict.fromkeys(kinds)}
