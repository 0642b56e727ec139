"""Token ids into their greedy continuations, what prompts share computed once."""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy
import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from promptkit.score.forward import Network, branch_cache, find_seen, keep_columns
from promptkit.score.likelihood import Report, Usage, Way
from promptkit.score.tree import Step, Tree, build_tree, lay_out, plan_steps
from promptkit.score.writing import Request, Writer, Written, find_ends


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
            rows = [row for _, step in numbered for row in range(step.first, step.last)]
            desk.write(rows, by_row, batch_tokens, finish)
        for used in [used for used in caches if last_use.get(used, -1) <= numbered[-1][0]]:
            del caches[used]


def _run_shared(network: Network, tree: Tree, step: Step, cache: DynamicCache, usage: Usage) -> DynamicCache:
    tokens = tree.rows[step.first][step.base : step.end]
    network.run_columns(tokens, numpy.arange(step.base + len(tokens)), None, cache, [])
    usage.add_tokens(len(tokens), step.base)
    return cache


class Desk:
    """Requests written side by side behind one shared prefix, in the columns of one cache.

    `places` [K] holds the position of every column in its own sequence. `seen` [N, K] says which columns each of
    the N requests in hand attends to: its own and the prefix. Finished ones make room for others.
    """

    def __init__(self, network: Network, tree: Tree, base: int, cache: DynamicCache, usage: Usage) -> None:
        self.network, self.tree, self.base, self.cache, self.usage = network, tree, base, cache, usage
        self.places = numpy.arange(base)
        self.seen = numpy.zeros((0, base), dtype=bool)
        self.writers: list[Writer] = []

    def write(
        self,
        rows: Sequence[int],
        by_row: dict[int, list[Writer]],
        capacity: int,
        finish: Callable[[Writer], None],
    ) -> None:
        """Write everything that begins with one of `rows`, in at most about `capacity` columns."""
        waiting = deque(rows)
        while waiting or self.writers:
            if waiting and self._count_columns() <= capacity * 3 / 4:  # not for every single one that is done
                self._admit(waiting, by_row, capacity)
            self._write_token(finish)
            self._drop_columns()

    def _count_columns(self) -> int:
        """The columns in use, and those that the requests in hand may still need."""
        return len(self.places) - self.base + sum(_count_left(writer) for writer in self.writers)

    def _admit(self, waiting: deque[int], by_row: dict[int, list[Writer]], capacity: int) -> None:
        """Run neighbouring rows in one pass, as many as fit, at least one where nothing is in hand."""
        room, first = capacity - self._count_columns(), waiting[0]
        last, new = first, 0
        while waiting and waiting[0] == last and new < self.network.tokens_per_pass(capacity):
            new += len(self.tree.rows[last]) - self.tree.depth_of_new(last, first, self.base)
            room -= new + sum(map(_count_left, by_row[last]))
            if room < 0 and (self.writers or last > first):
                break
            last = waiting.popleft() + 1
        if last > first:
            self._run_rows(Step(None, first, last, self.base), by_row)

    def _run_rows(self, step: Step, by_row: dict[int, list[Writer]]) -> None:
        layout = lay_out(self.tree, step)
        before, new = len(self.places), len(layout.tokens)
        self.places = numpy.concatenate([self.places, numpy.array(layout.positions, dtype=int)])
        self.seen = numpy.pad(self.seen, ((0, 0), (0, new)))
        if new:
            seen = numpy.zeros((new, len(self.places)), dtype=bool)
            seen[:, : self.base] = True
            seen[:, before:] = find_seen(layout.parents)
            self.network.run_columns(layout.tokens, self.places, seen, self.cache, [])
        for row, path, added in zip(range(step.first, step.last), layout.paths, layout.added, strict=True):
            self.usage.add_tokens(added, self.base + len(path) - added)
            for writer in by_row[row]:
                own = numpy.zeros((1, len(self.places)), dtype=bool)
                depth = len(writer.request.ids) - 1
                own[0, : min(depth, self.base)] = True
                own[0, [before + column for column in path[: max(0, depth - self.base)]]] = True
                self.seen = numpy.concatenate([self.seen, own])
                self.writers.append(writer)

    def _write_token(self, finish: Callable[[Writer], None]) -> None:
        """Write one token of every request in hand."""
        places = [len(writer.request.ids) - 1 + len(writer.ids) for writer in self.writers]
        tokens = [(writer.ids or writer.request.ids)[-1] for writer in self.writers]
        self.places = numpy.concatenate([self.places, numpy.array(places, dtype=int)])
        self.seen = numpy.hstack([self.seen, numpy.eye(len(tokens), dtype=bool)])
        logits = self.network.run_columns(tokens, self.places, self.seen, self.cache, range(len(tokens)))
        for place in places:
            self.usage.add_tokens(1, place)
        self.usage.add_reads(len(tokens))
        unfinished = []
        for index, token in enumerate(logits.float().argmax(-1).tolist()):
            if self.writers[index].add(token):
                finish(self.writers[index])
            else:
                unfinished.append(index)
        self.writers = [self.writers[index] for index in unfinished]
        self.seen = self.seen[unfinished]

    def _drop_columns(self) -> None:
        """Forget the columns of finished requests once they are the larger part."""
        needed = self.seen.any(axis=0)
        needed[: self.base] = True
        if needed.sum() - self.base < (len(needed) - self.base) / 2:
            keep_columns(self.cache, numpy.flatnonzero(needed))
            self.places, self.seen = self.places[needed], self.seen[:, needed]


def _count_left(writer: Writer) -> int:
    return writer.request.max_tokens - len(writer.ids)


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
