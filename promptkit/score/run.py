"""Sheets into what the model writes on them and how likely it finds each choice, by one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from promptkit.cost import shape_of
from promptkit.models import Model
from promptkit.score.drafts import Drafts, take_choice
from promptkit.score.forward import Network
from promptkit.score.generate import generate
from promptkit.score.likelihood import Usage, Way, prepare_scoring, run_scoring
from promptkit.score.probe import Verdict, choose_way
from promptkit.score.sampling import Sampling
from promptkit.score.sheets import Sheet, list_ids, list_sequences
from promptkit.score.tree import build_tree


def run_sheets(
    model: Model,
    sheets: Sequence[Sheet],
    *,
    chat: bool,
    batch_tokens: int,
    memory: int | None,
    progress: Callable[[int, int], None] | None,
    sampling: Sampling | None = None,
) -> tuple[Usage, tuple[str, ...]]:
    """Fill in what is written and the choices' log-likelihoods; return what that took, and what there is to note.

    Raises ModelError where the tokenizer does not fit the network, or the network is not causal.
    """
    network, usage, bar = Network(model, memory), Usage(shape_of(model.network)), _Bar(sheets, progress)
    network.check_ids(list_ids(sheets))
    longest = max((sheet.length for sheet in sheets), default=0)
    with network.evaluating():
        verdict = choose_way(network, longest) if sheets else Verdict(Way.TREE)
        drafts = Drafts(network, sheets, chat, bar.add_scored)
        requests = list(drafts.sheets)
        written = generate(
            network,
            verdict.way,
            requests,
            usage,
            batch_tokens=batch_tokens,
            sampling=sampling,
            sequel=drafts,
            report=bar.writing,
        )
        drafts.put(dict(zip(requests, written, strict=True)))
        _score_choices(network, verdict.way, sheets, usage, batch_tokens, bar)
    if requests:
        usage.unique = build_tree(list_sequences(sheets))[0].unique_tokens
    return usage, verdict.notes


def _score_choices(
    network: Network, way: Way, sheets: Sequence[Sheet], usage: Usage, batch_tokens: int, bar: _Bar
) -> None:
    """Fill in the log-likelihood of every choice that is to be scored."""
    joined = [(sheet, choice) for sheet in sheets if not sheet.token_logprobs for choice in sheet.joined]
    sequences = [(choice.ids, choice.start) for _, choice in joined]
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    usage.unique = tree.unique_tokens
    scoring = prepare_scoring(tree, row_of, sequences, usage, bar.scoring)
    run_scoring(network, way, scoring, batch_tokens)
    for (sheet, _), tokens in zip(joined, scoring.scores, strict=True):
        take_choice(network, sheet, tokens)


class _Bar:
    """Turns what is written and what is scored into prompts done; where there is both, each is half of the work."""

    def __init__(self, sheets: Sequence[Sheet], progress: Callable[[int, int], None] | None) -> None:
        self.prompts, self.progress = len(sheets), progress
        self.to_write = len({sheet.request for sheet in sheets if sheet.request})
        self.to_score = sum(len(sheet.joined) for sheet in sheets)
        self.written = self.scored = 0

    def writing(self, done: int) -> None:
        """Say that so many requests are written."""
        self.written = done
        self._show(self.scored)

    def add_scored(self, count: int) -> None:
        """Say that so many more choices are scored, behind what was written."""
        self.scored += count
        self._show(self.scored)

    def scoring(self, done: int) -> None:
        """Say that so many of the other choices are scored."""
        self._show(self.scored + done)

    def _show(self, scored: int) -> None:
        shares = [done / total for done, total in ((self.written, self.to_write), (scored, self.to_score)) if total]
        if self.progress:
            self.progress(round(self.prompts * sum(shares) / len(shares)), self.prompts)
