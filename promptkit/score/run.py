"""Sheets into what the model writes on them and how likely it finds each choice, by one network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from promptkit.cost import shape_of
from promptkit.models import Model
from promptkit.score.forward import Network
from promptkit.score.generate import generate
from promptkit.score.likelihood import Usage, Way, prepare_scoring, run_scoring
from promptkit.score.probe import choose_way
from promptkit.score.sheets import Sheet, join_choices, list_sequences
from promptkit.score.tree import build_tree


def run_sheets(
    model: Model,
    sheets: Sequence[Sheet],
    *,
    chat: bool,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Usage, str | None]:
    """Fill in what is written and the choices' log-likelihoods; return what that took, and what there is to note.

    Raises ModelError where the tokenizer does not fit the network, or the network is not causal.
    """
    network, usage, bar = Network(model), Usage(shape_of(model.network)), _Bar(sheets, progress)
    sequences = list_sequences(sheets)
    network.check_ids(sequences)
    longest = max((sheet.length for sheet in sheets), default=0)
    with network.evaluating():
        way, note = choose_way(network, build_tree(sequences)[0], longest, batch_tokens)
        _write(network, way, sheets, usage, batch_tokens, bar)
        join_choices(model, [sheet for sheet in sheets if sheet.written], chat)
        _score_choices(network, way, sheets, usage, batch_tokens, bar)
    return usage, note


def _write(network: Network, way: Way, sheets: Sequence[Sheet], usage: Usage, batch_tokens: int, bar: _Bar) -> None:
    """Let the model write where it has to, and put the result behind the text of the sheet."""
    writing = [(sheet, sheet.request) for sheet in sheets if sheet.request]
    requests = [request for _, request in writing]
    written = generate(network, way, requests, usage, batch_tokens=batch_tokens, report=bar.writing)
    for (sheet, _), result in zip(writing, written, strict=True):
        sheet.written = result
        sheet.text += result.text


def _score_choices(
    network: Network, way: Way, sheets: Sequence[Sheet], usage: Usage, batch_tokens: int, bar: _Bar
) -> None:
    """Fill in the log-likelihood of every choice that is to be scored."""
    joined = [(sheet, choice) for sheet in sheets for choice in sheet.joined]
    sequences = [(choice.ids, choice.start) for _, choice in joined]
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    scoring = prepare_scoring(tree, row_of, sequences, usage, bar.scoring)
    run_scoring(network, way, scoring, batch_tokens)
    for (sheet, _), tokens in zip(joined, scoring.scores, strict=True):
        network.check_numbers(tokens)
        sheet.logprobs = (*sheet.logprobs, math.fsum(tokens))


class _Bar:
    """Turns what is written and what is scored into prompts done."""

    def __init__(self, sheets: Sequence[Sheet], progress: Callable[[int, int], None] | None) -> None:
        self.prompts, self.progress = len(sheets), progress
        self.to_write = sum(sheet.request is not None for sheet in sheets)
        self.to_score = sum(len(sheet.joined) for sheet in sheets)

    def writing(self, done: int) -> None:
        """Requests are written; where choices are scored afterwards, that is half of the work."""
        self._show(done / self.to_write * (0.5 if self.to_score else 1.0))

    def scoring(self, done: int) -> None:
        """Choices are scored."""
        before = 0.5 if self.to_write else 0.0
        self._show(before + done / self.to_score * (1.0 - before))

    def _show(self, share: float) -> None:
        if self.progress:
            self.progress(round(share * self.prompts), self.prompts)
