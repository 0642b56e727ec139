"""Score what may follow the texts of a batch, from the KV caches that they were written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy
import torch
from transformers import Cache

from promptkit.models.tokens import Joined, count_shared
from promptkit.scoring.decoding_state import DecodingState
from promptkit.scoring.forward import Network, find_seen
from promptkit.scoring.kv_cache import copy_rows
from promptkit.scoring.log_likelihood import Usage
from promptkit.scoring.prefix_tree import TreeLayout, TreeStep, build_tree, lay_out


class ContinuationScorer(Protocol):
    """Says what is to be scored behind texts that were just written, and takes the scores."""

    def join(self, writers: Sequence[DecodingState]) -> list[list[Joined]]:
        """Return, per text, the joint encodings of the prompt, the text and what follows it."""

    def take(self, writer: DecodingState, scores: Sequence[Sequence[float]]) -> None:
        """Take the log-likelihood (nats) of every scored token of what follows a text."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """What follows the texts of one row of a batch, from the depth on at which it leaves the row's tokens.

    `owners` are the row's texts, each with what follows it. `reads` are the (column, token) whose log-likelihoods
    are wanted, in the order of the owners.
    """

    row: int
    base: int
    layout: TreeLayout
    owners: Sequence[tuple[DecodingState, Sequence[Joined]]]
    reads: Sequence[tuple[int, int]]


def score_continuations(
    network: Network,
    rows: Sequence[tuple[int, Sequence[DecodingState]]],
    places: numpy.ndarray,
    cache: Cache,
    usage: Usage,
    continuation: ContinuationScorer,
    tokens_per_pass: int,
) -> None:
    """Score what follows the finished texts of some rows of a batch; the batch stays as it is.

    rows: the number of each row, and its texts. places: [N, K] the position of every column of the batch's N
    rows, -1 where it is padding.
    """
    joined = iter(continuation.join([writer for _, row in rows for writer in row]))
    owned = [(number, [(writer, next(joined)) for writer in row]) for number, row in rows]
    branches = [_lay_branch(number, owners) for number, owners in owned if any(found for _, found in owners)]
    branches.sort(key=lambda branch: len(branch.layout.tokens))
    while branches:
        columns, count = len(branches[-1].layout.tokens), 1
        while count < len(branches) and columns * (count + 1) <= tokens_per_pass:
            count += 1
        _read_branches(network, branches[-count:], places, cache, usage, continuation)
        del branches[-count:]


def _lay_branch(row: int, owners: Sequence[tuple[DecodingState, Sequence[Joined]]]) -> _Branch:
    pairs = [(writer, joined) for writer, found in owners for joined in found]
    # the token before the first that is scored is run once more: what it predicts is read, and was not kept
    base = min(min(count_shared(joined.ids, writer.tokens), joined.start - 1) for writer, joined in pairs)
    tree, row_of = build_tree([joined.ids[base:-1] for _, joined in pairs])
    layout = lay_out(tree, TreeStep(None, 0, len(tree.rows), 0))
    reads = [
        (layout.paths[path][at - 1 - base], joined.ids[at])
        for path, (_, joined) in zip(row_of, pairs, strict=True)
        for at in range(joined.start, len(joined.ids))
    ]
    return _Branch(row, base, layout, owners, reads)


def _read_branches(
    network: Network,
    branches: Sequence[_Branch],
    places: numpy.ndarray,
    cache: Cache,
    usage: Usage,
    continuation: ContinuationScorer,
) -> None:
    """Run the branches side by side, each behind its row's columns above its `base`."""
    length = max(len(branch.layout.tokens) for branch in branches)
    tokens = numpy.zeros((len(branches), length), dtype=int)
    new = numpy.full((len(branches), length), -1)
    own = numpy.tile(numpy.eye(length, dtype=bool), (len(branches), 1, 1))  # padding attends to itself: no NaN
    for at, branch in enumerate(branches):
        count = len(branch.layout.tokens)
        tokens[at, :count] = branch.layout.tokens
        new[at, :count] = numpy.array(branch.layout.positions) + branch.base
        own[at, :count, :count] = find_seen(branch.layout.parents)
        for path, added in zip(branch.layout.paths, branch.layout.added, strict=True):
            usage.add_tokens(added, branch.base + len(path) - added)
        usage.add_reads(len({column for column, _ in branch.reads}))
    rows = [branch.row for branch in branches]
    old = places[rows]
    bases = numpy.array([branch.base for branch in branches])[:, None]
    before = numpy.broadcast_to(((old >= 0) & (old < bases))[:, None], (len(branches), length, old.shape[1]))
    read = sorted({column for branch in branches for column, _ in branch.reads})
    seen, all_places = numpy.concatenate([before, own], axis=2), numpy.hstack([old, new])
    logits = network.run_batch(tokens, all_places, copy_rows(cache, rows), seen, read).float()
    values = iter(_take_values(logits, {column: at for at, column in enumerate(read)}, branches))
    for branch in branches:
        for writer, joined in branch.owners:
            continuation.take(writer, [list(islice(values, len(each.ids) - each.start)) for each in joined])


def _take_values(logits: torch.Tensor, index: dict[int, int], branches: Sequence[_Branch]) -> list[float]:
    """Return the log-likelihood of every wanted token, branch by branch, from logits [N, R, V]."""
    wanted = [(row, index[column], token) for row, branch in enumerate(branches) for column, token in branch.reads]
    rows, columns, tokens = (list(part) for part in zip(*wanted, strict=True))
    return (logits[rows, columns, tokens] - logits.logsumexp(-1)[rows, columns]).tolist()
