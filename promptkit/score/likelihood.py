"""Token sequences into the log-likelihood of every token that is to be scored, what they share computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy
import torch
from transformers import DynamicCache

from promptkit.cost import Shape, forward_flops
from promptkit.score.forward import Network, branch_cache, find_seen, is_chain
from promptkit.score.tree import Layout, Step, Tokens, Tree, lay_out, plan_steps

Report = Callable[[int], None]


class Way(Enum):
    """How a network is run: along the prefix tree, in batches of whole rows, or one row at a time."""

    TREE = "tree"
    BATCHES = "batches"
    ALONE = "alone"


@dataclass(slots=True)
class Usage:
    """What was run through a network so far: tokens without padding, and the FLOPs they took."""

    shape: Shape
    tokens: int = 0
    flops: float = 0.0

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


def run_scoring(network: Network, way: Way, scoring: Scoring, batch_tokens: int) -> None:
    """Fill in the scores, the given way; no pass has more than `batch_tokens` tokens unless one row has."""
    if way is Way.TREE:
        run_steps(network, scoring, plan_steps(scoring.tree, network.tokens_per_pass(batch_tokens)))
    else:
        run_batches(network, scoring, batch_tokens if way is Way.BATCHES else 0)


def run_steps(network: Network, scoring: Scoring, steps: Sequence[Step]) -> None:
    """Run planned steps in their order; a cache is dropped once no later step continues it."""
    last_use = {step.parent: index for index, step in enumerate(steps)}
    caches: dict[int | None, DynamicCache] = {}
    for index, step in enumerate(steps):
        layout = lay_out(scoring.tree, step)
        parent = caches.get(step.parent)
        cache = branch_cache(parent) if parent is not None or step.end is not None else None
        _read_step(network, scoring, step, layout, cache)
        if step.end is not None:
            caches[index] = cache
        else:
            scoring.finish_rows(step.first, step.last)
        for used in [used for used in caches if last_use.get(used, -1) <= index]:
            del caches[used]


def run_batches(network: Network, scoring: Scoring, batch_tokens: int) -> None:
    """Run whole rows, nothing shared, in padded batches of rows of similar length.

    A batch has at most `batch_tokens` tokens, padding included; 0 runs every row alone.
    """
    rows = scoring.tree.rows
    order = sorted((row for row in range(len(rows)) if scoring.reads[row]), key=lambda row: len(rows[row]))
    batch: list[int] = []
    for row in order:
        if batch and len(rows[row]) * (len(batch) + 1) > batch_tokens:
            _read_batch(network, scoring, batch)
            batch = []
        batch.append(row)
    if batch:
        _read_batch(network, scoring, batch)


def _read_step(network: Network, scoring: Scoring, step: Step, layout: Layout, cache: DynamicCache | None) -> None:
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
    seen = None
    if not is_chain(layout.parents):
        prefix = numpy.ones((len(layout.tokens), step.base), dtype=bool)
        seen = numpy.hstack([prefix, find_seen(layout.parents)])
    places = numpy.concatenate([numpy.arange(step.base), numpy.array(layout.positions, dtype=int)])
    logits = network.run_columns(layout.tokens, places, seen, cache, columns)
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
