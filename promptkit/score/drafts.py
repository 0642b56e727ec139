"""Sheets on which a model writes: its texts go onto them, and the choices behind the texts are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from promptkit.score.forward import Network
from promptkit.score.sheets import Sheet, join_choices, list_ids
from promptkit.score.writing import Request, Writer, Written
from promptkit.tokens import Joined


class Drafts:
    """Sheets by what is to be written on them; equal requests are written once. The `Sequel` of their texts.

    `report` is called with the number of choices that were scored.
    """

    def __init__(self, network: Network, sheets: Sequence[Sheet], chat: bool, report: Callable[[int], None]) -> None:
        self.network, self.chat, self.report = network, chat, report
        self.sheets: dict[Request, list[Sheet]] = {}
        for sheet in sheets:
            if sheet.request:
                self.sheets.setdefault(sheet.request, []).append(sheet)

    def put(self, texts: Mapping[Request, Written]) -> None:
        """Put each text behind what stands on its sheets, and encode the choices behind it."""
        changed = []
        for request, written in texts.items():
            for sheet in self.sheets[request]:
                if sheet.written is None:
                    sheet.written = written
                    sheet.text += written.text
                    changed.append(sheet)
        join_choices(self.network.model, changed, self.chat)
        self.network.check_ids(list_ids(changed))

    def join(self, writers: Sequence[Writer]) -> list[list[Joined]]:
        """Return, per text, the joint encodings of its sheets' choices behind it."""
        self.put({writer.request: writer.written for writer in writers if writer.written})
        return [[joined for sheet in self.sheets[writer.request] for joined in sheet.joined] for writer in writers]

    def take(self, writer: Writer, scores: Sequence[Sequence[float]]) -> None:
        """Take the log-likelihoods (nats) of the tokens of the choices that `join` returned."""
        values = iter(scores)
        for sheet in self.sheets[writer.request]:
            for tokens in islice(values, len(sheet.joined)):
                take_choice(self.network, sheet, tokens)
        self.report(len(scores))


def take_choice(network: Network, sheet: Sheet, tokens: Sequence[float]) -> None:
    """Put the log-likelihoods (nats) of the next choice's tokens on its sheet; ModelError where they are no numbers."""
    network.check_numbers(tokens)
    sheet.token_logprobs = (*sheet.token_logprobs, tuple(tokens))
