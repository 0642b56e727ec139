"""Run scoring requests on one network: generate where text is wanted, score the choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from promptkit.costs.flops import shape_of
from promptkit.models import Model
from promptkit.scoring.drafts import Drafts, take_choice
from promptkit.scoring.execution_mode import ModeCheck, choose_way
from promptkit.scoring.forward import Network
from promptkit.scoring.generation import generate
from promptkit.scoring.log_likelihood import ExecutionMode, Usage, prepare_scoring, run_scoring
from promptkit.scoring.prefix_tree import build_tree
from promptkit.scoring.sampling import Sampling
from promptkit.scoring.scoring_request import ScoringRequest, list_ids, list_sequences


def run_requests(
    model: Model,
    items: Sequence[ScoringRequest],
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
    network, usage, bar = Network(model, memory), Usage(shape_of(model.network)), _Bar(items, progress)
    network.check_ids(list_ids(items))
    longest = max((item.length for item in items), default=0)
    with network.evaluating():
        verdict = choose_way(network, longest) if items else ModeCheck(ExecutionMode.TREE)
        drafts = Drafts(network, items, chat, bar.add_scored)
        requests = list(drafts.items)
        written = generate(
            network,
            verdict.way,
            requests,
            usage,
            batch_tokens=batch_tokens,
            sampling=sampling,
            continuation=drafts,
            report=bar.writing,
        )
        drafts.put(dict(zip(requests, written, strict=True)))
        _score_choices(network, verdict.way, items, usage, batch_tokens, bar)
    if requests:
        usage.unique = build_tree(list_sequences(items))[0].unique_tokens
    return usage, verdict.notes


def _score_choices(
    network: Network, way: ExecutionMode, items: Sequence[ScoringRequest], usage: Usage, batch_tokens: int, bar: _Bar
) -> None:
    """Fill in the log-likelihood of every choice that is to be scored."""
    joined = [(item, choice) for item in items if not item.token_logprobs for choice in item.joined]
    sequences = [(choice.ids, choice.start) for _, choice in joined]
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    usage.unique = tree.unique_tokens
    scoring = prepare_scoring(tree, row_of, sequences, usage, bar.scoring)
    run_scoring(network, way, scoring, batch_tokens)
    for (item, _), tokens in zip(joined, scoring.scores, strict=True):
        take_choice(network, item, tokens)


class _Bar:
    """Turns what is written and what is scored into prompts done; where there is both, each is half of the work."""

    def __init__(self, items: Sequence[ScoringRequest], progress: Callable[[int, int], None] | None) -> None:
        self.prompts, self.progress = len(items), progress
        self.to_write = len({item.request for item in items if item.request})
        self.to_score = sum(len(item.joined) for item in items)
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
