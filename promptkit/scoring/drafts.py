"""Collect the texts that a model writes for each request, and score the choices behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from promptkit.models.tokens import Joined
from promptkit.scoring.decoding_state import DecodingState, GenerationRequest, Written
from promptkit.scoring.forward import Network
from promptkit.scoring.scoring_request import ScoringRequest, join_choices, list_ids


class Drafts:
    """Requests by what is to be generated for them; equal ones are generated once. A `ContinuationScorer`.

    `report` is called with the number of choices that were scored.
    """

    def __init__(
        self, network: Network, items: Sequence[ScoringRequest], chat: bool, report: Callable[[int], None]
    ) -> None:
        self.network, self.chat, self.report = network, chat, report
        self.items: dict[GenerationRequest, list[ScoringRequest]] = {}
        for item in items:
            if item.request:
                self.items.setdefault(item.request, []).append(item)

    def put(self, texts: Mapping[GenerationRequest, Written]) -> None:
        """Put each text behind that of its requests, and encode the choices behind it."""
        changed = []
        for request, written in texts.items():
            for item in self.items[request]:
                if item.written is None:
                    item.written = written
                    item.text += written.text
                    changed.append(item)
        join_choices(self.network.model, changed, self.chat)
        self.network.check_ids(list_ids(changed))

    def join(self, writers: Sequence[DecodingState]) -> list[list[Joined]]:
        """Return, per text, the joint encodings of its requests' choices behind it."""
        self.put({writer.request: writer.written for writer in writers if writer.written})
        return [[joined for item in self.items[writer.request] for joined in item.joined] for writer in writers]

    def take(self, writer: DecodingState, scores: Sequence[Sequence[float]]) -> None:
        """Take the log-likelihoods (nats) of the tokens of the choices that `join` returned."""
        values = iter(scores)
        for item in self.items[writer.request]:
            for tokens in islice(values, len(item.joined)):
                take_choice(self.network, item, tokens)
        self.report(len(scores))


def take_choice(network: Network, item: ScoringRequest, tokens: Sequence[float]) -> None:
    """Put the log-likelihoods (nats) of the next choice's tokens on its request; ModelError for NaN."""
    network.check_numbers(tokens)
    item.token_logprobs = (*item.token_logprobs, tuple(tokens))
