"""Training pairs into rows of token ids, and rows of similar length into padded batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch.utils.data import Sampler

from promptkit.errors import DataError, TrainError
from promptkit.pair import Pair
from promptkit.prompt import Message

if TYPE_CHECKING:
    from promptkit.models import Model
    from promptkit.tokens import Encoder

SORTED_BATCHES = 16  # rows are sorted by length within this many batches: little padding, still a shuffle


@dataclass(frozen=True, slots=True)
class Row:
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


class Batch(TypedDict):
    """B rows padded on the right to one length S, R targets in all.

    `ids` [B, S] int64; `attention` [B, S] int64, 1 where a token is real; `read` [B, S] bool, True where the
    network's logits are needed; `targets` [R] int64, the token to predict at each of those positions, row by
    row; `weights` [R] float32, one over (targets of the row x B): every row counts the same, and they sum to
    1.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    read: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def read_pairs(rows: Iterable[Pair | Mapping[str, Any]], *, chat: bool = False) -> list[Pair]:
    """Return training rows as pairs: pairs, rows of a data set, or plain {"prompt", "completion"} rows.

    Raises DataError, naming the row (counted from 1), where there is none, or one has no text to learn or,
    with `chat`, no messages.
    """
    pairs = [row if isinstance(row, Pair) else _pair_of(row, number) for number, row in enumerate(rows)]
    if not pairs:
        raise DataError('no training pairs: expected at least one row {"prompt": text, "completion": text}')
    for number, pair in enumerate(pairs, 1):
        where = f"training row {number} (id {pair.id!r})"
        if not pair.completion:
            raise DataError(f"{where}: the completion is empty: expected at least one character to learn")
        if chat and not pair.messages:
            raise DataError(f"{where}: no messages: build the pairs with chat=True, or train on plain text")
    return pairs


def encode_pairs(model: Model, pairs: Sequence[Pair], *, chat: bool = False) -> list[Row]:
    """Encode pairs exactly as the scorer encodes a prompt with one of its choices; nothing is ever cut.

    A completion that is one of its pair's `choices` ends where scoring ends. Any other (free text, a chain of
    thought, a plain row) gets the end-of-text token behind it, for the model must learn where to stop.

    Raises TrainError where a pair is longer than the model's window.
    """
    texts = [_chat_texts(model.encoder, pair) if chat else (pair.prompt, pair.completion) for pair in pairs]
    end = _end(model.encoder, pairs[0].messages if chat else ())
    rows = [
        Row(joined.ids if pair.completion in pair.choices else (*joined.ids, *end), joined.start, joined.spans)
        for pair, joined in zip(pairs, model.encoder.join_all(texts, chat=chat), strict=True)
    ]
    for pair, row in zip(pairs, rows, strict=True):
        if len(row.ids) > model.window:
            raise TrainError(
                f"training pair {pair.id!r}: {len(row.ids)} tokens (prompt {row.start}, completion "
                f"{row.targets}), but model {model.name!r} takes at most {model.window}: shorten the record "
                "or the template, or choose a model with a longer window; nothing is cut silently"
            )
    return rows


def collate(rows: Sequence[Row]) -> Batch:
    """Pad rows to the longest of them. The padding is token 0 with attention 0, so no pad token is needed."""
    width = max(row.length for row in rows)
    read = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        read[number, row.start - 1 : row.length] = True  # the logits at t predict the token at t + 1
    return Batch(
        ids=torch.tensor([[*row.ids[:-1], *[0] * (width - row.length)] for row in rows]),
        attention=torch.tensor([[1] * row.length + [0] * (width - row.length) for row in rows]),
        read=read,
        targets=torch.tensor([token for row in rows for token in row.ids[row.start :]]),
        weights=torch.tensor([1 / (row.targets * len(rows)) for row in rows for _ in range(row.targets)]),
    )


class LengthSampler(Sampler[int]):
    """Row numbers in an order that puts rows of similar length into the same batch of `batch_size`.

    The order is a function of (lengths, batch size, seed, epoch) and of no global random state. A last batch
    that is not full comes last, so that consecutive slices of `batch_size` are the batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
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
        shuffle(batches)
        return chain.from_iterable(batches + unfilled)


def _pair_of(row: Mapping[str, Any], number: int) -> Pair:
    where = f"training row {number + 1}"
    if not isinstance(row, Mapping):
        raise DataError(f'{where} is a {type(row).__name__}: expected a Pair or {{"prompt": text, "completion": text}}')
    for name in ("prompt", "completion"):
        if not isinstance(row.get(name), str):
            found = f"is {row[name]!r}" if name in row else f"is missing, found {', '.join(map(str, row))}"
            raise DataError(f"{where}: {name!r} {found}: expected text")
    turns = row.get("messages") or ()
    if not all(isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in turns):
        raise DataError(f"{where}: 'messages' is {turns!r}: expected a list of objects with role and content")
    return Pair(
        id=str(row.get("id", number)),
        prompt=row["prompt"],
        completion=row["completion"],
        label=row.get("label"),
        messages=tuple(Message(turn["role"], turn["content"]) for turn in turns),
        demonstration_ids=tuple(row.get("demonstration_ids") or ()),
        template=row.get("template") or "",
        template_hash=row.get("template_hash") or "",
        task=row.get("task") or "",
        choices=tuple(row.get("choices") or ()),
    )


def _slices(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def _chat_texts(encoder: Encoder, pair: Pair) -> tuple[str, str]:
    return encoder.chat_prefix(pair.messages), encoder.chat_completion(pair.messages, pair.completion)


def _end(encoder: Encoder, messages: Sequence[Message]) -> tuple[int, ...]:
    """The token that ends an answer: the EOS or, after chat messages, what ends the assistant's turn."""
    tokenizer = encoder.tokenizer
    ids = (tokenizer.eos_token_id,)
    if messages:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        turn = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "answer"}], tokenize=False)
        special = set(tokenizer.all_special_ids)
        tail = encoder.encode(turn.rpartition("answer")[2], chat=True)
        ids = (*(token for token in tail if token in special), *ids)
    return tuple(token for token in ids if token is not None)[:1]
