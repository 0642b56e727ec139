"""Decode several texts side by side: each row of a batch stands for all that are the same so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from transformers import Cache, DynamicCache

from promptkit.scoring.continuation_scorer import ContinuationScorer, score_continuations
from promptkit.scoring.decoding_state import DecodingState
from promptkit.scoring.forward import Network, branch_cache, find_seen
from promptkit.scoring.kv_cache import count_column_bytes, gather_rows, move_rows
from promptkit.scoring.log_likelihood import Usage
from promptkit.scoring.prefix_tree import Tree, TreeStep, lay_out, pack_rows
from promptkit.scoring.sampling import Sampling, draw_tokens

_CACHE_BYTES = 2**28  # of the batch that is being written, and of the prompts that wait: 256 MiB each
_GOING_ON = 3 / 4  # of the rows, at which the finished ones are dropped


@dataclass(frozen=True, slots=True)
class _Ready:
    """Requests of the same tokens, and the columns of a cache that hold all of these but the last."""

    writers: list[DecodingState]
    cache: DynamicCache
    columns: list[int]

    @property
    def max_tokens(self) -> int:
        """The most tokens that may be written."""
        return max(writer.request.max_tokens for writer in self.writers)


class BatchDecoder:
    """Requests written side by side behind one shared prefix of `base` tokens.

    A row of the batch holds the requests whose tokens are the same so far: at first all samples of a prompt,
    which part where they draw different tokens. `places` [N, K] is the position of every column of the N rows'
    cache, -1 where it is padding. Finished rows stay until a quarter of the rows are; then what follows their
    texts is scored from their caches, many side by side, and they go.
    """

    def __init__(
        self,
        network: Network,
        usage: Usage,
        sampling: Sampling | None,
        continuation: ContinuationScorer | None,
        finish: Callable[[DecodingState], None],
        tokens_per_pass: int,
    ) -> None:
        self.network, self.usage, self.sampling, self.continuation = network, usage, sampling, continuation
        self.finish, self.tokens_per_pass = finish, tokens_per_pass
        self.rows: list[list[DecodingState]] = []
        self.places = numpy.zeros((0, 0), dtype=int)
        self.cache = Cache(layers=[])

    def write(
        self, tree: Tree, rows: range, base: int, prefix: DynamicCache, by_row: Mapping[int, Sequence[DecodingState]]
    ) -> None:
        """Write everything that begins with one of `rows`, as much at a time as the memory for it allows.

        prefix: the cache of the `base` tokens that the rows share.
        """
        waiting: list[_Ready] = []
        columns = 0
        for step in pack_rows(tree, rows.start, rows.stop, base, self.tokens_per_pass):
            cache, ready = self._run_prompts(tree, step, prefix, by_row)
            waiting += ready
            columns += base + sum(len(each.columns) - base for each in ready)
            bytes_ = min(_CACHE_BYTES, self.network.budget // 4)
            room = max(1, bytes_ // max(1, count_column_bytes(cache)))
            if columns >= room or step.last == rows.stop:
                for batch in self._cut_batches(waiting, room):
                    self._write_batch(batch)
                waiting, columns = [], 0

    def _run_prompts(
        self, tree: Tree, step: TreeStep, prefix: DynamicCache, by_row: Mapping[int, Sequence[DecodingState]]
    ) -> tuple[DynamicCache, list[_Ready]]:
        """Run the own tokens of a step's rows in one packed pass."""
        cache, layout, base = branch_cache(prefix), lay_out(tree, step), step.base
        if layout.tokens:
            places = numpy.concatenate([numpy.arange(base), numpy.array(layout.positions, dtype=int)])
            seen = numpy.ones((len(layout.tokens), len(places)), dtype=bool)
            seen[:, base:] = find_seen(layout.parents)
            self.network.run_columns(layout.tokens, places, seen, cache, [])
        ready = []
        for row, path, added in zip(range(step.first, step.last), layout.paths, layout.added, strict=True):
            self.usage.add_tokens(added, base + len(path) - added)
            columns = [*range(base), *(base + column for column in path)]
            prompts: dict[tuple[int, ...], list[DecodingState]] = {}
            for writer in by_row[row]:
                prompts.setdefault(writer.request.ids, []).append(writer)
            ready += [_Ready(writers, cache, columns[: len(ids) - 1]) for ids, writers in prompts.items()]
        return cache, ready

    def _cut_batches(self, waiting: Sequence[_Ready], room: int) -> Iterator[list[_Ready]]:
        """Yield batches of prompts of similar length, of at most `room` columns however long the texts become."""
        batch: list[_Ready] = []
        for ready in sorted(waiting, key=lambda each: len(each.columns)):
            rows, columns = _measure([*batch, ready])
            if batch and (rows * columns > room or rows > self.tokens_per_pass):
                yield batch
                batch = []
            batch.append(ready)
        yield batch

    def _write_batch(self, batch: Sequence[_Ready]) -> None:
        self.rows = [ready.writers for ready in batch]
        self.cache = gather_rows([(ready.cache, ready.columns) for ready in batch], *_measure(batch))
        lengths = numpy.array([len(ready.columns) for ready in batch])
        columns = numpy.arange(lengths.max())[None]
        self.places = numpy.where(columns < lengths[:, None], columns, -1)
        while self.rows:
            self._write_token()

    def _write_token(self) -> None:
        """Write one token of every request that is not finished."""
        going_on = [[writer for writer in row if writer.written is None] for row in self.rows]
        leads = [row[0] if row else None for row in going_on]
        tokens = [(lead.ids or lead.request.ids)[-1] if lead else 0 for lead in leads]
        places = [len(lead.request.ids) + len(lead.ids) - 1 if lead else -1 for lead in leads]
        self.places = numpy.hstack([self.places, numpy.array(places, dtype=int)[:, None]])
        logits = self.network.run_batch(numpy.array(tokens)[:, None], self.places, self.cache)[:, 0]
        following, parted = [], []
        for number, (row, drawn) in enumerate(zip(going_on, self._draw(logits, going_on), strict=True)):
            branches: dict[int, list[DecodingState]] = {}
            for writer, token in zip(row, drawn, strict=True):
                if writer.add(token):
                    self.finish(writer)
                else:
                    branches.setdefault(token, []).append(writer)
            if row:
                self.usage.add_tokens(1, places[number])
                self.usage.add_reads(1)
            first, *others = branches.values() or [[]]
            following.append((number, [writer for writer in self.rows[number] if writer.written] + first))
            parted += [(number, other) for other in others]
        self._regroup([*following, *parted])

    def _draw(self, logits: torch.Tensor, rows: Sequence[Sequence[DecodingState]]) -> list[list[int]]:
        """Return the next token of every request, row by row, from logits [N, V]."""
        if self.sampling:
            return draw_tokens(logits, [[writer.number for writer in row] for row in rows], self.sampling)
        values, tokens = logits.float().max(-1)
        self.network.check_numbers(values.tolist())
        return [[token] * len(row) for token, row in zip(tokens.tolist(), rows, strict=True)]

    def _regroup(self, rows: Sequence[tuple[int, list[DecodingState]]]) -> None:
        """Make these the rows of the batch, each with the number of the row that it goes on from."""
        going_on = [(number, row) for number, row in rows if any(writer.written is None for writer in row)]
        if len(going_on) <= len(rows) * _GOING_ON:
            finished = [(number, row) for number, row in rows if all(writer.written for writer in row)]
            if self.continuation:
                score_continuations(
                    self.network, finished, self.places, self.cache, self.usage, self.continuation, self.tokens_per_pass
                )
            rows = _fill_holes(going_on)
        numbers = [number for number, _ in rows]
        if numbers != list(range(len(self.rows))):
            move_rows(self.cache, numbers)
            self.places = self.places[numbers]
        self.rows = [row for _, row in rows]


def _measure(batch: Sequence[_Ready]) -> tuple[int, int]:
    """Return the most rows and columns that a batch can come to."""
    rows = sum(len(ready.writers) for ready in batch)
    return rows, max(len(ready.columns) for ready in batch) + max(ready.max_tokens for ready in batch)


def _fill_holes(rows: Sequence[tuple[int, list[DecodingState]]]) -> list[tuple[int, list[DecodingState]]]:
    """Return rows in an order in which most stay at their number."""
    placed = dict(reversed([(number, (number, row)) for number, row in rows if number < len(rows)]))
    others = iter([(number, row) for number, row in rows if placed.get(number, (0, None))[1] is not row])
    return [placed[at] if at in placed else next(others) for at in range(len(rows))]
