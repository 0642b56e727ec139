"""Token ids into their greedy continuations, what prompts share computed once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy
import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from promptkit.score.forward import (
    Network,
    branch_cache,
    count_column_bytes,
    find_seen,
    gather_rows,
    keep_rows,
)
from promptkit.score.likelihood import Report, Usage, Way
from promptkit.score.tree import Step, Tree, build_tree, lay_out, pack_rows, plan_steps
from promptkit.score.writing import Request, Writer, Written, find_ends

_CACHE_BYTES = 2**28  # of the batch that is being written: 256 MiB
_COLUMNS = 2**13  # of the first batch, before the size of a column is known


def generate(
    network: Network,
    way: Way,
    requests: Sequence[Request],
    usage: Usage,
    *,
    batch_tokens: int,
    report: Report | None = None,
) -> list[Written]:
    """Return what the network writes after each request, always its most likely next token.

    No writing depends on what else is written at the same time. Equal requests are written once. `report` is
    called with the number of requests done.
    """
    counts = Counter(requests)
    writers = {request: Writer(network.model, request, find_ends(network.model, request.stop)) for request in counts}
    done = 0

    def finish(writer: Writer) -> None:
        nonlocal done
        done += counts[writer.request]
        if report:
            report(done)

    if way is Way.TREE:
        _write_along_tree(network, list(writers.values()), usage, batch_tokens, finish)
    else:
        for writer in writers.values():
            _write_alone(network, writer, usage)
            finish(writer)
    return [written for request in requests if (written := writers[request].written)]


def _write_along_tree(
    network: Network,
    writers: Sequence[Writer],
    usage: Usage,
    batch_tokens: int,
    finish: Callable[[Writer], None],
) -> None:
    """Run what requests share once; write those that continue the same cache side by side."""
    tree, row_of = build_tree([writer.request.ids[:-1] for writer in writers])
    by_row: dict[int, list[Writer]] = {}
    for row, writer in zip(row_of, writers, strict=True):
        by_row.setdefault(row, []).append(writer)
    steps = plan_steps(tree, network.tokens_per_pass(batch_tokens))
    last_use = {step.parent: index for index, step in enumerate(steps)}
    caches: dict[int | None, DynamicCache] = {}
    for (parent, shared), group in groupby(enumerate(steps), key=lambda at: (at[1].parent, at[1].end is not None)):
        for index, step in (numbered := list(group)):
            if shared:
                caches[index] = _run_shared(network, tree, step, branch_cache(caches.get(parent)), usage)
        if not shared:
            desk = Desk(network, tree, numbered[0][1].base, branch_cache(caches.get(parent)), usage)
            for rows in _find_ranges([step for _, step in numbered]):
                desk.write(rows, by_row, batch_tokens, finish)
        for used in [used for used in caches if last_use.get(used, -1) <= numbered[-1][0]]:
            del caches[used]


def _find_ranges(steps: Sequence[Step]) -> list[range]:
    """Return the rows of the steps, neighbours together; rows in between have a prefix of their own to share."""
    ranges: list[range] = []
    for step in steps:
        start = ranges.pop().start if ranges and ranges[-1].stop == step.first else step.first
        ranges.append(range(start, step.last))
    return ranges


def _run_shared(network: Network, tree: Tree, step: Step, cache: DynamicCache, usage: Usage) -> DynamicCache:
    tokens = tree.rows[step.first][step.base : step.end]
    network.run_columns(tokens, numpy.arange(step.base + len(tokens)), None, cache, [])
    usage.add_tokens(len(tokens), step.base)
    return cache


class Desk:
    """Requests written side by side, each a row of one batch, behind one shared prefix of `base` tokens.

    `places` [N, K] is the position of every column of the N rows' cache, -1 where it is padding. A row whose
    request is finished stays until a quarter of the rows are, since dropping it copies the others.
    """

    def __init__(self, network: Network, tree: Tree, base: int, cache: DynamicCache, usage: Usage) -> None:
        self.network, self.tree, self.base, self.prefix, self.usage = network, tree, base, cache, usage
        self.writers: list[Writer] = []
        self.places = numpy.zeros((0, 0), dtype=int)
        self.cache = DynamicCache()

    def write(
        self, rows: range, by_row: dict[int, list[Writer]], batch_tokens: int, finish: Callable[[Writer], None]
    ) -> None:
        """Write everything that begins with one of `rows`, as much at a time as the memory for it allows."""
        first, room = rows.start, _COLUMNS
        while first < rows.stop:
            last = first + 1
            while last < rows.stop and self._count_columns(first, last + 1, by_row) <= room:
                last += 1
            self._admit(first, last, by_row, batch_tokens)
            room = max(1, _CACHE_BYTES // max(1, count_column_bytes(self.cache)))
            while any(writer.written is None for writer in self.writers):
                self._write_token(finish)
                self._drop_rows()
            first = last

    def _count_columns(self, first: int, last: int, by_row: dict[int, list[Writer]]) -> int:
        """The columns that a batch of these rows would have in the end."""
        requests = [writer.request for row in range(first, last) for writer in by_row[row]]
        return len(requests) * max(len(request.ids) + request.max_tokens for request in requests)

    def _admit(self, first: int, last: int, by_row: dict[int, list[Writer]], batch_tokens: int) -> None:
        """Run the rows' own tokens in packed passes, and lay the result out as a batch."""
        self.writers, sources, lengths = [], [], []
        for step in pack_rows(self.tree, first, last, self.base, self.network.tokens_per_pass(batch_tokens)):
            cache, layout = branch_cache(self.prefix), lay_out(self.tree, step)
            if layout.tokens:
                places = numpy.concatenate([numpy.arange(self.base), numpy.array(layout.positions, dtype=int)])
                seen = numpy.ones((len(layout.tokens), len(places)), dtype=bool)
                seen[:, self.base :] = find_seen(layout.parents)
                self.network.run_columns(layout.tokens, places, seen, cache, [])
            for row, path, added in zip(range(step.first, step.last), layout.paths, layout.added, strict=True):
                self.usage.add_tokens(added, self.base + len(path) - added)
                columns = [*range(self.base), *(self.base + column for column in path)]
                for writer in by_row[row]:
                    depth = len(writer.request.ids) - 1
                    self.writers.append(writer)
                    lengths.append(depth)
                    sources.append((cache, columns[:depth]))
        self.cache = gather_rows(sources)
        columns_of = numpy.arange(max(lengths))[None]
        self.places = numpy.where(columns_of < numpy.array(lengths)[:, None], columns_of, -1)

    def _write_token(self, finish: Callable[[Writer], None]) -> None:
        """Write one token of every request that is not finished."""
        places = [len(writer.request.ids) - 1 + len(writer.ids) for writer in self.writers]
        tokens = [(writer.ids or writer.request.ids)[-1] for writer in self.writers]
        self.places = numpy.hstack([self.places, numpy.array(places, dtype=int)[:, None]])
        logits = self.network.run_batch(tokens, self.places, self.cache)
        for writer, place, token in zip(self.writers, places, logits.float().argmax(-1).tolist(), strict=True):
            if writer.written is None:
                self.usage.add_tokens(1, place)
                self.usage.add_reads(1)
                if writer.add(token):
                    finish(writer)

    def _drop_rows(self) -> None:
        going_on = [row for row, writer in enumerate(self.writers) if writer.written is None]
        if going_on and len(going_on) <= 3 * len(self.writers) / 4:
            keep_rows(self.cache, going_on)
            self.places = self.places[going_on]
            self.writers = [self.writers[row] for row in going_on]


def _write_alone(network: Network, writer: Writer, usage: Usage) -> None:
    """Write one request with transformers' own loop, which knows every architecture's cache."""
    base = network.module.get_base_model() if hasattr(network.module, "get_base_model") else network.module
    twin = copy.copy(base)  # shares the weights; the settings below stay off the network that was passed in
    twin.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=writer.request.max_tokens,
        eos_token_id=sorted(writer.ends) or None,
        pad_token_id=0,
    )
    ids = torch.tensor([writer.request.ids], device=base.device)
    twin.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        stopping_criteria=StoppingCriteriaList([_StopWith(writer)]),
    )
    usage.add_tokens(len(writer.request.ids) + len(writer.ids) - 1)
    usage.add_reads(len(writer.ids))


class _StopWith(StoppingCriteria):
    """Hands every token to a writer, and stops when it is done."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        over = self.writer.add(int(input_ids[0, -1]))
        return torch.tensor([over], device=input_ids.device)
