"""Generate text after prompts; what prompts and samples share is computed once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from promptkit.scoring.batch_decoder import BatchDecoder
from promptkit.scoring.continuation_scorer import ContinuationScorer
from promptkit.scoring.decoding_state import DecodingState, GenerationRequest, Written, find_ends
from promptkit.scoring.forward import Network, branch_cache
from promptkit.scoring.log_likelihood import ExecutionMode, Report, Usage
from promptkit.scoring.prefix_tree import Tree, TreeStep, build_tree, plan_steps
from promptkit.scoring.sampling import Sampling, draw_tokens, sample_key


def generate(
    network: Network,
    way: ExecutionMode,
    requests: Sequence[GenerationRequest],
    usage: Usage,
    *,
    batch_tokens: int,
    sampling: Sampling | None = None,
    continuation: ContinuationScorer | None = None,
    report: Report | None = None,
) -> list[Written]:
    """Return what the network writes after each request: its most likely next token each time, or a drawn one.

    No writing depends on what else is written at the same time. Equal requests are written once. Along the tree,
    what follows a text is scored from the cache that it was written with: `continuation` says what, and takes the
    scores. `report` is called with the number of requests done.
    """
    counts = Counter(requests)
    writers = {request: _open_writer(network, request, sampling) for request in counts}
    done = 0

    def finish(writer: DecodingState) -> None:
        nonlocal done
        done += counts[writer.request]
        if report:
            report(done)

    if way is ExecutionMode.TREE:
        decoder = BatchDecoder(network, usage, sampling, continuation, finish, network.tokens_per_pass(batch_tokens))
        _write_along_tree(network, list(writers.values()), usage, decoder)
    else:
        for writer in writers.values():
            _write_alone(network, writer, usage, sampling)
            finish(writer)
    return [written for request in requests if (written := writers[request].written)]


def _open_writer(network: Network, request: GenerationRequest, sampling: Sampling | None) -> DecodingState:
    key = sample_key(sampling.seed, request.ids, request.sample) if sampling else b""
    return DecodingState(network.model, request, find_ends(network.model, request.stop, request.ends), key)


def _write_along_tree(network: Network, writers: Sequence[DecodingState], usage: Usage, decoder: BatchDecoder) -> None:
    """Run what requests share once; write those that continue the same cache side by side."""
    tree, row_of = build_tree([writer.request.ids[:-1] for writer in writers])
    by_row: dict[int, list[DecodingState]] = {}
    for row, writer in zip(row_of, writers, strict=True):
        by_row.setdefault(row, []).append(writer)
    deepest = network.budget // 4 // max(1, network.footprint.column)
    steps = plan_steps(tree, decoder.tokens_per_pass, deepest)
    last_use = {step.parent: index for index, step in enumerate(steps)}
    caches: dict[int | None, DynamicCache] = {}
    for (parent, shared), group in groupby(enumerate(steps), key=lambda at: (at[1].parent, at[1].end is not None)):
        for index, step in (numbered := list(group)):
            if shared:
                caches[index] = _run_shared(network, tree, step, branch_cache(caches.get(parent)), usage)
        if not shared:
            for rows in _find_ranges([step for _, step in numbered]):
                decoder.write(tree, rows, numbered[0][1].base, branch_cache(caches.get(parent)), by_row)
        for used in [used for used in caches if last_use.get(used, -1) <= numbered[-1][0]]:
            del caches[used]


def _find_ranges(steps: Sequence[TreeStep]) -> list[range]:
    """Return the rows of the steps, neighbours together; rows in between have a prefix of their own to share."""
    ranges: list[range] = []
    for step in steps:
        start = ranges.pop().start if ranges and ranges[-1].stop == step.first else step.first
        ranges.append(range(start, step.last))
    return ranges


def _run_shared(network: Network, tree: Tree, step: TreeStep, cache: DynamicCache, usage: Usage) -> DynamicCache:
    tokens = tree.rows[step.first][step.base : step.end]
    network.run_columns(tokens, numpy.arange(step.base + len(tokens)), None, cache, [])
    usage.add_tokens(len(tokens), step.base)
    return cache


def _write_alone(network: Network, writer: DecodingState, usage: Usage, sampling: Sampling | None) -> None:
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
        logits_processor=LogitsProcessorList([_DrawWith(writer, sampling)] if sampling else []),
    )
    usage.add_tokens(len(writer.request.ids) + len(writer.ids) - 1)
    usage.add_reads(len(writer.ids))


class _DrawWith(LogitsProcessor):
    """Leaves only the token that a writer's random number draws."""

    def __init__(self, writer: DecodingState, sampling: Sampling) -> None:
        self.writer, self.sampling = writer, sampling

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        [[token]] = draw_tokens(scores, [[self.writer.number]], self.sampling)
        drawn = torch.full_like(scores, -torch.inf)
        drawn[0, token] = 0.0
        return drawn


class _StopWith(StoppingCriteria):
    """Hands every token to a writer, and stops when it is done."""

    def __init__(self, writer: DecodingState) -> None:
        self.writer = writer

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        over = self.writer.add(int(input_ids[0, -1]))
        return torch.tensor([over], device=input_ids.device)
