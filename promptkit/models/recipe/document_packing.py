"""Pack documents into batches: rows of token ids, each token with its weight in the loss."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from promptkit.models.recipe.documents import TEXT, Document

HEAVY = 10.0
"""A row whose weights add up to more than this is scaled down: rows differ tenfold in answer tokens."""

SAMPLED = 0.12
"""Share of the tokens outside answers that enter the loss."""


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Rows of one training step.

    `ids` (rows, length) are int64 token ids; `weights` (rows, length) say how much the prediction of each token
    counts; the first token of a row is predicted by nothing and weighs 0.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


def pack_batch(
    tokenizer: Tokenizer,
    draw: Callable[[random.Random], Document],
    rng: random.Random,
    *,
    rows: int,
    length: int,
) -> DocumentBatch:
    """A batch of rows full of whole documents; the last document of a row is cut where the row ends."""
    batch = DocumentBatch(np.zeros((rows, length), np.int64), np.zeros((rows, length), np.float32))
    for row in range(rows):
        batch.ids[row], batch.weights[row] = pack_row(tokenizer, draw, rng, length)
    return batch


def pack_row(
    tokenizer: Tokenizer, draw: Callable[[random.Random], Document], rng: random.Random, length: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Documents one after the other until `length` tokens are reached; the weights are normalised."""
    ids: list[int] = []
    weights: list[float] = []
    while len(ids) < length:
        new_ids, new_weights = encode_document(tokenizer, draw(rng), rng)
        ids += new_ids
        weights += new_weights
    row = np.asarray(weights[:length], dtype=np.float32)
    row[0] = 0.0
    return np.asarray(ids[:length], dtype=np.int64), normalise_weights(row)


def encode_document(tokenizer: Tokenizer, document: Document, rng: random.Random) -> tuple[list[int], list[float]]:
    """One joint encoding of the document; each token takes the weight of the piece its first character is in."""
    encoding = tokenizer.encode("".join(piece.text for piece in document), add_special_tokens=False)
    starts = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(encoding.ids))
    ends = np.cumsum([len(piece.text) for piece in document])
    piece_of = np.minimum(np.searchsorted(ends, starts, side="right"), len(document) - 1)
    return list(encoding.ids), [_sample(document[piece].weight, rng) for piece in piece_of]


def normalise_weights(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The row's weights, times sqrt(10 / sum) where they add up to more than 10."""
    total = float(weights.sum())
    return weights * np.float32((HEAVY / total) ** 0.5) if total > HEAVY else weights


def _sample(weight: float, rng: random.Random) -> float:
    return weight if weight != TEXT or rng.random() < SAMPLED else 0.0
