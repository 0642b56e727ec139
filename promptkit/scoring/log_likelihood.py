"""Compute the log-likelihood of every token that is to be scored; what sequences share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch

from promptkit.costs.flops import Shape, forward_flops
from promptkit.scoring.forward import Network
from promptkit.scoring.kv_path import PathCache
from promptkit.scoring.memory_budget import count_columns, plan_within
from promptkit.scoring.prefix_tree import Tokens, Tree, TreeLayout, TreeStep, lay_out

Report = Callable[[int], None]


class ExecutionMode(Enum):
    """How a network is run: along the prefix tree, in batches of whole rows, or one row at a time."""

    TREE = "tree"
    BATCHES = "batches"
    ALONE = "alone"


@dataclass(slots=True)
class Usage:
    """What was run through a network so far: tokens without padding, and the FLOPs they took.

    `unique` is the number of tokens in the prefix tree of all that was asked for: the least that could be run.
    """

    shape: Shape
    tokens: int = 0
    flops: float = 0.0
    unique: int = 0

    def add_tokens(self, new: int, cached: int = 0) -> None:
        """Count `new` tokens of one sequence after `cached` ones; the head is counted by `add_reads`."""
        self.tokens += new
        self.flops += forward_flops(self.shape, new, cached, read=0)

    def add_reads(self, count: int) -> None:
        """Count `count` positions at which the head was applied."""
        self.flops += forward_flops(self.shape, 0, read=count)


@dataclass(frozen=True, slots=True)
class Read:
    """The log-likelihood of `token` after the token at `depth` of a row; it goes to `scores[sequence][place]`."""

    depth: int
    token: int
    sequence: int
    place: int


@dataclass(slots=True)
class Scoring:
    """Rows to be run, what is to be read along each of them, and what was read so far (nats)."""

    tree: Tree
    reads: list[list[Read]]
    scores: list[list[float]]
    usage: Usage
    report: Report | None = None
    done: int = field(default=0)

    def finish_rows(self, first: int, last: int) -> None:
        """Report that everything along `rows[first:last]` is read."""
        self.done += sum(read.place == 0 for row in range(first, last) for read in self.reads[row])
        if self.report:
            self.report(self.done)


def prepare_scoring(
    tree: Tree,
    row_of: Sequence[int],
    sequences: Sequence[tuple[Tokens, int]],
    usage: Usage,
    report: Report | None = None,
) -> Scoring:
    """Return the scoring of `sequences`, each its ids and the place of the first that is scored.

    row_of: the row of the tree that holds the ids but the last, which is never run.
    """
    reads: list[list[Read]] = [[] for _ in tree.rows]
    for sequence, (row, (ids, start)) in enumerate(zip(row_of, sequences, strict=True)):
        reads[row] += [Read(at - 1, ids[at], sequence, at - start) for at in range(start, len(ids))]
    scores = [[0.0] * (len(ids) - start) for ids, start in sequences]
    return Scoring(tree, reads, scores, usage, report)


def run_scoring(network: Network, way: ExecutionMode, scoring: Scoring, batch_tokens: int) -> None:
    """Fill in the scores, the given way, within the network's budget of memory.

    No pass has more than `batch_tokens` tokens, or takes more memory, unless one row alone does.
    """
    if way is ExecutionMode.TREE:
        reads = [len({read.depth for read in row}) for row in scoring.reads]
        tokens = network.tokens_per_pass(batch_tokens)
        run_steps(network, scoring, plan_within(scoring.tree, reads, tokens, network.footprint, network.budget))
    else:
        run_batches(network, scoring, batch_tokens if way is ExecutionMode.BATCHES else 0)


def run_steps(network: Network, scoring: Scoring, steps: Sequence[TreeStep]) -> None:
    """Run planned steps in their order, depth first: what a step continues is still in the one cache."""
    room = max((step.base + count_columns(scoring.tree, step) for step in steps), default=0)
    cache = PathCache(room) if any(step.end is not None for step in steps) else None
    for step in steps:
        if cache is not None:
            cache.rewind(step.base)
        _read_step(network, scoring, step, lay_out(scoring.tree, step), cache)
        if step.end is None:
            scoring.finish_rows(step.first, step.last)


def run_batches(network: Network, scoring: Scoring, batch_tokens: int) -> None:
    """Run whole rows, nothing shared, in padded batches of rows of similar length.

    A batch has at most `batch_tokens` tokens, padding included, and fits the budget; 0 runs every row alone.
    """
    rows = scoring.tree.rows
    order = sorted((row for row in range(len(rows)) if scoring.reads[row]), key=lambda row: len(rows[row]))
    batch: list[int] = []
    read: set[int] = set()
    for row in order:
        depths = {each.depth for each in scoring.reads[row]}
        length, count = len(rows[row]), len(batch) + 1
        taken = network.footprint.count(length, length * count, len(read | depths) * count)
        if batch and (length * count > batch_tokens or taken > network.budget):
            _read_batch(network, scoring, batch)
            batch, read = [], set()
        batch.append(row)
        read |= depths
    if batch:
        _read_batch(network, scoring, batch)


def _read_step(network: Network, scoring: Scoring, step: TreeStep, layout: TreeLayout, cache: PathCache | None) -> None:
    rows = range(step.first, step.last)
    ends = [step.base + len(path) for path in layout.paths]
    wanted = [
        (path[read.depth - step.base], read)
        for row, path, end in zip(rows, layout.paths, ends, strict=True)
        for read in scoring.reads[row]
        if step.base <= read.depth < end
    ]
    columns = sorted({column for column, _ in wanted})
    for end, added in zip(ends, layout.added, strict=True):
        scoring.usage.add_tokens(added, end - added)
    scoring.usage.add_reads(len(columns))
    logits = network.run_pass(layout, step.base, cache, columns)
    index = {column: row for row, column in enumerate(columns)}
    _write_scores(scoring, logits, [(index[column], read) for column, read in wanted])


def _read_batch(network: Network, scoring: Scoring, rows: Sequence[int]) -> None:
    tokens = [scoring.tree.rows[row] for row in rows]
    depths = [sorted({read.depth for read in scoring.reads[row]}) for row in rows]
    logits = network.run_rows(tokens, depths)
    index = {place: at for at, place in enumerate((row, d) for row, ds in zip(rows, depths, strict=True) for d in ds)}
    for ids in tokens:
        scoring.usage.add_tokens(len(ids))
    scoring.usage.add_reads(len(index))
    _write_scores(scoring, logits, [(index[row, read.depth], read) for row in rows for read in scoring.reads[row]])
    for row in rows:
        scoring.finish_rows(row, row + 1)


def _write_scores(scoring: Scoring, logits: torch.Tensor, wanted: Sequence[tuple[int, Read]]) -> None:
    """Take the log-likelihood of every wanted token from logits [R, V], in float32 whatever their type."""
    if not wanted:
        return
    logits = logits.float()
    rows = [row for row, _ in wanted]
    values = logits[rows, [read.token for _, read in wanted]] - logits.logsumexp(-1)[rows]
    for value, (_, read) in zip(values.tolist(), wanted, strict=True):
        scoring.scores[read.sequence][read.place] = value
