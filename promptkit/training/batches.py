"""Encode training pairs as token ids with their loss mask, and batch rows of similar length."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch.utils.data import Sampler

from promptkit.errors import DataError, TrainError
from promptkit.export.formats import check_pair, pair_from_row
from promptkit.models import check_ids
from promptkit.prompts.pair import Pair
from promptkit.prompts.prompt import place_system

if TYPE_CHECKING:
    from promptkit.models import Model
    from promptkit.models.tokens import Encoder
    from promptkit.training.packing import PackedLayout

SORTED_BATCHES = 16  # rows are sorted by length within this many batches: little padding, still a shuffle


@dataclass(frozen=True, slots=True)
class TokenRow:
    """The token ids of one pair; `ids[start:]` is the completion, the only part with a loss.

    `spans` is true where a token crosses the join of prompt and completion; it belongs to the completion.
    """

    ids: tuple[int, ...]
    start: int
    spans: bool = False

    @property
    def length(self) -> int:
        """How many tokens the network reads: all but the last, which is only ever a target."""
        return len(self.ids) - 1

    @property
    def targets(self) -> int:
        """How many tokens have a loss."""
        return len(self.ids) - self.start


class Targets(TypedDict):
    """What a batch is to predict, see `Batch`."""

    targets: torch.Tensor
    weights: torch.Tensor


class Batch(Targets):
    """B rows, R targets in all: padded on the right to one length S, or packed into one row of S tokens.

    `ids` [B or 1, S] int64; `attention` [B, S] int64, 1 where a token is real, None where packed; `positions`
    [1, S] int64, the place of each token in its own row, and `layout`, what belongs together: None where padded.
    `loss_mask` [B or 1, S] bool, True where the network's logits are needed; `targets` [R] int64, the token to predict
    at each of those positions, row by row; `weights` [R] float32, one over (targets of the row x B): every row
    counts the same, and they sum to 1.
    """

    ids: torch.Tensor
    attention: torch.Tensor | None
    positions: torch.Tensor | None
    layout: PackedLayout | None
    loss_mask: torch.Tensor


def read_pairs(rows: Iterable[Pair | Mapping[str, Any]], *, chat: bool = False, system: str = "system") -> list[Pair]:
    """Return training rows as pairs: pairs, or rows in any form that `promptkit.export.formats` reads.

    Raises DataError, naming the row (counted from 1), where there is none, or one has no text to learn or,
    with `chat`, no messages. With `system` "user" the instruction is put in front of the first user's content.
    """
    pairs = []
    for number, row in enumerate(rows):
        if isinstance(row, Pair):
            check_pair(row, f"training row {number + 1}", chat=chat)
        pair = row if isinstance(row, Pair) else pair_from_row(row, number, chat=chat)
        pairs.append(pair if system == "system" else replace(pair, messages=place_system(pair.messages, system)))
    if not pairs:
        raise DataError('no training pairs: expected at least one row {"prompt": text, "completion": text}')
    return pairs


def encode_pairs(model: Model, pairs: Sequence[Pair], *, chat: bool = False) -> list[TokenRow]:
    """Encode pairs exactly as the scorer encodes a prompt with one of its choices; nothing is ever cut.

    A completion that is one of its pair's `choices` ends where scoring ends. Any other (free text, a chain of
    thought, a plain row) gets the end-of-text token behind it, for the model must learn where to stop.

    Raises TrainError where a pair is longer than the model's window, ModelError for a token without an embedding.
    """
    texts = [_chat_texts(model.encoder, pair) if chat else (pair.prompt, pair.completion) for pair in pairs]
    end = model.encoder.answer_end(pairs[0].messages if chat else ())
    rows = [
        TokenRow(joined.ids if pair.completion in pair.choices else (*joined.ids, *end), joined.start, joined.spans)
        for pair, joined in zip(pairs, model.encoder.join_all(texts, chat=chat), strict=True)
    ]
    check_ids(model, (row.ids for row in rows))
    for pair, row in zip(pairs, rows, strict=True):
        if len(row.ids) > model.window:
            raise TrainError(
                f"training pair {pair.id!r}: {len(row.ids)} tokens (prompt {row.start}, completion "
                f"{row.targets}), but model {model.name!r} takes at most {model.window}: shorten the record "
                "or the template, or choose a model with a longer window; nothing is cut silently"
            )
    return rows


def collate(rows: Sequence[TokenRow]) -> Batch:
    """Pad rows to the longest of them. The padding is token 0 with attention 0, so no pad token is needed."""
    width = max(row.length for row in rows)
    loss_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        loss_mask[number, row.start - 1 : row.length] = True  # the logits at t predict the token at t + 1
    return Batch(
        ids=torch.tensor([[*row.ids[:-1], *[0] * (width - row.length)] for row in rows]),
        attention=torch.tensor([[1] * row.length + [0] * (width - row.length) for row in rows]),
        positions=None,
        layout=None,
        loss_mask=loss_mask,
        **list_targets(rows),
    )


def list_targets(rows: Sequence[TokenRow]) -> Targets:
    """Return the targets of rows, and what each counts, in the rows' order."""
    return Targets(
        targets=torch.tensor([token for row in rows for token in row.ids[row.start :]]),
        weights=torch.tensor([1 / (row.targets * len(rows)) for row in rows for _ in range(row.targets)]),
    )


class LengthSampler(Sampler[int]):
    """Row numbers in an order that puts rows of similar length into the same batch of `batch_size`.

    The order is a function of (lengths, batch size, seeds, epoch) and of no global random state: `seed` decides
    which rows share a batch, `order_seed` (left out, the same) the sequence of the batches. A last batch that is
    not full comes last, so that consecutive slices of `batch_size` are the batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, order_seed: int | None = None) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.order_seed = seed if order_seed is None else order_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of one epoch; the data loader calls this before every pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        shuffle = random.Random(f"{self.seed}:batches:{self.epoch}").shuffle
        order = list(range(len(self.lengths)))
        shuffle(order)
        batches: list[list[int]] = []
        for stretch in _slices(order, SORTED_BATCHES * self.batch_size):
            batches += _slices(sorted(stretch, key=self.lengths.__getitem__), self.batch_size)
        unfilled = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        random.Random(f"{self.order_seed}:order:{self.epoch}").shuffle(batches)
        return chain.from_iterable(batches + unfilled)


def _slices(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def _chat_texts(encoder: Encoder, pair: Pair) -> tuple[str, str]:
    return encoder.chat_prefix(pair.messages), encoder.chat_completion(pair.messages, pair.completion)
