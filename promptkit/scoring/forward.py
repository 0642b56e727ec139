"""Run one network on token ids, called the way its architecture takes it."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from transformers import Cache, DynamicCache

from promptkit.costs.memory import choose_budget
from promptkit.errors import ModelError
from promptkit.models import Model, check_ids, count_embeddings
from promptkit.scoring.kv_path import PathCache
from promptkit.scoring.memory_budget import estimate_footprint
from promptkit.scoring.prefix_tree import TreeLayout
from promptkit.scoring.tree_attention import Branches, branched
from promptkit.storage.libraries import quiet_transformers

_CPU_TOKENS = 384  # per pass; on a CPU more only makes attention within the pass dearer
_BRANCH_COLUMNS = 128  # whose own attention is computed together: fewer calls, but more that no column looks at
_LOGITS = 2**28  # the most numbers that the logits of one pass may have: 1 GiB in float32
_LENGTH_DEPENDENT = ("dynamic", "longrope")  # position encodings that change with the length of the whole
_ATTENDING = {"full_attention", "sliding_attention"}


class Network:
    """A model's network with what scoring must know of it.

    `windows` maps a kind of layer to how far it looks back in tokens (None: all the way); the key None stands
    for every layer of a network whose layers are all of one kind. `unshared` says why this network cannot take
    a prefix tree; None where it may. `branches` is whether branches of a pass may attend apart (`attention.py`).
    `footprint` is what running it takes beside its weights, `budget` the bytes that may be taken for that.
    """

    def __init__(self, model: Model, memory: int | None = None) -> None:
        self.model = model
        self.module: Any = model.network
        base = self.module.get_base_model() if hasattr(self.module, "get_base_model") else self.module
        self.name = type(base).__name__
        self.config = base.config.get_text_config(decoder=True)
        self.vocabulary = count_embeddings(base)
        self.footprint = estimate_footprint(self.config, self.vocabulary, self.module.dtype.itemsize)
        self.budget = choose_budget(memory, model.device)
        self.takes = set(inspect.signature(base.forward).parameters)
        self.windows = _find_windows(self.config)
        self.unshared = self._why_unshared()
        self.branches = model.device == "cpu" and self.config._attn_implementation == "sdpa"

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
        """How many tokens of a prefix tree to run in one pass, at most `batch_tokens`, and within the budget."""
        fitting = max(1, min(batch_tokens, _LOGITS // self.vocabulary, self.budget // 4 // self.footprint.token))
        return min(fitting, _CPU_TOKENS) if self.model.device == "cpu" else fitting

    def run_columns(
        self,
        tokens: Sequence[int],
        places: numpy.ndarray,
        seen: numpy.ndarray | None,
        cache: Cache | None,
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

    def run_pass(self, layout: TreeLayout, base: int, cache: PathCache | None, read: Sequence[int]) -> torch.Tensor:
        """Return the logits [R, V] at the columns `read` of one pass of a prefix tree, `base` tokens deep in it.

        `cache` holds the `base` tokens and grows by the pass; None where there are none, and nothing is to be kept.
        """
        places = numpy.concatenate([numpy.arange(base), numpy.array(layout.positions, dtype=int)])
        chain = is_chain(layout.parents)
        if self.branches and not chain and (self.window is None or self.window > places.max()):
            branches = Branches(tuple(_cut_branches(layout.parents, self.module.dtype)))
            with branched(self.config, branches):
                return self.run_columns(layout.tokens, places, None, cache, read)
        seen = None
        if not chain:
            seen = numpy.hstack([numpy.ones((len(places) - base, base), dtype=bool), find_seen(layout.parents)])
        return self.run_columns(layout.tokens, places, seen, cache, read)

    def run_batch(
        self,
        tokens: numpy.ndarray,
        places: numpy.ndarray,
        cache: Cache,
        seen: numpy.ndarray | None = None,
        read: Sequence[int] = (0,),
    ) -> torch.Tensor:
        """Return the logits [N, R, V] at the columns `read` of C more columns of N rows, by which `cache` grows.

        tokens: [N, C]. places: [N, K] the position of every column in its own row, the new ones last; -1 marks
        padding. seen: [N, C, K] which columns each new one attends to; None where that is all but padding.
        """
        new = places[:, -tokens.shape[1] :]
        seen = (places >= 0)[:, None] if seen is None else seen
        return self._call(
            input_ids=self._tensor(tokens),
            position_ids=self._tensor(new.clip(0)),
            attention_mask=self._masks(seen, new[:, :, None] - places[:, None]),
            past_key_values=cache,
            use_cache=True,
            read=list(read),
        )

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
        check_ids(self.model, rows)

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
        if "local" in (getattr(self.config, "attention_layers", None) or ()):  # GPT-Neo
            return f"{self.name} counts columns, not positions, in its local layers"
        return None


def branch_cache(cache: DynamicCache | None) -> DynamicCache:
    """Return a cache that holds the same and grows on its own; the tensors are shared, not copied."""
    twin = DynamicCache()
    if cache is not None:
        twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


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


def _cut_branches(parents: Sequence[int], dtype: torch.dtype) -> Iterator[tuple[int, int, torch.Tensor | None]]:
    """Yield the columns (first, last, mask) that see nothing of one another, small branches together."""
    roots = [column for column, parent in enumerate(parents) if parent < 0]
    start = 0
    for root, following in zip(roots, [*roots[1:], len(parents)], strict=True):
        if root > start and following - start > _BRANCH_COLUMNS:
            yield start, root, _branch_mask(parents[start:root], start, dtype)
            start = root
    yield start, len(parents), _branch_mask(parents[start:], start, dtype)


def _branch_mask(parents: Sequence[int], start: int, dtype: torch.dtype) -> torch.Tensor | None:
    local = [max(-1, parent - start) for parent in parents]
    if is_chain(local):
        return None
    hidden = torch.from_numpy(~find_seen(local))
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)


def _find_windows(config: Any) -> dict[str | None, int | None]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return {None: window}
    return {kind: window if kind == "sliding_attention" else None for kind in dict.fromkeys(kinds)}
